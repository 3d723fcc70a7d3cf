//! Taking away what a restore has begun and will not end.

use std::path::Path;

use varve_kafka::client::{Client, ClientConfig};
use varve_kafka::replica::{Controller, unregister};

use super::journal;
use crate::error::Result;
use crate::plan::Plan;

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Topics that were not handed over as a whole: they are deleted.
    pub topics: Vec<String>,
    /// Topics that were: they stay.
    pub kept: Vec<String>,
    /// Our broker id is not known to the cluster any more.
    pub is_unregistered: bool,
    /// It was done, and not only said.
    pub is_done: bool,
}

/// Deletes topics of this restore of which any partition was not handed over, and unregisters our id. With `dry_run`
/// it only says so.
///
/// # Errors
/// Of the target.
pub async fn cleanup(
    plan: &Plan,
    plan_file: &Path,
    client: &Client,
    controllers: ClientConfig,
    dry_run: bool,
) -> Result<Cleaned> {
    if plan.is_produced() {
        return super::produce::cleanup(plan, plan_file, client, dry_run).await;
    }
    let (us, done) = (plan.target.broker_id, journal::done(plan_file)?);
    let metadata = client.metadata(None).await?;
    let mut cleaned = Cleaned::default();
    for topic in &metadata.topics {
        let planned = plan.topics.iter().any(|t| t.target == topic.name);
        let ours = done.topics.get(&topic.name) == Some(&topic.topic_id);
        let begun = topic.partitions.iter().any(|p| p.replicas.contains(&us));
        if !planned || (!ours && !begun) {
            continue;
        }
        if !begun {
            cleaned.kept.push(topic.name.clone());
            continue;
        }
        if !dry_run {
            client.delete_topic(topic.topic_id).await?;
        }
        cleaned.topics.push(topic.name.clone());
    }
    if !dry_run {
        unregister(&Controller::new(controllers)?, us).await?;
        cleaned.is_unregistered = true;
        cleaned.is_done = true;
    }
    Ok(cleaned)
}
