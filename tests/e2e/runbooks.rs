//! The pages of `docs/runbooks` on real brokers: their commands as they stand there, and between these what the pages
//! leave to people and fate. At the end holds what each promises.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_tests::raw_admin::{commit, join_classic};
use varve_tests::{
    Cluster, KAFKA_VERSION, KAFKA_VERSIONS, Look, Produce, Restoring, Runbook, Running, Scratch, Suite,
    TestArchive, Tier, TopicLogs, Transactions, ended, eventually, has_left, kafka_jars, of_plan,
    plain_client, restore_from, runtime, same_logs, varve, while_producing, writers_go_on,
};

/// All that there are, in the order of their names.
const PAGES: [&str; 7] = [
    "README.md",
    "bad-data.md",
    "drill.md",
    "moving.md",
    "stopped-half-way.md",
    "topic-deleted.md",
    "total-loss.md",
];
/// Of the pages.
const ORDERS: &str = "orders";
const PAYMENTS: &str = "payments";
const GROUP: &str = "billing";

const PARTITIONS: u32 = 3;
const RECORDS: u64 = 500;
/// Where the group is, in the first partition of the orders.
const COMMITTED: i64 = 300;
/// Records of the first partition that come when its topic, or all of them, are about to be lost.
const LATE: u64 = 20;
const RETENTION: (&str, &str) = ("retention.ms", "604800000");
/// Objects of a partition.
const EXTRA: &str = "topics: { include: [\"*\"] }
segments: { bytes: 1MiB, min.bytes: 128KiB }";
/// The orders take half a minute and more, and the payments are through before.
const SLOWLY: [&str; 2] = ["--throttle", "30KiB"];
/// A journal that is not waited for.
const SOON: &str = "1s";
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn suite() -> Suite {
    Suite::new()
        .test("each_page_is_carried_out", all_pages)
        .test("total_loss", total_loss)
        .test("topic_deleted", topic_deleted)
        .test("stopped_half_way", stopped_half_way)
        .test("moving", moving)
        .test("bad_data", bad_data)
        .test("drill", drill)
}

/// A cluster that is archived all the time.
struct Source {
    cluster: Cluster,
    archiver: Running,
    left: Left,
}

/// What remains of it when it is lost.
struct Left {
    archive: TestArchive,
    logs: Vec<TopicLogs>,
    scratch: Scratch,
}

impl Source {
    fn start(rpo: &str) -> Result<Self> {
        let cluster = Cluster::builder().start()?;
        create(&cluster)?;
        write(&cluster, 0)?;
        let scratch = Scratch::new("runbook")?;
        let extra = format!("{EXTRA}\njournal: {{ rpo: {rpo} }}");
        let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), &extra)?;
        let archiver = archive.start(&scratch.path().join("archiver.log"), &[])?;
        let logs = read(&cluster, &[ORDERS, PAYMENTS])?;
        Ok(Self { cluster, archiver, left: Left { archive, logs, scratch } })
    }

    /// With its archiver, and all machines.
    fn lose(self) -> Left {
        self.cluster.nodes.iter().for_each(|node| node.kill());
        self.archiver.kill();
        self.left
    }
}

impl Left {
    /// One more; its number.
    fn snapshot(&self) -> Result<u64> {
        let mut command = varve()?;
        command.args(["archive", "snapshot", "-c"]).arg(self.archive.config());
        ended(command, 0)?;
        newest(&self.archive)
    }

    /// Records of which the archive has the last, and no snapshot any.
    fn come_late(&mut self, cluster: &Cluster) -> Result<()> {
        let few = Produce { seed: 77, count: LATE, ..Produce::default() };
        cluster.client().produce(ORDERS, &few)?;
        self.logs = read(cluster, &[ORDERS, PAYMENTS])?;
        let end_offset = self.logs[0].logs[&0].end_offset;
        eventually("the last are archived", LIMIT, || {
            let mut command = varve()?;
            command.args(["ls", &self.archive.url(), "orders:0", "--snapshot", "now", "--json"]);
            let listed: Value = serde_json::from_str(&ended(command, 0)?.0)?;
            Ok(Look::when(listed["end_offset"] == end_offset, (), listed))
        })
    }

    fn page(&self, name: &str, target: &Cluster) -> Result<Runbook> {
        Runbook::open(name, self.scratch.path(), &values(self.archive.url(), target))
    }

    /// For a page whose commands name the archiver's configuration.
    fn bring_config(&self, page: &Runbook) -> Result<()> {
        Ok(std::os::unix::fs::symlink(self.archive.config(), page.dir().join("archive.yaml"))?)
    }
}

fn values(url: String, target: &Cluster) -> [(&'static str, String); 3] {
    [
        ("s3://backups/kafka", url),
        ("broker-1:9092", target.bootstrap()),
        ("controller-1:9093", target.controllers()),
    ]
}

fn newest(archive: &TestArchive) -> Result<u64> {
    archive.newest_snapshot()?["sequence"].as_u64().context("a snapshot without a number")
}

fn create(cluster: &Cluster) -> Result<()> {
    let kafka = cluster.client();
    kafka.create_topic(ORDERS, PARTITIONS, 1, &[RETENTION])?;
    kafka.create_topic(PAYMENTS, 1, 1, &[RETENTION])?;
    Ok(())
}

/// Once more of everything.
fn write(cluster: &Cluster, round: u64) -> Result<()> {
    write_orders(cluster, round)?;
    let transactions = Transactions {
        transactional_id: "t-0".to_owned(),
        transactions: 5,
        records_per_transaction: 10,
        abort_every: 3,
        seed: round,
        value_bytes: 200,
        partition: 0,
    };
    cluster.client().produce_transactions(PAYMENTS, &transactions)?;
    commit_at(cluster, ORDERS, COMMITTED)
}

fn write_orders(cluster: &Cluster, round: u64) -> Result<()> {
    for partition in 0..PARTITIONS {
        let seed = round * 10 + u64::from(partition);
        let records = Produce { partition, seed, count: RECORDS, ..Produce::default() };
        cluster.client().produce(ORDERS, &records)?;
    }
    Ok(())
}

fn read(cluster: &Cluster, topics: &[&str]) -> Result<Vec<TopicLogs>> {
    TopicLogs::read(&plain_client(&cluster.bootstrap())?, topics)
}

/// Connections end with the runtime that opened them: a client of its own.
fn commit_at(cluster: &Cluster, topic: &str, offset: i64) -> Result<()> {
    let client = plain_client(&cluster.bootstrap())?;
    runtime()?.block_on(commit(&client, GROUP, &[topic], offset, ""))
}

/// The group goes on there, in the first partition.
fn group_is_at(cluster: &Cluster, topic: &str, offset: i64) -> Result<()> {
    let client = plain_client(&cluster.bootstrap())?;
    let groups = runtime()?.block_on(client.committed_offsets(&[GROUP.to_owned()]))?.whole()?;
    let offsets = groups.iter().flat_map(|group| &group.offsets);
    let found: Vec<i64> =
        offsets.filter(|at| at.topic == topic && at.partition == 0).map(|at| at.offset).collect();
    ensure!(found == [offset], "{GROUP} is at {found:?} in {topic}, not {offset}");
    Ok(())
}

/// All is as it was, and whoever writes and reads goes on.
fn is_back(target: &Cluster, logs: &[TopicLogs]) -> Result<()> {
    has_left(target)?;
    same_logs(logs, &read(target, &[ORDERS, PAYMENTS])?)?;
    group_is_at(target, ORDERS, COMMITTED)?;
    writers_go_on(target, logs, &[ORDERS], PAYMENTS)
}

/// A release has given a topic its retention.
fn is_released(page: &Runbook, target: &Cluster, topic: &str) -> Result<()> {
    let describe = format!("kafka-topics.sh --bootstrap-server {} --describe --topic", target.bootstrap());
    let described = page.shell(&format!("{describe} {topic}"), 0)?;
    ensure!(described.out.contains(&format!("{}={}", RETENTION.0, RETENTION.1)), "{described:?}");
    Ok(())
}

fn all_pages() -> Result<()> {
    let pages = Runbook::pages()?;
    ensure!(pages == PAGES, "{pages:?}");
    Ok(())
}

fn total_loss() -> Result<()> {
    let mut source = Source::start(SOON)?;
    source.left.snapshot()?;
    let mut before = source.left.page("README.md", &source.cluster)?;
    let listed = before.run("", "varve snapshots", 0)?;
    ensure!(listed.out.contains("cluster state"), "{listed:?}");
    before.run("", "varve verify", 0)?;
    before.done()?;
    source.left.come_late(&source.cluster)?;
    let lost = source.lose();

    let target = Cluster::builder().start()?;
    let mut page = lost.page("total-loss.md", &target)?;
    lost.bring_config(&page)?;
    let said = page.run("1", "varve archive snapshot", 0)?;
    page.shows("1", &said, &[])?;
    let number = newest(&lost.archive)?;
    page.value("412", number)?;
    let listed = page.run("3", "varve snapshots", 0)?;
    ensure!(listed.out.contains(" yes ") && listed.out.contains(" earlier "), "no state: {listed:?}");
    let said = page.run("3", "varve snapshots", 0)?;
    ensure!(said.out.starts_with(&format!("snapshot {number} ")), "{said:?}");
    page.run("4", "varve verify", 0)?;
    page.run("5", "varve restore --from", 0)?;
    let applied = page.run("6", "varve restore apply", 0)?;
    page.shows("6", &applied, &["copying"])?;
    let unavailable = page.run("7", "kafka-topics.sh", 0)?;
    ensure!(unavailable.out.trim().is_empty(), "{unavailable:?}");
    let described = page.run("7", "kafka-topics.sh", 0)?;
    ensure!(described.out.matches("Leader: 1").count() == PARTITIONS as usize, "{described:?}");
    let group = page.run("7", "kafka-consumer-groups.sh", 0)?;
    ensure!(group.out.contains(&COMMITTED.to_string()), "{group:?}");
    is_back(&target, &lost.logs)?;
    page.run("10", "varve restore release", 0)?;
    page.run("10", "varve restore release", 0)?;
    is_released(&page, &target, ORDERS)?;
    page.done()
}

fn topic_deleted() -> Result<()> {
    let Source { cluster, archiver, mut left } = Source::start(SOON)?;
    let mut page = left.page("topic-deleted.md", &cluster)?;
    left.bring_config(&page)?;
    let (number, at_snapshot) = (left.snapshot()?, read(&cluster, &[ORDERS])?);
    page.value("411", number)?;
    left.come_late(&cluster)?;
    let (kafka, logs) = (cluster.client(), &left.logs);
    kafka.delete_topic(ORDERS)?;
    archiver.kill();

    let gone = page.run("1", "kafka-topics.sh", 1)?;
    ensure!(gone.out.contains("does not exist"), "{gone:?}");
    page.run("2", "varve archive snapshot", 0)?;
    let listed = page.run("2", "varve ls s3://backups/kafka orders", 0)?;
    ensure!(
        listed.out.contains("found to be deleted at") && listed.out.contains("journal end"),
        "{listed:?}"
    );
    let planned = page.run("3", "varve restore --from", 0)?;
    page.shows("3", &planned, &[])?;
    // A member that reads another topic is one that is in the way.
    let member_runtime = runtime()?;
    let client = plain_client(&cluster.bootstrap())?;
    let member = member_runtime.block_on(join_classic(&client, GROUP, PAYMENTS))?;
    let busy = "clicks";
    kafka.create_topic(busy, 1, 1, &[])?;
    let applied = while_producing(&cluster, busy, 1, || page.run("4", "varve restore apply", 1))?;
    ensure!(applied.out.contains("group billing was not committed"), "{applied:?}");
    member_runtime.block_on(member.leave());
    page.run("5", "varve restore apply", 0)?;
    kafka.consume_all(busy)?;
    has_left(&cluster)?;
    same_logs(&logs[..1], &read(&cluster, &[ORDERS])?)?;
    group_is_at(&cluster, ORDERS, COMMITTED)?;
    writers_go_on(&cluster, &logs[..1], &[ORDERS], PAYMENTS)?;
    page.run("7", "varve restore release", 0)?;
    page.run("7", "varve restore release", 0)?;
    is_released(&page, &cluster, ORDERS)?;
    // To the archiver it is another topic.
    left.archive.run_once(&[])?;
    left.archive.compare(&plain_client(&cluster.bootstrap())?, &[ORDERS])?;

    // So the old one's name is taken by now.
    let below = "If a new one has taken its name";
    page.value("412", newest(&left.archive)?)?;
    page.run(below, "varve snapshots", 0)?;
    let differs = page.run(below, "varve diff", 0)?;
    ensure!(differs.out.contains(&logs[0].topic_id), "{differs:?}");
    ensure!(page.run(below, "varve ls", 0)?.out.contains(&logs[0].topic_id), "the id is not listed");
    page.run(below, "varve restore --from", 0)?;
    page.shell("varve restore apply beside.plan --yes", 0)?;
    let beside = "orders-restored";
    for (partition, log) in &read(&cluster, &[beside])?[0].logs {
        ensure!(*log == at_snapshot[0].logs[partition], "{partition} is another");
    }
    group_is_at(&cluster, beside, COMMITTED)?;
    page.done()
}

/// One that is slow enough to be stopped: the payments are handed over, the orders are not.
fn stop_half_way(lost: &Left, target: &Cluster, plan: &Path, signal: i32) -> Result<()> {
    let command = restore_from(&lost.archive.url(), target, plan, &SLOWLY)?;
    let mut restoring = Restoring::start(command, plan)?;
    restoring.wait_begun(target.broker(), ORDERS)?;
    eventually("the payments are handed over", LIMIT, || {
        let info = target.client().describe_topic(PAYMENTS)?;
        let replicas = &info.partitions.first().context("no partition")?.replicas;
        Ok(Look::when(replicas == &[1], (), &info))
    })?;
    ensure!(restoring.is_running()?, "it has ended: {}", restoring.said());
    restoring.signal(signal)?;
    restoring.wait().map(drop)
}

fn forget(target: &Cluster, topics: &[&str], plan: &Path) -> Result<()> {
    topics.iter().try_for_each(|topic| target.client().delete_topic(topic))?;
    for file in [plan.to_owned(), beside(plan, ".done")] {
        std::fs::remove_file(file)?;
    }
    Ok(())
}

fn beside(plan: &Path, ending: &str) -> PathBuf {
    let mut name = plan.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn stopped_half_way() -> Result<()> {
    let source = Source::start(SOON)?;
    source.left.snapshot()?;
    let lost = source.lose();
    let target = Cluster::builder().start()?;
    let mut page = lost.page("stopped-half-way.md", &target)?;
    let plan = page.dir().join("lost.plan");
    stop_half_way(&lost, &target, &plan, libc::SIGKILL)?;
    go_on(&mut page, &lost, &target)?;
    // The group's offsets go with the topics that they are in.
    forget(&target, &[ORDERS, PAYMENTS], &plan)?;
    stop_half_way(&lost, &target, &plan, libc::SIGTERM)?;
    take_back(&mut page, &target)?;
    forget(&target, &[PAYMENTS], &plan)?;
    stop_half_way(&lost, &target, &plan, libc::SIGKILL)?;
    forget(&target, &[], &plan)?;
    without_the_plan(&mut page, &target)?;

    Restoring::start(restore_from(&lost.archive.url(), &target, &plan, &[])?, &plan)?.finish()?;
    is_back(&target, &lost.logs)?;
    page.done()
}

/// Its last object of the orders is damaged, and put back from a copy.
fn go_on(page: &mut Runbook, lost: &Left, target: &Cluster) -> Result<()> {
    let unavailable = eventually("the killed one counts as dead", LIMIT, || {
        let said = page.run("2", "kafka-topics.sh", 0)?.out;
        Ok(Look::when(said.contains("Replicas: 1,990000"), said.clone(), said))
    })?;
    ensure!(!unavailable.contains(PAYMENTS), "{unavailable}");
    let moving = page.run("2", "kafka-reassign-partitions.sh", 0)?;
    ensure!(moving.out.contains("orders-0: replicas: 1,990000"), "{moving:?}");

    let chain = lost.archive.chain(&lost.logs[0].topic_id, 2, 0)?;
    let (tier, object) = (lost.archive.tier(), &chain.last().context("the orders have no object")?.key);
    let whole = damage(tier, object)?;
    let name = object.rsplit('/').next().context("no name")?.to_owned();
    let failed = page.run("4", "varve restore apply", 2)?;
    ensure!(failed.err.contains(&name), "{failed:?}");
    page.shows("1", &failed, &[])?;
    let verified = page.run("Causes", "varve verify", 1)?;
    ensure!(verified.out.contains(&name), "{verified:?}");
    tier.write(object, &whole)?;

    let applied = page.run("4", "varve restore apply", 0)?;
    ensure!(applied.out.contains("resumed") && applied.out.contains("verified"), "{applied:?}");
    page.run("Causes", "varve restore verify", 0)?;
    has_left(target)?;
    same_logs(&lost.logs, &read(target, &[ORDERS, PAYMENTS])?)?;
    group_is_at(target, ORDERS, COMMITTED)?;
    commit_at(target, ORDERS, COMMITTED + 1)?;
    let differs = page.run("Something differs", "varve restore verify", 1)?;
    ensure!(differs.out.contains("differs") && differs.out.contains(GROUP), "{differs:?}");
    Ok(())
}

fn take_back(page: &mut Runbook, target: &Cluster) -> Result<()> {
    let shown = page.run("5", "varve restore cleanup", 0)?;
    ensure!(shown.out.contains(ORDERS), "{shown:?}");
    target.client().describe_topic(ORDERS).context("a dry run takes nothing back")?;
    let taken = page.run("5", "varve restore cleanup", 0)?;
    page.shows("5", &taken, &[])?;
    ensure!(target.client().describe_topic(ORDERS).is_err(), "the orders are still there");
    has_left(target)
}

fn without_the_plan(page: &mut Runbook, target: &Cluster) -> Result<()> {
    let step = "Without the plan";
    let unfinished = page.run(step, "kafka-topics.sh", 0)?;
    ensure!(unfinished.out.lines().all(|line| line.contains("Topic: orders")), "{unfinished:?}");
    page.run(step, "kafka-topics.sh", 0)?;
    page.run(step, "kafka-cluster.sh", 0)?;
    has_left(target)?;
    target.client().delete_topic(PAYMENTS)
}

/// One byte in the midst of an object is another; what it was before.
fn damage(tier: &Tier, object: &str) -> Result<Vec<u8>> {
    let whole = tier.read(object)?;
    tier.flip(object, whole.len() / 2)?;
    Ok(whole)
}

fn moving() -> Result<()> {
    let old = Cluster::builder().version(KAFKA_VERSIONS[0]).start()?;
    create(&old)?;
    // 4.2 doesn't know it.
    old.client().alter_topic(ORDERS, &[("message.timestamp.difference.max.ms", "86400000")])?;
    write(&old, 0)?;
    let new = Cluster::builder().start()?;
    let scratch = Scratch::new("runbook")?;
    let archive = TestArchive::new(scratch.path(), &old.bootstrap(), "")?;
    let mut page = Runbook::open("moving.md", scratch.path(), &values(archive.url(), &new))?;
    page.value("old-broker-1:9092", old.bootstrap())?;

    page.run("Before 1", "kafka-configs.sh", 0)?;
    page.file("Before 3", "archive.yaml", "journal: { rpo: 1s }")?;
    open_store(&page, &archive)?;
    page.run("Before 3", "varve config check", 0)?;
    let archiver = page.start("Before 3", "varve archive run", "archiver.log")?;
    eventually("the archive is near", LIMIT, || page.run("Before 3", "varve diff", 0).map(Look::Done))?;
    rehearse(&mut page, &new)?;
    write(&old, 1)?;

    let day = |step: u32| format!("The day {step}");
    let ends = page.run(&day(1), "kafka-get-offsets.sh", 0)?;
    ensure!(ends.out.contains("orders:0:1000"), "{ends:?}");
    let groups = page.run(&day(2), "kafka-consumer-groups.sh", 0)?;
    let is_empty = |said: &str| said.contains("Consumer group 'billing' has no active members");
    ensure!(is_empty(&groups.out) || is_empty(&groups.err), "{groups:?}");
    let last = page.run(&day(3), "varve archive snapshot", 0)?;
    page.shows(&day(3), &last, &[])?;
    ensure!(archiver.terminate()?.success(), "the archiver failed");
    // Without one that runs, it is one's own.
    page.run(&day(3), "varve archive run", 0)?;
    page.value("412", newest(&archive)?)?;
    let said = page.run(&day(4), "varve snapshots", 0)?;
    let is_flaw = |line: &str| line.starts_with("lagging") || line.starts_with("problem");
    ensure!(!said.out.lines().any(is_flaw), "{said:?}");
    let logs = read(&old, &[ORDERS, PAYMENTS])?;
    page.run(&day(5), "varve restore --from", 0)?;
    let applied = page.run(&day(5), "varve restore apply", 0)?;
    ensure!(applied.out.contains("are the archive's byte for byte"), "{applied:?}");
    is_back(&new, &logs)?;
    page.run(&day(8), "varve restore release", 0)?;
    page.run(&day(8), "varve restore release", 0)?;
    is_released(&page, &new, ORDERS)?;
    // Nothing is unfinished, so nothing goes.
    let back = page.run("The way back", "varve restore cleanup", 0)?;
    ensure!(back.out.contains("stays       orders") && !back.out.contains("deleted"), "{back:?}");
    has_left(&new)?;
    page.done()
}

/// What the store asks for, in the configuration that the page wrote.
fn open_store(page: &Runbook, archive: &TestArchive) -> Result<()> {
    let file = page.dir().join("archive.yaml");
    let settings = archive.tier().settings();
    let settings: String = settings.iter().map(|(key, value)| format!("{key}: \"{value}\", ")).collect();
    let text = std::fs::read_to_string(&file)?;
    Ok(std::fs::write(&file, text.replace("archive: { ", &format!("archive: {{ {settings}")))?)
}

/// Into the new cluster, which is as empty as before afterwards.
fn rehearse(page: &mut Runbook, new: &Cluster) -> Result<()> {
    page.run("The day 3", "varve archive snapshot", 0)?;
    page.run("Before 4", "varve restore --from", 0)?;
    let report = std::fs::read(page.dir().join("rehearsal.plan.report.json"))?;
    let report: Value = serde_json::from_slice(&report)?;
    ensure!(report["rto_ms"].as_u64().is_some_and(|ms| ms > 0), "{report}");
    group_is_at(new, ORDERS, COMMITTED)?;
    for topic in [ORDERS, PAYMENTS] {
        new.client().delete_topic(topic)?;
    }
    let groups = format!("kafka-consumer-groups.sh --bootstrap-server {} --delete", new.bootstrap());
    page.shell(&format!("{groups} --group {GROUP}"), 0)?;
    page.run("Before 5", "varve verify", 0).map(drop)
}

/// As RFC 3339 has it, so long after now.
fn time(after_secs: i64) -> Result<String> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let output =
        Command::new("date").args(["-u", "+%FT%TZ", "-d", &format!("@{}", now + after_secs)]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn bad_data() -> Result<()> {
    let source = Source::start(SOON)?;
    // The archiver looks before and after; the cut is a whole second.
    sleep(Duration::from_secs(3));
    let (cluster, cut) = (&source.cluster, time(1)?);
    let mut page = source.left.page("bad-data.md", cluster)?;
    page.value("2026-03-02T14:05:00Z", cut)?;
    page.value("2026-03-02T14:00:00Z", time(-300)?)?;
    page.value("2026-03-02T14:10:00Z", time(300)?)?;
    sleep(Duration::from_secs(2));
    write_orders(cluster, 1)?;
    let end = i64::try_from(RECORDS)?;
    commit_at(cluster, ORDERS, end + 20)?;
    source.left.snapshot()?;

    let records = page.run("1", "varve cat", 0)?;
    let all = RECORDS * 2 * u64::from(PARTITIONS);
    ensure!(records.out.lines().count() as u64 == all, "{} records", records.out.lines().count());
    let planned = page.run("3", "varve restore --from", 0)?;
    ensure!(planned.out.contains("not as it was: orders-0"), "{planned:?}");
    page.run("4", "varve restore apply", 0)?;
    has_left(cluster)?;
    same_logs(&source.left.logs[..1], &read(cluster, &["orders-good"])?)?;
    group_is_at(cluster, "orders-good", end)?;
    page.run("7", "varve restore release", 0)?;
    is_released(&page, cluster, "orders-good")?;

    // Or the name is kept.
    cluster.client().delete_topic(ORDERS)?;
    let same_name = page.command("3", "varve restore --from")?.replace(" --rename orders=orders-good", "");
    page.shell(&same_name.replace("good.plan", "kept.plan"), 0)?;
    ended(of_plan("apply", &page.dir().join("kept.plan"), &["--yes"])?, 0)?;
    same_logs(&source.left.logs[..1], &read(cluster, &[ORDERS])?)?;
    group_is_at(cluster, ORDERS, end)?;
    writers_go_on(cluster, &source.left.logs[..1], &[ORDERS], PAYMENTS)?;
    page.done()
}

fn drill() -> Result<()> {
    let source = Source::start(SOON)?;
    source.left.snapshot()?;
    let lost = source.lose();
    let [opt, work, reports] = ["opt", "work", "reports"].map(|name| lost.scratch.path().join(name));
    for folder in [&opt.join("bin"), &work, &reports] {
        std::fs::create_dir_all(folder)?;
    }
    std::os::unix::fs::symlink(kafka_jars(KAFKA_VERSION)?, opt.join("libs"))?;
    let places = [("/opt/kafka", &opt), ("/mnt/drill", &work), ("/var/log/varve", &reports)];
    let places = places.map(|(example, folder)| (example, folder.display().to_string()));
    let archive = ("s3://backups/kafka", lost.archive.url());
    let mut page = Runbook::open("drill.md", lost.scratch.path(), &[&[archive][..], &places[..]].concat())?;

    let said = page.run("2", "varve drill", 0)?;
    page.shows("2", &said, &[])?;
    let report: Value = serde_json::from_slice(&std::fs::read(page.dir().join("drill.json"))?)?;
    ensure!(report["rpo_ms"].is_u64() && report["rto_ms"].is_u64(), "{report}");
    let partitions = report["verified"]["partitions"].as_array().context("nothing verified")?;
    ensure!(partitions.len() == PARTITIONS as usize + 1, "{report}");
    ensure!(partitions.iter().all(|p| p["sha256"].is_string()), "{report}");
    let left = |folder: &Path| Ok::<_, anyhow::Error>(std::fs::read_dir(folder)?.count());
    ensure!(left(&work)? == 0, "the drill leaves something behind");
    page.run("3", "varve drill", 0)?;
    ensure!(left(&reports)? == 1 && page.mails().is_empty(), "{}", page.mails());

    // Whatever the sample draws is among them.
    for logs in &lost.logs {
        for partition in logs.logs.keys() {
            for object in lost.archive.chain(&logs.topic_id, *partition, 0)? {
                damage(lost.archive.tier(), &object.key)?;
            }
        }
    }
    // A quiet topic is in the journal alone.
    for bundle in lost.archive.bundles()? {
        damage(lost.archive.tier(), &bundle)?;
    }
    page.run("3", "varve drill", 0)?;
    ensure!(page.mails().contains("the restore drill failed"), "{:?}", page.mails());
    let again = page.command("2", "varve drill")?;
    page.shell(&format!("{again} --keep"), 2)?;
    ensure!(left(&work)? == 1, "nothing is kept");
    page.shell(&format!("varve verify {}", lost.archive.url()), 1)?;
    page.done()
}
