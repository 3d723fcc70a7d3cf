//! `varve archive run` as a service, while it, its peers and the brokers are killed: nothing lost, nothing twice.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use varve_tests::{
    Cluster, Look, Produce, Scratch, Suite, TestArchive, eventually, plain_client, runtime, while_producing,
};

/// Everything quick: seconds for what takes minutes in earnest.
const QUICK: &str = "topics: { include: [\"*\"] }
segments: { bytes: 1MiB, min.bytes: 256KiB, age: 1m }
journal: { rpo: 2s }
snapshots: { interval: 3s, wait: 5s }
limits: { memory.bytes: 32MiB }
log: { level: info }";
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn suite() -> Suite {
    Suite::new()
        .test("quiet_partitions_meet_the_rpo_by_the_journal", journal)
        .test("killed_fifty_times", killed)
        .test("two_on_the_same_partitions", two)
        .test("a_group_shares_and_one_dies", group)
        .test("leaders_die_and_move", leaders)
        .test("an_unclean_election_makes_a_branch", unclean)
        .test("retention_overtakes_the_archiver", overtaken)
}

fn journal() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("quiet", 20, 1, &[])?;
    let scratch = Scratch::new("archive-journal")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), QUICK)?;
    let log = scratch.path().join("archiver.log");
    let mut running = archive.start(&log, &[])?;
    for partition in 0..20 {
        kafka.produce("quiet", &Produce { partition, count: 5, ..Produce::default() })?;
    }
    eventually("all in the journal", LIMIT, || {
        let bundles = archive.bundles()?.len();
        Ok(Look::when(bundles > 0, (), bundles))
    })?;
    let topic_id =
        runtime()?.block_on(plain_client(&cluster.bootstrap())?.topic("quiet"))?.topic_id.to_string();
    ensure!(archive.chain(&topic_id, 0, 0)?.is_empty(), "a segment before its age");
    // By their age they become segments, and the bundles go.
    eventually("segments by age", LIMIT, || {
        let chain = archive.chain(&topic_id, 0, 0)?;
        ensure!(running.is_alive(), "it ended: see {}", log.display());
        Ok(Look::when(!chain.is_empty(), (), chain.len()))
    })?;
    // The last one of a writer stays, so that its number never comes back.
    eventually("bundles expire", LIMIT, || {
        let bundles = archive.bundles()?.len();
        Ok(Look::when(bundles == 1, (), bundles))
    })?;
    // What only the journal has outlives a kill, and what the brokers delete meanwhile.
    kafka.produce("quiet", &Produce { count: 7, seed: 3, ..Produce::default() })?;
    eventually("in the journal", LIMIT, || {
        let bundles = archive.bundles()?.len();
        Ok(Look::when(bundles > 1, (), bundles))
    })?;
    let end = archive.chain(&topic_id, 0, 0)?.last().map_or(0, |o| o.end_offset());
    ensure!(end < 12, "a segment before its age: to {end}");
    let before = runtime()?.block_on(read(&cluster, "quiet"))?;
    running.kill();
    kafka.delete_records("quiet", 0, 12)?;
    archive.run_once(&[])?;
    let after: Vec<u8> = archive.chain(&topic_id, 0, 0)?.into_iter().flat_map(|o| o.log).collect();
    ensure!(after == before, "{} bytes archived of {}", after.len(), before.len());
    archive.verify()
}

async fn read(cluster: &Cluster, topic: &str) -> Result<Vec<u8>> {
    let client = plain_client(&cluster.bootstrap())?;
    let (mut reader, mut all) = (client.read_topic_to_end(topic).await?, Vec::new());
    while let Some(batches) = reader.next().await? {
        if batches.partition == 0 {
            all.extend_from_slice(&batches.bytes);
        }
    }
    Ok(all)
}

fn killed() -> Result<()> {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(42);
    println!("SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = Cluster::builder().start()?;
    cluster.client().create_topic("t", 4, 1, &[])?;
    let scratch = Scratch::new("archive-killed")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), QUICK)?;
    let log = scratch.path().join("archiver.log");
    while_producing(&cluster, "t", 4, || {
        for _ in 0..50 {
            let running = archive.start(&log, &[])?;
            thread::sleep(Duration::from_millis(rng.random_range(100..2500)));
            running.kill();
        }
        Ok(())
    })?;
    let client = plain_client(&cluster.bootstrap())?;
    let topic_id = runtime()?.block_on(client.topic("t"))?.topic_id.to_string();
    let mut archived = 0;
    for partition in 0..4 {
        archived += archive.chain(&topic_id, partition, 0)?.len();
    }
    ensure!(archived > 0, "none of them came to archive anything");
    finish(&cluster, &archive, &["t"])
}

/// Every chain grows, without anything but the service that runs.
fn goes_on(archive: &TestArchive, topic_id: &str, partitions: i32) -> Result<()> {
    let ends = || -> Result<Vec<i64>> {
        let end = |p| Ok(archive.chain(topic_id, p, 0)?.last().map_or(0, |o| o.end_offset()));
        (0..partitions).map(end).collect()
    };
    let before = ends()?;
    eventually("every partition goes on", LIMIT, || {
        let now = ends()?;
        let all = now.iter().zip(&before).all(|(now, before)| now > before);
        Ok(Look::when(all, (), (before.clone(), now)))
    })
}

/// What is left is archived, then all of it compared and proven.
fn finish(cluster: &Cluster, archive: &TestArchive, topics: &[&str]) -> Result<()> {
    archive.run_once(&[])?;
    let compared = archive.compare(&plain_client(&cluster.bootstrap())?, topics)?;
    ensure!(compared.objects > 0 && compared.bytes > 0, "{compared:?}");
    println!("{compared:?}");
    archive.verify()
}

fn two() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    cluster.client().create_topic("t", 4, 1, &[])?;
    let scratch = Scratch::new("archive-two")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), QUICK)?;
    while_producing(&cluster, "t", 4, || {
        let logs = ["a", "b"].map(|name| scratch.path().join(format!("{name}.log")));
        let a = archive.start(&logs[0], &["--set", "journal.name=a"])?;
        let b = archive.start(&logs[1], &["--set", "journal.name=b"])?;
        thread::sleep(Duration::from_secs(20));
        let (a, b) = (a.terminate()?, b.terminate()?);
        ensure!(a.success() && b.success(), "{a}, {b}");
        let said = logs.iter().map(std::fs::read_to_string).collect::<Result<String, _>>()?;
        ensure!(said.contains("another archiver was first"), "they never met: {said}");
        Ok(())
    })?;
    finish(&cluster, &archive, &["t"])
}

fn group() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    cluster.client().create_topic("t", 12, 1, &[])?;
    let scratch = Scratch::new("archive-group")?;
    let extra = format!("{QUICK}\ngroup: {{ id: archivers, session.timeout: 6s }}");
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), &extra)?;
    let client = plain_client(&cluster.bootstrap())?;
    let topic_id = runtime()?.block_on(client.topic("t"))?.topic_id.to_string();
    while_producing(&cluster, "t", 12, || {
        let start = |name: &str| {
            archive.start(
                &scratch.path().join(format!("{name}.log")),
                &["--set", &format!("journal.name={name}")],
            )
        };
        let (a, b, c) = (start("a")?, start("b")?, start("c")?);
        thread::sleep(Duration::from_secs(12));
        b.kill();
        // The others take its partitions over: every chain goes on.
        thread::sleep(Duration::from_secs(10));
        goes_on(&archive, &topic_id, 12)?;
        let (a, c) = (a.terminate()?, c.terminate()?);
        ensure!(a.success() && c.success(), "{a}, {c}");
        Ok(())
    })?;
    finish(&cluster, &archive, &["t"])
}

fn leaders() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).start()?;
    cluster.client().create_topic("t", 6, 3, &[("min.insync.replicas", "2")])?;
    let scratch = Scratch::new("archive-leaders")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), QUICK)?;
    let client = plain_client(&cluster.bootstrap())?;
    let topic_id = runtime()?.block_on(client.topic("t"))?.topic_id.to_string();
    let log = scratch.path().join("archiver.log");
    let mut running = archive.start(&log, &[])?;
    while_producing(&cluster, "t", 6, || {
        for round in 0..6_u32 {
            thread::sleep(Duration::from_secs(3));
            if round % 2 == 0 {
                cluster.client().move_leader("t", round % 6, 1 + round % 3)?;
            } else {
                let node = cluster.node(1 + round % 3)?;
                node.kill();
                thread::sleep(Duration::from_secs(3));
                node.start()?;
                cluster.wait_registered(3)?;
            }
        }
        goes_on(&archive, &topic_id, 6)
    })?;
    ensure!(running.is_alive(), "it ended: see {}", log.display());
    ensure!(running.terminate()?.success(), "it did not end well");
    finish(&cluster, &archive, &["t"])
}

fn unclean() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).property("unclean.leader.election.enable", "true").start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 2, &[("min.insync.replicas", "1")])?;
    let scratch = Scratch::new("archive-unclean")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), QUICK)?;
    kafka.produce("t", &Produce { count: 1000, seed: 1, ..Produce::default() })?;
    let leader = cluster.leader("t", 0)?.id;
    let replicas = kafka.describe_topic("t")?.partitions[0].replicas.clone();
    let follower = *replicas.iter().find(|id| **id != leader).context("no follower")?;
    // The follower is left behind: the leader alone has the rest.
    cluster.node(follower)?.stop()?;
    eventually("out of the ISR", LIMIT, || {
        let isr = kafka.describe_topic("t")?.partitions[0].isr.clone();
        Ok(Look::when(!isr.contains(&follower), (), isr))
    })?;
    kafka.produce("t", &Produce { count: 1000, seed: 2, ..Produce::default() })?;
    archive.run_once(&[])?;
    let client = plain_client(&cluster.bootstrap())?;
    let topic_id = runtime()?.block_on(client.topic("t"))?.topic_id.to_string();
    let first = archive.chain(&topic_id, 0, 0)?;
    ensure!(first.last().context("nothing archived")?.end_offset() == 2000, "not to 2000");
    cluster.node(leader)?.kill();
    cluster.node(follower)?.start()?;
    eventually("the one that was left behind leads", LIMIT, || {
        let now = kafka.describe_topic("t")?.partitions[0].leader;
        Ok(Look::when(u32::try_from(now).is_ok_and(|now| now == follower), (), now))
    })?;
    kafka.produce("t", &Produce { count: 300, seed: 3, ..Produce::default() })?;
    finish(&cluster, &archive, &["t"])?;
    ensure!(archive.branches(&topic_id, 0)? == [0, 1], "{:?}", archive.branches(&topic_id, 0)?);
    let old: Vec<u8> = archive.chain(&topic_id, 0, 0)?.into_iter().flat_map(|o| o.log).collect();
    let before: Vec<u8> = first.into_iter().flat_map(|o| o.log).collect();
    ensure!(old == before, "the old branch changed");
    Ok(())
}

fn overtaken() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 1, &[("segment.bytes", "1048576")])?;
    let scratch = Scratch::new("archive-overtaken")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), QUICK)?;
    kafka.produce("t", &Produce { count: 1000, seed: 1, ..Produce::default() })?;
    archive.run_once(&[])?;
    kafka.produce("t", &Produce { count: 4000, seed: 2, ..Produce::default() })?;
    kafka.alter_topic("t", &[("retention.bytes", "1048576")])?;
    let started = Instant::now();
    eventually("retention", LIMIT, || {
        let start = kafka.offset("t", 0, varve_tests::At::Earliest)?;
        Ok(Look::when(start > 1000, (), (start, started.elapsed())))
    })?;
    archive.run_once(&[])?;
    let client = plain_client(&cluster.bootstrap())?;
    let compared = archive.compare(&client, &["t"])?;
    ensure!(compared.gaps == 1, "{compared:?}");
    archive.verify()
}
