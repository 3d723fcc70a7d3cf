//! Proves a snapshot: every hash, every chain, every object, as deep as asked for.
//!
//! Where the store keeps versions, all names are looked at first: what is hidden or overwritten is read by its
//! version, and is a finding too.
//!
//! Nothing is written. What does not hold is collected, not thrown: one finding does not hide the others. Errors
//! of the store (down, denied) end it, since they say nothing about the archive. Partitions are looked at side by
//! side. Memory is bounded by one path of the tree and, for each partition under way, one page of a listing and, for
//! each object that is read in full, one frame.

mod history;
mod listed;
mod partition;
mod told;
mod versions;

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use varve_format::{DataKey, EncryptionInfo, Id};

use crate::archive::Archive;
use crate::coverage::Coverage;
use crate::error::{Error, Result};
use crate::log::JournalView;
use crate::names;
use crate::oldest::Displaced;
use crate::prune::Pruned;
use told::Told;

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
    /// Partitions that are looked at at once, and objects that are read at once.
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
}

struct Verifier<'a> {
    archive: &'a Archive,
    options: &'a VerifyOptions<'a>,
    at_once: Semaphore,
    pruned: RwLock<Pruned>,
    journal: JournalView,
    coverage: tokio::sync::Mutex<Coverage<'a>>,
    topics: Mutex<HashMap<Id, Arc<OnceCell<Option<String>>>>>,
    report: Told<'a>,
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
            at_once: Semaphore::new(options.parallel.max(1)),
            pruned: RwLock::default(),
            journal: JournalView::default(),
            coverage: tokio::sync::Mutex::new(Coverage::new(self)),
            topics: Mutex::default(),
            report: Told::new(progress),
        };
        let survey = verifier.survey().await?;
        verifier.run(sequence).await?;
        verifier.judge(survey).await?;
        Ok(verifier.report.end())
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
        if self.pruned.read().gave_up(sequence) {
            self.report.lock().given_up = true;
            return Ok(());
        }
        for document in &snapshot.record.documents {
            let found = self.archive.document(document).await;
            self.report.take(&name, found)?;
        }
        let journal = self.archive.journal_of(&snapshot.record, |_, _| true).await;
        self.journal = self.report.take(&name, journal)?.unwrap_or_default();
        let root = snapshot.record.root.as_ref();
        self.report.count(|p| p.objects_total = root.map_or(0, |r| r.objects));
        let this = &*self;
        let walk = this.archive.partitions(root);
        let states = stream::unfold(walk, |mut walk| async {
            loop {
                match this.report.take("the tree", walk.next().await) {
                    Ok(Some(state)) => return state.map(|state| (Ok(state), walk)),
                    // That node is lost; the walk goes on behind it.
                    Ok(None) => {}
                    Err(error) => return Some((Err(error), walk)),
                }
            }
        });
        let looked = states.map(|state| async { this.partition(&state?).await });
        let mut looked = Box::pin(looked.buffer_unordered(this.options.parallel.max(1)));
        while let Some(outcome) = looked.next().await {
            outcome?;
        }
        Ok(())
    }

    /// To look into one object.
    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.at_once.acquire().await.ok()
    }
}
