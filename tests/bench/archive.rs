//! `cargo xtask bench archive`: a topic archived once, from a real broker to the filesystem, against a lean loop
//! that fetches the same raw batches over the same kind of session and writes them to one file; both in turn, in
//! one run. Prints ratios of time and CPU, and the resident memory of the command.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use varve_archiver::Archiver;
use varve_archiver::config::Config;
use varve_kafka::client::{FetchLimits, FetchSession, FetchTarget, OffsetSpec};
use varve_tests::{Cluster, Produce, Scratch, TestArchive, plain_client, runtime, varve};

use crate::measure::{self, Pairs, Sample, at_once, median};

const TOPIC: &str = "bench";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Of record batches, in MiB
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// none, zstd, or all
    #[arg(long, default_value = "all")]
    data: String,
    /// The archiver's budget, in MiB
    #[arg(long, default_value_t = 256)]
    memory_mib: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // As the command does.
    varve_archiver::resident::keep();
    for data in ["none", "zstd"] {
        if args.data == "all" || args.data == data {
            measure(args, data)?;
        }
    }
    Ok(())
}

fn measure(args: &Args, compression: &'static str) -> Result<()> {
    let cluster = Cluster::builder().heap_mib(1024).start()?;
    fill(args, &cluster, compression)?;
    let scratch = Scratch::new("bench-archive")?;
    let limits =
        format!("topics: {{ include: [\"{TOPIC}\"] }}\nlimits: {{ memory.bytes: {}MiB }}", args.memory_mib);
    for hash in ["blake3", "sha256"] {
        let ours = || archive(&cluster, scratch.path(), &limits, hash);
        let pairs = Pairs::run(args.runs, args.mib << 20, ours, || {
            lean_once(&cluster, args.partitions, scratch.path())
        })?;
        report(&format!("archive, {compression} data, {hash}"), &pairs);
    }
    let resident = resident(&cluster, scratch.path(), &limits)?;
    println!("  resident memory of the command: {resident:.0} MiB with a budget of {} MiB", args.memory_mib);
    Ok(())
}

fn report(what: &str, pairs: &Pairs) {
    let gib = pairs.bytes as f64 / f64::from(1 << 30);
    let seconds = |samples: &[Sample]| median(samples.iter().map(|s| s.seconds));
    let cpu = |samples: &[Sample]| median(samples.iter().map(|s| s.cpu_seconds));
    let (ours, limit) = (seconds(&pairs.ours), seconds(&pairs.limit));
    println!(
        "{what}: {:.2} of the lean loop's speed ({:.0} of {:.0} MiB/s), {:.2} times its CPU ({:.2} of {:.2} CPU-s/GiB)",
        limit / ours,
        gib * 1024.0 / ours,
        gib * 1024.0 / limit,
        cpu(&pairs.ours) / cpu(&pairs.limit),
        cpu(&pairs.ours) / gib,
        cpu(&pairs.limit) / gib,
    );
}

fn fill(args: &Args, cluster: &Cluster, compression: &'static str) -> Result<()> {
    let kafka = cluster.client();
    kafka.create_topic(TOPIC, args.partitions, 1, &[])?;
    // Text shrinks to a third or so.
    let records = (args.mib << 20) / u64::from(args.partitions) / 1024;
    at_once(args.partitions, |partition| {
        let produce = Produce {
            partition,
            count: records,
            batch_bytes: 1 << 19,
            compression,
            seed: u64::from(partition),
            ..Produce::default()
        };
        kafka.produce(TOPIC, &produce)
    })?;
    Ok(())
}

fn lean_once(cluster: &Cluster, partitions: u32, dir: &Path) -> Result<Sample> {
    let file = dir.join("lean");
    let sample = Sample::of(|| {
        let bytes = runtime()?.block_on(lean(cluster, partitions, &file))?;
        ensure!(bytes > 0, "nothing to fetch");
        Ok(())
    });
    std::fs::remove_file(&file)?;
    sample
}

/// Fetches all and writes it to one file, synced at the end.
async fn lean(cluster: &Cluster, partitions: u32, path: &Path) -> Result<u64> {
    let client = plain_client(&cluster.bootstrap())?;
    let topic = client.topic(TOPIC).await?;
    let numbers: Vec<i32> = (0..partitions).map(u32::cast_signed).collect();
    let ends = client.list_offsets(TOPIC, &numbers, OffsetSpec::Latest).await?;
    let mut limits = FetchLimits::new(client.config());
    limits.partition_max_bytes = 4 << 20;
    limits.max_bytes = 16 << 20;
    let node = topic.partitions.first().and_then(|p| p.leader_id).context("no leader")?;
    let mut session = FetchSession::new(&client, node, limits);
    for number in &numbers {
        session.set(FetchTarget::new(topic.topic_id, *number, 0));
    }
    let mut file = std::fs::File::create(path)?;
    let mut bytes = 0;
    while let Some(answer) = session.next().await? {
        for fetch in answer {
            let batches = fetch.outcome?;
            file.write_all(&batches.records)?;
            bytes += batches.records.len() as u64;
            let end = ends.get(&fetch.partition).copied().flatten().unwrap_or(0);
            if batches.next_offset >= end {
                session.remove(fetch.topic_id, fetch.partition);
            }
        }
    }
    file.sync_all()?;
    Ok(bytes)
}

fn config(cluster: &Cluster, dir: &Path, limits: &str, hash: &str) -> Result<TestArchive> {
    let old = dir.join("archive");
    if old.is_dir() {
        std::fs::remove_dir_all(&old)?;
    }
    let archive = TestArchive::new(dir, &cluster.bootstrap(), limits)?;
    let text = std::fs::read_to_string(archive.config())?;
    std::fs::write(archive.config(), text.replace("archive:\n", &format!("archive:\n  hash: {hash}\n")))?;
    Ok(archive)
}

fn archive(cluster: &Cluster, dir: &Path, limits: &str, hash: &str) -> Result<Sample> {
    let archive = config(cluster, dir, limits, hash)?;
    let config = Config::load(archive.config(), &[], &|_| None)?;
    Sample::of(|| {
        let outcome = runtime()?.block_on(async { Archiver::open(config).await?.run_once().await })?;
        ensure!(outcome.is_whole(), "not to the end: {:?}", outcome.unfinished);
        Ok(())
    })
}

/// MiB at the most, of the command by itself.
fn resident(cluster: &Cluster, dir: &Path, limits: &str) -> Result<f64> {
    let archive = config(cluster, dir, limits, "blake3")?;
    let mut child = varve()?
        .args(["archive", "run", "--once", "--json", "-c"])
        .arg(archive.config())
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let (mut peak_mib, started) = (0.0_f64, Instant::now());
    while child.try_wait()?.is_none() {
        ensure!(started.elapsed() < Duration::from_secs(300), "the archiver does not end");
        // It may have ended since.
        peak_mib = peak_mib.max(measure::peak_mib(child.id()).unwrap_or(0.0));
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(peak_mib)
}
