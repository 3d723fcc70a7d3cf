//! Topics that are there and that we may not describe.
//!
//! A list of topics leaves them out and says nothing of it. Brokers tell what is in their log directories to
//! whom may describe the cluster, whatever the topic: what is there and not in the list is hidden from us.

use std::collections::BTreeSet;

use futures::StreamExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::DescribeLogDirsRequest;

use super::super::cluster::Client;
use super::super::error::ClientError;
use super::error::{AdminError, AdminResult, Found, NeededAcl};

const BROKERS_AT_ONCE: usize = 8;
/// Topics in one metadata request.
const TOPICS_AT_ONCE: usize = 500;
/// Not a topic that clients see.
const METADATA_LOG: &str = "__cluster_metadata";
/// Log directories came to be refused by a code of their own with this version; before, by an empty answer.
const FIRST_CANDID_VERSION: i16 = 3;

impl Client {
    /// Names of topics beyond `visible` that brokers hold and that we lack Describe on, by name. Those whose
    /// replicas all are on brokers that are down stay unknown.
    pub async fn hidden_topics(&self, visible: &BTreeSet<&str>) -> AdminResult<Found<String>> {
        let what = "topics that may not be described";
        self.metadata(Some(&[])).await.map_err(|e| AdminError::from_client(what, e))?;
        let asked = self
            .known_nodes()
            .into_iter()
            .map(|node| async move { (node, self.topics_on_disk_of(node, what).await) });
        let mut asked = futures::stream::iter(asked).buffer_unordered(BROKERS_AT_ONCE);
        let mut found = Found::default();
        let mut unseen: BTreeSet<String> = BTreeSet::new();
        while let Some((node, topics)) = asked.next().await {
            match topics {
                Ok(topics) => {
                    unseen.extend(topics.into_iter().filter(|topic| !visible.contains(topic.as_str())));
                }
                Err(e @ (AdminError::NotAuthorized { .. } | AdminError::Unsupported { .. })) => {
                    return Err(e);
                }
                Err(error) => found.miss(format!("{what} of broker {node}"), error),
            }
        }
        unseen.remove(METADATA_LOG);
        found.items = self.denied_of(unseen.into_iter().collect()).await?;
        Ok(found)
    }

    async fn topics_on_disk_of(&self, node: i32, what: &str) -> AdminResult<BTreeSet<String>> {
        let mut backoff = self.backoff();
        loop {
            let asked = async {
                let connection = self.connection(node).await?;
                if connection.version::<DescribeLogDirsRequest>(i16::MAX)? < FIRST_CANDID_VERSION {
                    return Err(connection.too_old::<DescribeLogDirsRequest>(FIRST_CANDID_VERSION));
                }
                connection.call(DescribeLogDirsRequest::default().with_topics(None)).await
            };
            let error = match asked.await {
                Ok(answer) => match ResponseError::try_from_code(answer.error_code) {
                    None => {
                        let topics = answer.results.into_iter().flat_map(|dir| dir.topics);
                        return Ok(topics.map(|t| t.name.0.to_string()).collect());
                    }
                    Some(code) if code.is_retriable() => ClientError::kafka(what, code),
                    Some(code) => {
                        return Err(AdminError::from_code(what, code, NeededAcl::on_cluster("Describe")));
                    }
                },
                Err(e) => e,
            };
            backoff.wait_or_fail(what, error).await.map_err(|e| AdminError::from_client(what, e))?;
        }
    }

    /// A topic that was created or deleted a moment ago is not hidden: asked for by name, it is there or not.
    async fn denied_of(&self, names: Vec<String>) -> AdminResult<Vec<String>> {
        let mut denied = Vec::new();
        for part in names.chunks(TOPICS_AT_ONCE) {
            let part: Vec<&str> = part.iter().map(String::as_str).collect();
            let answer = self.metadata(Some(&part)).await;
            let topics = answer.map_err(|e| AdminError::from_client("topics", e))?.topics;
            let refused =
                topics.into_iter().filter(|t| t.error == Some(ResponseError::TopicAuthorizationFailed));
            denied.extend(refused.map(|t| t.name));
        }
        denied.sort();
        Ok(denied)
    }
}
