//! What a fetch gave of one partition: whole batches, or why there are none.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::PartitionData;
use varve_format::Id;

use crate::protocol::{Batches, ProtocolError};

/// One partition's part of an answer.
#[derive(Clone, Debug)]
pub struct PartitionFetch {
    pub topic_id: Id,
    pub partition: i32,
    /// The offset that was asked for.
    pub from_offset: i64,
    pub outcome: Result<FetchedBatches, FetchProblem>,
}

/// Whole batches, maybe none, and where the leader's log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedBatches {
    /// A slice of the answer's frame, which lives as long as any slice of it. The first batch may begin before
    /// the offset asked for.
    pub records: Bytes,
    /// Behind the last batch; the offset asked for if there is none.
    pub next_offset: i64,
    /// The epoch in the last batch's header.
    pub last_leader_epoch: Option<i32>,
    pub batch_count: u32,
    pub high_watermark: i64,
    /// `None` where the broker doesn't tell.
    pub last_stable_offset: Option<i64>,
    pub log_start_offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderAndEpoch {
    pub leader_id: i32,
    pub leader_epoch: i32,
}

/// Why a partition gave nothing. It concerns this partition alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchProblem {
    /// The broker may name the leader it knows.
    #[error("the broker does not lead it (leader by its word: {current:?})")]
    NotLeader { current: Option<LeaderAndEpoch> },
    /// We know a newer epoch than the broker.
    #[error("the broker does not know the leader epoch yet")]
    UnknownLeaderEpoch,
    /// The broker knows a newer epoch than we.
    #[error("a newer leader epoch has begun (leader by the broker's word: {current:?})")]
    FencedLeaderEpoch { current: Option<LeaderAndEpoch> },
    /// Below the log's start, or above its end: ListOffsets tells which.
    #[error("the offset is before the log's start or after its end")]
    OffsetOutOfRange,
    /// The topic was deleted, or the broker has not heard of it yet.
    #[error("the broker knows no topic of that id, or no such partition of it")]
    UnknownTopicId,
    /// What was read before is not what this leader has: its log holds `epoch` only up to `end_offset`.
    #[error("the log diverges: it holds epoch {epoch} up to offset {end_offset} only")]
    Diverged { epoch: i32, end_offset: i64 },
    #[error("not authorized to read the topic")]
    NotAuthorized,
    /// A disk of the broker failed, or is not ready.
    #[error("the broker cannot read its disk")]
    Storage,
    /// By the broker's word, or by what it sent.
    #[error("corrupt: {detail}")]
    Corrupt { detail: String },
    #[error("{code}")]
    Other { code: ResponseError },
}

impl FetchProblem {
    /// Whether it goes away by asking the current leader, later on.
    pub fn is_retriable(&self) -> bool {
        match self {
            FetchProblem::NotLeader { .. }
            | FetchProblem::UnknownLeaderEpoch
            | FetchProblem::FencedLeaderEpoch { .. }
            | FetchProblem::Storage => true,
            FetchProblem::Other { code } => code.is_retriable(),
            _ => false,
        }
    }
}

/// Headers are read, nothing is decoded or copied.
pub(super) fn outcome(from_offset: i64, data: PartitionData) -> Result<FetchedBatches, FetchProblem> {
    if let Some(code) = ResponseError::try_from_code(data.error_code) {
        return Err(problem(code, &data));
    }
    if data.diverging_epoch.end_offset >= 0 {
        let (epoch, end_offset) = (data.diverging_epoch.epoch, data.diverging_epoch.end_offset);
        return Err(FetchProblem::Diverged { epoch, end_offset });
    }
    let records = data.records.unwrap_or_default();
    let whole = whole_batches(&records).map_err(|e| FetchProblem::Corrupt { detail: e.to_string() })?;
    let next_offset = whole.next_offset.unwrap_or(from_offset);
    if whole.size_bytes > 0 && next_offset <= from_offset {
        // Going on from there would ask for the same for ever.
        let detail = format!("asked for offset {from_offset}, given batches that end at {next_offset}");
        return Err(FetchProblem::Corrupt { detail });
    }
    Ok(FetchedBatches {
        records: records.slice(..whole.size_bytes),
        next_offset,
        last_leader_epoch: whole.last_leader_epoch,
        batch_count: whole.count,
        high_watermark: data.high_watermark,
        last_stable_offset: Some(data.last_stable_offset).filter(|o| *o >= 0),
        log_start_offset: data.log_start_offset,
    })
}

fn problem(code: ResponseError, data: &PartitionData) -> FetchProblem {
    let leader = &data.current_leader;
    let current = (leader.leader_id.0 >= 0)
        .then_some(LeaderAndEpoch { leader_id: leader.leader_id.0, leader_epoch: leader.leader_epoch });
    match code {
        ResponseError::NotLeaderOrFollower | ResponseError::ReplicaNotAvailable => {
            FetchProblem::NotLeader { current }
        }
        ResponseError::UnknownLeaderEpoch => FetchProblem::UnknownLeaderEpoch,
        ResponseError::FencedLeaderEpoch => FetchProblem::FencedLeaderEpoch { current },
        ResponseError::OffsetOutOfRange => FetchProblem::OffsetOutOfRange,
        ResponseError::UnknownTopicId
        | ResponseError::InconsistentTopicId
        | ResponseError::UnknownTopicOrPartition => FetchProblem::UnknownTopicId,
        ResponseError::TopicAuthorizationFailed => FetchProblem::NotAuthorized,
        ResponseError::KafkaStorageError => FetchProblem::Storage,
        ResponseError::CorruptMessage => {
            FetchProblem::Corrupt { detail: "the broker says that its log is corrupt here".to_owned() }
        }
        code => FetchProblem::Other { code },
    }
}

#[derive(Default)]
struct Whole {
    size_bytes: usize,
    next_offset: Option<i64>,
    last_leader_epoch: Option<i32>,
    count: u32,
}

/// The leading whole batches: answers usually end in the middle of one.
fn whole_batches(records: &Bytes) -> Result<Whole, ProtocolError> {
    let mut whole = Whole::default();
    for item in Batches::new(records.clone(), 0) {
        match item {
            Ok(batch) => {
                whole.size_bytes += batch.bytes.len();
                whole.next_offset = Some(batch.header.next_offset());
                whole.last_leader_epoch = Some(batch.header.partition_leader_epoch);
            }
            Err(ProtocolError::OldMagic { last_offset, size_bytes, .. }) => {
                whole.size_bytes += usize::try_from(size_bytes).unwrap_or(0);
                whole.next_offset = Some(last_offset.saturating_add(1));
            }
            Err(ProtocolError::Truncated { .. }) => break,
            Err(e) => return Err(e),
        }
        whole.count += 1;
    }
    Ok(whole)
}
