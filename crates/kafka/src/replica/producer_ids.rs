//! Producer ids that the archive's producers had are not given out again: a new producer that got one would meet the
//! old one's state in the restored logs, and its records would be refused, or taken for duplicates.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{AllocateProducerIdsRequest, BrokerId, InitProducerIdRequest, ProducerId};

use super::heartbeat::Registration;
use crate::client::{Client, ClientError, Result};

/// Ids that a broker takes at a time, and may still give out.
const BLOCK: u32 = 1000;
const TRANSACTION_TIMEOUT_MS: i32 = 60_000;

/// Blocks that are used up at most: a controller takes some milliseconds for each.
const BLOCKS_MAX: i64 = 200_000;

/// Goes on until every broker gives out ids above `last`.
pub(super) async fn pass(registration: &Registration, client: &Client, last: i64) -> Result<()> {
    loop {
        let request = AllocateProducerIdsRequest::default()
            .with_broker_id(BrokerId(registration.broker_id))
            .with_broker_epoch(registration.broker_epoch());
        let controller = registration.controller();
        let answer = controller.call("producer ids", request, |answer| answer.error_code).await?;
        let left = last.saturating_sub(answer.producer_id_start.0);
        if left < 0 {
            break;
        }
        if left / i64::from(BLOCK) > BLOCKS_MAX {
            let what = format!("producer ids up to {last}, of which the cluster is at {}", last - left);
            return Err(ClientError::Log { what, detail: "too many to use up".to_owned() });
        }
    }
    for node in client.metadata(Some(&[])).await?.brokers {
        if node.node_id == registration.broker_id {
            continue;
        }
        match use_up(client, node.node_id, last).await {
            // Gone meanwhile: when it comes again, it takes a new block.
            Err(error) if is_gone(client, node.node_id).await? => {
                tracing::warn!(broker = node.node_id, %error, "left the cluster: its producer ids are gone with it");
            }
            outcome => outcome?,
        }
    }
    Ok(())
}

async fn is_gone(client: &Client, node_id: i32) -> Result<bool> {
    Ok(client.metadata(Some(&[])).await?.brokers.iter().all(|broker| broker.node_id != node_id))
}

/// What the broker has left of its blocks: that it takes, and one that it may have fetched ahead.
async fn use_up(client: &Client, node_id: i32, last: i64) -> Result<()> {
    let mut backoff = client.backoff();
    let (mut given, what) = (0, format!("a producer id of broker {node_id}"));
    while given <= 2 * BLOCK {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(TRANSACTION_TIMEOUT_MS)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let asked = async { client.connection(node_id).await?.call(request).await };
        let error = match asked.await {
            Ok(answer) => match ResponseError::try_from_code(answer.error_code) {
                None if answer.producer_id.0 > last => return Ok(()),
                None => {
                    given += 1;
                    continue;
                }
                Some(code) => ClientError::kafka(&what, code),
            },
            Err(error) => error,
        };
        backoff.wait_or_fail(&what, error).await?;
    }
    Err(ClientError::NoLeader { what: format!("{what} above {last}, after {given} others") })
}
