//! The document about a cluster that snapshots hold: collected from real brokers and a registry, compared with
//! what was set before by raw requests, read again, and the same bytes when nothing has changed.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use url::Url;
use varve_archive::Record;
use varve_cluster::{
    ClusterState, Config, Group, MissingEntry, Part, Reason, RegistryLogin, RegistrySettings, ResourceType,
    SchemaRegistry, StateParts, collect, collect_groups, collect_rest, diff,
};
use varve_kafka::client::{Client, FetchLimits, FetchSession, FetchTarget, Secret, TlsFiles};
use varve_tests::raw_admin::{
    add_scram, allow, commit, create_topics, join_classic, join_new_protocol, join_share, leave_share,
    set_config, set_quota, set_share_offset,
};
use varve_tests::{Cluster, Produce, Registry, ResourceName, Suite, client, documented_permissions, runtime};

pub(crate) fn suite() -> Suite {
    let mut suite = Suite::new();
    for version in ["3.9.2", "4.2.0", "4.3.0"] {
        suite =
            suite.test(&format!("kafka_{version}_is_told_whole_and_twice_the_same"), move || whole(version));
    }
    suite
        .test("share_groups_are_told_with_their_start_offsets", share_groups)
        .test("what_is_denied_is_named_with_its_acl", denied)
        .test("the_documented_acls_are_enough", enough)
        .test("topics_that_hide_are_found_and_named", hidden)
        .test("sensitive_values_are_named_and_not_there", sensitive)
        .test("a_registry_is_told_over_tls_with_a_login", registry)
        .test("a_thousand_topics_and_groups", thousand)
}

/// By partition, the highest offset that a group has committed.
fn highest(groups: &[Group]) -> BTreeMap<(String, i32), i64> {
    let mut highest = BTreeMap::new();
    for topic in groups.iter().flat_map(|group| &group.offsets) {
        for p in &topic.partitions {
            let known = highest.entry((topic.topic.clone(), p.partition)).or_insert(p.offset);
            *known = p.offset.max(*known);
        }
    }
    highest
}

fn named<'a, T>(list: &'a [T], key: impl Fn(&T) -> &str, name: &str) -> Result<&'a T> {
    list.iter().find(|item| key(item) == name).with_context(|| format!("no {name}"))
}

fn value<'a>(configs: &'a [Config], name: &str) -> Result<(Option<&'a str>, &'a str)> {
    let config = named(configs, |c| &c.name, name)?;
    Ok((config.value.as_deref(), &config.source))
}

fn group<'a>(state: &'a ClusterState, id: &str) -> Result<&'a Group> {
    named(&state.groups, |g| &g.group_id, id)
}

/// It is read as it was written, and written again in the same bytes.
fn round(state: &ClusterState) -> Result<Vec<u8>> {
    let bytes = state.encode()?;
    let again = ClusterState::decode(&bytes)?;
    ensure!(again == *state && again.encode()? == bytes, "not the same after reading");
    Ok(bytes)
}

fn whole(version: &str) -> Result<()> {
    let cluster = Cluster::builder().version(version).property("broker.rack", "rack-1").start()?;
    let kafka = cluster.client();
    let configs = [("retention.ms", "123456789"), ("cleanup.policy", "compact")];
    let topic_id = kafka.create_topic("t", 2, 1, &configs)?;
    kafka.create_topic("empty", 1, 1, &[])?;
    kafka.produce("t", &Produce { count: 100, ..Produce::default() })?;
    let new_protocol = version != "3.9.2";
    runtime()?.block_on(async {
        let client = client(&cluster.bootstrap(), &[])?;
        let broker = cluster.broker().id.to_string();
        set_config(&client, 4, "", &[("log.cleaner.io.max.bytes.per.second", "77000000")]).await?;
        set_config(&client, 4, &broker, &[("num.io.threads", "5")]).await?;
        set_config(&client, 16, "metrics", &[("interval.ms", "60000"), ("metrics", "a.b,c")]).await?;
        set_quota(&client, &[("user", Some("ann")), ("client-id", None)], "producer_byte_rate", 1e6).await?;
        set_quota(&client, &[("ip", Some("10.0.0.1"))], "connection_creation_rate", 5.0).await?;
        set_quota(&client, &[("user", None)], "request_percentage", 0.1).await?;
        add_scram(&client, "zoe", 2, 8192).await?;
        add_scram(&client, "ann", 1, 4096).await?;
        add_scram(&client, "ann", 2, 4097).await?;
        commit(&client, "bare", &["t"], 42, "a \"note\"\n").await?;
        commit(&client, "other", &["t", "empty"], 43, "").await?;
        let member = join_classic(&client, "classic", "t").await?;
        if new_protocol {
            join_new_protocol(&client, "newer", "t").await?;
        }
        if !matches!(version, "3.9.2" | "4.0.0") {
            set_config(&client, 32, "newer", &[("consumer.session.timeout.ms", "50000")]).await?;
        }
        let wanted = StateParts::all();
        let groups = collect_groups(&client, &wanted).await?;
        let highest = highest(groups.groups());
        let expected =
            [("empty", 0, 43), ("t", 0, 43)].map(|(topic, p, offset)| ((topic.to_owned(), p), offset));
        ensure!(highest == expected.into(), "{highest:?}");
        let state = collect_rest(&client, &wanted, None, groups).await?;
        ensure!(state.cluster_id == cluster.id && !state.parts.has(Part::Schemas));
        ensure!(state.brokers.len() == 1 && state.brokers[0].rack.as_deref() == Some("rack-1"));
        topics_and_configs(&state, &topic_id, new_protocol)?;
        groups_told(&state, new_protocol)?;
        rest(&state, new_protocol)?;
        let bytes = round(&state)?;
        let again = collect(&client, &wanted, None).await?;
        ensure!(diff(&state, &again).is_empty(), "{:?}", diff(&state, &again));
        ensure!(round(&again)? == bytes, "other bytes of an unchanged cluster");
        tokio::task::block_in_place(|| kafka.alter_topic("t", &[("retention.ms", "5")]))?;
        commit(&client, "bare", &["t"], 44, "").await?;
        let changed = collect(&client, &wanted, None).await?;
        let told: Vec<String> = diff(&state, &changed).iter().map(ToString::to_string).collect();
        let expected = [
            "~ retention.ms of topic t: 123456789 → 5",
            "~ offset of group bare in t-0: 42 in epoch 0, \"a \\\"note\\\"\\n\" → 44 in epoch 0",
        ];
        ensure!(told == expected, "{told:?}");
        member.leave().await;
        let only = collect(&client, &[Part::Users].into_iter().collect(), None).await?;
        ensure!(only.topics.is_empty() && only.groups.is_empty() && only.users == state.users);
        round(&only).map(drop)
    })
}

fn topics_and_configs(state: &ClusterState, topic_id: &str, new_protocol: bool) -> Result<()> {
    let names: Vec<(&str, bool)> = state.topics.iter().map(|t| (t.name.as_str(), t.internal)).collect();
    ensure!(names == [("__consumer_offsets", true), ("empty", false), ("t", false)], "{names:?}");
    let topic = named(&state.topics, |t| &t.name, "t")?;
    ensure!(topic.topic_id == topic_id && topic.replicas == [[1], [1]], "{topic:?}");
    ensure!(value(&topic.configs, "retention.ms")? == (Some("123456789"), "DYNAMIC_TOPIC_CONFIG"));
    ensure!(value(&topic.configs, "cleanup.policy")?.0 == Some("compact"));
    ensure!(value(&topic.configs, "file.delete.delay.ms")? == (Some("200"), "STATIC_BROKER_CONFIG"));
    ensure!(value(&topic.configs, "segment.ms").is_err(), "a default is told");
    let of = |kind: ResourceType, name: Option<&str>| {
        let found = state.configs.iter().find(|r| r.resource == kind && r.name.as_deref() == name);
        found.with_context(|| format!("no configs of {kind:?} {name:?}")).map(|r| &r.configs[..])
    };
    let cluster = value(of(ResourceType::Cluster, None)?, "log.cleaner.io.max.bytes.per.second")?;
    ensure!(cluster == (Some("77000000"), "DYNAMIC_DEFAULT_BROKER_CONFIG"));
    let broker = of(ResourceType::Broker, Some("1"))?;
    ensure!(broker.len() == 1 && value(broker, "num.io.threads")? == (Some("5"), "DYNAMIC_BROKER_CONFIG"));
    let metrics = of(ResourceType::ClientMetrics, Some("metrics"))?;
    ensure!(value(metrics, "interval.ms")?.0 == Some("60000"));
    if new_protocol {
        let group = of(ResourceType::Group, Some("newer"))?;
        ensure!(value(group, "consumer.session.timeout.ms")?.0 == Some("50000"));
    }
    Ok(())
}

fn groups_told(state: &ClusterState, new_protocol: bool) -> Result<()> {
    ensure!(state.groups.len() == if new_protocol { 4 } else { 3 }, "{:?}", state.groups);
    let bare = group(state, "bare")?;
    ensure!(bare.group_type == "classic" && bare.offsets.len() == 1, "{bare:?}");
    let committed = &bare.offsets[0].partitions[0];
    ensure!(bare.offsets[0].topic == "t" && committed.offset == 42 && committed.leader_epoch == Some(0));
    ensure!(committed.metadata.as_deref() == Some("a \"note\"\n"), "{committed:?}");
    let other = group(state, "other")?;
    ensure!(other.offsets.len() == 2 && other.offsets[0].partitions[0].metadata.is_none(), "{other:?}");
    let classic = group(state, "classic")?;
    ensure!(classic.protocol_type.as_deref() == Some("consumer") && classic.offsets.is_empty());
    let observed = |id: &str| named(&state.observed.groups, |g| &g.group_id, id);
    ensure!(observed("bare")?.state == "Empty" && observed("bare")?.members.is_empty());
    let seen = observed("classic")?;
    ensure!(seen.state == "Stable" && seen.assignor.as_deref() == Some("range") && seen.members.len() == 1);
    ensure!(seen.members[0].client_id == "varve" && seen.members[0].subscribed == ["t"], "{seen:?}");
    let assigned = seen.members[0].assigned.as_ref().context("no assignment")?;
    ensure!(assigned[0].topic == "t" && assigned[0].partitions == [0, 1], "{assigned:?}");
    if new_protocol {
        ensure!(group(state, "newer")?.group_type == "consumer");
        ensure!(observed("newer")?.members[0].instance_id.as_deref() == Some("static-1"));
    }
    Ok(())
}

fn rest(state: &ClusterState, new_protocol: bool) -> Result<()> {
    let users: Vec<(&str, Vec<(&str, i32)>)> = state
        .users
        .iter()
        .map(|u| {
            let of = u.credentials.iter().map(|c| (c.mechanism.as_str(), c.iterations));
            (u.name.as_str(), of.collect())
        })
        .collect();
    let ann = vec![("SCRAM-SHA-256", 4096), ("SCRAM-SHA-512", 4097)];
    ensure!(users == [("ann", ann), ("zoe", vec![("SCRAM-SHA-512", 8192)])], "{users:?}");
    type Entity<'a> = Vec<(&'a str, Option<&'a str>)>;
    let quotas: Vec<(Entity<'_>, &str, &str)> = state
        .quotas
        .iter()
        .map(|q| {
            let entity = q.entity.iter().map(|e| (e.entity_type.as_str(), e.name.as_deref()));
            (entity.collect(), q.values[0].key.as_str(), q.values[0].value.as_str())
        })
        .collect();
    let expected = [
        (vec![("client-id", None), ("user", Some("ann"))], "producer_byte_rate", "1000000"),
        (vec![("ip", Some("10.0.0.1"))], "connection_creation_rate", "5"),
        (vec![("user", None)], "request_percentage", "0.1"),
    ];
    ensure!(quotas == expected, "{quotas:?}");
    let feature = named(&state.features, |f| &f.name, "metadata.version")?;
    ensure!(feature.max > 0, "{feature:?}");
    let missing: Vec<(&str, Reason)> = state.missing.iter().map(|m| (m.what.as_str(), m.reason)).collect();
    let mut expected = vec![("ACLs", Reason::Unsupported)];
    if !new_protocol {
        expected.push(("configs of groups", Reason::Unsupported));
    }
    expected.push(("secrets of SCRAM users", Reason::Withheld));
    ensure!(missing == expected, "{:?}", state.missing);
    Ok(())
}

fn share_groups() -> Result<()> {
    let cluster = Cluster::builder()
        .property("share.coordinator.state.topic.replication.factor", 1)
        .property("share.coordinator.state.topic.num.partitions", 1)
        .property("share.coordinator.state.topic.min.isr", 1)
        .property(
            "group.share.persister.class.name",
            "org.apache.kafka.server.share.persister.DefaultStatePersister",
        )
        .start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 2, 1, &[])?;
    kafka.produce("t", &Produce { count: 10, ..Produce::default() })?;
    runtime()?.block_on(async {
        let client = client(&cluster.bootstrap(), &[])?;
        join_share(&client, "sharing", "t").await?;
        // They have none until someone reads; an administrator may set them.
        let state = collect(&client, &StateParts::all(), None).await?;
        ensure!(group(&state, "sharing")?.offsets.is_empty(), "{:?}", state.groups);
        leave_share(&client, "sharing").await?;
        set_share_offset(&client, "sharing", "t", 3).await?;
        let state = collect(&client, &StateParts::all(), None).await?;
        round(&state)?;
        let sharing = group(&state, "sharing")?;
        ensure!(sharing.group_type == "share" && sharing.offsets.len() == 1, "{sharing:?}");
        let offsets = &sharing.offsets[0];
        ensure!(offsets.topic == "t" && offsets.partitions[0].offset == 3, "{offsets:?}");
        let members = named(&state.missing, |m| &m.what, "members of group sharing")?;
        ensure!(members.reason == Reason::Unsupported, "{members:?}");
        let highest = highest(collect_groups(&client, &StateParts::all()).await?.groups());
        ensure!(highest.get(&("t".to_owned(), 0)) == Some(&3), "{highest:?}");
        Ok(())
    })
}

const READER: &str = "User:reader";

/// A cluster with ACLs: as its administrator, and as a reader that may do nothing yet.
struct Secured {
    cluster: Cluster,
    admin: Client,
    reader: Client,
}

/// A listener with SASL beside the harness's own, whose anonymous users may do all.
fn secured() -> Result<Secured> {
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    let cluster = Cluster::builder()
        .listener("SASL", "SASL_PLAINTEXT")
        .property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .property("super.users", "User:ANONYMOUS")
        .property("sasl.enabled.mechanisms", "PLAIN")
        .property(
            "listener.name.sasl.plain.sasl.jaas.config",
            format!("{module} required user_reader=\"r\";"),
        )
        .start()?;
    let kafka = cluster.client();
    kafka.create_topic("open", 1, 1, &[("retention.ms", "5000000")])?;
    kafka.create_topic("closed", 1, 1, &[])?;
    let login = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "reader"),
        ("sasl.password", "r"),
    ];
    let admin = client(&cluster.bootstrap(), &[])?;
    let reader = client(&cluster.bootstrap_of("SASL")?, &login)?;
    Ok(Secured { cluster, admin, reader })
}

const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const CLUSTER: i8 = 4;
const READ: i8 = 3;
const DESCRIBE: i8 = 8;
const DESCRIBE_CONFIGS: i8 = 10;

fn denials(state: &ClusterState) -> Vec<(&str, String)> {
    let denied = state.missing.iter().filter(|m| m.reason == Reason::Denied);
    let needs = |m: &MissingEntry| m.needs.as_ref().map(ToString::to_string).unwrap_or_default();
    denied.map(|m| (m.what.as_str(), needs(m))).collect()
}

fn denied() -> Result<()> {
    let Secured { cluster, admin, reader } = secured()?;
    runtime()?.block_on(async {
        commit(&admin, "ours", &["open"], 5, "").await?;
        commit(&admin, "theirs", &["closed"], 6, "").await?;
        let state = collect(&reader, &StateParts::all(), None).await?;
        let describe = "Describe on Cluster kafka-cluster".to_owned();
        let configs = "DescribeConfigs on Cluster kafka-cluster".to_owned();
        let expected = [
            ("ACLs", describe.clone()),
            ("SCRAM users", describe.clone()),
            ("client quotas", configs.clone()),
            ("configs of broker 1", configs.clone()),
            ("configs of client metrics and of groups", configs.clone()),
            ("configs of the cluster's default", configs),
            ("groups without the ACL Describe of their own", describe.clone()),
            ("topics that may not be described", describe),
        ];
        ensure!(denials(&state) == expected, "{:?}", state.missing);
        ensure!(state.topics.is_empty() && state.groups.is_empty() && state.acls.is_empty());
        ensure!(!state.features.is_empty() && state.cluster_id == cluster.id);
        round(&state)?;

        // A group that is seen, whose offsets are in a topic that is not.
        allow(&admin, READER, (GROUP, "theirs"), DESCRIBE).await?;
        allow(&admin, READER, (TOPIC, "open"), DESCRIBE).await?;
        let state = collect(&reader, &StateParts::all(), None).await?;
        ensure!(state.topics.len() == 1 && state.topics[0].configs.is_empty(), "{:?}", state.topics);
        ensure!(group(&state, "theirs")?.offsets.is_empty(), "{:?}", state.groups);
        let needs = "DescribeConfigs on Topic open".to_owned();
        ensure!(denials(&state).contains(&("configs of topic open", needs)), "{:?}", state.missing);
        round(&state).map(drop)
    })
}

/// The table of docs/CLUSTER-STATE.md, and nothing else, for who archives `open` and shares it as `archivers`.
async fn grant_documented(admin: &Client) -> Result<()> {
    for permission in documented_permissions()? {
        let (resource, operation) = permission.codes()?;
        let name = match &permission.name {
            ResourceName::Literal(name) => name,
            ResourceName::Archived => "open",
            ResourceName::OwnGroup => "archivers",
        };
        allow(admin, READER, (resource, name), operation).await?;
    }
    Ok(())
}

fn enough() -> Result<()> {
    let Secured { cluster, admin, reader } = secured()?;
    runtime()?.block_on(async {
        commit(&admin, "ours", &["open"], 5, "").await?;
        commit(&admin, "theirs", &["closed"], 6, "").await?;
        join_new_protocol(&admin, "newer", "open").await?;
        set_config(&admin, 32, "newer", &[("consumer.session.timeout.ms", "50000")]).await?;
        set_config(&admin, 16, "metrics", &[("interval.ms", "60000")]).await?;
        set_config(&admin, 4, "1", &[("num.io.threads", "5")]).await?;
        set_quota(&admin, &[("user", None)], "request_percentage", 200.0).await?;
        add_scram(&admin, "zoe", 2, 8192).await?;
        allow(&admin, "User:zoe", (TOPIC, "open"), READ).await?;
        grant_documented(&admin).await?;
        let ours = collect(&reader, &StateParts::all(), None).await?;
        ensure!(denials(&ours).is_empty(), "{:?}", ours.missing);
        ensure!(
            ours.missing.len() == 1 && ours.missing[0].what == "secrets of SCRAM users",
            "{:?}",
            ours.missing
        );
        ensure!(ours.acls.len() == 9 && ours.users.len() == 1 && ours.quotas.len() == 1);
        for resource in [ResourceType::Broker, ResourceType::ClientMetrics, ResourceType::Group] {
            ensure!(ours.configs.iter().any(|r| r.resource == resource), "{:?}", ours.configs);
        }
        ensure!(ours.topics.len() == 3, "{:?}", ours.topics);
        // All that one who may do anything is told.
        let all = collect(&admin, &StateParts::all(), None).await?;
        ensure!(diff(&ours, &all).is_empty(), "{:?}", diff(&ours, &all));
        ensure!(round(&ours)? == round(&all)? && ours.cluster_id == cluster.id, "other bytes");
        let highest = highest(collect_groups(&reader, &StateParts::all()).await?.groups());
        ensure!(highest.get(&("closed".to_owned(), 0)) == Some(&6), "{highest:?}");
        // What an archiver does besides: reading, and sharing partitions with others.
        tokio::task::block_in_place(|| {
            cluster.client().produce("open", &Produce { count: 10, ..Produce::default() })
        })?;
        let broker = reader.metadata(Some(&[])).await?.brokers[0].node_id;
        let mut session = FetchSession::new(&reader, broker, FetchLimits::new(reader.config()));
        session.set(FetchTarget::new(reader.topic("open").await?.topic_id, 0, 0));
        let fetched = session.next().await?.context("no partition")?.remove(0).outcome?;
        ensure!(fetched.next_offset == 10, "{fetched:?}");
        join_classic(&reader, "archivers", "open").await?.leave().await;
        Ok(())
    })
}

fn hidden() -> Result<()> {
    let Secured { cluster: _cluster, admin, reader } = secured()?;
    runtime()?.block_on(async {
        commit(&admin, "theirs", &["closed"], 6, "").await?;
        join_new_protocol(&admin, "newer", "closed").await?;
        for operation in [DESCRIBE, DESCRIBE_CONFIGS] {
            allow(&admin, READER, (CLUSTER, "kafka-cluster"), operation).await?;
            allow(&admin, READER, (TOPIC, "open"), operation).await?;
        }
        allow(&admin, READER, (GROUP, "*"), DESCRIBE).await?;
        let state = collect(&reader, &StateParts::all(), None).await?;
        let expected = [
            ("members of group newer", "Describe on Topic *".to_owned()),
            ("topic __consumer_offsets", "Describe on Topic __consumer_offsets".to_owned()),
            ("topic closed", "Describe on Topic closed".to_owned()),
        ];
        ensure!(denials(&state) == expected, "{:?}", state.missing);
        ensure!(state.topics.len() == 1 && group(&state, "theirs")?.offsets.is_empty());
        ensure!(group(&state, "newer")?.group_type == "consumer");
        Ok(())
    })
}

fn sensitive() -> Result<()> {
    let Secured { cluster: _cluster, admin, reader: _ } = secured()?;
    runtime()?.block_on(async {
        let key = "listener.name.sasl.plain.sasl.jaas.config";
        let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let jaas = format!("{module} required user_reader=\"hush\";");
        set_config(&admin, 4, "1", &[(key, &jaas)]).await?;
        let state = collect(&admin, &StateParts::all(), None).await?;
        let bytes = round(&state)?;
        ensure!(!String::from_utf8(bytes)?.contains("hush"), "a secret is in the document");
        let configs = &state.configs.first().context("no configs")?.configs;
        ensure!(configs.len() == 1 && configs[0].sensitive && configs[0].value.is_none(), "{configs:?}");
        let told = named(&state.missing, |m| &m.what, &format!("value of {key} in configs of broker 1"))?;
        ensure!(told.reason == Reason::Withheld, "{told:?}");
        Ok(())
    })
}

fn registry() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let registry = Registry::start()?;
    let record = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
    let first = registry.register("r-value", &json!({"schema": record}))?;
    let wider = record.replace("int", "long");
    let second = registry.register("r-value", &json!({"schema": wider}))?;
    let proto = "syntax = \"proto3\";\nmessage P { string a = 1; }\n";
    let p = registry.register("p", &json!({"schemaType": "PROTOBUF", "schema": proto}))?;
    let refers = "syntax = \"proto3\";\nimport \"p.proto\";\nmessage Q { P p = 1; }\n";
    let references = json!([{"name": "p.proto", "subject": "p", "version": 1}]);
    registry.register("q", &json!({"schemaType": "PROTOBUF", "schema": refers, "references": references}))?;
    registry.register("gone", &json!({"schema": "\"string\""}))?;
    registry.set_compatibility("r-value", "FULL")?;
    registry.set_mode("q", "READONLY")?;
    registry.delete("r-value/versions/1")?;
    registry.delete("gone")?;
    runtime()?.block_on(async {
        let client = client(&cluster.bootstrap(), &[])?;
        let url = Url::parse(&format!("https://127.0.0.1:{}", registry.secure_port))?;
        let tls = TlsFiles { ca: Some(registry.ca_file()), ..TlsFiles::default() };
        let collect_as = async |login: Option<RegistryLogin>| -> Result<ClusterState> {
            let settings = RegistrySettings { login, tls: tls.clone(), ..RegistrySettings::new(url.clone()) };
            let registry = SchemaRegistry::new(settings)?;
            Ok(collect(&client, &[Part::Schemas].into_iter().collect(), Some(&registry)).await?)
        };
        let basic = RegistryLogin::Basic {
            user: Registry::USER.to_owned(),
            password: Secret::new(Registry::PASSWORD),
        };
        let state = collect_as(Some(basic)).await?;
        let bytes = round(&state)?;
        let bearer = RegistryLogin::Bearer(Secret::new(Registry::TOKEN));
        ensure!(round(&collect_as(Some(bearer)).await?)? == bytes, "other bytes by another login");
        let schemas = state.schemas.as_ref().with_context(|| format!("{:?}", state.missing))?;
        let names: Vec<(&str, bool)> =
            schemas.subjects.iter().map(|s| (s.subject.as_str(), s.deleted)).collect();
        ensure!(names == [("gone", true), ("p", false), ("q", false), ("r-value", false)], "{names:?}");
        let level = schemas.config.as_ref().and_then(|c| c.compatibility.as_deref());
        ensure!(level == Some("BACKWARD"), "{:?}", schemas.config);
        let q = &schemas.subjects[2].versions[0];
        ensure!(q.schema == refers && q.schema_type == "PROTOBUF" && q.references[0].subject == "p", "{q:?}");
        ensure!(schemas.subjects[1].versions[0].id == p && schemas.subjects[1].config.is_none());
        let r = &schemas.subjects[3];
        ensure!(r.config.as_ref().and_then(|c| c.compatibility.as_deref()) == Some("FULL"), "{r:?}");
        let told: Vec<(i32, i64, bool)> = r.versions.iter().map(|v| (v.version, v.id, v.deleted)).collect();
        ensure!(told == [(1, first, true), (2, second, false)], "{told:?}");
        ensure!(r.versions[1].schema == wider && r.versions[1].schema_type == "AVRO", "{r:?}");
        ensure!(schemas.subjects[0].versions[0].schema == "\"string\"", "{schemas:?}");
        ensure!(schemas.subjects[2].mode.as_deref() == Some("READONLY") && r.mode.is_none());
        ensure!(schemas.mode.as_deref() == Some("READWRITE") && state.missing.is_empty(), "{state:?}");
        for login in [None, Some(RegistryLogin::Bearer(Secret::new("wrong")))] {
            let state = collect_as(login).await?;
            let [missing] = &state.missing[..] else { bail!("{:?}", state.missing) };
            ensure!(missing.what == "Schema Registry" && missing.reason == Reason::Denied, "{missing:?}");
            ensure!(state.schemas.is_none() && missing.error.contains("40"), "{missing:?}");
        }
        Ok(())
    })
}

fn thousand() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    runtime()?.block_on(async {
        let client = client(&cluster.bootstrap(), &[])?;
        let topics: Vec<String> = (0..1000).map(|n| format!("topic-{n:04}")).collect();
        create_topics(&client, &topics).await?;
        for n in 0..1000_usize {
            let ten: Vec<&str> = (0..10).map(|m| topics[(n * 7 + m) % 1000].as_str()).collect();
            commit(&client, &format!("group-{n:04}"), &ten, 1, "").await?;
        }
        let begun = Instant::now();
        let groups = collect_groups(&client, &StateParts::all()).await?;
        let groups_took = begun.elapsed();
        let state = collect_rest(&client, &StateParts::all(), None, groups).await?;
        let took = begun.elapsed();
        ensure!(state.topics.len() == 1001 && state.groups.len() == 1000);
        ensure!(state.groups.iter().all(|g| g.offsets.len() == 10));
        let coding = Instant::now();
        let bytes = round(&state)?;
        println!(
            "1,000 topics and 1,000 groups of 10 offsets: groups {} ms, all {} ms; {} bytes, coded three times in {} ms",
            groups_took.as_millis(),
            took.as_millis(),
            bytes.len(),
            coding.elapsed().as_millis()
        );
        Ok(())
    })
}
