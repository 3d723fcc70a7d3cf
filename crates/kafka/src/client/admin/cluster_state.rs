//! The cluster itself: brokers, finalized features, and what we may do with it.

use std::collections::BTreeMap;

use kafka_protocol::messages::DescribeClusterRequest;
use serde::{Deserialize, Serialize};

use super::super::asking::Refused;
use super::super::cluster::Client;
use super::super::connection::api_versions_request;
use super::acls::operation_code;
use super::error::{AdminResult, NeededAcl};

/// Bit of the ACL operation in a set of allowed ones.
const DESCRIBE_BIT: u32 = 8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDescription {
    pub cluster_id: String,
    pub brokers: Vec<BrokerDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BrokerDescription {
    pub node_id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// Of the cluster. Empty and without an epoch if the broker has not heard of them yet.
    pub finalized: BTreeMap<String, FeatureRange>,
    pub finalized_epoch: Option<i64>,
    /// By the broker that was asked.
    pub supported: BTreeMap<String, FeatureRange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureRange {
    pub min: i16,
    pub max: i16,
}

/// Those that have no bit among the allowed ones.
pub(crate) fn lacking(allowed: i32, operations: &[&str]) -> Vec<String> {
    let lacks = |name: &&&str| {
        operation_code(name).is_none_or(|code| allowed & 1_i32.wrapping_shl(code.unsigned_abs().into()) == 0)
    };
    operations.iter().filter(lacks).map(|name| (*name).to_owned()).collect()
}

impl Client {
    pub async fn describe_cluster(&self) -> AdminResult<ClusterDescription> {
        let request = DescribeClusterRequest::default();
        let needs = NeededAcl::on_cluster("Describe");
        let answer = self
            .ask_any_broker("the cluster", &request, |a| Refused::by(a.error_code, needs.clone()))
            .await?;
        let brokers = answer.brokers.into_iter().map(|b| BrokerDescription {
            node_id: b.broker_id.0,
            host: b.host.to_string(),
            port: b.port,
            rack: b.rack.map(|r| r.to_string()),
        });
        let mut brokers: Vec<BrokerDescription> = brokers.collect();
        brokers.sort();
        Ok(ClusterDescription { cluster_id: answer.cluster_id.to_string(), brokers })
    }

    /// Whether we have the ACL Describe on the cluster: without it, lists of groups leave out what we may not
    /// describe one by one.
    pub async fn may_describe_cluster(&self) -> AdminResult<bool> {
        Ok(self.allowed_on_cluster().await? & (1 << DESCRIBE_BIT) != 0)
    }

    /// Which of these operations on the cluster we lack, in Kafka's words: CREATE, ALTER, CLUSTER_ACTION …
    pub async fn lacking_on_cluster(&self, operations: &[&str]) -> AdminResult<Vec<String>> {
        Ok(lacking(self.allowed_on_cluster().await?, operations))
    }

    /// A bit for each operation that we are allowed.
    async fn allowed_on_cluster(&self) -> AdminResult<i32> {
        let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let needs = NeededAcl::on_cluster("Describe");
        let answer = self
            .ask_any_broker("the cluster", &request, |a| Refused::by(a.error_code, needs.clone()))
            .await?;
        Ok(answer.cluster_authorized_operations)
    }

    pub async fn features(&self) -> AdminResult<Features> {
        let request = api_versions_request();
        let needs = NeededAcl::on_cluster("Describe");
        let answer =
            self.ask_any_broker("features", &request, |a| Refused::by(a.error_code, needs.clone())).await?;
        let finalized = answer.finalized_features.into_iter().map(|f| {
            (f.name.to_string(), FeatureRange { min: f.min_version_level, max: f.max_version_level })
        });
        let supported = answer
            .supported_features
            .into_iter()
            .map(|f| (f.name.to_string(), FeatureRange { min: f.min_version, max: f.max_version }));
        Ok(Features {
            finalized: finalized.collect(),
            finalized_epoch: Some(answer.finalized_features_epoch).filter(|e| *e >= 0),
            supported: supported.collect(),
        })
    }
}
