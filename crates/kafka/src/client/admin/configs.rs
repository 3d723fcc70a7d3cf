//! Configurations of topics, brokers and the whole cluster, each value with where it comes from.

use std::collections::BTreeMap;
use std::fmt;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::DescribeConfigsRequest;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::protocol::StrBytes;
use serde::{Deserialize, Serialize};

use super::super::cluster::Client;
use super::super::connection::Connection;
use super::super::error::Result;
use super::error::{AdminResult, Found, NeededAcl};
use super::routed::{Answers, Located, RoutedCall, run};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "type", content = "name", rename_all = "snake_case")]
pub enum ConfigResource {
    /// The dynamic defaults of all brokers.
    ClusterDefault,
    Broker(i32),
    Topic(String),
    ClientMetrics(String),
    Group(String),
}

impl ConfigResource {
    pub(in crate::client) fn code(&self) -> i8 {
        match self {
            ConfigResource::Topic(_) => 2,
            ConfigResource::ClusterDefault | ConfigResource::Broker(_) => 4,
            ConfigResource::ClientMetrics(_) => 16,
            ConfigResource::Group(_) => 32,
        }
    }

    /// As requests have it.
    pub(in crate::client) fn name(&self) -> String {
        match self {
            ConfigResource::ClusterDefault => String::new(),
            ConfigResource::Broker(id) => id.to_string(),
            ConfigResource::Topic(name)
            | ConfigResource::ClientMetrics(name)
            | ConfigResource::Group(name) => name.clone(),
        }
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigResource::ClusterDefault => f.write_str("configs of the cluster's default"),
            ConfigResource::Broker(id) => write!(f, "configs of broker {id}"),
            ConfigResource::Topic(name) => write!(f, "configs of topic {name}"),
            ConfigResource::ClientMetrics(name) => write!(f, "configs of client metrics {name}"),
            ConfigResource::Group(name) => write!(f, "configs of group {name}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceConfigs {
    pub resource: ConfigResource,
    pub entries: Vec<ConfigEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigEntry {
    pub name: String,
    /// Sensitive values are not told by brokers.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub is_sensitive: bool,
    pub is_read_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConfigSource {
    DynamicTopicConfig,
    DynamicBrokerConfig,
    DynamicDefaultBrokerConfig,
    StaticBrokerConfig,
    DefaultConfig,
    DynamicBrokerLoggerConfig,
    DynamicClientMetricsConfig,
    DynamicGroupConfig,
    #[serde(untagged)]
    Unknown(i8),
}

impl ConfigSource {
    fn from_code(code: i8) -> Self {
        match code {
            1 => Self::DynamicTopicConfig,
            2 => Self::DynamicBrokerConfig,
            3 => Self::DynamicDefaultBrokerConfig,
            4 => Self::StaticBrokerConfig,
            5 => Self::DefaultConfig,
            6 => Self::DynamicBrokerLoggerConfig,
            7 => Self::DynamicClientMetricsConfig,
            8 => Self::DynamicGroupConfig,
            other => Self::Unknown(other),
        }
    }
}

impl Client {
    /// All that is not Kafka's own default, by resource and name. A topic's entries hold what it inherits from
    /// its broker too; their source tells it from what was set on the topic.
    pub async fn describe_configs(
        &self,
        resources: &[ConfigResource],
    ) -> AdminResult<Found<ResourceConfigs>> {
        let mut found = run(self, &DescribeConfigs, resources.to_vec()).await?;
        found.items.sort_by(|a, b| a.resource.cmp(&b.resource));
        Ok(found)
    }
}

struct DescribeConfigs;

impl RoutedCall for DescribeConfigs {
    type Item = ConfigResource;
    type Answer = ResourceConfigs;
    /// Of some 40 values each.
    const BATCH: usize = 100;
    const WHAT: &'static str = "configs";

    /// A broker's own are known to that broker alone; any knows the rest.
    async fn locate(&self, client: &Client, items: &[ConfigResource]) -> Result<Located<ConfigResource>> {
        client.metadata(Some(&[])).await?;
        let nodes = client.known_nodes();
        let mut by_node: BTreeMap<i32, Vec<ConfigResource>> = BTreeMap::new();
        let mut nowhere = Vec::new();
        let mut any = nodes.iter().copied().cycle();
        for part in items.chunks(Self::BATCH) {
            let anyone = any.next();
            for item in part {
                let node = match item {
                    ConfigResource::Broker(id) => Some(*id).filter(|id| nodes.contains(id)),
                    _ => anyone,
                };
                match node {
                    Some(node) => by_node.entry(node).or_default().push(item.clone()),
                    None => nowhere.push((item.clone(), ResponseError::BrokerNotAvailable)),
                }
            }
        }
        Ok(Located { by_node, nowhere })
    }

    async fn ask(&self, connection: &Connection, items: &[ConfigResource]) -> Result<Answers<Self>> {
        let resources = items.iter().map(|item| {
            DescribeConfigsResource::default()
                .with_resource_type(item.code())
                .with_resource_name(StrBytes::from_string(item.name()))
                .with_configuration_keys(None)
        });
        let request = DescribeConfigsRequest::default().with_resources(resources.collect());
        let answer = connection.call(request).await?;
        let mut answers = Vec::with_capacity(items.len());
        for result in answer.results {
            let name = result.resource_name.as_str();
            let item = items.iter().find(|i| i.code() == result.resource_type && i.name() == name);
            let Some(item) = item else { continue };
            let outcome = match ResponseError::try_from_code(result.error_code) {
                Some(code) => Err(code),
                None => Ok(ResourceConfigs { resource: item.clone(), entries: entries(result.configs) }),
            };
            answers.push((item.clone(), outcome));
        }
        Ok(answers)
    }

    fn needs(&self, item: &ConfigResource) -> NeededAcl {
        match item {
            ConfigResource::Topic(name) => NeededAcl::on_topic("DescribeConfigs", name),
            ConfigResource::Group(name) => NeededAcl::on_group("DescribeConfigs", name),
            _ => NeededAcl::on_cluster("DescribeConfigs"),
        }
    }
}

fn entries(results: Vec<DescribeConfigsResourceResult>) -> Vec<ConfigEntry> {
    let all = results.into_iter().map(|r| ConfigEntry {
        name: r.name.to_string(),
        value: r.value.map(|v| v.to_string()),
        source: ConfigSource::from_code(r.config_source),
        is_sensitive: r.is_sensitive,
        is_read_only: r.read_only,
    });
    let mut entries: Vec<ConfigEntry> = all.filter(|e| e.source != ConfigSource::DefaultConfig).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}
