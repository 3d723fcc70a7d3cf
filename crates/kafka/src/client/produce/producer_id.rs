//! Becoming a producer.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};

use super::super::admin::{AdminError, AdminResult, NeededAcl};
use super::super::cluster::Client;
use super::super::error::ClientError;

const TRANSACTION_TIMEOUT_MS: i32 = 60_000;
const WHAT: &str = "a producer id";

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
        let mut backoff = self.backoff();
        loop {
            let asked = async { self.any_connection().await?.call(request.clone()).await };
            let error = match asked.await {
                Ok(answer) => match ResponseError::try_from_code(answer.error_code) {
                    None => return Ok((answer.producer_id.0, answer.producer_epoch)),
                    Some(code) if code.is_retriable() => ClientError::kafka(WHAT, code),
                    Some(code) => {
                        return Err(AdminError::refused(
                            WHAT,
                            code,
                            NeededAcl::on_cluster("IdempotentWrite"),
                        ));
                    }
                },
                Err(e) => e,
            };
            backoff.wait_or_fail(WHAT, error).await?;
        }
    }
}
