//! Faults, counts and the throttle do what they say, and hide nothing of the store below.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use varve_store::conformance::{Outcome, run};
use varve_store::{
    CountingStore, Fault, Faults, FaultyStore, GetRange, Key, Kind, MemoryStore, Operation, PutOptions, Rate,
    Rule, SharedStore, Store, ThrottledStore, When,
};

fn rule(operation: Operation, when: When, fault: Fault) -> Rule {
    Rule { operation: Some(operation), key_contains: String::new(), when, fault }
}

fn faulty(seed: u64, rules: Vec<Rule>) -> (FaultyStore, Arc<Faults>) {
    let faults = Faults::new(seed, rules);
    (FaultyStore::new(Arc::new(MemoryStore::new()), Arc::clone(&faults)), faults)
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decorators_pass_the_suite() {
    let memory: SharedStore = Arc::new(MemoryStore::new());
    let faulty: SharedStore = Arc::new(FaultyStore::new(memory, Faults::new(1, Vec::new())));
    let throttled: SharedStore = Arc::new(ThrottledStore::new(faulty, Rate::new(0)));
    let store: SharedStore = Arc::new(CountingStore::new(throttled));
    for result in run(&store, "scratch/").await {
        assert_eq!(result.outcome, Outcome::Passed, "{result}");
    }
}

/// The suite is no rubber stamp: a store that breaks its promises is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_finds_broken_stores() {
    for (fault, operation) in [
        (Fault::FlipByte, Operation::Get),
        (Fault::Truncate, Operation::Get),
        (Fault::FlipByte, Operation::PutPart),
        (Fault::ErrorAfter(Kind::Unavailable), Operation::Complete),
        (Fault::ErrorBefore(Kind::Unavailable), Operation::ListUploads),
        (Fault::ErrorBefore(Kind::Denied), Operation::DeleteMany),
        (Fault::ErrorBefore(Kind::Unsupported), Operation::Copy),
    ] {
        let (store, _) = faulty(5, vec![rule(operation, When::Always, fault)]);
        let store: SharedStore = Arc::new(store);
        let failed: Vec<_> =
            run(&store, "").await.into_iter().filter(|result| result.outcome == Outcome::Failed).collect();
        assert!(!failed.is_empty(), "{fault:?} of {operation} went unseen");
        assert!(failed.iter().all(|result| !result.detail.is_empty()));
    }
}

async fn some_calls(store: &FaultyStore, names: &[usize]) -> Vec<String> {
    let calls = names.iter().map(|n| async move {
        let key = key(&format!("object-{n}"));
        let put = store.put(&key, Bytes::from(vec![b'a'; 1000]), &PutOptions::default()).await.map(drop);
        let got = match store.get(&key, GetRange::Full).await {
            Ok(got) => got.body.try_collect::<Vec<Bytes>>().await.map(|pieces| pieces.concat()),
            Err(error) => Err(error),
        };
        (*n, format!("{put:?} {got:?}"))
    });
    let mut outcomes = futures::future::join_all(calls).await;
    outcomes.sort();
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults_in_any_order() {
    let half = |operation, fault| rule(operation, When::Probability(0.5), fault);
    let rules = vec![
        half(Operation::Put, Fault::FlipByte),
        half(Operation::Put, Fault::ErrorAfter(Kind::Unavailable)),
        half(Operation::Get, Fault::Reset),
        half(Operation::Get, Fault::Truncate),
        half(Operation::Get, Fault::Latency { from: Duration::ZERO, to: Duration::from_millis(3) }),
    ];
    let forward: Vec<usize> = (0..60).collect();
    let backward: Vec<usize> = (0..60).rev().collect();
    let (first, log) = faulty(42, rules.clone());
    let expected = some_calls(&first, &forward).await;
    assert!(log.log().len() > 40, "{} faults in 120 calls", log.log().len());
    let (second, _) = faulty(42, rules.clone());
    assert_eq!(some_calls(&second, &backward).await, expected);
    let (other, _) = faulty(43, rules);
    assert_ne!(some_calls(&other, &forward).await, expected);
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let body = Bytes::from(vec![b'x'; 700_000]);
    let put = PutOptions::default();

    let (store, faults) =
        faulty(1, vec![rule(Operation::Put, When::First(1), Fault::ErrorAfter(Kind::Unavailable))]);
    assert_eq!(store.put(&key("k"), body.clone(), &put).await.unwrap_err().kind, Kind::Unavailable);
    assert_eq!(store.head(&key("k")).await.unwrap().size_bytes, 700_000);
    store.put(&key("k"), body.clone(), &put).await.unwrap();
    assert_eq!(faults.log().len(), 1);

    faults.set_rules(vec![rule(Operation::Put, When::Always, Fault::ErrorBefore(Kind::NoSpace))]);
    assert_eq!(store.put(&key("new"), body.clone(), &put).await.unwrap_err().kind, Kind::NoSpace);
    assert_eq!(store.head(&key("new")).await.unwrap_err().kind, Kind::NotFound);

    let read = || async {
        let mut body = store.get(&key("k"), GetRange::From(100)).await?.body;
        let mut found = Vec::new();
        loop {
            match body.try_next().await {
                Ok(Some(piece)) => found.extend_from_slice(&piece),
                Ok(None) => return Ok((found, None)),
                Err(error) => return Ok::<_, varve_store::Error>((found, Some(error.kind))),
            }
        }
    };
    faults.set_rules(vec![rule(Operation::Get, When::Always, Fault::Reset)]);
    let (found, error) = read().await.unwrap();
    assert!(found.len() < 699_900 && error == Some(Kind::Unavailable), "{} bytes, {error:?}", found.len());
    faults.set_rules(vec![rule(Operation::Get, When::Always, Fault::Truncate)]);
    let (found, error) = read().await.unwrap();
    assert!(found.len() < 699_900 && error.is_none());
    faults.set_rules(vec![rule(Operation::Get, When::Always, Fault::FlipByte)]);
    let (found, error) = read().await.unwrap();
    assert!(found.len() == 699_900 && error.is_none());
    assert_eq!(found.iter().filter(|byte| **byte != b'x').count(), 1);
    faults.set_rules(vec![rule(Operation::Get, When::Always, Fault::Hang)]);
    assert!(tokio::time::timeout(Duration::from_millis(50), read()).await.is_err());
    faults.set_enabled(false);
    assert_eq!(read().await.unwrap().0.len(), 699_900);
}

#[tokio::test]
async fn counts_add_up() {
    let store = CountingStore::new(Arc::new(MemoryStore::new()));
    store.put(&key("a"), Bytes::from(vec![1; 10]), &PutOptions::default()).await.unwrap();
    let upload = store.upload(&key("b"), 100, None, &PutOptions::default()).await.unwrap();
    upload.put_part(1, Bytes::from(vec![2; 100])).await.unwrap();
    upload.put_part(2, Bytes::from(vec![3; 7])).await.unwrap();
    upload.complete().await.unwrap();
    store.get(&key("b"), GetRange::From(100)).await.unwrap().bytes().await.unwrap();
    store.get(&key("c"), GetRange::Full).await.unwrap_err();
    let counts = store.counts();
    let of = |operation| {
        let count = counts.of(operation);
        (count.calls, count.errors, count.sent_bytes, count.received_bytes)
    };
    assert_eq!(of(Operation::Put), (1, 0, 10, 0));
    assert_eq!(of(Operation::PutPart), (2, 0, 107, 0));
    assert_eq!(of(Operation::Get), (2, 1, 0, 7));
    assert_eq!(counts.calls(), 7);
    for (index, operation) in Operation::ALL.into_iter().enumerate() {
        assert_eq!(operation as usize, index);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_throttle_holds_over_parallel_parts() {
    let store = ThrottledStore::new(Arc::new(MemoryStore::new()), Rate::new(1 << 20));
    let upload = store.upload(&key("slow"), 64 << 10, None, &PutOptions::default()).await.unwrap();
    let started = Instant::now();
    let part = Bytes::from(vec![0; 64 << 10]);
    futures::future::try_join_all((1..=40).map(|n| upload.put_part(n, part.clone()))).await.unwrap();
    // 2.5 MiB at 1 MiB/s, of which a second's worth goes at once, and the last part is not waited for.
    let took = started.elapsed();
    assert!(took > Duration::from_millis(1350) && took < Duration::from_secs(5), "{took:?}");
}
