//! Continuous reading of many partitions that one broker leads, as undecoded batches.
//!
//! A session has a connection of its own, since a fetch that waits for data would make others wait. One request
//! is under way at a time: while the caller works on an answer, the next one already is, because it is sent
//! before the answer is handed out. So at most two answers are in memory, the one handed out and the one that
//! arrives, each of at most `max_bytes` and one oversized batch.
//!
//! Problems of a partition are part of the answer, and take that partition out until it is set again, here or
//! with another broker. Errors of [`FetchSession::next`] concern the connection: it may be called again, which
//! connects anew and asks for what had not been handed out. Nothing is skipped and nothing is given twice. A
//! crash leaves nothing behind but the broker's session, which it drops when it needs the room.

use std::time::{Duration, Instant};

use kafka_protocol::messages::{FetchRequest, FetchResponse};
use tokio::task::JoinHandle;
use varve_format::Id;

use super::cluster::Client;
use super::config::ClientConfig;
use super::connection::Connection;
use super::error::{ClientError, Result};
use super::fetch_event::PartitionFetch;
use super::fetch_state::FetchState;

/// From this version on topics are named by their ids. Every supported broker knows it.
const FIRST_VERSION_BY_ID: i16 = 13;

/// Where to read on in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTarget {
    pub topic_id: Id,
    pub partition: i32,
    pub offset: i64,
    /// If given, a broker that knows another one refuses.
    pub leader_epoch: Option<i32>,
    /// The epoch of the batch before `offset`. If given, the broker says so when its log diverges from what was
    /// read before; it is kept up to date while reading on.
    pub last_fetched_epoch: Option<i32>,
}

impl FetchTarget {
    pub fn new(topic_id: Id, partition: i32, offset: i64) -> Self {
        Self { topic_id, partition, offset, leader_epoch: None, last_fetched_epoch: None }
    }
}

/// How much one answer may bring, and how long the broker may wait for it to become that much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
}

impl FetchLimits {
    pub fn new(config: &ClientConfig) -> Self {
        Self {
            max_wait_ms: config.fetch_max_wait_ms,
            min_bytes: 1,
            max_bytes: config.fetch_max_bytes,
            partition_max_bytes: config.max_partition_fetch_bytes,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct FetchSession {
    client: Client,
    node_id: i32,
    limits: FetchLimits,
    state: FetchState,
    connection: Option<Connection>,
    flight: Option<Flight>,
    not_before: Option<Instant>,
    throttled: Duration,
}

/// A request under way. It goes on while nobody waits for it, and ends with the session.
#[derive(Debug)]
struct Flight(JoinHandle<Result<(Connection, FetchResponse)>>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FetchSession {
    /// With the broker of that id, which metadata has named before. Connects with the first request.
    pub fn new(client: &Client, node_id: i32, limits: FetchLimits) -> Self {
        Self {
            client: client.clone(),
            node_id,
            limits,
            state: FetchState::default(),
            connection: None,
            flight: None,
            not_before: None,
            throttled: Duration::ZERO,
        }
    }

    pub fn node_id(&self) -> i32 {
        self.node_id
    }

    /// Adds a partition, or reads on elsewhere in it. It counts from the next request on; an answer to the old
    /// wish is thrown away.
    pub fn set(&mut self, target: FetchTarget) {
        self.state.set(target);
    }

    /// Where it would have been read on.
    pub fn remove(&mut self, topic_id: Id, partition: i32) -> Option<FetchTarget> {
        self.state.remove((topic_id, partition))
    }

    /// What is read, and from where on.
    pub fn targets(&self) -> impl Iterator<Item = &FetchTarget> {
        self.state.targets()
    }

    pub fn is_empty(&self) -> bool {
        self.state.len() == 0
    }

    /// Whether the broker keeps a session, so that requests name only what changed.
    pub fn is_incremental(&self) -> bool {
        self.state.session_id().is_some()
    }

    /// How long the broker has made us wait so far.
    pub fn throttled(&self) -> Duration {
        self.throttled
    }

    /// The next answer; empty if nothing came within `max_wait_ms`. `None` when there is no partition to ask
    /// for. May be dropped at any time: nothing is lost by that.
    pub async fn next(&mut self) -> Result<Option<Vec<PartitionFetch>>> {
        if self.flight.is_none() {
            if self.is_empty() {
                return Ok(None);
            }
            self.send();
        }
        let Some(flight) = &mut self.flight else { return Ok(None) };
        let landed = (&mut flight.0).await;
        self.flight = None;
        let answer = match landed {
            Ok(Ok((connection, answer))) => {
                self.connection = Some(connection);
                answer
            }
            Ok(Err(e)) => {
                self.start_over();
                return Err(e);
            }
            Err(e) => {
                self.start_over();
                let broker = format!("broker {}", self.node_id);
                return Err(ClientError::Closed { broker, detail: format!("the fetch was ended: {e}") });
            }
        };
        let throttle = Duration::from_millis(u64::try_from(answer.throttle_time_ms).unwrap_or(0));
        self.throttled += throttle;
        self.not_before = (!throttle.is_zero()).then(|| Instant::now() + throttle);
        let fetched = self.state.take(answer).map_err(|code| {
            let what = format!("fetch from broker {}", self.node_id);
            ClientError::kafka(what, code)
        })?;
        if !self.is_empty() {
            self.send();
        }
        Ok(Some(fetched))
    }

    /// Ends the broker's session too: good manners towards its cache, no more.
    pub async fn close(mut self) {
        self.flight = None;
        if let (Some(request), Some(connection)) = (self.state.farewell(), self.connection.take())
            && let Err(error) = connection.call(request).await
        {
            tracing::debug!(%error, "a fetch session was not ended");
        }
    }

    fn start_over(&mut self) {
        self.connection = None;
        self.state.start_over();
    }

    fn send(&mut self) {
        let request = self.state.request(&self.limits);
        let (client, node_id, not_before) = (self.client.clone(), self.node_id, self.not_before.take());
        let connection = self.connection.clone();
        self.flight = Some(Flight(tokio::spawn(async move {
            if let Some(until) = not_before {
                tokio::time::sleep_until(until.into()).await;
            }
            let connection = match connection.filter(Connection::is_usable) {
                Some(connection) => connection,
                None => client.own_connection(node_id).await?,
            };
            let version = connection.version::<FetchRequest>(i16::MAX)?;
            if version < FIRST_VERSION_BY_ID {
                return Err(connection.too_old::<FetchRequest>(FIRST_VERSION_BY_ID));
            }
            let answer = connection.call_version(request, version).await?;
            Ok((connection, answer))
        })));
    }
}
