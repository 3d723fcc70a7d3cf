//! What an archiver says of itself, held against the truth: metrics, health, readiness, `varve archive status`; and
//! `varve archive snapshot`, made beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use varve_tests::{
    At, Cluster, Look, Produce, Scratch, StoreKind, Suite, TestArchive, eventually, free_port, http_get,
    varve,
};

const LIMIT: Duration = Duration::from_secs(120);
/// Segments by the test's own choice of sizes, everything else quick.
const QUICK: &str = "topics: { include: [\"*\"] }
segments: { bytes: 1MiB, min.bytes: 256KiB, age: 10m }
journal: { rpo: 2s, name: observed }
snapshots: { interval: 0 }
limits: { memory.bytes: 32MiB }";

pub(crate) fn suite() -> Suite {
    Suite::new()
        .test("what_is_told_is_true", truth)
        .test("what_is_held_back_is_lag", lag)
        .test("a_dead_cluster_is_not_ready_and_not_ill", dead)
        .test("a_snapshot_beside_a_running_archiver", snapshot)
}

/// An archiver that listens.
struct Observed {
    archive: TestArchive,
    scratch: Scratch,
    port: u16,
}

impl Observed {
    fn new(name: &str, cluster: &Cluster, extra: &str) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        let port = free_port()?;
        let metrics = format!("metrics: {{ listen: \"127.0.0.1:{port}\", topics.max: 2 }}");
        let archive =
            TestArchive::new(scratch.path(), &cluster.bootstrap(), &format!("{QUICK}\n{metrics}\n{extra}"))?;
        Ok(Self { archive, scratch, port })
    }

    fn start(&self, extra: &[&str]) -> Result<varve_tests::Running> {
        let running = self.archive.start(&self.scratch.path().join("archiver.log"), extra)?;
        eventually("ready", LIMIT, || {
            let (status, body) = self.get("/readyz")?;
            Ok(Look::when(status == 200, (), body))
        })?;
        Ok(running)
    }

    fn get(&self, path: &str) -> Result<(u16, String)> {
        let (status, _, body) = http_get(self.port, path)?;
        Ok((status, body))
    }

    fn scrape(&self) -> Result<Scraped> {
        let (status, head, body) = http_get(self.port, "/metrics")?;
        ensure!(status == 200, "{status}: {body}");
        ensure!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
        Scraped::parse(&body)
    }

    fn varve(&self, args: &[&str]) -> Result<Output> {
        let config = self.archive.config().display().to_string();
        let all = [args, &["-c", &config, "--json"]].concat();
        Ok(self.archive.varve(&all)?.output()?)
    }

    fn status(&self) -> Result<(Option<i32>, Value)> {
        let output = self.varve(&["archive", "status"])?;
        let said = serde_json::from_slice(&output.stdout);
        Ok((
            output.status.code(),
            said.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?,
        ))
    }
}

/// Without sequence numbers: a topic that was just made may answer the first batch with an error and take the next.
fn plain() -> Produce {
    Produce { idempotent: false, ..Produce::default() }
}

/// OpenMetrics text, taken apart as strictly as its specification says.
#[derive(Debug, Default)]
struct Scraped {
    /// Types by family.
    families: BTreeMap<String, String>,
    /// Values by name and labels, as they stand.
    samples: BTreeMap<String, f64>,
}

impl Scraped {
    fn parse(text: &str) -> Result<Self> {
        let body = text.strip_suffix("# EOF\n").context("no # EOF at its end")?;
        let mut all = Self::default();
        let (mut family, mut described) = (String::new(), BTreeSet::new());
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let (what, rest) = rest.split_once(' ').context("half a line")?;
                let (name, value) = rest.split_once(' ').with_context(|| line.to_owned())?;
                ensure!(described.insert((what.to_owned(), name.to_owned())), "twice: {line}");
                match what {
                    "HELP" => {
                        ensure!(!all.families.contains_key(name), "{name} is not in one piece");
                        name.clone_into(&mut family);
                    }
                    "TYPE" => {
                        ensure!(["counter", "gauge", "histogram", "info"].contains(&value), "{line}");
                        all.families.insert(name.to_owned(), value.to_owned());
                    }
                    "UNIT" => ensure!(name.ends_with(&format!("_{value}")), "{line}"),
                    _ => bail!("{line}"),
                }
                ensure!(name == family, "{line} within {family}");
                continue;
            }
            all.sample(&family, line).with_context(|| line.to_owned())?;
        }
        all.check_histograms()?;
        Ok(all)
    }

    fn sample(&mut self, family: &str, line: &str) -> Result<()> {
        let (series, value) = line.rsplit_once(' ').context("no value")?;
        let value: f64 = value.parse()?;
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').context("no end of the labels")?),
            None => (series, ""),
        };
        ensure!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "the name");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').context("a label without a value")?;
            ensure!(key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "label {key}");
            ensure!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "value {value}");
        }
        let suffixes: &[&str] = match self.families.get(family).map(String::as_str) {
            Some("counter") => &["_total"],
            Some("gauge") => &[""],
            Some("histogram") => &["_bucket", "_sum", "_count"],
            Some("info") => &["_info"],
            other => bail!("a sample of {other:?}"),
        };
        let suffix = name.strip_prefix(family).context("of another family")?;
        ensure!(suffixes.contains(&suffix), "suffix {suffix}");
        ensure!(value.is_finite() && (suffix.is_empty() || value >= 0.0), "{value}");
        let series = series.trim_end_matches("{}");
        ensure!(self.samples.insert(series.to_owned(), value).is_none(), "twice");
        Ok(())
    }

    /// Buckets rise, and the last holds all.
    fn check_histograms(&self) -> Result<()> {
        let histograms = self.families.iter().filter(|(_, kind)| *kind == "histogram");
        for (family, _) in histograms {
            for (series, count) in
                self.samples.iter().filter(|(s, _)| s.starts_with(&format!("{family}_count")))
            {
                let labels = series.trim_start_matches(&format!("{family}_count")).trim_matches(['{', '}']);
                let mut buckets = Vec::new();
                for (bucket, n) in
                    self.samples.iter().filter(|(s, _)| s.starts_with(&format!("{family}_bucket")))
                {
                    if bucket.contains(labels) {
                        let bound = bucket.split("le=\"").nth(1).and_then(|b| b.split('"').next());
                        let bound = bound.context("a bucket without a bound")?.replace("+Inf", "inf");
                        buckets.push((bound.parse::<f64>()?, *n));
                    }
                }
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                ensure!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{series}: {buckets:?}");
                ensure!(buckets.last() == Some(&(f64::INFINITY, *count)), "{series}: {buckets:?}");
            }
        }
        Ok(())
    }

    fn of(&self, name: &str, labels: &str) -> Result<f64> {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let series = format!("varve_archiver_{name}{labels}");
        self.samples.get(&series).copied().with_context(|| format!("no {series}"))
    }

    /// Over all labels.
    fn sum(&self, name: &str) -> f64 {
        let full = format!("varve_archiver_{name}");
        self.samples.iter().filter(|(s, _)| s.split('{').next() == Some(&full)).map(|(_, value)| value).sum()
    }
}

/// Every object of the archive but those that are being written, and its size.
fn objects(archive: &TestArchive) -> Result<BTreeMap<String, u64>> {
    let mut all = archive.tier().list()?;
    all.retain(|key, _| !key.split('/').any(|name| name.starts_with('.')));
    Ok(all)
}

fn caught_up(observed: &Observed, records: f64) -> Result<Scraped> {
    eventually("all archived, and told so", LIMIT, || {
        let scraped = observed.scrape()?;
        let (end, lag) = (scraped.sum("archived_end_offset_sum"), scraped.sum("lag_records"));
        let done = end == records && lag == 0.0 && scraped.sum("log_end_offset_sum") == records;
        let state = (end, lag);
        Ok(Look::when(done, scraped, state))
    })
}

/// Nothing is under way any more: what is told, and the objects that there are.
fn settled(observed: &Observed) -> Result<(Scraped, BTreeMap<String, u64>)> {
    let names =
        ["segments_total", "gaps_total", "bundles_total", "store_sent_bytes_total", "read_batches_total"];
    let mut before = None;
    eventually("the same twice", LIMIT, || {
        std::thread::sleep(Duration::from_secs(2));
        let (scraped, there) = (observed.scrape()?, objects(&observed.archive)?);
        let now = Some((names.map(|name| scraped.sum(name)), there.clone()));
        let is_same = now == before;
        let state = format!("{now:?}");
        before = now;
        Ok(Look::when(is_same, (scraped, there), state))
    })
}

fn truth() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    // More topics than have metrics of their own.
    for topic in ["a", "b", "c", "d"] {
        kafka.create_topic(topic, 2, 1, &[])?;
        kafka.produce(topic, &Produce { count: 100, ..plain() })?;
    }
    // Segments of 1 MiB, and a rest that goes into the journal.
    kafka.produce("a", &Produce { partition: 1, count: 5000, value_bytes: 1000, ..plain() })?;
    // Before anything is archived, so that a gap comes.
    kafka.delete_records("b", 0, 40)?;
    let observed = Observed::new("observed-truth", &cluster, "")?;
    let running = observed.start(&[])?;
    caught_up(&observed, 5400.0)?;
    let (scraped, there) = settled(&observed)?;

    let names: BTreeSet<&str> = scraped
        .samples
        .keys()
        .filter_map(|series| series.split("topic=\"").nth(1)?.split('"').next())
        .collect();
    ensure!(names.len() == 3 && names.contains("_other"), "{names:?}");
    ensure!(scraped.sum("partitions") == 8.0 && scraped.of("partitions", "state=\"reading\"")? == 8.0);
    ensure!(scraped.sum("partitions_failed") == 0.0 && scraped.sum("errors_total") == 0.0);
    ensure!(scraped.sum("log_start_offset_sum") == 40.0, "{}", scraped.sum("log_start_offset_sum"));
    ensure!(scraped.of("ready", "")? == 1.0 && scraped.of("rpo_seconds", "")? == 2.0);
    // Segments and gaps that are there, by the archive's own objects.
    let named = |folder: &str, end: &str| {
        there.keys().filter(|key| key.starts_with(folder) && key.ends_with(end)).count() as f64
    };
    let gaps = scraped.sum("gaps_total");
    ensure!(gaps == 1.0 && scraped.of("gap_offsets_total", "reason=\"log-start\"")? == 40.0, "{gaps}");
    let segments = scraped.sum("segments_total");
    ensure!(segments >= 2.0, "{segments}");
    ensure!(named("topics/", ".varve") == segments + gaps, "{segments} {gaps} {there:?}");
    ensure!(named("journal/", ".bundle") == scraped.sum("bundles_total"), "{there:?}");
    // What the brokers gave and what the store took, file for file and byte for byte.
    let (bytes, records) = (scraped.sum("read_bytes_total"), scraped.sum("read_batches_total"));
    ensure!(bytes > 5_000_000.0 && bytes < 6_500_000.0 && records > 8.0, "{bytes} {records}");
    let done = |operation: &str| -> Result<f64> {
        let labels = format!("operation=\"{operation}\"");
        Ok(scraped.of("store_requests_total", &labels)? - scraped.of("store_errors_total", &labels)?)
    };
    // A probe is written and deleted: whether the store creates only what is absent.
    let written = done("put")? + done("complete")? - done("delete_many")?;
    ensure!(written == there.len() as f64, "{written} written, {} there: {there:?}", there.len());
    let sizes: u64 = there.values().sum();
    let sent = scraped.sum("store_sent_bytes_total");
    ensure!(sent >= sizes as f64 && sent < sizes as f64 * 1.2, "{sent} sent, {sizes} there");
    let is_free = scraped.sum("store_cost_dollars_total") == 0.0;
    ensure!(is_free || StoreKind::chosen()? != StoreKind::File, "a filesystem costs nothing by request");
    let used = scraped.of("memory_used_bytes", "")?;
    ensure!(used < scraped.of("memory_limit_bytes", "")?, "{used}");
    ensure!(scraped.of("memory_resident_bytes", "")? > 1e6);

    ensure!(observed.get("/healthz")? == (200, "healthy\n".to_owned()));
    ensure!(observed.get("/nothing")?.0 == 404);
    let (code, status) = observed.status()?;
    ensure!(code == Some(0), "{code:?}: {status}");
    ensure!(status["partitions"].as_array().map(Vec::len) == Some(8), "{status}");
    ensure!(status["segments"].as_f64() == Some(segments), "{status}");
    let b0 = &status["partitions"][2];
    ensure!(b0["topic"] == "b" && b0["log_start_offset"] == 40 && b0["archived_end_offset"] == 100, "{b0}");
    ensure!(running.terminate()?.success(), "it did not end well");
    ensure!(observed.varve(&["archive", "status"])?.status.code() == Some(2), "nobody is there to be asked");
    Ok(())
}

/// With next to no rate, the first answer is taken and nothing more: the rest must be seen as lag.
fn lag() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 1, &[])?;
    let observed = Observed::new("observed-lag", &cluster, "")?;
    let running = observed.start(&["--set", "limits.read.rate.bytes.per.second=1"])?;
    kafka.produce("t", &Produce { count: 200, ..plain() })?;
    // The journal takes what was read, though nothing more may be read.
    eventually("the first answer is in the archive", LIMIT, || {
        let end = observed.scrape()?.sum("archived_end_offset_sum");
        Ok(Look::when(end > 0.0, (), end))
    })?;
    kafka.produce("t", &Produce { count: 3000, seed: 2, ..plain() })?;
    let log_end = kafka.offset("t", 0, At::Latest)? as f64;
    let scraped = eventually("the log's end is known without reading it", LIMIT, || {
        let scraped = observed.scrape()?;
        let known = scraped.of("log_end_offset_sum", "topic=\"t\"")?;
        Ok(Look::when(known == log_end, scraped, known))
    })?;
    let scraped_at = Instant::now();
    let (archived, behind) =
        (scraped.of("archived_end_offset_sum", "topic=\"t\"")?, scraped.of("lag_records", "topic=\"t\"")?);
    ensure!(behind == log_end - archived && behind >= 2900.0, "{behind} of {log_end}, archived {archived}");
    let per_record = scraped.of("read_bytes_total", "topic=\"t\"")? / archived;
    let estimate = scraped.of("lag_bytes", "topic=\"t\"")?;
    ensure!((estimate / (behind * per_record) - 1.0).abs() < 0.01, "{estimate} for {behind} of {per_record}");
    let before = scraped.of("lag_seconds", "topic=\"t\"")?;
    std::thread::sleep(Duration::from_secs(4));
    let scraped = observed.scrape()?;
    let passed = scraped_at.elapsed().as_secs_f64();
    let waited = scraped.of("lag_seconds", "topic=\"t\"")? - before;
    ensure!((waited - passed).abs() < 1.0, "{waited} s older after {passed} s");
    ensure!(scraped.of("throttle_seconds_total", "by=\"read_rate\"")? > 3.0);
    // That is a missed RPO, and no illness.
    ensure!(observed.get("/healthz")?.0 == 200);
    let (code, status) = observed.status()?;
    ensure!(code == Some(1), "{code:?}: {status}");
    let config = observed.archive.config().display().to_string();
    let shown = varve()?.args(["archive", "status", "-c", &config]).output()?;
    let text = String::from_utf8_lossy(&shown.stdout);
    ensure!(text.contains("MISSED") && text.contains("0 topics meet the RPO of 2 s, 1 do not"), "{text}");
    // With a rate, it catches up, and nothing is lag any more.
    ensure!(running.terminate()?.success(), "it did not end well");
    let running = observed.start(&[])?;
    let scraped = caught_up(&observed, log_end)?;
    ensure!(scraped.of("lag_seconds", "topic=\"t\"")? == 0.0);
    ensure!(running.terminate()?.success(), "it did not end well");
    Ok(())
}

fn dead() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    cluster.client().create_topic("t", 1, 1, &[])?;
    let observed = Observed::new("observed-dead", &cluster, "")?;
    let mut running = observed.start(&[])?;
    cluster.broker().kill();
    let said = eventually("not ready", LIMIT, || {
        let (status, body) = observed.get("/readyz")?;
        Ok(Look::when(status == 503, body.clone(), body))
    })?;
    ensure!(said.starts_with("cluster: "), "{said}");
    ensure!(observed.get("/healthz")? == (200, "healthy\n".to_owned()));
    let (code, status) = observed.status()?;
    ensure!(code == Some(1) && status["healthy"] == true && status["ready"] == false, "{code:?}: {status}");
    eventually("the errors are counted", LIMIT, || {
        let errors = observed.scrape()?.of("errors_total", "kind=\"cluster\"")?;
        Ok(Look::when(errors > 0.0, (), errors))
    })?;
    cluster.broker().start()?;
    eventually("ready again", LIMIT, || {
        let (status, body) = observed.get("/readyz")?;
        Ok(Look::when(status == 200, (), body))
    })?;
    cluster.client().produce("t", &Produce { count: 50, ..plain() })?;
    caught_up(&observed, 50.0)?;
    ensure!(running.is_alive());
    // A store that is gone is another thing.
    observed.archive.tier().remove("archive.json")?;
    eventually("the store is missed", LIMIT, || {
        let (status, body) = observed.get("/readyz")?;
        Ok(Look::when(status == 503 && body.starts_with("store: "), (), body))
    })?;
    ensure!(observed.get("/healthz")?.0 == 200);
    running.kill();
    Ok(())
}

fn snapshot() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 3, 1, &[])?;
    kafka.create_topic("empty", 2, 1, &[])?;
    for partition in 0..3 {
        kafka.produce("t", &Produce { partition, count: 100, ..plain() })?;
    }
    let observed = Observed::new("observed-snapshot", &cluster, "")?;
    let made = |args: &[&str]| -> Result<(Option<i32>, Value)> {
        let output = observed.varve(&[&["archive", "snapshot"], args].concat())?;
        let said = serde_json::from_slice(&output.stdout);
        Ok((
            output.status.code(),
            said.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?,
        ))
    };
    // Nobody archives: all that has records lags, by name.
    let (code, said) = made(&["--wait", "1s"])?;
    let lagging = said["lagging_partitions"].as_array().context("no list")?.clone();
    ensure!(code == Some(1) && said["partitions"] == 5 && lagging.len() == 3, "{code:?}: {said}");
    ensure!(
        lagging[0]["topic"] == "t" && lagging[0]["log_end_offset"] == 100 && lagging[0]["end_offset"] == 0
    );
    // Beside a running archiver it waits until journal and chains have all, and changes nothing for it.
    let running = observed.start(&[])?;
    kafka.produce("t", &Produce { partition: 1, count: 50, seed: 2, ..plain() })?;
    let (code, said) = made(&["--wait", "30s"])?;
    ensure!(code == Some(0) && said["lagging_partitions"] == serde_json::json!([]), "{code:?}: {said}");
    ensure!(said["snapshot"] == 2, "{said}");
    let text = |args: &[&str]| -> Result<String> {
        let output = varve()?.args(args).output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "varve {args:?}: {out}\n{err}");
        Ok(out.into_owned())
    };
    let url = observed.archive.url();
    text(&["verify", &url, "--depth", "contents"])?;
    let described: Value = serde_json::from_str(&text(&["snapshots", &url, "2", "--json"])?)?;
    ensure!(described["lagging_partitions"] == serde_json::json!([]), "{described}");
    ensure!(!described["cluster_state"].is_null(), "{described}");
    // As of it, all that was produced is there.
    let records = text(&["cat", &url, "t", "--snapshot", "2", "--format", "json"])?.lines().count();
    ensure!(records == 350, "{records}");
    ensure!(running.terminate()?.success(), "it did not end well");
    // An archiver that starts knows of the snapshots that were made before.
    let running = observed.start(&[])?;
    eventually("the newest snapshot", LIMIT, || {
        let found = observed.scrape()?.of("snapshot_sequence", "")?;
        Ok(Look::when(found >= 2.0, (), found))
    })?;
    running.kill();
    Ok(())
}
