//! A store as Azure is with what was written before versions were kept: it has no id of a version until it is deleted.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use varve_store::{
    GetRange, GetResult, Key, Limits, ListPage, MemoryStore, ObjectMeta, PendingUpload, PutOptions, Result,
    SharedStore, Store, Upload, VersionPage, Versions,
};

const BEFORE: &str = "null";

#[derive(Clone, Debug)]
pub(crate) struct LateIds(SharedStore);

impl LateIds {
    pub(crate) fn shared() -> SharedStore {
        Arc::new(Self(Arc::new(MemoryStore::versioned())))
    }

    async fn inner(&self) -> Result<Arc<dyn Versions>> {
        Ok(self.0.versions().await?.expect("versions are kept"))
    }
}

#[async_trait]
impl Versions for LateIds {
    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<VersionPage> {
        let mut page = self.inner().await?.list(prefix, start_after, max_keys).await?;
        for found in &mut page.keys {
            if let [only] = found.versions.as_mut_slice() {
                only.id = BEFORE.to_owned();
            }
        }
        Ok(page)
    }

    async fn get(&self, key: &Key, version: &str, range: GetRange) -> Result<GetResult> {
        match version {
            BEFORE => self.0.get(key, range).await,
            _ => self.inner().await?.get(key, version, range).await,
        }
    }

    async fn head(&self, key: &Key, version: &str) -> Result<ObjectMeta> {
        match version {
            BEFORE => self.0.head(key).await,
            _ => self.inner().await?.head(key, version).await,
        }
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        match version {
            BEFORE => varve_store::delete(&*self.0, key).await,
            _ => self.inner().await?.delete(key, version).await,
        }
    }
}

#[async_trait]
impl Store for LateIds {
    fn url(&self) -> &str {
        self.0.url()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        self.0.put(key, body, options).await
    }

    async fn upload(
        &self,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Arc<dyn Upload>> {
        self.0.upload(key, part_bytes, size_bytes, options).await
    }

    async fn get(&self, key: &Key, range: GetRange) -> Result<GetResult> {
        self.0.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.0.head(key).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<ListPage> {
        self.0.list(prefix, start_after, max_keys).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        self.0.delete_many(keys).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> Result<ObjectMeta> {
        self.0.copy(from, to, options).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.0.list_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &PendingUpload) -> Result<()> {
        self.0.abort_upload(upload).await
    }

    async fn versions(&self) -> Result<Option<Arc<dyn Versions>>> {
        Ok(Some(Arc::new(self.clone())))
    }
}
