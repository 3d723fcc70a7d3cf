//! What is encoded decodes to the same: whole objects in all combinations, and each codec over random values.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod support;

use proptest::prelude::*;
use support::{info, open, options, read, read_all, write, write_as};
use varve_format::*;

const COMPRESSIONS: [Compression; 3] =
    [Compression::None, Compression::Zstd { level: 1 }, Compression::Auto { level: 1 }];
const DIGESTS: [DigestAlgorithm; 3] =
    [DigestAlgorithm::None, DigestAlgorithm::Blake3, DigestAlgorithm::Sha256];

#[test]
fn all_combinations() {
    for compression in COMPRESSIONS {
        for encrypted in [false, true] {
            for digest in DIGESTS {
                for log_bytes in [0, 1, 4095, 4096, 4097, 8192, 8193, 50_000] {
                    one_combination(compression, encrypted, digest, log_bytes);
                }
            }
        }
    }
}

fn one_combination(compression: Compression, encrypted: bool, digest: DigestAlgorithm, log_bytes: usize) {
    let (log, index) = (support::mixed(log_bytes, 0), support::mixed(3000, 2000));
    let sections = [
        (ExtentKind::OffsetIndex, &index[..]),
        (ExtentKind::TimeIndex, &[][..]),
        (ExtentKind::LeaderEpochs, &b"0\n1\n0 100\n"[..]),
    ];
    let (object, finished) = write(&options(compression, encrypted, digest), &log, &sections);
    let key = support::data_key();
    let (footer, object_key) = open(&object, Some(&key)).unwrap();
    assert_eq!(footer, finished.footer);
    assert_eq!(footer.info, info());
    let mut back = Vec::new();
    for chunk in footer.chunks() {
        back.extend(read(&object, &footer, object_key.as_ref(), chunk).unwrap());
    }
    assert_eq!(back, log);
    for (kind, bytes) in sections {
        let extent = footer.section(kind).unwrap();
        assert_eq!(read(&object, &footer, object_key.as_ref(), extent).unwrap(), bytes);
    }
    assert_eq!(footer.section(ExtentKind::TransactionIndex), None);
    if !encrypted && compression == Compression::None {
        assert!(object.starts_with(&log));
    }
    let metadata = finished.custom_metadata("default", None);
    assert_eq!(CustomMetadata::decode(&metadata.encode().unwrap()).unwrap(), metadata);
    assert_eq!(metadata.object_bytes(), object.len() as u64);
}

#[test]
fn a_log_of_unknown_length_gives_the_same_object() {
    let index = support::mixed(3000, 2000);
    let sections = [(ExtentKind::OffsetIndex, &index[..]), (ExtentKind::TimeIndex, &[][..])];
    let sizes = sections.map(|(kind, bytes)| (kind, bytes.len() as u64));
    for compression in COMPRESSIONS {
        for log_bytes in [0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 50_000] {
            let (log, options) =
                (support::mixed(log_bytes, 0), options(compression, false, DigestAlgorithm::Blake3));
            let mut encoder =
                Encoder::new(options.clone(), Plan::open(options.chunk_bytes).unwrap()).unwrap();
            let mut object = Vec::new();
            let frames = log.chunks_exact(4096);
            let rest = frames.remainder();
            for frame in frames {
                assert_eq!(encoder.next_frame_bytes(), Some(4096));
                encoder.frame(frame, &mut object).unwrap();
            }
            assert_eq!(encoder.stored_bytes(), object.len() as u64);
            assert!(encoder.end_log(4096, &sizes).is_err());
            encoder.end_log(rest.len() as u64, &sizes).unwrap();
            for bytes in [rest].into_iter().chain(index.chunks(4096)).filter(|bytes| !bytes.is_empty()) {
                encoder.frame(bytes, &mut object).unwrap();
            }
            encoder.finish(info(), &mut object).unwrap();
            assert!(object == write(&options, &log, &sections).0, "{compression:?}, {log_bytes} bytes");
        }
    }
    let plan = || Plan::open(8192).unwrap();
    let sealed = options(Compression::None, true, DigestAlgorithm::Blake3);
    for log_bytes in [0, 1, 8192, 50_001] {
        let log = support::mixed(log_bytes, 0);
        let (object, finished) = support::write_streamed(info(), &sealed, &log, &sections);
        assert_eq!(finished.trailer.features.required, REQUIRED_AES_256_GCM | REQUIRED_STREAMED);
        let (footer, plain) =
            support::read_all(&object, Some(&sealed.encryption.as_ref().unwrap().key)).unwrap();
        assert!(footer.streamed && plain[..footer.chunks().len()].concat() == log, "{log_bytes} bytes");
    }
    let unended = Encoder::new(options(Compression::None, false, DigestAlgorithm::Blake3), plan()).unwrap();
    assert!(unended.finish(info(), &mut Vec::new()).is_err());
}

fn id() -> impl Strategy<Value = Id> {
    any::<[u8; 16]>().prop_map(Id)
}

fn safe_text(max: usize) -> impl Strategy<Value = String> {
    proptest::string::string_regex(&format!("[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{}}}", max - 1))
        .unwrap()
        .prop_filter("a cluster id is not this", |t| t != "keys")
}

prop_compose! {
    fn any_info()(
        writer in "[^\\p{Cc}]{1,60}", cluster_id in safe_text(128), topic in safe_text(249),
        topic_id in id(), segment_id in proptest::option::of(id()), partition in 0..=i32::MAX,
        base_offset in 0..i64::MAX / 2, length in 0..i64::MAX / 2, times in (-1..=i64::MAX, 0..=i64::MAX),
        broker_id in proptest::option::of(0..=i32::MAX),
        epochs in proptest::collection::btree_set(0..=i32::MAX, 0..20),
        starts in proptest::collection::btree_set(0..i64::MAX / 2, 0..20),
        observed in proptest::collection::vec(any::<(i64, i64, i64)>(), 0..20),
    ) -> SegmentInfo {
        SegmentInfo {
            writer, cluster_id, topic_id, topic, partition, segment_id, base_offset,
            last_offset: base_offset + length - 1,
            max_timestamp_ms: times.0, created_ms: times.1, broker_id,
            leader_epochs: epochs.into_iter().zip(starts).map(|(epoch, start_offset)| EpochStart { epoch, start_offset })
                .take_while(|e| e.start_offset < base_offset + length).collect(),
            observed: observed.into_iter()
                .map(|(time_ms, high_watermark, last_stable_offset)| Observed { time_ms, high_watermark, last_stable_offset })
                .collect(),
        }
    }
}

prop_compose! {
    fn any_options()(
        frame_log2 in 12..15_u32, frames_per_chunk in 1..6_u32, compression in 0..3_usize, digest in 0..3_usize,
        encrypted in any::<bool>(), salt in any::<[u8; 32]>(), object_id in id(), period in safe_text(64),
    ) -> WriteOptions {
        WriteOptions {
            frame_bytes: 1 << frame_log2,
            chunk_bytes: frames_per_chunk << frame_log2,
            compression: COMPRESSIONS[compression],
            digest: DIGESTS[digest],
            encryption: encrypted.then(|| Encryption { key: support::data_key(), period, salt }),
            object_id,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn objects(
        info in any_info(), options in any_options(), log in (0..60_000_usize, 0..30_000_usize),
        lengths in proptest::collection::vec(proptest::option::of(0..10_000_usize), 5),
    ) {
        let log = support::mixed(log.0, log.1);
        let plain: Vec<_> = lengths.iter().map(|n| n.map(|n| support::mixed(n / 2, n - n / 2))).collect();
        let sections: Vec<_> = ExtentKind::SECTIONS.into_iter().zip(&plain)
            .filter_map(|(kind, bytes)| Some((kind, bytes.as_deref()?))).collect();
        let (object, finished) = write_as(info, &options, &log, &sections);
        let (footer, back) = read_all(&object, Some(&support::data_key())).unwrap();
        prop_assert_eq!(&footer, &finished.footer);
        let chunks = footer.chunks().len();
        prop_assert_eq!(back[..chunks].concat(), log);
        let back: Vec<_> = footer.extents[chunks..].iter().zip(&back[chunks..]).map(|(e, b)| (e.kind, &b[..])).collect();
        prop_assert_eq!(back, sections);
        prop_assert_eq!(finished.trailer.object_bytes(), object.len() as u64);
    }

    #[test]
    fn trailers(data in 0..1_u64 << 40, sections in 0..1_u64 << 30, footer_bytes in 0..=FOOTER_MAX_BYTES, required in 0..4_u64, optional in any::<u64>(), footer_crc in any::<u32>()) {
        let trailer = Trailer {
            data_end: data, footer_offset: data + sections, footer_bytes, version: 1,
            features: Features { required, optional }, footer_crc,
        };
        prop_assert_eq!(Trailer::decode(&trailer.encode(), trailer.object_bytes()), Ok(trailer));
        prop_assert!(Trailer::decode(&trailer.encode(), trailer.object_bytes() + 1).is_err());
    }

    #[test]
    fn custom_metadata(
        store_id in "[^\\p{Cc}]{1,8}", identity in any::<bool>(), frame_log2 in 12..=20_u32,
        data_end in 0..1_u64 << 59, sections in 0..1_u64 << 59, footer_bytes in 0..=FOOTER_MAX_BYTES,
        digest in any::<[u8; 32]>(), archive in proptest::option::of((id(), 0..=i32::MAX, any::<u32>(), 0..=i64::MAX)),
    ) {
        let metadata = CustomMetadata {
            store_id, identity, frame_bytes: 1 << frame_log2, data_end, footer_offset: data_end + sections,
            footer_bytes, footer_digest: Digest(digest),
            archive: archive.map(|(topic_id, partition, branch, base_offset)| ArchiveReference { topic_id, partition, branch, base_offset }),
        };
        let bytes = metadata.encode().unwrap();
        prop_assert!(bytes.len() <= 121);
        prop_assert_eq!(CustomMetadata::decode(&bytes), Ok(metadata));
        for n in 0..bytes.len() {
            prop_assert!(CustomMetadata::decode(&bytes[..n]).is_err());
        }
        prop_assert!(CustomMetadata::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn key_records(key_id in id(), secret in any::<[u8; 32]>(), cluster in safe_text(128), topic_id in id(), period in safe_text(64), created_ms in any::<i64>(), nonce in any::<[u8; 12]>()) {
        let ring = KeyRing::parse(support::KEK_RING).unwrap();
        let key = DataKey::new(key_id, secret);
        let record = KeyRecord::wrap(&ring, &key, &cluster, topic_id, &period, created_ms, nonce).unwrap();
        let back = KeyRecord::decode(&record.encode().unwrap()).unwrap();
        prop_assert_eq!(&back, &record);
        // Two keys are the same if they derive the same.
        let back = back.unwrap(&ring).unwrap();
        prop_assert_eq!(back.id, key_id);
        let other = KeyRecord { topic_id: Id([0xee; 16]), ..record.clone() };
        prop_assert!(other.unwrap(&ring).is_err());
        let older = KeyRecord { cluster_id: None, ..record };
        prop_assert_eq!(KeyRecord::decode(&older.encode().unwrap()), Ok(older));
        let name = key_record_name(&cluster, topic_id, &period, key_id);
        for name in [tombstone_name(&name), key_record_1_name(&cluster, topic_id, &period), name] {
            let parsed = KeyRecordName::parse(&name).unwrap();
            prop_assert_eq!((parsed.topic_id, &parsed.period), (topic_id, &period));
            prop_assert!(name == parsed.record() || name == tombstone_name(&parsed.record()));
            let lies = format!("{name}/");
            prop_assert_eq!(KeyRecordName::parse(&lies), None);
        }
    }

    #[test]
    fn ids_and_names(topic_id in id(), segment_id in id(), cluster_id in safe_text(128), partition in 0..=i32::MAX, base_offset in 0..=i64::MAX) {
        prop_assert_eq!(Id::parse(&topic_id.to_string()), Ok(topic_id));
        let name = SegmentName { cluster_id, topic_id, partition, base_offset, segment_id };
        let text = segment_name(&name);
        prop_assert!(text.starts_with(&segment_prefix(&name.cluster_id, topic_id, partition, base_offset)));
        prop_assert!(text.starts_with(&partition_prefix(&name.cluster_id, topic_id, partition)));
        prop_assert!(text.starts_with(&topic_prefix(&name.cluster_id, topic_id)));
        prop_assert_eq!(SegmentName::parse(&text), Ok(name));
    }
}

/// The longest custom metadata fits Kafka's 128 bytes.
#[test]
fn longest_custom_metadata_is_121_bytes() {
    let (_, finished) = write(&options(Compression::None, false, DigestAlgorithm::None), b"log", &[]);
    let archive = ArchiveReference {
        topic_id: Id([1; 16]),
        partition: i32::MAX,
        branch: u32::MAX,
        base_offset: i64::MAX,
    };
    let longest = "s".repeat(STORE_ID_MAX_BYTES);
    assert_eq!(finished.custom_metadata(&longest, Some(archive)).encode().unwrap().len(), 121);
    for store_id in [String::new(), "s".repeat(STORE_ID_MAX_BYTES + 1), "a\nb".into()] {
        assert!(finished.custom_metadata(&store_id, None).encode().is_err(), "{store_id:?}");
    }
}

/// The tree of RFC 6962: for 7 leaves ((ab)(cd))((ef)g), written out by hand.
#[test]
fn merkle_root_has_the_shape_of_rfc_6962() {
    let leaves: Vec<_> = (0..7_u8)
        .map(|n| Leaf { kind: ExtentKind::Log, plain_bytes: 10 + u64::from(n), digest: Digest([n; 32]) })
        .collect();
    let h = |parts: &[&[u8]]| *blake3::hash(&parts.concat()).as_bytes();
    let leaf = |n: usize| h(&[&[0, 0], &(10 + n as u64).to_be_bytes(), &[n as u8; 32]]);
    let node = |l: [u8; 32], r: [u8; 32]| h(&[&[1], &l, &r]);
    let left = node(node(leaf(0), leaf(1)), node(leaf(2), leaf(3)));
    let right = node(node(leaf(4), leaf(5)), leaf(6));
    let root = |n: usize| merkle_root(DigestAlgorithm::Blake3, leaves.iter().copied().take(n)).unwrap().0;
    assert_eq!(root(7), node(left, right));
    assert_eq!(root(1), leaf(0));
    assert_eq!(root(0), h(&[&[2]]));
    assert_eq!(merkle_root(DigestAlgorithm::None, leaves.into_iter()), None);
}

/// RFC 5869 and NIST's GCM are the libraries' business; that we use them as FORMAT.md says is ours.
#[test]
fn frames_are_sealed_as_specified() {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use aws_lc_rs::hmac;
    let mac =
        |key: &[u8], parts: &[&[u8]]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat());
    let prk = mac(&[5; 32], &[&[9; 32]]);
    let secret = mac(prk.as_ref(), &[b"varve segment v1", &[4; 16], &[1]]);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret.as_ref()).unwrap());
    let log = support::mixed(6000, 0);
    let (object, finished) = write(&options(Compression::None, true, DigestAlgorithm::Blake3), &log, &[]);
    for number in 0..2_u64 {
        let nonce = [&[0; 4][..], &number.to_be_bytes()].concat();
        let aad = [&[4; 16][..], &number.to_be_bytes(), &2_u64.to_be_bytes()].concat();
        let stored = finished.footer.frame(number).unwrap().stored;
        let mut sealed = object[stored.start as usize..stored.end as usize].to_vec();
        let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
        let plain = key.open_in_place(nonce, Aad::from(aad), &mut sealed).unwrap();
        assert_eq!(plain, &log[number as usize * 4096..][..plain.len()]);
    }
}

#[test]
fn writers_are_refused_what_readers_would_refuse() {
    let good = info();
    let epochs = |epochs: &[(i32, i64)]| {
        let starts = epochs
            .iter()
            .map(|(epoch, start_offset)| EpochStart { epoch: *epoch, start_offset: *start_offset });
        SegmentInfo { leader_epochs: starts.collect(), ..good.clone() }
    };
    assert_eq!(epochs(&[(0, 0), (3, 150), (4, 199)]).check(), Ok(()));
    let bad = [
        SegmentInfo { topic: "../../etc".into(), ..good.clone() },
        SegmentInfo { topic: "t".repeat(250), ..good.clone() },
        SegmentInfo { cluster_id: "..".into(), ..good.clone() },
        SegmentInfo { cluster_id: "keys".into(), ..good.clone() },
        SegmentInfo { writer: "a\u{1b}[2J".into(), ..good.clone() },
        SegmentInfo { partition: -1, ..good.clone() },
        SegmentInfo { base_offset: 5, last_offset: 3, ..good.clone() },
        SegmentInfo { last_offset: i64::MAX, ..good.clone() },
        SegmentInfo { max_timestamp_ms: -2, ..good.clone() },
        SegmentInfo { created_ms: -1, ..good.clone() },
        SegmentInfo { broker_id: Some(-1), ..good.clone() },
        epochs(&[(1, 0), (1, 1)]),
        epochs(&[(2, 0), (1, 1)]),
        epochs(&[(1, 7), (2, 7)]),
        epochs(&[(1, 7), (2, 6)]),
        epochs(&[(-1, 0)]),
        epochs(&[(0, -1)]),
        epochs(&[(0, 100), (1, 200)]),
    ];
    for info in bad {
        let plan = Plan::new(0, 8192, &[]).unwrap();
        let options = options(Compression::None, false, DigestAlgorithm::None);
        let mut out = Vec::new();
        let result = Encoder::new(options, plan).unwrap().finish(info.clone(), &mut out);
        assert!(matches!(result, Err(Error::Invalid { .. })), "{info:?}");
        assert!(out.is_empty());
    }
}

#[test]
fn plans_that_no_footer_describes_are_refused_before_the_first_byte() {
    let sections = |kind, bytes| [(kind, bytes)];
    assert!(Plan::new(u64::MAX, 4096, &[]).is_err());
    assert!(Plan::new(1, 0, &[]).is_err());
    assert!(Plan::new(1, CHUNK_MAX_BYTES + 1, &[]).is_err());
    assert!(Plan::new(1, 4096, &sections(ExtentKind::Log, 1)).is_err());
    assert!(Plan::new(1, 4096, &sections(ExtentKind::TimeIndex, SECTION_MAX_BYTES + 1)).is_err());
    assert!(Plan::new(1, 4096, &[(ExtentKind::TimeIndex, 1), (ExtentKind::OffsetIndex, 1)]).is_err());
    for (kind, accepted) in [(0, false), (5, false), (127, false), (128, true), (254, true), (255, false)] {
        assert_eq!(Plan::new(1, 4096, &sections(ExtentKind::Unknown(kind), 1)).is_ok(), accepted, "{kind}");
    }
    let options = options(Compression::Zstd { level: 1 }, false, DigestAlgorithm::Blake3);
    let ten_gib = Plan::new(10 << 30, 8192, &[]);
    assert!(ten_gib.is_err() || Encoder::new(options.clone(), ten_gib.unwrap()).is_err());
    let other_chunks = Plan::new(10, 4096, &[]).unwrap();
    assert!(Encoder::new(options.clone(), other_chunks).is_err());
    let plan = Plan::new(10, 8192, &[]).unwrap();
    let level = WriteOptions { compression: Compression::Zstd { level: 99 }, ..options.clone() };
    assert!(Encoder::new(level, plan.clone()).is_err());
    let period = Some(Encryption { period: "../2026".into(), ..support::encryption() });
    assert!(Encoder::new(WriteOptions { encryption: period, ..options }, plan).is_err());
}

/// What is sealed in place is what is sealed beside, byte for byte.
#[test]
fn sealing_in_place_makes_the_same_object() {
    let log: Vec<u8> = (0..300_000_u32).map(|n| (n / 7) as u8).collect();
    for digest in [DigestAlgorithm::Blake3, DigestAlgorithm::None] {
        let options = support::options(Compression::None, true, digest);
        let made = |in_place: bool| {
            let plan = Plan::new(log.len() as u64, options.chunk_bytes, &[]).unwrap();
            let mut encoder = Encoder::new(options.clone(), plan).unwrap();
            let (mut out, mut at) = (Vec::new(), 0);
            while let Some(n) = encoder.next_frame_bytes() {
                let plain = &log[at..at + n];
                if in_place {
                    let room = encoder.seals_in_place().unwrap();
                    assert!(encoder.seal(&mut vec![0; n + room - 1]).is_err());
                    let mut frame = [plain, &vec![0; room]].concat();
                    encoder.seal(&mut frame).unwrap();
                    out.extend(frame);
                } else {
                    encoder.frame(plain, &mut out).unwrap();
                }
                at += n;
            }
            encoder.finish(support::info(), &mut out).unwrap();
            out
        };
        assert!(made(true) == made(false), "{digest:?}");
    }
    let plain = Encoder::new(
        support::options(Compression::None, false, DigestAlgorithm::None),
        Plan::new(5, 8192, &[]).unwrap(),
    );
    assert!(plain.unwrap().seal(&mut [0; 21]).is_err());
}
