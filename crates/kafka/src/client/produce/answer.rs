//! One Produce request with one batch: brokers take one of each partition.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;
use varve_format::Id;

use super::super::error::{ClientError, Result};

/// From this version on a topic is named by its id.
pub(super) const FIRST_VERSION_BY_ID: i16 = 13;
const ALL_IN_SYNC: i16 = -1;

pub(super) fn request(
    topic: &str,
    topic_id: Id,
    partition: i32,
    batch: Bytes,
    version: i16,
    timeout_ms: i32,
) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let data = TopicProduceData::default().with_partition_data(vec![data]);
    let data = if version >= FIRST_VERSION_BY_ID {
        data.with_topic_id(Uuid::from_bytes(topic_id.0))
    } else {
        data.with_name(TopicName(StrBytes::from_string(topic.to_owned())))
    };
    ProduceRequest::default().with_acks(ALL_IN_SYNC).with_timeout_ms(timeout_ms).with_topic_data(vec![data])
}

/// The offset that its first record got.
pub(super) fn base_offset(what: &str, answer: &ProduceResponse) -> Result<i64> {
    let mut partitions = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
    let Some(partition) = partitions.next() else {
        return Err(ClientError::Log { what: what.to_owned(), detail: "an answer about nothing".to_owned() });
    };
    match ResponseError::try_from_code(partition.error_code) {
        None => Ok(partition.base_offset),
        Some(
            code @ (ResponseError::OutOfOrderSequenceNumber
            | ResponseError::DuplicateSequenceNumber
            | ResponseError::UnknownProducerId),
        ) => Err(ClientError::OutOfSequence { what: what.to_owned(), code }),
        Some(code) => {
            let why = partition.error_message.as_ref().map(|m| m.as_str()).filter(|m| !m.is_empty());
            let what = why.map_or_else(|| what.to_owned(), |why| format!("{what} ({why})"));
            Err(ClientError::kafka(what, code))
        }
    }
}
