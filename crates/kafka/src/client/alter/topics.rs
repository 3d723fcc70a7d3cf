//! Deleting topics.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{DeleteTopicsRequest, FindCoordinatorRequest};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;
use varve_format::Id;

use super::super::admin::{AdminError, AdminResult, NeededAcl};
use super::super::cluster::Client;
use super::super::error::ClientError;

const TIMEOUT_MS: i32 = 60_000;
/// Kinds of coordinators, whose topics a cluster makes when it is first asked for one.
const GROUPS: i8 = 0;
const TRANSACTIONS: i8 = 1;

impl Client {
    /// One topic, by its id: another that has got its name meanwhile stays. Whether it was there.
    pub async fn delete_topic(&self, topic_id: Id) -> AdminResult<bool> {
        let what = format!("deleting topic {topic_id}");
        let state = DeleteTopicState::default().with_name(None).with_topic_id(Uuid::from_bytes(topic_id.0));
        let request = DeleteTopicsRequest::default().with_topics(vec![state]).with_timeout_ms(TIMEOUT_MS);
        let mut backoff = self.backoff();
        loop {
            let asked = async { self.any_connection().await?.call(request.clone()).await };
            let error = match asked.await {
                Ok(answer) => {
                    let code = answer.responses.first().map_or(0, |one| one.error_code);
                    match ResponseError::try_from_code(code) {
                        None => return Ok(true),
                        Some(ResponseError::UnknownTopicId | ResponseError::UnknownTopicOrPartition) => {
                            return Ok(false);
                        }
                        Some(code) if code.is_retriable() => ClientError::kafka(&what, code),
                        Some(code) => {
                            let needs = NeededAcl::on_topic("Delete", &topic_id.to_string());
                            return Err(AdminError::refused(what, code, needs));
                        }
                    }
                }
                Err(e) => e,
            };
            backoff.wait_or_fail(&what, error).await?;
        }
    }

    /// Makes sure that the topics of group offsets and of transactions are there, with a leader for these keys.
    pub async fn make_internal_topics(&self) -> AdminResult<()> {
        for kind in [GROUPS, TRANSACTIONS] {
            let what = if kind == GROUPS { "__consumer_offsets" } else { "__transaction_state" };
            let request = FindCoordinatorRequest::default()
                .with_key_type(kind)
                .with_coordinator_keys(vec![StrBytes::from_static_str("varve-restore")]);
            let mut backoff = self.backoff();
            loop {
                let asked = async { self.any_connection().await?.call(request.clone()).await };
                let error = match asked.await {
                    Ok(answer) => {
                        let codes = answer.coordinators.iter().map(|c| c.error_code);
                        match codes.chain([answer.error_code]).find_map(ResponseError::try_from_code) {
                            None => break,
                            Some(code) if code.is_retriable() => ClientError::kafka(what, code),
                            Some(code) => {
                                let needs = NeededAcl::on_group("Describe", "varve-restore");
                                return Err(AdminError::refused(what, code, needs));
                            }
                        }
                    }
                    Err(e) => e,
                };
                backoff.wait_or_fail(what, error).await?;
            }
        }
        Ok(())
    }
}
