//! Setting client quotas.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::AlterClientQuotasRequest;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::protocol::StrBytes;

use super::super::admin::{AdminError, AdminResult, NeededAcl, QuotaEntry};
use super::super::cluster::Client;
use super::super::error::ClientError;

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
        let mut backoff = self.backoff();
        loop {
            let asked = async { self.any_connection().await?.call(request.clone()).await };
            let error = match asked.await {
                Ok(answer) => {
                    let refused =
                        answer.entries.iter().find_map(|e| ResponseError::try_from_code(e.error_code));
                    match refused {
                        None => return Ok(()),
                        Some(code) if code.is_retriable() => ClientError::kafka(what, code),
                        Some(code) => {
                            return Err(AdminError::refused(
                                what,
                                code,
                                NeededAcl::on_cluster("AlterConfigs"),
                            ));
                        }
                    }
                }
                Err(e) => e,
            };
            backoff.wait_or_fail(what, error).await?;
        }
    }
}
