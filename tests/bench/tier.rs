//! Copies and reads of the tier, scenario by scenario.

use std::time::Instant;

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use varve_format::ExtentKind;
use varve_rsm::wire::SegmentMetadata;
use varve_tests::Scratch;

use crate::measure::{Pairs, Sample, quantile};
use crate::segment::{Data, Source};
use crate::stage::{Place, Stage};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// file, s3, delay (S3 with 30 ms on each answer), or all
    #[arg(long, default_value = "all")]
    store: String,
    /// Sizes of segments, in MiB
    #[arg(long, value_delimiter = ',', default_value = "256,1024")]
    sizes: Vec<u64>,
    /// Counted runs of each
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// copy, read, or all
    #[arg(long, default_value = "all")]
    only: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let scratch = Scratch::new("bench-source")?;
    let wants = |what: &str| args.only == "all" || args.only == what;
    for store in ["file", "s3", "delay"] {
        if args.store != "all" && args.store != store {
            continue;
        }
        for mib in &args.sizes {
            let place = match store {
                "file" => Place::file()?,
                "s3" => Place::s3(0)?,
                _ => Place::s3(30)?,
            };
            println!("\n{} store, segments of {mib} MiB, median of {} runs", place.name(), args.runs);
            Pairs::header();
            let plain = Source::make(scratch.path(), Data::Plain, mib << 20, 1)?;
            if wants("copy") {
                copies(args, &place, &plain)?;
                let dense = Source::make(scratch.path(), Data::Zstd, mib << 20, 2)?;
                copy(
                    args,
                    &place,
                    &dense,
                    "copy, zstd'd data, compression=auto",
                    &[("compression", "auto")],
                )?;
            }
            if wants("read") {
                reads(args, &place, &plain)?;
            }
        }
    }
    Ok(())
}

fn copies(args: &Args, place: &Place, source: &Source) -> Result<()> {
    copy(args, place, source, "copy, digest=none", &[("digest", "none")])?;
    copy(args, place, source, "copy, digest=blake3", &[])?;
    copy(args, place, source, "copy, compression=zstd", &[("compression", "zstd")])?;
    let ring = Scratch::new("bench-keys")?;
    let file = ring.path().join("ring.json");
    std::fs::write(&file, r#"{"active":"k","keys":{"k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}}"#)?;
    let encrypted =
        [("encryption.enabled", "true"), ("encryption.key.ring.file", file.to_str().unwrap_or_default())];
    copy(args, place, source, "copy, encrypted", &encrypted)
}

fn copy(args: &Args, place: &Place, source: &Source, name: &str, config: &[(&str, &str)]) -> Result<()> {
    let config: Vec<_> = config.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    let stage = Stage::open(place, &config)?;
    let mut attempt = 0;
    let mut last = None;
    let pairs = Pairs::run(
        args.runs,
        source.bytes,
        || {
            // The one before is deleted outside the measured time: the disk stays as full as it was.
            if let Some(metadata) = last.take() {
                stage.delete(&metadata)?;
            }
            attempt += 1;
            let request = source.request(attempt, None);
            Sample::of(|| {
                last = Some(stage.copy(request)?);
                Ok(())
            })
        },
        || Sample::of(|| place.lean_copy(&[&source.log])),
    )?;
    pairs.print(name);
    let before = stage.counts.calls();
    stage.copy(source.request(attempt + 1, None))?;
    println!("{:<52} {} requests for one copy", "", stage.counts.calls() - before);
    Ok(())
}

fn reads(args: &Args, place: &Place, source: &Source) -> Result<()> {
    let writer = Stage::open(place, &[])?;
    let metadata = writer.copy(source.request(1_000_000, None))?;
    let key = key_of(&metadata);
    let bytes = source.bytes;
    let lean = || Sample::of(|| place.lean_read(&key, bytes));
    let mut requests = 0;
    let cold = Pairs::run(
        args.runs,
        bytes,
        || {
            let stage = Stage::open(place, &[])?;
            let sample = Sample::of(|| stage.read(&metadata, 0, bytes))?;
            requests = stage.counts.calls();
            Ok(sample)
        },
        lean,
    )?;
    cold.print("cold sequential read, one stream");
    println!("{:<52} {requests} requests", "");
    let fetches = Pairs::run(
        args.runs,
        bytes,
        || {
            let stage = Stage::open(place, &[])?;
            let sample = Sample::of(|| stage.read_by_fetches(&metadata, bytes))?;
            requests = stage.counts.calls();
            Ok(sample)
        },
        lean,
    )?;
    fetches.print("cold sequential read, a stream for each MiB");
    println!("{:<52} {requests} requests", "");
    ten_readers(args, place, &metadata, bytes)?;
    warm(args, place, &metadata, bytes)?;
    random(place, &metadata, &key, bytes)?;
    indexes(place, &metadata)
}

/// Ten cold readers of one segment at once: each chunk is to be fetched once.
fn ten_readers(args: &Args, place: &Place, metadata: &SegmentMetadata, bytes: u64) -> Result<()> {
    let mut requests = 0;
    let mut read = || {
        let stage = Stage::open(place, &[])?;
        let sample = Sample::of(|| {
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..10).map(|_| scope.spawn(|| stage.read(metadata, 0, bytes))).collect();
                threads
                    .into_iter()
                    .try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?)
            })
        });
        requests = stage.counts.calls();
        sample
    };
    let key = key_of(metadata);
    let pairs = Pairs::run(args.runs.min(3), bytes * 10, &mut read, || {
        Sample::of(|| (0..10).try_for_each(|_| place.lean_read(&key, bytes)))
    })?;
    pairs.print("10 cold readers of one segment (limit: one by one)");
    println!("{:<52} {requests} requests", "");
    Ok(())
}

fn warm(args: &Args, place: &Place, metadata: &SegmentMetadata, bytes: u64) -> Result<()> {
    let cached = bytes.min(256 << 20);
    let stage = Stage::open(place, &[("cache.memory.bytes", (1_u64 << 30).to_string())])?;
    stage.read(metadata, 0, cached)?;
    let mut samples = Vec::new();
    for _ in 0..args.runs.max(5) {
        samples.push(Sample::of(|| (0..4).try_for_each(|_| stage.read(metadata, 0, cached)))?);
    }
    let gib = (cached * 4) as f64 / f64::from(1 << 30);
    let per_core = quantile(samples.iter().map(|s| gib / s.cpu_seconds), 0.5);
    let per_second = quantile(samples.iter().map(|s| gib / s.seconds), 0.5);
    println!("{:<52} {:.2} GiB/s, {:.2} GiB for each CPU-s", "warm read, one stream", per_second, per_core);
    Ok(())
}

/// The first 64 KiB at random positions, cold: one after the other, and the limit likewise.
fn random(place: &Place, metadata: &SegmentMetadata, key: &str, bytes: u64) -> Result<()> {
    const READ: u64 = 64 << 10;
    let mut rng = SmallRng::seed_from_u64(1);
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    let stage = Stage::open(place, &[])?;
    // The broker fetches indexes before it reads: the footer is there.
    stage.index(metadata, ExtentKind::OffsetIndex)?;
    let mut lean = place.lean_ranges(key)?;
    for _ in 0..300 {
        let at = rng.random_range(0..bytes - READ);
        limit.push(lean(at, READ as usize)?.as_secs_f64() * 1e3);
        let at = rng.random_range(0..bytes - READ);
        let start = Instant::now();
        stage.read(metadata, at, READ)?;
        ours.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let q = |v: &[f64], p| quantile(v.iter().copied(), p);
    println!(
        "{:<52} p50 {:.2} ms (limit {:.2}), p99 {:.2} ms (limit {:.2}, ratio {:.2})",
        "first 64 KiB at a random position",
        q(&ours, 0.5),
        q(&limit, 0.5),
        q(&ours, 0.99),
        q(&limit, 0.99),
        q(&ours, 0.99) / q(&limit, 0.99)
    );
    Ok(())
}

fn indexes(place: &Place, metadata: &SegmentMetadata) -> Result<()> {
    let stage = Stage::open(place, &[])?;
    let start = Instant::now();
    for kind in [
        ExtentKind::OffsetIndex,
        ExtentKind::TimeIndex,
        ExtentKind::ProducerSnapshot,
        ExtentKind::LeaderEpochs,
    ] {
        stage.index(metadata, kind)?;
    }
    println!(
        "{:<52} {:.1} ms, {} requests",
        "all indexes, cold",
        start.elapsed().as_secs_f64() * 1e3,
        stage.counts.calls()
    );
    Ok(())
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
