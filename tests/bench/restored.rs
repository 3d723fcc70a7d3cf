//! A cluster that is filled and archived, and `varve restore` of it into another one, measured.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use varve_tests::{Cluster, Produce, TestArchive, varve};

use crate::lean::read_file;
use crate::measure::{at_once, children_cpu_seconds, peak_mib};

pub(crate) const TOPIC: &str = "bench";
/// For whatever must end.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

/// What a topic is filled with, in records of 1 KiB.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Fill {
    /// Of record batches, in MiB
    #[arg(long, default_value_t = 1024)]
    pub(crate) mib: u64,
    #[arg(long, default_value_t = 4)]
    pub(crate) partitions: u32,
    /// The largest batch of the producer that fills the source
    #[arg(long, default_value_t = 1 << 19)]
    pub(crate) batch_bytes: u32,
}

impl Fill {
    pub(crate) fn into(self, cluster: &Cluster) -> Result<()> {
        let kafka = cluster.client();
        kafka.create_topic(TOPIC, self.partitions, 1, &[])?;
        let records = (self.mib << 20) / u64::from(self.partitions) / 1024;
        at_once(self.partitions, |partition| {
            let (seed, batch_bytes) = (u64::from(partition), self.batch_bytes);
            kafka.produce(
                TOPIC,
                &Produce { partition, count: records, batch_bytes, seed, ..Produce::default() },
            )
        })?;
        Ok(())
    }
}

pub(crate) fn archived(cluster: &Cluster, dir: &Path) -> Result<TestArchive> {
    let archive = TestArchive::new(dir, &cluster.bootstrap(), &format!("topics: {{ include: [{TOPIC}] }}"))?;
    archive.run_once(&[])?;
    Ok(archive)
}

/// The files of its topics.
pub(crate) fn segments(archive: &TestArchive) -> Result<Vec<PathBuf>> {
    let (mut folders, mut files) = (vec![archive.directory()?.join("topics")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { &mut folders } else { &mut files }.push(path);
        }
    }
    Ok(files)
}

/// Where a restore goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Leader,
    Producer,
}

/// What a restore took.
pub(crate) struct Restored {
    pub(crate) seconds: f64,
    /// From the first batch to the last.
    pub(crate) copying: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mib: f64,
}

impl Restored {
    /// Into an empty broker, which ends with it; of an archive that was read just before.
    pub(crate) fn measure(archive: &TestArchive, dir: &Path, by: By, memory_mib: u64) -> Result<Self> {
        let cluster = Cluster::builder().heap_mib(1024).start()?;
        let plan = dir.join(format!("{}.plan", cluster.bootstrap().replace(':', "-")));
        let mut command = varve()?;
        command.args(["restore", "--from", &archive.url(), "--to", &cluster.bootstrap()]);
        if by == By::Leader {
            command.args(["--controller", &cluster.controllers()]);
        }
        command.args(["--yes", "--json", "--no-verify", "--plan"]).arg(&plan);
        command.args(["--memory", &format!("{memory_mib}MiB")]).stdout(Stdio::null());
        for path in segments(archive)? {
            read_file(&path, path.metadata()?.len())?;
        }
        let cpu = children_cpu_seconds();
        let mut child = command.spawn()?;
        let (mut peak, begun) = (0.0_f64, Instant::now());
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            ensure!(begun.elapsed() < LIMIT, "the restore does not end");
            peak = peak.max(peak_mib(child.id()).unwrap_or(0.0));
            std::thread::sleep(Duration::from_millis(20));
        };
        ensure!(status.success(), "varve restore: {status}");
        let cpu_seconds = children_cpu_seconds() - cpu;
        let mut report = plan.into_os_string();
        report.push(".report.json");
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report)?)?;
        let seconds =
            |value: &serde_json::Value| Ok::<_, anyhow::Error>(value.as_f64().context("no time")? / 1000.0);
        Ok(Self {
            seconds: seconds(&report["rto_ms"])?,
            copying: seconds(&report["applied"]["copying_ms"])?,
            cpu_seconds,
            peak_mib: peak,
        })
    }
}
