//! What a chain needs before it can go on from a source, whatever the source is: whether its history continues the
//! chain's, the branch where it does not, and the gap where the source has nothing.
//!
//! Each step is durable before the next. Whoever loses a race looks at the store again, as whoever wins it.

use std::future::Future;

use bytes::Bytes;
use varve_archive::record::branch::{BranchReason, BranchRecord, newest_epochs};
use varve_archive::record::gap::{GapReason, GapRecord};
use varve_archive::{ChainEpochs, Commit, LeaderAnswer, Started, V1, Verdict};
use varve_format::{EpochStart, SegmentInfo};

use crate::clock;
use crate::error::{Error, Result};
use crate::segment::{Lane, Style};
use crate::standing::Standing;

/// Steps that one comparison, or one opening, may take.
pub(crate) const STEPS_MAX: u32 = 64;

/// The ends of a source's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) start_offset: i64,
    pub(crate) end_offset: i64,
}

/// Who can say what its leader epochs are.
pub(crate) trait Leading: Sync {
    fn leader_epoch(&self) -> i32;

    /// As OffsetForLeaderEpoch: the largest epoch up to `epoch`, and its end; `None` if it knows none.
    fn end_of_epoch(&self, epoch: i32) -> impl Future<Output = Result<Option<(i32, i64)>>> + Send;
}

/// A branch that is to be started.
#[derive(Clone, Debug)]
pub(crate) struct NewBranch {
    pub(crate) parent: Option<u32>,
    pub(crate) start_offset: i64,
    pub(crate) reason: BranchReason,
    pub(crate) leader_epoch: i32,
    pub(crate) detail: String,
}

impl Standing {
    pub(crate) fn chain_epochs(&self, epochs: &[EpochStart]) -> ChainEpochs {
        ChainEpochs::new(epochs, self.end_offset).seen_under(self.seen_under()).begins_at(self.begins_at())
    }

    pub(crate) fn is_stale(&self, leader_epoch: i32) -> bool {
        self.chain_epochs(&self.epochs).is_stale(leader_epoch)
    }

    /// Whether what `source` has continues this chain, as docs/ARCHIVE-FORMAT.md says under Divergence.
    pub(crate) async fn verdict(&self, lane: &Lane, source: &impl Leading, log: Log) -> Result<Verdict> {
        let compacted = lane.topic.delete_retention_ms.is_some();
        let of = |epochs: &[EpochStart]| self.chain_epochs(epochs).compacted(compacted);
        let (mut epochs, mut complete) = (of(&self.epochs), false);
        let Some(mut asked) = epochs.last_epoch() else {
            let (log_start_offset, log_end_offset) = (log.start_offset, log.end_offset);
            let leader_epoch = source.leader_epoch();
            let answer = LeaderAnswer { leader_epoch, known: None, log_start_offset, log_end_offset };
            return Ok(epochs.judge_without_epochs(answer));
        };
        for _ in 0..STEPS_MAX {
            let answer = LeaderAnswer {
                leader_epoch: source.leader_epoch(),
                known: source.end_of_epoch(asked).await?,
                log_start_offset: log.start_offset,
                log_end_offset: log.end_offset,
            };
            match epochs.judge(asked, answer, complete) {
                Verdict::Ask(epoch) => asked = epoch,
                Verdict::NeedsEpochsBelow(_) => {
                    let all = self.all_epochs(lane).await?;
                    (epochs, complete) = (of(&all), true);
                }
                verdict => return Ok(verdict),
            }
        }
        Err(Error::unexpected(lane, "an epoch that both have", format!("{STEPS_MAX} questions")))
    }

    /// Starts a branch after this one; `false` where another was first.
    pub(crate) async fn start_branch(&self, lane: &Lane, style: &Style, new: NewBranch) -> Result<bool> {
        let known = match new.parent {
            Some(_) => self.all_epochs(lane).await?,
            None => Vec::new(),
        };
        let known = known.into_iter().filter(|e| e.start_offset < new.start_offset);
        let mut record = BranchRecord {
            varve_branch: V1,
            topic_id: lane.topic.topic_id,
            partition: lane.partition,
            branch: self.branch + 1,
            parent: new.parent,
            start_offset: new.start_offset,
            reason: new.reason,
            leader_epoch: new.leader_epoch,
            leader_epochs: newest_epochs(known),
            detail: Some(new.detail),
            writer: style.writer.clone(),
            created_ms: clock::now_ms(),
            more: Vec::new(),
        };
        tracing::warn!(
            partition = %lane, branch = record.branch, start_offset = record.start_offset, reason = ?record.reason,
            "the log is another than what was archived: a new branch begins"
        );
        // Of two that start it one wins, and both look again.
        let started = lane.partition().start_branch(&mut record).await?;
        Ok(matches!(started, Started::Ours))
    }

    /// Says that this chain's end up to `end_offset` is not archived, and why; `false` where another was first.
    /// `epochs` begin there, as far as the source says.
    pub(crate) async fn gap(
        &self,
        lane: &Lane,
        style: &Style,
        end_offset: i64,
        reason: GapReason,
        detail: Option<String>,
        epochs: &[EpochStart],
    ) -> Result<bool> {
        let begin = self.begin();
        let mut leader_epochs: Vec<EpochStart> = begin.epoch_before.into_iter().collect();
        for e in epochs {
            let start_offset = e.start_offset.max(begin.offset);
            if start_offset < end_offset && leader_epochs.last().is_none_or(|last| last.epoch < e.epoch) {
                leader_epochs.push(EpochStart { epoch: e.epoch, start_offset });
            }
        }
        let info = SegmentInfo { leader_epochs, ..lane.info(style, begin.offset..end_offset) };
        if begin.offset > 0 {
            tracing::warn!(
                partition = %lane, first_offset = begin.offset, end_offset, ?reason,
                "offsets are not archived"
            );
        }
        // Why offsets are missing is no record of theirs: it is not sealed, and told without a key.
        let (object, _) = GapRecord::new(reason, detail).object(info, style.options(None))?;
        // Who lost the race looks again, as who won.
        let commit = lane.partition().commit(begin.branch, begin.offset, Bytes::from(object)).await?;
        Ok(matches!(commit, Commit::Committed))
    }
}
