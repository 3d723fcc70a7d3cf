//! `varve restore` into clusters whose brokers reach each other, and us, by TLS and SASL: what is given is enough, what
//! lacks or does not fit is told, and nothing is left behind.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use varve_kafka::client::{Client, ClientConfig};
use varve_tests::raw_admin::{allow, commit, disallow, set_config, set_quota};
use varve_tests::{
    At, Certificates, Cluster, ClusterBuilder, Consume, Look, Permission, Produce, ResourceName, Restoring,
    Scratch, Shared, Suite, TestArchive, TopicLogs, Transactions, documented_producer_permissions,
    documented_restore_permissions, eventually, of_plan, plain_client, runtime, same_logs, varve,
};

const TOPICS: [&str; 2] = ["plain", "transactional"];
const LISTENER: &str = "INTERNAL";
/// Where clients come from.
const OUTSIDE: &str = "OUTSIDE";
const BROKER: &str = "broker";
const US: &str = "restorer";
/// As a config's resource.
const GROUP: i8 = 32;
const PASSWORD: &str = "pencil-4711";
const LIMIT: Duration = Duration::from_secs(60);

/// On the cluster, and implied by no other.
const OPERATIONS: [&str; 4] = ["ClusterAction", "Create", "Alter", "IdempotentWrite"];

pub(crate) fn suite() -> Suite {
    let source = Shared::new(Source::make);
    Suite::new()
        .test_with(&source, "by_mutual_tls_also_to_the_controllers", by_mutual_tls)
        .test_with(&source, "by_scram_and_tls_on_three_brokers_after_a_kill", by_scram)
        .test_with(&source, "a_producer_with_the_documented_permissions", by_producer)
        .test_with(&source, "by_plain_with_the_documented_permissions", by_plain)
}

/// An archive of a cluster that is gone.
struct Source {
    logs: Vec<TopicLogs>,
    archive: TestArchive,
    certificates: Certificates,
    strangers: Certificates,
    scratch: Scratch,
}

impl Source {
    fn make() -> Result<Self> {
        let cluster = Cluster::builder().start()?;
        let kafka = cluster.client();
        for topic in TOPICS {
            kafka.create_topic(topic, 2, 1, &[("segment.bytes", "1048576")])?;
        }
        for partition in 0..2 {
            let records = Produce { partition, compression: "zstd", headers: 1, ..Produce::default() };
            kafka.produce("plain", &Produce { count: 2000, ..records })?;
        }
        let transactions = Transactions {
            transactional_id: "t".to_owned(),
            transactions: 10,
            records_per_transaction: 20,
            abort_every: 3,
            seed: 3,
            value_bytes: 300,
            partition: 0,
        };
        kafka.produce_transactions("transactional", &transactions)?;
        let client = plain_client(&cluster.bootstrap())?;
        runtime()?.block_on(async {
            commit(&client, "billing", &["plain"], 77, "as it was").await?;
            set_quota(&client, &[("user", Some("ann"))], "producer_byte_rate", 1e6).await?;
            set_config(&client, GROUP, "billing", &[("consumer.session.timeout.ms", "50000")]).await
        })?;
        let scratch = Scratch::new("restore-secured")?;
        let extra = "topics: { include: [\"*\"] }";
        let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), extra)?;
        archive.run_once(&[])?;
        let (own, other) = (scratch.path().join("own"), scratch.path().join("strangers"));
        std::fs::create_dir_all(&own)?;
        std::fs::create_dir_all(&other)?;
        Ok(Self {
            logs: TopicLogs::read(&client, &TOPICS)?,
            archive,
            certificates: Certificates::make(&own)?,
            strangers: Certificates::make(&other)?,
            scratch,
        })
    }

    fn plan(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.plan"))
    }

    /// A file of KEY=VALUE lines.
    fn file(&self, name: &str, lines: &[(&str, &str)]) -> Result<String> {
        let path = self.scratch.path().join(name);
        let lines: String = lines.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        std::fs::write(&path, lines)?;
        Ok(path.display().to_string())
    }

    fn restore(&self, cluster: &Cluster, name: &str, extra: &[&str]) -> Result<Command> {
        let mut command = varve()?;
        command.args(["restore", "--from", &self.archive.url(), "--to", &cluster.bootstrap()]);
        command.args(["--controller", &cluster.controllers(), "--yes", "--plan"]).arg(self.plan(name));
        command.args(extra);
        Ok(command)
    }

    fn same(&self, cluster: &Cluster) -> Result<()> {
        same_logs(&self.logs, &TopicLogs::read(&plain_client(&cluster.bootstrap())?, &TOPICS)?)
    }
}

/// One whose brokers reach each other by `protocol`.
fn builder(protocol: &str, controllers: &str) -> ClusterBuilder {
    let map = format!("CONTROLLER:{controllers},PLAINTEXT:PLAINTEXT,{LISTENER}:{protocol}");
    Cluster::builder()
        .listener(LISTENER, protocol)
        .property("inter.broker.listener.name", LISTENER)
        .property("listener.security.protocol.map", map)
}

fn with_certificates(mut builder: ClusterBuilder, certificates: &Certificates) -> ClusterBuilder {
    for (key, value) in certificates.broker_properties() {
        builder = builder.property(key, value);
    }
    builder
}

/// What it printed; it must have ended with this code.
fn ended(command: Command, code: i32) -> Result<(String, String)> {
    let (out, err) = varve_tests::ended(command, code)?;
    for secret in [PASSWORD, "wrong-4712", "PRIVATE KEY"] {
        ensure!(!format!("{out}{err}").contains(secret), "a secret is told\n{out}\n{err}");
    }
    Ok((out, err))
}

/// A client of the listener by which brokers reach each other: it alone tells of us.
fn inside(cluster: &Cluster, pairs: &[(&str, &str)]) -> Result<Client> {
    let servers = cluster.bootstrap_of(LISTENER)?;
    let own = [("bootstrap.servers", servers.as_str())];
    Ok(Client::new(ClientConfig::from_pairs(own.iter().chain(pairs).copied())?)?)
}

/// Nobody knows of us any more; `topics` are there, with leaders.
fn left(client: &Client, brokers: usize, topics: usize) -> Result<()> {
    eventually("we are gone, and nothing of us is left", LIMIT, || {
        let metadata = runtime()?.block_on(client.metadata(None))?;
        let own = metadata.topics.iter().filter(|t| !t.name.starts_with("__")).count();
        let mut partitions = metadata.topics.iter().flat_map(|t| &t.partitions);
        let is_left = metadata.brokers.len() == brokers
            && own == topics
            && partitions.all(|p| p.leader_id.is_some() && p.replicas.iter().all(|id| *id < 990_000));
        Ok(Look::when(is_left, (), metadata))
    })
}

/// Of our listener, while it serves: who has not the brokers' certificates does not come in, whatever name it gives.
fn strangers_stay_out(source: &Source, client: &Client) -> Result<()> {
    let brokers = runtime()?.block_on(client.metadata(Some(&[])))?.brokers;
    let us = brokers.iter().find(|broker| broker.node_id >= 990_000).context("we are not there")?;
    let address = us.address.to_string();
    let enter = |certificates: Option<&Certificates>| -> Result<()> {
        let own: BTreeMap<_, _> =
            certificates.into_iter().flat_map(Certificates::client_properties).collect();
        let ca = source.certificates.ca();
        let mut pairs: BTreeMap<&str, &str> = own.iter().map(|(key, value)| (*key, value.as_str())).collect();
        pairs.extend([("ssl.ca.location", ca.as_str()), ("bootstrap.servers", address.as_str())]);
        pairs.extend([("security.protocol", "SSL"), ("client.id", "broker-1-fetcher-0")]);
        let client = Client::new(ClientConfig::from_pairs(pairs)?)?;
        Ok(runtime()?.block_on(client.any_connection()).map(drop)?)
    };
    enter(Some(&source.certificates)).context("a broker's certificate")?;
    for (whose, certificates) in [("none", None), ("a stranger's", Some(&source.strangers))] {
        ensure!(enter(certificates).is_err(), "let in with a certificate of {whose}");
    }
    Ok(())
}

fn by_mutual_tls(source: &Source) -> Result<()> {
    let own = &source.certificates;
    let cluster =
        with_certificates(builder("SSL", "SSL"), own).property("ssl.client.auth", "required").start()?;
    let own_client = own.client_properties();
    let client: Vec<(&str, &str)> = [("security.protocol", "SSL")]
        .into_iter()
        .chain(own_client.iter().map(|(key, value)| (*key, value.as_str())))
        .collect();
    let controllers = source.file("tls-controllers", &client)?;
    let controllers = ["--controller-config", controllers.as_str()];
    let restore =
        |name: &str, extra: &[&str]| source.restore(&cluster, name, &[&controllers[..], extra].concat());
    let listener = |name: &str, certificates: &Certificates| {
        let lines = certificates.broker_properties();
        let lines: Vec<_> = lines.iter().map(|(key, value)| (*key, value.as_str())).collect();
        source.file(name, &[&lines[..], &[("ssl.client.auth", "required")]].concat())
    };

    // What is seen before anything is begun.
    let (out, _) = ended(restore("tls-without", &["--dry-run"])?, 1)?;
    ensure!(out.contains("by SSL (listener INTERNAL), which needs ssl.keystore.location"), "{out}");
    ensure!(out.contains("--listener-config"), "{out}");
    let good = listener("tls-listener", own)?;
    let elsewhere = ["--listener-config", &good, "--advertise", "localhost", "--dry-run"];
    let (out, _) = ended(restore("tls-elsewhere", &elsewhere)?, 1)?;
    ensure!(out.contains("not valid for name \"localhost\"") && out.contains("--advertise"), "{out}");
    left(&inside(&cluster, &client)?, 1, 0)?;

    // What only the brokers can see.
    let bad = listener("tls-strangers", &source.strangers)?;
    let begun = Instant::now();
    let (_, err) = ended(restore("tls-untrusted", &["--listener-config", &bad])?, 2)?;
    ensure!(err.contains("brokers can't copy from us") && err.contains("ssl.keystore.*"), "{err}");
    ensure!(err.contains("WARN") && err.contains("peer=127.0.0.1"), "{err}");
    ensure!(begun.elapsed() < LIMIT, "told after {:?}", begun.elapsed());
    let (out, _) = ended(
        of_plan("cleanup", &source.plan("tls-untrusted"), &[&["--yes"][..], &controllers].concat())?,
        0,
    )?;
    ensure!(out.contains("deleted"), "{out}");
    left(&inside(&cluster, &client)?, 1, 0)?;

    let command = restore("tls", &["--listener-config", &good, "--throttle", "256KiB"])?;
    let mut restoring = Restoring::start(command, &source.plan("tls"))?;
    restoring.wait_begun(cluster.broker(), TOPICS[0])?;
    strangers_stay_out(source, &inside(&cluster, &client)?)?;
    let report = restoring.finish()?;
    ensure!(report["target"]["listener_protocol"] == "SSL", "{report}");
    source.same(&cluster)?;
    left(&inside(&cluster, &client)?, 1, TOPICS.len())
}

fn by_scram(source: &Source) -> Result<()> {
    let module = "org.apache.kafka.common.security.scram.ScramLoginModule required";
    let jaas = format!("{module} username=\"{BROKER}\" password=\"{PASSWORD}\";");
    let cluster = with_certificates(builder("SASL_SSL", "PLAINTEXT").nodes(3), &source.certificates)
        .property("sasl.enabled.mechanisms", "SCRAM-SHA-512")
        .property("sasl.mechanism.inter.broker.protocol", "SCRAM-SHA-512")
        .property("listener.name.internal.scram-sha-512.sasl.jaas.config", &jaas)
        .start()?;
    cluster.client().set_scram_user(BROKER, "SCRAM-SHA-512", PASSWORD)?;
    let lines = source.certificates.broker_properties();
    let mut lines: Vec<_> = lines.iter().map(|(key, value)| (*key, value.as_str())).collect();
    lines.push(("sasl.mechanism.inter.broker.protocol", "SCRAM-SHA-512"));
    lines.push(("sasl.jaas.config", &jaas));
    let listener = source.file("scram-listener", &lines)?;
    let listener = ["--listener-config", listener.as_str()];

    let plan = source.plan("scram");
    let extra = ["--replication-factor", "3", "--throttle", "100KiB"];
    let mut command = source.restore(&cluster, "scram", &[&listener[..], &extra].concat())?;
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let client = plain_client(&cluster.bootstrap())?;
    let begun = Instant::now();
    while runtime()?.block_on(client.list_topics())?.iter().filter(|t| !t.is_internal).count() < TOPICS.len()
    {
        ensure!(begun.elapsed() < LIMIT && child.try_wait()?.is_none(), "it did not begin");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill()?;
    child.wait()?;
    // Its session is alive still, and is waited for.
    let (out, _) = ended(of_plan("apply", &plan, &[&listener[..], &["--yes", "--json"]].concat())?, 0)?;
    let report: serde_json::Value = serde_json::from_str(&out)?;
    ensure!(report["is_clean"] == true && report["applied"]["is_resumed"] == true, "{out}");
    source.same(&cluster)?;
    let ca = source.certificates.ca();
    let inside = inside(
        &cluster,
        &[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", BROKER),
            ("sasl.password", PASSWORD),
            ("ssl.ca.location", &ca),
        ],
    )?;
    left(&inside, 3, TOPICS.len())
}

fn by_plain(source: &Source) -> Result<()> {
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    let users = format!("user_{BROKER}=\"{PASSWORD}\" user_{US}=\"{PASSWORD}\"");
    let jaas = format!("{module} username=\"{BROKER}\" password=\"{PASSWORD}\" {users};");
    let cluster = builder("SASL_PLAINTEXT", "SASL_PLAINTEXT")
        .property("sasl.enabled.mechanisms", "PLAIN")
        .property("sasl.mechanism.inter.broker.protocol", "PLAIN")
        .property("sasl.mechanism.controller.protocol", "PLAIN")
        .property("listener.name.internal.plain.sasl.jaas.config", &jaas)
        .property("listener.name.controller.plain.sasl.jaas.config", &jaas)
        .property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .property("super.users", format!("User:ANONYMOUS;User:{BROKER}"))
        .start()?;
    let login = [("sasl.username", BROKER), ("sasl.password", PASSWORD)];
    let plain = [("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "PLAIN")];
    let client = [&plain[..], &login].concat();
    let ours = [&plain[..], &[("sasl.username", US), ("sasl.password", PASSWORD)]].concat();
    let config = source.file("plain-client", &ours)?;
    let access = ["--command-config", config.as_str(), "--controller-config", &config];
    let table = documented_restore_permissions()?;
    for permission in &table {
        grant(&cluster, permission, true)?;
    }
    let servers = cluster.bootstrap_of(LISTENER)?;
    let restore = |name: &str, listener: &str, extra: &[&str]| -> Result<Command> {
        let mut command = varve()?;
        command.args(["restore", "--from", &source.archive.url(), "--to", &servers]);
        command.args(["--controller", &cluster.controllers(), "--listener-config", listener, "--yes"]);
        command.args(access).args(extra).arg("--plan").arg(source.plan(name));
        Ok(command)
    };
    let by = ("sasl.mechanism.inter.broker.protocol", "PLAIN");

    let scram = source.file("plain-scram", &[login[0], login[1], (by.0, "SCRAM-SHA-256")])?;
    let (out, _) = ended(restore("plain-scram", &scram, &["--dry-run"])?, 1)?;
    ensure!(out.contains("log in by PLAIN; --listener-config has SCRAM-SHA-256"), "{out}");
    let right = source.file("plain-right", &[by, login[0], login[1]])?;
    // Others imply each other: who may alter configs or read may describe.
    let alone = table.iter().filter(|permission| OPERATIONS.contains(&permission.operation.as_str()));
    for (row, permission) in alone.enumerate() {
        grant(&cluster, permission, false)?;
        one_lacks(permission, restore(&format!("plain-without-{row}"), &right, &["--dry-run"])?)?;
        grant(&cluster, permission, true)?;
    }

    let wrong = source.file("plain-wrong", &[by, login[0], ("sasl.password", "wrong-4712")])?;
    let (_, err) = ended(restore("plain-wrong", &wrong, &[])?, 2)?;
    ensure!(err.contains("brokers can't copy from us: 127.0.0.1: its login failed"), "{err}");
    ensure!(err.contains("sasl.password") && err.contains("varve restore cleanup"), "{err}");
    let yes = [&access[..], &["--yes"]].concat();
    ended(of_plan("cleanup", &source.plan("plain-wrong"), &yes)?, 0)?;
    left(&inside(&cluster, &client)?, 1, 0)?;

    let (out, _) = ended(restore("plain", &right, &["--json"])?, 0)?;
    let report: serde_json::Value = serde_json::from_str(&out)?;
    ensure!(report["is_clean"] == true, "{out}");
    source.same(&cluster)?;
    left(&inside(&cluster, &client)?, 1, TOPICS.len())?;
    ended(of_plan("release", &source.plan("plain"), &yes)?, 0)?;
    Ok(())
}

/// By TLS and SCRAM, and without controllers: each row of the table is asked for, and all of them are enough.
fn by_producer(source: &Source) -> Result<()> {
    let builder = Cluster::builder().nodes(3).listener(OUTSIDE, "SASL_SSL");
    let cluster = with_certificates(builder, &source.certificates)
        .property("sasl.enabled.mechanisms", "SCRAM-SHA-512")
        .property(
            "listener.name.outside.scram-sha-512.sasl.jaas.config",
            "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        )
        .property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .property("super.users", "User:ANONYMOUS")
        .start()?;
    cluster.client().set_scram_user(US, "SCRAM-SHA-512", PASSWORD)?;
    let ca = source.certificates.ca();
    let login = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", US),
        ("sasl.password", PASSWORD),
        ("ssl.ca.location", ca.as_str()),
    ];
    let config = source.file("producer", &login)?;
    let access = ["--command-config", config.as_str(), "--yes"];
    let servers = cluster.bootstrap_of(OUTSIDE)?;
    let restore = |name: &str, extra: &[&str]| -> Result<Command> {
        let mut command = varve()?;
        command.args(["restore", "--from", &source.archive.url(), "--to", &servers]).args(access);
        // What begins behind 0 takes a filler.
        command.args(["--offsets", "plain-0=300..2000", "--parts", "groups", "--replication-factor", "3"]);
        command.args(extra).arg("--plan").arg(source.plan(name));
        Ok(command)
    };
    let table = documented_producer_permissions()?;
    for permission in &table {
        grant(&cluster, permission, true)?;
    }
    for (row, permission) in table.iter().enumerate() {
        grant(&cluster, permission, false)?;
        let (out, err) = ended(restore(&format!("producer-without-{row}"), &["--dry-run"])?, 1)?;
        let needs = format!("{} on {}", permission.operation, permission.resource);
        let is_told = out.contains(&needs) || out.contains(&needs.replace("Cluster", "Topic"));
        ensure!(is_told, "without {permission:?}: {needs:?} is not in {out}{err}");
        grant(&cluster, permission, true)?;
    }
    let (out, _) = ended(restore("producer", &["--json"])?, 0)?;
    let report: serde_json::Value = serde_json::from_str(&out)?;
    ensure!(report["is_clean"] == true, "{out}");
    let kafka = cluster.client();
    ensure!(kafka.offset("plain", 0, At::Earliest)? == 300, "no filler");
    let consumed = kafka.consume("plain", &Consume { partition: 1, ..Consume::default() })?.count;
    ensure!(consumed == 2000, "{consumed} records");
    // What brokers' defaults would delete is seen by who may describe them.
    let described = Permission {
        operation: "DescribeConfigs".to_owned(),
        resource: "Cluster".to_owned(),
        name: ResourceName::Literal("kafka-cluster".to_owned()),
    };
    grant(&cluster, &described, true)?;
    ended(of_plan("release", &source.plan("producer"), &access)?, 0)?;
    Ok(())
}

/// Gives a row of the table to us, or takes it away.
fn grant(cluster: &Cluster, permission: &Permission, is_given: bool) -> Result<()> {
    let ResourceName::Literal(name) = &permission.name else { bail!("no name: {permission:?}") };
    let (resource, operation) = permission.codes()?;
    let (admin, principal) = (plain_client(&cluster.bootstrap())?, format!("User:{US}"));
    runtime()?.block_on(async {
        match is_given {
            true => allow(&admin, &principal, (resource, name), operation).await,
            false => disallow(&admin, &principal, (resource, name), operation).await,
        }
    })
}

/// The plan names it.
fn one_lacks(lacks: &Permission, mut plan: Command) -> Result<()> {
    let output = plan.output()?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if lacks.operation == "Delete" {
        ensure!(output.status.code() == Some(0), "without {lacks:?}: {said}");
        return Ok(());
    }
    // Bits have names of their own.
    let is_of_cluster = lacks.resource == "Cluster";
    let operation = lacks.operation.chars().fold(String::new(), |name, letter| match letter {
        upper if upper.is_ascii_uppercase() && is_of_cluster && !name.is_empty() => format!("{name}_{upper}"),
        letter if is_of_cluster => name + &letter.to_uppercase().to_string(),
        letter => name + &letter.to_string(),
    });
    let needs = format!("{operation} on {} ", lacks.resource);
    let is_told = said.contains("not allowed at the target's") && said.contains(&needs);
    ensure!(output.status.code() != Some(0) && is_told, "without {lacks:?}: {needs:?} is not in {said}");
    Ok(())
}
