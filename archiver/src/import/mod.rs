//! Brokers' log directories as a source: data directories, copies of them, volume snapshots, tars.
//!
//! What is committed in the cluster (below the high watermark that the broker wrote down) is archived with the
//! guarantees of the service, by the same means. No broker is asked: a directory answers as its broker would. Several
//! directories may hold the same partition: the copy that reaches furthest is taken, those that agree with it are
//! checked and stand in where it is damaged, and those with another history make branches.

mod checkpoint;
mod error;
mod files;
mod fingerprint;
mod history;
mod log_dir;
mod partition;
mod reading;
mod tarball;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;
use varve_archive::record::state::JournalEntry;
use varve_archive::{Archive, NewSnapshot, Snapshot, Target};
use varve_format::Id;
use varve_store::{MemoryStore, Rate, SharedStore};

pub use error::{Fault, ImportError};
pub use log_dir::PassedOver;
pub use partition::{ImportedPartition, ImportedRange};

use crate::clock;
use crate::config::Config;
use crate::discovery::{DELETE_RETENTION_DEFAULT_MS, INDEX_INTERVAL_DEFAULT_BYTES};
use crate::journal;
use crate::memory::Memory;
use crate::segment::{Lane, Topic};
use crate::service::{Archiver, WRITER};
use crate::standing::Standing;
use error::Result;
use log_dir::{LogDir, Replica};
use partition::{Common, Work};

const PIECE_MAX_BYTES: u64 = 4 << 20;

/// What is imported, and how.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Log directories, and tars of them.
    pub sources: Vec<PathBuf>,
    /// Where meta.properties is not there.
    pub cluster_id: Option<String>,
    /// Brokers write to the directories.
    pub online: bool,
    /// Also what is in the segments that brokers append to.
    pub include_active: bool,
    /// Batches that fail their checks become gaps.
    pub gap_corrupt: bool,
    /// What only the brokers' tier has becomes a gap.
    pub gap_tiered: bool,
    /// Nothing is written.
    pub dry_run: bool,
}

/// How far an import is.
#[derive(Debug, Default)]
pub struct ImportProgress {
    total_bytes: AtomicU64,
    read_bytes: Arc<AtomicU64>,
}

impl ImportProgress {
    /// Of all files that may have to be read; 0 until they are known.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }
}

/// What an import came to.
#[derive(Debug)]
pub struct ImportOutcome {
    pub partitions: Vec<ImportedPartition>,
    pub passed_over: Vec<PassedOver>,
    /// None if nothing was looked at, or nothing was to be written.
    pub snapshot: Option<Snapshot>,
}

impl ImportOutcome {
    /// Whether all was archived, and nothing was found to be wrong.
    pub fn is_clean(&self) -> bool {
        self.partitions.iter().all(|p| p.error.is_none() && p.findings.is_empty())
            && self.passed_over.iter().all(|passed| !passed.is_wrong)
    }
}

/// An import, with its store open.
#[derive(Debug)]
pub struct Importer {
    archiver: Archiver,
    options: Arc<ImportOptions>,
    progress: Arc<ImportProgress>,
}

type Copies = BTreeMap<(Id, i32), Vec<Replica>>;

impl Importer {
    /// Opens the archive, or creates it; a dry run creates none.
    ///
    /// # Errors
    /// Of the store and the archive.
    pub async fn open(config: Config, options: ImportOptions) -> Result<Self> {
        let archiver = if options.dry_run { dry(config).await? } else { Archiver::open(config).await? };
        Ok(Self { archiver, options: Arc::new(options), progress: Arc::default() })
    }

    pub fn progress(&self) -> &Arc<ImportProgress> {
        &self.progress
    }

    /// Imports, and writes a snapshot of what the archive has then.
    ///
    /// # Errors
    /// What concerns the whole: a partition's troubles are part of the outcome.
    pub async fn run(&self) -> Result<ImportOutcome> {
        let (copies, passed_over) = self.look().await?;
        let total = copies.values().flatten().map(|r| r.bytes_from(r.first_offset())).sum();
        self.progress.total_bytes.store(total, Ordering::Relaxed);
        let mut entries = journal::found(&self.archiver.archive).await?.0;
        let (common, parallel) = self.common();
        let (mut tasks, mut partitions, mut targets) = (JoinSet::new(), Vec::new(), Vec::new());
        let mut waiting = copies.into_iter();
        loop {
            while tasks.len() < parallel
                && let Some((key, replicas)) = waiting.next()
            {
                let work = self.work(key, replicas, common.clone(), entries.remove(&key).unwrap_or_default());
                tasks.spawn(run(work));
            }
            let Some(done) = tasks.join_next().await else { break };
            let (report, target, bytes) =
                done.map_err(|_| crate::Error::Ended("the import of a partition"))?;
            // What needed not be read is done too.
            self.progress.total_bytes.fetch_sub(bytes.saturating_sub(report.read_bytes), Ordering::Relaxed);
            if let Some(error) = &report.error {
                tracing::warn!(
                    topic = report.topic,
                    partition = report.partition,
                    error,
                    "not imported as far as it could be"
                );
            }
            partitions.push(report);
            targets.extend(target);
        }
        partitions
            .sort_by(|a, b| (&a.topic, &a.topic_id, a.partition).cmp(&(&b.topic, &b.topic_id, b.partition)));
        let snapshot = if self.options.dry_run || targets.is_empty() {
            None
        } else {
            Some(self.snapshot(&targets).await?)
        };
        Ok(ImportOutcome { partitions, passed_over, snapshot })
    }

    /// All copies of all partitions that are wanted.
    async fn look(&self) -> Result<(Copies, Vec<PassedOver>)> {
        let (options, patterns) = (Arc::clone(&self.options), self.archiver.config.topics.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let wants = |topic: &str| patterns.wants(topic, false);
            let (mut copies, mut passed_over) = (Copies::new(), Vec::new());
            for source in &options.sources {
                for dir in log_dir::open(source, &wants, options.online)? {
                    let dir = Arc::new(with_cluster(dir, options.cluster_id.as_deref())?);
                    let (replicas, passed) = dir.replicas(&wants, options.include_active)?;
                    passed_over.extend(passed);
                    for replica in replicas {
                        copies.entry((replica.topic_id, replica.partition)).or_default().push(replica);
                    }
                }
            }
            Ok((copies, passed_over))
        });
        looked.await.map_err(|_| crate::Error::Ended("the look at the directories"))?
    }

    fn common(&self) -> (Common, usize) {
        let config = &self.archiver.config;
        let style = Arc::new(self.archiver.style());
        let memory_bytes = config.limits.memory_bytes;
        let piece_bytes = PIECE_MAX_BYTES.min(memory_bytes / 16);
        // Each partition holds a piece, a chunk and a part; all of them half of what there is, the rest is on its way.
        let each = piece_bytes + u64::from(style.chunk_bytes) + style.part_bytes as u64;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let parallel = usize::try_from(memory_bytes / 2 / each.max(1)).unwrap_or(usize::MAX).clamp(1, cores);
        let held = usize::try_from(memory_bytes - memory_bytes / 4).unwrap_or(usize::MAX);
        let common = Common {
            style,
            memory: Memory::new(held),
            rate: Rate::new(config.limits.read_rate),
            options: Arc::clone(&self.options),
            segment_bytes: config.segments.bytes,
            piece_bytes: usize::try_from(piece_bytes).unwrap_or(usize::MAX),
            read_bytes: Arc::clone(&self.progress.read_bytes),
        };
        (common, parallel)
    }

    fn work(
        &self,
        (topic_id, partition): (Id, i32),
        replicas: Vec<Replica>,
        common: Common,
        entries: Vec<JournalEntry>,
    ) -> Work {
        let name = replicas.first().map(|r| r.topic.clone()).unwrap_or_default();
        let cluster_id = replicas.first().and_then(|r| r.dir.cluster_id.clone()).unwrap_or_default();
        let cleaned = replicas.iter().any(|r| r.cleaned);
        let topic = Topic {
            topic_id,
            name: name.clone(),
            cluster_id,
            delete_retention_ms: cleaned.then_some(DELETE_RETENTION_DEFAULT_MS),
            index_interval_bytes: INDEX_INTERVAL_DEFAULT_BYTES,
        };
        let lane = Lane {
            archive: self.archiver.archive.clone(),
            store: Arc::clone(&self.archiver.store),
            sealing: Arc::clone(&self.archiver.sealing),
            topic: Arc::new(topic),
            partition,
        };
        let report = ImportedPartition {
            topic: name,
            topic_id: topic_id.to_string(),
            partition,
            ..ImportedPartition::default()
        };
        Work { common, lane, replicas, entries, report }
    }

    async fn snapshot(&self, targets: &[Target]) -> Result<Snapshot> {
        let new = NewSnapshot {
            targets,
            // No cluster was asked.
            documents: &[],
            writer: WRITER,
            now_ms: clock::now_ms(),
            signer: self.archiver.signer.as_ref(),
            trusted: &[],
        };
        Ok(self.archiver.archive.write_snapshot(&new).await?)
    }
}

/// What came of it, what the snapshot says of it, and how large all of its files are.
async fn run(work: Work) -> (ImportedPartition, Option<Target>, u64) {
    let (report, replicas) = (work.report.clone(), work.replicas.clone());
    let bytes = replicas.iter().map(|r| r.bytes_from(r.first_offset())).sum();
    match work.run().await {
        Ok((report, standing)) => {
            let target = target(&report, &replicas, &standing);
            (report, target, bytes)
        }
        Err(error) => (ImportedPartition { error: Some(error.to_string()), ..report }, None, bytes),
    }
}

/// What the snapshot says of a partition.
fn target(report: &ImportedPartition, replicas: &[Replica], standing: &Standing) -> Option<Target> {
    let first = replicas.first()?;
    let end = standing.journal.last().map_or(standing.end_offset, |last| last.end_offset);
    // A copy doesn't tell how far the log is by now. For compacted topics that counts: as long as nobody has seen the
    // end archived, deletions may be missing.
    let cleaned = replicas.iter().any(|r| r.cleaned);
    let log_end_offset = report.high_watermark.max(if cleaned { end + 1 } else { 0 });
    Some(Target {
        journal: standing.journal.clone(),
        log_start_offset: replicas.iter().map(|r| r.log_start_offset).max(),
        log_end_offset: Some(log_end_offset),
        ..Target::new(first.topic_id, first.partition)
    })
}

fn with_cluster(mut dir: LogDir, given: Option<&str>) -> Result<LogDir> {
    match (&dir.cluster_id, given) {
        (Some(found), Some(given)) if found != given => Err(ImportError::checkpoint(
            &dir.files.name("meta.properties"),
            format!("cluster.id={given}"),
            found,
        )),
        (None, None) => Err(ImportError::NoClusterId { path: dir.files.to_string() }),
        (None, Some(given)) => {
            dir.cluster_id = Some(given.to_owned());
            Ok(dir)
        }
        (Some(_), _) => Ok(dir),
    }
}

/// Over the archive that is there, or over none.
async fn dry(config: Config) -> Result<Archiver> {
    let store = varve_store::open(&config.archive.url, &config.archive.store_settings)
        .await
        .map_err(crate::Error::from)?;
    match Archive::open(store, "").await {
        Ok(archive) => Ok(Archiver::over(config, archive)?),
        Err(varve_archive::Error::Missing { .. }) => {
            let store: SharedStore = Arc::new(MemoryStore::new());
            let (id, hash) = (Id(rand::random()), config.archive.hash);
            let archive = Archive::create(store, "", id, hash, WRITER, clock::now_ms()).await?;
            Ok(Archiver::over(config, archive)?)
        }
        Err(error) => Err(error.into()),
    }
}
