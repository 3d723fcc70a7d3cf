//! Snapshots: what they cost, that they can't fork, and that everything altered is seen.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use support::*;
use tokio::time::{sleep, timeout};
use varve_archive::record::snapshot::{Signable, Signer};
use varve_archive::record::state::{OpenTransaction, PartitionState};
use varve_archive::*;
use varve_store::{Fault, GetRange, Key, MemoryStore, Operation, Rule, Store, When};

async fn states(archive: &Archive, snapshot: &Snapshot) -> Vec<PartitionState> {
    let mut walk = archive.partitions(snapshot.record.root.as_ref());
    let mut found = vec![];
    while let Some(state) = walk.next().await.unwrap() {
        found.push(state);
    }
    found
}

#[test]
fn a_snapshot_holds_every_chain_and_goes_on_from_the_last() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        assert_eq!(archive.latest_snapshot(0).await.unwrap(), None);
        grow(&archive, 0, 3).await;
        let first = snapshot(&archive, 0..2).await;
        assert_eq!((first.record.sequence, first.record.previous), (1, None));
        grow(&archive, 0, 40).await;
        let second = snapshot(&archive, 0..1).await;
        assert_eq!(second.record.previous, Some(first.reference()));
        let state = archive.find(second.record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap();
        assert_eq!((state.chain_end(), state.branches[0].objects()), (430, 43));
        assert_eq!((state.branches[0].levels[0].len(), state.branches[0].tail.len()), (1, 11));
        let empty = archive.find(second.record.root.as_ref(), TOPIC, 1).await.unwrap().unwrap();
        assert_eq!(empty.chain_end(), 0);
        assert_eq!(archive.find(second.record.root.as_ref(), TOPIC, 2).await.unwrap(), None);
        assert_eq!(archive.latest_snapshot(0).await.unwrap().unwrap(), second);
        for sequence in [1, 2] {
            let report = verify(&archive, sequence, Depth::Contents).await;
            assert!(report.is_sound(), "{report:?}");
        }
        let mut objects = archive.objects(&state.branches[0]);
        let mut at = 0;
        while let Some(object) = objects.next().await.unwrap() {
            assert_eq!(object.first_offset, at);
            at = object.end_offset;
        }
        assert_eq!(at, 430);
        assert_eq!(archive.last_object(&state.branches[0]).await.unwrap().unwrap().end_offset, 430);
    });
}

#[test]
fn the_tree_has_one_form_however_it_grew() {
    now(async {
        let (a, b) = (archive(MemoryStore::new()).await, archive(MemoryStore::new()).await);
        let at_once = snapshot(&a, 0..300).await;
        for from in (0..300).step_by(7) {
            snapshot(&b, from..(from + 7).min(300)).await;
        }
        let bit_by_bit = b.latest_snapshot(0).await.unwrap().unwrap();
        assert_eq!(at_once.record.root.as_ref().unwrap().partitions, 300);
        let (at_once, bit_by_bit) = (states(&a, &at_once).await, states(&b, &bit_by_bit).await);
        assert_eq!((at_once.len(), &at_once), (300, &bit_by_bit));
    });
}

#[test]
fn a_snapshot_costs_what_is_new() {
    now(async {
        let store = MemoryStore::new();
        let counted = counting(&store);
        let counts = std::sync::Arc::clone(counted.counts());
        let archive = archive(counted).await;
        snapshot(&archive, 0..10_000).await;
        grow(&archive, 77, 1).await;
        let before = (counts.of(Operation::Put).calls, counts.of(Operation::Get).calls);
        snapshot(&archive, 77..78).await;
        let puts = counts.of(Operation::Put).calls - before.0;
        let gets = counts.of(Operation::Get).calls - before.1;
        // Chains, a leaf, two inner nodes, the document, the record.
        assert!(puts <= 6, "{puts} puts");
        assert!(gets <= 12, "{gets} gets");
    });
}

#[test]
fn a_partition_that_lags_and_open_transactions_are_told() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        grow(&archive, 0, 2).await;
        let open = OpenTransaction { producer_id: 5, producer_epoch: 1, first_offset: 12 };
        let target = Target {
            log_end_offset: Some(25),
            log_start_offset: Some(3),
            open_transactions: Some(vec![open.clone()]),
            problem: Some("not\nallowed".to_owned()),
            ..Target::new(TOPIC, 0)
        };
        let problem = Some("it was".to_owned());
        let reached = Target { log_end_offset: Some(0), problem: problem.clone(), ..Target::new(TOPIC, 1) };
        let unknown = Target { problem, ..Target::new(TOPIC, 2) };
        let written = archive.write_snapshot(&new_snapshot(&[target, reached, unknown])).await.unwrap();
        let root = written.record.root.clone().unwrap();
        assert_eq!((root.lagging, root.open_transactions, root.partitions), (2, 1, 3));
        let mut problems = Vec::new();
        for partition in 0..3 {
            problems
                .push(archive.find(Some(&root), TOPIC, partition).await.unwrap().unwrap().problem.clone());
        }
        assert_eq!(problems, [Some("not allowed".to_owned()), None, Some("it was".to_owned())]);
        let state = archive.find(Some(&root), TOPIC, 0).await.unwrap().unwrap();
        assert_eq!((state.log_end_offset, state.open_transactions.clone()), (Some(25), vec![open]));
        let document = written.record.documents[0].clone();
        assert_eq!(archive.document(&document).await.unwrap(), &b"{\"topics\":[]}"[..]);
    });
}

#[test]
fn what_nobody_reads_keeps_its_recovery_point() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        grow(&archive, 0, 2).await;
        let open = vec![OpenTransaction { producer_id: 5, producer_epoch: 1, first_offset: 12 }];
        let read = Target { open_transactions: Some(open.clone()), ..Target::new(TOPIC, 0) };
        archive.write_snapshot(&new_snapshot(&[read])).await.unwrap();
        // Of what others brought meanwhile, nobody here knows which transactions are open.
        grow(&archive, 0, 1).await;
        let problem = Some("left out".to_owned());
        let unread = |log_end_offset| Target {
            log_end_offset,
            problem: problem.clone(),
            is_unread: true,
            ..Target::new(TOPIC, 0)
        };
        for (seen, told) in [(20, None), (35, Some(35)), (31, Some(35)), (36, Some(36))] {
            let written = archive.write_snapshot(&new_snapshot(&[unread(Some(seen))])).await.unwrap();
            let state = archive.find(written.record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap();
            assert_eq!((state.end(), &state.open_transactions), (20, &open));
            assert_eq!((state.log_end_offset, &state.problem), (told, &told.and(problem.clone())));
        }
        // Pruning takes it no further.
        let snapshot = archive.latest_snapshot(0).await.unwrap().unwrap();
        let state = archive.find(snapshot.record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap();
        let range = archive.prunable(&state, 0, 15).await.unwrap().unwrap();
        archive.declare_pruned(new_pruned(snapshot.record.sequence, vec![range])).await.unwrap();
        for targets in [vec![], vec![unread(Some(37))]] {
            let written = archive.write_snapshot(&new_snapshot(&targets)).await.unwrap();
            let state = archive.find(written.record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap();
            assert_eq!((state.end(), &state.open_transactions), (20, &open));
            assert_eq!(state.branches[0].pruned.len(), 1);
        }
        let written = archive.write_snapshot(&new_snapshot(&[Target::new(TOPIC, 0)])).await.unwrap();
        let state = archive.find(written.record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap();
        assert_eq!((state.end(), state.log_end_offset, &state.problem), (30, None, &None));
    });
}

#[test]
fn two_that_write_at_once_make_a_chain() {
    now(async {
        let store = MemoryStore::new();
        let (a, b) = (archive(store.clone()).await, archive(store.clone()).await);
        grow(&a, 0, 1).await;
        // Each begins from nothing; one is second.
        let (ta, tb) = ([Target::new(TOPIC, 0)], [Target::new(TOPIC, 1)]);
        let (na, nb) = (new_snapshot(&ta), NewSnapshot { writer: "other", ..new_snapshot(&tb) });
        let (x, y) = tokio::join!(a.write_snapshot(&na), b.write_snapshot(&nb));
        let mut sequences = [x.unwrap().record.sequence, y.unwrap().record.sequence];
        sequences.sort_unstable();
        assert_eq!(sequences, [1, 2]);
        let newest = a.latest_snapshot(1).await.unwrap().unwrap();
        assert_eq!(newest.record.root.as_ref().unwrap().partitions, 2);
        assert!(verify(&a, 2, Depth::Contents).await.is_sound());
    });
}

#[test]
fn the_newest_snapshot_is_found_without_a_list_of_all() {
    now(async {
        let store = MemoryStore::new();
        let counted = counting(&store);
        let counts = std::sync::Arc::clone(counted.counts());
        let archive = archive(counted).await;
        for _ in 0..130 {
            archive.write_snapshot(&new_snapshot(&[])).await.unwrap();
        }
        let before = counts.of(Operation::List).calls;
        let latest = |known| {
            let archive = &archive;
            async move { archive.latest_snapshot(known).await.unwrap().unwrap().record.sequence }
        };
        assert_eq!(latest(0).await, 130);
        assert!(counts.of(Operation::List).calls - before <= 18);
        assert_eq!((latest(130).await, latest(100).await), (130, 130));
    });
}

#[test]
fn a_crash_at_any_write_leaves_what_the_next_snapshot_takes() {
    now(async {
        for n in 1..12 {
            let store = MemoryStore::new();
            grow(&archive(store.clone()).await, 0, 35).await;
            for fault in [
                Fault::ErrorBefore(varve_store::Kind::Unavailable),
                Fault::ErrorAfter(varve_store::Kind::Unavailable),
            ] {
                let rule = Rule { operation: None, key_contains: String::new(), when: When::Nth(n), fault };
                let faulty = faulty(&store, vec![rule]);
                let Ok(archive) = Archive::open(std::sync::Arc::new(faulty), "root").await else { continue };
                let targets = [Target::new(TOPIC, 0)];
                let _ = archive.write_snapshot(&new_snapshot(&targets)).await;
            }
            let archive = archive(store.clone()).await;
            let written = snapshot(&archive, 0..1).await;
            let report = verify(&archive, written.record.sequence, Depth::Contents).await;
            assert!(report.is_sound(), "{n}: {report:?}");
        }
    });
}

async fn all_names(store: &MemoryStore) -> Vec<String> {
    let page = store.list("root/", None, usize::MAX).await.unwrap();
    page.objects.iter().map(|o| o.key.as_str().strip_prefix("root/").unwrap().to_owned()).collect()
}

#[test]
fn whatever_is_altered_or_lost_is_seen() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        grow(&archive, 0, 35).await;
        snapshot(&archive, 0..70).await;
        snapshot(&archive, 0..1).await;
        assert!(verify(&archive, 2, Depth::Contents).await.is_sound());
        let (first, second) = (archive.snapshot(1).await.unwrap(), archive.snapshot(2).await.unwrap());
        assert_eq!(first.unwrap().record.root, second.unwrap().record.root, "all manifests are of both");
        for name in all_names(&store).await {
            // Names aside, nothing in these is proven by a snapshot.
            if name == names::ARCHIVE || name.ends_with("about.json") {
                continue;
            }
            let whole = bytes_of(&store, &name).await;
            for position in [0, whole.len() / 2, whole.len() - 1] {
                let mut altered = whole.to_vec();
                altered[position] ^= 1;
                replace(&store, &name, Bytes::from(altered)).await;
                let report = verify_all(&archive).await;
                assert!(!report.is_sound(), "{name} altered at {position}");
            }
            remove(&store, &name).await;
            assert!(!verify_all(&archive).await.is_sound(), "{name} lost");
            replace(&store, &name, whole).await;
        }
        assert!(verify_all(&archive).await.is_sound());
    });
}

/// A snapshot that is gone itself is an error, not a finding.
async fn verify_all(archive: &Archive) -> Report {
    let options = VerifyOptions { depth: Depth::Contents, ..VerifyOptions::default() };
    match archive.verify(2, &options, &|_| {}).await {
        Ok(report) => report,
        Err(Error::Missing { .. }) => {
            let mut report = Report::default();
            report.progress.findings = 1;
            report
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn strays_within_a_chain_are_reported_and_newer_objects_are_not() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        grow(&archive, 0, 5).await;
        snapshot(&archive, 0..1).await;
        grow(&archive, 0, 1).await;
        assert!(verify(&archive, 1, Depth::Listed).await.is_sound());
        replace(&store, &names::object(TOPIC, 0, 0, 15), segment(0, 15, 20)).await;
        let report = verify(&archive, 1, Depth::Listed).await;
        assert_eq!(report.progress.findings, 1, "{report:?}");
        assert!(report.findings[0].object.ends_with("00000000000000000015.varve"), "{report:?}");
    });
}

#[test]
fn a_sample_is_a_part_and_the_same_again() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        grow(&archive, 0, 400).await;
        snapshot(&archive, 0..1).await;
        let sample = |seed| {
            let options = VerifyOptions { sample_ppm: 250_000, seed, ..Default::default() };
            let archive = &archive;
            async move { archive.verify(1, &options, &|_| {}).await.unwrap().progress.objects }
        };
        let looked = sample(1).await;
        assert!((60..140).contains(&looked), "{looked} of 400");
        assert_eq!(sample(1).await, looked);
    });
}

#[test]
fn a_signature_is_by_a_trusted_key_or_refused() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        grow(&archive, 0, 1).await;
        let (ours, others) = (Signer::from_seed(&[3; 32]).unwrap(), Signer::from_seed(&[4; 32]).unwrap());
        let targets = [Target::new(TOPIC, 0)];
        snapshot(&archive, 0..1).await;
        let new = NewSnapshot { signer: Some(&ours), ..new_snapshot(&targets) };
        archive.write_snapshot(&new).await.unwrap();
        let with = |trusted: [u8; 32], sequence| {
            let archive = &archive;
            async move {
                let options = VerifyOptions { trusted: &[trusted], ..Default::default() };
                archive.verify(sequence, &options, &|_| {}).await.unwrap().is_sound()
            }
        };
        assert!(with(ours.public_key(), 2).await);
        assert!(!with(others.public_key(), 2).await);
        assert!(!with(ours.public_key(), 1).await, "not signed");
        let mut record = archive.snapshot(2).await.unwrap().unwrap().record;
        record.created_ms += 1;
        assert_eq!(record.signed(&[ours.public_key()]), varve_archive::record::snapshot::Signed::Refused);
    });
}

#[test]
fn the_journal_goes_on_where_the_chain_ends_and_expires_when_it_is_covered() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        grow(&archive, 0, 2).await;
        let place = |first_offset| Place { topic_id: TOPIC, partition: 0, first_offset };
        let mut known = 0;
        for (first, end) in [(20, 25), (22, 30), (40, 45)] {
            let mut bundle = BundleBuilder::default();
            bundle.add(&archive, 0, place(first), segment(0, first, end)).unwrap();
            known = archive.put_bundle("a", known, bundle, "varve test", 1).await.unwrap().sequence;
        }
        assert_eq!(known, 3);
        let (mut entries, mut bundles, mut after) = (vec![], vec![], None);
        while let Some(name) = archive.next_bundle(after.as_ref()).await.unwrap() {
            let index = archive.bundle(&name).await.unwrap().unwrap();
            let (head, _) = archive.bundle_object(&name, &index.entries[0]).await.unwrap().unwrap();
            assert_eq!(head.end_offset(), index.entries[0].end_offset);
            entries.extend(index.entries.iter().map(|e| e.in_snapshot(&name)));
            bundles.push(index);
            after = Some(name);
        }
        let ends = |list: &[varve_archive::record::state::JournalEntry]| {
            list.iter().map(|e| e.end_offset).collect::<Vec<_>>()
        };
        // The first needs no second where one reaches further, but here the second begins behind the end.
        assert_eq!(ends(&continuation(&entries, 20, Some(0))), [25, 30]);
        assert_eq!(ends(&continuation(&entries, 23, Some(0))), [30]);
        assert_eq!(ends(&continuation(&entries, 20, Some(1))), Vec::<i64>::new(), "another history");
        let target = Target { journal: entries, log_end_offset: Some(50), ..Target::new(TOPIC, 0) };
        let written = archive.write_snapshot(&new_snapshot(&[target])).await.unwrap();
        let state = archive.find(written.record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap();
        assert_eq!((state.end(), state.log_end_offset), (30, Some(50)));
        assert!(!archive.expire_bundle(&bundles[0], &mut Coverage::new(&archive)).await.unwrap());
        archive.partition(TOPIC, 0).commit(0, 20, segment(0, 20, 30)).await.unwrap();
        assert!(archive.expire_bundle(&bundles[0], &mut Coverage::new(&archive)).await.unwrap());
        assert!(!archive.expire_bundle(&bundles[2], &mut Coverage::new(&archive)).await.unwrap());
        let report = verify(&archive, 1, Depth::Contents).await;
        assert!(report.is_sound(), "{report:?}");
    });
}

#[test]
fn pruning_is_declared_first_and_the_rest_stays_provable() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        grow(&archive, 0, 40).await;
        let written = snapshot(&archive, 0..1).await;
        let state = archive.find(written.record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap();
        let range = archive.prunable(&state, 0, 55).await.unwrap().unwrap();
        assert_eq!((range.first_offset, range.end_offset, range.objects), (0, 50, 5));
        let all = archive.prunable(&state, 0, i64::MAX).await.unwrap().unwrap();
        assert_eq!(all.end_offset, 390, "the last one stays");
        let mut beyond = range.clone();
        beyond.end_offset = 400;
        for wrong in [beyond, varve_archive::record::pruned::PrunedRange { end_offset: 45, ..range.clone() }]
        {
            let refused = archive.declare_pruned(new_pruned(1, vec![wrong])).await;
            assert_eq!(refused.unwrap_err().kind(), Kind::Invalid);
        }
        let record = archive.declare_pruned(new_pruned(1, vec![range])).await.unwrap();
        assert!(verify(&archive, 1, Depth::Contents).await.is_sound(), "declared, not deleted");
        assert_eq!(archive.delete_pruned(&record).await.unwrap(), 5);
        assert_eq!(archive.delete_pruned(&record).await.unwrap(), 0);
        let report = verify(&archive, 1, Depth::Contents).await;
        assert!(report.is_sound() && report.pruned == 5, "{report:?}");
        let key = Key::new(format!("root/{}", names::object(TOPIC, 0, 0, 0))).unwrap();
        assert!(store.get(&key, GetRange::Full).await.is_err());
        assert_eq!(archive.partition(TOPIC, 0).chain_end(0, 0, 0).await.unwrap().end_offset, 400);
        // Somebody who slept for long puts his object back: taken as absent.
        archive.partition(TOPIC, 0).commit(0, 0, segment(0, 0, 13)).await.unwrap();
        assert!(verify(&archive, 1, Depth::Contents).await.is_sound());
        grow(&archive, 0, 2).await;
        snapshot(&archive, 0..1).await;
        assert!(verify(&archive, 2, Depth::Contents).await.is_sound());
    });
}

/// One whose store does not answer holds up nobody else.
#[test]
fn partitions_are_verified_side_by_side() {
    now(async {
        let store = MemoryStore::new();
        let filling = archive(store.clone()).await;
        for partition in 0..5 {
            grow(&filling, partition, 3).await;
        }
        let written = snapshot(&filling, 0..5).await;
        let first = states(&filling, &written).await[0].partition;
        let stuck = Rule {
            operation: Some(Operation::List),
            key_contains: format!("{TOPIC}/{first}/"),
            when: When::Always,
            fault: Fault::Hang,
        };
        let opened = Archive::open(Arc::new(faulty(&store, vec![stuck])), "root").await.unwrap();
        for (parallel, expected) in [(1, 0), (8, 4)] {
            let seen = Mutex::new(Progress::default());
            let options = VerifyOptions { parallel, depth: Depth::Contents, ..VerifyOptions::default() };
            let progress = |progress| *seen.lock().unwrap() = progress;
            let verified = opened.verify(1, &options, &progress);
            let seen_all = async {
                while seen.lock().unwrap().partitions < expected {
                    sleep(Duration::from_millis(10)).await;
                }
                // And no more come.
                sleep(Duration::from_millis(200)).await;
            };
            tokio::select! {
                outcome = verified => panic!("{outcome:?}"),
                in_time = timeout(Duration::from_secs(30), seen_all) => in_time.unwrap(),
            }
            let seen = seen.into_inner().unwrap();
            assert_eq!((seen.partitions, seen.objects), (expected, expected * 3));
        }
    });
}
