//! The store behind the brokers, seen without the plug-in: what is in it, and ways to damage it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bucket::Bucket;
use crate::minio::{Minio, PASSWORD, REGION, USER};

#[derive(Clone, Debug)]
pub enum Tier {
    Filesystem { root: PathBuf },
    S3 { bucket: Bucket, prefix: String, endpoint: String },
}

impl Tier {
    pub fn filesystem(root: &Path) -> Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self::Filesystem { root: root.to_owned() })
    }

    pub fn s3(minio: &Minio, bucket: &str, prefix: &str) -> Result<Self> {
        let endpoint = format!("http://127.0.0.1:{}", minio.port);
        Ok(Self::S3 { bucket: minio.bucket(bucket)?, prefix: prefix.to_owned(), endpoint })
    }

    /// The same store, reached by the brokers through a proxy on `port`.
    pub fn through(self, port: u16) -> Self {
        match self {
            Self::S3 { bucket, prefix, .. } => {
                Self::S3 { bucket, prefix, endpoint: format!("http://127.0.0.1:{port}") }
            }
            filesystem @ Self::Filesystem { .. } => filesystem,
        }
    }

    /// The plug-in's keys for this store.
    pub fn rsm_config(&self) -> BTreeMap<String, String> {
        let pairs = match self {
            Self::Filesystem { root } => vec![("store.url", format!("file://{}", root.display()))],
            Self::S3 { bucket, prefix, endpoint } => vec![
                ("store.url", format!("s3://{}/{prefix}", bucket.name)),
                ("s3.endpoint.url", endpoint.clone()),
                ("s3.region", REGION.to_owned()),
                ("s3.path.style", "true".to_owned()),
                ("s3.access.key.id", USER.to_owned()),
                ("s3.secret.access.key", PASSWORD.to_owned()),
            ],
        };
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn full(&self, key: &str) -> String {
        match self {
            Self::S3 { prefix, .. } if !prefix.is_empty() => format!("{prefix}/{key}"),
            _ => key.to_owned(),
        }
    }

    /// Everything that lies in the store, by its key below the prefix: also temporary and foreign files.
    pub fn list(&self) -> Result<BTreeMap<String, u64>> {
        match self {
            Self::Filesystem { root } => {
                let mut all = BTreeMap::new();
                walk(root, root, &mut all)?;
                Ok(all)
            }
            Self::S3 { bucket, .. } => {
                let start = self.full("");
                let below = |key: String| key.strip_prefix(&start).map_or(key.clone(), str::to_owned);
                Ok(bucket.list()?.into_iter().map(|(key, size)| (below(key), size)).collect())
            }
        }
    }

    pub fn read(&self, key: &str) -> Result<Vec<u8>> {
        match self {
            Self::Filesystem { root } => fs::read(root.join(key)).with_context(|| key.to_owned()),
            Self::S3 { bucket, .. } => bucket.get(&self.full(key)),
        }
    }

    pub fn write(&self, key: &str, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Filesystem { root } => fs::write(root.join(key), bytes).with_context(|| key.to_owned()),
            Self::S3 { bucket, .. } => bucket.put(&self.full(key), bytes.to_vec()),
        }
    }

    pub fn remove(&self, key: &str) -> Result<()> {
        match self {
            Self::Filesystem { root } => fs::remove_file(root.join(key)).with_context(|| key.to_owned()),
            Self::S3 { bucket, .. } => bucket.delete(&self.full(key)),
        }
    }

    /// Uploads under the keys of existing objects that were neither completed nor aborted.
    pub fn pending_uploads(&self) -> Result<Vec<String>> {
        match self {
            Self::Filesystem { .. } => Ok(Vec::new()),
            Self::S3 { .. } => self.pending_uploads_of(&self.list()?.into_keys().collect::<Vec<_>>()),
        }
    }

    /// Uploads under `keys` that were neither completed nor aborted.
    pub fn pending_uploads_of(&self, keys: &[String]) -> Result<Vec<String>> {
        match self {
            Self::Filesystem { .. } => Ok(Vec::new()),
            Self::S3 { bucket, .. } => {
                bucket.uploads(&keys.iter().map(|key| self.full(key)).collect::<Vec<_>>())
            }
        }
    }
}

fn walk(root: &Path, dir: &Path, all: &mut BTreeMap<String, u64>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        // What is removed while we look was there a moment ago or not: both are true answers.
        let Ok(kind) = entry.metadata() else { continue };
        if kind.is_dir() {
            walk(root, &path, all)?;
        } else {
            all.insert(path.strip_prefix(root)?.display().to_string(), kind.len());
        }
    }
    Ok(())
}
