//! A decorator that limits how fast bytes are given to a store.
//!
//! Uploads pay before they send, in the order they come; a body larger than a second's worth is let through and
//! paid for afterwards by whoever comes next, so that the mean holds whatever the size. A caller that goes away
//! while it waits leaves its time unused.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::contract::{
    GetRange, GetResult, Limits, ListPage, ObjectMeta, PendingUpload, PutOptions, Result, SharedStore, Store,
    Upload,
};
use crate::key::Key;
use crate::versions::Versions;

/// Unused time is kept for so long.
const BURST: Duration = Duration::from_secs(1);

/// A rate that several stores may share.
pub struct Rate {
    state: Mutex<State>,
}

struct State {
    /// `0` is no limit.
    bytes_per_second: u64,
    /// When all that was let through is paid for.
    paid_until: Option<Instant>,
}

impl Rate {
    pub fn new(bytes_per_second: u64) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { bytes_per_second, paid_until: None }) })
    }

    /// For what comes from now on; `0` is no limit.
    pub fn set(&self, bytes_per_second: u64) {
        self.state.lock().bytes_per_second = bytes_per_second;
    }

    /// Waits until `bytes` may go.
    pub async fn acquire(&self, bytes: u64) {
        let go_at = self.reserve(bytes, Instant::now());
        if let Some(go_at) = go_at {
            tokio::time::sleep_until(go_at).await;
        }
    }

    /// Takes `bytes` that have come already; `None`, or when the next may come.
    pub fn pay(&self, bytes: u64) -> Option<Instant> {
        let now = Instant::now();
        self.reserve(bytes, now);
        self.state.lock().paid_until.filter(|paid| *paid > now)
    }

    fn reserve(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        if state.bytes_per_second == 0 {
            state.paid_until = None;
            return None;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / state.bytes_per_second as f64);
        let oldest = now.checked_sub(BURST).unwrap_or(now);
        let begin = state.paid_until.map_or(oldest, |paid| paid.max(oldest));
        state.paid_until = Some(begin + cost);
        // What fits into the unused time goes at once; the first byte of the rest waits for its turn.
        (begin > now).then_some(begin)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rate({} bytes/s)", self.state.lock().bytes_per_second)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ThrottledStore {
    inner: SharedStore,
    rate: Arc<Rate>,
}

impl ThrottledStore {
    pub fn new(inner: SharedStore, rate: Arc<Rate>) -> Self {
        Self { inner, rate }
    }
}

#[async_trait]
impl Store for ThrottledStore {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        self.rate.acquire(body.len() as u64).await;
        self.inner.put(key, body, options).await
    }

    async fn upload(
        &self,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Arc<dyn Upload>> {
        let inner = self.inner.upload(key, part_bytes, size_bytes, options).await?;
        Ok(Arc::new(ThrottledUpload { inner, rate: Arc::clone(&self.rate) }))
    }

    async fn get(&self, key: &Key, range: GetRange) -> Result<GetResult> {
        self.inner.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<ListPage> {
        self.inner.list(prefix, start_after, max_keys).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        self.inner.delete_many(keys).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> Result<ObjectMeta> {
        self.inner.copy(from, to, options).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.inner.list_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &PendingUpload) -> Result<()> {
        self.inner.abort_upload(upload).await
    }

    async fn versions(&self) -> Result<Option<Arc<dyn Versions>>> {
        self.inner.versions().await
    }
}

#[derive(Debug)]
struct ThrottledUpload {
    inner: Arc<dyn Upload>,
    rate: Arc<Rate>,
}

#[async_trait]
impl Upload for ThrottledUpload {
    async fn put_part(&self, number: u32, body: Bytes) -> Result<()> {
        self.rate.acquire(body.len() as u64).await;
        self.inner.put_part(number, body).await
    }

    async fn complete(&self) -> Result<ObjectMeta> {
        self.inner.complete().await
    }

    async fn abort(&self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_rate_holds_and_unused_time_is_bounded() {
        let rate = Rate::new(1000);
        let start = Instant::now() + Duration::from_secs(100);
        // An idle rate lets a second's worth through at once, whatever the time it was idle.
        assert_eq!(rate.reserve(1000, start), None);
        assert_eq!(rate.reserve(1, start), None);
        let mut go_at = start;
        for _ in 0..10 {
            go_at = rate.reserve(500, start).unwrap_or(start);
        }
        let waited = go_at - start;
        assert!(waited >= Duration::from_millis(4500) && waited < Duration::from_millis(4510), "{waited:?}");
        rate.set(0);
        assert_eq!(rate.reserve(1 << 40, start), None);
    }
}
