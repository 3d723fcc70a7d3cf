//! `varve restore --as-of`, and other parts of topics: on real clusters, archived while they were written to.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use varve_tests::raw_admin::commit;
use varve_tests::{
    Cluster, Look, Produce, Scratch, Shared, Suite, TestArchive, TopicLogs, Transactions, ended, eventually,
    plain_client, restore_from, runtime, same_logs, varve,
};

const TOPICS: [&str; 3] = ["plain", "transactional", "young"];
const GROUP: &str = "billing";
const LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn suite() -> Suite {
    let source = Shared::new(Source::make);
    Suite::new().test_with(&source, "a_time_before_the_snapshot_is_restored_as_it_was", as_of).test_with(
        &source,
        "partitions_offsets_and_times_are_selected",
        selected,
    )
}

/// An archive of a cluster that is gone, and how that was at a time between.
struct Source {
    between_ms: i64,
    between: Vec<TopicLogs>,
    all: Vec<TopicLogs>,
    archive: TestArchive,
    scratch: Scratch,
}

impl Source {
    fn make() -> Result<Self> {
        let cluster = Cluster::builder().start()?;
        let kafka = cluster.client();
        for topic in TOPICS {
            kafka.create_topic(topic, 2, 1, &[])?;
        }
        let scratch = Scratch::new("as-of")?;
        let extra = "topics: { include: [\"*\"] }\njournal: { rpo: 2s }\n\
                     segments: { bytes: 4MiB, min.bytes: 512KiB }";
        let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), extra)?;
        let running = archive.start(&scratch.path().join("first.log"), &[])?;
        write(&cluster, 0, None)?;
        // What claims to be younger than it is: that it was there is known by who saw it.
        let young = u64::try_from(now_ms()?)? + 1_800_000;
        let few = Produce { count: 100, timestamp_from: Some(young), ..Produce::default() };
        kafka.produce("young", &few)?;
        commit_at(&cluster, 300)?;
        // It is looked at before and after.
        let between = eventually("all of it is archived", LIMIT, || archived(&cluster, &archive))?;
        sleep(Duration::from_secs(1));
        let between_ms = now_ms()?;
        sleep(Duration::from_secs(1));
        running.kill();
        // Another one goes on, and makes a segment of what waits in the journal as soon as there is enough.
        let running = archive.start(&scratch.path().join("second.log"), &[])?;
        sleep(Duration::from_secs(4));
        kafka.produce("young", &Produce { seed: 5, ..Produce::default() })?;
        // The archive sees that something has come, and what comes behind that claims to be older.
        for partition in 0..2 {
            kafka.produce("plain", &Produce { partition, count: 1, seed: 99, ..Produce::default() })?;
        }
        sleep(Duration::from_secs(2));
        write(&cluster, 1, Some(1_700_000_000_000))?;
        commit_at(&cluster, 1100)?;
        sleep(Duration::from_secs(3));
        // At its end it makes a snapshot.
        ensure!(running.terminate()?.success(), "the archiver failed");
        let all = TopicLogs::read(&plain_client(&cluster.bootstrap())?, &TOPICS)?;
        Ok(Self { between_ms, between, all, archive, scratch })
    }

    fn plan(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.plan"))
    }

    fn restored(&self, cluster: &Cluster, plan: &Path, extra: &[&str]) -> Result<serde_json::Value> {
        ended(restore_from(&self.archive.url(), cluster, plan, extra)?, 0)?;
        Ok(serde_json::from_slice(&std::fs::read(plan)?)?)
    }
}

/// What the cluster has, when the archive has all of it.
fn archived(cluster: &Cluster, archive: &TestArchive) -> Result<Look<Vec<TopicLogs>>> {
    let topics = TopicLogs::read(&plain_client(&cluster.bootstrap())?, &TOPICS)?;
    for topic in &topics {
        for (partition, log) in topic.logs.iter().filter(|(_, log)| log.end_offset > 0) {
            let mut command = varve()?;
            let one = format!("{}:{partition}", topic.topic);
            command.args(["ls", &archive.url(), &one, "--snapshot", "now", "--json"]);
            let listed: serde_json::Value = serde_json::from_str(&ended(command, 0)?.0)?;
            if listed["end_offset"] != log.end_offset {
                return Ok(Look::NotYet(listed.to_string()));
            }
        }
    }
    Ok(Look::Done(topics))
}

fn write(cluster: &Cluster, round: u64, timestamp_from: Option<u64>) -> Result<()> {
    let kafka = cluster.client();
    for partition in 0..2 {
        let seed = round * 2 + u64::from(partition);
        let produce = Produce { partition, seed, timestamp_from, ..Produce::default() };
        kafka.produce("plain", &produce)?;
        let transactions = Transactions {
            transactional_id: format!("t-{partition}"),
            transactions: 10,
            records_per_transaction: 20,
            abort_every: 3,
            seed,
            value_bytes: 200,
            partition,
        };
        kafka.produce_transactions("transactional", &transactions)?;
    }
    Ok(())
}

/// Connections end with the runtime that opened them: a client of its own.
fn commit_at(cluster: &Cluster, offset: i64) -> Result<()> {
    let client = plain_client(&cluster.bootstrap())?;
    runtime()?.block_on(commit(&client, GROUP, &["plain"], offset, ""))
}

fn now_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

fn as_of(source: &Source) -> Result<()> {
    let begun = Instant::now();
    let cluster = Cluster::builder().start()?;
    let time = source.between_ms.to_string();
    let plan = source.restored(&cluster, &source.plan("as-of"), &["--as-of", &time])?;
    ensure!(plan["archive"]["as_of_ms"] == source.between_ms, "{plan}");
    let client = plain_client(&cluster.bootstrap())?;
    same_logs(&source.between, &TopicLogs::read(&client, &TOPICS)?)?;
    ensure!(source.between[0].logs[&0].end_offset < source.all[0].logs[&0].end_offset, "nothing came behind");
    let committed = runtime()?.block_on(client.committed_offsets(&[GROUP.to_owned()]))?.whole()?;
    let offsets: Vec<i64> = committed[0].offsets.iter().map(|o| o.offset).collect();
    // It had read on in the first partition, and is back at the cut.
    ensure!(offsets == [source.between[0].logs[&0].end_offset], "{offsets:?}");
    ensure!(begun.elapsed() < LIMIT, "it took {:?}", begun.elapsed());
    Ok(())
}

fn selected(source: &Source) -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let client = plain_client(&cluster.bootstrap())?;
    let some = ["--topics", "plain", "--rename", "plain=some", "--parts", "none"];
    let extra = [&some[..], &["--partitions", "plain=1", "--offsets", "plain-1=100..517"]].concat();
    let plan = source.restored(&cluster, &source.plan("some"), &extra)?;
    let found = TopicLogs::read(&client, &["some"])?;
    let (left_out, chosen) = (&found[0].logs[&0], &found[0].logs[&1]);
    let end = source.all[0].logs[&0].end_offset;
    ensure!((left_out.start_offset, left_out.end_offset) == (end, end), "{plan}");
    ensure!(chosen.start_offset == 100, "from {}", chosen.start_offset);
    // A batch is not cut in two.
    ensure!((490..=517).contains(&chosen.end_offset), "up to {}", chosen.end_offset);
    let whole = &source.all[0].logs[&1].batches;
    let at = whole.windows(chosen.batches.len()).position(|window| window == chosen.batches);
    ensure!(at.is_some_and(|at| at > 0), "other batches");

    // The second round's records claim to be older: these are the first one's.
    let since = (source.between_ms - 3_600_000).to_string();
    let later = ["--topics", "plain", "--rename", "plain=later", "--parts", "none", "--since", &since];
    source.restored(&cluster, &source.plan("later"), &later)?;
    let found = TopicLogs::read(&client, &["later"])?;
    let first = found[0].logs.get(&0).context("no partition")?;
    ensure!(
        first.start_offset == 0 && first.end_offset == end,
        "{} {}",
        first.start_offset,
        first.end_offset
    );
    let nothing = (now_ms()? + 3_600_000).to_string();
    let none = ["--topics", "plain", "--rename", "plain=none", "--parts", "none", "--since", &nothing];
    source.restored(&cluster, &source.plan("none"), &none)?;
    let found = TopicLogs::read(&client, &["none"])?;
    ensure!(found[0].logs.values().all(|log| log.start_offset == log.end_offset), "something came");
    ensure!(found[0].logs[&0].end_offset == end, "offsets would come twice");
    Ok(())
}
