//! Somebody who may write to the store, which keeps versions: he hides objects and puts others on top of them.

use varve_store::{GetRange, Key, MemoryStore, PutOptions, Store, delete};

use crate::rng::Rng;
use crate::turns::finish;

fn names(store: &MemoryStore) -> Vec<Key> {
    let page = finish(store.list("", None, usize::MAX)).expect("memory answers");
    page.objects
        .into_iter()
        .map(|object| object.key)
        .filter(|key| !key.as_str().starts_with("probe/"))
        .collect()
}

/// Does one thing to one object.
pub fn tamper(store: &MemoryStore, rng: &Rng) {
    let names = names(store);
    if names.is_empty() {
        return;
    }
    let key = &names[rng.below(names.len())];
    if rng.percent(60) {
        finish(delete(store, key)).expect("memory deletes");
        return;
    }
    // Rubbish, or what is true elsewhere.
    let other = &names[rng.below(names.len())];
    let body = match rng.percent(50) {
        true => b"rubbish".as_slice().into(),
        false => {
            finish(async { store.get(other, GetRange::Full).await?.bytes().await }).expect("memory reads")
        }
    };
    finish(store.put(key, body, &PutOptions::default())).expect("memory takes all");
}

/// What the archive is: of each name the oldest version; of the journal what is not under a delete marker.
pub fn as_written(store: &MemoryStore) -> MemoryStore {
    let flat = MemoryStore::new();
    let Some(versions) = finish(store.versions()).expect("memory answers") else { return store.clone() };
    for found in finish(versions.list("", None, usize::MAX)).expect("memory answers").keys {
        if found.key.as_str().starts_with("journal/") && found.is_hidden() {
            continue;
        }
        let Some(oldest) = found.oldest() else { continue };
        let read = async { versions.get(&found.key, &oldest.id, GetRange::Full).await?.bytes().await };
        let body = finish(read).expect("memory reads");
        finish(flat.put(&found.key, body, &PutOptions::default())).expect("memory takes all");
    }
    flat
}
