//! Setting dynamic configs.

use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::super::admin::{AdminResult, ConfigResource, NeededAcl};
use super::super::asking::Refused;
use super::super::cluster::Client;

const SET: i8 = 0;
const DELETE: i8 = 1;

/// One config's new value; `None` takes the dynamic one away, so that the default holds again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    pub name: String,
    pub value: Option<String>,
}

impl Client {
    /// Changes these configs of one resource, and no others; all of them or none.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[ConfigChange],
    ) -> AdminResult<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let what = format!("setting {resource}");
        let configs = changes.iter().map(|change| {
            AlterableConfig::default()
                .with_name(StrBytes::from_string(change.name.clone()))
                .with_config_operation(if change.value.is_some() { SET } else { DELETE })
                .with_value(change.value.clone().map(StrBytes::from_string))
        });
        let altered = AlterConfigsResource::default()
            .with_resource_type(resource.code())
            .with_resource_name(StrBytes::from_string(resource.name()))
            .with_configs(configs.collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![altered]);
        let needs = match resource {
            ConfigResource::Topic(name) => NeededAcl::on_topic("AlterConfigs", name),
            ConfigResource::Group(name) => NeededAcl::on_group("AlterConfigs", name),
            _ => NeededAcl::on_cluster("AlterConfigs"),
        };
        let ask = async || {
            let connection = match resource {
                ConfigResource::Broker(id) => self.connection(*id).await?,
                _ => self.any_connection().await?,
            };
            Ok(connection.call(request.clone()).await?)
        };
        let refused = |answer: &IncrementalAlterConfigsResponse| {
            let one = answer.responses.first()?;
            Refused::of(one.error_code, one.error_message.as_deref().unwrap_or_default(), needs.clone())
        };
        self.ask_until_done(&what, ask, refused).await.map(drop)
    }
}
