//! `varve verify --depth contents`, and reading a partition's history in order, against a lean loop that reads the
//! same files and hashes them, or only reads them.
//!
//! The archive is made below the temporary folder, of segments that can't be compressed, and removed at the end.
//! All is in the page cache: what is measured is what we add to the reading, not the disk.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::TryStreamExt as _;
use rand::rngs::SmallRng;
use rand::{RngCore as _, SeedableRng as _};
use varve_archive::record::topic::TopicRecord;
use varve_archive::{
    Archive, Commit, Depth, HashAlgorithm, JournalView, NewSnapshot, PieceContent, Target, V1, VerifyOptions,
};
use varve_format::{Compression, DigestAlgorithm, Encoder, ExtentKind, Id, Plan, SegmentInfo, WriteOptions};
use varve_store::{FilesystemStore, GetRange, SharedStore};
use varve_tests::Scratch;

use crate::measure::{Pairs, Sample};

const TOPIC: Id = Id([1; 16]);
const FRAME_BYTES: u32 = 64 << 10;
const CHUNK_BYTES: u32 = 4 << 20;
/// What a lean loop reads at once.
const READ_BYTES: usize = 512 << 10;
const INDEX_BYTES: usize = 256 << 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Segments
    #[arg(long, default_value_t = 8)]
    segments: u32,
    /// Size of a segment, in MiB
    #[arg(long, default_value_t = 256)]
    mib: u32,
    /// How often each is measured
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Objects that are looked at at once; as the command does, the number of cores
    #[arg(long)]
    parallel: Option<usize>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // As the command does.
    varve_archiver::resident::keep();
    let scratch = Scratch::new("bench-verify")?;
    let runtime = tokio::runtime::Runtime::new()?;
    for digest in [HashAlgorithm::Blake3, HashAlgorithm::Sha256] {
        let root = scratch.path().join(format!("{digest:?}"));
        std::fs::create_dir_all(&root)?;
        let archive = runtime.block_on(make(&root, digest, args))?;
        let files = files(&root)?;
        let bytes: u64 = files.iter().map(|f| f.metadata().map_or(0, |m| m.len())).sum();
        let cores = std::thread::available_parallelism()?.get();
        println!("\n{} segments of {} MiB, {digest:?}, {cores} cores", args.segments, args.mib);
        Pairs::header();
        let verify = || Sample::of(|| runtime.block_on(verified(&archive, args)));
        let hashed = || Sample::of(|| lean(&files, cores, Some(digest.digest())));
        let pairs = Pairs::run(args.runs, bytes, verify, hashed)?;
        pairs.print("verify: read and hash, all cores");
        let one = VerifyArgs { parallel: 1, ..VerifyArgs::of(args) };
        let verify = || Sample::of(|| runtime.block_on(verified_by(&archive, one)));
        let hashed = || Sample::of(|| lean(&files, 1, Some(digest.digest())));
        Pairs::run(args.runs, bytes, verify, hashed)?.print("verify, an object at a time: one thread");
        let read = || Sample::of(|| runtime.block_on(read(&archive)));
        let raw = || Sample::of(|| runtime.block_on(store_alone(&archive)));
        Pairs::run(args.runs, bytes, read, raw)?.print("log read in order: the store alone");
        drop(archive);
        std::fs::remove_dir_all(&root)?;
    }
    Ok(())
}

async fn make(root: &Path, hash: HashAlgorithm, args: &Args) -> Result<Archive> {
    let store: SharedStore = Arc::new(FilesystemStore::open(root)?);
    let archive = Archive::create(store, "", Id([9; 16]), hash, "bench", 1).await?;
    let topic = TopicRecord {
        varve_topic: V1,
        topic_id: TOPIC,
        topic: "bench".into(),
        cluster_id: "bench".into(),
        partitions: Some(1),
        writer: "bench".into(),
        created_ms: 1,
        more: Vec::new(),
    };
    archive.add_topic(&topic).await?;
    let mut random = SmallRng::seed_from_u64(1);
    for number in 0..args.segments {
        let object = segment(number, args, hash.digest(), &mut random)?;
        let committed = archive.partition(TOPIC, 0).commit(0, number.into(), object).await?;
        ensure!(matches!(committed, Commit::Committed), "{committed:?}");
    }
    let targets = [Target::new(TOPIC, 0)];
    let new = NewSnapshot {
        targets: &targets,
        documents: &[],
        writer: "bench",
        now_ms: 1,
        signer: None,
        trusted: &[],
    };
    archive.write_snapshot(&new).await?;
    Ok(archive)
}

fn segment(number: u32, args: &Args, digest: DigestAlgorithm, random: &mut SmallRng) -> Result<Bytes> {
    let log_bytes = u64::from(args.mib) << 20;
    let sections = [(ExtentKind::OffsetIndex, INDEX_BYTES as u64)];
    let plan = Plan::new(log_bytes, CHUNK_BYTES, &sections)?;
    let mut object_id = [0; 16];
    random.fill_bytes(&mut object_id);
    let options = WriteOptions {
        frame_bytes: FRAME_BYTES,
        chunk_bytes: CHUNK_BYTES,
        compression: Compression::None,
        digest,
        encryption: None,
        object_id: Id(object_id),
    };
    let mut encoder = Encoder::new(options, plan)?;
    let mut object = Vec::with_capacity(usize::try_from(log_bytes)? + (1 << 20));
    let mut frame = vec![0; FRAME_BYTES as usize];
    while let Some(bytes) = encoder.next_frame_bytes() {
        let frame = frame.get_mut(..bytes).context("a frame is too long")?;
        random.fill_bytes(frame);
        encoder.frame(frame, &mut object)?;
    }
    let info = SegmentInfo {
        writer: "bench".into(),
        cluster_id: "bench".into(),
        topic_id: TOPIC,
        topic: "bench".into(),
        partition: 0,
        segment_id: None,
        base_offset: number.into(),
        last_offset: number.into(),
        max_timestamp_ms: -1,
        created_ms: 1,
        broker_id: None,
        leader_epochs: vec![],
        observed: vec![],
    };
    encoder.finish(info, &mut object)?;
    Ok(Bytes::from(object))
}

/// The segments, in order.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join(format!("topics/{TOPIC}/0/0"));
    let mut files = std::fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

#[derive(Clone, Copy)]
struct VerifyArgs {
    parallel: usize,
    segments: u64,
}

impl VerifyArgs {
    fn of(args: &Args) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { parallel: args.parallel.unwrap_or(cores), segments: args.segments.into() }
    }
}

async fn verified(archive: &Archive, args: &Args) -> Result<()> {
    verified_by(archive, VerifyArgs::of(args)).await
}

async fn verified_by(archive: &Archive, args: VerifyArgs) -> Result<()> {
    let options =
        VerifyOptions { depth: Depth::Contents, parallel: args.parallel, ..VerifyOptions::default() };
    let report = archive.verify(1, &options, &|_| {}).await?;
    ensure!(report.is_sound() && report.progress.objects == args.segments, "{report:?}");
    Ok(())
}

/// Reads the files in as many threads, and hashes what it reads.
fn lean(files: &[PathBuf], threads: usize, digest: Option<DigestAlgorithm>) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut file = File::open(path)?;
            let mut hasher = digest.and_then(DigestAlgorithm::hasher);
            loop {
                let n = file.read(&mut buffer)?;
                let Some(read) = buffer.get(..n).filter(|b| !b.is_empty()) else { break };
                if let Some(hasher) = &mut hasher {
                    hasher.update(read);
                }
            }
            std::hint::black_box(hasher.map(varve_format::Hasher::finish));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })
}

async fn read(archive: &Archive) -> Result<()> {
    let snapshot = archive.latest_snapshot(0).await?.context("no snapshot")?;
    let state = archive.find(snapshot.record.root.as_ref(), TOPIC, 0).await?.context("no partition")?;
    let reader = archive.log_reader(Some(&snapshot.record)).await?;
    let log = reader.at(&state, None, &JournalView::default())?;
    let mut pieces = log.pieces(0);
    while let Some(piece) = pieces.next().await? {
        ensure!(matches!(piece.content, PieceContent::Segment(_)), "{piece:?}");
        let object = log.open(&piece).await?.context("no object")?;
        let mut stream = object.read(0, 4)?;
        while let Some(bytes) = stream.next().await? {
            std::hint::black_box(&bytes);
        }
    }
    Ok(())
}

/// The same objects, as the store gives them.
async fn store_alone(archive: &Archive) -> Result<()> {
    let partition = archive.partition(TOPIC, 0);
    let end = partition.chain_end(0, 0, 0).await?.end_offset;
    for first in 0..end {
        let mut got = archive.shelf().store().get(&partition.object_key(0, first)?, GetRange::Full).await?;
        while let Some(bytes) = got.body.try_next().await? {
            std::hint::black_box(&bytes);
        }
    }
    Ok(())
}
