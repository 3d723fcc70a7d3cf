//! Cleaning what failed copies leave: at once where the store allows, later where it did not, and by age what
//! a killed broker left. Finished objects are deleted only if the copy that wrote them failed here.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use varve_store::{Key, SharedStore, Upload};

use crate::config::Config;
use crate::error::Result;
use crate::metrics::Metrics;

const EVERY: Duration = Duration::from_secs(3600);
const RETRY: Duration = Duration::from_secs(30);
/// Beyond this the oldest is left to the sweep by age.
const OWED_MAX: usize = 10_000;

type Leftover = (Key, Option<Arc<dyn Upload>>);

pub struct Sweep {
    config: Arc<Config>,
    store: SharedStore,
    metrics: Arc<Metrics>,
    owed: Mutex<Vec<Leftover>>,
}

impl Sweep {
    pub fn new(config: Arc<Config>, store: SharedStore, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { config, store, metrics, owed: Mutex::default() })
    }

    /// Removes a failed copy's upload and object; what can't be now is tried again until it can.
    pub async fn clean(&self, key: &Key, upload: Option<Arc<dyn Upload>>) {
        if let Err(e) = self.remove(key, upload.as_ref()).await {
            tracing::warn!(target: "varve::sweep", "cleaning up after a failed copy, will be tried again: {e}");
            let mut owed = self.owed.lock();
            if owed.len() >= OWED_MAX {
                owed.remove(0);
            }
            owed.push((key.clone(), upload));
        }
    }

    async fn remove(&self, key: &Key, upload: Option<&Arc<dyn Upload>>) -> Result<()> {
        if let Some(upload) = upload {
            upload.abort().await?;
        }
        // An answer may have been lost after the object was complete. Its id is never used again.
        Ok(varve_store::delete(&*self.store, key).await?)
    }

    /// Runs until its task is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut since = EVERY;
        loop {
            if since >= EVERY {
                since = Duration::ZERO;
                if let Err(e) = self.abort_old().await {
                    tracing::warn!(target: "varve::sweep", "looking for unfinished uploads: {e}");
                }
            }
            tokio::time::sleep(RETRY).await;
            since += RETRY;
            let owed = std::mem::take(&mut *self.owed.lock());
            for (key, upload) in owed {
                self.clean(&key, upload).await;
            }
        }
    }

    async fn abort_old(&self) -> Result<()> {
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let oldest = now.saturating_sub_unsigned(self.config.sweep_age_ms);
        for upload in self.store.list_uploads(&format!("{}/", self.config.cluster_id)).await? {
            if upload.started_ms.is_some_and(|started| started < oldest) {
                self.store.abort_upload(&upload).await?;
                self.metrics.swept_uploads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tracing::info!(target: "varve::sweep", "aborted an unfinished upload of {}", upload.key);
            }
        }
        Ok(())
    }
}
