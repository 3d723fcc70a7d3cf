//! Proves a snapshot: every hash, every chain, every object, as deep as asked for.
//!
//! Nothing is written. What does not hold is collected, not thrown: one finding does not hide the others. Errors
//! of the store (down, denied) end it, since they say nothing about the archive. Memory is bounded by one path of
//! the tree, one page of a listing and, for each object that is read in full, one frame.

use futures::{StreamExt, stream};
use varve_format::{DataKey, EncryptionInfo, Id};

use crate::archive::Archive;
use crate::error::{Error, Kind, Result};
use crate::hash::Hash;
use crate::journal::BundleName;
use crate::names;
use crate::prune::Pruned;
use crate::read::ObjectReader;
use crate::record::object::ObjectEntry;
use crate::record::snapshot::Signed;
use crate::record::state::{BranchState, PartitionState};
use crate::snapshots::Snapshot;

/// Findings that are kept; all are counted.
pub const FINDINGS_MAX: usize = 10_000;

/// How much of an object is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Depth {
    /// That it is there, in its size: by listing.
    #[default]
    Listed,
    /// Its footer against the snapshot.
    Footers,
    /// Every frame's checksum and every extent's digest.
    Contents,
}

/// Gives the data key of an encrypted object, where it is there.
pub type DataKeys<'a> = &'a (dyn Fn(Id, &EncryptionInfo) -> Option<DataKey> + Sync);

/// What is verified.
#[derive(Clone)]
pub struct VerifyOptions<'a> {
    pub depth: Depth,
    /// Of the objects, in millionths; 1,000,000 is all. The tree is always walked as a whole.
    pub sample_ppm: u32,
    pub seed: u64,
    /// Objects that are looked at at once.
    pub parallel: usize,
    /// Snapshots at or below this number are taken as verified.
    pub since: u64,
    /// If there are any, each snapshot that is looked at must be signed by one of them.
    pub trusted: &'a [[u8; 32]],
    pub data_keys: Option<DataKeys<'a>>,
}

impl Default for VerifyOptions<'_> {
    fn default() -> Self {
        Self {
            depth: Depth::Listed,
            sample_ppm: 1_000_000,
            seed: 0,
            parallel: 8,
            since: 0,
            trusted: &[],
            data_keys: None,
        }
    }
}

/// What was looked at so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    pub snapshots: u64,
    pub partitions: u64,
    pub objects: u64,
    pub bytes: u64,
    /// Of the whole snapshot, as its root says.
    pub objects_total: u64,
    pub findings: u64,
}

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub object: String,
    pub what: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Report {
    pub progress: Progress,
    pub findings: Vec<Finding>,
    /// Objects that were deleted on purpose, and are declared.
    pub pruned: u64,
    /// Encrypted objects whose digests could not be proven for want of a key; their checksums were.
    pub sealed: u64,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.progress.findings == 0
    }

    fn find(&mut self, object: impl Into<String>, what: impl ToString) {
        self.progress.findings = self.progress.findings.saturating_add(1);
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { object: object.into(), what: what.to_string() });
        }
    }

    /// A store that can't answer ends it; anything else is a finding.
    fn take<T>(&mut self, object: &str, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(e) if matches!(e.kind(), Kind::Retry | Kind::Denied) => Err(e),
            Err(e) => {
                self.find(object, e);
                Ok(None)
            }
        }
    }
}

struct Verifier<'a> {
    archive: &'a Archive,
    options: &'a VerifyOptions<'a>,
    pruned: Pruned,
    report: Report,
    progress: &'a (dyn Fn(Progress) + Sync),
}

impl Archive {
    /// Verifies snapshot `sequence`, and the snapshots before it back to `options.since`.
    ///
    /// # Errors
    /// Of the store alone, and [`Error::Missing`] for a snapshot that does not exist.
    pub async fn verify(
        &self,
        sequence: u64,
        options: &VerifyOptions<'_>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Report> {
        let mut report = Report::default();
        let pruned = self.pruned().await;
        let pruned = report.take(names::PRUNED, pruned)?.unwrap_or_default();
        let mut verifier = Verifier { archive: self, options, pruned, report, progress };
        verifier.run(sequence).await?;
        Ok(verifier.report)
    }
}

impl Verifier<'_> {
    async fn run(&mut self, sequence: u64) -> Result<()> {
        let name = self.archive.shelf.place(&names::snapshot(sequence));
        let found = self.archive.snapshot(sequence).await;
        let Some(found) = self.report.take(&name, found)? else { return Ok(()) };
        let snapshot = found.ok_or(Error::Missing { object: name.clone() })?;
        self.signature(&snapshot);
        self.before(&snapshot).await?;
        if let Some(document) = &snapshot.record.cluster_state {
            let found = self.archive.cluster_state(document).await;
            self.report.take(&name, found)?;
        }
        let root = snapshot.record.root.clone();
        self.report.progress.objects_total = root.as_ref().map_or(0, |r| r.objects);
        let mut walk = self.archive.partitions(root.as_ref());
        loop {
            let next = walk.next().await;
            match self.report.take("the tree", next)? {
                Some(Some(state)) => self.partition(&state).await?,
                Some(None) => return Ok(()),
                // That node is lost; the walk goes on behind it.
                None => {}
            }
        }
    }

    fn signature(&mut self, snapshot: &Snapshot) {
        self.report.progress.snapshots = self.report.progress.snapshots.saturating_add(1);
        if self.options.trusted.is_empty() {
            return;
        }
        let what = match snapshot.record.signed(self.options.trusted) {
            Signed::ByTrusted => return,
            Signed::Not => "not signed",
            Signed::Refused => "not signed by a key that is trusted",
        };
        self.report.find(self.archive.shelf.place(&names::snapshot(snapshot.record.sequence)), what);
    }

    /// The chain of snapshots. An older one counts as signed by those after it, which name its hash.
    async fn before(&mut self, newest: &Snapshot) -> Result<()> {
        let (mut sequence, mut expected) = (newest.record.sequence, newest.record.previous);
        while let Some(hash) = expected {
            sequence = sequence.saturating_sub(1);
            if sequence <= self.options.since {
                return Ok(());
            }
            let name = self.archive.shelf.place(&names::snapshot(sequence));
            let found = self.archive.snapshot(sequence).await;
            let Some(found) = self.report.take(&name, found)? else { return Ok(()) };
            let Some(snapshot) = found else {
                self.report.find(name, "missing");
                return Ok(());
            };
            if snapshot.hash != hash {
                self.report
                    .find(name, format!("expected {hash}, as the next one says, found {}", snapshot.hash));
            }
            self.report.progress.snapshots = self.report.progress.snapshots.saturating_add(1);
            (self.progress)(self.report.progress);
            expected = snapshot.record.previous;
        }
        Ok(())
    }

    async fn partition(&mut self, state: &PartitionState) -> Result<()> {
        for branch in &state.branches {
            self.branch(state, branch).await?;
            self.chain(state, branch).await?;
        }
        self.journal(state).await?;
        self.report.progress.partitions = self.report.progress.partitions.saturating_add(1);
        (self.progress)(self.report.progress);
        Ok(())
    }

    async fn branch(&mut self, state: &PartitionState, branch: &BranchState) -> Result<()> {
        let Some(hash) = branch.record else { return Ok(()) };
        let name = self.archive.shelf.place(&names::branch(state.topic_id, state.partition, branch.branch));
        let found = self.archive.partition(state.topic_id, state.partition).branch(branch.branch).await;
        let Some(found) = self.report.take(&name, found)? else { return Ok(()) };
        match found {
            None => self.report.find(&name, "missing"),
            Some((_, other)) if other != hash => {
                self.report.find(&name, format!("expected {hash}, found {other}"));
            }
            Some((record, _))
                if (record.parent, record.start_offset) != (branch.parent, branch.start_offset) =>
            {
                self.report.find(&name, "another parent or start than the snapshot has");
            }
            Some(_) => {}
        }
        let parent = branch.parent.and_then(|p| state.branches.iter().find(|b| b.branch == p));
        if parent.is_some_and(|p| p.end_offset.max(p.start_offset) < branch.start_offset) {
            self.report.find(name, "begins behind its parent's end");
        }
        Ok(())
    }

    /// The entries against a listing, page by page, and the objects as deep as asked for.
    async fn chain(&mut self, state: &PartitionState, branch: &BranchState) -> Result<()> {
        let partition = self.archive.partition(state.topic_id, state.partition);
        let mut objects = self.archive.objects(branch);
        let mut listed = Listed::new(branch.start_offset);
        let mut batch: Vec<ObjectEntry> = Vec::new();
        loop {
            let next = objects.next().await;
            let chain = names::chain_prefix(state.topic_id, state.partition, branch.branch);
            let Some(next) = self.report.take(&chain, next)? else { return Ok(()) };
            let end = next.is_none();
            if let Some(object) = next {
                let here = (state.topic_id, state.partition, branch.branch, object.first_offset);
                let pruned = self.pruned.holds(here.0, here.1, here.2, here.3);
                let name = partition.object_name(branch.branch, object.first_offset);
                let size = listed.size_at(&partition, branch.branch, object.first_offset).await?;
                for stray in listed.strays.drain(..) {
                    if !self.pruned.holds(here.0, here.1, here.2, stray) {
                        let name = partition.object_name(branch.branch, stray);
                        self.report.find(self.archive.shelf.place(&name), "in no snapshot, within the chain");
                    }
                }
                match size {
                    _ if pruned => self.report.pruned = self.report.pruned.saturating_add(1),
                    None => self.report.find(self.archive.shelf.place(&name), "missing"),
                    Some(size) if size != object.bytes => {
                        let what = format!("expected {} bytes, found {size}", object.bytes);
                        self.report.find(self.archive.shelf.place(&name), what);
                    }
                    Some(_) if self.sampled(&object.footer) => batch.push(object),
                    Some(_) => {}
                }
            }
            if end || batch.len() >= self.options.parallel.max(1).saturating_mul(8) {
                self.objects(state, branch, std::mem::take(&mut batch)).await?;
            }
            if end {
                return Ok(());
            }
        }
    }

    fn sampled(&self, footer: &Hash) -> bool {
        let drawn = self.archive.hash().of(&[&footer.0, &self.options.seed.to_be_bytes()]);
        let number = drawn.0.first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
        number % 1_000_000 < u64::from(self.options.sample_ppm)
    }

    async fn objects(
        &mut self,
        state: &PartitionState,
        branch: &BranchState,
        batch: Vec<ObjectEntry>,
    ) -> Result<()> {
        let (archive, options) = (self.archive, self.options);
        let looked = stream::iter(batch).map(|object| async move {
            let name = names::object(state.topic_id, state.partition, branch.branch, object.first_offset);
            let outcome = match options.depth {
                Depth::Listed => Ok(false),
                depth => look(archive, options, state, &name, &object, depth).await,
            };
            (name, object.bytes, outcome)
        });
        let mut looked = Box::pin(looked.buffer_unordered(options.parallel.max(1)));
        while let Some((name, bytes, outcome)) = looked.next().await {
            let sealed = self.report.take(&archive.shelf.place(&name), outcome)?;
            self.report.sealed = self.report.sealed.saturating_add(u64::from(sealed == Some(true)));
            let p = &mut self.report.progress;
            p.objects = p.objects.saturating_add(1);
            p.bytes = p.bytes.saturating_add(bytes);
            (self.progress)(self.report.progress);
        }
        Ok(())
    }

    /// Bundles that are still needed: those that no chain covers by now.
    async fn journal(&mut self, state: &PartitionState) -> Result<()> {
        let Some(current) = state.branches.last().filter(|_| !state.journal.is_empty()) else {
            return Ok(());
        };
        let partition = self.archive.partition(state.topic_id, state.partition);
        let from = self.archive.last_object(current).await;
        let Some(from) = self.report.take("a block", from)? else { return Ok(()) };
        let from = from.map_or(current.start_offset, |o| o.first_offset);
        let end = partition.chain_end(current.branch, current.start_offset, from).await;
        let chain = names::chain_prefix(state.topic_id, state.partition, current.branch);
        let Some(end) = self.report.take(&chain, end)? else { return Ok(()) };
        for entry in state.journal.iter().filter(|e| e.end_offset > end.end_offset) {
            let bundle = BundleName { archiver: entry.archiver.clone(), sequence: entry.sequence };
            let name = self.archive.shelf.place(&names::bundle(&bundle.archiver, bundle.sequence));
            let found = self.archive.bundle(&bundle).await;
            match self.report.take(&name, found)? {
                Some(None) => self.report.find(name, "missing, and no chain has its offsets"),
                Some(Some(index)) if !index.entries.iter().any(|e| e.in_snapshot(&bundle) == *entry) => {
                    self.report.find(name, "has not the entry that the snapshot names");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A listing of a chain that is read along with its entries.
struct Listed {
    from: i64,
    ready: std::collections::VecDeque<(i64, u64)>,
    more: bool,
    /// What is there between two entries.
    strays: Vec<i64>,
}

impl Listed {
    fn new(from: i64) -> Self {
        Self { from, ready: Default::default(), more: true, strays: Vec::new() }
    }

    /// The size of the object at `first_offset`; `None` if there is none. Offsets ascend.
    async fn size_at(
        &mut self,
        partition: &crate::partition::Partition<'_>,
        branch: u32,
        first_offset: i64,
    ) -> Result<Option<u64>> {
        loop {
            match self.ready.front() {
                Some((first, _)) if *first > first_offset => return Ok(None),
                Some((first, size)) => {
                    let (first, size) = (*first, *size);
                    self.ready.pop_front();
                    if first == first_offset {
                        return Ok(Some(size));
                    }
                    self.strays.push(first);
                }
                None if !self.more => return Ok(None),
                None => {
                    let (page, more) = partition.page(branch, self.from).await?;
                    self.more = more;
                    self.from = page.last().map_or(self.from, |(first, _)| first.saturating_add(1));
                    self.ready = page.into_iter().map(|(first, meta)| (first, meta.size_bytes)).collect();
                }
            }
        }
    }
}

/// Whether the digests stayed sealed.
async fn look(
    archive: &Archive,
    options: &VerifyOptions<'_>,
    state: &PartitionState,
    name: &str,
    object: &ObjectEntry,
    depth: Depth,
) -> Result<bool> {
    let mut reader = ObjectReader::open(archive, state.topic_id, state.partition, name, object).await?;
    if depth == Depth::Footers {
        return Ok(false);
    }
    let key = match (&reader.head().footer.encryption, options.data_keys) {
        (Some(info), Some(keys)) => keys(state.topic_id, info),
        _ => None,
    };
    reader.check_contents(key.as_ref()).await
}
