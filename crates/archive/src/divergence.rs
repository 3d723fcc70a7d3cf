//! Whether a source's log continues a chain, by leader epochs alone. Pure: the caller asks the leader.
//!
//! Within one epoch an offset has but one content, so it is enough to know up to where the leader has the
//! chain's last epoch, or the last that both have.

use varve_format::EpochStart;

/// What a chain knows of its epochs: from some epoch on, all of them, and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainEpochs {
    epochs: Vec<EpochStart>,
    end_offset: i64,
    /// Of the branch's record: leaders before this one have another history.
    seen_under: i32,
}

/// A leader's answer to OffsetForLeaderEpoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderAnswer {
    /// The leader's own epoch.
    pub leader_epoch: i32,
    /// The largest epoch that it knows up to the one asked for, and that one's end; `None` if it knows none.
    pub known: Option<(i32, i64)>,
    pub log_start_offset: i64,
    pub log_end_offset: i64,
}

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Continues,
    /// The leader that answered is an old one: look for the leader anew, append nothing.
    Stale,
    /// A branch is to be started at this offset, with the chain's branch as its parent.
    DivergesAt(i64),
    /// A branch without a parent is to be started at this offset, the log start: the leader deleted what could
    /// tell how much of what is before is the same.
    StartsAnewAt(i64),
    /// Ask for this epoch next.
    Ask(i32),
    /// The chain's epochs below this one are needed: read them from earlier objects.
    NeedsEpochsBelow(i32),
}

impl ChainEpochs {
    /// `epochs` ascend, and are all that the chain has from the first of them on; `end_offset` is the chain's.
    pub fn new(epochs: &[EpochStart], end_offset: i64) -> Self {
        let epochs = epochs.iter().filter(|e| e.start_offset < end_offset).copied().collect();
        Self { epochs, end_offset, seen_under: -1 }
    }

    /// With the leader epoch that the branch's record names.
    #[must_use]
    pub fn seen_under(self, leader_epoch: i32) -> Self {
        Self { seen_under: leader_epoch, ..self }
    }

    /// Whether a leader of this epoch is too old to go on with the chain. To be asked also where there is no
    /// epoch to compare.
    pub fn is_stale(&self, leader_epoch: i32) -> bool {
        leader_epoch < self.seen_under || self.last_epoch().is_some_and(|last| leader_epoch < last)
    }

    /// The epoch to ask for first; `None` if there is nothing to compare.
    pub fn last_epoch(&self) -> Option<i32> {
        self.epochs.last().map(|e| e.epoch)
    }

    /// `complete` says that the chain has no epochs before those given.
    pub fn judge(&self, asked: i32, answer: LeaderAnswer, complete: bool) -> Verdict {
        if self.is_stale(answer.leader_epoch) {
            return Verdict::Stale;
        }
        match self.compare(asked, answer, complete) {
            Verdict::DivergesAt(at) if at <= answer.log_start_offset => {
                Verdict::StartsAnewAt(answer.log_start_offset)
            }
            verdict => verdict,
        }
    }

    fn compare(&self, asked: i32, answer: LeaderAnswer, complete: bool) -> Verdict {
        // A leader without epochs was emptied, or keeps messages of an old format: its end is all there is.
        let (epoch, leader_end) = answer.known.unwrap_or((asked, answer.log_end_offset));
        let index = self.epochs.partition_point(|e| e.epoch < epoch);
        if self.epochs.get(index).is_none_or(|e| e.epoch != epoch) {
            return self.below(index, epoch, leader_end, complete);
        }
        let next = self.epochs.get(index.saturating_add(1));
        let chain_end = next.map_or(self.end_offset, |e| e.start_offset);
        match next {
            None if leader_end >= chain_end => Verdict::Continues,
            // Both have the epoch from its start on, so they part at the first end of it.
            _ => Verdict::DivergesAt(leader_end.min(chain_end)),
        }
    }

    /// The chain does not know `epoch`, which would stand at `index`.
    fn below(&self, index: usize, epoch: i32, leader_end: i64, complete: bool) -> Verdict {
        match index.checked_sub(1).and_then(|before| self.epochs.get(before)) {
            Some(before) => Verdict::Ask(before.epoch),
            None if !complete => Verdict::NeedsEpochsBelow(epoch),
            None => {
                let start = self.epochs.first().map_or(self.end_offset, |e| e.start_offset);
                Verdict::DivergesAt(leader_end.min(start))
            }
        }
    }
}
