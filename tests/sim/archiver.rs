//! An archiver as docs/ARCHIVE-FORMAT.md has it, over the model brokers. It can be told to break a rule: then the
//! invariants must see it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use varve_archive::record::branch::{BranchReason, BranchRecord, EpochEntry, epoch_before, newest_epochs};
use varve_archive::record::bundle::BundleEntry;
use varve_archive::record::gap::{GapReason, GapRecord};
use varve_archive::record::state::JournalEntry;
use varve_archive::record::topic::TopicRecord;
use varve_archive::{
    Archive, BundleBuilder, BundleName, ChainEnd, ChainEpochs, Commit, Coverage, NewSnapshot, Partition,
    Place, Point, Result, Snapshot, Started, Target, V1, Verdict, continuation, lineage, names,
};
use varve_format::{Compression, DigestAlgorithm, Encoder, EpochStart, Id, Plan, SegmentInfo, WriteOptions};

use crate::promise::{self, Promise};
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
    /// The same archive without troubles: what an onlooker sees.
    pub calm: Archive,
    pub promises: Rc<RefCell<Vec<Promise>>>,
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
            more: Vec::new(),
        };
        archive.add_topic(&record).await?;
        let partition = archive.partition(topic_id, partition);
        let standing = self.stand(&partition).await?;
        let leader = |this: &Self| this.shared.world.borrow().logs[log].leaders[view].clone();
        if !self.is_sure(log, &standing, leader(self).epoch) {
            let (journal, verdict) = self.ask(&partition, &standing, || leader(self)).await?;
            match verdict {
                Verdict::Continues => {}
                Verdict::DivergesAt(_) | Verdict::StartsAnewAt(_) if !journal.is_empty() => {
                    self.rescue(&partition, &topic, &standing, &journal).await?;
                    return Ok(true);
                }
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
    ) -> Result<(Vec<JournalEntry>, Verdict)> {
        let journal = self.joining(partition, standing).await?;
        let end = journal.last().map_or(standing.chain.end_offset, |e| e.end_offset);
        let seen_under = standing.records.last().map_or(-1, |r| r.leader_epoch);
        let record = |n: u32| standing.records.iter().find(|r| r.branch == n);
        let begins_at = lineage(standing.branch, record).first().map_or(0, |s| s.start_offset);
        let of = |epochs: Vec<EpochStart>| {
            let epochs = with_journal(epochs, &journal);
            ChainEpochs::new(&epochs, end).seen_under(seen_under).begins_at(begins_at)
        };
        let (mut epochs, mut complete) = (of(standing.epochs.clone()), false);
        if epochs.is_stale(leader().epoch) {
            return Ok((journal, Verdict::Stale));
        }
        let Some(mut asked) = epochs.last_epoch() else {
            return Ok((journal, epochs.judge_without_epochs(leader().answer(0))));
        };
        loop {
            match epochs.judge(asked, leader().answer(asked), complete) {
                Verdict::Ask(epoch) => asked = epoch,
                Verdict::NeedsEpochsBelow(_) => {
                    let all = self.all_epochs(partition, standing).await?;
                    (epochs, complete) = (of(all), true);
                }
                verdict => return Ok((journal, verdict)),
            }
        }
    }

    /// What the journal has behind the chain, whoever wrote it.
    async fn joining(&self, partition: &Partition<'_>, standing: &Standing) -> Result<Vec<JournalEntry>> {
        let entries =
            entries(&self.shared.archive, partition.topic_id, partition.partition, standing.branch).await?;
        let epochs: Vec<EpochEntry> = standing.epochs.iter().copied().map(EpochEntry::from).collect();
        let end = standing.chain.end_offset;
        Ok(continuation(&entries, end, epoch_before(&epochs, end)))
    }

    /// Makes a segment of what the journal has: before a gap or a branch would leave it behind.
    async fn rescue(
        &mut self,
        partition: &Partition<'_>,
        topic: &str,
        standing: &Standing,
        journal: &[JournalEntry],
    ) -> Result<()> {
        let from = standing.chain.end_offset;
        let (mut at, mut batches) = (from, Vec::new());
        for entry in journal {
            let name = BundleName { archiver: entry.archiver.clone(), sequence: entry.sequence };
            let Some(index) = self.shared.archive.bundle(&name).await? else { return Ok(()) };
            let same = |e: &&BundleEntry| e.in_snapshot(&name) == *entry;
            let Some(entry) = index.entries.iter().find(same) else { return Ok(()) };
            let Some((head, object)) = self.shared.archive.bundle_object(&name, entry).await? else {
                return Ok(());
            };
            let log = Batch::parse(&object[..head.footer.log_bytes as usize]);
            batches.extend(log.into_iter().filter(|b| b.end > at));
            at = entry.end_offset;
        }
        let before = standing.epochs.iter().rev().find(|e| e.start_offset < from.max(1)).copied();
        let leader_epochs = with_journal(before.into_iter().collect(), journal);
        let leader_epochs = leader_epochs.into_iter().filter(|e| e.start_offset < at).collect();
        let info = self.info(partition, topic, leader_epochs, from, at);
        let object = segment(info, self.shared.rng.id(), &batches);
        partition.commit(standing.branch, from, Bytes::from(object)).await.map(|_| ())
    }

    async fn all_epochs(&self, partition: &Partition<'_>, standing: &Standing) -> Result<Vec<EpochStart>> {
        partition.lineage_epochs(&standing.records, standing.branch, standing.chain.end_offset).await
    }

    async fn branch(
        &self,
        partition: &Partition<'_>,
        standing: &Standing,
        parent: Option<u32>,
        offset: i64,
        leader: &Leader,
    ) -> Result<()> {
        let lineage = match parent {
            Some(_) => self.all_epochs(partition, standing).await?,
            None => Vec::new(),
        };
        let known = lineage.into_iter().filter(|e| e.start_offset < offset);
        let mut record = BranchRecord {
            varve_branch: V1,
            topic_id: partition.topic_id,
            partition: partition.partition,
            branch: standing.branch + 1,
            parent,
            start_offset: offset,
            reason: BranchReason::Divergence,
            leader_epoch: leader.epoch,
            leader_epochs: newest_epochs(known),
            detail: None,
            writer: self.name.clone(),
            created_ms: 0,
            more: Vec::new(),
        };
        match partition.start_branch(&mut record).await? {
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
            let journal = self.joining(partition, standing).await?;
            if !journal.is_empty() {
                self.rescue(partition, topic, standing, &journal).await?;
                return Ok(true);
            }
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
        if gap.is_some() {
            let journal = self.joining(partition, standing).await?;
            if !journal.is_empty() {
                self.rescue(partition, topic, standing, &journal).await?;
                return Ok(true);
            }
        }
        let end = gap.as_ref().map_or_else(|| batches.last().map_or(at, |b| b.end), |(end, _)| *end);
        let key = match self.shared.broken {
            Broken::KeyedByOwnBase if gap.is_none() => batches.first().map_or(at, |b| b.base),
            _ => at,
        };
        let info = self.info(partition, topic, known_epochs(standing, &source, key, end), key, end);
        let object_id = self.shared.rng.id();
        let is_gap = gap.is_some();
        let object = match gap {
            Some((_, reason)) => GapRecord::new(reason, None).object(info, options(object_id))?.0,
            None => segment(info, object_id, &batches),
        };
        if !is_gap && self.shared.rng.percent(25) {
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
        leader_epochs: Vec<EpochStart>,
        base: i64,
        end: i64,
    ) -> SegmentInfo {
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
            let joined = self.joining(&partition, &standing).await?;
            let end_offset = joined.last().map_or(standing.chain.end_offset, |e| e.end_offset);
            let point = Point { branch: standing.branch, end_offset };
            let point = Some(point).filter(|_| self.shared.rng.percent(70));
            targets.push(Target { journal: entries, point, ..Target::new(topic_id, number) });
        }
        let new = NewSnapshot {
            targets: &targets,
            documents: &[],
            writer: &self.name,
            now_ms: 0,
            signer: None,
            trusted: &[],
        };
        let snapshot = self.shared.archive.write_snapshot(&new).await?;
        if self.shared.broken == Broken::Nothing {
            let made = promise::of(&self.shared.calm, &snapshot).expect("a recovery point can be read");
            self.shared.promises.borrow_mut().extend(made);
        }
        self.shared.snapshots.borrow_mut().push(snapshot);
        Ok(())
    }

    async fn expire(&self) -> Result<()> {
        let archive = &self.shared.archive;
        let mut after: Option<BundleName> = None;
        while let Some(name) = archive.next_bundle(after.as_ref()).await? {
            if let Some(index) = archive.bundle(&name).await? {
                if self.shared.broken == Broken::ExpiresTooEarly {
                    let key = archive.shelf().key(&names::bundle(&name.archiver, name.sequence))?;
                    varve_store::delete(archive.shelf().store(), &key).await?;
                } else {
                    archive.expire_bundle(&index, &mut Coverage::new(archive)).await?;
                }
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
) -> Result<Vec<JournalEntry>> {
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

/// Field 13 of an object: the lineage's last epoch before it, and what begins in it.
fn known_epochs(standing: &Standing, source: &Leader, base: i64, end: i64) -> Vec<EpochStart> {
    let before = standing.epochs.iter().rev().find(|e| e.start_offset < base.max(1)).copied();
    let mut known: Vec<EpochStart> = before.into_iter().collect();
    for e in source.epochs.iter().filter(|e| e.start_offset < end) {
        let begins = source.epochs.iter().find(|n| n.epoch > e.epoch).map_or(i64::MAX, |n| n.start_offset);
        if begins > base && known.last().is_none_or(|l| l.epoch < e.epoch) {
            known.push(EpochStart { start_offset: e.start_offset.max(base), ..*e });
        }
    }
    known
}

/// What the journal adds to a chain's epochs.
fn with_journal(mut epochs: Vec<EpochStart>, journal: &[JournalEntry]) -> Vec<EpochStart> {
    for e in journal.iter().flat_map(|entry| &entry.leader_epochs) {
        if epochs.last().is_none_or(|l| l.epoch < e.epoch && l.start_offset < e.start_offset) {
            epochs.push(start_of(e));
        }
    }
    epochs
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
