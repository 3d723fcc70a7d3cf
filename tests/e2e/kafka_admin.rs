//! The parts of the client of `crates/kafka` that an archiver lives on: sessions of raw fetches, the state of a
//! cluster, and the membership of a group. Against real brokers; bytes are compared with the brokers' own files,
//! state with what was set before by raw requests.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};
use varve_kafka::Id;
use varve_kafka::client::admin::{
    AdminError, AskedEpoch, ConfigResource, ConfigSource, Found, NeededAcl, QuotaEntry, ResourceConfigs,
    TopicPartition,
};
use varve_kafka::client::{
    Client, ClientError, FetchLimits, FetchProblem, FetchSession, FetchTarget, GroupEvent, GroupMember,
    JoinedMember, Membership, OffsetSpec,
};
use varve_kafka::protocol::Batches;
use varve_tests::raw_admin::{
    self, add_scram, commit, join_classic, join_new_protocol, set_config, set_quota,
};
use varve_tests::{Cluster, Node, Produce, Suite, Transactions, client, runtime};

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn suite() -> Suite {
    let mut suite = Suite::new();
    for version in ["3.9.2", "4.2.0", "4.3.0"] {
        suite = suite
            .test(&format!("kafka_{version}_sessions_read_what_is_on_disk"), move || on_disk(version))
            .test(&format!("kafka_{version}_tells_its_state"), move || state(version));
    }
    suite
        .test("problems_are_told_apart_as_leaders_move", leaders_move)
        .test("a_quota_is_obeyed", quota_obeyed)
        .test("what_is_denied_is_named", denied)
        .test("answers_too_large_are_asked_for_in_halves", halves)
        .test("members_share_and_take_over", members_share)
        .test("bearer_tokens_are_renewed", bearer)
        .test("raw_fetch_speed", speed)
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

/// What sessions have given, checked as it comes: in order, without gap or repetition.
#[derive(Default)]
struct Taken {
    bytes: BTreeMap<i32, BytesMut>,
    next: BTreeMap<i32, i64>,
    high_watermark: BTreeMap<i32, i64>,
    problems: Vec<(i32, FetchProblem)>,
    answers: usize,
}

impl Taken {
    /// One answer. `Ok(false)` when the session has nothing to ask for.
    async fn step(&mut self, session: &mut FetchSession) -> Result<bool> {
        let Some(answer) = tokio::time::timeout(LIMIT, session.next()).await?? else { return Ok(false) };
        self.answers += 1;
        for fetched in answer {
            let partition = fetched.partition;
            match fetched.outcome {
                Err(problem) => self.problems.push((partition, problem)),
                Ok(batches) => {
                    let next = self.next.entry(partition).or_insert(fetched.from_offset);
                    ensure!(*next == fetched.from_offset, "expected {next}, found {}", fetched.from_offset);
                    *next = batches.next_offset;
                    for batch in Batches::new(batches.records.clone(), 0) {
                        batch?.check_crc()?;
                    }
                    self.bytes.entry(partition).or_default().extend_from_slice(&batches.records);
                    self.high_watermark.insert(partition, batches.high_watermark);
                    ensure!(batches.last_stable_offset.is_some_and(|lso| lso <= batches.high_watermark));
                    ensure!(batches.log_start_offset == 0, "{batches:?}");
                }
            }
        }
        Ok(true)
    }

    /// The next problem, whatever comes before it.
    async fn problem(&mut self, session: &mut FetchSession) -> Result<FetchProblem> {
        let started = Instant::now();
        loop {
            if let Some((_, problem)) = self.problems.pop() {
                return Ok(problem);
            }
            ensure!(self.step(session).await? && started.elapsed() < LIMIT, "no problem was told");
        }
    }

    /// Where the first partition is read on.
    fn at(&self) -> i64 {
        self.next.get(&0).copied().unwrap_or(0)
    }

    fn at_end(&self, partitions: usize) -> bool {
        self.next.len() == partitions
            && self.next.iter().all(|(p, next)| self.high_watermark.get(p) == Some(next))
    }
}

async fn one_broker(client: &Client) -> Result<i32> {
    Ok(client.metadata(Some(&[])).await?.brokers.first().context("no broker")?.node_id)
}

fn on_disk(version: &str) -> Result<()> {
    let cluster = Cluster::builder().version(version).start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 4, 1, &[("segment.bytes", "1048576")])?;
    for (partition, compression) in [(0, "none"), (1, "zstd")] {
        let produce = Produce { partition, compression, count: 4000, text: true, ..Produce::default() };
        kafka.produce("t", &produce)?;
    }
    let transactions = Transactions {
        transactional_id: "tx".to_owned(),
        transactions: 20,
        records_per_transaction: 100,
        abort_every: 3,
        seed: 5,
        value_bytes: 1000,
        partition: 2,
    };
    kafka.produce_transactions("t", &transactions)?;
    runtime()?.block_on(async {
        let client = client(&cluster.bootstrap(), &[("max.partition.fetch.bytes", "60000")])?;
        let topic_id = client.topic("t").await?.topic_id;
        let limits = FetchLimits { max_bytes: 150_000, ..FetchLimits::new(client.config()) };
        raw_admin::wait_stable(&client, "t", 2).await?;
        let mut session = FetchSession::new(&client, one_broker(&client).await?, limits);
        (0..4).for_each(|p| session.set(FetchTarget::new(topic_id, p, 0)));
        let mut taken = Taken::default();
        let started = Instant::now();
        while !taken.at_end(4) {
            taken.step(&mut session).await?;
            ensure!(started.elapsed() < LIMIT, "not at the end: {:?}", taken.next);
        }
        ensure!(session.is_incremental() && taken.answers > 30, "{} answers", taken.answers);
        // What comes while the session waits.
        let more = Produce { partition: 3, count: 500, ..Produce::default() };
        tokio::task::block_in_place(|| kafka.produce("t", &more))?;
        while taken.next.get(&3) < Some(&500) {
            taken.step(&mut session).await?;
            ensure!(started.elapsed() < LIMIT, "what came later was not read");
        }
        ensure!(taken.problems.is_empty(), "{:?}", taken.problems);
        for partition in 0..4_u32 {
            let disk = log_on_disk(cluster.broker(), "t", partition)?;
            let read = taken.bytes.get(&i32::try_from(partition)?).context("nothing was read")?;
            ensure!(read[..] == disk[..], "partition {partition}: {} of {} bytes", read.len(), disk.len());
        }
        // Quiet partitions are not heard of: the answer of a session holds news alone.
        let answer = session.next().await?.context("partitions")?;
        ensure!(answer.is_empty(), "{answer:?}");
        wishes_that_fail(&client, &mut session, topic_id).await?;
        // A broker that restarts has forgotten the session, and the connection is gone.
        tokio::task::block_in_place(|| cluster.broker().restart())?;
        session.set(FetchTarget::new(topic_id, 0, 0));
        let mut again = Taken::default();
        while again.next.get(&0) < taken.next.get(&0) {
            // Errors of the connection are the caller's to wait out.
            if again.step(&mut session).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            if let Some((partition, problem)) = again.problems.pop() {
                ensure!(problem.is_retriable(), "{problem}");
                session.set(FetchTarget::new(topic_id, partition, again.next.get(&0).copied().unwrap_or(0)));
            }
            ensure!(started.elapsed() < 2 * LIMIT, "not read again");
        }
        ensure!(again.bytes.get(&0) == taken.bytes.get(&0), "other bytes after a restart");
        session.close().await;
        Ok(())
    })
}

/// Each is told by its kind, and takes out its partition alone.
async fn wishes_that_fail(client: &Client, session: &mut FetchSession, topic_id: Id) -> Result<()> {
    let missing = Id([9; 16]);
    session.set(FetchTarget::new(missing, 0, 0));
    session.set(FetchTarget::new(topic_id, 0, 1_000_000));
    session.set(FetchTarget { leader_epoch: Some(99), ..FetchTarget::new(topic_id, 1, 0) });
    // The log ends before it, in that epoch: what was read before can't be what is there.
    session.set(FetchTarget { last_fetched_epoch: Some(0), ..FetchTarget::new(topic_id, 2, 1_000_000) });
    let mut problems = BTreeMap::new();
    let started = Instant::now();
    while problems.len() < 4 {
        for fetched in session.next().await?.context("partitions")? {
            if let Err(problem) = fetched.outcome {
                problems.insert((fetched.topic_id, fetched.partition), problem);
            }
        }
        ensure!(started.elapsed() < LIMIT, "{problems:?}");
    }
    let of = |topic, partition| problems.get(&(topic, partition));
    ensure!(of(missing, 0) == Some(&FetchProblem::UnknownTopicId), "{problems:?}");
    ensure!(of(topic_id, 0) == Some(&FetchProblem::OffsetOutOfRange), "{problems:?}");
    ensure!(of(topic_id, 1) == Some(&FetchProblem::UnknownLeaderEpoch), "{problems:?}");
    let ends = client.list_offsets("t", &[2], OffsetSpec::Latest).await?;
    let end_offset = ends.get(&2).copied().flatten().context("no end")?;
    ensure!(of(topic_id, 2) == Some(&FetchProblem::Diverged { epoch: 0, end_offset }), "{problems:?}");
    ensure!(session.targets().map(|t| t.partition).collect::<Vec<_>>() == [3], "more than one is left");
    Ok(())
}

fn leaders_move() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 3, &[])?;
    kafka.produce("t", &Produce { count: 3000, ..Produce::default() })?;
    let first = cluster.leader("t", 0)?.id;
    runtime()?.block_on(async {
        let client = client(&cluster.bootstrap(), &[("max.partition.fetch.bytes", "50000")])?;
        let topic = client.topic("t").await?;
        let limits = FetchLimits::new(client.config());
        let epoch = topic.partitions.first().context("no partition")?.leader_epoch;
        let mut session = FetchSession::new(&client, i32::try_from(first)?, limits);
        session.set(FetchTarget { leader_epoch: Some(epoch), ..FetchTarget::new(topic.topic_id, 0, 0) });
        let mut taken = Taken::default();
        for _ in 0..5 {
            taken.step(&mut session).await?;
        }
        let second = first % 3 + 1;
        tokio::task::block_in_place(|| kafka.move_leader("t", 0, second))?;
        let named = match taken.problem(&mut session).await? {
            FetchProblem::NotLeader { current } | FetchProblem::FencedLeaderEpoch { current } => current,
            other => bail!("{other}"),
        };
        // The old epoch is refused by the new leader too, once it has heard that it leads.
        let mut session = FetchSession::new(&client, i32::try_from(second)?, limits);
        let started = Instant::now();
        loop {
            let again = FetchTarget::new(topic.topic_id, 0, taken.at());
            session.set(FetchTarget { leader_epoch: Some(epoch), ..again });
            let problem = taken.problem(&mut session).await?;
            if matches!(problem, FetchProblem::FencedLeaderEpoch { .. }) {
                break;
            }
            ensure!(problem.is_retriable() && started.elapsed() < LIMIT, "{problem}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if let Some(named) = named {
            ensure!(named.leader_id == i32::try_from(second)? && named.leader_epoch > epoch, "{named:?}");
        }
        // A new leader's high watermark lags at first: it is not the end.
        while taken.at() < 3000 {
            // At first, and after a problem.
            if session.is_empty() {
                let again = FetchTarget::new(topic.topic_id, 0, taken.at());
                session.set(FetchTarget { last_fetched_epoch: Some(epoch), ..again });
            }
            taken.step(&mut session).await?;
            if let Some((_, problem)) = taken.problems.pop() {
                ensure!(problem.is_retriable(), "{problem}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            ensure!(started.elapsed() < LIMIT, "read up to {}", taken.at());
        }
        let disk = log_on_disk(cluster.leader("t", 0)?, "t", 0)?;
        let read = taken.bytes.get(&0).context("nothing was read")?;
        ensure!(read[..] == disk[..], "{} bytes read, {} on disk", read.len(), disk.len());
        // The old epoch ends where the new one began: all was written before.
        let partition = TopicPartition::new("t", 0);
        let ends = client.ends_of_leader_epochs(&[asked(&partition, epoch, None)]).await?.whole()?;
        ensure!(ends[0].leader_epoch == Some(epoch) && ends[0].end_offset == Some(3000), "{ends:?}");
        // Who names the leader's epoch hears of a newer one, and at once.
        let fenced = client.ends_of_leader_epochs(&[asked(&partition, epoch, Some(epoch))]).await?.whole();
        ensure!(fenced.as_ref().is_err_and(AdminError::is_fenced), "{fenced:?}");
        Ok(())
    })
}

fn asked(partition: &TopicPartition, leader_epoch: i32, current_leader_epoch: Option<i32>) -> AskedEpoch {
    AskedEpoch { partition: partition.clone(), leader_epoch, current_leader_epoch }
}

fn entry<'a>(
    all: &'a [ResourceConfigs],
    resource: &ConfigResource,
    name: &str,
) -> Result<(Option<&'a str>, ConfigSource)> {
    let of = all.iter().find(|r| r.resource == *resource).with_context(|| format!("no {resource}"))?;
    let entry = of.entries.iter().find(|e| e.name == name);
    let entry = entry.with_context(|| format!("no {name} among {of:?}"))?;
    Ok((entry.value.as_deref(), entry.source))
}

fn state(version: &str) -> Result<()> {
    let cluster = Cluster::builder().version(version).start()?;
    let kafka = cluster.client();
    let topic_id = kafka.create_topic("t", 2, 1, &[("retention.ms", "123456789")])?;
    kafka.create_topic("empty", 1, 1, &[])?;
    // Within the retention time: the log start must stay.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let from_ms = now.as_millis() as u64 - 100_000;
    let times = Produce { count: 100, timestamp_from: Some(from_ms), ..Produce::default() };
    kafka.produce("t", &times)?;
    let new_protocol = version != "3.9.2";
    runtime()?.block_on(async {
        let client = client(&cluster.bootstrap(), &[])?;
        let broker = one_broker(&client).await?;
        set_config(&client, 4, "", &[("log.cleaner.io.max.bytes.per.second", "77000000")]).await?;
        set_config(&client, 4, &broker.to_string(), &[("num.io.threads", "5")]).await?;
        set_quota(&client, &[("user", Some("ann")), ("client-id", None)], "producer_byte_rate", 1e6).await?;
        set_quota(&client, &[("ip", Some("10.0.0.1"))], "connection_creation_rate", 5.0).await?;
        add_scram(&client, "zoe", 2, 8192).await?;
        add_scram(&client, "ann", 1, 4096).await?;
        add_scram(&client, "ann", 2, 4097).await?;
        commit(&client, "bare", &["t"], 42, "a note").await?;
        for n in 0..60 {
            commit(&client, &format!("many-{n:02}"), &["t"], n, "").await?;
        }
        let member = join_classic(&client, "classic", "t").await?;
        if new_protocol {
            join_new_protocol(&client, "newer", "t").await?;
        }
        topics_and_configs(&client, &topic_id, broker).await?;
        groups(&client, new_protocol, &topic_id).await?;
        rest_of_state(&client, &cluster.id).await?;
        offsets(&client, i64::try_from(from_ms)?).await?;
        member.leave().await;
        Ok(())
    })
}

async fn topics_and_configs(client: &Client, topic_id: &str, broker: i32) -> Result<()> {
    let topics = client.list_topics().await?;
    let names: Vec<&str> = topics.iter().map(|t| t.name.as_str()).collect();
    ensure!(names == ["__consumer_offsets", "empty", "t"], "{names:?}");
    ensure!(topics[0].is_internal && !topics[2].is_internal);
    ensure!(topics[2].topic_id == topic_id && topics[2].partitions.len() == 2, "{topics:?}");
    ensure!(topics[2].partitions[1].replicas == [broker], "{topics:?}");

    let (topic, own) = (ConfigResource::Topic("t".to_owned()), ConfigResource::Broker(broker));
    let asked = [
        topic.clone(),
        ConfigResource::Topic("gone".to_owned()),
        own.clone(),
        ConfigResource::ClusterDefault,
    ];
    let found = client.describe_configs(&asked).await?;
    ensure!(found.missing.len() == 1 && found.missing[0].what.contains("gone"), "{found:?}");
    let all = &found.items;
    ensure!(entry(all, &topic, "retention.ms")? == (Some("123456789"), ConfigSource::DynamicTopicConfig));
    ensure!(entry(all, &topic, "file.delete.delay.ms")?.1 == ConfigSource::StaticBrokerConfig);
    ensure!(entry(all, &topic, "segment.ms").is_err(), "a default is told");
    ensure!(entry(all, &own, "num.io.threads")? == (Some("5"), ConfigSource::DynamicBrokerConfig));
    ensure!(entry(all, &own, "node.id")?.1 == ConfigSource::StaticBrokerConfig);
    let rate = entry(all, &ConfigResource::ClusterDefault, "log.cleaner.io.max.bytes.per.second")?;
    ensure!(rate.1 == ConfigSource::DynamicDefaultBrokerConfig, "{rate:?}");
    Ok(())
}

async fn groups(client: &Client, new_protocol: bool, topic_id: &str) -> Result<()> {
    let listed = client.list_groups().await?.whole()?;
    ensure!(listed.len() == if new_protocol { 63 } else { 62 }, "{listed:?}");
    let described = client.describe_groups(&listed).await?.whole()?;
    ensure!(described.len() == listed.len());
    let of = |id: &str| described.iter().find(|g| g.group_id == id).context("no such group");
    let classic = of("classic")?;
    ensure!(classic.state == "Stable" && classic.assignor == "range" && classic.members.len() == 1);
    let member = &classic.members[0];
    ensure!(member.subscribed_topics == ["t"] && member.client_id == "varve", "{member:?}");
    let assigned = member.assignment.as_ref().context("no assignment")?;
    ensure!(assigned[0].topic == "t" && assigned[0].partitions == [0, 1], "{assigned:?}");
    ensure!(of("bare")?.state == "Empty" && of("bare")?.members.is_empty());
    if new_protocol {
        let newer = of("newer")?;
        ensure!(newer.group_type == "consumer" && newer.group_epoch.is_some(), "{newer:?}");
        let assigned = newer.members[0].assignment.as_ref().context("no assignment")?;
        ensure!(assigned[0].topic_id.as_deref() == Some(topic_id), "{assigned:?}");
    }
    let ids: Vec<String> = listed.iter().map(|g| g.group_id.clone()).collect();
    let committed = client.committed_offsets(&ids).await?.whole()?;
    ensure!(committed.len() == ids.len(), "{} of {}", committed.len(), ids.len());
    let bare = committed.iter().find(|g| g.group_id == "bare").context("no offsets")?;
    ensure!(bare.offsets.len() == 1 && bare.offsets[0].offset == 42, "{bare:?}");
    ensure!(bare.offsets[0].metadata == "a note" && bare.offsets[0].leader_epoch == Some(0), "{bare:?}");
    let none = committed.iter().find(|g| g.group_id == "classic").context("no group")?;
    ensure!(none.offsets.is_empty(), "{none:?}");
    Ok(())
}

async fn rest_of_state(client: &Client, cluster_id: &str) -> Result<()> {
    let users = client.list_scram_users().await?.whole()?;
    let told: Vec<(&str, Vec<(&str, i32)>)> = users
        .iter()
        .map(|u| {
            (u.name.as_str(), u.credentials.iter().map(|c| (c.mechanism.as_str(), c.iterations)).collect())
        })
        .collect();
    let ann = vec![("SCRAM-SHA-256", 4096), ("SCRAM-SHA-512", 4097)];
    ensure!(told == [("ann", ann), ("zoe", vec![("SCRAM-SHA-512", 8192)])], "{told:?}");

    let quotas = client.list_client_quotas().await?;
    ensure!(quotas.len() == 2, "{quotas:?}");
    let both: Vec<_> = quotas[0].entity.iter().map(|e| (e.entity_type.as_str(), e.name.as_deref())).collect();
    ensure!(both == [("client-id", None), ("user", Some("ann"))], "{quotas:?}");
    ensure!(quotas[0].values.get("producer_byte_rate") == Some(&1e6), "{quotas:?}");

    let features = client.features().await?;
    ensure!(features.finalized.get("metadata.version").is_some_and(|v| v.max > 0), "{features:?}");
    ensure!(features.finalized_epoch.is_some() && !features.supported.is_empty(), "{features:?}");
    let described = client.describe_cluster().await?;
    ensure!(described.cluster_id == cluster_id && described.brokers.len() == 1, "{described:?}");
    match client.list_acls().await {
        Err(AdminError::Unsupported { .. }) => {}
        other => bail!("ACLs without an authorizer: {other:?}"),
    }
    // As a snapshot keeps them.
    let json = serde_json::to_string(&quotas)?;
    ensure!(serde_json::from_str::<Vec<QuotaEntry>>(&json)? == quotas, "{json}");
    Ok(())
}

async fn offsets(client: &Client, from_ms: i64) -> Result<()> {
    let partitions = [("t", 0), ("t", 1), ("empty", 0)].map(|(t, p)| TopicPartition::new(t, p));
    let at = async |spec| -> Result<Vec<Option<i64>>> {
        let found = client.list_offsets_of(&partitions, spec).await?.whole()?;
        Ok(found.into_iter().map(|o| o.offset).collect())
    };
    // By topic and partition: empty-0, t-0, t-1.
    ensure!(at(OffsetSpec::Earliest).await? == [Some(0), Some(0), Some(0)]);
    ensure!(at(OffsetSpec::EarliestLocal).await? == [Some(0), Some(0), Some(0)]);
    ensure!(at(OffsetSpec::Latest).await? == [Some(0), Some(100), Some(0)]);
    ensure!(at(OffsetSpec::AtOrAfterMs(from_ms + 50)).await? == [None, Some(50), None]);
    let gone = [TopicPartition::new("gone", 0), TopicPartition::new("t", 7), TopicPartition::new("t", 0)];
    let found = client.list_offsets_of(&gone, OffsetSpec::Latest).await?;
    let missing: BTreeSet<&str> = found.missing.iter().map(|m| m.what.as_str()).collect();
    ensure!(found.items.len() == 1 && missing == BTreeSet::from(["gone-0", "t-7"]), "{found:?}");
    let ends =
        client.ends_of_leader_epochs(&[asked(&TopicPartition::new("t", 0), 0, None)]).await?.whole()?;
    ensure!(ends[0].leader_epoch == Some(0) && ends[0].end_offset == Some(100), "{ends:?}");
    Ok(())
}

fn quota_obeyed() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 1, &[])?;
    kafka.produce("t", &Produce { count: 4000, ..Produce::default() })?;
    runtime()?.block_on(async {
        let client = client(&cluster.bootstrap(), &[("client.id", "slow"), ("fetch.max.bytes", "500000")])?;
        set_quota(&client, &[("client-id", Some("slow"))], "consumer_byte_rate", 250_000.0).await?;
        let topic_id = client.topic("t").await?.topic_id;
        let limits = FetchLimits::new(client.config());
        let mut session = FetchSession::new(&client, one_broker(&client).await?, limits);
        let mut taken = Taken::default();
        let started = Instant::now();
        // The broker applies the quota a moment after its answer: all may be read before.
        while session.throttled().is_zero() {
            ensure!(started.elapsed() < LIMIT, "4 MB at 250 KB/s were not throttled");
            session.set(FetchTarget::new(topic_id, 0, 0));
            taken = Taken::default();
            while !taken.at_end(1) {
                taken.step(&mut session).await?;
            }
        }
        let disk = log_on_disk(cluster.broker(), "t", 0)?;
        ensure!(taken.bytes.get(&0).is_some_and(|read| read[..] == disk[..]), "not what is on disk");
        Ok(())
    })
}

/// A listener with SASL beside the harness's own, whose anonymous users may do all.
fn secured_cluster() -> Result<(Cluster, String)> {
    let jaas = "org.apache.kafka.common.security.plain.PlainLoginModule required user_reader=\"r\" user_nobody=\"n\";";
    sasl_cluster(&[
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("super.users", "User:ANONYMOUS"),
        ("sasl.enabled.mechanisms", "PLAIN"),
        ("listener.name.sasl.plain.sasl.jaas.config", jaas),
    ])
}

fn sasl_cluster(properties: &[(&str, &str)]) -> Result<(Cluster, String)> {
    let mut builder = Cluster::builder().listener("SASL", "SASL_PLAINTEXT");
    for (key, value) in properties {
        builder = builder.property(key, value);
    }
    let cluster = builder.start()?;
    let sasl = cluster.bootstrap_of("SASL")?;
    Ok((cluster, sasl))
}

async fn allow(client: &Client, kind: i8, name: &str, operation: i8) -> Result<()> {
    raw_admin::allow(client, "User:reader", (kind, name), operation).await
}

fn needs<T: std::fmt::Debug>(result: Result<T, AdminError>, needed: NeededAcl) -> Result<()> {
    match result {
        Err(AdminError::NotAuthorized { needs, .. }) if needs == needed => Ok(()),
        other => bail!("expected a need of {needed}, found {other:?}"),
    }
}

fn missing_needs<T: std::fmt::Debug>(found: Found<T>, needed: NeededAcl) -> Result<()> {
    ensure!(found.items.is_empty() && found.missing.len() == 1, "{found:?}");
    needs(found.whole(), needed)
}

fn denied() -> Result<()> {
    let (read, describe, describe_configs) = (3, 8, 10);
    let (cluster, sasl) = secured_cluster()?;
    let kafka = cluster.client();
    kafka.create_topic("open", 1, 1, &[])?;
    kafka.create_topic("closed", 1, 1, &[])?;
    kafka.produce("open", &Produce { count: 10, ..Produce::default() })?;
    runtime()?.block_on(async {
        let admin = client(&cluster.bootstrap(), &[])?;
        let login = |user, password| {
            let pairs = [
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.mechanism", "PLAIN"),
                ("sasl.username", user),
                ("sasl.password", password),
            ];
            client(&sasl, &pairs)
        };
        allow(&admin, 2, "open", read).await?;
        allow(&admin, 3, "ours", describe).await?;
        commit(&admin, "ours", &["open"], 5, "").await?;
        commit(&admin, "theirs", &["open"], 6, "").await?;
        let reader = login("reader", "r")?;

        let topics = reader.list_topics().await?;
        ensure!(topics.len() == 1 && topics[0].name == "open", "{topics:?}");
        let cluster_describe = NeededAcl::on_cluster("Describe");
        needs(reader.list_acls().await, cluster_describe.clone())?;
        needs(reader.list_scram_users().await, cluster_describe.clone())?;
        needs(reader.list_client_quotas().await, NeededAcl::on_cluster("DescribeConfigs"))?;
        let configs = async |resource: ConfigResource| reader.describe_configs(&[resource]).await;
        let topic = ConfigResource::Topic("open".to_owned());
        let needed = NeededAcl::on_topic("DescribeConfigs", "open");
        missing_needs(configs(topic.clone()).await?, needed)?;
        missing_needs(
            configs(ConfigResource::ClusterDefault).await?,
            NeededAcl::on_cluster("DescribeConfigs"),
        )?;
        let theirs = vec!["theirs".to_owned()];
        let needed = NeededAcl::on_group("Describe", "theirs");
        missing_needs(reader.committed_offsets(&theirs).await?, needed)?;
        // Part of the groups is seen, and that it is a part is told.
        let listed = reader.list_groups().await?;
        ensure!(listed.items.len() == 1 && listed.items[0].group_id == "ours", "{listed:?}");
        ensure!(listed.missing.len() == 1 && listed.missing[0].error.is_not_authorized(), "{listed:?}");
        let closed = [TopicPartition::new("closed", 0)];
        let needed = NeededAcl::on_topic("Describe", "closed");
        missing_needs(reader.list_offsets_of(&closed, OffsetSpec::Latest).await?, needed)?;

        fetch_denied(&admin, &reader, &login("nobody", "n")?).await?;

        allow(&admin, 4, "kafka-cluster", describe).await?;
        allow(&admin, 4, "kafka-cluster", describe_configs).await?;
        allow(&admin, 2, "open", describe_configs).await?;
        let acls = reader.list_acls().await?;
        ensure!(acls.len() == 5 && acls[0].resource_type == "CLUSTER", "{acls:?}");
        ensure!(acls.iter().all(|a| a.principal == "User:reader" && a.permission == "ALLOW"), "{acls:?}");
        ensure!(reader.list_scram_users().await?.whole()?.is_empty());
        ensure!(reader.list_client_quotas().await?.is_empty());
        ensure!(reader.describe_configs(&[topic]).await?.whole()?.len() == 1);
        let listed = reader.list_groups().await?.whole()?;
        ensure!(listed.len() == 2, "{listed:?}");
        Ok(())
    })
}

/// One who may read, one who may not.
async fn fetch_denied(admin: &Client, reader: &Client, nobody: &Client) -> Result<()> {
    let topic_id = admin.topic("open").await?.topic_id;
    for (client, allowed) in [(reader, true), (nobody, false)] {
        let limits = FetchLimits::new(client.config());
        let mut session = FetchSession::new(client, one_broker(client).await?, limits);
        session.set(FetchTarget::new(topic_id, 0, 0));
        let answer = session.next().await?.context("a partition")?;
        let outcome = &answer.first().context("no news")?.outcome;
        match outcome {
            Ok(batches) => ensure!(allowed && batches.next_offset == 10, "{batches:?}"),
            // Kafka lets nobody find out whether the topic is there, before 3.9 by another code.
            Err(FetchProblem::NotAuthorized | FetchProblem::UnknownTopicId) => ensure!(!allowed, "denied"),
            Err(other) => bail!("{other}"),
        }
    }
    Ok(())
}

fn halves() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    for n in 0..40 {
        kafka.create_topic(&format!("topic-{n:02}"), 1, 1, &[])?;
    }
    runtime()?.block_on(async {
        let admin = client(&cluster.bootstrap(), &[])?;
        let long = "x".repeat(3000);
        for n in 0..40 {
            commit(&admin, &format!("group-{n:02}"), &["topic-00"], n, &long).await?;
        }
        commit(&admin, "vast", &["topic-00"], 1, &"x".repeat(4000)).await?;
        commit(&admin, "vast", &["topic-01"], 1, &"x".repeat(4000)).await?;
        commit(&admin, "vast", &["topic-02"], 1, &"x".repeat(4000)).await?;
        // Room for three such groups, and for neither 40 topics nor the vast group.
        let narrow = client(&cluster.bootstrap(), &[("receive.message.max.bytes", "11000")])?;
        let mut groups: Vec<String> = (0..40).map(|n| format!("group-{n:02}")).collect();
        let topics: Vec<ConfigResource> =
            (0..40).map(|n| ConfigResource::Topic(format!("topic-{n:02}"))).collect();
        ensure!(narrow.committed_offsets(&groups).await?.whole()?.len() == 40);
        ensure!(narrow.describe_configs(&topics).await?.whole()?.len() == 40);
        groups.push("vast".to_owned());
        let found = narrow.committed_offsets(&groups).await?;
        ensure!(found.items.len() == 40 && found.missing.len() == 1, "{:?}", found.missing);
        let error = found.missing[0].error.to_string();
        ensure!(found.missing[0].what == "vast" && error.contains("receive.message.max.bytes"), "{error}");
        Ok(())
    })
}

/// Who has which of 12 pieces of work.
fn twelve_pieces(members: &[JoinedMember]) -> BTreeMap<String, Bytes> {
    let mut shares: BTreeMap<String, BytesMut> = BTreeMap::new();
    for piece in 0..12_u8 {
        let member = &members[usize::from(piece) % members.len()];
        shares.entry(member.member_id.clone()).or_default().put_u8(piece);
    }
    shares.into_iter().map(|(id, share)| (id, share.freeze())).collect()
}

/// The member's next share, through whatever comes before it.
async fn next_share(member: &mut GroupMember) -> Result<BTreeSet<u8>> {
    loop {
        match tokio::time::timeout(LIMIT, member.next()).await?.context("the member has ended")? {
            GroupEvent::Assigned { assignment, .. } => return Ok(assignment.iter().copied().collect()),
            GroupEvent::Revoked(released) => drop(released),
            GroupEvent::Lost { .. } => {}
            GroupEvent::Failed(error) => return Err(error.into()),
        }
    }
}

/// Until the shares of all are disjoint and all there is.
async fn settle(members: &mut [GroupMember]) -> Result<Vec<BTreeSet<u8>>> {
    let started = Instant::now();
    let mut shares = vec![BTreeSet::new(); members.len()];
    loop {
        for (member, share) in members.iter_mut().zip(&mut shares) {
            // A short wait: a member that is settled has no event.
            if let Ok(next) = tokio::time::timeout(Duration::from_millis(600), next_share(member)).await {
                *share = next?;
            }
        }
        let all: BTreeSet<u8> = shares.iter().flatten().copied().collect();
        let sum: usize = shares.iter().map(BTreeSet::len).sum();
        if all.len() == 12 && sum == 12 && shares.iter().all(|s| !s.is_empty()) {
            return Ok(shares);
        }
        ensure!(started.elapsed() < LIMIT, "{shares:?}");
    }
}

fn members_share() -> Result<()> {
    let cluster = Cluster::builder().property("group.min.session.timeout.ms", "1000").start()?;
    runtime()?.block_on(async {
        let client = client(&cluster.bootstrap(), &[])?;
        let join = || {
            let metadata = Bytes::from_static(b"I can");
            let membership = Membership {
                session_timeout: Duration::from_secs(10),
                rebalance_timeout: Duration::from_secs(30),
                heartbeat_interval: Duration::from_millis(200),
                ..Membership::new("archivers", "varve", "twelve", metadata)
            };
            GroupMember::join(&client, membership, Arc::new(twelve_pieces))
        };
        let mut members = vec![join()];
        ensure!(settle(&mut members).await?[0].len() == 12);
        members.extend([join(), join()]);
        ensure!(settle(&mut members).await?.iter().all(|share| share.len() == 4));
        // One leaves and tells; another dies and doesn't.
        members.pop().context("three members")?.leave().await;
        ensure!(settle(&mut members).await?.iter().all(|share| share.len() == 6));
        drop(members.pop());
        ensure!(settle(&mut members).await?[0].len() == 12);
        // Nobody takes a share away before it is released.
        let mut first = members.pop().context("one member")?;
        let started = Instant::now();
        let (mut second, released) = 'anew: loop {
            let second = join();
            loop {
                ensure!(started.elapsed() < 2 * LIMIT, "the share is lost again and again");
                match tokio::time::timeout(LIMIT, first.next()).await?.context("it has ended")? {
                    GroupEvent::Revoked(released) => break 'anew (second, released),
                    GroupEvent::Assigned { .. } => {}
                    // After a stall of this machine.
                    GroupEvent::Lost { .. } => break,
                    GroupEvent::Failed(error) => return Err(error.into()),
                }
            }
            second.leave().await;
            while next_share(&mut first).await?.len() < 12 {}
        };
        let early = tokio::time::timeout(Duration::from_millis(2000), next_share(&mut second)).await;
        ensure!(early.is_err(), "a share was given before it was released: {early:?}");
        drop(released);
        settle(&mut [first, second]).await?;
        // While the coordinator is away, the share is lost when the session timeout is over.
        let mut alone = GroupMember::join(
            &client,
            Membership {
                session_timeout: Duration::from_millis(1500),
                heartbeat_interval: Duration::from_millis(200),
                ..Membership::new("lonely", "varve", "twelve", Bytes::new())
            },
            Arc::new(twelve_pieces),
        );
        ensure!(next_share(&mut alone).await?.len() == 12);
        cluster.broker().pause()?;
        match tokio::time::timeout(LIMIT, alone.next()).await?.context("it has ended")? {
            GroupEvent::Lost { .. } => {}
            other => bail!("{other:?}"),
        }
        cluster.broker().resume()?;
        ensure!(next_share(&mut alone).await?.len() == 12);
        Ok(())
    })
}

/// Seconds that a token lives. The broker ends a login with its token.
const TOKEN_LIFE_S: u64 = 5;

/// A token as Kafka's default validator takes it: unsigned.
fn unsigned_token() -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let part = |json: String| URL_SAFE_NO_PAD.encode(json);
    // `now` is a whole second that has begun: the token lives as long as is told, or up to a second more.
    let claims = format!(r#"{{"sub":"ann","iat":{now},"exp":{}}}"#, now + TOKEN_LIFE_S + 1);
    Ok(format!("{}.{}.", part(r#"{"alg":"none"}"#.to_owned()), part(claims)))
}

/// A token endpoint that knows one client. Returns its URL; counts the tokens that it gave.
fn token_endpoint(given: Arc<AtomicUsize>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/token?tenant=1", listener.local_addr()?);
    let login = format!("authorization: basic {}", STANDARD.encode("me%2Fyou:s%3Acret")).to_lowercase();
    let answer = move |stream: &mut TcpStream| -> Result<()> {
        let (mut head, mut byte) = (String::new(), [0]);
        while !head.ends_with("\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(char::from(byte[0]));
        }
        let head = head.to_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).context("no length")?;
        let mut form = vec![0; length.trim().parse()?];
        stream.read_exact(&mut form)?;
        let right = head.starts_with("post /token?tenant=1 ")
            && head.contains(&login)
            && form == b"grant_type=client_credentials&scope=kafka+all";
        let (status, body) = if right {
            given.fetch_add(1, Ordering::SeqCst);
            let token = unsigned_token()?;
            ("200 OK", format!(r#"{{"access_token":"{token}","expires_in":{TOKEN_LIFE_S}}}"#))
        } else {
            ("401 Unauthorized", r#"{"error":"invalid_client"}"#.to_owned())
        };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        Ok(())
    };
    // Ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            if let Err(error) = answer(&mut stream) {
                eprintln!("token endpoint: {error:#}");
            }
        }
    });
    Ok(url)
}

fn bearer() -> Result<()> {
    let module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required";
    let (_cluster, sasl) = sasl_cluster(&[
        ("sasl.enabled.mechanisms", "OAUTHBEARER"),
        (
            "listener.name.sasl.oauthbearer.sasl.jaas.config",
            &format!("{module} unsecuredLoginStringClaim_sub=\"broker\";"),
        ),
    ])?;
    let given = Arc::new(AtomicUsize::new(0));
    let url = token_endpoint(Arc::clone(&given))?;
    let login = |secret| {
        let pairs = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.oauthbearer.token.endpoint.url", url.as_str()),
            ("sasl.oauthbearer.client.id", "me/you"),
            ("sasl.oauthbearer.client.secret", secret),
            ("sasl.oauthbearer.scope", "kafka all"),
        ];
        client(&sasl, &pairs)
    };
    runtime()?.block_on(async {
        match login("wrong")?.metadata(None).await {
            Err(error @ ClientError::Authentication { .. }) => {
                ensure!(error.to_string().contains("invalid_client"), "{error}");
            }
            other => bail!("{other:?}"),
        }
        let client = login("s:cret")?;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(2 * TOKEN_LIFE_S + 2) {
            client.metadata(None).await?;
            // One token does for all connections while it lives.
            client.own_connection(one_broker(&client).await?).await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let given = given.load(Ordering::SeqCst);
        ensure!((3..=5).contains(&given), "{given} tokens");
        Ok(())
    })
}

/// User and system time of this process.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("no fields")?.split_whitespace().collect();
    let ticks: f64 =
        fields.get(11..13).context("no times")?.iter().filter_map(|f| f.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

/// Prints figures. `VARVE_FETCH_MIB` says of how much; by default too little to mean anything.
fn speed() -> Result<()> {
    let mib: u64 = std::env::var("VARVE_FETCH_MIB").ok().and_then(|v| v.parse().ok()).unwrap_or(32);
    let cluster = Cluster::builder().heap_mib(1024).start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 4, 1, &[])?;
    for partition in 0..4 {
        let produce = Produce {
            partition,
            count: (mib << 20) / 4 / 10_000,
            value_bytes: 10_000,
            batch_bytes: 500_000,
            ..Produce::default()
        };
        kafka.produce("t", &produce)?;
    }
    runtime()?.block_on(async {
        let pairs = [("fetch.max.bytes", "16777216"), ("max.partition.fetch.bytes", "8388608")];
        let client = client(&cluster.bootstrap(), &pairs)?;
        let topic_id = client.topic("t").await?.topic_id;
        for sessions in [1, 1, 2] {
            let node = one_broker(&client).await?;
            let (started, cpu) = (Instant::now(), cpu_seconds()?);
            let reads = (0..sessions).map(|n| {
                let mine: Vec<i32> = (0..4).filter(|p| p % sessions == n).collect();
                let mut session = FetchSession::new(&client, node, FetchLimits::new(client.config()));
                mine.iter().for_each(|p| session.set(FetchTarget::new(topic_id, *p, 0)));
                tokio::spawn(async move {
                    let (mut bytes, mut left) = (0, mine.len());
                    while left > 0 {
                        for fetched in session.next().await?.unwrap_or_default() {
                            let batches = fetched.outcome?;
                            bytes += batches.records.len();
                            if batches.next_offset >= batches.high_watermark {
                                left -= usize::from(session.remove(topic_id, fetched.partition).is_some());
                            }
                        }
                    }
                    anyhow::Ok(bytes)
                })
            });
            let mut bytes = 0;
            for read in reads.collect::<Vec<_>>() {
                bytes += read.await??;
            }
            let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
            ensure!(bytes as u64 >= (mib << 20) * 9 / 10, "{bytes} bytes of {mib} MiB");
            let gib = bytes as f64 / f64::from(1 << 30);
            println!(
                "{sessions} session(s): {gib:.2} GiB in {seconds:.2} s: {:.0} MiB/s, {:.2} CPU-s per GiB",
                gib * 1024.0 / seconds,
                cpu / gib
            );
        }
        Ok(())
    })
}
