//! `varve restore` on real clusters: byte for byte, with the same offsets, groups and log starts; after a kill too.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use varve_kafka::client::admin::{ConfigResource, ConfigSource};
use varve_kafka::client::{Client, ClientConfig};
use varve_tests::raw_admin::{commit, create_topics, set_config, set_quota};
use varve_tests::{
    Archived, Cluster, KAFKA_VERSION, KAFKA_VERSIONS, Look, Produce, Scratch, Shared, Suite, TestArchive,
    Tier, TopicLogs, Transactions, ended, eventually, has_left, kafka_jars, of_plan, plain_client,
    restore_from, runtime, same_logs, varve, writers_go_on,
};

const TOPICS: [&str; 5] = ["plain", "transactional", "trimmed", "compacted", "empty"];
const GROUP: &str = "billing";
const USER: &str = "ann";
const COMMITTED: i64 = 1234;
const OLDEST: &str = "3.9.2";
/// More by the environment, for a long run by hand.
const KILLS: u64 = 4;
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn suite() -> Suite {
    let old = Shared::new(|| Source::make(OLDEST));
    let new = Shared::new(|| Source::make(KAFKA_VERSION));
    let mut suite = Suite::new();
    for version in KAFKA_VERSIONS {
        let name = format!("from_{KAFKA_VERSION}_to_{version}");
        suite = suite.test_with(&new, &name, move |source| whole(source, version, 1));
    }
    suite
        .test_with(&old, "from_3.9.2_to_the_default_on_three_brokers", |source| {
            whole(source, KAFKA_VERSION, 3)
        })
        .test_with(&new, "a_kill_at_any_point_is_resumed", killed)
        .test_with(&new, "a_record_that_became_another_is_found", altered)
        .test_with(&new, "stopped_it_leaves_the_cluster_and_goes_on", stopped)
        .test_with(&new, "what_was_begun_is_taken_back", taken_back)
        .test_with(&new, "what_stands_against_it_is_told_before", refused)
        .test("what_was_tiered_is_released_without_a_tier", untiered)
        .test_with(&new, "a_damaged_object_stops_it_by_name", damaged)
        .test_with(&new, "users_get_new_passwords", users)
        .test_with(&new, "a_drill_restores_a_sample_and_throws_it_away", drilled)
}

/// An archive of a cluster that is gone.
struct Source {
    logs: Vec<TopicLogs>,
    archive: TestArchive,
    cluster_id: String,
    scratch: Scratch,
}

impl Source {
    /// Several leader epochs, codecs, markers, aborted records, tombstones, a log start within a batch.
    fn make(version: &str) -> Result<Self> {
        let cluster = Cluster::builder().version(version).start()?;
        let kafka = cluster.client();
        for topic in TOPICS {
            let policy = if topic == "compacted" { "compact" } else { "delete" };
            let configs =
                [("retention.ms", "3600000"), ("cleanup.policy", policy), ("segment.bytes", "1048576")];
            kafka.create_topic(topic, 2, 1, &configs)?;
        }
        for (round, compression) in (0..).zip(["none", "zstd", "lz4"]) {
            if round > 0 {
                cluster.broker().restart()?;
            }
            for partition in 0..2 {
                let seed = round * 2 + u64::from(partition);
                let records =
                    Produce { partition, seed, compression, count: 3000, headers: 2, ..Produce::default() };
                kafka.produce("plain", &records)?;
                kafka.produce("trimmed", &Produce { count: 500, ..records.clone() })?;
                kafka.produce("compacted", &Produce { count: 300, tombstone_every: 7, ..records })?;
            }
            let transactions = Transactions {
                transactional_id: format!("t-{round}"),
                transactions: 20,
                records_per_transaction: 30,
                abort_every: 3,
                seed: round,
                value_bytes: 300,
                partition: 0,
            };
            kafka.produce_transactions("transactional", &transactions)?;
        }
        kafka.delete_records("trimmed", 0, 333)?;
        kafka.delete_records("trimmed", 1, 1500)?;
        let client = plain_client(&cluster.bootstrap())?;
        // One runtime for all: connections end with the one that opened them.
        runtime()?.block_on(async {
            commit(&client, GROUP, &["plain", "trimmed"], COMMITTED, "as it was").await?;
            set_quota(&client, &[("user", Some("ann"))], "producer_byte_rate", 1e6).await?;
            set_config(&client, 4, "", &[("background.threads", "11")]).await
        })?;
        kafka.set_scram_user(USER, "SCRAM-SHA-512", "as it was")?;
        let scratch = Scratch::new("restore")?;
        let extra = "topics: { include: [\"*\"] }";
        let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), extra)?;
        archive.run_once(&[])?;
        // The archive has what is before the log start now, and a batch that lies across it.
        kafka.delete_records("trimmed", 0, 1111)?;
        archive.run_once(&[])?;
        let cluster_id = runtime()?.block_on(client.describe_cluster())?.cluster_id;
        Ok(Self { logs: TopicLogs::read(&client, &TOPICS)?, archive, cluster_id, scratch })
    }

    fn plan(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.plan"))
    }

    /// `varve restore`, with what it always needs.
    fn restore(&self, cluster: &Cluster, plan: &Path, extra: &[&str]) -> Result<Command> {
        restore_from(&self.archive.url(), cluster, plan, extra)
    }
}

fn same(source: &Source, cluster: &Cluster) -> Result<()> {
    same_logs(&source.logs, &TopicLogs::read(&plain_client(&cluster.bootstrap())?, &TOPICS)?)
}

fn whole(source: &Source, version: &str, nodes: u32) -> Result<()> {
    let cluster = Cluster::builder().version(version).nodes(nodes).start()?;
    let plan = source.plan(&format!("whole-{version}-{nodes}"));
    let factor = nodes.to_string();
    let extra = ["--replication-factor", &factor, "--json"];
    let (out, _) = ended(source.restore(&cluster, &plan, &extra)?, 0)?;
    let report: serde_json::Value = serde_json::from_str(&out)?;
    ensure!(report["is_clean"] == true, "{out}");
    let verified = report["verified"]["partitions"].as_array().context("nothing verified")?;
    ensure!(verified.len() == 2 * TOPICS.len(), "{out}");
    same(source, &cluster)?;
    has_left(&cluster)?;

    // What verification found to be there, and was not before.
    let planned: serde_json::Value = serde_json::from_slice(&std::fs::read(&plan)?)?;
    let rest = &planned["rest"];
    ensure!(rest["quotas"][0]["values"][0]["value"] == "1000000", "{rest}");
    ensure!(rest["configs"][0]["configs"][0]["name"] == "background.threads", "{rest}");

    let client = plain_client(&cluster.bootstrap())?;
    let groups = [GROUP.to_owned()];
    let committed = runtime()?.block_on(client.committed_offsets(&groups))?.whole()?;
    let offsets: Vec<(&str, i64, &str)> =
        committed[0].offsets.iter().map(|o| (o.topic.as_str(), o.offset, o.metadata.as_str())).collect();
    ensure!(
        offsets == [("plain", COMMITTED, "as it was"), ("trimmed", COMMITTED, "as it was")],
        "{offsets:?}"
    );

    // Nothing is deleted or compacted until it is released.
    let policy = |topic: &str, name: &str| -> Result<Option<String>> {
        let resource = ConfigResource::Topic(topic.to_owned());
        let found = runtime()?.block_on(client.describe_configs(&[resource]))?.whole()?;
        let entries = found.into_iter().flat_map(|c| c.entries);
        let mut own = entries.filter(|e| e.source == ConfigSource::DynamicTopicConfig && e.name == name);
        Ok(own.next().and_then(|e| e.value))
    };
    ensure!(policy("compacted", "cleanup.policy")?.as_deref() == Some("delete"), "compacted too early");
    ensure!(policy("plain", "retention.ms")?.as_deref() == Some("-1"), "retention too early");
    let (shown, _) = ended(of_plan("release", &plan, &["--dry-run"])?, 0)?;
    ensure!(
        shown.contains("compacted again") && policy("plain", "retention.ms")?.as_deref() == Some("-1"),
        "{shown}"
    );
    ended(of_plan("release", &plan, &["--yes"])?, 0)?;
    // Brokers hear of it a moment later than the controller.
    eventually("it is released", LIMIT, || {
        let found = [
            policy("compacted", "cleanup.policy")?,
            policy("plain", "retention.ms")?,
            policy("plain", "retention.bytes")?,
        ];
        let is_released = found.each_ref().map(Option::as_deref) == [Some("compact"), Some("3600000"), None];
        Ok(Look::when(is_released, (), found))
    })?;

    writers_go_on(&cluster, &source.logs, &["plain", "trimmed", "empty"], "transactional")?;
    // A second time there is nothing to do, and nothing is done.
    let (out, _) = ended(of_plan("apply", &plan, &["--yes", "--json", "--no-verify"])?, 0)?;
    let report: serde_json::Value = serde_json::from_str(&out)?;
    ensure!(report["applied"]["served_bytes"] == 0, "{out}");
    Ok(())
}

/// At seeded moments, until one comes through.
fn killed(source: &Source) -> Result<()> {
    let cluster = Cluster::builder().nodes(1).start()?;
    let plan = source.plan("killed");
    let seed = 5;
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let kills = std::env::var("VARVE_RESTORE_KILLS").map_or(Ok(KILLS), |n| n.parse())?;
    ended(source.restore(&cluster, &plan, &["--dry-run"])?, 0)?;
    let (begun, mut done, mut longest_ms) = (Instant::now(), 0, 4000);
    // On a busy machine it takes longer until there is something to go on from.
    while done < kills || bytes_of_logs(source, &cluster)? == 0 {
        let throttle = ["--yes", "--json", "--no-verify", "--throttle", "400KiB"];
        let mut command = of_plan("apply", &plan, &throttle)?;
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(random.random_range(50..longest_ms)));
        let over = child.try_wait()?;
        child.kill()?;
        child.wait()?;
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
    let (had, all) = (bytes_when_quiet(source, &cluster)?, bytes_of(source));
    let (out, _) = ended(of_plan("apply", &plan, &["--yes", "--json"])?, 0)?;
    let report: serde_json::Value = serde_json::from_str(&out)?;
    ensure!(report["is_clean"] == true && report["applied"]["is_resumed"] == true, "{out}");
    let served = report["applied"]["served_bytes"].as_u64().context("no served_bytes")?;
    println!("{had} of {all} bytes were there, {served} were served");
    ensure!(had > 0 && had + served == all, "{had} of {all} bytes were there, and {served} were served");
    same(source, &cluster)?;
    has_left(&cluster)
}

/// Of record batches, in all topics.
fn bytes_of(source: &Source) -> u64 {
    let logs = source.logs.iter().flat_map(|topic| topic.logs.values());
    logs.map(|log| log.batches.len() as u64).sum()
}

/// The same on the disk of the only broker.
fn bytes_of_logs(source: &Source, cluster: &Cluster) -> Result<u64> {
    let (node, mut bytes) = (cluster.broker(), 0);
    for logs in &source.logs {
        for &partition in logs.logs.keys() {
            let partition = u32::try_from(partition)?;
            let dir = node.partition_dir(&logs.topic, partition);
            if !dir.is_dir() {
                continue;
            }
            for base in node.local_segments(&logs.topic, partition)? {
                bytes += std::fs::metadata(dir.join(format!("{base:020}.log")))?.len();
            }
        }
    }
    Ok(bytes)
}

/// The same when what was sent is written: it has not grown for two seconds.
fn bytes_when_quiet(source: &Source, cluster: &Cluster) -> Result<u64> {
    let (mut bytes, mut since) = (bytes_of_logs(source, cluster)?, Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(100));
        let now = bytes_of_logs(source, cluster)?;
        if now != bytes {
            (bytes, since) = (now, Instant::now());
        }
    }
    Ok(bytes)
}

/// One byte on the target's disk is another, and the batch's checksum holds all the same.
fn altered(source: &Source) -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let plan = source.plan("altered");
    let plain = ["--topics", "plain", "--parts", "none", "--no-verify"];
    ended(source.restore(&cluster, &plan, &plain)?, 0)?;
    ended(of_plan("verify", &plan, &[])?, 0)?;
    let node = cluster.broker();
    node.stop()?;
    let mut logs: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(node.partition_dir("plain", 0))? {
        let path = entry?.path();
        logs.extend((path.extension().is_some_and(|e| e == "log")).then_some(path));
    }
    let file = logs.iter().min().context("no log")?;
    let mut log = std::fs::read(file)?;
    let size = log.get(8..12).and_then(|b| b.try_into().ok()).map(i32::from_be_bytes).context("no batch")?;
    let end = 12 + usize::try_from(size)?;
    log[end / 2] ^= 1;
    let crc = varve_format::crc32c(&log[21..end]);
    log[17..21].copy_from_slice(&crc.to_be_bytes());
    std::fs::write(file, log)?;
    node.start()?;
    let (out, _) = ended(of_plan("verify", &plan, &[])?, 1)?;
    ensure!(out.contains("differs     plain-0"), "{out}");
    Ok(())
}

/// An apply that has come so far that all topics are there.
fn begun(source: &Source, cluster: &Cluster, plan: &Path) -> Result<Child> {
    let mut command = source.restore(cluster, plan, &["--throttle", "100KiB"])?;
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let client = plain_client(&cluster.bootstrap())?;
    let begun = Instant::now();
    while runtime()?.block_on(client.list_topics())?.iter().filter(|t| !t.is_internal).count() < TOPICS.len()
    {
        ensure!(begun.elapsed() < LIMIT && child.try_wait()?.is_none(), "it did not begin");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(child)
}

/// Topics of others that were placed on us meanwhile go to those that stay.
fn stopped(source: &Source) -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let plan = source.plan("stopped");
    let mut child = begun(source, &cluster, &plan)?;
    let names: Vec<String> = (0..12).map(|number| format!("other-{number}")).collect();
    let client = plain_client(&cluster.bootstrap())?;
    runtime()?.block_on(create_topics(&client, &names))?;
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    ensure!(interrupted.success() && !child.wait()?.success(), "it was not stopped");
    let client = plain_client(&cluster.bootstrap())?;
    eventually("brokers have heard of it", LIMIT, || {
        let brokers = runtime()?.block_on(client.metadata(Some(&[])))?.brokers;
        Ok(Look::when(brokers.iter().all(|b| b.node_id < 990_000), (), brokers))
    })?;
    let metadata = runtime()?.block_on(client.metadata(None))?;
    let others: Vec<_> = metadata.topics.iter().filter(|t| names.contains(&t.name)).collect();
    ensure!(others.len() == names.len(), "{others:?}");
    for partition in others.iter().flat_map(|topic| &topic.partitions) {
        ensure!(partition.leader_id == Some(1) && partition.replicas == [1], "{partition:?}");
    }
    ended(of_plan("apply", &plan, &["--yes"])?, 0)?;
    same(source, &cluster)?;
    has_left(&cluster)
}

fn taken_back(source: &Source) -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let plan = source.plan("taken-back");
    let mut child = begun(source, &cluster, &plan)?;
    child.kill()?;
    child.wait()?;
    let (out, _) = ended(of_plan("cleanup", &plan, &["--yes"])?, 0)?;
    ensure!(out.contains("deleted") && out.contains("not known to the cluster"), "{out}");
    has_left(&cluster)?;
    let again = source.plan("taken-back-again");
    ended(source.restore(&cluster, &again, &["--no-verify"])?, 0)?;
    same(source, &cluster)
}

fn refused(source: &Source) -> Result<()> {
    let cluster = Cluster::builder().start()?;
    cluster.client().create_topic("plain", 1, 1, &[])?;
    let (out, _) = ended(source.restore(&cluster, &source.plan("exists"), &["--dry-run"])?, 1)?;
    ensure!(out.contains("the target has a topic plain") && out.contains("--rename"), "{out}");
    let (_, err) = ended(source.restore(&cluster, &source.plan("exists-2"), &[])?, 2)?;
    ensure!(err.contains("the target has a topic plain"), "{err}");
    let renamed = ["--rename", "plain=plain-2", "--topics", "plain", "--parts", "none"];
    ended(source.restore(&cluster, &source.plan("renamed"), &renamed)?, 0)?;
    let client = plain_client(&cluster.bootstrap())?;
    let copy = TopicLogs::read(&client, &["plain-2"])?;
    ensure!(copy[0].logs == source.logs[0].logs, "another log under the other name");
    let nothing = ["--topics", "nothing-*", "--dry-run"];
    let (out, _) = ended(source.restore(&cluster, &source.plan("nothing"), &nothing)?, 1)?;
    ensure!(out.contains("no topic of the archive is selected"), "{out}");
    let mistyped = [
        ["--topics", "plain,plian"],
        ["--without", "tmp"],
        ["--rename", "order=x"],
        ["--partitions", "plain=99"],
        ["--offsets", "plian-0=1..2"],
        ["--groups", "nobody"],
    ];
    let all = [&mistyped.concat()[..], &["--dry-run"]].concat();
    let (out, _) = ended(source.restore(&cluster, &source.plan("mistyped"), &all)?, 1)?;
    for option in mistyped {
        let told = format!("refused     {} {}", option[0], option[1].rsplit(',').next().unwrap_or_default());
        let told = told.split('=').next().unwrap_or_default();
        ensure!(out.contains(told.trim_end_matches("-0")), "{told}: {out}");
    }
    let (_, err) = ended(source.restore(&cluster, &source.plan("later"), &["--at", "99"])?, 2)?;
    ensure!(err.contains("snapshot 99"), "{err}");
    let mut command = varve()?;
    command.args(["restore", "--from", &source.archive.url(), "--to", &cluster.bootstrap(), "--dry-run"]);
    command.args(["--controller", &cluster.bootstrap(), "--topics", "empty", "--plan"]);
    let (out, _) = ended(
        {
            command.arg(source.plan("no-controller"));
            command
        },
        1,
    )?;
    ensure!(out.contains("controller") && out.contains("--controller"), "{out}");
    ensure!(source.cluster_id != runtime()?.block_on(client.describe_cluster())?.cluster_id, "one cluster");
    Ok(())
}

/// The target's brokers have no tiered storage, and refuse topics that want it.
fn untiered() -> Result<()> {
    let scratch = Scratch::new("untiered")?;
    let source = Cluster::builder().tier(&Tier::chosen(&scratch.path().join("tier"))?).start()?;
    let kafka = source.client();
    kafka.create_tiered_topic(
        "tiered",
        1,
        &[("retention.ms", "31536000000"), ("local.retention.ms", "3600000")],
    )?;
    kafka.produce("tiered", &Produce::default())?;
    let archived = Archived::of(&source, &["tiered"])?;
    drop(source);
    let target = Cluster::builder().start()?;
    let plan = archived.plan("untiered");
    let (out, _) = ended(restore_from(&archived.archive.url(), &target, &plan, &[])?, 0)?;
    ensure!(out.contains("not as it was: topic tiered was tiered"), "{out}");
    let released = varve()?.args(["restore", "release", "--yes"]).arg(&plan).output()?;
    let said = String::from_utf8_lossy(&[released.stdout, released.stderr].concat()).into_owned();
    let left_out = "without local.retention.bytes, local.retention.ms, remote.storage.enable: the brokers";
    ensure!(released.status.success() && said.contains(left_out), "{}: {said}", released.status);
    let client = plain_client(&target.bootstrap())?;
    let resource = ConfigResource::Topic("tiered".to_owned());
    let configs = runtime()?.block_on(client.describe_configs(&[resource]))?.whole()?;
    let value = |name: &str| configs[0].entries.iter().find(|c| c.name == name)?.value.clone();
    ensure!(value("retention.ms").as_deref() == Some("31536000000"), "{configs:?}");
    ensure!(value("remote.storage.enable").as_deref() != Some("true"), "{configs:?}");
    Ok(())
}

/// One byte of an object is another.
fn damaged(source: &Source) -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let dir = Scratch::new("damaged")?;
    let copy = source.archive.copied(dir.path())?;
    let objects = copy.tier().list_below("topics/")?;
    let objects = objects.into_iter().filter(|(key, _)| key.ends_with(".varve"));
    let (object, _) = objects.max_by_key(|(_, bytes)| *bytes).context("no object")?;
    copy.tier().flip(&object, 5000)?;
    let command = restore_from(&copy.url(), &cluster, &dir.path().join("a.plan"), &[])?;
    let (_, err) = ended(command, 2)?;
    let name = object.rsplit('/').next().context("a name")?;
    ensure!(err.contains(name) && err.contains("varve restore cleanup"), "{err}");
    ended(of_plan("cleanup", &dir.path().join("a.plan"), &["--yes"])?, 0)?;
    has_left(&cluster)
}

/// One that is made, and lets its user in.
fn users(source: &Source) -> Result<()> {
    const LISTENER: &str = "SECURE";
    let module = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let cluster = Cluster::builder()
        .listener(LISTENER, "SASL_PLAINTEXT")
        .property("sasl.enabled.mechanisms", "SCRAM-SHA-512")
        .property("listener.name.secure.scram-sha-512.sasl.jaas.config", module)
        .start()?;
    let dir = Scratch::new("users")?;
    let file = dir.path().join("passwords");
    let (plan, name) = (source.plan("users"), file.display().to_string());
    let extra = ["--topics", "empty", "--parts", "acls", "--users", &name];
    ended(source.restore(&cluster, &plan, &extra)?, 0)?;
    let text = std::fs::read_to_string(&file)?;
    let password = text.trim().strip_prefix("ann=").context("no password was made")?;
    let servers = cluster.bootstrap_of(LISTENER)?;
    let login = |password: &str| -> Result<()> {
        let client = Client::new(ClientConfig::from_pairs([
            ("bootstrap.servers", servers.as_str()),
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", USER),
            ("sasl.password", password),
        ])?)?;
        runtime()?.block_on(client.metadata(Some(&[])))?;
        Ok(())
    };
    login(password)?;
    ensure!(login("as it was").is_err(), "the old password is known to nobody");
    Ok(())
}

fn drilled(source: &Source) -> Result<()> {
    let work = Scratch::new("drill")?;
    let report = work.path().join("report.json");
    let drill = |kafka: &Path| -> Result<Command> {
        let mut command = varve()?;
        command.args(["drill", "--from", &source.archive.url(), "--sample", "50%", "--seed", "3", "--json"]);
        command.arg("--kafka").arg(kafka).arg("--work").arg(work.path()).arg("--report").arg(&report);
        Ok(command)
    };
    let (out, _) = ended(drill(&kafka_jars(KAFKA_VERSION)?)?, 0)?;
    let said: serde_json::Value = serde_json::from_str(&out)?;
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&report)?)?;
    ensure!(said == written && said["is_clean"] == true, "{out}");
    ensure!(said["drill"]["topics"] == 3 && said["drill"]["topics_of_the_archive"] == TOPICS.len(), "{out}");
    ensure!(said["verified"]["partitions"].as_array().is_some_and(|p| p.len() == 6), "{out}");
    let (_, err) = ended(drill(work.path())?, 2)?;
    ensure!(err.contains("has no jars of Kafka"), "{err}");
    let left: Vec<_> = std::fs::read_dir(work.path())?.collect::<Result<_, _>>()?;
    ensure!(left.len() == 1, "more than the report is left: {left:?}");
    Ok(())
}
