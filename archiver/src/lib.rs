//! The service that keeps an archive.
//!
//! Sources (brokers, log directories) give undecoded batches; a partition's writer puts them into the chain; the
//! journal holds what is not worth a segment yet; snapshots name it all, with the cluster's state. Whatever is
//! held in memory can be read again: a crash at any point leaves what was committed, and nothing else.

mod branching;
mod clock;
pub mod config;
mod departed;
mod discovery;
mod error;
pub mod import;
mod intake;
mod journal;
mod memory;
pub mod metrics;
mod opening;
mod progress;
mod rebalance;
mod recovery_point;
mod rescue;
pub mod resident;
mod running;
mod samples;
mod sealing;
mod seam;
mod segment;
mod service;
mod service_snapshots;
mod sharing;
mod signing;
mod snapshot_now;
mod standing;
mod stored;
mod tail;
mod transactions;
mod upload;
mod without_cluster;
mod worker;

pub use error::{Error, Result};
pub use progress::{PartitionProgress, Progress};
pub use service::{Archiver, Outcome};
pub use snapshot_now::{Lagging, SnapshotOutcome};
pub use without_cluster::StoredSnapshot;
