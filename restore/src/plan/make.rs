//! Making a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use varve_cluster::{Config, Part, StateParts};
use varve_format::Id;
use varve_kafka::client::Client;
use varve_kafka::replica::Controller;

use super::checks;
use super::document::{
    Mode, PLAN_VERSION, Plan, PlannedArchive, PlannedGroup, PlannedOffset, PlannedPartition, PlannedTarget,
    PlannedTopic, Refusal, Totals,
};
use super::partitions::Logs;
use super::permissions;
use super::placement::Placement;
use super::reach::{self, Reach};
use super::time::with_time;
use super::unmatched;
use crate::as_of;
use crate::brokers::settings_of;
use crate::cold;
use crate::error::{Error, Result};
use crate::history::KeyCache;
use crate::release::has_no_tier;
use crate::rest::Rest;
use crate::schemas::{self, WantedSchemas};
use crate::select::Selection;
use crate::source::{Source, SourceTopic};

/// Partitions that are looked at at once.
const PARALLEL: usize = 8;
/// What is fetched of an object at once.
const RUN_BYTES: u64 = 4 << 20;
const TOPIC_CONFIG: &str = "DYNAMIC_TOPIC_CONFIG";
/// What would delete or change records before it is wanted.
const HELD_BACK: [&str; 11] = [
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "local.retention.ms",
    "local.retention.bytes",
    "remote.storage.enable",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "leader.replication.throttled.replicas",
    "follower.replication.throttled.replicas",
    // One that has half of a partition must never lead it.
    "unclean.leader.election.enable",
];

/// What is asked for, beside the archive.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub restore_id: Id,
    pub now_ms: i64,
    pub archive_url: String,
    pub bootstrap_servers: String,
    pub controllers: String,
    pub selection: Selection,
    /// As in the archive if it is not given, and at most the number of brokers.
    pub replication_factor: Option<usize>,
    pub broker_id: Option<i32>,
    /// Groups, ACLs, quotas, configs; topics come always.
    pub parts: StateParts,
    /// Into the cluster that the archive is of.
    pub into_its_source: bool,
    pub reach: Reach,
    /// What does not hold in the archive is a hole. For that all of it is read.
    pub skip_corrupt: bool,
    /// The target's Schema Registry.
    pub schemas: Option<WantedSchemas>,
    pub mode: Mode,
    /// In mode produce: offsets that may be taken and deleted before a partition's first record.
    pub filler_max: u64,
}

/// Looks at archive and target, and changes neither.
///
/// # Errors
/// Of the archive and of the target. What stands against the restore is in the plan.
pub async fn plan(
    source: &Source,
    keys: &Arc<KeyCache>,
    client: &Client,
    controller: &Controller,
    wanted: &Wanted,
) -> Result<Plan> {
    let cluster = client.describe_cluster().await?;
    let brokers: Vec<i32> = cluster.brokers.iter().map(|b| b.node_id).collect();
    let mut refusals = Vec::new();
    let Some(broker) = brokers.first() else {
        return Err(Error::refused("the target has no broker", "start one"));
    };
    let produced = wanted.mode == Mode::Produce;
    if !produced {
        permissions::to_look(client).await?;
    }
    let settings = match settings_of(client, *broker).await {
        // Who runs the target may not tell.
        Err(Error::Admin(error)) if produced && error.is_not_authorized() => BTreeMap::new(),
        settings => settings?,
    };
    let target = PlannedTarget {
        bootstrap_servers: wanted.bootstrap_servers.clone(),
        controllers: wanted.controllers.clone(),
        cluster_id: cluster.cluster_id.clone(),
        broker_id: if produced { -1 } else { wanted.broker_id.unwrap_or_else(|| free_id(&brokers)) },
        brokers,
        listener_protocol: reach::listener_protocol(&settings),
        listener_name: reach::listener_name(&settings),
    };
    if source.state.cluster_id == target.cluster_id && !wanted.into_its_source {
        refusals.push(Refusal {
            what: format!("the target {} is the cluster that the archive is of", target.cluster_id),
            todo: "check --to; if it is meant, say --into-its-source".to_owned(),
        });
    }
    let mut differences = Vec::new();
    if let Some(earlier) = &source.state_of {
        differences.push(format!(
            "all but the records is as snapshot {} had it: the cluster was away when snapshot {} was made; topics that \
             are younger have no configs",
            earlier.snapshot, source.snapshot.record.sequence
        ));
    }
    let placement = Placement::new(cluster.brokers.into_iter().map(|b| (b.node_id, b.rack)));
    let mut topics = match topics(source, keys, &placement, wanted, &mut refusals, &mut differences).await {
        Ok(topics) => topics,
        Err(error) => return Err(cold::told(error, &source.archive, &source.partitions()).await),
    };
    if produced {
        let notes = (&mut differences, &mut refusals);
        crate::produce::planned(source, keys, client, &settings, wanted.filler_max, &mut topics, notes)
            .await?;
    }
    if has_no_tier(&settings) {
        let tiered = topics.iter().filter(|t| t.was_tiered());
        differences.extend(tiered.map(|topic| {
            format!(
                "topic {} was tiered, and the target's brokers have no tiered storage: it is released without, and they \
                 keep all that its retention keeps",
                topic.topic
            )
        }));
    }
    let groups = if wanted.parts.has(Part::Groups) {
        groups(source, &topics, wanted, &mut differences)
    } else {
        Vec::new()
    };
    let rest = Rest::planned(&source.state, client, &wanted.parts, &mut differences).await?;
    refusals.extend(match produced {
        true => permissions::to_produce(client, &topics, &groups, &rest).await?,
        false => permissions::to_restore(client, &topics, &groups, &rest).await?,
    });
    refusals.extend(match produced {
        true => checks::produced(client, &topics).await?,
        false => checks::target(client, controller, &settings, &target, &topics, &wanted.reach).await?,
    });
    let (of, parts) = (wanted.schemas.as_ref(), &wanted.parts);
    let schemas = schemas::planned(&source.state, of, parts, &mut refusals, &mut differences).await;
    Ok(Plan {
        varve_restore_plan: PLAN_VERSION,
        restore_id: wanted.restore_id.to_string(),
        created_ms: wanted.now_ms,
        archive: PlannedArchive {
            url: wanted.archive_url.clone(),
            archive_id: source.archive.id().to_string(),
            snapshot: source.snapshot.record.sequence,
            snapshot_hash: source.snapshot.hash.to_string(),
            snapshot_created_ms: source.snapshot.record.created_ms,
            cluster_id: source.state.cluster_id.clone(),
            as_of_ms: wanted.selection.as_of_ms,
        },
        totals: with_time(totals(&topics), &topics, &settings),
        target,
        topics,
        groups,
        rest,
        differences,
        refusals,
        schemas,
    })
}

/// One that is unlike those that people give.
fn free_id(brokers: &[i32]) -> i32 {
    const FIRST: i32 = 990_000;
    (FIRST..i32::MAX).find(|id| !brokers.contains(id)).unwrap_or(FIRST)
}

async fn topics(
    source: &Source,
    keys: &Arc<KeyCache>,
    placement: &Placement,
    wanted: &Wanted,
    refusals: &mut Vec<Refusal>,
    differences: &mut Vec<String>,
) -> Result<Vec<PlannedTopic>> {
    let (reader, journal) = source.reader().await?;
    let selection = &wanted.selection;
    let mut cuts = match selection.as_of_ms {
        Some(time_ms) => as_of::cuts(source, keys, (&reader, &journal), selection, time_ms).await?,
        None => as_of::Cuts::default(),
    };
    differences.append(&mut cuts.notes);
    refusals.append(&mut cuts.refusals);
    let skip_corrupt = wanted.skip_corrupt;
    let logs = Logs { keys, reader: &reader, journal: &journal, cuts: &cuts, selection, skip_corrupt };
    let mut planned: Vec<PlannedTopic> = Vec::new();
    for topic in &source.topics {
        if let Some(why) = source.left_out(topic, selection) {
            differences.push(format!("topic {} ({}) {why}", topic.name, topic.topic_id));
            continue;
        }
        if let Some(other) = planned.iter().find(|p| p.topic == topic.name) {
            refusals.push(Refusal {
                what: format!(
                    "two topics are called {}: {} and {}",
                    topic.name, other.topic_id, topic.topic_id
                ),
                todo: "restore as of a snapshot in which one of them was alive".to_owned(),
            });
            continue;
        }
        let number = planned.len();
        planned.push(one_topic(source, topic, &logs, placement, number, wanted, differences).await?);
    }
    refusals.extend(unmatched::refusals(source, selection));
    if planned.is_empty() {
        refusals.push(Refusal {
            what: "no topic of the archive is selected".to_owned(),
            todo: "varve ls lists what there is".to_owned(),
        });
    }
    Ok(planned)
}

async fn one_topic(
    source: &Source,
    topic: &SourceTopic,
    logs: &Logs<'_>,
    placement: &Placement,
    number: usize,
    wanted: &Wanted,
    differences: &mut Vec<String>,
) -> Result<PlannedTopic> {
    let described = topic.described.as_ref();
    let archived = described.and_then(|t| t.replicas.first()).map_or(1, Vec::len);
    let factor = wanted.replication_factor.unwrap_or(archived).clamp(1, placement.brokers());
    if factor < wanted.replication_factor.unwrap_or(archived) {
        differences.push(format!(
            "topic {} gets {factor} replicas instead of {}: the target has no more brokers",
            topic.name,
            wanted.replication_factor.unwrap_or(archived)
        ));
    }
    let count = topic.partition_count();
    let looked = stream::iter(0..count).map(|partition| async move {
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        let replicas = placement.of(number, partition, factor);
        logs.partition(topic, partition, replicas).await
    });
    let partitions: Vec<PlannedPartition> = looked.buffered(PARALLEL).try_collect().await?;
    for partition in partitions.iter().filter(|_| wanted.mode == Mode::Leader) {
        different(topic, partition, differences);
        if !wanted.selection.has_partition(&topic.name, partition.partition) {
            differences.push(format!(
                "{}-{} is not selected: it begins empty, at offset {}",
                topic.name, partition.partition, partition.end_offset
            ));
        }
    }
    let whole = topic.partitions.values().filter(|state| {
        wanted.selection.as_of_ms.is_none()
            && wanted.selection.offsets(&topic.name, state.partition).end == i64::MAX
    });
    for state in whole {
        if let Some(end) = state.log_end_offset.filter(|end| *end > state.end()) {
            differences.push(format!(
                "{}-{}: the archive had offsets up to {} only, the log went on to {}",
                topic.name,
                state.partition,
                state.end().saturating_sub(1),
                end.saturating_sub(1)
            ));
        }
    }
    let final_configs: BTreeMap<String, String> = described
        .map_or(&[] as &[Config], |t| &t.configs)
        .iter()
        .filter(|c| c.source == TOPIC_CONFIG && !c.sensitive)
        .filter_map(|c| Some((c.name.clone(), c.value.clone()?)))
        .filter(|(name, _)| !name.ends_with(".replication.throttled.replicas"))
        .collect();
    let unknown = "its configs, and the groups' offsets in it, are not known";
    match (described, topic.described_by) {
        (Some(_), Some(sequence)) => differences.push(format!(
            "topic {} was deleted before the snapshot: its configs, and the groups' offsets in it, are those of snapshot \
             {sequence}",
            topic.name
        )),
        (None, _) if topic.is_deleted => {
            differences.push(format!("topic {} was deleted before the snapshot: {unknown}", topic.name));
        }
        (None, _) if source.state_of.is_some() => {
            differences.push(format!("topic {} is younger than the state of the cluster: {unknown}", topic.name));
        }
        _ => {}
    }
    let mut configs: BTreeMap<String, String> =
        final_configs.iter().filter(|(n, _)| !HELD_BACK.contains(&n.as_str())).map(own).collect();
    if let Some(least) = final_configs.get("min.insync.replicas").and_then(|n| n.parse::<usize>().ok())
        && least > factor
    {
        differences.push(format!(
            "topic {}: min.insync.replicas={least} with {factor} replicas: nobody can produce with acks=all until it is lowered",
            topic.name
        ));
    }
    let held = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("unclean.leader.election.enable", "false"),
    ];
    for (name, value) in held {
        configs.insert(name.to_owned(), value.to_owned());
    }
    Ok(PlannedTopic {
        topic: topic.name.clone(),
        topic_id: topic.topic_id.to_string(),
        target: wanted.selection.name(&topic.name).to_owned(),
        mode: Mode::Leader,
        why: "the target's controllers can be reached: byte for byte, with the same offsets".to_owned(),
        partitions,
        configs,
        final_configs,
        are_configs_known: described.is_some(),
    })
}

fn own((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

fn different(topic: &SourceTopic, partition: &PlannedPartition, differences: &mut Vec<String>) {
    let name = format!("{}-{}", topic.name, partition.partition);
    for hole in &partition.holes {
        differences.push(format!(
            "{name}: offsets {} to {} are not in the archive ({})",
            hole.first_offset,
            hole.end_offset.saturating_sub(1),
            hole.why
        ));
        if hole.first_offset > partition.start_offset {
            differences.push(format!(
                "{name}: a transaction whose end is among those stays open: kafka-transactions.sh find-hanging names it"
            ));
        }
    }
    for open in &partition.open_transactions {
        differences.push(format!(
            "{name}: the transaction of producer {} that is open from offset {} on is aborted: its marker comes \
             behind offset {}",
            open.producer_id,
            open.first_offset,
            partition.end_offset.saturating_sub(1)
        ));
    }
}

fn groups(
    source: &Source,
    topics: &[PlannedTopic],
    wanted: &Wanted,
    differences: &mut Vec<String>,
) -> Vec<PlannedGroup> {
    let by_name: BTreeMap<&str, &PlannedTopic> = topics.iter().map(|t| (t.topic.as_str(), t)).collect();
    let mut planned = Vec::new();
    let restored: BTreeSet<&str> = topics.iter().map(|t| t.topic_id.as_str()).collect();
    let groups = source.groups(|topic| restored.contains(topic.topic_id.to_string().as_str()));
    for group in groups.iter().filter(|g| wanted.selection.has_group(&g.group_id)) {
        if !["classic", "consumer", ""].contains(&group.group_type.as_str()) {
            let (id, kind) = (&group.group_id, &group.group_type);
            differences.push(format!("group {id} is of type {kind}, whose offsets are not restored"));
            continue;
        }
        let mut offsets = Vec::new();
        for (topic, committed) in
            group.offsets.iter().flat_map(|t| t.partitions.iter().map(move |p| (&t.topic, p)))
        {
            let Some(planned) = by_name.get(topic.as_str()) else { continue };
            let partition = planned.partitions.iter().find(|p| p.partition == committed.partition);
            let end = partition.map_or(0, |p| p.end_offset);
            if committed.offset > end {
                differences.push(format!(
                    "group {}: offset {} of {topic}-{} is behind what is restored: it becomes {end}",
                    group.group_id, committed.offset, committed.partition
                ));
            }
            offsets.push(PlannedOffset {
                topic: planned.target.clone(),
                partition: committed.partition,
                offset: committed.offset.min(end),
                leader_epoch: committed
                    .leader_epoch
                    .filter(|_| committed.offset <= end && wanted.mode == Mode::Leader),
                metadata: committed.metadata.clone().unwrap_or_default(),
            });
        }
        if !offsets.is_empty() {
            planned.push(PlannedGroup { group_id: group.group_id.clone(), offsets });
        }
    }
    planned
}

fn totals(topics: &[PlannedTopic]) -> Totals {
    let mut totals = Totals { topics: topics.len() as u64, ..Totals::default() };
    for partition in topics.iter().flat_map(|t| &t.partitions) {
        let log = partition.log_bytes;
        totals.partitions += 1;
        totals.objects = totals.objects.saturating_add(partition.objects);
        let runs = partition.log_bytes.div_ceil(RUN_BYTES);
        totals.requests = totals.requests.saturating_add(partition.objects).saturating_add(runs);
        totals.stored_bytes = totals.stored_bytes.saturating_add(partition.stored_bytes);
        totals.log_bytes = totals.log_bytes.saturating_add(log);
        let replicas = partition.replicas.len() as u64;
        totals.replica_bytes = totals.replica_bytes.saturating_add(log.saturating_mul(replicas));
        let epoch = partition.leader_epochs.last().map_or(0, |(epoch, _)| *epoch).max(0);
        totals.epoch_cycles = totals.epoch_cycles.max(u64::from(epoch.unsigned_abs()).div_ceil(2));
    }
    totals
}
