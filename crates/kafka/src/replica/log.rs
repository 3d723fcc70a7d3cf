//! What followers copy.

use async_trait::async_trait;
use bytes::Bytes;

use crate::protocol::LeaderEpochs;

/// Why a log could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct ReadError {
    pub detail: String,
    /// Asking again does not help: what is stored does not hold.
    pub is_lasting: bool,
}

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

    /// The highest producer id of all batches that were read; -1 if there is none.
    fn last_producer_id(&self) -> i64;

    /// Whole batches, from the one on that has `offset` or else is the next behind it: at least one, and further ones
    /// up to `max_bytes` in all. `None` if there is no memory for it now, and empty only at the end. Their bytes may lie
    /// in several places, cut anywhere.
    async fn read(&self, offset: i64, max_bytes: usize) -> Result<Option<Vec<Bytes>>, ReadError>;

    /// All followers have all of it: what is held for them may go.
    async fn done(&self);
}

impl std::fmt::Debug for dyn ReplicaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "log from {} to {}", self.start_offset(), self.end_offset())
    }
}

/// One without a batch: nothing was ever in it.
#[derive(Debug, Default)]
pub struct EmptyLog(LeaderEpochs);

#[async_trait]
impl ReplicaLog for EmptyLog {
    fn start_offset(&self) -> i64 {
        0
    }

    fn base_offset(&self) -> i64 {
        0
    }

    fn end_offset(&self) -> i64 {
        0
    }

    fn leader_epochs(&self) -> &LeaderEpochs {
        &self.0
    }

    fn last_producer_id(&self) -> i64 {
        -1
    }

    async fn read(&self, _: i64, _: usize) -> Result<Option<Vec<Bytes>>, ReadError> {
        Ok(Some(Vec::new()))
    }

    async fn done(&self) {}
}
