//! The keys there are: by this table they are checked, and from it `docs/CONFIG.md` is made.

use std::collections::BTreeMap;

use varve_store::{Setting, SettingKind, nearest};

use crate::error::{Error, Kind, Result};

/// Keys that are looked for together.
#[derive(Debug)]
pub struct Group {
    pub title: &'static str,
    pub settings: &'static [Setting],
}

const fn setting(
    name: &'static str,
    default: Option<&'static str>,
    allowed: SettingKind,
    doc: &'static str,
) -> Setting {
    Setting::new(name, allowed, default, doc)
}

const fn required(name: &'static str, allowed: SettingKind, doc: &'static str) -> Setting {
    setting(name, None, allowed, doc).required()
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
        SettingKind::Text(
            "a URL: s3://bucket/prefix, gs://bucket/prefix, az://account/container/prefix or file:///dir",
        ),
        "Where segments go. All brokers of a cluster use the same.",
    ),
    required(
        "cluster.id",
        SettingKind::Name { max_bytes: 64 },
        "The Kafka cluster's id, the first part of all object keys: Kafka does not tell it to plug-ins. Set it once, never change it, and give no two clusters the same. `keys` is taken.",
    ),
];

const SEGMENTS: &[Setting] = &[
    setting(
        "compression",
        Some("none"),
        SettingKind::Choice(&["none", "zstd", "auto"]),
        "`auto` compresses a chunk only where a trial on its beginning saves a tenth. Batches that producers compressed gain nothing.",
    ),
    setting("compression.level", Some("1"), SettingKind::Integer { min: 1, max: 19 }, "zstd's level."),
    setting(
        "digest",
        Some("blake3"),
        SettingKind::Choice(&["blake3", "sha256", "none"]),
        "Digest of each chunk, for proofs across copies. Frames have checksums in any case.",
    ),
    setting(
        "chunk.size.bytes",
        Some("4194304"),
        SettingKind::MultipleOf { step: 64 << 10, max: 128 << 20 },
        "Log bytes of a chunk: fetched by one request at most.",
    ),
    setting(
        "frame.size.bytes",
        None,
        SettingKind::PowerOfTwo { min: 4 << 10, max: 1 << 20 },
        "Log bytes that are checked, sealed and compressed alone, the least that is fetched; must divide the chunk. Default: 65536 (64 KiB), or 262144 (256 KiB) where compression is on.",
    ),
    setting(
        "storage.class",
        None,
        SettingKind::Text("the store's name of a class"),
        "Storage class of segments. Default: `s3.storage.class`. Not one that must be thawed before it is read.",
    ),
];

const ENCRYPTION: &[Setting] = &[
    setting(
        "encryption.enabled",
        Some("false"),
        SettingKind::Choice(&["false", "true"]),
        "AES-256-GCM of all log and index bytes. Needs `encryption.key`, or `encryption.key.ring.file`.",
    ),
    setting(
        "encryption.required",
        Some("false"),
        SettingKind::Choice(&["false", "true"]),
        "Segments that are not encrypted are not read: for topics that are encrypted from their first segment on. It stands against who can write to the store and to Kafka's metadata. Needs `encryption.enabled`.",
    ),
    setting(
        "encryption.key",
        None,
        SettingKind::Text("the URL of a key"),
        "The key-encryption key that wraps data keys: `aws-kms://arn:aws:kms:…:key/…`, `gcp-kms://projects/…/cryptoKeys/…`, `azure-kms://<host>/keys/<name>`, `vault://<host>/<mount>/<key>` or `ring:<id>` (`docs/SECURITY.md`). Default: the active key of `encryption.key.ring.file`.",
    ),
    setting(
        "encryption.key.ring.file",
        None,
        SettingKind::Text("path of a file"),
        "JSON file of key-encryption keys (`docs/FORMAT.md`, Key ring), on every broker, readable by the broker alone. Also needed to read segments that were encrypted before.",
    ),
    setting(
        "encryption.key.period",
        Some("month"),
        SettingKind::Choice(&["day", "month", "year"]),
        "A topic gets a new data key each period (UTC). Destroying the key's record erases what the topic wrote in it.",
    ),
    setting(
        "encryption.key.cache.ms",
        Some("600000"),
        SettingKind::Integer { min: 1_000, max: 86_400_000 },
        "How long a data key is used after it was unwrapped: so long copies and reads go on while the key service is away, and so long a key that was destroyed or disabled may still be used. From half of it on it is asked for anew.",
    ),
    setting(
        "encryption.trusted.keys",
        None,
        SettingKind::Text("URLs of keys, with commas between"),
        "Further key-encryption keys that may have wrapped what is read: those of before a change of `encryption.key`. Records that name any other key are refused.",
    ),
];

const MEMORY: &[Setting] = &[
    setting(
        "copy.memory.bytes",
        Some("134217728"),
        SettingKind::at_least(16 << 20),
        "Memory for copies, all together. A copy waits when it is in use.",
    ),
    setting(
        "cache.memory.bytes",
        Some("134217728"),
        SettingKind::at_least(16 << 20),
        "Memory for what is read: cache, read-ahead and requests under way. An eighth of it is for segments' footers.",
    ),
    setting(
        "prefetch.initial.bytes",
        Some("262144"),
        SettingKind::Integer { min: 0, max: 1 << 30 },
        "How much is fetched at first where a read begins in the middle of a segment. At least a frame.",
    ),
    setting(
        "prefetch.max.bytes",
        Some("67108864"),
        SettingKind::Integer { min: 0, max: 1 << 32 },
        "How far read-ahead grows for one reader; 0 turns it off.",
    ),
    setting(
        "upload.rate.bytes.per.second",
        Some("0"),
        SettingKind::at_least(0),
        "Limit of each copy's upload; 0 for none. A broker runs as many copies at once as `remote.log.manager.copier.thread.pool.size` says.",
    ),
    setting(
        "runtime.threads",
        Some("2"),
        SettingKind::Integer { min: 1, max: 256 },
        "Threads that drive requests; blocking work has threads of its own.",
    ),
];

const STORE: &[Setting] = &[
    setting(
        "store.id",
        Some("default"),
        SettingKind::Name { max_bytes: varve_format::STORE_ID_MAX_BYTES },
        "Name of the store, kept in each segment's metadata. A segment written under another name is refused, so that a store in use can't be replaced unnoticed.",
    ),
    setting(
        "write.format.version",
        Some("1"),
        SettingKind::Integer { min: 1, max: varve_format::FORMAT_VERSION as u64 },
        "Format of new objects. After an upgrade, raise it when all brokers run the new release.",
    ),
    setting(
        "sweep.upload.age.ms",
        Some("86400000"),
        SettingKind::at_least(60_000),
        "Uploads of this cluster left unfinished for longer are aborted, at start and hourly. Must be longer than the slowest copy takes.",
    ),
];

const PROCESS: &[Setting] = &[
    setting(
        "log.level",
        Some("info"),
        SettingKind::Choice(&["info", "debug"]),
        "What is handed to the broker's SLF4J at most.",
    ),
    setting(
        "native.library.dir",
        None,
        SettingKind::Text("path of a directory"),
        "Where the jar's native library is extracted; must allow execution. Default: `java.io.tmpdir`.",
    ),
    setting(
        "native.library.path",
        None,
        SettingKind::Text("path of a file"),
        "A ready native library instead of the jar's.",
    ),
    setting(
        "broker.id",
        None,
        SettingKind::Text("set by Kafka"),
        "Not to be set: Kafka hands it over. Written into each segment's footer, and part of the JMX names.",
    ),
];

/// Keys that a `rules.<name>.` may hold beside `topics`.
pub const BY_TOPIC: &[&str] = &[
    "compression",
    "compression.level",
    "digest",
    "chunk.size.bytes",
    "frame.size.bytes",
    "storage.class",
    "encryption.enabled",
    "encryption.required",
    "encryption.key",
    "upload.rate.bytes.per.second",
];

/// All settings of all groups.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    GROUPS.iter().flat_map(|group| group.settings)
}

pub fn find(key: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.name == key)
}

/// Keys that [`varve_store::open`] reads and checks.
pub fn is_store_key(key: &str) -> bool {
    varve_store::is_setting(key)
}

/// Keys that the key services read and check.
pub fn is_kms_key(key: &str) -> bool {
    key.starts_with("kms.")
}

/// Refuses a key that does nothing, with the nearest one that does.
pub fn check_known(given: &BTreeMap<String, String>) -> Result<()> {
    for key in given.keys() {
        let rule = key.strip_prefix("rules.");
        let known = match rule.and_then(|rest| rest.split_once('.')) {
            Some((_, rule_key)) => rule_key == "topics" || BY_TOPIC.contains(&rule_key),
            None => find(key).is_some() || is_store_key(key) || is_kms_key(key),
        };
        if !known {
            let hint = match rule {
                Some(_) => format!("a rule has topics, {}", BY_TOPIC.join(", ")),
                None => {
                    let near = nearest(key, all().map(|setting| setting.name));
                    format!("did you mean {}?", near.unwrap_or_default().0)
                }
            };
            return Err(Error::new(Kind::Config, format!("{key}: unknown key; {hint}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_once_and_defaults_are_allowed() {
        assert!(BY_TOPIC.iter().all(|key| find(key).is_some()));
        let mut keys: Vec<_> = all().map(|setting| setting.name).collect();
        keys.sort_unstable();
        assert!(keys.windows(2).all(|two| two[0] != two[1]), "{keys:?}");
        for setting in all() {
            let fine = setting.default.is_none_or(|default| setting.kind.holds(default));
            assert!(fine, "{}={:?}: {}", setting.name, setting.default, setting.kind);
            assert!(!is_store_key(setting.name), "{} would be taken for the store's", setting.name);
        }
    }
}
