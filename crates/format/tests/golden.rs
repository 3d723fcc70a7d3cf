//! Objects that were written once, by the first release of version 1, and are never written again: what they
//! hold must be read for ever, and today's writer must still write the same bytes (where zstd compressed, its
//! own version may change them: then what it decodes to counts).
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod support;

use serde_json::{Value, json};
use support::golden::{bytes, footer_digest, key, metadata_of, new_file, ring};
use support::{
    Rng, changed, decode_all::decode_all, forge, golden, open, read_all, trailer, write_as, write_streamed,
};
use varve_format::*;

const NAMES: [&str; 21] = [
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
    "one-chunk",
    "long-section",
    "encrypted-no-digests",
    "encrypted-empty-section",
    "unknown-section",
    "unknown-tag",
    "unknown-optional-bit",
    "encrypted-unknown",
    "zstd-checksum",
    "encrypted-streamed",
];
/// Not by our writer, but legal.
const FORGED: [&str; 4] = ["unknown-tag", "unknown-optional-bit", "encrypted-unknown", "zstd-checksum"];

fn folder_has(extension: &str) -> usize {
    let files = std::fs::read_dir(golden::folder()).unwrap();
    files.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == extension)).count()
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
            "kind": e.kind.name(), "kind_code": e.kind.code(), "codec": format!("{:?}", e.codec).to_lowercase(), "plain_offset": e.plain_offset,
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
    let key = key();
    for name in NAMES {
        let expected = expected(name);
        let metadata = metadata(&expected);
        assert_eq!(described(&bytes(&format!("{name}.varve")), &metadata, &key), expected, "{name}");
    }
    assert_eq!(folder_has("varve"), NAMES.len(), "an object that no test reads");
}

/// What is unknown changes nothing of what is known.
#[test]
fn golden_objects_of_a_later_writer_give_what_is_known() {
    for (later, plain) in
        [("unknown-tag", "raw"), ("unknown-optional-bit", "raw"), ("encrypted-unknown", "encrypted")]
    {
        let [(later, later_plain), (today, today_plain)] =
            [later, plain].map(|name| read_all(&bytes(&format!("{name}.varve")), Some(&key())).unwrap());
        assert_eq!(later_plain, today_plain);
        let same = SegmentInfo { segment_id: later.info.segment_id, ..today.info };
        assert_eq!((later.info, later.root), (same, today.root));
    }
}

#[test]
fn golden_objects_are_written_the_same_today() {
    let key = key();
    for name in NAMES {
        let object = bytes(&format!("{name}.varve"));
        let (footer, plain) = read_all(&object, Some(&key)).unwrap();
        let expected = metadata(&expected(name));
        let known = CustomMetadata::decode(&expected).unwrap();
        assert_eq!(known.encode().unwrap(), expected, "{name}");
        assert_eq!(known.check_object(&trailer(&object).unwrap(), &footer, &footer_digest(&object)), Ok(()));
        if FORGED.contains(&name) {
            continue;
        }
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
        let write = if footer.streamed { write_streamed } else { write_as };
        let (today, finished) = write(footer.info.clone(), &options, &log, &sections);
        if compression == Compression::None {
            assert!(today == object, "{name} is written differently today");
            let today = finished.custom_metadata(&known.store_id, known.archive);
            assert_eq!(today.encode().unwrap(), expected, "{name}");
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
    assert_eq!((record.wrapping.wrapped_by.as_str(), ring().active()), ("ring:2025", "2026"));
    assert_eq!(record.encode().unwrap(), bytes("key-record.json"));
    let key = record.unwrap(&ring()).unwrap();
    let again =
        KeyRecord::wrap(&ring(), &key, "cluster", record.topic_id, &record.period, 1, [3; 12]).unwrap();
    assert_eq!(again.wrapping.wrapped_by, "ring:2026");
    let key = KeyRecord::decode(&again.encode().unwrap()).unwrap().unwrap(&ring()).unwrap();
    assert!(open(&bytes("encrypted.varve"), Some(&key)).is_ok());
}

/// The same key, wrapped anew in version 2.
#[test]
fn golden_key_record_2() {
    let record = KeyRecord::decode(&bytes("key-record-2.json")).unwrap();
    let found = (record.cluster_id.as_deref(), record.wrapping.wrapped_by.as_str());
    assert_eq!(found, (Some("MkU3OEVBNTcwNTJENDM2Qg"), "ring:2026"));
    assert_eq!(record.encode().unwrap(), bytes("key-record-2.json"));
    let (footer, _) = open(&bytes("encrypted.varve"), Some(&record.unwrap(&ring()).unwrap())).unwrap();
    let (info, sealed) = (&footer.info, footer.encryption.as_ref().unwrap());
    assert_eq!(record.check_is(sealed.data_key_id, &info.cluster_id, info.topic_id, &sealed.period), Ok(()));
}

/// The fuzz target's function over changed golden bytes, bounded and with a seed, in every test run.
#[test]
fn changed_golden_bytes_never_panic() {
    let (key, ring) = (key(), ring());
    let files: Vec<_> = NAMES.iter().map(|n| format!("{n}.varve")).collect();
    let mut seeds: Vec<Vec<u8>> = files.iter().map(|f| bytes(f)).collect();
    seeds.extend(NAMES.iter().map(|n| metadata(&expected(n))));
    seeds.push(bytes("key-record.json"));
    seeds.push(bytes("key-record-2.json"));
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
    let key = golden::new_key();
    // A sample that came later is written alone, once.
    let later = |name: &str| std::env::var("VARVE_GOLDEN").is_ok_and(|only| only != name);
    if std::env::var("VARVE_GOLDEN").is_err() {
        // The record of version 1 is not written any more: `key-record.json` is what remains of it.
        new_file("key-ring.json", format!("{}\n", support::KEK_RING).as_bytes());
    }
    if !later("key-record-2") {
        let (topic, at_ms) = (golden::topic_id(), 1_767_225_600_000);
        let record =
            KeyRecord::wrap(&ring(), &key, "MkU3OEVBNTcwNTJENDM2Qg", topic, "2026-01", at_ms, [8; 12]);
        new_file("key-record-2.json", &record.unwrap().encode().unwrap());
    }
    for (n, name) in NAMES.into_iter().enumerate().filter(|(_, name)| !later(name)) {
        let object = sample(n, name);
        let archive = (name == "all").then_some(ArchiveReference {
            topic_id: golden::topic_id(),
            partition: 2,
            branch: 1,
            base_offset: 1_000,
        });
        let metadata = metadata_of(&object, archive).encode().unwrap();
        new_file(&format!("{name}.varve"), &object);
        let text = serde_json::to_string_pretty(&described(&object, &metadata, &key)).unwrap();
        new_file(&format!("{name}.expected.json"), format!("{text}\n").as_bytes());
    }
}

fn sample(n: usize, name: &str) -> Vec<u8> {
    let whole = support::kafka::segment();
    let segment = if name == "zstd-checksum" { golden::beginning(whole, 4096) } else { whole };
    let mut options = golden::options(n);
    match name {
        "zstd" | "encrypted-zstd" | "zstd-checksum" => options.compression = Compression::Zstd { level: 3 },
        "auto-mixed" | "all" => options.compression = Compression::Auto { level: 3 },
        "one-chunk" => options.chunk_bytes = 65_536,
        _ => {}
    }
    match name {
        "no-digests" | "encrypted-no-digests" => options.digest = DigestAlgorithm::None,
        "sha256" | "all" => options.digest = DigestAlgorithm::Sha256,
        _ => {}
    }
    options.encryption = (name.starts_with("encrypted") || name == "all").then(|| golden::encryption(n));
    let mut info = golden::info(n, &segment);
    let mut log = &segment.log[..];
    let times: Vec<u8> = (0..800_u32)
        .flat_map(|n| {
            let (time_ms, offset) = (1_767_225_600_000 + i64::from(n), n / 10);
            [&time_ms.to_be_bytes()[..], &offset.to_be_bytes()].concat()
        })
        .collect();
    let mut sections: Vec<(ExtentKind, &[u8])> = vec![
        (ExtentKind::OffsetIndex, &segment.offset_index),
        (ExtentKind::TimeIndex, &segment.time_index),
        (ExtentKind::TransactionIndex, &segment.transaction_index),
        (ExtentKind::ProducerSnapshot, &segment.producer_snapshot),
        (ExtentKind::LeaderEpochs, &segment.leader_epochs),
    ];
    match name {
        "no-transaction-index" => sections.retain(|(kind, _)| *kind != ExtentKind::TransactionIndex),
        "long-section" => sections[1].1 = &times,
        "encrypted-empty-section" => sections[2].1 = &[],
        "unknown-section" => sections.push((ExtentKind::Unknown(200), b"from a later writer")),
        "zstd-checksum" => sections.clear(),
        "empty-log" => {
            log = &[];
            sections.iter_mut().take(2).for_each(|(_, bytes)| *bytes = &[]);
            (info.last_offset, info.max_timestamp_ms) = (info.base_offset - 1, -1);
            (info.segment_id, info.broker_id) = (None, None);
            (info.leader_epochs, info.observed) = (Vec::new(), Vec::new());
        }
        "no-extents" => {
            log = &[];
            sections.clear();
            (info.last_offset, info.max_timestamp_ms) = (info.base_offset - 1, -1);
            info.leader_epochs.clear();
        }
        "all" => info.observed.push(Observed {
            time_ms: 1_767_225_691_000,
            high_watermark: 1_101,
            last_stable_offset: 1_101,
        }),
        _ => {}
    }
    let write = if name == "encrypted-streamed" { write_streamed } else { write_as };
    let (object, _) = write(info, &options, log, &sections);
    forged(name, object, log)
}

fn forged(name: &str, object: Vec<u8>, log: &[u8]) -> Vec<u8> {
    let later = support::field(0x0100, b"from a later writer");
    match name {
        "unknown-tag" => forge::put(&object, 0x0100, b"from a later writer"),
        "unknown-optional-bit" => forge::flip_features(&object, 0, 1 << 63),
        "encrypted-unknown" => forge::resealed(
            &forge::flip_sealed_features(&object, &golden::SECRET, 0, 1 << 63),
            &golden::SECRET,
            |public| [public, later.clone()].concat(),
            |private| changed(&private, |p| p.extend_from_slice(&support::field(7, b"from a later writer"))),
        ),
        "zstd-checksum" => {
            let frame = support::with_window(&support::checksummed(log), 13 << 3);
            forge::with_only_frame(&object, &frame)
        }
        _ => object,
    }
}
