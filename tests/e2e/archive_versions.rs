//! An archive in a bucket that keeps versions, and an adversary who can write to it: he hides objects under delete
//! markers and puts others on top. Nothing is lost by it, everything of it is told, and no archiver is led astray.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use varve_tests::{
    Bucket, Cluster, MINIO_PASSWORD, MINIO_REGION, MINIO_USER, Minio, Produce, Scratch, StoreKind, Suite,
    TestArchive, Tier, TopicLogs, plain_client, varve,
};

const ONCE: &str = "topics: { include: [\"*\"] }";
const QUICK: &str = "topics: { include: [\"*\"] }
segments: { bytes: 1MiB, min.bytes: 1MiB, age: 1m }
journal: { rpo: 2s }
snapshots: { interval: 3s, wait: 5s }";

pub(crate) fn suite() -> Suite {
    Suite::new()
        .only_on(&[StoreKind::File, StoreKind::S3], "it is about S3")
        .test("a_bucket_with_versions", || tampered(false))
        .test("a_bucket_under_an_object_lock", || tampered(true))
        .test("hidden_while_the_archiver_runs", hidden_meanwhile)
}

/// A bucket, and what a person types to reach it.
struct Store {
    minio: Minio,
    bucket: Bucket,
}

impl Store {
    fn start(locked: bool) -> Result<Self> {
        let minio = Minio::start()?;
        let bucket =
            if locked { minio.locked_bucket("archive")? } else { minio.versioned_bucket("archive")? };
        Ok(Self { minio, bucket })
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("s3.endpoint.url", format!("http://127.0.0.1:{}", self.minio.port)),
            ("s3.region", MINIO_REGION.to_owned()),
            ("s3.path.style", "true".to_owned()),
            ("s3.access.key.id", MINIO_USER.to_owned()),
            ("s3.secret.access.key", MINIO_PASSWORD.to_owned()),
        ]
    }

    fn archive(&self, scratch: &Scratch, cluster: &Cluster, extra: &str) -> Result<TestArchive> {
        let tier = Tier::s3_in(&self.minio, self.bucket.clone(), "prod");
        let source = format!("source: {{ bootstrap.servers: \"{}\" }}", cluster.bootstrap());
        TestArchive::on(tier, scratch.path(), &source, extra)
    }

    /// Exit code, standard output, standard error.
    fn varve(&self, command: &str, args: &[&str]) -> Result<(i32, Vec<u8>, String)> {
        let mut run = varve()?;
        run.args([command, "s3://archive/prod"]).args(args);
        for (key, value) in self.settings() {
            run.arg("--store-config").arg(format!("{key}={value}"));
        }
        let output = run.output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code().context("killed")?, output.stdout, error))
    }

    /// Kind of what is told of each object, and whether anything else is wrong.
    fn verify(&self) -> Result<(i32, BTreeMap<String, String>, Vec<String>)> {
        let (code, out, error) = self.varve("verify", &["--json", "--depth", "contents"])?;
        let (mut kinds, mut others) = (BTreeMap::new(), Vec::new());
        for line in String::from_utf8(out)?.lines() {
            let line: serde_json::Value = serde_json::from_str(line)?;
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            match (line["type"].as_str(), line["kind"].as_str()) {
                (Some("finding"), Some(kind @ ("hidden" | "overwritten"))) => {
                    ensure!(!text("version").is_empty() && !text("current_version").is_empty(), "{line}");
                    let name = text("object").trim_start_matches("s3://archive/").to_owned();
                    kinds.insert(name, kind.to_owned());
                }
                (Some("finding"), _) => others.push(line.to_string()),
                _ => ensure!(line["versions"] == true, "{line} {error}"),
            }
        }
        Ok((code, kinds, others))
    }

    /// The brokers' batches come out of the archive, byte for byte.
    fn gives(&self, cluster: &Cluster, extra: &[&str]) -> Result<String> {
        let client = plain_client(&cluster.bootstrap())?;
        let mut warned = String::new();
        for (partition, log) in &TopicLogs::read(&client, &["t"])?[0].logs {
            let partition = partition.to_string();
            let args = [&["t", "--raw-batches", "--partition", &partition], extra].concat();
            let (code, out, error) = self.varve("cat", &args)?;
            ensure!(code == 0, "{error}");
            ensure!(out == log.batches, "t-{partition}: {} bytes, not {}", out.len(), log.batches.len());
            warned.push_str(&error);
        }
        Ok(warned)
    }
}

fn fill(cluster: &Cluster, seed: u64) -> Result<()> {
    for partition in 0..2 {
        cluster.client().produce("t", &Produce { partition, count: 700, seed, ..Produce::default() })?;
    }
    Ok(())
}

fn tampered(locked: bool) -> Result<()> {
    let store = Store::start(locked)?;
    let cluster = Cluster::builder().start()?;
    cluster.client().create_topic("t", 2, 1, &[])?;
    let scratch = Scratch::new("archive-versions")?;
    let archive = store.archive(&scratch, &cluster, ONCE)?;
    for seed in 0..3 {
        fill(&cluster, seed)?;
        archive.run_once(&[])?;
    }
    ensure!(store.gives(&cluster, &[])?.is_empty(), "nothing is wrong yet");
    let (code, kinds, others) = store.verify()?;
    ensure!(code == 0 && kinds.is_empty() && others.is_empty(), "{kinds:?} {others:?}");

    let mut expected = BTreeMap::new();
    for (number, name) in store.bucket.list()?.into_keys().enumerate() {
        if number % 4 == 3 {
            continue;
        }
        if number % 4 > 0 {
            store.bucket.put(&name, b"{\"rubbish\":1}".to_vec())?;
        }
        if number % 4 < 2 {
            store.bucket.delete(&name)?;
        }
        expected.insert(name, if number % 4 < 2 { "hidden" } else { "overwritten" }.to_owned());
    }
    ensure!(expected.len() > 15 && expected.keys().any(|name| name.ends_with(".varve")), "{expected:?}");
    let (code, kinds, others) = store.verify()?;
    ensure!(code == 1 && kinds == expected && others.is_empty(), "{kinds:?}\n{expected:?}\n{others:?}");
    for extra in [&[][..], &["--snapshot", "latest"]] {
        let warned = store.gives(&cluster, extra)?;
        ensure!(warned.contains("warning: ") && warned.contains("delete marker"), "{extra:?}: {warned}");
    }
    let (code, out, error) = store.varve("ls", &["t"])?;
    ensure!(code == 0 && error.contains("warning: "), "{error} {}", String::from_utf8_lossy(&out));

    // Whoever archives goes on where the archive ends, on what is hidden.
    fill(&cluster, 4)?;
    archive.run_once(&[])?;
    store.gives(&cluster, &[])?;
    store.gives(&cluster, &["--snapshot", "latest"])?;
    let (code, kinds, others) = store.verify()?;
    let told = kinds.keys().eq(expected.keys());
    ensure!(code == 1 && told && others.is_empty(), "{kinds:?}\n{expected:?}\n{others:?}");
    Ok(())
}

/// All there is, again and again, while it grows.
fn hidden_meanwhile() -> Result<()> {
    let store = Store::start(false)?;
    let cluster = Cluster::builder().start()?;
    cluster.client().create_topic("t", 2, 1, &[])?;
    let scratch = Scratch::new("archive-hidden")?;
    let archive = store.archive(&scratch, &cluster, QUICK)?;
    let log = scratch.path().join("archiver.log");
    let mut running = archive.start(&log, &[])?;
    for seed in 0..20 {
        fill(&cluster, seed)?;
        thread::sleep(Duration::from_millis(700));
        for name in store.bucket.list()?.keys().filter(|name| !name.contains("/probe/")) {
            store.bucket.delete(name)?;
        }
        ensure!(running.is_alive(), "it ended: {}", std::fs::read_to_string(&log)?);
        if seed == 10 {
            running.kill();
            running = archive.start(&log, &[])?;
        }
    }
    ensure!(running.terminate()?.success(), "it did not end well: see {}", log.display());
    archive.run_once(&[])?;
    store.gives(&cluster, &[])?;
    store.gives(&cluster, &["--snapshot", "latest"])?;
    let (code, kinds, others) = store.verify()?;
    let chain = kinds.keys().filter(|name| name.ends_with(".varve")).count();
    ensure!(code == 1 && chain > 4 && others.is_empty(), "{kinds:?}\n{others:?}");
    Ok(())
}
