//! Who goes on when: every call to the store waits for its turn, and turns are drawn. So all interleavings of
//! calls by many tasks can come up, in one thread, without time.
//!
//! The store loses requests and answers, repeats requests, and delivers some long after it said that they failed.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use varve_store::{
    Create, Error, GetRange, GetResult, Kind, Limits, ListPage, ObjectMeta, PendingUpload, PutOptions,
    Result, SharedStore, Store, Upload, VersionPage, Versions,
};

use crate::rng::Rng;

pub type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Polls once; whether the task has ended.
pub fn poll(task: &mut Task<'_>) -> bool {
    task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Runs a future to its end; nothing it waits for is anything but a turn.
pub fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

/// Gives way once.
pub struct Turn(pub bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        // Collections of futures poll those alone that were woken.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A request that was given up, and arrives later.
#[derive(Debug)]
enum Late {
    Put(Put),
    Delete(Vec<varve_store::Key>),
}

#[derive(Debug)]
struct Put {
    key: varve_store::Key,
    body: Bytes,
    options: PutOptions,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct UnrulyStore {
    inner: SharedStore,
    rng: Rng,
    late: Arc<Mutex<Vec<Late>>>,
    /// In percent, of each kind of trouble.
    trouble: Arc<Mutex<u64>>,
}

impl UnrulyStore {
    pub fn new(inner: SharedStore, rng: Rng, trouble: u64) -> Self {
        Self { inner, rng, late: Arc::default(), trouble: Arc::new(Mutex::new(trouble)) }
    }

    pub fn calm(&self) {
        *self.trouble.lock().expect("no panic holds it") = 0;
    }

    /// A request arrives that was given up long ago.
    pub fn deliver_late(&self) -> bool {
        let mut late = self.late.lock().expect("no panic holds it");
        if late.is_empty() {
            return false;
        }
        let index = self.rng.below(late.len());
        match late.swap_remove(index) {
            Late::Put(put) => drop(finish(self.inner.put(&put.key, put.body, &put.options))),
            Late::Delete(keys) => drop(finish(self.inner.delete_many(&keys))),
        }
        true
    }

    async fn turn(&self) {
        for _ in 0..self.rng.below(3) {
            Turn(false).await;
        }
    }

    fn trouble(&self) -> bool {
        let p = *self.trouble.lock().expect("no panic holds it");
        self.rng.percent(p)
    }

    fn error(&self, operation: &str, name: &str, what: &str) -> Error {
        Error::new(Kind::Unavailable, operation, name, what)
    }

    async fn read(&self, operation: &str, name: &str) -> Result<()> {
        self.turn().await;
        if self.trouble() { Err(self.error(operation, name, "lost")) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for UnrulyStore {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn put(&self, key: &varve_store::Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        assert_eq!(options.create, Create::IfAbsent, "everything in an archive is written once: {key}");
        self.turn().await;
        if self.trouble() {
            return Err(self.error("put", key.as_str(), "the request was lost"));
        }
        if self.trouble() {
            let late = Late::Put(Put { key: key.clone(), body, options: options.clone() });
            self.late.lock().expect("no panic holds it").push(late);
            return Err(self.error("put", key.as_str(), "no answer, and the request is still under way"));
        }
        if self.trouble() {
            let _ = self.inner.put(key, body.clone(), options).await;
        }
        let outcome = self.inner.put(key, body, options).await;
        self.turn().await;
        if self.trouble() {
            return Err(self.error("put", key.as_str(), "the answer was lost"));
        }
        outcome
    }

    async fn upload(
        &self,
        key: &varve_store::Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Arc<dyn Upload>> {
        self.inner.upload(key, part_bytes, size_bytes, options).await
    }

    async fn get(&self, key: &varve_store::Key, range: GetRange) -> Result<GetResult> {
        self.read("get", key.as_str()).await?;
        let got = self.inner.get(key, range).await;
        self.turn().await;
        got
    }

    async fn head(&self, key: &varve_store::Key) -> Result<ObjectMeta> {
        self.read("head", key.as_str()).await?;
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&varve_store::Key>,
        max_keys: usize,
    ) -> Result<ListPage> {
        self.read("list", prefix).await?;
        // Small pages, so that listings are torn by what happens between two of them.
        let page = self.inner.list(prefix, start_after, max_keys.min(3)).await;
        self.turn().await;
        page
    }

    async fn delete_many(&self, keys: &[varve_store::Key]) -> Result<Vec<Result<()>>> {
        self.read("delete", "").await?;
        if self.trouble() {
            self.late.lock().expect("no panic holds it").push(Late::Delete(keys.to_vec()));
            return Err(self.error("delete", "", "no answer, and the request is still under way"));
        }
        let outcome = self.inner.delete_many(keys).await;
        self.turn().await;
        if self.trouble() { Err(self.error("delete", "", "the answer was lost")) } else { outcome }
    }

    async fn copy(
        &self,
        from: &varve_store::Key,
        to: &varve_store::Key,
        options: &PutOptions,
    ) -> Result<ObjectMeta> {
        self.inner.copy(from, to, options).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.inner.list_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &PendingUpload) -> Result<()> {
        self.inner.abort_upload(upload).await
    }

    async fn versions(&self) -> Result<Option<Arc<dyn Versions>>> {
        self.read("versions", "").await?;
        let store = self.clone();
        let inner = self.inner.versions().await?;
        Ok(inner.map(|inner| Arc::new(UnrulyVersions { store, inner }) as Arc<dyn Versions>))
    }
}

#[derive(Debug)]
struct UnrulyVersions {
    store: UnrulyStore,
    inner: Arc<dyn Versions>,
}

#[async_trait]
impl Versions for UnrulyVersions {
    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&varve_store::Key>,
        max_keys: usize,
    ) -> Result<VersionPage> {
        self.store.read("list versions", prefix).await?;
        let page = self.inner.list(prefix, start_after, max_keys.min(3)).await;
        self.store.turn().await;
        page
    }

    async fn get(&self, key: &varve_store::Key, version: &str, range: GetRange) -> Result<GetResult> {
        self.store.read("get version", key.as_str()).await?;
        self.inner.get(key, version, range).await
    }

    async fn head(&self, key: &varve_store::Key, version: &str) -> Result<ObjectMeta> {
        self.store.read("head version", key.as_str()).await?;
        self.inner.head(key, version).await
    }

    async fn delete(&self, key: &varve_store::Key, version: &str) -> Result<()> {
        self.inner.delete(key, version).await
    }
}
