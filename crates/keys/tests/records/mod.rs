//! Data keys of the file key ring, and their records.

#![allow(dead_code, reason = "no test needs all of it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use varve_format::{DataKey, EncryptionInfo, Id, KeyRecord, KeyRecordName, KeyRing, Wrapping};
use varve_keys::{DataKeys, KeyPeriod, KeyServices, KeyUrl, Trusted};
use varve_store::{
    Fault, Faults, FaultyStore, GetRange, Key, MemoryStore, Operation, PutOptions, Rule, SharedStore, When,
};

pub(crate) const CLUSTER: &str = "cluster";
pub(crate) const TOPIC: Id = Id([1; 16]);
pub(crate) const PERIOD: &str = "2026-11";
/// In that period.
pub(crate) const NOW_MS: i64 = 1_795_219_200_000;
pub(crate) const CACHE: Duration = Duration::from_secs(600);

pub(crate) fn ring(active: &str, ids: &[&str]) -> KeyRing {
    let key = |id: &str| format!(r#""{id}": "{}""#, STANDARD.encode([id.as_bytes()[0]; 32]));
    let keys: Vec<_> = ids.iter().map(|id| key(id)).collect();
    KeyRing::parse(&format!(r#"{{"active": "{active}", "keys": {{{}}}}}"#, keys.join(", "))).unwrap()
}

pub(crate) fn url(text: &str) -> KeyUrl {
    KeyUrl::parse(text).unwrap()
}

/// With a ring of the keys 1 and 2.
pub(crate) fn keys(store: &SharedStore, active: &str) -> DataKeys {
    keys_of(store, ring(active, &["1", "2"]))
}

pub(crate) fn keys_of(store: &SharedStore, ring: KeyRing) -> DataKeys {
    let services = KeyServices::new(&BTreeMap::new(), Some(Arc::new(ring))).unwrap();
    DataKeys::new(store.clone(), services, Trusted::new([], true), CACHE)
}

pub(crate) async fn write(keys: &DataKeys) -> varve_keys::Result<DataKey> {
    keys.for_write_until(CLUSTER, TOPIC, &url("ring:1"), KeyPeriod::Month, NOW_MS).await.map(|(key, ..)| key)
}

pub(crate) async fn read(keys: &DataKeys, id: Id) -> varve_keys::Result<DataKey> {
    let info = EncryptionInfo { data_key_id: id, period: PERIOD.to_owned(), salt: [0; 32] };
    keys.for_read(CLUSTER, TOPIC, &info).await
}

pub(crate) fn name(id: Id) -> KeyRecordName {
    KeyRecordName {
        cluster_id: CLUSTER.to_owned(),
        topic_id: TOPIC,
        period: PERIOD.to_owned(),
        id: Some(id),
        is_tombstone: false,
    }
}

pub(crate) fn memory() -> SharedStore {
    Arc::new(MemoryStore::new())
}

pub(crate) fn faulty(inner: &SharedStore, rules: Vec<Rule>) -> (SharedStore, Arc<Faults>) {
    let faults = Faults::new(1, rules);
    (Arc::new(FaultyStore::new(inner.clone(), Arc::clone(&faults))), faults)
}

pub(crate) fn rule(operation: Option<Operation>, when: When, fault: Fault) -> Rule {
    Rule { operation, key_contains: String::new(), when, fault }
}

pub(crate) async fn put(store: &SharedStore, name: &str, bytes: impl Into<Bytes>) {
    store.put(&Key::new(name).unwrap(), bytes.into(), &PutOptions::default()).await.unwrap();
}

pub(crate) async fn get(store: &SharedStore, name: &str) -> Bytes {
    store.get(&Key::new(name).unwrap(), GetRange::From(0)).await.unwrap().bytes().await.unwrap()
}

pub(crate) async fn listed(store: &SharedStore) -> Vec<String> {
    let page = store.list("", None, 1000).await.unwrap();
    page.objects.iter().map(|object| object.key.as_str().to_owned()).collect()
}

/// All versions of all names, as `name` or, of a delete marker, `-name`.
pub(crate) async fn versions(store: &SharedStore) -> Vec<String> {
    let versions = store.versions().await.unwrap().unwrap();
    let page = versions.list("", None, 1000).await.unwrap();
    let of = |found: varve_store::KeyVersions| {
        let key = found.key.as_str().to_owned();
        found.versions.into_iter().map(move |v| format!("{}{key}", if v.delete_marker { "-" } else { "" }))
    };
    page.keys.into_iter().flat_map(of).collect()
}

/// A record of a key that is all `byte`, by the ring's active key.
pub(crate) fn record(ring: &KeyRing, byte: u8, cluster: &str, topic: Id, period: &str) -> KeyRecord {
    let key = DataKey::new(Id([byte; 16]), [byte; 32]);
    KeyRecord::wrap(ring, &key, cluster, topic, period, NOW_MS, [byte; 12]).unwrap()
}

/// The same, as it was written before each key had a record of its own.
pub(crate) fn record_1(ring: &KeyRing, byte: u8) -> KeyRecord {
    let record = KeyRecord { cluster_id: None, ..record(ring, byte, CLUSTER, TOPIC, PERIOD) };
    let sealed = ring.wrap([byte; 12], &record.aad(), &[byte; 32]).unwrap();
    let wrapped = [&[byte; 12][..], &sealed].concat();
    KeyRecord { wrapping: Wrapping { wrapped, ..record.wrapping }, ..record }
}
