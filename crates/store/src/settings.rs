//! The stores' own settings as data: parsed by it, documented from it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use crate::error::{Error, Kind};
use crate::setting::{Setting, SettingKind, nearest};

/// Text of no certain kind.
pub(crate) const TEXT: SettingKind = SettingKind::Text("text");

pub(crate) const MINUTES_10_MS: u64 = 600_000;

/// The stores that have settings: the scheme of their URLs, with which the names of their settings begin.
const STORES: &[(&str, &[Setting])] = &[
    #[cfg(feature = "azure")]
    ("az", crate::azure::SETTINGS),
    #[cfg(feature = "gcs")]
    ("gs", crate::gcs::SETTINGS),
    #[cfg(feature = "s3")]
    ("s3", crate::s3::SETTINGS),
];

static SETTINGS: LazyLock<Vec<Setting>> =
    LazyLock::new(|| STORES.iter().flat_map(|(_, settings)| settings.iter().copied()).collect());

/// Schemes of the stores that have settings, and what people call these stores.
pub const STORES_WITH_SETTINGS: &[(&str, &str)] =
    &[("az", "Azure Blob Storage"), ("gs", "Google Cloud Storage"), ("s3", "S3")];

/// All settings of all stores, sorted by name.
pub fn settings() -> &'static [Setting] {
    &SETTINGS
}

/// Whether `name` begins as the settings of a store do: that a store's setting is meant, known or not.
pub fn is_setting(name: &str) -> bool {
    STORES.iter().any(|(scheme, _)| name.strip_prefix(scheme).is_some_and(|rest| rest.starts_with('.')))
}

/// The store, by the scheme of its URLs, that a setting goes with.
pub fn store_of(name: &str) -> Option<&'static str> {
    STORES.iter().find(|(_, settings)| settings.iter().any(|s| s.name == name)).map(|(scheme, _)| *scheme)
}

/// Settings of one store, each known and of its kind.
pub(crate) struct Values<'a> {
    values: BTreeMap<&'static str, &'a str>,
}

impl<'a> Values<'a> {
    pub(crate) fn parse(scheme: &str, given: &'a BTreeMap<String, String>) -> Result<Self, Error> {
        let (values, flaws) = Self::examine(scheme, given);
        flaws.into_iter().next().map_or(Ok(values), Err)
    }

    /// What is right of them, and all that is wrong.
    pub(crate) fn examine(scheme: &str, given: &'a BTreeMap<String, String>) -> (Self, Vec<Error>) {
        let mut values = BTreeMap::new();
        let mut flaws = Vec::new();
        for (name, value) in given {
            match parse_one(scheme, name, value.trim()) {
                Ok((name, value)) => _ = values.insert(name, value),
                Err(flaw) => flaws.push(flaw),
            }
        }
        (Self { values }, flaws)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).copied()
    }

    /// The value, else the table's default. Values were checked when they were parsed.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.text(name).or_else(|| default_of(name)).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    pub(crate) fn boolean(&self, name: &str) -> Option<bool> {
        self.text(name).or_else(|| default_of(name)).map(|value| value.eq_ignore_ascii_case("true"))
    }

    pub(crate) fn word(&self, name: &str) -> Option<&'a str> {
        self.text(name).or_else(|| default_of(name))
    }
}

fn parse_one<'a>(scheme: &str, name: &str, value: &'a str) -> Result<(&'static str, &'a str), Error> {
    let setting = SETTINGS.iter().find(|setting| setting.name == name);
    let setting = setting.ok_or_else(|| invalid(name, unknown(name)))?;
    let theirs = setting.name.split('.').next().unwrap_or_default();
    if theirs != scheme {
        let detail = format!("belongs to stores {theirs}://, this store's URL begins with {scheme}://");
        return Err(invalid(name, detail));
    }
    setting.check(value).map_err(|problem| invalid(name, problem))?;
    Ok((setting.name, setting.kind.canonical(value)))
}

fn default_of(name: &str) -> Option<&'static str> {
    SETTINGS.iter().find(|setting| setting.name == name)?.default
}

pub(crate) fn invalid(name: &str, detail: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "configuration", name, detail)
}

fn unknown(name: &str) -> String {
    match nearest(name, SETTINGS.iter().map(|setting| setting.name)) {
        Some((near, true)) => format!("no such setting; did you mean {near}?"),
        _ => {
            let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            format!("no such setting; there are {}", names.join(", "))
        }
    }
}

/// A value that is never printed.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(value: &str) -> Self {
        Self(value.to_owned())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, value: &str) -> String {
        let given = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        match Values::parse("s3", &given) {
            Ok(_) => panic!("{name}={value} was accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_valid() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
        for (scheme, settings) in STORES {
            assert!(settings.iter().all(|setting| setting.name.starts_with(&format!("{scheme}."))));
        }
        for setting in SETTINGS.iter() {
            if let Some(default) = setting.default {
                setting.check(default).unwrap();
            }
        }
    }

    #[test]
    fn errors_name_key_value_and_what_is_allowed() {
        assert!(refused("s3.regoin", "x").contains("did you mean s3.region?"));
        assert!(refused("banana", "x").contains("s3.endpoint.url"));
        let text = refused("s3.timeout.ms", "soon");
        assert!(
            text.contains("s3.timeout.ms") && text.contains("soon") && text.contains("1 to 600000"),
            "{text}"
        );
        assert!(refused("s3.checksum", "md5").contains("crc32c, none"));
        assert!(refused("s3.path.style", "yes").contains("true or false"));
        let given = BTreeMap::from([("s3.region".to_owned(), "x".to_owned())]);
        assert!(Values::parse("file", &given).is_err_and(|error| error.to_string().contains("s3://")));
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("hush")), "[hidden]");
        assert!(!refused("s3.secret.access.key", " ").contains("\" \""));
    }
}
