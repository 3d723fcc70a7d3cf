//! The partitions in work, each with the worker of the broker that leads it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use varve_archive::Archive;
use varve_archive::record::state::JournalEntry;
use varve_kafka::client::FetchLimits;
use varve_store::SharedStore;

use crate::discovery::Wanted;
use crate::sealing::Sealing;
use crate::segment::Lane;
use crate::sharing::Share;
use crate::tail::{Key, Tail};
use crate::worker::{Command, Handle, Notice, Shared};

/// Between two looks at the cluster, if nothing asks for one sooner.
pub(crate) const LOOK: Duration = Duration::from_secs(10);
const LOOK_SOON: Duration = Duration::from_millis(300);

pub(crate) struct Running {
    pub(crate) shared: Shared,
    pub(crate) archive: Archive,
    pub(crate) store: SharedStore,
    pub(crate) sealing: Arc<Sealing>,
    pub(crate) notices: mpsc::UnboundedReceiver<Notice>,
    pub(crate) limits: FetchLimits,
    pub(crate) workers: HashMap<i32, Handle>,
    /// All partitions that are wanted and ours.
    pub(crate) wanted: HashMap<Key, Wanted>,
    /// Those that a worker has.
    pub(crate) given: HashMap<Key, i32>,
    pub(crate) done: HashSet<Key>,
    pub(crate) troubles: HashMap<Key, String>,
    /// Those that can't go on until somebody sees to it.
    pub(crate) stuck: HashSet<Key>,
    /// Where reading ends; `None` for a service, which goes on for ever.
    pub(crate) stops: Option<HashMap<Key, i64>>,
    /// What the journal had at the start.
    pub(crate) found: HashMap<Key, Vec<JournalEntry>>,
    /// When a snapshot last said that a partition is archived up to its end.
    pub(crate) seen_ms: HashMap<Key, i64>,
    pub(crate) look_at: Instant,
}

impl Running {
    /// Takes what is ours of `all`, which is all there is, and gives it to the workers; gives back what is not
    /// any more.
    pub(crate) fn take(&mut self, all: Vec<Wanted>, share: &Share) {
        let ours: HashMap<Key, Wanted> =
            all.into_iter().map(|w| (w.key(), w)).filter(|(key, _)| share.has(*key)).collect();
        let gone: Vec<Key> = self.wanted.keys().filter(|key| !ours.contains_key(*key)).copied().collect();
        self.give_back(&gone);
        self.wanted = ours;
        let names = self.wanted.iter().map(|(key, wanted)| (*key, wanted.topic.name.as_str()));
        self.shared.progress.tally.assign(names);
        let mut by_node: HashMap<i32, Vec<Tail>> = HashMap::new();
        for (key, wanted) in &self.wanted {
            if self.given.contains_key(key) || self.done.contains(key) {
                continue;
            }
            let stop = match &self.stops {
                None => None,
                Some(stops) => match stops.get(key) {
                    Some(stop) => Some(*stop),
                    // Came later, or its end could not be asked for.
                    None => continue,
                },
            };
            let Some(leader) = wanted.leader else { continue };
            let lane = Lane {
                archive: self.archive.clone(),
                store: Arc::clone(&self.store),
                sealing: Arc::clone(&self.sealing),
                topic: Arc::clone(&wanted.topic),
                partition: wanted.partition,
            };
            let mut tail = Tail::new(lane, leader, stop);
            tail.entries = self.found.remove(key).unwrap_or_default();
            tail.entries.extend(self.shared.progress.partition(*key).unwrap_or_default().journal);
            tail.seen_ms = self.seen_ms.get(key).copied();
            self.given.insert(*key, leader.node_id);
            by_node.entry(leader.node_id).or_default().push(tail);
        }
        for (node_id, tails) in by_node {
            let (shared, limits) = (self.shared.clone(), self.limits);
            let worker =
                self.workers.entry(node_id).or_insert_with(|| Handle::start(shared, node_id, limits));
            // A worker ends with us.
            let _ = worker.commands.send(Command::Take(tails));
        }
    }

    /// What is held of them goes into the store first; a notice tells of each.
    pub(crate) fn give_back(&mut self, keys: &[Key]) {
        let mut by_node: HashMap<i32, Vec<Key>> = HashMap::new();
        for key in keys {
            if let Some(node_id) = self.given.get(key) {
                by_node.entry(*node_id).or_default().push(*key);
            }
        }
        for (node_id, keys) in by_node {
            if let Some(worker) = self.workers.get(&node_id) {
                let _ = worker.commands.send(Command::Give(keys));
            }
        }
    }

    pub(crate) fn flush(&self) {
        for worker in self.workers.values() {
            let _ = worker.commands.send(Command::Flush);
        }
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Done(key) => {
                self.troubles.remove(&key);
                self.stuck.remove(&key);
                self.given.remove(&key);
                self.done.insert(key);
            }
            Notice::Moved(key) => {
                self.given.remove(&key);
                self.look_at = self.look_at.min(Instant::now() + LOOK_SOON);
            }
            Notice::Gone(key) => {
                self.given.remove(&key);
                self.stuck.remove(&key);
                self.wanted.remove(&key);
                self.shared.progress.forget(key);
            }
            Notice::Failed(key, why) => {
                self.troubles.insert(key, why);
            }
            Notice::Stuck(key) => {
                self.stuck.insert(key);
            }
        }
    }

    /// Whether all that is to be archived to an end is, but for what waiting won't mend.
    pub(crate) fn is_done(&self) -> bool {
        let over = |k: &Key| self.done.contains(k) || self.stuck.contains(k) || !self.wanted.contains_key(k);
        self.stops.as_ref().is_some_and(|stops| stops.keys().all(over))
    }

    /// Whether somebody must say who leads them.
    pub(crate) fn has_homeless(&self) -> bool {
        self.wanted.keys().any(|key| !self.given.contains_key(key) && !self.done.contains(key))
    }
}
