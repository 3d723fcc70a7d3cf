//! The archiver on a cluster with SASL_SSL, SCRAM and an authorizer: what the docs say it needs is enough, what
//! lacks of it is told by name, and no secret is told at all.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use url::Url;
use varve_archive::record::state::PartitionState;
use varve_cluster::{
    ClusterState, Part, Reason, RegistryLogin, RegistrySettings, SchemaRegistry, StateParts, collect, diff,
};
use varve_format::Id;
use varve_kafka::client::{Client, Secret, TlsFiles};
use varve_tests::raw_admin::{allow, commit, disallow, join_new_protocol, set_config, set_quota};
use varve_tests::{
    Certificates, Cluster, Ended, Look, Permission, Produce, Registry, ResourceName, Scratch, Shared, Suite,
    TestArchive, Tier, TopicLogs, Transactions, documented_permissions, eventually, plain_client, runtime,
    while_producing,
};

const LISTENER: &str = "SECURE";
const USER: &str = "archiver";
const PASSWORD: &str = "pencil-4711";
const ARCHIVED: [&str; 4] = ["orders", "ledger", "table", "empty"];
const GROUP: &str = "archivers";
const LIMIT: Duration = Duration::from_secs(60);
const READ: i8 = 3;
const TOPIC: i8 = 2;

pub(crate) fn suite() -> Suite {
    let secured = Shared::new(Secured::start);
    Suite::new()
        .test_with(&secured, "the_documented_acls_are_enough_for_all_of_it", enough)
        .test_with(&secured, "each_acl_that_lacks_is_told", each_lacks)
        .test_with(&secured, "an_acl_is_taken_away_and_given_back", taken_away)
        .test_with(&secured, "who_is_not_let_in_or_not_trusted_is_told", refused)
}

struct Secured {
    cluster: Cluster,
    registry: Registry,
    certificates: Certificates,
    // Last, so that the certificates go after the processes.
    scratch: Scratch,
}

impl Secured {
    fn start() -> Result<Self> {
        let scratch = Scratch::new("secured")?;
        let certificates = Certificates::make(scratch.path())?;
        let module = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let mut builder = Cluster::builder()
            .listener(LISTENER, "SASL_SSL")
            .property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
            .property("super.users", "User:ANONYMOUS")
            // Nobody heartbeats for the member of `newer`: its one session outlives all tests.
            .property("group.consumer.session.timeout.ms", 1_800_000)
            .property("group.consumer.max.session.timeout.ms", 1_800_000)
            .property("sasl.enabled.mechanisms", "SCRAM-SHA-256,SCRAM-SHA-512")
            .property("listener.name.secure.scram-sha-256.sasl.jaas.config", module)
            .property("listener.name.secure.scram-sha-512.sasl.jaas.config", module);
        for (key, value) in certificates.broker_properties() {
            builder = builder.property(key, value);
        }
        let cluster = builder.start()?;
        let registry = Registry::start()?;
        let secured = Self { cluster, registry, certificates, scratch };
        secured.fill()?;
        Ok(secured)
    }

    /// One who may do all. Its connections end with the runtime that opened them.
    fn admin(&self) -> Result<Client> {
        plain_client(&self.cluster.bootstrap())
    }

    /// Something in every part of the cluster's state, and data of some kinds.
    fn fill(&self) -> Result<()> {
        let (kafka, admin) = (self.cluster.client(), &self.admin()?);
        kafka.create_topic("orders", 4, 1, &[])?;
        kafka.create_topic("ledger", 1, 1, &[])?;
        kafka.create_topic("table", 1, 1, &[("cleanup.policy", "compact")])?;
        kafka.create_topic("empty", 1, 1, &[])?;
        kafka.create_topic("other", 1, 1, &[("retention.ms", "7777777")])?;
        kafka.produce("orders", &Produce { compression: "zstd", headers: 1, ..Produce::default() })?;
        kafka.produce("table", &Produce { count: 100, tombstone_every: 5, ..Produce::default() })?;
        kafka.produce("other", &Produce { count: 100, ..Produce::default() })?;
        let transactions = Transactions {
            transactional_id: "tx".to_owned(),
            transactions: 10,
            records_per_transaction: 20,
            abort_every: 3,
            seed: 3,
            value_bytes: 300,
            partition: 0,
        };
        kafka.produce_transactions("ledger", &transactions)?;
        self.add_user(USER, None)?;
        kafka.set_scram_user(USER, "SCRAM-SHA-256", PASSWORD)?;
        self.registry.register("orders-value", &serde_json::json!({"schema": "\"string\""}))?;
        runtime()?.block_on(async {
            commit(admin, "ours", &["orders"], 5, "").await?;
            commit(admin, "theirs", &["other"], 6, "").await?;
            join_new_protocol(admin, "newer", "other").await?;
            set_config(admin, 32, "newer", &[("consumer.session.timeout.ms", "1800000")]).await?;
            set_config(admin, 16, "metrics", &[("interval.ms", "60000")]).await?;
            set_config(admin, 4, "1", &[("num.io.threads", "5")]).await?;
            set_quota(admin, &[("user", Some("ann"))], "producer_byte_rate", 1e6).await
        })
    }

    /// One who may do what the docs say, but for one row of the table. Of the archived topics only `orders` is
    /// left out then.
    fn add_user(&self, user: &str, lacks: Option<&Permission>) -> Result<()> {
        self.cluster.client().set_scram_user(user, "SCRAM-SHA-512", PASSWORD)?;
        let (principal, admin) = (format!("User:{user}"), self.admin()?);
        runtime()?.block_on(async {
            for permission in documented_permissions()? {
                let (resource, operation) = permission.codes()?;
                let is_out = lacks == Some(&permission);
                let names = match &permission.name {
                    ResourceName::Literal(name) => vec![name.as_str()],
                    ResourceName::Archived => ARCHIVED[..].to_vec(),
                    ResourceName::OwnGroup => vec![GROUP],
                };
                for name in names {
                    if is_out && (permission.name != ResourceName::Archived || name == "orders") {
                        continue;
                    }
                    allow(&admin, &principal, (resource, name), operation).await?;
                }
            }
            // A broker that knows the ACLs knows the user, whom it was told of before.
            Ok(())
        })
    }

    /// An archiver's configuration for `user`; its secrets are in a file and in the environment.
    fn archive(&self, dir: &Path, user: &str) -> Result<TestArchive> {
        std::fs::create_dir_all(dir)?;
        let password = dir.join("password");
        std::fs::write(&password, format!("{PASSWORD}\n"))?;
        let source = format!(
            "source:
  bootstrap.servers: {}
  security.protocol: SASL_SSL
  sasl.mechanism: SCRAM-SHA-512
  sasl.username: ${{KAFKA_USER}}
  sasl.password: ${{file:{}}}
  ssl.ca.location: {}",
            self.cluster.bootstrap_of(LISTENER)?,
            password.display(),
            self.certificates.ca(),
        );
        let extra = format!(
            "topics: {{ include: [{}] }}
segments: {{ bytes: 1MiB, min.bytes: 256KiB, age: 1m }}
journal: {{ rpo: 2s }}
snapshots: {{ interval: 2s, wait: 2s }}
limits: {{ memory.bytes: 32MiB }}
group: {{ id: {GROUP}, session.timeout: 6s }}
schema.registry:
  url: https://127.0.0.1:{}
  user: {}
  password: ${{REGISTRY_PASSWORD}}
  ca.file: {}",
            ARCHIVED.join(", "),
            self.registry.secure_port,
            Registry::USER,
            self.registry.ca_file().display(),
        );
        let archive = TestArchive::of_source(dir, &source, &extra)?;
        Ok(archive.env("KAFKA_USER", user).env("REGISTRY_PASSWORD", Registry::PASSWORD))
    }

    fn topic_id(&self, topic: &str) -> Result<Id> {
        Ok(runtime()?.block_on(self.admin()?.topic(topic))?.topic_id)
    }

    /// What one is told who may do all.
    fn whole_state(&self) -> Result<ClusterState> {
        let mut settings =
            RegistrySettings::new(Url::parse(&format!("https://127.0.0.1:{}", self.registry.secure_port))?);
        let (user, password) = (Registry::USER.to_owned(), Secret::new(Registry::PASSWORD));
        settings.login = Some(RegistryLogin::Basic { user, password });
        settings.tls = TlsFiles { ca: Some(self.registry.ca_file()), ..TlsFiles::default() };
        let registry = SchemaRegistry::new(settings)?;
        Ok(runtime()?.block_on(collect(&self.admin()?, &StateParts::all(), Some(&registry)))?)
    }
}

/// What is named as refused, and which ACL it needs.
fn denials(state: &ClusterState) -> Vec<(String, String)> {
    let denied = state.missing.iter().filter(|m| m.reason == Reason::Denied);
    denied.map(|m| (m.what.clone(), m.needs.as_ref().map(ToString::to_string).unwrap_or_default())).collect()
}

/// Neither as they are nor as they are sent.
fn no_secrets(what: &str, bytes: &[u8]) -> Result<()> {
    // The registry's login, in base64.
    for secret in [PASSWORD, Registry::PASSWORD, "YW5uOm5vdC1hLXNlY3JldA"] {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        ensure!(!found, "a secret is in {what}");
    }
    Ok(())
}

/// How many objects have none.
fn no_secrets_in(tier: &Tier) -> Result<usize> {
    let keys = tier.list()?;
    keys.keys().try_for_each(|key| no_secrets(key, &tier.read(key)?))?;
    Ok(keys.len())
}

fn enough(secured: &Secured) -> Result<()> {
    let dir = secured.scratch.path().join("enough");
    let archive = secured.archive(&dir, USER)?;
    let logs = [dir.join("a.log"), dir.join("b.log")];
    while_producing(&secured.cluster, "orders", 4, || {
        let mut a = archive.start(&logs[0], &["--set", "journal.name=a"])?;
        let mut b = archive.start(&logs[1], &["--set", "journal.name=b", "--set", "log.level=debug"])?;
        let only_groups: StateParts = [Part::Groups].into_iter().collect();
        eventually("both share the partitions", LIMIT, || {
            let state = runtime()?.block_on(collect(&secured.admin()?, &only_groups, None))?;
            let group = state.observed.groups.iter().find(|g| g.group_id == GROUP);
            Ok(Look::when(group.is_some_and(|g| g.members.len() == 2), (), group))
        })?;
        thread::sleep(Duration::from_secs(6));
        ensure!(a.is_alive() && b.is_alive(), "one ended: see {}", dir.display());
        let (a, b) = (a.terminate()?, b.terminate()?);
        ensure!(a.success() && b.success(), "{a}, {b}");
        Ok(())
    })?;
    let by_service: u64 = (0..4)
        .map(|p| Ok(archive.chain(&secured.topic_id("orders")?.to_string(), p, 0)?.len() as u64))
        .sum::<Result<u64>>()?;
    ensure!(by_service > 0, "the service archived nothing");
    let ended = archive.try_once(&["--set", "source.sasl.mechanism=SCRAM-SHA-256"])?;
    ensure!(ended.code == Some(0), "{ended:?}");

    let compared = archive.compare(&secured.admin()?, &ARCHIVED)?;
    ensure!(compared.partitions >= 6 && compared.gaps == 0 && compared.bytes > 1 << 20, "{compared:?}");
    println!("{compared:?}, {by_service} objects by the service");
    archive.verify()?;
    let state = archive.cluster_state()?;
    ensure!(denials(&state).is_empty(), "{:?}", state.missing);
    let named: Vec<&str> = state.missing.iter().map(|m| m.what.as_str()).collect();
    ensure!(named == ["secrets of SCRAM users"], "{named:?}");
    let whole = secured.whole_state()?;
    let differs: Vec<String> = diff(&state, &whole).iter().map(ToString::to_string).collect();
    ensure!(differs.is_empty(), "{differs:?}");
    ensure!(whole.schemas.is_some() && whole.topics.len() == 7 && !whole.acls.is_empty(), "{whole:?}");

    let mut said = ended.err.clone();
    for log in &logs {
        said.push_str(&std::fs::read_to_string(log)?);
    }
    ensure!(said.contains("DEBUG connected"), "the most talkative level says too little: {said}");
    for word in ["not authorized", "panicked"] {
        ensure!(!said.contains(word), "{word}: {said}");
    }
    no_secrets("the logs", said.as_bytes())?;
    no_secrets("the output", ended.out.as_bytes())?;
    ensure!(no_secrets_in(archive.tier())? > 10, "hardly an object");
    Ok(())
}

/// What the snapshot and the log must name if a row of the table is not granted.
fn expected(secured: &Secured, lacks: &Permission) -> Result<Vec<(String, String)>> {
    let needs = |name: &str| format!("{} on {} {name}", lacks.operation, lacks.resource);
    let each = |what: &str, names: &[&str]| {
        names.iter().map(|name| (format!("{what} {name}"), needs(name))).collect::<Vec<_>>()
    };
    let all = |what: &[&str]| {
        what.iter().map(|what| ((*what).to_owned(), needs("kafka-cluster"))).collect::<Vec<_>>()
    };
    let topics: Vec<String> = secured.whole_state()?.topics.into_iter().map(|t| t.name).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let mut expected = match (lacks.operation.as_str(), lacks.resource.as_str(), &lacks.name) {
        // Of partitions and of the archiver itself: nothing lacks in the cluster's state.
        ("Read", "Topic", ResourceName::Archived) | ("Read", "Group", ResourceName::OwnGroup) => Vec::new(),
        ("Describe", "Topic", _) => {
            let hidden: Vec<&str> = topics.iter().filter(|t| !ARCHIVED.contains(t)).copied().collect();
            let mut expected = each("topic", &hidden);
            expected.push(("members of group newer".to_owned(), needs("*")));
            expected
        }
        ("DescribeConfigs", "Topic", _) => each("configs of topic", &topics),
        ("Describe", "Group", _) => {
            let mut expected = each("offsets of group", &["newer", "ours", "theirs"]);
            expected.extend(each("members of group", &["newer", "ours", "theirs"]));
            expected
        }
        ("DescribeConfigs", "Group", _) => each("configs of group", &["newer"]),
        ("Describe", "Cluster", _) => all(&[
            "ACLs",
            "SCRAM users",
            "groups without the ACL Describe of their own",
            "topics that may not be described",
        ]),
        ("DescribeConfigs", "Cluster", _) => all(&[
            "client quotas",
            "configs of broker 1",
            "configs of client metrics and of groups",
            "configs of the cluster's default",
        ]),
        _ => bail!("what lacks without {lacks:?}?"),
    };
    expected.sort();
    Ok(expected)
}

fn each_lacks(secured: &Secured) -> Result<()> {
    let table = documented_permissions()?;
    for (row, permission) in table.iter().enumerate() {
        secured.add_user(&format!("without-{row}"), Some(permission))?;
    }
    let logs = TopicLogs::read(&secured.admin()?, &ARCHIVED)?;
    thread::scope(|scope| {
        let (table, logs) = (&table, &logs);
        let runs: Vec<_> = (0..table.len())
            .map(|row| scope.spawn(move || one_lacks(secured, row, &table[row], logs)))
            .collect();
        for (run, permission) in runs.into_iter().zip(table) {
            let outcome = run.join().map_err(|_| anyhow::anyhow!("panicked"))?;
            outcome.with_context(|| format!("without {permission:?}"))?;
        }
        Ok(())
    })
}

fn one_lacks(secured: &Secured, row: usize, lacks: &Permission, logs: &[TopicLogs]) -> Result<()> {
    let dir = secured.scratch.path().join(format!("without-{row}"));
    let archive = secured.archive(&dir, &format!("without-{row}"))?;
    if lacks.name == ResourceName::OwnGroup {
        let log = dir.join("archiver.log");
        let mut running = archive.start(&log, &[])?;
        eventually("it stops", LIMIT, || Ok(Look::when(!running.is_alive(), (), "it runs")))?;
        let said = std::fs::read_to_string(&log)?;
        let told = said.lines().any(|l| l.starts_with("error: group archivers") && l.contains("Read"));
        ensure!(told, "{said}");
        return no_secrets("the log", said.as_bytes());
    }
    let ended = archive.try_once(&[])?;
    let state = archive.cluster_state().with_context(|| format!("{ended:?}"))?;
    let denied = denials(&state);
    let expected = expected(secured, lacks)?;
    ensure!(denied == expected, "named: {denied:?}, expected: {expected:?}");
    for (what, needs) in &denied {
        let warned = ended.err.lines().any(|l| l.contains("WARN") && l.contains(what) && l.contains(needs));
        ensure!(warned, "no warning of {what}: {}", ended.err);
    }
    archive.verify()?;
    no_secrets("what it said", format!("{}{}", ended.out, ended.err).as_bytes())?;
    if lacks.name == ResourceName::Archived {
        return orders_lag(secured, &archive, &ended);
    }
    ensure!(ended.code == Some(0), "{ended:?}");
    ensure!(archive.compare_with(logs)?.bytes > 1 << 20, "hardly a byte");
    Ok(())
}

/// Of what must not be read nothing is archived, and the rest is; it is said with the ACL that lacks.
fn orders_lag(secured: &Secured, archive: &TestArchive, ended: &Ended) -> Result<()> {
    let needs = "Read on Topic orders";
    ensure!(ended.code == Some(1), "{ended:?}");
    let warned = ended.err.lines().any(|l| l.contains("WARN") && l.contains("orders-0") && l.contains(needs));
    ensure!(warned && ended.out.contains("\"orders\"") && ended.out.contains(needs), "{ended:?}");
    let orders = partition(archive, secured.topic_id("orders")?)?.context("orders-0 is not named")?;
    ensure!(orders.lags() && orders.problem.as_ref().is_some_and(|p| p.contains(needs)), "{orders:?}");
    let ledger = partition(archive, secured.topic_id("ledger")?)?.context("ledger-0 is not named")?;
    ensure!(!ledger.lags() && ledger.end() > 0, "{ledger:?}");
    archive.compare(&secured.admin()?, &["ledger", "table", "empty"]).map(drop)
}

/// What the newest snapshot says of partition 0.
fn partition(archive: &TestArchive, topic_id: Id) -> Result<Option<PartitionState>> {
    runtime()?.block_on(async {
        let archive = archive.open().await?;
        let snapshot = archive.latest_snapshot(0).await?.context("no snapshot")?;
        Ok(archive.find(snapshot.record.root.as_ref(), topic_id, 0).await?)
    })
}

fn taken_away(secured: &Secured) -> Result<()> {
    let user = "sometimes";
    secured.add_user(user, None)?;
    let (principal, orders) = (format!("User:{user}"), secured.topic_id("orders")?);
    let dir = secured.scratch.path().join("taken-away");
    let archive = secured.archive(&dir, user)?;
    let log = dir.join("archiver.log");
    let mut running = archive.start(&log, &[])?;
    while_producing(&secured.cluster, "orders", 4, || {
        eventually("it archives", LIMIT, || {
            ensure!(running.is_alive(), "it ended: see {}", log.display());
            let chain = archive.chain(&orders.to_string(), 0, 0)?;
            Ok(Look::when(!chain.is_empty(), (), chain.len()))
        })?;
        runtime()?.block_on(disallow(&secured.admin()?, &principal, (TOPIC, "orders"), READ))?;
        eventually("a warning and a snapshot tell of it", LIMIT, || {
            let said = std::fs::read_to_string(&log)?;
            let needs = "Read on Topic orders";
            let warned = said.lines().any(|l| l.contains("WARN") && l.contains(needs));
            let entry = partition(&archive, orders)?.context("not named")?;
            let told = entry.lags() && entry.problem.as_ref().is_some_and(|p| p.contains(needs));
            Ok(Look::when(warned && told, (), (warned, entry)))
        })
    })?;
    ensure!(running.is_alive(), "it ended: see {}", log.display());
    runtime()?.block_on(allow(&secured.admin()?, &principal, (TOPIC, "orders"), READ))?;
    ensure!(running.terminate()?.success(), "it did not end well: see {}", log.display());
    archive.run_once(&[])?;
    let entry = partition(&archive, orders)?.context("not named")?;
    ensure!(!entry.lags(), "{entry:?}");
    ensure!(archive.compare(&secured.admin()?, &ARCHIVED)?.gaps == 0, "a gap");
    archive.verify()
}

fn refused(secured: &Secured) -> Result<()> {
    let dir = secured.scratch.path().join("refused");
    let archive = secured.archive(&dir, USER)?;
    let strangers = dir.join("strangers");
    std::fs::create_dir_all(&strangers)?;
    let strangers = Certificates::make(&strangers)?;
    let address = secured.cluster.bootstrap_of(LISTENER)?;
    let by_name = address.replace("127.0.0.1", "localhost");
    let wrong = "source.sasl.password=wrong-4712".to_owned();
    let cases = [
        (wrong, vec![address.as_str(), "did not let us in (SCRAM-SHA-512)"]),
        ("source.sasl.mechanism=PLAIN".to_owned(), vec![&address, "(PLAIN)", "the broker offers SCRAM-"]),
        (format!("source.ssl.ca.location={}", strangers.ca()), vec![&address, "invalid peer certificate"]),
        (format!("source.bootstrap.servers={by_name}"), vec![&by_name, "not valid for name \"localhost\""]),
    ];
    for (set, expected) in cases {
        let started = Instant::now();
        let ended = archive.try_once(&["--set", &set])?;
        ensure!(ended.code == Some(2), "{set}: {ended:?}");
        let error = ended.err.lines().find(|l| l.starts_with("error: ")).unwrap_or_default();
        ensure!(expected.iter().all(|part| error.contains(part)), "{set}: {expected:?} not in {ended:?}");
        ensure!(started.elapsed() < Duration::from_secs(30), "{set}: told after {:?}", started.elapsed());
        ensure!(!ended.err.contains("wrong-4712"), "a secret is in {ended:?}");
        no_secrets("what it said", format!("{}{}", ended.out, ended.err).as_bytes())?;
        // The service says the same, and doesn't wait for better times.
        let log = dir.join("service.log");
        let mut running = archive.start(&log, &["--set", &set])?;
        eventually("it stops", LIMIT, || Ok(Look::when(!running.is_alive(), (), "it runs")))?;
        let said = std::fs::read_to_string(&log)?;
        ensure!(expected.iter().all(|part| said.contains(part)), "{set}: {said}");
        std::fs::remove_file(&log)?;
    }
    Ok(())
}
