//! Data keys: what many brokers seal at once all can read, none is lost, and none is needed once it is gone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here fails the test")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use support::{Bench, CLUSTER, Segment, config, key_ring, kind_of};
use varve_format::{EncryptionInfo, ExtentKind, Id, key_record_name};
use varve_rsm::Kind;
use varve_rsm::config::Config;
use varve_rsm::keys::Keys;
use varve_rsm::rsm::Rsm;
use varve_store::{Fault, Kind as StoreKind, Operation as Op, When};

const DAY_MS: i64 = 86_400_000;
const SIZE: usize = 300_000;

fn given(dir: &std::path::Path, id: &str, secret: u8) -> BTreeMap<String, String> {
    config(&[("encryption.enabled", "true"), ("encryption.key.ring.file", &key_ring(dir, id, secret))])
}

fn records(bench: &Bench) -> Vec<String> {
    bench.keys().into_iter().filter(|k| k.starts_with("keys/")).collect()
}

/// With a key each at most; whoever comes later uses one of these.
#[test]
fn brokers_that_begin_a_period_at_once_read_each_others_segments() {
    let dir = tempfile::tempdir().unwrap();
    let given = given(dir.path(), "k", 1);
    let brokers: Vec<Bench> = (0..4).map(|_| Bench::open(&given).unwrap()).collect();
    let segments: Vec<Segment> = std::thread::scope(|scope| {
        let copies: Vec<_> = (0..32)
            .map(|n| {
                let bench = &brokers[n % 4];
                scope.spawn(move || bench.copied(n as u64, SIZE))
            })
            .collect();
        copies.into_iter().map(|copy| copy.join().unwrap()).collect()
    });
    let begun = records(&brokers[0]);
    assert!((1..=brokers.len()).contains(&begun.len()), "{begun:?}");
    let cold = Rsm::with_store(&given, |store| store).unwrap();
    for segment in &segments {
        segment.check(&cold);
    }
    Bench::open(&given).unwrap().copied(49, SIZE).check(&cold);
    assert_eq!(records(&brokers[0]), begun);
    let again = brokers[0].calls(Op::Get);
    brokers[0].copied(50, SIZE);
    assert_eq!(brokers[0].calls(Op::Get), again, "a kept key is not fetched");
}

#[test]
fn a_key_whose_answer_was_lost_is_the_one_that_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(&given(dir.path(), "k", 1)).unwrap();
    bench.fault(Op::Put, When::Nth(1), Fault::ErrorAfter(StoreKind::Unavailable));
    let mut segment = bench.segment(1, SIZE);
    assert_eq!(kind_of(segment.copy(&bench.rsm)), Kind::Retry);
    assert_eq!((records(&bench).len(), bench.objects().len()), (1, 0));
    bench.no_faults();
    segment.copy(&bench.rsm).unwrap();
    segment.check(&bench.rsm);
    assert_eq!(records(&bench).len(), 1);
}

#[test]
fn without_its_key_nothing_opens() {
    let dir = tempfile::tempdir().unwrap();
    let right = given(dir.path(), "k", 1);
    let bench = Bench::open(&right).unwrap();
    let segment = bench.copied(2, SIZE);
    let refuses = |given: &BTreeMap<String, String>, names: &str| {
        let rsm = Rsm::with_store(given, |store| store).unwrap();
        let read = segment.read(&rsm, 0, usize::MAX).unwrap_err();
        let index = segment.index(&rsm, ExtentKind::TimeIndex).unwrap_err();
        for e in [read, index] {
            assert_eq!(e.kind, Kind::Denied, "{e}");
            assert!(e.message.contains(names), "{e}");
        }
    };
    let mut wrong = right.clone();
    wrong.insert("encryption.key.ring.file".into(), key_ring(dir.path(), "k", 2));
    refuses(&wrong, "ring:k");
    wrong.insert("encryption.key.ring.file".into(), key_ring(dir.path(), "other", 1));
    refuses(&wrong, "ring:k");
    wrong.remove("encryption.key.ring.file");
    wrong.insert("encryption.enabled".into(), "false".into());
    refuses(&wrong, "encryption.key.ring.file");
    bench.remove(&records(&bench)[0]);
    refuses(&right, "destroyed");
    // Another key of its period opens it as little.
    Bench::open(&right).unwrap().copied(3, SIZE);
    refuses(&right, "never copied here");
    // Deleting needs no key.
    segment.delete(&Rsm::with_store(&right, |store| store).unwrap()).unwrap();
}

/// Also with metadata that names it, as somebody can write who may write there too.
#[test]
fn a_plain_object_is_refused_where_all_must_be_encrypted() {
    let dir = tempfile::tempdir().unwrap();
    let mut given = given(dir.path(), "k", 1);
    let plain = |given: &BTreeMap<String, String>| {
        let mut plain = given.clone();
        plain.insert("encryption.enabled".into(), "false".into());
        plain
    };
    let segment = Bench::open(&plain(&given)).unwrap().copied(2, SIZE);
    segment.check(&Rsm::with_store(&given, |store| store).unwrap());
    given.insert("encryption.required".into(), "true".into());
    let rsm = Rsm::with_store(&given, |store| store).unwrap();
    let read = segment.read(&rsm, 0, usize::MAX).unwrap_err();
    let index = segment.index(&rsm, ExtentKind::TimeIndex).unwrap_err();
    for e in [read, index] {
        assert_eq!(e.kind, Kind::Corrupt, "{e}");
        assert!(e.message.contains(&segment.key()) && e.message.contains("encryption.required"), "{e}");
    }
    Bench::open(&given).unwrap().copied(3, SIZE).check(&rsm);
    // By topic: it counts for those of the rule alone.
    given.remove("encryption.required");
    given.extend([
        ("rules.a.topics".into(), "pay-.*".into()),
        ("rules.a.encryption.required".into(), "true".into()),
    ]);
    segment.check(&Rsm::with_store(&given, |store| store).unwrap());
}

/// A broker that keeps a key learns of another one by an object that needs it.
#[test]
fn a_kept_key_that_was_replaced_is_looked_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let given = given(dir.path(), "k", 1);
    let (one, two) = (Bench::open(&given).unwrap(), Bench::open(&given).unwrap());
    one.copied(1, SIZE).check(&one.rsm);
    one.remove(&records(&one)[0]);
    two.copied(2, SIZE).check(&one.rsm);
}

/// And passed over by who writes.
#[test]
fn a_damaged_record_is_corrupt_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let given = given(dir.path(), "k", 1);
    let bench = Bench::open(&given).unwrap();
    let segment = bench.copied(2, SIZE);
    let record = records(&bench)[0].clone();
    for (number, bytes) in [vec![], b"{}".to_vec(), vec![b'x'; 100_000]].into_iter().enumerate() {
        bench.put(&record, bytes);
        let e = segment.read(&Rsm::with_store(&given, |store| store).unwrap(), 0, 10).unwrap_err();
        assert_eq!(e.kind, Kind::Corrupt, "{e}");
        assert!(e.message.contains(&record), "{e}");
        let fresh = Rsm::with_store(&given, |store| store).unwrap();
        let mut another = bench.segment(3 + number as u64, SIZE);
        another.copy(&fresh).unwrap();
        another.check(&Rsm::with_store(&given, |store| store).unwrap());
    }
    assert_eq!(records(&bench).len(), 2);
}

/// Else a topic's objects would be sealed with another's key, and be lost when that one's key is destroyed.
#[test]
fn a_record_under_another_name_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let given = given(dir.path(), "k", 1);
    let bench = Bench::open(&given).unwrap();
    let keys = || Keys::new(&Config::parse(&given).unwrap(), bench.store.clone()).unwrap();
    let (topic, other) = (Id([1; 16]), Id([2; 16]));
    let (key, period, _) = bench.block(keys().for_write(CLUSTER, topic, None, 0)).unwrap();
    let record = bench.object(&key_record_name(CLUSTER, topic, &period, key.id));
    bench.put(&key_record_name(CLUSTER, other, &period, key.id), record.clone());
    bench.put(&key_record_name(CLUSTER, topic, "1970-02", key.id), record.clone());
    for (topic, now_ms, named) in [(other, 0, &period), (topic, 40 * DAY_MS, &"1970-02".to_owned())] {
        let info = EncryptionInfo { data_key_id: key.id, period: named.clone(), salt: [0; 32] };
        let e = bench.block(keys().for_read(CLUSTER, topic, &info)).unwrap_err();
        assert_eq!(e.kind, Kind::Corrupt, "{e}");
        assert!(e.message.contains("not the key record that was looked for"), "{e}");
        let (written, ..) = bench.block(keys().for_write(CLUSTER, topic, None, now_ms)).unwrap();
        assert_ne!(written.id, key.id);
    }
    let long = [&record[..], &vec![b' '; 64 << 10]].concat();
    bench.put(&key_record_name(CLUSTER, topic, &period, key.id), long);
    let info = EncryptionInfo { data_key_id: key.id, period, salt: [0; 32] };
    let e = bench.block(keys().for_read(CLUSTER, topic, &info)).unwrap_err();
    assert!(e.kind == Kind::Corrupt && e.message.contains("at most 65536 bytes"), "{e}");
}

#[test]
fn each_period_has_a_key_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    for (period, same, next) in
        [("day", 1, DAY_MS), ("month", DAY_MS, 31 * DAY_MS), ("year", 90 * DAY_MS, 366 * DAY_MS)]
    {
        let mut given = given(dir.path(), "k", 1);
        given.insert("encryption.key.period".into(), period.into());
        let bench = Bench::open(&given).unwrap();
        let config = Config::parse(&given).unwrap();
        let keys = Keys::new(&config, bench.store.clone()).unwrap();
        let topic = Id([1; 16]);
        bench.block(async {
            let (first, named, _) = keys.for_write(CLUSTER, topic, None, 0).await.unwrap();
            assert_eq!(keys.for_write(CLUSTER, topic, None, same).await.unwrap().0.id, first.id, "{period}");
            let (then, other, _) = keys.for_write(CLUSTER, topic, None, next).await.unwrap();
            assert!(then.id != first.id && other != named, "{period}: {named} {other}");
            let elsewhere = keys.for_write(CLUSTER, Id([2; 16]), None, 0).await.unwrap().0;
            assert_ne!(elsewhere.id, first.id, "another topic");
            // Both open, also for one who has seen neither.
            let cold = Arc::new(Keys::new(&config, bench.store.clone()).unwrap());
            for (key, period) in [(&first, &named), (&then, &other)] {
                let info = EncryptionInfo { data_key_id: key.id, period: period.clone(), salt: [0; 32] };
                assert_eq!(cold.for_read(CLUSTER, topic, &info).await.unwrap().0.id, key.id);
            }
        });
        assert_eq!(records(&bench).len(), 3);
    }
}

/// A copy may take longer than a key may be used without asking.
#[test]
fn a_key_that_is_destroyed_while_a_copy_runs_seals_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut given = given(dir.path(), "k", 1);
    given.insert("encryption.key.cache.ms".into(), "1000".into());
    given.insert("upload.rate.bytes.per.second".into(), "4194304".into());
    let bench = Bench::open(&given).unwrap();
    let mut segment = bench.segment(1, 12 << 20);
    let failed = std::thread::scope(|scope| {
        let copy = scope.spawn(|| segment.copy(&bench.rsm));
        while records(&bench).is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        bench.put(&records(&bench)[0].replace(".json", ".destroyed"), b"{}".to_vec());
        copy.join().unwrap().unwrap_err()
    });
    assert!(failed.kind == Kind::Denied && failed.to_string().contains("destroyed on purpose"), "{failed}");
    assert_eq!(bench.objects().len(), 0);
    // What comes is sealed by another.
    bench.copied(2, SIZE).check(&bench.rsm);
}
