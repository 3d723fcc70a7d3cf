//! A store behind brokers or archivers, seen without them: what is in it, and ways to damage it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use varve_store::{GetRange, Key, PutOptions, SharedStore};

use crate::bucket::{Bucket, runtime};
use crate::minio::{Minio, PASSWORD, REGION, USER};
use crate::stores::{self, NotHere, StoreKind};

/// Of a listing through the product's own store.
const KEYS_MAX: usize = 1000;

#[derive(Clone, Debug)]
pub enum Tier {
    Filesystem {
        root: PathBuf,
    },
    S3 {
        bucket: Bucket,
        prefix: String,
        endpoint: String,
    },
    /// By the product's own way into the store: what is damaged is its content.
    Opened {
        url: String,
        settings: BTreeMap<String, String>,
        store: SharedStore,
    },
}

impl Tier {
    pub fn filesystem(root: &Path) -> Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self::Filesystem { root: root.to_owned() })
    }

    pub fn s3(minio: &Minio, bucket: &str, prefix: &str) -> Result<Self> {
        Ok(Self::s3_in(minio, minio.bucket(bucket)?, prefix))
    }

    /// In a bucket that is there.
    pub fn s3_in(minio: &Minio, bucket: Bucket, prefix: &str) -> Self {
        let endpoint = format!("http://127.0.0.1:{}", minio.port);
        Self::S3 { bucket, prefix: prefix.to_owned(), endpoint }
    }

    pub(crate) fn opened(url: &str, settings: BTreeMap<String, String>) -> Result<Self> {
        let store = runtime()?.block_on(varve_store::open(url, &settings))?;
        Ok(Self::Opened { url: url.to_owned(), settings, store })
    }

    /// A place of its own in the store that this run is about; `dir` is it where that is a directory.
    pub fn chosen(dir: &Path) -> Result<Self> {
        Self::on(StoreKind::chosen()?, dir)
    }

    /// The same in a store of this kind. Its server ends by [`end_servers`](crate::end_servers).
    pub fn on(kind: StoreKind, dir: &Path) -> Result<Self> {
        stores::place(kind, dir)
    }

    /// The same store, reached by the brokers through a proxy on `port`.
    pub fn through(self, port: u16) -> Self {
        match self {
            Self::S3 { bucket, prefix, .. } => {
                Self::S3 { bucket, prefix, endpoint: format!("http://127.0.0.1:{port}") }
            }
            other => other,
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::Filesystem { root } => format!("file://{}", root.display()),
            Self::S3 { bucket, prefix, .. } if prefix.is_empty() => format!("s3://{}", bucket.name),
            Self::S3 { bucket, prefix, .. } => format!("s3://{}/{prefix}", bucket.name),
            Self::Opened { url, .. } => url.clone(),
        }
    }

    /// What else the product must know to open it.
    pub fn settings(&self) -> BTreeMap<String, String> {
        match self {
            Self::Filesystem { .. } => BTreeMap::new(),
            Self::S3 { endpoint, .. } => {
                let pairs = [
                    ("s3.endpoint.url", endpoint.as_str()),
                    ("s3.region", REGION),
                    ("s3.path.style", "true"),
                    ("s3.access.key.id", USER),
                    ("s3.secret.access.key", PASSWORD),
                ];
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
            }
            Self::Opened { settings, .. } => settings.clone(),
        }
    }

    /// The plug-in's keys for this store.
    pub fn rsm_config(&self) -> BTreeMap<String, String> {
        let mut keys = self.settings();
        keys.insert("store.url".to_owned(), self.url());
        keys
    }

    /// The settings, as the command takes them.
    pub(crate) fn write_settings(&self, file: &Path) -> Result<()> {
        let lines = self.settings().into_iter().map(|(key, value)| format!("{key}={value}\n"));
        fs::write(file, lines.collect::<String>()).with_context(|| file.display().to_string())
    }

    /// Where its objects are files; [`NotHere`] elsewhere.
    pub fn directory(&self) -> Result<&Path> {
        match self {
            Self::Filesystem { root } => Ok(root),
            _ => {
                let why = "it looks at the store's own files".to_owned();
                Err(NotHere { chosen: StoreKind::chosen()?, why }.into())
            }
        }
    }

    fn full(&self, key: &str) -> String {
        match self {
            Self::S3 { prefix, .. } if !prefix.is_empty() => format!("{prefix}/{key}"),
            _ => key.to_owned(),
        }
    }

    /// Everything that lies in the store, by its key below the prefix: also temporary and foreign files.
    pub fn list(&self) -> Result<BTreeMap<String, u64>> {
        self.list_below("")
    }

    /// Of that what lies below `folder`, which is empty or ends with a slash.
    pub fn list_below(&self, folder: &str) -> Result<BTreeMap<String, u64>> {
        match self {
            Self::Filesystem { root } => {
                let mut all = BTreeMap::new();
                walk(root, &root.join(folder), &mut all)?;
                Ok(all)
            }
            Self::S3 { bucket, .. } => {
                let start = self.full("");
                let below = |key: String| key.strip_prefix(&start).map_or(key.clone(), str::to_owned);
                let all = bucket.list_prefix(&self.full(folder))?;
                Ok(all.into_iter().map(|(key, size)| (below(key), size)).collect())
            }
            Self::Opened { store, .. } => runtime()?.block_on(list(store, folder)),
        }
    }

    pub fn read(&self, key: &str) -> Result<Vec<u8>> {
        match self {
            Self::Filesystem { root } => fs::read(root.join(key)).with_context(|| key.to_owned()),
            Self::S3 { bucket, .. } => bucket.get(&self.full(key)),
            Self::Opened { store, .. } => runtime()?.block_on(async {
                let object = store.get(&Key::new(key)?, GetRange::Full).await?;
                Ok(object.bytes().await?.to_vec())
            }),
        }
    }

    /// In the place of what is there, if anything is.
    pub fn write(&self, key: &str, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Filesystem { root } => write_file(&root.join(key), bytes).with_context(|| key.to_owned()),
            Self::S3 { bucket, .. } => bucket.put(&self.full(key), bytes.to_vec()),
            Self::Opened { store, .. } => {
                let (key, options) = (Key::new(key)?, PutOptions::default());
                let put = store.put(&key, bytes.to_vec().into(), &options);
                runtime()?.block_on(put).map(drop).map_err(Into::into)
            }
        }
    }

    pub fn remove(&self, key: &str) -> Result<()> {
        match self {
            Self::Filesystem { root } => fs::remove_file(root.join(key)).with_context(|| key.to_owned()),
            Self::S3 { bucket, .. } => bucket.delete(&self.full(key)),
            Self::Opened { store, .. } => {
                runtime()?.block_on(varve_store::delete(&**store, &Key::new(key)?)).map_err(Into::into)
            }
        }
    }

    /// One bit of an object is another.
    pub fn flip(&self, key: &str, at: usize) -> Result<()> {
        let mut bytes = self.read(key)?;
        *bytes.get_mut(at).with_context(|| format!("{key} is shorter than {at}"))? ^= 1;
        self.write(key, &bytes)
    }

    /// All objects, under the same keys.
    pub fn copy_to(&self, other: &Self) -> Result<()> {
        self.list()?.keys().try_for_each(|key| other.write(key, &self.read(key)?))
    }

    /// Uploads under the keys of existing objects that were neither completed nor aborted.
    pub fn pending_uploads(&self) -> Result<Vec<String>> {
        match self {
            Self::Filesystem { .. } => Ok(Vec::new()),
            Self::S3 { .. } => self.pending_uploads_of(&self.list()?.into_keys().collect::<Vec<_>>()),
            Self::Opened { store, .. } => {
                let found = runtime()?.block_on(store.list_uploads(""))?;
                Ok(found.into_iter().map(|upload| upload.key.as_str().to_owned()).collect())
            }
        }
    }

    /// Uploads under `keys` that were neither completed nor aborted.
    pub fn pending_uploads_of(&self, keys: &[String]) -> Result<Vec<String>> {
        match self {
            Self::Filesystem { .. } => Ok(Vec::new()),
            Self::S3 { bucket, .. } => {
                bucket.uploads(&keys.iter().map(|key| self.full(key)).collect::<Vec<_>>())
            }
            Self::Opened { .. } => {
                let mut found = self.pending_uploads()?;
                found.retain(|key| keys.contains(key));
                Ok(found)
            }
        }
    }
}

async fn list(store: &SharedStore, folder: &str) -> Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    let mut last: Option<Key> = None;
    loop {
        let page = store.list(folder, last.as_ref(), KEYS_MAX).await?;
        last = page.objects.last().map(|object| object.key.clone());
        all.extend(page.objects.into_iter().map(|o| (o.key.as_str().to_owned(), o.size_bytes)));
        if !page.more {
            return Ok(all);
        }
    }
}

/// Objects are read-only: for whom that counts, a new file takes its place.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(path.parent().context("a file without a folder")?)?;
    match fs::write(path, bytes) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            fs::remove_file(path)?;
            Ok(fs::write(path, bytes)?)
        }
        written => Ok(written?),
    }
}

fn walk(root: &Path, dir: &Path, all: &mut BTreeMap<String, u64>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        // Nothing was written below it, or it was just removed.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
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
