//! The records of an archive, one kind a file: bytes to types and back. Pure.

pub mod archive;
pub mod branch;
pub mod bundle;
pub mod bundles;
pub mod chains;
pub mod gap;
pub mod more;
pub mod node;
pub mod object;
pub mod pruned;
pub mod restore;
pub mod signature;
pub mod snapshot;
pub mod state;
pub mod topic;
pub mod upgrade;

pub(crate) const SMALL_MAX_BYTES: u64 = 64 << 10;
pub(crate) const MANIFEST_MAX_BYTES: u64 = 16 << 20;
