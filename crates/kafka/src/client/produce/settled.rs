//! Where a log ends for good.

use varve_format::Id;

use super::super::admin::{AskedEpoch, TopicPartition, ends_of_epochs};
use super::super::cluster::Client;
use super::super::connection::Connection;
use super::super::error::{ClientError, Result};
use super::super::list_offsets::{self, OffsetSpec};

/// See [`Client::settled_end`].
#[derive(Clone, Copy, Debug)]
pub(super) struct SettledEnd {
    pub(super) leader: i32,
    pub(super) leader_epoch: i32,
    pub(super) offset: i64,
}

impl Client {
    /// The end of the leader's log, if all replicas in sync have all of it: consumers can read up to there, and nothing
    /// that was appended before is behind it. A leader of an earlier epoch than `since_epoch` is none any more.
    ///
    /// # Errors
    /// [`ClientError::NotInSync`], and what else may pass; another topic of that name.
    pub(super) async fn settled_end(
        &self,
        topic: &str,
        topic_id: Id,
        partition: i32,
        since_epoch: i32,
    ) -> Result<SettledEnd> {
        let found = self.topic(topic).await?;
        if found.topic_id != topic_id {
            return Err(ClientError::NoSuchTopic { topic: format!("{topic} with id {topic_id}") });
        }
        let what = format!("{topic}-{partition}");
        let known =
            found.partitions.iter().find(|p| p.partition == partition && p.leader_epoch >= since_epoch);
        let Some((leader, leader_epoch)) = known.and_then(|p| Some((p.leader_id?, p.leader_epoch))) else {
            return Err(ClientError::NoLeader { what });
        };
        let connection = self.connection(leader).await?;
        let end = end_of_log(&connection, topic, partition, leader_epoch).await?;
        let answers = list_offsets::ask(&connection, topic, &[partition], OffsetSpec::Latest).await?;
        let high_watermark = match answers.into_iter().find(|(p, _)| *p == partition) {
            Some((_, answer)) => answer?.unwrap_or(0),
            None => return Err(ClientError::Log { what, detail: "an answer about nothing".to_owned() }),
        };
        match end {
            Some(end) if high_watermark < end => Err(ClientError::NotInSync { what, end, high_watermark }),
            None if high_watermark > 0 => {
                let detail = "the leader doesn't know where its epoch ends".to_owned();
                Err(ClientError::Log { what, detail })
            }
            _ => Ok(SettledEnd { leader, leader_epoch, offset: high_watermark }),
        }
    }
}

/// Of the leader that has this epoch: where its own epoch ends. One that has taken the log over from another disk knows
/// the epochs of its batches only (KAFKA-15608): there the last that it knows of counts. `None` if it knows none.
async fn end_of_log(
    connection: &Connection,
    topic: &str,
    partition: i32,
    leader_epoch: i32,
) -> Result<Option<i64>> {
    let end_of = async |epoch| end_of_epoch(connection, topic, partition, leader_epoch, epoch).await;
    let mut end = end_of(leader_epoch).await?;
    // Of all that it knows, the last one's end is the log's.
    let (mut known, mut unknown) = (if end.is_some() { leader_epoch } else { -1 }, leader_epoch);
    while unknown - known > 1 {
        let between = known + (unknown - known) / 2;
        match end_of(between).await? {
            None => unknown = between,
            found => (known, end) = (between, found),
        }
    }
    Ok(end)
}

/// `None` of one behind the last that the leader knows.
async fn end_of_epoch(
    connection: &Connection,
    topic: &str,
    partition: i32,
    leader_epoch: i32,
    epoch: i32,
) -> Result<Option<i64>> {
    let partition = TopicPartition::new(topic, partition);
    let what = partition.to_string();
    let asked = AskedEpoch { partition, leader_epoch: epoch, current_leader_epoch: Some(leader_epoch) };
    match ends_of_epochs(connection, &[asked]).await?.into_iter().next() {
        Some((_, Ok(found))) => Ok(found.end_offset),
        Some((_, Err(code))) => Err(ClientError::kafka(what, code)),
        None => Err(ClientError::Log { what, detail: "an answer about nothing".to_owned() }),
    }
}
