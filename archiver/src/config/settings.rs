//! The sections and keys there are: by this table a file is checked, and from it `docs/CONFIG.md` is made.
//!
//! Three sections take further keys, from the tables of those who read them: `source` the Kafka client's, `archive`
//! the stores', `encryption` the key services'.

use varve_kafka::client::ClientConfig;
use varve_keys::KeyPeriod;
use varve_store::{Setting, SettingKind};

/// A part of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    own: &'static [Setting],
}

impl Section {
    /// All settings, also those of others.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let mut all = self.own.to_vec();
        match self.name {
            "source" => all.extend(ClientConfig::keys().iter().map(|key| {
                let setting = Setting::new(key.name, SettingKind::Text(key.allowed), key.default, key.doc);
                Setting { secret: key.secret, required: key.name == "bootstrap.servers", ..setting }
            })),
            "archive" => all.extend(varve_store::settings()),
            "encryption" => all.extend(varve_keys::settings()),
            _ => {}
        }
        all
    }

    /// Those that no other table has.
    pub(super) fn own(&self) -> &'static [Setting] {
        self.own
    }

    pub(super) fn find(&self, key: &str) -> Option<Setting> {
        self.settings().into_iter().find(|setting| setting.name == key)
    }
}

pub(super) fn find(section: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|known| known.name == section)
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The longest name that docs/ARCHIVE-FORMAT.md allows an archiver.
pub(super) const ARCHIVER_NAME_MAX_BYTES: usize = 64;

const FILE: SettingKind = SettingKind::Text("path of a file");
const PATTERNS: SettingKind =
    SettingKind::List("patterns: globs of * and ?, or regular expressions between slashes");
const RATE: SettingKind = SettingKind::Bytes { min: 0, max: u64::MAX, step: 1 };

pub(super) const SECTIONS: &[Section] = &[
    Section {
        name: "source",
        doc: "The cluster that is archived, in the words of Kafka's clients.",
        own: &[],
    },
    Section { name: "archive", doc: "Where it is archived to, and how.", own: ARCHIVE },
    Section {
        name: "topics",
        doc: "Which topics are archived; new ones are found while the archiver runs.",
        own: TOPICS,
    },
    Section {
        name: "encryption",
        doc: "What is sealed, and by which keys. What the archive holds already stays as it is.",
        own: ENCRYPTION,
    },
    Section { name: "segments", doc: "When a partition's segment is closed.", own: SEGMENTS },
    Section { name: "journal", doc: "What isn't worth a segment yet.", own: JOURNAL },
    Section { name: "snapshots", doc: "Recovery points.", own: SNAPSHOTS },
    Section { name: "limits", doc: "What the archiver may use.", own: LIMITS },
    Section { name: "group", doc: "Archivers that share the partitions.", own: GROUP },
    Section {
        name: "schema.registry",
        doc: "A Schema Registry whose contents snapshots hold.",
        own: SCHEMA_REGISTRY,
    },
    Section { name: "metrics", doc: "Metrics, health and readiness over HTTP.", own: METRICS },
    Section { name: "log", doc: "What the archiver writes to its standard error.", own: LOG },
    Section { name: "state", doc: "The cluster's state in snapshots.", own: STATE },
];

const ARCHIVE: &[Setting] = &[
    Setting::new(
        "url",
        SettingKind::Text("a URL: s3://bucket/prefix or file:///directory"),
        None,
        "The archive's root. Created by the first archiver that finds none there.",
    )
    .required(),
    Setting::new(
        "hash",
        SettingKind::Choice(&["blake3", "sha256"]),
        Some("blake3"),
        "What the archive is proven by. Counts only when the archive is created: one that exists has its own.",
    ),
    Setting::new(
        "chunk.size.bytes",
        SettingKind::Bytes { min: 64 * KIB, max: 128 * MIB, step: 64 * KIB },
        Some("4MiB"),
        "Log bytes of a chunk: fetched by one request at most. Not more than a quarter of `limits.memory.bytes`.",
    ),
    Setting::new(
        "compression",
        SettingKind::Choice(&["none", "zstd", "auto"]),
        Some("none"),
        "`auto` compresses a chunk only where a trial on its beginning saves a tenth. Batches that producers compressed gain nothing.",
    ),
    Setting::new(
        "storage.class",
        SettingKind::Text("the store's name of a class"),
        None,
        "Storage class of segments. Default: `s3.storage.class`. Not one that must be thawed before it is read.",
    ),
];

const TOPICS: &[Setting] = &[
    Setting::new(
        "include",
        PATTERNS,
        None,
        "Topics whose whole name one of these matches. Internal ones, and all that begin with `__`, only by their very name. What matches nothing is warned of. A topic that was archived and is left out now stays in the archive, and snapshots tell how far it is behind.",
    )
    .required(),
    Setting::new("exclude", PATTERNS, Some("[]"), "Of those, the ones to leave out."),
];

const KEY_URL: SettingKind = SettingKind::Text("a key's URL, as vault://host:8200/transit/name");

const ENCRYPTION: &[Setting] = &[
    Setting::new(
        "topics",
        PATTERNS,
        Some("[]"),
        "Topics that are sealed: segments and what the journal has of them; `[\"*\"]` is all that is archived, internal ones too. That a topic has gaps, and why, isn't sealed.",
    ),
    Setting::new(
        "key",
        KEY_URL,
        None,
        "Key-encryption key that data keys are wrapped by. Default: the key ring's active key.",
    ),
    Setting::new(
        "keys.by.topic",
        SettingKind::List("PATTERN=URL, as \"payroll-*=vault://host:8200/transit/payroll\""),
        Some("[]"),
        "Other keys for some of these topics; the first pattern that matches counts.",
    ),
    Setting::new(
        "trusted.keys",
        SettingKind::List("URLs of keys"),
        Some("[]"),
        "Further keys that may open what was sealed before, by the plug-in too. Those that are configured to seal are trusted anyway, and so is the whole key ring.",
    ),
    Setting::new(
        "key.ring.file",
        FILE,
        None,
        "File of key-encryption keys, read at the start: JSON, as docs/FORMAT.md has it.",
    ),
    Setting::new(
        "key.period",
        SettingKind::Choice(KeyPeriod::WORDS),
        Some("month"),
        "How long one data key seals a topic's new objects, in UTC. Who destroys a data key makes its period's objects unreadable for good.",
    ),
    Setting::new(
        "key.cache",
        SettingKind::Duration { min_ms: SECOND_MS, max_ms: DAY_MS },
        Some("10m"),
        "How long a data key in the clear is used before the key service is asked again. As long at most the archiver goes on sealing while the service is away.",
    ),
];

const SEGMENTS: &[Setting] = &[
    Setting::new(
        "bytes",
        SettingKind::Bytes { min: MIB, max: GIB, step: 1 },
        Some("256MiB"),
        "A segment is closed when it holds as much.",
    ),
    Setting::new(
        "min.bytes",
        SettingKind::Bytes { min: 0, max: GIB, step: 1 },
        Some("32MiB"),
        "What a partition has less than this of at the RPO goes into the journal. At most `bytes`.",
    ),
    Setting::new(
        "age",
        SettingKind::Duration { min_ms: MINUTE_MS, max_ms: 365 * DAY_MS },
        Some("24h"),
        "A segment is closed when its first batch is as old, however small it is. Not less than `journal.rpo`.",
    ),
];

const JOURNAL: &[Setting] = &[
    Setting::new(
        "rpo",
        SettingKind::Duration { min_ms: SECOND_MS, max_ms: HOUR_MS },
        Some("60s"),
        "Recovery point objective: the longest that a batch waits to be in the archive. A bundle of all quiet partitions is written as often.",
    ),
    Setting::new(
        "name",
        SettingKind::Name { max_bytes: ARCHIVER_NAME_MAX_BYTES },
        None,
        "This archiver's name, part of object keys. Two that run at once have different ones. Default: the host's name.",
    ),
];

const SNAPSHOTS: &[Setting] = &[
    Setting::new(
        "interval",
        SettingKind::Duration { min_ms: 0, max_ms: 30 * DAY_MS },
        Some("5m"),
        "How often one is made; 0: only at the end, and when asked.",
    ),
    Setting::new(
        "wait",
        SettingKind::Duration { min_ms: 0, max_ms: DAY_MS },
        Some("60s"),
        "How long one waits for the archive to reach the ends of the logs, before it names what lags.",
    ),
    Setting::new(
        "signing.key.file",
        FILE,
        None,
        "Ed25519 key that snapshots are signed with: PKCS#8, PEM or DER, not encrypted. Default: not signed.",
    ),
];

const LIMITS: &[Setting] = &[
    Setting::new(
        "memory.bytes",
        SettingKind::Bytes { min: 32 * MIB, max: u64::MAX, step: 1 },
        Some("256MiB"),
        "Memory for all that is fetched and not yet stored, however many partitions. What doesn't fit waits on the brokers.",
    ),
    Setting::new(
        "read.rate.bytes.per.second",
        RATE,
        Some("0"),
        "Limit of what is fetched from the brokers; 0 for none.",
    ),
    Setting::new(
        "upload.rate.bytes.per.second",
        RATE,
        Some("0"),
        "Limit of what is sent to the store; 0 for none.",
    ),
];

const GROUP: &[Setting] = &[
    Setting::new(
        "id",
        SettingKind::Text("a group's id"),
        None,
        "Archivers with the same id share the partitions through Kafka's coordinator. Default: this one takes them all.",
    ),
    Setting::new(
        "session.timeout",
        SettingKind::Duration { min_ms: 6 * SECOND_MS, max_ms: 30 * MINUTE_MS },
        Some("45s"),
        "How long one may be silent until the others take over. The broker has bounds too: `group.min.session.timeout.ms` and `group.max.session.timeout.ms`.",
    ),
];

const SCHEMA_REGISTRY: &[Setting] = &[
    Setting::new(
        "url",
        SettingKind::Url,
        None,
        "Its address, without user and password. Default: none is asked.",
    ),
    Setting::new("user", SettingKind::Text("text"), None, "User, for basic authentication."),
    Setting::new("password", SettingKind::Text("text"), None, "Password of `user`.").secret(),
    Setting::new(
        "ca.file",
        FILE,
        None,
        "PEM file of certificate authorities to trust. It is read again when it changes. Default: the well-known public ones.",
    ),
];

const DOLLARS: SettingKind = SettingKind::Text("a number of US dollars, as 0.005");

const METRICS: &[Setting] = &[
    Setting::new(
        "listen",
        SettingKind::Text("address:port, as 127.0.0.1:9644 or [::1]:9644"),
        None,
        "Where to listen. There is no authentication: mind who can reach it. Default: nowhere.",
    ),
    Setting::new(
        "topics.max",
        SettingKind::Integer { min: 1, max: 100_000 },
        Some("1000"),
        "Topics with metrics of their own, in the order they are met; all further ones are `_other`.",
    ),
    Setting::new(
        "health.timeout",
        SettingKind::Duration { min_ms: 30 * SECOND_MS, max_ms: DAY_MS },
        Some("5m"),
        "How long a task may be silent until `/healthz` says so. Long calls to brokers and store are silence.",
    ),
    Setting::new(
        "write.price.per.1000",
        DOLLARS,
        None,
        "Price of 1,000 puts, copies, parts or listings, for the estimate of what requests cost. Default: S3's list price for `s3://`, else 0.",
    ),
    Setting::new(
        "read.price.per.1000",
        DOLLARS,
        None,
        "Price of 1,000 gets or heads. Default: S3's list price for `s3://`, else 0.",
    ),
];

const LOG: &[Setting] = &[
    Setting::new(
        "format",
        SettingKind::Choice(&["text", "json"]),
        Some("text"),
        "Lines for people or for machines.",
    ),
    Setting::new(
        "level",
        SettingKind::Choice(&["error", "warn", "info", "debug", "trace"]),
        Some("info"),
        "What is less important is left out.",
    ),
];

/// All that `state.include` may hold.
pub(super) const STATE_PARTS: &[&str] =
    &["topics", "groups", "acls", "users", "quotas", "configs", "features", "schemas"];

const STATE: &[Setting] = &[Setting::new(
    "include",
    SettingKind::Choices(STATE_PARTS),
    Some("[topics, groups, acls, users, quotas, configs, features, schemas]"),
    "What a snapshot holds of the cluster's state. What may not be read is named in the snapshot.",
)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_defaults_are_allowed() {
        let mut names = Vec::new();
        for section in SECTIONS {
            for setting in section.settings() {
                names.push(format!("{}.{}", section.name, setting.name));
                let fine =
                    setting.kind.is_list() || setting.default.is_none_or(|text| setting.kind.holds(text));
                assert!(fine, "{}: {:?}: {}", setting.name, setting.default, setting.kind);
                assert!(!setting.required || setting.default.is_none(), "{}", setting.name);
            }
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// Or `--set` could mean two things.
    #[test]
    fn no_section_and_key_are_another_section() {
        for section in SECTIONS {
            let longer = SECTIONS.iter().find(|other| other.name.starts_with(&format!("{}.", section.name)));
            assert!(longer.is_none(), "{} and {longer:?}", section.name);
        }
    }
}
