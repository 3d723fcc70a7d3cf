//! Client quotas.

use std::collections::BTreeMap;

use kafka_protocol::messages::DescribeClientQuotasRequest;
use serde::{Deserialize, Serialize};

use super::super::asking::Refused;
use super::super::cluster::Client;
use super::error::{AdminResult, NeededAcl};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuotaEntry {
    pub entity: Vec<QuotaEntity>,
    pub values: BTreeMap<String, f64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QuotaEntity {
    /// `user`, `client-id` or `ip`.
    pub entity_type: String,
    /// `None` is the default of its type.
    pub name: Option<String>,
}

impl Client {
    /// Those of users, client ids and addresses, and of their combinations, by entity.
    pub async fn list_client_quotas(&self) -> AdminResult<Vec<QuotaEntry>> {
        let request = DescribeClientQuotasRequest::default();
        let needs = NeededAcl::on_cluster("DescribeConfigs");
        let answer = self
            .ask_any_broker("client quotas", &request, |a| Refused::by(a.error_code, needs.clone()))
            .await?;
        let entries = answer.entries.unwrap_or_default().into_iter().map(|entry| {
            let entity = entry.entity.into_iter().map(|e| QuotaEntity {
                entity_type: e.entity_type.to_string(),
                name: e.entity_name.map(|n| n.to_string()),
            });
            let mut entity: Vec<QuotaEntity> = entity.collect();
            entity.sort();
            let values = entry.values.into_iter().map(|v| (v.key.to_string(), v.value)).collect();
            QuotaEntry { entity, values }
        });
        let mut entries: Vec<QuotaEntry> = entries.collect();
        entries.sort_by(|a, b| a.entity.cmp(&b.entity));
        Ok(entries)
    }
}
