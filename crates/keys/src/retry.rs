//! The one place where requests are sent again.
//!
//! * Only what may pass by itself: throttling, 5xx, timeouts, broken connections, bytes that changed on their way.
//!   Wrapping and unwrapping leave nothing behind in a service, so both are safe to repeat.
//! * At most `kms.max.attempts` attempts, each with its own timeout.
//! * Between them a random time from zero to a bound that doubles (full jitter): from 100 ms up to 5 s, when
//!   throttled from 400 ms up to 20 s.

use std::error::Error as StdError;
use std::future::Future;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::key_url::KeyUrl;

/// How a failure passes, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passing {
    Never,
    /// The service asks for fewer requests.
    Throttled,
    /// The service or the way to it broke down for a moment.
    Transient,
}

/// Of one attempt. The detail holds no secret.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) passing: Passing,
    pub(crate) detail: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, passing: Passing, detail: impl Into<String>) -> Self {
        Self { kind, passing, detail: detail.into() }
    }

    /// Of credentials that can't be had: by a service that is away (then what is known may still be used), or at all.
    pub(crate) fn of_credentials(passing: Passing, detail: impl Into<String>) -> Self {
        let kind = if passing == Passing::Never { Kind::Denied } else { Kind::Unavailable };
        Self::new(kind, passing, detail)
    }

    pub(crate) fn last(kind: Kind, detail: impl Into<String>) -> Self {
        Self::new(kind, Passing::Never, detail)
    }
}

/// What a status means where the service said nothing better.
pub(crate) fn meaning_of_status(status: u16) -> (Kind, Passing) {
    match status {
        429 => (Kind::Unavailable, Passing::Throttled),
        408 | 500.. => (Kind::Unavailable, Passing::Transient),
        401 | 403 | 407 => (Kind::Denied, Passing::Never),
        404 | 410 => (Kind::NotFound, Passing::Never),
        300..=499 => (Kind::Invalid, Passing::Never),
        _ => (Kind::Other, Passing::Never),
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    pub(crate) max_attempts: u32,
    pub(crate) timeout: Duration,
}

impl Retry {
    /// Sends `request` until it succeeds, fails for good, or has been sent often enough.
    pub(crate) async fn run<T, F>(
        &self,
        operation: &'static str,
        key: &KeyUrl,
        request: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut attempts = 1;
        loop {
            let failure = match tokio::time::timeout(self.timeout, request()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    let detail = format!("no answer within {} ms", self.timeout.as_millis());
                    Failure::new(Kind::Unavailable, Passing::Transient, detail)
                }
            };
            if failure.passing == Passing::Never || attempts >= self.max_attempts {
                let times =
                    if attempts > 1 { format!(" (after {attempts} attempts)") } else { String::new() };
                return Err(Error::new(failure.kind, operation, key, failure.detail + &times));
            }
            let delay = delay(failure.passing, attempts);
            tracing::debug!(
                operation,
                key = key.as_str(),
                attempt = attempts,
                delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                failure = failure.detail,
                "trying again"
            );
            tokio::time::sleep(delay).await;
            attempts += 1;
        }
    }
}

fn delay(passing: Passing, attempts: u32) -> Duration {
    let (first_ms, most_ms): (u64, u64) =
        if passing == Passing::Throttled { (400, 20_000) } else { (100, 5_000) };
    let bound = (first_ms << attempts.saturating_sub(1).min(16)).min(most_ms);
    Duration::from_millis(rand::random_range(0..=bound))
}

/// An error with its causes, each once.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    async fn run(max_attempts: u32, passing: Passing) -> (u32, Error) {
        let key = KeyUrl::parse("ring:x").unwrap();
        let tries = AtomicU32::new(0);
        let retry = Retry { max_attempts, timeout: Duration::from_secs(1) };
        let request = || async {
            tries.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(Failure::new(Kind::Unavailable, passing, "down"))
        };
        let error = retry.run("wrap", &key, request).await.unwrap_err();
        (tries.load(Ordering::Relaxed), error)
    }

    #[tokio::test]
    async fn attempts_are_bounded() {
        assert_eq!(run(3, Passing::Never).await.0, 1);
        let (tries, error) = run(3, Passing::Transient).await;
        assert_eq!(tries, 3);
        assert!(error.to_string().contains("wrap by ring:x: down (after 3 attempts)"), "{error}");
    }

    #[test]
    fn delays_are_bounded() {
        for attempts in [1, 2, 10, u32::MAX] {
            assert!(delay(Passing::Throttled, attempts) <= Duration::from_secs(20));
        }
        assert!(delay(Passing::Transient, 1) <= Duration::from_millis(100));
    }
}
