//! `varve segment` and `varve tier scrub` on what a real broker tiered, compared with the broker's own files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use varve_tests::{Cluster, Minio, Produce, Scratch, Shared, Suite, Tier, TierSegment, Transactions};

struct Setup {
    cluster: Cluster,
    tier: Tier,
    store: Scratch,
}

pub(crate) fn suite() -> Suite {
    let shared = Shared::new(setup);
    Suite::new()
        .test_with(&shared, "extract_gives_the_brokers_files_back", extracts)
        .test_with(&shared, "a_healthy_tier_is_clean", healthy)
        .test_with(&shared, "scrub_finds_what_is_wrong_and_only_that", scrubs)
        .test_with(&shared, "what_is_young_is_in_flight", young)
        .test("scrub_of_s3_and_of_a_deleted_topic", s3)
}

fn setup() -> Result<Setup> {
    let store = Scratch::new("store")?;
    let tier = Tier::filesystem(store.path())?;
    let cluster = Cluster::builder().tier(&tier).start()?;
    let kafka = cluster.client();
    // Local copies stay, to be compared with.
    let keep =
        [("local.retention.bytes", "-2"), ("local.retention.ms", "-2"), ("index.interval.bytes", "500")];
    kafka.create_tiered_topic("t", 1, &keep)?;
    for compression in ["none", "zstd", "lz4"] {
        let produce = Produce { count: 1500, compression, headers: 1, text: true, ..Produce::default() };
        kafka.produce("t", &produce)?;
    }
    kafka.produce_transactions(
        "t",
        &Transactions {
            transactional_id: "tx".to_owned(),
            transactions: 20,
            records_per_transaction: 100,
            abort_every: 3,
            seed: 2,
            value_bytes: 1000,
            partition: 0,
        },
    )?;
    let closed = cluster.broker().local_segments("t", 0)?.len() - 1;
    varve_tests::eventually("all closed segments in the tier", std::time::Duration::from_secs(120), || {
        let tiered = kafka.finished_segments("t", 0)?.len();
        Ok(varve_tests::Look::when(tiered == closed, (), (tiered, closed)))
    })?;
    cluster.wait_settled(&tier)?;
    Ok(Setup { cluster, tier, store })
}

/// The binary, which cargo put beside the folder of this test.
fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test.ancestors().nth(2).context("no folder above")?.join("varve");
    ensure!(path.is_file(), "no {}: run `cargo build --release -p varve-cli` first", path.display());
    Ok(path)
}

fn varve(args: &[&str]) -> Result<(i32, String, String)> {
    let out = Command::new(binary()?).args(args).output()?;
    let code = out.status.code().context("ended by a signal")?;
    Ok((code, String::from_utf8(out.stdout)?, String::from_utf8(out.stderr)?))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("not UTF-8")
}

fn segments(setup: &Setup) -> Result<Vec<TierSegment>> {
    let found = setup.cluster.client().finished_segments("t", 0)?;
    ensure!(found.len() >= 4, "only {} segments", found.len());
    Ok(found)
}

fn extracts(setup: &Setup) -> Result<()> {
    let scratch = Scratch::new("extract")?;
    let disk = setup.cluster.broker().partition_dir("t", 0);
    let mut compared: BTreeMap<String, u32> = BTreeMap::new();
    for segment in segments(setup)? {
        let object = setup.store.path().join(segment.object_key(&setup.cluster.id));
        let (code, out, err) = varve(&["segment", "verify", text(&object)?])?;
        ensure!(code == 0, "{out}{err}");
        let into = scratch.path().join(segment.base.to_string());
        let (code, out, err) = varve(&["segment", "extract", text(&object)?, "--into", text(&into)?])?;
        ensure!(code == 0, "{out}{err}");
        for file in fs::read_dir(&into)? {
            let file = file?.path();
            let name = file.file_name().and_then(|n| n.to_str()).context("no name")?;
            let kind = name.rsplit_once('.').map_or(name, |(_, kind)| kind);
            // The broker's is of the whole partition, the object's of its segment; the first is both.
            if kind == "leader-epoch-checkpoint" && segment.base > 0 {
                continue;
            }
            let brokers = fs::read(disk.join(name)).with_context(|| name.to_owned())?;
            ensure!(fs::read(&file)? == brokers, "{name} is not what the broker has");
            *compared.entry(kind.to_owned()).or_default() += 1;
        }
    }
    for kind in ["log", "index", "timeindex", "txnindex", "snapshot", "leader-epoch-checkpoint"] {
        ensure!(compared.contains_key(kind), "no {kind} was compared: {compared:?}");
    }
    Ok(())
}

/// Exit code, findings as (kind, key), and the summary.
type Scrubbed = (i32, Vec<(String, String)>, Value);

fn scrub(cluster: &Cluster, store: &str, more: &[&str]) -> Result<Scrubbed> {
    let bootstrap = cluster.bootstrap();
    let fixed = ["tier", "scrub", "--store.url", store, "--bootstrap-server", &bootstrap, "--json"];
    let (code, out, err) = varve(&[&fixed[..], more].concat())?;
    let mut lines: Vec<Value> = out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let summary = lines.pop().with_context(|| format!("exit code {code}: {err}"))?;
    ensure!(summary["type"] == "summary", "{summary}");
    let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let findings = lines.iter().map(|line| (field(line, "kind"), field(line, "key"))).collect();
    Ok((code, findings, summary))
}

fn url(setup: &Setup) -> String {
    format!("file://{}", setup.store.path().display())
}

fn healthy(setup: &Setup) -> Result<()> {
    let (code, findings, summary) = scrub(&setup.cluster, &url(setup), &["--grace", "0s", "--verify"])?;
    ensure!(code == 0 && findings.is_empty(), "{findings:?} {summary}");
    ensure!(summary["segments_checked"] == segments(setup)?.len(), "{summary}");
    // Elsewhere than the brokers put it nothing lies, and that is no loss.
    let (id, bootstrap) = (&setup.cluster.id, setup.cluster.bootstrap());
    let elsewhere = ["tier", "scrub", "--store.url", &url(setup), "--bootstrap-server", &bootstrap];
    let (code, _, err) = varve(&[&elsewhere[..], &["--cluster-id", "prd-1"]].concat())?;
    ensure!(code == 2 && err.contains("--cluster-id") && err.contains(&format!("{id}/")), "{code} {err}");
    ensure!(summary["notes"].as_array().is_some_and(Vec::is_empty), "{summary}");
    Ok(())
}

/// The key that a copy of the object would have under another segment id. An id may hold a `-` itself.
fn under_another_id(key: &str) -> Result<String> {
    const ID_AND_SUFFIX: usize = "AgICAgICAgICAgICAgICAg.varve".len();
    let at = key.len().checked_sub(ID_AND_SUFFIX).context("no segment id")?;
    Ok(format!("{}AgICAgICAgICAgICAgICAg.varve", &key[..at]))
}

fn scrubs(setup: &Setup) -> Result<()> {
    let (cluster, tier) = (&setup.cluster, &setup.tier);
    let keys: Vec<String> = segments(setup)?.iter().map(|s| s.object_key(&cluster.id)).collect();
    let [lost, cut, footer, data, ..] = &keys[..] else { bail!("too few segments") };
    let before: Vec<Vec<u8>> = keys.iter().map(|key| tier.read(key)).collect::<Result<_>>()?;
    let object = |key: &String| before[keys.iter().position(|k| k == key).unwrap_or(0)].clone();

    // A copy under another segment's id, a file that is no segment, an upload that nobody ended.
    let orphan = under_another_id(lost)?;
    let foreign = format!("{}/notes.txt", cluster.id);
    tier.write(&orphan, &object(lost))?;
    tier.write(&foreign, b"hello")?;
    let staging = setup.store.path().join(".varve-uploads");
    fs::create_dir_all(&staging)?;
    let staged = staging.join(format!("000000000001-00={}", lost.replace('/', "\\")));
    fs::write(&staged, b"half")?;
    tier.remove(lost)?;
    let bytes = object(cut);
    tier.write(cut, &bytes[..bytes.len() - 1])?;
    let mut bytes = object(footer);
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    tier.write(footer, &bytes)?;
    let mut bytes = object(data);
    bytes[500_000] ^= 1;
    tier.write(data, &bytes)?;

    let of = |kind: &str, key: &String| (kind.to_owned(), key.clone());
    let mut expected = vec![
        of("loss", lost),
        of("corruption", cut),
        of("corruption", footer),
        of("orphan", &orphan),
        of("foreign", &foreign),
        of("left-over-upload", lost),
    ];
    expected.sort();
    let (code, mut findings, summary) = scrub(cluster, &url(setup), &["--grace", "0s"])?;
    findings.sort();
    ensure!(code == 1 && findings == expected, "{findings:#?}\n{summary}");

    // Data that rotted shows when data is read.
    expected.push(of("corruption", data));
    expected.sort();
    let (code, mut findings, summary) = scrub(cluster, &url(setup), &["--grace", "0s", "--verify"])?;
    findings.sort();
    ensure!(code == 1 && findings == expected, "{findings:#?}\n{summary}");

    for (key, bytes) in keys.iter().zip(&before) {
        tier.write(key, bytes)?;
    }
    tier.remove(&orphan)?;
    tier.remove(&foreign)?;
    fs::remove_file(staged)?;
    let (code, findings, _) = scrub(cluster, &url(setup), &["--grace", "0s", "--verify"])?;
    ensure!(code == 0, "{findings:?}");
    let nobody = ["tier", "scrub", "--store.url", &url(setup), "--bootstrap-server", "127.0.0.1:1"];
    let config = setup.store.path().join("../client.properties");
    fs::write(&config, "default.api.timeout.ms=500\n")?;
    let (code, _, err) = varve(&[&nobody[..], &["--command-config", text(&config)?]].concat())?;
    ensure!(code == 2 && err.contains("127.0.0.1:1"), "{code} {err}");
    Ok(())
}

fn young(setup: &Setup) -> Result<()> {
    let first = segments(setup)?.remove(0).object_key(&setup.cluster.id);
    let orphan = under_another_id(&first)?;
    setup.tier.write(&orphan, b"being written")?;
    let (code, findings, summary) = scrub(&setup.cluster, &url(setup), &[])?;
    ensure!(code == 0 && findings.is_empty() && summary["in_flight"] == 1, "{findings:?} {summary}");
    setup.tier.remove(&orphan)?;
    Ok(())
}

fn s3() -> Result<()> {
    let minio = Minio::start()?;
    let tier = Tier::s3(&minio, "bucket", "some/prefix")?;
    let Tier::S3 { endpoint, .. } = &tier else { bail!("not S3") };
    let cluster = Cluster::builder().tier(&tier).start()?;
    let kafka = cluster.client();
    for topic in ["gone", "kept"] {
        kafka.create_tiered_topic(topic, 1, &[])?;
        kafka.produce(topic, &Produce { count: 2500, ..Produce::default() })?;
        cluster.wait_tiered(topic, 0)?;
    }
    cluster.wait_settled(&tier)?;
    let before: BTreeMap<String, Vec<u8>> =
        tier.list()?.into_keys().map(|key| Ok((key.clone(), tier.read(&key)?))).collect::<Result<_>>()?;
    let topic_id = kafka.describe_topic("gone")?.topic_id;
    cluster.delete_topic_and_tier("gone", &tier)?;

    let config = cluster.scratch().path().join("store.properties");
    fs::write(
        &config,
        format!(
            "s3.endpoint.url={endpoint}\ns3.region={}\ns3.access.key.id={}\ns3.secret.access.key={}\n",
            varve_tests::MINIO_REGION,
            varve_tests::MINIO_USER,
            varve_tests::MINIO_PASSWORD
        ),
    )?;
    let more = ["--store-config-file", text(&config)?, "--grace", "0s", "--verify"];
    let (code, findings, summary) = scrub(&cluster, "s3://bucket/some/prefix", &more)?;
    ensure!(code == 0 && findings.is_empty(), "{findings:?} {summary}");
    ensure!(summary["segments_checked"].as_u64().is_some_and(|n| n > 0), "{summary}");

    // What was deleted rises again: its metadata says that it is gone.
    let mut risen: Vec<String> = before.keys().filter(|key| key.contains(&topic_id)).cloned().collect();
    risen.truncate(1);
    for key in &risen {
        tier.write(key, &before[key])?;
    }
    let (code, findings, summary) = scrub(&cluster, "s3://bucket/some/prefix", &more)?;
    let expected: Vec<_> = risen.into_iter().map(|key| ("orphan".to_owned(), key)).collect();
    ensure!(code == 1 && findings == expected && !findings.is_empty(), "{findings:?} {summary}");
    Ok(())
}
