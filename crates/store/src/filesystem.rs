//! A store in a directory: one file per object, at the key's path under the root.
//!
//! * A write goes to a staged file under `.varve-uploads/`, is synced, and then moved to its key: by rename, or
//!   for create-if-absent by a rename that refuses to replace (a hard link where there is none). Then the
//!   directory is synced, and before it every directory that was made for it. So after a crash, of the process or
//!   the machine, the key holds the old object, the new one or none, whole; and a staged file may be left, which
//!   `list_uploads` shows with its key and age.
//! * Any number of processes may use one root. Directories that a delete empties are removed; a write whose
//!   directory is removed under it makes it again.
//! * Symbolic links below the root are neither followed nor listed. The root itself may be one.
//! * System calls that may wait run on blocking threads; what a dropped future began there runs to its end.

mod cached;
mod handles;
mod list;
mod read;
mod staging;
mod tree;
mod write;
mod writeback;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, Stat, fsync, unlinkat};
use rustix::io::Errno;

use crate::contract::{
    GetRange, GetResult, Limits, ListPage, ObjectMeta, PendingUpload, PutOptions, Result, Store, Upload,
};
use crate::error::{Error, Kind};
use crate::key::Key;
use crate::parts::PartPlan;
use crate::versions::Versions;

use tree::{At, Tree, meta_of, split, stat_file};

const LIMITS: Limits = Limits {
    min_part_bytes: 1,
    max_part_bytes: 1 << 32,
    max_parts: 1 << 24,
    max_put_bytes: 1 << 40,
    max_object_bytes: 1 << 43,
    preferred_part_bytes: 2 << 20,
    preferred_parallel_parts: 1,
    lists_uploads: true,
    creates_hold_parts: None,
};

/// See the module.
#[derive(Clone)]
pub struct FilesystemStore {
    tree: Arc<Tree>,
}

impl FilesystemStore {
    /// Opens the store at `root`, an absolute path, and makes the directory if it is not there.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let url = url_of(&root);
        let fail = |kind, detail: String| Error::new(kind, "open", url.clone(), detail);
        if !root.is_absolute() {
            return Err(fail(Kind::Invalid, "the path of a store is absolute".to_owned()));
        }
        make_root(&root).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
                std::io::ErrorKind::StorageFull => Kind::NoSpace,
                _ => Kind::Invalid,
            };
            fail(kind, format!("making {}: {error}", root.display())).with_source(error)
        })?;
        let tree = Tree::new(root, url);
        tree.open_root(&tree.at("open", ""))?;
        Ok(Self { tree: Arc::new(tree) })
    }

    fn at(&self, operation: &str, key: &Key) -> Result<At> {
        let at = self.tree.at(operation, key.as_str());
        if key.as_str().split('/').next() == Some(staging::DIRECTORY) {
            let detail = format!("{} is reserved for files being written", staging::DIRECTORY);
            return Err(at.error(Kind::Invalid, detail));
        }
        Ok(at)
    }

    fn writing(&self, operation: &str, key: &Key, options: &PutOptions) -> Result<At> {
        let at = self.at(operation, key)?;
        match &options.storage_class {
            None => Ok(at),
            Some(class) => {
                let detail = format!("a filesystem has no storage classes, {class:?} was asked for");
                Err(at.error(Kind::Unsupported, detail))
            }
        }
    }
}

/// Makes the root, and each new directory on the way durable.
fn make_root(root: &Path) -> std::io::Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    if let Some(parent) = root.parent() {
        make_root(parent)?;
        match std::fs::create_dir(root) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && root.is_dir() => {}
            other => other?,
        }
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn url_of(root: &Path) -> String {
    let url =
        url::Url::from_file_path(root).map_or_else(|()| format!("file://{}", root.display()), String::from);
    url.trim_end_matches('/').to_owned()
}

/// Runs `work` on a blocking thread.
async fn blocking<T: Send + 'static>(
    at: At,
    work: impl FnOnce(&At) -> Result<T> + Send + 'static,
) -> Result<T> {
    let kept = at.clone();
    match tokio::task::spawn_blocking(move || work(&at)).await {
        Ok(done) => done,
        Err(error) => Err(stopped(&kept, &error)),
    }
}

fn stopped(at: &At, error: &tokio::task::JoinError) -> Error {
    at.error(Kind::Other, format!("the blocking thread stopped: {error}"))
}

impl Tree {
    fn stat(&self, key: &Key, at: &At) -> Result<Option<Stat>> {
        let (parent, name) = split(key.as_str());
        match self.find_dir(parent, at)? {
            Some(dir) => stat_file(&dir, name).map_err(|errno| at.failed("examining the file", errno)),
            None => Ok(None),
        }
    }

    /// Removes one file. Returns the directory whose sync makes that durable, if anything was removed.
    fn delete<'k>(&self, key: &'k Key, at: &At) -> Result<Option<&'k str>> {
        let (parent, name) = split(key.as_str());
        let Some(dir) = self.find_dir(parent, at)? else { return Ok(None) };
        // What is no regular file is no object, and not ours to remove.
        if stat_file(&dir, name).map_err(|errno| at.failed("examining the file", errno))?.is_none() {
            return Ok(None);
        }
        self.handles.forget(key.as_str());
        match unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(at.failed("removing the file", errno)),
        }
        self.prune(parent, at).map(Some)
    }

    fn sync_dir(&self, path: &str, at: &At) -> Result<()> {
        match self.find_dir(path, at)? {
            Some(dir) => fsync(&dir).map_err(|errno| at.failed("syncing a directory", errno)),
            // Removed meanwhile, together with the entry that we removed.
            None => Ok(()),
        }
    }
}

impl fmt::Debug for FilesystemStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilesystemStore").field("root", &self.tree.root).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for FilesystemStore {
    fn url(&self) -> &str {
        &self.tree.url
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        let at = self.writing("put", key, options)?;
        let (tree, key, create) = (Arc::clone(&self.tree), key.clone(), options.create);
        blocking(at, move |at| tree.put(&staging::new_id(), &key, &body, create, at)).await
    }

    async fn upload(
        &self,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Arc<dyn Upload>> {
        let at = self.writing("upload", key, options)?;
        let plan =
            PartPlan::new(&LIMITS, part_bytes, size_bytes).map_err(|flaw| at.error(Kind::Invalid, flaw))?;
        let (tree, staged_key) = (Arc::clone(&self.tree), key.clone());
        let staged = blocking(at, move |at| tree.stage(&staging::new_id(), &staged_key, at)).await?;
        let upload =
            write::FileUpload::new(Arc::clone(&self.tree), key.clone(), options.create, plan, staged);
        Ok(Arc::new(upload))
    }

    async fn get(&self, key: &Key, range: GetRange) -> Result<GetResult> {
        let at = self.at("get", key)?;
        let (tree, key) = (Arc::clone(&self.tree), key.clone());
        let opened = blocking(at.clone(), move |at| tree.open_file(&key, range, at)).await?;
        Ok(read::deliver(opened, at))
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let at = self.at("head", key)?;
        let (tree, key) = (Arc::clone(&self.tree), key.clone());
        blocking(at, move |at| match tree.stat(&key, at)? {
            Some(stat) => Ok(meta_of(&key, &stat)),
            None => Err(at.absent()),
        })
        .await
    }

    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<ListPage> {
        let at = self.tree.at("list", prefix);
        if prefix.split('/').any(|name| name == "." || name == "..")
            || prefix.contains("//")
            || prefix.starts_with('/')
        {
            // No key begins like this, and no path leaves the root.
            return Ok(ListPage::default());
        }
        let (tree, prefix, after) = (Arc::clone(&self.tree), prefix.to_owned(), start_after.cloned());
        blocking(at, move |_| tree.list(&prefix, after.as_ref(), max_keys)).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        let at = self.tree.at("delete", "");
        let named: Vec<_> = keys.iter().map(|key| (key.clone(), self.at("delete", key))).collect();
        let tree = Arc::clone(&self.tree);
        blocking(at, move |_| {
            let mut touched = std::collections::BTreeMap::<String, Vec<usize>>::new();
            let mut outcomes = Vec::with_capacity(named.len());
            for (index, (key, at)) in named.iter().enumerate() {
                outcomes.push(match at {
                    Err(error) => Err(Error::new(error.kind, "delete", &error.object, &error.detail)),
                    Ok(at) => tree.delete(key, at).map(|dir| {
                        if let Some(dir) = dir {
                            touched.entry(dir.to_owned()).or_default().push(index);
                        }
                    }),
                });
            }
            for (dir, indexes) in touched {
                // One sync serves all that left a directory; if it fails, all of them are in doubt.
                let at = tree.at("delete", named[indexes[0]].0.as_str());
                if let Err(error) = tree.sync_dir(&dir, &at) {
                    for index in indexes {
                        let at = tree.at("delete", named[index].0.as_str());
                        outcomes[index] = Err(at.error(error.kind, error.detail.clone()));
                    }
                }
            }
            Ok(outcomes)
        })
        .await
    }

    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> Result<ObjectMeta> {
        self.writing("copy", to, options)?;
        let at = self.at("copy", from)?;
        let (tree, from, to, create) = (Arc::clone(&self.tree), from.clone(), to.clone(), options.create);
        blocking(at, move |at| tree.copy(&staging::new_id(), &from, &to, create, at)).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        let at = self.tree.at("list uploads", prefix);
        let (tree, prefix) = (Arc::clone(&self.tree), prefix.to_owned());
        blocking(at, move |_| tree.list_staged(&prefix)).await
    }

    async fn abort_upload(&self, upload: &PendingUpload) -> Result<()> {
        let at = self.tree.at("abort upload", upload.key.as_str());
        let (tree, upload) = (Arc::clone(&self.tree), upload.clone());
        blocking(at, move |_| tree.abort_staged(&upload)).await
    }

    async fn versions(&self) -> Result<Option<Arc<dyn Versions>>> {
        Ok(None)
    }
}
