//! One partition from an offset to another, as undecoded batches.
//!
//! One fetch is under way at a time, and only while the caller waits. A leader that moves and a connection that breaks
//! are followed; what cannot be read goes on being tried for `default.api.timeout.ms`.

use bytes::Bytes;
use varve_format::Id;

use super::cluster::Client;
use super::connection::Connection;
use super::error::{ClientError, Result};
use super::fetch::{FetchFrom, fetch};
use crate::protocol::Batches;

/// See the module.
#[derive(Debug)]
pub struct PartitionReader {
    client: Client,
    topic: String,
    topic_id: Id,
    partition: i32,
    next_offset: i64,
    end_offset: i64,
    connection: Option<Connection>,
}

impl Client {
    /// Reads what is from `offset` to before `end_offset`; both must be there.
    pub fn read_partition(
        &self,
        topic: &str,
        topic_id: Id,
        partition: i32,
        offset: i64,
        end_offset: i64,
    ) -> PartitionReader {
        PartitionReader {
            client: self.clone(),
            topic: topic.to_owned(),
            topic_id,
            partition,
            next_offset: offset,
            end_offset,
            connection: None,
        }
    }
}

impl PartitionReader {
    /// Whole batches; the first may begin before the offset, and the last may end behind the end. `None` when there is
    /// no more.
    ///
    /// # Errors
    /// Of the broker; an offset that is not there.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut backoff = self.client.backoff();
        let what = format!("reading {}-{}", self.topic, self.partition);
        while self.next_offset < self.end_offset {
            let error = match self.fetched().await {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => {
                    ClientError::NoLeader { what: format!("{what}: nothing at {}", self.next_offset) }
                }
                Err(error) => error,
            };
            self.connection = None;
            backoff.wait_or_fail(&what, error).await?;
        }
        Ok(None)
    }

    async fn fetched(&mut self) -> Result<Option<Bytes>> {
        let connection = match self.connection.as_ref().filter(|c| c.is_usable()) {
            Some(connection) => connection.clone(),
            None => {
                let leader = self.client.leader_of(&self.topic, self.partition).await?;
                self.connection.insert(self.client.own_connection(leader).await?).clone()
            }
        };
        let from = [FetchFrom { partition: self.partition, offset: self.next_offset }];
        let answer = fetch(&connection, self.client.config(), &self.topic, self.topic_id, &from).await?;
        let Some(fetched) = answer.0.into_iter().next() else { return Ok(None) };
        let what = format!("{}-{} at offset {}", self.topic, self.partition, self.next_offset);
        if let Some(code) = fetched.error {
            return Err(ClientError::kafka(what, code));
        }
        let whole = Batches::whole(&fetched.records);
        let (bytes, next) = whole.map_err(|source| ClientError::Protocol { what, source })?;
        let Some(next) = next.filter(|next| *next > self.next_offset) else { return Ok(None) };
        self.next_offset = next;
        Ok(Some(fetched.records.slice(..bytes)))
    }
}
