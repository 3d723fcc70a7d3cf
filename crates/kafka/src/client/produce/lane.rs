//! See the room's module.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use kafka_protocol::messages::ProduceRequest;
use varve_format::Id;

use super::super::cluster::Client;
use super::super::connection::Connection;
use super::super::error::{ClientError, Result};
use super::super::retry::Backoff;
use super::answer;
use crate::protocol::{BatchHeader, Batches, ProtocolError};

/// As many as a broker knows again.
const IN_FLIGHT: usize = 5;
/// Who has sent nothing for so long may have been forgotten, or have been asleep while another went on for him.
const IDLE: Duration = Duration::from_secs(10);

/// The offset that a batch got.
type Answer = Pin<Box<dyn Future<Output = Result<i64>> + Send>>;

struct InFlight {
    batch: Bytes,
    /// The offset that its first record gets.
    base_offset: i64,
    state: State,
}

enum State {
    ToSend,
    Sent(Answer),
    Answered(Result<i64>),
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
    /// By the clock on the wall, which goes on while this machine sleeps.
    last_sent: SystemTime,
}

struct Place {
    topic: String,
    topic_id: Id,
    partition: i32,
    leader: i32,
    leader_epoch: i32,
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
        Self {
            client,
            patience,
            connections: HashMap::new(),
            place: None,
            in_flight: VecDeque::new(),
            sure: Sure::No,
            last_sent: SystemTime::now(),
        }
    }

    /// From here on it writes to this partition. What was under way to another is not waited for. Where the log ends.
    ///
    /// # Errors
    /// Of the cluster; another topic of that name.
    pub async fn turn_to(&mut self, topic: &str, topic_id: Id, partition: i32) -> Result<i64> {
        self.in_flight.clear();
        let mut backoff = self.backoff();
        let end = loop {
            match self.client.settled_end(topic, topic_id, partition, 0).await {
                Ok(end) => break end,
                Err(error) => backoff.wait_or_fail(topic, last_of(error)).await?,
            }
        };
        let (topic, leader, leader_epoch) = (topic.to_owned(), end.leader, end.leader_epoch);
        self.place = Some(Place { topic, topic_id, partition, leader, leader_epoch });
        (self.sure, self.last_sent) = (Sure::Log, SystemTime::now());
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
        if self.sure != Sure::No
            && let Err(error) = self.begin().await.map_err(last_of)
        {
            if !error.is_retriable() {
                return Err(error);
            }
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
            if let State::Sent(answer) = &mut first.state {
                first.state = State::Answered(answer.as_mut().await);
            }
            let expected = first.base_offset;
            let outcome = match std::mem::replace(&mut first.state, State::ToSend) {
                State::There => Ok(expected),
                State::Answered(answer) => answer.inspect(|_| self.sure = Sure::Producer),
                State::ToSend | State::Sent(_) => match self.begin().await {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
            };
            let what = self.place.as_ref().map_or_else(String::new, Place::name);
            match outcome {
                Ok(found) if found != expected => {
                    tracing::error!(what, expected, found, "acknowledged at another offset");
                    return Err(ClientError::OffsetTaken { what, offset: expected });
                }
                Ok(_) => return Ok(self.in_flight.pop_front().map(|first| first.batch.len())),
                Err(error) => {
                    backoff.wait_or_fail(&what, last_of(error)).await?;
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

    /// Sends what was not sent, in order: one alone, if the leader may not know the producer; nothing behind what failed.
    async fn begin(&mut self) -> Result<()> {
        if self.in_flight.iter().all(|one| !matches!(one.state, State::ToSend)) || self.has_failed() {
            return Ok(());
        }
        let is_under_way = self.in_flight.iter().any(|one| matches!(one.state, State::Sent(_)));
        let is_idle = self.last_sent.elapsed().is_ok_and(|idle| idle >= IDLE);
        if is_idle && is_under_way {
            return Ok(());
        }
        if is_idle {
            self.sure = Sure::No;
        }
        if self.sure == Sure::No {
            self.look().await?;
        }
        let Some(place) = &self.place else { return Err(no_place()) };
        let connection = match self.connections.get(&place.leader) {
            Some(connection) if connection.is_usable() => connection.clone(),
            // Its time is over, and what is under way is answered still.
            Some(connection) if is_under_way && !connection.has_ended() => return Ok(()),
            // What was sent on it may be in the log.
            _ if is_under_way => {
                self.doubt();
                return Err(ClientError::NoLeader { what: "the connection ended".to_owned() });
            }
            _ => {
                let new = self.client.own_connection(place.leader).await?;
                self.connections.insert(place.leader, new.clone());
                // The broker may have started anew.
                self.sure = Sure::Log;
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
                State::There | State::Answered(_) => {}
                State::Sent(_) => under_way += 1,
                State::ToSend => {
                    let (batch, what) = (one.batch.clone(), place.name());
                    let request = answer::request(
                        &place.topic,
                        place.topic_id,
                        place.partition,
                        batch,
                        version,
                        timeout_ms,
                    );
                    let answer = connection.begin(request, version).await?;
                    let offset = answer.map(move |answer| answer::base_offset(&what, &answer?));
                    one.state = State::Sent(Box::pin(offset));
                    self.last_sent = SystemTime::now();
                    under_way += 1;
                }
            }
        }
        Ok(())
    }

    /// Whether one of those under way has, so far.
    fn has_failed(&mut self) -> bool {
        for one in &mut self.in_flight {
            if let State::Sent(answer) = &mut one.state
                && let Some(answer) = answer.as_mut().now_or_never()
            {
                one.state = State::Answered(answer);
            }
        }
        self.in_flight.iter().any(|one| matches!(one.state, State::Answered(Err(_))))
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
        let (topic, partition) = (place.topic.as_str(), place.partition);
        let end = self.client.settled_end(topic, place.topic_id, partition, place.leader_epoch).await?;
        (place.leader, place.leader_epoch) = (end.leader, end.leader_epoch);
        let (what, Some(first)) = (place.name(), self.in_flight.front()) else { return Ok(()) };
        let from = first.base_offset;
        if end.offset < from {
            return Err(ClientError::Behind { what, end: end.offset, expected: from });
        }
        let mut reader =
            self.client.read_partition(&place.topic, place.topic_id, place.partition, from, end.offset);
        let (mut left, mut there) = (self.in_flight.iter_mut(), 0);
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
                there += 1;
            }
        }
        tracing::debug!(what, there, "batches were found in the log");
        (self.sure, self.last_sent) = (Sure::Log, SystemTime::now());
        Ok(())
    }
}

/// By its producer and sequence.
fn is_same(sent: &InFlight, found: &BatchHeader) -> Result<bool, ProtocolError> {
    let of = |h: &BatchHeader| (h.producer_id, h.producer_epoch, h.base_sequence, h.records_count);
    let header = BatchHeader::parse(&sent.batch, 0)?;
    Ok(found.base_offset == sent.base_offset && of(&header) == of(found))
}

/// What a call within has tried in vain may be tried on here: the patience is the lane's.
fn last_of(error: ClientError) -> ClientError {
    match error {
        ClientError::GaveUp { last, .. } if last.is_retriable() => *last,
        other => other,
    }
}

fn no_place() -> ClientError {
    let detail = "no partition was named".to_owned();
    ClientError::Log { what: "a producer".to_owned(), detail }
}

impl Place {
    fn name(&self) -> String {
        format!("writing to {}-{}", self.topic, self.partition)
    }
}
