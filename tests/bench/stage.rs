//! What is measured: an [`Rsm`] over a store whose requests are counted, and the same bytes by the lean way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use url::Url;
use varve_format::ExtentKind;
use varve_rsm::operation::Operation;
use varve_rsm::read::stream::Progress;
use varve_rsm::rsm::Rsm;
use varve_rsm::wire::{CopyRequest, SegmentMetadata};
use varve_store::{CountingStore, Counts};
use varve_tests::{Bucket, Minio, Proxy, Scratch, StoreKind, Tier, Toxiproxy, azure_signature};

use crate::lean;
use crate::remote::{Dialect, Remote};

/// Where the objects go.
pub(crate) enum Place {
    File(Scratch),
    S3 {
        minio: Minio,
        bucket: Bucket,
        proxy: Option<Delay>,
    },
    /// Another cloud's, as its test server plays it.
    Cloud {
        kind: StoreKind,
        tier: Tier,
        remote: Remote,
    },
}

/// Two proxies of one server before the store: through one, answers come later.
pub(crate) struct Delay {
    _toxiproxy: Toxiproxy,
    delayed: Proxy,
    undelayed: Proxy,
}

/// Reads so many bytes at a position, and tells how long that took.
pub(crate) type RangeReader = Box<dyn FnMut(u64, usize) -> Result<Duration>>;

const BUCKET: &str = "bench";
const PREFIX: &str = "tier";

impl Place {
    pub(crate) fn file() -> Result<Self> {
        Ok(Self::File(Scratch::new("bench-store")?))
    }

    /// With `delay_ms` on the way of each answer.
    pub(crate) fn s3(delay_ms: u32) -> Result<Self> {
        let minio = Minio::start()?;
        let bucket = minio.bucket(BUCKET)?;
        bucket.open_to_all()?;
        let proxy = match delay_ms {
            0 => None,
            ms => {
                let toxiproxy = Toxiproxy::start()?;
                let delayed = toxiproxy.proxy("delayed", minio.port)?;
                let undelayed = toxiproxy.proxy("undelayed", minio.port)?;
                delayed.add_latency(ms)?;
                Some(Delay { _toxiproxy: toxiproxy, delayed, undelayed })
            }
        };
        Ok(Self::S3 { minio, bucket, proxy })
    }

    pub(crate) fn gcs() -> Result<Self> {
        Self::cloud(StoreKind::Gcs, Dialect::Gcs)
    }

    pub(crate) fn azure() -> Result<Self> {
        Self::cloud(StoreKind::Azure, Dialect::Azure { signature: azure_signature() })
    }

    fn cloud(kind: StoreKind, dialect: Dialect) -> Result<Self> {
        let tier = Tier::on(kind, Path::new(PREFIX))?;
        let config = tier.rsm_config();
        let endpoint =
            config.iter().find(|(key, _)| key.ends_with(".endpoint.url")).context("no endpoint")?.1;
        let endpoint = Url::parse(endpoint)?;
        let url = tier.url();
        // The bucket of the one; of the other the container, below the account that is the endpoint's path.
        let bucket = url.rsplit('/').nth(1).context("no bucket")?;
        let bucket = format!("{}/{bucket}", endpoint.path().trim_matches('/'));
        let bucket = bucket.trim_start_matches('/').to_owned();
        let remote = Remote { port: endpoint.port().context("no port")?, dialect, bucket };
        Ok(Self::Cloud { kind, tier, remote })
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(_) => "file".to_owned(),
            Self::S3 { proxy: None, .. } => "s3".to_owned(),
            Self::S3 { .. } => "s3 +30ms".to_owned(),
            Self::Cloud { kind, .. } => kind.to_string(),
        }
    }

    /// By the port given: the proxy's, or the store's own.
    fn tier(&self, port: Option<u16>) -> Result<Tier> {
        match self {
            Self::File(scratch) => Tier::filesystem(scratch.path()),
            Self::S3 { bucket, minio, .. } => {
                let endpoint = format!("http://127.0.0.1:{}", port.unwrap_or(minio.port));
                Ok(Tier::S3 { bucket: bucket.clone(), prefix: PREFIX.to_owned(), endpoint })
            }
            Self::Cloud { tier, .. } => Ok(tier.clone()),
        }
    }

    pub(crate) fn is_delayed(&self) -> bool {
        matches!(self, Self::S3 { proxy: Some(_), .. })
    }

    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Takes an object out of the page cache: what reads it next waits for the disk.
    pub(crate) fn cool(&self, key: &str) -> Result<()> {
        match self {
            Self::File(scratch) => lean::drop_cached(&scratch.path().join(key)),
            Self::S3 { .. } | Self::Cloud { .. } => Ok(()),
        }
    }

    /// As the least work reaches it, and the prefix of its objects; or its directory.
    fn limit(&self) -> Result<Limit<'_>> {
        match self {
            Self::File(scratch) => Ok(Limit::File(scratch.path())),
            Self::S3 { minio, proxy, .. } => {
                let port = proxy.as_ref().map_or(minio.port, |delay| delay.delayed.port);
                let remote = Remote { port, dialect: Dialect::S3, bucket: BUCKET.to_owned() };
                Ok(Limit::Remote(remote, PREFIX.to_owned()))
            }
            Self::Cloud { tier, remote, .. } => {
                let url = tier.url();
                let prefix = url.rsplit('/').next().context("no prefix")?;
                Ok(Limit::Remote(remote.clone(), prefix.to_owned()))
            }
        }
    }

    /// The limit of copying a file here; those that run at once have each their own number.
    pub(crate) fn lean_copy(&self, from: &Path, number: u32) -> Result<()> {
        let name = format!("lean-{number}.copy");
        match self.limit()? {
            Limit::File(dir) => lean::copy_file(from, &dir.join(name)),
            Limit::Remote(remote, _) => remote.upload(&name, from),
        }
    }

    /// The limit of reading the first `bytes` of an object.
    pub(crate) fn lean_read(&self, key: &str, bytes: u64) -> Result<()> {
        match self.limit()? {
            Limit::File(dir) => lean::read_file(&dir.join(key), bytes),
            Limit::Remote(remote, prefix) => remote.download(&format!("{prefix}/{key}"), bytes),
        }
    }

    /// A reader of ranges, one after the other, that tells how long each took.
    pub(crate) fn lean_ranges(&self, key: &str) -> Result<RangeReader> {
        match self.limit()? {
            Limit::File(dir) => {
                let path: PathBuf = dir.join(key);
                Ok(Box::new(move |at, bytes| lean::read_range(&path, at, bytes)))
            }
            Limit::Remote(remote, prefix) => Ok(Box::new(remote.ranges(&format!("{prefix}/{key}"))?)),
        }
    }
}

enum Limit<'a> {
    File(&'a Path),
    Remote(Remote, String),
}

/// One RemoteStorageManager and its counters.
pub(crate) struct Stage {
    pub(crate) rsm: Rsm,
    pub(crate) counts: Arc<Counts>,
}

impl Stage {
    pub(crate) fn open(place: &Place, more: &[(&str, String)]) -> Result<Self> {
        let port = match place {
            Place::S3 { proxy: Some(delay), .. } => Some(delay.delayed.port),
            _ => None,
        };
        Self::over(&place.tier(port)?, more)
    }

    /// Through a proxy that does nothing.
    pub(crate) fn undelayed(place: &Place) -> Result<Self> {
        let Place::S3 { proxy: Some(delay), .. } = place else { bail!("nothing delays this store") };
        Self::over(&place.tier(Some(delay.undelayed.port))?, &[])
    }

    fn over(tier: &Tier, more: &[(&str, String)]) -> Result<Self> {
        let mut config = tier.rsm_config();
        config.insert("cluster.id".into(), "bench".into());
        config.extend(more.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        let mut counts = None;
        let rsm = Rsm::with_store(&config, |store| {
            let counting = CountingStore::new(store);
            counts = Some(counting.counts().clone());
            Arc::new(counting)
        })?;
        Ok(Self { rsm, counts: counts.context("counts")? })
    }

    /// Copies, and gives the metadata to read it with.
    pub(crate) fn copy(&self, request: CopyRequest) -> Result<SegmentMetadata> {
        let mut metadata = request.metadata.clone();
        metadata.custom = finish(self.rsm.copy(request)?)?;
        Ok(metadata)
    }

    pub(crate) fn index(&self, metadata: &SegmentMetadata, kind: ExtentKind) -> Result<usize> {
        Ok(finish(self.rsm.fetch_index(metadata, kind)?)?.map_or(0, |b| b.len()))
    }

    pub(crate) fn delete(&self, metadata: &SegmentMetadata) -> Result<()> {
        finish(self.rsm.delete(metadata)?).map(drop)
    }

    /// One stream from `start`, read into one buffer of 1 MiB until `bytes` came.
    pub(crate) fn read(&self, metadata: &SegmentMetadata, start: u64, bytes: u64) -> Result<()> {
        let stream = self.rsm.open_stream(metadata, start, u64::MAX)?;
        let mut buffer = vec![0; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            let max = buffer.len().min(left as usize);
            match stream.read(max, Duration::from_millis(50), |at, b| {
                buffer[at..at + b.len()].copy_from_slice(b);
                Ok(())
            })? {
                Progress::Bytes(n) => left -= n as u64,
                Progress::Waiting => {}
                Progress::End => break,
            }
        }
        ensure!(left == 0, "{left} bytes are missing");
        Ok(())
    }

    /// As a broker reads for a consumer: a stream for each fetch of 1 MiB, the next a little before its end.
    pub(crate) fn read_by_fetches(&self, metadata: &SegmentMetadata, bytes: u64) -> Result<()> {
        let mut at = 0;
        while at < bytes {
            let n = (1 << 20).min(bytes - at);
            self.read(metadata, at, n)?;
            at += if at + n < bytes { n - 4096 } else { n };
        }
        Ok(())
    }
}

fn finish(operation: Arc<Operation>) -> Result<Option<Vec<u8>>> {
    while !operation.wait(Duration::from_millis(50)) {}
    Ok(operation.take()?)
}
