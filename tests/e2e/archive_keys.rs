//! `varve archive run` with topics that are sealed, on real brokers: it goes on from what it sealed before, also from
//! what only the journal has; nobody reads it without the key; with it, all of it comes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_format::{ExtentKind, Footer, TRAILER_BYTES, Trailer};
use varve_tests::{
    Cluster, Look, Produce, Scratch, Suite, TestArchive, TopicLogs, Transactions, ended, eventually,
    plain_client, restore_from, same_logs, varve, while_producing,
};

const KEY_RING: &str =
    r#"{"active": "one", "keys": {"one": "dGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGU="}}"#;
const ANOTHERS: &str =
    r#"{"active": "one", "keys": {"one": "VEVTVFMgdGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGU="}}"#;
/// As quick as the service's tests are.
const QUICK: &str = "topics: { include: [\"*\"] }
segments: { bytes: 1MiB, min.bytes: 256KiB, age: 1h }
journal: { rpo: 2s }
snapshots: { interval: 3s, wait: 5s }
limits: { memory.bytes: 32MiB }";
const SECRET: [&str; 2] = ["secret-orders", "secret-transactions"];
const ALL: [&str; 3] = ["secret-orders", "secret-transactions", "open"];

pub(crate) fn suite() -> Suite {
    Suite::new().test("what_is_sealed_goes_on_and_comes_back", sealed).test("killed_while_it_seals", killed)
}

struct Keys {
    ring: PathBuf,
    other: PathBuf,
}

fn keys(scratch: &Scratch) -> Result<Keys> {
    let (ring, other) = (scratch.path().join("ring.json"), scratch.path().join("other.json"));
    fs::write(&ring, KEY_RING)?;
    fs::write(&other, ANOTHERS)?;
    Ok(Keys { ring, other })
}

fn sealed() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("secret-orders", 2, 1, &[])?;
    kafka.create_topic("secret-transactions", 1, 1, &[])?;
    kafka.create_topic("open", 1, 1, &[])?;
    let scratch = Scratch::new("archive-keys")?;
    let keys = keys(&scratch)?;
    let ring = keys.ring.display();
    // A cache as short as it can be: keys are asked for again and again.
    let encryption =
        format!("encryption: {{ topics: [\"secret*\"], key.ring.file: \"{ring}\", key.cache: 1s }}");
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), &format!("{QUICK}\n{encryption}"))?;

    // More than a segment, and little; then again, behind what was sealed.
    for round in 0..2 {
        let count = if round == 0 { 3000 } else { 200 };
        for (partition, topic) in [(0, "secret-orders"), (1, "secret-orders"), (0, "open")] {
            let seed = round * 10 + u64::from(partition) + 100 * topic.len() as u64;
            kafka.produce(topic, &Produce { partition, count, seed, ..Produce::default() })?;
        }
        let transactions = Transactions {
            transactional_id: "tx".to_owned(),
            transactions: 20,
            records_per_transaction: 30,
            abort_every: 3,
            seed: round,
            value_bytes: 500,
            partition: 0,
        };
        kafka.produce_transactions("secret-transactions", &transactions)?;
        archive.run_once(&[])?;
    }
    let orders = kafka.describe_topic("secret-orders")?.topic_id;
    let transactions = kafka.describe_topic("secret-transactions")?.topic_id;
    let before = footers(&archive, &transactions)?;
    ensure!(before.len() == 2, "{} objects", before.len());
    let state = before.last().and_then(|footer| footer.section(ExtentKind::ProducerSnapshot));
    ensure!(state.is_some(), "what producers do was lost at the restart");

    journal_alone(&cluster, &archive, &scratch, &orders)?;
    another_key(&archive, &keys)?;
    archive.run_once(&[])?;

    let logs = TopicLogs::read(&plain_client(&cluster.bootstrap())?, &ALL)?;
    nothing_in_the_clear(&archive, &logs)?;
    let summary = verify(&archive, &[])?;
    ensure!(summary["findings"] == 0 && summary["sealed"].as_u64() > Some(0), "{summary}");
    let summary = verify(&archive, &["--key-ring", &keys.ring.display().to_string()])?;
    ensure!(summary["findings"] == 0 && summary["sealed"] == 0, "{summary}");
    drop(cluster);
    comes_back(&archive, &scratch, &keys, &logs)
}

/// Whenever it is killed, what it sealed is whole, and the next one goes on from there.
fn killed() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    cluster.client().create_topic("secret-orders", 3, 1, &[])?;
    let scratch = Scratch::new("archive-keys-killed")?;
    let keys = keys(&scratch)?;
    let ring = keys.ring.display();
    let encryption = format!("encryption: {{ topics: [\"*\"], key.ring.file: \"{ring}\", key.cache: 1s }}");
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), &format!("{QUICK}\n{encryption}"))?;
    let log = scratch.path().join("archiver.log");
    while_producing(&cluster, "secret-orders", 3, || {
        for round in 1..=12 {
            let running = archive.start(&log, &[])?;
            thread::sleep(Duration::from_millis(round * 300));
            running.kill();
        }
        Ok(())
    })?;
    archive.run_once(&[])?;
    let logs = TopicLogs::read(&plain_client(&cluster.bootstrap())?, &["secret-orders"])?;
    nothing_in_the_clear(&archive, &logs)?;
    let summary = verify(&archive, &["--key-ring", &keys.ring.display().to_string()])?;
    ensure!(summary["findings"] == 0 && summary["sealed"] == 0, "{summary}");
    drop(cluster);
    let target = Cluster::builder().start()?;
    let (plan, ring) = (scratch.path().join("plan"), keys.ring.display().to_string());
    ended(restore_from(&archive.url(), &target, &plan, &["--key-ring", &ring])?, 0)?;
    same_logs(&logs, &TopicLogs::read(&plain_client(&target.bootstrap())?, &["secret-orders"])?)
}

/// What was sealed into the journal outlives a kill, and that the brokers delete it meanwhile.
fn journal_alone(cluster: &Cluster, archive: &TestArchive, scratch: &Scratch, orders: &str) -> Result<()> {
    let kafka = cluster.client();
    let running = archive.start(&scratch.path().join("archiver.log"), &[])?;
    let produced = kafka.produce("secret-orders", &Produce { count: 7, seed: 77, ..Produce::default() })?;
    eventually("in the journal", Duration::from_secs(30), || {
        Ok(Look::when(!archive.bundles()?.is_empty(), (), archive.bundles()?.len()))
    })?;
    let logs = TopicLogs::read(&plain_client(&cluster.bootstrap())?, &SECRET)?;
    nothing_in_the_clear(archive, &logs)?;
    running.kill();
    kafka.delete_records("secret-orders", 0, u64::try_from(produced.last + 1)?)?;
    kafka.produce("secret-orders", &Produce { count: 7, seed: 78, ..Produce::default() })?;
    archive.run_once(&[])?;
    let footers = footers(archive, orders)?;
    let is_gap = |footer: &Footer| footer.extents.iter().any(|e| e.kind == ExtentKind::Unknown(128));
    ensure!(!footers.iter().any(is_gap), "what the journal had was not taken");
    ensure!(footers.iter().any(|footer| footer.info.last_offset == produced.last), "no segment ends there");
    ensure!(footers.iter().all(|footer| footer.encryption.is_some()), "a segment of it is plain");
    Ok(())
}

/// Who has another key does not go on, and says so; what isn't sealed goes on.
fn another_key(archive: &TestArchive, keys: &Keys) -> Result<()> {
    let other = format!("encryption.key.ring.file={}", keys.other.display());
    let refused = archive.try_once(&["--set", &other])?;
    let told: Value = serde_json::from_str(&refused.out)?;
    let unfinished = told["unfinished"].as_array().context("no list")?;
    let secret = unfinished.iter().all(|one| one.to_string().contains("secret-"));
    ensure!(refused.code == Some(1) && unfinished.len() == 3 && secret, "{refused:?}");
    ensure!(!refused.err.contains("dGVzdHM") && !refused.err.contains("VEVTVFM"), "{refused:?}");
    Ok(())
}

/// Of a topic's first partition, in order.
fn footers(archive: &TestArchive, topic_id: &str) -> Result<Vec<Footer>> {
    let dir = archive.directory()?.join(format!("topics/{topic_id}/0/0"));
    let mut paths: Vec<PathBuf> = fs::read_dir(&dir)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "varve"));
    paths.sort();
    paths.iter().map(|path| footer(path)).collect()
}

fn footer(path: &Path) -> Result<Footer> {
    let bytes = fs::read(path)?;
    let trailer = bytes.last_chunk::<TRAILER_BYTES>().context("no trailer")?;
    let trailer = Trailer::decode(trailer, bytes.len() as u64)?;
    let footer = &bytes[trailer.footer_offset as usize..bytes.len() - TRAILER_BYTES];
    Ok(Footer::decode(footer, &trailer)?)
}

fn files(dir: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { files(&path, into)? } else { into.push(path) }
    }
    Ok(())
}

/// Pieces of the logs, here and there: of what is sealed none is in the store, of the rest some are.
fn nothing_in_the_clear(archive: &TestArchive, logs: &[TopicLogs]) -> Result<()> {
    let mut paths = Vec::new();
    files(archive.directory()?, &mut paths)?;
    let mut all = Vec::new();
    for path in paths {
        all.extend(fs::read(path)?);
    }
    for TopicLogs { topic, logs, .. } in logs {
        let mut found = false;
        for log in logs.values() {
            for piece in log.batches.chunks(log.batches.len() / 4 + 1) {
                let Some(piece) = piece.get(piece.len() / 2..).and_then(|half| half.get(..48)) else {
                    continue;
                };
                found |= all.windows(piece.len()).any(|window| window == piece);
            }
        }
        ensure!(found != SECRET.contains(&topic.as_str()), "{topic} in the clear: {found}");
    }
    Ok(())
}

/// The summary.
fn verify(archive: &TestArchive, extra: &[&str]) -> Result<Value> {
    let mut command = varve()?;
    command.args(["verify", &archive.url(), "--depth", "contents", "--json"]).args(extra);
    let out = ended(command, 0)?.0;
    Ok(serde_json::from_str(out.lines().last().context("nothing was said")?)?)
}

/// Byte for byte, with the key; without it nothing is begun.
fn comes_back(archive: &TestArchive, scratch: &Scratch, keys: &Keys, logs: &[TopicLogs]) -> Result<()> {
    let target = Cluster::builder().start()?;
    let plan = |name: &str| scratch.path().join(format!("{name}.plan"));
    let mut keyless = restore_from(&archive.url(), &target, &plan("keyless"), &[])?;
    let refused = keyless.output()?;
    let said =
        String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    let id = logs.iter().find(|logs| logs.topic == SECRET[0]).context("no such topic")?.topic_id.clone();
    let key = footers(archive, &id)?.pop().and_then(|footer| footer.encryption).context("not sealed")?;
    ensure!(!refused.status.success() && said.contains(&key.data_key_id.to_string()), "{said}");
    let client = plain_client(&target.bootstrap())?;
    for topic in ALL {
        ensure!(TopicLogs::read(&client, &[topic]).is_err(), "{topic} was made");
    }

    let ring = keys.ring.display().to_string();
    ended(restore_from(&archive.url(), &target, &plan("keyed"), &["--key-ring", &ring])?, 0)?;
    same_logs(logs, &TopicLogs::read(&client, &ALL)?)
}
