//! Proves a snapshot: every hash, every chain, every object, as deep as asked for.
//!
//! Where the store keeps versions, all names are looked at first: what is hidden or overwritten is read by its
//! version, and is a finding too.
//!
//! Nothing is written. What does not hold is collected, not thrown: one finding does not hide the others. Errors
//! of the store (down, denied) end it, since they say nothing about the archive. Memory is bounded by one path of
//! the tree, one page of a listing and, for each object that is read in full, one frame.

mod versions;

use std::collections::HashMap;

use futures::{StreamExt, stream};
use varve_format::{DataKey, EncryptionInfo, Id};

use crate::archive::Archive;
use crate::coverage::{Coverage, Stay};
use crate::error::{Error, Kind, Result};
use crate::hash::Hash;
use crate::journal::continuation_to;
use crate::lineage::lineage_of;
use crate::log::JournalView;
use crate::names;
use crate::oldest::Displaced;
use crate::prune::Pruned;
use crate::read::ObjectReader;
use crate::record::object::ObjectEntry;
use crate::record::snapshot::{RecordRef, Signable, Signature, Signed};
use crate::record::state::{BranchState, JournalEntry, PartitionState};
use crate::snapshots::Snapshot;

/// Findings that are kept; all are counted.
pub const FINDINGS_MAX: usize = 10_000;
/// Numbers without a record between two snapshots that are looked at.
const STRAYS_MAX: u64 = 1000;

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
    /// If there are any, the snapshot must be signed by one of them, and pruning records too or they don't count.
    /// Snapshots before it are proven by their hashes.
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
    pub kind: FindingKind,
    pub object: String,
    pub what: String,
}

/// What it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// The archive itself does not hold.
    Broken,
    /// The object holds, and a plain read does not find it.
    Displaced(Displaced),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Report {
    pub progress: Progress,
    pub findings: Vec<Finding>,
    /// Objects that were deleted on purpose, and are declared.
    pub pruned: u64,
    /// The snapshot's tree was given up, as is declared: its record was looked at, and those before.
    pub given_up: bool,
    /// Whether the store keeps versions, and they were looked at.
    pub versions: bool,
    /// Encrypted objects whose digests could not be proven for want of a key; their checksums were.
    pub sealed: u64,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.progress.findings == 0
    }

    fn find(&mut self, object: impl Into<String>, what: impl ToString) {
        self.add(Finding { kind: FindingKind::Broken, object: object.into(), what: what.to_string() });
    }

    fn add(&mut self, finding: Finding) {
        self.progress.findings = self.progress.findings.saturating_add(1);
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
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
    journal: JournalView,
    coverage: Coverage<'a>,
    topics: HashMap<Id, Option<String>>,
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
        let mut verifier = Verifier {
            archive: self,
            options,
            pruned: Pruned::default(),
            journal: JournalView::default(),
            coverage: Coverage::new(self),
            topics: HashMap::new(),
            report: Report::default(),
            progress,
        };
        let survey = verifier.survey().await?;
        verifier.run(sequence).await?;
        verifier.judge(survey).await?;
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
        self.pruning(&snapshot).await?;
        if self.pruned.gave_up(sequence) {
            self.report.given_up = true;
            return Ok(());
        }
        for document in &snapshot.record.documents {
            let found = self.archive.document(document).await;
            self.report.take(&name, found)?;
        }
        let journal = self.archive.journal_of(&snapshot.record, |_, _| true).await;
        self.journal = self.report.take(&name, journal)?.unwrap_or_default();
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
        let own = snapshot.record.signature.as_ref().and_then(Signature::key);
        let any: Vec<[u8; 32]> = own.into_iter().collect();
        let given = !self.options.trusted.is_empty();
        let what = match snapshot.record.signed(if given { self.options.trusted } else { &any }) {
            Signed::ByTrusted => return,
            Signed::Not if !given => return,
            Signed::Not => "not signed",
            Signed::Refused if given => "not signed by a key that is trusted",
            Signed::Refused => "its signature is not over what it says",
        };
        self.report.find(self.archive.shelf.place(&names::snapshot(snapshot.record.sequence)), what);
    }

    /// The chain of snapshots. An older one counts as signed by those after it, which name its hash.
    async fn before(&mut self, newest: &Snapshot) -> Result<()> {
        let (mut at, mut skips) = (newest.record.clone(), HashMap::new());
        while let Some(RecordRef { sequence, hash }) = at.previous {
            self.strays(sequence, at.sequence).await?;
            if sequence <= self.options.since {
                return Ok(());
            }
            skips.extend(at.skip.map(|skip| (skip.sequence, skip.hash)));
            let name = self.archive.shelf.place(&names::snapshot(sequence));
            let found = self.archive.snapshot(sequence).await;
            let Some(found) = self.report.take(&name, found)? else { return Ok(()) };
            let Some(snapshot) = found else {
                self.report.find(name, "missing");
                return Ok(());
            };
            let skipped = skips.remove(&sequence);
            if let Some(hash) = [Some(hash), skipped].into_iter().flatten().find(|h| *h != snapshot.hash) {
                let what = format!("expected {hash}, as a later one says, found {}", snapshot.hash);
                self.report.find(name, what);
            }
            self.report.progress.snapshots = self.report.progress.snapshots.saturating_add(1);
            (self.progress)(self.report.progress);
            at = snapshot.record;
        }
        self.strays(0, at.sequence).await
    }

    /// Numbers that were stepped over.
    async fn strays(&mut self, after: u64, before: u64) -> Result<()> {
        for number in after.saturating_add(1)..before.min(after.saturating_add(STRAYS_MAX)) {
            let name = names::snapshot(number);
            if self.archive.shelf.get(&name, 0).await?.is_some() {
                self.report.find(self.archive.shelf.place(&name), "no snapshot of this archive's history");
            }
        }
        Ok(())
    }

    /// What was declared pruned since the snapshot, as far as it is true; what was before is in its tree.
    async fn pruning(&mut self, snapshot: &Snapshot) -> Result<()> {
        let folded = snapshot.record.pruned.map_or(0, |p| p.sequence);
        let pruned = self.archive.pruned(folded, self.options.trusted).await;
        let Some(pruned) = self.report.take(names::PRUNED, pruned)? else { return Ok(()) };
        for number in pruned.refused() {
            let what = "no pruning record, or not signed by a key that is trusted: it counts for nothing";
            self.report.find(self.archive.shelf.place(&names::pruned(*number)), what);
        }
        let mut number = folded;
        let last = pruned.last().map_or(0, |p| p.sequence);
        while number < last {
            number = number.saturating_add(1);
            if pruned.refused().contains(&number) {
                continue;
            }
            let name = self.archive.shelf.place(&names::pruned(number));
            let found = self.archive.pruned_record(number).await;
            let Some(Some((record, reference))) = self.report.take(&name, found)? else { continue };
            if pruned.gave_up(record.snapshot) {
                self.pruned.add(&record, reference);
                continue;
            }
            let odd = self.archive.undeclarable(&record).await;
            match self.report.take(&name, odd)? {
                Some(None) => self.pruned.add(&record, reference),
                Some(Some(range)) => {
                    self.report
                        .find(name, format!("{range} is not what its snapshot has: it does not count"));
                }
                None => {}
            }
        }
        Ok(())
    }

    async fn partition(&mut self, state: &PartitionState) -> Result<()> {
        self.pruned.add_state(state);
        self.topic(state).await?;
        for branch in &state.branches {
            self.branch(state, branch).await?;
            self.chain(state, branch).await?;
        }
        self.journal(state).await?;
        self.report.progress.partitions = self.report.progress.partitions.saturating_add(1);
        (self.progress)(self.report.progress);
        Ok(())
    }

    /// The name that the snapshot has against the topic's record.
    async fn topic(&mut self, state: &PartitionState) -> Result<()> {
        let name = names::topic(state.topic_id);
        if !self.topics.contains_key(&state.topic_id) {
            let found = self.archive.topic(state.topic_id).await;
            let found = self.report.take(&self.archive.shelf.place(&name), found)?;
            self.topics.insert(state.topic_id, found.flatten().map(|t| t.topic));
        }
        let found = self.topics.get(&state.topic_id).cloned().flatten();
        if state.topic.is_some() && state.topic != found {
            let what = format!("expected topic {:?}, found {found:?}", state.topic);
            self.report.find(self.archive.shelf.place(&name), what);
        }
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
            self.report.find(&name, "begins behind its parent's end");
        }
        let of = |n: u32| state.branches.iter().find(|b| b.branch == n).map(|b| (b.parent, b.start_offset));
        if branch.parent.is_some_and(|p| {
            lineage_of(p, of).first().is_none_or(|first| first.start_offset >= branch.start_offset)
        }) {
            self.report.find(name, "begins at or below all that its parent goes back to");
        }
        Ok(())
    }

    /// The entries against a listing, page by page, and the objects as deep as asked for.
    async fn chain(&mut self, state: &PartitionState, branch: &BranchState) -> Result<()> {
        let partition = self.archive.partition(state.topic_id, state.partition);
        let mut objects = self.archive.objects(branch);
        let mut listed = Listed::new(branch.start_offset);
        let mut batch: Vec<(ObjectEntry, bool)> = Vec::new();
        loop {
            let next = objects.next().await;
            let chain = names::chain_prefix(state.topic_id, state.partition, branch.branch);
            let Some(next) = self.report.take(&chain, next)? else { return Ok(()) };
            let end = next.is_none();
            if let Some(object) = next {
                let here = (state.topic_id, state.partition, branch.branch, object.first_offset);
                let pruned = self.pruned.holds(here.0, here.1, here.2, here.3);
                let name = partition.object_name(branch.branch, object.first_offset);
                let mut size = listed.size_at(&partition, branch.branch, object.first_offset).await?;
                if pruned && self.archive.shelf.oldest().is_hidden(&self.archive.shelf.key(&name)?) {
                    size = None;
                }
                for stray in listed.strays.drain(..) {
                    if !self.pruned.holds(here.0, here.1, here.2, stray) {
                        let name = partition.object_name(branch.branch, stray);
                        self.report.find(self.archive.shelf.place(&name), "in no snapshot, within the chain");
                    }
                }
                match size {
                    None if pruned => self.report.pruned = self.report.pruned.saturating_add(1),
                    None => self.report.find(self.archive.shelf.place(&name), "missing"),
                    // What lies there is not what was pruned, and counts for nothing.
                    Some(size) if pruned && size != object.bytes => {
                        self.report.pruned = self.report.pruned.saturating_add(1);
                    }
                    Some(size) if size != object.bytes => {
                        let what = format!("expected {} bytes, found {size}", object.bytes);
                        self.report.find(self.archive.shelf.place(&name), what);
                    }
                    Some(_) if self.sampled(&object.footer) => batch.push((object, pruned)),
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
        batch: Vec<(ObjectEntry, bool)>,
    ) -> Result<()> {
        let (archive, options) = (self.archive, self.options);
        let looked = stream::iter(batch).map(|(object, pruned)| async move {
            let name = names::object(state.topic_id, state.partition, branch.branch, object.first_offset);
            let outcome = match options.depth {
                Depth::Listed => Ok(false),
                _ => look(archive, options, state, &name, &object).await,
            };
            (name, object.bytes, pruned, outcome)
        });
        let mut looked = Box::pin(looked.buffer_unordered(options.parallel.max(1)));
        while let Some((name, bytes, pruned, outcome)) = looked.next().await {
            if pruned && outcome.as_ref().is_err_and(|e| e.kind() == Kind::Corrupt) {
                self.report.pruned = self.report.pruned.saturating_add(1);
                continue;
            }
            let sealed = self.report.take(&archive.shelf.place(&name), outcome)?;
            self.report.sealed = self.report.sealed.saturating_add(u64::from(sealed == Some(true)));
            let p = &mut self.report.progress;
            p.objects = p.objects.saturating_add(1);
            p.bytes = p.bytes.saturating_add(bytes);
            (self.progress)(self.report.progress);
        }
        Ok(())
    }

    /// What the snapshot promises of the journal: in its bundles, or by now in the chain, the very same.
    async fn journal(&mut self, state: &PartitionState) -> Result<()> {
        let Some(goal) = &state.journal else { return Ok(()) };
        let (from, epoch) = (state.chain_end(), state.chains.as_ref().and_then(|c| c.last_epoch));
        let mut entries = self.journal.entries(state.topic_id, state.partition).to_vec();
        entries.retain(|e| e.branch == state.branch());
        if let Some(way) = continuation_to(&entries, from, epoch, goal) {
            for entry in way.iter().filter(|_| self.options.depth > Depth::Listed) {
                let name = self.archive.shelf.place(&names::bundle(&entry.archiver, entry.sequence));
                let looked = look_into(self.archive, self.options, state, entry).await;
                let sealed = self.report.take(&name, looked)?;
                self.report.sealed = self.report.sealed.saturating_add(u64::from(sealed == Some(true)));
            }
            return Ok(());
        }
        let stay = Stay {
            topic_id: state.topic_id,
            partition: state.partition,
            branch: state.branch(),
            first_offset: from,
            end_offset: goal.end_offset,
            last_epoch: goal.last_epoch,
        };
        let here = (state.topic_id, state.partition, state.branch());
        if self.pruned.holds(here.0, here.1, here.2, from) || self.coverage.has(&stay).await? {
            return Ok(());
        }
        let chain = names::chain_prefix(here.0, here.1, here.2);
        let what = format!("offsets {from} to {} are in no bundle and no chain has them", goal.end_offset);
        self.report.find(self.archive.shelf.place(&chain), what);
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
) -> Result<bool> {
    let mut reader = ObjectReader::open(archive, state.topic_id, state.partition, name, object).await?;
    let topic = &reader.head().footer.info.topic;
    if state.topic.as_ref().is_some_and(|expected| expected != topic) {
        let expected = format!("topic {}", state.topic.as_deref().unwrap_or_default());
        return Err(Error::mistaken(archive.shelf.place(name), expected, format!("topic {topic}")));
    }
    check(&mut reader, options, state.topic_id).await
}

/// The same of an entry of the journal.
async fn look_into(
    archive: &Archive,
    options: &VerifyOptions<'_>,
    state: &PartitionState,
    entry: &JournalEntry,
) -> Result<bool> {
    let mut reader = ObjectReader::in_bundle(archive, state.topic_id, state.partition, entry).await?;
    check(&mut reader, options, state.topic_id).await
}

/// Whether the digests stayed sealed.
async fn check(reader: &mut ObjectReader<'_>, options: &VerifyOptions<'_>, topic_id: Id) -> Result<bool> {
    if options.depth == Depth::Footers {
        return Ok(false);
    }
    let key = match (&reader.head().footer.encryption, options.data_keys) {
        (Some(info), Some(keys)) => keys(topic_id, info),
        _ => None,
    };
    reader.check_contents(key.as_ref()).await
}
