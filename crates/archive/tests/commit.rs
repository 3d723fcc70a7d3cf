//! The commit, and what becomes of it when calls fail, are repeated, or others are first.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::*;
use varve_archive::record::branch::BranchRecord;
use varve_archive::record::topic::TopicRecord;
use varve_archive::*;
use varve_format::Id;
use varve_store::{Fault, MemoryStore, Operation, Rule, When};

fn put_fails(fault: Fault, contains: &str) -> Rule {
    Rule { operation: Some(Operation::Put), key_contains: contains.into(), when: When::First(1), fault }
}

#[test]
fn of_two_writers_the_first_wins_and_the_other_learns_its_end() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        let partition = archive.partition(TOPIC, 0);
        assert!(matches!(partition.commit(0, 0, segment(0, 0, 10)).await.unwrap(), Commit::Committed));
        match partition.commit(0, 0, segment(0, 0, 7)).await.unwrap() {
            Commit::Lost(head) => assert_eq!(head.end_offset(), 10),
            other => panic!("{other:?}"),
        }
        let end = partition.chain_end(0, 0, 0).await.unwrap();
        assert_eq!((end.end_offset, end.last.unwrap().first_offset()), (10, 0));
    });
}

#[test]
fn a_lost_answer_is_found_out() {
    now(async {
        let store = MemoryStore::new();
        let fault = Fault::ErrorAfter(varve_store::Kind::Unavailable);
        let archive = archive(faulty(&store, vec![put_fails(fault, ".varve")])).await;
        let partition = archive.partition(TOPIC, 0);
        assert!(matches!(partition.commit(0, 0, segment(0, 0, 10)).await.unwrap(), Commit::Committed));
    });
}

#[test]
fn a_lost_request_is_an_error_and_leaves_the_name_free() {
    now(async {
        let store = MemoryStore::new();
        let fault = Fault::ErrorBefore(varve_store::Kind::Unavailable);
        let archive = archive(faulty(&store, vec![put_fails(fault, ".varve")])).await;
        let partition = archive.partition(TOPIC, 0);
        let error = partition.commit(0, 0, segment(0, 0, 10)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Retry);
        assert!(matches!(partition.commit(0, 0, segment(0, 0, 12)).await.unwrap(), Commit::Committed));
    });
}

#[test]
fn a_repeated_request_is_ones_own() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        let partition = archive.partition(TOPIC, 0);
        let object = segment(0, 0, 10);
        for _ in 0..2 {
            assert!(matches!(partition.commit(0, 0, object.clone()).await.unwrap(), Commit::Committed));
        }
    });
}

#[test]
fn what_does_not_belong_there_is_not_sent() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        let partition = archive.partition(TOPIC, 0);
        let wrong = [segment(0, 5, 10), segment(1, 0, 10), segment_as(info(0, 0, 10), options(None), b"")];
        for object in wrong {
            assert_eq!(partition.commit(0, 0, object).await.unwrap_err().kind(), Kind::Corrupt);
        }
        assert_eq!(partition.chain_end(0, 0, 0).await.unwrap().end_offset, 0);
    });
}

#[test]
fn a_gap_is_an_object_of_the_chain() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        let partition = archive.partition(TOPIC, 0);
        partition.commit(0, 0, gap(0, 0, 100)).await.unwrap();
        partition.commit(0, 100, segment(0, 100, 110)).await.unwrap();
        assert!(partition.head(0, 0).await.unwrap().unwrap().gap);
        assert!(!partition.head(0, 100).await.unwrap().unwrap().gap);
        assert_eq!(partition.chain_end(0, 0, 0).await.unwrap().end_offset, 110);
    });
}

#[test]
fn an_encrypted_object_commits_like_any_other() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        let partition = archive.partition(TOPIC, 0);
        let object = segment_as(info(0, 0, 10), options(Some(encryption())), b"records");
        partition.commit(0, 0, object).await.unwrap();
        snapshot(&archive, 0..1).await;
        let report = verify(&archive, 1, Depth::Contents).await;
        assert!(report.is_sound() && report.sealed == 1, "{report:?}");
        let keys = |_: Id, _: &varve_format::EncryptionInfo| Some(data_key());
        let options = VerifyOptions { depth: Depth::Contents, data_keys: Some(&keys), ..Default::default() };
        let report = archive.verify(1, &options, &|_| {}).await.unwrap();
        assert!(report.is_sound() && report.sealed == 0, "{report:?}");
    });
}

#[test]
fn an_archive_is_created_once_and_opened_by_all() {
    now(async {
        let store = MemoryStore::new();
        let first = archive(store.clone()).await;
        let other = Archive::create(
            std::sync::Arc::new(store.clone()),
            "root",
            Id([8; 16]),
            HashAlgorithm::Sha256,
            "other",
            2,
        );
        assert_eq!(other.await.unwrap().record(), first.record());
        let opened = Archive::open(std::sync::Arc::new(store.clone()), "root").await.unwrap();
        assert_eq!(opened.id(), Id([9; 16]));
        let nowhere = Archive::open(std::sync::Arc::new(store), "elsewhere").await.unwrap_err();
        assert_eq!(nowhere.kind(), Kind::NotFound);
    });
}

#[test]
fn what_an_archive_requires_and_is_not_known_is_named() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        let mut record = archive.record().clone();
        record.requires = vec!["time-travel".into()];
        replace(&store, names::ARCHIVE, record.encode().unwrap().into()).await;
        let error = Archive::open(std::sync::Arc::new(store), "root").await.unwrap_err();
        assert!(error.to_string().contains("time-travel") && error.kind() == Kind::Invalid, "{error}");
    });
}

#[test]
fn a_topics_record_is_of_one_topic_for_ever() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        archive.add_topic(&topic()).await.unwrap();
        archive.add_topic(&TopicRecord { writer: "another".into(), ..topic() }).await.unwrap();
        let renamed = archive.add_topic(&TopicRecord { topic: "payments".into(), ..topic() }).await;
        assert_eq!(renamed.unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(archive.topic(TOPIC).await.unwrap().unwrap(), topic());
    });
}

fn branch(number: u32, start_offset: i64, detail: &str) -> BranchRecord {
    let record = branch_record(number, Some(number - 1), start_offset);
    BranchRecord { leader_epoch: 3, detail: Some(detail.into()), ..record }
}

#[test]
fn of_two_that_start_a_branch_one_wins() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        grow(&archive, 0, 3).await;
        let partition = archive.partition(TOPIC, 0);
        assert!(matches!(partition.start_branch(&mut branch(1, 20, "a")).await.unwrap(), Started::Ours));
        match partition.start_branch(&mut branch(1, 10, "b")).await.unwrap() {
            Started::Taken(found) => assert_eq!(found.start_offset, 20),
            other => panic!("{other:?}"),
        }
        partition.commit(1, 20, segment(0, 20, 25)).await.unwrap();
        let records: Vec<BranchRecord> =
            partition.branches(0).await.unwrap().into_iter().map(|(r, _)| r).collect();
        let stretches = lineage(1, |n| records.iter().find(|r| r.branch == n));
        let shown: Vec<_> = stretches.iter().map(|s| (s.branch, s.start_offset, s.end_offset)).collect();
        assert_eq!(shown, [(0, 0, Some(20)), (1, 20, None)]);
        snapshot(&archive, 0..1).await;
        assert!(verify(&archive, 1, Depth::Contents).await.is_sound());
    });
}

#[test]
fn topics_and_partitions_are_found_without_a_snapshot() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        for partition in [0, 2, 11] {
            grow(&archive, partition, 4).await;
        }
        let empty = TopicRecord { topic_id: Id([2; 16]), topic: "empty".into(), ..topic() };
        archive.add_topic(&empty).await.unwrap();
        let (mut topics, mut after) = (vec![], None);
        while let Some(id) = archive.next_topic(after).await.unwrap() {
            topics.push(id);
            after = Some(id);
        }
        assert_eq!(topics, [TOPIC, Id([2; 16])]);
        let (mut partitions, mut after) = (vec![], None);
        while let Some(partition) = archive.next_partition(TOPIC, after).await.unwrap() {
            partitions.push(partition);
            after = Some(partition);
        }
        assert_eq!(partitions, [0, 11, 2]);
        assert_eq!(archive.next_partition(Id([2; 16]), None).await.unwrap(), None);
    });
}
