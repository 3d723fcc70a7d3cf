//! The broker that we are while we restore.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use varve_format::Id;

use super::controller::Controller;
use super::heartbeat::{Registration, Want};
use super::led::{Led, Partitions};
use super::listener::ListenerSecurity;
use super::log::ReplicaLog;
use super::server::Server;
use super::throttle::Throttle;
use crate::client::{Client, ClientError, HostPort, Result};

const BEAT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(200);
const EPOCHS_SEEN: Duration = Duration::from_secs(10);
/// A session that was not ended lasts so long at most: `broker.session.timeout.ms` is 9 s by default.
const OLD_SESSION: Duration = Duration::from_secs(60);
pub(super) const TIMEOUT_MS: i32 = 60_000;

/// Who we are to the cluster.
#[derive(Clone, Debug)]
pub struct LeaderOptions {
    /// One that no broker has.
    pub broker_id: i32,
    /// Of the same restore always the same: partitions remember it.
    pub log_dir: Id,
    /// The brokers' `inter.broker.listener.name`.
    pub listener_name: String,
    /// Of that listener, as brokers expect it.
    pub security: ListenerSecurity,
    pub listen: SocketAddr,
    /// The host under which brokers reach us.
    pub advertised_host: String,
    /// Without any follower's progress.
    pub patience: Duration,
    /// To all followers together.
    pub bytes_per_second: Option<u64>,
    /// Whether an earlier registration of the same id may still be there.
    pub is_resumed: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderProgress {
    pub partitions: usize,
    pub handed_over: usize,
    /// Of record batches, to all followers.
    pub served_bytes: u64,
}

/// A topic that does not exist yet.
#[derive(Clone, Debug)]
pub struct RestoredTopic {
    pub name: String,
    pub configs: BTreeMap<String, String>,
    /// Of all numbers from 0 on.
    pub partitions: Vec<RestoredPartition>,
}

#[derive(Clone, Debug)]
pub struct RestoredPartition {
    pub log: Arc<dyn ReplicaLog>,
    /// Brokers that shall have it, the preferred leader first.
    pub replicas: Vec<i32>,
}

/// See the module. It must be told to [leave](Leader::leave): dropped, it stops answering, and the cluster has a broker
/// that is fenced after its session.
#[derive(Debug)]
pub struct Leader {
    pub(super) registration: Arc<Registration>,
    pub(super) client: Client,
    pub(super) partitions: Arc<Partitions>,
    pub(super) passed_producer_id: AtomicI64,
    pub(super) patience: Duration,
    /// Why the controller does not know us any more.
    lost: Arc<Mutex<Option<String>>>,
    beating: AbortHandle,
    _server: Server,
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

impl Leader {
    /// Registers, and waits until we count as alive.
    ///
    /// # Errors
    /// An id that is taken; a controller that can't be reached or refuses; a port that is taken.
    pub async fn register(client: Client, controller: Controller, options: LeaderOptions) -> Result<Self> {
        let cluster_id = free_id(&client, &options).await?;
        let partitions = Arc::new(Partitions::new(options.bytes_per_second.map(Throttle::new)));
        let protocol = options.security.protocol();
        let listening =
            Server::start(options.listen, options.security.clone(), Arc::clone(&partitions)).await;
        let (server, port) = listening
            .map_err(|source| ClientError::Connect { broker: options.listen.to_string(), source })?;
        let address = HostPort { host: options.advertised_host, port };
        let listener = (options.listener_name.as_str(), &address, protocol);
        // Brokers don't tell of one that has no listener of the kind that we ask by.
        let wait = if options.is_resumed { OLD_SESSION } else { Duration::ZERO };
        let us = (options.broker_id, options.log_dir);
        let registering = Registration::register(controller, &cluster_id, us, listener, wait);
        let registration = Arc::new(registering.await?);
        let lost = Arc::new(Mutex::new(None));
        let beating = beat(Arc::clone(&registration), Arc::clone(&lost), Arc::clone(&partitions));
        let beating = tokio::spawn(beating).abort_handle();
        let leader = Self {
            registration,
            client,
            partitions,
            passed_producer_id: AtomicI64::new(-1),
            patience: options.patience,
            lost,
            beating,
            _server: server,
        };
        match leader.unfenced().await {
            Ok(()) => Ok(leader),
            Err(error) => {
                // What the cluster knows of us must not outlive us.
                if let Err(error) = leader.leave().await {
                    tracing::error!(%error, "our registration could not be taken back");
                }
                Err(error)
            }
        }
    }

    async fn unfenced(&self) -> Result<()> {
        let begun = Instant::now();
        while self.registration.beat(Want::Live).await?.is_fenced {
            self.check(begun, "it stays fenced")?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    pub fn progress(&self) -> LeaderProgress {
        let all = self.partitions.all();
        LeaderProgress {
            partitions: all.len(),
            handed_over: all.iter().filter(|led| led.state.lock().handed_over).count(),
            served_bytes: self.partitions.served_bytes(),
        }
    }

    pub(super) fn broker_id(&self) -> i32 {
        self.registration.broker_id
    }

    pub(super) fn controller(&self) -> &Controller {
        self.registration.controller()
    }

    pub(super) fn check(&self, since: Instant, what: &str) -> Result<()> {
        let what = match self.lost.lock().clone() {
            Some(lost) => lost,
            None if since.elapsed() > self.patience => what.to_owned(),
            None => return Ok(()),
        };
        Err(ClientError::NoLeader { what: format!("broker {}: {what}", self.registration.broker_id) })
    }

    /// Raises the leader epochs of all partitions that we lead to at least those of their logs: a follower drops batches
    /// of an epoch that its leader has not had (KAFKA-18723). How many times we went out and in for it.
    ///
    /// # Errors
    /// Of the controller.
    pub async fn raise_epochs(&self) -> Result<u32> {
        let led = self.partitions.all();
        let missing = |led: &Arc<Led>| {
            let last = led.log.leader_epochs().entries().last().map_or(0, |entry| entry.epoch);
            last.saturating_sub(led.state.lock().leader_epoch)
        };
        let (mut cycles, mut since, mut seen) = (0, Instant::now(), i32::MAX);
        loop {
            let needed = led.iter().map(missing).max().unwrap_or(0);
            if needed <= 0 {
                return Ok(cycles);
            }
            if needed < seen {
                (seen, since) = (needed, Instant::now());
            }
            self.check(since, "its leader epochs don't rise")?;
            for _ in 0..u32::try_from(needed).unwrap_or(0).div_ceil(2) {
                self.registration.cycle().await?;
                cycles += 1;
            }
            // Brokers hear of it a moment later.
            let begun = Instant::now();
            while led.iter().map(missing).max().unwrap_or(0) > 0 && begun.elapsed() < EPOCHS_SEEN {
                self.read_epochs().await?;
                tokio::time::sleep(LOOK / 4).await;
            }
        }
    }

    /// When all topics are made: from 4.3 on the controller places no others on us then (KIP-1066), before it may, and
    /// they are given back.
    ///
    /// # Errors
    /// Of the controller.
    pub async fn cordon(&self) -> Result<()> {
        self.registration.cordon().await
    }

    /// The cluster forgets us.
    ///
    /// # Errors
    /// Of the controller: then an administrator has to unregister our id.
    pub async fn leave(self) -> Result<()> {
        self.beating.abort();
        self.registration.unregister().await
    }
}

/// The cluster's id, once no broker has ours.
async fn free_id(client: &Client, options: &LeaderOptions) -> Result<String> {
    let begun = Instant::now();
    loop {
        let metadata = client.metadata(Some(&[])).await?;
        if metadata.brokers.iter().all(|broker| broker.node_id != options.broker_id) {
            return Ok(metadata.cluster_id.unwrap_or_default());
        }
        if !options.is_resumed || begun.elapsed() >= OLD_SESSION {
            let what = format!("registering as broker {}, which there is", options.broker_id);
            return Err(ClientError::kafka(what, ResponseError::DuplicateBrokerRegistration));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Keeps our session. It ends when the controller does not know us any more.
async fn beat(
    registration: Arc<Registration>,
    lost: Arc<Mutex<Option<String>>>,
    partitions: Arc<Partitions>,
) {
    let mut fenced = false;
    loop {
        tokio::time::sleep(BEAT).await;
        match registration.keep().await {
            Ok(is_fenced) => {
                if is_fenced && !fenced {
                    tracing::warn!("the controller has us fenced: it has not heard of us for too long");
                }
                if fenced && !is_fenced {
                    // Out and in again by itself: all leader epochs were raised.
                    partitions.stale.store(true, Ordering::Relaxed);
                }
                fenced = is_fenced;
            }
            Err(error @ ClientError::Kafka { .. }) => {
                lost.lock().get_or_insert(error.to_string());
                return;
            }
            Err(error) => tracing::warn!(%error, "no heartbeat reached the controller"),
        }
    }
}

pub(super) fn named(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}
