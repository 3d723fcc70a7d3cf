//! What an archive is. `docs/ARCHIVE-FORMAT.md` is its specification.
//!
//! Below, `record` and its neighbours are pure: bytes to types and back, safe on any bytes. Above them lies
//! policy over a [`varve_store::Store`]: how an object is committed, a branch started, a snapshot written, and all
//! of it proven. Clock and randomness are passed in. Nothing is modified once it was written, and nothing is kept
//! in memory that another process would need: any number of writers may run, and any of them may die anywhere.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod archive;
mod bundles;
mod canonical;
mod coverage;
mod divergence;
mod error;
mod growth;
mod hash;
mod head;
mod journal;
mod lineage;
mod log;
mod manifest;
pub mod names;
mod oldest;
mod partition;
mod prune;
mod read;
pub mod record;
mod restored;
mod sections;
mod shelf;
mod snapshots;
mod tree;
mod verify;

pub use archive::Archive;
pub use canonical::{Record, RecordError, V1};
pub use coverage::{Coverage, Stay};
pub use divergence::{ChainEpochs, LeaderAnswer, Verdict};
pub use error::{Error, Kind, Result};
pub use growth::{Point, Target};
pub use hash::{Hash, HashAlgorithm};
pub use head::{ObjectHead, Place};
pub use journal::{BundleBuilder, BundleName, continuation, continuation_to};
pub use lineage::{Stretch, lineage};
pub use log::{
    ArchivedLog, ArchivedObject, JournalView, LogReader, LogStream, Piece, PieceContent, PieceObject, Pieces,
};
pub use manifest::ChainObjects;
pub use oldest::Displaced;
pub use partition::{ChainEnd, Commit, Partition, Started};
pub use prune::{NewPruned, Pruned};
pub use read::ObjectReader;
pub use restored::{Seam, SeamBatch, is_restored};
pub use shelf::Shelf;
pub use snapshots::{Document, NewSnapshot, Snapshot};
pub use tree::{Leaves, Walk};
pub use verify::{DataKeys, Depth, FINDINGS_MAX, Finding, FindingKind, Progress, Report, VerifyOptions};
