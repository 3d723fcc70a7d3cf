//! What was archived last is in a snapshot, also of a topic that is gone, and of a cluster that is.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use varve_tests::{
    Cluster, Look, Produce, Running, Scratch, Suite, TestArchive, Transactions, ended, eventually, free_port,
    http_get, varve,
};

/// A snapshot after each produced batch would hide what is tried here.
const CONFIG: &str = "topics: { include: [\"*\"] }
journal: { rpo: 1s }
snapshots: { interval: 8s, wait: 3s }";
const TOPIC: &str = "t";
const COUNT: u64 = 30;
const TRIES: u64 = 6;
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn suite() -> Suite {
    Suite::new()
        .test("a_deleted_topic_is_told_of_to_its_last_record", deleted)
        .test("it_went_while_no_archiver_ran", went_meanwhile)
        .test("a_cluster_is_away_and_comes_back", away)
        .test("it_is_away_before_an_archiver_starts", away_before)
        .test("another_cluster_answers_in_its_place", another)
        .test("a_group_is_lost_with_its_cluster", group)
}

struct World {
    cluster: Cluster,
    archive: TestArchive,
    scratch: Scratch,
}

impl World {
    fn start() -> Result<Self> {
        Self::with("")
    }

    fn with(extra: &str) -> Result<Self> {
        let cluster = Cluster::builder().start()?;
        for topic in [TOPIC, "other"] {
            cluster.client().create_topic(topic, 1, 1, &[])?;
        }
        let scratch = Scratch::new("last-snapshots")?;
        // Soon sure that a cluster does not answer.
        let source = format!(
            "source: {{ bootstrap.servers: \"{}\", default.api.timeout.ms: 4000, request.timeout.ms: 2000 }}",
            cluster.bootstrap()
        );
        let archive = TestArchive::of_source(scratch.path(), &source, &format!("{CONFIG}\n{extra}"))?;
        Ok(Self { cluster, archive, scratch })
    }

    fn archiver(&self) -> Result<Running> {
        self.archive.start(&self.scratch.path().join("archiver.log"), &[])
    }

    fn produce(&self, seed: u64) -> Result<()> {
        self.cluster.client().produce(TOPIC, &Produce { seed, count: COUNT, ..Produce::default() })?;
        Ok(())
    }

    /// The partition, as of a snapshot or now.
    fn listed(&self, at: &str) -> Result<Value> {
        let mut command = varve()?;
        command.args(["ls", &self.archive.url(), TOPIC, "--snapshot", at, "--json"]);
        Ok(serde_json::from_str(&ended(command, 0)?.0)?)
    }

    fn wait_archived(&self, at: &str, end_offset: u64) -> Result<Value> {
        eventually(&format!("{end_offset} offsets as of {at}"), LIMIT, || {
            let listed = self.listed(at)?;
            let is_there = listed["end_offset"].as_u64() == Some(end_offset);
            Ok(Look::when(is_there, listed.clone(), listed))
        })
    }

    /// The last snapshot lacks the last `COUNT` of what is archived. How many offsets that is.
    fn archived(&self) -> Result<(Running, u64)> {
        self.produce(1)?;
        let archiver = self.archiver()?;
        let end = self.ahead(COUNT, COUNT, |seed| self.produce(seed))?;
        Ok((archiver, end))
    }

    /// `produce` brings `more` offsets behind `end`, and they are archived before the next snapshot: if that was
    /// first, they are produced once more. How many offsets there are then.
    fn ahead(&self, end: u64, more: u64, mut produce: impl FnMut(u64) -> Result<()>) -> Result<u64> {
        for attempt in 0..TRIES {
            let before = end + attempt * more;
            self.wait_archived("latest", before)?;
            produce(end + attempt)?;
            self.wait_archived("now", before + more)?;
            if self.listed("latest")?["end_offset"].as_u64() == Some(before) {
                return Ok(before + more);
            }
        }
        bail!("each time the next snapshot had it all")
    }

    fn newest(&self) -> Result<u64> {
        self.archive.newest_snapshot()?["sequence"].as_u64().context("a snapshot without a number")
    }

    /// Whether the newest one's state of the cluster is that of another.
    fn is_earlier(&self) -> Result<bool> {
        let newest = self.archive.newest_snapshot()?;
        let mut documents = newest["documents"].as_array().context("no documents")?.iter();
        Ok(documents.any(|d| d["name"] == "cluster-state-of"))
    }

    fn wait_deleted(&self, end_offset: u64) -> Result<()> {
        let found = eventually("a snapshot says so", LIMIT, || {
            let listed = self.listed("latest")?;
            Ok(Look::when(listed["deleted_ms"].is_i64(), listed.clone(), listed))
        })?;
        ensure!(found["end_offset"].as_u64() == Some(end_offset), "{found}");
        ensure!(found["log_end_offset"].is_null() && found["problem"].is_null(), "{found}");
        Ok(())
    }
}

fn deleted() -> Result<()> {
    let world = World::start()?;
    let (archiver, end) = world.archived()?;
    world.cluster.client().delete_topic(TOPIC)?;
    world.wait_deleted(end)?;
    // It stays so, also where somebody else makes the snapshot, who has read nothing.
    let mut command = varve()?;
    command.args(["archive", "snapshot", "-c"]).arg(world.archive.config());
    ended(command, 0)?;
    world.wait_deleted(end)?;
    // Another one under its name is another one.
    world.cluster.client().create_topic(TOPIC, 1, 1, &[])?;
    ensure!(archiver.terminate()?.success(), "it did not end well");
    world.archive.verify()
}

fn went_meanwhile() -> Result<()> {
    let world = World::start()?;
    world.produce(1)?;
    let half = |name: &str| Transactions {
        transactional_id: name.to_owned(),
        transactions: 1,
        records_per_transaction: 5,
        abort_every: 0,
        seed: 3,
        value_bytes: 100,
        partition: 0,
    };
    // Brokers make their topic of transactions with the first one.
    world.cluster.client().open_transaction("other", &half("first"))?;
    let archiver = world.archiver()?;
    let mut open = 0;
    let more = COUNT + 5;
    let end = world.ahead(COUNT, more, |seed| {
        world.produce(seed)?;
        open += 1;
        world.cluster.client().open_transaction(TOPIC, &half(&format!("half-{open}")))?;
        Ok(())
    })?;
    archiver.kill();
    world.cluster.client().delete_topic(TOPIC)?;
    let listed = world.listed("latest")?;
    ensure!(listed["end_offset"].as_u64() == Some(end - more), "the last snapshot had it all: {listed}");
    let archiver = world.archiver()?;
    world.wait_deleted(end)?;
    let listed = world.listed("latest")?;
    ensure!(listed["open_transactions"] == open, "nobody has read it, and the journal tells: {listed}");
    ensure!(archiver.terminate()?.success(), "it did not end well");
    world.archive.verify()
}

/// What lags is known to lag also where nobody can be asked how far the log went.
fn away_before() -> Result<()> {
    let world = World::start()?;
    let (archiver, end) = world.archived()?;
    archiver.kill();
    world.produce(3)?;
    let mut command = varve()?;
    command.args(["archive", "snapshot", "--wait", "0s", "-c"]).arg(world.archive.config());
    ended(command, 1)?;
    let lags = |listed: &Value| {
        let ends = (listed["end_offset"].as_u64(), listed["log_end_offset"].as_u64());
        ensure!(ends == (Some(end), Some(end + COUNT)), "{listed}");
        Ok(())
    };
    lags(&world.listed("latest")?)?;
    let before = world.newest()?;
    world.cluster.nodes.iter().for_each(|node| node.kill());
    let archiver = world.archiver()?;
    std::thread::sleep(Duration::from_secs(15));
    ensure!(archiver.terminate()?.success(), "it did not end well");
    ensure!(world.newest()? == before, "nothing new, and yet a snapshot");
    let mut command = varve()?;
    command.args(["archive", "snapshot", "--without-cluster", "--json", "-c"]).arg(world.archive.config());
    let made: Value = serde_json::from_str(&ended(command, 0)?.0)?;
    ensure!(made["lagging"] == 1 && made["cluster_state_of"]["snapshot"] == before, "{made}");
    lags(&world.listed("latest")?)?;
    world.archive.verify()
}

/// Without their cluster archivers have no share, and what they had read is in a snapshot all the same.
fn group() -> Result<()> {
    let world = World::with("group: { id: archivers, session.timeout: 6s }")?;
    let (archiver, end) = world.archived()?;
    world.cluster.nodes.iter().for_each(|node| node.kill());
    world.wait_archived("latest", end)?;
    ensure!(world.is_earlier()?, "a state of a cluster that is dead");
    ensure!(archiver.terminate()?.success(), "it did not end well");
    world.archive.verify()
}

/// What is archived is restorable to its last record, and none of the other cluster's gets among it.
fn another() -> Result<()> {
    let world = World::start()?;
    let (archiver, end) = world.archived()?;
    let ours = world.archive.newest_snapshot()?;
    let node = world.cluster.nodes.first().context("no broker")?;
    node.begin_anew("another0another0another0")?;
    world.cluster.client().create_topic(TOPIC, 1, 1, &[])?;
    world.produce(7)?;
    let found = world.wait_archived("latest", end)?;
    ensure!(world.is_earlier()? && found["deleted_ms"].is_null(), "{found}");
    // Looks at the cluster go on meanwhile.
    std::thread::sleep(Duration::from_secs(10));
    let state = |snapshot: &Value| {
        let mut documents = snapshot["documents"].as_array().into_iter().flatten();
        documents.find(|d| d["name"] == "cluster-state").map(|d| d["hash"].clone())
    };
    let newest = world.archive.newest_snapshot()?;
    ensure!(state(&newest).is_some() && state(&newest) == state(&ours), "{newest} after {ours}");
    ensure!(archiver.terminate()?.success(), "it did not end well");
    let listed = world.listed("latest")?;
    ensure!(listed["end_offset"].as_u64() == Some(end) && listed["deleted_ms"].is_null(), "{listed}");
    world.archive.verify()
}

fn away() -> Result<()> {
    let port = free_port()?;
    let world = World::with(&format!("metrics: {{ listen: \"127.0.0.1:{port}\" }}"))?;
    let (mut archiver, end) = world.archived()?;
    let node = world.cluster.nodes.first().context("no broker")?;
    node.kill();
    world.wait_archived("latest", end)?;
    ensure!(world.is_earlier()?, "a state of a cluster that is dead");
    // Nothing new, no snapshot.
    let before = world.newest()?;
    std::thread::sleep(Duration::from_secs(20));
    ensure!(world.newest()? == before && archiver.is_alive(), "{} after {before}", world.newest()?);
    let [state, snapshot] = ages(&metrics(port)?)?;
    ensure!(state > snapshot + 3.0, "asked {state} s ago, for a snapshot of {snapshot} s ago");

    node.start()?;
    // It is in the store a moment before it is in the metrics.
    let told = eventually("a snapshot of the cluster", LIMIT, || {
        let (newest, told) = (world.newest()?, metrics(port)?);
        let is_told = metric(&told, "snapshot_sequence")? == newest as f64;
        Ok(Look::when(newest > before && !world.is_earlier()? && is_told, told, newest))
    })?;
    let [state, snapshot] = ages(&told)?;
    ensure!((state - snapshot).abs() < 1.0, "{state} and {snapshot}: not its own state");
    let end = world.ahead(end, COUNT, |seed| world.produce(seed))?;
    node.kill();
    let ended = archiver.terminate()?;
    ensure!(ended.success() && world.is_earlier()?, "{ended}");
    world.wait_archived("latest", end)?;
    world.archive.verify()
}

fn metrics(port: u16) -> Result<String> {
    Ok(http_get(port, "/metrics")?.2)
}

fn metric(body: &str, name: &str) -> Result<f64> {
    let name = format!("varve_archiver_{name}{{}} ");
    let value = body.lines().find_map(|line| line.strip_prefix(&name)).with_context(|| body.to_owned())?;
    Ok(value.trim().parse()?)
}

/// Of the cluster's state and of the snapshot that has it, in seconds.
fn ages(body: &str) -> Result<[f64; 2]> {
    Ok([metric(body, "cluster_state_age_seconds")?, metric(body, "snapshot_age_seconds")?])
}
