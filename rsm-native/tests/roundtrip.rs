//! What goes in comes out, byte for byte: all sizes around the borders, all ways to store, all ranges.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here fails the test")]

mod support;

use support::{Bench, CHUNK, FRAME, Random, config, key_ring, kind_of, read_all, read_up_to};
use varve_format::ExtentKind;
use varve_rsm::Kind;
use varve_rsm::rsm::Rsm;
use varve_store::Operation as Op;

/// The memory store's own, and larger than a read of a file.
const PART: usize = 1 << 20;

#[test]
fn sizes_around_every_border() {
    let bench = Bench::new(&[]);
    let borders = [FRAME, CHUNK, PART, 3 * PART];
    let sizes = borders.iter().flat_map(|b| [b - 1, *b, b + 1]).chain([0, 1, 2 * PART + CHUNK / 2]);
    for (seed, size) in sizes.enumerate() {
        bench.copied(seed as u64, size).check(&bench.rsm);
    }
}

#[test]
fn compression_encryption_and_digests() {
    let dir = tempfile::tempdir().unwrap();
    let ring = key_ring(dir.path(), "k1", 5);
    for compression in ["none", "zstd", "auto"] {
        for encryption in ["false", "true"] {
            for digest in ["blake3", "sha256", "none"] {
                let bench = Bench::new(&[
                    ("compression", compression),
                    ("encryption.enabled", encryption),
                    ("encryption.key.ring.file", &ring),
                    ("digest", digest),
                ]);
                for size in [0, 1, FRAME + 1, CHUNK - 1, 2 * PART + 77] {
                    let segment = bench.copied(size as u64, size);
                    segment.check(&bench.rsm);
                    // Again from memory, then by one who has nothing in memory.
                    segment.check(&bench.rsm);
                    let object = bench.object(&segment.key());
                    let (plain, len) = (&segment.log, segment.log.len().min(4096));
                    let stored_raw = object[..len] == plain[..len];
                    assert_eq!(
                        stored_raw || len < 2,
                        len < 2 || (compression == "none" && encryption == "false")
                    );
                }
            }
        }
    }
}

#[test]
fn the_largest_and_smallest_frames_and_chunks() {
    for (frame, chunk) in
        [("4096", "65536"), ("1048576", "1048576"), ("524288", "2097152"), ("1048576", "134217728")]
    {
        for compression in ["none", "zstd"] {
            let bench = Bench::new(&[
                ("frame.size.bytes", frame),
                ("chunk.size.bytes", chunk),
                ("compression", compression),
            ]);
            for size in [1, 4097, (1 << 20) + 1, (5 << 20) + 12_345] {
                bench.copied(3, size).check(&bench.rsm);
            }
        }
    }
}

#[test]
fn a_reader_with_other_settings_and_without_custom_metadata() {
    let given = config(&[]);
    let writer = Bench::open(&given).unwrap();
    let mut other = given.clone();
    other.insert("chunk.size.bytes".into(), "4194304".into());
    other.insert("frame.size.bytes".into(), "4096".into());
    let reader = Rsm::with_store(&other, |store| store).unwrap();
    let mut segment = writer.copied(4, PART + 5);
    segment.check(&reader);
    segment.request.metadata.custom = None;
    segment.check(&reader);
    segment.check(&writer.rsm);
}

#[test]
fn ranges_are_inclusive_and_clamped() {
    let bench = Bench::new(&[]);
    let segment = bench.copied(1, PART + 33);
    let last = segment.log.len() - 1;
    let edges = [0, 1, FRAME - 1, FRAME, FRAME + 1, CHUNK - 1, CHUNK, 3 * CHUNK, last - 1, last];
    for start in edges {
        for end in edges.iter().copied().filter(|end| *end >= start).chain([last + 1, usize::MAX]) {
            let expected = &segment.log[start..=end.min(last)];
            assert!(segment.read(&bench.rsm, start, end).unwrap() == expected, "{start}..={end}");
        }
    }
    for start in [last + 1, last + 2, usize::MAX] {
        assert_eq!(segment.read(&bench.rsm, start, usize::MAX).unwrap(), b"");
    }
}

#[test]
fn any_steps_and_skips() {
    let bench = Bench::new(&[]);
    let segment = bench.copied(1, PART + 33);
    let mut random = Random::new(9);
    for _ in 0..50 {
        let mut position = random.below(PART as u64) as usize;
        let stream = segment.stream(&bench.rsm, position, usize::MAX);
        while position < segment.log.len() {
            position += stream.skip(random.below(200_000)) as usize;
            let (most, step) = (1 + random.below(90_000) as usize, 1 + random.below(70_000) as usize);
            let part = read_up_to(&stream, most, step).unwrap();
            assert!(part == segment.log[position..(position + most).min(segment.log.len())]);
            position += part.len();
            assert!(stream.available() <= FRAME);
        }
    }
}

#[test]
fn deletion_is_idempotent_whatever_the_custom_metadata() {
    let bench = Bench::new(&[]);
    for custom in [None, Some(vec![]), Some(vec![1, 2, 3]), Some(vec![255; 128])] {
        let mut segment = bench.copied(1, 1000);
        segment.request.metadata.custom = custom;
        segment.delete(&bench.rsm).unwrap();
        segment.delete(&bench.rsm).unwrap();
        assert!(bench.is_clean());
        let gone = kind_of(segment.read(&bench.rsm, 0, 10));
        assert!(matches!(gone, Kind::NotFound | Kind::Corrupt), "{gone:?}");
    }
}

#[test]
fn what_another_store_holds_is_neither_read_nor_said_to_be_deleted() {
    let given = config(&[]);
    let bench = Bench::open(&given).unwrap();
    let segment = bench.copied(1, 1000);
    let mut other = given.clone();
    other.insert("store.id".into(), "other".into());
    let other = Rsm::with_store(&other, |store| store).unwrap();
    for e in [segment.read(&other, 0, 10).unwrap_err(), segment.delete(&other).unwrap_err()] {
        assert_eq!(e.kind, Kind::Invalid);
        assert!(e.message.contains("store.id=other") && e.message.contains("\"default\""), "{e}");
    }
    assert_eq!(bench.objects().len(), 1);
}

#[test]
fn a_copy_repeated_under_one_id_replaces_it() {
    let bench = Bench::new(&[]);
    let mut segment = bench.copied(1, 2 * PART);
    segment.check(&bench.rsm);
    let stale = segment.stream(&bench.rsm, 0, usize::MAX);
    read_up_to(&stale, 10, 10).unwrap();
    // Other bytes of the same length, as after a truncation and new appends.
    let other = Random::new(77).bytes(segment.log.len());
    std::fs::write(&segment.request.log, &other).unwrap();
    segment.log = other;
    segment.copy(&bench.rsm).unwrap();
    segment.check(&bench.rsm);
    assert_eq!(bench.objects().len(), 1);
}

#[test]
fn two_managers_in_one_process() {
    let (one, two) = (Bench::new(&[]), Bench::new(&[]));
    let a = one.copied(1, PART);
    let b = two.copied(2, PART);
    a.check(&one.rsm);
    b.check(&two.rsm);
    assert_eq!(kind_of(a.read(&two.rsm, 0, 10)), Kind::NotFound);
    one.rsm.close();
    b.check(&two.rsm);
}

#[test]
fn a_missing_transaction_index_is_not_found_and_an_empty_index_is_empty() {
    let bench = Bench::new(&[]);
    let segment = bench.copied(1, 100);
    assert_eq!(segment.sections[0].1.as_deref(), Some(&[][..]));
    assert_eq!(segment.index(&bench.rsm, ExtentKind::OffsetIndex).unwrap(), Some(vec![]));
    assert_eq!(kind_of(segment.index(&bench.rsm, ExtentKind::TransactionIndex)), Kind::NotFound);
    assert_eq!(bench.calls(Op::Put), 1);
}

#[test]
fn a_cluster_id_that_no_object_may_have_is_refused_at_once() {
    let error = Bench::open(&config(&[("cluster.id", "keys")])).err().unwrap();
    assert_eq!(error.kind, Kind::Config);
    assert!(error.message.contains("cluster.id=keys"), "{error}");
}

#[test]
fn small_reads_of_one_byte() {
    let bench = Bench::new(&[]);
    let segment = bench.copied(1, 3000);
    assert_eq!(read_all(&segment.stream(&bench.rsm, 0, usize::MAX), 1).unwrap(), segment.log);
}
