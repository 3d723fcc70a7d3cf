//! Brings a chain to where the source can go on: branches where histories part, gaps where the log is gone.
//!
//! A fetch that names the chain's last epoch is refused by a leader that has another history, so that in the
//! ordinary case nothing is asked beforehand. Only after a refusal are epochs compared, as
//! docs/ARCHIVE-FORMAT.md says under Divergence. Each step is durable before the next; a crash in between
//! leaves what the next look at the store finds.

use bytes::Bytes;
use varve_archive::record::branch::{BranchReason, BranchRecord, EpochEntry};
use varve_archive::record::gap::{GapReason, GapRecord};
use varve_archive::record::state::JournalEntry;
use varve_archive::{ChainEpochs, LeaderAnswer, V1, Verdict};
use varve_format::{EpochStart, Observed, SegmentInfo};
use varve_kafka::client::admin::TopicPartition;
use varve_kafka::client::{Client, OffsetSpec};

use crate::clock;
use crate::error::{Error, Result};
use crate::rescue;
use crate::segment::{Lane, Style};
use crate::standing::Standing;

/// Steps that one opening may take: each is a branch, a gap or a lost race.
const STEPS_MAX: u32 = 64;

/// How a partition's leader is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node_id: i32,
    pub(crate) epoch: i32,
}

/// What an opening came to.
#[derive(Debug)]
pub(crate) enum Opened {
    Ready(Box<Standing>),
    /// The leader that we know is an old one, or not known any more: look for it anew.
    Stale,
    /// There is no such topic any more, under this id.
    Gone,
}

/// What is asked of an opening.
pub(crate) struct Opening<'a> {
    pub(crate) lane: &'a Lane,
    pub(crate) client: &'a Client,
    pub(crate) style: &'a Style,
    pub(crate) leader: Leader,
    /// All of the partition's entries in the journal.
    pub(crate) entries: &'a [JournalEntry],
    /// When a snapshot last said that the partition is archived up to its end.
    pub(crate) seen_ms: Option<i64>,
    /// The leader refused to go on from where the chain ends.
    pub(crate) refused: bool,
}

/// The ends of the leader's log.
#[derive(Clone, Copy, Debug)]
struct Log {
    start_offset: i64,
    end_offset: i64,
}

impl Opening<'_> {
    pub(crate) async fn run(self) -> Result<Opened> {
        for _ in 0..STEPS_MAX {
            let standing = Standing::learn(self.lane, self.entries).await?;
            if self.epochs(&standing, &standing.epochs).is_stale(self.leader.epoch) {
                return Ok(Opened::Stale);
            }
            if !self.refused && !self.may_be_late(&standing) {
                return Ok(Opened::Ready(Box::new(standing)));
            }
            // What was read of another history is kept before anything is compared; and what the log has no more.
            if self.refused && rescue::from_journal(self.lane, self.style, &standing).await? {
                continue;
            }
            let Some(log) = self.log().await? else { return Ok(Opened::Gone) };
            match self.verdict(&standing, log).await? {
                Verdict::DivergesAt(offset) => {
                    let parent = Some(standing.branch);
                    self.branch(&standing, parent, offset, BranchReason::Divergence).await?;
                }
                Verdict::StartsAnewAt(offset) => {
                    self.branch(&standing, None, offset, BranchReason::Divergence).await?;
                }
                Verdict::Continues if self.is_late(&standing, log) => {
                    self.branch(&standing, None, log.start_offset, BranchReason::Compaction).await?;
                }
                Verdict::Continues if standing.end_offset < log.start_offset => {
                    self.gap(&standing, log.start_offset, GapReason::LogStart, None).await?;
                }
                Verdict::Continues if standing.end_offset <= log.end_offset => {
                    return Ok(Opened::Ready(Box::new(standing)));
                }
                // A new leader's high watermark is behind for a moment.
                _ => return Ok(Opened::Stale),
            }
        }
        Err(Error::unexpected(self.lane, "an end of branches and gaps", format!("{STEPS_MAX} steps")))
    }

    fn epochs(&self, standing: &Standing, epochs: &[EpochStart]) -> ChainEpochs {
        ChainEpochs::new(epochs, standing.end_offset).seen_under(standing.seen_under())
    }

    /// `None` where the topic is another one by now: offsets are asked for by its name.
    async fn log(&self) -> Result<Option<Log>> {
        let (name, partition) = (&self.lane.topic.name, self.lane.partition);
        let offset = |spec| async move {
            let found = self.client.list_offsets(name, &[partition], spec).await?;
            Ok::<_, Error>(found.get(&partition).copied().flatten().unwrap_or(0))
        };
        let (start_offset, end_offset) = (offset(OffsetSpec::Earliest).await?, offset(OffsetSpec::Latest).await?);
        let same = self.client.topic(name).await?.topic_id == self.lane.topic.topic_id;
        Ok(same.then_some(Log { start_offset, end_offset }))
    }

    async fn verdict(&self, standing: &Standing, log: Log) -> Result<Verdict> {
        let (mut epochs, mut complete) = (self.epochs(standing, &standing.epochs), false);
        let Some(mut asked) = epochs.last_epoch() else { return Ok(Verdict::Continues) };
        for _ in 0..STEPS_MAX {
            let answer = LeaderAnswer {
                leader_epoch: self.leader.epoch,
                known: self.end_of_epoch(asked).await?,
                log_start_offset: log.start_offset,
                log_end_offset: log.end_offset,
            };
            match epochs.judge(asked, answer, complete) {
                Verdict::Ask(epoch) => asked = epoch,
                Verdict::NeedsEpochsBelow(_) => {
                    let all = standing.all_epochs(self.lane).await?;
                    (epochs, complete) = (self.epochs(standing, &all), true);
                }
                verdict => return Ok(verdict),
            }
        }
        Err(Error::unexpected(self.lane, "an epoch that both have", format!("{STEPS_MAX} questions")))
    }

    async fn end_of_epoch(&self, epoch: i32) -> Result<Option<(i32, i64)>> {
        let partition = TopicPartition::new(self.lane.topic.name.clone(), self.lane.partition);
        let found = self.client.ends_of_leader_epochs(&[(partition, epoch)]).await?.whole()?;
        Ok(found.first().and_then(|end| Some((end.leader_epoch?, end.end_offset?))))
    }

    /// A compacted topic of which deletions may be gone that were never read.
    fn may_be_late(&self, standing: &Standing) -> bool {
        let (Some(retention_ms), Some(seen_ms)) = (self.lane.topic.delete_retention_ms, standing.seen_ms()) else {
            return false;
        };
        let seen_ms = seen_ms.max(self.seen_ms.unwrap_or(0));
        clock::now_ms().saturating_sub(seen_ms) > retention_ms
    }

    /// Where nothing was written since, nothing was deleted either.
    fn is_late(&self, standing: &Standing, log: Log) -> bool {
        self.may_be_late(standing) && log.end_offset > standing.end_offset
    }

    async fn branch(
        &self,
        standing: &Standing,
        parent: Option<u32>,
        start_offset: i64,
        reason: BranchReason,
    ) -> Result<()> {
        let known = match parent {
            Some(_) => standing.all_epochs(self.lane).await?,
            None => Vec::new(),
        };
        let known = known.into_iter().filter(|e| e.start_offset < start_offset);
        let record = BranchRecord {
            varve_branch: V1,
            topic_id: self.lane.topic.topic_id,
            partition: self.lane.partition,
            branch: standing.branch + 1,
            parent,
            start_offset,
            reason,
            leader_epoch: self.leader.epoch,
            leader_epochs: known.map(EpochEntry::from).collect(),
            detail: Some(format!("seen by the leader on broker {}", self.leader.node_id)),
            writer: self.style.writer.clone(),
            created_ms: clock::now_ms(),
        };
        tracing::warn!(
            partition = %self.lane, branch = record.branch, start_offset, ?reason,
            "the log is another than what was archived: a new branch begins"
        );
        // Of two that start it one wins, and both look again.
        self.lane.partition().start_branch(&record).await?;
        Ok(())
    }

    /// Says that `standing`'s end up to `end_offset` is not archived, and why.
    pub(crate) async fn gap(
        &self,
        standing: &Standing,
        end_offset: i64,
        reason: GapReason,
        detail: Option<String>,
    ) -> Result<()> {
        let begin = standing.begin();
        let info = SegmentInfo {
            writer: self.style.writer.clone(),
            cluster_id: self.lane.topic.cluster_id.clone(),
            topic_id: self.lane.topic.topic_id,
            topic: self.lane.topic.name.clone(),
            partition: self.lane.partition,
            segment_id: None,
            base_offset: begin.offset,
            last_offset: end_offset - 1,
            max_timestamp_ms: -1,
            created_ms: clock::now_ms(),
            broker_id: None,
            leader_epochs: begin.epoch_before.into_iter().collect(),
            observed: Vec::<Observed>::new(),
        };
        if begin.offset > 0 {
            tracing::warn!(
                partition = %self.lane, first_offset = begin.offset, end_offset, ?reason,
                "offsets are not archived"
            );
        }
        let (object, _) = GapRecord::new(reason, detail).object(info, self.style.options())?;
        // Who lost the race looks again, as who won.
        self.lane.partition().commit(begin.branch, begin.offset, Bytes::from(object)).await?;
        Ok(())
    }
}
