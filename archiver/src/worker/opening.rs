//! Where a partition goes on: what the archive has of it, and its log from there.

use std::time::Instant;

use varve_format::{EpochStart, Observed};
use varve_kafka::client::FetchTarget;

use super::{Event, Worker};
use crate::error::Result;
use crate::metrics::PartitionState;
use crate::opening::Opening;
use crate::rescue;
use crate::tail::{Key, Next, Phase};

impl Worker {
    pub(super) fn open(&mut self, key: Key, refused: bool) {
        self.open_with(key, refused, None);
    }

    /// Says that the log has nothing before `end_offset`, and goes on there.
    pub(super) fn open_behind(&mut self, key: Key, end_offset: i64) {
        let hole = self.tails.get(&key).map(|tail| (tail.chain_end, end_offset));
        self.open_with(key, false, hole);
    }

    pub(super) fn open_with(&mut self, key: Key, refused: bool, hole: Option<(i64, i64)>) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        self.shared.progress.tally.state(key, PartitionState::Opening);
        tail.drop_hold();
        tail.phase = Phase::Opening;
        tail.next = Next::Read;
        let (lane, leader, generation) = (tail.lane.clone(), tail.leader, tail.generation);
        let (entries, seen_ms) = (tail.entries.clone(), tail.seen_ms);
        let (shared, send) = (self.shared.clone(), self.send.clone());
        tokio::spawn(async move {
            let opening = Opening {
                lane: &lane,
                client: &shared.client,
                style: &shared.style,
                leader,
                entries: &entries,
                seen_ms,
                refused,
                hole,
                tally: &shared.progress.tally,
                met: &shared.met,
            };
            let outcome = opening.run().await;
            // The worker may have ended.
            let _ = send.send(Event::Opened { key, generation, outcome });
        });
    }

    pub(super) async fn opened(&mut self, key: Key, standing: &crate::standing::Standing) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        self.shared.met.is_current(key);
        self.shared.progress.tally.state(key, PartitionState::Reading);
        tail.begin = standing.begin();
        tail.chain_end = standing.end_offset;
        tail.phase = Phase::Reading;
        let (mut offset, mut epoch) = (standing.end_offset, tail.begin.epoch_before);
        let mut journal = Vec::new();
        if self.shared.journal.is_some() {
            journal.clone_from(&standing.journal);
            tail.entries.clone_from(&standing.journal);
        }
        if tail.samples.is_empty() {
            tail.inherited.clone_from(&journal);
        }
        if let Some(last) = journal.last() {
            offset = last.end_offset;
            let known = last.leader_epochs.iter().rev().find(|e| e.start_offset < offset);
            epoch = known.map(|e| EpochStart { epoch: e.epoch, start_offset: e.start_offset });
        }
        tail.open = tail.begin.open_transactions().filter(|_| journal.is_empty());
        tail.next_offset = offset;
        tail.hold_from(offset, epoch);
        tail.uncut_since = (!journal.is_empty()).then(Instant::now);
        let open = tail.open.as_ref();
        self.shared.progress.archived(key, tail.begin.branch, tail.chain_end, journal, open);
        // Also where nothing is left to read: the leader is to say that it has what the chain has.
        self.read_from(key, epoch.map(|e| e.epoch));
    }

    /// Asks the leader for what comes at the partition's next offset, behind a record of `last_fetched_epoch`.
    pub(super) fn read_from(&mut self, key: Key, last_fetched_epoch: Option<i32>) {
        let Some(tail) = self.tails.get(&key) else { return };
        let leader_epoch = Some(tail.leader.epoch);
        let target = FetchTarget::new(key.0, key.1, tail.next_offset);
        self.session.set(FetchTarget { leader_epoch, last_fetched_epoch, ..target });
    }

    /// What is held can't be committed, since what is before it is in the journal alone: it is read again.
    pub(super) fn read_again(&mut self, key: Key) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        let (begin, epoch) = (tail.begin.offset, tail.begin.epoch_before);
        tail.cut_at = Some(tail.next_offset);
        tail.next_offset = begin;
        tail.open = tail.begin.open_transactions();
        tail.hold_from(begin, epoch);
        if tail.inherited.is_empty() {
            return self.read_from(key, epoch.map(|e| e.epoch));
        }
        tail.phase = Phase::Opening;
        self.session.remove(key.0, key.1);
        let (lane, inherited, generation) = (tail.lane.clone(), tail.inherited.clone(), tail.generation);
        let send = self.send.clone();
        tokio::spawn(async move {
            let outcome = rescue::looks(&lane, &inherited).await;
            let _ = send.send(Event::Looked { key, generation, outcome });
        });
    }

    /// What was seen when the journal's entries were written goes into the segment that takes their place.
    pub(super) fn looked(&mut self, key: Key, generation: u64, outcome: Result<Vec<Observed>>) {
        let Some(tail) = self.tails.get_mut(&key).filter(|t| t.generation == generation) else { return };
        tail.inherited.clear();
        match outcome {
            Ok(looks) => tail.samples.inherit(looks),
            Err(error) => {
                tracing::warn!(partition = %tail.lane, %error, "what earlier archivers saw of it can't be read");
            }
        }
        tail.phase = Phase::Reading;
        let epoch = tail.begin.epoch_before;
        self.read_from(key, epoch.map(|e| e.epoch));
    }
}
