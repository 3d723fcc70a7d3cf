//! Data keys and their records, in stores with and without versions, with the file key ring.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here fails the test")]

mod late_ids;
mod records;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use records::{
    CLUSTER, NOW_MS, PERIOD, TOPIC, faulty, get, keys, keys_of, listed, memory, name, put, read, record,
    record_1, ring, rule, url, versions, write,
};
use varve_format::{
    DataKey, Id, KEY_RECORD_MAX_BYTES, KeyRecord, KeyRecordName, KeyRing, Wrapping, key_record_1_name,
    key_record_name, tombstone_name,
};
use varve_keys::{DataKeys, KeyPeriod, KeyServices, Kind, Rewrapped, Trusted};
use varve_store::{Fault, GetRange, Key, MemoryStore, Operation, SharedStore, When};

#[tokio::test]
async fn racing_writers_come_to_one_key() {
    let store = memory();
    let one = keys(&store, "1");
    let ids = futures::future::join_all((0..50).map(|_| write(&one))).await;
    let ids: HashSet<Id> = ids.into_iter().map(|key| key.unwrap().id).collect();
    assert_eq!((ids.len(), listed(&store).await.len()), (1, 1));
    // Another process finds it.
    assert!(ids.contains(&write(&keys(&store, "1")).await.unwrap().id));

    // Processes that begin at once may each begin with one; who comes later makes none.
    let store = memory();
    let all: Vec<_> = (0..5).map(|_| keys(&store, "1")).collect();
    futures::future::join_all(all.iter().map(write)).await.into_iter().for_each(|key| drop(key.unwrap()));
    let begun = listed(&store).await.len();
    write(&keys(&store, "1")).await.unwrap();
    assert_eq!(listed(&store).await.len(), begun);
}

#[tokio::test]
async fn a_lost_answer_loses_no_key() {
    for kind in [varve_store::Kind::Unavailable, varve_store::Kind::AlreadyExists] {
        let inner = memory();
        let lost = rule(Some(Operation::Put), When::First(1), Fault::ErrorAfter(kind));
        let (store, faults) = faulty(&inner, vec![lost]);
        let keys = keys(&store, "1");
        match (write(&keys).await, kind) {
            (Ok(_), varve_store::Kind::AlreadyExists) => {}
            (Err(e), varve_store::Kind::Unavailable) => assert_eq!(e.kind, Kind::Unavailable),
            (other, _) => panic!("{other:?}"),
        }
        faults.set_enabled(false);
        let key = write(&keys).await.unwrap();
        assert_eq!(listed(&inner).await, [name(key.id).record()]);
    }
}

#[tokio::test]
async fn nothing_is_sealed_under_a_strangers_key() {
    let store = memory();
    let (first, second) = (ring("1", &["1", "2"]), ring("2", &["1", "2"]));
    // By a key that is not the one that is configured.
    let other_kek = record(&second, 10, CLUSTER, TOPIC, PERIOD);
    // True records of another cluster, topic and period, copied to this name; and altered to fit it.
    let copied = [
        record(&first, 11, "another", TOPIC, PERIOD),
        record(&first, 12, CLUSTER, Id([9; 16]), PERIOD),
        record(&first, 13, CLUSTER, TOPIC, "2026-10"),
    ];
    let strange: Vec<_> = std::iter::once(other_kek).chain(copied).collect();
    for record in &strange {
        put(&store, &name(record.id).record(), record.encode().unwrap()).await;
    }
    let keys = keys(&store, "1");
    let key = write(&keys).await.unwrap();
    assert!(strange.iter().all(|record| record.id != key.id));
    for (byte, kind) in
        [(10, None), (11, Some(Kind::Corrupt)), (12, Some(Kind::Corrupt)), (13, Some(Kind::Corrupt))]
    {
        let found = read(&keys, Id([byte; 16])).await.err().map(|e| e.kind);
        assert_eq!(found, kind, "record {byte}");
    }
}

#[tokio::test]
async fn a_ring_with_another_key_of_the_same_id_seals_nothing() {
    let (right, wrong) = (memory(), memory());
    // Altered to fit, or wrapped by another key that has the id: it can't be told which.
    let stranger =
        KeyRecord { topic_id: TOPIC, ..record(&ring("1", &["1"]), 1, CLUSTER, Id([9; 16]), PERIOD) };
    for store in [&right, &wrong] {
        put(store, &name(stranger.id).record(), stranger.encode().unwrap()).await;
    }
    let refused = write(&keys(&wrong, "1")).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Refused, "{refused}");
    assert!(refused.to_string().contains("another key of the same id"), "{refused}");
    assert_eq!(listed(&wrong).await.len(), 1);
    assert_eq!(read(&keys(&wrong, "1"), stranger.id).await.unwrap_err().kind, Kind::Refused);

    // One that opens proves the ring.
    let proof = record(&ring("1", &["1"]), 2, CLUSTER, TOPIC, PERIOD);
    put(&right, &name(proof.id).record(), proof.encode().unwrap()).await;
    assert_eq!(write(&keys(&right, "1")).await.unwrap().id, proof.id);
}

#[tokio::test]
async fn a_record_that_was_cut_short_is_noticed_before_anything_is_sealed() {
    let inner = memory();
    let (store, faults) = faulty(&inner, vec![rule(Some(Operation::Put), When::Always, Fault::Truncate)]);
    let writer = keys(&store, "1");
    let short = write(&writer).await.unwrap_err();
    assert!(short.to_string().contains("cut short"), "{short}");
    faults.set_enabled(false);
    let whole = write(&writer).await.unwrap();
    assert_eq!(read(&keys(&inner, "1"), whole.id).await.unwrap().id, whole.id);
}

#[tokio::test]
async fn a_key_that_is_not_trusted_is_never_asked() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let store = memory();
    let mut record = record(&ring("1", &["1"]), 5, CLUSTER, TOPIC, PERIOD);
    record.wrapping = Wrapping {
        wrapped_by: format!("vault+http://{}/transit/k", listener.local_addr().unwrap()),
        algorithm: varve_keys::algorithm::VAULT.to_owned(),
        wrapped: b"vault:v1:AAAA".to_vec(),
    };
    put(&store, &name(record.id).record(), record.encode().unwrap()).await;
    let keys = keys(&store, "1");
    let denied = read(&keys, record.id).await.unwrap_err();
    assert_eq!(denied.kind, Kind::Denied, "{denied}");
    assert_eq!(keys.try_open(&name(record.id)).await.unwrap_err().kind, Kind::Denied);
    let denied = keys.rewrap(&name(record.id), &url("ring:1"), false).await.unwrap_err();
    assert_eq!(denied.kind, Kind::Denied);
    assert_ne!(write(&keys).await.unwrap().id, record.id);
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_record_of_version_1_is_read_and_becomes_one_of_version_2() {
    let store = memory();
    let old = record_1(&ring("1", &["1"]), 5);
    let old_name = key_record_1_name(CLUSTER, TOPIC, PERIOD);
    put(&store, &old_name, old.encode().unwrap()).await;
    let second = keys(&store, "2");
    assert_eq!(*read(&second, old.id).await.unwrap().secret(), [5; 32]);
    let (page, _) = second.page(None).await.unwrap();
    let [of_1] = page.as_slice() else { panic!("{page:?}") };
    assert_eq!(second.rewrap(of_1, &url("ring:2"), false).await.unwrap(), Rewrapped::Done);
    assert_eq!(listed(&store).await, [key_record_name(CLUSTER, TOPIC, PERIOD, old.id)]);
    let again = second.rewrap(&name(old.id), &url("ring:2"), false).await.unwrap();
    assert_eq!(again, Rewrapped::Already);
    assert_eq!(second.rewrap(&name(old.id), &url("ring:2"), true).await.unwrap(), Rewrapped::Done);
    let only_second = keys_of(&store, ring("2", &["2"]));
    assert_eq!(*read(&only_second, old.id).await.unwrap().secret(), [5; 32]);
    let record = only_second.record(&name(old.id)).await.unwrap();
    assert_eq!((record.cluster_id.as_deref(), record.created_ms), (Some(CLUSTER), NOW_MS));
}

#[tokio::test]
async fn a_key_of_version_1_is_destroyed_by_both_names() {
    let store = memory();
    let old = record_1(&ring("1", &["1"]), 5);
    put(&store, &key_record_1_name(CLUSTER, TOPIC, PERIOD), old.encode().unwrap()).await;
    let keys = keys(&store, "1");
    let of_1 = KeyRecordName { id: None, ..name(old.id) };
    keys.destroy(&of_1, NOW_MS).await.unwrap();
    let left = [of_1.record(), name(old.id).record()].map(|record| tombstone_name(&record));
    let mut found = listed(&store).await;
    found.sort();
    let mut expected = left.to_vec();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(read(&keys, old.id).await.unwrap_err().kind, Kind::Destroyed);
    for gone in [of_1, name(old.id)] {
        assert_eq!(keys.try_open(&gone).await.unwrap_err().kind, Kind::Destroyed);
    }
}

#[tokio::test]
async fn a_tombstone_beats_a_record_that_is_put_back() {
    let store = memory();
    let one = keys(&store, "1");
    let id = write(&one).await.unwrap().id;
    let record = get(&store, &name(id).record()).await;
    one.destroy(&name(id), NOW_MS).await.unwrap();
    put(&store, &name(id).record(), record).await;
    for keys in [one, keys(&store, "1")] {
        assert_eq!(read(&keys, id).await.unwrap_err().kind, Kind::Destroyed);
        assert_eq!(keys.try_open(&name(id)).await.unwrap_err().kind, Kind::Destroyed);
        let rewrapped = keys.rewrap(&name(id), &url("ring:1"), true).await.unwrap_err();
        assert_eq!(rewrapped.kind, Kind::Destroyed);
        assert_ne!(write(&keys).await.unwrap().id, id);
    }
}

#[tokio::test]
async fn versions_of_a_destroyed_record_go_too() {
    let store: SharedStore = Arc::new(MemoryStore::versioned());
    let keys = keys(&store, "1");
    let id = write(&keys).await.unwrap().id;
    let (record, key) = (name(id).record(), Key::new(name(id).record()).unwrap());
    let bytes = get(&store, &record).await;
    for _ in 0..150 {
        put(&store, &record, bytes.clone()).await;
    }
    varve_store::delete(store.as_ref(), &key).await.unwrap();
    // Somebody hid it: the key lives on in older versions, and is destroyed all the same.
    keys.destroy(&name(id), NOW_MS).await.unwrap();
    assert_eq!(versions(&store).await, [tombstone_name(&record)]);
    assert_eq!(keys.try_open(&name(id)).await.unwrap_err().kind, Kind::Destroyed);
    // Again, of nothing.
    keys.destroy(&name(id), NOW_MS).await.unwrap();
}

#[tokio::test]
async fn a_record_that_is_wrapped_anew_leaves_no_older_version() {
    let store: SharedStore = Arc::new(MemoryStore::versioned());
    let id = write(&keys(&store, "1")).await.unwrap().id;
    let before = get(&store, &name(id).record()).await;
    put(&store, &name(id).record(), before.clone()).await;
    assert_eq!(versions(&store).await.len(), 2);
    let rewrapped = keys(&store, "2").rewrap(&name(id), &url("ring:2"), false).await.unwrap();
    assert_eq!(rewrapped, Rewrapped::Done);
    assert_eq!(versions(&store).await, [name(id).record()]);
    assert_ne!(get(&store, &name(id).record()).await, before);
    read(&keys_of(&store, ring("2", &["2"])), id).await.unwrap();
}

#[tokio::test]
async fn a_version_under_a_lock_is_told_and_the_key_is_refused_all_the_same() {
    let inner: SharedStore = Arc::new(MemoryStore::versioned());
    let lock = Fault::ErrorBefore(varve_store::Kind::Denied);
    let (store, faults) = faulty(&inner, vec![rule(Some(Operation::DeleteMany), When::Always, lock)]);
    let keys = keys(&store, "1");
    let id = write(&keys).await.unwrap().id;
    let denied = keys.destroy(&name(id), NOW_MS).await.unwrap_err();
    assert_eq!(denied.kind, Kind::Denied);
    assert!(denied.to_string().contains(&id.to_string()), "{denied}");
    assert_eq!(keys.try_open(&name(id)).await.unwrap_err().kind, Kind::Destroyed);
    faults.set_enabled(false);
    keys.destroy(&name(id), NOW_MS).await.unwrap();
    assert_eq!(versions(&inner).await, [tombstone_name(&name(id).record())]);
}

#[tokio::test]
async fn what_is_no_record_is_named() {
    let store = memory();
    let good = record(&ring("1", &["1"]), 5, CLUSTER, TOPIC, PERIOD).encode().unwrap();
    let future = String::from_utf8(good.clone()).unwrap().replace(r#""varve_key": 2"#, r#""varve_key": 9"#);
    let padded = [good, vec![b' '; KEY_RECORD_MAX_BYTES]].concat();
    let cases = [
        (31, b"what".to_vec(), Kind::Corrupt),
        (32, Vec::new(), Kind::Corrupt),
        (33, padded, Kind::Corrupt),
        (5, future.into_bytes(), Kind::Invalid),
    ];
    let keys = keys(&store, "1");
    for (byte, bytes, kind) in cases {
        let id = Id([byte; 16]);
        put(&store, &name(id).record(), bytes).await;
        let refused = keys.record(&name(id)).await.unwrap_err();
        assert_eq!(refused.kind, kind, "{refused}");
        assert!(refused.to_string().contains(&name(id).record()), "{refused}");
        assert_eq!(read(&keys, id).await.unwrap_err().kind, kind);
        assert_eq!(keys.rewrap(&name(id), &url("ring:1"), true).await.unwrap_err().kind, kind);
        assert_ne!(write(&keys).await.unwrap().id, id);
    }
    // What can't be read can be destroyed.
    keys.destroy(&name(Id([31; 16])), NOW_MS).await.unwrap();
    assert_eq!(read(&keys, Id([31; 16])).await.unwrap_err().kind, Kind::Destroyed);
}

#[tokio::test]
async fn pages_hold_all_names() {
    let store = memory();
    for number in 0_u16..1001 {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        put(&store, &tombstone_name(&name(Id(id)).record()), "{}").await;
    }
    put(&store, "keys/cluster/odd", "{}").await;
    let keys = keys(&store, "1");
    let (first, next) = keys.page(None).await.unwrap();
    let (second, end) = keys.page(next.as_ref()).await.unwrap();
    assert_eq!((first.len() + second.len(), end), (1001, None));
    assert!(first.iter().chain(&second).all(|name| name.is_tombstone));
}

#[tokio::test]
async fn a_ring_that_has_lost_a_key_opens_nothing_of_it() {
    let store = memory();
    let id = write(&keys(&store, "1")).await.unwrap().id;
    let lost = keys_of(&store, ring("2", &["2"]));
    assert_eq!(read(&lost, id).await.unwrap_err().kind, Kind::NotFound);
}

/// A process that asks for its key each time, as others do when their cache's time is over.
fn forgetful(store: &SharedStore, active: &str) -> DataKeys {
    let services = KeyServices::new(&BTreeMap::new(), Some(Arc::new(ring(active, &["1", "2"])))).unwrap();
    DataKeys::new(store.clone(), services, Trusted::new([], true), Duration::ZERO)
}

#[tokio::test]
async fn a_look_that_fails_takes_no_record_away() {
    let inner = memory();
    let id = write(&keys(&inner, "1")).await.unwrap().id;
    let away = Fault::ErrorBefore(varve_store::Kind::Unavailable);
    let (store, _) = faulty(&inner, vec![rule(Some(Operation::Head), When::Nth(2), away)]);
    let failed = keys(&store, "2").rewrap(&name(id), &url("ring:2"), false).await.unwrap_err();
    assert_eq!(failed.kind, Kind::Unavailable, "{failed}");
    read(&keys(&inner, "2"), id).await.unwrap();
}

#[tokio::test]
async fn a_writer_keeps_to_its_key_or_says_so() {
    let store = memory();
    let writer = forgetful(&store, "1");
    let held = write(&writer).await.unwrap();
    let record_name = name(held.id).record();

    // Lost: nobody else may have it any more.
    varve_store::delete(&*store, &Key::new(&record_name).unwrap()).await.unwrap();
    assert_eq!(write(&writer).await.unwrap().id, held.id);
    assert_eq!(read(&keys(&store, "1"), held.id).await.unwrap().secret(), held.secret());

    // Replaced by a key that somebody else may know.
    let truth = get(&store, &record_name).await;
    let stranger = DataKey::new(held.id, [7; 32]);
    let wrapped = KeyRecord::wrap(&ring("1", &["1"]), &stranger, CLUSTER, TOPIC, PERIOD, NOW_MS, [7; 12]);
    put(&store, &record_name, wrapped.unwrap().encode().unwrap()).await;
    let refused = write(&writer).await.unwrap_err();
    assert!(refused.kind == Kind::Refused && refused.to_string().contains("replaced"), "{refused}");

    // Destroyed.
    put(&store, &record_name, truth).await;
    let writer = forgetful(&store, "1");
    assert_eq!(write(&writer).await.unwrap().id, held.id);
    keys(&store, "1").destroy(&name(held.id), NOW_MS).await.unwrap();
    assert_ne!(write(&writer).await.unwrap().id, held.id);
    assert!(!listed(&store).await.contains(&record_name));
}

#[tokio::test]
async fn what_was_wrapped_anew_seals_nothing_new() {
    let store = memory();
    let id = write(&keys(&store, "1")).await.unwrap().id;
    keys(&store, "2").rewrap(&name(id), &url("ring:2"), false).await.unwrap();
    let by_2 = |keys: DataKeys| async move {
        let key = keys.for_write_until(CLUSTER, TOPIC, &url("ring:2"), KeyPeriod::Month, NOW_MS).await;
        key.unwrap().0.id
    };
    let next = by_2(keys(&store, "2")).await;
    assert_ne!(next, id);
    assert_eq!(by_2(keys(&store, "2")).await, next);
    read(&keys(&store, "2"), id).await.unwrap();

    // That it was is bound to the key.
    let mut record = KeyRecord::decode(&get(&store, &name(id).record()).await).unwrap();
    assert!(record.rewrapped);
    record.rewrapped = false;
    put(&store, &name(id).record(), record.encode().unwrap()).await;
    assert_eq!(read(&keys(&store, "2"), id).await.unwrap_err().kind, Kind::Refused);
}

#[tokio::test]
async fn an_older_version_that_may_be_the_true_one_stays() {
    let store: SharedStore = Arc::new(MemoryStore::versioned());
    let id = write(&keys(&store, "1")).await.unwrap().id;
    let stranger = DataKey::new(id, [7; 32]);
    let wrapped = KeyRecord::wrap(&ring("1", &["1"]), &stranger, CLUSTER, TOPIC, PERIOD, NOW_MS, [7; 12]);
    put(&store, &name(id).record(), wrapped.unwrap().encode().unwrap()).await;
    let kept = keys(&store, "2").rewrap(&name(id), &url("ring:2"), false).await.unwrap_err();
    assert!(kept.to_string().contains("another data key"), "{kept}");
    assert_eq!(versions(&store).await.len(), 2, "the true one, and the stranger's wrapped anew");
}

/// The ids of the data keys that versions of a name hold, `None` of a delete marker.
async fn held(store: &SharedStore, name: &str) -> Vec<Option<Id>> {
    let (versions, key) = (store.versions().await.unwrap().unwrap(), Key::new(name).unwrap());
    let page = versions.list(name, None, 1).await.unwrap();
    let mut held = Vec::new();
    for version in page.keys.into_iter().filter(|found| found.key == key).flat_map(|found| found.versions) {
        if version.delete_marker {
            held.push(None);
            continue;
        }
        let got = versions.get(&key, &version.id, GetRange::Full).await.unwrap();
        held.push(Some(KeyRecord::decode(&got.bytes().await.unwrap()).unwrap().id));
    }
    held
}

#[tokio::test]
async fn a_name_of_version_1_keeps_the_versions_of_other_keys() {
    let by_1 = ring("1", &["1"]);
    let (lost, next) = (record_1(&by_1, 5), record_1(&by_1, 6));
    let of_1 = KeyRecordName { id: None, ..name(next.id) };
    // The first key's record was deleted by mistake, or overwritten; a second key was made.
    for deleted in [true, false] {
        let store: SharedStore = Arc::new(MemoryStore::versioned());
        let (old_name, second) = (of_1.record(), keys(&store, "2"));
        put(&store, &old_name, lost.encode().unwrap()).await;
        if deleted {
            varve_store::delete(&*store, &Key::new(&*old_name).unwrap()).await.unwrap();
        }
        put(&store, &old_name, next.encode().unwrap()).await;
        put(&store, &old_name, next.encode().unwrap()).await;
        let kept = second.rewrap(&of_1, &url("ring:2"), false).await.unwrap_err();
        assert!(kept.to_string().contains(&format!("another data key, {}", lost.id)), "{kept}");
        assert_eq!(held(&store, &old_name).await, [Some(lost.id), None], "hidden, as before");
        assert_eq!(*read(&keys_of(&store, ring("2", &["2"])), next.id).await.unwrap().secret(), [6; 32]);

        // The first one is restored after all, and wrapped anew too.
        put(&store, &old_name, lost.encode().unwrap()).await;
        assert_eq!(second.rewrap(&of_1, &url("ring:2"), false).await.unwrap(), Rewrapped::Done);
        assert_eq!(held(&store, &old_name).await, []);
        assert_eq!(*read(&keys_of(&store, ring("2", &["2"])), lost.id).await.unwrap().secret(), [5; 32]);
    }
}

/// Where what is deleted first becomes a version that can be deleted.
#[tokio::test]
async fn no_old_wrapping_is_left_where_versions_get_their_ids_late() {
    let store = late_ids::LateIds::shared();
    let old = record_1(&ring("1", &["1"]), 5);
    let of_1 = KeyRecordName { id: None, ..name(old.id) };
    put(&store, &of_1.record(), old.encode().unwrap()).await;
    assert_eq!(keys(&store, "2").rewrap(&of_1, &url("ring:2"), false).await.unwrap(), Rewrapped::Done);
    let versions = store.versions().await.unwrap().unwrap();
    let page = versions.list(&of_1.record(), None, 10).await.unwrap();
    assert!(page.keys.iter().all(|k| k.versions.iter().all(|v| v.delete_marker)), "{page:?}");
    assert_eq!(*read(&keys_of(&store, ring("2", &["2"])), old.id).await.unwrap().secret(), [5; 32]);
}

#[tokio::test]
async fn a_name_of_version_1_keeps_what_may_be_the_true_record() {
    let store: SharedStore = Arc::new(MemoryStore::versioned());
    let by_1 = ring("1", &["1"]);
    let old = record_1(&by_1, 5);
    let of_1 = KeyRecordName { id: None, ..name(old.id) };
    let sealed = by_1.wrap([7; 12], &old.aad(), &[7; 32]).unwrap();
    let mut other_secret = old.clone();
    other_secret.wrapping.wrapped = [&[7; 12][..], &sealed].concat();
    let mut unopened = old.clone();
    unopened.wrapping.wrapped[20] ^= 1;
    for record in [&old, &other_secret, &unopened, &old] {
        put(&store, &of_1.record(), record.encode().unwrap()).await;
    }
    let kept = keys(&store, "2").rewrap(&of_1, &url("ring:2"), false).await.unwrap_err();
    assert!(kept.to_string().contains("1 more stay too"), "{kept}");
    assert_eq!(held(&store, &of_1.record()).await, [Some(old.id), Some(old.id), None]);
    assert_eq!(*read(&keys_of(&store, ring("2", &["2"])), old.id).await.unwrap().secret(), [5; 32]);
}

#[tokio::test]
async fn of_older_versions_that_cant_be_read_only_damaged_ones_go() {
    let store: SharedStore = Arc::new(MemoryStore::versioned());
    let id = write(&keys(&store, "1")).await.unwrap().id;
    let good = get(&store, &name(id).record()).await;
    let future = String::from_utf8(good.to_vec()).unwrap().replace(r#""varve_key": 2"#, r#""varve_key": 9"#);
    let of_another = record(&ring("1", &["1"]), 5, CLUSTER, TOPIC, PERIOD).encode().unwrap();
    for bytes in [Bytes::from(future.clone()), Bytes::new(), "what".into(), of_another.into(), good] {
        put(&store, &name(id).record(), bytes).await;
    }
    let kept = keys(&store, "2").rewrap(&name(id), &url("ring:2"), false).await.unwrap_err();
    assert!(kept.to_string().contains("1 more stay too"), "{kept}");
    assert_eq!(versions(&store).await.len(), 3, "of a later Varve, of another key, and that wrapped anew");
    read(&keys_of(&store, ring("2", &["2"])), id).await.unwrap();
}

#[tokio::test]
async fn a_rewrap_that_was_broken_off_ends_what_it_began() {
    let store: SharedStore = Arc::new(MemoryStore::versioned());
    let id = write(&keys(&store, "1")).await.unwrap().id;
    let before = get(&store, &name(id).record()).await;
    let (second, by_2) = (keys(&store, "2"), url("ring:2"));
    assert_eq!(second.rewrap(&name(id), &by_2, false).await.unwrap(), Rewrapped::Done);
    // As after a kill between the record and what was before it.
    let after = get(&store, &name(id).record()).await;
    put(&store, &name(id).record(), before).await;
    put(&store, &name(id).record(), after).await;
    assert_eq!(second.rewrap(&name(id), &by_2, false).await.unwrap(), Rewrapped::Already);
    assert_eq!(versions(&store).await, [name(id).record()]);
}

#[tokio::test]
async fn a_ring_is_the_right_one_before_anything_is_wrapped_by_it() {
    let store = memory();
    write(&keys(&store, "1")).await.unwrap();
    let other = |active: &str| {
        let ring = r#"{"active": "ACTIVE", "keys": {"1": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=", "3": "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="}}"#;
        keys_of(&store, KeyRing::parse(&ring.replace("ACTIVE", active)).unwrap())
    };
    let wrong = other("1").check_ring(&url("ring:1")).await.unwrap_err();
    assert!(wrong.kind == Kind::Refused && wrong.to_string().contains("same id"), "{wrong}");
    other("3").check_ring(&url("ring:3")).await.unwrap();
    keys(&store, "1").check_ring(&url("ring:1")).await.unwrap();
}

#[tokio::test]
async fn strangers_hide_no_true_record() {
    let store = memory();
    let id = write(&keys(&store, "1")).await.unwrap().id;
    for byte in 0..20 {
        // Names that come first, and bytes that open to nothing.
        let mut stranger = record(&ring("1", &["1"]), 1, CLUSTER, TOPIC, PERIOD);
        stranger.id = Id([0, byte, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        put(&store, &name(stranger.id).record(), stranger.encode().unwrap()).await;
    }
    assert_eq!(write(&keys(&store, "1")).await.unwrap().id, id);
}
