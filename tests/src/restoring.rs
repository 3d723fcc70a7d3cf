//! `varve restore` as a process: started, looked at half way, and held against what was archived.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, UnregisterBrokerRequest};
use serde_json::Value;

use crate::archive::{TestArchive, TopicLogs, plain_client, runtime, varve};
use crate::cluster::Cluster;
use crate::driver::{Produce, Transactions};
use crate::node::Node;
use crate::process;
use crate::restored::same_logs;
use crate::scratch::Scratch;
use crate::wait::{Look, eventually};

/// Ids that a restore takes by itself.
const OURS: i32 = 990_000;
const LIMIT: Duration = Duration::from_secs(180);
const CONTROLLERS: i8 = 2;
/// Several objects of a partition.
const EXTRA: &str = "topics: { include: [\"*\"] }
segments: { bytes: 1MiB, min.bytes: 128KiB }";

/// What [`write_usual`] writes, each with its number of partitions.
pub const USUAL: [(&str, u32); 4] = [("plain", 3), ("transactional", 1), ("trimmed", 1), ("empty", 1)];

/// Two leader epochs, several segments, markers, aborted records, a log start within a batch, and nothing at all.
pub fn write_usual(cluster: &Cluster) -> Result<()> {
    let kafka = cluster.client();
    let small = [("segment.bytes", "1048576"), ("retention.ms", "-1")];
    for (topic, partitions) in USUAL {
        kafka.create_topic(topic, partitions, 1, &small)?;
    }
    for (round, compression) in (0..).zip(["none", "lz4"]) {
        if round > 0 {
            cluster.broker().restart()?;
        }
        for partition in 0..USUAL[0].1 {
            let seed = round * 10 + u64::from(partition);
            let records =
                Produce { partition, seed, compression, count: 1500, headers: 2, ..Produce::default() };
            kafka.produce("plain", &records)?;
        }
        kafka.produce("trimmed", &Produce { seed: round, count: 500, ..Produce::default() })?;
        let transactions = Transactions {
            transactional_id: format!("t-{round}"),
            transactions: 20,
            records_per_transaction: 30,
            abort_every: 3,
            seed: round,
            value_bytes: 300,
            partition: 0,
        };
        kafka.produce_transactions("transactional", &transactions)?;
    }
    kafka.delete_records("trimmed", 0, 333).map(drop)
}

/// An archive, and what was in the cluster when it was made.
#[derive(Debug)]
pub struct Archived {
    pub logs: Vec<TopicLogs>,
    pub archive: TestArchive,
    pub scratch: Scratch,
}

impl Archived {
    /// All of a cluster that nobody writes to any more.
    pub fn of(cluster: &Cluster, topics: &[&str]) -> Result<Self> {
        let scratch = Scratch::new("restore")?;
        let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), EXTRA)?;
        archive.run_once(&[])?;
        let logs = TopicLogs::read(&plain_client(&cluster.bootstrap())?, topics)?;
        Ok(Self { logs, archive, scratch })
    }

    pub fn topics(&self) -> Vec<&str> {
        self.logs.iter().map(|logs| logs.topic.as_str()).collect()
    }

    pub fn plan(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.plan"))
    }

    /// `varve restore`, with what it always needs.
    pub fn restore(&self, cluster: &Cluster, plan: &Path, extra: &[&str]) -> Result<Command> {
        restore_from(&self.archive.url(), cluster, plan, extra)
    }

    /// The target's logs are those that were archived.
    pub fn same(&self, cluster: &Cluster) -> Result<()> {
        same_logs(&self.logs, &TopicLogs::read(&plain_client(&cluster.bootstrap())?, &self.topics())?)
    }
}

/// `varve restore` of another archive.
pub fn restore_from(url: &str, cluster: &Cluster, plan: &Path, extra: &[&str]) -> Result<Command> {
    let mut command = varve()?;
    command.args(["restore", "--from", url, "--to", &cluster.bootstrap()]);
    command.args(["--controller", &cluster.controllers(), "--yes", "--plan"]).arg(plan).args(extra);
    Ok(command)
}

/// `varve restore apply`, `verify` … of a plan.
pub fn of_plan(subcommand: &str, plan: &Path, extra: &[&str]) -> Result<Command> {
    let mut command = varve()?;
    command.args(["restore", subcommand]).arg(plan).args(extra);
    Ok(command)
}

/// What it printed, and its errors; it must have ended with this code.
pub fn ended(mut command: Command, code: i32) -> Result<(String, String)> {
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.code() == Some(code), "{command:?}: {}\n{out}\n{err}", output.status);
    Ok((out, err))
}

/// One that goes on until it ends, or is dropped.
#[derive(Debug)]
pub struct Restoring {
    child: Child,
    plan: PathBuf,
    log: PathBuf,
}

impl Restoring {
    /// `plan` is that of the command.
    pub fn start(mut command: Command, plan: &Path) -> Result<Self> {
        let log = plan.with_extension("log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        Ok(Self { child: process::spawn(command)?, plan: plan.to_owned(), log })
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Until `node` has some of a topic's first partition.
    pub fn wait_begun(&mut self, node: &Node, topic: &str) -> Result<()> {
        let begun = eventually(&format!("broker {} has something of {topic}", node.id), LIMIT, || {
            if !self.is_running()? {
                return Ok(Look::Done(false));
            }
            let bases = node.local_segments(topic, 0)?;
            let file = |base| node.partition_dir(topic, 0).join(format!("{base:020}.log"));
            let sizes = bases.into_iter().map(|base| Ok(std::fs::metadata(file(base))?.len()));
            let bytes = sizes.sum::<Result<u64>>()?;
            Ok(Look::when(bytes > 0, true, bytes))
        })?;
        ensure!(begun, "it has ended: {}", self.said());
        Ok(())
    }

    pub fn signal(&self, signal: i32) -> Result<()> {
        // SAFETY: a plain system call; the pid is our child's, which was not waited for.
        let done = unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        ensure!(done == 0, "signal {signal}: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn wait(&mut self) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(begun.elapsed() < LIMIT, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// It must end well; its report.
    pub fn finish(mut self) -> Result<Value> {
        let status = self.wait()?;
        ensure!(status.success(), "{status}: {}", self.said());
        let mut report = self.plan.as_os_str().to_owned();
        report.push(".report.json");
        let report: Value = serde_json::from_slice(&std::fs::read(report)?)?;
        ensure!(report["is_clean"] == true, "{report}");
        Ok(report)
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        // Already dead is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// No broker of ours is known, and nothing is placed on one; all has leaders. Brokers hear of it a moment later than
/// the controller.
pub fn has_left(cluster: &Cluster) -> Result<()> {
    eventually("we have left", LIMIT, || nothing_of_ours(cluster).map(Look::Done))?;
    let client = plain_client(&cluster.bootstrap())?;
    // A registration whose broker is away is in no metadata; who has none can't be unregistered.
    let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(OURS));
    let answer = runtime()?.block_on(async { client.any_connection().await?.call(request).await })?;
    ensure!(answer.error_code == ResponseError::BrokerIdNotRegistered.code(), "still registered: {answer:?}");
    Ok(())
}

fn nothing_of_ours(cluster: &Cluster) -> Result<()> {
    let client = plain_client(&cluster.bootstrap())?;
    let metadata = runtime()?.block_on(client.metadata(None))?;
    ensure!(metadata.brokers.iter().all(|b| b.node_id < OURS), "{:?}", metadata.brokers);
    for topic in &metadata.topics {
        for partition in &topic.partitions {
            let is_theirs = partition.replicas.iter().all(|id| *id < OURS);
            ensure!(is_theirs && partition.leader_id.is_some(), "{}: {partition:?}", topic.name);
        }
    }
    Ok(())
}

/// Whether the cluster counts a broker of ours as alive.
pub fn is_registered(cluster: &Cluster) -> Result<bool> {
    let client = plain_client(&cluster.bootstrap())?;
    let metadata = runtime()?.block_on(client.metadata(Some(&[])))?;
    Ok(metadata.brokers.iter().any(|b| b.node_id >= OURS))
}

/// The node that is the active controller, as the other controllers say it.
pub fn active_controller(cluster: &Cluster) -> Result<u32> {
    let client = plain_client(&cluster.controllers())?;
    let id = runtime()?.block_on(async {
        let request = DescribeClusterRequest::default().with_endpoint_type(CONTROLLERS);
        let answer = client.any_connection().await?.call(request).await?;
        ensure!(answer.error_code == 0, "{answer:?}");
        Ok(answer.controller_id.0)
    })?;
    u32::try_from(id).context("no active controller")
}
