//! `varve restore` while something breaks in the midst of the copying: a broker, the active controller, our own
//! session, the store. It goes on, every byte is there, and nothing of ours is left. And what holds afterwards, when
//! brokers start anew, or die.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use varve_kafka::protocol::Batches;
use varve_tests::{
    Archived, At, Cluster, Consume, KAFKA_VERSION, Look, Minio, Node, Produce, Restoring, Scratch, Shared,
    StoreKind, Suite, Throttle, Tier, TopicLogs, USUAL, Weather, active_controller, dumped_batches, ended,
    eventually, has_left, is_registered, of_plan, only_on, plain_client, restore_from, runtime, write_usual,
    writers_go_on,
};

const PLAIN: &str = "plain";
const NODES: usize = 3;
const LIMIT: Duration = Duration::from_secs(120);
/// Slow enough that a fault comes in between.
const THROTTLE: [&str; 2] = ["--throttle", "4MiB"];
const FRAME_BYTES: usize = 64 << 10;
/// Of the producer, by default.
const BATCH_BYTES: usize = 16 << 10;
/// Beyond `broker.session.timeout.ms`, which is 6 s here.
const STOPPED: Duration = Duration::from_secs(9);

pub(crate) fn suite() -> Suite {
    let world = Shared::new(World::start);
    let mut suite = Suite::new()
        .test_with(&world, "a_broker_is_killed_and_comes_back", broker_killed)
        .test_with(&world, "the_active_controller_is_killed", controller_killed)
        .test_with(&world, "we_are_stopped_beyond_our_session", we_are_stopped)
        .test_with(&world, "each_read_of_the_store_fails_once", reads_fail)
        .test_with(&world, "what_does_not_hold_is_passed_over_and_told", damaged)
        .test_with(&world, "damage_that_the_plan_does_not_know_ends_it", damaged_meanwhile);
    if std::env::var_os("VARVE_RESTORE_FAULTS").is_some() {
        suite = suite
            .test_with(&world, "the_active_controller_stalls_and_comes_back", controller_stalls)
            .test_with(&world, "all_brokers_start_anew_one_after_the_other", rolled);
    }
    suite.test_with(&world, "it_holds_when_brokers_start_anew_and_when_one_dies", afterwards)
}

/// What a consumer of one partition was given: records, their bytes, first and last offset, digest.
type Read = (u64, u64, i64, i64, String);

struct World {
    archived: Archived,
    /// Of each partition: what Kafka's tool says of its batches, what consumers read of all and of the committed.
    partitions: Vec<Known>,
    target: Cluster,
}

struct Known {
    topic: &'static str,
    partition: u32,
    dumped: Vec<String>,
    reads: [Read; 2],
}

impl World {
    fn start() -> Result<Self> {
        let cluster = Cluster::builder().start()?;
        write_usual(&cluster)?;
        let archived = Archived::of(&cluster, &USUAL.map(|(topic, _)| topic))?;
        let mut partitions = Vec::new();
        for (topic, count) in USUAL {
            for partition in 0..count {
                partitions.push(Known {
                    topic,
                    partition,
                    dumped: dumped(&cluster, cluster.broker(), topic, partition)?,
                    reads: [
                        read(&cluster, topic, partition, false)?,
                        read(&cluster, topic, partition, true)?,
                    ],
                });
            }
        }
        drop(cluster);
        let target = Cluster::builder().nodes(3).start()?;
        Ok(Self { archived, partitions, target })
    }

    /// Restores, with `fault` in the midst of it; then it must be whole, and we gone. The topics stay.
    fn restore(
        &self,
        name: &str,
        fault: impl FnOnce(&mut Restoring) -> Result<()>,
    ) -> Result<serde_json::Value> {
        self.clear()?;
        let plan = self.archived.plan(name);
        let extra = [&THROTTLE[..], &["--replication-factor", "3", "--json"]].concat();
        let command = self.archived.restore(&self.target, &plan, &extra)?;
        let mut restoring = Restoring::start(command, &plan)?;
        let begun = self.target.nodes.iter().try_for_each(|node| restoring.wait_begun(node, PLAIN));
        let outcome = begun.and_then(|()| fault(&mut restoring));
        outcome.with_context(|| restoring.said())?;
        let report = restoring.finish().with_context(|| format!("see {:?}", self.target.logs()))?;
        self.archived.same(&self.target)?;
        has_left(&self.target)?;
        Ok(report)
    }

    /// What an earlier restore made. A folder that is left would be taken for the next one's.
    fn clear(&self) -> Result<()> {
        let client = plain_client(&self.target.bootstrap())?;
        for topic in runtime()?.block_on(client.list_topics())?.iter().filter(|topic| !topic.is_internal) {
            self.target.client().delete_topic(&topic.name)?;
        }
        eventually("no broker has a folder of them", LIMIT, || {
            let partitions = self.partitions.iter().map(|known| (known.topic, known.partition));
            let folders = partitions.flat_map(|(topic, partition)| {
                self.target.nodes.iter().map(move |node| node.partition_dir(topic, partition))
            });
            let left: Vec<_> = folders.filter(|folder| folder.exists()).collect();
            Ok(Look::when(left.is_empty(), (), left))
        })
    }
}

fn dumped(cluster: &Cluster, node: &Node, topic: &str, partition: u32) -> Result<Vec<String>> {
    let start = cluster.client().offset(topic, partition, At::Earliest)?;
    dumped_batches(KAFKA_VERSION, &node.partition_dir(topic, partition), start)
}

fn read(cluster: &Cluster, topic: &str, partition: u32, committed_only: bool) -> Result<Read> {
    let consume = Consume { partition, committed_only, ..Consume::default() };
    let read = cluster.client().consume(topic, &consume)?;
    ensure!(read.complete, "{topic}-{partition}: {read:?}");
    Ok((read.count, read.bytes, read.first, read.last, read.digest))
}

/// One that is not the active controller.
fn broker_killed(world: &World) -> Result<()> {
    let active = active_controller(&world.target)?;
    let victim = world.target.nodes.iter().find(|node| node.id != active).context("one node")?;
    world.restore("broker-killed", |restoring| {
        victim.kill();
        sleep(Duration::from_secs(3));
        ensure!(restoring.is_running()?, "it ended without one of the brokers");
        victim.start()?;
        ensure!(restoring.is_running()?, "it ended too early");
        Ok(())
    })?;
    Ok(())
}

/// It is a broker too. Another one becomes active meanwhile, and has to know us.
fn controller_killed(world: &World) -> Result<()> {
    let active = active_controller(&world.target)?;
    let victim = world.target.node(active)?;
    world.restore("controller-killed", |restoring| {
        victim.kill();
        let next = eventually("another active controller", LIMIT, || {
            let found = active_controller(&world.target)?;
            Ok(Look::when(found != active, found, found))
        })?;
        ensure!(restoring.is_running()?, "it ended without one of the brokers");
        ensure!(world.target.node(next)?.alive());
        victim.start()
    })?;
    Ok(())
}

/// It is stopped until another one is active, and then answers that it is none: to what was sent to it before.
fn controller_stalls(world: &World) -> Result<()> {
    let active = active_controller(&world.target)?;
    let victim = world.target.node(active)?;
    let report = world.restore("controller-stalls", |restoring| {
        victim.pause()?;
        sleep(STOPPED);
        victim.resume()?;
        ensure!(restoring.is_running()?, "it ended without one of the brokers");
        ensure!(active_controller(&world.target)? != active, "it was not missed");
        Ok(())
    })?;
    println!("copying_ms {}", report["applied"]["copying_ms"]);
    Ok(())
}

/// The controller gives us up: our partitions have no leader. Then it knows us again, under higher epochs.
fn we_are_stopped(world: &World) -> Result<()> {
    world.restore("we-are-stopped", |restoring| {
        restoring.signal(libc::SIGSTOP)?;
        let lost = eventually("our session ends", LIMIT, || {
            Ok(Look::when(!is_registered(&world.target)?, (), "we are there"))
        });
        sleep(Duration::from_secs(1));
        restoring.signal(libc::SIGCONT)?;
        lost?;
        ensure!(restoring.is_running()?, "it ended while it was stopped");
        Ok(())
    })?;
    Ok(())
}

fn rolled(world: &World) -> Result<()> {
    world.restore("rolled", |restoring| {
        for node in &world.target.nodes {
            node.restart()?;
            ensure!(restoring.is_running()?, "it ended too early");
        }
        Ok(())
    })?;
    Ok(())
}

/// Once where the store's own tries help, and once where they don't: then the brokers' do.
fn reads_fail(world: &World) -> Result<()> {
    only_on(&[StoreKind::File, StoreKind::S3], "it is about S3")?;
    let minio = Minio::start()?;
    let throttle = Throttle::start(minio.port)?;
    let store = Tier::s3(&minio, "archive", "")?.through(throttle.port);
    world.archived.archive.tier().copy_to(&store)?;
    let settings = store.settings();
    let settings: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut access: Vec<&str> =
        settings.iter().flat_map(|setting| ["--store-config", setting.as_str()]).collect();

    throttle.set(Weather::EachOnce);
    world.clear()?;
    let plan = world.archived.plan("reads-fail");
    access.extend(["--replication-factor", "3"]);
    ended(restore_from("s3://archive", &world.target, &plan, &access)?, 0)?;
    let failed = throttle.throttled();
    ensure!(failed > 0, "nothing was refused");
    world.archived.same(&world.target)?;
    has_left(&world.target)?;

    throttle.set(Weather::Fair);
    world.clear()?;
    let plan = world.archived.plan("reads-fail-for-good");
    access.extend(["--store-config", "s3.max.attempts=1"]);
    access.extend(THROTTLE);
    access.push("--no-verify");
    let command = restore_from("s3://archive", &world.target, &plan, &access)?;
    let mut restoring = Restoring::start(command, &plan)?;
    restoring.wait_begun(&world.target.nodes[0], PLAIN)?;
    throttle.set(Weather::EachOnce);
    restoring.finish()?;
    let (first, second) = (failed, throttle.throttled() - failed);
    println!("refused {first} reads, and {second} without a second try");
    ensure!(second > 0, "nothing was refused");
    world.archived.same(&world.target)?;
    has_left(&world.target)
}

/// One frame in the middle, the first object of a log, the last one's footer, and the beginning of a log: what is lost is named, and
/// everything else is there.
fn damaged(world: &World) -> Result<()> {
    let dir = Scratch::new("damaged")?;
    let archive = world.archived.archive.copied(dir.path())?;
    let tier = archive.tier();
    let chain = |topic: &str, partition: i32| -> Result<Vec<String>> {
        let logs = world.archived.logs.iter().find(|logs| logs.topic == topic).context("no such topic")?;
        let chain = archive.chain(&logs.topic_id, partition, 0)?;
        Ok(chain.into_iter().filter(|object| object.gap.is_none()).map(|object| object.key).collect())
    };
    let (first, second, third) = (chain(PLAIN, 0)?, chain(PLAIN, 1)?, chain(PLAIN, 2)?);
    let counts = [&first, &second, &third].map(Vec::len);
    ensure!(counts.iter().all(|count| *count > 1), "{counts:?} objects");
    let trimmed = chain("trimmed", 0)?;
    tier.flip(&first[0], 400_000)?;
    tier.remove(&second[0])?;
    let last = third.last().context("no object")?;
    tier.flip(last, tier.read(last)?.len() - 10)?;
    tier.flip(&trimmed[0], 200)?;

    world.clear()?;
    let url = archive.url();
    let plan = dir.path().join("without.plan");
    let (_, err) = ended(restore_from(&url, &world.target, &plan, &["--replication-factor", "3"])?, 2)?;
    ensure!(err.contains(".varve"), "{err}");

    let plan = dir.path().join("with.plan");
    let extra = ["--replication-factor", "3", "--skip-corrupt", "--json"];
    let (out, _) = ended(restore_from(&url, &world.target, &plan, &extra)?, 0)?;
    let report: serde_json::Value = serde_json::from_str(&out)?;
    let plan: serde_json::Value = serde_json::from_slice(&std::fs::read(&plan)?)?;
    has_left(&world.target)?;
    let copies = TopicLogs::read(&plain_client(&world.target.bootstrap())?, &world.archived.topics())?;
    let mut lost = 0;
    for (logs, copy) in world.archived.logs.iter().zip(&copies) {
        for (number, log) in &logs.logs {
            let topics = plan["topics"].as_array().context("no topics")?;
            let topic = topics.iter().find(|t| t["topic"] == logs.topic.as_str()).context("no topic")?;
            let planned = &topic["partitions"][usize::try_from(*number)?];
            let skipped: Vec<(i64, i64)> = planned["skipped"].as_array().map_or(Ok(Vec::new()), |holes| {
                let of = |hole: &serde_json::Value| {
                    Some((hole["first_offset"].as_i64()?, hole["end_offset"].as_i64()?))
                };
                holes.iter().map(|hole| of(hole).context("no offsets")).collect()
            })?;
            println!(
                "{}-{number}: {} to {} without {skipped:?}",
                logs.topic, log.start_offset, log.end_offset
            );
            for (first, end) in &skipped {
                let name = format!("{}-{number}: offsets {first} to {}", logs.topic, end - 1);
                ensure!(
                    report["differences"].to_string().contains(&name),
                    "{name}: {}",
                    report["differences"]
                );
                lost += end - first;
            }
            let kept = without(&log.batches, &skipped)?;
            ensure!(copy.logs[number].batches == kept, "{}-{number}", logs.topic);
            if (logs.topic.as_str(), *number) == (PLAIN, 0) {
                // One frame, and what lies across its ends.
                let bytes = log.batches.len() - kept.len();
                ensure!(bytes <= FRAME_BYTES + 2 * BATCH_BYTES, "{bytes} bytes for one frame");
            }
        }
    }
    // Two objects, and of two more some frames.
    ensure!((2900..4500).contains(&lost), "{lost} offsets were lost");
    let at_end = copies.iter().find(|l| l.topic == PLAIN).context("no topic")?.logs[&2].end_offset;
    let written = world.target.client().produce(PLAIN, &Produce { partition: 2, ..Produce::default() })?;
    ensure!(written.first == at_end, "{written:?} behind {at_end}");
    Ok(())
}

/// A plan passes over what it names: what is damaged later ends it before a byte of that is served.
fn damaged_meanwhile(world: &World) -> Result<()> {
    let dir = Scratch::new("damaged-meanwhile")?;
    let archive = world.archived.archive.copied(dir.path())?;
    let logs = world.archived.logs.iter().find(|logs| logs.topic == PLAIN).context("no such topic")?;
    let chain = archive.chain(&logs.topic_id, 0, 0)?;
    let object = &chain.iter().find(|object| object.gap.is_none()).context("no object")?.key;
    archive.tier().flip(object, 400_000)?;
    world.clear()?;
    let plan = dir.path().join("meanwhile.plan");
    let url = archive.url();
    let extra = ["--replication-factor", "3", "--skip-corrupt", "--dry-run"];
    ended(restore_from(&url, &world.target, &plan, &extra)?, 0)?;
    archive.tier().flip(object, 200_000)?;
    let (_, err) = ended(of_plan("apply", &plan, &["--yes"])?, 2)?;
    ensure!(err.contains(".varve") && err.contains("what the plan passes over, and no more"), "{err}");
    for node in &world.target.nodes {
        let log = node.partition_dir(PLAIN, 0).join("00000000000000000000.log");
        let served = std::fs::read(&log).with_context(|| log.display().to_string())?;
        ensure!(logs.logs[&0].batches.starts_with(&served), "{}: not the archive's", log.display());
        ensure!(served.len() < 200_000, "{} bytes beyond what holds", served.len());
    }
    ended(of_plan("cleanup", &plan, &["--yes"])?, 0)?;
    has_left(&world.target)
}

/// The batches that have none of these offsets; none has some of them only.
fn without(log: &[u8], skipped: &[(i64, i64)]) -> Result<Vec<u8>> {
    let mut kept = Vec::new();
    for batch in Batches::new(log.to_vec().into(), 0) {
        let batch = batch?;
        let is_lost = |(first, end): &(i64, i64)| {
            (*first..*end).contains(&batch.header.base_offset)
                || (*first..*end).contains(&batch.header.last_offset())
        };
        if !skipped.iter().any(is_lost) {
            kept.extend_from_slice(&batch.bytes);
        }
    }
    Ok(kept)
}

fn afterwards(world: &World) -> Result<()> {
    let (target, archived) = (&world.target, &world.archived);
    world.clear()?;
    let plan = archived.plan("afterwards");
    ended(archived.restore(target, &plan, &["--replication-factor", "3"])?, 0)?;
    target.stop_all()?;
    target.start_all()?;
    let in_sync = || {
        eventually("all replicas are in sync", LIMIT, || {
            let infos: Vec<_> =
                archived.topics().iter().map(|t| target.client().describe_topic(t)).collect::<Result<_>>()?;
            let mut partitions = infos.iter().flat_map(|info| &info.partitions);
            Ok(Look::when(partitions.all(|p| p.leader >= 0 && p.isr.len() == NODES), (), &infos))
        })
    };
    in_sync()?;
    archived.same(target)?;
    for known in &world.partitions {
        let (topic, partition) = (known.topic, known.partition);
        for node in &target.nodes {
            let found = dumped(target, node, topic, partition)?;
            ensure!(found == known.dumped, "{topic}-{partition} on broker {} is dumped otherwise", node.id);
        }
        for (committed_only, expected) in [false, true].into_iter().zip(&known.reads) {
            let found = read(target, topic, partition, committed_only)?;
            ensure!(found == *expected, "{topic}-{partition}: {found:?}, not {expected:?}");
        }
    }
    ended(of_plan("verify", &plan, &[])?, 0)?;

    let victim = &target.nodes[1];
    victim.kill();
    eventually("others lead what it led", LIMIT, || {
        let infos: Vec<_> =
            archived.topics().iter().map(|t| target.client().describe_topic(t)).collect::<Result<_>>()?;
        let theirs = |leader: i32| leader >= 0 && leader.unsigned_abs() != victim.id;
        Ok(Look::when(infos.iter().flat_map(|i| &i.partitions).all(|p| theirs(p.leader)), (), &infos))
    })?;
    archived.same(target)?;
    writers_go_on(target, &archived.logs, &[PLAIN, "trimmed", "empty"], "transactional")?;
    victim.start()?;
    in_sync()?;
    ended(of_plan("verify", &plan, &[])?, 0)?;
    Ok(())
}
