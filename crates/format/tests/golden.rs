//! Objects that were written once, by the first release of version 1, and are never written again: what they
//! hold must be read for ever, and today's writer must still write the same bytes (where zstd compressed, its
//! own version may change them: then what it decodes to counts).
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Rng, decode_all::decode_all, open, read_all, trailer, write_as};
use varve_format::*;

const NAMES: [&str; 11] = [
    "raw",
    "zstd",
    "auto-mixed",
    "encrypted",
    "encrypted-zstd",
    "all",
    "empty-log",
    "no-digests",
    "sha256",
    "no-transaction-index",
    "no-extents",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/v1")
}

fn bytes(file: &str) -> Vec<u8> {
    std::fs::read(folder().join(file)).unwrap_or_else(|e| panic!("tests/golden/v1/{file}: {e}"))
}

fn ring() -> KeyRing {
    KeyRing::parse(std::str::from_utf8(&bytes("key-ring.json")).unwrap()).unwrap()
}

fn data_key() -> DataKey {
    KeyRecord::decode(&bytes("key-record.json")).unwrap().unwrap(&ring()).unwrap()
}

/// All that reading an object gives.
fn described(object: &[u8], metadata: &[u8], key: &DataKey) -> Value {
    let (footer, plain) = read_all(object, Some(key)).unwrap();
    let trailer = trailer(object).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let sha256 = |bytes: &[u8]| {
        let mut h = DigestAlgorithm::Sha256.hasher().unwrap();
        h.update(bytes);
        h.finish().to_string()
    };
    let extents = footer.extents.iter().zip(&plain).enumerate().map(|(n, (e, plain))| {
        json!({
            "kind": e.kind.name(), "codec": format!("{:?}", e.codec).to_lowercase(), "plain_offset": e.plain_offset,
            "plain_bytes": e.plain_bytes, "stored_offset": e.stored_offset, "stored_bytes": e.stored_bytes,
            "first_frame": e.first_frame, "frames": e.frame_count(),
            "crc32c": e.crcs.iter().map(|c| format!("{c:08x}")).collect::<Vec<_>>(),
            "digest": footer.digests.get(n).map(Digest::to_string), "plain_sha256": sha256(plain),
        })
    });
    let i = &footer.info;
    json!({
        "object_bytes": trailer.object_bytes(), "object_sha256": sha256(object),
        "version": trailer.version, "required_features": trailer.features.required,
        "optional_features": trailer.features.optional, "data_end": trailer.data_end,
        "footer_offset": trailer.footer_offset, "footer_bytes": trailer.footer_bytes,
        "footer_crc32c": format!("{:08x}", trailer.footer_crc),
        "writer": i.writer, "object_id": footer.object_id.to_string(), "cluster_id": i.cluster_id,
        "topic_id": i.topic_id.to_string(), "topic": i.topic, "partition": i.partition,
        "segment_id": i.segment_id.map(|id| id.to_string()), "base_offset": i.base_offset,
        "last_offset": i.last_offset, "max_timestamp_ms": i.max_timestamp_ms, "created_ms": i.created_ms,
        "broker_id": i.broker_id,
        "leader_epochs": i.leader_epochs.iter().map(|e| json!([e.epoch, e.start_offset])).collect::<Vec<_>>(),
        "observed": i.observed.iter()
            .map(|o| json!([o.time_ms, o.high_watermark, o.last_stable_offset])).collect::<Vec<_>>(),
        "log_bytes": footer.log_bytes, "frame_bytes": footer.frame_bytes, "chunk_bytes": footer.chunk_bytes,
        "digest": format!("{:?}", footer.digest).to_lowercase(), "root": footer.root.map(|d| d.to_string()),
        "encryption": footer.encryption.as_ref().map(|e| json!({
            "data_key_id": e.data_key_id.to_string(), "period": e.period, "salt": hex(&e.salt),
        })),
        "extents": extents.collect::<Vec<_>>(), "custom_metadata": hex(metadata),
    })
}

fn expected(name: &str) -> Value {
    serde_json::from_slice(&bytes(&format!("{name}.expected.json"))).unwrap()
}

fn metadata(expected: &Value) -> Vec<u8> {
    let hex = expected["custom_metadata"].as_str().unwrap();
    (0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect()
}

#[test]
fn golden_objects_read_as_expected() {
    let key = data_key();
    for name in NAMES {
        let expected = expected(name);
        let metadata = metadata(&expected);
        assert_eq!(described(&bytes(&format!("{name}.varve")), &metadata, &key), expected, "{name}");
    }
    let files = std::fs::read_dir(folder())
        .unwrap()
        .filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "varve"));
    assert_eq!(files.count(), NAMES.len(), "an object that no test reads");
}

#[test]
fn golden_objects_are_written_the_same_today() {
    let key = data_key();
    for name in NAMES {
        let object = bytes(&format!("{name}.varve"));
        let (footer, plain) = read_all(&object, Some(&key)).unwrap();
        let level = 3;
        let compression = match name {
            "zstd" | "encrypted-zstd" => Compression::Zstd { level },
            "auto-mixed" | "all" => Compression::Auto { level },
            _ => Compression::None,
        };
        let options = WriteOptions {
            frame_bytes: footer.frame_bytes,
            chunk_bytes: footer.chunk_bytes,
            compression,
            digest: footer.digest,
            encryption: footer.encryption.as_ref().map(|e| Encryption {
                key: key.clone(),
                period: e.period.clone(),
                salt: e.salt,
            }),
            object_id: footer.object_id,
        };
        let log: Vec<u8> = plain[..footer.chunks().len()].concat();
        let chunks = footer.chunks().len();
        let sections: Vec<_> =
            footer.extents[chunks..].iter().zip(&plain[chunks..]).map(|(e, p)| (e.kind, &p[..])).collect();
        let (today, finished) = write_as(footer.info.clone(), &options, &log, &sections);
        let expected = metadata(&expected(name));
        let known = CustomMetadata::decode(&expected).unwrap();
        assert_eq!(known.encode().unwrap(), expected, "{name}");
        if compression == Compression::None {
            assert!(today == object, "{name} is written differently today");
            let today = finished.custom_metadata(&known.store_id, known.archive);
            assert_eq!(today.encode().unwrap(), expected, "{name}");
            assert!(known.matches(&finished.trailer));
        } else {
            let (again, plain_again) = read_all(&today, Some(&key)).unwrap();
            assert_eq!((again.info, again.root, plain_again), (footer.info, footer.root, plain), "{name}");
        }
    }
}

#[test]
fn golden_raw_object_begins_with_the_log() {
    let (footer, plain) = read_all(&bytes("raw.varve"), None).unwrap();
    let log = plain[..footer.chunks().len()].concat();
    assert_eq!(log, support::kafka::segment().log);
    assert!(bytes("raw.varve").starts_with(&log));
}

#[test]
fn golden_key_record_is_kept_by_rewrapping() {
    let record = KeyRecord::decode(&bytes("key-record.json")).unwrap();
    assert_eq!((record.wrapped_by.as_str(), ring().active()), ("2025", "2026"));
    assert_eq!(record.encode().unwrap(), bytes("key-record.json"));
    let key = record.unwrap(&ring()).unwrap();
    let again = KeyRecord::wrap(&ring(), &key, record.topic_id, &record.period, 1, [3; 12]).unwrap();
    assert_eq!(again.wrapped_by, "2026");
    let key = KeyRecord::decode(&again.encode().unwrap()).unwrap().unwrap(&ring()).unwrap();
    assert!(open(&bytes("encrypted.varve"), Some(&key)).is_ok());
}

/// The fuzz target's function over changed golden bytes, bounded and with a seed, in every test run.
#[test]
fn changed_golden_bytes_never_panic() {
    let (key, ring) = (data_key(), ring());
    let files: Vec<_> = NAMES.iter().map(|n| format!("{n}.varve")).collect();
    let mut seeds: Vec<Vec<u8>> = files.iter().map(|f| bytes(f)).collect();
    seeds.extend(NAMES.iter().map(|n| metadata(&expected(n))));
    seeds.push(bytes("key-record.json"));
    seeds.push(bytes("key-ring.json"));
    let seed = std::env::var("VARVE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_121);
    println!("VARVE_SEED={seed}");
    let mut rng = Rng(seed);
    for _ in 0..100_000 {
        let n = rng.below(seeds.len());
        let (mut changed, donor) = (seeds[n].clone(), rng.below(seeds.len()));
        for _ in 0..=rng.below(4) {
            support::mutate(&mut changed, &seeds[donor], &mut rng);
        }
        if changed.len() >= TRAILER_BYTES && rng.below(4) != 0 {
            support::repair_checksums(&mut changed);
        }
        decode_all(&changed, &key, &ring);
    }
}

/// How the files were made, once. Refuses to touch one that exists: run it only in the empty folder of a new
/// version.
#[test]
#[ignore = "writes the golden files of a new version, once"]
fn write_golden_files() {
    let new_file = |name: &str, bytes: &[u8]| {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).open(folder().join(name)).unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
    };
    let segment = support::kafka::segment();
    let topic_id = Id(std::array::from_fn(|n| 0x10 + n as u8));
    let key =
        DataKey::new(Id(std::array::from_fn(|n| 0x40 + n as u8)), std::array::from_fn(|n| 0x80 + n as u8));
    let old_ring = support::KEK_RING.replace("\"active\": \"2026\"", "\"active\": \"2025\"");
    let record = KeyRecord::wrap(
        &KeyRing::parse(&old_ring).unwrap(),
        &key,
        topic_id,
        "2026-01",
        1_767_225_600_000,
        [8; 12],
    );
    new_file("key-ring.json", format!("{}\n", support::KEK_RING).as_bytes());
    new_file("key-record.json", &record.unwrap().encode().unwrap());
    for (n, name) in NAMES.into_iter().enumerate() {
        let compression = match name {
            "zstd" | "encrypted-zstd" => Compression::Zstd { level: 3 },
            "auto-mixed" | "all" => Compression::Auto { level: 3 },
            _ => Compression::None,
        };
        let options = WriteOptions {
            frame_bytes: 4096,
            chunk_bytes: 8192,
            compression,
            digest: match name {
                "no-digests" => DigestAlgorithm::None,
                "sha256" | "all" => DigestAlgorithm::Sha256,
                _ => DigestAlgorithm::Blake3,
            },
            encryption: matches!(name, "encrypted" | "encrypted-zstd" | "all").then(|| Encryption {
                key: key.clone(),
                period: "2026-01".into(),
                salt: std::array::from_fn(|i| (i * 7 + n) as u8),
            }),
            object_id: Id([0xa0 + n as u8; 16]),
        };
        let mut info = SegmentInfo {
            writer: "varve 0.1.0".into(),
            cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".into(),
            topic_id,
            topic: "orders.paid".into(),
            partition: 2,
            segment_id: Some(Id([0x60 + n as u8; 16])),
            base_offset: segment.base_offset,
            last_offset: segment.last_offset,
            max_timestamp_ms: segment.max_timestamp_ms,
            created_ms: 1_767_225_700_000,
            broker_id: Some(1),
            leader_epochs: vec![
                EpochStart { epoch: 3, start_offset: 1_000 },
                EpochStart { epoch: 5, start_offset: 1_040 },
            ],
            observed: vec![Observed {
                time_ms: 1_767_225_690_000,
                high_watermark: 1_100,
                last_stable_offset: 1_097,
            }],
        };
        let mut log = &segment.log[..];
        let mut sections: Vec<(ExtentKind, &[u8])> = vec![
            (ExtentKind::OffsetIndex, &segment.offset_index),
            (ExtentKind::TimeIndex, &segment.time_index),
            (ExtentKind::TransactionIndex, &segment.transaction_index),
            (ExtentKind::ProducerSnapshot, &segment.producer_snapshot),
            (ExtentKind::LeaderEpochs, &segment.leader_epochs),
        ];
        match name {
            "no-transaction-index" => sections.retain(|(kind, _)| *kind != ExtentKind::TransactionIndex),
            "empty-log" => {
                log = &[];
                sections.iter_mut().take(2).for_each(|(_, bytes)| *bytes = &[]);
                info.last_offset = info.base_offset - 1;
                info.max_timestamp_ms = -1;
                (info.segment_id, info.broker_id) = (None, None);
                (info.leader_epochs, info.observed) = (Vec::new(), Vec::new());
            }
            "no-extents" => {
                log = &[];
                sections.clear();
                info.last_offset = info.base_offset - 1;
                info.max_timestamp_ms = -1;
            }
            "all" => info.observed.push(Observed {
                time_ms: 1_767_225_691_000,
                high_watermark: 1_101,
                last_stable_offset: 1_101,
            }),
            _ => {}
        }
        let (object, finished) = write_as(info, &options, log, &sections);
        let archive = (name == "all").then_some(ArchiveReference {
            topic_id,
            partition: 2,
            branch: 1,
            base_offset: 1_000,
        });
        let metadata = finished.custom_metadata("default", archive).encode().unwrap();
        new_file(&format!("{name}.varve"), &object);
        let text = serde_json::to_string_pretty(&described(&object, &metadata, &key)).unwrap();
        new_file(&format!("{name}.expected.json"), format!("{text}\n").as_bytes());
    }
}
