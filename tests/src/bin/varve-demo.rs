//! The demo: a real broker tiers a topic to a store, drops its own copies, and a consumer reads everything back, byte
//! for byte. Then the topic and its cluster's state are archived, proven and looked into, and restored
//! into a second, empty cluster, with the same offsets, groups and bytes.
//! `./varve demo` builds the plug-in and the command, and runs this.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser as _;
use varve_tests::{
    At, Cluster, KAFKA_VERSION, Produce, Scratch, StoreKind, TestArchive, Tier, TopicLogs, end_servers,
    plain_client, raw_admin, rsm_jar, runtime,
};

const TOPIC: &str = "orders";
const RECORDS: u64 = 60_000;

#[derive(clap::Parser)]
struct Args {
    /// Where the tier and the archive are
    #[arg(long, value_enum, default_value_t = StoreKind::File)]
    store: StoreKind,
}

/// The store's server, if it has one, ends with it.
struct Servers;

impl Drop for Servers {
    fn drop(&mut self) {
        end_servers();
    }
}

fn main() -> Result<()> {
    let (args, started, _servers) = (Args::parse(), Instant::now(), Servers);
    println!("Varve demo: stock Kafka {KAFKA_VERSION}, its tier in {}.\n", args.store.title());
    println!("plug-in  {}", rsm_jar()?.display());
    let store = Scratch::new("demo-store")?;
    let tier = Tier::on(args.store, &store.path().join("tier"))?;
    println!("store    {}", tier.url());
    for (name, value) in tier.settings() {
        let is_secret = name.contains("key") && !name.ends_with(".id");
        println!("         {name}={}", if is_secret { "…" } else { &value });
    }
    println!();

    let cluster = step("start a broker (the first time, its jars come from Maven Central)", || {
        let cluster = Cluster::builder().tier(&tier).rsm("compression", "auto").start()?;
        let said = format!("listens on {}", cluster.bootstrap());
        Ok((cluster, said))
    })?;
    let kafka = cluster.client();

    step(
        &format!("create topic {TOPIC}: segments of 8 MiB, kept locally only until they are tiered"),
        || {
            let id = kafka.create_tiered_topic(TOPIC, 1, &[("segment.bytes", "8388608")])?;
            Ok(((), format!("topic id {id}")))
        },
    )?;

    let produced = step(&format!("produce {RECORDS} records of 1 KiB, lz4, with headers"), || {
        let produce = Produce {
            count: RECORDS,
            value_bytes: 1024,
            headers: 2,
            compression: "lz4",
            batch_bytes: 65_536,
            ..Produce::default()
        };
        let produced = kafka.produce(TOPIC, &produce)?;
        let said = format!("offsets {} to {}, {} MiB", produced.first, produced.last, produced.bytes >> 20);
        Ok((produced, said))
    })?;

    let local_from =
        step("wait until the closed segments are tiered and gone from the broker's disk", || {
            let local_from = cluster.wait_tiered(TOPIC, 0)?;
            let earliest = kafka.offset(TOPIC, 0, At::Earliest)?;
            ensure!(earliest == 0, "the topic begins at {earliest}");
            Ok((local_from, format!("the topic begins at 0, the broker's disk at {local_from}")))
        })?;
    ensure!(local_from > 0);
    list_store(&tier)?;

    step("consume everything from offset 0, and compare with what was produced", || {
        let consumed = kafka.consume_all(TOPIC)?;
        let expected = kafka.expected(TOPIC, 0, None)?;
        ensure!(
            consumed.count == produced.count && consumed.digest == expected.digest,
            "{consumed:?} {expected:?}"
        );
        let said = format!(
            "{} records, {} of them only in the tier; SHA-256 over offsets, timestamps, keys, values, headers:\n      \
             produced {}\n      consumed {}",
            consumed.count, local_from, expected.digest, consumed.digest
        );
        Ok(((), said))
    })?;

    step("restart the broker and read from the middle", || {
        cluster.broker().restart()?;
        let from = local_from.cast_signed() / 2;
        let consumed = kafka.consume(TOPIC, &varve_tests::Consume { from, ..Default::default() })?;
        consumed.is_whole()?;
        Ok(((), format!("{} records from offset {from}, all as produced", consumed.count)))
    })?;

    let scratch = Scratch::new("demo-archive")?;
    let archived = archive(&cluster, args.store, scratch.path())?;
    restore(&cluster, &archived, scratch.path())?;

    step("delete the topic, and with it its objects", || {
        cluster.delete_topic_and_tier(TOPIC, &tier)?;
        Ok(((), format!("{} objects left in the store", tier.list()?.len())))
    })?;
    cluster.stop_all()?;
    println!("\nDone in {:.1} s. Everything was read back byte for byte.", started.elapsed().as_secs_f32());
    Ok(())
}

/// The second half: what the broker and its tier have, the consumer group included, goes into an archive.
fn archive(cluster: &Cluster, kind: StoreKind, dir: &Path) -> Result<TestArchive> {
    let client = plain_client(&cluster.bootstrap())?;
    step("let a consumer group commit offset 12345", || {
        runtime()?.block_on(raw_admin::commit(&client, "billing", &[TOPIC], 12_345, ""))?;
        Ok(((), "group billing".to_owned()))
    })?;
    let topics = format!("topics: {{ include: [{TOPIC}] }}");
    let source = format!("source: {{ bootstrap.servers: \"{}\" }}", cluster.bootstrap());
    let archive = TestArchive::on(Tier::on(kind, &dir.join("archive"))?, dir, &source, &topics)?;
    step("varve archive run --once: raw batches from the broker, and the state of the cluster", || {
        Ok(((), archive.run_once(&[])?.trim().to_owned()))
    })?;
    step("fetch all batches from the broker, and compare them with the archive, byte for byte", || {
        let compared = archive.compare(&client, &[TOPIC])?;
        Ok(((), format!("{} bytes in {} segments, all the same", compared.bytes, compared.objects)))
    })?;
    let url = archive.url();
    for args in [
        vec!["snapshots", &url],
        vec!["verify", &url],
        vec!["ls", &url],
        vec!["cat", &url, TOPIC, "--offset", "30000..30002", "--format", "json"],
    ] {
        let what = format!("varve {}", args.join(" "));
        step(&what, || Ok(((), command(&archive, &args)?)))?;
    }
    Ok(archive)
}

/// The end: a second cluster, which knows nothing, gets it all back.
fn restore(first: &Cluster, archive: &TestArchive, dir: &Path) -> Result<()> {
    let second = step("start a second, empty cluster", || {
        let second = Cluster::builder().start()?;
        let said = format!("listens on {}", second.bootstrap());
        Ok((second, said))
    })?;
    let plan = dir.join("demo.plan").display().to_string();
    let (url, to, controllers) = (archive.url(), second.bootstrap(), second.controllers());
    let args =
        ["restore", "--from", &url, "--to", &to, "--controller", &controllers, "--yes", "--plan", &plan];
    step(&format!("varve {}", args.join(" ")), || Ok(((), command(archive, &args)?)))?;
    step("read both clusters, side by side", || {
        let (one, other) = (plain_client(&first.bootstrap())?, plain_client(&second.bootstrap())?);
        let told = |client: &varve_kafka::client::Client| -> Result<String> {
            let logs = TopicLogs::read(client, &[TOPIC])?;
            let log = &logs[0].logs[&0];
            let groups = ["billing".to_owned()];
            let committed = runtime()?.block_on(client.committed_offsets(&groups))?.whole()?;
            let offset = committed[0].offsets[0].offset;
            let digest = varve_format::DigestAlgorithm::Sha256.hasher().map(|mut hasher| {
                hasher.update(&log.batches);
                hasher.finish().to_string()
            });
            Ok(format!(
                "offsets {} to {}, group billing at {offset}, {} bytes of batches, SHA-256 {}",
                log.start_offset,
                log.end_offset,
                log.batches.len(),
                digest.unwrap_or_default()
            ))
        };
        let (first, second) = (told(&one)?, told(&other)?);
        ensure!(first == second, "first {first}, second {second}");
        Ok(((), format!("first   {first}\n      second  {second}")))
    })?;
    second.stop_all()
}

/// What the command prints, with long lines cut. The store's settings are in its environment.
fn command(archive: &TestArchive, args: &[&str]) -> Result<String> {
    let output = archive.varve(args)?.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "varve {args:?}: {} {error}", output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.trim_end().lines().map(cut);
    Ok(lines.collect::<Vec<_>>().join("\n      "))
}

fn cut(line: &str) -> String {
    const SHOWN: usize = 140;
    let shown: String = line.chars().take(SHOWN).collect();
    if shown.len() < line.len() { format!("{shown}…") } else { shown }
}

/// Says what is done, does it, and says how it went and how long it took.
fn step<T>(what: &str, body: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
    print!("  {what} … ");
    std::io::stdout().flush()?;
    let started = Instant::now();
    let (value, said) = body()?;
    println!("{}\n      {said}", spoken(started.elapsed()));
    Ok(value)
}

fn spoken(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        _ => format!("{:.1} s", time.as_secs_f32()),
    }
}

fn list_store(tier: &Tier) -> Result<()> {
    println!("  the store now holds (cluster / topic id / partition / base offset - segment id):");
    for (key, bytes) in tier.list()? {
        println!("      {:8.1} KiB  {key}", bytes as f64 / 1024.0);
    }
    Ok(())
}
