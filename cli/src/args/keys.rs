//! Arguments of the commands that look after data keys.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use varve_format::Id;

use super::{KeyArgs, StoreArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// List data keys, what wraps them, and which objects need them.
    ///
    /// Reads every key record and the footer of every object. Exit code 1: an object needs a key that is not there and
    /// was not destroyed on purpose, or a record is damaged, or (with --try) does not open.
    Audit(AuditArgs),
    /// Begin with a new key-encryption key: in a key ring's file, or what to configure for a key of a key service.
    ///
    /// What was written before stays readable by the old key, until `varve keys rewrap` has wrapped its data keys anew.
    /// Brokers and archivers read the ring's file when they start. One that has not got the new key can't read what
    /// others write under it: with several of them, add the key with --keep-active, put the file everywhere, and make
    /// the key the active one by --activate after that.
    Rotate(RotateArgs),
    /// Wrap all data keys anew, by another key-encryption key or by its newest version. Objects stay as they are.
    ///
    /// May be broken off and repeated. It takes nothing back from whoever opened a data key before: to do that, shred
    /// the key. Exit code 1: some could not be wrapped anew.
    Rewrap(RewrapArgs),
    /// Destroy a topic's data keys: what they sealed can't be read ever again, by anybody.
    ///
    /// Each key's record and all its versions are deleted, a tombstone is left, and then it is proven that nothing is
    /// left. What runs meanwhile and holds a key goes on with it for up to encryption.key.cache.ms; writers make a new
    /// key. Copies of records elsewhere (backups, replicated buckets, another store's copy of the archive) are out of
    /// reach: destroy them too. Exit code 1: something is left.
    Shred(ShredArgs),
}

/// Which store.
#[derive(Debug, Args)]
pub(crate) struct KeysUrl {
    /// URL of the tier's store or of the archive (file:///directory, s3://bucket/prefix), or the path of a directory.
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    pub(crate) at: KeysUrl,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    /// Only these topics, by name or id; * stands for any characters. May be repeated.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) topics: Vec<String>,
    /// Ask the key-encryption keys to open every data key.
    #[arg(long = "try")]
    pub(crate) try_open: bool,
    /// List each object with the key that it needs, too.
    #[arg(long)]
    pub(crate) objects: bool,
    /// JSON: a line for each key (and object), then one for the sums.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["new_id", "activate", "to"]))]
pub(crate) struct RotateArgs {
    /// The key ring's file, which is replaced as a whole.
    #[arg(long, value_name = "FILE", env = "VARVE_KEY_RING", required_unless_present = "to")]
    pub(crate) key_ring: Option<PathBuf>,
    /// Add a random key of this id to the ring, and make it the active one.
    #[arg(long, value_name = "ID", requires = "key_ring")]
    pub(crate) new_id: Option<String>,
    /// Add it only; the active key stays.
    #[arg(long, requires = "new_id")]
    pub(crate) keep_active: bool,
    /// Make a key that is in the ring the active one.
    #[arg(long, value_name = "ID", requires = "key_ring")]
    pub(crate) activate: Option<String>,
    /// Say what to configure to go on with this key of a key service. Changes nothing.
    #[arg(long, value_name = "KEK-URL")]
    pub(crate) to: Option<String>,
    /// Show what it would do, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go ahead without asking.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// JSON: one object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RewrapArgs {
    #[command(flatten)]
    pub(crate) at: KeysUrl,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    /// What to wrap by: ring:ID (the ring's active key), aws-kms://…, gcp-kms://…, azure-kms://…, vault://…. The keys
    /// that wrap them now are needed too: --key-ring, --kek.
    #[arg(long, value_name = "KEK-URL")]
    pub(crate) to: String,
    /// Only these topics, by name or id; * stands for any characters. May be repeated.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) topics: Vec<String>,
    /// Only of this cluster.
    #[arg(long, value_name = "ID")]
    pub(crate) cluster: Option<String>,
    /// Only of these periods, as in the records' names: 2026-11. May be repeated.
    #[arg(long = "period", value_name = "PERIOD", value_delimiter = ',')]
    pub(crate) periods: Vec<String>,
    /// Also where nothing shows that it would be another version of the key: Google and AWS don't tell.
    #[arg(long)]
    pub(crate) again: bool,
    /// Show what it would do, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// JSON: a line for each key that was not wrapped so already, then one for the sums.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("which").required(true).args(["topic_id", "topic"]),
    group = ArgGroup::new("when").required(true).args(["periods", "all_periods"])
)]
pub(crate) struct ShredArgs {
    #[command(flatten)]
    pub(crate) at: KeysUrl,
    /// The topic, by its id.
    #[arg(long, value_name = "ID", value_parser = topic_id)]
    pub(crate) topic_id: Option<Id>,
    /// The topic, by its name, if all of its objects agree to it.
    #[arg(long, value_name = "NAME")]
    pub(crate) topic: Option<String>,
    /// The cluster, if keys of several are there.
    #[arg(long, value_name = "ID")]
    pub(crate) cluster: Option<String>,
    /// The keys of this period, as in the records' names: 2026-11. May be repeated.
    #[arg(long = "period", value_name = "PERIOD", value_delimiter = ',')]
    pub(crate) periods: Vec<String>,
    /// All keys of the topic.
    #[arg(long)]
    pub(crate) all_periods: bool,
    /// Show what would be destroyed, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go ahead without asking for the topic's name or id.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Write what was destroyed, and the proofs, into a new file of JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// JSON: one object, as in the report.
    #[arg(long)]
    pub(crate) json: bool,
}

fn topic_id(text: &str) -> anyhow::Result<Id> {
    Ok(Id::parse(text)?)
}
