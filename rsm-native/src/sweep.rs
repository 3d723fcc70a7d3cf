//! Cleaning what failed copies leave: at once where the store allows, later where it did not, and by age what
//! a killed broker left. Finished objects are deleted only if the copy that wrote them failed here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use varve_store::{Key, Kind, SharedStore, Upload};

use crate::config::Config;
use crate::error::Result;
use crate::metrics::Metrics;

const EVERY: Duration = Duration::from_secs(3600);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);
/// So long cleaning waits for calls of a cancelled copy: an interrupted thread of the broker waits 5 s.
const SETTLE: Duration = Duration::from_secs(3);
/// Beyond this the oldest is left to the sweep by age.
const OWED_MAX: usize = 10_000;

/// What a copy has done in the store, shared by the copy and by who cleans up after it.
#[derive(Default)]
pub struct Traces(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    touched: bool,
    /// An upload was asked for; without a handle of it, only the store knows whether there is one.
    begins: bool,
    upload: Option<Arc<dyn Upload>>,
    under_way: Vec<BoxFuture<'static, ()>>,
}

impl Traces {
    /// From here on something may be left.
    pub fn touch(&self) {
        self.0.lock().touched = true;
    }

    pub fn begin_upload(&self) {
        self.0.lock().begins = true;
    }

    pub fn begun(&self, upload: Arc<dyn Upload>) {
        self.0.lock().upload = Some(upload);
    }

    pub fn upload(&self) -> Option<Arc<dyn Upload>> {
        self.0.lock().upload.clone()
    }

    /// A call that nobody waits for any more.
    pub fn under_way(&self, call: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().under_way.push(call.boxed());
    }
}

pub struct Sweep {
    config: Arc<Config>,
    store: SharedStore,
    metrics: Arc<Metrics>,
    owed: Mutex<Vec<(Key, Arc<Traces>)>>,
    more: Notify,
}

impl Sweep {
    pub fn new(config: Arc<Config>, store: SharedStore, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { config, store, metrics, owed: Mutex::default(), more: Notify::new() })
    }

    /// Removes a failed copy's upload and object. Whether that is done; else it is tried again until it is.
    pub async fn clean(self: &Arc<Self>, key: &Key, traces: &Arc<Traces>) -> bool {
        if !traces.0.lock().touched {
            return true;
        }
        let under_way = std::mem::take(&mut traces.0.lock().under_way);
        let mut ends = join_all(under_way).boxed();
        if timeout(SETTLE, &mut ends).await.is_ok() {
            return self.clean_now(key, traces).await;
        }
        self.clean_now(key, traces).await;
        // Once more when the last call has ended, whatever it did.
        let (sweep, key, traces) = (self.clone(), key.clone(), traces.clone());
        tokio::spawn(async move {
            ends.await;
            sweep.clean_now(&key, &traces).await;
        });
        false
    }

    async fn clean_now(&self, key: &Key, traces: &Arc<Traces>) -> bool {
        let Err(e) = self.remove(key, traces).await else { return true };
        tracing::warn!(target: "varve::sweep", "cleaning up after a failed copy, will be tried again: {e}");
        let mut owed = self.owed.lock();
        if owed.len() >= OWED_MAX {
            owed.remove(0);
        }
        owed.push((key.clone(), traces.clone()));
        self.more.notify_one();
        false
    }

    async fn remove(&self, key: &Key, traces: &Traces) -> Result<()> {
        let (upload, begins) = (traces.upload(), traces.0.lock().begins);
        match upload {
            Some(upload) => upload.abort().await?,
            None if begins => self.abort_unnamed(key).await?,
            None => {}
        }
        // An answer may have been lost after the object was complete. Its id is never used again.
        Ok(varve_store::delete(&*self.store, key).await?)
    }

    /// Aborts an upload whose beginning was not answered.
    async fn abort_unnamed(&self, key: &Key) -> Result<()> {
        let uploads = match self.store.list_uploads(key.as_str()).await {
            // Not allowed to look: that does not pass, and the bucket's own rules may abort it.
            Err(e) if matches!(e.kind, Kind::Denied | Kind::Unsupported) => return Ok(()),
            uploads => uploads?,
        };
        for upload in uploads.iter().filter(|u| u.key == *key) {
            self.store.abort_upload(upload).await?;
        }
        Ok(())
    }

    /// Runs until its task is dropped.
    pub async fn run(self: Arc<Self>) {
        let (mut next, mut pause) = (Instant::now(), RETRY_FIRST);
        loop {
            if Instant::now() >= next {
                next = Instant::now() + EVERY;
                if let Err(e) = self.abort_old().await {
                    tracing::warn!(target: "varve::sweep", "looking for unfinished uploads: {e}");
                }
            }
            if self.owed.lock().is_empty() {
                pause = RETRY_FIRST;
                let _ = timeout_at(next, self.more.notified()).await;
                continue;
            }
            sleep(pause).await;
            pause = (2 * pause).min(RETRY_LAST);
            let owed = std::mem::take(&mut *self.owed.lock());
            for (key, traces) in owed {
                self.clean_now(&key, &traces).await;
            }
        }
    }

    async fn abort_old(&self) -> Result<()> {
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let oldest = now.saturating_sub_unsigned(self.config.sweep_age_ms);
        let uploads = self.store.list_uploads(&format!("{}/", self.config.cluster_id)).await?;
        for upload in uploads.iter().filter(|u| u.started_ms.is_some_and(|started| started < oldest)) {
            // One that resists keeps no other.
            match self.store.abort_upload(upload).await {
                Ok(()) => {
                    self.metrics.swept_uploads.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(target: "varve::sweep", "aborted an unfinished upload of {}", upload.key);
                }
                Err(e) => {
                    tracing::warn!(target: "varve::sweep", "aborting an unfinished upload of {}: {e}", upload.key);
                }
            }
        }
        Ok(())
    }
}
