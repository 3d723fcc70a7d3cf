//! `varve archive import` on the data directories of real brokers: what a client could read is what is archived, byte
//! for byte, nothing of it twice, and nothing that was not committed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_kafka::protocol::{Batch, Batches};
use varve_tests::{
    At, Cluster, Look, Node, Produce, Scratch, Suite, TestArchive, TopicLogs, Transactions, archive_section,
    copy, eventually, plain_client, runtime,
};

const TOPICS: &str = "topics: { include: [\"*\"] }";
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn suite() -> Suite {
    let mut suite = Suite::new();
    for version in ["3.9.2", "4.3.0"] {
        suite = suite.test(&format!("kafka_{version}_every_kind_and_tars"), move || every_kind(version));
    }
    suite
        .test("import_and_service_take_turns", turns)
        .test("a_running_broker", running)
        .test("damaged_and_missing_files", damaged)
        .test("not_beyond_the_high_watermark", high_watermark)
        .test("an_unclean_election_makes_branches", unclean)
        .test("copies_stand_in_for_one_another", copies)
}

/// An archive whose configuration has no source.
fn archive_of_no_cluster(scratch: &Path, name: &str) -> Result<TestArchive> {
    let dir = scratch.join(name);
    fs::create_dir_all(&dir)?;
    let archive = TestArchive::new(&dir, "none:1", TOPICS)?;
    let section = archive_section(&archive.tier().rsm_config());
    fs::write(archive.config(), format!("{section}\n{TOPICS}\n"))?;
    Ok(archive)
}

fn import(archive: &TestArchive, directories: &[&Path], extra: &[&str]) -> Result<Imported> {
    let (code, lines, error) = archive.import(directories, extra)?;
    ensure!(code == 0, "exit code {code}\n{lines:#?}\n{error}");
    Ok(Imported(lines))
}

/// What an import printed.
#[derive(Debug)]
struct Imported(Vec<Value>);

impl Imported {
    fn sums(&self) -> Result<&Value> {
        self.0.last().context("nothing printed")
    }

    fn objects(&self) -> Result<u64> {
        self.sums()?["objects"].as_u64().context("objects")
    }

    fn of(&self, topic: &str, partition: u32) -> Result<&Value> {
        let is = |line: &&Value| line["topic"] == topic && line["partition"] == partition;
        self.0.iter().find(is).with_context(|| format!("nothing of {topic}-{partition}: {self:?}"))
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let lists = self.0.iter().filter_map(|line| line[key].as_array());
        lists.flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }
}

/// All objects of an archive but its snapshots and their manifests.
fn objects(archive: &TestArchive) -> Result<BTreeMap<String, u64>> {
    archive.tier().list_below("topics/")
}

fn produce_compacted(cluster: &Cluster, topic: &str) -> Result<()> {
    let kafka = cluster.client();
    let configs =
        [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")];
    kafka.create_topic(topic, 1, 1, &configs)?;
    for _ in 0..2 {
        kafka.produce(topic, &Produce { count: 2500, seed: 9, tombstone_every: 5, ..Produce::default() })?;
    }
    let checkpoint = cluster.broker().log_dir().join("cleaner-offset-checkpoint");
    let local = cluster.broker().local_segments(topic, 0)?;
    let active = local.last().copied().context("no segment")?;
    eventually("cleaned", LIMIT, || {
        let text = fs::read_to_string(&checkpoint).unwrap_or_default();
        Ok(Look::when(text.contains(&format!("{topic} 0 {active}")), (), text))
    })
}

const KINDS: [&str; 5] = ["plain", "transactions", "cut", "compacted", "empty"];

fn every_kind(version: &str) -> Result<()> {
    let builder = Cluster::builder().version(version);
    let cluster = builder.property("log.cleaner.backoff.ms", 200).start()?;
    let kafka = cluster.client();
    kafka.create_topic("plain", 6, 1, &[("segment.bytes", "1048576")])?;
    for (partition, compression) in (0..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        let produce = Produce {
            partition,
            compression,
            count: 3000,
            headers: 2,
            tombstone_every: 7,
            text: true,
            ..Produce::default()
        };
        kafka.produce("plain", &produce)?;
    }
    kafka.create_topic("transactions", 1, 1, &[("segment.bytes", "1048576")])?;
    let transactions = Transactions {
        transactional_id: "tx".to_owned(),
        transactions: 40,
        records_per_transaction: 50,
        abort_every: 3,
        seed: 7,
        value_bytes: 1000,
        partition: 0,
    };
    kafka.produce_transactions("transactions", &transactions)?;
    kafka.create_topic("cut", 1, 1, &[("segment.bytes", "1048576")])?;
    kafka.produce("cut", &Produce { count: 3000, ..Produce::default() })?;
    // In the midst of a batch.
    kafka.delete_records("cut", 0, 1777)?;
    kafka.create_topic("empty", 2, 1, &[])?;
    produce_compacted(&cluster, "compacted")?;
    let logs = TopicLogs::read(&plain_client(&cluster.bootstrap())?, &KINDS)?;
    cluster.stop_all()?;
    let node = cluster.broker();
    let unique = "0123456789abcdef0123456789abcdef";
    for name in [
        format!("plain-7.{unique}-delete"),
        format!("plain-8.{unique}-future"),
        format!("plain-9.{unique}-stray"),
    ] {
        fs::create_dir(node.log_dir().join(name))?;
    }

    let scratch = Scratch::new("import-kinds")?;
    let dir = node.log_dir();
    let archive = archive_of_no_cluster(scratch.path(), "all")?;
    // Nothing is written by a dry run, which says what would be.
    let planned = import(&archive, &[&dir], &["--include-active", "--dry-run"])?;
    let wrote = archive.tier().list()?.contains_key("archive.json");
    ensure!(!wrote && planned.objects()? == 0, "a dry run wrote");
    ensure!(planned.of("plain", 0)?["ranges"][0]["end_offset"] == 3000, "{planned:?}");
    let imported = import(&archive, &[&dir], &["--include-active"])?;
    let compared = archive.compare_with(&logs)?;
    ensure!(compared.partitions >= 8 && compared.bytes > 10 << 20 && compared.gaps == 1, "{compared:?}");
    let cut = archive.chain(&logs[2].topic_id, 0, 0)?;
    ensure!(
        cut[0].gap.as_ref().is_some_and(|gap| gap.contains("log-start")) && cut[1].first_offset() == 1777,
        "{cut:?}"
    );
    let text = format!("{imported:?}");
    ensure!(!text.contains("__transaction_state") && !text.contains("__cluster_metadata"), "{text}");
    let passed = imported.0.iter().filter(|line| line["passed_over"].is_string()).count();
    ensure!(passed == 3, "passed over {passed}: {text}");
    archive.verify()?;
    // Again: nothing new.
    let before = objects(&archive)?;
    ensure!(import(&archive, &[&dir], &["--include-active"])?.objects()? == 0, "something new");
    ensure!(objects(&archive)? == before, "the archive's objects changed");
    // Without the active segments: up to where they begin.
    let closed = archive_of_no_cluster(scratch.path(), "closed")?;
    import(&closed, &[&dir], &[])?;
    let active = node.local_segments("plain", 0)?.last().copied().context("no segment")?;
    let end = closed.chain(&logs[0].topic_id, 0, 0)?.last().map_or(0, |o| o.end_offset());
    ensure!(
        active > 0 && end == active.cast_signed(),
        "archived to {end}, the active segment begins at {active}"
    );
    // And the rest later.
    import(&closed, &[&dir], &["--include-active"])?;
    ensure!(closed.compare_with(&logs)?.bytes == compared.bytes, "closed first, then the rest");
    tars(scratch.path(), &dir, &logs, compared.bytes)
}

fn tars(scratch: &Path, dir: &Path, logs: &[TopicLogs], bytes: u64) -> Result<()> {
    let has_zstd = Command::new("zstd").arg("--version").output().is_ok();
    let kinds = [("tar", "--create"), ("tar.gz", "--gzip"), ("tar.zst", "--zstd")];
    for (name, option) in kinds.into_iter().filter(|(name, _)| *name != "tar.zst" || has_zstd) {
        let tar = scratch.join(format!("data.{name}"));
        let mut command = Command::new("tar");
        // Logs before the checkpoints that they are about: the order of names would be another.
        command.arg("--create").arg(option).arg("--file").arg(&tar).arg("--sort=name").arg("--directory");
        let status = command.arg(dir.parent().context("no parent")?).args(["./data"]).status()?;
        ensure!(status.success(), "tar: {status}");
        let archive = archive_of_no_cluster(scratch, name)?;
        import(&archive, &[&tar], &["--include-active"])?;
        let compared = archive.compare_with(logs)?;
        ensure!(compared.bytes == bytes, "{name}: {compared:?}");
    }
    Ok(())
}

fn turns() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 2, 1, &[("segment.bytes", "1048576")])?;
    let scratch = Scratch::new("import-turns")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), TOPICS)?;
    let client = plain_client(&cluster.bootstrap())?;
    let produce = |seed| {
        for partition in 0..2 {
            kafka.produce("t", &Produce { partition, seed, count: 2500, ..Produce::default() })?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let mut bytes = 0;
    for round in 0..4 {
        produce(round)?;
        let logs = TopicLogs::read(&client, &["t"])?;
        if round % 2 == 0 {
            cluster.stop_all()?;
            let imported = import(&archive, &[&cluster.broker().log_dir()], &["--include-active"])?;
            ensure!(imported.objects()? == 2, "round {round}: {imported:?}");
            cluster.start_all()?;
        } else {
            archive.run_once(&[])?;
            let imported =
                import(&archive, &[&cluster.broker().log_dir()], &["--include-active", "--online"])?;
            ensure!(imported.objects()? == 0, "round {round}: {imported:?}");
        }
        let compared = archive.compare_with(&logs)?;
        ensure!(compared.gaps == 0 && compared.bytes > bytes, "round {round}: {compared:?}");
        ensure!(compared.objects == 2 * (u64::from(round as u32) + 1), "round {round}: {compared:?}");
        bytes = compared.bytes;
    }
    archive.compare(&client, &["t"])?;
    archive.verify()
}

/// While a broker writes, rolls and deletes.
fn running() -> Result<()> {
    let cluster =
        Cluster::builder().property("replica.high.watermark.checkpoint.interval.ms", 300).start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 2, 1, &[("segment.bytes", "1048576")])?;
    kafka.create_topic("short", 1, 1, &[("segment.bytes", "1048576"), ("retention.bytes", "2097152")])?;
    let scratch = Scratch::new("import-running")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), TOPICS)?;
    let dir = cluster.broker().log_dir();
    let (code, _, error) = archive.import(&[&dir], &[])?;
    ensure!(code == 2 && error.contains("--online"), "exit code {code}: {error}");
    let stop = AtomicBool::new(false);
    let imports = thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut seed = 0;
            while !stop.load(Ordering::Relaxed) {
                let produce = Produce { seed, count: 400, ..Produce::default() };
                kafka.produce("t", &Produce { partition: u32::try_from(seed % 2)?, ..produce.clone() })?;
                kafka.produce("short", &produce)?;
                seed += 1;
            }
            Ok::<_, anyhow::Error>(seed)
        });
        let work = (|| {
            let mut objects = Vec::new();
            for _ in 0..12 {
                objects.push(import(&archive, &[&dir], &["--hot", "--include-active"])?.objects()?);
                thread::sleep(Duration::from_millis(700));
            }
            Ok::<_, anyhow::Error>(objects)
        })();
        stop.store(true, Ordering::Relaxed);
        producer.join().map_err(|_| anyhow::anyhow!("the producer panicked"))??;
        work
    })?;
    ensure!(imports.iter().filter(|objects| **objects > 0).count() > 6, "{imports:?}");
    archive.run_once(&[])?;
    let compared = archive.compare(&plain_client(&cluster.bootstrap())?, &["t", "short"])?;
    ensure!(compared.objects > 12, "{compared:?}");
    archive.verify()
}

fn log_file(dir: &Path, topic: &str, base: u64) -> PathBuf {
    dir.join(format!("{topic}-0/{base:020}.log"))
}

/// Changes one byte of a value, in the batch that lies there in a log. (Of its header not all is under its checksum.)
fn flip(file: &Path, position: u64) -> Result<()> {
    let mut batches = Batches::new(fs::read(file)?.into(), 0).collect::<Result<Vec<_>, _>>()?.into_iter();
    let batch = batches.rfind(|batch| batch.position <= position).context("no batch")?;
    let middle = batch.bytes.len() / 2;
    let byte = batch.bytes.get(middle).context("an empty batch")? ^ 0x10;
    let open = fs::OpenOptions::new().write(true).open(file)?;
    Ok(open.write_all_at(&[byte], batch.position + middle as u64)?)
}

/// Changes a value in the second batch, and makes its checksum anew. The batch's offset.
fn reseal(file: &Path) -> Result<i64> {
    let log = bytes::Bytes::from(fs::read(file)?);
    let batch = Batches::new(log, 0).nth(1).context("no second batch")??;
    let mut changed = batch.bytes.to_vec();
    let last = changed.len() - 20;
    changed[last] ^= 1;
    let crc = Batch { bytes: changed.clone().into(), ..batch.clone() }.crc_found();
    changed[17..21].copy_from_slice(&crc.to_be_bytes());
    fs::OpenOptions::new().write(true).open(file)?.write_all_at(&changed, batch.position)?;
    Ok(batch.header.base_offset)
}

fn damaged() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 1, &[("segment.bytes", "1048576")])?;
    kafka.produce("t", &Produce { count: 5000, ..Produce::default() })?;
    let logs = TopicLogs::read(&plain_client(&cluster.bootstrap())?, &["t"])?;
    let bases = cluster.broker().local_segments("t", 0)?;
    ensure!(bases.len() >= 5, "{bases:?}");
    cluster.stop_all()?;
    let topic_id = &logs[0].topic_id;
    let whole = logs[0].logs[&0].batches.len();
    let scratch = Scratch::new("import-damaged")?;

    let flipped = scratch.path().join("flipped");
    copy(&cluster.broker().log_dir(), &flipped)?;
    flip(&log_file(&flipped, "t", bases[1]), 500_000)?;
    let archive = archive_of_no_cluster(scratch.path(), "of-flipped")?;
    let (code, lines, error) = archive.import(&[&flipped], &["--include-active"])?;
    let said = Imported(lines);
    let why = said.of("t", 0)?["error"].as_str().unwrap_or_default().to_owned();
    ensure!(
        code == 1 && why.contains("CRC32C") && why.contains(&format!("{:020}.log", bases[1])),
        "{code} {why} {error}"
    );
    let end = archive.chain(topic_id, 0, 0)?.last().context("nothing archived")?.end_offset();
    ensure!(end > bases[1].cast_signed() && end < bases[2].cast_signed(), "it stopped at {end} of {bases:?}");
    let (code, lines, _) = archive.import(&[&flipped], &["--include-active", "--gap-corrupt"])?;
    ensure!(code == 1, "a gap is a finding: {lines:?}");
    let chain = archive.chain(topic_id, 0, 0)?;
    let gaps: Vec<_> = chain.iter().filter(|o| o.gap.is_some()).collect();
    ensure!(gaps.len() == 1 && gaps[0].first_offset() == end && gaps[0].end_offset() - end < 100, "{gaps:?}");
    ensure!(gaps[0].gap.as_ref().is_some_and(|gap| gap.contains("corrupt")), "{gaps:?}");
    let archived: usize = chain.iter().map(|o| o.log.len()).sum();
    ensure!(whole > archived && whole - archived < 17_000, "{archived} bytes of {whole}");
    ensure!(chain.last().is_some_and(|o| o.end_offset() == 5000), "not to the end");
    archive.verify()?;

    let missing = scratch.path().join("missing");
    copy(&cluster.broker().log_dir(), &missing)?;
    fs::remove_file(log_file(&missing, "t", bases[2]))?;
    let archive = archive_of_no_cluster(scratch.path(), "of-missing")?;
    let (code, lines, error) = archive.import(&[&missing], &["--include-active"])?;
    ensure!(code == 1, "{lines:?} {error}");
    let chain = archive.chain(topic_id, 0, 0)?;
    let gaps: Vec<_> =
        chain.iter().filter(|o| o.gap.is_some()).map(|o| (o.first_offset(), o.end_offset())).collect();
    ensure!(gaps == [(bases[2].cast_signed(), bases[3].cast_signed())], "{gaps:?} of {bases:?}");
    ensure!(chain.iter().any(|o| o.gap.as_ref().is_some_and(|gap| gap.contains("lost"))), "{chain:?}");
    ensure!(chain.last().is_some_and(|o| o.end_offset() == 5000), "not to the end");
    archive.verify()
}

/// Writes another high watermark than the broker's.
fn set_high_watermark(dir: &Path, topic: &str, offset: i64) -> Result<()> {
    let file = dir.join("replication-offset-checkpoint");
    let text = fs::read_to_string(&file)?;
    let lines = text.lines().map(|line| match line.rsplit_once(' ') {
        Some((partition, _)) if partition == format!("{topic} 0") => format!("{partition} {offset}"),
        _ => line.to_owned(),
    });
    Ok(fs::write(&file, lines.collect::<Vec<_>>().join("\n") + "\n")?)
}

fn high_watermark() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 1, &[("segment.bytes", "1048576")])?;
    kafka.produce("t", &Produce { count: 3000, ..Produce::default() })?;
    let logs = TopicLogs::read(&plain_client(&cluster.bootstrap())?, &["t"])?;
    cluster.stop_all()?;
    let dir = cluster.broker().log_dir();
    let scratch = Scratch::new("import-watermark")?;
    let archive = archive_of_no_cluster(scratch.path(), "a")?;
    set_high_watermark(&dir, "t", 1500)?;
    import(&archive, &[&dir], &["--include-active"])?;
    let end = archive.chain(&logs[0].topic_id, 0, 0)?.last().context("nothing archived")?.end_offset();
    ensure!((1400..=1500).contains(&end), "archived to {end}, which is not committed");
    // The rest, once it is.
    set_high_watermark(&dir, "t", 3000)?;
    import(&archive, &[&dir], &["--include-active"])?;
    ensure!(archive.compare_with(&logs)?.objects == 2, "two objects");
    // More than there is: what was never flushed is named.
    set_high_watermark(&dir, "t", 4000)?;
    let (code, lines, _) = archive.import(&[&dir], &["--include-active"])?;
    ensure!(code == 1 && Imported(lines).texts("findings").iter().any(|f| f.contains("4000")), "not named");
    archive.verify()
}

/// Ends brokers as a power cut does, once they have written down how far a partition is committed.
fn cut_off(cluster: &Cluster, ids: &[u32], committed: &str) -> Result<()> {
    for id in ids {
        let checkpoint = cluster.node(*id)?.log_dir().join("replication-offset-checkpoint");
        eventually("the high watermark on disk", LIMIT, || {
            let text = fs::read_to_string(&checkpoint)?;
            Ok(Look::when(text.lines().any(|line| line == committed), (), text))
        })?;
    }
    cluster.nodes.iter().for_each(Node::kill);
    Ok(())
}

fn unclean() -> Result<()> {
    let cluster = Cluster::builder()
        .nodes(3)
        .property("unclean.leader.election.enable", "true")
        .property("replica.high.watermark.checkpoint.interval.ms", 300)
        .start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 2, &[("min.insync.replicas", "1")])?;
    let client = plain_client(&cluster.bootstrap())?;
    kafka.produce("t", &Produce { count: 1000, seed: 1, ..Produce::default() })?;
    let leader = cluster.leader("t", 0)?.id;
    let replicas = kafka.describe_topic("t")?.partitions[0].replicas.clone();
    let follower = *replicas.iter().find(|id| **id != leader).context("no follower")?;
    cluster.node(follower)?.stop()?;
    eventually("out of the ISR", LIMIT, || {
        let isr = kafka.describe_topic("t")?.partitions[0].isr.clone();
        Ok(Look::when(!isr.contains(&follower), (), isr))
    })?;
    kafka.produce("t", &Produce { count: 1000, seed: 2, ..Produce::default() })?;
    let first = TopicLogs::read(&client, &["t"])?;
    let checkpoint = cluster.node(leader)?.log_dir().join("replication-offset-checkpoint");
    eventually("the high watermark on disk", LIMIT, || {
        let text = fs::read_to_string(&checkpoint)?;
        Ok(Look::when(text.contains("t 0 2000"), (), text))
    })?;
    cluster.node(leader)?.kill();
    cluster.node(follower)?.start()?;
    eventually("the one that was left behind leads", LIMIT, || {
        let now = kafka.describe_topic("t")?.partitions[0].leader;
        Ok(Look::when(u32::try_from(now).is_ok_and(|now| now == follower), (), now))
    })?;
    kafka.produce("t", &Produce { count: 300, seed: 3, ..Produce::default() })?;
    let second = TopicLogs::read(&client, &["t"])?;
    cut_off(&cluster, &[follower], "t 0 1300")?;
    let (old, new) = (cluster.node(leader)?.log_dir(), cluster.node(follower)?.log_dir());
    let topic_id = &first[0].topic_id;
    let old_bytes = &first[0].logs[&0].batches;
    let scratch = Scratch::new("import-unclean")?;

    // Whatever the order they are given in.
    for (name, dirs) in [("old-new", [&old, &new]), ("new-old", [&new, &old])] {
        let archive = archive_of_no_cluster(scratch.path(), name)?;
        let imported = import(&archive, &[dirs[0], dirs[1]], &["--include-active"])?;
        ensure!(!imported.texts("remarks").is_empty(), "nobody says that they differ: {imported:?}");
        ensure!(archive.branches(topic_id, 0)? == [0, 1], "{:?}", archive.branches(topic_id, 0)?);
        let branch: Vec<u8> = archive.chain(topic_id, 0, 0)?.into_iter().flat_map(|o| o.log).collect();
        ensure!(&branch == old_bytes, "the old branch: {} bytes of {}", branch.len(), old_bytes.len());
        archive.compare_with(&second)?;
        archive.verify()?;
        let before = objects(&archive)?;
        archive.import(&[&old, &new], &["--include-active"])?;
        ensure!(objects(&archive)? == before, "another import changed the archive");
    }
    // One after the other is the same; an old leader's data come too late once a later leader's are archived.
    let archive = archive_of_no_cluster(scratch.path(), "one-by-one")?;
    import(&archive, &[&old], &["--include-active"])?;
    import(&archive, &[&new], &["--include-active"])?;
    ensure!(archive.branches(topic_id, 0)? == [0, 1], "one by one");
    archive.compare_with(&second)?;
    let archive = archive_of_no_cluster(scratch.path(), "too-late")?;
    import(&archive, &[&new], &["--include-active"])?;
    let before = objects(&archive)?;
    let (code, lines, _) = archive.import(&[&old], &["--include-active"])?;
    let findings = Imported(lines).texts("findings");
    ensure!(code == 1 && findings.iter().any(|f| f.contains("from offset 1000 ")), "{code} {findings:?}");
    ensure!(objects(&archive)? == before, "an old leader's data were archived");
    archive.verify()
}

fn copies() -> Result<()> {
    let cluster =
        Cluster::builder().nodes(3).property("replica.high.watermark.checkpoint.interval.ms", 300).start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 3, &[("segment.bytes", "1048576")])?;
    kafka.produce("t", &Produce { count: 4000, ..Produce::default() })?;
    let logs = TopicLogs::read(&plain_client(&cluster.bootstrap())?, &["t"])?;
    let end = kafka.offset("t", 0, At::Latest)?;
    let topic_id = runtime()?.block_on(plain_client(&cluster.bootstrap())?.topic("t"))?.topic_id.to_string();
    cut_off(&cluster, &[1, 2, 3], "t 0 4000")?;
    let dirs: Vec<PathBuf> = cluster.nodes.iter().map(|node| node.log_dir()).collect();
    let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    let scratch = Scratch::new("import-copies")?;
    let archive = archive_of_no_cluster(scratch.path(), "same")?;
    let imported = import(&archive, &dirs, &["--include-active"])?;
    let line = imported.of("t", 0)?;
    let read = line["read_bytes"].as_u64().unwrap_or_default();
    ensure!(line["copies"].as_array().is_some_and(|c| c.len() == 3), "{line}");
    ensure!(read == 3 * line["bytes"].as_u64().unwrap_or_default(), "the others were not checked: {line}");
    archive.compare_with(&logs)?;

    // Each copy is damaged somewhere else; together they are whole.
    for (node, at) in cluster.nodes.iter().zip([100_000, 300_000, 600_000]) {
        let bases = node.local_segments("t", 0)?;
        flip(&log_file(&node.log_dir(), "t", bases[1]), at)?;
    }
    let archive = archive_of_no_cluster(scratch.path(), "damaged")?;
    let (code, lines, error) = archive.import(&dirs, &["--include-active"])?;
    let said = Imported(lines);
    ensure!(code == 1 && said.of("t", 0)?["error"].is_null(), "{code} {said:?} {error}");
    ensure!(said.texts("findings").iter().filter(|f| f.contains("CRC32C")).count() >= 2, "{said:?}");
    let compared = archive.compare_with(&logs)?;
    ensure!(compared.gaps == 0, "{compared:?}");
    ensure!(archive.chain(&topic_id, 0, 0)?.last().is_some_and(|o| o.end_offset() == end), "not to {end}");

    // A copy with other bytes in the same epoch, each batch right in itself.
    let offset = reseal(&log_file(&cluster.nodes[0].log_dir(), "t", 0))?;
    let archive = archive_of_no_cluster(scratch.path(), "other")?;
    let (code, lines, error) = archive.import(&[dirs[1], dirs[0]], &["--include-active"])?;
    let findings = Imported(lines).texts("findings");
    let said = findings
        .iter()
        .any(|f| f.contains(&format!("offsets {offset} to ")) && f.contains("not what was archived"));
    ensure!(code == 1 && said, "{code} {findings:?} {error}");
    ensure!(archive.compare_with(&logs)?.gaps == 0, "what was archived");
    archive.verify()
}
