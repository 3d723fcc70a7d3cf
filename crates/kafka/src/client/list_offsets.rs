//! Where partitions begin and end.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::cluster::Client;
use super::connection::Connection;
use super::error::{ClientError, Result};

/// Which offset of a partition is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The log start offset, in the tier or local.
    Earliest,
    /// The high watermark.
    Latest,
    /// Below it no transaction is open.
    LatestStable,
    /// The first record at or after a time; `None` in the answer if there is none.
    AtOrAfterMs(i64),
    /// The first that the leader has on its own disk.
    EarliestLocal,
    /// The last that is in the tier; `None` in the answer if nothing is.
    LatestTiered,
}

impl OffsetSpec {
    pub(crate) fn timestamp(self) -> i64 {
        match self {
            OffsetSpec::EarliestLocal => -4,
            OffsetSpec::LatestTiered => -5,
            OffsetSpec::Earliest => -2,
            OffsetSpec::Latest | OffsetSpec::LatestStable => -1,
            OffsetSpec::AtOrAfterMs(ms) => ms.max(0),
        }
    }

    pub(crate) fn isolation_level(self) -> i8 {
        match self {
            OffsetSpec::LatestStable => READ_COMMITTED,
            _ => READ_UNCOMMITTED,
        }
    }

    /// Of ListOffsets. Older brokers would take the special timestamps for times.
    pub(crate) fn first_version(self) -> i16 {
        match self {
            OffsetSpec::EarliestLocal => 8,
            OffsetSpec::LatestTiered => 9,
            OffsetSpec::LatestStable => 2,
            _ => 1,
        }
    }
}

const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;
const ANY_CONSUMER: BrokerId = BrokerId(-1);

impl Client {
    /// For each of `partitions` its offset. Leaders that moved are looked up again.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partitions: &[i32],
        spec: OffsetSpec,
    ) -> Result<BTreeMap<i32, Option<i64>>> {
        let mut found = BTreeMap::new();
        let mut backoff = self.backoff();
        loop {
            let wanted: Vec<i32> = partitions.iter().copied().filter(|p| !found.contains_key(p)).collect();
            if wanted.is_empty() {
                return Ok(found);
            }
            if let Err(e) = self.list_offsets_once(topic, &wanted, spec, &mut found).await {
                backoff.wait_or_fail(&format!("offsets of {topic}"), e).await?;
            }
        }
    }

    /// Fills in what could be had; the first error, if any, is returned at the end.
    async fn list_offsets_once(
        &self,
        topic: &str,
        wanted: &[i32],
        spec: OffsetSpec,
        found: &mut BTreeMap<i32, Option<i64>>,
    ) -> Result<()> {
        let metadata = self.topic(topic).await?;
        let mut by_leader: HashMap<i32, Vec<i32>> = HashMap::new();
        let mut first_error = None;
        for partition in wanted {
            let leader = metadata.partitions.iter().find(|p| p.partition == *partition);
            match leader.and_then(|p| p.leader_id) {
                Some(leader) => by_leader.entry(leader).or_default().push(*partition),
                None => {
                    first_error = Some(ClientError::NoLeader { what: format!("{topic}-{partition}") });
                }
            }
        }
        let calls = by_leader.into_iter().map(|(leader, partitions)| async move {
            let connection = self.connection(leader).await?;
            ask(&connection, topic, &partitions, spec).await
        });
        for outcome in futures::future::join_all(calls).await {
            match outcome {
                Err(e) => first_error = Some(e),
                Ok(answers) => {
                    for (partition, answer) in answers {
                        match answer {
                            Ok(offset) => {
                                found.insert(partition, offset);
                            }
                            Err(e) => first_error = Some(e),
                        }
                    }
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

pub(super) async fn ask(
    connection: &Connection,
    topic: &str,
    partitions: &[i32],
    spec: OffsetSpec,
) -> Result<Vec<(i32, Result<Option<i64>>)>> {
    let partitions = partitions.iter().map(|p| {
        ListOffsetsPartition::default()
            .with_partition_index(*p)
            .with_current_leader_epoch(-1)
            .with_timestamp(spec.timestamp())
    });
    let wanted = ListOffsetsTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(partitions.collect());
    let request = ListOffsetsRequest::default()
        .with_replica_id(ANY_CONSUMER)
        .with_isolation_level(spec.isolation_level())
        .with_topics(vec![wanted]);
    let answer = connection.call(request).await?;
    let answers = answer.topics.into_iter().flat_map(|t| t.partitions).map(|p| {
        let result = match ResponseError::try_from_code(p.error_code) {
            Some(code) => Err(ClientError::kafka(format!("{topic}-{}", p.partition_index), code)),
            None => Ok(Some(p.offset).filter(|offset| *offset >= 0)),
        };
        (p.partition_index, result)
    });
    Ok(answers.collect())
}
