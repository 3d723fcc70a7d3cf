//! `varve segment …` on objects made here: a log with every kind of batch that Kafka writes (see
//! `crates/kafka/tests/batches.rs`), indexes that fit it, plain, compressed and encrypted.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use varve_format::{
    Compression, DataKey, DigestAlgorithm, Encoder, Encryption, ExtentKind, Id, KeyRecord, KeyRing, Plan,
    SegmentInfo, SegmentName, WriteOptions, key_record_name, segment_name,
};

const LOG: &[u8] = include_bytes!("../../crates/kafka/tests/data/every-kind-of-batch.log");
const DUMP: &str = include_str!("../../crates/kafka/tests/data/every-kind-of-batch.dump");
const RING: &str = r#"{"active": "a", "keys": {"a": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="}}"#;
const TOPIC: Id = Id([1; 16]);

/// Entries at the begin of the second, and of the seventh batch.
fn offset_index() -> Vec<u8> {
    [5, 503, 20, 2175].into_iter().flat_map(i32::to_be_bytes).collect()
}

fn aborted() -> Vec<u8> {
    let numbers = [4002_i64, 118, 121, 118].into_iter().flat_map(i64::to_be_bytes);
    0_i16.to_be_bytes().into_iter().chain(numbers).collect()
}

const EPOCHS: &[u8] = b"0\n1\n9 115\n";

struct Made {
    root: tempfile::TempDir,
    object: PathBuf,
}

/// A store with one object in it.
fn made(log: &[u8], index: &[u8], compression: Compression, encrypted: bool) -> Made {
    let root = tempfile::tempdir().unwrap();
    let info = SegmentInfo {
        writer: "a test".into(),
        cluster_id: "cluster".into(),
        topic_id: TOPIC,
        topic: "orders".into(),
        partition: 3,
        segment_id: Some(Id([2; 16])),
        base_offset: 100,
        last_offset: 169,
        max_timestamp_ms: 1_700_000_000_100,
        created_ms: 1_700_000_001_000,
        broker_id: Some(1),
        leader_epochs: vec![],
        observed: vec![],
    };
    let encryption = encrypted.then(|| {
        let key = DataKey::new(Id([7; 16]), [9; 32]);
        let ring = KeyRing::parse(RING).unwrap();
        let record = KeyRecord::wrap(&ring, &key, "cluster", TOPIC, "2026-11", 5, [3; 12]).unwrap();
        let path = root.path().join(key_record_name("cluster", TOPIC, "2026-11", key.id));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, record.encode().unwrap()).unwrap();
        Encryption { key, period: "2026-11".into(), salt: [5; 32] }
    });
    let options = WriteOptions {
        frame_bytes: 4096,
        chunk_bytes: 4096,
        compression,
        digest: DigestAlgorithm::Blake3,
        encryption,
        object_id: Id([4; 16]),
    };
    let sections = [
        (ExtentKind::OffsetIndex, index.to_vec()),
        (ExtentKind::TimeIndex, vec![]),
        (ExtentKind::TransactionIndex, aborted()),
        (ExtentKind::LeaderEpochs, EPOCHS.to_vec()),
    ];
    let sizes: Vec<_> = sections.iter().map(|(kind, bytes)| (*kind, bytes.len() as u64)).collect();
    let plan = Plan::new(log.len() as u64, options.chunk_bytes, &sizes).unwrap();
    let mut encoder = Encoder::new(options, plan).unwrap();
    let mut object = Vec::new();
    for mut bytes in std::iter::once(log).chain(sections.iter().map(|(_, bytes)| &bytes[..])) {
        while !bytes.is_empty() {
            let n = encoder.next_frame_bytes().unwrap();
            encoder.frame(&bytes[..n], &mut object).unwrap();
            bytes = &bytes[n..];
        }
    }
    encoder.finish(info, &mut object).unwrap();
    let name = segment_name(&SegmentName {
        cluster_id: "cluster".into(),
        topic_id: TOPIC,
        partition: 3,
        base_offset: 100,
        segment_id: Id([2; 16]),
    });
    let path = root.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, object).unwrap();
    Made { root, object: path }
}

fn varve(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_varve")).args(args).env_remove("VARVE_KEY_RING").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn inspect_lists_what_kafka_dump_log_lists() {
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        let made = made(LOG, &offset_index(), compression, false);
        let out = varve(&["segment", "inspect", "--batches", "--indexes", path(&made.object)]);
        assert!(out.status.success(), "{}", text(&out.stderr));
        let listed = text(&out.stdout);
        let lines: Vec<&str> = listed.lines().filter(|line| line.starts_with("baseOffset")).collect();
        assert_eq!(lines, DUMP.lines().collect::<Vec<_>>());
        for expected in [
            "offset: 105 position: 503",
            "version: 0 producerId: 4002 firstOffset: 118 lastOffset: 121 lastStableOffset: 118",
            "epoch: 9 startOffset: 115",
            "orders (id AQEBAQEBAQEBAQEBAQEBAQ)",
            "100 to 169",
        ] {
            assert!(listed.contains(expected), "{expected} is missing in\n{listed}");
        }
        let url = format!("file://{}", path(&made.object));
        let out = varve(&["segment", "inspect", "--batches", "--indexes", "--json", &url]);
        let values: Vec<Value> =
            text(&out.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(values[0]["log_bytes"], LOG.len());
        assert_eq!(values.iter().filter(|v| v["type"] == "batch" && v["is_valid"] == true).count(), 12);
    }
}

#[test]
fn extract_gives_the_files_back_and_replaces_none() {
    for (compression, encrypted) in [
        (Compression::None, false),
        (Compression::Zstd { level: 1 }, false),
        (Compression::Auto { level: 1 }, true),
    ] {
        let made = made(LOG, &offset_index(), compression, encrypted);
        let ring = made.root.path().join("ring.json");
        fs::write(&ring, RING).unwrap();
        let into = made.root.path().join("out");
        let extract =
            ["segment", "extract", path(&made.object), "--into", path(&into), "--key-ring", path(&ring)];
        let out = varve(&extract);
        assert!(out.status.success(), "{}", text(&out.stderr));
        let expected: [(&str, &[u8]); 5] = [
            ("00000000000000000100.index", &offset_index()),
            ("00000000000000000100.log", LOG),
            ("00000000000000000100.timeindex", b""),
            ("00000000000000000100.txnindex", &aborted()),
            ("leader-epoch-checkpoint", EPOCHS),
        ];
        let mut names: Vec<_> =
            fs::read_dir(&into).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, expected.map(|(name, _)| name));
        for (name, bytes) in expected {
            assert_eq!(fs::read(into.join(name)).unwrap(), bytes, "{name}");
        }
        fs::remove_file(into.join("00000000000000000100.log")).unwrap();
        fs::write(into.join("00000000000000000100.index"), "mine").unwrap();
        let out = varve(&extract);
        assert_eq!(out.status.code(), Some(2));
        assert!(text(&out.stderr).contains("00000000000000000100.index exists"), "{}", text(&out.stderr));
        assert!(!into.join("00000000000000000100.log").exists());
        assert_eq!(fs::read(into.join("00000000000000000100.index")).unwrap(), b"mine");
    }
}

#[test]
fn verify_finds_every_flipped_byte_of_the_object() {
    let made = made(LOG, &offset_index(), Compression::None, false);
    let out = varve(&["segment", "verify", path(&made.object)]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));
    assert!(
        text(&out.stdout).contains("ok: 3,047 bytes of log, 12 batches, 26 records"),
        "{}",
        text(&out.stdout)
    );
    let good = fs::read(&made.object).unwrap();
    for at in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&made.object, &bad).unwrap();
        let out = varve(&["segment", "verify", "--json", path(&made.object)]);
        assert_eq!(out.status.code(), Some(1), "byte {at}: {}", text(&out.stderr));
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert!(report["ok"] == false && !report["findings"].as_array().unwrap().is_empty(), "byte {at}");
    }
    fs::write(&made.object, &good[..good.len() - 1]).unwrap();
    assert_eq!(varve(&["segment", "verify", path(&made.object)]).status.code(), Some(1));
}

#[test]
fn verify_looks_into_what_was_stored_faithfully() {
    let says = |log: &[u8], index: &[u8], expected: &str| {
        let made = made(log, index, Compression::None, false);
        let out = varve(&["segment", "verify", path(&made.object)]);
        assert_eq!(out.status.code(), Some(1), "{expected}");
        assert!(text(&out.stdout).contains(expected), "expected {expected:?} in {}", text(&out.stdout));
    };
    let index = offset_index();
    let mut bad = LOG.to_vec();
    bad[600] ^= 1;
    says(&bad, &index, "batch at byte 503 (base offset 103): expected CRC32C");
    says(&LOG[..LOG.len() - 1], &index, "ends too early");
    says(&[LOG, &LOG[..503]].concat(), &index, "batch at byte 3047: base offset 100 after offset 169");
    let wrong: Vec<u8> = [5, 504].into_iter().flat_map(i32::to_be_bytes).collect();
    says(LOG, &wrong, "offset index: no batch begins at byte 504");
    let behind: Vec<u8> = [5, 4000].into_iter().flat_map(i32::to_be_bytes).collect();
    says(LOG, &behind, "point behind the last batch");
    says(LOG, &index[..9], "offset index ends too early");
}

#[test]
fn what_cannot_be_done_is_told_apart() {
    let made = made(LOG, &offset_index(), Compression::None, true);
    let fails = |args: &[&str], expected: &str| {
        let out = varve(args);
        assert_eq!(out.status.code(), Some(2), "{}", text(&out.stdout));
        assert!(text(&out.stderr).contains(expected), "expected {expected:?} in {}", text(&out.stderr));
    };
    // Without the key the footer can still be read, and nothing else.
    assert!(varve(&["segment", "inspect", path(&made.object)]).status.success());
    fails(&["segment", "verify", path(&made.object)], "no key was given");
    let ring = made.root.path().join("ring.json");
    fs::write(&ring, RING.replace("AgI", "AwI")).unwrap();
    fails(
        &["segment", "verify", path(&made.object), "--key-ring", path(&ring)],
        "does not open with this key",
    );
    fs::write(&ring, RING).unwrap();
    assert!(varve(&["segment", "verify", path(&made.object), "--key-ring", path(&ring)]).status.success());
    fs::remove_dir_all(made.root.path().join("keys")).unwrap();
    fails(&["segment", "verify", path(&made.object), "--key-ring", path(&ring)], "it was destroyed");

    let absent = made.root.path().join("nowhere/x.varve");
    fails(&["segment", "inspect", path(&absent)], "no such directory");
    assert!(!absent.parent().unwrap().exists(), "a look must not make a directory");
    fails(&["segment", "inspect", path(&made.root.path().join("x.varve"))], "not found");
    fails(&["segment", "inspect", path(&made.object), "--store-config", "s3.regoin=x"], "s3.regoin");
}

#[test]
fn stores_shells_and_pages() {
    let root = tempfile::tempdir().unwrap();
    let url = format!("file://{}", path(root.path()));
    let out = varve(&["store", "check", &url]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));
    assert!(text(&out.stdout).contains("promises kept by"));
    assert!(varve(&["completion", "bash"]).stdout.len() > 1000);
    assert!(text(&varve(&["man"]).stdout).contains(".TH varve"));
    let pages = root.path().join("man");
    assert!(varve(&["man", "--into", path(&pages)]).status.success());
    assert!(pages.join("varve-tier-scrub.1").exists());
}
