//! Asking many brokers about many things, each the broker that knows: leaders, coordinators, brokers themselves.
//!
//! What is asked is cut into requests of a bounded number of items, a bounded number of them under way. An
//! answer too large for `receive.message.max.bytes` is asked for in halves. What moved is located again, until
//! `default.api.timeout.ms` is over; the rest is named as missing.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kafka_protocol::ResponseError;

use super::super::cluster::Client;
use super::super::connection::Connection;
use super::super::error::{ClientError, Result};
use super::error::{AdminError, AdminResult, Found, NeededAcl};

/// Requests under way at a time, over all brokers.
const CONCURRENT_REQUESTS: usize = 8;
/// How long a topic may be unknown before it is said not to exist: brokers hear of new topics late.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(2);

/// Per item what a broker said of it.
pub(super) type Answers<C> = Vec<(<C as RoutedCall>::Item, Result<<C as RoutedCall>::Answer, ResponseError>)>;

/// Which broker knows an item; items without one carry the reason.
pub(super) struct Located<I> {
    pub(super) by_node: BTreeMap<i32, Vec<I>>,
    pub(super) nowhere: Vec<(I, ResponseError)>,
}

impl<I> Default for Located<I> {
    fn default() -> Self {
        Self { by_node: BTreeMap::new(), nowhere: Vec::new() }
    }
}

pub(super) trait RoutedCall: Sized + Sync {
    type Item: Clone + Display + Eq + Hash + Send + Sync;
    type Answer: Send;
    /// Items in one request.
    const BATCH: usize;
    const WHAT: &'static str;

    fn locate(
        &self,
        client: &Client,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Located<Self::Item>>> + Send;

    /// An item that the answer leaves out is asked for again.
    fn ask(
        &self,
        connection: &Connection,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Answers<Self>>> + Send;

    fn needs(&self, item: &Self::Item) -> NeededAcl;
}

/// Asks until every item has its answer or a lasting reason for none. An error concerns the call as a whole.
pub(super) async fn run<C: RoutedCall>(
    client: &Client,
    call: &C,
    items: Vec<C::Item>,
) -> AdminResult<Found<C::Answer>> {
    let begun = Instant::now();
    let mut backoff = client.backoff();
    let mut found = Found::default();
    let mut left = items;
    if left.is_empty() {
        return Ok(found);
    }
    loop {
        let mut reasons = HashMap::new();
        let outcomes = round(client, call, &left).await?;
        let mut again = Vec::new();
        for (item, outcome) in outcomes {
            match outcome {
                Ok(answer) => found.items.push(answer),
                Err(Reason::Code(code)) if !may_pass(code, begun.elapsed()) => {
                    let needs = call.needs(&item);
                    let what = item.to_string();
                    found.miss(what.clone(), AdminError::from_code(what, code, needs));
                }
                Err(Reason::TooLarge(error)) => found.miss(item.to_string(), error.into()),
                Err(reason) => {
                    reasons.insert(item.clone(), reason);
                    again.push(item);
                }
            }
        }
        if again.is_empty() {
            return Ok(found);
        }
        left = again;
        let last = reasons.values().next().map_or_else(
            || ClientError::NoLeader { what: C::WHAT.to_owned() },
            |r| ClientError::NoLeader { what: format!("{}: {}", C::WHAT, r.text()) },
        );
        if backoff.wait_or_fail(C::WHAT, last).await.is_err() {
            let waited_ms = begun.elapsed().as_millis() as u64;
            for item in left {
                let what = item.to_string();
                let last = match reasons.remove(&item) {
                    Some(Reason::Code(code)) => ClientError::kafka(what.clone(), code),
                    Some(Reason::Transport(text)) => {
                        ClientError::NoLeader { what: format!("{what}: {text}") }
                    }
                    _ => ClientError::NoLeader { what: what.clone() },
                };
                let error = ClientError::GaveUp { what: what.clone(), waited_ms, last: Box::new(last) };
                found.miss(what, error.into());
            }
            return Ok(found);
        }
    }
}

/// Why an item has no answer yet.
enum Reason {
    Code(ResponseError),
    Transport(String),
    TooLarge(ClientError),
}

impl Reason {
    fn text(&self) -> String {
        match self {
            Reason::Code(code) => code.to_string(),
            Reason::Transport(text) => text.clone(),
            Reason::TooLarge(error) => error.to_string(),
        }
    }
}

type Outcomes<C> = Vec<(<C as RoutedCall>::Item, Result<<C as RoutedCall>::Answer, Reason>)>;

async fn round<C: RoutedCall>(client: &Client, call: &C, items: &[C::Item]) -> AdminResult<Outcomes<C>> {
    let located = match call.locate(client, items).await {
        Ok(located) => located,
        Err(e) if e.is_retriable() => {
            let text = e.to_string();
            return Ok(items.iter().map(|i| (i.clone(), Err(Reason::Transport(text.clone())))).collect());
        }
        Err(e) => return Err(AdminError::from_client(C::WHAT, e)),
    };
    let mut outcomes: Outcomes<C> =
        located.nowhere.into_iter().map(|(item, code)| (item, Err(Reason::Code(code)))).collect();
    let mut parts: Vec<(i32, Vec<C::Item>)> = Vec::new();
    for (node, items) in located.by_node {
        parts.extend(items.chunks(C::BATCH.max(1)).map(|part| (node, part.to_vec())));
    }
    let asked = parts.into_iter().map(|(node, part)| ask_part(client, call, node, part));
    let mut asked = futures::stream::iter(asked).buffer_unordered(CONCURRENT_REQUESTS);
    while let Some(part) = asked.next().await {
        outcomes.extend(part?);
    }
    Ok(outcomes)
}

/// One part by one broker, in halves where the whole is too large.
async fn ask_part<C: RoutedCall>(
    client: &Client,
    call: &C,
    node: i32,
    part: Vec<C::Item>,
) -> AdminResult<Outcomes<C>> {
    let mut outcomes: Outcomes<C> = Vec::with_capacity(part.len());
    let mut parts = vec![part];
    // A connection ends with a frame that is too large, and all calls on it with that error: whose answer it
    // was shows on a connection of our own.
    let mut alone = false;
    while let Some(mut part) = parts.pop() {
        let answered = async {
            let connection =
                if alone { client.own_connection(node).await? } else { client.connection(node).await? };
            call.ask(&connection, &part).await
        };
        match answered.await {
            Ok(answers) => {
                let mut answers: HashMap<C::Item, Result<C::Answer, ResponseError>> =
                    answers.into_iter().collect();
                for item in part {
                    let outcome = match answers.remove(&item) {
                        Some(answer) => answer.map_err(Reason::Code),
                        None => Err(Reason::Transport("left out of the answer".to_owned())),
                    };
                    outcomes.push((item, outcome));
                }
            }
            Err(ClientError::FrameTooLarge { .. }) if !alone => {
                alone = true;
                parts.push(part);
            }
            Err(ClientError::FrameTooLarge { .. }) if part.len() > 1 => {
                let half = part.split_off(part.len() / 2);
                parts.extend([half, part]);
            }
            Err(e @ ClientError::FrameTooLarge { .. }) => {
                outcomes.extend(part.pop().map(|item| (item, Err(Reason::TooLarge(e)))));
            }
            Err(e) if e.is_retriable() => {
                let text = e.to_string();
                outcomes.extend(part.into_iter().map(|item| (item, Err(Reason::Transport(text.clone())))));
            }
            Err(e) => return Err(AdminError::from_client(C::WHAT, e)),
        }
    }
    Ok(outcomes)
}

fn may_pass(code: ResponseError, waited: Duration) -> bool {
    match code {
        ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId => waited < UNKNOWN_PATIENCE,
        // The caller's epoch stays old.
        ResponseError::FencedLeaderEpoch => false,
        code => code.is_retriable(),
    }
}
