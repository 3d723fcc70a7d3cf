//! The keys there are, with what the reference in `docs/CONFIG.md` says of each.

use std::collections::BTreeMap;

use crate::error::{Error, Kind, Result};

/// One key of the configuration.
#[derive(Debug)]
pub struct Setting {
    pub key: &'static str,
    pub default: Option<&'static str>,
    pub allowed: &'static str,
    pub doc: &'static str,
}

const fn setting(
    key: &'static str,
    default: Option<&'static str>,
    allowed: &'static str,
    doc: &'static str,
) -> Setting {
    Setting { key, default, allowed, doc }
}

/// All keys but the store's own (`varve_store::settings`).
pub const SETTINGS: &[Setting] = &[
    setting("store.url", None, "URL", "Where segments go: `file:///dir` or `s3://bucket/prefix`. Required."),
    setting(
        "store.id",
        Some("default"),
        "1 to 32 of letters, digits, _ and -",
        "Name of the store in each segment's metadata. A segment written under another name is refused, so a store in use can't be replaced unnoticed.",
    ),
    setting(
        "cluster.id",
        None,
        "1 to 64 of letters, digits, _ and -",
        "The Kafka cluster's id, the first part of all object keys. Required: Kafka does not tell it to plug-ins.",
    ),
    setting("broker.id", None, "set by Kafka", "Written into each segment's footer."),
    setting(
        "chunk.size.bytes",
        Some("4194304"),
        "a multiple of 65536, up to 134217728",
        "Log bytes of a chunk: fetched by one request at most. By topic.",
    ),
    setting(
        "frame.size.bytes",
        None,
        "a power of two from 4096 to 1048576 that divides the chunk",
        "Log bytes that are checked alone: 65536, or 262144 where compression is on. By topic.",
    ),
    setting(
        "compression",
        Some("none"),
        "none, zstd, auto",
        "`auto` compresses a chunk only where a trial on its beginning saves a tenth. Batches that producers compressed gain nothing. By topic.",
    ),
    setting("compression.level", Some("1"), "1 to 19", "zstd's level. By topic."),
    setting(
        "digest",
        Some("blake3"),
        "blake3, sha256, none",
        "Digest of each chunk, for proofs across copies; frames have checksums in any case. By topic.",
    ),
    setting(
        "encryption.enabled",
        Some("false"),
        "false, true",
        "AES-256-GCM of all log and index bytes. By topic.",
    ),
    setting(
        "encryption.key.ring.file",
        None,
        "path",
        "JSON file of key-encryption keys, readable by the broker alone.",
    ),
    setting(
        "encryption.key.period",
        Some("month"),
        "day, month, year",
        "A topic gets a new data key each period (UTC).",
    ),
    setting("storage.class", None, "the store's name of a class", "Storage class of segments. By topic."),
    setting(
        "copy.memory.bytes",
        Some("134217728"),
        "16777216 or more",
        "Memory for copies, all together. A copy waits when it is in use.",
    ),
    setting(
        "cache.memory.bytes",
        Some("134217728"),
        "16777216 or more",
        "Memory for what is read: cache, read-ahead and requests under way.",
    ),
    setting(
        "prefetch.initial.bytes",
        Some("262144"),
        "0 to 1073741824",
        "How much is fetched at first where a read begins in the middle of a segment.",
    ),
    setting(
        "prefetch.max.bytes",
        Some("33554432"),
        "0 to 4294967296",
        "How far read-ahead grows for one reader; 0 turns it off.",
    ),
    setting(
        "upload.rate.bytes.per.second",
        Some("0"),
        "0 or more",
        "Limit of each copy's upload; 0 for none. By topic.",
    ),
    setting(
        "write.format.version",
        Some("1"),
        "1",
        "Format of new objects: raise it when all brokers are upgraded.",
    ),
    setting(
        "runtime.threads",
        Some("2"),
        "1 to 256",
        "Threads that drive requests; blocking work has threads of its own.",
    ),
    setting(
        "sweep.upload.age.ms",
        Some("86400000"),
        "60000 or more",
        "Uploads of this cluster left unfinished for longer are aborted, hourly and at start.",
    ),
    setting("log.level", Some("info"), "info, debug", "What reaches the broker's SLF4J at most."),
    setting(
        "native.library.path",
        None,
        "path",
        "A ready native library instead of the jar's (read by the shim).",
    ),
    setting(
        "native.library.dir",
        None,
        "directory",
        "Where the jar's native library is extracted; must allow execution (read by the shim).",
    ),
];

/// Keys that a `rules.<name>.` may hold beside `topics`.
pub const TOPIC_KEYS: &[&str] = &[
    "chunk.size.bytes",
    "frame.size.bytes",
    "compression",
    "compression.level",
    "digest",
    "encryption.enabled",
    "storage.class",
    "upload.rate.bytes.per.second",
];

pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.key == key)
}

/// Keys that [`varve_store::open`] reads and checks.
pub fn is_store_key(key: &str) -> bool {
    key.starts_with("s3.")
}

/// Refuses a key that does nothing, with the nearest one that does.
pub fn check_known(given: &BTreeMap<String, String>) -> Result<()> {
    for key in given.keys() {
        let known = match key.strip_prefix("rules.").and_then(|rest| rest.split_once('.')) {
            Some((_, rule_key)) => rule_key == "topics" || TOPIC_KEYS.contains(&rule_key),
            None => find(key).is_some() || is_store_key(key),
        };
        if !known {
            let nearest = SETTINGS.iter().min_by_key(|s| distance(s.key, key)).map_or("", |s| s.key);
            let hint = if key.starts_with("rules.") {
                format!("a rule has topics, {}", TOPIC_KEYS.join(", "))
            } else {
                format!("did you mean {nearest}?")
            };
            return Err(Error::new(Kind::Config, format!("{key}: unknown key; {hint}")));
        }
    }
    Ok(())
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut previous = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = previous + usize::from(x != y);
            previous = row[j + 1];
            row[j + 1] = substituted.min(previous + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
