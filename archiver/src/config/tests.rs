use std::collections::BTreeMap;
use std::time::Duration;

use varve_archive::HashAlgorithm;
use varve_format::Compression;
use varve_kafka::client::{SaslMechanism, SecurityProtocol};
use varve_keys::KeyPeriod;

use super::*;

const SMALLEST: &str = include_str!("../../../examples/archive-minimal.yaml");

fn env(name: &str) -> Option<String> {
    match name {
        "SERVERS" => Some("a:1,b:2".to_owned()),
        "PASSWORD" => Some("hunter2".to_owned()),
        "SIZE" => Some("64MiB".to_owned()),
        "S3_ACCESS_KEY_ID" => Some("AKIA".to_owned()),
        _ => None,
    }
}

fn check(yaml: &str, sets: &[(&str, &str)]) -> Result<Checked, Vec<Flaw>> {
    let sets: Vec<_> = sets.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    check_text(yaml, &sets, &env, "node1.example.org")
}

fn config(sets: &[(&str, &str)]) -> Config {
    check(SMALLEST, sets).unwrap().config
}

/// What is said of the smallest file with `sets`, one flaw a line.
fn flaws(sets: &[(&str, &str)]) -> String {
    said(SMALLEST, sets)
}

fn said(yaml: &str, sets: &[(&str, &str)]) -> String {
    let flaws = check(yaml, sets).err().unwrap_or_default();
    flaws.iter().map(|flaw| format!("{flaw}\n")).collect()
}

#[track_caller]
fn says(sets: &[(&str, &str)], parts: &[&str]) {
    let said = flaws(sets);
    assert!(
        !said.is_empty() && parts.iter().all(|part| said.contains(part)),
        "{said} lacks one of {parts:?}"
    );
}

#[test]
fn the_smallest_file_has_the_defaults() {
    let config = config(&[]);
    assert_eq!(config.source.bootstrap_servers[0].to_string(), "host:9092");
    assert_eq!(config.archive.url, "s3://bucket/prefix");
    assert_eq!(config.archive.hash, HashAlgorithm::Blake3);
    assert_eq!((config.archive.chunk_bytes, config.archive.compression), (4 << 20, Compression::None));
    assert!(config.topics.wants("orders", false) && !config.topics.wants("__consumer_offsets", true));
    let day = Duration::from_secs(86_400);
    assert_eq!(config.segments, SegmentsConfig { bytes: 256 << 20, min_bytes: 32 << 20, age: day });
    let name = "node1-example-org".to_owned();
    assert_eq!(config.journal, JournalConfig { rpo: Duration::from_secs(60), name });
    assert_eq!(config.snapshots.interval, Duration::from_secs(300));
    assert_eq!(config.snapshots.wait, Duration::from_secs(60));
    assert_eq!(config.snapshots.signing_key_file, None);
    assert_eq!(config.limits, LimitsConfig { memory_bytes: 256 << 20, read_rate: 0, upload_rate: 0 });
    assert!(config.group.is_none() && config.schema_registry.is_none() && config.metrics.listen.is_none());
    assert_eq!(
        (config.metrics.topics_max, config.metrics.health_timeout, config.metrics.write_price),
        (1000, Duration::from_secs(300), None)
    );
    assert_eq!(config.log, LogConfig { format: LogFormat::Text, level: tracing::Level::INFO });
    assert!(config.state.topics && config.state.schemas);
}

#[test]
fn every_key_counts() {
    let config = config(&[
        ("source.client.id", "me"),
        ("archive.hash", "SHA256"),
        ("archive.chunk.size.bytes", "1MiB"),
        ("archive.compression", "auto"),
        ("archive.storage.class", "GLACIER_IR"),
        ("archive.s3.region", "eu-central-1"),
        ("topics.exclude", "[a*, /b.*/]"),
        ("segments.bytes", "128 MiB"),
        ("segments.min.bytes", "0"),
        ("segments.age", "2h"),
        ("journal.rpo", "5s"),
        ("journal.name", "left_1"),
        ("snapshots.interval", "0"),
        ("snapshots.wait", "500ms"),
        ("snapshots.signing.key.file", "/k.pem"),
        ("limits.memory.bytes", "33554432"),
        ("limits.read.rate.bytes.per.second", "1KiB"),
        ("limits.upload.rate.bytes.per.second", "2KiB"),
        ("group.id", "g"),
        ("group.session.timeout", "10s"),
        ("schema.registry.url", "https://registry:8081"),
        ("schema.registry.user", "u"),
        ("schema.registry.password", "${PASSWORD}"),
        ("schema.registry.ca.file", "/ca.pem"),
        ("metrics.listen", "[::1]:9644"),
        ("metrics.topics.max", "7"),
        ("metrics.health.timeout", "2m"),
        ("metrics.write.price.per.1000", "0.0065"),
        ("metrics.read.price.per.1000", "0"),
        ("log.format", "json"),
        ("log.level", "debug"),
        ("state.include", "[groups, ACLS]"),
    ]);
    assert_eq!(config.source.client_id, "me");
    assert_eq!(config.archive.hash, HashAlgorithm::Sha256);
    assert_eq!(
        (config.archive.chunk_bytes, config.archive.compression),
        (1 << 20, Compression::Auto { level: 1 })
    );
    assert_eq!(config.archive.storage_class.as_deref(), Some("GLACIER_IR"));
    let region = BTreeMap::from([("s3.region".to_owned(), "eu-central-1".to_owned())]);
    assert_eq!(config.archive.store_settings, region);
    assert!(
        !config.topics.wants("ax", false)
            && !config.topics.wants("bx", false)
            && config.topics.wants("c", false)
    );
    let age = Duration::from_secs(7200);
    assert_eq!(config.segments, SegmentsConfig { bytes: 128 << 20, min_bytes: 0, age });
    assert_eq!(config.journal, JournalConfig { rpo: Duration::from_secs(5), name: "left_1".to_owned() });
    assert_eq!(
        (config.snapshots.interval, config.snapshots.wait),
        (Duration::ZERO, Duration::from_millis(500))
    );
    assert!(config.snapshots.signing_key_file.is_some_and(|path| path.ends_with("k.pem")));
    assert_eq!(config.limits, LimitsConfig { memory_bytes: 32 << 20, read_rate: 1024, upload_rate: 2048 });
    assert_eq!(
        config.group,
        Some(GroupConfig { id: "g".to_owned(), session_timeout: Duration::from_secs(10) })
    );
    let registry = config.schema_registry.unwrap();
    assert_eq!((registry.url.port(), registry.ca_file.is_some()), (Some(8081), true));
    assert!(registry.login.is_some_and(|(user, password)| user == "u" && password.reveal() == "hunter2"));
    assert_eq!(config.metrics.listen.unwrap().port(), 9644);
    assert_eq!((config.metrics.topics_max, config.metrics.health_timeout), (7, Duration::from_secs(120)));
    assert_eq!((config.metrics.write_price, config.metrics.read_price), (Some(0.0065), Some(0.0)));
    assert_eq!(config.log, LogConfig { format: LogFormat::Json, level: tracing::Level::DEBUG });
    assert!(config.state.groups && config.state.acls && !config.state.topics && !config.state.features);
}

#[test]
fn wrong_values_name_key_value_and_what_is_allowed() {
    says(&[("segments.bytes", "1")], &["segments.bytes: \"1\"", "1MiB to 1GiB"]);
    says(&[("segments.age", "24")], &["segments.age: \"24\"", "24h"]);
    says(&[("journal.rpo", "2h")], &["journal.rpo", "1s to 1h"]);
    says(&[("journal.name", "a/b")], &["journal.name: \"a/b\"", "letters"]);
    says(&[("archive.chunk.size.bytes", "100000")], &["archive.chunk.size.bytes", "multiple of 64KiB"]);
    says(&[("archive.hash", "md5")], &["archive.hash: \"md5\"", "blake3, sha256"]);
    says(&[("archive.url", "ftp://x")], &["archive.url", "s3://bucket/prefix"]);
    says(&[("archive.s3.timeout.ms", "soon")], &["archive.s3.timeout.ms", "\"soon\"", "1 to 600000"]);
    says(&[("limits.memory.bytes", "1MiB")], &["limits.memory.bytes", "32MiB or more"]);
    says(&[("group.id", "g"), ("group.session.timeout", "1s")], &["group.session.timeout", "6s to 30m"]);
    says(&[("metrics.listen", "localhost:1")], &["metrics.listen: \"localhost:1\"", "127.0.0.1:9644"]);
    let listen = ("metrics.listen", "127.0.0.1:1");
    says(&[listen, ("metrics.topics.max", "0")], &["metrics.topics.max: \"0\"", "1 to 100000"]);
    says(&[listen, ("metrics.read.price.per.1000", "cheap")], &["metrics.read.price.per.1000", "0.005"]);
    says(&[("metrics.topics.max", "5")], &["metrics.topics.max", "does nothing without metrics.listen"]);
    says(&[("log.level", "loud")], &["log.level: \"loud\"", "error, warn"]);
    says(&[("state.include", "[groups, group]")], &["state.include: \"group\"", "a list out of topics"]);
    says(&[("schema.registry.url", "registry:8081")], &["schema.registry.url", "https://"]);
    says(&[("source.security.protocol", "TLS")], &["source.security.protocol", "\"TLS\"", "SASL_SSL"]);
    says(
        &[("topics.include", "[ok, \"a[b]\", /x(/]")],
        &["topics.include: pattern \"a[b]\"", "pattern \"/x(/\""],
    );
    says(&[("topics.include", "[]")], &["topics.include: is empty"]);
    says(&[("segments.bytes", "[1MiB]")], &["segments.bytes: is a list"]);
    says(&[("source.ssl", "{ca.location: x}")], &["source.ssl"]);
    says(&[("log.level", "{a: b}")], &["log.level: is a mapping"]);
}

#[test]
fn rules_between_keys() {
    says(&[("segments.bytes", "16MiB")], &["segments.min.bytes", "segments.bytes, 16777216"]);
    says(&[("segments.age", "60s"), ("journal.rpo", "61s")], &["segments.age: 60s", "journal.rpo, 61s"]);
    says(&[("archive.chunk.size.bytes", "128MiB")], &["archive.chunk.size.bytes", "a quarter", "67108864"]);
    says(&[("group.session.timeout", "45s")], &["group.session.timeout", "without group.id"]);
    says(&[("schema.registry.user", "x")], &["schema.registry.user", "without schema.registry.url"]);
    let url = ("schema.registry.url", "https://registry");
    says(&[url, ("schema.registry.user", "x")], &["schema.registry.password: missing"]);
    says(&[url, ("schema.registry.password", "x")], &["schema.registry.user: missing"]);
    says(&[("archive.s3.access.key.id", "x")], &["archive.s3.secret.access.key", "missing"]);
    says(&[("archive.url", "file:///there"), ("archive.s3.region", "x")], &["archive.s3.region: belongs to"]);
    says(&[("source.sasl.password", "x")], &["source.sasl.password", "no SASL"]);
}

#[test]
fn unknown_names_are_refused_with_the_nearest_one() {
    let yaml = "sources: {}\nsegments:\n  byte: 1MiB\n  whatever: 5\narchive: {url: 's3://b', s3.regoin: x}\n\
                source: {bootstrap.servers: 'h:1', ssl.truststore.location: x, sasl.user: y}\ntopics: {include: a}";
    let said = said(yaml, &[("journal.rop", "5s"), ("sorce.client.id", "x")]);
    for part in [
        "line 1: sources: no such section; did you mean source?",
        "line 3: segments.byte: no such key; did you mean bytes?",
        "line 4: segments.whatever: no such key; there are bytes, min.bytes, age",
        "line 5: archive.s3.regoin: no such key; did you mean s3.region?",
        "line 6: source.ssl.truststore.location: give the CA's",
        "source.sasl.user: unknown key; the nearest known one is sasl.username",
        "journal.rop: no such key; did you mean rpo?",
        "sorce.client.id: --set: no such section; did you mean source?",
    ] {
        assert!(said.contains(part), "{said} lacks {part}");
    }
    assert_eq!(said.lines().count(), 8, "{said}");
}

#[test]
fn what_must_be_set_is_asked_for() {
    let all = said("log: {level: info}", &[]);
    for part in
        ["archive.url: must be set", "topics.include: must be set", "source.bootstrap.servers: at least one"]
    {
        assert!(all.contains(part), "{all} lacks {part}");
    }
    assert!(said("", &[]).contains("archive.url: must be set"));
    // An empty value is none.
    assert!(flaws(&[("archive.url", "")]).contains("archive.url: must be set"));
}

#[test]
fn references_are_filled_in_after_parsing() {
    let sets = [
        ("source.bootstrap.servers", "${SERVERS}"),
        ("segments.bytes", "${SIZE}"),
        ("journal.name", "${NAME:-x}"),
    ];
    let config = config(&sets);
    assert_eq!(config.source.bootstrap_servers.len(), 2);
    assert_eq!((config.segments.bytes, config.journal.name.as_str()), (64 << 20, "x"));
    says(&[("segments.age", "${AGE}")], &["segments.age: the environment variable AGE is not set"]);
    // What follows from a wrong value isn't told as another flaw.
    let login =
        ["source.security.protocol=SASL_SSL", "source.sasl.mechanism=PLAIN", "source.sasl.username=x"];
    let login = login.iter().filter_map(|set| set.split_once('='));
    let of_login: Vec<_> = login.chain([("source.sasl.password", "${NONE}")]).collect();
    assert_eq!(flaws(&of_login), "source.sasl.password: the environment variable NONE is not set\n");
    // What comes in is one pattern, whatever it holds.
    says(&[("topics.include", "[\"${SERVERS}\"]")], &["pattern \"a:1,b:2\""]);
}

#[test]
fn secrets_are_never_printed() {
    let login = [
        ("source.security.protocol", "SASL_SSL"),
        ("source.sasl.mechanism", "PLAIN"),
        ("source.sasl.username", "me"),
        ("source.sasl.password", "${PASSWORD}"),
        ("archive.s3.access.key.id", "AKIA"),
        ("archive.s3.secret.access.key", "hunter2"),
        ("schema.registry.url", "https://registry"),
        ("schema.registry.user", "me"),
        ("schema.registry.password", "hunter2"),
    ];
    let checked = check(SMALLEST, &login).unwrap();
    let json = serde_json::to_string(&checked.effective).unwrap();
    let printed = format!("{:?} {:?} {} {json}", checked.config, checked.effective, checked.effective);
    assert!(!printed.contains("hunter2"), "{printed}");
    assert_eq!(checked.effective.to_string().matches("\"[hidden]\"").count(), 3, "{}", checked.effective);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "hunter2\n").unwrap();
    let from_file = format!("${{file:{}}}", path.display());
    for key in [
        "segments.bytes",
        "log.level",
        "archive.url",
        "source.security.protocol",
        "source.bootstrap.servers",
        "archive.s3.timeout.ms",
        "topics.include",
        "metrics.listen",
        "schema.registry.url",
        "journal.name",
    ] {
        let text = check(SMALLEST, &[(key, &from_file)]);
        let text = text.map_or_else(|flaws| format!("{flaws:?}"), |checked| checked.effective.to_string());
        assert!(!text.contains("hunter2"), "{key}: {text}");
    }
    let user =
        flaws(&[("archive.url", "s3://me:hunter2@bucket"), ("schema.registry.url", "http://me:hunter2@r")]);
    assert!(user.lines().count() == 2 && !user.contains("hunter2"), "{user}");
}

#[test]
fn what_holds_can_be_used_again() {
    let sets = [
        ("topics.include", "[\"a*\", '/b\\d/']"),
        ("archive.storage.class", "$${x} #y"),
        ("log.level", "warn"),
    ];
    let first = check(SMALLEST, &sets).unwrap();
    let text = first.effective.to_string();
    assert!(
        text.contains("  bytes: 256MiB  # default\n") && text.contains("  level: warn  # --set\n"),
        "{text}"
    );
    assert!(
        text.contains("  bootstrap.servers: host:9092\n")
            && text.contains("  name: node1-example-org  # default\n")
    );
    // Defaults of the store's are its own until they are written down.
    let text: String = text.split_inclusive('\n').filter(|line| !line.starts_with("  s3.")).collect();
    let again = check(&text, &[]).unwrap_or_else(|flaws| panic!("{flaws:?}\n{text}"));
    assert_eq!(format!("{:?}", again.config), format!("{:?}", first.config));
    assert_eq!(first.config.archive.storage_class.as_deref(), Some("${x} #y"));
    let json = serde_json::to_value(&first.effective).unwrap();
    assert_eq!(json["log"]["level"], serde_json::json!({"value": "warn", "origin": "command-line"}));
    assert_eq!(json["topics"]["include"]["value"], serde_json::json!(["a*", "/b\\d/"]));
    assert_eq!(json["source"]["bootstrap.servers"]["origin"], "file");
}

#[test]
fn files_are_read_whole_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("archive.yaml");
    let load = || Config::load(&path, &[], &env).map_err(|error| error.to_string());
    assert!(load().unwrap_err().contains("archive.yaml: can't be read"));
    std::fs::write(&path, SMALLEST).unwrap();
    assert!(!load().unwrap().journal.name.is_empty());
    std::fs::write(&path, format!("{SMALLEST}log: {{level: 5, format: 6}}\n")).unwrap();
    let said = load().unwrap_err();
    assert!(said.contains("archive.yaml: 2 flaws\n  line 4: log.") && said.contains("\"5\""), "{said}");
    std::fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
    assert!(load().unwrap_err().contains("longer"));
    std::fs::write(&path, b"\xff").unwrap();
    assert!(load().unwrap_err().contains("can't be read"));
}

/// The examples, their secrets from files that are there.
#[test]
fn the_examples_are_right() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("kafka-password"), "hunter2\n").unwrap();
    std::fs::write(dir.path().join("s3-secret-key"), "s\n").unwrap();
    std::fs::write(dir.path().join("registry-password"), "r\n").unwrap();
    let here = dir.path().display().to_string();
    let example =
        |text: &str| check(&text.replace("file:/run/secrets", &format!("file:{here}")), &[]).unwrap().config;

    let s3 = example(include_str!("../../../examples/archive-s3.yaml"));
    assert!(
        s3.topics.wants("orders", false)
            && !s3.topics.wants("a.debug", false)
            && !s3.topics.wants("a-tmp", false)
    );
    assert_eq!((s3.journal.name.as_str(), s3.source.client_id.as_str()), ("archiver-1", "archiver-1"));
    assert_eq!(s3.limits.read_rate, 200 << 20);
    assert_eq!(s3.group.unwrap().id, "varve-archive");

    let secured = example(include_str!("../../../examples/archive-secured.yaml"));
    assert_eq!(secured.source.security_protocol, SecurityProtocol::SaslSsl);
    let sasl = secured.source.sasl.unwrap();
    assert_eq!((sasl.mechanism, sasl.password.reveal()), (SaslMechanism::ScramSha512, "hunter2"));
    assert!(secured.topics.wants("audit.eu.logins", false) && !secured.topics.wants("other", false));
    assert_eq!(secured.archive.store_settings["s3.secret.access.key"], "s");
    assert_eq!(secured.schema_registry.unwrap().url.host_str(), Some("registry.example.com"));
    assert!(secured.snapshots.signing_key_file.is_some());

    let sealed = example(include_str!("../../../examples/archive-sealed.yaml")).encryption;
    assert!(sealed.seals("customers-eu") && sealed.seals("payments.eu.in") && !sealed.seals("payments.in"));
    assert!(sealed.key_of("payments.eu.in").is_some_and(|key| key.to_string().ends_with("/payments")));
}

#[test]
fn what_is_sealed_and_by_which_keys() {
    let of = |sets: &[(&str, &str)]| config(sets).encryption;
    let none = of(&[]);
    assert!(!none.seals("orders") && none.keys().next().is_none() && none.key_ring_file.is_none());
    assert_eq!((none.key_period, none.key_cache), (KeyPeriod::Month, Duration::from_secs(600)));

    let some = of(&[
        ("encryption.topics", "[\"pay-*\", __consumer_offsets]"),
        ("encryption.key", "vault://Vault.example/transit/k"),
        ("encryption.keys.by.topic", "['/pay-(eu|=)/=ring:2026', \"pay-*=vault://v/transit/pay\"]"),
        ("encryption.trusted.keys", "[vault://v/transit/old]"),
        ("encryption.key.ring.file", "/ring.json"),
        ("encryption.key.period", "DAY"),
        ("encryption.key.cache", "30s"),
        ("encryption.kms.vault.token", "hunter2"),
        ("encryption.kms.timeout.ms", "5000"),
    ]);
    assert!(some.seals("pay-eu") && some.seals("__consumer_offsets") && !some.seals("orders"));
    let key = |topic| some.key_of(topic).unwrap().to_string();
    assert_eq!(key("__consumer_offsets"), "vault://vault.example:8200/transit/k");
    assert_eq!([key("pay-eu"), key("pay-=")], ["ring:2026", "ring:2026"]);
    assert_eq!(key("pay-us"), "vault://v:8200/transit/pay");
    assert_eq!(some.keys().count(), 4);
    assert_eq!((some.key_period, some.key_cache), (KeyPeriod::Day, Duration::from_secs(30)));
    assert_eq!(some.key_settings.len(), 2);

    // All of them, and none that was not named.
    let all = of(&[("encryption.topics", "[\"*\"]"), ("encryption.key.ring.file", "/ring.json")]);
    assert!(all.seals("orders") && all.seals("__consumer_offsets") && all.key_of("orders").is_none());
}

#[test]
fn wrong_keys_are_told_at_once_and_not_shown() {
    let topics = ("encryption.topics", "[\"*\"]");
    says(&[topics], &["encryption.key.ring.file: missing"]);
    says(&[("encryption.trusted.keys", "[ring:1]")], &["encryption.key.ring.file: missing"]);
    let key = ("encryption.key", "vault://v/transit/k");
    says(&[key], &["encryption.key: does nothing without encryption.topics"]);
    says(&[topics, key, ("encryption.keys.by.topic", "[a=ring:1]")], &["encryption.key.ring.file: missing"]);
    let said = flaws(&[
        ("encryption.topics", "[\"a[b]\"]"),
        ("encryption.key", "vault://me:hunter2@v/transit/k"),
        ("encryption.keys.by.topic", "[hunter2, \"x(=ring:1\"]"),
        ("encryption.trusted.keys", "[hunter2, 'vault://v/k?token=hunter2']"),
        ("encryption.key.period", "week"),
        ("encryption.key.cache", "1ms"),
        ("encryption.kms.vault.tokn", "hunter2"),
        ("encryption.kms.timeout.ms", "soon"),
        ("encryption.kms.vault.auth", "approle"),
    ]);
    for part in [
        "encryption.topics: pattern \"a[b]\"",
        "encryption.key: a key's URL has no user",
        "encryption.keys.by.topic: an entry has no \"=\"",
        "encryption.keys.by.topic: the pattern of an entry holds",
        "encryption.trusted.keys: expected ring:",
        "encryption.trusted.keys: a key's URL has no user",
        "encryption.key.period: \"week\"",
        "encryption.key.cache: \"1ms\"",
        "encryption.kms.vault.tokn: no such key; did you mean kms.vault.token?",
        "encryption.kms.timeout.ms",
        "encryption.kms.vault.role.id: missing",
    ] {
        assert!(said.contains(part), "{said} lacks {part}");
    }
    assert!(!said.contains("hunter2"), "{said}");

    let sets = [topics, key, ("encryption.kms.vault.token", "hunter2")];
    let checked = check(SMALLEST, &sets).unwrap();
    let json = serde_json::to_string(&checked.effective).unwrap();
    let printed = format!("{:?} {:?} {} {json}", checked.config, checked.effective, checked.effective);
    assert!(!printed.contains("hunter2"), "{printed}");
    let text = checked.effective.to_string();
    assert!(text.contains("  kms.vault.token: \"[hidden]\"  # --set\n"), "{text}");
    assert!(text.contains("  key.period: month  # default\n") && !text.contains("kms.aws"), "{text}");
    assert!(!check(SMALLEST, &[]).unwrap().effective.to_string().contains("encryption"));
}
