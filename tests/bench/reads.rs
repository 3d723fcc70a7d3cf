//! Reads of one segment: cold and warm, in order and at random, by one reader and by many.
//!
//! Cold means that the data is nowhere near, while the process is warm: one RemoteStorageManager reads a segment
//! that was copied a moment ago, its cache is full of the one before, and files are out of the page cache.

use std::cell::Cell;
use std::time::Instant;

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use varve_format::ExtentKind;
use varve_rsm::wire::SegmentMetadata;
use varve_store::Operation;

use crate::measure::{Pairs, Sample, at_once, quantile};
use crate::segment::Source;
use crate::stage::{Place, Stage};
use crate::tier::{Args, PARALLEL};

type Read = fn(&Stage, &SegmentMetadata, u64) -> Result<()>;

const WHOLE: Read = |stage, metadata, bytes| stage.read(metadata, 0, bytes);
const FETCHES: Read = Stage::read_by_fetches;

pub(crate) fn run(args: &Args, place: &Place, source: &Source) -> Result<()> {
    sequential(args, place, source, true, "cold sequential read, one stream", WHOLE)?;
    sequential(args, place, source, true, "cold sequential read, a stream for each MiB", FETCHES)?;
    if place.is_file() {
        sequential(args, place, source, false, "read of a file in the page cache, one stream", WHOLE)?;
        let name = "read of a file in the page cache, a stream for each MiB";
        sequential(args, place, source, false, name, FETCHES)?;
    }
    if place.is_delayed() {
        delayed(args, place, source)?;
    }
    parallel(args, place, source)?;
    ten_readers(args, place, source)?;
    warm(args, place, source)?;
    random(args, place, source)?;
    indexes(args, place, source)
}

/// Segments for one [`Stage`] after the other: each new to it, the one before deleted.
pub(crate) struct Fresh<'a> {
    place: &'a Place,
    source: &'a Source,
    writer: Stage,
    number: Cell<u32>,
}

impl<'a> Fresh<'a> {
    fn new(place: &'a Place, source: &'a Source) -> Result<Self> {
        Self::by(place, source, Stage::open(place, &[])?, 1_000_000)
    }

    /// Written by `writer`, and numbered from `number` on.
    pub(crate) fn by(place: &'a Place, source: &'a Source, writer: Stage, number: u32) -> Result<Self> {
        Ok(Self { place, source, writer, number: Cell::new(number) })
    }

    /// One more copy of the source; `cool` takes it out of the page cache.
    fn next(&self, cool: bool) -> Result<SegmentMetadata> {
        self.number.set(self.number.get() + 1);
        let metadata = self.writer.copy(self.source.request(self.number.get(), None))?;
        if cool {
            self.place.cool(&key_of(&metadata))?;
        }
        Ok(metadata)
    }

    fn drop(&self, metadata: &SegmentMetadata) -> Result<()> {
        self.writer.delete(metadata)
    }

    /// What `read` takes of a segment made for it.
    pub(crate) fn sample(
        &self,
        cool: bool,
        read: impl FnOnce(&SegmentMetadata) -> Result<()>,
    ) -> Result<Sample> {
        let metadata = self.next(cool)?;
        let sample = Sample::of(|| read(&metadata))?;
        self.drop(&metadata)?;
        Ok(sample)
    }

    /// Ours against the limit, each of a segment of its own; prints also the requests of our last run.
    fn compare(
        &self,
        args: &Args,
        name: &str,
        cool: bool,
        times: u64,
        ours: impl Fn(&Stage, &SegmentMetadata) -> Result<()>,
    ) -> Result<()> {
        let (stage, bytes) = (Stage::open(self.place, &[])?, self.source.bytes);
        let mut requests = 0;
        let pairs = Pairs::run(
            args.runs,
            bytes * times,
            || {
                let mut before = 0;
                let sample = self.sample(cool, |metadata| {
                    before = stage.counts.calls();
                    ours(&stage, metadata)
                })?;
                requests = stage.counts.calls() - before;
                Ok(sample)
            },
            || {
                self.sample(cool, |metadata| {
                    let key = key_of(metadata);
                    (0..times).try_for_each(|_| self.place.lean_read(&key, bytes))
                })
            },
        )?;
        pairs.print(name);
        println!("{:<52} {requests} requests", "");
        Ok(())
    }
}

fn sequential(args: &Args, place: &Place, source: &Source, cool: bool, name: &str, read: Read) -> Result<()> {
    if !args.wants(name) {
        return Ok(());
    }
    let ours = |stage: &Stage, metadata: &SegmentMetadata| read(stage, metadata, source.bytes);
    Fresh::new(place, source)?.compare(args, name, cool, 1, ours)
}

/// The same read by us, with and without the delay.
fn delayed(args: &Args, place: &Place, source: &Source) -> Result<()> {
    let name = "cold sequential read (limit: ours, not delayed)";
    if !args.wants(name) {
        return Ok(());
    }
    let (fresh, bytes) = (Fresh::new(place, source)?, source.bytes);
    let (ours, undelayed) = (Stage::open(place, &[])?, Stage::undelayed(place)?);
    let read = |stage: &Stage| fresh.sample(true, |metadata| stage.read(metadata, 0, bytes));
    Pairs::run(args.runs, bytes, || read(&ours), || read(&undelayed))?.print(name);
    Ok(())
}

/// Cold readers at once, each of a segment of its own.
fn parallel(args: &Args, place: &Place, source: &Source) -> Result<()> {
    let name = format!("{PARALLEL} cold readers, each of its own segment");
    if !args.wants(&name) {
        return Ok(());
    }
    let (fresh, stage) = (Fresh::new(place, source)?, Stage::open(place, &[])?);
    let with_segments = |read: &(dyn Fn(&SegmentMetadata) -> Result<()> + Sync)| {
        let copied: Vec<_> = (0..PARALLEL).map(|_| fresh.next(true)).collect::<Result<_>>()?;
        let sample = Sample::of(|| at_once(PARALLEL, |n| read(&copied[n as usize])).map(drop))?;
        copied.iter().try_for_each(|metadata| fresh.drop(metadata))?;
        Ok(sample)
    };
    let pairs = Pairs::run(
        args.runs,
        source.bytes * u64::from(PARALLEL),
        || with_segments(&|metadata| stage.read(metadata, 0, source.bytes)),
        || with_segments(&|metadata| place.lean_read(&key_of(metadata), source.bytes)),
    )?;
    pairs.print(&name);
    Ok(())
}

/// Ten cold readers of one segment at once: each chunk is to be fetched once.
fn ten_readers(args: &Args, place: &Place, source: &Source) -> Result<()> {
    let name = "10 cold readers of one segment (limit: one by one)";
    if !args.wants(name) {
        return Ok(());
    }
    let ours = |stage: &Stage, metadata: &SegmentMetadata| {
        at_once(10, |_| stage.read(metadata, 0, source.bytes)).map(drop)
    };
    Fresh::new(place, source)?.compare(args, name, false, 10, ours)
}

fn warm(args: &Args, place: &Place, source: &Source) -> Result<()> {
    let name = "warm read, one stream";
    if !args.wants(name) {
        return Ok(());
    }
    let cached = source.bytes.min(256 << 20);
    let fresh = Fresh::new(place, source)?;
    let metadata = fresh.next(false)?;
    let stage = Stage::open(place, &[("cache.memory.bytes", (1_u64 << 30).to_string())])?;
    stage.read(&metadata, 0, cached)?;
    let mut samples = Vec::new();
    for _ in 0..args.runs.max(5) {
        samples.push(Sample::of(|| (0..4).try_for_each(|_| stage.read(&metadata, 0, cached)))?);
    }
    let gib = (cached * 4) as f64 / f64::from(1 << 30);
    let per_core = quantile(samples.iter().map(|s| gib / s.cpu_seconds), 0.5);
    let per_second = quantile(samples.iter().map(|s| gib / s.seconds), 0.5);
    println!("{name:<52} {per_second:.2} GiB/s, {per_core:.2} GiB for each CPU-s");
    fresh.drop(&metadata)
}

/// The first 64 KiB at random positions, cold: one after the other, and the limit likewise.
fn random(args: &Args, place: &Place, source: &Source) -> Result<()> {
    let name = "first 64 KiB at a random position, read";
    if !args.wants(name) {
        return Ok(());
    }
    const READ: u64 = 64 << 10;
    let (fresh, stage, bytes) = (Fresh::new(place, source)?, Stage::open(place, &[])?, source.bytes);
    let metadata = fresh.next(true)?;
    let mut rng = SmallRng::seed_from_u64(1);
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    // The broker fetches indexes before it reads: the footer is there.
    stage.index(&metadata, ExtentKind::OffsetIndex)?;
    let mut lean = place.lean_ranges(&key_of(&metadata))?;
    for _ in 0..300 {
        let at = rng.random_range(0..bytes - READ);
        limit.push(lean(at, READ as usize)?.as_secs_f64() * 1e3);
        let at = rng.random_range(0..bytes - READ);
        let start = Instant::now();
        stage.read(&metadata, at, READ)?;
        ours.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let q = |v: &[f64], p| quantile(v.iter().copied(), p);
    println!(
        "{name:<52} p50 {:.2} ms (limit {:.2}), p99 {:.2} ms (limit {:.2}, ratio {:.2})",
        q(&ours, 0.5),
        q(&limit, 0.5),
        q(&ours, 0.99),
        q(&limit, 0.99),
        q(&ours, 0.99) / q(&limit, 0.99)
    );
    fresh.drop(&metadata)
}

fn indexes(args: &Args, place: &Place, source: &Source) -> Result<()> {
    let name = "all indexes, cold read";
    if !args.wants(name) {
        return Ok(());
    }
    let (fresh, stage) = (Fresh::new(place, source)?, Stage::open(place, &[])?);
    let metadata = fresh.next(false)?;
    let start = Instant::now();
    for kind in [
        ExtentKind::OffsetIndex,
        ExtentKind::TimeIndex,
        ExtentKind::ProducerSnapshot,
        ExtentKind::LeaderEpochs,
    ] {
        stage.index(&metadata, kind)?;
    }
    println!(
        "{name:<52} {:.1} ms, {} requests",
        start.elapsed().as_secs_f64() * 1e3,
        stage.counts.of(Operation::Get).calls
    );
    fresh.drop(&metadata)
}

fn key_of(metadata: &SegmentMetadata) -> String {
    varve_format::segment_name(&varve_format::SegmentName {
        cluster_id: "bench".into(),
        topic_id: metadata.topic_id,
        partition: metadata.partition,
        base_offset: metadata.start_offset,
        segment_id: metadata.segment_id,
    })
}
