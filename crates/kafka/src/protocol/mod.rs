//! What brokers keep in files and send over the wire, as types. No IO, no clock.
//!
//! Every function here takes bytes from outside and must neither panic nor allocate more than those bytes
//! (or a limit that the caller gives) allow: lengths are checked against what is really there first.
//! Positions in errors are positions in the file or stream that the bytes came from.

mod batch;
mod batches;
mod compress;
mod control;
mod cursor;
mod decompress;
mod error;
mod hash_order;
mod leader_epochs;
mod offset_index;
mod produced;
mod producer_snapshot;
mod producer_state;
mod record;
mod remote_log_metadata;
mod remote_log_state;
mod scanner;
mod segment_builder;
mod segment_indexes;
mod segment_summary;
mod time_index;
mod transaction_index;

pub use batch::{Attributes, BATCH_HEADER_BYTES, BatchHeader, BatchLine, Codec, TimestampType};
pub use batches::{Batch, Batches};
pub use control::{ControlRecord, ControlType};
pub use error::{ProtocolError, Result};
pub use leader_epochs::{EpochEntry, LeaderEpochs, parse_leader_epochs};
pub use offset_index::{OFFSET_INDEX_ENTRY_BYTES, OffsetIndexEntry, parse_offset_index};
pub use produced::{Sequence, batch_of};
pub use producer_snapshot::{ProducerEntry, encode_producer_snapshot, parse_producer_snapshot};
pub use producer_state::{OpenTransaction, ProducerExpiry};
pub use record::{Header, Record, Records};
pub use remote_log_metadata::{
    PartitionDeleteState, PartitionDeletion, RemoteLogRecord, SegmentRecord, SegmentSnapshot, SegmentState,
    SegmentUpdate, TopicIdPartition, decode_remote_log_record,
};
pub use remote_log_state::{Anomaly, PartitionKey, RemoteLogState, RemoteSegment};
pub use scanner::{BatchScanner, OldMessageSet, Scanned};
pub use segment_builder::{BuiltSegment, LogState, SegmentBuilder, SegmentFiles, SegmentRules};
pub use segment_indexes::DEFAULT_INDEX_INTERVAL_BYTES;
pub use segment_summary::SegmentSummary;
pub use time_index::{TIME_INDEX_ENTRY_BYTES, TimeIndexEntry, parse_time_index};
pub use transaction_index::{AbortedTransaction, TRANSACTION_INDEX_ENTRY_BYTES, parse_transaction_index};
