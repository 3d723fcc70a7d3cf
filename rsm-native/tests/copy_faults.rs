//! A copy that fails, at whatever call and whatever way, leaves nothing: at once where the store lets it, else
//! when the store is back. And the broker's next try, under a new id, works.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here fails the test")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{Bench, Hooked, Segment, config, eventually, finish, key_ring, rule};
use varve_rsm::Kind;
use varve_store::{Fault, Faults, FaultyStore, Kind as StoreKind, Limits, Operation as Op, When};

const PART: usize = 1 << 20;

fn sizes() -> [usize; 2] {
    [PART / 2, 3 * PART + 100]
}

/// Fails, or succeeds and reads back.
fn copy_or_nothing(bench: &Bench, segment: &mut Segment, what: &str) -> Option<varve_rsm::Error> {
    let outcome = segment.copy(&bench.rsm);
    bench.no_faults();
    match outcome {
        Ok(()) => {
            segment.check(&bench.rsm);
            segment.delete(&bench.rsm).unwrap();
            None
        }
        Err(e) => {
            assert!(
                bench.is_clean(),
                "{what}: {e}: left {:?} and {} uploads",
                bench.objects(),
                bench.uploads()
            );
            Some(e)
        }
    }
}

#[test]
fn each_call_fails_once() {
    let dir = tempfile::tempdir().unwrap();
    let ring = key_ring(dir.path(), "k", 1);
    for encryption in ["false", "true"] {
        for operation in [Op::Put, Op::Upload, Op::PutPart, Op::Complete, Op::Get] {
            for size in sizes() {
                for fault in [
                    Fault::ErrorBefore(StoreKind::Unavailable),
                    Fault::ErrorAfter(StoreKind::Unavailable),
                    Fault::ErrorBefore(StoreKind::NoSpace),
                    Fault::ErrorBefore(StoreKind::Denied),
                    Fault::ErrorAfter(StoreKind::Other),
                    Fault::Reset,
                    Fault::Truncate,
                ] {
                    let bench = Bench::new(&[
                        ("encryption.enabled", encryption),
                        ("encryption.key.ring.file", &ring),
                    ]);
                    let mut segment = bench.segment(1, size);
                    bench.fault(operation, When::Nth(1), fault);
                    let what = format!("{operation} {fault:?}, {size} bytes, encryption {encryption}");
                    let failed = copy_or_nothing(&bench, &mut segment, &what);
                    let expected = match (&failed, fault) {
                        (Some(e), Fault::ErrorBefore(StoreKind::NoSpace)) => e.kind == Kind::NoSpace,
                        (Some(e), Fault::ErrorBefore(StoreKind::Denied)) => e.kind == Kind::Denied,
                        (Some(e), Fault::ErrorBefore(StoreKind::Unavailable)) => e.kind == Kind::Retry,
                        _ => true,
                    };
                    assert!(expected, "{what}: {failed:?}");
                    let mut again = segment.renamed();
                    again.copy(&bench.rsm).unwrap();
                    again.check(&bench.rsm);
                    assert_eq!((bench.objects().len(), bench.uploads()), (1, 0), "{what}");
                }
            }
        }
    }
}

/// The store goes down in mid-copy and with it the cleaning, then it is back. A failure that left something is
/// not called retriable: after such a one brokers of 4.3 do not call delete.
#[test]
fn what_could_not_be_cleaned_is_when_the_store_is_back() {
    for operation in [Op::Put, Op::PutPart, Op::Complete] {
        for size in sizes() {
            let bench = Bench::new(&[]);
            let mut segment = bench.segment(1, size);
            let down = Fault::ErrorBefore(StoreKind::Unavailable);
            bench.faults.set_rules(vec![
                rule(operation, When::Always, Fault::ErrorAfter(StoreKind::Unavailable)),
                rule(Op::Abort, When::Always, down),
                rule(Op::DeleteMany, When::Always, down),
                rule(Op::ListUploads, When::Always, down),
            ]);
            let Err(e) = segment.copy(&bench.rsm) else { continue };
            assert_ne!(e.kind, Kind::Retry, "{operation}: {e}");
            assert!(e.message.contains("clean"), "{e}");
            bench.no_faults();
            let since = Instant::now();
            eventually("cleaning", || bench.is_clean());
            assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
        }
    }
}

#[test]
fn a_cancelled_copy_ends_soon_and_leaves_nothing() {
    let slow = Fault::Latency { from: Duration::from_millis(300), to: Duration::from_millis(300) };
    for (operation, fault) in [
        (Op::Put, slow),
        (Op::Upload, slow),
        (Op::PutPart, slow),
        (Op::Complete, slow),
        (Op::PutPart, Fault::Hang),
        (Op::Put, Fault::Hang),
        (Op::Upload, Fault::Hang),
        (Op::Complete, Fault::Hang),
    ] {
        for size in sizes() {
            for after_ms in [0, 20, 150] {
                // One of each is enough of what takes seconds.
                if fault == Fault::Hang && (after_ms != 20 || (size < PART) != (operation == Op::Put)) {
                    continue;
                }
                let bench = Bench::new(&[]);
                let segment = bench.segment(1, size);
                bench.fault(operation, When::Always, fault);
                let copy = bench.rsm.copy(segment.request.clone()).unwrap();
                std::thread::sleep(Duration::from_millis(after_ms));
                copy.cancel.set();
                let since = Instant::now();
                let outcome = finish(&copy);
                let what = format!("{operation} {fault:?} after {after_ms} ms");
                assert!(since.elapsed() < Duration::from_secs(15), "{what}: took {:?}", since.elapsed());
                if let Err(e) = &outcome {
                    assert!(matches!(e.kind, Kind::Cancelled | Kind::Unclean), "{what}: {e}");
                    // What was under way has ended by then, and leaves nothing later.
                    std::thread::sleep(Duration::from_millis(400));
                    eventually(&format!("{what}: cleaning"), || bench.is_clean());
                }
            }
        }
    }
}

/// As the memory store can't show: what a dropped call began on a file system runs to its end.
#[test]
fn a_cancelled_copy_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/store", dir.path().display());
    let bench = Bench::new(&[("store.url", &url)]);
    for n in 0..150_u64 {
        let segment = bench.segment(n, [PART / 2, 4 * PART][n as usize % 2]);
        let copy = bench.rsm.copy(segment.request.clone()).unwrap();
        std::thread::sleep(Duration::from_micros(n * 67 % 4000));
        copy.cancel.set();
        if finish(&copy).is_ok() {
            segment.delete(&bench.rsm).unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(200));
    // Calls that take longer than cleaning waits for are cleaned up after when they end.
    eventually("cleaning", || bench.is_clean());
}

#[test]
fn source_files_that_change_or_are_missing() {
    for size in sizes() {
        let bench = Bench::new(&[]);
        let shorter = bench.segment(1, size);
        std::fs::File::options()
            .write(true)
            .open(&shorter.request.log)
            .unwrap()
            .set_len(size as u64 - 1)
            .unwrap();
        let missing = bench.segment(2, size);
        std::fs::remove_file(&missing.request.time_index).unwrap();
        let folder = bench.segment(4, size);
        std::fs::remove_file(&folder.request.log).unwrap();
        std::fs::create_dir(&folder.request.log).unwrap();
        for (segment, kind, file) in [
            (shorter.clone(), Kind::Corrupt, &shorter.request.log),
            (missing.clone(), Kind::NotFound, &missing.request.time_index),
            (folder.clone(), Kind::Corrupt, &folder.request.log),
        ] {
            let e = segment.clone().copy(&bench.rsm).unwrap_err();
            assert_eq!(e.kind, kind, "{e}");
            assert!(e.message.contains(file.to_str().unwrap()), "{e}");
            assert!(bench.is_clean());
        }
        assert_eq!(bench.calls(Op::Put) + bench.calls(Op::Upload), 0);
    }
    // Cut while it is copied: paced, so that the cut falls in the middle.
    let bench = Bench::new(&[("upload.rate.bytes.per.second", "2097152")]);
    let segment = bench.segment(1, 4 * PART);
    let copy = bench.rsm.copy(segment.request.clone()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    std::fs::File::options().write(true).open(&segment.request.log).unwrap().set_len(10).unwrap();
    let e = finish(&copy).unwrap_err();
    assert!(e.message.contains(segment.request.log.to_str().unwrap()), "{e}");
    assert!(bench.is_clean());
}

#[test]
fn the_upload_rate_is_kept() {
    let bench = Bench::new(&[("upload.rate.bytes.per.second", "4194304")]);
    let since = Instant::now();
    bench.copied(1, 4 * PART);
    assert!(since.elapsed() > Duration::from_millis(900), "{:?}", since.elapsed());
}

#[test]
fn closing_while_64_operations_run() {
    for hang in [false, true] {
        let bench = Bench::new(&[]);
        let segments: Vec<Segment> = (0..64).map(|n| bench.segment(n, 2 * PART)).collect();
        let slow = Fault::Latency { from: Duration::from_millis(50), to: Duration::from_millis(500) };
        let mut faults = vec![rule(Op::PutPart, When::Probability(0.5), slow)];
        if hang {
            faults = vec![rule(Op::PutPart, When::Always, Fault::Hang)];
        }
        bench.faults.set_rules(faults);
        let copies: Vec<_> = segments.iter().map(|s| bench.rsm.copy(s.request.clone()).unwrap()).collect();
        std::thread::sleep(Duration::from_millis(100));
        let since = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| bench.rsm.close());
            bench.rsm.close();
        });
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
        let mut done = 0;
        for copy in copies {
            match finish(&copy) {
                Ok(_) => done += 1,
                Err(e) => assert!(matches!(e.kind, Kind::Cancelled | Kind::Closed), "{e}"),
            }
        }
        assert_eq!((bench.objects().len(), bench.uploads()), (done, 0), "hang: {hang}");
        assert_eq!(bench.metric("name=memory", "CopyBytesUsed"), 0.0);
        assert_eq!(support::kind_of(segments[0].clone().copy(&bench.rsm)), Kind::Closed);
        assert_eq!(support::kind_of(segments[0].delete(&bench.rsm)), Kind::Closed);
        bench.rsm.close();
    }
}

#[test]
fn old_uploads_of_this_cluster_are_swept_though_one_resists() {
    let given = config(&[("sweep.upload.age.ms", "60000")]);
    // Begun long ago, by its name.
    let dir = tempfile::tempdir().unwrap();
    let staged = dir.path().join("store/.varve-uploads");
    std::fs::create_dir_all(&staged).unwrap();
    for (n, cluster) in ["cluster-1", "cluster-1", "cluster-2"].iter().enumerate() {
        std::fs::write(
            staged.join(format!("00000000000{n}-abcdef=={cluster}\\o{n}").replace("==", "=")),
            b"x",
        )
        .unwrap();
    }
    let mut given = given;
    given.insert("store.url".into(), format!("file://{}/store", dir.path().display()));
    let mut resists = rule(Op::AbortUpload, When::Always, Fault::ErrorBefore(StoreKind::Denied));
    resists.key_contains = "o0".to_owned();
    let faults = Faults::new(1, vec![resists]);
    let bench = Bench::wrapped(&given, |store| Arc::new(FaultyStore::new(store, faults))).unwrap();
    eventually("the sweep", || bench.metric("name=cache", "SweptUploadsTotal") == 1.0);
    assert_eq!(bench.uploads(), 2);
}

/// As S3's: parts of 5 MiB at least. With the least memory the parts are smaller than the store likes, and many
/// copies at once wait for each other's.
#[test]
fn the_least_memory_is_enough_for_the_largest_of_smallest_parts() {
    let given = config(&[
        ("copy.memory.bytes", "16777216"),
        ("frame.size.bytes", "1048576"),
        ("chunk.size.bytes", "4194304"),
    ]);
    let limits = |max_parts| Limits {
        min_part_bytes: 5 << 20,
        max_part_bytes: 5 << 30,
        max_parts,
        max_put_bytes: 5 << 30,
        max_object_bytes: 5 << 40,
        preferred_part_bytes: 16 << 20,
        preferred_parallel_parts: 8,
        lists_uploads: true,
        creates_hold_parts: None,
    };
    let limited = |max_parts| {
        let limits = Some(limits(max_parts));
        Bench::wrapped(&given, |store| Arc::new(Hooked { limits, ..Hooked::over(store) })).unwrap()
    };
    let bench = &limited(10_000);
    std::thread::scope(|scope| {
        for n in 0..12 {
            scope.spawn(move || bench.copied(n, 20 * PART + n as usize).check(&bench.rsm));
        }
    });
    assert_eq!((bench.calls(Op::Upload), bench.calls(Op::PutPart)), (12, 12 * 3));
    // Three parts would have to be larger than the memory for them: refused before anything is sent.
    let bench = limited(3);
    let e = bench.segment(1, 20 * PART).copy(&bench.rsm).unwrap_err();
    assert!(e.kind == Kind::Invalid && e.message.contains("copy.memory.bytes=16777216"), "{e}");
    assert_eq!(bench.calls(Op::Put) + bench.calls(Op::Upload) + bench.calls(Op::DeleteMany), 0);
}
