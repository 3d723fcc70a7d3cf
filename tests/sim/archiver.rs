//! An archiver as docs/ARCHIVE-FORMAT.md has it, over the model brokers. It can be told to break a rule: then the
//! invariants must see it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use varve_archive::record::branch::{BranchReason, BranchRecord, EpochEntry, epoch_before};
use varve_archive::record::gap::{GapReason, GapRecord};
use varve_archive::record::topic::TopicRecord;
use varve_archive::{
    Archive, BundleBuilder, BundleName, ChainEnd, ChainEpochs, Commit, NewSnapshot, Partition, Place, Result,
    Snapshot, Started, Target, V1, Verdict, continuation, lineage,
};
use varve_format::{Compression, DigestAlgorithm, Encoder, EpochStart, Id, Plan, SegmentInfo, WriteOptions};

use crate::rng::Rng;
use crate::turns::Turn;
use crate::world::{Batch, Leader, World};

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    /// Appends whatever the leader has at the chain's end.
    NeverAsksForEpochs,
    /// Asks once, and not again after it lost.
    AsksOnce,
    /// Names an object by its first batch.
    KeyedByOwnBase,
    /// Reads beyond the high watermark.
    ReadsUncommitted,
    /// Takes a bundle for covered without looking.
    ExpiresTooEarly,
}

/// What all archivers of a run share; none of it is known to another but by the store.
#[derive(Clone)]
pub struct Shared {
    pub world: Rc<RefCell<World>>,
    pub archive: Archive,
    pub rng: Rng,
    pub broken: Broken,
    pub snapshots: Rc<RefCell<Vec<Snapshot>>>,
}

/// The source continues the chain of this branch up to here.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sure {
    epoch: i32,
    branch: u32,
    end_offset: i64,
}

pub struct Archiver {
    shared: Shared,
    name: String,
    sure: HashMap<usize, Sure>,
    /// Which leader it takes for the current one.
    view: HashMap<usize, usize>,
}

struct Standing {
    branch: u32,
    chain: ChainEnd,
    /// The lineage's epochs as far as the last object or the branch's record tells.
    epochs: Vec<EpochStart>,
    records: Vec<BranchRecord>,
}

impl Archiver {
    pub fn new(shared: Shared, name: String) -> Self {
        Self { shared, name, sure: HashMap::new(), view: HashMap::new() }
    }

    /// For ever, until it is killed. Errors are what a service would try again.
    pub async fn run(mut self) {
        loop {
            let log = self.shared.rng.below(self.shared.world.borrow().logs.len());
            let _ = match self.shared.rng.below(100) {
                0..80 => self.append(log).await.map(|_| ()),
                80..92 => self.snapshot().await,
                _ => self.expire().await,
            };
            // Also where nothing was asked of the store.
            Turn(false).await;
        }
    }

    /// One object further, or nothing to do: then `false`.
    pub async fn append(&mut self, log: usize) -> Result<bool> {
        let (topic_id, topic, partition, leaders) = {
            let world = self.shared.world.borrow();
            let log = &world.logs[log];
            (log.topic_id, log.topic.clone(), log.partition, log.leaders.len())
        };
        let view = self.view.entry(log).or_insert(leaders - 1);
        if self.shared.rng.percent(30) {
            *view = leaders - 1;
        }
        let view = *view;
        let archive = self.shared.archive.clone();
        let record = TopicRecord {
            varve_topic: V1,
            topic_id,
            topic: topic.clone(),
            cluster_id: "model".to_owned(),
            partitions: None,
            writer: self.name.clone(),
            created_ms: 0,
        };
        archive.add_topic(&record).await?;
        let partition = archive.partition(topic_id, partition);
        let standing = self.stand(&partition).await?;
        let leader = |this: &Self| this.shared.world.borrow().logs[log].leaders[view].clone();
        if !self.is_sure(log, &standing, leader(self).epoch) {
            match self.ask(&partition, &standing, || leader(self)).await? {
                Verdict::Continues => {}
                Verdict::DivergesAt(offset) => {
                    let parent = Some(standing.branch);
                    self.branch(&partition, &standing, parent, offset, &leader(self)).await?;
                    return Ok(true);
                }
                Verdict::StartsAnewAt(offset) => {
                    self.branch(&partition, &standing, None, offset, &leader(self)).await?;
                    return Ok(true);
                }
                _ => {
                    let leaders = self.shared.world.borrow().logs[log].leaders.len();
                    self.view.insert(log, leaders - 1);
                    return Ok(true);
                }
            }
        }
        let source = leader(self);
        self.sure.insert(
            log,
            Sure { epoch: source.epoch, branch: standing.branch, end_offset: standing.chain.end_offset },
        );
        self.extend(log, &partition, &topic, &standing, &source).await
    }

    fn is_sure(&self, log: usize, standing: &Standing, epoch: i32) -> bool {
        match self.shared.broken {
            Broken::NeverAsksForEpochs => true,
            Broken::AsksOnce => self.sure.contains_key(&log),
            _ => {
                let now = Sure { epoch, branch: standing.branch, end_offset: standing.chain.end_offset };
                self.sure.get(&log) == Some(&now)
            }
        }
    }

    async fn stand(&self, partition: &Partition<'_>) -> Result<Standing> {
        let records: Vec<BranchRecord> = partition.branches(0).await?.into_iter().map(|(r, _)| r).collect();
        let (branch, start) = records.last().map_or((0, 0), |r| (r.branch, r.start_offset));
        let chain = partition.chain_end(branch, start, start).await?;
        let epochs = match (&chain.last, records.last()) {
            (Some(head), _) => head.epochs().to_vec(),
            (None, Some(r)) => r.leader_epochs.iter().map(start_of).collect(),
            (None, None) => Vec::new(),
        };
        Ok(Standing { branch, chain, epochs, records })
    }

    async fn ask(
        &self,
        partition: &Partition<'_>,
        standing: &Standing,
        leader: impl Fn() -> Leader,
    ) -> Result<Verdict> {
        let end = standing.chain.end_offset;
        let seen_under = standing.records.last().map_or(-1, |r| r.leader_epoch);
        let of = |epochs: &[EpochStart]| ChainEpochs::new(epochs, end).seen_under(seen_under);
        let (mut epochs, mut complete) = (of(&standing.epochs), false);
        if epochs.is_stale(leader().epoch) {
            return Ok(Verdict::Stale);
        }
        let Some(mut asked) = epochs.last_epoch() else { return Ok(Verdict::Continues) };
        loop {
            match epochs.judge(asked, leader().answer(asked), complete) {
                Verdict::Ask(epoch) => asked = epoch,
                Verdict::NeedsEpochsBelow(_) => {
                    let all = self.all_epochs(partition, standing).await?;
                    (epochs, complete) = (of(&all), true);
                }
                verdict => return Ok(verdict),
            }
        }
    }

    /// Of the whole lineage, object by object.
    async fn all_epochs(&self, partition: &Partition<'_>, standing: &Standing) -> Result<Vec<EpochStart>> {
        let mut epochs: Vec<EpochStart> = Vec::new();
        let record = |n: u32| standing.records.iter().find(|r| r.branch == n);
        for stretch in lineage(standing.branch, record) {
            let end = stretch.end_offset.unwrap_or(standing.chain.end_offset);
            let mut offset = stretch.start_offset;
            while offset < end {
                let Some(head) = partition.head(stretch.branch, offset).await? else { break };
                for e in head.epochs().iter().filter(|e| e.start_offset < end) {
                    if epochs.last().is_none_or(|l| l.epoch < e.epoch && l.start_offset < e.start_offset) {
                        epochs.push(*e);
                    }
                }
                offset = head.end_offset();
            }
        }
        Ok(epochs)
    }

    async fn branch(
        &self,
        partition: &Partition<'_>,
        standing: &Standing,
        parent: Option<u32>,
        offset: i64,
        leader: &Leader,
    ) -> Result<()> {
        let known = leader.epochs.iter().filter(|e| e.start_offset < offset);
        let record = BranchRecord {
            varve_branch: V1,
            topic_id: partition.topic_id,
            partition: partition.partition,
            branch: standing.branch + 1,
            parent,
            start_offset: offset,
            reason: BranchReason::Divergence,
            leader_epoch: leader.epoch,
            leader_epochs: known.copied().map(EpochEntry::from).collect(),
            detail: None,
            writer: self.name.clone(),
            created_ms: 0,
        };
        match partition.start_branch(&record).await? {
            Started::Ours | Started::Taken(_) => Ok(()),
        }
    }

    async fn extend(
        &mut self,
        log: usize,
        partition: &Partition<'_>,
        topic: &str,
        standing: &Standing,
        source: &Leader,
    ) -> Result<bool> {
        let at = standing.chain.end_offset;
        let max = 1 + self.shared.rng.below(4);
        let mut source = source.clone();
        if self.shared.broken == Broken::ReadsUncommitted {
            source.high_watermark = source.end;
        }
        let batches = source.fetch(at, max);
        if self.shows_another_history(standing, at, &batches) {
            self.branch(partition, standing, None, at, &source).await?;
            return Ok(true);
        }
        // Where the next thing begins: the log, or a batch behind a hole.
        let next = batches.first().map_or(source.start, |b| b.base.max(source.start));
        let gap = if at < source.start {
            Some((source.start, GapReason::LogStart))
        } else if next > at {
            Some((next, GapReason::Compacted))
        } else {
            None
        };
        if gap.is_none() && batches.is_empty() {
            return Ok(false);
        }
        let end = gap.map_or_else(|| batches.last().map_or(at, |b| b.end), |(end, _)| end);
        let key = match self.shared.broken {
            Broken::KeyedByOwnBase if gap.is_none() => batches.first().map_or(at, |b| b.base),
            _ => at,
        };
        let info = self.info(partition, topic, standing, &source, key, end);
        let object_id = self.shared.rng.id();
        let object = match gap {
            Some((_, reason)) => GapRecord::new(reason, None).object(info, options(object_id))?.0,
            None => segment(info, object_id, &batches),
        };
        if gap.is_none() && self.shared.rng.percent(25) {
            self.journal(partition, standing.branch, at, Bytes::from(object)).await?;
            return Ok(true);
        }
        match partition.commit(standing.branch, key, Bytes::from(object)).await {
            Ok(Commit::Committed) => {
                self.sure.insert(log, Sure { epoch: source.epoch, branch: standing.branch, end_offset: end });
            }
            Ok(Commit::Lost(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// A batch that begins in the chain has another epoch than the chain has there.
    fn shows_another_history(&self, standing: &Standing, at: i64, batches: &[Batch]) -> bool {
        if standing.chain.last.as_ref().is_some_and(|last| last.gap) {
            return false;
        }
        let epochs: Vec<EpochEntry> = standing.epochs.iter().copied().map(EpochEntry::from).collect();
        let first = batches.first().filter(|b| b.base < at);
        first.is_some_and(|b| epoch_before(&epochs, at).is_some_and(|epoch| epoch != b.epoch))
    }

    fn info(
        &self,
        partition: &Partition<'_>,
        topic: &str,
        standing: &Standing,
        source: &Leader,
        base: i64,
        end: i64,
    ) -> SegmentInfo {
        let before = standing.epochs.iter().rev().find(|e| e.start_offset < base.max(1)).copied();
        let mut leader_epochs: Vec<EpochStart> = before.into_iter().collect();
        for e in source.epochs.iter().filter(|e| e.start_offset < end) {
            let begins =
                source.epochs.iter().find(|n| n.epoch > e.epoch).map_or(i64::MAX, |n| n.start_offset);
            let here = begins > base;
            if here && leader_epochs.last().is_none_or(|l| l.epoch < e.epoch) {
                leader_epochs.push(EpochStart { start_offset: e.start_offset.max(base), ..*e });
            }
        }
        SegmentInfo {
            writer: self.name.clone(),
            cluster_id: "model".to_owned(),
            topic_id: partition.topic_id,
            topic: topic.to_owned(),
            partition: partition.partition,
            segment_id: None,
            base_offset: base,
            last_offset: end - 1,
            max_timestamp_ms: -1,
            created_ms: 0,
            broker_id: None,
            leader_epochs,
            observed: Vec::new(),
        }
    }

    async fn journal(
        &self,
        partition: &Partition<'_>,
        branch: u32,
        first_offset: i64,
        object: Bytes,
    ) -> Result<()> {
        let place = Place { topic_id: partition.topic_id, partition: partition.partition, first_offset };
        let mut bundle = BundleBuilder::default();
        bundle.add(&self.shared.archive, branch, place, object)?;
        self.shared.archive.put_bundle(&self.name, 0, bundle, "sim", 0).await.map(|_| ())
    }

    pub async fn snapshot(&mut self) -> Result<()> {
        let logs: Vec<(Id, i32)> =
            self.shared.world.borrow().logs.iter().map(|l| (l.topic_id, l.partition)).collect();
        let mut targets = Vec::new();
        for (topic_id, number) in logs {
            let partition = self.shared.archive.partition(topic_id, number);
            let standing = self.stand(&partition).await?;
            let entries = entries(&self.shared.archive, topic_id, number, standing.branch).await?;
            let epochs: Vec<EpochEntry> = standing.epochs.iter().copied().map(EpochEntry::from).collect();
            let end = standing.chain.end_offset;
            let epoch = epoch_before(&epochs, end);
            let journal = continuation(&entries, end, epoch);
            targets.push(Target { journal, ..Target::new(topic_id, number) });
        }
        let new = NewSnapshot {
            targets: &targets,
            cluster_state: Some(Bytes::from_static(b"{}")),
            writer: &self.name,
            now_ms: 0,
            signer: None,
        };
        let snapshot = self.shared.archive.write_snapshot(&new).await?;
        self.shared.snapshots.borrow_mut().push(snapshot);
        Ok(())
    }

    async fn expire(&self) -> Result<()> {
        let archive = &self.shared.archive;
        let mut after: Option<BundleName> = None;
        while let Some(name) = archive.next_bundle(after.as_ref()).await? {
            if let Some(index) = archive.bundle(&name).await? {
                let mut ends = HashMap::new();
                for e in &index.entries {
                    let partition = archive.partition(e.topic_id, e.partition);
                    let start = partition.start_offset(e.branch).await?;
                    let end = partition.chain_end(e.branch, start, start).await?.end_offset;
                    ends.insert((e.topic_id, e.partition, e.branch), end);
                }
                let early = self.shared.broken == Broken::ExpiresTooEarly;
                let end = |t, p, b| if early { Some(i64::MAX) } else { ends.get(&(t, p, b)).copied() };
                archive.expire_bundle(&index, end).await?;
            }
            after = Some(name);
        }
        Ok(())
    }
}

/// All entries of a branch in the journal.
pub async fn entries(
    archive: &Archive,
    topic_id: Id,
    partition: i32,
    branch: u32,
) -> Result<Vec<varve_archive::record::state::JournalEntry>> {
    let (mut found, mut after) = (Vec::new(), None);
    while let Some(name) = archive.next_bundle(after.as_ref()).await? {
        let index = archive.bundle(&name).await?;
        let entries = index.iter().flat_map(|index| &index.entries);
        let ours = entries.filter(|e| (e.topic_id, e.partition, e.branch) == (topic_id, partition, branch));
        found.extend(ours.map(|e| e.in_snapshot(&name)));
        after = Some(name);
    }
    Ok(found)
}

fn start_of(e: &EpochEntry) -> EpochStart {
    EpochStart { epoch: e.epoch, start_offset: e.start_offset }
}

fn options(object_id: Id) -> WriteOptions {
    WriteOptions {
        frame_bytes: 4096,
        chunk_bytes: 4096,
        compression: Compression::None,
        digest: DigestAlgorithm::Blake3,
        encryption: None,
        object_id,
    }
}

fn segment(info: SegmentInfo, object_id: Id, batches: &[Batch]) -> Vec<u8> {
    let log: Vec<u8> = batches.iter().flat_map(Batch::bytes).collect();
    let plan = Plan::new(log.len() as u64, 4096, &[]).expect("a small log");
    let mut encoder = Encoder::new(options(object_id), plan).expect("good options");
    let mut object = Vec::new();
    encoder.frame(&log, &mut object).expect("one frame");
    encoder.finish(info, &mut object).expect("a legal footer");
    object
}
