//! Damage, loss and a store that misbehaves: what was asked for arrives exact, or an error that names object
//! and place; what passes leaves no trace; nothing hangs, also when the manager is closed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here fails the test")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use support::{Bench, CHUNK, Hooked, Segment, config, eventually, finish, key_ring, kind_of, read_all, rule};
use varve_format::ExtentKind;
use varve_rsm::Kind;
use varve_rsm::read::stream::Progress;
use varve_rsm::rsm::Rsm;
use varve_store::{Fault, Kind as StoreKind, Operation as Op, When};

const PART: usize = 1 << 20;

type Given = std::collections::BTreeMap<String, String>;

fn ways(dir: &std::path::Path) -> Vec<Given> {
    let ring = key_ring(dir, "k", 1);
    let way = |compression, encryption| {
        config(&[
            ("compression", compression),
            ("encryption.enabled", encryption),
            ("encryption.key.ring.file", &ring),
        ])
    };
    vec![way("none", "false"), way("zstd", "false"), way("none", "true")]
}

/// Reads all there is, without a byte in memory. What arrives before an error is right too.
fn read_cold(given: &Given, segment: &Segment) -> Vec<varve_rsm::Error> {
    let rsm = Rsm::with_store(given, |store| store).unwrap();
    let mut errors = Vec::new();
    let stream = segment.stream(&rsm, 0, usize::MAX);
    let mut log = Vec::new();
    let since = Instant::now();
    loop {
        let got = stream.read(50_000, Duration::from_millis(100), |_, bytes| {
            log.extend_from_slice(bytes);
            Ok(())
        });
        match got {
            Ok(Progress::End) => break assert_eq!(log.len(), segment.log.len()),
            Ok(_) => assert!(since.elapsed() < support::STUCK),
            Err(e) => break errors.push(e),
        }
    }
    assert!(segment.log.starts_with(&log), "altered bytes were delivered");
    for (kind, expected) in &segment.sections {
        match segment.index(&rsm, *kind) {
            Ok(found) => assert!(found == *expected, "{} is altered", kind.name()),
            Err(e) if expected.is_none() && e.kind == Kind::NotFound && e.message.contains("has no") => {}
            Err(e) => errors.push(e),
        }
    }
    errors
}

/// It says that it is corrupt, and where: store, key, place.
fn is_told(e: &varve_rsm::Error, given: &Given, segment: &Segment) -> bool {
    let place = format!("{}/{}", given["store.url"], segment.key());
    matches!(e.kind, Kind::Corrupt | Kind::Denied)
        && e.message.contains(&place)
        && e.message.split(&place).nth(1).is_some_and(|rest| rest.contains(|c: char| c.is_ascii_digit()))
}

#[test]
fn a_flipped_byte_anywhere_is_told_and_never_delivered() {
    let dir = tempfile::tempdir().unwrap();
    for given in ways(dir.path()) {
        let bench = Bench::open(&given).unwrap();
        let mut segment = bench.copied(2, 2 * CHUNK + 5000);
        let object = bench.object(&segment.key());
        let custom =
            varve_format::CustomMetadata::decode(segment.metadata().custom.as_ref().unwrap()).unwrap();
        let (data_end, footer) = (custom.data_end as usize, custom.footer_offset as usize);
        let mut places: Vec<usize> = (0..data_end).step_by(data_end / 12).collect();
        places.extend((data_end..footer).step_by((footer - data_end) / 12));
        places.extend((footer..object.len() - 64).step_by(custom.footer_bytes as usize / 30));
        places.extend((object.len() - 64..object.len()).step_by(3));
        for with_custom in [true, false] {
            let kept = segment.request.metadata.custom.clone();
            if !with_custom {
                segment.request.metadata.custom = None;
            }
            assert!(read_cold(&given, &segment).is_empty());
            for place in &places {
                let mut broken = object.clone();
                broken[*place] ^= 1 << (place % 8);
                bench.put(&segment.key(), broken);
                let errors = read_cold(&given, &segment);
                assert!(!errors.is_empty(), "byte {place} of {} went unnoticed", object.len());
                for e in &errors {
                    assert!(is_told(e, &given, &segment), "byte {place}: {e:?}");
                }
            }
            bench.put(&segment.key(), object.clone());
            segment.request.metadata.custom = kept;
        }
    }
}

#[test]
fn truncated_missing_and_foreign_objects() {
    let dir = tempfile::tempdir().unwrap();
    for given in ways(dir.path()) {
        let bench = Bench::open(&given).unwrap();
        let (mut segment, other) = (bench.copied(2, 2 * CHUNK + 5000), bench.copied(2, 2 * CHUNK + 5000));
        let object = bench.object(&segment.key());
        for custom in [segment.request.metadata.custom.clone(), None] {
            segment.request.metadata.custom = custom;
            for len in [0, 1, 63, 64, 1000, CHUNK, object.len() / 2, object.len() - 65, object.len() - 1] {
                bench.put(&segment.key(), object[..len].to_vec());
                let errors = read_cold(&given, &segment);
                assert!(!errors.is_empty());
                for e in &errors {
                    assert!(is_told(e, &given, &segment), "{len} of {}: {e:?}", object.len());
                }
            }
            bench.put(&segment.key(), bench.object(&other.key()));
            for e in read_cold(&given, &segment) {
                assert!(e.kind == Kind::Corrupt && e.message.contains(&segment.key()), "{e:?}");
            }
            bench.remove(&segment.key());
            let errors = read_cold(&given, &segment);
            assert_eq!(errors.len(), 1 + segment.sections.len());
            for e in errors {
                assert!(e.kind == Kind::NotFound && e.message.contains(&segment.key()), "{e:?}");
            }
        }
    }
}

#[test]
fn a_fault_that_passes_is_told_once_and_then_forgotten() {
    for compression in ["none", "zstd"] {
        for fault in [
            Fault::ErrorBefore(StoreKind::Unavailable),
            Fault::ErrorAfter(StoreKind::Unavailable),
            Fault::Reset,
            Fault::Truncate,
            Fault::FlipByte,
        ] {
            for nth in 1..=4 {
                let given = config(&[("compression", compression)]);
                let segment = Bench::open(&given).unwrap().copied(2, 3 * CHUNK);
                let bench = Bench::open(&given).unwrap();
                bench.fault(Op::Get, When::Nth(nth), fault);
                let mut errors = 0;
                let mut read = Vec::new();
                let since = Instant::now();
                while read.len() < segment.log.len() {
                    assert!(since.elapsed() < support::STUCK);
                    let stream = segment.stream(&bench.rsm, read.len(), usize::MAX);
                    loop {
                        match stream.read(10_000, Duration::from_millis(50), |_, b| {
                            read.extend_from_slice(b);
                            Ok(())
                        }) {
                            Ok(Progress::End) => break,
                            Ok(_) => {}
                            Err(e) => {
                                assert!(e.message.contains(&segment.key()), "{e}");
                                errors += 1;
                                break;
                            }
                        }
                    }
                }
                assert!(read == segment.log, "{fault:?}");
                assert!(errors <= 2, "{errors} errors of one fault ({fault:?}, {nth})");
                let first = segment.index(&bench.rsm, ExtentKind::TimeIndex);
                assert!(first.is_ok() || errors == 0, "{first:?}");
                segment.check_indexes(&bench.rsm);
            }
        }
    }
}

/// Only the first GETs, those of the footer and of the first chunk, work.
#[test]
fn read_ahead_that_fails_is_nobodys_error() {
    let given = config(&[]);
    let segment = Bench::open(&given).unwrap().copied(1, 4 * PART);
    let bench = Bench::open(&given).unwrap();
    assert_eq!(read_all(&segment.stream(&bench.rsm, 0, 99), 100).unwrap(), &segment.log[..100]);
    bench.fault(Op::Get, When::Probability(0.3), Fault::ErrorBefore(StoreKind::Unavailable));
    let mut position = 0;
    let since = Instant::now();
    while position < segment.log.len() {
        assert!(since.elapsed() < support::STUCK);
        let stream = segment.stream(&bench.rsm, position, usize::MAX);
        while let Ok(Progress::Bytes(n)) = stream.read(100_000, Duration::from_secs(1), |at, bytes| {
            assert!(segment.log[position + at..].starts_with(bytes));
            Ok(())
        }) {
            position += n;
        }
    }
}

#[test]
fn closing_ends_who_waits_and_use_after_it_is_an_error() {
    for custom in [true, false] {
        let given = config(&[]);
        let mut segment = Bench::open(&given).unwrap().copied(1, 2 * PART);
        if !custom {
            segment.request.metadata.custom = None;
        }
        let bench = Bench::open(&given).unwrap();
        bench.fault(Op::Get, When::Always, Fault::Hang);
        let (bench, segment) = (&bench, &segment);
        let idle = segment.stream(&bench.rsm, 0, usize::MAX);
        let all_wait = &Barrier::new(33);
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..32)
                .map(|n| {
                    let stream = segment.stream(&bench.rsm, n * 50_000, usize::MAX);
                    scope.spawn(move || {
                        let begun = stream.read(1000, Duration::from_millis(10), |_, _| Ok(()));
                        all_wait.wait();
                        assert_eq!(begun.unwrap(), Progress::Waiting);
                        read_all(&stream, 1000)
                    })
                })
                .collect();
            let indexes: Vec<_> = (0..8)
                .map(|_| bench.rsm.fetch_index(segment.metadata(), ExtentKind::TimeIndex).unwrap())
                .collect();
            all_wait.wait();
            let since = Instant::now();
            bench.rsm.close();
            assert!(since.elapsed() < Duration::from_secs(20), "closing took {:?}", since.elapsed());
            for thread in waiting {
                assert_eq!(kind_of(thread.join().unwrap()), Kind::Closed);
            }
            for index in indexes {
                assert!(matches!(kind_of(finish(&index)), Kind::Closed | Kind::Cancelled));
            }
            assert!(since.elapsed() < Duration::from_secs(20));
        });
        assert_eq!(kind_of(read_all(&idle, 100)), Kind::Closed);
        assert_eq!(kind_of(segment.index(&bench.rsm, ExtentKind::TimeIndex)), Kind::Closed);
        assert!(bench.rsm.open_stream(segment.metadata(), 0, 10).is_err());
        drop(idle);
        bench.rsm.close();
        assert_eq!(bench.metric("name=memory", "CacheBytesUsed"), 0.0);
    }
}

/// What was read is in memory when the manager closes: it is let go, and the stream ends all the same.
#[test]
fn a_stream_in_the_middle_of_a_frame_ends_with_the_manager() {
    let bench = Bench::new(&[]);
    let segment = bench.copied(1, PART);
    let stream = segment.stream(&bench.rsm, 0, usize::MAX);
    support::read_up_to(&stream, 100, 100).unwrap();
    bench.rsm.close();
    assert_eq!(kind_of(read_all(&stream, 100)), Kind::Closed);
    assert_eq!(stream.available(), 0);
    stream.close();
}

#[test]
fn a_panic_is_an_internal_error() {
    for custom in [true, false] {
        let given = config(&[]);
        let mut segment = Bench::open(&given).unwrap().copied(1, PART);
        if !custom {
            segment.request.metadata.custom = None;
        }
        let panics = Arc::new(AtomicBool::new(true));
        let switch = panics.clone();
        let bench =
            Bench::wrapped(&given, |store| Arc::new(Hooked { panics: switch, ..Hooked::over(store) }))
                .unwrap();
        assert_eq!(kind_of(segment.read(&bench.rsm, 0, usize::MAX)), Kind::Internal);
        assert_eq!(kind_of(segment.index(&bench.rsm, ExtentKind::TimeIndex)), Kind::Internal);
        for size in [1000, 3 * PART] {
            let mut new = bench.segment(2, size);
            assert_eq!(kind_of(new.copy(&bench.rsm)), Kind::Internal);
            panics.store(false, Ordering::Relaxed);
            assert_eq!((bench.objects().len(), bench.uploads()), (1, 0));
            panics.store(true, Ordering::Relaxed);
        }
        assert_eq!(bench.metric("name=memory", "CopyBytesUsed"), 0.0);
        panics.store(false, Ordering::Relaxed);
        segment.check(&bench.rsm);
        bench.copied(3, 3 * PART).check(&bench.rsm);
    }
}

/// A cancelled fetch of indexes lets the next one through.
#[test]
fn a_cancelled_index_fetch_holds_nothing() {
    let given = config(&[]);
    let segment = Bench::open(&given).unwrap().copied(1, PART);
    let bench = Bench::open(&given).unwrap();
    bench.fault(Op::Get, When::First(3), Fault::Hang);
    for hung in 1..=3 {
        let fetch = bench.rsm.fetch_index(segment.metadata(), ExtentKind::OffsetIndex).unwrap();
        eventually("the fetch hangs in the store", || bench.faults.log().len() == hung);
        fetch.cancel.set();
        assert_eq!(kind_of(finish(&fetch)), Kind::Cancelled);
    }
    segment.check(&bench.rsm);
}

#[test]
fn a_store_that_hangs_for_some_is_there_for_others() {
    let given = config(&[("cache.memory.bytes", "16777216")]);
    let writer = Bench::open(&given).unwrap();
    let (bad, good) = (writer.copied(1, PART), writer.copied(2, 3 * PART));
    let bench = Bench::open(&given).unwrap();
    let mut hang = rule(Op::Get, When::Always, Fault::Hang);
    hang.key_contains = bad.key();
    bench.faults.set_rules(vec![hang]);
    let stream = bad.stream(&bench.rsm, 0, usize::MAX);
    assert_eq!(stream.read(100, Duration::from_millis(50), |_, _| Ok(())).unwrap(), Progress::Waiting);
    good.check(&bench.rsm);
}
