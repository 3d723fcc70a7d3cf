//! `varve keys …` on a tier and an archive made here.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use serde_json::Value;
use varve_archive::record::topic::TopicRecord;
use varve_archive::{Archive, BundleBuilder, Commit, HashAlgorithm, NewSnapshot, Place, Target, V1};
use varve_format::{
    Compression, DataKey, DigestAlgorithm, Encoder, Encryption, EpochStart, Id, KeyRecord, KeyRing, Plan,
    SegmentInfo, SegmentName, Wrapping, WriteOptions, key_record_1_name, key_record_name, segment_name,
    tombstone_name,
};

const LOG: &[u8] = include_bytes!("../../crates/kafka/tests/data/every-kind-of-batch.log");
const RING: &str = r#"{"active": "1", "keys": {"1": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="}}"#;
const TOPIC: Id = Id([1; 16]);
const OTHER: Id = Id([2; 16]);
const OLD: &str = "2026-10";
const NEW: &str = "2026-11";

fn key(byte: u8) -> DataKey {
    DataKey::new(Id([byte; 16]), [byte; 32])
}

fn info(topic_id: Id, topic: &str, partition: i32, first: i64) -> SegmentInfo {
    SegmentInfo {
        writer: "a test".into(),
        cluster_id: "cluster".into(),
        topic_id,
        topic: topic.into(),
        partition,
        segment_id: Some(Id([5; 16])),
        base_offset: first,
        last_offset: first + 69,
        max_timestamp_ms: 1_700_000_000_100,
        created_ms: 1_700_000_001_000,
        broker_id: Some(1),
        leader_epochs: vec![EpochStart { epoch: 0, start_offset: 0 }],
        observed: vec![],
    }
}

fn segment(info: SegmentInfo, sealed: Option<(DataKey, &str)>) -> Vec<u8> {
    let number = (info.base_offset + i64::from(info.partition)) as u8;
    let options = WriteOptions {
        frame_bytes: 4096,
        chunk_bytes: 4096,
        compression: Compression::None,
        digest: DigestAlgorithm::Blake3,
        encryption: sealed.map(|(key, period)| Encryption { key, period: period.into(), salt: [number; 32] }),
        object_id: Id([number; 16]),
    };
    let plan = Plan::new(LOG.len() as u64, options.chunk_bytes, &[]).unwrap();
    let mut encoder = Encoder::new(options, plan).unwrap();
    let (mut object, mut bytes) = (Vec::new(), LOG);
    while !bytes.is_empty() {
        let n = encoder.next_frame_bytes().unwrap();
        encoder.frame(&bytes[..n], &mut object).unwrap();
        bytes = &bytes[n..];
    }
    encoder.finish(info, &mut object).unwrap();
    object
}

struct Made {
    /// Of the store and, beside it, the key ring.
    folder: tempfile::TempDir,
    root: PathBuf,
    ring: PathBuf,
}

impl Made {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (root, ring) = (folder.path().join("store"), folder.path().join("ring.json"));
        fs::create_dir(&root).unwrap();
        fs::write(&ring, RING).unwrap();
        fs::set_permissions(&ring, fs::Permissions::from_mode(0o640)).unwrap();
        Self { folder, root, ring }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// An object of a tier.
    fn object(&self, topic_id: Id, topic: &str, partition: i32, sealed: Option<(DataKey, &str)>) -> PathBuf {
        let name = segment_name(&SegmentName {
            cluster_id: "cluster".into(),
            topic_id,
            partition,
            base_offset: 100,
            segment_id: Id([5; 16]),
        });
        self.put(&name, &segment(info(topic_id, topic, partition, 100), sealed))
    }

    /// A key's record.
    fn record(&self, byte: u8, topic_id: Id, period: &str) -> PathBuf {
        let record = record(byte, topic_id, period);
        self.put(&key_record_name("cluster", topic_id, period, record.id), &record.encode().unwrap())
    }

    fn keys(&self, command: &str, args: &[&str]) -> Output {
        varve(&[&["keys", command, text_of(&self.root)], args].concat())
    }

    /// With the ring.
    fn opened(&self, command: &str, args: &[&str]) -> Output {
        self.keys(command, &[&["--key-ring", text_of(&self.ring)], args].concat())
    }

    fn rotate(&self, args: &[&str]) -> Output {
        varve(&[&["keys", "rotate", "--key-ring", text_of(&self.ring)], args].concat())
    }

    fn verify(&self, object: &Path, ring: &Path) -> Output {
        varve(&["segment", "verify", text_of(object), "--key-ring", text_of(ring)])
    }

    /// All that the store and the ring hold.
    fn state(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut all, mut folders) = (BTreeMap::new(), vec![self.folder.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    all.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        all
    }
}

fn record(byte: u8, topic_id: Id, period: &str) -> KeyRecord {
    let ring = KeyRing::parse(RING).unwrap();
    KeyRecord::wrap(&ring, &key(byte), "cluster", topic_id, period, 1_700_000_000_000, [byte; 12]).unwrap()
}

fn varve(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_varve"));
    command.args(args).stdin(Stdio::null());
    command.env_remove("VARVE_KEY_RING").env_remove("VARVE_KEKS").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Ends with this code; both outputs.
fn ends(out: &Output, code: i32) -> String {
    let all = format!("{}{}", text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{all}");
    all
}

fn json(out: &Output, code: i32) -> Vec<Value> {
    ends(out, code);
    text(&out.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn says(out: &Output, code: i32, parts: &[&str]) {
    let all = ends(out, code);
    for part in parts {
        assert!(all.contains(part), "{part:?} is not in {all}");
    }
}

/// Two keys of a topic, one of them of version 1; another topic that is not encrypted.
fn tier() -> (Made, [PathBuf; 3]) {
    let made = Made::new();
    made.record(11, TOPIC, NEW);
    let old = record(12, TOPIC, OLD);
    let old = KeyRecord { cluster_id: None, ..old };
    let sealed = KeyRing::parse(RING).unwrap().wrap([3; 12], &old.aad(), &[12; 32]).unwrap();
    let wrapping = Wrapping { wrapped: [&[3; 12][..], &sealed].concat(), ..old.wrapping.clone() };
    let old = KeyRecord { wrapping, ..old };
    made.put(&key_record_1_name("cluster", TOPIC, OLD), &old.encode().unwrap());
    let objects = [
        made.object(TOPIC, "orders", 0, Some((key(12), OLD))),
        made.object(TOPIC, "orders", 1, Some((key(11), NEW))),
        made.object(TOPIC, "orders", 2, Some((key(11), NEW))),
    ];
    made.object(OTHER, "plain", 0, None);
    (made, objects)
}

#[test]
fn an_audit_tells_which_object_needs_which_key() {
    let (made, objects) = tier();
    let lines = json(&made.opened("audit", &["--json", "--try", "--objects"]), 0);
    let of = |kind: &str| lines.iter().filter(|l| l["type"] == kind).cloned().collect::<Vec<_>>();
    let (keys, shown, summary) = (of("key"), of("object"), &of("summary")[0]);
    assert_eq!((keys.len(), shown.len()), (2, 4));
    let (old, new) = (&keys[0], &keys[1]);
    assert_eq!((&old["period"], &old["version"], &old["objects"]), (&OLD.into(), &1.into(), &1.into()));
    assert_eq!((&new["period"], &new["version"], &new["objects"]), (&NEW.into(), &2.into(), &2.into()));
    let bytes: u64 = objects[1..].iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(new["bytes"], bytes);
    for key in [old, new] {
        assert_eq!((&key["topic"], &key["state"]), (&"orders".into(), &"there".into()));
        assert_eq!((&key["wrapped_by"], &key["algorithm"]), (&"ring:1".into(), &"AES-256-GCM".into()));
        assert_eq!(
            (&key["trusted"], &key["opens"], &key["finding"]),
            (&true.into(), &true.into(), &Value::Null)
        );
    }
    assert_eq!(
        (&summary["objects"], &summary["plain_objects"], &summary["kind"]),
        (&4.into(), &1.into(), &"tier".into())
    );
    // Without keys, for one topic.
    let lines = json(&made.keys("audit", &["--json", "--topics", "pl*"]), 0);
    assert_eq!((lines.len(), &lines[0]["objects"]), (1, &1.into()));
    says(
        &made.keys("audit", &["--topics", &TOPIC.to_string()]),
        0,
        &["orders", "ring:1", "ok: 2 data keys, 3 objects"],
    );
}

#[test]
fn an_audit_finds_keys_that_are_lost_but_not_those_that_were_destroyed() {
    let (made, objects) = tier();
    let record = made.root.join(key_record_name("cluster", TOPIC, NEW, key(11).id));
    let bytes = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    let name = objects[1].strip_prefix(&made.root).unwrap();
    says(
        &made.opened("audit", &[]),
        1,
        &["missing", "2 objects", text_of(name), "restore keys/", "1 FINDINGS"],
    );
    let tombstone = tombstone_name(&key_record_name("cluster", TOPIC, NEW, key(11).id));
    made.put(&tombstone, b"{}");
    says(&made.opened("audit", &[]), 0, &["destroyed", "on purpose", text_of(name)]);
    fs::write(&record, &bytes).unwrap();
    // Whether it was destroyed no tombstone proves: it may be planted.
    let delete = format!("delete {tombstone}");
    says(
        &made.opened("audit", &[]),
        1,
        &["returned", "report of varve keys shred", "destroy it again", &delete],
    );
    fs::remove_file(made.root.join(tombstone)).unwrap();
    // Nor does that of the period's record of version 1 say whose key it was.
    fs::remove_file(&record).unwrap();
    let of_period = tombstone_name(&key_record_1_name("cluster", TOPIC, NEW));
    made.put(&of_period, b"{}");
    let out = made.opened("audit", &["--try"]);
    says(&out, 1, &["missing", &of_period, "restore keys/", "as it is", "1 FINDINGS"]);
    fs::remove_file(made.root.join(of_period)).unwrap();
    fs::write(&record, &bytes[1..]).unwrap();
    says(&made.opened("audit", &[]), 1, &["damaged", record.file_name().unwrap().to_str().unwrap()]);
    fs::write(&record, &bytes).unwrap();
    // A ring that has not got the key.
    fs::write(&made.ring, RING.replace(r#""1""#, r#""2""#)).unwrap();
    says(&made.opened("audit", &["--try"]), 1, &["holds no such key", "NO"]);
    says(&made.opened("audit", &[]), 0, &["ok"]);
    // What is no segment, and a key that nothing needs.
    fs::write(&made.ring, RING).unwrap();
    fs::write(&objects[0], b"what").unwrap();
    let lines = json(&made.opened("audit", &["--json"]), 1);
    assert_eq!(lines[0]["type"], "unreadable");
    let summary = lines.last().unwrap();
    assert_eq!((&summary["unreadable_objects"], &summary["keys_no_object_needs"]), (&1.into(), &1.into()));
}

#[test]
fn a_ring_gets_another_key() {
    let made = Made::new();
    let before = made.state();
    says(&made.rotate(&["--new-id", "2", "--dry-run"]), 0, &["would be 2", "it was 1"]);
    says(&made.rotate(&["--new-id", "2"]), 2, &["say --yes"]);
    says(&made.rotate(&["--new-id", "1", "--yes"]), 2, &["not in the ring yet"]);
    says(&made.rotate(&["--activate", "2", "--yes"]), 2, &["one of"]);
    assert_eq!(made.state(), before);
    ends(&made.rotate(&["--new-id", "2", "--keep-active", "--yes"]), 0);
    let ring = || KeyRing::parse(&fs::read_to_string(&made.ring).unwrap()).unwrap();
    assert_eq!((ring().active(), ring().ids().collect::<Vec<_>>()), ("1", vec!["1", "2"]));
    says(&made.rotate(&["--activate", "2", "--yes"]), 0, &["rewrap URL --to ring:2"]);
    assert_eq!(ring().active(), "2");
    // By a link, as where files are mounted: the file is replaced, the link stays.
    let link = made.folder.path().join("link.json");
    std::os::unix::fs::symlink(&made.ring, &link).unwrap();
    let out = varve(&["keys", "rotate", "--key-ring", text_of(&link), "--new-id", "3", "--yes", "--json"]);
    let told = &json(&out, 0)[0];
    assert_eq!(
        (&told["active"], &told["active_before"], &told["added"]),
        (&"3".into(), &"2".into(), &"3".into())
    );
    assert!(link.is_symlink());
    assert_eq!(ring().active(), "3");
    assert_eq!(fs::metadata(&made.ring).unwrap().permissions().mode() & 0o777, 0o640);
    let text = fs::read_to_string(&made.ring).unwrap();
    let keys: Value = serde_json::from_str(&text).unwrap();
    let keys = keys["keys"].as_object().unwrap().values().collect::<Vec<_>>();
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && !keys[2].as_str().unwrap().starts_with("AAAA"));
    // Somebody else is at it, or was broken off.
    let beside = made.folder.path().join("ring.json.new");
    fs::write(&beside, "").unwrap();
    says(&made.rotate(&["--new-id", "4", "--yes"]), 2, &["ring.json.new is there"]);
    assert_eq!(fs::read_to_string(&made.ring).unwrap(), text);
    says(
        &varve(&["keys", "rotate", "--to", "vault://v.example/transit/k"]),
        0,
        &["encryption.key = vault://v.example:8200/transit/k"],
    );
    ends(&varve(&["keys", "rotate"]), 2);
}

#[test]
fn keys_are_wrapped_anew_and_objects_are_read_on() {
    let (made, objects) = tier();
    ends(&made.rotate(&["--new-id", "2", "--yes"]), 0);
    let before = made.state();
    says(
        &made.opened("rewrap", &["--to", "ring:2", "--dry-run"]),
        0,
        &["2 data keys would be", "wrapped by ring:1"],
    );
    says(&made.opened("rewrap", &["--to", "ring:1"]), 1, &["active key is 2", "2 failed"]);
    assert_eq!(made.state(), before);
    let lines = json(&made.opened("rewrap", &["--to", "ring:2", "--period", NEW, "--json"]), 0);
    assert_eq!((&lines[0]["outcome"], &lines[1]["done"]), (&"done".into(), &1.into()));
    says(
        &made.opened("rewrap", &["--to", "ring:2", "--topics", "orders"]),
        0,
        &["1 data key wrapped anew", "1 were already"],
    );
    says(&made.opened("rewrap", &["--to", "ring:2"]), 0, &["0 data keys wrapped anew", "2 were already"]);
    // The old key is not needed any more.
    let text: Value = serde_json::from_str(&fs::read_to_string(&made.ring).unwrap()).unwrap();
    let only = serde_json::json!({"active": "2", "keys": {"2": text["keys"]["2"]}});
    let new = made.folder.path().join("new.json");
    fs::write(&new, only.to_string()).unwrap();
    for object in &objects {
        ends(&made.verify(object, &new), 0);
    }
    let old = made.folder.path().join("old.json");
    fs::write(&old, RING).unwrap();
    says(&made.verify(&objects[0], &old), 2, &["holds no such key"]);
    let lines = json(&made.opened("audit", &["--json"]), 0);
    assert!(lines[..2].iter().all(|line| line["wrapped_by"] == "ring:2" && line["version"] == 2));
}

#[test]
fn shredded_keys_are_gone_and_proven_to_be() {
    let (made, objects) = tier();
    let before = made.state();
    let which = ["--topic", "orders", "--period", NEW];
    says(
        &made.keys("shred", &[&which[..], &["--dry-run"]].concat()),
        0,
        &["1 key: 2 objects of", "would be unreadable"],
    );
    let report = made.folder.path().join("report.json");
    let reported = ["--report", text_of(&report)];
    says(&made.keys("shred", &[&which[..], &reported].concat()), 2, &["type orders", "say --yes"]);
    says(&made.keys("shred", &["--topic", "what", "--all-periods"]), 2, &["no object is of a topic what"]);
    ends(&made.keys("shred", &["--topic", "orders"]), 2);
    assert_eq!(made.state(), before);

    let out = made.keys("shred", &[&which[..], &reported, &["--yes"]].concat());
    says(
        &out,
        0,
        &["1 key destroyed, and proven", "encryption.key.cache.ms", "copies of key records elsewhere"],
    );
    let told: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let told_key = &told["data_keys"][0];
    assert_eq!((&told["ok"], &told["objects"], &told_key["period"]), (&true.into(), &2.into(), &NEW.into()));
    let proof = &told_key["proofs"][0];
    for what in ["is_record_gone", "has_tombstone", "is_refused"] {
        assert_eq!(proof[what], true, "{what}");
    }
    says(&made.verify(&objects[1], &made.ring), 2, &["destroyed on purpose"]);
    ends(&made.verify(&objects[0], &made.ring), 0);
    says(&made.opened("audit", &["--try"]), 0, &["destroyed"]);
    // A report is never replaced, and then nothing is destroyed.
    let rest = ["--topic-id", &TOPIC.to_string(), "--all-periods", "--yes"];
    ends(&made.keys("shred", &[&rest[..], &reported].concat()), 2);
    ends(&made.verify(&objects[0], &made.ring), 0);
    // A record of version 1; and the other once more.
    let lines = json(&made.keys("shred", &[&rest[..], &["--json"]].concat()), 0);
    assert_eq!((&lines[0]["ok"], &lines[0]["keys"]), (&true.into(), &2.into()));
    says(&made.verify(&objects[0], &made.ring), 2, &["destroyed on purpose"]);
    assert!(!made.root.join(key_record_1_name("cluster", TOPIC, OLD)).exists());
    says(&made.opened("audit", &["--try"]), 0, &["destroyed", "on purpose"]);
    // Put back from a copy, it counts for nothing.
    made.record(11, TOPIC, NEW);
    says(&made.verify(&objects[1], &made.ring), 2, &["destroyed on purpose"]);
    says(&made.opened("rewrap", &["--to", "ring:1", "--again"]), 0, &["1 destroyed or gone"]);
}

/// Whoever can write to the store can put an object that names another topic into a topic's folder.
#[test]
fn a_planted_name_leads_to_no_other_topics_keys() {
    let (made, objects) = tier();
    // A topic that was deleted: its keys are there, its objects are not.
    made.record(13, OTHER, NEW);
    let name = SegmentName {
        cluster_id: "cluster".into(),
        topic_id: TOPIC,
        partition: 0,
        base_offset: 7,
        segment_id: Id([5; 16]),
    };
    let planted = segment_name(&name);
    made.put(&planted, &segment(info(TOPIC, "clicks", 0, 7), None));
    let before = made.state();
    let genuine = objects[1].strip_prefix(&made.root).unwrap();
    let refused = [&planted, text_of(genuine), "clicks", "orders", "--topic-id"];
    for given in [&["--yes"][..], &["--dry-run"], &["--yes", "--json"]] {
        let which = ["--topic", "clicks", "--all-periods"];
        says(&made.keys("shred", &[&which[..], given].concat()), 2, &refused);
    }
    // One that comes behind the others spoils their name as well.
    fs::remove_file(made.root.join(&planted)).unwrap();
    let name = SegmentName { partition: 9, ..name };
    let planted = made.put(&segment_name(&name), &segment(info(TOPIC, "clicks", 9, 7), None));
    let which = ["--topic", "orders", "--all-periods", "--yes"];
    says(&made.keys("shred", &which), 2, &["clicks", "--topic-id"]);
    // By the id, what they say is shown, and the id is asked for.
    let id = TOPIC.to_string();
    let which = ["--topic-id", &id, "--all-periods"];
    let out = made.keys("shred", &which);
    says(&out, 2, &["several names", "clicks", &format!("type {id}:"), "say --yes"]);
    fs::remove_file(planted).unwrap();
    let all = format!("orders, {id} of cluster cluster");
    says(&made.keys("shred", &which), 2, &[&all, &format!("type {id}:")]);
    let which = ["--topic", "orders", "--all-periods"];
    says(&made.keys("shred", &which), 2, &[&format!("Keys of topic {all}"), "type orders:"]);
    let still = |path: &PathBuf| before.get(path) == made.state().get(path);
    assert!(before.keys().filter(|path| path.extension().is_some_and(|e| e == "json")).all(still));
}

#[test]
fn a_key_without_a_record_gets_a_tombstone() {
    let (made, objects) = tier();
    let record = made.root.join(key_record_name("cluster", TOPIC, NEW, key(11).id));
    let bytes = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    ends(&made.keys("shred", &["--topic", "orders", "--all-periods", "--yes"]), 0);
    made.put(&key_record_name("cluster", TOPIC, NEW, key(11).id), &bytes);
    says(&made.verify(&objects[1], &made.ring), 2, &["destroyed on purpose"]);
}

#[test]
fn of_an_archive_chains_and_journal_are_told_and_what_remains_holds() {
    let made = Made::new();
    let url = format!("file://{}", made.root.display());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = varve_store::open(&url, &Default::default()).await.unwrap();
        let archive =
            Archive::create(store, "", Id([9; 16]), HashAlgorithm::Blake3, "a test", 5).await.unwrap();
        let topic = TopicRecord {
            varve_topic: V1,
            topic_id: TOPIC,
            topic: "orders".into(),
            cluster_id: "cluster".into(),
            partitions: Some(1),
            writer: "a test".into(),
            created_ms: 5,
            more: vec![],
        };
        archive.add_topic(&topic).await.unwrap();
        let object = |first, byte, period| {
            let info = SegmentInfo { segment_id: None, ..info(TOPIC, "orders", 0, first) };
            Bytes::from(segment(info, Some((key(byte), period))))
        };
        let committed = archive.partition(TOPIC, 0).commit(0, 100, object(100, 12, OLD)).await.unwrap();
        assert!(matches!(committed, Commit::Committed));
        let mut bundle = BundleBuilder::default();
        for first in [170, 240] {
            let place = Place { topic_id: TOPIC, partition: 0, first_offset: first };
            bundle.add(&archive, 0, place, object(first, 11, NEW)).unwrap();
        }
        archive.put_bundle("a", 0, bundle, "a test", 5).await.unwrap();
        let journal = archive.journal(|_, _| true).await.unwrap();
        let target = Target { journal: journal.entries(TOPIC, 0).to_vec(), ..Target::new(TOPIC, 0) };
        let new = NewSnapshot {
            targets: &[target],
            documents: &[],
            writer: "a test",
            now_ms: 5,
            signer: None,
            trusted: &[],
        };
        archive.write_snapshot(&new).await.unwrap();
    });
    made.record(12, TOPIC, OLD);
    made.record(11, TOPIC, NEW);
    let lines = json(&made.opened("audit", &["--json", "--try", "--objects"]), 0);
    let summary = lines.last().unwrap();
    assert_eq!((&summary["kind"], &summary["objects"]), (&"archive".into(), &3.into()));
    let of = |key: &str| {
        let one = lines.iter().find(|l| l["type"] == "key" && l["period"] == key).unwrap();
        (one["topic"].clone(), one["objects"].clone())
    };
    assert_eq!((of(OLD), of(NEW)), (("orders".into(), 1.into()), ("orders".into(), 2.into())));
    assert!(lines.iter().any(|l| l["object"].as_str().is_some_and(|o| o.contains("offsets 240 to 309"))));

    let out = made.keys("shred", &["--topic", "orders", "--period", NEW, "--yes", "--json"]);
    let told = &json(&out, 0)[0];
    assert_eq!((&told["ok"], &told["objects"]), (&true.into(), &2.into()));
    assert_eq!((&told["verified"]["ok"], &told["verified"]["snapshot"]), (&true.into(), &1.into()));
    ends(&varve(&["verify", text_of(&made.root), "--depth", "contents"]), 0);
    says(&made.keys("shred", &["--topic", "orders", "--all-periods", "--yes"]), 0, &["the archive is whole"]);
    says(&made.opened("audit", &["--try"]), 0, &["destroyed"]);
}

#[test]
fn help_and_pages() {
    let out = varve(&["keys", "--help"]);
    says(&out, 0, &["audit", "rotate", "rewrap", "shred"]);
    let pages = tempfile::tempdir().unwrap();
    ends(&varve(&["man", "--into", text_of(pages.path())]), 0);
    assert!(pages.path().join("varve-keys-shred.1").exists());
    assert!(text(&varve(&["completion", "bash"]).stdout).contains("rewrap"));
}
