//! Brings a chain to where the source can go on: branches where histories part, gaps where the log is gone.
//!
//! A fetch that names the chain's last epoch is refused by a leader that has another history, so that in the
//! ordinary case nothing is asked beforehand. Only after a refusal are epochs compared, as
//! docs/ARCHIVE-FORMAT.md says under Divergence. Each step is durable before the next; a crash in between
//! leaves what the next look at the store finds.

use varve_archive::Verdict;
use varve_archive::record::branch::BranchReason;
use varve_archive::record::gap::GapReason;
use varve_archive::record::state::JournalEntry;
use varve_format::EpochStart;
use varve_kafka::client::admin::{AskedEpoch, TopicPartition};
use varve_kafka::client::{Client, OffsetSpec};

use crate::branching::{Leading, Log, NewBranch, STEPS_MAX};
use crate::clock;
use crate::error::{Error, Result};
use crate::metrics::{Tally, gap_name};
use crate::rescue;
use crate::seam::{self, Compared, Met};
use crate::segment::{Lane, Style};
use crate::standing::Standing;

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
    /// Offsets, from the chain's end on, for which the leader's log has no batch and should.
    pub(crate) hole: Option<(i64, i64)>,
    pub(crate) tally: &'a Tally,
    pub(crate) met: &'a Met,
}

impl Leading for Opening<'_> {
    fn leader_epoch(&self) -> i32 {
        self.leader.epoch
    }

    async fn end_of_epoch(&self, epoch: i32) -> Result<Option<(i32, i64)>> {
        let asked = AskedEpoch {
            partition: self.topic_partition(),
            leader_epoch: epoch,
            current_leader_epoch: Some(self.leader.epoch),
        };
        let found = self.client.ends_of_leader_epochs(&[asked]).await?.whole()?;
        Ok(found.first().and_then(|end| Some((end.leader_epoch?, end.end_offset?))))
    }
}

impl Opening<'_> {
    pub(crate) async fn run(self) -> Result<Opened> {
        match self.steps().await {
            // Another one leads by now.
            Err(Error::Admin(error)) if error.is_fenced() => Ok(Opened::Stale),
            outcome => outcome,
        }
    }

    async fn steps(&self) -> Result<Opened> {
        for _ in 0..STEPS_MAX {
            let standing = Standing::learn(self.lane, self.entries).await?;
            if standing.is_stale(self.leader.epoch) {
                return Ok(Opened::Stale);
            }
            if standing.is_sealed() && !self.lane.sealing.seals(&self.lane.topic.name) {
                tracing::warn!(partition = %self.lane, "what was archived of it is sealed, and what comes won't be");
            }
            if let Some(what) = &standing.damaged {
                tracing::warn!(partition = %self.lane, what, "what lies at the chain's end is damaged");
                let (parent, at) = (Some(standing.branch), standing.end_offset);
                self.branch(&standing, parent, at, BranchReason::Damaged).await?;
                continue;
            }
            if let Some((_, end_offset)) = self.hole.filter(|(start, _)| *start == standing.end_offset) {
                let detail = Some("the log goes on behind it, and its topic is not compacted".to_owned());
                self.gap(&standing, end_offset, GapReason::Lost, detail).await?;
                continue;
            }
            if !self.refused && !self.may_be_late(&standing) {
                if self.met.was_restored(self.lane.key()).is_none() {
                    match self.compare(&standing).await? {
                        Compared::Same => {}
                        Compared::Restored => continue,
                        Compared::Stale => return Ok(Opened::Stale),
                    }
                }
                return Ok(Opened::Ready(Box::new(standing)));
            }
            // What was read is kept before a gap or a branch leaves it behind: the journal's history is the chain's.
            if rescue::from_journal(self.lane, self.style, &standing).await? {
                continue;
            }
            let Some(log) = self.log().await? else { return Ok(Opened::Gone) };
            let verdict = standing.verdict(self.lane, self, log).await?;
            let limit = match verdict {
                Verdict::DivergesAt(_) | Verdict::StartsAnewAt(_) => i64::MAX,
                Verdict::Continues if self.is_late(&standing, log) => i64::MAX,
                // From there on the leader has the same.
                Verdict::Continues => log.start_offset,
                _ => 0,
            };
            if self.passes_lost(&standing, limit).await? {
                continue;
            }
            match verdict {
                // Deletions of the other history may be gone from this one: it is archived from its beginning.
                Verdict::DivergesAt(_) if self.lane.topic.delete_retention_ms.is_some() => {
                    self.branch(&standing, None, log.start_offset, BranchReason::Divergence).await?;
                }
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
                    match self.compare(&standing).await? {
                        Compared::Same => return Ok(Opened::Ready(Box::new(standing))),
                        Compared::Restored => {}
                        Compared::Stale => return Ok(Opened::Stale),
                    }
                }
                // A new leader's high watermark is behind for a moment.
                _ => return Ok(Opened::Stale),
            }
        }
        Err(Error::unexpected(self.lane, "an end of branches and gaps", format!("{STEPS_MAX} steps")))
    }

    /// `None` where the topic is another one by now: offsets are asked for by its name.
    async fn log(&self) -> Result<Option<Log>> {
        let (name, partition) = (&self.lane.topic.name, self.lane.partition);
        let offset = |spec| async move {
            let found = self.client.list_offsets(name, &[partition], spec).await?;
            Ok::<_, Error>(found.get(&partition).copied().flatten().unwrap_or(0))
        };
        let (start_offset, end_offset) =
            (offset(OffsetSpec::Earliest).await?, offset(OffsetSpec::Latest).await?);
        let same = self.client.topic(name).await?.topic_id == self.lane.topic.topic_id;
        Ok(same.then_some(Log { start_offset, end_offset }))
    }

    /// As questions name it.
    fn topic_partition(&self) -> TopicPartition {
        TopicPartition::new(self.lane.topic.name.clone(), self.lane.partition)
    }

    /// Compares the chain's end with the leader. Where that has another history under the same epochs, what comes
    /// next was begun: a segment of what the journal has, or a branch.
    async fn compare(&self, standing: &Standing) -> Result<Compared> {
        match seam::compare(self.lane, self.client, self.leader, self, standing).await? {
            Compared::Same => {
                self.met.same(self.lane.key());
                return Ok(Compared::Same);
            }
            Compared::Stale => return Ok(Compared::Stale),
            Compared::Restored => {}
        }
        if self.met.was_restored(self.lane.key()) == Some(true) {
            let found = "another one, though a branch was begun for that already";
            return Err(Error::unexpected(self.lane, "the leader to have the chain's last batch", found));
        }
        // What was read is kept: the journal's history is the chain's.
        if rescue::from_journal(self.lane, self.style, standing).await? {
            return Ok(Compared::Restored);
        }
        if self.passes_lost(standing, i64::MAX).await? {
            return Ok(Compared::Restored);
        }
        let Some(log) = self.log().await? else { return Ok(Compared::Stale) };
        tracing::error!(
            partition = %self.lane,
            "the leader has other batches under the same leader epochs: was the cluster restored?"
        );
        self.branch(standing, None, log.start_offset, BranchReason::Restored).await?;
        self.met.restored(self.lane.key());
        Ok(Compared::Restored)
    }

    /// The leader's epoch at the log's start.
    async fn first_epoch(&self) -> Result<Option<EpochStart>> {
        let found = self.client.list_offsets_of(&[self.topic_partition()], OffsetSpec::Earliest).await?;
        let epoch = found.whole()?.first().and_then(|earliest| earliest.leader_epoch);
        Ok(epoch.map(|epoch| EpochStart { epoch, start_offset: 0 }))
    }

    /// A compacted topic of which deletions may be gone that were never read.
    fn may_be_late(&self, standing: &Standing) -> bool {
        let (Some(retention_ms), Some(seen_ms)) = (self.lane.topic.delete_retention_ms, standing.seen_ms())
        else {
            return false;
        };
        let seen_ms = seen_ms.max(self.seen_ms.unwrap_or(0));
        clock::now_ms().saturating_sub(seen_ms) > retention_ms
    }

    /// Where nothing was written since, nothing was deleted either.
    fn is_late(&self, standing: &Standing, log: Log) -> bool {
        self.may_be_late(standing) && log.end_offset > standing.end_offset
    }

    async fn gap(
        &self,
        standing: &Standing,
        end_offset: i64,
        reason: GapReason,
        detail: Option<String>,
    ) -> Result<()> {
        let name = gap_name(&reason);
        let epochs: Vec<EpochStart> = match reason {
            // It has forgotten where that one began.
            GapReason::LogStart => self.first_epoch().await?.into_iter().collect(),
            _ => Vec::new(),
        };
        match standing.gap(self.lane, self.style, end_offset, reason, detail, &epochs).await? {
            true => self.tally.gap(name, end_offset - standing.end_offset),
            false => self.tally.lost_race(),
        }
        Ok(())
    }

    /// Whether the chain has gone on over what nothing opens any more, to what the journal has behind it.
    async fn passes_lost(&self, standing: &Standing, limit: i64) -> Result<bool> {
        let passed = rescue::pass_lost(self.lane, self.style, standing, limit).await?;
        match passed {
            Some(gap) if gap.is_ours => {
                self.tally.gap(gap_name(&GapReason::Lost), gap.end_offset - standing.end_offset);
            }
            Some(_) => self.tally.lost_race(),
            None => {}
        }
        Ok(passed.is_some())
    }

    async fn branch(
        &self,
        standing: &Standing,
        parent: Option<u32>,
        start_offset: i64,
        reason: BranchReason,
    ) -> Result<()> {
        let detail = format!("seen by the leader on broker {}", self.leader.node_id);
        let leader_epoch = self.leader.epoch;
        let new = NewBranch { parent, start_offset, reason, leader_epoch, detail };
        match standing.start_branch(self.lane, self.style, new).await? {
            true => self.tally.branch(),
            false => self.tally.lost_race(),
        }
        Ok(())
    }
}
