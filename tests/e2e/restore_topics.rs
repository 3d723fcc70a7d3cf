//! `varve restore` of topics that are unlike most, into a cluster that lives: its brokers have two disks each, somebody
//! produces all the time, and others make topics meanwhile, some of which the controller places on us.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use varve_tests::raw_admin::create_topics;
use varve_tests::{
    Archived, At, Cluster, Consume, Produce, Shared, Suite, TopicLogs, Transactions, ended, has_left,
    plain_client, restore_from, runtime, same_logs, while_producing, writers_go_on,
};

const OPEN: &str = "open";
const APPENDED: &str = "append-time";
const EMPTIED: &str = "emptied";
const NOTHING: &str = "nothing";
const EPOCHS: &str = "epochs";
const BULK: &str = "bulk";
const TOPICS: [&str; 6] = [OPEN, APPENDED, EMPTIED, NOTHING, EPOCHS, BULK];
const BUSY: &str = "busy";
const BUSY_PARTITIONS: u32 = 2;
const DISKS: u32 = 2;
/// More by the environment, for a long run by hand.
const LEADER_EPOCHS: i32 = 60;
const BETWEEN_TOPICS: Duration = Duration::from_millis(150);
const BETWEEN_HASTY: Duration = Duration::from_millis(100);
/// Of others: every so manieth is written to at once.
const WRITTEN_EVERY: usize = 5;

pub(crate) fn suite() -> Suite {
    let world = Shared::new(World::start);
    Suite::new()
        .test_with(&world, "all_is_the_same_and_we_are_gone", same)
        .test_with(&world, "an_open_transaction_is_aborted_and_its_producer_goes_on", open_transaction)
        .test_with(&world, "times_of_appending_stay", append_time)
        .test_with(&world, "what_has_no_batch_keeps_its_offsets", without_batches)
        .test_with(&world, "leader_epochs_rise_to_those_of_the_log", epochs)
        .test_with(&world, "both_disks_have_something", disks)
        .test_with(&world, "topics_of_others_are_whole", others)
}

struct World {
    archived: Archived,
    /// Of the source: committed records, and where a time is found.
    committed: u64,
    time: (u64, i64),
    target: Cluster,
    plan: Value,
    report: Value,
    /// Topics that were made meanwhile.
    others: Vec<String>,
}

fn leader_epochs() -> Result<i32> {
    Ok(std::env::var("VARVE_RESTORE_EPOCHS").map_or(Ok(LEADER_EPOCHS), |n| n.parse())?)
}

impl World {
    fn start() -> Result<Self> {
        let source = Cluster::builder().start()?;
        write(&source)?;
        let archived = Archived::of(&source, &TOPICS)?;
        let kafka = source.client();
        let committed = kafka.consume(OPEN, &Consume { committed_only: true, ..Consume::default() })?.count;
        let time = append_times(&archived)?;
        let time = (time, kafka.offset(APPENDED, 0, At::Timestamp(time))?);
        drop(source);
        let target = Cluster::builder().nodes(3).disks(DISKS).start()?;
        target.client().create_topic(BUSY, BUSY_PARTITIONS, 3, &[])?;
        let path = archived.plan("living");
        let extra = ["--replication-factor", "3", "--throttle", "3MiB", "--json"];
        let command = restore_from(&archived.archive.url(), &target, &path, &extra)?;
        let restoring = || making_topics(&target, || ended(command, 0));
        let ((out, err), others) = while_producing(&target, BUSY, BUSY_PARTITIONS, restoring)
            .with_context(|| format!("see {:?}", target.logs()))?;
        ensure!(err.contains("was placed on us"), "nothing of others was: {err}");
        let plan = serde_json::from_slice(&std::fs::read(&path)?)?;
        Ok(Self { archived, committed, time, target, plan, report: serde_json::from_str(&out)?, others })
    }
}

fn write(source: &Cluster) -> Result<()> {
    let kafka = source.client();
    for topic in TOPICS {
        let kind = if topic == APPENDED { "LogAppendTime" } else { "CreateTime" };
        kafka.create_topic(topic, 1, 1, &[("message.timestamp.type", kind), ("retention.ms", "-1")])?;
    }
    // It is there before, so that its log can be put together while the broker is down.
    kafka.produce(EPOCHS, &Produce { count: 1, idempotent: false, ..Produce::default() })?;
    source.broker().stop()?;
    write_epochs(source)?;
    source.broker().start()?;
    kafka.produce(BULK, &Produce { count: 9000, ..Produce::default() })?;
    for seed in 0..3 {
        kafka.produce(APPENDED, &Produce { seed, count: 200, ..Produce::default() })?;
        thread::sleep(Duration::from_millis(20));
    }
    let emptied = kafka.produce(EMPTIED, &Produce::default())?;
    kafka.delete_records(EMPTIED, 0, emptied.last.unsigned_abs() + 1)?;
    let transactions = Transactions {
        transactional_id: "t-0".to_owned(),
        transactions: 10,
        records_per_transaction: 20,
        abort_every: 4,
        seed: 3,
        value_bytes: 200,
        partition: 0,
    };
    kafka.produce_transactions(OPEN, &transactions)?;
    // Its producer dies with the source.
    kafka.open_transaction(OPEN, &transactions)?;
    Ok(())
}

/// The one batch of the log again and again, each time under another epoch: its checksum covers neither that nor the
/// offset.
fn write_epochs(source: &Cluster) -> Result<()> {
    let node = source.broker();
    let dir = node.partition_dir(EPOCHS, 0);
    let file = dir.join(format!("{:020}.log", 0));
    let batch = std::fs::read(&file)?;
    let mut log = Vec::new();
    for epoch in 0..leader_epochs()? {
        let from = log.len();
        log.extend_from_slice(&batch);
        log[from..from + 8].copy_from_slice(&i64::from(epoch).to_be_bytes());
        log[from + 12..from + 16].copy_from_slice(&epoch.to_be_bytes());
    }
    std::fs::write(&file, log)?;
    for entry in std::fs::read_dir(&dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "index" || e == "timeindex" || e == "snapshot") {
            std::fs::remove_file(path)?;
        }
    }
    // As after a crash: the broker looks at its logs.
    std::fs::remove_file(node.log_dir().join(".kafka_cleanshutdown"))?;
    std::fs::remove_file(node.log_dir().join("recovery-point-offset-checkpoint"))?;
    Ok(())
}

/// The time of the second batch of those that the broker gave a time.
fn append_times(archived: &Archived) -> Result<u64> {
    let logs = archived.logs.iter().find(|logs| logs.topic == APPENDED).context("no such topic")?;
    let batches = varve_kafka::protocol::Batches::new(logs.logs[&0].batches.clone().into(), 0);
    let time = |bytes: &[u8]| bytes.get(35..)?.first_chunk().map(|time| i64::from_be_bytes(*time));
    let times: Vec<i64> =
        batches.map(|batch| time(&batch?.bytes).context("no largest time")).collect::<Result<_>>()?;
    Ok(times[times.len() / 2].unsigned_abs())
}

/// Runs `work` while topics are made: some in their time, with one replica and with three, and a great many in haste, up
/// to the last moment. Names of the first kind.
fn making_topics<T>(cluster: &Cluster, work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<String>)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let maker = scope.spawn(|| {
            let (kafka, mut names) = (cluster.client(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let name = format!("other-{}", names.len());
                let replicas = if names.len() % 2 == 0 { 1 } else { 3 };
                kafka.create_topic(&name, 1, replicas, &[("min.insync.replicas", "1")])?;
                if names.len() % WRITTEN_EVERY == 0 {
                    kafka.produce(&name, &Produce { count: 20, ..Produce::default() })?;
                }
                names.push(name);
                thread::sleep(BETWEEN_TOPICS);
            }
            Ok::<_, anyhow::Error>(names)
        });
        let hasty = scope.spawn(|| {
            let client = plain_client(&cluster.bootstrap())?;
            runtime()?.block_on(async {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        println!("{number} topics in haste");
                        break;
                    }
                    create_topics(&client, &[format!("hasty-{number}")]).await?;
                    tokio::time::sleep(BETWEEN_HASTY).await;
                }
                Ok::<_, anyhow::Error>(())
            })
        });
        let outcome = work();
        stop.store(true, Ordering::Relaxed);
        let names = maker.join().map_err(|_| anyhow!("the maker of topics panicked"))??;
        hasty.join().map_err(|_| anyhow!("the hasty one panicked"))??;
        Ok((outcome?, names))
    })
}

fn same(world: &World) -> Result<()> {
    ensure!(world.report["is_clean"] == true, "{}", world.report);
    has_left(&world.target)?;
    let logs = TopicLogs::read(&plain_client(&world.target.bootstrap())?, &TOPICS)?;
    // The first one has a marker more.
    same_logs(&world.archived.logs[1..], &logs[1..])
}

fn open_transaction(world: &World) -> Result<()> {
    let differences = world.plan["differences"].as_array().context("no differences")?;
    let named =
        |text: &Value| text.as_str().is_some_and(|t| t.contains("open-0: the transaction of producer"));
    ensure!(differences.iter().any(named), "{differences:?}");
    ensure!(world.report["applied"]["aborted_transactions"] == 1, "{}", world.report);
    let logs = TopicLogs::read(&plain_client(&world.target.bootstrap())?, &[OPEN])?;
    let (before, after) = (&world.archived.logs[0].logs[&0], &logs[0].logs[&0]);
    ensure!(after.batches.starts_with(&before.batches), "other batches than were archived");
    ensure!(after.end_offset == before.end_offset + 1, "{} then {}", before.end_offset, after.end_offset);
    // Behind the marker everything is stable.
    let committed = Consume { committed_only: true, ..Consume::default() };
    let kafka = world.target.client();
    let read = kafka.consume(OPEN, &committed)?;
    ensure!(read.complete && read.position == after.end_offset, "{read:?}");
    ensure!(read.count == world.committed, "{read:?}, of {} committed", world.committed);
    writers_go_on(&world.target, &[], &[], OPEN)?;
    let read = kafka.consume(OPEN, &committed)?;
    ensure!(read.complete && read.count > world.committed, "{read:?}");
    Ok(())
}

fn append_time(world: &World) -> Result<()> {
    let (time, offset) = world.time;
    let found = world.target.client().offset(APPENDED, 0, At::Timestamp(time))?;
    ensure!(found == offset && offset > 0, "{time} at {found}, not {offset}");
    let before: i64 = world.archived.logs[1].logs[&0].end_offset;
    let written = world
        .target
        .client()
        .produce(APPENDED, &Produce { timestamp_from: Some(1), ..Produce::default() })?;
    ensure!(written.first == before, "{written:?} behind {before}");
    // The broker's own time, whatever the producer says.
    ensure!(world.target.client().offset(APPENDED, 0, At::Timestamp(time))? == offset, "times went back");
    Ok(())
}

fn without_batches(world: &World) -> Result<()> {
    let [emptied, nothing] = [2, 3].map(|at| &world.archived.logs[at].logs[&0]);
    ensure!(emptied.start_offset == emptied.end_offset && emptied.end_offset > 0, "{emptied:?}");
    ensure!(nothing.end_offset == 0, "{nothing:?}");
    writers_go_on(&world.target, &world.archived.logs, &[EMPTIED, NOTHING], OPEN)
}

fn epochs(world: &World) -> Result<()> {
    let (last, cycles) = (leader_epochs()? - 1, world.report["applied"]["epoch_cycles"].as_i64());
    let client = plain_client(&world.target.bootstrap())?;
    let topic = runtime()?.block_on(client.topic(EPOCHS))?;
    let epoch = topic.partitions[0].leader_epoch;
    ensure!(epoch >= last, "leader epoch {epoch}, the log has {last}");
    let ms = world.report["applied"]["copying_ms"].as_i64();
    println!("{last} epochs in {cycles:?} rounds; {ms:?} ms of copying, RTO {}", world.report["rto_ms"]);
    let written = world.target.client().produce(EPOCHS, &Produce::default())?;
    ensure!(written.first == i64::from(last) + 1, "{written:?}");
    Ok(())
}

fn disks(world: &World) -> Result<()> {
    for node in &world.target.nodes {
        for disk in 0..DISKS {
            let names = std::fs::read_dir(node.disk(disk))?.map(|e| Ok(e?.file_name()));
            let names: Vec<_> = names.collect::<Result<_>>()?;
            let ours = |name: &std::ffi::OsString| {
                TOPICS.iter().any(|topic| name.to_str() == Some(&format!("{topic}-0")))
            };
            ensure!(names.iter().any(ours), "disk {disk} of broker {}: {names:?}", node.id);
        }
    }
    Ok(())
}

fn others(world: &World) -> Result<()> {
    let kafka = world.target.client();
    println!("{} topics of others", world.others.len());
    // How many there are is a matter of how long the restore takes.
    ensure!(world.others.len() > 1, "{:?}", world.others);
    for name in &world.others {
        kafka.produce(name, &Produce { count: 10, seed: 7, ..Produce::default() })?;
        kafka.consume_all(name)?;
    }
    for partition in 0..BUSY_PARTITIONS {
        let read = kafka.consume(BUSY, &Consume { partition, ..Consume::default() })?;
        read.is_whole()?;
    }
    Ok(())
}
