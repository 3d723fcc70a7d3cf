//! `cargo xtask bench scale`: what many partitions cost an archiver: quiet ones that get a record now and then, full
//! ones at once, and idle ones. Requests are counted by the archiver's own metrics, per operation; a day is told
//! from a shorter time with a shorter RPO, since requests follow the number of RPOs that have passed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use varve_tests::{Cluster, Look, Produce, Running, Scratch, TestArchive, eventually};

use crate::measure::peak_mib;

const PER_TOPIC: u32 = 100;
const DAY_SECONDS: f64 = 86_400.0;
/// The RPO that a day is told for.
const USUAL_RPO_SECONDS: f64 = 60.0;
const LIMIT: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Partitions that get records
    #[arg(long, default_value_t = 1000)]
    quiet: u32,
    /// Partitions that get none; 0 leaves that part out
    #[arg(long, default_value_t = 10_000)]
    idle: u32,
    /// Of record batches in each partition, for the resident memory, in KiB
    #[arg(long, default_value_t = 1024)]
    kib: u64,
    #[arg(long, default_value_t = 6)]
    rpo_seconds: u64,
    /// How long quiet partitions are watched
    #[arg(long, default_value_t = 240)]
    seconds: u64,
    /// The archiver's budget, in MiB
    #[arg(long, default_value_t = 256)]
    memory_mib: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    quiet(args)?;
    full(args)?;
    if args.idle > 0 {
        idle(args)?;
    }
    Ok(())
}

fn cluster(partitions: u32) -> Result<Cluster> {
    let cluster = Cluster::builder().heap_mib(2048).property("log.index.size.max.bytes", 4096).start()?;
    for number in 0..partitions.div_ceil(PER_TOPIC) {
        cluster.client().create_topic(&topic(number), PER_TOPIC, 1, &[])?;
    }
    Ok(cluster)
}

fn topic(number: u32) -> String {
    format!("t{number}")
}

/// One record of 100 bytes to each partition.
fn one_each(cluster: &Cluster, partitions: u32) -> Result<()> {
    for number in 0..partitions.div_ceil(PER_TOPIC) {
        let across =
            Produce { across: PER_TOPIC, count: PER_TOPIC.into(), value_bytes: 100, ..Produce::default() };
        cluster.client().produce(&topic(number), &across)?;
    }
    Ok(())
}

/// An archiver that is watched.
struct Watched {
    running: Running,
    port: u16,
    started: Instant,
}

/// What it has cost up to now.
#[derive(Clone, Debug)]
struct Cost {
    at: Instant,
    cpu_seconds: f64,
    /// By operation.
    requests: BTreeMap<String, f64>,
    segments: f64,
    bundles: f64,
}

impl Watched {
    fn start(cluster: &Cluster, dir: &Path, args: &Args) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let extra = format!(
            "topics: {{ include: [\"*\"] }}\njournal: {{ rpo: {}s }}\nlimits: {{ memory.bytes: {}MiB }}\n\
             snapshots: {{ interval: 1h }}\nmetrics: {{ listen: \"127.0.0.1:{port}\" }}",
            args.rpo_seconds, args.memory_mib
        );
        let archive = TestArchive::new(dir, &cluster.bootstrap(), &extra)?;
        let running = archive.start(&dir.join("archiver.log"), &[])?;
        Ok(Self { running, port, started: Instant::now() })
    }

    fn wait_reading(&self, partitions: u32) -> Result<()> {
        eventually("all partitions are read", LIMIT, || {
            let text = scrape(self.port).unwrap_or_default();
            let reading = sample(&text, "varve_archiver_partitions{state=\"reading\"}").unwrap_or(0.0);
            Ok(Look::when(reading >= f64::from(partitions), (), reading))
        })
    }

    fn cost(&self) -> Result<Cost> {
        let text = scrape(self.port)?;
        let mut requests = BTreeMap::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("varve_archiver_store_requests_total{operation=\"") else {
                continue;
            };
            let (operation, value) = rest.split_once("\"} ").context("a sample")?;
            requests.insert(operation.to_owned(), value.parse()?);
        }
        let all = |name: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        Ok(Cost {
            at: Instant::now(),
            cpu_seconds: cpu_seconds(self.running.pid())?,
            requests,
            segments: all("varve_archiver_segments_total"),
            bundles: all("varve_archiver_bundles_total"),
        })
    }
}

fn quiet(args: &Args) -> Result<()> {
    let cluster = cluster(args.quiet)?;
    let scratch = Scratch::new("bench-quiet")?;
    one_each(&cluster, args.quiet)?;
    let watched = Watched::start(&cluster, scratch.path(), args)?;
    watched.wait_reading(args.quiet)?;
    println!("{} partitions are read after {:.1} s", args.quiet, watched.started.elapsed().as_secs_f64());
    let opened = watched.cost()?;
    println!("  requests to open them: {}", listed(&opened.requests, 1.0));
    let period = Duration::from_secs(args.rpo_seconds) / 2;
    let (begin, mut next) = (watched.cost()?, Instant::now());
    while begin.at.elapsed() < Duration::from_secs(args.seconds) {
        one_each(&cluster, args.quiet)?;
        next += period;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let end = watched.cost()?;
    let seconds = end.at.duration_since(begin.at).as_secs_f64();
    let spent: BTreeMap<String, f64> = end
        .requests
        .iter()
        .map(|(operation, n)| (operation.clone(), n - begin.requests.get(operation).unwrap_or(&0.0)))
        .collect();
    let cpu = (end.cpu_seconds - begin.cpu_seconds) / seconds * 100.0;
    println!(
        "quiet: {} partitions with a record each {:.1} s, RPO {} s, watched {seconds:.0} s: {:.1} % of a core, \
         {:.0} MiB resident at most, {} segments, {} bundles",
        args.quiet,
        period.as_secs_f64(),
        args.rpo_seconds,
        cpu,
        peak_mib(watched.running.pid())?,
        end.segments - begin.segments,
        end.bundles - begin.bundles
    );
    let days = seconds / args.rpo_seconds as f64 * USUAL_RPO_SECONDS / DAY_SECONDS;
    println!("  requests: {}", listed(&spent, 1.0));
    println!("  a day of that with an RPO of {USUAL_RPO_SECONDS} s: {}", listed(&spent, 1.0 / days));
    ensure!(watched.running.terminate()?.success(), "the archiver did not end well");
    Ok(())
}

/// All partitions have much, at once.
fn full(args: &Args) -> Result<()> {
    let cluster = cluster(args.quiet)?;
    for number in 0..args.quiet.div_ceil(PER_TOPIC) {
        let count = args.kib * u64::from(PER_TOPIC);
        let fill = Produce { across: PER_TOPIC, count, batch_bytes: 1 << 17, ..Produce::default() };
        cluster.client().produce(&topic(number), &fill)?;
    }
    let scratch = Scratch::new("bench-full")?;
    let watched = Watched::start(&cluster, scratch.path(), args)?;
    let records = (args.kib * u64::from(args.quiet)) as f64;
    eventually("all is archived", LIMIT, || {
        let text = scrape(watched.port).unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with("varve_archiver_archived_end_offset_sum"));
        let end: f64 = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum();
        Ok(Look::when(end >= records, (), end))
    })?;
    let seconds = watched.started.elapsed().as_secs_f64();
    println!(
        "full: {} partitions of {} KiB each: {:.0} MiB/s from the start, {:.0} MiB resident at most with a budget of \
         {} MiB",
        args.quiet,
        args.kib,
        (args.kib * u64::from(args.quiet)) as f64 / 1024.0 / seconds,
        peak_mib(watched.running.pid())?,
        args.memory_mib
    );
    watched.running.kill();
    Ok(())
}

fn idle(args: &Args) -> Result<()> {
    let cluster = cluster(args.idle)?;
    let scratch = Scratch::new("bench-idle")?;
    let watched = Watched::start(&cluster, scratch.path(), args)?;
    watched.wait_reading(args.idle)?;
    let opened = watched.started.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(10));
    let begin = watched.cost()?;
    std::thread::sleep(Duration::from_secs(60));
    let end = watched.cost()?;
    let cpu = (end.cpu_seconds - begin.cpu_seconds) / end.at.duration_since(begin.at).as_secs_f64() * 100.0;
    let requests: f64 = end.requests.values().sum::<f64>() - begin.requests.values().sum::<f64>();
    println!(
        "idle: {} partitions: {cpu:.2} % of a core, {requests:.0} requests to the store in a minute, {:.0} MiB \
         resident at most, all read after {opened:.1} s",
        args.idle,
        peak_mib(watched.running.pid())?
    );
    watched.running.kill();
    Ok(())
}

fn listed(requests: &BTreeMap<String, f64>, times: f64) -> String {
    let some = requests.iter().filter(|(_, n)| **n > 0.0);
    some.map(|(operation, n)| format!("{:.0} {operation}", n * times)).collect::<Vec<_>>().join(", ")
}

fn sample(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

fn scrape(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Of all its threads.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| -> Result<f64> { Ok(fields.get(index).context("a field")?.parse::<f64>()?) };
    // By proc(5) fields 14 and 15, of which two stand before the name's end; 100 ticks are a second.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
