//! What the target must allow us: asked for before anything is begun, and told by name.

use varve_cluster::{ResourceConfigs, ResourceType};
use varve_kafka::client::Client;
use varve_kafka::client::admin::{ConfigResource, NeededAcl};
use varve_kafka::replica::Controller;

use super::document::{PlannedGroup, PlannedTopic, Refusal};
use crate::error::{Error, Result};
use crate::rest::Rest;

/// On the cluster, at the brokers.
const AT_BROKERS: [&str; 4] = ["CLUSTER_ACTION", "ALTER", "IDEMPOTENT_WRITE", "DESCRIBE_CONFIGS"];
/// On the cluster, at the controllers.
const AT_CONTROLLERS: [&str; 3] = ["CLUSTER_ACTION", "CREATE", "ALTER"];
/// Asks for the internal topics by this group and this transactional id.
const OURS: &str = "varve-restore";
const SHOWN: usize = 5;

fn refusal(lacking: &[String], whose: &str) -> Option<Refusal> {
    let shown = lacking.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match lacking.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!lacking.is_empty()).then(|| Refusal {
        what: format!("not allowed at the target's {whose}: {shown}{more}"),
        todo: "grant these to our principal: docs/RESTORE.md has all that are needed".to_owned(),
    })
}

fn on_cluster(operations: Vec<String>) -> Vec<String> {
    operations.into_iter().map(|operation| format!("{operation} on Cluster kafka-cluster")).collect()
}

/// Without which there is no plan.
pub(super) async fn to_look(client: &Client) -> Result<()> {
    let lacking = client.lacking_on_cluster(&AT_BROKERS).await?;
    if lacking.iter().all(|operation| operation != "DESCRIBE_CONFIGS") {
        return Ok(());
    }
    match refusal(&on_cluster(lacking), "brokers") {
        None => Ok(()),
        Some(refusal) => Err(Error::refused(refusal.what, refusal.todo)),
    }
}

/// What `rest` needs is looked at only where there is some. Delete, for taking back, can't be tried.
pub(super) async fn to_restore(
    client: &Client,
    topics: &[PlannedTopic],
    groups: &[PlannedGroup],
    rest: &Rest,
) -> Result<Option<Refusal>> {
    let mut operations = AT_BROKERS.to_vec();
    let of_a_group = |c: &&ResourceConfigs| c.resource == ResourceType::Group;
    if !rest.quotas.is_empty() || rest.configs.iter().any(|c| !of_a_group(&c)) {
        operations.push("ALTER_CONFIGS");
    }
    let mut lacking = on_cluster(client.lacking_on_cluster(&operations).await?);
    let names: Vec<&str> = topics.iter().map(|topic| topic.target.as_str()).collect();
    let ids: Vec<&str> = groups.iter().map(|group| group.group_id.as_str()).collect();
    let of_topics = names.iter().map(|name| ConfigResource::Topic((*name).to_owned()));
    let of_groups = rest.configs.iter().filter(of_a_group).filter_map(|c| c.name.clone());
    let of_groups = of_groups.map(ConfigResource::Group);
    let configured: Vec<ConfigResource> = of_topics.chain(of_groups).collect();
    let found: [Vec<NeededAcl>; 4] = [
        client.lacking_describe_of(OURS).await?,
        client.lacking_read_on_topics(&names).await?,
        client.lacking_read_on_groups(&ids).await?,
        client.lacking_alter_configs(&configured).await?,
    ];
    lacking.extend(found.iter().flatten().map(ToString::to_string));
    Ok(refusal(&lacking, "brokers"))
}

/// As [`to_restore`], of a producer. Whether topics may be made was asked for each.
pub(super) async fn to_produce(
    client: &Client,
    topics: &[PlannedTopic],
    groups: &[PlannedGroup],
    rest: &Rest,
) -> Result<Option<Refusal>> {
    let of_a_group = |c: &&ResourceConfigs| c.resource == ResourceType::Group;
    let mut operations = Vec::new();
    if !rest.acls.is_empty() {
        operations.push("ALTER");
    }
    if !rest.quotas.is_empty() || rest.configs.iter().any(|c| !of_a_group(&c)) {
        operations.push("ALTER_CONFIGS");
    }
    let mut lacking = match operations.is_empty() {
        // Brokers tell that only to who may describe the cluster.
        true => Vec::new(),
        false => on_cluster(client.lacking_on_cluster(&operations).await?),
    };
    let is_filled = |topic: &&PlannedTopic| {
        topic.partitions.iter().any(|p| p.produce.as_ref().is_some_and(|produce| produce.filler > 0))
    };
    let names: Vec<&str> = topics.iter().map(|topic| topic.target.as_str()).collect();
    let filled: Vec<&str> = topics.iter().filter(is_filled).map(|topic| topic.target.as_str()).collect();
    let ids: Vec<&str> = groups.iter().map(|group| group.group_id.as_str()).collect();
    let of_topics = names.iter().map(|name| ConfigResource::Topic((*name).to_owned()));
    let of_groups = rest.configs.iter().filter(of_a_group).filter_map(|c| c.name.clone());
    let configured: Vec<ConfigResource> = of_topics.chain(of_groups.map(ConfigResource::Group)).collect();
    let found: [Vec<NeededAcl>; 5] = [
        client.lacking_write_on_topics(&names).await?,
        client.lacking_read_on_topics(&names).await?,
        client.lacking_delete_on_topics(&filled).await?,
        client.lacking_read_on_groups(&ids).await?,
        client.lacking_alter_configs(&configured).await?,
    ];
    lacking.extend(found.iter().flatten().map(ToString::to_string));
    Ok(refusal(&lacking, "brokers"))
}

pub(super) async fn to_control(controller: &Controller) -> Result<Option<Refusal>> {
    Ok(refusal(&on_cluster(controller.lacking(&AT_CONTROLLERS).await?), "controllers"))
}
