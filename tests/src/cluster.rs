//! A Kafka cluster of one or three combined KRaft nodes, with or without the tier.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;

use crate::driver::{At, Client, Driver, SegmentState};
use crate::node::{Listener, Node, log_dir};
use crate::scratch::Scratch;
use crate::tier::Tier;
use crate::toxiproxy::{Proxy, Toxiproxy};
use crate::wait::{Look, eventually};
use crate::{KAFKA_VERSION, free_port, install};

/// How long tiering may take on a busy machine before a test calls it broken.
const TIER_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct ClusterBuilder {
    version: String,
    nodes: u32,
    disks: u32,
    heap_mib: u32,
    properties: BTreeMap<String, String>,
    rsm: Option<BTreeMap<String, String>>,
    listeners: Vec<NewListener>,
}

#[derive(Debug)]
struct NewListener {
    name: String,
    /// `SSL`, `SASL_SSL` …
    protocol: String,
    /// Of the fault proxy that is to stand before it.
    toxiproxy_api: Option<u16>,
}

impl ClusterBuilder {
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// One, or three with replication factor 3 for the internal topics.
    pub fn nodes(mut self, nodes: u32) -> Self {
        self.nodes = nodes;
        self
    }

    /// Log directories of each node; one if nothing is said.
    pub fn disks(mut self, disks: u32) -> Self {
        self.disks = disks;
        self
    }

    pub fn heap_mib(mut self, heap_mib: u32) -> Self {
        self.heap_mib = heap_mib;
        self
    }

    /// A line of `server.properties`.
    pub fn property(mut self, key: &str, value: impl ToString) -> Self {
        self.properties.insert(key.to_owned(), value.to_string());
        self
    }

    /// Tiered storage into `tier`.
    pub fn tier(mut self, tier: &Tier) -> Self {
        self.rsm.get_or_insert_default().extend(tier.rsm_config());
        self
    }

    /// A key of the plug-in, without the prefix `rsm.config.`.
    pub fn rsm(mut self, key: &str, value: impl ToString) -> Self {
        self.rsm.get_or_insert_default().insert(key.to_owned(), value.to_string());
        self
    }

    /// Another listener on every node, beside the harness's own, which takes anybody.
    pub fn listener(mut self, name: &str, protocol: &str) -> Self {
        let (name, protocol) = (name.to_owned(), protocol.to_owned());
        self.listeners.push(NewListener { name, protocol, toxiproxy_api: None });
        self
    }

    /// The same with a fault proxy before each node, which is what the nodes advertise.
    pub fn proxied_listener(mut self, name: &str, protocol: &str, toxiproxy: &Toxiproxy) -> Self {
        let (name, protocol) = (name.to_owned(), protocol.to_owned());
        self.listeners.push(NewListener { name, protocol, toxiproxy_api: Some(toxiproxy.api()) });
        self
    }

    /// Starts every node and waits until all have registered.
    pub fn start(self) -> Result<Cluster> {
        install::kafka_class_path(&self.version)?;
        let scratch = Scratch::new(&format!("kafka-{}", self.version))?;
        let id = random_id();
        let ports: Vec<(u16, u16)> =
            (0..self.nodes).map(|_| Ok((free_port()?, free_port()?))).collect::<Result<_>>()?;
        let controllers = ports.iter().map(|(_, controller)| format!("127.0.0.1:{controller}")).collect();
        let voters: Vec<String> = ports
            .iter()
            .zip(1..)
            .map(|((_, controller), node)| format!("{node}@127.0.0.1:{controller}"))
            .collect();
        let mut shared = common_properties(self.nodes);
        shared.insert("controller.quorum.voters".to_owned(), voters.join(","));
        if let Some(rsm) = &self.rsm {
            shared.extend(tier_properties(self.nodes, &id, rsm)?);
        }
        let protocols = self.listeners.iter().map(|l| format!(",{}:{}", l.name, l.protocol));
        let protocols = format!("CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{}", protocols.collect::<String>());
        shared.insert("listener.security.protocol.map".to_owned(), protocols);
        shared.extend(self.properties);
        let mut nodes = Vec::new();
        for ((port, controller), node) in ports.into_iter().zip(1..) {
            let dir = scratch.path().join(format!("node{node}"));
            let mut properties = shared.clone();
            let mut set = |key: &str, value: String| drop(properties.insert(key.to_owned(), value));
            let mut bound = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
            let mut advertised = format!("PLAINTEXT://127.0.0.1:{port}");
            let mut listeners = BTreeMap::new();
            for new in &self.listeners {
                let (name, own) = (&new.name, free_port()?);
                let proxy_name = format!("{name}-{node}");
                let proxy = new.toxiproxy_api.map(|api| Proxy::create(api, &proxy_name, own)).transpose()?;
                let port = proxy.as_ref().map_or(own, |proxy| proxy.port);
                bound.push_str(&format!(",{name}://127.0.0.1:{own}"));
                advertised.push_str(&format!(",{name}://127.0.0.1:{port}"));
                listeners.insert(name.clone(), Listener { port, proxy });
            }
            set("node.id", node.to_string());
            set("listeners", bound);
            set("advertised.listeners", advertised);
            let disks = (0..self.disks).map(|disk| log_dir(&dir, disk).display().to_string());
            set("log.dirs", disks.collect::<Vec<_>>().join(","));
            let mut node = Node::new(node, port, dir, &self.version, self.heap_mib, properties);
            node.listeners = listeners;
            nodes.push(node);
        }
        thread::scope(|scope| {
            let formats: Vec<_> = nodes.iter().map(|node| scope.spawn(|| node.format(&id))).collect();
            formats.into_iter().try_for_each(|format| join(format.join()))
        })?;
        let driver = Driver::start(&scratch.path().join("driver.log"))?;
        let cluster = Cluster { id, nodes, controllers, driver, scratch };
        cluster.start_all()?;
        Ok(cluster)
    }
}

fn join(done: thread::Result<Result<()>>) -> Result<()> {
    done.unwrap_or_else(|_| bail!("a thread of the harness panicked"))
}

/// A cluster id as Kafka makes them: 16 random bytes, base64url, not beginning with a dash.
fn random_id() -> String {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[0] &= 0x7f;
    URL_SAFE_NO_PAD.encode(bytes)
}

fn common_properties(nodes: u32) -> BTreeMap<String, String> {
    let replicas = if nodes >= 3 { "3" } else { "1" };
    let in_sync = if nodes >= 3 { "2" } else { "1" };
    let fixed = [
        ("process.roles", "broker,controller"),
        ("controller.listener.names", "CONTROLLER"),
        ("inter.broker.listener.name", "PLAINTEXT"),
        ("offsets.topic.replication.factor", replicas),
        ("offsets.topic.num.partitions", "1"),
        ("transaction.state.log.replication.factor", replicas),
        ("transaction.state.log.num.partitions", "1"),
        ("transaction.state.log.min.isr", in_sync),
        ("default.replication.factor", replicas),
        ("min.insync.replicas", in_sync),
        ("group.initial.rebalance.delay.ms", "0"),
        ("auto.create.topics.enable", "false"),
        // Tests say themselves who leads.
        ("auto.leader.rebalance.enable", "false"),
        ("broker.heartbeat.interval.ms", "500"),
        ("broker.session.timeout.ms", "6000"),
        ("log.retention.check.interval.ms", "500"),
        ("log.initial.task.delay.ms", "500"),
        ("log.segment.delete.delay.ms", "200"),
        ("log.cleaner.dedupe.buffer.size", "2000000"),
        ("num.network.threads", "2"),
        ("num.io.threads", "4"),
        ("replica.fetch.wait.max.ms", "200"),
    ];
    fixed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn tier_properties(
    nodes: u32,
    cluster_id: &str,
    rsm: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let mut set = |key: &str, value: &str| all.insert(key.to_owned(), value.to_owned());
    set("remote.log.storage.system.enable", "true");
    set("remote.log.storage.manager.class.name", "io.varve.kafka.VarveRemoteStorageManager");
    set("remote.log.storage.manager.class.path", &install::rsm_jar()?.display().to_string());
    set("remote.log.metadata.manager.listener.name", "PLAINTEXT");
    set("rlmm.config.remote.log.metadata.topic.replication.factor", if nodes >= 3 { "3" } else { "1" });
    set("rlmm.config.remote.log.metadata.topic.num.partitions", "3");
    set("remote.log.manager.task.interval.ms", "500");
    set("remote.log.manager.task.retry.backoff.ms", "200");
    set("remote.log.manager.task.retry.backoff.max.ms", "1000");
    set("remote.log.manager.copier.thread.pool.size", "4");
    set("remote.log.manager.expiration.thread.pool.size", "2");
    set("remote.log.reader.threads", "4");
    set("rsm.config.cluster.id", cluster_id);
    for (key, value) in rsm {
        set(&format!("rsm.config.{key}"), value);
    }
    Ok(all)
}

#[derive(Debug)]
pub struct Cluster {
    /// Kafka's id of the cluster, also the plug-in's `cluster.id`.
    pub id: String,
    pub nodes: Vec<Node>,
    controllers: Vec<String>,
    driver: Driver,
    // Last, so that the files go after the processes.
    scratch: Scratch,
}

impl Cluster {
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            version: KAFKA_VERSION.to_owned(),
            nodes: 1,
            disks: 1,
            heap_mib: 512,
            properties: BTreeMap::new(),
            rsm: None,
            listeners: Vec::new(),
        }
    }

    pub fn bootstrap(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        nodes.join(",")
    }

    /// The controllers' listeners, as `bootstrap.servers`.
    pub fn controllers(&self) -> String {
        self.controllers.join(",")
    }

    /// By a listener beside the harness's own.
    pub fn bootstrap_of(&self, listener: &str) -> Result<String> {
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| Ok(format!("127.0.0.1:{}", node.port_of(listener)?)))
            .collect::<Result<_>>()?;
        Ok(nodes.join(","))
    }

    pub fn client(&self) -> Client<'_> {
        Client::new(&self.driver, self.bootstrap())
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The node with this broker id.
    pub fn node(&self, id: u32) -> Result<&Node> {
        self.nodes.iter().find(|node| node.id == id).with_context(|| format!("no broker {id}"))
    }

    /// The first node, for clusters of one.
    pub fn broker(&self) -> &Node {
        &self.nodes[0]
    }

    /// Starts all nodes at once: a quorum needs company.
    pub fn start_all(&self) -> Result<()> {
        self.nodes.iter().try_for_each(Node::launch)?;
        self.nodes.iter().try_for_each(Node::wait_started)?;
        self.wait_registered(self.nodes.len())
    }

    pub fn stop_all(&self) -> Result<()> {
        thread::scope(|scope| {
            let stops: Vec<_> = self.nodes.iter().map(|node| scope.spawn(|| node.stop())).collect();
            stops.into_iter().try_for_each(|stop| join(stop.join()))
        })
    }

    pub fn wait_registered(&self, brokers: usize) -> Result<()> {
        let client = self.client();
        eventually(&format!("{brokers} brokers registered"), TIER_LIMIT, || {
            let nodes = client.brokers()?;
            Ok(Look::when(nodes.len() == brokers, (), nodes))
        })
    }

    pub fn leader(&self, topic: &str, partition: u32) -> Result<&Node> {
        eventually(&format!("a leader of {topic}-{partition}"), TIER_LIMIT, || {
            let info = self.client().describe_topic(topic)?;
            let leader = info.partitions.get(partition as usize).context("no such partition")?.leader;
            match u32::try_from(leader) {
                Ok(leader) => Ok(Look::Done(self.node(leader)?)),
                Err(_) => Ok(Look::NotYet(format!("leader {leader}"))),
            }
        })
    }

    /// Waits until every closed segment is in the tier and gone from the leader's disk; returns the first
    /// offset that is still local, which is the active segment's base.
    pub fn wait_tiered(&self, topic: &str, partition: u32) -> Result<u64> {
        self.wait_tiered_within(topic, partition, TIER_LIMIT)
    }

    pub fn wait_tiered_within(&self, topic: &str, partition: u32, limit: Duration) -> Result<u64> {
        let client = self.client();
        eventually(&format!("{topic}-{partition} tiered and dropped from the leader's disk"), limit, || {
            let local = self.leader(topic, partition)?.local_segments(topic, partition)?;
            let earliest_local = client.offset(topic, partition, At::EarliestLocal)?;
            let latest_tiered = client.offset(topic, partition, At::LatestTiered)?;
            let state = (earliest_local, latest_tiered, &local);
            let done = matches!(&local[..], [active] if i64::try_from(*active).is_ok_and(|active| {
                active > 0 && active == earliest_local && latest_tiered + 1 == active
            }));
            Ok(Look::when(done, earliest_local.cast_unsigned(), state))
        })
    }

    /// Waits until the cleaner has done all but the active segment.
    pub fn wait_compacted(&self, topic: &str, partition: u32) -> Result<()> {
        eventually(&format!("{topic}-{partition} compacted"), TIER_LIMIT, || {
            let leader = self.leader(topic, partition)?;
            let active = leader.local_segments(topic, partition)?.pop().context("no segment")?;
            let checkpoint = fs::read_to_string(leader.log_dir().join("cleaner-offset-checkpoint"))?;
            let done = format!("{topic} {partition} {active}");
            Ok(Look::when(checkpoint.lines().any(|line| line == done), (), (active, &checkpoint)))
        })
    }

    /// Waits until the store holds exactly the objects of the segments that the brokers believe finished, beside
    /// the topics' data keys.
    pub fn wait_settled(&self, tier: &Tier) -> Result<()> {
        let client = self.client();
        eventually("the store holds exactly what the brokers know of", TIER_LIMIT, || {
            let mut known: Vec<String> = Vec::new();
            for segment in client.tier_segments()? {
                if segment.state == SegmentState::CopySegmentFinished {
                    known.push(segment.object_key(&self.id));
                }
            }
            known.sort();
            let stored: Vec<String> =
                tier.list()?.into_keys().filter(|key| !key.starts_with("keys/")).collect();
            let missing: Vec<_> = known.iter().filter(|key| !stored.contains(key)).collect();
            let orphans: Vec<_> = stored.iter().filter(|key| !known.contains(key)).collect();
            let uploads = tier.pending_uploads()?;
            let settled = missing.is_empty() && orphans.is_empty() && uploads.is_empty();
            Ok(Look::when(
                settled,
                (),
                format!("missing {missing:?}, orphans {orphans:?}, uploads {uploads:?}"),
            ))
        })
    }

    /// Deletes the topic and waits until nothing of it is in the store.
    pub fn delete_topic_and_tier(&self, topic: &str, tier: &Tier) -> Result<()> {
        let client = self.client();
        let prefix = format!("{}/{}/", self.id, client.describe_topic(topic)?.topic_id);
        client.delete_topic(topic)?;
        eventually(&format!("nothing of deleted {topic} in the store"), TIER_LIMIT, || {
            let left: Vec<String> = tier.list()?.into_keys().filter(|key| key.starts_with(&prefix)).collect();
            Ok(Look::when(left.is_empty(), (), left))
        })
    }

    /// Waits until some broker logged a line with every one of `needles`, after `from` bytes of its log.
    pub fn wait_logged(&self, from: u64, needles: &[&str]) -> Result<String> {
        eventually(&format!("a log line with {needles:?}"), TIER_LIMIT, || {
            for node in &self.nodes {
                if let Some(line) = node.log_lines(from, needles)?.into_iter().next() {
                    return Ok(Look::Done(line));
                }
            }
            Ok(Look::NotYet("no such line".to_owned()))
        })
    }

    /// Removes a broker's copy of a partition; the broker must be stopped.
    pub fn wipe_replica(&self, node: &Node, topic: &str, partition: u32) -> Result<()> {
        anyhow::ensure!(!node.alive(), "broker {} still runs", node.id);
        let dir = node.partition_dir(topic, partition);
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))
    }

    /// Where the driver and the brokers log.
    pub fn logs(&self) -> Vec<std::path::PathBuf> {
        self.nodes.iter().map(|node| node.dir().join("broker.log")).collect()
    }
}
