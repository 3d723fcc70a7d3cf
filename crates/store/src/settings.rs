//! The stores' own settings as data: parsed by it, documented from it.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Kind};

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    Text,
    Url,
    Boolean,
    /// A whole number, both ends included.
    Integer {
        min: u64,
        max: u64,
    },
    Choice(&'static [&'static str]),
}

impl fmt::Display for SettingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingKind::Text => f.write_str("text"),
            SettingKind::Url => f.write_str("URL"),
            SettingKind::Boolean => f.write_str("true or false"),
            SettingKind::Integer { min, max } => write!(f, "{min} to {max}"),
            SettingKind::Choice(words) => f.write_str(&words.join(", ")),
        }
    }
}

/// One setting of a store.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    /// Of the URLs that it goes with.
    pub scheme: &'static str,
    pub kind: SettingKind,
    /// As it would be written; `None` where something outside decides, as `doc` says.
    pub default: Option<&'static str>,
    pub doc: &'static str,
    /// Never printed.
    pub secret: bool,
}

const fn s3(
    name: &'static str,
    kind: SettingKind,
    default: Option<&'static str>,
    doc: &'static str,
) -> Setting {
    Setting { name, scheme: "s3", kind, default, doc, secret: false }
}

const fn secret(setting: Setting) -> Setting {
    Setting { secret: true, ..setting }
}

const MINUTES_10_MS: u64 = 600_000;

const SETTINGS: &[Setting] = &[
    s3(
        "s3.access.key.id",
        SettingKind::Text,
        None,
        "Access key. Without it the AWS SDK's chain is asked: environment, profile, web identity, container, instance.",
    ),
    s3(
        "s3.checksum",
        SettingKind::Choice(&["crc32c", "none"]),
        Some("crc32c"),
        "Checksum sent with every body for the store to check. Buckets with object lock need one; `none` is for servers that refuse it.",
    ),
    s3(
        "s3.connect.timeout.ms",
        SettingKind::Integer { min: 1, max: MINUTES_10_MS },
        Some("5000"),
        "Longest wait for a connection.",
    ),
    s3(
        "s3.endpoint.url",
        SettingKind::Url,
        None,
        "Address of a store that is not AWS, with its scheme: `https://minio.example:9000`. Without it, AWS in the region.",
    ),
    s3(
        "s3.max.attempts",
        SettingKind::Integer { min: 1, max: 100 },
        Some("6"),
        "How often a request is sent in all before its error is reported. Only what may pass by itself is sent again: throttling, 5xx, timeouts, broken connections.",
    ),
    s3(
        "s3.part.size.bytes",
        SettingKind::Integer { min: 5 << 20, max: 5 << 30 },
        Some("16777216"),
        "Preferred size of a part of an upload.",
    ),
    s3(
        "s3.path.style",
        SettingKind::Boolean,
        None,
        "Whether the bucket stands in the path instead of the host name. Default: true with `s3.endpoint.url`, else false.",
    ),
    s3(
        "s3.profile",
        SettingKind::Text,
        None,
        "Profile of the AWS configuration files. Default: `AWS_PROFILE`, else `default`.",
    ),
    s3(
        "s3.region",
        SettingKind::Text,
        None,
        "Region of the bucket. Default: the AWS SDK's chain; `us-east-1` with `s3.endpoint.url` if that knows none.",
    ),
    secret(s3(
        "s3.secret.access.key",
        SettingKind::Text,
        None,
        "Secret key that belongs to `s3.access.key.id`.",
    )),
    secret(s3("s3.session.token", SettingKind::Text, None, "Session token of temporary keys.")),
    s3(
        "s3.sse",
        SettingKind::Choice(&["AES256", "aws:kms", "aws:kms:dsse"]),
        None,
        "Server-side encryption asked for with every write. Default: the bucket's.",
    ),
    s3("s3.sse.kms.key.id", SettingKind::Text, None, "Key of the KMS for `s3.sse`."),
    s3(
        "s3.storage.class",
        SettingKind::Text,
        None,
        "Storage class of what is written, where nothing else is said: `STANDARD_IA`, `GLACIER_IR` … Default: the bucket's.",
    ),
    s3(
        "s3.timeout.ms",
        SettingKind::Integer { min: 1, max: MINUTES_10_MS },
        Some("30000"),
        "Longest silence of the store: until an answer begins, and between two pieces of a body. Sending a body gets a second more for every 128 KiB.",
    ),
    s3(
        "s3.tls.ca.file",
        SettingKind::Text,
        None,
        "PEM file of certificate authorities to trust besides the system's.",
    ),
];

/// All settings of all stores, sorted by name.
pub fn settings() -> &'static [Setting] {
    SETTINGS
}

/// Settings of one store, each known and of its kind.
pub(crate) struct Values<'a> {
    values: BTreeMap<&'static str, &'a str>,
}

impl<'a> Values<'a> {
    pub(crate) fn parse(scheme: &str, given: &'a BTreeMap<String, String>) -> Result<Self, Error> {
        let mut values = BTreeMap::new();
        for (name, value) in given {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
                return Err(invalid(name, unknown(name)));
            };
            if setting.scheme != scheme {
                let detail = format!(
                    "belongs to stores {}://, this store's URL begins with {scheme}://",
                    setting.scheme
                );
                return Err(invalid(name, detail));
            }
            let value = value.trim();
            check(setting, value)?;
            values.insert(setting.name, value);
        }
        Ok(Self { values })
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

fn default_of(name: &str) -> Option<&'static str> {
    SETTINGS.iter().find(|setting| setting.name == name)?.default
}

pub(crate) fn invalid(name: &str, detail: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "configuration", name, detail)
}

fn check(setting: &Setting, value: &str) -> Result<(), Error> {
    let fits = match setting.kind {
        SettingKind::Text => !value.is_empty(),
        SettingKind::Url => {
            url::Url::parse(value).is_ok_and(|url| url.has_host() && url.scheme().starts_with("http"))
        }
        SettingKind::Boolean => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
        SettingKind::Integer { min, max } => value.parse::<u64>().is_ok_and(|n| (min..=max).contains(&n)),
        SettingKind::Choice(words) => words.contains(&value),
    };
    if fits {
        return Ok(());
    }
    let shown = if setting.secret { "the value".to_owned() } else { format!("{value:?}") };
    let allowed = match setting.kind {
        SettingKind::Text => "any text but an empty one".to_owned(),
        SettingKind::Url => "a URL that begins with https:// or http://".to_owned(),
        kind => kind.to_string(),
    };
    Err(invalid(setting.name, format!("{shown} is not allowed: expected {allowed}")))
}

fn unknown(name: &str) -> String {
    let distance = |known: &str| strsim::levenshtein(known, name);
    let nearest = SETTINGS.iter().map(|setting| setting.name).min_by_key(|known| distance(known));
    match nearest {
        Some(near) if distance(near) <= near.len() / 3 => format!("no such setting; did you mean {near}?"),
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
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                check(setting, default).unwrap();
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
