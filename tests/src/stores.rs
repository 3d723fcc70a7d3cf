//! The stores that tests run on: which one was chosen, and a server for each kind, shared by all tests of a program.
//!
//! A server starts with the first test that wants it, holds one bucket (or container), of which every test has a
//! prefix of its own, and ends with [`end_servers`], which the end of a suite calls.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;

use crate::azurite::Azurite;
use crate::bucket::Bucket;
use crate::fake_gcs::FakeGcs;
use crate::minio::Minio;
use crate::scratch::Scratch;
use crate::suite::StartFailure;
use crate::tier::Tier;

/// What the command takes its store's settings from where none are given.
pub(crate) const SETTINGS_FILE: &str = "VARVE_STORE_CONFIG_FILE";
/// Set by `cargo xtask test --store`.
const CHOSEN: &str = "VARVE_TEST_STORE";
/// The bucket, or container.
const BUCKET: &str = "tests";

/// A start that failed is not tried again: every test would wait for it.
type Servers = BTreeMap<StoreKind, Result<Started, StartFailure>>;

static SERVERS: Mutex<Servers> = Mutex::new(BTreeMap::new());
static PLACES: AtomicU32 = AtomicU32::new(0);

/// Kinds of stores that tests can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum StoreKind {
    File,
    S3,
    Gcs,
    Azure,
}

impl StoreKind {
    /// The one that this run is about: a directory, if nothing else was said.
    pub fn chosen() -> Result<Self> {
        match std::env::var(CHOSEN) {
            Ok(name) if !name.is_empty() => {
                Self::from_str(&name, false).map_err(|flaw| anyhow!("{CHOSEN}={name}: {flaw}"))
            }
            _ => Ok(Self::File),
        }
    }

    /// What people know it as.
    pub fn title(self) -> &'static str {
        match self {
            Self::File => "a directory",
            Self::S3 => "S3 (a MinIO on this machine)",
            Self::Gcs => "Google Cloud Storage (a fake-gcs-server on this machine)",
            Self::Azure => "Azure Blob Storage (an Azurite on this machine)",
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
        })
    }
}

/// Why a test was not run: it is about other stores.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not with --store {chosen}: {why}")]
pub struct NotHere {
    pub chosen: StoreKind,
    pub why: String,
}

/// [`NotHere`] unless one of `kinds` was chosen.
pub fn only_on(kinds: &[StoreKind], why: &str) -> Result<()> {
    let chosen = StoreKind::chosen()?;
    if kinds.contains(&chosen) { Ok(()) } else { Err(NotHere { chosen, why: why.to_owned() }.into()) }
}

enum Server {
    S3(Minio, Bucket),
    Gcs(FakeGcs),
    Azure(Azurite),
}

struct Started {
    server: Server,
    /// Its settings as a file.
    settings: PathBuf,
    _scratch: Scratch,
}

impl Started {
    fn new(server: Server) -> Result<Self> {
        let scratch = Scratch::new("store-settings")?;
        let settings = scratch.path().join("store.properties");
        server.tier("")?.write_settings(&settings)?;
        Ok(Self { server, settings, _scratch: scratch })
    }
}

impl Server {
    fn s3() -> Result<Self> {
        let minio = Minio::start()?;
        let bucket = minio.bucket(BUCKET)?;
        Ok(Self::S3(minio, bucket))
    }

    fn gcs() -> Result<Self> {
        let server = FakeGcs::start()?;
        server.create_bucket(BUCKET)?;
        Ok(Self::Gcs(server))
    }

    fn azure() -> Result<Self> {
        let server = Azurite::start()?;
        server.create_container(BUCKET)?;
        Ok(Self::Azure(server))
    }

    fn tier(&self, prefix: &str) -> Result<Tier> {
        match self {
            Self::S3(minio, bucket) => Ok(Tier::s3_in(minio, bucket.clone(), prefix)),
            Self::Gcs(server) => Tier::opened(&format!("gs://{BUCKET}/{prefix}"), server.settings()),
            Self::Azure(server) => {
                Tier::opened(&format!("az://{}/{BUCKET}/{prefix}", Azurite::ACCOUNT), server.settings())
            }
        }
    }
}

/// A place of its own in a store of this kind; `dir` is it where that is a directory, else gives its name.
pub(crate) fn place(kind: StoreKind, dir: &Path) -> Result<Tier> {
    let start = match kind {
        StoreKind::File => return Tier::filesystem(dir),
        StoreKind::S3 => Server::s3,
        StoreKind::Gcs => Server::gcs,
        StoreKind::Azure => Server::azure,
    };
    let number = PLACES.fetch_add(1, Ordering::Relaxed);
    let name = dir.file_name().and_then(|name| name.to_str()).context("a place without a name")?;
    let mut servers = servers();
    let started = servers.entry(kind).or_insert_with(|| Ok(start().and_then(Started::new)?));
    started.as_ref().map_err(StartFailure::told)?.server.tier(&format!("{number}-{name}"))
}

/// Of the chosen store, once its server runs: nobody can have put anything there before.
pub(crate) fn settings_file() -> Result<Option<PathBuf>> {
    let chosen = StoreKind::chosen()?;
    let servers = servers();
    let started = servers.get(&chosen).and_then(|started| started.as_ref().ok());
    Ok(started.map(|started| started.settings.clone()))
}

/// Ends all of them. What is asked of a tier in one fails from then on.
pub fn end_servers() {
    let ended = std::mem::take(&mut *servers());
    drop(ended);
}

fn servers() -> MutexGuard<'static, Servers> {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}
