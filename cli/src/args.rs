//! The command line. What is said here is what `--help`, the man pages and the completions say.

pub(crate) mod archive;
pub(crate) mod keys;
pub(crate) mod restore;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use varve_format::KeyRing;
use varve_kafka::client::{ClientConfig, parse_properties};
use varve_kafka::replica::ListenerConfig;
use varve_keys::{DataKeys, KeyServices, KeyUrl, Trusted};
use varve_store::SharedStore;
use zeroize::Zeroizing;

use crate::command::archive_import::ArchiveImportArgs;
use archive::{ArchiveVerifyArgs, CatArgs, DiffArgs, LsArgs, SnapshotsArgs};
use keys::KeysCommand;
use restore::{DrillArgs, RestoreArgs};

/// Tiered storage, archive and restore for Apache Kafka.
///
/// Exit codes: 0 all is well, 1 something was found, 2 it could not be done.
#[derive(Debug, Parser)]
#[command(name = "varve", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look into one segment object.
    #[command(subcommand)]
    Segment(SegmentCommand),
    /// Look after a tier.
    #[command(subcommand)]
    Tier(TierCommand),
    /// Try a store.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Keep an archive.
    #[command(subcommand)]
    Archive(ArchiveCommand),
    /// Look after data keys, of a tier or an archive: list, rotate, wrap anew, destroy.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Look into a configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// List an archive's topics; or a topic's partitions, with branches, ends and gaps.
    Ls(LsArgs),
    /// List an archive's snapshots, which are its recovery points; or say all of one.
    Snapshots(SnapshotsArgs),
    /// Print the records of any archived range. No cluster is needed.
    Cat(CatArgs),
    /// Prove a snapshot: the chain of snapshots, signatures, every manifest, every object.
    Verify(ArchiveVerifyArgs),
    /// Compare two snapshots, or the archive with a living cluster.
    Diff(DiffArgs),
    /// Put an archive back into a running cluster: byte for byte, with the same offsets.
    ///
    /// Plans first, shows the plan, and applies it once it is told --yes. The plan is a file: `varve restore apply` goes
    /// on with it after whatever interruption, `cleanup` takes back what it began, `verify` compares again, `release`
    /// gives the topics the retention that they had. Exit code 1: something differs, or was not committed.
    Restore(Box<RestoreArgs>),
    /// Restore an archive, or a sample of it, into a broker of its own that is thrown away: is it there, does it hold,
    /// how long does it take. For a cron job, and for an auditor.
    ///
    /// The broker is started from a Kafka installation on this machine. Exit code 1: something differs.
    Drill(DrillArgs),
    /// Print the completions of a shell.
    Completion(CompletionArgs),
    /// Print the man page, or write all of them into a directory.
    Man(ManArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SegmentCommand {
    /// Print what an object says of itself, and what is in it.
    Inspect(InspectArgs),
    /// Check every byte: checksums, digests, batches, indexes.
    Verify(VerifyArgs),
    /// Write the broker's files back: .log, .index, .timeindex, .txnindex, .snapshot, leader-epoch-checkpoint.
    Extract(ExtractArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TierCommand {
    /// Compare the store with what the brokers know of: orphans, left-over uploads, losses, corruption.
    ///
    /// Reads the topic __remote_log_metadata from its beginning. Deletes nothing.
    Scrub(ScrubArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Try every promise that a store must keep, on your own bucket, before trusting it.
    ///
    /// Works under a prefix of its own, writes some tens of MiB, and removes them at the end.
    Check(CheckArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Archive topics, and the state of their cluster, until it is stopped.
    ///
    /// TERM and Ctrl-C end it in an orderly way: what is held goes into the archive first.
    Run(ArchiveRunArgs),
    /// Archive what brokers' data directories hold: a broker's own, a copy, a volume snapshot, a tar.
    ///
    /// Takes what is below the high watermark that the broker wrote down, of its closed segments.
    Import(ArchiveImportArgs),
    /// Ask a running archiver how it is: lag by topic, whether the RPO is met, troubles and what to do.
    ///
    /// It must listen (metrics.listen). Exit code 1: it is not ready, misses the RPO or is in trouble.
    Status(ArchiveStatusArgs),
    /// Make a recovery point now, beside the archivers that run, of what they have archived.
    ///
    /// Group offsets are read first, then the ends of the logs; then it waits until the archive has reached them.
    /// Exit code 1: some partitions had not, and are named as lagging in the snapshot.
    Snapshot(ArchiveSnapshotArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check an archiver's configuration, and print what holds: defaults filled in, secrets hidden.
    Check(ConfigCheckArgs),
}

/// How to reach a store.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// A setting of the store, as for the plug-in: s3.endpoint.url, s3.region … May be repeated.
    #[arg(long = "store-config", value_name = "KEY=VALUE", value_parser = key_value)]
    settings: Vec<(String, String)>,
    /// A file of KEY=VALUE lines: the place for keys and passwords.
    #[arg(long = "store-config-file", value_name = "FILE", env = "VARVE_STORE_CONFIG_FILE")]
    settings_file: Option<PathBuf>,
}

/// How long a command uses a data key before it asks for it anew.
const KEY_CACHE: Duration = Duration::from_secs(3600);

/// How to open what is encrypted.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// The key ring, as for the plug-in's encryption.key.ring.file.
    #[arg(long, value_name = "FILE", env = "VARVE_KEY_RING")]
    key_ring: Option<PathBuf>,
    // Read by us, not by clap, which shows what it refuses: that may be a secret in the wrong place.
    /// A key-encryption key that may be asked to open data keys: aws-kms://…, gcp-kms://…, azure-kms://…, vault://….
    /// May be repeated; no others are asked.
    #[arg(
        long = "kek",
        value_name = "URL",
        env = "VARVE_KEKS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    keks: Vec<String>,
    /// A setting of the key service, as for the plug-in: kms.vault.token.file, kms.timeout.ms … May be repeated.
    #[arg(long = "key-config", value_name = "KEY=VALUE", value_parser = key_value)]
    key_settings: Vec<(String, String)>,
    /// A file of KEY=VALUE lines: the place for tokens and passwords.
    #[arg(long = "key-config-file", value_name = "FILE", env = "VARVE_KEY_CONFIG_FILE")]
    key_settings_file: Option<PathBuf>,
}

/// Which segment object.
#[derive(Debug, Args)]
pub(crate) struct SegmentArgs {
    /// URL of the object (file:///…, s3://bucket/…), or the path of a file.
    pub(crate) url: String,
    /// The store that holds the object and its keys, if the object's name doesn't tell.
    #[arg(long = "store.url", alias = "store-url", value_name = "URL")]
    pub(crate) store_url: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) segment: SegmentArgs,
    /// List the batches too, one a line, as kafka-dump-log does.
    #[arg(long)]
    pub(crate) batches: bool,
    /// List the entries of all indexes too.
    #[arg(long)]
    pub(crate) indexes: bool,
    /// JSON: one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) segment: SegmentArgs,
    /// JSON: one object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExtractArgs {
    #[command(flatten)]
    pub(crate) segment: SegmentArgs,
    /// Where to; made if absent. Files that exist are never replaced.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) into: PathBuf,
    /// JSON: one object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ScrubArgs {
    /// The tier's store, as in the plug-in's store.url.
    #[arg(long = "store.url", alias = "store-url", value_name = "URL")]
    pub(crate) store_url: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    /// Brokers to read the metadata from.
    #[arg(long = "bootstrap-server", value_name = "HOST:PORT,…")]
    pub(crate) bootstrap_server: String,
    /// The client's configuration (security.protocol, sasl.*, ssl.* …), KEY=VALUE lines.
    #[arg(long, value_name = "FILE")]
    pub(crate) command_config: Option<PathBuf>,
    /// The plug-in's cluster.id, if it is not Kafka's own id of the cluster.
    #[arg(long, value_name = "ID")]
    pub(crate) cluster_id: Option<String>,
    /// What is younger is in flight and no finding: 90s, 30m, 2h, 1d.
    #[arg(long, value_name = "AGE", default_value = "1h", value_parser = duration)]
    pub(crate) grace: Duration,
    /// Read and check every byte of every segment, not only footers and sizes.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Segments checked at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) parallel: u16,
    /// JSON: a line for each finding, then one for the sums.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum CheckFor {
    Tier,
    EncryptedTier,
    Archive,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// URL of the store: file:///directory, s3://bucket/prefix.
    pub(crate) url: String,
    /// What it is to be used for; what that can do without doesn't count.
    #[arg(long = "for", value_name = "PURPOSE", value_enum, default_value = "archive")]
    pub(crate) purpose: CheckFor,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// JSON: a line for each promise.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveRunArgs {
    /// The YAML file; docs/CONFIG.md has all of its keys.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// A key that counts more than in the file. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Up to the ends that the logs have now; then a snapshot, then the end.
    #[arg(long)]
    pub(crate) once: bool,
    /// JSON, with --once: one object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveStatusArgs {
    /// The archiver's YAML file, for where it listens.
    #[arg(short, long, value_name = "FILE", required_unless_present = "url")]
    pub(crate) config: Option<PathBuf>,
    /// A key that counts more than in the file. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Where it listens: http://host:9644.
    #[arg(long, value_name = "URL", conflicts_with_all = ["config", "set"])]
    pub(crate) url: Option<url::Url>,
    /// JSON: one object, with each partition.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveSnapshotArgs {
    /// The archivers' YAML file; docs/CONFIG.md has all of its keys.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// A key that counts more than in the file. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// How long to wait for the archive: 0s, 90s, 30m. By default, the file's snapshots.wait.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// Ask no broker: the cluster is lost, and this is all that the archive has by now. Groups, configs and ACLs are
    /// those of the last snapshot that has any.
    #[arg(long, conflicts_with = "wait")]
    pub(crate) without_cluster: bool,
    /// JSON: one object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigCheckArgs {
    /// The YAML file; docs/CONFIG.md has all of its keys.
    pub(crate) file: PathBuf,
    /// A key that counts more than in the file. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = key_value)]
    pub(crate) sets: Vec<(String, String)>,
    /// JSON: one object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page for each command here instead.
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
}

impl StoreArgs {
    /// The file's settings, then those of the command line, which count more.
    pub(crate) fn settings(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        if let Some(path) = &self.settings_file {
            all.extend(properties_file(path)?);
        }
        all.extend(self.settings.iter().cloned());
        Ok(all)
    }
}

impl KeyArgs {
    fn ring(&self) -> anyhow::Result<Option<KeyRing>> {
        let Some(path) = &self.key_ring else { return Ok(None) };
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.with_context(|| format!("key ring {}", path.display()))?;
        let ring = KeyRing::parse(&text).with_context(|| format!("key ring {}", path.display()))?;
        Ok(Some(ring))
    }

    fn services(&self, more: &[KeyUrl]) -> anyhow::Result<(KeyServices, Trusted, bool)> {
        let mut settings = BTreeMap::new();
        if let Some(path) = &self.key_settings_file {
            settings.extend(properties_file(path)?);
        }
        settings.extend(self.key_settings.iter().cloned());
        let ring = self.ring()?.map(Arc::new);
        let services = KeyServices::new(&settings, ring.clone())?;
        let keks = self.keks.iter().map(|url| KeyUrl::configured(url)).collect::<Result<Vec<_>, _>>()?;
        let keks: Vec<KeyUrl> = keks.into_iter().chain(more.iter().cloned()).collect();
        let is_any = ring.is_some() || !keks.is_empty();
        Ok((services, Trusted::new(keks, ring.is_some()), is_any))
    }

    /// Data keys whose records are in `store`; `None` if no key is given at all. `more` are trusted too.
    pub(crate) fn open_with(&self, store: &SharedStore, more: &[KeyUrl]) -> anyhow::Result<Option<DataKeys>> {
        let (services, trusted, is_any) = self.services(more)?;
        Ok(is_any.then(|| DataKeys::new(store.clone(), services, trusted, KEY_CACHE)))
    }

    /// The same, also without any key: then records are seen, and none opens. And what is trusted, if anything is.
    pub(crate) fn open_records(&self, store: &SharedStore) -> anyhow::Result<(DataKeys, Option<Trusted>)> {
        let (services, trusted, is_any) = self.services(&[])?;
        let keys = DataKeys::new(store.clone(), services, trusted.clone(), KEY_CACHE);
        Ok((keys, is_any.then_some(trusted)))
    }

    /// The same, of what is given alone.
    pub(crate) fn open(&self, store: &SharedStore) -> anyhow::Result<Option<DataKeys>> {
        self.open_with(store, &[])
    }
}

/// Data keys whose records are in `store`, of which none opens: to see and destroy them takes no key.
pub(crate) fn sealed_keys(store: &SharedStore) -> anyhow::Result<DataKeys> {
    let services = KeyServices::new(&BTreeMap::new(), None)?;
    Ok(DataKeys::new(store.clone(), services, Trusted::default(), KEY_CACHE))
}

pub(crate) fn properties_file(path: &std::path::Path) -> anyhow::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.with_context(|| format!("file {}", path.display()))?;
    parse_properties(&text).with_context(|| format!("file {}", path.display()))
}

/// Of a client of these servers: what the file has, as Kafka's own tools take it by `--command-config`.
pub(crate) fn client_config(servers: &str, file: Option<&std::path::Path>) -> anyhow::Result<ClientConfig> {
    let mut pairs = file.map(properties_file).transpose()?.unwrap_or_default();
    pairs.push(("bootstrap.servers".to_owned(), servers.to_owned()));
    Ok(ClientConfig::from_pairs(pairs)?)
}

/// Of the listener that brokers copy from.
pub(crate) fn listener_config(file: Option<&std::path::Path>) -> anyhow::Result<ListenerConfig> {
    let pairs = file.map(properties_file).transpose()?.unwrap_or_default();
    Ok(ListenerConfig::from_pairs(pairs)?)
}

/// The value is not printed: it may be a secret.
pub(crate) fn key_value(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = text.split_once('=').context("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().context("expected a number and a unit: 90s, 30m, 2h, 1d")?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => bail!("expected s, m, h or d after the number, found {unit:?}"),
    };
    Ok(Duration::from_secs(number.checked_mul(seconds).context("too long")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn ages() {
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("2d").unwrap(), Duration::from_secs(172_800));
        for bad in ["", "h", "5", "5w", "-1s", "99999999999999999999s", "9999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
