//! One partition: its copies, and the chain that goes on from them.
//!
//! A loop of small steps, each durable before the next: learn where the chain stands, see whether the copy's history
//! continues it (else a branch), say what no copy has (a gap), read on from the copy that has the chain's end, commit.
//! Whoever else appends meanwhile is met at the commit. A crash leaves what was committed; the next import goes on.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use varve_archive::record::branch::BranchReason;
use varve_archive::record::gap::GapReason;
use varve_archive::record::state::JournalEntry;
use varve_archive::record::topic::TopicRecord;
use varve_archive::{Commit, V1, Verdict};
use varve_format::{EpochStart, Observed};
use varve_store::Rate;

use super::ImportOptions;
use super::error::{Fault, ImportError, Result};
use super::fingerprint::Fingerprint;
use super::history::{History, groups};
use super::log_dir::Replica;
use super::reading::{Broken, Read, Reader};
use crate::branching::NewBranch;
use crate::clock;
use crate::error::Error;
use crate::memory::{Memory, Room};
use crate::rescue;
use crate::segment::{Lane, SegmentWriter, Style};
use crate::standing::Standing;

/// Of looks at a directory that changes while it is read.
const LOOKS_MAX: u32 = 16;

/// What came of one partition.
#[derive(Clone, Debug, Default)]
pub struct ImportedPartition {
    pub topic: String,
    pub topic_id: String,
    pub partition: i32,
    /// What was archived, or would be: offsets by branch.
    pub ranges: Vec<ImportedRange>,
    pub objects: u64,
    /// Of record batches.
    pub bytes: u64,
    /// What somebody should know: gaps, branches, copies that differ.
    pub remarks: Vec<String>,
    /// What is wrong with a copy.
    pub findings: Vec<String>,
    /// Why it is not archived as far as it could be.
    pub error: Option<String>,
    /// The copies, the one that reaches furthest first.
    pub copies: Vec<String>,
    /// From all copies, also where they were only checked.
    pub read_bytes: u64,
    pub high_watermark: i64,
    /// The chain ends here now.
    pub archived_end: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportedRange {
    pub branch: u32,
    pub first_offset: i64,
    pub end_offset: i64,
}

/// What all partitions share.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) style: Arc<Style>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) rate: Arc<Rate>,
    pub(crate) options: Arc<ImportOptions>,
    pub(crate) segment_bytes: u64,
    pub(crate) piece_bytes: usize,
    pub(crate) read_bytes: Arc<AtomicU64>,
}

/// One partition in work.
pub(crate) struct Work {
    pub(crate) common: Common,
    pub(crate) lane: Lane,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) entries: Vec<JournalEntry>,
    pub(crate) report: ImportedPartition,
}

/// Copies that have one history; the first reaches furthest.
struct Group {
    replicas: Vec<Replica>,
    /// Where each can't be read on, or has no more.
    broken: Vec<Option<Broken>>,
    done: Vec<bool>,
    /// What was archived from which, and its sums, to be compared with what others have.
    reads: Vec<(usize, Range<i64>, Fingerprint)>,
    looks: u32,
}

impl Work {
    pub(crate) async fn run(mut self) -> Result<(ImportedPartition, Standing)> {
        if !self.common.options.dry_run {
            self.name_topic().await?;
        }
        let histories: Vec<_> = self.replicas.iter().map(Replica::history).collect();
        let groups = groups(&histories);
        let (count, lane) = (groups.len(), self.lane.clone());
        let mut before: Option<History> = None;
        for (number, members) in groups.into_iter().enumerate() {
            let replicas: Vec<Replica> =
                members.iter().filter_map(|index| self.replicas.get(*index).cloned()).collect();
            let Some(main) = replicas.first() else { continue };
            if number + 1 < count {
                self.report.remarks.push(format!("{} has another history than later copies", main.name()));
            }
            self.report.copies.splice(0..0, replicas.iter().map(Replica::name));
            self.report.high_watermark = main.high_watermark;
            for replica in replicas.iter().filter(|r| r.high_watermark > r.end_offset) {
                let fault = Fault::EndsEarly {
                    directory: replica.name(),
                    end_offset: replica.end_offset,
                    high_watermark: replica.high_watermark,
                };
                self.report.findings.push(fault.to_string());
            }
            let (history, dry_run) = (main.history(), self.common.options.dry_run);
            let mut group = Group::new(replicas);
            let parted = before.replace(history.clone()).and_then(|before| before.parts_at(&history));
            if let (true, Some(offset)) = (dry_run, parted) {
                // It would be seen once what is before it is archived.
                self.would_read(&group, u32::try_from(number).unwrap_or(u32::MAX), offset);
                continue;
            }
            if let Err(error) = self.group(&mut group).await {
                self.report.error = Some(error.to_string());
            }
            if !dry_run {
                self.check_others(group).await?;
            }
        }
        let standing = Standing::learn(&lane, &self.entries).await?;
        self.report.archived_end = standing.end_offset;
        Ok((self.report, standing))
    }

    /// Before anything of the topic is written.
    async fn name_topic(&self) -> Result<()> {
        let topic = &self.lane.topic;
        let record = TopicRecord {
            varve_topic: V1,
            topic_id: topic.topic_id,
            topic: topic.name.clone(),
            cluster_id: topic.cluster_id.clone(),
            // A broker doesn't write down how many there are.
            partitions: None,
            writer: self.common.style.writer.clone(),
            created_ms: clock::now_ms(),
            more: Vec::new(),
        };
        Ok(self.lane.archive.add_topic(&record).await?)
    }

    /// Until the chain has all that the group can give.
    async fn group(&mut self, group: &mut Group) -> Result<()> {
        loop {
            let standing = Standing::learn(&self.lane, &self.entries).await?;
            if !self.continues(group, &standing).await? {
                if self.common.options.dry_run {
                    return Ok(());
                }
                continue;
            }
            let offset = standing.end_offset;
            if offset >= group.limit() {
                return Ok(());
            }
            if self.common.options.dry_run {
                return self.plan(group, &standing);
            }
            match group.source_at(offset) {
                Some(source) => self.read(group, source, standing).await?,
                None => {
                    if !self.gap(group, &standing).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Whether the group's history continues the chain; `false` where the chain was changed first, or would be.
    async fn continues(&mut self, group: &mut Group, standing: &Standing) -> Result<bool> {
        let Some(main) = group.replicas.first().cloned() else { return Ok(true) };
        let leader_epoch = self.leader_epoch(&main);
        let last_epoch = standing.chain_epochs(&standing.epochs).last_epoch().unwrap_or(-1);
        let is_behind = last_epoch == leader_epoch && main.end_offset < standing.end_offset;
        if standing.is_stale(leader_epoch) || is_behind {
            // Nothing of it is new. Or it is what a later leader has thrown away.
            self.compare_with_chain(&main, standing).await?;
            group.give_up();
            return Ok(true);
        }
        let Some((parent, start_offset, reason)) = self.branch_needed(&main, standing).await? else {
            return Ok(true);
        };
        if main.limit <= start_offset {
            self.report
                .remarks
                .push(format!("it has another history than the archive's from {start_offset} on"));
            group.give_up();
            return Ok(true);
        }
        if self.common.options.dry_run {
            self.report.remarks.push(format!("a branch at {start_offset}: {reason:?}"));
            self.would_read(group, standing.branch + 1, start_offset);
            return Ok(false);
        }
        // What the journal has of the old history is kept before it is left behind.
        let in_chain = rescue::from_journal(&self.lane, &self.common.style, standing).await?
            || self.passes_lost(standing, i64::MAX).await?;
        if in_chain {
            return Ok(false);
        }
        self.report.remarks.push(format!("a branch at {start_offset}: {reason:?}"));
        let detail = shortened(&format!("seen in {}", main.name()));
        let new = NewBranch { parent, start_offset, reason, leader_epoch, detail };
        standing.start_branch(&self.lane, &self.common.style, new).await?;
        Ok(false)
    }

    /// The branch that must be started before anything of a copy is appended: its parent, its start, and why.
    async fn branch_needed(
        &self,
        main: &Replica,
        standing: &Standing,
    ) -> Result<Option<(Option<u32>, i64, BranchReason)>> {
        let parent = Some(standing.branch);
        if standing.damaged.is_some() {
            return Ok(Some((parent, standing.end_offset, BranchReason::Damaged)));
        }
        match standing.verdict(&self.lane, main, main.log()).await? {
            Verdict::DivergesAt(offset) => Ok(Some((parent, offset, BranchReason::Divergence))),
            Verdict::StartsAnewAt(offset) => Ok(Some((None, offset, BranchReason::Divergence))),
            Verdict::Continues if is_late(&self.lane, standing, main) => {
                Ok(Some((None, main.log_start_offset, BranchReason::Compaction)))
            }
            Verdict::Continues => Ok(None),
            verdict => {
                let found = format!("{verdict:?}");
                Err(Error::unexpected(&self.lane, "a history to go on with", found).into())
            }
        }
    }

    fn leader_epoch(&self, replica: &Replica) -> i32 {
        crate::branching::Leading::leader_epoch(replica)
    }

    /// Says whether a copy that is not later than the chain is a part of it.
    async fn compare_with_chain(&mut self, main: &Replica, standing: &Standing) -> Result<()> {
        let epochs = standing.all_epochs(&self.lane).await?;
        let chain = History::new(&epochs, 0, standing.end_offset);
        if let Some(offset) = chain.parts_at(&main.history()) {
            self.report.findings.push(format!(
                "{}: from offset {offset} up to {} it has another history than the archive, of an older leader: \
                 not archived",
                main.name(),
                main.limit
            ));
        }
        Ok(())
    }

    fn plan(&mut self, group: &mut Group, standing: &Standing) -> Result<()> {
        let mut from = standing.end_offset;
        if group.source_at(from).is_none()
            && let Some(missing) = group.missing_at(from)
        {
            let (resume, reason) = self.judge_gap(&missing, from)?;
            self.report.remarks.push(format!("gap from {from} to {resume}: {reason:?}"));
            from = resume;
        }
        self.would_read(group, standing.branch, from);
        Ok(())
    }

    fn would_read(&mut self, group: &Group, branch: u32, first_offset: i64) {
        let Some(main) = group.replicas.first() else { return };
        self.report.bytes += main.bytes_from(first_offset);
        let end_offset = group.limit();
        self.report.ranges.push(ImportedRange { branch, first_offset, end_offset });
    }

    /// What no copy has becomes a gap. `false`: there is nothing behind it.
    async fn gap(&mut self, group: &mut Group, standing: &Standing) -> Result<bool> {
        let offset = standing.end_offset;
        let Some(missing) = group.missing_at(offset) else { return Ok(false) };
        if rescue::from_journal(&self.lane, &self.common.style, standing).await? {
            return Ok(true);
        }
        let (resume, reason) = self.judge_gap(&missing, offset)?;
        if self.passes_lost(standing, resume).await? {
            return Ok(true);
        }
        let detail = missing.fault.as_ref().map(|fault| shortened(&fault.to_string()));
        let said = format!("gap from {offset} to {resume}: {reason:?}");
        let is_lost = !matches!(reason, GapReason::LogStart | GapReason::Compacted);
        let epochs = group.replicas.first().into_iter().flat_map(|main| &main.epochs);
        let within: Vec<EpochStart> = epochs.filter(|e| e.start_offset >= offset).copied().collect();
        standing.gap(&self.lane, &self.common.style, resume, reason, detail, &within).await?;
        self.report.objects += 1;
        if is_lost {
            self.report.findings.push(said);
        } else {
            self.report.remarks.push(said);
        }
        Ok(true)
    }

    /// Whether the chain has gone on over what nothing opens any more, to what the journal has behind it.
    async fn passes_lost(&mut self, standing: &Standing, limit: i64) -> Result<bool> {
        let passed = rescue::pass_lost(&self.lane, &self.common.style, standing, limit).await?;
        if let Some(gap) = passed.filter(|gap| gap.is_ours) {
            self.report.objects += 1;
            let (from, to) = (standing.end_offset, gap.end_offset);
            self.report.findings.push(format!("gap from {from} to {to}: {:?}", GapReason::Lost));
        }
        Ok(passed.is_some())
    }

    fn judge_gap(&self, missing: &MissingAt, offset: i64) -> Result<(i64, GapReason)> {
        let options = &self.common.options;
        let stop = |fault: &Fault| Err(ImportError::Fault(fault.clone()));
        let reason = match &missing.fault {
            None => GapReason::LogStart,
            Some(Fault::Missing { .. }) => GapReason::Lost,
            Some(Fault::Tiered { .. }) if options.gap_tiered => GapReason::Lost,
            Some(Fault::Jump { .. }) if options.gap_corrupt => GapReason::Lost,
            Some(Fault::Corrupt { .. }) if options.gap_corrupt => GapReason::Corrupt,
            Some(fault) => return stop(fault),
        };
        match (missing.resume, &missing.fault) {
            (Some(resume), _) if resume > offset => Ok((resume, reason)),
            (_, Some(fault)) => stop(fault),
            (_, None) => Err(Error::unexpected(&self.lane, "where the log goes on", "nothing").into()),
        }
    }

    /// Reads one copy on from the chain's end, and commits what was read.
    async fn read(&mut self, group: &mut Group, source: usize, standing: Standing) -> Result<()> {
        let Some(replica) = group.replicas.get(source).cloned() else { return Ok(()) };
        let mut reader = Reader::new(&replica, standing.end_offset, group.replicas.len() > 1);
        let began_at = standing.end_offset;
        let mut writer: Option<SegmentWriter> = None;
        let mut begin = standing.begin();
        loop {
            let (back, read, room) = self.piece(reader).await?;
            reader = back;
            let (ends, broken) = match read {
                Read::Batches { records, first } => {
                    let is_new = writer.is_none() && begin.offset == began_at;
                    if is_new && self.other_beginning(&standing, &first) {
                        let new = NewBranch {
                            parent: None,
                            start_offset: standing.end_offset,
                            reason: BranchReason::Divergence,
                            leader_epoch: self.leader_epoch(&replica),
                            detail: format!("seen in {}", replica.name()),
                        };
                        self.report
                            .remarks
                            .push(format!("a branch without a parent at {}", new.start_offset));
                        standing.start_branch(&self.lane, &self.common.style, new).await?;
                        return Ok(());
                    }
                    self.note_read(records.len()).await;
                    let open = match &mut writer {
                        Some(open) => open,
                        None => {
                            let (lane, style) = (self.lane.clone(), Arc::clone(&self.common.style));
                            let seal = lane.seal().await?;
                            writer.insert(SegmentWriter::new(
                                lane,
                                style,
                                seal,
                                begin.clone(),
                                self.common.memory.no_room(),
                            )?)
                        }
                    };
                    open.push(&records, room).await?;
                    self.report.bytes += records.len() as u64;
                    (open.bytes() >= self.common.segment_bytes, None)
                }
                Read::End => (true, Some(None)),
                Read::Broken(broken) => (true, Some(Some(broken))),
            };
            if ends && let Some(mut full) = writer.take() {
                full.observe(vec![observed(&replica, &begin)]);
                let (closing, next) = full.close()?;
                match closing.commit().await.map_err(ImportError::from)? {
                    Commit::Committed => {
                        self.committed(begin.branch, begin.offset, next.offset);
                        begin = next;
                    }
                    Commit::Lost(head) => {
                        tracing::info!(partition = %self.lane, object = %head.name, "another archiver was first");
                        return Ok(());
                    }
                }
            }
            if let Some(broken) = broken {
                if let Some(fingerprint) = reader.fingerprint.take() {
                    group.reads.push((source, began_at..begin.offset, fingerprint));
                }
                // Where the cleaner left out what follows, the reader is ahead of the chain.
                let broken = broken.map(|broken| Broken { offset: begin.offset, ..broken });
                return self.stopped(group, source, broken);
            }
        }
    }

    /// One copy gave all that it has, or can't be read on.
    fn stopped(&mut self, group: &mut Group, source: usize, broken: Option<Broken>) -> Result<()> {
        let Some(broken) = broken else {
            group.set_done(source);
            return Ok(());
        };
        let changed = matches!(broken.fault, Fault::Vanished { .. } | Fault::OtherEpoch { .. });
        if changed && self.common.options.online && group.looks < LOOKS_MAX {
            group.looks += 1;
            let again = group.replicas.get(source).map(|r| r.again(self.common.options.include_active));
            match (again.transpose()?.flatten(), group.replicas.get_mut(source)) {
                (Some(again), Some(replica)) => *replica = again,
                _ => group.set_done(source),
            }
            return Ok(());
        }
        if changed && self.common.options.online {
            return Err(ImportError::Restless { what: broken.fault.to_string(), tries: LOOKS_MAX });
        }
        tracing::warn!(partition = %self.lane, fault = %broken.fault, "a copy can't be read on");
        self.report.findings.push(broken.fault.to_string());
        if let Some(slot) = group.broken.get_mut(source) {
            *slot = Some(broken);
        }
        Ok(())
    }

    fn committed(&mut self, branch: u32, first_offset: i64, end_offset: i64) {
        self.report.objects += 1;
        match self.report.ranges.last_mut() {
            Some(last) if last.branch == branch && last.end_offset == first_offset => {
                last.end_offset = end_offset
            }
            _ => self.report.ranges.push(ImportedRange { branch, first_offset, end_offset }),
        }
    }

    /// Whether the first batch begins before the chain's end, and under another leader than what is archived there.
    fn other_beginning(&self, standing: &Standing, first: &varve_kafka::protocol::BatchHeader) -> bool {
        let epoch = standing.last_epoch();
        first.base_offset < standing.end_offset
            && first.partition_leader_epoch >= 0
            && epoch.is_some_and(|epoch| epoch != first.partition_leader_epoch)
            && standing.last.as_ref().is_some_and(|last| !last.gap)
    }

    async fn note_read(&mut self, bytes: usize) {
        self.report.read_bytes += bytes as u64;
        self.common.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.common.rate.acquire(bytes as u64).await;
    }

    /// The reader's next piece, with room for it.
    async fn piece(&self, mut reader: Reader) -> Result<(Reader, Read, Room)> {
        let piece_bytes = self.common.piece_bytes;
        let mut room = loop {
            match self.common.memory.try_room(piece_bytes) {
                Some(room) => break room,
                None => self.common.memory.freed().await,
            }
        };
        let read = tokio::task::spawn_blocking(move || reader.next(piece_bytes).map(|read| (reader, read)));
        let (reader, read) = read.await.map_err(|_| Error::Ended("a reading thread"))??;
        room.shrink_to(match &read {
            Read::Batches { records, .. } => records.len(),
            _ => 0,
        });
        Ok((reader, read, room))
    }

    /// What was archived is read from all other copies that have it, too: their checksums, and whether it is the same.
    async fn check_others(&mut self, group: Group) -> Result<()> {
        for (source, range, ours) in &group.reads {
            for (index, replica) in group.replicas.iter().enumerate().filter(|(index, _)| index != source) {
                let broken = group.broken.get(index).and_then(Option::as_ref);
                let end = range.end.min(replica.limit).min(broken.map_or(i64::MAX, |broken| broken.offset));
                let begin = range.start.max(replica.log_start_offset).max(replica.first_offset());
                let Some((theirs, end)) = self.check(replica, begin..end).await? else { continue };
                let both_dense = !replica.cleaned && group.replicas.get(*source).is_some_and(|r| !r.cleaned);
                if let (Some(other), true) = (ours.clone().difference(theirs, &(begin..end)), both_dense) {
                    self.report.findings.push(format!(
                        "{}: offsets {} to {} are not what was archived, in the same leader epochs",
                        replica.name(),
                        other.start,
                        other.end - 1
                    ));
                }
            }
        }
        Ok(())
    }

    /// What a copy has in a range, and how far it could be read.
    async fn check(&mut self, replica: &Replica, range: Range<i64>) -> Result<Option<(Fingerprint, i64)>> {
        if range.is_empty() {
            return Ok(None);
        }
        let limited = Replica { limit: range.end, ..replica.clone() };
        let mut reader = Reader::new(&limited, range.start, true);
        loop {
            let (back, read, room) = self.piece(reader).await?;
            drop(room);
            reader = back;
            match read {
                Read::Batches { records, .. } => {
                    self.note_read(records.len()).await;
                }
                Read::End => break,
                Read::Broken(broken) => {
                    if !(self.common.options.online && matches!(broken.fault, Fault::Vanished { .. })) {
                        self.report.findings.push(format!("only checked: {}", broken.fault));
                    }
                    break;
                }
            }
        }
        Ok(reader.fingerprint.take().map(|fingerprint| (fingerprint, reader.offset)))
    }
}

/// What no copy can give at some offset.
struct MissingAt {
    /// Where one goes on.
    resume: Option<i64>,
    /// None: the log begins later.
    fault: Option<Fault>,
}

impl Group {
    fn new(replicas: Vec<Replica>) -> Self {
        let count = replicas.len();
        Self { replicas, broken: vec![None; count], done: vec![false; count], reads: Vec::new(), looks: 0 }
    }

    fn limit(&self) -> i64 {
        let left = self.replicas.iter().zip(&self.done).filter(|(_, done)| !**done);
        left.map(|(replica, _)| replica.limit).max().unwrap_or(0)
    }

    fn set_done(&mut self, source: usize) {
        if let Some(done) = self.done.get_mut(source) {
            *done = true;
        }
    }

    fn give_up(&mut self) {
        self.done.fill(true);
    }

    /// The first copy that has what comes at `offset`.
    fn source_at(&self, offset: i64) -> Option<usize> {
        (0..self.replicas.len())
            .find(|index| self.offset_after(*index, offset).is_some_and(|(at, _)| at == offset))
    }

    /// Where a copy can be read at `offset` or behind it, and why not at it.
    fn offset_after(&self, index: usize, offset: i64) -> Option<(i64, Option<Fault>)> {
        let replica = self.replicas.get(index)?;
        if self.done.get(index).copied().unwrap_or(true) || offset >= replica.limit {
            return None;
        }
        if let Some(broken) = self.broken.get(index)?.as_ref()
            && broken.offset == offset
        {
            return Some((broken.resume.unwrap_or(i64::MAX), Some(broken.fault.clone())));
        }
        let (log_start, first) = (replica.log_start_offset, replica.first_offset());
        if offset < log_start {
            return Some((log_start, None));
        }
        if offset < first {
            let fault = Fault::Tiered { directory: replica.name(), log_start_offset: log_start, next: first };
            return Some((first, Some(fault)));
        }
        Some((offset, None))
    }

    /// The copy that goes on soonest behind `offset`.
    fn missing_at(&self, offset: i64) -> Option<MissingAt> {
        let all = (0..self.replicas.len()).filter_map(|index| self.offset_after(index, offset));
        let (resume, fault) = all.min_by_key(|(at, _)| *at)?;
        Some(MissingAt { resume: Some(resume).filter(|at| *at < i64::MAX), fault })
    }
}

/// A compacted log whose deletions may be gone before they were archived.
fn is_late(lane: &Lane, standing: &Standing, replica: &Replica) -> bool {
    let (Some(retention_ms), Some(seen_ms)) = (lane.topic.delete_retention_ms, standing.seen_ms()) else {
        return false;
    };
    replica.cleaned
        && replica.limit > standing.end_offset
        && replica.dir.seen_ms.saturating_sub(seen_ms) > retention_ms / 2
}

/// How far the copy was when it was made. Its last stable offset is not known, but it is not below this.
fn observed(replica: &Replica, begin: &crate::segment::Begin) -> Observed {
    let open = begin.state.producers.iter().filter_map(|p| p.current_txn_first_offset).min();
    let stable = if begin.state_is_whole { open.unwrap_or(begin.offset) } else { replica.log_start_offset };
    Observed {
        time_ms: if replica.dir.seen_ms > 0 { replica.dir.seen_ms } else { clock::now_ms() },
        high_watermark: replica.high_watermark,
        last_stable_offset: stable.min(begin.offset),
    }
}

/// As much as a record takes.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
