//! Whether a source's log continues a chain, by leader epochs alone. Pure: the caller asks the leader.
//!
//! Within one epoch an offset has but one content, so it is enough to know up to where the leader has the
//! chain's last epoch, or the last that both have. An epoch that both have from different places on is none that
//! both have: a gap may have hidden where it began, and what is before was never compared.

use varve_format::EpochStart;

/// What a chain knows of its epochs: from some epoch on, all of them, and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainEpochs {
    epochs: Vec<EpochStart>,
    end_offset: i64,
    /// Of the branch's record: leaders before this one have another history.
    seen_under: i32,
    begins_at: i64,
    compacted: bool,
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
    /// A branch without a parent is to be started at this offset, the log start: nothing tells how much of what is
    /// before is the same.
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
        Self { epochs, end_offset, seen_under: -1, begins_at: 0, compacted: false }
    }

    /// With the leader epoch that the branch's record names. It is the chain's last as long as there is no other.
    #[must_use]
    pub fn seen_under(mut self, leader_epoch: i32) -> Self {
        self.seen_under = leader_epoch;
        if self.epochs.is_empty() && leader_epoch >= 0 && self.end_offset > 0 {
            self.epochs.push(EpochStart { epoch: leader_epoch, start_offset: 0 });
        }
        self
    }

    /// Where the lineage begins: before it there is nothing that a branch could continue.
    #[must_use]
    pub fn begins_at(self, offset: i64) -> Self {
        Self { begins_at: offset, ..self }
    }

    /// Of a log that is compacted: what a parent has of it may be what was deleted since.
    #[must_use]
    pub fn compacted(self, compacted: bool) -> Self {
        Self { compacted, ..self }
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
            Verdict::DivergesAt(at)
                if self.compacted || at <= answer.log_start_offset.max(self.begins_at) =>
            {
                Verdict::StartsAnewAt(answer.log_start_offset)
            }
            verdict => verdict,
        }
    }

    /// Where neither the chain nor its branch's record has an epoch.
    pub fn judge_without_epochs(&self, answer: LeaderAnswer) -> Verdict {
        if answer.log_end_offset < self.end_offset {
            return Verdict::StartsAnewAt(answer.log_start_offset);
        }
        Verdict::Continues
    }

    fn compare(&self, asked: i32, answer: LeaderAnswer, complete: bool) -> Verdict {
        // A leader without epochs was emptied, or keeps messages of an old format: its end is all there is.
        let (epoch, leader_end) = answer.known.unwrap_or((asked, answer.log_end_offset));
        let index = self.epochs.partition_point(|e| e.epoch < epoch);
        if self.epochs.get(index).is_none_or(|e| e.epoch != epoch) {
            return self.below(index, epoch, answer.log_start_offset, complete);
        }
        if self.epochs.get(index).is_some_and(|e| leader_end <= e.start_offset) {
            return Verdict::StartsAnewAt(answer.log_start_offset);
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
    fn below(&self, index: usize, epoch: i32, log_start_offset: i64, complete: bool) -> Verdict {
        match index.checked_sub(1).and_then(|before| self.epochs.get(before)) {
            Some(before) => Verdict::Ask(before.epoch),
            None if !complete => Verdict::NeedsEpochsBelow(epoch),
            None => Verdict::StartsAnewAt(log_start_offset),
        }
    }
}
