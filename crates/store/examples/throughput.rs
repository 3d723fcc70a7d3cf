//! How fast and lean a store is, against the plainest program that moves the same bytes.
//!
//! `cargo run --release -p varve-store --example throughput -- URL [MiB] [PART_KiB] [PARALLEL] [name=value ...]`
//!
//! Each line: what, MiB/s, CPU seconds of this process per GiB. For a `file://` URL a loop of read, write and fsync
//! is measured beside it, round by round, so that both meet the same disk.

#![allow(clippy::unwrap_used, reason = "a measurement that fails is no measurement")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use varve_store::{CountingStore, GetRange, Key, PutOptions, SharedStore, Store, delete, open};

const ROUNDS: usize = 5;

struct Meter(Instant, f64);

fn cpu_seconds() -> f64 {
    // User and system time of all threads, in clock ticks.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

impl Meter {
    fn start() -> Self {
        Self(Instant::now(), cpu_seconds())
    }

    fn stop(self, what: &str, bytes: u64) -> (String, f64, f64) {
        let (wall, cpu) = (self.0.elapsed().as_secs_f64(), cpu_seconds() - self.1);
        let (rate, lean) = (bytes as f64 / (1 << 20) as f64 / wall, cpu / (bytes as f64 / (1 << 30) as f64));
        (what.to_owned(), rate, lean)
    }
}

fn lean_copy(source: &Path, target: &Path) {
    let (mut from, mut to) = (File::open(source).unwrap(), File::create(target).unwrap());
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = from.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        to.write_all(&buffer[..read]).unwrap();
    }
    to.sync_all().unwrap();
}

fn lean_read(source: &Path) -> u64 {
    let (mut from, mut buffer, mut sum) = (File::open(source).unwrap(), vec![0; 1 << 20], 0);
    loop {
        let read = from.read(&mut buffer).unwrap();
        if read == 0 {
            return sum;
        }
        sum += read as u64;
    }
}

async fn store_copy(store: &dyn Store, source: &Path, key: &Key, part_bytes: usize, parallel: usize) {
    let size = std::fs::metadata(source).unwrap().len();
    let upload = store.upload(key, part_bytes as u64, Some(size), &PutOptions::default()).await.unwrap();
    let file = Arc::new(parking_lot::Mutex::new(File::open(source).unwrap()));
    let parts = stream::unfold(1_u32, |number| {
        let file = Arc::clone(&file);
        async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut part = Vec::with_capacity(part_bytes);
                (&mut *file.lock()).take(part_bytes as u64).read_to_end(&mut part).unwrap();
                Bytes::from(part)
            });
            let part = read.await.unwrap();
            (!part.is_empty()).then_some(((number, part), number + 1))
        }
    });
    let sent = parts.map(|(number, part)| upload.put_part(number, part)).buffer_unordered(parallel);
    sent.try_collect::<Vec<()>>().await.unwrap();
    upload.complete().await.unwrap();
}

async fn store_read(store: &dyn Store, key: &Key, chunk: u64, size: u64, parallel: usize) -> (u64, u64) {
    let read = stream::iter((0..size.div_ceil(chunk)).map(|n| async move {
        let range = GetRange::Bounded { start: n * chunk, end: (n + 1) * chunk };
        let mut body = store.get(key, range).await.unwrap().body;
        let (mut sum, mut pieces) = (0, 0);
        while let Some(piece) = body.try_next().await.unwrap() {
            sum += piece.len() as u64;
            pieces += 1;
        }
        (sum, pieces)
    }));
    read.buffer_unordered(parallel).fold((0, 0), |a, b| async move { (a.0 + b.0, a.1 + b.1) }).await
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (settings, plain): (Vec<_>, Vec<_>) = arguments.into_iter().skip(1).partition(|a| a.contains('='));
    let url = std::env::args().nth(1).unwrap_or_else(|| "file:///tmp/varve-throughput".to_owned());
    let number = |at: usize, default: usize| plain.get(at).map_or(default, |n: &String| n.parse().unwrap());
    let settings: BTreeMap<String, String> = settings
        .iter()
        .map(|s| s.split_once('=').unwrap())
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect();
    let inner: SharedStore = open(&url, &settings).await.unwrap();
    let limits = inner.limits();
    let size_bytes = (number(0, 512) << 20) as u64;
    let part_bytes = number(1, (limits.preferred_part_bytes >> 10) as usize) << 10;
    let parallel = number(2, limits.preferred_parallel_parts);
    let counting = CountingStore::new(inner);
    let key = Key::new("throughput/object").unwrap();

    let folder = url.strip_prefix("file://").map_or_else(std::env::temp_dir, PathBuf::from);
    let source = folder.join("throughput-source");
    let mut random = vec![0_u8; 1 << 20];
    File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
    let mut file = File::create(&source).unwrap();
    for n in 0..size_bytes >> 20 {
        random[..8].copy_from_slice(&n.to_le_bytes());
        file.write_all(&random).unwrap();
    }
    file.sync_all().unwrap();

    println!("{url}: {} MiB, parts of {} KiB, {parallel} at once", size_bytes >> 20, part_bytes >> 10);
    let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut note = |(what, rate, lean): (String, f64, f64)| lines.entry(what).or_default().push((rate, lean));
    for round in 0..ROUNDS {
        if url.starts_with("file:") {
            let target = folder.join("throughput-target");
            let meter = Meter::start();
            tokio::task::block_in_place(|| lean_copy(&source, &target));
            note(meter.stop("copy lean", size_bytes));
            std::fs::remove_file(target).unwrap();
            let meter = Meter::start();
            assert_eq!(tokio::task::block_in_place(|| lean_read(&source)), size_bytes);
            note(meter.stop("read lean", size_bytes));
        }
        let before = counting.counts().calls();
        let meter = Meter::start();
        store_copy(&counting, &source, &key, part_bytes, parallel).await;
        note(meter.stop("copy store", size_bytes));
        let requests = counting.counts().calls() - before;
        for (what, chunk, parallel) in
            [("read whole", size_bytes, 1), ("read 4 MiB", 4 << 20, 1), ("read 4 MiB x4", 4 << 20, 4)]
        {
            let meter = Meter::start();
            let (bytes, pieces) = store_read(&counting, &key, chunk, size_bytes, parallel.max(1)).await;
            assert_eq!(bytes, size_bytes);
            note(meter.stop(what, size_bytes));
            if round == 0 {
                println!("{what}: pieces of {} KiB on average", (bytes / pieces) >> 10);
            }
        }
        // Outside of what is measured, as for the lean loop.
        delete(&counting, &key).await.unwrap();
        if round == 0 {
            println!("{requests} calls to copy");
        }
    }
    for (what, mut rounds) in lines {
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (rate, _) = rounds[rounds.len() / 2];
        let lean = rounds.iter().map(|round| round.1).sum::<f64>() / rounds.len() as f64;
        println!("{what:14} {rate:7.0} MiB/s {lean:6.2} CPU-s/GiB");
    }
    std::fs::remove_file(source).unwrap();
}
