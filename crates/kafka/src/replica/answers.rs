//! What a follower asks its leader, and what we say.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::{EpochEndOffset as Diverging, FetchableTopicResponse};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, fetch_request, fetch_response,
};
use varve_format::Id;

use super::gathered::Records;
use super::led::{Follower, Led, LogFailure, Partitions};

/// Fetch requests name topics by id from this version on, and replicas by id and epoch from that one.
const TOPIC_IDS_FROM: i16 = 13;
const REPLICA_STATE_FROM: i16 = 15;
/// An answer with nothing in it comes so late at most.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Partitions are read in an answer for so long; the others come in the next one.
const READING_MAX: Duration = Duration::from_secs(2);

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const EARLIEST_LOCAL: i64 = -4;

/// Of a fetch: who asks, and how much may still be answered.
struct Asking {
    replica: i32,
    broker_epoch: i64,
    left_bytes: usize,
    /// Something is said that the follower waits for.
    news: bool,
    begun: Instant,
    /// What was read, in the order of the answer.
    records: Vec<Records>,
}

/// An answer, and the records in it, which the codec is not shown.
pub(super) async fn fetch(
    partitions: &Partitions,
    request: FetchRequest,
    version: i16,
) -> (FetchResponse, Vec<Records>) {
    let by_state = version >= REPLICA_STATE_FROM;
    let mut asking = Asking {
        replica: if by_state { request.replica_state.replica_id.0 } else { request.replica_id.0 },
        broker_epoch: if by_state { request.replica_state.replica_epoch } else { -1 },
        left_bytes: partitions.allowed(usize::try_from(request.max_bytes).unwrap_or(0)),
        news: false,
        begun: Instant::now(),
        records: Vec::new(),
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let topic_id = Id(*topic.topic_id.as_bytes());
        let mut answers = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let (found, unknown) = if version >= TOPIC_IDS_FROM {
                (partitions.find(topic_id, wanted.partition), ResponseError::UnknownTopicId)
            } else {
                let found = partitions.named(&topic.topic.0, wanted.partition);
                (found, ResponseError::UnknownTopicOrPartition)
            };
            let answer = match found {
                Some(led) => partition(partitions, &led, wanted, &mut asking).await,
                None => Err(unknown),
            };
            asking.news |= answer.is_err();
            answers.push(answer.unwrap_or_else(refused).with_partition_index(wanted.partition));
        }
        topics.push(
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_topic_id(topic.topic_id)
                .with_partitions(answers),
        );
    }
    if !asking.news {
        let wait = u64::try_from(request.max_wait_ms).map_or(WAIT_MAX, Duration::from_millis);
        tokio::time::sleep(wait.min(WAIT_MAX)).await;
    }
    (FetchResponse::default().with_responses(topics), asking.records)
}

fn refused(code: ResponseError) -> fetch_response::PartitionData {
    let empty = fetch_response::PartitionData::default().with_records(Some(Bytes::new()));
    empty.with_error_code(code.code()).with_high_watermark(-1)
}

async fn partition(
    partitions: &Partitions,
    led: &Arc<Led>,
    wanted: &fetch_request::FetchPartition,
    asking: &mut Asking,
) -> Result<fetch_response::PartitionData, ResponseError> {
    let (log, offset) = (&led.log, wanted.fetch_offset);
    let (start, end) = (log.start_offset(), log.end_offset());
    let mut answer = fetch_response::PartitionData::default()
        .with_high_watermark(end)
        .with_last_stable_offset(end)
        .with_log_start_offset(start)
        .with_records(Some(Bytes::new()));
    let before = {
        let mut state = led.state.lock();
        // It counts again once its log is seen to be ours.
        let before = state.followers.remove(&asking.replica);
        if state.handed_over || asking.replica < 0 {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        match wanted.current_leader_epoch {
            epoch if epoch > state.leader_epoch => {
                partitions.stale.store(true, Ordering::Relaxed);
                return Err(ResponseError::UnknownLeaderEpoch);
            }
            epoch if epoch >= 0 && epoch < state.leader_epoch => {
                return Err(ResponseError::FencedLeaderEpoch);
            }
            _ => {}
        }
        // A follower that began within the first batch goes back to where that begins.
        if !(log.base_offset().min(start)..=end).contains(&offset) {
            return Err(ResponseError::OffsetOutOfRange);
        }
        before
    };
    if wanted.last_fetched_epoch >= 0 {
        // One that is beyond ours can't be held against it: the follower begins anew, as it would with any leader.
        let Some((epoch, end_offset)) = led.end_of_epoch(wanted.last_fetched_epoch) else {
            return Err(ResponseError::OffsetOutOfRange);
        };
        // What it has above was never ours: it cuts that off, and asks again.
        if epoch < wanted.last_fetched_epoch || end_offset < offset {
            asking.news = true;
            let diverging = Diverging::default().with_epoch(epoch).with_end_offset(end_offset);
            return Ok(answer.with_diverging_epoch(diverging));
        }
    }
    let follower = Follower { offset, broker_epoch: asking.broker_epoch };
    led.state.lock().followers.insert(asking.replica, follower);
    if before != Some(follower) {
        partitions.progress.notify_waiters();
    }
    let limit = usize::try_from(wanted.partition_max_bytes).unwrap_or(0).min(asking.left_bytes);
    // Whatever else is asked for: nobody waits for an answer for ever.
    if offset == end || limit == 0 || asking.begun.elapsed() >= READING_MAX {
        return Ok(answer);
    }
    let records = match log.read(offset, limit).await {
        Ok(Some(parts)) => Records::new(parts),
        Ok(None) => return Ok(answer),
        Err(error) => {
            let what = format!("{}-{} from offset {offset} on", led.topic, led.partition);
            tracing::error!(partition = what, %error, "can't be read");
            if error.is_lasting {
                partitions.failure.lock().get_or_insert(LogFailure { what, detail: error.detail });
                partitions.progress.notify_waiters();
            }
            return Err(ResponseError::KafkaStorageError);
        }
    };
    asking.left_bytes = asking.left_bytes.saturating_sub(records.len());
    asking.news = true;
    partitions.serve(records.len());
    answer.records = Some(records.shown());
    asking.records.push(records);
    Ok(answer)
}

pub(super) fn list_offsets(partitions: &Partitions, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let topics = request.topics.iter().map(|topic| {
        let answers = topic.partitions.iter().map(|wanted| {
            let answer = ListOffsetsPartitionResponse::default().with_partition_index(wanted.partition_index);
            let led = partitions.named(&topic.name.0, wanted.partition_index);
            let Some(led) = led.filter(|led| request.replica_id.0 >= 0 && !led.state.lock().handed_over)
            else {
                return answer.with_error_code(ResponseError::NotLeaderOrFollower.code());
            };
            let leader_epoch = led.state.lock().leader_epoch;
            let first_epoch = led.log.leader_epochs().entries().first().map_or(leader_epoch, |e| e.epoch);
            match wanted.timestamp {
                LATEST => answer.with_offset(led.log.end_offset()).with_leader_epoch(leader_epoch),
                EARLIEST | EARLIEST_LOCAL => {
                    answer.with_offset(led.log.start_offset()).with_leader_epoch(first_epoch)
                }
                _ => answer.with_error_code(ResponseError::UnsupportedVersion.code()),
            }
        });
        ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(answers.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

pub(super) fn ends_of_epochs(
    partitions: &Partitions,
    request: &OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.iter().map(|topic| {
        let answers = topic.partitions.iter().map(|wanted| {
            let answer = EpochEndOffset::default().with_partition(wanted.partition);
            match partitions.named(&topic.topic.0, wanted.partition) {
                None => answer.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
                Some(led) => match led.end_of_epoch(wanted.leader_epoch) {
                    Some((epoch, end)) => answer.with_leader_epoch(epoch).with_end_offset(end),
                    None => answer.with_leader_epoch(-1).with_end_offset(-1),
                },
            }
        });
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic.clone())
            .with_partitions(answers.collect())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
