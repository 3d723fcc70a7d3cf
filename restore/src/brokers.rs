//! What brokers are set to.

use std::collections::BTreeMap;

use varve_kafka::client::Client;
use varve_kafka::client::admin::ConfigResource;

use crate::error::Result;

/// Of one broker, by name: all that is not Kafka's default and no secret.
pub(crate) async fn settings_of(client: &Client, broker: i32) -> Result<BTreeMap<String, String>> {
    let described = client.describe_configs(&[ConfigResource::Broker(broker)]).await?.whole()?;
    let entries = described.into_iter().flat_map(|resource| resource.entries);
    Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
}
