//! How long data keys are used, and what happens while they are wrapped anew: with a clock that the tests move.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod records;

use std::sync::Arc;
use std::time::Duration;

use records::{CACHE, NOW_MS, faulty, get, keys, listed, memory, name, read, rule, url, versions, write};
use tokio::time::advance;
use varve_format::tombstone_name;
use varve_keys::Kind;
use varve_store::{Fault, MemoryStore, Operation, SharedStore, When};

#[tokio::test(start_paused = true)]
async fn a_key_outlives_an_outage_for_as_long_as_it_may_be_used() {
    let down = rule(None, When::Always, Fault::ErrorBefore(varve_store::Kind::Unavailable));
    let (store, faults) = faulty(&memory(), vec![down]);
    faults.set_enabled(false);
    let keys = keys(&store, "1");
    let id = write(&keys).await.unwrap().id;
    read(&keys, id).await.unwrap();
    faults.set_enabled(true);
    let both = async || (write(&keys).await.map(|key| key.id), read(&keys, id).await.map(|key| key.id));

    advance(CACHE / 2 - Duration::from_secs(1)).await;
    assert_eq!(both().await, (Ok(id), Ok(id)));
    assert!(faults.log().is_empty(), "nothing is asked before half of the time");

    advance(Duration::from_secs(2)).await;
    assert_eq!(both().await, (Ok(id), Ok(id)), "asked in vain, and used on");
    let asked = faults.log().len();
    assert!(asked > 0);
    assert_eq!(both().await, (Ok(id), Ok(id)));
    assert_eq!(faults.log().len(), asked, "not with each call");

    advance(CACHE / 2 - Duration::from_secs(2)).await;
    assert_eq!(both().await, (Ok(id), Ok(id)), "the last second");
    advance(Duration::from_secs(2)).await;
    let (written, found) = both().await;
    assert_eq!((written.unwrap_err().kind, found.unwrap_err().kind), (Kind::Unavailable, Kind::Unavailable));

    faults.set_enabled(false);
    // Who came before a failure shares it: by the clock that was at once.
    advance(Duration::from_millis(1)).await;
    assert_eq!(both().await, (Ok(id), Ok(id)));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_renewed_while_it_is_there() {
    let down = rule(None, When::Always, Fault::ErrorBefore(varve_store::Kind::Unavailable));
    let (store, faults) = faulty(&memory(), vec![down]);
    faults.set_enabled(false);
    let keys = keys(&store, "1");
    let id = write(&keys).await.unwrap().id;
    for _ in 0..5 {
        advance(CACHE / 2 + Duration::from_secs(1)).await;
        assert_eq!(write(&keys).await.unwrap().id, id);
    }
    faults.set_enabled(true);
    advance(CACHE - Duration::from_secs(1)).await;
    assert_eq!(write(&keys).await.unwrap().id, id, "counted from the last renewal");
}

#[tokio::test(start_paused = true)]
async fn a_destroyed_key_is_noticed_when_it_is_renewed() {
    let store = memory();
    let (one, other) = (keys(&store, "1"), keys(&store, "1"));
    let id = write(&one).await.unwrap().id;
    read(&one, id).await.unwrap();
    other.destroy(&name(id), NOW_MS).await.unwrap();
    assert_eq!(read(&other, id).await.unwrap_err().kind, Kind::Destroyed, "at once where it was destroyed");
    assert_ne!(write(&other).await.unwrap().id, id);

    advance(CACHE / 2 - Duration::from_secs(1)).await;
    assert_eq!((write(&one).await.unwrap().id, read(&one, id).await.unwrap().id), (id, id));
    advance(Duration::from_secs(2)).await;
    assert_eq!(read(&one, id).await.unwrap_err().kind, Kind::Destroyed);
    assert_ne!(write(&one).await.unwrap().id, id);
}

#[tokio::test(start_paused = true)]
async fn any_answer_but_away_counts_at_once() {
    let denied = rule(Some(Operation::Get), When::Always, Fault::ErrorBefore(varve_store::Kind::Denied));
    let (store, faults) = faulty(&memory(), vec![denied]);
    faults.set_enabled(false);
    let keys = keys(&store, "1");
    let id = write(&keys).await.unwrap().id;
    read(&keys, id).await.unwrap();
    faults.set_enabled(true);
    advance(CACHE / 2 + Duration::from_secs(1)).await;
    assert_eq!(read(&keys, id).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(write(&keys).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_destroyed_while_it_is_wrapped_anew_stays_destroyed() {
    for inner in [memory(), Arc::new(MemoryStore::versioned()) as SharedStore] {
        let id = write(&keys(&inner, "1")).await.unwrap().id;
        let record = get(&inner, &name(id).record()).await;
        let slow = Fault::Latency { from: Duration::from_secs(10), to: Duration::from_secs(11) };
        let (store, _) = faulty(&inner, vec![rule(Some(Operation::Put), When::Always, slow)]);
        let second = keys(&store, "2");
        let rewrapping = tokio::spawn(async move { second.rewrap(&name(id), &url("ring:2"), false).await });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(get(&inner, &name(id).record()).await, record, "it is at it");
        keys(&inner, "1").destroy(&name(id), NOW_MS).await.unwrap();
        assert_eq!(rewrapping.await.unwrap().unwrap_err().kind, Kind::Destroyed);
        assert_eq!(listed(&inner).await, [tombstone_name(&name(id).record())]);
        if inner.versions().await.unwrap().is_some() {
            assert_eq!(versions(&inner).await, [tombstone_name(&name(id).record())]);
        }
    }
}
