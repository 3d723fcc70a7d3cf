//! `varve restore` without controllers: the committed records of the source, each once and in order, with their times,
//! headers and compression; after a kill too. A Java consumer tells what the records are, on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use varve_kafka::protocol::Batches;
use varve_tests::raw_admin::commit;
use varve_tests::{
    At, Client as Kafka, Cluster, Consume, KAFKA_VERSION, Look, Produce, Restoring, Scratch, Shared, Suite,
    TestArchive, TopicLogs, Toxiproxy, Transactions, ended, eventually, of_plan, plain_client, runtime,
    varve,
};

const OLDEST: &str = "3.9.2";
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// Topics and their partitions.
const TOPICS: [(&str, u32); 6] =
    [("plain", 2), ("transactional", 1), ("trimmed", 2), ("compacted", 1), ("append-time", 1), ("empty", 1)];
const GROUP: &str = "billing";
const GROUP_TOPICS: [&str; 4] = ["plain", "transactional", "trimmed", "compacted"];
const COMMITTED: i64 = 471;
const TRIMMED: u64 = 333;
const KILLS: u64 = 6;
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn suite() -> Suite {
    let source = Shared::new(Source::make);
    Suite::new()
        .test_with(&source, "to_the_oldest_version", |source| whole(source, OLDEST))
        .test_with(&source, "to_the_default_version", |source| whole(source, KAFKA_VERSION))
        .test_with(&source, "a_kill_at_any_point_is_resumed", killed)
        .test_with(&source, "brokers_are_restarted_meanwhile", restarted)
        .test_with(&source, "a_broker_that_forgot_the_producer_gets_nothing_twice", forgetful)
        .test_with(&source, "somebody_else_who_writes_there_ends_it", foreign)
        .test_with(&source, "what_stands_against_it_is_told_before", refused)
        .test_with(&source, "what_was_begun_is_taken_back", taken_back)
}

/// What a consumer gets of a partition: how many records, and a digest of their contents.
type Seen = BTreeMap<(String, u32), (u64, String)>;

/// An archive of a cluster that is gone.
struct Source {
    archive: TestArchive,
    /// Of committed records.
    seen: Seen,
    /// Of the first partition of each topic with a group's offset: the record that comes next.
    next: BTreeMap<String, String>,
    scratch: Scratch,
}

fn consume(
    kafka: &Kafka<'_>,
    topic: &str,
    partition: u32,
    from: i64,
    max_records: Option<u64>,
) -> Result<(u64, String)> {
    let consume = Consume { partition, from, committed_only: true, max_records, ..Consume::default() };
    let consumed = kafka.consume(topic, &consume)?;
    Ok((consumed.count, consumed.content))
}

fn seen(kafka: &Kafka<'_>) -> Result<Seen> {
    let mut seen = Seen::new();
    for (topic, partitions) in TOPICS {
        for partition in 0..partitions {
            seen.insert((topic.to_owned(), partition), consume(kafka, topic, partition, -1, None)?);
        }
    }
    Ok(seen)
}

impl Source {
    fn make() -> Result<Self> {
        let cluster = Cluster::builder().property("log.cleaner.backoff.ms", 200).start()?;
        let kafka = cluster.client();
        for (topic, partitions) in TOPICS {
            let own: &[(&str, &str)] = match topic {
                "compacted" => &[("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01")],
                "append-time" => &[("message.timestamp.type", "LogAppendTime")],
                _ => &[],
            };
            let all = [&[("segment.bytes", "1048576"), ("retention.ms", "-1")], own].concat();
            kafka.create_topic(topic, partitions, 1, &all)?;
        }
        for (round, compression) in (0..).zip(CODECS) {
            for partition in 0..2 {
                let records = Produce {
                    partition,
                    seed: round * 2 + u64::from(partition),
                    compression,
                    text: true,
                    count: 2000,
                    headers: 2,
                    tombstone_every: 9,
                    timestamp_from: Some(1_000_000_000_000 + round),
                    ..Produce::default()
                };
                kafka.produce("plain", &records)?;
                kafka.produce("trimmed", &Produce { count: 300, ..records.clone() })?;
                if partition == 0 {
                    // The same keys in each round: most of it is compacted away, and batches with holes are left.
                    let keyed = Produce { seed: 3, timestamp_from: None, ..records.clone() };
                    kafka.produce("compacted", &Produce { count: 1500 - round * 200, ..keyed.clone() })?;
                    kafka.produce("append-time", &Produce { count: 300, ..keyed })?;
                }
            }
            transactions(&kafka, round)?;
        }
        kafka.delete_records("trimmed", 0, TRIMMED)?;
        kafka.delete_records("trimmed", 1, 1200)?;
        cluster.wait_compacted("compacted", 0)?;
        let client = plain_client(&cluster.bootstrap())?;
        runtime()?.block_on(commit(&client, GROUP, &GROUP_TOPICS, COMMITTED, "as it was"))?;
        let mut next = BTreeMap::new();
        for topic in GROUP_TOPICS {
            next.insert(topic.to_owned(), consume(&kafka, topic, 0, COMMITTED, Some(1))?.1);
        }
        let scratch = Scratch::new("restore-produce")?;
        let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), "topics: { include: [\"*\"] }")?;
        archive.run_once(&[])?;
        Ok(Self { archive, seen: seen(&kafka)?, next, scratch })
    }

    fn plan(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.plan"))
    }

    /// `varve restore`, told no controller.
    fn restore(&self, cluster: &Cluster, plan: &Path, extra: &[&str]) -> Result<Command> {
        let mut command = varve()?;
        command.args(["restore", "--from", &self.archive.url(), "--to", &cluster.bootstrap()]);
        command.args(["--yes", "--plan"]).arg(plan).args(extra);
        Ok(command)
    }
}

/// Committed and aborted ones; in the last round one stays open.
fn transactions(kafka: &Kafka<'_>, round: u64) -> Result<()> {
    let transactions = Transactions {
        transactional_id: format!("t-{round}"),
        transactions: 20,
        records_per_transaction: 7,
        abort_every: 3,
        seed: round,
        value_bytes: 300,
        partition: 0,
    };
    kafka.produce_transactions("transactional", &transactions)?;
    if round == 4 {
        kafka.open_transaction("transactional", &transactions)?;
    }
    Ok(())
}

/// All that there is, which is what was committed.
fn same(source: &Source, cluster: &Cluster) -> Result<()> {
    let kafka = cluster.client();
    let found = seen(&kafka)?;
    for (place, expected) in &source.seen {
        ensure!(found.get(place) == Some(expected), "{place:?}: {:?}, not {expected:?}", found.get(place));
        let end = kafka.offset(&place.0, place.1, At::Latest)?;
        let start = kafka.offset(&place.0, place.1, At::Earliest)?;
        ensure!(
            end - start == i64::try_from(expected.0)?,
            "{place:?}: offsets {start} to {end}, {expected:?}"
        );
    }
    Ok(())
}

fn json(text: &str) -> Result<serde_json::Value> {
    serde_json::from_str(text).with_context(|| text.to_owned())
}

fn whole(source: &Source, version: &str) -> Result<()> {
    let cluster = Cluster::builder().version(version).start()?;
    let plan = source.plan(&format!("whole-{version}"));
    let (out, _) = ended(source.restore(&cluster, &plan, &["--json", "--filler-max", "1000"])?, 0)?;
    let report = json(&out)?;
    ensure!(report["is_clean"] == true, "{out}");
    ensure!(report["verified"]["partitions"].as_array().is_some_and(|p| p.len() == 8), "{out}");
    same(source, &cluster)?;
    planned(&plan)?;
    groups(source, &cluster)?;
    kept(source, &report)?;
    let kafka = cluster.client();
    ensure!(kafka.offset("trimmed", 0, At::Earliest)? == i64::try_from(TRIMMED)?, "it starts elsewhere");
    ensure!(kafka.offset("trimmed", 1, At::Earliest)? == 0, "it is not mapped");
    // A second time there is nothing to do, and nothing is done.
    let (out, _) = ended(of_plan("apply", &plan, &["--yes", "--json"])?, 0)?;
    ensure!(json(&out)?["applied"]["served_bytes"] == 0, "{out}");
    let (shown, _) = ended(of_plan("release", &plan, &["--yes"])?, 0)?;
    ensure!(shown.contains("compacted again"), "{shown}");
    let written = kafka.produce("plain", &Produce { count: 10, ..Produce::default() })?;
    ensure!(written.first == 10_000, "{written:?}");
    Ok(())
}

/// What the plan said of each partition.
fn planned(plan: &Path) -> Result<()> {
    let plan: serde_json::Value = serde_json::from_slice(&std::fs::read(plan)?)?;
    let mut found = BTreeMap::new();
    for topic in plan["topics"].as_array().context("no topics")? {
        for partition in topic["partitions"].as_array().context("no partitions")? {
            let name = format!("{}-{}", topic["topic"].as_str().unwrap_or_default(), partition["partition"]);
            found.insert(name, partition["produce"].clone());
        }
    }
    for (name, offsets, filler) in [
        ("plain-0", "equal", 0),
        ("trimmed-0", "equal", 333),
        ("trimmed-1", "mapped", 0),
        ("transactional-0", "mapped", 0),
        ("compacted-0", "mapped", 0),
        ("append-time-0", "equal", 0),
        ("empty-0", "equal", 0),
    ] {
        let one = &found[name];
        ensure!(one["offsets"] == offsets && one["filler"] == filler, "{name}: {one}");
    }
    let transactional = &found["transactional-0"];
    // Of 100 transactions 30 were aborted; one is open.
    ensure!(transactional["records"] == 70 * 7, "{transactional}");
    ensure!(transactional["aborted_records"].as_u64().is_some_and(|n| n > 210), "{transactional}");
    ensure!(
        found["compacted-0"]["remade_batches"].as_u64().is_some_and(|n| n > 0),
        "{}",
        found["compacted-0"]
    );
    ensure!(found["append-time-0"]["remade_batches"].as_u64().is_some_and(|n| n > 0), "not made anew");
    Ok(())
}

/// Each group goes on with the very next record.
fn groups(source: &Source, cluster: &Cluster) -> Result<()> {
    let client = plain_client(&cluster.bootstrap())?;
    let committed = runtime()?.block_on(client.committed_offsets(&[GROUP.to_owned()]))?.whole()?;
    let offsets = &committed.first().context("no group")?.offsets;
    ensure!(offsets.len() == GROUP_TOPICS.len(), "{offsets:?}");
    for offset in offsets {
        ensure!(offset.metadata == "as it was", "{offset:?}");
        let next = consume(&cluster.client(), &offset.topic, 0, offset.offset, Some(1))?.1;
        ensure!(source.next.get(&offset.topic) == Some(&next), "{offset:?}: another record comes next");
    }
    Ok(())
}

/// The map stands beside the archive, and says where a record went.
fn kept(source: &Source, report: &serde_json::Value) -> Result<()> {
    let id = report["restore_id"].as_str().context("no id")?;
    let (tier, folder) = (source.archive.tier(), format!("restores/{id}"));
    tier.read(&format!("{folder}/about.json")).context("no record of it")?;
    let map = String::from_utf8(tier.read(&format!("{folder}/0000000000.map"))?)?;
    // Of the second partition of trimmed.
    ensure!(map.lines().any(|line| line.ends_with(" 1 1200 0 300")), "{map}");
    ensure!(map.lines().count() > 70, "transactions and compaction make runs: {map}");
    Ok(())
}

/// All but the producer's id.
fn forgotten(maps: &Path) -> Result<()> {
    let Ok(files) = std::fs::read_dir(maps) else { return Ok(()) };
    for file in files {
        let path = file?.path();
        if path.extension().is_none_or(|e| e != "json") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// At seeded moments.
fn killed(source: &Source) -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let plan = source.plan("killed");
    let seed = 11;
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let kills = std::env::var("VARVE_RESTORE_KILLS").map_or(Ok(KILLS), |n| n.parse())?;
    ended(source.restore(&cluster, &plan, &["--dry-run"])?, 0)?;
    // It lasts so long that all come in between.
    let throttle = format!("{}KiB", 1024 * KILLS / kills.max(KILLS));
    let (begun, mut done, mut longest_ms) = (Instant::now(), 0, 1500);
    let kafka = cluster.client();
    // On a busy machine it takes longer until there is something to go on from.
    while done < kills || kafka.offset("plain", 0, At::Latest).unwrap_or(0) == 0 {
        let mut command = of_plan("apply", &plan, &["--yes", "--no-verify", "--throttle", &throttle])?;
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(random.random_range(50..longest_ms)));
        let over = child.try_wait()?;
        child.kill()?;
        child.wait()?;
        if random.random_bool(0.3) {
            // What was not brought to the disk is gone: the target is compared.
            forgotten(&plan.with_extension("plan.map"))?;
        }
        if over.is_some_and(|status| status.success()) {
            break;
        }
        done += 1;
        if done >= kills {
            longest_ms *= 2;
        }
        ensure!(begun.elapsed() < LIMIT * 10, "it takes for ever");
    }
    println!("killed {done} times");
    ensure!(done > 0, "it was never killed");
    let (out, _) = ended(of_plan("apply", &plan, &["--yes", "--json"])?, 0)?;
    let report = json(&out)?;
    ensure!(report["is_clean"] == true && report["applied"]["is_resumed"] == true, "{out}");
    same(source, &cluster)?;
    one_producer(&cluster)?;
    groups(source, &cluster)
}

/// What a killed process has sent and comes late must not be written beside what the next one sends: brokers see to
/// that where both are the same producer.
fn one_producer(cluster: &Cluster) -> Result<()> {
    let mut ids = BTreeSet::new();
    for log in TopicLogs::read(&plain_client(&cluster.bootstrap())?, &["plain"])?
        .iter()
        .flat_map(|t| t.logs.values())
    {
        for batch in Batches::new(log.batches.clone().into(), 0) {
            ids.insert(batch?.header.producer_id);
        }
    }
    ensure!(ids.len() == 1 && ids.first() >= Some(&0), "producers {ids:?}");
    Ok(())
}

/// One after the other, and one of them is killed: leaders move all the time.
fn restarted(source: &Source) -> Result<()> {
    let builder = Cluster::builder().nodes(3).property("min.insync.replicas", 2);
    let cluster = builder.property(FORGETS.0, FORGETS.1).start()?;
    let plan = source.plan("restarted");
    let extra = ["--replication-factor", "3", "--throttle", "130KiB", "--patience", "2m"];
    let mut restoring = Restoring::start(source.restore(&cluster, &plan, &extra)?, &plan)?;
    let kafka = cluster.client();
    eventually("some of it is there", LIMIT, || {
        let end = kafka.offset("plain", 0, At::Latest).unwrap_or(0);
        Ok(Look::when(end > 100, (), end))
    })?;
    for id in 1..=3 {
        ensure!(
            restoring.is_running()?,
            "it has ended before broker {id} was restarted: {}",
            restoring.said()
        );
        let node = cluster.node(id)?;
        match id {
            2 => {
                node.kill();
                node.start()?;
            }
            _ => node.restart()?,
        }
        cluster.wait_registered(3)?;
    }
    restoring.finish()?;
    same(source, &cluster)?;
    groups(source, &cluster)
}

/// A broker looks each ten minutes whom it may forget.
const FORGETS: (&str, u32) = ("producer.id.expiration.check.interval.ms", 1);

/// Batches are appended whose answers never come, and the broker starts anew: of a producer whose records are that old
/// it knows nothing then, nor a moment after each batch.
fn forgetful(source: &Source) -> Result<()> {
    let toxiproxy = Toxiproxy::start()?;
    let builder = Cluster::builder().proxied_listener("FAR", "PLAINTEXT", &toxiproxy);
    let cluster = builder.property(FORGETS.0, FORGETS.1).start()?;
    let plan = source.plan("forgotten");
    let mut command = varve()?;
    command.args(["restore", "--from", &source.archive.url(), "--to", &cluster.bootstrap_of("FAR")?]);
    command.args(["--yes", "--throttle", "400KiB", "--patience", "2m", "--plan"]).arg(&plan);
    command.env("VARVE_LOG", "debug");
    let mut restoring = Restoring::start(command, &plan)?;
    let kafka = cluster.client();
    for round in 0..3 {
        let before = kafka.offset("plain", 0, At::Latest).unwrap_or(0);
        eventually("more of it is there", LIMIT, || {
            ensure!(restoring.is_running()?, "it has ended: {}", restoring.said());
            let end = kafka.offset("plain", 0, At::Latest).unwrap_or(0);
            Ok(Look::when(end > before + 100, (), end))
        })
        .with_context(|| format!("round {round}"))?;
        let proxy = cluster.broker().proxy("FAR")?;
        proxy.add_silence()?;
        let written = || -> i64 {
            let partitions = TOPICS.iter().flat_map(|(topic, count)| (0..*count).map(move |p| (topic, p)));
            partitions.map(|(topic, p)| kafka.offset(topic, p, At::Latest).unwrap_or(0)).sum()
        };
        let unanswered_from = written();
        eventually("more is written, and not answered", LIMIT, || {
            let now = written();
            Ok(Look::when(now > unanswered_from, (), now))
        })?;
        proxy.close()?;
        cluster.broker().restart()?;
        proxy.heal()?;
        proxy.open()?;
    }
    restoring.finish()?;
    let said = std::fs::read_to_string(plan.with_extension("log"))?;
    let found = said.lines().filter(|line| line.contains("were found in the log"));
    let found: Vec<&str> = found.filter(|line| !line.contains("there=0")).collect();
    ensure!(found.len() >= 3, "no answer was lost: {found:?}");
    same(source, &cluster)?;
    groups(source, &cluster)
}

/// Begins, and is killed as soon as some of `plain` is there.
fn begun(source: &Source, cluster: &Cluster, plan: &Path) -> Result<()> {
    let mut command = source.restore(cluster, plan, &["--topics", "plain", "--throttle", "300KiB"])?;
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let (kafka, begun) = (cluster.client(), Instant::now());
    while kafka.offset("plain", 0, At::Latest).unwrap_or(0) < 100 {
        ensure!(begun.elapsed() < LIMIT && child.try_wait()?.is_none(), "it did not begin");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn foreign(source: &Source) -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let plan = source.plan("foreign");
    begun(source, &cluster, &plan)?;
    let kafka = cluster.client();
    kafka.produce("plain", &Produce { count: 3, ..Produce::default() })?;
    let (_, err) = ended(of_plan("apply", &plan, &["--yes"])?, 2)?;
    ensure!(err.contains("plain-0 has other records at offset"), "{err}");
    let deleted = ended(of_plan("cleanup", &plan, &["--yes"])?, 0)?.0;
    ensure!(deleted.contains("plain"), "{deleted}");

    // While it runs.
    let plan = source.plan("foreign-2");
    let mut command = source.restore(&cluster, &plan, &["--topics", "plain", "--throttle", "300KiB"])?;
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    eventually("some of it is there", LIMIT, || {
        let end = kafka.offset("plain", 1, At::Latest)?;
        Ok(Look::when(end > 100, (), end))
    })?;
    kafka.produce("plain", &Produce { partition: 1, count: 3, ..Produce::default() })?;
    let output = child.wait_with_output()?;
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && err.contains("plain-1 has other records at offset"), "{err}");
    Ok(())
}

fn refused(source: &Source) -> Result<()> {
    let cluster = Cluster::builder().property("socket.request.max.bytes", 12_000).start()?;
    let (out, _) = ended(source.restore(&cluster, &source.plan("large"), &["--dry-run"])?, 1)?;
    ensure!(out.contains("topic plain has a batch of") && out.contains("requests of up to 12000"), "{out}");
    cluster.client().create_topic("empty", 1, 1, &[])?;
    let extra = ["--topics", "empty", "--dry-run"];
    let (out, _) = ended(source.restore(&cluster, &source.plan("there"), &extra)?, 1)?;
    ensure!(out.contains("the target has a topic empty"), "{out}");
    let leader = ["--mode", "leader"];
    let (_, err) = ended(source.restore(&cluster, &source.plan("leader"), &leader)?, 2)?;
    ensure!(err.contains("--mode leader needs --controller"), "{err}");
    Ok(())
}

fn taken_back(source: &Source) -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let plan = source.plan("taken-back");
    begun(source, &cluster, &plan)?;
    let (out, _) = ended(of_plan("cleanup", &plan, &["--yes"])?, 0)?;
    ensure!(out.contains("deleted     plain"), "{out}");
    let again = source.plan("taken-back-again");
    ended(source.restore(&cluster, &again, &["--no-verify"])?, 0)?;
    same(source, &cluster)
}
