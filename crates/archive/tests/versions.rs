//! A store that keeps versions: what is hidden under delete markers or overwritten is read as it was written, and
//! told; and nobody who appends is fooled by it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use support::*;
use varve_archive::record::branch::BranchRecord;
use varve_archive::record::topic::TopicRecord;
use varve_archive::*;
use varve_format::Id;
use varve_store::{
    Fault, GetRange, Key, Kind as StoreKind, MemoryStore, Operation, PutOptions, Rule, SharedStore, Store,
    When, delete,
};

async fn bundle(archive: &Archive, archiver: &str, first: i64, end: i64) {
    let place = Place { topic_id: TOPIC, partition: 0, first_offset: first };
    let mut bundle = BundleBuilder::default();
    bundle.add(archive, 1, place, segment(0, first, end)).unwrap();
    archive.put_bundle(archiver, 0, bundle, "varve test", 1).await.unwrap();
}

/// Chains of two branches, a journal, two snapshots.
async fn filled(store: &MemoryStore) -> Archive {
    let archive = archive(store.clone()).await;
    grow(&archive, 0, 3).await;
    snapshot(&archive, 0..1).await;
    archive.partition(TOPIC, 0).start_branch(&mut branch_record(1, Some(0), 20)).await.unwrap();
    let partition = archive.partition(TOPIC, 0);
    partition.commit(1, 20, segment(0, 20, 35)).await.unwrap();
    bundle(&archive, "a", 35, 40).await;
    bundle(&archive, "a", 40, 42).await;
    let journal = archive.journal(|_, _| true).await.unwrap();
    let target = Target { journal: journal.entries(TOPIC, 0).to_vec(), ..Target::new(TOPIC, 0) };
    archive.write_snapshot(&new_snapshot(&[target])).await.unwrap();
    archive
}

async fn reopened(store: &MemoryStore) -> Archive {
    Archive::open(Arc::new(store.clone()), "root").await.unwrap()
}

async fn keys(store: &MemoryStore) -> Vec<Key> {
    let page = store.list("root/", None, 1000).await.unwrap();
    page.objects.into_iter().map(|o| o.key).filter(|k| !k.as_str().contains("/probe/")).collect()
}

/// The offsets that the archive gives, of the snapshot if one is named.
async fn offsets(archive: &Archive, sequence: Option<u64>) -> Vec<i64> {
    let log = match sequence {
        Some(sequence) => {
            let record = archive.snapshot(sequence).await.unwrap().unwrap().record;
            let journal = archive.journal_of(&record, |_, _| true).await.unwrap();
            let state = archive.find(record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap();
            archive.log_reader(Some(&record)).await.unwrap().at(&state, None, &journal).unwrap()
        }
        None => {
            let journal = archive.journal(|_, _| true).await.unwrap();
            archive.log_reader(None).await.unwrap().now(TOPIC, 0, None, &journal, None).await.unwrap()
        }
    };
    let (mut found, mut pieces) = (vec![], log.pieces(0));
    while let Some(piece) = pieces.next().await.unwrap() {
        let object = log.open(&piece).await.unwrap().unwrap();
        let mut stream = object.read(0, 2).unwrap();
        let mut bytes = vec![];
        while let Some(part) = stream.next().await.unwrap() {
            bytes.extend_from_slice(&part);
        }
        let all = bytes.chunks(8).map(|o| i64::from_be_bytes(o.try_into().unwrap()));
        found.extend(all.filter(|o| (piece.first_offset..piece.end_offset).contains(o)));
    }
    found
}

fn to(end: i64) -> Vec<i64> {
    (0..end).collect()
}

/// What `verify` tells of the store's versions, and nothing else may it find.
fn displaced(report: &Report) -> Vec<(Key, bool)> {
    let of = |finding: &Finding| match &finding.kind {
        FindingKind::Displaced(d) => (d.key.clone(), d.hidden),
        FindingKind::Broken => panic!("{finding:?}"),
    };
    let mut found: Vec<_> = report.findings.iter().map(of).collect();
    found.sort();
    assert_eq!(report.progress.findings, found.len() as u64);
    found
}

/// What looks like an object of that name, and is a lie.
async fn lie(store: &MemoryStore, key: &Key) -> Bytes {
    let name = key.as_str().strip_prefix("root/").unwrap();
    let truth = bytes_of(store, name).await;
    let text = String::from_utf8_lossy(&truth).into_owned();
    match name.rsplit('/').next().unwrap() {
        "archive.json" => text.replace("CQkJ", "CAkJ").into(),
        "about.json" => text.replace("orders", "forged").into(),
        "00000000000000000010.varve" => segment(0, 10, 27),
        _ if name.contains("/branches/") => {
            Bytes::from(text.replace("\"start_offset\":20", "\"start_offset\":10"))
        }
        _ if name.starts_with("snapshots/") => text.replace("\"created_ms\":1", "\"created_ms\":2").into(),
        _ => Bytes::from_static(b"rubbish"),
    }
}

/// Whoever comes second finds that the first has looked already, and still has to read again.
#[test]
fn readers_at_once_read_what_is_below() {
    now(async {
        for how in ["hidden", "overwritten"] {
            let store = MemoryStore::versioned();
            filled(&store).await;
            for key in keys(&store).await {
                match how {
                    "hidden" => assert!(delete(&store, &key).await.is_ok()),
                    _ => {
                        drop(store.put(&key, lie(&store, &key).await, &PutOptions::default()).await.unwrap())
                    }
                }
            }
            let delay = Duration::from_millis(5);
            let slow = Fault::Latency { from: delay, to: delay };
            let rule = Rule { operation: None, key_contains: String::new(), when: When::Always, fault: slow };
            let archive = Archive::open(Arc::new(faulty(&store, vec![rule])), "root").await.unwrap();
            let record = archive.snapshot(2).await.unwrap().unwrap().record;
            let find = || archive.find(record.root.as_ref(), TOPIC, 0);
            let (one, other) = tokio::join!(find(), find());
            assert_eq!(one.unwrap(), other.unwrap(), "{how}");
            let (one, other) = tokio::join!(offsets(&archive, Some(2)), offsets(&archive, Some(2)));
            assert!(one == to(42) && other == to(42), "{how}: {one:?} {other:?}");
        }
    });
}

#[test]
fn whatever_is_put_on_top_is_found_below_and_told() {
    now(async {
        for how in ["hidden", "overwritten", "both"] {
            let store = MemoryStore::versioned();
            let archive = filled(&store).await;
            assert!(verify(&archive, 2, Depth::Contents).await.is_sound());
            assert_eq!(archive.displaced().await.unwrap(), (vec![], false));
            let all = keys(&store).await;
            assert!(all.len() > 15, "{all:?}");
            for key in &all {
                if how != "hidden" {
                    let lie = lie(&store, key).await;
                    store.put(key, lie, &PutOptions::default()).await.unwrap();
                }
                if how != "overwritten" {
                    delete(&store, key).await.unwrap();
                }
            }
            let hidden = how != "overwritten";
            // What only the newest snapshot names of the journal is found by it.
            let archive = reopened(&store).await;
            assert_eq!(offsets(&archive, Some(2)).await, to(42), "{how}");
            let warned: BTreeSet<Key> =
                archive.displaced().await.unwrap().0.into_iter().map(|d| d.key).collect();
            assert!(warned.len() > 5 && warned.iter().all(|key| all.contains(key)), "{warned:?}");
            let without_journal = if hidden { 35 } else { 42 };
            assert_eq!(offsets(&reopened(&store).await, None).await, to(without_journal), "{how}");
            let report = verify(&reopened(&store).await, 2, Depth::Contents).await;
            assert!(report.versions && report.progress.objects == 4);
            let expected: Vec<_> = all.iter().map(|key| (key.clone(), hidden)).collect();
            assert_eq!(displaced(&report), expected, "{how}");
            let what = &report.findings[0].what;
            assert!(
                what.contains(if hidden { "delete marker v" } else { "overwritten by the version v" }),
                "{what}"
            );
        }
    });
}

#[test]
fn one_by_one_each_is_told_and_no_other() {
    now(async {
        let store = MemoryStore::versioned();
        filled(&store).await;
        for key in keys(&store).await {
            let one = MemoryStore::versioned();
            copy_oldest(&store, &one).await;
            delete(&one, &key).await.unwrap();
            let report = verify(&reopened(&one).await, 2, Depth::Listed).await;
            assert_eq!(displaced(&report), [(key.clone(), true)]);
        }
    });
}

/// A copy of the archive, in which all versions have other ids.
async fn copy_oldest(from: &MemoryStore, to: &MemoryStore) {
    let versions = from.versions().await.unwrap().unwrap();
    to.put(&Key::new("other").unwrap(), Bytes::new(), &PutOptions::default()).await.unwrap();
    for found in versions.list("root/", None, 1000).await.unwrap().keys {
        let oldest = found.oldest().unwrap();
        let body = versions.get(&found.key, &oldest.id, GetRange::Full).await.unwrap();
        to.put(&found.key, body.bytes().await.unwrap(), &PutOptions::default()).await.unwrap();
    }
}

#[test]
fn who_appends_finds_a_hidden_name_taken() {
    now(async {
        let store = MemoryStore::versioned();
        let (a, b) = (archive(store.clone()).await, archive(store.clone()).await);
        grow(&a, 0, 2).await;
        // b knows the end, another commits there, and that is hidden.
        let theirs = segment(0, 20, 33);
        assert!(matches!(
            a.partition(TOPIC, 0).commit(0, 20, theirs.clone()).await.unwrap(),
            Commit::Committed
        ));
        remove(&store, &names::object(TOPIC, 0, 0, 20)).await;
        let Commit::Lost(head) = b.partition(TOPIC, 0).commit(0, 20, segment(0, 20, 25)).await.unwrap()
        else {
            panic!("a fork");
        };
        assert_eq!(head.end_offset(), 33);
        // Now b's lies on top. Whoever opens the archive sees what counts.
        let end = reopened(&store).await.partition(TOPIC, 0).chain_end(0, 0, 0).await.unwrap();
        assert_eq!((end.end_offset, end.damaged), (33, None));
        grow(&reopened(&store).await, 0, 1).await;
        assert_eq!(offsets(&reopened(&store).await, None).await, to(43));
    });
}

#[test]
fn the_number_of_a_hidden_bundle_does_not_come_back() {
    now(async {
        let store = MemoryStore::versioned();
        let archive = archive(store.clone()).await;
        archive.add_topic(&topic()).await.unwrap();
        bundle(&archive, "a", 0, 5).await;
        remove(&store, &names::bundle("a", 1)).await;
        bundle(&archive, "a", 5, 7).await;
        assert!(archive.bundle(&BundleName { archiver: "a".into(), sequence: 2 }).await.unwrap().is_some());
    });
}

#[test]
fn a_look_that_fails_is_taken_up_again() {
    now(async {
        let store = MemoryStore::versioned();
        let first = archive(store.clone()).await;
        grow(&first, 0, 2).await;
        first.partition(TOPIC, 0).commit(0, 20, segment(0, 20, 33)).await.unwrap();
        let name = names::object(TOPIC, 0, 0, 20);
        remove(&store, &name).await;
        // The put succeeds; the look after it does not. What is found then is not one's own object.
        let rule = Rule {
            operation: Some(Operation::List),
            key_contains: name,
            when: When::First(1),
            fault: Fault::ErrorBefore(StoreKind::Unavailable),
        };
        let fooled = archive(faulty(&store, vec![rule])).await;
        let Commit::Lost(head) = fooled.partition(TOPIC, 0).commit(0, 20, segment(0, 20, 25)).await.unwrap()
        else {
            panic!("a fork");
        };
        assert_eq!(head.end_offset(), 33);
    });
}

#[test]
fn hidden_records_are_not_written_anew() {
    now(async {
        let store = MemoryStore::versioned();
        filled(&store).await;
        for key in keys(&store).await {
            delete(&store, &key).await.unwrap();
        }
        let shared: SharedStore = Arc::new(store.clone());
        let id = Id([77; 16]);
        let opened = Archive::create(shared, "root", id, HashAlgorithm::Sha256, "another", 2).await.unwrap();
        assert_eq!((opened.id(), opened.hash()), (Id([9; 16]), HashAlgorithm::Blake3));
        opened.add_topic(&topic()).await.unwrap();
        let other = TopicRecord { topic: "renamed".into(), ..topic() };
        assert_eq!(opened.add_topic(&other).await.unwrap_err().kind(), Kind::Corrupt);
        let started =
            opened.partition(TOPIC, 0).start_branch(&mut branch_record(1, Some(0), 20)).await.unwrap();
        assert!(matches!(started, Started::Ours), "the very same record");
        let mut another = BranchRecord { writer: "another".into(), ..branch_record(1, Some(0), 20) };
        let started = opened.partition(TOPIC, 0).start_branch(&mut another).await.unwrap();
        assert!(matches!(started, Started::Taken(found) if found.writer == "varve test"));
        let next = opened.write_snapshot(&new_snapshot(&[])).await.unwrap();
        assert_eq!((next.record.sequence, next.record.previous.unwrap().sequence), (3, 2));
        assert_eq!(next.record.previous.unwrap().hash, opened.snapshot(2).await.unwrap().unwrap().hash);
        // The bundles are hidden, not expired: what is promised of them stays.
        assert_eq!(next.record.bundles.as_ref().unwrap().bundles, 2);
        let report = verify(&reopened(&store).await, 3, Depth::Contents).await;
        assert!(displaced(&report).len() > 15);
        assert_eq!(offsets(&reopened(&store).await, Some(3)).await, to(42));
    });
}

#[test]
fn what_is_deleted_on_purpose_is_not_missed() {
    now(async {
        let store = MemoryStore::versioned();
        let archive = filled(&store).await;
        // The chain takes what the bundles have; they expire, but for the last one.
        let partition = archive.partition(TOPIC, 0);
        partition.commit(1, 35, segment(0, 35, 42)).await.unwrap();
        let name = BundleName { archiver: "a".into(), sequence: 1 };
        let index = archive.bundle(&name).await.unwrap().unwrap();
        assert!(archive.expire_bundle(&index, &mut Coverage::new(&archive)).await.unwrap());
        assert!(archive.bundle(&name).await.unwrap().is_none());
        snapshot(&archive, 0..1).await;
        let record = archive.snapshot(3).await.unwrap().unwrap().record;
        let state = archive.find(record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap();
        let range = archive.prunable(&state, 0, 20).await.unwrap().unwrap();
        let pruned = archive.declare_pruned(new_pruned(3, vec![range])).await.unwrap();
        assert_eq!(archive.delete_pruned(&pruned).await.unwrap(), 2);
        assert_eq!(archive.delete_pruned(&pruned).await.unwrap(), 0);
        for sequence in [2, 3] {
            let report = verify(&reopened(&store).await, sequence, Depth::Contents).await;
            assert_eq!(displaced(&report), [], "{sequence}");
            assert_eq!(report.pruned, 2);
        }
        assert_eq!(archive.displaced().await.unwrap(), (vec![], false));
        // A bundle that nothing covers was hidden by somebody else.
        bundle(&archive, "b", 42, 50).await;
        bundle(&archive, "b", 50, 51).await;
        remove(&store, &names::bundle("b", 1)).await;
        let report = verify(&reopened(&store).await, 3, Depth::Listed).await;
        assert_eq!(
            displaced(&report),
            [(Key::new(format!("root/{}", names::bundle("b", 1))).unwrap(), true)]
        );
    });
}

#[test]
fn a_copy_has_other_versions_and_is_whole() {
    now(async {
        let (store, copy) = (MemoryStore::versioned(), MemoryStore::versioned());
        filled(&store).await;
        copy_oldest(&store, &copy).await;
        let archive = reopened(&copy).await;
        assert!(verify(&archive, 2, Depth::Contents).await.is_sound());
        assert_eq!(offsets(&archive, Some(2)).await, to(42));
        // Into a store that keeps none, too.
        let plain = MemoryStore::new();
        copy_oldest(&store, &plain).await;
        let report = verify(&reopened(&plain).await, 2, Depth::Contents).await;
        assert!(report.is_sound() && !report.versions);
    });
}

#[test]
fn manifests_name_the_version() {
    now(async {
        for (store, named) in [(MemoryStore::versioned(), true), (MemoryStore::new(), false)] {
            let archive = filled(&store).await;
            let record = archive.snapshot(2).await.unwrap().unwrap().record;
            let state = archive.find(record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap();
            let entries: Vec<_> = state.branches.iter().flat_map(|b| &b.tail).collect();
            assert!(
                entries.len() == 4 && entries.iter().all(|e| e.version.is_some() == named),
                "{entries:?}"
            );
        }
    });
}

#[test]
fn versions_cost_a_look_for_what_is_written_and_nothing_for_what_is_read() {
    now(async {
        let mut costs = vec![];
        for store in [MemoryStore::new(), MemoryStore::versioned()] {
            filled(&store).await;
            let counted = counting(&store);
            let counts = Arc::clone(counted.counts());
            let archive = Archive::open(Arc::new(counted), "root").await.unwrap();
            let record = archive.snapshot(2).await.unwrap().unwrap().record;
            let journal = archive.journal_of(&record, |_, _| true).await.unwrap();
            let state = archive.find(record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap();
            let reader = archive.log_reader(Some(&record)).await.unwrap();
            let log = reader.at(&state, None, &journal).unwrap();
            let before = counts.calls();
            let mut pieces = log.pieces(0);
            while let Some(piece) = pieces.next().await.unwrap() {
                let object = log.open(&piece).await.unwrap().unwrap();
                let mut stream = object.read(0, 1).unwrap();
                while stream.next().await.unwrap().is_some() {}
            }
            let read = counts.calls() - before;
            let before = (counts.of(Operation::List).calls, counts.calls());
            archive.partition(TOPIC, 0).commit(1, 35, segment(0, 35, 42)).await.unwrap();
            costs.push((read, counts.of(Operation::List).calls - before.0, counts.calls() - before.1));
        }
        assert_eq!(costs[0].0, costs[1].0, "reading");
        assert_eq!((costs[0].1, costs[1].1), (0, 1), "a look");
        assert_eq!(costs[0].2 + 1, costs[1].2);
    });
}
