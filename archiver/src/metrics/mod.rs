//! What an archiver says of itself while it works: metrics, health, readiness and status over HTTP.
//!
//! Those who do the work tell a [`tally`](Tally) what they did; whoever asks gets a view of it. Nothing here holds up
//! the work, and nothing is kept beyond the process.

mod ask;
mod failure;
mod health;
mod lag;
mod price;
mod probe;
mod reference;
mod server;
mod status;
mod table;
mod tally;
mod text;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use varve_archive::Archive;
use varve_kafka::client::Client;
use varve_store::{Counts, SharedStore};

pub use ask::{AskError, ask};
pub use failure::FailureKind;
pub use price::Prices;
pub use reference::reference;
pub use status::{PartitionStatus, SnapshotStatus, Status, Trouble};
pub(crate) use tally::{GroupState, PartitionState, SnapshotSeen, Tally, Task, gap_name};

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::service::Archiver;

/// What is looked at.
pub(crate) struct Watch {
    progress: Arc<Progress>,
    counts: Arc<Counts>,
    archive: Archive,
    archive_url: String,
    store: SharedStore,
    client: Client,
    prices: Prices,
    patience: Duration,
    rpo: Duration,
}

/// Listens until it is dropped.
pub(crate) struct Listening(Vec<JoinHandle<()>>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Watch {
    fn unhealthy(&self) -> Vec<String> {
        health::unhealthy(&self.progress.tally.inner.lock(), self.patience, Instant::now())
    }

    fn not_ready(&self) -> Vec<String> {
        health::not_ready(&self.progress.tally.inner.lock(), Instant::now())
    }
}

impl Archiver {
    /// Begins to listen, if it is configured to.
    pub(crate) async fn listen(&self) -> Result<Option<Listening>> {
        let metrics = &self.config.metrics;
        let Some(address) = metrics.listen else { return Ok(None) };
        let listener = server::bind(address).await;
        let listener =
            listener.map_err(|e| Error::unexpected(format!("metrics.listen {address}"), "to listen", e))?;
        let usual = Prices::of(&self.config.archive.url);
        let watch = Arc::new(Watch {
            progress: Arc::clone(&self.progress),
            counts: Arc::clone(&self.counts),
            archive: self.archive.clone(),
            archive_url: self.config.archive.url.clone(),
            store: Arc::clone(&self.store),
            client: self.client.clone(),
            prices: Prices {
                write: metrics.write_price.unwrap_or(usual.write),
                read: metrics.read_price.unwrap_or(usual.read),
            },
            patience: metrics.health_timeout,
            rpo: self.config.journal.rpo,
        });
        tracing::info!(%address, "metrics, health and status over HTTP");
        let probed = Arc::clone(&watch);
        let probe = tokio::spawn(async move { probe::run(&probed).await });
        Ok(Some(Listening(vec![probe, tokio::spawn(server::serve(listener, watch))])))
    }
}
