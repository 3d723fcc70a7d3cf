//! The configuration: parsed once, checked whole, before anything starts. Keys come without `rsm.config.`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;
use varve_format::{Compression, DigestAlgorithm};
use varve_keys::{KeyPeriod, KeyUrl};

use crate::error::{Error, Kind, Result};
use crate::settings;

/// What may differ by topic.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicPolicy {
    pub chunk_bytes: u32,
    pub frame_bytes: Option<u32>,
    pub compression: Compression,
    pub digest: DigestAlgorithm,
    pub encrypt: bool,
    /// What is not encrypted is not read.
    pub only_encrypted: bool,
    /// What wraps its data keys; `None` is the key ring's active key.
    pub key: Option<KeyUrl>,
    pub storage_class: Option<String>,
    /// 0: no limit.
    pub upload_rate: u64,
}

impl TopicPolicy {
    /// Frames of 64 KiB; of 256 KiB, or what divides the chunk, where they are compressed, each for itself.
    pub fn frame_bytes(&self) -> u32 {
        let preferred: u32 = if self.compression == Compression::None { 64 << 10 } else { 256 << 10 };
        let divides = 1_u32.checked_shl(self.chunk_bytes.trailing_zeros()).unwrap_or(preferred);
        self.frame_bytes.unwrap_or(preferred.min(divides))
    }
}

impl fmt::Display for TopicPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (chunk, frame) = (self.chunk_bytes >> 10, self.frame_bytes() >> 10);
        let compression = match self.compression {
            Compression::None => "not compressed".to_owned(),
            Compression::Zstd { level } => format!("zstd of level {level}"),
            Compression::Auto { level } => format!("zstd of level {level} where it helps"),
        };
        let must = if self.only_encrypted { ", no other is read" } else { "" };
        let sealed = match (self.encrypt, &self.key) {
            (false, _) => "not encrypted".to_owned(),
            (true, None) => format!("encrypted{must}"),
            (true, Some(key)) => format!("encrypted by {key}{must}"),
        };
        let digest = format!("{:?}", self.digest).to_lowercase();
        write!(f, "chunks of {chunk} KiB in frames of {frame} KiB, {compression}, {sealed}, digest {digest}")
    }
}

#[derive(Debug)]
pub struct Config {
    pub store_url: String,
    pub store_id: String,
    /// Keys of the store alone, `s3.…`; may hold secrets.
    store_settings: BTreeMap<String, String>,
    pub cluster_id: String,
    pub broker_id: i32,
    pub copy_memory_bytes: u64,
    pub cache_memory_bytes: u64,
    pub prefetch_initial_bytes: u64,
    pub prefetch_max_bytes: u64,
    pub key_ring_file: Option<PathBuf>,
    pub key_period: KeyPeriod,
    /// How long a data key in the clear is used.
    pub key_cache: Duration,
    /// Of the key services, `kms.…`; may hold secrets.
    key_settings: BTreeMap<String, String>,
    /// Beside those that topics are encrypted with.
    trusted_keys: Vec<KeyUrl>,
    pub runtime_threads: usize,
    pub sweep_age_ms: u64,
    pub log_debug: bool,
    default_policy: TopicPolicy,
    rules: Vec<(Regex, TopicPolicy)>,
}

impl Config {
    pub fn parse(given: &BTreeMap<String, String>) -> Result<Self> {
        settings::check_known(given)?;
        let get = Values(given);
        let default_policy = get.policy()?;
        let rules = get.rules()?;
        let key_ring_file = get.text("encryption.key.ring.file").map(PathBuf::from);
        let policies = || rules.iter().map(|(_, policy)| policy).chain([&default_policy]);
        // A ring's key, or the ring's active one where no key is named, needs the ring.
        let needs_ring = |p: &TopicPolicy| {
            p.encrypt && p.key.as_ref().is_none_or(|key| key.service() == varve_keys::Service::Ring)
        };
        if policies().any(needs_ring) && key_ring_file.is_none() {
            return Err(Error::config(
                "encryption.key.ring.file",
                "",
                "needed where encryption.enabled=true without an encryption.key in a key service: a file of keys, see docs/FORMAT.md",
            ));
        }
        let key_settings: BTreeMap<String, String> = given
            .iter()
            .filter(|(k, _)| settings::is_kms_key(k))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        crate::keys::check(&key_settings)?;
        let trusted_keys = get.trusted_keys()?;
        let version = get.number("write.format.version")?;
        debug_assert_eq!(version, 1);
        Ok(Self {
            store_url: get.required("store.url")?,
            store_id: get.required("store.id")?,
            store_settings: given
                .iter()
                .filter(|(k, _)| settings::is_store_key(k))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            cluster_id: get.cluster_id()?,
            broker_id: get.text("broker.id").and_then(|v| v.parse().ok()).unwrap_or(-1),
            copy_memory_bytes: get.number("copy.memory.bytes")?,
            cache_memory_bytes: get.number("cache.memory.bytes")?,
            prefetch_initial_bytes: get.number("prefetch.initial.bytes")?,
            prefetch_max_bytes: get.number("prefetch.max.bytes")?,
            key_ring_file,
            key_period: KeyPeriod::parse(&get.word("encryption.key.period")?).unwrap_or(KeyPeriod::Month),
            key_cache: Duration::from_millis(get.number("encryption.key.cache.ms")?),
            key_settings,
            trusted_keys,
            runtime_threads: get.number("runtime.threads")? as usize,
            sweep_age_ms: get.number("sweep.upload.age.ms")?,
            log_debug: get.word("log.level")? == "debug",
            default_policy,
            rules,
        })
    }

    /// The first rule whose pattern matches the whole topic name, else the defaults.
    pub fn policy(&self, topic: &str) -> &TopicPolicy {
        self.rules
            .iter()
            .find(|(pattern, _)| pattern.is_match(topic))
            .map_or(&self.default_policy, |(_, p)| p)
    }

    pub fn store_settings(&self) -> &BTreeMap<String, String> {
        &self.store_settings
    }

    pub fn key_settings(&self) -> &BTreeMap<String, String> {
        &self.key_settings
    }

    /// Those that topics are encrypted with, and those that are trusted beside them.
    pub fn trusted_keys(&self) -> impl Iterator<Item = &KeyUrl> {
        let policies = self.rules.iter().map(|(_, policy)| policy).chain([&self.default_policy]);
        policies.filter_map(|policy| policy.key.as_ref()).chain(&self.trusted_keys)
    }

    /// What is in force, without secrets: for the log.
    pub fn describe(&self) -> String {
        format!(
            "store {} as {:?}, cluster {}, copy memory {} MiB, cache {} MiB, read-ahead up to {} MiB, {}, {} topic rules",
            self.store_url,
            self.store_id,
            self.cluster_id,
            self.copy_memory_bytes >> 20,
            self.cache_memory_bytes >> 20,
            self.prefetch_max_bytes >> 20,
            self.default_policy,
            self.rules.len()
        )
    }
}

/// The map given, with the defaults of [`settings`] beneath.
struct Values<'a>(&'a BTreeMap<String, String>);

impl<'a> Values<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        let given = self.0.get(key).map(String::as_str).map(str::trim).filter(|v| !v.is_empty());
        given.or_else(|| settings::find(key).and_then(|s| s.default))
    }

    /// The value, else the default; one of those that are allowed.
    fn checked(&self, key: &str) -> Result<Option<&'a str>> {
        match (self.text(key), settings::find(key)) {
            (Some(text), Some(setting)) if !setting.kind.holds(text) => {
                Err(Error::config(key, text, &setting.kind.to_string()))
            }
            (text, _) => Ok(text),
        }
    }

    fn required(&self, key: &str) -> Result<String> {
        let allowed = || settings::find(key).map(|s| s.kind.to_string()).unwrap_or_default();
        let value = self.checked(key)?.map(str::to_owned);
        value.ok_or_else(|| Error::config(key, "", &format!("must be set: {}", allowed())))
    }

    /// Of a key that has a default.
    fn number(&self, key: &str) -> Result<u64> {
        Ok(self.checked(key)?.and_then(|text| text.parse().ok()).unwrap_or_default())
    }

    /// Of a key that has a default; in lower case.
    fn word(&self, key: &str) -> Result<String> {
        Ok(self.checked(key)?.unwrap_or_default().to_ascii_lowercase())
    }

    fn cluster_id(&self) -> Result<String> {
        let id = self.required("cluster.id")?;
        varve_format::check_cluster_id(&id).map_err(|e| Error::config("cluster.id", &id, &e.to_string()))?;
        Ok(id)
    }

    fn policy(&self) -> Result<TopicPolicy> {
        let level = self.number("compression.level")? as i32;
        let chunk_bytes = self.number("chunk.size.bytes")? as u32;
        let policy = TopicPolicy {
            chunk_bytes,
            frame_bytes: match self.text("frame.size.bytes") {
                Some(_) => Some(self.number("frame.size.bytes")? as u32),
                None => None,
            },
            compression: match self.word("compression")?.as_str() {
                "zstd" => Compression::Zstd { level },
                "auto" => Compression::Auto { level },
                _ => Compression::None,
            },
            digest: match self.word("digest")?.as_str() {
                "sha256" => DigestAlgorithm::Sha256,
                "none" => DigestAlgorithm::None,
                _ => DigestAlgorithm::Blake3,
            },
            encrypt: self.word("encryption.enabled")? == "true",
            only_encrypted: self.word("encryption.required")? == "true",
            key: self.text("encryption.key").map(|url| key("encryption.key", url)).transpose()?,
            storage_class: self.text("storage.class").map(str::to_owned),
            upload_rate: self.number("upload.rate.bytes.per.second")?,
        };
        if policy.only_encrypted && !policy.encrypt {
            return Err(Error::config("encryption.required", "true", "only with encryption.enabled=true"));
        }
        let frame = policy.frame_bytes();
        if !frame.is_power_of_two() || !chunk_bytes.is_multiple_of(frame) {
            return Err(Error::config(
                "frame.size.bytes",
                &frame.to_string(),
                &format!("a power of two that divides chunk.size.bytes={chunk_bytes}"),
            ));
        }
        Ok(policy)
    }

    fn trusted_keys(&self) -> Result<Vec<KeyUrl>> {
        const NAME: &str = "encryption.trusted.keys";
        let text = self.text(NAME).unwrap_or_default();
        let urls = text.split(',').map(str::trim).filter(|url| !url.is_empty());
        urls.map(|url| key(NAME, url)).collect()
    }

    /// `rules.<name>.topics=<pattern>` and what else begins with `rules.<name>.`, in the order of the names.
    fn rules(&self) -> Result<Vec<(Regex, TopicPolicy)>> {
        let rest = self.0.keys().filter_map(|k| k.strip_prefix("rules."));
        let mut names: Vec<&str> = rest.filter_map(|k| k.split('.').next()).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|name| self.rule(name)).collect()
    }

    /// The keys without a rule, with the rule's own laid over: what a rule leaves out is as without it.
    fn rule(&self, name: &str) -> Result<(Regex, TopicPolicy)> {
        const PATTERN: &str = "a regular expression for the whole topic name";
        let key = format!("rules.{name}.topics");
        let pattern =
            self.text(&key).ok_or_else(|| Error::config(&key, "", &format!("must be set: {PATTERN}")))?;
        let regex = Regex::new(&format!("^(?:{pattern})$"))
            .map_err(|e| Error::config(&key, pattern, &format!("{PATTERN} ({e})")))?;
        let mut merged = self.0.clone();
        for &key in settings::BY_TOPIC {
            if let Some(value) = self.0.get(&format!("rules.{name}.{key}")) {
                merged.insert(key.to_owned(), value.clone());
            }
        }
        let policy = Values(&merged).policy();
        Ok((regex, policy.map_err(|e| Error::new(Kind::Config, format!("rules.{name}.{e}")))?))
    }
}

/// The flaw without the value, which may be a secret that was pasted here.
fn key(name: &str, url: &str) -> Result<KeyUrl> {
    KeyUrl::configured(url).map_err(|e| Error::new(Kind::Config, format!("{name}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Config> {
        let base = [("store.url", "file:///tmp/x"), ("cluster.id", "c1"), ("broker.id", "1")];
        Config::parse(&base.iter().chain(pairs).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn defaults_and_rules() {
        let config =
            parse(&[("rules.a.topics", "logs-.*"), ("rules.a.compression", "zstd"), ("digest", "none")])
                .unwrap();
        assert_eq!(config.policy("orders").compression, Compression::None);
        assert_eq!(config.policy("logs-web").compression, Compression::Zstd { level: 1 });
        assert_eq!(config.policy("logs-web").digest, DigestAlgorithm::None);
        assert_eq!(config.policy("xlogs-web").compression, Compression::None);
    }

    #[test]
    fn the_first_rule_by_name_that_matches_counts() {
        let config = parse(&[
            ("rules.a.topics", "x.*"),
            ("rules.a.digest", "none"),
            ("rules.a-b.topics", "xy.*"),
            ("rules.a-b.digest", "sha256"),
        ])
        .unwrap();
        assert_eq!(config.policy("xyz").digest, DigestAlgorithm::None);
    }

    #[test]
    fn errors_name_key_value_and_what_is_allowed() {
        let says = |pairs: &[(&str, &str)], parts: &[&str]| {
            let e = parse(pairs).err().map(|e| e.message).unwrap();
            assert!(parts.iter().all(|p| e.contains(p)), "{e} lacks one of {parts:?}");
        };
        says(&[("compression", "gzip")], &["compression=gzip", "none, zstd, auto"]);
        says(&[("chunk.size.bytes", "1000")], &["chunk.size.bytes=1000", "65536"]);
        says(&[("frame.size.bytes", "8000")], &["frame.size.bytes=8000", "power of two from 4096"]);
        let both = [("chunk.size.bytes", "65536"), ("frame.size.bytes", "131072")];
        says(&both, &["frame.size.bytes=131072", "divides chunk.size.bytes=65536"]);
        let fits = parse(&[("chunk.size.bytes", "196608"), ("compression", "zstd")]).unwrap();
        assert_eq!(fits.policy("any").frame_bytes(), 65_536);
        says(&[("copy.memory.bytes", "1")], &["copy.memory.bytes=1", "16777216 or more"]);
        says(&[("chunk.size", "1")], &["chunk.size", "did you mean chunk.size.bytes"]);
        says(&[("encryption.enabled", "true")], &["encryption.key.ring.file"]);
        says(&[("encryption.required", "true")], &["encryption.required=true", "encryption.enabled"]);
        let kms = [("encryption.enabled", "true"), ("encryption.key", "vault://v.example/transit/k")];
        let config =
            parse(&[&kms[..], &[("rules.a.topics", "x"), ("rules.a.encryption.key", "ring:1")]].concat());
        assert!(config.unwrap_err().message.contains("encryption.key.ring.file"));
        let config = parse(&[&kms[..], &[("encryption.trusted.keys", "ring:1, ring:2")]].concat()).unwrap();
        assert_eq!(config.trusted_keys().count(), 3);
        says(&[("encryption.key", "vault://me:hush@v/transit/k")], &["encryption.key"]);
        says(&[("encryption.trusted.keys", "ring:1,what")], &["encryption.trusted.keys"]);
        says(&[("kms.timeout.ms", "soon")], &["kms.timeout.ms"]);
        says(&[("kms.timeout", "1")], &["kms.timeout", "kms.timeout.ms"]);
        says(&[("write.format.version", "2")], &["write.format.version=2", "1"]);
        says(&[("cluster.id", "a/b")], &["cluster.id=a/b"]);
        says(&[("rules.a.compression", "zstd")], &["rules.a.topics"]);
        says(&[("rules.a.topics", "x"), ("rules.a.cluster.id", "zstd")], &["rules.a.cluster.id"]);
    }
}
