//! One fetch: undecoded batches of some partitions of one topic from one broker.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use varve_format::Id;

use super::config::ClientConfig;
use super::connection::Connection;
use super::error::{ClientError, Result};

const READ_UNCOMMITTED: i8 = 0;
/// From this version on a topic is named by its id.
const FIRST_VERSION_BY_ID: i16 = 13;
/// No fetch session: each request says all it wants.
const NO_SESSION_EPOCH: i32 = -1;

/// Where to read on in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchFrom {
    pub partition: i32,
    pub offset: i64,
}

/// What a broker gave of one partition.
#[derive(Clone, Debug)]
pub struct FetchedPartition {
    pub partition: i32,
    pub error: Option<ResponseError>,
    pub high_watermark: i64,
    pub log_start_offset: i64,
    /// Whole batches, and maybe a part of one more. The first may begin before the offset asked for.
    pub records: Bytes,
}

/// The answer, and how long the broker asks us to wait before the next request.
pub(crate) async fn fetch(
    connection: &Connection,
    config: &ClientConfig,
    topic: &str,
    topic_id: Id,
    from: &[FetchFrom],
) -> Result<(Vec<FetchedPartition>, u64)> {
    // Topics made before Kafka 2.8 that were never rewritten have no id.
    let cap = if topic_id == Id::default() { FIRST_VERSION_BY_ID - 1 } else { i16::MAX };
    let version = connection.version::<FetchRequest>(cap)?;
    let partitions = from.iter().map(|f| {
        FetchPartition::default()
            .with_partition(f.partition)
            .with_fetch_offset(f.offset)
            .with_current_leader_epoch(-1)
            .with_partition_max_bytes(config.max_partition_fetch_bytes)
    });
    let wanted = FetchTopic::default().with_partitions(partitions.collect());
    let wanted = if version >= FIRST_VERSION_BY_ID {
        wanted.with_topic_id(uuid::Uuid::from_bytes(topic_id.0))
    } else {
        wanted.with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
    };
    let request = FetchRequest::default()
        .with_max_wait_ms(config.fetch_max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(config.fetch_max_bytes)
        .with_isolation_level(READ_UNCOMMITTED)
        .with_session_epoch(NO_SESSION_EPOCH)
        .with_topics(vec![wanted]);
    let answer = connection.call_version(request, version).await?;
    if let Some(code) = ResponseError::try_from_code(answer.error_code) {
        return Err(ClientError::kafka(format!("fetch of {topic} from {}", connection.broker()), code));
    }
    let fetched = answer.responses.into_iter().flat_map(|t| t.partitions).map(|p| FetchedPartition {
        partition: p.partition_index,
        error: ResponseError::try_from_code(p.error_code),
        high_watermark: p.high_watermark,
        log_start_offset: p.log_start_offset,
        records: p.records.unwrap_or_default(),
    });
    Ok((fetched.collect(), u64::try_from(answer.throttle_time_ms).unwrap_or(0)))
}
