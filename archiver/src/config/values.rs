//! What is given, checked by the table: known keys, values of their kind, references filled in. What is wrong is
//! collected, so that a person sees all of it at once.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_kafka::client::{ClientConfig, ClientError};
use varve_store::{Setting, SettingKind, parse_bytes, parse_duration};
use zeroize::Zeroizing;

use super::document::{self, Document, Given, Text, Value};
use super::error::Flaw;
use super::settings::{self, Section};
use super::substitute::substitute;

/// What stands for a secret in anything that is printed.
pub(super) const HIDDEN: &str = "[hidden]";

/// The value of a key that was given.
#[derive(Clone)]
pub(super) struct Entry {
    /// One, but for lists.
    pub(super) texts: Vec<Text>,
    /// `None`: by `--set`.
    pub(super) line: Option<u64>,
    /// Secret by its key, or because it came from a file.
    pub(super) hidden: bool,
}

/// By section and key.
pub(super) struct Values {
    entries: BTreeMap<(&'static str, &'static str), Entry>,
    flaws: Vec<Flaw>,
    /// So many flaws, the first ones, are of single keys: what follows from one isn't another.
    of_keys: usize,
}

impl Values {
    /// `sets` count more than the file.
    pub(super) fn new(
        document: Document,
        sets: &[(String, String)],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let mut values = Self { entries: BTreeMap::new(), flaws: document.flaws, of_keys: 0 };
        for (name, line) in &document.sections {
            if settings::find(name).is_none() {
                values.flaws.push(Flaw::new(name, *line, document::unknown_section(name)));
            }
        }
        let mut all: BTreeMap<(String, String), Given> = BTreeMap::new();
        let file = document.given.into_iter().map(Ok);
        for given in file.chain(sets.iter().map(|(path, text)| document::parse_set(path, text))) {
            match given {
                Ok(given) => _ = all.insert((given.section.clone(), given.key.clone()), given),
                Err(flaw) => values.flaws.push(flaw),
            }
        }
        for given in all.into_values() {
            if let Some(section) = settings::find(&given.section) {
                values.take(section, given, env);
            }
        }
        values.of_keys = values.flaws.len();
        values
    }

    fn take(&mut self, section: &'static Section, given: Given, env: &dyn Fn(&str) -> Option<String>) {
        let key = format!("{}.{}", section.name, given.key);
        let Some(setting) = section.find(&given.key) else {
            self.flaws.push(Flaw::new(key, given.line, unknown_key(section, &given.key)));
            return;
        };
        // An empty entry keeps what follows from saying that the key is missing.
        let mut entry = Entry { texts: Vec::new(), line: given.line, hidden: setting.secret };
        let kind = setting.kind;
        let texts = match given.value {
            Value::Nothing => return,
            Value::Text(text) => vec![text],
            Value::List(list) if kind.is_list() => list,
            Value::List(_) => {
                self.flaws.push(Flaw::new(&key, given.line, format!("is a list: expected {kind}")));
                Vec::new()
            }
            Value::Other(shape) => {
                self.flaws.push(Flaw::new(&key, given.line, format!("is {shape}; expected {kind}")));
                Vec::new()
            }
        };
        let own = section.own().iter().any(|own| own.name == setting.name);
        for text in texts {
            let done = substitute(&text, env).and_then(|done| {
                entry.hidden |= done.from_file;
                let setting = Setting { secret: entry.hidden, ..setting };
                if own { checked(&setting, done.text) } else { Ok(done.text) }
            });
            match done {
                Ok(text) => entry.texts.push(text),
                Err(problem) => self.flaws.push(Flaw::new(&key, given.line, problem)),
            }
        }
        self.entries.insert((section.name, setting.name), entry);
    }

    /// Whether there is something to be read: a wrong value counts.
    pub(super) fn is_given(&self, section: &'static str, key: &'static str) -> bool {
        self.entries.contains_key(&(section, key))
    }

    pub(super) fn entry(&self, section: &'static str, key: &'static str) -> Option<&Entry> {
        self.entries.get(&(section, key))
    }

    /// Keys of a section that stand in a table of others.
    pub(super) fn of_others(&self, section: &'static str) -> Vec<(&'static str, Text)> {
        let own = settings::find(section).map(Section::own).unwrap_or_default();
        let others = self.entries.iter().filter(|((in_section, key), _)| {
            *in_section == section && own.iter().all(|setting| setting.name != *key)
        });
        others.filter_map(|((_, key), entry)| Some((*key, entry.texts.first()?.clone()))).collect()
    }

    /// The value, else the default.
    pub(super) fn text(&self, section: &'static str, key: &'static str) -> Option<Text> {
        let given = self.entry(section, key).and_then(|entry| entry.texts.first().cloned());
        let default =
            || settings::find(section)?.find(key)?.default.map(|text| Zeroizing::new(text.to_owned()));
        given.or_else(default)
    }

    pub(super) fn bytes(&self, section: &'static str, key: &'static str) -> u64 {
        self.text(section, key).and_then(|text| parse_bytes(&text)).unwrap_or_default()
    }

    pub(super) fn duration(&self, section: &'static str, key: &'static str) -> Duration {
        self.text(section, key).and_then(|text| parse_duration(&text)).unwrap_or_default()
    }

    /// Entries of a list; `None` if the key isn't given.
    pub(super) fn list(&self, section: &'static str, key: &'static str) -> Option<&[Text]> {
        self.entry(section, key).map(|entry| entry.texts.as_slice())
    }

    /// Adds what is wrong with a key's value, without what must not be printed; nothing if the value is known to be
    /// wrong by itself.
    pub(super) fn refuse(&mut self, section: &'static str, key: &str, problem: impl Into<String>) {
        let full_key = format!("{section}.{key}");
        if self.flaws.iter().take(self.of_keys).any(|flaw| flaw.key == full_key) {
            return;
        }
        let mut problem = problem.into();
        for entry in self.entries.values().filter(|entry| entry.hidden) {
            // What is shorter is no secret, and would tear other words apart.
            for text in entry.texts.iter().filter(|text| text.len() >= 4) {
                problem = problem.replace(text.as_str(), HIDDEN);
            }
        }
        let found =
            self.entries.iter().find(|((in_section, name), _)| *in_section == section && *name == key);
        let line = found.and_then(|(_, entry)| entry.line);
        self.flaws.push(Flaw::new(full_key, line, problem));
    }

    pub(super) fn is_refused(&self, section: &str, key: &str) -> bool {
        self.flaws.iter().any(|flaw| flaw.key == format!("{section}.{key}"))
    }

    pub(super) fn has_flaws(&self) -> bool {
        !self.flaws.is_empty()
    }

    /// In the file's order; what stands nowhere in it comes last.
    pub(super) fn into_flaws(mut self) -> Vec<Flaw> {
        self.flaws.sort_by_key(|flaw| flaw.line.unwrap_or(u64::MAX));
        self.flaws
    }
}

/// Of the table's kind, and in its spelling.
fn checked(setting: &Setting, text: Text) -> Result<Text, String> {
    let text = match setting.kind {
        SettingKind::Text(_) | SettingKind::List(_) => text,
        kind => Zeroizing::new(kind.canonical(text.trim()).to_owned()),
    };
    setting.check(&text).map(|()| text)
}

fn unknown_key(section: &Section, key: &str) -> String {
    if section.name == "source" {
        // The client knows more than the nearest name: what Java's keys are called here.
        return match ClientConfig::from_pairs([(key, "")]) {
            Err(ClientError::Config { problem, .. }) => problem,
            _ => "no such key".to_owned(),
        };
    }
    let all = section.settings();
    let names = || all.iter().map(|setting| setting.name);
    match varve_store::nearest(key, names()) {
        Some((near, true)) => format!("no such key; did you mean {near}?"),
        Some((near, _)) if matches!(section.name, "archive" | "encryption") => {
            format!("no such key; the nearest one is {near}")
        }
        _ => format!("no such key; there are {}", names().collect::<Vec<_>>().join(", ")),
    }
}
