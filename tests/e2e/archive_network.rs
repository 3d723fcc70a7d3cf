//! The archiver while the network between it and the brokers fails: nothing is lost, nothing comes twice, nothing
//! ends, and what can be reached goes on. Producers have a way of their own.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use varve_tests::{
    Certificates, Cluster, Look, Node, Produce, Proxy, Running, Scratch, Suite, TestArchive, Toxiproxy,
    eventually, plain_client, while_producing,
};

/// Its own archive by each way: in the open, and through TLS with a login, as a member of a group.
const OPEN: &str = "OPEN";
const LOCKED: &str = "LOCKED";
const PASSWORD: &str = "pencil-4711";
const PARTITIONS: u32 = 6;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Generous: a request's timeout, the pause that has grown meanwhile, and a busy machine.
const RECOVERY: Duration = Duration::from_secs(45);
/// Where each new connection may be silent again: a dozen tries.
const LUCK: Duration = Duration::from_secs(100);
const QUICK: &str = "topics: { include: [\"t\"] }
segments: { bytes: 1MiB, min.bytes: 128KiB, age: 1m }
journal: { rpo: 2s }
snapshots: { interval: 5s, wait: 5s }
limits: { memory.bytes: 64MiB }";

pub(crate) fn suite() -> Suite {
    Suite::new().test("nothing_is_lost_whatever_the_network_does", network)
}

type Begin = fn(&Proxy, &mut StdRng) -> Result<()>;

const FAULTS: [(&str, Begin); 8] = [
    ("latency", |p, _| p.add_latency(400)),
    ("jitter", |p, rng| p.add_jitter(200, rng.random_range(100..200))),
    ("slow", |p, rng| p.add_bandwidth(rng.random_range(30..200))),
    ("slices", |p, rng| p.add_slices(rng.random_range(500..5000))),
    ("resets", |p, rng| p.add_resets(rng.random_range(20..500))),
    ("answers end in the middle", |p, rng| p.add_cut(rng.random_range(100..100_000))),
    ("silence", |p, _| p.add_silence()),
    ("down", |p, _| p.close()),
];

struct Net {
    cluster: Cluster,
    // Dropped after the cluster, which advertises its ports.
    _toxiproxy: Toxiproxy,
    topic_id: String,
}

impl Net {
    fn start(certificates: &Certificates) -> Result<Self> {
        let toxiproxy = Toxiproxy::start()?;
        let module = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let mut builder = Cluster::builder()
            .nodes(3)
            .proxied_listener(OPEN, "PLAINTEXT", &toxiproxy)
            .proxied_listener(LOCKED, "SASL_SSL", &toxiproxy)
            .property("sasl.enabled.mechanisms", "SCRAM-SHA-512")
            .property("listener.name.locked.scram-sha-512.sasl.jaas.config", module);
        for (key, value) in certificates.broker_properties() {
            builder = builder.property(key, value);
        }
        let cluster = builder.start()?;
        let kafka = cluster.client();
        kafka.set_scram_user("archiver", "SCRAM-SHA-512", PASSWORD)?;
        let topic_id = kafka.create_topic("t", PARTITIONS, 1, &[("min.insync.replicas", "1")])?;
        for partition in 0..PARTITIONS {
            kafka.produce("t", &Produce { partition, ..Produce::default() })?;
        }
        Ok(Self { cluster, _toxiproxy: toxiproxy, topic_id })
    }

    fn proxies<'a>(&self, nodes: &[&'a Node]) -> Result<Vec<&'a Proxy>> {
        let both = nodes.iter().flat_map(|node| [node.proxy(OPEN), node.proxy(LOCKED)]);
        both.collect()
    }

    fn heal(&self) -> Result<()> {
        for proxy in self.proxies(&self.cluster.nodes.iter().collect::<Vec<_>>())? {
            proxy.heal()?;
            proxy.open()?;
        }
        Ok(())
    }

    /// Of each partition, the first offset of the newest object in the archive.
    fn newest(&self, archive: &TestArchive) -> Result<Vec<Option<String>>> {
        let of = |partition: u32| {
            let folder = format!("topics/{}/{partition}/0/", self.topic_id);
            Ok(archive.tier().list_below(&folder)?.into_keys().next_back())
        };
        (0..PARTITIONS).map(of).collect()
    }

    /// How long it takes until each of `partitions` has something new in the archive.
    fn goes_on(&self, what: &str, archive: &TestArchive, partitions: &[u32]) -> Result<Duration> {
        self.goes_on_within(RECOVERY, what, archive, partitions)
    }

    fn goes_on_within(
        &self,
        limit: Duration,
        what: &str,
        archive: &TestArchive,
        partitions: &[u32],
    ) -> Result<Duration> {
        let (started, before) = (Instant::now(), self.newest(archive)?);
        eventually(what, limit, || {
            let now = self.newest(archive)?;
            let all = partitions.iter().all(|p| now[*p as usize] > before[*p as usize]);
            Ok(Look::when(all, (), (&before, now)))
        })?;
        Ok(started.elapsed())
    }
}

fn archive(dir: &Path, source: &str, extra: &str) -> Result<TestArchive> {
    std::fs::create_dir_all(dir)?;
    let source = format!(
        "source:
  request.timeout.ms: {}
  default.api.timeout.ms: 8000
  socket.connection.setup.timeout.ms: 2000
  fetch.max.wait.ms: 300
{source}",
        REQUEST_TIMEOUT.as_millis()
    );
    TestArchive::of_source(dir, &source, &format!("{QUICK}\n{extra}"))
}

struct Archivers {
    open: TestArchive,
    locked: TestArchive,
    running: [(std::path::PathBuf, Running); 2],
}

impl Archivers {
    fn start(net: &Net, dir: &Path, certificates: &Certificates) -> Result<Self> {
        let source = format!("  bootstrap.servers: {}", net.cluster.bootstrap_of(OPEN)?);
        let open = archive(&dir.join("open"), &source, "")?;
        let source = format!(
            "  bootstrap.servers: {}
  security.protocol: SASL_SSL
  sasl.mechanism: SCRAM-SHA-512
  sasl.username: archiver
  sasl.password: ${{KAFKA_PASSWORD}}
  ssl.ca.location: {}",
            net.cluster.bootstrap_of(LOCKED)?,
            certificates.ca(),
        );
        let group = "group: { id: archivers, session.timeout: 6s }";
        let locked = archive(&dir.join("locked"), &source, group)?.env("KAFKA_PASSWORD", PASSWORD);
        let logs = [dir.join("open.log"), dir.join("locked.log")];
        let running = [open.start(&logs[0], &[])?, locked.start(&logs[1], &[])?];
        let [a, b] = running;
        let [log_a, log_b] = logs;
        Ok(Self { open, locked, running: [(log_a, a), (log_b, b)] })
    }

    fn both(&self) -> [(&'static str, &TestArchive); 2] {
        [("in the open", &self.open), ("locked", &self.locked)]
    }

    fn are_alive(&mut self, under: &str) -> Result<()> {
        for (log, running) in &mut self.running {
            ensure!(running.is_alive(), "it ended under {under}: see {}", log.display());
        }
        Ok(())
    }
}

fn network() -> Result<()> {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(42);
    println!("SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let scratch = Scratch::new("archive-network")?;
    let certificates = Certificates::make(scratch.path())?;
    let net = Net::start(&certificates)?;
    let mut archivers = Archivers::start(&net, scratch.path(), &certificates)?;
    let all: Vec<u32> = (0..PARTITIONS).collect();
    while_producing(&net.cluster, "t", PARTITIONS, || {
        for (what, archive) in archivers.both() {
            net.goes_on(&format!("{what}, it begins"), archive, &all)?;
        }
        every_fault(&net, &mut archivers, &mut rng)?;
        handshakes_are_cut_off(&net, &mut archivers)?;
        one_is_unreachable(&net, &mut archivers, &mut rng)?;
        all_are_silent(&net, &mut archivers)?;
        some_connections_fall_silent(&net, &mut archivers)
    })?;
    let (open, locked) = (archivers.open, archivers.locked);
    for (log, running) in archivers.running {
        ensure!(running.terminate()?.success(), "it did not end well: see {}", log.display());
        let said = std::fs::read_to_string(&log)?;
        ensure!(!said.contains("panicked") && !said.contains(PASSWORD), "see {}", log.display());
        ensure!(said.contains("did not answer"), "no request timed out: see {}", log.display());
    }
    for archive in [open, locked] {
        archive.run_once(&[])?;
        let compared = archive.compare(&plain_client(&net.cluster.bootstrap())?, &["t"])?;
        println!("{compared:?}");
        ensure!(compared.partitions == PARTITIONS && compared.gaps == 0, "{compared:?}");
        for partition in 0..PARTITIONS.cast_signed() {
            ensure!(archive.branches(&net.topic_id, partition)? == [0], "a branch of t-{partition}");
        }
        archive.verify()?;
    }
    Ok(())
}

/// Each kind in an order, on brokers and for a time that the seed says.
fn every_fault(net: &Net, archivers: &mut Archivers, rng: &mut StdRng) -> Result<()> {
    let mut faults = FAULTS;
    faults.shuffle(rng);
    for (what, begin) in faults {
        let mut nodes: Vec<&Node> = net.cluster.nodes.iter().collect();
        nodes.shuffle(rng);
        nodes.truncate(rng.random_range(1..=3));
        for proxy in net.proxies(&nodes)? {
            begin(proxy, rng)?;
        }
        thread::sleep(Duration::from_millis(rng.random_range(1000..2000)));
        net.heal()?;
        archivers.are_alive(what)?;
        thread::sleep(Duration::from_millis(rng.random_range(0..300)));
    }
    let all: Vec<u32> = (0..PARTITIONS).collect();
    for (what, archive) in archivers.both() {
        let took = net.goes_on(&format!("{what}, it goes on after all faults"), archive, &all)?;
        println!("{what}: all partitions went on {took:?} after the last fault");
    }
    Ok(())
}

/// Connections end within the TLS handshake of the next: it looks like a refusal, and is none.
fn handshakes_are_cut_off(net: &Net, archivers: &mut Archivers) -> Result<()> {
    for proxy in net.proxies(&net.cluster.nodes.iter().collect::<Vec<_>>())? {
        proxy.add_cut(150)?;
    }
    thread::sleep(Duration::from_secs(3));
    net.heal()?;
    archivers.are_alive("handshakes that are cut off")?;
    let all: Vec<u32> = (0..PARTITIONS).collect();
    for (what, archive) in archivers.both() {
        let took = net.goes_on(&format!("{what}, it goes on after cut handshakes"), archive, &all)?;
        println!("{what}: all partitions went on {took:?} after cut handshakes");
    }
    Ok(())
}

/// Refused at first, then silent: the others' partitions go on meanwhile.
fn one_is_unreachable(net: &Net, archivers: &mut Archivers, rng: &mut StdRng) -> Result<()> {
    let node = &net.cluster.nodes[rng.random_range(0..3)];
    let info = net.cluster.client().describe_topic("t")?;
    let leaders: Vec<u32> = info.partitions.iter().map(|p| p.leader.cast_unsigned()).collect();
    let others: Vec<u32> = (0..PARTITIONS).filter(|p| leaders[*p as usize] != node.id).collect();
    ensure!(!others.is_empty() && others.len() < PARTITIONS as usize, "leaders: {leaders:?}");
    type Cut = fn(&Proxy) -> Result<()>;
    let cuts: [(&str, Cut); 2] = [("down", |proxy| proxy.close()), ("silent", |proxy| proxy.add_silence())];
    for (what, cut) in cuts {
        for proxy in net.proxies(&[node])? {
            cut(proxy)?;
        }
        // Twice: what was under way when it began may still arrive.
        for _ in 0..2 {
            let took = net.goes_on(&format!("the others while one is {what}"), &archivers.open, &others)?;
            println!("broker {} {what}: the others went on within {took:?}", node.id);
        }
        thread::sleep(REQUEST_TIMEOUT);
        net.heal()?;
        archivers.are_alive(what)?;
    }
    Ok(())
}

/// For longer than requests may take.
fn all_are_silent(net: &Net, archivers: &mut Archivers) -> Result<()> {
    let all: Vec<u32> = (0..PARTITIONS).collect();
    for proxy in net.proxies(&net.cluster.nodes.iter().collect::<Vec<_>>())? {
        proxy.add_silence()?;
    }
    thread::sleep(REQUEST_TIMEOUT * 2);
    archivers.are_alive("silence of all")?;
    net.heal()?;
    let took: Vec<(&str, Duration)> = archivers
        .both()
        .into_iter()
        .map(|(what, archive)| Ok((what, net.goes_on(&format!("{what}, after silence"), archive, &all)?)))
        .collect::<Result<_>>()?;
    println!("all partitions went on after {:?} of silence: {took:?}", REQUEST_TIMEOUT * 2);
    Ok(())
}

/// Nobody closes them, and nobody heals them: only the request timeout finds out.
fn some_connections_fall_silent(net: &Net, archivers: &mut Archivers) -> Result<()> {
    let all: Vec<u32> = (0..PARTITIONS).collect();
    for proxy in net.proxies(&net.cluster.nodes.iter().collect::<Vec<_>>())? {
        proxy.add_silence_to(0.3)?;
    }
    let took: Vec<(&str, Duration)> = archivers
        .both()
        .into_iter()
        .map(|(what, archive)| {
            Ok((what, net.goes_on_within(LUCK, &format!("{what}, by other connections"), archive, &all)?))
        })
        .collect::<Result<_>>()?;
    println!("with 3 of 10 connections silent, all partitions went on: {took:?}");
    net.heal()?;
    archivers.are_alive("silent connections").context("at the end")
}
