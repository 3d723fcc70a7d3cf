//! The archiver while its store, its brokers' disks and the way to them fail: what is archived is true, what can't
//! be is said, and when the fault ends everything catches up.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use varve_format::{Footer, TRAILER_BYTES, Trailer};
use varve_kafka::protocol::Batches;
use varve_tests::{
    Cluster, Look, MINIO_PASSWORD, MINIO_USER, Minio, Produce, Proxy, Scratch, StoreKind, Suite, TestArchive,
    Throttle, Tier, Toxiproxy, Weather, archive_section, eventually, only_on, plain_client, runtime, varve,
    varve_file,
};

const QUICK: &str = "topics: { include: [\"*\"] }
segments: { bytes: 8MiB, min.bytes: 1MiB, age: 1m }
journal: { rpo: 2s }
snapshots: { interval: 4s, wait: 5s }
limits: { memory.bytes: 96MiB }
log: { level: info }";
/// A partition that was denied rests for a minute.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn suite() -> Suite {
    Suite::new()
        .test("s3_is_down_slow_throttling_resetting_and_denying", s3)
        .test("credentials_expire_and_are_renewed", credentials)
        .test("a_corrupt_batch_on_the_brokers_disk", corrupt)
        .test("no_room_in_the_store", no_room)
}

/// An archive that is looked at directly, by an archiver that reaches it by `way`: with keys of its own or with what the
/// credential chain finds.
fn s3_archive(
    direct: &Tier,
    scratch: &Scratch,
    cluster: &Cluster,
    way: &Tier,
    own_keys: bool,
) -> Result<TestArchive> {
    let mut settings = way.rsm_config();
    settings.retain(|key, _| own_keys || !key.contains("access.key"));
    let quick = [("s3.connect.timeout.ms", "2000"), ("s3.timeout.ms", "3000"), ("s3.max.attempts", "3")];
    settings.extend(quick.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let source = format!("source: {{ bootstrap.servers: \"{}\" }}", cluster.bootstrap());
    let config = format!("{source}\n{}\n{QUICK}\n", archive_section(&settings));
    TestArchive::with(direct.clone(), scratch.path(), &config)
}

fn s3() -> Result<()> {
    only_on(&[StoreKind::File, StoreKind::S3], "it is about S3")?;
    let minio = Minio::start()?;
    let throttle = Throttle::start(minio.port)?;
    let toxiproxy = Toxiproxy::start()?;
    let proxy = toxiproxy.proxy("s3", throttle.port)?;
    let direct = Tier::s3(&minio, "archive", "prod")?;
    let cluster = Cluster::builder().start()?;
    cluster.client().create_topic("t", 3, 1, &[])?;
    let scratch = Scratch::new("archive-s3")?;
    let way = direct.clone().through(proxy.port);
    let archive = s3_archive(&direct, &scratch, &cluster, &way, true)?;
    let log = scratch.path().join("archiver.log");
    let mut running = archive.start(&log, &[])?;
    let mut fill = filling(&cluster);
    fill(3)?;
    type Begin = fn(&Proxy) -> Result<()>;
    let faults: [(&str, Begin); 5] = [
        ("latency", |p| p.add_latency(400)),
        ("resets", |p| p.add_resets(50)),
        ("bodies end", |p| p.add_cut(100_000)),
        ("silence", Proxy::add_silence),
        ("slow", |p| p.add_bandwidth(512)),
    ];
    for (what, begin) in faults {
        begin(&proxy)?;
        fill(4)?;
        proxy.heal()?;
        ensure!(running.is_alive(), "it ended under {what}: see {}", log.display());
    }
    throttle.set(Weather::SlowDown { percent: 70 });
    fill(4)?;
    throttle.set(Weather::Fair);
    minio.kill();
    fill(3)?;
    minio.resume_with_password("another-secret")?;
    fill(4)?;
    minio.kill();
    minio.resume()?;
    // The same password as before: everything catches up.
    eventually("it goes on after the last fault", LIMIT, || {
        let (archived, end) = ends(&cluster, &archive)?;
        Ok(Look::when(archived > end * 8 / 10, (), (archived, end)))
    })?;
    ensure!(running.terminate()?.success(), "it did not end well: see {}", log.display());
    archive.run_once(&[])?;
    is_whole(&cluster, &archive)?;
    let said = std::fs::read_to_string(&log)?;
    ensure!(!said.contains(MINIO_PASSWORD) && !said.contains("panicked"), "see {}", log.display());
    Ok(())
}

/// Records for so many seconds, to all partitions.
fn filling(cluster: &Cluster) -> impl FnMut(u64) -> Result<()> {
    let mut seed = 0;
    move |seconds| {
        for _ in 0..seconds * 2 {
            seed += 1;
            let produce = Produce { partition: seed as u32 % 3, count: 3000, seed, ..Produce::default() };
            cluster.client().produce("t", &produce)?;
            thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }
}

/// Offsets that are in chains, and those that there are.
fn ends(cluster: &Cluster, archive: &TestArchive) -> Result<(i64, i64)> {
    let mut sum = (0, 0);
    let topic_id = runtime()?.block_on(plain_client(&cluster.bootstrap())?.topic("t"))?.topic_id.to_string();
    for p in 0..3_u32 {
        sum.0 += chain_end(archive, &format!("topics/{topic_id}/{p}/0/"))?;
        sum.1 += cluster.client().offset("t", p, varve_tests::At::Latest)?;
    }
    Ok(sum)
}

/// By the last footer alone.
fn chain_end(archive: &TestArchive, folder: &str) -> Result<i64> {
    let mut keys = archive.tier().list_below(folder)?.into_keys();
    let Some(last) = keys.rfind(|key| key.ends_with(".varve")) else { return Ok(0) };
    let bytes = archive.tier().read(&last)?;
    let trailer = Trailer::decode(bytes.last_chunk().context("no trailer")?, bytes.len() as u64)?;
    let footer = &bytes[trailer.footer_offset as usize..bytes.len() - TRAILER_BYTES];
    Ok(Footer::decode(footer, &trailer)?.info.last_offset + 1)
}

/// The archive has what the brokers have, and nothing is wrong with it.
fn is_whole(cluster: &Cluster, archive: &TestArchive) -> Result<()> {
    let compared = archive.compare(&plain_client(&cluster.bootstrap())?, &["t"])?;
    ensure!(compared.partitions == 3 && compared.gaps == 0, "{compared:?}");
    archive.verify()
}

/// What hands out credentials that hold for seconds: the credential chain's `credential_process`.
struct Issuer {
    dir: Scratch,
}

impl Issuer {
    fn new() -> Result<Self> {
        let dir = Scratch::new("issuer")?;
        let (config, script) = (dir.path().join("config"), dir.path().join("issue"));
        std::fs::write(config, format!("[default]\ncredential_process = sh {}\n", script.display()))?;
        let secret = dir.path().join("secret");
        // None is given while there is none.
        let told = format!(
            "set -e\nsecret=$(cat {})\nuntil=$(date -u -d '+14 seconds' +%Y-%m-%dT%H:%M:%SZ)\n\
             printf '{{\"Version\":1,\"AccessKeyId\":\"{MINIO_USER}\",\"SecretAccessKey\":\"%s\",\"Expiration\":\"%s\"}}' \
             \"$secret\" \"$until\"\n",
            secret.display()
        );
        std::fs::write(script, told)?;
        Ok(Self { dir })
    }

    fn config(&self) -> String {
        self.dir.path().join("config").to_string_lossy().into_owned()
    }

    fn gives(&self, secret: Option<&str>) -> Result<()> {
        let path = self.dir.path().join("secret");
        match secret {
            Some(secret) => std::fs::write(path, secret)?,
            None => std::fs::remove_file(path)?,
        }
        Ok(())
    }
}

/// They are renewed before they end; when they can't be, or what is given is no longer taken, it is said, and what was
/// held goes on when they can.
fn credentials() -> Result<()> {
    only_on(&[StoreKind::File, StoreKind::S3], "it is about S3")?;
    let minio = Minio::start()?;
    let tier = Tier::s3(&minio, "archive", "prod")?;
    minio.kill();
    minio.resume_with_password("the-first-secret")?;
    let issuer = Issuer::new()?;
    issuer.gives(Some("the-first-secret"))?;
    let cluster = Cluster::builder().start()?;
    cluster.client().create_topic("t", 3, 1, &[])?;
    let scratch = Scratch::new("archive-credentials")?;
    let archive = s3_archive(&tier, &scratch, &cluster, &tier, false)?
        .env("AWS_CONFIG_FILE", &issuer.config())
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let log = scratch.path().join("archiver.log");
    let mut running = archive.start(&log, &[])?;
    let mut fill = filling(&cluster);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    fill(18)?;
    ensure!(!said().contains("ERROR") && !said().contains(" WARN "), "renewed unseen: see {}", log.display());
    // None to be had: what is there holds for a while.
    issuer.gives(None)?;
    fill(16)?;
    eventually("it says that it has no credentials", LIMIT, || {
        let told = said().lines().any(|line| line.contains("credential"));
        Ok(Look::when(told, (), log.display()))
    })?;
    // And then the old ones are of no use.
    minio.kill();
    minio.resume()?;
    issuer.gives(Some("the-first-secret"))?;
    fill(4)?;
    issuer.gives(Some(MINIO_PASSWORD))?;
    eventually("it goes on with new credentials", LIMIT, || {
        let (archived, end) = ends(&cluster, &archive)?;
        Ok(Look::when(archived > end * 8 / 10, (), (archived, end)))
    })?;
    ensure!(
        running.is_alive() && running.terminate()?.success(),
        "it did not end well: see {}",
        log.display()
    );
    archive.run_once(&[])?;
    is_whole(&cluster, &archive)?;
    for secret in ["the-first-secret", MINIO_PASSWORD, "panicked"] {
        ensure!(!said().contains(secret), "{secret} is in {}", log.display());
    }
    Ok(())
}

fn corrupt() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 2, 1, &[])?;
    for partition in 0..2 {
        kafka.produce("t", &Produce { partition, count: 2000, ..Produce::default() })?;
    }
    let client = plain_client(&cluster.bootstrap())?;
    let topic_id = runtime()?.block_on(client.topic("t"))?.topic_id.to_string();
    let file = cluster.broker().partition_dir("t", 0).join("00000000000000000000.log");
    let whole = fs::read(&file)?;
    // Within a batch's records: not all of its header is under its checksum.
    let batches = Batches::new(whole.clone().into(), 0).collect::<Result<Vec<_>, _>>()?;
    let batch = batches.get(batches.len() / 2).context("no batch")?;
    let middle = batch.position + batch.bytes.len() as u64 / 2;
    let byte = *whole.get(middle as usize).context("no such byte")?;
    let log = OpenOptions::new().write(true).open(&file)?;
    log.write_all_at(&[byte ^ 0x10], middle)?;
    let scratch = Scratch::new("archive-corrupt")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), QUICK)?;
    let output =
        varve()?.args(["archive", "run", "--once", "--json", "-c"]).arg(archive.config()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(said.contains("\"partition\":0") && said.contains("at offset") && said.contains("CRC"), "{said}");
    // The other partition is whole, and of this one what is before.
    ensure!(archive.chain(&topic_id, 1, 0)?.last().map(|o| o.end_offset()) == Some(2000), "{said}");
    let before = archive.chain(&topic_id, 0, 0)?.last().map_or(0, |o| o.end_offset());
    ensure!((500..1500).contains(&before), "archived up to {before}");
    // Mended, it goes on.
    log.write_all_at(&[byte], middle)?;
    archive.run_once(&[])?;
    ensure!(archive.compare(&client, &["t"])?.partitions == 2, "not both");
    Ok(())
}

/// A limit on the size of files stands for a full disk: writes fail in the midst of an object.
fn no_room() -> Result<()> {
    only_on(&[StoreKind::File], "it is about a disk that is full")?;
    let cluster = Cluster::builder().start()?;
    cluster.client().create_topic("t", 1, 1, &[])?;
    cluster.client().produce("t", &Produce { count: 6000, ..Produce::default() })?;
    let scratch = Scratch::new("archive-no-room")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), QUICK)?;
    let limited = format!(
        "ulimit -f 2000; trap '' XFSZ; exec {} archive run --once -c {}",
        varve_file()?.display(),
        archive.config().display()
    );
    let output = Command::new("sh").args(["-c", &limited]).output()?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(!output.status.success() && said.contains("t-0"), "{}: {said}", output.status);
    let topic_id = runtime()?.block_on(plain_client(&cluster.bootstrap())?.topic("t"))?.topic_id.to_string();
    ensure!(archive.chain(&topic_id, 0, 0)?.is_empty(), "part of an object is visible");
    archive.run_once(&[])?;
    archive.compare(&plain_client(&cluster.bootstrap())?, &["t"]).context("after the fault")?;
    Ok(())
}
