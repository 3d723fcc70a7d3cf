//! Deleting topics.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    DeleteTopicsRequest, DeleteTopicsResponse, FindCoordinatorRequest, FindCoordinatorResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;
use varve_format::Id;

use super::super::admin::{AdminResult, NeededAcl};
use super::super::asking::Refused;
use super::super::cluster::Client;

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
        let code = |answer: &DeleteTopicsResponse| answer.responses.first().map_or(0, |one| one.error_code);
        let is_gone = |code| {
            let code = ResponseError::try_from_code(code);
            matches!(code, Some(ResponseError::UnknownTopicId | ResponseError::UnknownTopicOrPartition))
        };
        let refused = |answer: &DeleteTopicsResponse| {
            let needs = NeededAcl::on_topic("Delete", &topic_id.to_string());
            Refused::by(code(answer), needs).filter(|_| !is_gone(code(answer)))
        };
        let answer = self.ask_any_broker(&what, &request, refused).await?;
        Ok(!is_gone(code(&answer)))
    }

    /// Makes sure that the topics of group offsets and of transactions are there, with a leader for these keys.
    pub async fn make_internal_topics(&self) -> AdminResult<()> {
        for kind in [GROUPS, TRANSACTIONS] {
            let what = if kind == GROUPS { "__consumer_offsets" } else { "__transaction_state" };
            let request = FindCoordinatorRequest::default()
                .with_key_type(kind)
                .with_coordinator_keys(vec![StrBytes::from_static_str("varve-restore")]);
            let refused = |answer: &FindCoordinatorResponse| {
                let codes = answer.coordinators.iter().map(|c| c.error_code).chain([answer.error_code]);
                let needs = || NeededAcl::on_group("Describe", "varve-restore");
                Refused::worst(codes.map(|code| Refused::by(code, needs())))
            };
            self.ask_any_broker(what, &request, refused).await?;
        }
        Ok(())
    }
}
