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
use crate::protocol::{BatchHeader, Batches, ProtocolError};

/// As many as a broker knows again.
const IN_FLIGHT: usize = 5;

type Answer = Pin<Box<dyn Future<Output = Result<ProduceResponse>> + Send>>;

struct InFlight {
    batch: Bytes,
    /// The offset that its first record gets.
    base_offset: i64,
    state: State,
}

enum State {
    ToSend,
    Sent(Answer),
    /// A look has found it in the log.
    There,
}

/// See the room's module.
pub struct ProduceLane {
    client: Client,
    patience: Duration,
    connections: HashMap<i32, Connection>,
    place: Option<Place>,
    in_flight: VecDeque<InFlight>,
    sure: Sure,
}

struct Place {
    topic: String,
    topic_id: Id,
    partition: i32,
    leader: i32,
}

/// What the leader is known to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sure {
    /// Something may have been appended whose answer is lost.
    No,
    /// Its log was looked at. It may not remember the producer: then it takes any batch.
    Log,
    /// It has answered a batch, and takes but the next one.
    Producer,
}

impl std::fmt::Debug for ProduceLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProduceLane").field("in_flight", &self.in_flight.len()).finish_non_exhaustive()
    }
}

impl ProduceLane {
    /// `patience` is for what fails and may pass, without any progress.
    pub fn new(client: Client, patience: Duration) -> Self {
        let (connections, in_flight) = (HashMap::new(), VecDeque::new());
        Self { client, patience, connections, place: None, in_flight, sure: Sure::No }
    }

    /// From here on it writes to this partition. What was under way to another is not waited for. Where the log ends.
    ///
    /// # Errors
    /// Of the cluster; another topic of that name.
    pub async fn turn_to(&mut self, topic: &str, topic_id: Id, partition: i32) -> Result<i64> {
        self.in_flight.clear();
        let mut backoff = self.backoff();
        let end = loop {
            match self.client.settled_end(topic, topic_id, partition).await {
                Ok(end) => break end,
                Err(error) => backoff.wait_or_fail(topic, error).await?,
            }
        };
        self.place = Some(Place { topic: topic.to_owned(), topic_id, partition, leader: end.leader });
        self.sure = Sure::Log;
        Ok(end.offset)
    }

    /// Sends it behind the others, to get this offset. While there are as many under way as may be, it waits for the
    /// oldest, and gives its length: the partition has it.
    ///
    /// # Errors
    /// What does not pass, or has not within the patience; [`ClientError::OffsetTaken`].
    pub async fn send(&mut self, batch: Bytes, base_offset: i64) -> Result<Option<usize>> {
        let acked = match self.in_flight.len() < IN_FLIGHT {
            true => None,
            false => self.oldest().await?,
        };
        self.in_flight.push_back(InFlight { batch, base_offset, state: State::ToSend });
        // What can't be sent is sent again when it is waited for.
        if let Err(error) = self.begin().await {
            tracing::debug!(%error, "a batch could not be sent");
        }
        Ok(acked)
    }

    /// The length of the oldest under way, when the partition has it. `None` if there is none.
    ///
    /// # Errors
    /// As of [`ProduceLane::send`].
    pub async fn oldest(&mut self) -> Result<Option<usize>> {
        let mut backoff = self.backoff();
        while let Some(first) = self.in_flight.front_mut() {
            let (what, expected) =
                (self.place.as_ref().map_or_else(String::new, Place::name), first.base_offset);
            let outcome = match std::mem::replace(&mut first.state, State::ToSend) {
                State::There => Ok(expected),
                State::Sent(answer) => {
                    let answered = answer.await.and_then(|answer| answer::base_offset(&what, &answer));
                    answered.inspect(|_| self.sure = Sure::Producer)
                }
                State::ToSend => match self.begin().await {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
            };
            match outcome {
                Ok(found) if found != expected => {
                    tracing::error!(what, expected, found, "acknowledged at another offset");
                    return Err(ClientError::OffsetTaken { what, offset: expected });
                }
                Ok(_) => return Ok(self.in_flight.pop_front().map(|first| first.batch.len())),
                Err(error) => {
                    backoff.wait_or_fail(&what, error).await?;
                    self.doubt();
                }
            }
        }
        Ok(None)
    }

    fn backoff(&self) -> Backoff {
        let config = self.client.config();
        Backoff::new(config.retry_backoff, config.retry_backoff_max, self.patience)
    }

    /// Sends what was not sent, in order: one alone, if the leader may not know the producer.
    async fn begin(&mut self) -> Result<()> {
        if self.in_flight.iter().all(|one| !matches!(one.state, State::ToSend)) {
            return Ok(());
        }
        if self.sure == Sure::No {
            self.look().await?;
        }
        let Some(place) = &self.place else { return Err(no_place()) };
        let connection = match self.connections.get(&place.leader).filter(|c| c.is_usable()) {
            Some(connection) => connection.clone(),
            // What was sent on an older one may be in the log.
            None if self.is_under_way() => {
                self.doubt();
                return Err(ClientError::NoLeader { what: "the connection ended".to_owned() });
            }
            None => {
                let new = self.client.own_connection(place.leader).await?;
                self.connections.insert(place.leader, new.clone());
                new
            }
        };
        let cap = if place.topic_id == Id::default() { answer::FIRST_VERSION_BY_ID - 1 } else { i16::MAX };
        let version = connection.version::<ProduceRequest>(cap)?;
        let timeout_ms = i32::try_from(connection.request_timeout().as_millis()).unwrap_or(i32::MAX);
        let may_be_under_way = if self.sure == Sure::Producer { IN_FLIGHT } else { 1 };
        let mut under_way = 0;
        for one in &mut self.in_flight {
            match one.state {
                _ if under_way == may_be_under_way => break,
                State::There => {}
                State::Sent(_) => under_way += 1,
                State::ToSend => {
                    let batch = one.batch.clone();
                    let request = answer::request(
                        &place.topic,
                        place.topic_id,
                        place.partition,
                        batch,
                        version,
                        timeout_ms,
                    );
                    one.state = State::Sent(Box::pin(connection.begin(request, version).await?));
                    under_way += 1;
                }
            }
        }
        Ok(())
    }

    fn is_under_way(&self) -> bool {
        self.in_flight.iter().any(|one| matches!(one.state, State::Sent(_)))
    }

    /// What was sent may be in the log, or not.
    fn doubt(&mut self) {
        self.sure = Sure::No;
        self.in_flight.iter_mut().for_each(|one| one.state = State::ToSend);
        if let Some(place) = &self.place {
            self.connections.remove(&place.leader);
        }
    }

    /// Finds out which of the batches the log has.
    async fn look(&mut self) -> Result<()> {
        let Some(place) = &mut self.place else { return Err(no_place()) };
        let end = self.client.settled_end(&place.topic, place.topic_id, place.partition).await?;
        place.leader = end.leader;
        let (what, Some(first)) = (place.name(), self.in_flight.front()) else { return Ok(()) };
        let from = first.base_offset;
        if end.offset < from {
            let detail = format!("the log ends at offset {}, and had {from} already", end.offset);
            return Err(ClientError::Log { what, detail });
        }
        let mut reader =
            self.client.read_partition(&place.topic, place.topic_id, place.partition, from, end.offset);
        let mut left = self.in_flight.iter_mut();
        while let Some(bytes) = reader.next().await? {
            for batch in Batches::new(bytes, 0) {
                let fail = |source| ClientError::Protocol { what: what.clone(), source };
                let found = batch.map_err(fail)?.header;
                if found.base_offset >= end.offset {
                    break;
                }
                // Behind the last that we have sent others may write.
                let Some(sent) = left.next() else { break };
                if !is_same(sent, &found).map_err(fail)? {
                    return Err(ClientError::OffsetTaken { what, offset: sent.base_offset });
                }
                sent.state = State::There;
            }
        }
        self.sure = Sure::Log;
        Ok(())
    }
}

/// By its producer and sequence.
fn is_same(sent: &InFlight, found: &BatchHeader) -> Result<bool, ProtocolError> {
    let of = |h: &BatchHeader| (h.producer_id, h.producer_epoch, h.base_sequence, h.records_count);
    let header = BatchHeader::parse(&sent.batch, 0)?;
    Ok(found.base_offset == sent.base_offset && of(&header) == of(found))
}

fn no_place() -> ClientError {
    ClientError::NoLeader { what: "no partition was named".to_owned() }
}

impl Place {
    fn name(&self) -> String {
        format!("writing to {}-{}", self.topic, self.partition)
    }
}
