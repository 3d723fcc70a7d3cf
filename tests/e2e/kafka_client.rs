//! The client of `crates/kafka` against every supported broker: plain, over TLS with client certificates, with
//! SASL, and while leaders move. What it reads is compared with the bytes of the brokers' own log files.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use kafka_protocol::messages::MetadataRequest;
use varve_kafka::client::{Client, ClientError, OffsetSpec};
use varve_kafka::protocol::{
    Batches, parse_leader_epochs, parse_offset_index, parse_producer_snapshot, parse_time_index,
    parse_transaction_index,
};
use varve_tests::raw_admin::wait_stable;
use varve_tests::{
    Certificates, Cluster, KAFKA_VERSIONS, Node, Produce, Scratch, Suite, Transactions, client, runtime,
};

const PASSWORD: &str = "pencil-42";

pub(crate) fn suite() -> Suite {
    let mut suite = Suite::new();
    for version in KAFKA_VERSIONS {
        suite = suite.test(&format!("kafka_{version}_reads_what_is_on_disk"), move || on_disk(version));
    }
    suite
        .test("tls_and_sasl", secured)
        .test("leaders_move_while_reading", leaders_move)
        .test("no_broker_and_no_topic", nothing_there)
}

/// Per partition all its bytes, joined; every batch's checksum is checked.
async fn read_all(client: &Client, topic: &str) -> Result<BTreeMap<i32, BytesMut>> {
    let mut all: BTreeMap<i32, BytesMut> = BTreeMap::new();
    let mut reader = client.read_topic_to_end(topic).await?;
    let total = reader.total_offsets();
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    while let Some(batches) = reader.next().await? {
        let end = ends.entry(batches.partition).or_insert(batches.from_offset);
        ensure!(*end == batches.from_offset, "expected offset {end}, found {}", batches.from_offset);
        *end = batches.next_offset;
        for batch in Batches::new(batches.bytes.clone(), 0) {
            batch?.check_crc()?;
        }
        all.entry(batches.partition).or_default().extend_from_slice(&batches.bytes);
    }
    ensure!(reader.remaining_offsets() == 0 && total > 0, "{total} offsets, some not read");
    Ok(all)
}

/// The log files of one partition, joined.
fn log_on_disk(node: &Node, topic: &str, partition: u32) -> Result<Vec<u8>> {
    let dir = node.partition_dir(topic, partition);
    let mut logs: Vec<_> = std::fs::read_dir(&dir)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
    logs.sort();
    let mut bytes = Vec::new();
    for log in logs {
        bytes.extend(std::fs::read(log)?);
    }
    Ok(bytes)
}

fn on_disk(version: &str) -> Result<()> {
    let cluster = Cluster::builder().version(version).start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 3, 1, &[("segment.bytes", "1048576"), ("index.interval.bytes", "100")])?;
    for (partition, compression) in [(0, "none"), (1, "zstd")] {
        let produce =
            Produce { partition, compression, count: 4000, headers: 1, text: true, ..Produce::default() };
        kafka.produce("t", &produce)?;
    }
    kafka.produce_transactions(
        "t",
        &Transactions {
            transactional_id: "tx".to_owned(),
            transactions: 30,
            records_per_transaction: 100,
            abort_every: 3,
            seed: 5,
            value_bytes: 1000,
            partition: 2,
        },
    )?;
    runtime()?.block_on(async {
        // A small fetch size, so that batches are cut at the answers' ends.
        let client = client(&cluster.bootstrap(), &[("max.partition.fetch.bytes", "50000")])?;
        let topic = client.topic("t").await?;
        ensure!(topic.topic_id.to_string() == kafka.describe_topic("t")?.topic_id);
        ensure!(client.topic_ids().await?.get(&topic.topic_id).is_some_and(|name| name == "t"));
        let metadata = client.metadata(None).await?;
        ensure!(metadata.cluster_id.as_deref() == Some(cluster.id.as_str()), "{metadata:?}");
        wait_stable(&client, "t", 2).await?;
        let all = read_all(&client, "t").await?;
        for partition in 0..3 {
            let disk = log_on_disk(cluster.broker(), "t", partition)?;
            let read = all.get(&i32::try_from(partition)?).context("nothing was read")?;
            ensure!(
                read[..] == disk[..],
                "partition {partition}: {} bytes read, {} on disk",
                read.len(),
                disk.len()
            );
        }
        let after = client.list_offsets("t", &[0], OffsetSpec::AtOrAfterMs(i64::MAX)).await?;
        ensure!(after.get(&0) == Some(&None), "{after:?}");
        Ok(())
    })?;
    files_parse(&cluster.broker().log_dir())
}

/// Every index, snapshot and checkpoint of the broker, with something in each kind.
fn files_parse(data: &Path) -> Result<()> {
    let mut entries: BTreeMap<String, usize> = BTreeMap::new();
    for dir in std::fs::read_dir(data)? {
        let dir = dir?.path();
        if !dir.is_dir() || !dir.file_name().is_some_and(|n| n.to_string_lossy().starts_with("t-")) {
            continue;
        }
        for file in std::fs::read_dir(dir)? {
            let path = file?.path();
            let bytes = std::fs::read(&path)?;
            let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
            let base: i64 = stem.parse().unwrap_or(0);
            let kind = path.extension().or(path.file_name()).and_then(|e| e.to_str()).unwrap_or_default();
            let count = match kind {
                "index" => parse_offset_index(&bytes, base)?.len(),
                "timeindex" => parse_time_index(&bytes, base)?.len(),
                "txnindex" => parse_transaction_index(&bytes)?.len(),
                "snapshot" => parse_producer_snapshot(&bytes)?.len(),
                "leader-epoch-checkpoint" => parse_leader_epochs(&bytes)?.len(),
                _ => continue,
            };
            *entries.entry(kind.to_owned()).or_default() += count;
        }
    }
    for kind in ["index", "timeindex", "txnindex", "snapshot", "leader-epoch-checkpoint"] {
        ensure!(entries.get(kind).is_some_and(|n| *n > 0), "no entry in any {kind}: {entries:?}");
    }
    Ok(())
}

fn secured() -> Result<()> {
    let scratch = Scratch::new("tls")?;
    let certificates = Certificates::make(scratch.path())?;
    let jaas =
        |module: &str, more: &str| format!("org.apache.kafka.common.security.{module} required {more};");
    let mut builder = Cluster::builder()
        .listener("MUTUAL", "SSL")
        .listener("SECURE", "SASL_SSL")
        .property("listener.name.mutual.ssl.client.auth", "required")
        .property("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512")
        .property("connections.max.reauth.ms", "20000")
        .property(
            "listener.name.secure.plain.sasl.jaas.config",
            jaas("plain.PlainLoginModule", &format!("user_ann=\"{PASSWORD}\"")),
        )
        .property("listener.name.secure.scram-sha-256.sasl.jaas.config", jaas("scram.ScramLoginModule", ""))
        .property("listener.name.secure.scram-sha-512.sasl.jaas.config", jaas("scram.ScramLoginModule", ""));
    for (key, value) in certificates.broker_properties() {
        builder = builder.property(key, value);
    }
    let cluster = builder.start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 2, 1, &[])?;
    kafka.produce("t", &Produce { count: 500, ..Produce::default() })?;
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        kafka.set_scram_user("ann", mechanism, PASSWORD)?;
    }
    let disk = log_on_disk(cluster.broker(), "t", 0)?;
    let (ca, certificate, key) = (certificates.ca(), certificates.client(), certificates.client_key());
    let tls = [("security.protocol", "SSL"), ("ssl.ca.location", ca.as_str())];
    let mutual = [("ssl.certificate.location", certificate.as_str()), ("ssl.key.location", key.as_str())];
    let quick = [("default.api.timeout.ms", "15000")];
    runtime()?.block_on(async {
        let ssl = cluster.bootstrap_of("MUTUAL")?;
        let reads = async |bootstrap: &str, pairs: &[(&str, &str)]| -> Result<()> {
            let client = client(bootstrap, pairs)?;
            let all = read_all(&client, "t").await?;
            ensure!(all.get(&0).is_some_and(|read| read[..] == disk[..]), "not what is on disk");
            Ok(())
        };
        reads(&ssl, &[&tls[..], &mutual].concat()).await.context("mutual TLS")?;
        let refused = reads(&ssl, &[&tls[..], &quick].concat()).await;
        ensure!(refused.is_err(), "let in without a certificate");
        let public = [("security.protocol", "SSL"), quick[0]];
        let refused = client(&ssl, &public)?.metadata(None).await;
        ensure!(matches!(refused, Err(ClientError::Tls { .. })), "a foreign CA was trusted: {refused:?}");

        let secure = cluster.bootstrap_of("SECURE")?;
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let sasl = |password: &'static str| {
                vec![
                    ("security.protocol", "SASL_SSL"),
                    ("ssl.ca.location", ca.as_str()),
                    ("sasl.mechanism", mechanism),
                    ("sasl.username", "ann"),
                    ("sasl.password", password),
                ]
            };
            reads(&secure, &sasl(PASSWORD)).await.context(mechanism)?;
            let refused = client(&secure, &sasl("wrong"))?.metadata(None).await;
            ensure!(matches!(refused, Err(ClientError::Authentication { .. })), "{mechanism}: {refused:?}");
        }
        // Longer than the broker lets one login live: the client has to log in again.
        let sasl = [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", ca.as_str()),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "ann"),
            ("sasl.password", PASSWORD),
        ];
        let client = client(&secure, &sasl)?;
        for _ in 0..45 {
            // Without a second try: what the broker cuts must not be asked.
            let request = MetadataRequest::default();
            client.any_connection().await?.call(request).await.context("a login that has ended")?;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        Ok(())
    })
}

fn leaders_move() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 2, 3, &[])?;
    for partition in 0..2 {
        kafka.produce("t", &Produce { partition, count: 3000, ..Produce::default() })?;
    }
    runtime()?.block_on(async {
        let client = client(&cluster.bootstrap(), &[("max.partition.fetch.bytes", "20000")])?;
        let mut reader = client.read_topic_to_end("t").await?;
        let mut sizes: BTreeMap<i32, usize> = BTreeMap::new();
        let mut rounds = 0;
        while let Some(batches) = reader.next().await? {
            *sizes.entry(batches.partition).or_default() += batches.bytes.len();
            rounds += 1;
            match rounds {
                5 | 25 => {
                    let leader = cluster.leader("t", 0)?.id;
                    kafka.move_leader("t", 0, leader % 3 + 1)?;
                }
                // The broker that leads the other partition dies and comes back.
                45 => cluster.leader("t", 1)?.kill(),
                _ => {}
            }
        }
        ensure!(rounds > 60, "only {rounds} answers: the leaders moved too late");
        for partition in 0..2_u32 {
            let alive = cluster.leader("t", partition)?;
            let disk = log_on_disk(alive, "t", partition)?;
            let read = sizes.get(&i32::try_from(partition)?).copied().unwrap_or(0);
            ensure!(read == disk.len(), "partition {partition}: {read} bytes read, {} on disk", disk.len());
        }
        Ok(())
    })
}

fn nothing_there() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    runtime()?.block_on(async {
        let here = client(&cluster.bootstrap(), &[])?;
        let Err(ClientError::NoSuchTopic { topic }) = here.topic("absent").await else {
            bail!("a topic that is not there was found");
        };
        ensure!(topic == "absent");
        let nobody = client("127.0.0.1:1", &[("default.api.timeout.ms", "700")])?;
        let Err(ClientError::GaveUp { waited_ms, last, .. }) = nobody.metadata(None).await else {
            bail!("nobody answered");
        };
        ensure!((700..30_000).contains(&waited_ms) && matches!(*last, ClientError::Connect { .. }), "{last}");
        Ok(())
    })
}
