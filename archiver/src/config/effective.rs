//! What holds after all: each key's value and where it comes from, for people to look at. Secrets are hidden.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::settings;
use super::values::{HIDDEN, Values};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    Default,
    File,
    CommandLine,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Shown {
    Text(String),
    List(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveValue {
    pub value: Shown,
    pub origin: Origin,
}

/// All that is set or has a default, in the order of the reference.
#[derive(Clone, Debug)]
pub struct Effective {
    pub sections: Vec<(&'static str, Vec<(&'static str, EffectiveValue)>)>,
}

impl Effective {
    pub(super) fn of(values: &Values, archiver_name: &str) -> Self {
        let sections = settings::SECTIONS.iter().map(|section| {
            let all = section.settings().into_iter().filter_map(|setting| {
                let name = setting.name;
                if let Some(entry) = values.entry(section.name, name) {
                    let origin = if entry.line.is_some() { Origin::File } else { Origin::CommandLine };
                    let show = |text: &str| match (section.name, name) {
                        _ if entry.hidden => HIDDEN.to_owned(),
                        ("archive", "url") => varve_store::shown_url(text),
                        _ => text.to_owned(),
                    };
                    let mut texts: Vec<_> = entry.texts.iter().map(|text| show(text)).collect();
                    let value = match setting.kind.is_list() {
                        true => Shown::List(texts),
                        false => Shown::Text(texts.pop()?),
                    };
                    return Some((name, EffectiveValue { value, origin }));
                }
                let default = match (section.name, name) {
                    ("journal", "name") => archiver_name,
                    // What goes with other stores' URLs holds for none here.
                    ("archive", _) if !goes_with_the_archive(name, values) => return None,
                    // Most of them are of other services than the one that is used.
                    ("encryption", name) if name.starts_with("kms.") => return None,
                    _ => setting.default?,
                };
                let value = match setting.kind.is_list() {
                    true => Shown::List(default_list(default)),
                    false => Shown::Text(default.to_owned()),
                };
                Some((name, EffectiveValue { value, origin: Origin::Default }))
            });
            (section.name, all.collect::<Vec<_>>())
        });
        let mut sections: Vec<_> = sections.collect();
        if !is_used(values, "encryption") {
            sections.retain(|(name, _)| *name != "encryption");
        }
        for idle in [("group", "id"), ("schema.registry", "url"), ("metrics", "listen")] {
            sections.retain(|(name, _)| *name != idle.0 || values.is_given(idle.0, idle.1));
        }
        sections.retain(|(_, all)| !all.is_empty());
        Self { sections }
    }
}

fn is_used(values: &Values, section: &'static str) -> bool {
    let all = settings::find(section).map(settings::Section::settings).unwrap_or_default();
    all.iter().any(|setting| values.is_given(section, setting.name))
}

/// Whether a setting, if it is a store's, is of the store that the archive is in.
fn goes_with_the_archive(name: &str, values: &Values) -> bool {
    let Some(scheme) = varve_store::store_of(name) else { return true };
    let url = values.text("archive", "url");
    url.is_some_and(|url| url.trim().strip_prefix(scheme).is_some_and(|rest| rest.starts_with(':')))
}

/// Of a table: `[a, b]`.
fn default_list(text: &str) -> Vec<String> {
    let inner = text.trim_start_matches('[').trim_end_matches(']');
    inner.split(", ").filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

/// As YAML that could be used again, but for what is hidden.
impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (section, all) in &self.sections {
            writeln!(f, "{section}:")?;
            for (name, EffectiveValue { value, origin }) in all {
                let value = match value {
                    Shown::Text(text) => scalar(text),
                    Shown::List(list) => {
                        format!("[{}]", list.iter().map(|text| scalar(text)).collect::<Vec<_>>().join(", "))
                    }
                };
                let comment = match origin {
                    Origin::Default => "  # default",
                    Origin::File => "",
                    Origin::CommandLine => "  # --set",
                };
                writeln!(f, "  {name}: {value}{comment}")?;
            }
        }
        Ok(())
    }
}

/// Plain where it can't be taken for anything else, else in quotes as in JSON. `${` is escaped.
fn scalar(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(safe)
        && !text.ends_with(':')
        && !text.eq_ignore_ascii_case("null");
    if plain { text.to_owned() } else { serde_json::Value::from(text.replace("${", "$${")).to_string() }
}

impl Serialize for Effective {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Entries<'a>(&'a [(&'static str, EffectiveValue)]);
        impl Serialize for Entries<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
            }
        }
        let mut map = serializer.serialize_map(Some(self.sections.len()))?;
        for (section, all) in &self.sections {
            map.serialize_entry(section, &Entries(all))?;
        }
        map.end()
    }
}
