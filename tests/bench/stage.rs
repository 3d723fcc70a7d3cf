//! What is measured: an [`Rsm`] over a store whose requests are counted, and the same bytes by the lean way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use varve_format::ExtentKind;
use varve_rsm::operation::Operation;
use varve_rsm::read::stream::Progress;
use varve_rsm::rsm::Rsm;
use varve_rsm::wire::{CopyRequest, SegmentMetadata};
use varve_store::{CountingStore, Counts};
use varve_tests::{Bucket, Minio, Proxy, Scratch, Tier, Toxiproxy};

use crate::lean;

/// Where the objects go.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Place {
    File(Scratch),
    S3 { minio: Minio, bucket: Bucket, proxy: Option<Delay> },
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

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::S3 { proxy: None, .. } => "s3",
            Self::S3 { .. } => "s3 +30ms",
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
            Self::S3 { .. } => Ok(()),
        }
    }

    fn port(&self) -> Option<u16> {
        match self {
            Self::File(_) => None,
            Self::S3 { minio, proxy, .. } => Some(proxy.as_ref().map_or(minio.port, |d| d.delayed.port)),
        }
    }

    /// The limit of copying a file here; those that run at once have each their own number.
    pub(crate) fn lean_copy(&self, from: &Path, number: u32) -> Result<()> {
        let name = format!("lean-{number}.copy");
        match (self, self.port()) {
            (Self::File(scratch), _) => lean::copy_file(from, &scratch.path().join(name)),
            (_, Some(port)) => lean::upload(port, &format!("/{BUCKET}/{name}"), from, 8 << 20, 4),
            _ => bail!("no store"),
        }
    }

    /// The limit of reading the first `bytes` of an object.
    pub(crate) fn lean_read(&self, key: &str, bytes: u64) -> Result<()> {
        match (self, self.port()) {
            (Self::File(scratch), _) => lean::read_file(&scratch.path().join(key), bytes),
            (_, Some(port)) => lean::download(port, &format!("/{BUCKET}/{PREFIX}/{key}"), bytes, 4 << 20, 4),
            _ => bail!("no store"),
        }
    }

    /// A reader of ranges, one after the other, that tells how long each took.
    pub(crate) fn lean_ranges(&self, key: &str) -> Result<RangeReader> {
        match (self, self.port()) {
            (Self::File(scratch), _) => {
                let path: PathBuf = scratch.path().join(key);
                Ok(Box::new(move |at, bytes| lean::read_range(&path, at, bytes)))
            }
            (_, Some(port)) => {
                let mut http = lean::Http::connect(port)?;
                let target = format!("/{BUCKET}/{PREFIX}/{key}");
                Ok(Box::new(move |at, bytes| {
                    let start = Instant::now();
                    http.send(
                        "GET",
                        &target,
                        &format!("Range: bytes={at}-{}\r\n", at + bytes as u64 - 1),
                        &[],
                    )?;
                    Ok(start.elapsed())
                }))
            }
            _ => bail!("no store"),
        }
    }
}

/// One RemoteStorageManager and its counters.
pub(crate) struct Stage {
    pub(crate) rsm: Rsm,
    pub(crate) counts: Arc<Counts>,
}

impl Stage {
    pub(crate) fn open(place: &Place, more: &[(&str, String)]) -> Result<Self> {
        Self::over(&place.tier(place.port())?, more)
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
