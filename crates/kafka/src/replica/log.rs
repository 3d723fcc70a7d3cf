//! What followers copy.

use async_trait::async_trait;
use bytes::Bytes;

use crate::protocol::LeaderEpochs;

pub type ReadError = Box<dyn std::error::Error + Send + Sync>;

/// One partition's log: whole batches in order, which never change.
#[async_trait]
pub trait ReplicaLog: Send + Sync {
    /// The log start offset, which may lie within the first batch.
    fn start_offset(&self) -> i64;

    /// Where the first batch begins; the log start offset if there is none.
    fn base_offset(&self) -> i64;

    /// Last offset + 1.
    fn end_offset(&self) -> i64;

    /// The leader epochs of its batches.
    fn leader_epochs(&self) -> &LeaderEpochs;

    /// Whole batches, from the one on that has `offset` or else is the next behind it: at least one, and further ones
    /// up to `max_bytes` in all. Nothing only at the end.
    async fn read(&self, offset: i64, max_bytes: usize) -> Result<Bytes, ReadError>;
}

impl std::fmt::Debug for dyn ReplicaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "log from {} to {}", self.start_offset(), self.end_offset())
    }
}
