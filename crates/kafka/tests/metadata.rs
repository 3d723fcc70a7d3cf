//! What a broker says of its cluster, and of which moment it is.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod broker;

use broker::broker;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use varve_kafka::client::{Client, ClientConfig};

const US: i32 = 990_000;

fn on_us(name: &'static str) -> MetadataResponseTopic {
    let partition = MetadataResponsePartition::default().with_replica_nodes(vec![BrokerId(US)]);
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_static_str(name))))
        .with_partitions(vec![partition])
}

fn alive() -> MetadataResponse {
    let us = MetadataResponseBroker::default().with_node_id(BrokerId(US)).with_port(1);
    MetadataResponse::default().with_brokers(vec![us])
}

/// Of brokers, a broker answers by what it knows when the answer leaves; of topics, by what it knew a little before.
#[tokio::test]
async fn topics_are_those_of_a_moment_after_the_broker_was_gone() {
    let address = broker(|answers| match answers {
        0 => alive(),
        // Fenced by now, and the topic that was placed on us just before is not told yet.
        1 => MetadataResponse::default(),
        _ => MetadataResponse::default().with_topics(vec![on_us("placed-late")]),
    })
    .await;
    let client = Client::new(ClientConfig::from_pairs([("bootstrap.servers", address.as_str())]).unwrap());
    let client = client.unwrap();
    assert!(client.metadata_without(US).await.unwrap().is_none(), "we are alive");
    let metadata = client.metadata_without(US).await.unwrap().unwrap();
    let names: Vec<_> = metadata.topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["placed-late"]);
}
