//! The end of a restore: topics get the configs that they had. From then on retention and compaction work again.

use std::collections::BTreeMap;

use varve_kafka::client::admin::ConfigResource;
use varve_kafka::client::alter::ConfigChange;
use varve_kafka::client::{Client, OffsetSpec};

use crate::brokers::settings_of;
use crate::error::Result;
use crate::plan::{Plan, PlannedTopic};

const DELETE: &str = "delete";

/// What one topic's release does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub topic: String,
    pub changes: Vec<ConfigChange>,
    /// Configs of tiered storage, which the target's brokers have not got.
    pub left_out: Vec<String>,
    /// Offsets that its retention by time would delete soon, of those that are there. Whole segments go, so it is the
    /// most.
    pub expiring: u64,
    pub offsets: u64,
    /// Bytes that its retention by size would delete, about.
    pub over_bytes: u64,
    pub is_compacted: bool,
    /// If not, it is left as it is.
    pub are_configs_known: bool,
}

/// What it would do, as of `now_ms`.
///
/// # Errors
/// Of the target.
pub async fn releases(plan: &Plan, client: &Client, now_ms: i64) -> Result<Vec<Release>> {
    let mut all = Vec::with_capacity(plan.topics.len());
    let settings = first_settings(client).await?;
    let (defaults, has_no_tier) = (defaults(&settings), has_no_tier(&settings));
    for topic in &plan.topics {
        let without_tier = has_no_tier && topic.was_tiered();
        all.push(release_of(topic, &defaults, without_tier, client, now_ms).await?);
    }
    Ok(all)
}

/// Does it.
///
/// # Errors
/// Of the target.
pub async fn release(client: &Client, releases: &[Release]) -> Result<()> {
    for release in releases {
        client.alter_configs(&ConfigResource::Topic(release.topic.clone()), &release.changes).await?;
    }
    Ok(())
}

/// The first broker's.
async fn first_settings(client: &Client) -> Result<BTreeMap<String, String>> {
    let brokers = client.describe_cluster().await?.brokers;
    let Some(broker) = brokers.first() else { return Ok(BTreeMap::new()) };
    settings_of(client, broker.node_id).await
}

/// Whether brokers with these settings have no tiered storage: they refuse topics that want it. Without any, nobody
/// knows.
pub(crate) fn has_no_tier(settings: &BTreeMap<String, String>) -> bool {
    let enabled = settings.get("remote.log.storage.system.enable");
    !settings.is_empty() && enabled.is_none_or(|enabled| enabled != "true")
}

/// Whether a topic's config is for tiered storage alone.
fn is_of_tier(config: &str) -> bool {
    ["remote.", "local.retention."].iter().any(|prefix| config.starts_with(prefix))
}

/// What brokers say where a topic says nothing, by the topic's names.
fn defaults(settings: &BTreeMap<String, String>) -> BTreeMap<&'static str, String> {
    let value = |name: &str| settings.get(name).cloned();
    let time = |name: &str, factor: i64| {
        let number = value(name)?.parse::<i64>().ok()?;
        Some(if number < 0 { -1 } else { number.saturating_mul(factor) }.to_string())
    };
    let retention = time("log.retention.ms", 1)
        .or_else(|| time("log.retention.minutes", 60_000))
        .or_else(|| time("log.retention.hours", 3_600_000));
    let found = [
        ("retention.ms", retention),
        ("retention.bytes", value("log.retention.bytes")),
        ("cleanup.policy", value("log.cleanup.policy")),
    ];
    found.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

async fn release_of(
    topic: &PlannedTopic,
    defaults: &BTreeMap<&'static str, String>,
    without_tier: bool,
    client: &Client,
    now_ms: i64,
) -> Result<Release> {
    if !topic.are_configs_known {
        return Ok(Release {
            topic: topic.target.clone(),
            changes: Vec::new(),
            left_out: Vec::new(),
            expiring: 0,
            offsets: 0,
            over_bytes: 0,
            is_compacted: false,
            are_configs_known: false,
        });
    }
    let resource = ConfigResource::Topic(topic.target.clone());
    let described = client.describe_configs(&[resource]).await?.whole()?;
    let own = |c: &&varve_kafka::client::admin::ConfigEntry| {
        c.source == varve_kafka::client::admin::ConfigSource::DynamicTopicConfig
    };
    let found = described.iter().flat_map(|r| &r.entries);
    let current: BTreeMap<String, String> =
        found.filter(own).filter_map(|c| Some((c.name.clone(), c.value.clone()?))).collect();
    let mut changes: Vec<ConfigChange> = topic
        .final_configs
        .iter()
        .filter(|(name, value)| current.get(*name) != Some(value) && !(without_tier && is_of_tier(name)))
        .map(|(name, value)| ConfigChange { name: name.clone(), value: Some(value.clone()) })
        .collect();
    let gone =
        topic.configs.keys().filter(|n| !topic.final_configs.contains_key(*n) && current.contains_key(*n));
    changes.extend(gone.map(|name| ConfigChange { name: name.clone(), value: None }));
    // Where the topic says nothing, its brokers do; where they don't, Kafka's default holds.
    let last = |name: &str, default: &str| {
        let value = topic.final_configs.get(name).or_else(|| defaults.get(name));
        value.cloned().unwrap_or_else(|| default.to_owned())
    };
    let policy = last("cleanup.policy", DELETE);
    let mut release = Release {
        topic: topic.target.clone(),
        changes,
        left_out: topic.final_configs.keys().filter(|n| without_tier && is_of_tier(n)).cloned().collect(),
        expiring: 0,
        offsets: 0,
        over_bytes: 0,
        is_compacted: policy.contains("compact"),
        are_configs_known: true,
    };
    let numbers: Vec<i32> = topic.partitions.iter().map(|p| p.partition).collect();
    let starts = client.list_offsets(&topic.target, &numbers, OffsetSpec::Earliest).await?;
    let ends = client.list_offsets(&topic.target, &numbers, OffsetSpec::Latest).await?;
    let at = |of: &BTreeMap<i32, Option<i64>>, n: i32| of.get(&n).copied().flatten();
    let deletes = policy.contains(DELETE);
    let retention_ms = last("retention.ms", "604800000").parse::<i64>().ok().filter(|ms| *ms >= 0 && deletes);
    let kept = match retention_ms {
        Some(ms) => {
            client
                .list_offsets(&topic.target, &numbers, OffsetSpec::AtOrAfterMs(now_ms.saturating_sub(ms)))
                .await?
        }
        None => BTreeMap::new(),
    };
    let limit = last("retention.bytes", "-1").parse::<u64>().ok().filter(|_| deletes);
    for partition in &topic.partitions {
        let number = partition.partition;
        let (start, end) = (at(&starts, number).unwrap_or(0), at(&ends, number).unwrap_or(0));
        release.offsets += end.saturating_sub(start).unsigned_abs();
        if retention_ms.is_some() {
            let first = at(&kept, number).unwrap_or(end);
            release.expiring += first.saturating_sub(start).max(0).unsigned_abs();
        }
        if let Some(limit) = limit {
            release.over_bytes += partition.log_bytes.saturating_sub(limit);
        }
    }
    Ok(release)
}
