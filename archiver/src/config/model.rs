//! What a configuration is once it was checked: nothing here needs to be looked at twice.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;
use varve_archive::HashAlgorithm;
use varve_format::Compression;
use varve_kafka::client::{ClientConfig, Secret};
use varve_keys::{KeyPeriod, KeyUrl, Service};

use super::topics::{TopicPattern, TopicPatterns};

/// Where from, where to, and how.
#[derive(Clone, Debug)]
pub struct Config {
    pub source: ClientConfig,
    pub archive: ArchiveConfig,
    pub topics: TopicPatterns,
    pub encryption: EncryptionConfig,
    pub segments: SegmentsConfig,
    pub journal: JournalConfig,
    pub snapshots: SnapshotsConfig,
    pub limits: LimitsConfig,
    /// Archivers of one group share the partitions; without it, this one takes them all.
    pub group: Option<GroupConfig>,
    pub schema_registry: Option<SchemaRegistryConfig>,
    pub metrics: MetricsConfig,
    pub log: LogConfig,
    pub state: StateConfig,
}

#[derive(Clone)]
pub struct ArchiveConfig {
    /// Without user, password, query.
    pub url: String,
    /// For [`varve_store::open`], checked by it already; may hold secrets.
    pub store_settings: BTreeMap<String, String>,
    /// Of an archive that is created now: one that exists has its own.
    pub hash: HashAlgorithm,
    pub chunk_bytes: u32,
    pub compression: Compression,
    pub storage_class: Option<String>,
}

impl fmt::Debug for ArchiveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |name: &str| varve_store::settings().iter().any(|s| s.name == name && s.secret);
        let shown = |(name, value): (_, _)| (name, if secret(name) { "[hidden]" } else { value });
        let pairs = self.store_settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        f.debug_struct("ArchiveConfig")
            .field("url", &self.url)
            .field("store_settings", &pairs.map(shown).collect::<BTreeMap<_, _>>())
            .field("hash", &self.hash)
            .field("chunk_bytes", &self.chunk_bytes)
            .field("compression", &self.compression)
            .field("storage_class", &self.storage_class)
            .finish()
    }
}

/// What is sealed, and by which keys.
#[derive(Clone)]
pub struct EncryptionConfig {
    /// Topics that are sealed, internal ones too.
    pub topics: Vec<TopicPattern>,
    /// `None`: the key ring's active key.
    pub key: Option<KeyUrl>,
    /// Other keys for some of them: the first that matches counts.
    pub keys_by_topic: Vec<(TopicPattern, KeyUrl)>,
    /// Beside those that seal.
    pub trusted: Vec<KeyUrl>,
    pub key_ring_file: Option<PathBuf>,
    pub key_period: KeyPeriod,
    /// How long a data key in the clear is used.
    pub key_cache: Duration,
    /// For [`varve_keys::KeyServices`], checked by it already; may hold secrets.
    pub key_settings: BTreeMap<String, String>,
}

impl EncryptionConfig {
    /// Whether a topic is sealed.
    pub fn seals(&self, topic: &str) -> bool {
        self.topics.iter().any(|pattern| pattern.matches(topic))
    }

    /// The key that is configured for a topic; `None` is the ring's active one.
    pub fn key_of(&self, topic: &str) -> Option<&KeyUrl> {
        let own = self.keys_by_topic.iter().find(|(pattern, _)| pattern.matches(topic));
        own.map(|(_, key)| key).or(self.key.as_ref())
    }

    /// All keys that are named.
    pub fn keys(&self) -> impl Iterator<Item = &KeyUrl> {
        self.key.iter().chain(self.keys_by_topic.iter().map(|(_, key)| key)).chain(&self.trusted)
    }

    /// Whether something of it can't be done without a file key ring.
    pub(super) fn needs_ring(&self) -> bool {
        let by_default = self.key.is_none() && !self.topics.is_empty();
        by_default || self.keys().any(|key| key.service() == Service::Ring)
    }
}

impl fmt::Debug for EncryptionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |name: &str| varve_keys::settings().iter().any(|s| s.name == name && s.secret);
        let shown = |(name, value): (_, _)| (name, if secret(name) { "[hidden]" } else { value });
        let pairs = self.key_settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        f.debug_struct("EncryptionConfig")
            .field("topics", &self.topics)
            .field("key", &self.key)
            .field("keys_by_topic", &self.keys_by_topic)
            .field("trusted", &self.trusted)
            .field("key_ring_file", &self.key_ring_file)
            .field("key_period", &self.key_period)
            .field("key_cache", &self.key_cache)
            .field("key_settings", &pairs.map(shown).collect::<BTreeMap<_, _>>())
            .finish()
    }
}

/// When a partition's segment is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentsConfig {
    pub bytes: u64,
    /// With less than this at the RPO, a partition goes into the journal.
    pub min_bytes: u64,
    pub age: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// Recovery point objective: the longest that a batch waits to be in the archive.
    pub rpo: Duration,
    /// This archiver's name, part of object keys.
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotsConfig {
    /// Zero: only at the end, and when asked.
    pub interval: Duration,
    /// How long one waits for the archive to reach the ends of the logs, before it names what lags.
    pub wait: Duration,
    /// PKCS#8, PEM or DER, of an Ed25519 key.
    pub signing_key_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    pub memory_bytes: u64,
    /// Bytes a second; 0: none.
    pub read_rate: u64,
    /// Bytes a second; 0: none.
    pub upload_rate: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    pub id: String,
    pub session_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct SchemaRegistryConfig {
    pub url: Url,
    /// Both or neither.
    pub login: Option<(String, Secret)>,
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MetricsConfig {
    pub listen: Option<SocketAddr>,
    /// Topics with metrics of their own.
    pub topics_max: usize,
    /// How long a task may be silent.
    pub health_timeout: Duration,
    /// Dollars for 1,000 requests; `None`: as the store's list says.
    pub write_price: Option<f64>,
    pub read_price: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: tracing::Level,
}

/// What of the cluster's state snapshots hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConfig {
    pub topics: bool,
    pub groups: bool,
    pub acls: bool,
    pub users: bool,
    pub quotas: bool,
    pub configs: bool,
    pub features: bool,
    pub schemas: bool,
}
