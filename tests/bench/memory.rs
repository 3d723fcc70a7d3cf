//! Resident memory of a JVM with the plug-in, while many copy and read at once: the peak over the idle JVM may
//! exceed the two budgets by [`SLACK_MIB`] at most; and how much Java heap each GiB costs.
//!
//! The JVM runs `java/MemoryBench.java` over the jar that a broker loads. Its heap is of fixed size and touched
//! at the start, so that what grows is native memory. The kernel counts two kinds: anonymous memory, where all
//! buffers are; and mapped files, which are the JVM's libraries, the jar and ours as they are touched for the
//! first time. Segments and objects are read by pread, so the page cache that they fill is not among them.
//!
//! All rounds have one JVM: what the allocator keeps or scatters in one shows in the next.
//!
//! Objects lie below the temporary folder; all is removed at the end, also after a failure. The JVM has a
//! deadline of its own, which holds if this program dies.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use varve_rsm::rsm::Rsm;
use varve_rsm::wire::CopyRequest;
use varve_tests::{KAFKA_VERSION, Minio, Scratch, Tier, kafka_class_path, rsm_jar};

use crate::segment::{Data, Source};

const SLACK_MIB: f64 = 64.0;
const DEADLINE_SECONDS: &str = "900";
/// A broker's collector; the heap is enough for the buffers of a hundred readers.
const JVM: [&str; 4] = ["-Xms256m", "-Xmx256m", "-XX:+AlwaysPreTouch", "-XX:+UseG1GC"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// file, s3, or all
    #[arg(long, default_value = "all")]
    store: String,
    /// Size of a segment, in MiB
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Copies at once
    #[arg(long, default_value_t = 10)]
    copies: u32,
    /// Readers at once, each of a segment of its own
    #[arg(long, default_value_t = 10)]
    readers: u32,
    /// How often all of it: memory must not grow from one to the next
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// More of the plug-in's configuration, as key=value
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.store == "all" || args.store == "file" {
        let scratch = Scratch::new("bench-store")?;
        measure(args, "file", &Tier::filesystem(scratch.path())?)?;
    }
    if args.store == "all" || args.store == "s3" {
        let minio = Minio::start()?;
        measure(args, "s3", &Tier::s3(&minio, "bench", "tier")?)?;
    }
    Ok(())
}

fn measure(args: &Args, store: &str, tier: &Tier) -> Result<()> {
    let scratch = Scratch::new("bench-memory")?;
    // A store may free what was deleted much later.
    let needed_mib = args.mib * u64::from(args.copies * args.rounds + args.readers + 1) + 1024;
    let free_mib = free_mib(scratch.path())?;
    ensure!(free_mib > needed_mib, "{needed_mib} MiB of disk are needed, {free_mib} are free");
    let large = Source::make(scratch.path(), Data::Plain, args.mib << 20, 1)?;
    let small = Source::make(scratch.path(), Data::Plain, 1 << 20, 2)?;
    let mut config = tier.rsm_config();
    config.insert("cluster.id".into(), "bench".into());
    config.extend(args.settings.iter().cloned());

    // What is read was written by another process: the JVM starts with nothing of it in memory.
    let writer = Rsm::open(&config)?;
    let mut stored = String::new();
    for number in 0..args.readers {
        writeln!(stored, "{}", write(&writer, large.request(number, None))?)?;
    }
    drop(writer);

    config.insert("native.library.dir".into(), scratch.path().join("library").display().to_string());
    let figures = run_java(&scratch, &config, &stored, [&large.log, &small.log], args)?;
    println!(
        "\n{store} store: {} copies and {} readers of {} MiB at once",
        args.copies, args.readers, args.mib
    );
    let budgets = [budget_mib(&config, "copy.memory.bytes")?, budget_mib(&config, "cache.memory.bytes")?];
    figures.print(args, budgets)
}

/// Copies a segment; tells the JVM what it needs to read it.
fn write(rsm: &Rsm, request: CopyRequest) -> Result<String> {
    let m = request.metadata.clone();
    let copy = rsm.copy(request)?;
    while !copy.wait(Duration::from_millis(50)) {}
    let custom = URL_SAFE_NO_PAD.encode(copy.take()?.unwrap_or_default());
    Ok(format!("{} {} {} {custom}", m.partition, URL_SAFE_NO_PAD.encode(m.segment_id.0), m.segment_bytes))
}

fn budget_mib(config: &BTreeMap<String, String>, key: &str) -> Result<f64> {
    let default = || varve_rsm::settings::find(key).and_then(|s| s.default);
    let bytes = config.get(key).map(String::as_str).or_else(default).with_context(|| key.to_owned())?;
    Ok(bytes.parse::<f64>().with_context(|| format!("{key}={bytes}"))? / f64::from(1 << 20))
}

fn run_java(
    scratch: &Scratch,
    config: &BTreeMap<String, String>,
    stored: &str,
    [large, small]: [&Path; 2],
    args: &Args,
) -> Result<Figures> {
    let class_path = class_path(scratch.path())?;
    let (properties, segments) = (scratch.path().join("rsm.properties"), scratch.path().join("segments"));
    let text: String = config.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    std::fs::write(&properties, text)?;
    std::fs::write(&segments, stored)?;
    let mut java = Command::new("timeout");
    java.args([DEADLINE_SECONDS, "java"]).args(JVM);
    java.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &class_path, "MemoryBench"]);
    java.args([&properties, &segments]).arg(large).arg(args.copies.to_string());
    java.arg(small).arg(args.rounds.to_string());
    let output = java.stderr(Stdio::inherit()).output().context("start java")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the JVM ended with {} (124: out of time):\n{said}", output.status);
    let number = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    Ok(Figures(said.lines().filter_map(number).collect()))
}

fn class_path(scratch: &Path) -> Result<String> {
    let class_path = format!("{}:{}", rsm_jar()?.display(), kafka_class_path(KAFKA_VERSION)?);
    let classes: PathBuf = scratch.join("classes");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/java/MemoryBench.java");
    let mut javac = Command::new("javac");
    javac.args(["--release", "17", "-Xlint:all,-processing,-options", "-Werror", "-cp", &class_path, "-d"]);
    let status = javac.arg(&classes).arg(source).status().context("start javac")?;
    ensure!(status.success(), "javac ended with {status}");
    Ok(format!("{}:{class_path}", classes.display()))
}

fn free_mib(path: &Path) -> Result<u64> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: statvfs fills the struct it is given, and reads a path that ends with a zero.
    let (outcome, filled) = unsafe {
        let mut filled: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut filled), filled)
    };
    ensure!(outcome == 0, "statvfs: {}", std::io::Error::last_os_error());
    Ok((filled.f_bavail * filled.f_frsize) >> 20)
}

/// What the JVM said, by name.
struct Figures(BTreeMap<String, f64>);

impl Figures {
    fn get(&self, name: &str) -> Result<f64> {
        self.0.get(name).copied().with_context(|| format!("the JVM said nothing of {name}"))
    }

    fn print(&self, args: &Args, budgets_mib: [f64; 2]) -> Result<()> {
        println!("{:<44} {:>8} {:>10} {:>8}", "resident, MiB", "all", "anonymous", "files");
        self.row("bare", "JVM without the plug-in")?;
        self.row("idle", "idle, one small copy and read done")?;
        let mut over = 0.0_f64;
        for round in 0..args.rounds {
            self.row(&format!("{round}.peak"), &format!("round {}, peak of each", round + 1))?;
            over = over.max((self.get(&format!("{round}.peak.kib"))? - self.get("idle.kib")?) / 1024.0);
            for (work, segments) in [("copy", args.copies), ("read", args.readers)] {
                self.work(&format!("{round}.{work}"), work, segments)?;
            }
        }
        self.row("after", "a second after the last")?;
        self.row("closed", "after close")?;
        let [copy, cache] = budgets_mib;
        let allowed = copy + cache + SLACK_MIB;
        println!("{:<44} {over:>8.1}", "peak over idle");
        println!(
            "{:<44} {allowed:>8.1}  {}",
            format!("allowed: budgets {copy:.0} + {cache:.0}, and {SLACK_MIB:.0}"),
            if over <= allowed { "OK" } else { "OVER" },
        );
        Ok(())
    }

    fn row(&self, moment: &str, text: &str) -> Result<()> {
        let kib = |kind| self.get(&format!("{moment}{kind}.kib")).map(|kib| kib / 1024.0);
        println!("{text:<44} {:>8.1} {:>10.1} {:>8.1}", kib("")?, kib(".anonymous")?, kib(".files")?);
        Ok(())
    }

    /// Heap is what the working threads allocated beyond the callers' buffers. None with no bytes to move.
    fn work(&self, name: &str, text: &str, segments: u32) -> Result<()> {
        let gib = self.get(&format!("{name}.bytes"))? / f64::from(1 << 30);
        if gib > 0.0 {
            let heap_kib = self.get(&format!("{name}.heap.bytes"))? / 1024.0;
            let mib_per_second = gib * 1024.0 / self.get(&format!("{name}.seconds"))?;
            println!(
                "    {:<40} {mib_per_second:>8.0} MiB/s; Java heap: {:.1} KiB a segment, {:.1} a GiB",
                format!("{text}, {gib:.1} GiB"),
                heap_kib / f64::from(segments),
                heap_kib / gib
            );
        }
        Ok(())
    }
}
