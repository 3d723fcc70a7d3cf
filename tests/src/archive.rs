//! An archive held against the brokers: raw batches as fetched, byte for byte, and every offset accounted for.
//! The archive is read here by its names and footers alone, not by what is to be tested.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::stores::{self, SETTINGS_FILE};
use crate::tier::Tier;

/// An archive in the store that this run is about, and the archivers that write it.
#[derive(Debug)]
pub struct TestArchive {
    tier: Tier,
    config: PathBuf,
    /// The store's settings, for the command.
    settings: PathBuf,
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
    /// Of the object.
    pub key: String,
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

impl TestArchive {
    /// `extra` is YAML of further sections, each at the left margin.
    pub fn new(scratch: &Path, bootstrap: &str, extra: &str) -> Result<Self> {
        let source = format!("source: {{ bootstrap.servers: \"{bootstrap}\" }}");
        Self::of_source(scratch, &source, extra)
    }

    /// `source` is the YAML of its section.
    pub fn of_source(scratch: &Path, source: &str, extra: &str) -> Result<Self> {
        Self::on(Tier::chosen(&scratch.join("archive"))?, scratch, source, extra)
    }

    /// In a certain store.
    pub fn on(tier: Tier, scratch: &Path, source: &str, extra: &str) -> Result<Self> {
        let archive = archive_section(&tier.rsm_config());
        Self::with(tier, scratch, &format!("{source}\n{archive}\n{extra}\n"))
    }

    /// The archiver's configuration is as given, and may know another way to the store.
    pub fn with(tier: Tier, scratch: &Path, config: &str) -> Result<Self> {
        let archive = Self::looked_at(tier, scratch)?;
        std::fs::write(&archive.config, config)?;
        Ok(archive)
    }

    fn looked_at(tier: Tier, scratch: &Path) -> Result<Self> {
        let settings = scratch.join("archive.store.properties");
        tier.write_settings(&settings)?;
        Ok(Self { tier, config: scratch.join("archive.yaml"), settings, env: Vec::new() })
    }

    /// The same objects in another place of the same kind of store: to be damaged. No archiver writes it.
    pub fn copied(&self, scratch: &Path) -> Result<Self> {
        let tier = Tier::chosen(&scratch.join("archive"))?;
        self.tier.copy_to(&tier)?;
        Self::looked_at(tier, scratch)
    }

    /// A variable of the archiver's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command, which finds in its environment what opens this archive.
    pub fn varve(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(varve_file()?);
        command.args(args).env(SETTINGS_FILE, &self.settings);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Its objects, without what they mean.
    pub fn tier(&self) -> &Tier {
        &self.tier
    }

    /// Where its objects are files; [`NotHere`](crate::NotHere) elsewhere.
    pub fn directory(&self) -> Result<&Path> {
        self.tier.directory()
    }

    pub fn url(&self) -> String {
        self.tier.url()
    }

    /// As the product opens it.
    pub async fn open(&self) -> Result<varve_archive::Archive> {
        let store = varve_store::open(&self.url(), &self.tier.settings()).await?;
        Ok(varve_archive::Archive::open(store, "").await?)
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
        let output = self.varve(&args)?.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// `varve verify` of all contents: sound, or an error with what was found.
    pub fn verify(&self) -> Result<()> {
        let args = ["verify", &self.url(), "--depth", "contents", "--json"];
        let output = self.varve(&args)?.output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "varve {args:?}: {}\n{out}\n{err}", output.status);
        Ok(())
    }

    /// The journal's, of all archivers: their keys.
    pub fn bundles(&self) -> Result<Vec<String>> {
        Ok(self.tier.list_below("journal/")?.into_keys().collect())
    }

    /// The newest snapshot's record.
    pub fn newest_snapshot(&self) -> Result<serde_json::Value> {
        let all = self.tier.list_below("snapshots/")?;
        let (newest, _) = all.last_key_value().context("no snapshot")?;
        Ok(serde_json::from_slice(&self.tier.read(newest)?)?)
    }

    /// What the newest snapshot holds of the cluster.
    pub fn cluster_state(&self) -> Result<ClusterState> {
        let snapshot = self.newest_snapshot()?;
        let mut documents = snapshot["documents"].as_array().context("no documents")?.iter();
        let document = documents.find(|d| d["name"] == CLUSTER_STATE).context("no state of the cluster")?;
        let hash = document["hash"].as_str().context("no hash")?;
        Ok(ClusterState::decode(&self.tier.read(&format!("manifests/{hash}"))?)?)
    }

    /// `varve archive import --json`, to its end: its exit code, and what it printed; errors as text.
    pub fn import(
        &self,
        directories: &[&Path],
        extra: &[&str],
    ) -> Result<(i32, Vec<serde_json::Value>, String)> {
        let mut command = self.varve(&["archive", "import", "--json", "-c"])?;
        command.arg(&self.config).args(extra).args(directories);
        let output = command.output()?;
        let out = String::from_utf8(output.stdout)?;
        let lines = out.lines().map(serde_json::from_str).collect::<Result<_, _>>().context(out.clone())?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code().context("killed")?, lines, error))
    }

    /// `varve archive run`, until it is stopped.
    pub fn start(&self, log: &Path, extra: &[&str]) -> Result<Running> {
        let mut command = self.varve(&["archive", "run", "-c"])?;
        command.arg(&self.config).args(extra);
        Ok(Running(Process::start("varve archive run", command, log)?))
    }

    /// The objects of one branch in the order of their names, each checked to follow the one before.
    pub fn chain(&self, topic_id: &str, partition: i32, branch: u32) -> Result<Vec<ArchivedObject>> {
        let keys = self.tier.list_below(&format!("topics/{topic_id}/{partition}/{branch}/"))?.into_keys();
        let keys = keys.filter(|key| key.ends_with(".varve"));
        let objects: Vec<ArchivedObject> = keys.map(|key| self.object(key)).collect::<Result<_>>()?;
        for pair in objects.windows(2) {
            ensure!(
                pair[0].end_offset() == pair[1].first_offset(),
                "{} ends at {}, the next is {}",
                pair[0].key,
                pair[0].end_offset(),
                pair[1].key
            );
        }
        Ok(objects)
    }

    fn object(&self, key: String) -> Result<ArchivedObject> {
        let bytes = self.tier.read(&key)?;
        object(key, &bytes)
    }

    /// Branches that have objects.
    pub fn branches(&self, topic_id: &str, partition: i32) -> Result<Vec<u32>> {
        let folder = format!("topics/{topic_id}/{partition}/");
        let keys = self.tier.list_below(&folder)?;
        ensure!(!keys.is_empty(), "nothing in {folder}");
        let below = keys.keys().filter_map(|key| key.strip_prefix(&folder)?.split_once('/'));
        let found: BTreeSet<u32> = below.filter_map(|(branch, _)| branch.parse().ok()).collect();
        Ok(found.into_iter().collect())
    }

    /// What the current branch of a partition goes back to: its parents' objects below where it begins, then its own.
    pub fn history(&self, topic_id: &str, partition: i32) -> Result<Vec<ArchivedObject>> {
        let mut records: BTreeMap<u32, serde_json::Value> = BTreeMap::new();
        for key in self.tier.list_below(&format!("topics/{topic_id}/{partition}/branches/"))?.keys() {
            let record: serde_json::Value = serde_json::from_slice(&self.tier.read(key)?)?;
            let number = record["branch"].as_u64().context("a branch without a number")?;
            records.insert(u32::try_from(number)?, record);
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

fn object(key: String, bytes: &[u8]) -> Result<ArchivedObject> {
    let trailer = bytes.last_chunk::<TRAILER_BYTES>().context("no trailer")?;
    let trailer = Trailer::decode(trailer, bytes.len() as u64).with_context(|| key.clone())?;
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
    Ok(ArchivedObject { key, footer, log, gap })
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

/// The command, which finds the settings of the chosen store in its environment, if that runs.
pub fn varve() -> Result<Command> {
    let mut command = Command::new(varve_file()?);
    command.envs(stores::settings_file()?.map(|file| (SETTINGS_FILE, file)));
    Ok(command)
}

/// The command, built beside the tests, or another one by the environment.
pub fn varve_file() -> Result<PathBuf> {
    if let Some(other) = std::env::var_os("VARVE_COMMAND") {
        return Ok(other.into());
    }
    let exe = std::env::current_exe()?;
    let release =
        exe.ancestors().find(|dir| dir.join("varve").is_file()).context("no varve built beside the tests")?;
    Ok(release.join("varve"))
}

/// The YAML of an archiver's `archive`.
pub fn archive_section(settings: &BTreeMap<String, String>) -> String {
    let line = |(key, value): (&String, &String)| {
        let key = if key == "store.url" { "url" } else { key };
        format!("\n  {key}: \"{value}\"")
    };
    format!("archive:{}", settings.iter().map(line).collect::<String>())
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
