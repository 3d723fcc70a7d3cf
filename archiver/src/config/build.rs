//! From checked values to the typed configuration, with the rules that hold between them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;
use varve_archive::HashAlgorithm;
use varve_format::Compression;
use varve_kafka::client::{ClientConfig, ClientError, Secret};
use varve_keys::{KeyPeriod, KeyServices, KeyUrl};

use super::model::{
    ArchiveConfig, Config, EncryptionConfig, GroupConfig, JournalConfig, LimitsConfig, LogConfig, LogFormat,
    MetricsConfig, SchemaRegistryConfig, SegmentsConfig, SnapshotsConfig, StateConfig,
};
use super::settings;
use super::topics::{TopicPattern, TopicPatterns};
use super::values::Values;

/// zstd's; a higher one costs more than it saves on what producers send.
const ZSTD_LEVEL: i32 = 1;

/// `None` where a flaw was found; each is in `values` then. `host` is this machine's name.
pub(super) fn build(values: &mut Values, host: &str) -> Option<Config> {
    require(values);
    // All of it, though one part may have failed: a person sees all flaws at once.
    let source = source(values);
    let archive = archive(values);
    let topics = topics(values);
    let encryption = encryption(values);
    let segments = segments(values);
    let journal = journal(values, host);
    let snapshots = snapshots(values);
    let limits = limits(values);
    let group = group(values);
    let schema_registry = schema_registry(values);
    let metrics = metrics(values);
    let (log, state) = (log(values), state(values));
    check_times(values, &segments, &journal);
    check_sizes(values, &segments, &archive, &limits);
    let source = source.filter(|_| !values.has_flaws())?;
    Some(Config {
        source,
        archive,
        topics,
        encryption,
        segments,
        journal,
        snapshots,
        limits,
        group,
        schema_registry,
        metrics,
        log,
        state,
    })
}

fn require(values: &mut Values) {
    for section in settings::SECTIONS {
        for setting in section.own().iter().filter(|setting| setting.required) {
            if !values.is_given(section.name, setting.name) {
                values.refuse(section.name, setting.name, format!("must be set: {}", setting.kind));
            }
        }
    }
}

fn source(values: &mut Values) -> Option<ClientConfig> {
    match ClientConfig::from_pairs(values.of_others("source").iter().map(|(key, text)| (*key, text.as_str())))
    {
        Ok(config) => Some(config),
        Err(ClientError::Config { key, problem }) => {
            values.refuse("source", &key, problem);
            None
        }
        Err(error) => {
            values.refuse("source", "bootstrap.servers", error.to_string());
            None
        }
    }
}

fn archive(values: &mut Values) -> ArchiveConfig {
    let url = values.text("archive", "url").map(|url| url.trim().to_owned()).unwrap_or_default();
    let others = values.of_others("archive").into_iter();
    let store_settings: BTreeMap<_, _> =
        others.map(|(key, text)| (key.to_owned(), text.trim().to_owned())).collect();
    if !url.is_empty() {
        for flaw in varve_store::check(&url, &store_settings) {
            let of_setting =
                store_settings.contains_key(&flaw.object) || varve_store::is_setting(&flaw.object);
            let key = if of_setting { flaw.object.as_str() } else { "url" };
            values.refuse("archive", key, flaw.detail);
        }
    }
    let word = |key| values.text("archive", key);
    ArchiveConfig {
        url,
        store_settings,
        hash: match word("hash").as_ref().map(|word| word.as_str()) {
            Some("sha256") => HashAlgorithm::Sha256,
            _ => HashAlgorithm::Blake3,
        },
        chunk_bytes: u32::try_from(values.bytes("archive", "chunk.size.bytes")).unwrap_or_default(),
        compression: match word("compression").as_ref().map(|word| word.as_str()) {
            Some("zstd") => Compression::Zstd { level: ZSTD_LEVEL },
            Some("auto") => Compression::Auto { level: ZSTD_LEVEL },
            _ => Compression::None,
        },
        storage_class: word("storage.class").map(|class| class.to_string()),
    }
}

fn topics(values: &mut Values) -> TopicPatterns {
    let (include, exclude) = (patterns(values, "topics", "include"), patterns(values, "topics", "exclude"));
    if values.list("topics", "include").is_some_and(<[_]>::is_empty)
        && !values.is_refused("topics", "include")
    {
        values.refuse("topics", "include", "is empty: nothing would be archived; [\"*\"] is all topics");
    }
    TopicPatterns::new(include, exclude)
}

fn patterns(values: &mut Values, section: &'static str, key: &'static str) -> Vec<TopicPattern> {
    let texts = values.list(section, key).unwrap_or_default().to_vec();
    let mut parsed = Vec::with_capacity(texts.len());
    for text in texts {
        match TopicPattern::parse(&text) {
            Ok(pattern) => parsed.push(pattern),
            Err(problem) => values.refuse(section, key, format!("pattern {:?} {problem}", text.as_str())),
        }
    }
    parsed
}

fn encryption(values: &mut Values) -> EncryptionConfig {
    const SECTION: &str = "encryption";
    needs(values, SECTION, "topics", &["key", "keys.by.topic", "key.period"]);
    let others = values.of_others(SECTION).into_iter();
    let key_settings: BTreeMap<_, _> =
        others.map(|(key, text)| (key.to_owned(), text.trim().to_owned())).collect();
    for flaw in KeyServices::check(&key_settings) {
        values.refuse(SECTION, &flaw.key, flaw.detail);
    }
    let given = values.text(SECTION, "key");
    let config = EncryptionConfig {
        topics: patterns(values, SECTION, "topics"),
        key: given.and_then(|text| key_url(values, "key", &text)),
        keys_by_topic: keys_by_topic(values),
        trusted: {
            let texts = values.list(SECTION, "trusted.keys").unwrap_or_default().to_vec();
            texts.iter().filter_map(|text| key_url(values, "trusted.keys", text)).collect()
        },
        key_ring_file: path(values, SECTION, "key.ring.file"),
        key_period: values
            .text(SECTION, "key.period")
            .and_then(|word| KeyPeriod::parse(&word))
            .unwrap_or(KeyPeriod::Month),
        key_cache: values.duration(SECTION, "key.cache"),
        key_settings,
    };
    let is_sound =
        ["key", "keys.by.topic", "trusted.keys"].iter().all(|key| !values.is_refused(SECTION, key));
    if is_sound && config.needs_ring() && config.key_ring_file.is_none() {
        let problem = "missing: keys of a key ring are to be used, since `key` names none of a key service, or names \
             one of a ring";
        values.refuse(SECTION, "key.ring.file", problem);
    }
    config
}

fn keys_by_topic(values: &mut Values) -> Vec<(TopicPattern, KeyUrl)> {
    const KEY: &str = "keys.by.topic";
    let texts = values.list("encryption", KEY).unwrap_or_default().to_vec();
    let mut parsed = Vec::with_capacity(texts.len());
    for text in texts {
        // No key's URL holds one; a regular expression may.
        let Some((pattern, url)) = text.rsplit_once('=') else {
            values.refuse("encryption", KEY, "an entry has no \"=\": expected PATTERN=URL");
            continue;
        };
        let url = key_url(values, KEY, url);
        match (TopicPattern::parse(pattern.trim()), url) {
            (Ok(pattern), Some(url)) => parsed.push((pattern, url)),
            (Err(problem), _) => {
                values.refuse("encryption", KEY, format!("the pattern of an entry {problem}"));
            }
            (Ok(_), None) => {}
        }
    }
    parsed
}

/// What was given is not shown where it is refused: it may be a secret in the wrong place.
fn key_url(values: &mut Values, key: &'static str, text: &str) -> Option<KeyUrl> {
    match KeyUrl::configured(text.trim()) {
        Ok(url) => Some(url),
        Err(flaw) => {
            values.refuse("encryption", key, flaw.detail);
            None
        }
    }
}

fn segments(values: &Values) -> SegmentsConfig {
    SegmentsConfig {
        bytes: values.bytes("segments", "bytes"),
        min_bytes: values.bytes("segments", "min.bytes"),
        age: values.duration("segments", "age"),
    }
}

fn journal(values: &Values, host: &str) -> JournalConfig {
    let given = values.text("journal", "name").map(|name| name.to_string());
    JournalConfig { rpo: values.duration("journal", "rpo"), name: given.unwrap_or_else(|| safe_name(host)) }
}

/// A host's name as an archiver's.
pub(super) fn safe_name(host: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '-' };
    let name: String = host.chars().map(safe).take(settings::ARCHIVER_NAME_MAX_BYTES).collect();
    if name.is_empty() { "archiver".to_owned() } else { name }
}

fn snapshots(values: &Values) -> SnapshotsConfig {
    SnapshotsConfig {
        interval: values.duration("snapshots", "interval"),
        wait: values.duration("snapshots", "wait"),
        signing_key_file: path(values, "snapshots", "signing.key.file"),
    }
}

fn path(values: &Values, section: &'static str, key: &'static str) -> Option<PathBuf> {
    values.text(section, key).map(|text| PathBuf::from(text.as_str()))
}

fn limits(values: &Values) -> LimitsConfig {
    LimitsConfig {
        memory_bytes: values.bytes("limits", "memory.bytes"),
        read_rate: values.bytes("limits", "read.rate.bytes.per.second"),
        upload_rate: values.bytes("limits", "upload.rate.bytes.per.second"),
    }
}

/// Keys that do nothing without another one are refused.
fn needs(values: &mut Values, section: &'static str, key: &'static str, others: &[&'static str]) {
    if !values.is_given(section, key) {
        for &other in others {
            if values.is_given(section, other) {
                values.refuse(section, other, format!("does nothing without {section}.{key}"));
            }
        }
    }
}

fn group(values: &mut Values) -> Option<GroupConfig> {
    needs(values, "group", "id", &["session.timeout"]);
    let id = values.text("group", "id")?.to_string();
    Some(GroupConfig { id, session_timeout: values.duration("group", "session.timeout") })
}

fn schema_registry(values: &mut Values) -> Option<SchemaRegistryConfig> {
    const SECTION: &str = "schema.registry";
    needs(values, SECTION, "url", &["user", "password", "ca.file"]);
    let url = Url::parse(&values.text(SECTION, "url")?).ok()?;
    if !url.username().is_empty() || url.password().is_some() {
        values.refuse(
            SECTION,
            "url",
            "holds a user or password: schema.registry.user and .password are for these",
        );
    }
    let login = match (values.text(SECTION, "user"), values.text(SECTION, "password")) {
        (Some(user), Some(password)) => Some((user.to_string(), Secret::new(password.as_str()))),
        (None, None) => None,
        (Some(_), None) => {
            values.refuse(SECTION, "password", "missing: schema.registry.user is given");
            None
        }
        (None, Some(_)) => {
            values.refuse(SECTION, "user", "missing: schema.registry.password is given");
            None
        }
    };
    Some(SchemaRegistryConfig { url, login, ca_file: path(values, SECTION, "ca.file") })
}

fn metrics(values: &mut Values) -> MetricsConfig {
    const SECTION: &str = "metrics";
    needs(
        values,
        SECTION,
        "listen",
        &["topics.max", "health.timeout", "write.price.per.1000", "read.price.per.1000"],
    );
    let text = values.text(SECTION, "listen");
    let listen = text.as_ref().and_then(|text| text.trim().parse().ok());
    if let (Some(text), None) = (text, listen) {
        let problem = format!("{:?} is not allowed: expected address:port, as 127.0.0.1:9644", text.as_str());
        values.refuse(SECTION, "listen", problem);
    }
    MetricsConfig {
        listen,
        topics_max: values
            .text(SECTION, "topics.max")
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or_default(),
        health_timeout: values.duration(SECTION, "health.timeout"),
        write_price: dollars(values, "write.price.per.1000"),
        read_price: dollars(values, "read.price.per.1000"),
    }
}

fn dollars(values: &mut Values, key: &'static str) -> Option<f64> {
    let text = values.text("metrics", key)?;
    let number = text.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    if number.is_none() {
        let problem =
            format!("{:?} is not allowed: expected a number of US dollars, as 0.005", text.as_str());
        values.refuse("metrics", key, problem);
    }
    number
}

fn log(values: &Values) -> LogConfig {
    let word = |key| values.text("log", key);
    LogConfig {
        format: match word("format").as_ref().map(|word| word.as_str()) {
            Some("json") => LogFormat::Json,
            _ => LogFormat::Text,
        },
        level: word("level").and_then(|word| word.parse().ok()).unwrap_or(tracing::Level::INFO),
    }
}

fn state(values: &Values) -> StateConfig {
    let given = values.list("state", "include");
    let holds = |part: &str| given.is_none_or(|list| list.iter().any(|word| word.as_str() == part));
    StateConfig {
        topics: holds("topics"),
        groups: holds("groups"),
        acls: holds("acls"),
        users: holds("users"),
        quotas: holds("quotas"),
        configs: holds("configs"),
        features: holds("features"),
        schemas: holds("schemas"),
    }
}

/// What contradicts another key would never do what was meant.
fn check_times(values: &mut Values, segments: &SegmentsConfig, journal: &JournalConfig) {
    if segments.age < journal.rpo {
        let problem = format!("{} is less than journal.rpo, {}", seconds(segments.age), seconds(journal.rpo));
        values.refuse("segments", "age", problem);
    }
}

fn check_sizes(
    values: &mut Values,
    segments: &SegmentsConfig,
    archive: &ArchiveConfig,
    limits: &LimitsConfig,
) {
    if segments.min_bytes > segments.bytes {
        let problem =
            format!("{} bytes are more than segments.bytes, {}", segments.min_bytes, segments.bytes);
        values.refuse("segments", "min.bytes", problem);
    }
    let quarter = limits.memory_bytes / 4;
    if u64::from(archive.chunk_bytes) > quarter {
        let problem = format!(
            "{} bytes are more than a quarter of limits.memory.bytes, {quarter}",
            archive.chunk_bytes
        );
        values.refuse("archive", "chunk.size.bytes", problem);
    }
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}
