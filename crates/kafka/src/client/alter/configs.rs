//! Setting dynamic configs.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::protocol::StrBytes;

use super::super::admin::{AdminError, AdminResult, ConfigResource, NeededAcl};
use super::super::cluster::Client;
use super::super::error::ClientError;

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
        let mut backoff = self.backoff();
        loop {
            let asked = async {
                let connection = match resource {
                    ConfigResource::Broker(id) => self.connection(*id).await?,
                    _ => self.any_connection().await?,
                };
                connection.call(request.clone()).await
            };
            let error = match asked.await {
                Ok(answer) => match answer.responses.first() {
                    None => return Ok(()),
                    Some(one) => match ResponseError::try_from_code(one.error_code) {
                        None => return Ok(()),
                        Some(code) if code.is_retriable() => ClientError::kafka(&what, code),
                        Some(code) => {
                            let why = one.error_message.as_deref().unwrap_or_default();
                            return Err(AdminError::refused(format!("{what} ({why})"), code, needs));
                        }
                    },
                },
                Err(e) => e,
            };
            backoff.wait_or_fail(&what, error).await?;
        }
    }
}
