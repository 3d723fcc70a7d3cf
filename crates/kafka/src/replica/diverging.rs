//! Followers whose log went another way than ours: each is told so, and counts only once it has come back.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest};
use parking_lot::Mutex;
use uuid::Uuid;
use varve_format::Id;

use super::answers::fetch;
use super::led::{Led, LedState, Partitions};
use super::log::{ReadError, ReplicaLog};
use crate::protocol::LeaderEpochs;

const TOPIC_ID: Id = Id([7; 16]);
const FOLLOWER: i32 = 1;
const BROKER_EPOCH: i64 = 40;
const LEADER_EPOCH: i32 = 8;
const END: i64 = 30;
const VERSION: i16 = 17;

/// Epoch 0 from offset 0 on, 3 from 10, and 5 from 20.
#[derive(Debug)]
struct Log(LeaderEpochs);

impl Log {
    fn new() -> Self {
        let mut epochs = LeaderEpochs::default();
        for (epoch, start_offset) in [(0, 0), (3, 10), (5, 20)] {
            epochs.note(epoch, start_offset);
        }
        Self(epochs)
    }
}

#[async_trait]
impl ReplicaLog for Log {
    fn start_offset(&self) -> i64 {
        0
    }

    fn base_offset(&self) -> i64 {
        0
    }

    fn end_offset(&self) -> i64 {
        END
    }

    fn leader_epochs(&self) -> &LeaderEpochs {
        &self.0
    }

    fn last_producer_id(&self) -> i64 {
        -1
    }

    async fn read(&self, _: i64, _: usize) -> Result<Option<Vec<Bytes>>, ReadError> {
        Ok(Some(vec![Bytes::from_static(b"batches")]))
    }

    async fn done(&self) {}
}

fn partitions() -> Partitions {
    let partitions = Partitions::default();
    partitions.add(Led {
        topic: "orders".to_owned(),
        topic_id: TOPIC_ID,
        partition: 0,
        log: Arc::new(Log::new()),
        replicas: vec![FOLLOWER],
        is_new: true,
        is_foreign: false,
        state: Mutex::new(LedState {
            leader_epoch: LEADER_EPOCH,
            partition_epoch: LEADER_EPOCH,
            followers: std::collections::BTreeMap::new(),
            handed_over: false,
        }),
    });
    partitions
}

/// What a follower is told that has everything below `offset`, the last of it under `epoch`.
async fn asked(partitions: &Partitions, offset: i64, epoch: i32) -> PartitionData {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(LEADER_EPOCH)
        .with_last_fetched_epoch(epoch)
        .with_partition_max_bytes(1 << 20);
    let topic =
        FetchTopic::default().with_topic_id(Uuid::from_bytes(TOPIC_ID.0)).with_partitions(vec![partition]);
    let state = ReplicaState::default().with_replica_id(BrokerId(FOLLOWER)).with_replica_epoch(BROKER_EPOCH);
    let request = FetchRequest::default()
        .with_replica_state(state)
        .with_max_bytes(1 << 20)
        .with_max_wait_ms(0)
        .with_topics(vec![topic]);
    let (mut answer, _) = fetch(partitions, request, VERSION).await;
    answer.responses.remove(0).partitions.remove(0)
}

fn caught_up(partitions: &Partitions) -> Option<Vec<(i32, i64)>> {
    partitions.find(TOPIC_ID, 0).unwrap().caught_up()
}

#[tokio::test]
async fn it_is_told_where_ours_ends_and_does_not_count() {
    let partitions = partitions();
    // An epoch that we never had; one that ended before; one behind all of ours.
    for (offset, epoch, ours) in [(15, 4, (3, 20)), (25, 3, (3, 20)), (END, 3, (3, 20)), (END, 7, (5, END))] {
        let answer = asked(&partitions, offset, epoch).await;
        let told = (answer.diverging_epoch.epoch, answer.diverging_epoch.end_offset);
        assert_eq!((answer.error_code, told), (0, ours), "{offset} of epoch {epoch}");
        assert!(answer.records.is_none_or(|records| records.is_empty()));
        assert_eq!(caught_up(&partitions), None, "{offset} of epoch {epoch}");
    }
}

#[tokio::test]
async fn one_that_counted_does_not_when_it_went_another_way() {
    let partitions = partitions();
    assert_eq!(asked(&partitions, END, 5).await.diverging_epoch.epoch, -1);
    assert_eq!(caught_up(&partitions), Some(vec![(FOLLOWER, BROKER_EPOCH)]));
    assert_eq!(asked(&partitions, END, 4).await.diverging_epoch.epoch, 3);
    assert_eq!(caught_up(&partitions), None);
    // It has cut off what was not ours, and copied the rest.
    let answer = asked(&partitions, 20, 3).await;
    assert_eq!((answer.diverging_epoch.epoch, answer.records.unwrap()), (-1, Bytes::from_static(b"batches")));
    assert_eq!(caught_up(&partitions), None);
    asked(&partitions, END, 5).await;
    assert_eq!(caught_up(&partitions), Some(vec![(FOLLOWER, BROKER_EPOCH)]));
}

/// As a leader of Kafka's does: it begins anew.
#[tokio::test]
async fn an_epoch_beyond_ours_is_none_that_can_be_held_against_it() {
    let partitions = partitions();
    for offset in [20, END] {
        let answer = asked(&partitions, offset, LEADER_EPOCH + 1).await;
        assert_eq!(answer.error_code, ResponseError::OffsetOutOfRange.code());
        assert_eq!(caught_up(&partitions), None);
    }
}
