//! Each store that is not a directory or S3, in short: a broker tiers to it and reads back, an archiver archives to it, a
//! cluster is restored from it. All suites run on each by `cargo xtask test --store`.

use anyhow::{Context, Result, ensure};
use varve_tests::raw_admin::commit;
use varve_tests::{
    At, Cluster, Consume, Produce, Scratch, StoreKind, Suite, TestArchive, Tier, TopicLogs, ended, has_left,
    plain_client, runtime, same_logs,
};

const TOPICS: [&str; 2] = ["tiered", "plain"];
const GROUP: &str = "billing";
const COMMITTED: i64 = 1234;

pub(crate) fn suite() -> Suite {
    Suite::new()
        .test("gcs_tiers_archives_and_restores", || whole(StoreKind::Gcs))
        .test("azure_tiers_archives_and_restores", || whole(StoreKind::Azure))
}

fn whole(kind: StoreKind) -> Result<()> {
    let scratch = Scratch::new("stores")?;
    let tier = Tier::on(kind, &scratch.path().join("tier"))?;
    let source = Cluster::builder().tier(&tier).start()?;
    tiered(&source, &tier)?;
    let archive = archived(&source, kind, &scratch)?;
    let logs = TopicLogs::read(&plain_client(&source.bootstrap())?, &TOPICS)?;
    source.delete_topic_and_tier(TOPICS[0], &tier)?;
    drop(source);
    restored(&archive, &logs, &scratch)
}

/// In one part and in several, and read where nothing is cached any more.
fn tiered(cluster: &Cluster, tier: &Tier) -> Result<()> {
    let kafka = cluster.client();
    kafka.create_tiered_topic(TOPICS[0], 1, &[("segment.bytes", "10485760")])?;
    let produce = Produce { count: 5000, value_bytes: 5000, batch_bytes: 262_144, ..Produce::default() };
    kafka.produce(TOPICS[0], &produce)?;
    let local_from = cluster.wait_tiered(TOPICS[0], 0)?;
    ensure!(local_from > 2000, "only {local_from} records left the disk");
    cluster.wait_settled(tier)?;
    cluster.broker().restart()?;
    ensure!(kafka.offset(TOPICS[0], 0, At::Earliest)? == 0, "the topic begins later");
    ensure!(kafka.consume_all(TOPICS[0])?.count == produce.count, "not all of it");
    kafka.consume(TOPICS[0], &Consume { from: 777, ..Consume::default() })?.is_whole()?;
    // What a listing brings is what is there.
    let segments = kafka.finished_segments(TOPICS[0], 0)?;
    let (stored, id) = (tier.list()?, &cluster.id);
    for segment in &segments {
        let size = stored.get(&segment.object_key(id)).context("a segment without an object")?;
        ensure!(*size > segment.size_bytes, "{size} bytes of {segment:?}");
    }
    Ok(())
}

/// Twice, since the second one finds an archive.
fn archived(cluster: &Cluster, kind: StoreKind, scratch: &Scratch) -> Result<TestArchive> {
    let kafka = cluster.client();
    kafka.create_topic(TOPICS[1], 2, 1, &[])?;
    let tier = Tier::on(kind, &scratch.path().join("archive"))?;
    let source = format!("source: {{ bootstrap.servers: \"{}\" }}", cluster.bootstrap());
    let topics = format!("topics: {{ include: [{}] }}", TOPICS.join(", "));
    let archive = TestArchive::on(tier, scratch.path(), &source, &topics)?;
    let client = plain_client(&cluster.bootstrap())?;
    runtime()?.block_on(commit(&client, GROUP, &TOPICS[1..], COMMITTED, ""))?;
    for seed in 0..2 {
        for partition in 0..2 {
            kafka.produce(TOPICS[1], &Produce { partition, seed, ..Produce::default() })?;
        }
        archive.run_once(&[])?;
    }
    // Connections end with the runtime that opened them: another client.
    let compared = archive.compare(&plain_client(&cluster.bootstrap())?, &TOPICS)?;
    ensure!(compared.partitions == 3 && compared.gaps == 0 && compared.objects >= 5, "{compared:?}");
    archive.verify()?;
    println!("{compared:?}");
    Ok(archive)
}

fn restored(archive: &TestArchive, logs: &[TopicLogs], scratch: &Scratch) -> Result<()> {
    let target = Cluster::builder().start()?;
    let mut restore = archive.varve(&["restore", "--from", &archive.url(), "--to", &target.bootstrap()])?;
    restore.args(["--controller", &target.controllers(), "--yes", "--plan"]);
    restore.arg(scratch.path().join("stores.plan"));
    ended(restore, 0)?;
    same_logs(logs, &TopicLogs::read(&plain_client(&target.bootstrap())?, &TOPICS)?)?;
    let client = plain_client(&target.bootstrap())?;
    let committed = runtime()?.block_on(client.committed_offsets(&[GROUP.to_owned()]))?.whole()?;
    let offsets: Vec<i64> = committed.iter().flat_map(|g| &g.offsets).map(|o| o.offset).collect();
    ensure!(offsets == [COMMITTED], "{offsets:?}");
    has_left(&target)
}
