//! Setting client quotas.

use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};
use kafka_protocol::protocol::StrBytes;

use super::super::admin::{AdminResult, NeededAcl, QuotaEntry};
use super::super::asking::Refused;
use super::super::cluster::Client;

impl Client {
    /// Sets these values; others of the same entities stay.
    pub async fn set_client_quotas(&self, entries: &[QuotaEntry]) -> AdminResult<()> {
        let what = "setting client quotas";
        let entry = |entry: &QuotaEntry| {
            let entity = entry.entity.iter().map(|e| {
                EntityData::default()
                    .with_entity_type(StrBytes::from_string(e.entity_type.clone()))
                    .with_entity_name(e.name.clone().map(StrBytes::from_string))
            });
            let ops = entry.values.iter().map(|(key, value)| {
                OpData::default().with_key(StrBytes::from_string(key.clone())).with_value(*value)
            });
            EntryData::default().with_entity(entity.collect()).with_ops(ops.collect())
        };
        let request = AlterClientQuotasRequest::default().with_entries(entries.iter().map(entry).collect());
        let refused = |answer: &AlterClientQuotasResponse| {
            let needs = || NeededAcl::on_cluster("AlterConfigs");
            Refused::worst(answer.entries.iter().map(|e| Refused::by(e.error_code, needs())))
        };
        self.ask_any_broker(what, &request, refused).await.map(drop)
    }
}
