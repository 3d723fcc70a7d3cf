//! One question, asked again while the reason of a refusal may pass.

use kafka_protocol::ResponseError;

use super::admin::{AdminError, AdminResult, NeededAcl};
use super::cluster::Client;
use super::error::{ClientError, Result};

/// What a broker answered to it instead of doing it.
pub(super) struct Refused {
    code: ResponseError,
    /// More about it, or nothing.
    why: String,
    needs: NeededAcl,
}

impl Refused {
    /// `None` of code 0.
    pub(super) fn by(code: i16, needs: NeededAcl) -> Option<Self> {
        Self::of(code, "", needs)
    }

    /// With what the broker says to it, or what it is about.
    pub(super) fn of(code: i16, why: &str, needs: NeededAcl) -> Option<Self> {
        let code = ResponseError::try_from_code(code)?;
        Some(Self { code, why: why.to_owned(), needs })
    }

    /// Of several the first that is for good, else the first.
    pub(super) fn worst(several: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        let several = several.into_iter().flatten();
        several.reduce(
            |worst, next| if worst.code.is_retriable() && !next.code.is_retriable() { next } else { worst },
        )
    }
}

impl Client {
    /// The answer that refuses nothing.
    ///
    /// # Errors
    /// What is refused for good; what may pass, and has not within `default.api.timeout.ms`.
    pub(super) async fn ask_until_done<A>(
        &self,
        what: &str,
        ask: impl AsyncFn() -> AdminResult<A>,
        refused: impl Fn(&A) -> Option<Refused>,
    ) -> AdminResult<A> {
        let mut backoff = self.backoff();
        loop {
            let error = match ask().await {
                Ok(answer) => {
                    let Some(Refused { code, why, needs }) = refused(&answer) else { return Ok(answer) };
                    let what = if why.is_empty() { what.to_owned() } else { format!("{what} ({why})") };
                    if !code.is_retriable() {
                        return Err(AdminError::from_code(what, code, needs));
                    }
                    ClientError::kafka(what, code)
                }
                Err(AdminError::Client(error)) => error,
                Err(lasting) => return Err(lasting),
            };
            backoff.wait_or_fail(what, error).await.map_err(|e| AdminError::from_client(what, e))?;
        }
    }

    /// The same of what any broker can answer.
    pub(super) async fn ask_any_broker<R>(
        &self,
        what: &str,
        request: &R,
        refused: impl Fn(&R::Response) -> Option<Refused>,
    ) -> AdminResult<R::Response>
    where
        R: kafka_protocol::protocol::Request + Clone,
    {
        let ask = async || Ok(self.any_connection().await?.call(request.clone()).await?);
        self.ask_until_done(what, ask, refused).await
    }

    /// Who leads a partition now.
    pub(super) async fn leader_of(&self, topic: &str, partition: i32) -> Result<i32> {
        let found = self.topic(topic).await?;
        let known = found.partitions.iter().find(|p| p.partition == partition);
        let leader = known.and_then(|p| p.leader_id);
        leader.ok_or_else(|| ClientError::NoLeader { what: format!("{topic}-{partition}") })
    }
}
