//! Becoming a producer.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::super::admin::{AdminResult, NeededAcl};
use super::super::asking::Refused;
use super::super::cluster::Client;

const TRANSACTION_TIMEOUT_MS: i32 = 60_000;

impl Client {
    /// An id that nobody has, and its epoch: for idempotent writing without transactions.
    ///
    /// # Errors
    /// Of the cluster.
    pub async fn new_producer_id(&self) -> AdminResult<(i64, i16)> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(TRANSACTION_TIMEOUT_MS)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let refused = |answer: &InitProducerIdResponse| {
            Refused::by(answer.error_code, NeededAcl::on_cluster("IdempotentWrite"))
        };
        let answer = self.ask_any_broker("a producer id", &request, refused).await?;
        Ok((answer.producer_id.0, answer.producer_epoch))
    }
}
