//! Partitions that we lead, and how far their followers are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use varve_format::Id;

use super::entrance::Entrance;
use super::log::ReplicaLog;
use super::throttle::Throttle;
use crate::client::ClientError;

/// A follower as its last fetch tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Follower {
    /// It has everything below.
    pub(super) offset: i64,
    /// Of its registration, which the controller wants to see again.
    pub(super) broker_epoch: i64,
}

#[derive(Debug)]
pub(super) struct Led {
    pub(super) topic: String,
    pub(super) topic_id: Id,
    pub(super) partition: i32,
    pub(super) log: Arc<dyn ReplicaLog>,
    /// Brokers that shall have it.
    pub(super) replicas: Vec<i32>,
    /// Made by this registration: then its partition epoch can be counted along.
    pub(super) is_new: bool,
    /// Somebody else's, which the controller placed on us.
    pub(super) is_foreign: bool,
    pub(super) state: Mutex<LedState>,
}

#[derive(Debug)]
pub(super) struct LedState {
    pub(super) leader_epoch: i32,
    /// No answer tells it: counted along, and tried upward where that was not enough.
    pub(super) partition_epoch: i32,
    pub(super) followers: BTreeMap<i32, Follower>,
    pub(super) handed_over: bool,
}

impl Led {
    /// The broker epochs of all replicas, once each has all of the log.
    pub(super) fn caught_up(&self) -> Option<Vec<(i32, i64)>> {
        let state = self.state.lock();
        let of = |id: &i32| {
            let follower = state.followers.get(id).filter(|f| f.offset >= self.log.end_offset())?;
            Some((*id, follower.broker_epoch))
        };
        self.replicas.iter().map(of).collect()
    }

    /// Where an epoch ends, as a leader of ours says it: the last epoch that is not above `epoch`, and where the next
    /// one begins. `None` of one that was never.
    pub(super) fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let (leader_epoch, end) = (self.state.lock().leader_epoch, self.log.end_offset());
        if epoch == leader_epoch {
            return Some((epoch, end));
        }
        if epoch < 0 || epoch > leader_epoch {
            return None;
        }
        let entries = self.log.leader_epochs().entries();
        let next = entries.iter().find(|entry| entry.epoch > epoch).map_or(end, |entry| entry.start_offset);
        let found =
            entries.iter().rev().find(|entry| entry.epoch <= epoch).map_or(epoch, |entry| entry.epoch);
        Some((found, next))
    }
}

/// All of them; and what was served of them.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    by_id: RwLock<HashMap<Id, BTreeMap<i32, Arc<Led>>>>,
    names: RwLock<HashMap<String, Id>>,
    served_bytes: AtomicU64,
    throttle: Option<Throttle>,
    /// A follower has come further.
    pub(super) progress: Notify,
    /// A follower, or the controller, knows of leader epochs that we have not heard of.
    pub(super) stale: AtomicBool,
    /// A log that can't be given out, now or later.
    pub(super) failure: Mutex<Option<LogFailure>>,
    pub(super) entrance: Entrance,
}

/// What is wrong with which log.
#[derive(Clone, Debug)]
pub(super) struct LogFailure {
    pub(super) what: String,
    pub(super) detail: String,
}

impl From<LogFailure> for ClientError {
    fn from(failure: LogFailure) -> Self {
        Self::Log { what: failure.what, detail: failure.detail }
    }
}

impl Partitions {
    pub(super) fn new(throttle: Option<Throttle>) -> Self {
        Self { throttle, ..Self::default() }
    }

    pub(super) fn add(&self, led: Led) {
        self.names.write().insert(led.topic.clone(), led.topic_id);
        self.by_id.write().entry(led.topic_id).or_default().insert(led.partition, Arc::new(led));
    }

    pub(super) fn find(&self, topic_id: Id, partition: i32) -> Option<Arc<Led>> {
        self.by_id.read().get(&topic_id)?.get(&partition).cloned()
    }

    pub(super) fn named(&self, topic: &str, partition: i32) -> Option<Arc<Led>> {
        let topic_id = *self.names.read().get(topic)?;
        self.find(topic_id, partition)
    }

    pub(super) fn all(&self) -> Vec<Arc<Led>> {
        self.by_id.read().values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// How many of `bytes` may be given out now.
    pub(super) fn allowed(&self, bytes: usize) -> usize {
        self.throttle.as_ref().map_or(bytes, |throttle| throttle.allowed(Instant::now()).min(bytes))
    }

    pub(super) fn serve(&self, bytes: usize) {
        if let Some(throttle) = &self.throttle {
            throttle.spend(bytes);
        }
        self.served_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn served_bytes(&self) -> u64 {
        self.served_bytes.load(Ordering::Relaxed)
    }
}
