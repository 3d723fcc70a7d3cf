//! An archive held against the brokers: raw batches as fetched, byte for byte, and every offset accounted for.
//! The archive is read here by its names and footers alone, not by what is to be tested.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use varve_archive::Record;
use varve_archive::record::snapshot::CLUSTER_STATE;
use varve_cluster::ClusterState;
use varve_format::{Decoder, ExtentKind, Footer, TRAILER_BYTES, Trailer};
use varve_kafka::client::{Client, ClientConfig};
use varve_kafka::protocol::Batches;

use crate::process::Process;
use crate::scratch::Scratch;
use crate::tier::Tier;

/// A file-based archive and the archivers that write it.
#[derive(Debug)]
pub struct ArchiveDir {
    path: PathBuf,
    config: PathBuf,
    env: Vec<(String, String)>,
}

/// How a command ended, and what it said.
#[derive(Clone, Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// One object of a chain.
#[derive(Clone, Debug)]
pub struct ArchivedObject {
    pub path: PathBuf,
    pub footer: Footer,
    pub log: Vec<u8>,
    /// The record of a gap.
    pub gap: Option<String>,
}

impl ArchivedObject {
    pub fn first_offset(&self) -> i64 {
        self.footer.info.base_offset
    }

    pub fn end_offset(&self) -> i64 {
        self.footer.info.last_offset + 1
    }
}

/// Of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawLog {
    pub start_offset: i64,
    pub end_offset: i64,
    pub batches: Vec<u8>,
}

impl ArchiveDir {
    /// `extra` is YAML of further sections, each at the left margin.
    pub fn new(scratch: &Path, bootstrap: &str, extra: &str) -> Result<Self> {
        let source = format!("source: {{ bootstrap.servers: \"{bootstrap}\" }}");
        Self::of_source(scratch, &source, extra)
    }

    /// `source` is the YAML of its section.
    pub fn of_source(scratch: &Path, source: &str, extra: &str) -> Result<Self> {
        let path = scratch.join("archive");
        std::fs::create_dir_all(&path)?;
        let config = scratch.join("archive.yaml");
        let text = format!("{source}\narchive: {{ url: \"file://{}\" }}\n{extra}\n", path.display());
        std::fs::write(&config, text)?;
        Ok(Self { path, config, env: Vec::new() })
    }

    /// A variable of the archiver's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(varve()?);
        command.args(args).envs(self.env.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Elsewhere than in a directory: `archive` is the YAML of its section. Only what runs can be asked of it.
    pub fn with(scratch: &Path, bootstrap: &str, archive: &str, extra: &str) -> Result<Self> {
        let config = scratch.join("archive.yaml");
        let text = format!("source: {{ bootstrap.servers: \"{bootstrap}\" }}\n{archive}\n{extra}\n");
        std::fs::write(&config, text)?;
        Ok(Self { path: scratch.join("nowhere"), config, env: Vec::new() })
    }

    /// A copy of all objects of a store, to be looked into.
    pub fn mirror(scratch: &Scratch, store: &Tier) -> Result<Self> {
        let path = scratch.path().join("mirror");
        for key in store.list()?.keys() {
            let file = path.join(key);
            std::fs::create_dir_all(file.parent().context("a key without a folder")?)?;
            std::fs::write(file, store.read(key)?)?;
        }
        Ok(Self { config: path.join("none"), path, env: Vec::new() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    /// `varve archive run --once`, to its end; what it printed.
    pub fn run_once(&self, extra: &[&str]) -> Result<String> {
        let ended = self.try_once(extra)?;
        ensure!(ended.code == Some(0), "varve archive run --once {extra:?}: {ended:?}");
        Ok(ended.out)
    }

    /// `varve archive run --once`, to its end, whatever that is.
    pub fn try_once(&self, extra: &[&str]) -> Result<Ended> {
        let config = self.config.display().to_string();
        let args = [&["archive", "run", "-c", &config, "--once", "--json"], extra].concat();
        let output = self.command(&args)?.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// `varve verify` of all contents: sound, or an error with what was found.
    pub fn verify(&self) -> Result<()> {
        let args = ["verify", &self.url(), "--depth", "contents", "--json"];
        let output = Command::new(varve()?).args(args).output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "varve {args:?}: {}\n{out}\n{err}", output.status);
        Ok(())
    }

    /// The journal's, of all archivers: those that are there, while others come and go.
    pub fn bundles(&self) -> Vec<PathBuf> {
        let folders = std::fs::read_dir(self.path.join("journal")).into_iter().flatten().flatten();
        let files =
            folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
        files.map(|file| file.path()).collect()
    }

    /// The newest snapshot's record.
    pub fn newest_snapshot(&self) -> Result<serde_json::Value> {
        let mut names: Vec<PathBuf> =
            std::fs::read_dir(self.path.join("snapshots"))?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
        names.sort();
        Ok(serde_json::from_slice(&std::fs::read(names.last().context("no snapshot")?)?)?)
    }

    /// What the newest snapshot holds of the cluster.
    pub fn cluster_state(&self) -> Result<ClusterState> {
        let snapshot = self.newest_snapshot()?;
        let mut documents = snapshot["documents"].as_array().context("no documents")?.iter();
        let document = documents.find(|d| d["name"] == CLUSTER_STATE).context("no state of the cluster")?;
        let hash = document["hash"].as_str().context("no hash")?;
        Ok(ClusterState::decode(&std::fs::read(self.path.join("manifests").join(hash))?)?)
    }

    /// `varve archive import --json`, to its end: its exit code, and what it printed; errors as text.
    pub fn import(
        &self,
        directories: &[&Path],
        extra: &[&str],
    ) -> Result<(i32, Vec<serde_json::Value>, String)> {
        let mut command = Command::new(varve()?);
        command.args(["archive", "import", "--json", "-c"]).arg(&self.config).args(extra).args(directories);
        let output = command.output()?;
        let out = String::from_utf8(output.stdout)?;
        let lines = out.lines().map(serde_json::from_str).collect::<Result<_, _>>().context(out.clone())?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code().context("killed")?, lines, error))
    }

    /// `varve archive run`, until it is stopped.
    pub fn start(&self, log: &Path, extra: &[&str]) -> Result<Running> {
        let mut command = self.command(&["archive", "run", "-c"])?;
        command.arg(&self.config).args(extra);
        Ok(Running(Process::start("varve archive run", command, log)?))
    }

    /// The objects of one branch in the order of their names, each checked to follow the one before.
    pub fn chain(&self, topic_id: &str, partition: i32, branch: u32) -> Result<Vec<ArchivedObject>> {
        let dir = self.path.join(format!("topics/{topic_id}/{partition}/{branch}"));
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(&dir)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|e| e == "varve"));
        paths.sort();
        let objects: Vec<ArchivedObject> = paths.iter().map(|path| object(path)).collect::<Result<_>>()?;
        for pair in objects.windows(2) {
            ensure!(
                pair[0].end_offset() == pair[1].first_offset(),
                "{} ends at {}, the next is {}",
                pair[0].path.display(),
                pair[0].end_offset(),
                pair[1].path.display()
            );
        }
        Ok(objects)
    }

    /// Branches that have objects.
    pub fn branches(&self, topic_id: &str, partition: i32) -> Result<Vec<u32>> {
        let dir = self.path.join(format!("topics/{topic_id}/{partition}"));
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// What the current branch of a partition goes back to: its parents' objects below where it begins, then its own.
    pub fn history(&self, topic_id: &str, partition: i32) -> Result<Vec<ArchivedObject>> {
        let dir = self.path.join(format!("topics/{topic_id}/{partition}/branches"));
        let mut records: BTreeMap<u32, serde_json::Value> = BTreeMap::new();
        if dir.is_dir() {
            for entry in std::fs::read_dir(&dir)? {
                let record: serde_json::Value = serde_json::from_slice(&std::fs::read(entry?.path())?)?;
                let number = record["branch"].as_u64().context("a branch without a number")?;
                records.insert(u32::try_from(number)?, record);
            }
        }
        let mut branch = records.keys().next_back().copied().unwrap_or(0);
        let (mut history, mut below) = (Vec::new(), i64::MAX);
        loop {
            let mut chain = self.chain(topic_id, partition, branch)?;
            chain.retain(|object| object.first_offset() < below);
            if let Some(last) = chain.last_mut() {
                // Its records behind the cut are another history's.
                let kept = before(&last.log, below)?.len();
                last.log.truncate(kept);
                last.footer.info.last_offset = last.footer.info.last_offset.min(below - 1);
            }
            chain.append(&mut history);
            history = chain;
            let Some(record) = records.get(&branch) else { break };
            below = record["start_offset"].as_i64().context("a branch without a start")?;
            match record["parent"].as_u64() {
                Some(parent) => branch = u32::try_from(parent)?,
                None => break,
            }
        }
        Ok(history)
    }

    /// Compares all partitions of `topics` with the brokers: every byte between the log's start and its end, every
    /// offset before it a gap, none within.
    pub fn compare(&self, client: &Client, topics: &[&str]) -> Result<Compared> {
        self.compare_with(&TopicLogs::read(client, topics)?)
    }

    /// The same with what was read before.
    pub fn compare_with(&self, topics: &[TopicLogs]) -> Result<Compared> {
        let mut compared = Compared::default();
        for TopicLogs { topic, topic_id, logs } in topics {
            for (&partition, log) in logs {
                let chain = self.history(topic_id, partition)?;
                if chain.is_empty() {
                    let empty = log.start_offset == log.end_offset && log.end_offset == 0;
                    ensure!(empty, "{topic}-{partition}: nothing archived of {log:?}");
                    continue;
                }
                compared.add(&format!("{topic}-{partition}"), log, &chain)?;
            }
        }
        Ok(compared)
    }
}

/// What brokers have of a topic.
#[derive(Clone, Debug)]
pub struct TopicLogs {
    pub topic: String,
    pub topic_id: String,
    pub logs: BTreeMap<i32, RawLog>,
}

impl TopicLogs {
    pub fn read(client: &Client, topics: &[&str]) -> Result<Vec<Self>> {
        let read = |topic: &&str| {
            let (topic_id, logs) = runtime()?.block_on(read_topic(client, topic))?;
            Ok(Self { topic: (*topic).to_owned(), topic_id, logs })
        };
        topics.iter().map(read).collect()
    }
}

/// What a comparison saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    pub partitions: u32,
    pub bytes: u64,
    pub objects: u64,
    pub gaps: u64,
}

impl Compared {
    fn add(&mut self, what: &str, log: &RawLog, chain: &[ArchivedObject]) -> Result<()> {
        let mut archived = Vec::new();
        let mut covered = chain.first().map_or(0, ArchivedObject::first_offset);
        for object in chain {
            covered = object.end_offset();
            if let Some(reason) = &object.gap {
                self.gaps += 1;
                ensure!(
                    object.end_offset() <= log.start_offset || reason.contains("compacted"),
                    "{what}: a gap {reason} at {} to {} in a log from {}",
                    object.first_offset(),
                    object.end_offset(),
                    log.start_offset
                );
            }
            archived.extend_from_slice(&object.log);
        }
        ensure!(
            covered == log.end_offset,
            "{what}: archived to {covered}, the log ends at {}",
            log.end_offset
        );
        // What was deleted from the log since is archived still.
        let behind = behind(&archived, log.start_offset)?;
        if behind != log.batches {
            let at = behind.iter().zip(&log.batches).position(|(a, b)| a != b);
            bail!(
                "{what}: {} bytes archived, {} in the log, first difference at {at:?}",
                behind.len(),
                log.batches.len()
            );
        }
        self.partitions += 1;
        self.bytes += log.batches.len() as u64;
        self.objects += chain.len() as u64;
        Ok(())
    }
}

/// The batches that begin before `offset`.
fn before(log: &[u8], offset: i64) -> Result<&[u8]> {
    let mut position = 0;
    for batch in Batches::new(bytes::Bytes::copy_from_slice(log), 0) {
        let batch = batch?;
        if batch.header.base_offset >= offset {
            break;
        }
        position += batch.bytes.len();
    }
    Ok(&log[..position])
}

/// The batches that end behind `offset`.
fn behind(log: &[u8], offset: i64) -> Result<&[u8]> {
    let mut position = 0;
    for batch in Batches::new(bytes::Bytes::copy_from_slice(log), 0) {
        let batch = batch?;
        if batch.header.next_offset() > offset {
            break;
        }
        position += batch.bytes.len();
    }
    Ok(&log[position..])
}

async fn read_topic(client: &Client, topic: &str) -> Result<(String, BTreeMap<i32, RawLog>)> {
    let metadata = client.topic(topic).await?;
    let mut logs: BTreeMap<i32, RawLog> = BTreeMap::new();
    let partitions: Vec<i32> = metadata.partitions.iter().map(|p| p.partition).collect();
    let starts = client.list_offsets(topic, &partitions, varve_kafka::client::OffsetSpec::Earliest).await?;
    let ends = client.list_offsets(topic, &partitions, varve_kafka::client::OffsetSpec::Latest).await?;
    for partition in partitions {
        let offset = |of: &BTreeMap<i32, Option<i64>>| of.get(&partition).copied().flatten().unwrap_or(0);
        let log = RawLog { start_offset: offset(&starts), end_offset: offset(&ends), batches: Vec::new() };
        logs.insert(partition, log);
    }
    let mut reader = client.read_topic_to_end(topic).await?;
    while let Some(batches) = reader.next().await? {
        let log = logs.get_mut(&batches.partition).context("a partition that was not there")?;
        // Reading to the end may bring more than was there at first.
        log.end_offset = log.end_offset.max(batches.next_offset);
        log.batches.extend_from_slice(&batches.bytes);
    }
    Ok((metadata.topic_id.to_string(), logs))
}

fn object(path: &Path) -> Result<ArchivedObject> {
    let bytes = std::fs::read(path)?;
    let trailer = bytes.last_chunk::<TRAILER_BYTES>().context("no trailer")?;
    let trailer = Trailer::decode(trailer, bytes.len() as u64).with_context(|| path.display().to_string())?;
    let footer =
        Footer::decode(&bytes[trailer.footer_offset as usize..bytes.len() - TRAILER_BYTES], &trailer)?;
    let mut decoder = Decoder::new(&footer, None)?;
    let (mut log, mut gap) = (Vec::new(), None);
    for extent in &footer.extents {
        let mut plain = Vec::new();
        for number in extent.first_frame..extent.first_frame + extent.frame_count() {
            let frame = footer.frame(number)?;
            let from = plain.len();
            plain.resize(from + frame.plain_bytes as usize, 0);
            let stored = &bytes[frame.stored.start as usize..frame.stored.end as usize];
            decoder.decode(&frame, stored, &mut plain[from..])?;
        }
        match extent.kind {
            ExtentKind::Log => log.extend(plain),
            ExtentKind::Unknown(128) => gap = Some(String::from_utf8(plain)?),
            _ => {}
        }
    }
    Ok(ArchivedObject { path: path.to_owned(), footer, log, gap })
}

/// A client of plain brokers.
pub fn plain_client(bootstrap: &str) -> Result<Client> {
    client(bootstrap, &[])
}

/// A client with more of its configuration.
pub fn client(bootstrap: &str, pairs: &[(&str, &str)]) -> Result<Client> {
    let servers = [("bootstrap.servers", bootstrap)].into_iter();
    Ok(Client::new(ClientConfig::from_pairs(servers.chain(pairs.iter().copied()))?)?)
}

/// The command, built beside the tests, or another one by the environment.
pub fn varve() -> Result<PathBuf> {
    if let Some(other) = std::env::var_os("VARVE_COMMAND") {
        return Ok(other.into());
    }
    let exe = std::env::current_exe()?;
    let release =
        exe.ancestors().find(|dir| dir.join("varve").is_file()).context("no varve built beside the tests")?;
    Ok(release.join("varve"))
}

/// For the tests' own client.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// An archiver that goes on until it is stopped or dropped.
#[derive(Debug)]
pub struct Running(pub(crate) Process);

impl Running {
    /// `command`, until it is stopped.
    pub fn begin(command: Command, log: &Path) -> Result<Self> {
        Ok(Self(Process::start("varve archive run", command, log)?))
    }

    /// As kill -9 does.
    pub fn kill(self) {
        drop(self);
    }

    /// As a service manager stops it.
    pub fn terminate(self) -> Result<ExitStatus> {
        self.0.stop(Duration::from_secs(60))
    }

    pub fn is_alive(&mut self) -> bool {
        self.0.alive()
    }

    pub fn pid(&self) -> u32 {
        self.0.pid()
    }
}
