//! What must hold before anything is begun: each is a refusal that says what to do.

use std::collections::BTreeMap;

use varve_kafka::client::{Client, ClusterMetadata};
use varve_kafka::replica::Controller;

use super::document::{PlannedTarget, PlannedTopic, Refusal};
use super::permissions;
use super::reach::Reach;
use crate::error::Result;

/// A disk is not filled to the brim.
const FREE_SHARE: f64 = 0.95;

fn refusal(what: impl Into<String>, todo: impl Into<String>) -> Refusal {
    Refusal { what: what.into(), todo: todo.into() }
}

/// What the target's own state stands against.
pub(super) async fn target(
    client: &Client,
    controller: &Controller,
    settings: &BTreeMap<String, String>,
    target: &PlannedTarget,
    topics: &[PlannedTopic],
    reach: &Reach,
) -> Result<Vec<Refusal>> {
    let mut found = Vec::new();
    match permissions::to_control(controller).await {
        Ok(lacking) => found.extend(lacking),
        Err(error) => found.push(refusal(
            format!("the active controller can't be asked: {error}"),
            "give --controller a quorum voter's CONTROLLER listener, and --controller-config what it needs; \
             restoring as a leader needs KRaft, 3.9 or newer",
        )),
    }
    if target.brokers.contains(&target.broker_id) {
        let what = format!("broker id {} is taken", target.broker_id);
        found.push(refusal(what, "choose another with --broker-id"));
    }
    let metadata = client.metadata(None).await?;
    let used = metadata
        .topics
        .iter()
        .filter(|t| t.partitions.iter().any(|p| p.replicas.contains(&target.broker_id)));
    let used: Vec<&str> = used.map(|t| t.name.as_str()).collect();
    if let Some(first) = used.first() {
        let what = format!(
            "broker id {} has replicas of {} topics, {first} among them: it is a broker that is down, or another \
             restore that did not end",
            target.broker_id,
            used.len()
        );
        found.push(refusal(
            what,
            "choose another with --broker-id, or end that one: varve restore apply or cleanup",
        ));
    }
    let moving = client.list_reassignments().await?;
    if let Some(first) = moving.first() {
        let what = format!("{} partitions are being reassigned, {first} among them", moving.len());
        found.push(refusal(
            what,
            "wait for it, and pause what balances the cluster (Cruise Control) meanwhile",
        ));
    }
    found.extend(reach.refusals(settings, target));
    exist(&metadata, topics, &mut found);
    space(client, topics, &mut found).await?;
    Ok(found)
}

/// The same for a target that is only produced to.
pub(super) async fn produced(client: &Client, topics: &[PlannedTopic]) -> Result<Vec<Refusal>> {
    let mut found = Vec::new();
    exist(&client.metadata(None).await?, topics, &mut found);
    // Who runs it may not tell what room there is.
    if let Err(error) = space(client, topics, &mut found).await {
        tracing::info!(%error, "the target's room is not known");
    }
    Ok(found)
}

fn exist(metadata: &ClusterMetadata, topics: &[PlannedTopic], found: &mut Vec<Refusal>) {
    let mut wanted: BTreeMap<&str, &str> = BTreeMap::new();
    for topic in topics {
        if let Some(other) = wanted.insert(&topic.target, &topic.topic) {
            let what = format!("{other} and {} would both be {}", topic.topic, topic.target);
            found.push(refusal(what, "rename one with --rename, or leave it out"));
        }
        if metadata.topics.iter().any(|t| t.name == topic.target) {
            let what = format!("the target has a topic {}", topic.target);
            found.push(refusal(what, "delete it, leave it out with --without, or rename it with --rename"));
        }
    }
}

/// What each broker is to get against what it has room for.
async fn space(client: &Client, topics: &[PlannedTopic], found: &mut Vec<Refusal>) -> Result<()> {
    let mut needed: BTreeMap<i32, u64> = BTreeMap::new();
    for partition in topics.iter().flat_map(|t| &t.partitions) {
        for broker in &partition.replicas {
            let sum = needed.entry(*broker).or_default();
            *sum = sum.saturating_add(partition.log_bytes);
        }
    }
    for (broker, needed) in needed {
        let dirs = client.log_dirs(broker).await?;
        // Directories of one disk tell the same room: the largest is what there is at least.
        let Some(usable) = dirs.iter().filter_map(|dir| dir.usable_bytes).max() else { continue };
        if needed as f64 > usable as f64 * FREE_SHARE {
            let what = format!("broker {broker} is to get {needed} bytes, and has room for {usable}");
            found.push(refusal(what, "make room, add brokers, or restore less or with fewer replicas"));
        }
    }
    Ok(())
}
