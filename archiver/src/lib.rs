//! The service that keeps an archive.
//!
//! Sources (brokers, log directories) give undecoded batches; a partition's writer puts them into the chain; the
//! journal holds what is not worth a segment yet; snapshots name it all, with the cluster's state. Whatever is
//! held in memory can be read again: a crash at any point leaves what was committed, and nothing else.

pub mod config;
pub mod state;
