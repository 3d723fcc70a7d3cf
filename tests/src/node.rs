//! One broker (and controller) of a cluster: its configuration, its process, its files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::install;
use crate::process::Process;
use crate::toxiproxy::Proxy;

const START_LIMIT: Duration = Duration::from_secs(180);
/// A broker whose peers' controllers have gone before it waits 5 min for leave to stop, and then stops as cleanly.
const STOP_LIMIT: Duration = Duration::from_secs(360);

/// A log directory of the node whose files are in `dir`.
pub(crate) fn log_dir(dir: &Path, number: u32) -> PathBuf {
    if number == 0 { dir.join("data") } else { dir.join(format!("data{number}")) }
}

#[derive(Debug)]
pub struct Node {
    pub id: u32,
    pub port: u16,
    pub(crate) listeners: BTreeMap<String, Listener>,
    dir: PathBuf,
    state: Mutex<State>,
}

/// One beside the harness's own.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Where clients connect.
    pub(crate) port: u16,
    pub(crate) proxy: Option<Proxy>,
}

#[derive(Debug)]
struct State {
    version: String,
    heap_mib: u32,
    properties: BTreeMap<String, String>,
    process: Option<Process>,
}

impl Node {
    pub(crate) fn new(
        id: u32,
        port: u16,
        dir: PathBuf,
        version: &str,
        heap_mib: u32,
        properties: BTreeMap<String, String>,
    ) -> Self {
        let state = State { version: version.to_owned(), heap_mib, properties, process: None };
        Self { id, port, listeners: BTreeMap::new(), dir, state: Mutex::new(state) }
    }

    /// The port of a listener beside the harness's own, as the broker advertises it.
    pub fn port_of(&self, listener: &str) -> Result<u16> {
        Ok(self.listeners.get(listener).with_context(|| format!("no listener {listener}"))?.port)
    }

    /// The fault proxy before a listener.
    pub fn proxy(&self, listener: &str) -> Result<&Proxy> {
        let listener = self.listeners.get(listener).with_context(|| format!("no listener {listener}"))?;
        listener.proxy.as_ref().context("no proxy before the listener")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Formats the log directory; a new cluster does that once.
    pub(crate) fn format(&self, cluster_id: &str) -> Result<()> {
        fs::create_dir_all(&self.dir)?;
        let state = self.state();
        self.write_properties(&state)?;
        let mut java = Command::new("java");
        java.args([
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ]);
        java.args(["-cp", &install::kafka_class_path(&state.version)?]);
        java.args(["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c"]).arg(self.properties_file());
        install::run(&mut java)
    }

    /// Another cluster in its place, at its addresses. Only where it is the whole cluster.
    pub fn begin_anew(&self, cluster_id: &str) -> Result<()> {
        self.kill();
        fs::remove_dir_all(self.log_dir())?;
        self.format(cluster_id)?;
        self.start()
    }

    /// Starts the broker and waits until it serves.
    pub fn start(&self) -> Result<()> {
        self.launch()?;
        self.wait_started()
    }

    pub(crate) fn launch(&self) -> Result<()> {
        let mut state = self.state();
        self.write_properties(&state)?;
        let mut java = Command::new("java");
        java.arg(format!("-Xmx{}m", state.heap_mib));
        java.args(["-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
        java.args(["-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData"]);
        java.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=info");
        java.arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
        java.arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS");
        java.args(["-cp", &install::kafka_class_path(&state.version)?, "kafka.Kafka"])
            .arg(self.properties_file());
        java.current_dir(&self.dir);
        // What the machine's user has configured for S3 must not leak into a test.
        for name in
            ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION"]
        {
            java.env_remove(name);
        }
        java.env("AWS_EC2_METADATA_DISABLED", "true");
        fs::write(self.dir.join("log.start"), self.log_size().to_string())?;
        state.process = Some(Process::start(&format!("broker {}", self.id), java, &self.log_file())?);
        Ok(())
    }

    pub(crate) fn wait_started(&self) -> Result<()> {
        let from: u64 = fs::read_to_string(self.dir.join("log.start"))?.parse()?;
        let mut state = self.state();
        let process = state.process.as_mut().context("the broker was not launched")?;
        process.wait_ready(START_LIMIT, || {
            self.log_from(from).is_ok_and(|log| log.contains("Kafka Server started"))
        })
    }

    /// Controlled shutdown. Fails when the broker doesn't end by itself.
    pub fn stop(&self) -> Result<()> {
        match self.state().process.take() {
            Some(process) => process.stop(STOP_LIMIT).map(drop),
            None => Ok(()),
        }
    }

    /// kill -9.
    pub fn kill(&self) {
        drop(self.state().process.take());
    }

    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// SIGSTOP: alive for the kernel, dead for everybody else.
    pub fn pause(&self) -> Result<()> {
        self.signal(libc::SIGSTOP)
    }

    pub fn resume(&self) -> Result<()> {
        self.signal(libc::SIGCONT)
    }

    fn signal(&self, signal: i32) -> Result<()> {
        self.state().process.as_ref().context("the broker does not run")?.signal(signal)
    }

    pub fn alive(&self) -> bool {
        self.state().process.as_mut().is_some_and(Process::alive)
    }

    pub fn pid(&self) -> Option<u32> {
        self.state().process.as_ref().map(Process::pid)
    }

    /// From the next start on.
    pub fn set(&self, key: &str, value: &str) {
        self.state().properties.insert(key.to_owned(), value.to_owned());
    }

    /// From the next start on.
    pub fn set_version(&self, version: &str) {
        version.clone_into(&mut self.state().version);
    }

    fn write_properties(&self, state: &State) -> Result<()> {
        let mut text = String::new();
        for (key, value) in &state.properties {
            writeln!(text, "{key}={value}")?;
        }
        Ok(fs::write(self.properties_file(), text)?)
    }

    fn properties_file(&self) -> PathBuf {
        self.dir.join("server.properties")
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    /// How long the broker's log is now: what comes after is told by [`Node::log_lines`].
    pub fn log_size(&self) -> u64 {
        fs::metadata(self.log_file()).map_or(0, |log| log.len())
    }

    /// What the broker logged after `from` bytes.
    pub fn log_from(&self, from: u64) -> Result<String> {
        let mut file = fs::File::open(self.log_file())?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The lines after `from` bytes that hold every one of `needles`.
    pub fn log_lines(&self, from: u64, needles: &[&str]) -> Result<Vec<String>> {
        let log = self.log_from(from)?;
        let matching = log.lines().filter(|line| needles.iter().all(|needle| line.contains(needle)));
        Ok(matching.map(str::to_owned).collect())
    }

    /// The first, and of most nodes the only one.
    pub fn log_dir(&self) -> PathBuf {
        self.disk(0)
    }

    pub fn disk(&self, number: u32) -> PathBuf {
        log_dir(&self.dir, number)
    }

    pub fn partition_dir(&self, topic: &str, partition: u32) -> PathBuf {
        self.log_dir().join(format!("{topic}-{partition}"))
    }

    /// Base offsets of the segments on the broker's own disk, ascending.
    pub fn local_segments(&self, topic: &str, partition: u32) -> Result<Vec<u64>> {
        let mut bases = Vec::new();
        for entry in fs::read_dir(self.partition_dir(topic, partition))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let stem =
                    path.file_stem().and_then(|stem| stem.to_str()).context("a segment's file name")?;
                bases.push(stem.parse().with_context(|| format!("base offset of {}", path.display()))?);
            }
        }
        bases.sort_unstable();
        Ok(bases)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}
