//! The configuration: parsed once, checked whole, before anything starts. Keys come without `rsm.config.`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regex::Regex;
use varve_format::{Compression, DigestAlgorithm, FORMAT_VERSION, STORE_ID_MAX_BYTES};

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
    pub storage_class: Option<String>,
    /// 0: no limit.
    pub upload_rate: u64,
}

impl TopicPolicy {
    /// Frames of 64 KiB; of 256 KiB where they are compressed, each for itself.
    pub fn frame_bytes(&self) -> u32 {
        let preferred = if self.compression == Compression::None { 64 << 10 } else { 256 << 10 };
        self.frame_bytes.unwrap_or(preferred).min(self.chunk_bytes)
    }
}

/// How long one data key is used for new segments of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPeriod {
    Day,
    Month,
    Year,
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
        let default_policy = get.policy("", None)?;
        let rules = get.rules(&default_policy)?;
        let copy_memory_bytes = get.bytes("copy.memory.bytes", 16 << 20, u64::MAX)?;
        let cache_memory_bytes = get.bytes("cache.memory.bytes", 16 << 20, u64::MAX)?;
        let key_ring_file = get.text("encryption.key.ring.file").map(PathBuf::from);
        let encrypts = default_policy.encrypt || rules.iter().any(|(_, p)| p.encrypt);
        if encrypts && key_ring_file.is_none() {
            return Err(Error::config(
                "encryption.key.ring.file",
                "",
                "needed where encryption.enabled=true: a file of keys, see docs/FORMAT.md",
            ));
        }
        let version = get.number("write.format.version", 1, u64::from(FORMAT_VERSION))?;
        debug_assert_eq!(version, 1);
        Ok(Self {
            store_url: get.required("store.url", "a URL: file:///dir or s3://bucket/prefix")?,
            store_id: get.name("store.id", STORE_ID_MAX_BYTES)?,
            store_settings: given
                .iter()
                .filter(|(k, _)| settings::is_store_key(k))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            cluster_id: get.cluster_id()?,
            broker_id: get.text("broker.id").and_then(|v| v.parse().ok()).unwrap_or(-1),
            copy_memory_bytes,
            cache_memory_bytes,
            prefetch_initial_bytes: get.bytes("prefetch.initial.bytes", 0, 1 << 30)?,
            prefetch_max_bytes: get.bytes("prefetch.max.bytes", 0, 1 << 32)?,
            key_ring_file,
            key_period: match get.one_of("encryption.key.period", &["day", "month", "year"])? {
                "day" => KeyPeriod::Day,
                "year" => KeyPeriod::Year,
                _ => KeyPeriod::Month,
            },
            runtime_threads: get.number("runtime.threads", 1, 256)? as usize,
            sweep_age_ms: get.number("sweep.upload.age.ms", 60_000, u64::MAX)?,
            log_debug: get.one_of("log.level", &["info", "debug"])? == "debug",
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

    /// What is in force, without secrets: for the log.
    pub fn describe(&self) -> String {
        format!(
            "store {} as {:?}, cluster {}, copy memory {} MiB, cache {} MiB, read-ahead up to {} MiB, {:?}, {} topic rules",
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

/// The map given, with the defaults of [`settings::SETTINGS`] beneath.
struct Values<'a>(&'a BTreeMap<String, String>);

impl<'a> Values<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        let given = self.0.get(key).map(String::as_str).map(str::trim).filter(|v| !v.is_empty());
        given.or_else(|| settings::find(key).and_then(|s| s.default))
    }

    fn required(&self, key: &str, allowed: &str) -> Result<String> {
        self.text(key)
            .map(str::to_owned)
            .ok_or_else(|| Error::config(key, "", &format!("must be set: {allowed}")))
    }

    fn number(&self, key: &str, min: u64, max: u64) -> Result<u64> {
        let text = self.text(key).unwrap_or_default();
        let allowed = if max == u64::MAX {
            format!("a whole number, {min} or more")
        } else {
            format!("a whole number from {min} to {max}")
        };
        text.parse()
            .ok()
            .filter(|n| (min..=max).contains(n))
            .ok_or_else(|| Error::config(key, text, &allowed))
    }

    fn bytes(&self, key: &str, min: u64, max: u64) -> Result<u64> {
        self.number(key, min, max)
    }

    fn one_of(&self, key: &str, allowed: &[&'static str]) -> Result<&'static str> {
        let text = self.text(key).unwrap_or_default();
        let found = allowed.iter().find(|a| a.eq_ignore_ascii_case(text)).copied();
        found.ok_or_else(|| Error::config(key, text, &format!("one of {}", allowed.join(", "))))
    }

    /// A name that is part of object keys or of the custom metadata.
    fn name(&self, key: &str, max: usize) -> Result<String> {
        let allowed = format!("must be set: 1 to {max} of letters, digits, _ and -");
        let value = self.required(key, &allowed)?;
        let fine =
            value.len() <= max && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        if fine { Ok(value) } else { Err(Error::config(key, &value, &allowed)) }
    }

    fn cluster_id(&self) -> Result<String> {
        let id = self.name("cluster.id", 64)?;
        varve_format::check_cluster_id(&id).map_err(|e| Error::config("cluster.id", &id, &e.to_string()))?;
        Ok(id)
    }

    /// `prefix` is empty, or `rules.<name>.`; what a rule leaves out is as in `base`.
    fn policy(&self, prefix: &str, base: Option<&TopicPolicy>) -> Result<TopicPolicy> {
        let Some(base) = base else { return self.default_policy() };
        let mut policy = base.clone();
        let scoped = |key: &str| self.0.get(&format!("{prefix}{key}")).map(|v| v.trim());
        // A rule is the defaults with its own keys laid over: parsed by the same code.
        let mut merged: BTreeMap<String, String> = self.0.clone();
        for key in settings::TOPIC_KEYS {
            if let Some(value) = scoped(key) {
                merged.insert((*key).to_owned(), value.to_owned());
            }
        }
        policy.clone_from(
            &Values(&merged)
                .default_policy()
                .map_err(|e| Error::new(Kind::Config, format!("{prefix}{e}")))?,
        );
        Ok(policy)
    }

    fn default_policy(&self) -> Result<TopicPolicy> {
        let level = self.number("compression.level", 1, 19)? as i32;
        let chunk_bytes = self.bytes("chunk.size.bytes", 64 << 10, 128 << 20)? as u32;
        if !chunk_bytes.is_multiple_of(64 << 10) {
            return Err(Error::config(
                "chunk.size.bytes",
                &chunk_bytes.to_string(),
                "a multiple of 65536, from 65536 to 134217728",
            ));
        }
        let policy = TopicPolicy {
            chunk_bytes,
            frame_bytes: match self.text("frame.size.bytes") {
                Some(_) => Some(self.bytes("frame.size.bytes", 4 << 10, 1 << 20)? as u32),
                None => None,
            },
            compression: match self.one_of("compression", &["none", "zstd", "auto"])? {
                "zstd" => Compression::Zstd { level },
                "auto" => Compression::Auto { level },
                _ => Compression::None,
            },
            digest: match self.one_of("digest", &["blake3", "sha256", "none"])? {
                "sha256" => DigestAlgorithm::Sha256,
                "none" => DigestAlgorithm::None,
                _ => DigestAlgorithm::Blake3,
            },
            encrypt: self.one_of("encryption.enabled", &["false", "true"])? == "true",
            storage_class: self.text("storage.class").map(str::to_owned),
            upload_rate: self.number("upload.rate.bytes.per.second", 0, u64::MAX)?,
        };
        let frame = policy.frame_bytes();
        if !frame.is_power_of_two() || !chunk_bytes.is_multiple_of(frame) {
            return Err(Error::config(
                "frame.size.bytes",
                &frame.to_string(),
                "a power of two from 4096 to 1048576 that divides chunk.size.bytes",
            ));
        }
        Ok(policy)
    }

    /// `rules.<name>.topics=<pattern>` and what else begins with `rules.<name>.`, in the order of the names.
    fn rules(&self, base: &TopicPolicy) -> Result<Vec<(Regex, TopicPolicy)>> {
        let mut names: Vec<&str> = self
            .0
            .keys()
            .filter_map(|k| k.strip_prefix("rules."))
            .filter_map(|k| k.split('.').next())
            .collect();
        names.dedup();
        let rule = |name: &&str| {
            let key = format!("rules.{name}.topics");
            let pattern = self.required(&key, "a regular expression for the whole topic name")?;
            let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(|e| {
                Error::config(&key, &pattern, &format!("a regular expression for the whole topic name ({e})"))
            })?;
            Ok((regex, self.policy(&format!("rules.{name}."), Some(base))?))
        };
        names.iter().map(rule).collect()
    }
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
    fn errors_name_key_value_and_what_is_allowed() {
        let says = |pairs: &[(&str, &str)], parts: &[&str]| {
            let e = parse(pairs).err().map(|e| e.message).unwrap();
            assert!(parts.iter().all(|p| e.contains(p)), "{e} lacks one of {parts:?}");
        };
        says(&[("compression", "gzip")], &["compression=gzip", "none, zstd, auto"]);
        says(&[("chunk.size.bytes", "1000")], &["chunk.size.bytes=1000", "65536"]);
        says(&[("chunk.size", "1")], &["chunk.size", "did you mean chunk.size.bytes"]);
        says(&[("encryption.enabled", "true")], &["encryption.key.ring.file"]);
        says(&[("write.format.version", "2")], &["write.format.version=2", "1"]);
        says(&[("cluster.id", "a/b")], &["cluster.id=a/b"]);
        says(&[("rules.a.compression", "zstd")], &["rules.a.topics"]);
        says(&[("rules.a.topics", "x"), ("rules.a.cluster.id", "zstd")], &["rules.a.cluster.id"]);
    }
}
