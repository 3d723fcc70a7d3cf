//! The keys there are: by this table they are checked, and from it `docs/CONFIG.md` is made.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Kind, Result};

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Anything but nothing: what it is meant to be is said in words.
    Text(&'static str),
    /// Upper and lower case alike.
    OneOf(&'static [&'static str]),
    /// Part of object keys or of the custom metadata.
    Name {
        max_bytes: usize,
    },
    /// A whole number, both ends included.
    Number {
        min: u64,
        max: u64,
    },
    MultipleOf {
        step: u64,
        max: u64,
    },
    PowerOfTwo {
        min: u64,
        max: u64,
    },
}

impl Allowed {
    pub fn holds(&self, text: &str) -> bool {
        let number = |fits: &dyn Fn(u64) -> bool| text.parse().is_ok_and(fits);
        match *self {
            Allowed::Text(_) => !text.is_empty(),
            Allowed::OneOf(words) => words.iter().any(|word| word.eq_ignore_ascii_case(text)),
            Allowed::Name { max_bytes } => {
                let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
                plain && (1..=max_bytes).contains(&text.len())
            }
            Allowed::Number { min, max } => number(&|n| (min..=max).contains(&n)),
            Allowed::MultipleOf { step, max } => {
                number(&|n| (step..=max).contains(&n) && n.is_multiple_of(step))
            }
            Allowed::PowerOfTwo { min, max } => number(&|n| (min..=max).contains(&n) && n.is_power_of_two()),
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowed::Text(what) => f.write_str(what),
            Allowed::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Allowed::Name { max_bytes } => write!(f, "1 to {max_bytes} of letters, digits, _ and -"),
            Allowed::Number { min, max } if min == max => write!(f, "{min}"),
            Allowed::Number { min, max: u64::MAX } => write!(f, "a whole number, {min} or more"),
            Allowed::Number { min, max } => write!(f, "a whole number from {min} to {max}"),
            Allowed::MultipleOf { step, max } => write!(f, "a multiple of {step}, up to {max}"),
            Allowed::PowerOfTwo { min, max } => write!(f, "a power of two from {min} to {max}"),
        }
    }
}

/// One key of the configuration.
#[derive(Debug)]
pub struct Setting {
    pub key: &'static str,
    /// `None` where it must be set or `doc` says what holds.
    pub default: Option<&'static str>,
    pub allowed: Allowed,
    pub required: bool,
    /// A rule for topics may hold it too.
    pub by_topic: bool,
    pub doc: &'static str,
}

/// Keys that are looked for together.
#[derive(Debug)]
pub struct Group {
    pub title: &'static str,
    pub settings: &'static [Setting],
}

const fn setting(
    key: &'static str,
    default: Option<&'static str>,
    allowed: Allowed,
    doc: &'static str,
) -> Setting {
    Setting { key, default, allowed, required: false, by_topic: false, doc }
}

const fn required(key: &'static str, allowed: Allowed, doc: &'static str) -> Setting {
    Setting { required: true, ..setting(key, None, allowed, doc) }
}

const fn by_topic(
    key: &'static str,
    default: Option<&'static str>,
    allowed: Allowed,
    doc: &'static str,
) -> Setting {
    Setting { by_topic: true, ..setting(key, default, allowed, doc) }
}

const fn at_least(min: u64) -> Allowed {
    Allowed::Number { min, max: u64::MAX }
}

/// All keys but the store's own (`varve_store::settings`), what must be set first.
pub const GROUPS: &[Group] = &[
    Group { title: "What must be set", settings: REQUIRED },
    Group { title: "What segments look like", settings: SEGMENTS },
    Group { title: "Encryption", settings: ENCRYPTION },
    Group { title: "Memory and speed", settings: MEMORY },
    Group { title: "Store and cluster", settings: STORE },
    Group { title: "The broker's process", settings: PROCESS },
];

const REQUIRED: &[Setting] = &[
    required(
        "store.url",
        Allowed::Text("a URL: file:///dir or s3://bucket/prefix"),
        "Where segments go. All brokers of a cluster use the same.",
    ),
    required(
        "cluster.id",
        Allowed::Name { max_bytes: 64 },
        "The Kafka cluster's id, the first part of all object keys: Kafka does not tell it to plug-ins. Set it once, never change it, and give no two clusters the same. `keys` is taken.",
    ),
];

const SEGMENTS: &[Setting] = &[
    by_topic(
        "compression",
        Some("none"),
        Allowed::OneOf(&["none", "zstd", "auto"]),
        "`auto` compresses a chunk only where a trial on its beginning saves a tenth. Batches that producers compressed gain nothing.",
    ),
    by_topic("compression.level", Some("1"), Allowed::Number { min: 1, max: 19 }, "zstd's level."),
    by_topic(
        "digest",
        Some("blake3"),
        Allowed::OneOf(&["blake3", "sha256", "none"]),
        "Digest of each chunk, for proofs across copies. Frames have checksums in any case.",
    ),
    by_topic(
        "chunk.size.bytes",
        Some("4194304"),
        Allowed::MultipleOf { step: 64 << 10, max: 128 << 20 },
        "Log bytes of a chunk: fetched by one request at most.",
    ),
    by_topic(
        "frame.size.bytes",
        None,
        Allowed::PowerOfTwo { min: 4 << 10, max: 1 << 20 },
        "Log bytes that are checked, sealed and compressed alone, the least that is fetched; must divide the chunk. Default: 65536 (64 KiB), or 262144 (256 KiB) where compression is on.",
    ),
    by_topic(
        "storage.class",
        None,
        Allowed::Text("the store's name of a class"),
        "Storage class of segments. Default: `s3.storage.class`. Not one that must be thawed before it is read.",
    ),
];

const ENCRYPTION: &[Setting] = &[
    by_topic(
        "encryption.enabled",
        Some("false"),
        Allowed::OneOf(&["false", "true"]),
        "AES-256-GCM of all log and index bytes. Needs `encryption.key.ring.file`.",
    ),
    setting(
        "encryption.key.ring.file",
        None,
        Allowed::Text("path of a file"),
        "JSON file of key-encryption keys (`docs/FORMAT.md`, Key ring), on every broker, readable by the broker alone. Also needed to read segments that were encrypted before.",
    ),
    setting(
        "encryption.key.period",
        Some("month"),
        Allowed::OneOf(&["day", "month", "year"]),
        "A topic gets a new data key each period (UTC). Destroying the key's record erases what the topic wrote in it.",
    ),
];

const MEMORY: &[Setting] = &[
    setting(
        "copy.memory.bytes",
        Some("134217728"),
        at_least(16 << 20),
        "Memory for copies, all together. A copy waits when it is in use.",
    ),
    setting(
        "cache.memory.bytes",
        Some("134217728"),
        at_least(16 << 20),
        "Memory for what is read: cache, read-ahead and requests under way. An eighth of it is for segments' footers.",
    ),
    setting(
        "prefetch.initial.bytes",
        Some("262144"),
        Allowed::Number { min: 0, max: 1 << 30 },
        "How much is fetched at first where a read begins in the middle of a segment. At least a frame.",
    ),
    setting(
        "prefetch.max.bytes",
        Some("67108864"),
        Allowed::Number { min: 0, max: 1 << 32 },
        "How far read-ahead grows for one reader; 0 turns it off.",
    ),
    by_topic(
        "upload.rate.bytes.per.second",
        Some("0"),
        at_least(0),
        "Limit of each copy's upload; 0 for none. A broker runs as many copies at once as `remote.log.manager.copier.thread.pool.size` says.",
    ),
    setting(
        "runtime.threads",
        Some("2"),
        Allowed::Number { min: 1, max: 256 },
        "Threads that drive requests; blocking work has threads of its own.",
    ),
];

const STORE: &[Setting] = &[
    setting(
        "store.id",
        Some("default"),
        Allowed::Name { max_bytes: varve_format::STORE_ID_MAX_BYTES },
        "Name of the store, kept in each segment's metadata. A segment written under another name is refused, so that a store in use can't be replaced unnoticed.",
    ),
    setting(
        "write.format.version",
        Some("1"),
        Allowed::Number { min: 1, max: varve_format::FORMAT_VERSION as u64 },
        "Format of new objects. After an upgrade, raise it when all brokers run the new release.",
    ),
    setting(
        "sweep.upload.age.ms",
        Some("86400000"),
        at_least(60_000),
        "Uploads of this cluster left unfinished for longer are aborted, at start and hourly. Must be longer than the slowest copy takes.",
    ),
];

const PROCESS: &[Setting] = &[
    setting(
        "log.level",
        Some("info"),
        Allowed::OneOf(&["info", "debug"]),
        "What is handed to the broker's SLF4J at most.",
    ),
    setting(
        "native.library.dir",
        None,
        Allowed::Text("path of a directory"),
        "Where the jar's native library is extracted; must allow execution. Default: `java.io.tmpdir`.",
    ),
    setting(
        "native.library.path",
        None,
        Allowed::Text("path of a file"),
        "A ready native library instead of the jar's.",
    ),
    setting(
        "broker.id",
        None,
        Allowed::Text("set by Kafka"),
        "Not to be set: Kafka hands it over. Written into each segment's footer, and part of the JMX names.",
    ),
];

/// All settings of all groups.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    GROUPS.iter().flat_map(|group| group.settings)
}

pub fn find(key: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.key == key)
}

/// Keys that a `rules.<name>.` may hold beside `topics`.
pub fn topic_keys() -> impl Iterator<Item = &'static str> {
    all().filter(|setting| setting.by_topic).map(|setting| setting.key)
}

/// Keys that [`varve_store::open`] reads and checks.
pub fn is_store_key(key: &str) -> bool {
    key.starts_with("s3.")
}

/// Refuses a key that does nothing, with the nearest one that does.
pub fn check_known(given: &BTreeMap<String, String>) -> Result<()> {
    for key in given.keys() {
        let rule = key.strip_prefix("rules.");
        let known = match rule.and_then(|rest| rest.split_once('.')) {
            Some((_, rule_key)) => rule_key == "topics" || topic_keys().any(|k| k == rule_key),
            None => find(key).is_some() || is_store_key(key),
        };
        if !known {
            let hint = match rule {
                Some(_) => format!("a rule has topics, {}", topic_keys().collect::<Vec<_>>().join(", ")),
                None => format!("did you mean {}?", nearest(key)),
            };
            return Err(Error::new(Kind::Config, format!("{key}: unknown key; {hint}")));
        }
    }
    Ok(())
}

fn nearest(key: &str) -> &'static str {
    all().map(|setting| setting.key).min_by_key(|known| strsim::levenshtein(known, key)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_once_and_defaults_are_allowed() {
        let mut keys: Vec<_> = all().map(|setting| setting.key).collect();
        keys.sort_unstable();
        assert!(keys.windows(2).all(|two| two[0] != two[1]), "{keys:?}");
        for setting in all() {
            let fine = setting.default.is_none_or(|default| setting.allowed.holds(default));
            assert!(fine, "{}={:?}: {}", setting.key, setting.default, setting.allowed);
            assert!(!is_store_key(setting.key), "{} would be taken for the store's", setting.key);
        }
    }

    #[test]
    fn what_is_allowed_has_edges() {
        let chunk = Allowed::MultipleOf { step: 64, max: 256 };
        let frame = Allowed::PowerOfTwo { min: 4, max: 16 };
        let held = |allowed: Allowed, texts: &[&'static str]| -> Vec<_> {
            texts.iter().copied().filter(|text| allowed.holds(text)).collect()
        };
        assert_eq!(held(chunk, &["0", "63", "64", "100", "256", "320", "x", ""]), ["64", "256"]);
        assert_eq!(held(frame, &["2", "4", "12", "16", "32"]), ["4", "16"]);
        assert_eq!(
            held(at_least(5), &["4", "5", "18446744073709551615", "-1"]),
            ["5", "18446744073709551615"]
        );
        assert_eq!(held(Allowed::Name { max_bytes: 3 }, &["", "a-1", "a/1", "abcd", "é"]), ["a-1"]);
        assert_eq!(held(Allowed::OneOf(&["day"]), &["Day", "days"]), ["Day"]);
    }
}
