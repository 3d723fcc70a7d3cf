//! Making topics, whose replicas the cluster places.

use std::collections::BTreeMap;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use varve_format::Id;

use super::super::admin::{AdminResult, NeededAcl};
use super::super::asking::Refused;
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
        let refused = |answer: &CreateTopicsResponse| {
            let made = answer.topics.first()?;
            let why = made.error_message.as_ref().map_or("", |m| m.as_str());
            Refused::of(made.error_code, why, NeededAcl::on_topic("Create", &topic.name))
        };
        let answer = self.ask_any_broker(&what, &request, refused).await?;
        let made = answer.topics.first();
        let made = made.ok_or_else(|| ClientError::NoSuchTopic { topic: topic.name.clone() })?;
        Ok(Id(*made.topic_id.as_bytes()))
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
