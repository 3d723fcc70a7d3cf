//! Making topics, whose replicas the cluster places.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use varve_format::Id;

use super::super::admin::{AdminError, AdminResult, NeededAcl};
use super::super::cluster::Client;
use super::super::error::ClientError;

const TIMEOUT_MS: i32 = 60_000;

/// One that is not there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    pub partitions: i32,
    pub replication_factor: i16,
    pub configs: BTreeMap<String, String>,
}

impl Client {
    /// Its id.
    pub async fn create_topic(&self, topic: &NewTopic) -> AdminResult<Id> {
        self.create(topic, false).await
    }

    /// Whether it would be made; nothing is.
    pub async fn try_topic(&self, topic: &NewTopic) -> AdminResult<()> {
        self.create(topic, true).await.map(drop)
    }

    async fn create(&self, topic: &NewTopic, only_try: bool) -> AdminResult<Id> {
        let what = format!("creating topic {:?}", topic.name);
        let new = creatable(&topic.name, &topic.configs)
            .with_num_partitions(topic.partitions)
            .with_replication_factor(topic.replication_factor);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![new])
            .with_timeout_ms(TIMEOUT_MS)
            .with_validate_only(only_try);
        let mut backoff = self.backoff();
        loop {
            let asked = async { self.any_connection().await?.call(request.clone()).await };
            let error = match asked.await {
                Ok(answer) => {
                    let Some(made) = answer.topics.first() else {
                        return Err(ClientError::NoSuchTopic { topic: topic.name.clone() }.into());
                    };
                    match ResponseError::try_from_code(made.error_code) {
                        None => return Ok(Id(*made.topic_id.as_bytes())),
                        Some(code) if code.is_retriable() => ClientError::kafka(&what, code),
                        Some(code) => {
                            let why = made.error_message.as_ref().map_or("", |m| m.as_str());
                            let needs = NeededAcl::on_topic("Create", &topic.name);
                            return Err(AdminError::refused(format!("{what} ({why})"), code, needs));
                        }
                    }
                }
                Err(e) => e,
            };
            backoff.wait_or_fail(&what, error).await?;
        }
    }
}

/// As requests have it; its partitions and replicas are still to be said.
pub(crate) fn creatable(name: &str, configs: &BTreeMap<String, String>) -> CreatableTopic {
    let config = |(name, value): (&String, &String)| {
        let name = StrBytes::from_string(name.clone());
        let value = Some(StrBytes::from_string(value.clone()));
        CreatableTopicConfig::default().with_name(name).with_value(value)
    };
    CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_string(name.to_owned())))
        .with_configs(configs.iter().map(config).collect())
}
