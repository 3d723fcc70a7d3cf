//! See the room's module.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use varve_format::Id;

use super::super::cluster::Client;
use super::super::connection::Connection;
use super::super::error::{ClientError, Result};
use super::super::retry::Backoff;
use super::answer;

/// As many as a broker knows again.
const IN_FLIGHT: usize = 5;

type Answer = Pin<Box<dyn Future<Output = Result<ProduceResponse>> + Send>>;

/// A batch that the partition has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The offset of its first record.
    pub base_offset: i64,
    pub bytes: usize,
}

struct InFlight {
    batch: Bytes,
    /// `None` of what has to be sent again.
    answer: Option<Answer>,
}

/// See the room's module.
pub struct ProduceLane {
    client: Client,
    patience: Duration,
    connections: HashMap<i32, Connection>,
    place: Option<Place>,
    in_flight: VecDeque<InFlight>,
}

struct Place {
    topic: String,
    topic_id: Id,
    partition: i32,
    leader: i32,
}

impl std::fmt::Debug for ProduceLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProduceLane").field("in_flight", &self.in_flight.len()).finish_non_exhaustive()
    }
}

impl ProduceLane {
    /// `patience` is for what fails and may pass, without any progress.
    pub fn new(client: Client, patience: Duration) -> Self {
        Self { client, patience, connections: HashMap::new(), place: None, in_flight: VecDeque::new() }
    }

    /// From here on it writes to this partition. What was under way to another is not waited for.
    ///
    /// # Errors
    /// Of the cluster; another topic of that name.
    pub async fn turn_to(&mut self, topic: &str, topic_id: Id, partition: i32) -> Result<()> {
        self.in_flight.clear();
        let mut backoff = self.backoff();
        let leader = loop {
            match self.leader(topic, topic_id, partition).await {
                Ok(leader) => break leader,
                Err(error) => backoff.wait_or_fail(topic, error).await?,
            }
        };
        self.place = Some(Place { topic: topic.to_owned(), topic_id, partition, leader });
        Ok(())
    }

    /// Sends it behind the others. While there are as many under way as may be, it waits for the oldest, and gives it.
    ///
    /// # Errors
    /// What does not pass, or has not within the patience.
    pub async fn send(&mut self, batch: Bytes) -> Result<Option<Acked>> {
        let acked = match self.in_flight.len() < IN_FLIGHT {
            true => None,
            false => self.oldest().await?,
        };
        self.in_flight.push_back(InFlight { batch, answer: None });
        // What can't be sent is sent again when it is waited for.
        if let Err(error) = self.begin().await {
            tracing::debug!(%error, "a batch could not be sent");
        }
        Ok(acked)
    }

    /// The oldest under way, when it has its answer. `None` if there is none.
    ///
    /// # Errors
    /// As of [`ProduceLane::send`].
    pub async fn oldest(&mut self) -> Result<Option<Acked>> {
        let mut backoff = self.backoff();
        while let Some(first) = self.in_flight.front_mut() {
            let what = self.place.as_ref().map_or_else(String::new, Place::name);
            let outcome = match first.answer.take() {
                Some(answer) => answer.await.and_then(|answer| answer::base_offset(&what, &answer)),
                None => match self.begin().await {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
            };
            match outcome {
                Ok(base_offset) => {
                    let bytes = self.in_flight.pop_front().map_or(0, |first| first.batch.len());
                    return Ok(Some(Acked { base_offset, bytes }));
                }
                Err(error) => {
                    backoff.wait_or_fail(&what, error).await?;
                    self.again().await;
                }
            }
        }
        Ok(None)
    }

    fn backoff(&self) -> Backoff {
        let config = self.client.config();
        Backoff::new(config.retry_backoff, config.retry_backoff_max, self.patience)
    }

    /// Sends what was not sent, in order.
    async fn begin(&mut self) -> Result<()> {
        let Some(place) = &self.place else {
            return Err(ClientError::NoLeader { what: "no partition was named".to_owned() });
        };
        if self.in_flight.iter().all(|one| one.answer.is_some()) {
            return Ok(());
        }
        let connection = match self.connections.get(&place.leader).filter(|c| c.is_usable()) {
            Some(connection) => connection.clone(),
            None => {
                let new = self.client.own_connection(place.leader).await?;
                self.connections.insert(place.leader, new.clone());
                // What was sent on an older one counts as not sent.
                self.in_flight.iter_mut().for_each(|one| one.answer = None);
                new
            }
        };
        let cap = if place.topic_id == Id::default() { answer::FIRST_VERSION_BY_ID - 1 } else { i16::MAX };
        let version = connection.version::<ProduceRequest>(cap)?;
        let timeout_ms = i32::try_from(connection.request_timeout().as_millis()).unwrap_or(i32::MAX);
        let from = self.in_flight.iter().position(|one| one.answer.is_none()).unwrap_or(0);
        for one in self.in_flight.iter_mut().skip(from) {
            let batch = one.batch.clone();
            let request =
                answer::request(&place.topic, place.topic_id, place.partition, batch, version, timeout_ms);
            one.answer = Some(Box::pin(connection.begin(request, version).await?));
        }
        Ok(())
    }

    /// Everything under way is to be sent again, to whoever leads now.
    async fn again(&mut self) {
        self.in_flight.iter_mut().for_each(|one| one.answer = None);
        let Some(place) = &self.place else { return };
        self.connections.remove(&place.leader);
        match self.leader(&place.topic, place.topic_id, place.partition).await {
            Ok(leader) => {
                if let Some(place) = &mut self.place {
                    place.leader = leader;
                }
            }
            Err(error) => tracing::debug!(%error, "who leads is not known"),
        }
    }

    async fn leader(&self, topic: &str, topic_id: Id, partition: i32) -> Result<i32> {
        let found = self.client.topic(topic).await?;
        if found.topic_id != topic_id {
            return Err(ClientError::NoSuchTopic { topic: format!("{topic} with id {topic_id}") });
        }
        let known = found.partitions.iter().find(|p| p.partition == partition);
        let leader = known.and_then(|p| p.leader_id);
        leader.ok_or_else(|| ClientError::NoLeader { what: format!("{topic}-{partition}") })
    }
}

impl Place {
    fn name(&self) -> String {
        format!("writing to {}-{}", self.topic, self.partition)
    }
}
