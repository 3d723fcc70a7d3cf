//! Which resources have configs of their own, besides topics and brokers.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ListConfigResourcesRequest;

use super::super::cluster::Client;
use super::super::error::ClientError;
use super::configs::ConfigResource;
use super::error::{AdminError, AdminResult, Found, NeededAcl};

/// From this version on groups are listed too, not client metrics alone.
const FIRST_TYPED_VERSION: i16 = 1;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

impl Client {
    /// Client metrics subscriptions and groups with configs, in order. Groups are named as missing where the
    /// broker can't list them (before 4.1).
    pub async fn list_config_resources(&self) -> AdminResult<Found<ConfigResource>> {
        let what = "list of resources with configs";
        let mut backoff = self.backoff();
        let (answer, is_typed) = loop {
            let asked = async {
                let connection = self.any_connection().await?;
                let version = connection.version::<ListConfigResourcesRequest>(i16::MAX)?;
                let is_typed = version >= FIRST_TYPED_VERSION;
                let types = if is_typed { vec![CLIENT_METRICS, GROUP] } else { Vec::new() };
                let request = ListConfigResourcesRequest::default().with_resource_types(types);
                Ok((connection.call_version(request, version).await?, is_typed))
            };
            let error = match asked.await {
                Ok((answer, is_typed)) => match ResponseError::try_from_code(answer.error_code) {
                    None => break (answer, is_typed),
                    Some(code) if code.is_retriable() => ClientError::kafka(what, code),
                    Some(code) => {
                        let needs = NeededAcl::on_cluster("DescribeConfigs");
                        return Err(AdminError::from_code(what, code, needs));
                    }
                },
                Err(e) => e,
            };
            backoff.wait_or_fail(what, error).await.map_err(|e| AdminError::from_client(what, e))?;
        };
        let mut found = Found::default();
        for resource in answer.config_resources {
            let name = resource.resource_name.to_string();
            match resource.resource_type {
                CLIENT_METRICS => found.items.push(ConfigResource::ClientMetrics(name)),
                GROUP => found.items.push(ConfigResource::Group(name)),
                _ => {}
            }
        }
        found.items.sort();
        if !is_typed {
            let what = "configs of groups".to_owned();
            let detail = "it can't list which groups have any (Kafka 4.1 can)".to_owned();
            found.miss(what.clone(), AdminError::Unsupported { what, detail });
        }
        Ok(found)
    }
}
