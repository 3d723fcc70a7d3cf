//! A broker for a drill: started from a Kafka installation, in a folder of its own, and thrown away.
//!
//! It is broker and controller in one, listens on the loopback only, and ends with us, also if we are killed (on
//! Linux). What a killed drill leaves is its folder.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use varve_format::Id;
use varve_kafka::client::{Client, ClientConfig};

use crate::error::{Error, Result};

const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);
/// Of the broker's log, where it says why it ended.
const TAIL_BYTES: usize = 2000;
const NODE: i32 = 1;

/// See the module.
#[derive(Debug)]
pub struct DrillBroker {
    child: Child,
    pub bootstrap_servers: String,
    pub controllers: String,
}

/// A sample of names: those that `seed` draws, `ppm` of a million, and at least one.
pub fn sampled<'a>(names: impl Iterator<Item = &'a str>, ppm: u32, seed: u64) -> Vec<String> {
    let mut drawn: Vec<(u64, &str)> = names.map(|name| (draw(name, seed), name)).collect();
    drawn.sort_unstable();
    let count = (drawn.len() as u64).saturating_mul(ppm.into()).div_ceil(1_000_000).max(1);
    let mut names: Vec<String> = drawn
        .into_iter()
        .take(usize::try_from(count).unwrap_or(usize::MAX))
        .map(|(_, n)| n.to_owned())
        .collect();
    names.sort();
    names
}

/// FNV-1a, with its bits mixed: the same on every machine and in every version.
fn draw(name: &str, seed: u64) -> u64 {
    let bytes = seed.to_be_bytes().into_iter().chain(name.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl DrillBroker {
    /// `kafka` is an installation, or the folder of its jars; `dir` is empty; `heap_mib` is Java's. Waits until it
    /// serves.
    ///
    /// # Errors
    /// No Java or no jars; a broker that does not start, with what it said last.
    pub async fn start(kafka: &Path, dir: &Path, cluster_id: Id, heap_mib: u32) -> Result<Self> {
        let class_path = class_path(kafka)?;
        let (port, controller_port) = (free_port()?, free_port()?);
        let properties = dir.join("server.properties");
        let written = std::fs::write(&properties, text(dir, port, controller_port));
        written.map_err(|source| Error::File { what: properties.display().to_string(), source })?;
        let log = dir.join("broker.log");
        let mut format = java(&class_path, "kafka.tools.StorageTool", heap_mib, &log)?;
        format.args(["format", "-t", &cluster_id.to_string(), "-c"]).arg(&properties);
        let formatted = format.status().await.map_err(no_java)?;
        if !formatted.success() {
            return Err(failed("the storage of a drill's broker could not be formatted", &log));
        }
        let mut broker = java(&class_path, "kafka.Kafka", heap_mib, &log)?;
        broker.arg(&properties);
        #[cfg(target_os = "linux")]
        // SAFETY: between fork and exec it makes one system call, and touches no memory of others.
        unsafe {
            use rustix::process::{Signal, set_parent_process_death_signal};
            broker.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let child = broker.kill_on_drop(true).spawn().map_err(no_java)?;
        let mut broker = Self {
            child,
            bootstrap_servers: format!("127.0.0.1:{port}"),
            controllers: format!("127.0.0.1:{controller_port}"),
        };
        broker.wait(&log).await?;
        Ok(broker)
    }

    async fn wait(&mut self, log: &Path) -> Result<()> {
        let begun = Instant::now();
        loop {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) || begun.elapsed() >= START {
                return Err(failed("a drill's broker did not start", log));
            }
            let pairs = [
                ("bootstrap.servers", self.bootstrap_servers.as_str()),
                ("default.api.timeout.ms", "1000"),
                ("request.timeout.ms", "1000"),
            ];
            let serves = async {
                let client = Client::new(ClientConfig::from_pairs(pairs)?)?;
                client.metadata(Some(&[])).await
            };
            if serves.await.is_ok_and(|metadata| metadata.brokers.iter().any(|b| b.node_id == NODE)) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// In an orderly way, so that its logs are whole; by force if that takes too long.
    pub async fn stop(mut self) {
        if let Some(id) =
            self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(STOP, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

fn text(dir: &Path, port: u16, controller_port: u16) -> String {
    let data = dir.join("data").display().to_string();
    let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}");
    let (advertised, voters) =
        (format!("PLAINTEXT://127.0.0.1:{port}"), format!("{NODE}@127.0.0.1:{controller_port}"));
    let node = NODE.to_string();
    let pairs = [
        ("process.roles", "broker,controller"),
        ("node.id", &node),
        ("controller.quorum.voters", &voters),
        ("controller.listener.names", "CONTROLLER"),
        ("inter.broker.listener.name", "PLAINTEXT"),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"),
        ("listeners", &listeners),
        ("advertised.listeners", &advertised),
        ("log.dirs", &data),
        ("offsets.topic.replication.factor", "1"),
        ("offsets.topic.num.partitions", "1"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.num.partitions", "1"),
        ("transaction.state.log.min.isr", "1"),
        ("auto.create.topics.enable", "false"),
        // Any batch that was ever written comes through.
        ("message.max.bytes", "1073741824"),
        ("replica.fetch.wait.max.ms", "100"),
        ("num.replica.fetchers", "4"),
    ];
    pairs.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

fn java(class_path: &str, main: &str, heap_mib: u32, log: &Path) -> Result<Command> {
    let open = |path: &Path| std::fs::OpenOptions::new().create(true).append(true).open(path);
    let fail = |source| Error::File { what: log.display().to_string(), source };
    let (out, err) = (open(log).map_err(fail)?, open(log).map_err(fail)?);
    let java = std::env::var_os("JAVA_HOME")
        .map_or_else(|| PathBuf::from("java"), |home| Path::new(&home).join("bin/java"));
    let mut command = Command::new(java);
    command.arg(format!("-Xmx{heap_mib}m"));
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
    command.args(["-cp", class_path, main]).stdin(Stdio::null()).stdout(out).stderr(err);
    Ok(command)
}

/// All jars of an installation's `libs`, or of the folder itself.
fn class_path(kafka: &Path) -> Result<String> {
    for dir in [kafka.join("libs"), kafka.to_owned()] {
        let jars = std::fs::read_dir(&dir).map(|entries| {
            entries
                .filter_map(|e| Some(e.ok()?.path()))
                .filter(|p| p.extension().is_some_and(|e| e == "jar"))
                .count()
        });
        if jars.is_ok_and(|jars| jars > 0) {
            return Ok(format!("{}/*", dir.display()));
        }
    }
    let what = format!("{} has no jars of Kafka", kafka.display());
    Err(Error::refused(what, "name the folder of a Kafka installation: the one with bin and libs"))
}

fn free_port() -> Result<u16> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    bound
        .map(|address| address.port())
        .map_err(|source| Error::File { what: "a free port".to_owned(), source })
}

fn no_java(source: std::io::Error) -> Error {
    Error::File { what: "java could not be started: install Java 17, or set JAVA_HOME".to_owned(), source }
}

fn failed(what: &str, log: &Path) -> Error {
    let said = std::fs::read(log).unwrap_or_default();
    let tail = said.get(said.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
    Error::refused(what, format!("it said last: {}", String::from_utf8_lossy(tail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_the_same_for_a_seed_and_has_its_size() {
        let names: Vec<String> = (0..100).map(|n| format!("topic-{n}")).collect();
        let of = |ppm, seed| sampled(names.iter().map(String::as_str), ppm, seed);
        assert_eq!(of(100_000, 7), of(100_000, 7));
        assert_ne!(of(100_000, 7), of(100_000, 8));
        assert_eq!((of(100_000, 7).len(), of(1, 7).len(), of(1_000_000, 7).len()), (10, 1, 100));
        let drawn: std::collections::BTreeSet<String> = (0..200).flat_map(|seed| of(50_000, seed)).collect();
        assert!(drawn.len() > 95, "{} of 100 were ever drawn", drawn.len());
    }
}
