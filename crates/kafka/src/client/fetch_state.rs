//! A fetch session as both sides keep it (KIP-227), without any IO.
//!
//! The broker remembers what we fetch; a request names only what changed since the last one, and an answer only
//! what has news. Invariant: after each request that the broker took, `sent` is what its session holds. When
//! that is in doubt (a connection lost, an epoch refused) the next request is a full one, which says everything
//! anew. A broker whose cache of sessions is full gives none: then every request is a full one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::FetchableTopicResponse;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use uuid::Uuid;
use varve_format::Id;

use super::fetch_event::{PartitionFetch, outcome};
use super::fetch_session::{FetchLimits, FetchTarget};

const READ_UNCOMMITTED: i8 = 0;
const NO_SESSION: i32 = 0;
/// Asks for a session, or says everything anew.
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

pub(super) type Key = (Id, i32);

#[derive(Debug, Default)]
pub(super) struct FetchState {
    wanted: BTreeMap<Key, FetchTarget>,
    sent: HashMap<Key, FetchTarget>,
    /// Wanted, and not as in `sent`.
    changed: BTreeSet<Key>,
    /// In `sent`, and not wanted.
    forgotten: BTreeSet<Key>,
    session_id: i32,
    session_epoch: i32,
    /// Behind the last partition that gave something. A full request begins there, or else the first ones would
    /// always fill the answer; in a session the broker sees to that.
    turn: Key,
}

impl FetchState {
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    pub(super) fn session_id(&self) -> Option<i32> {
        Some(self.session_id).filter(|id| *id != NO_SESSION)
    }

    pub(super) fn set(&mut self, target: FetchTarget) {
        let key = (target.topic_id, target.partition);
        self.forgotten.remove(&key);
        if self.sent.get(&key) == Some(&target) {
            self.changed.remove(&key);
        } else {
            self.changed.insert(key);
        }
        self.wanted.insert(key, target);
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<FetchTarget> {
        let removed = self.wanted.remove(&key);
        self.changed.remove(&key);
        if self.sent.contains_key(&key) {
            self.forgotten.insert(key);
        }
        removed
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &FetchTarget> {
        self.wanted.values()
    }

    /// The next request; from here on the broker is taken to know what is in it.
    pub(super) fn request(&mut self, limits: &FetchLimits) -> FetchRequest {
        let request = FetchRequest::default()
            .with_max_wait_ms(limits.max_wait_ms)
            .with_min_bytes(limits.min_bytes)
            .with_max_bytes(limits.max_bytes)
            .with_isolation_level(READ_UNCOMMITTED)
            .with_session_id(self.session_id)
            .with_session_epoch(self.session_epoch);
        if self.session_epoch == INITIAL_EPOCH {
            self.changed = self.wanted.keys().copied().collect();
            self.sent.clear();
            self.forgotten.clear();
        }
        let forgotten = std::mem::take(&mut self.forgotten);
        let mut first = std::mem::take(&mut self.changed);
        let changed = first.split_off(&self.turn).into_iter().chain(first);
        let mut topics: Vec<FetchTopic> = Vec::new();
        for key in changed {
            let Some(target) = self.wanted.get(&key) else { continue };
            let topic_id = Uuid::from_bytes(key.0.0);
            if topics.last().is_none_or(|t| t.topic_id != topic_id) {
                topics.push(FetchTopic::default().with_topic_id(topic_id));
            }
            if let Some(topic) = topics.last_mut() {
                topic.partitions.push(partition(target, limits));
            }
            self.sent.insert(key, target.clone());
        }
        let mut dropped: Vec<ForgottenTopic> = Vec::new();
        for (topic_id, partition) in forgotten {
            self.sent.remove(&(topic_id, partition));
            let topic_id = Uuid::from_bytes(topic_id.0);
            if dropped.last().is_none_or(|t| t.topic_id != topic_id) {
                dropped.push(ForgottenTopic::default().with_topic_id(topic_id));
            }
            if let Some(topic) = dropped.last_mut() {
                topic.partitions.push(partition);
            }
        }
        request.with_topics(topics).with_forgotten_topics_data(dropped)
    }

    /// Ends the broker's session; `None` if there is none.
    pub(super) fn farewell(&self) -> Option<FetchRequest> {
        let id = self.session_id()?;
        Some(FetchRequest::default().with_session_id(id).with_session_epoch(FINAL_EPOCH))
    }

    /// What the answer brought, and where to go on. A partition with a problem is no longer asked for. An error
    /// concerns the whole answer; those of the session itself only cost a full request.
    pub(super) fn take(&mut self, answer: FetchResponse) -> Result<Vec<PartitionFetch>, ResponseError> {
        match ResponseError::try_from_code(answer.error_code) {
            None => {}
            Some(ResponseError::FetchSessionIdNotFound) => {
                self.session_id = NO_SESSION;
                self.session_epoch = INITIAL_EPOCH;
                return Ok(Vec::new());
            }
            Some(ResponseError::InvalidFetchSessionEpoch | ResponseError::FetchSessionTopicIdError) => {
                self.start_over();
                return Ok(Vec::new());
            }
            Some(code) => {
                self.start_over();
                return Err(code);
            }
        }
        if self.session_epoch == INITIAL_EPOCH {
            self.session_id = answer.session_id;
        }
        self.session_epoch = match (self.session_id, self.session_epoch) {
            (NO_SESSION, _) => INITIAL_EPOCH,
            (_, i32::MAX) => 1,
            (_, epoch) => epoch + 1,
        };
        Ok(answer.responses.into_iter().flat_map(|topic| self.take_topic(topic)).collect())
    }

    fn take_topic(&mut self, topic: FetchableTopicResponse) -> Vec<PartitionFetch> {
        let topic_id = Id(*topic.topic_id.as_bytes());
        let mut fetched = Vec::with_capacity(topic.partitions.len());
        for data in topic.partitions {
            let partition = data.partition_index;
            let key = (topic_id, partition);
            // Removed or moved by the caller while the answer was on its way: not what is wanted any more.
            let Some(target) = self.wanted.get(&key).filter(|t| self.sent.get(&key) == Some(*t)) else {
                continue;
            };
            let from_offset = target.offset;
            let outcome = outcome(from_offset, data);
            match &outcome {
                Err(_) => drop(self.remove(key)),
                Ok(batches) if batches.next_offset > from_offset => {
                    let last_fetched_epoch = target
                        .last_fetched_epoch
                        .and(batches.last_leader_epoch)
                        .or(target.last_fetched_epoch);
                    let target =
                        FetchTarget { offset: batches.next_offset, last_fetched_epoch, ..target.clone() };
                    self.set(target);
                    self.turn = (topic_id, partition.saturating_add(1));
                }
                Ok(_) => {}
            }
            fetched.push(PartitionFetch { topic_id, partition, from_offset, outcome });
        }
        fetched
    }

    /// Whatever the broker remembers, the next request replaces it.
    pub(super) fn start_over(&mut self) {
        self.session_epoch = INITIAL_EPOCH;
    }
}

fn partition(target: &FetchTarget, limits: &FetchLimits) -> FetchPartition {
    FetchPartition::default()
        .with_partition(target.partition)
        .with_fetch_offset(target.offset)
        .with_current_leader_epoch(target.leader_epoch.unwrap_or(-1))
        .with_last_fetched_epoch(target.last_fetched_epoch.unwrap_or(-1))
        .with_partition_max_bytes(limits.partition_max_bytes)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::BrokerId;
    use kafka_protocol::messages::fetch_response::{LeaderIdAndEpoch, PartitionData};

    use super::super::fetch_event::{FetchProblem, LeaderAndEpoch};
    use super::*;

    const TOPIC: Id = Id([7; 16]);

    fn target(partition: i32, offset: i64) -> FetchTarget {
        FetchTarget::new(TOPIC, partition, offset)
    }

    fn limits() -> FetchLimits {
        FetchLimits { max_wait_ms: 5, min_bytes: 1, max_bytes: 100, partition_max_bytes: 10 }
    }

    fn asked(request: &FetchRequest) -> Vec<(i32, i64)> {
        let partitions = request.topics.iter().flat_map(|t| &t.partitions);
        partitions.map(|p| (p.partition, p.fetch_offset)).collect()
    }

    fn dropped(request: &FetchRequest) -> Vec<i32> {
        request.forgotten_topics_data.iter().flat_map(|t| t.partitions.clone()).collect()
    }

    fn answer(session_id: i32, partitions: Vec<PartitionData>) -> FetchResponse {
        let topic = FetchableTopicResponse::default()
            .with_topic_id(Uuid::from_bytes(TOPIC.0))
            .with_partitions(partitions);
        FetchResponse::default().with_session_id(session_id).with_responses(vec![topic])
    }

    fn failed(code: ResponseError) -> FetchResponse {
        FetchResponse::default().with_error_code(code.code())
    }

    #[test]
    fn a_session_names_only_what_changed() {
        let mut state = FetchState::default();
        (0..3).for_each(|p| state.set(target(p, 10)));
        let first = state.request(&limits());
        assert_eq!((first.session_id, first.session_epoch), (0, 0));
        assert_eq!(asked(&first), [(0, 10), (1, 10), (2, 10)]);
        assert!(state.take(answer(55, vec![])).unwrap().is_empty());

        let second = state.request(&limits());
        assert_eq!((second.session_id, second.session_epoch), (55, 1));
        assert!(second.topics.is_empty());
        state.take(answer(55, vec![])).unwrap();

        state.set(target(1, 20));
        state.remove((TOPIC, 2));
        let third = state.request(&limits());
        assert_eq!(third.session_epoch, 2);
        assert_eq!((asked(&third), dropped(&third)), (vec![(1, 20)], vec![2]));
        assert_eq!(state.farewell().unwrap().session_epoch, -1);
    }

    #[test]
    fn what_the_broker_forgot_is_said_anew() {
        let mut state = FetchState::default();
        state.set(target(0, 1));
        state.request(&limits());
        state.take(answer(9, vec![])).unwrap();
        for (code, id) in
            [(ResponseError::InvalidFetchSessionEpoch, 9), (ResponseError::FetchSessionIdNotFound, 0)]
        {
            state.request(&limits());
            assert!(state.take(failed(code)).unwrap().is_empty());
            let full = state.request(&limits());
            assert_eq!((full.session_id, full.session_epoch), (id, 0), "{code}");
            assert_eq!(asked(&full), [(0, 1)]);
            state.take(answer(9, vec![])).unwrap();
        }
        // A broker without room for sessions: every request is a full one.
        state.start_over();
        for _ in 0..2 {
            assert_eq!(asked(&state.request(&limits())), [(0, 1)]);
            state.take(answer(0, vec![])).unwrap();
        }
    }

    #[test]
    fn problems_are_of_one_partition() {
        let mut state = FetchState::default();
        (0..2).for_each(|p| state.set(target(p, 1)));
        state.request(&limits());
        let leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(3)).with_leader_epoch(8);
        let moved = PartitionData::default()
            .with_partition_index(0)
            .with_error_code(ResponseError::NotLeaderOrFollower.code())
            .with_current_leader(leader);
        let fine = PartitionData::default().with_partition_index(1).with_high_watermark(1);
        let fetched = state.take(answer(4, vec![moved, fine])).unwrap();
        let current = Some(LeaderAndEpoch { leader_id: 3, leader_epoch: 8 });
        assert_eq!(fetched[0].outcome, Err(FetchProblem::NotLeader { current }));
        assert_eq!(fetched[1].outcome.as_ref().unwrap().next_offset, 1);
        assert_eq!(dropped(&state.request(&limits())), [0]);
        assert_eq!(state.len(), 1);
    }

    #[test]
    fn an_answer_to_an_old_wish_is_not_taken() {
        let mut state = FetchState::default();
        state.set(target(0, 1));
        state.request(&limits());
        state.set(target(0, 100));
        let late = PartitionData::default()
            .with_partition_index(0)
            .with_error_code(ResponseError::OffsetOutOfRange.code());
        assert!(state.take(answer(4, vec![late])).unwrap().is_empty());
        assert_eq!(asked(&state.request(&limits())), [(0, 100)]);
    }
}
