//! The cluster: which brokers there are, and one connection to each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use parking_lot::RwLock;
use tokio::sync::Mutex;
use varve_format::Id;
use varve_tls::Reloaded;

use super::config::{ClientConfig, HostPort};
use super::connection::Connection;
use super::error::{ClientError, Result};
use super::metadata::{self, ClusterMetadata, TopicMetadata};
use super::retry::Backoff;
use super::tls;

/// How long a topic may be unknown before it is said not to exist: brokers hear of new topics late.
const UNKNOWN_TOPIC_PATIENCE: Duration = Duration::from_secs(2);

/// A handle; clones share the connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    tls: Option<Reloaded<Arc<rustls::ClientConfig>>>,
    nodes: RwLock<HashMap<i32, HostPort>>,
    /// The inner lock is held while connecting, so that a broker is connected to once.
    connections: RwLock<HashMap<HostPort, Arc<Mutex<Option<Connection>>>>>,
}

impl Client {
    /// Reads certificates; connects to nothing yet.
    pub fn new(config: ClientConfig) -> Result<Self> {
        let tls = config.security_protocol.has_tls().then(|| tls::reloaded_tls(&config.tls)).transpose()?;
        let inner = Inner { config, tls, nodes: RwLock::default(), connections: RwLock::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// A connection to the broker of that id, which metadata has named before.
    pub async fn connection(&self, node_id: i32) -> Result<Connection> {
        let address = self.inner.nodes.read().get(&node_id).cloned();
        let address = address.ok_or_else(|| ClientError::NoLeader { what: format!("broker {node_id}") })?;
        self.connect(&address).await
    }

    /// A connection that nobody else uses, for requests that the broker holds back: it answers those of one
    /// connection one after the other.
    pub async fn own_connection(&self, node_id: i32) -> Result<Connection> {
        self.own_connection_with(node_id, &self.inner.config).await
    }

    pub(crate) async fn own_connection_with(
        &self,
        node_id: i32,
        config: &ClientConfig,
    ) -> Result<Connection> {
        let address = self.inner.nodes.read().get(&node_id).cloned();
        let address = address.ok_or_else(|| ClientError::NoLeader { what: format!("broker {node_id}") })?;
        self.open(&address, config).await
    }

    async fn open(&self, address: &HostPort, config: &ClientConfig) -> Result<Connection> {
        let tls = self.inner.tls.as_ref().map(Reloaded::current);
        Connection::open(address, config, tls.as_ref()).await
    }

    /// Ids of the brokers that metadata has named.
    pub(crate) fn known_nodes(&self) -> Vec<i32> {
        let mut nodes: Vec<i32> = self.inner.nodes.read().keys().copied().collect();
        nodes.sort_unstable();
        nodes
    }

    pub(crate) async fn connect(&self, address: &HostPort) -> Result<Connection> {
        let known = self.inner.connections.read().get(address).cloned();
        let slot = match known {
            Some(slot) => slot,
            None => Arc::clone(self.inner.connections.write().entry(address.clone()).or_default()),
        };
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|c| c.is_usable()) {
            return Ok(connection.clone());
        }
        let connection = self.open(address, &self.inner.config).await?;
        tracing::debug!(%address, "connected");
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// To whichever broker answers: those that we are connected to first, since one that is silent costs a
    /// timeout; then the others known from metadata, then the bootstrap servers.
    pub async fn any_connection(&self) -> Result<Connection> {
        let mut candidates: Vec<HostPort> = self.inner.nodes.read().values().cloned().collect();
        candidates.extend(self.inner.config.bootstrap_servers.iter().cloned());
        candidates.sort_by_key(|address| !self.is_connected(address));
        let mut last = None;
        for address in candidates {
            match self.connect(&address).await {
                Ok(connection) => return Ok(connection),
                Err(e) => {
                    tracing::debug!(%address, error = %e, "broker passed over");
                    last = Some(e);
                }
            }
        }
        Err(last.unwrap_or_else(|| ClientError::config("bootstrap.servers", "none given")))
    }

    fn is_connected(&self, address: &HostPort) -> bool {
        let slot = self.inner.connections.read().get(address).cloned();
        // Somebody who is connecting to it holds the lock.
        let usable = |slot: &Mutex<Option<Connection>>| Some(slot.try_lock().ok()?.as_ref()?.is_usable());
        slot.is_some_and(|slot| usable(&slot).unwrap_or(false))
    }

    /// `None` asks for all topics; topics that do not exist carry their error.
    pub async fn metadata(&self, topics: Option<&[&str]>) -> Result<ClusterMetadata> {
        let mut backoff = self.backoff();
        loop {
            let asked = async { metadata::ask(&self.any_connection().await?, topics).await };
            match asked.await {
                Ok(metadata) => {
                    let nodes = metadata.brokers.iter().map(|b| (b.node_id, b.address.clone()));
                    *self.inner.nodes.write() = nodes.collect();
                    return Ok(metadata);
                }
                Err(e) => backoff.wait_or_fail("metadata", e).await?,
            }
        }
    }

    /// All topics as a broker knows them that counts `broker_id` as alive no more; `None` while one does.
    ///
    /// One answer would not do: the topics in it may be of an earlier moment than the brokers.
    ///
    /// # Errors
    /// As [`metadata`](Self::metadata).
    pub async fn metadata_without(&self, broker_id: i32) -> Result<Option<ClusterMetadata>> {
        let mut backoff = self.backoff();
        loop {
            let asked = async {
                let connection = self.any_connection().await?;
                let brokers = metadata::ask(&connection, Some(&[])).await?.brokers;
                match brokers.iter().any(|broker| broker.node_id == broker_id) {
                    true => Ok(None),
                    false => metadata::ask(&connection, None).await.map(Some),
                }
            };
            match asked.await {
                Ok(answer) => return Ok(answer),
                Err(e) => backoff.wait_or_fail("metadata", e).await?,
            }
        }
    }

    /// One topic by name, with its id.
    pub async fn topic(&self, name: &str) -> Result<TopicMetadata> {
        let mut backoff = self.backoff();
        let config = &self.inner.config;
        let mut patience =
            Backoff::new(config.retry_backoff, config.retry_backoff_max, UNKNOWN_TOPIC_PATIENCE);
        loop {
            let found = self.metadata(Some(&[name])).await?.topics.into_iter().find(|t| t.name == name);
            let error = match found {
                Some(TopicMetadata { error: None, .. }) if found.as_ref().is_some_and(whole) => {
                    return found.ok_or_else(|| ClientError::NoSuchTopic { topic: name.to_owned() });
                }
                Some(TopicMetadata { error: Some(code), .. }) => ClientError::kafka(name, code),
                _ => ClientError::kafka(name, ResponseError::LeaderNotAvailable),
            };
            let unknown =
                matches!(&error, ClientError::Kafka { code: ResponseError::UnknownTopicOrPartition, .. });
            if unknown {
                let waited = patience.wait_or_fail(name, error).await;
                waited.map_err(|_| ClientError::NoSuchTopic { topic: name.to_owned() })?;
            } else {
                backoff.wait_or_fail(name, error).await?;
            }
        }
    }

    /// Names and ids of all topics that are visible to us.
    pub async fn topic_ids(&self) -> Result<HashMap<Id, String>> {
        let all = self.metadata(None).await?;
        Ok(all.topics.into_iter().filter(|t| t.error.is_none()).map(|t| (t.topic_id, t.name)).collect())
    }

    pub(crate) fn backoff(&self) -> Backoff {
        let config = &self.inner.config;
        Backoff::new(config.retry_backoff, config.retry_backoff_max, config.api_timeout)
    }
}

/// A topic that has just been created may have no partition yet.
fn whole(topic: &TopicMetadata) -> bool {
    !topic.partitions.is_empty()
}
