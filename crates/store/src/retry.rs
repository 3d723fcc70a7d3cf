//! The one place where requests are sent again.
//!
//! * Only what may pass by itself: throttling (429, 503 and what means the same), 5xx, timeouts, broken connections. Never
//!   another 4xx.
//! * At most `max_attempts` attempts of a request, each with its own timeout.
//! * Between them a random time from zero to a bound that doubles (full jitter): from 100 ms up to 5 s, when
//!   throttled from 400 ms up to 20 s.
//! * **Budget.** A store that is down must not meet many times the usual load: retries of all requests together
//!   draw on 500 tokens, 5 each and 10 after a timeout. A request that succeeds gives back what its retries took,
//!   or one token. When they are gone, first errors are final until successes fill them up again.

use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::contract::Result;
use crate::failure::{At, Failure, Passing};

const BUDGET: i64 = 500;
const COST: i64 = 5;
const TIMEOUT_COST: i64 = 10;
/// A body may take a second for each of so many bytes, beyond the timeout.
const SLOWEST_BYTES_PER_SECOND: u64 = 128 << 10;

pub(crate) struct Retry {
    pub(crate) max_attempts: u32,
    pub(crate) timeout: Duration,
    tokens: AtomicI64,
}

impl Retry {
    pub(crate) fn new(max_attempts: u32, timeout: Duration) -> Self {
        Self { max_attempts, timeout, tokens: AtomicI64::new(BUDGET) }
    }

    /// Sends `request` until it succeeds, fails for good, or has been sent often enough. It must be safe to repeat.
    pub(crate) async fn run<T, F, R>(&self, at: &At, body_bytes: u64, request: R) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, Failure>>,
        R: Fn() -> F,
    {
        let mut course = self.course();
        loop {
            match course.attempt(body_bytes, &request).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => {
                    if let Err(last) = course.again(failure, at).await {
                        return Err(last.error(at, course.attempts));
                    }
                }
            }
        }
    }

    /// The attempts of one request, for callers that look at each failure themselves.
    pub(crate) fn course(&self) -> Course<'_> {
        Course { retry: self, attempts: 0, spent: 0 }
    }
}

pub(crate) struct Course<'a> {
    retry: &'a Retry,
    pub(crate) attempts: u32,
    spent: i64,
}

impl Course<'_> {
    pub(crate) async fn attempt<T, F, R>(
        &mut self,
        body_bytes: u64,
        request: &R,
    ) -> std::result::Result<T, Failure>
    where
        F: Future<Output = std::result::Result<T, Failure>>,
        R: Fn() -> F,
    {
        self.attempts += 1;
        let limit = self.retry.timeout + Duration::from_secs(body_bytes / SLOWEST_BYTES_PER_SECOND);
        match tokio::time::timeout(limit, request()).await {
            Ok(Ok(answer)) => {
                self.succeeded();
                Ok(answer)
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::timeout(format!("no answer within {} ms", limit.as_millis()))),
        }
    }

    fn succeeded(&mut self) {
        let back = self.spent.max(1);
        self.spent = 0;
        let add = |tokens: i64| (tokens < BUDGET).then_some((tokens + back).min(BUDGET));
        let _ = self.retry.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Waits before the next attempt, or hands the failure back if there is to be none.
    pub(crate) async fn again(&mut self, failure: Failure, at: &At) -> std::result::Result<(), Failure> {
        if !failure.may_pass() || self.attempts >= self.retry.max_attempts {
            return Err(failure);
        }
        let cost = if failure.timed_out { TIMEOUT_COST } else { COST };
        let take = |tokens: i64| (tokens >= cost).then_some(tokens - cost);
        if self.retry.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            let detail = format!("{}; not tried again, as too many requests fail", failure.detail);
            return Err(Failure { detail, ..failure });
        }
        self.spent += cost;
        let delay = delay(failure.passing, self.attempts);
        tracing::debug!(
            operation = at.operation,
            object = at.object,
            attempt = self.attempts,
            delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            failure = failure.detail,
            "trying again"
        );
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// Before a broken body is asked for again.
pub(crate) fn pause(breaks: u32) -> Duration {
    delay(Passing::Transient, breaks)
}

fn delay(passing: Passing, attempts: u32) -> Duration {
    let (first_ms, most_ms) = if passing == Passing::Throttled { (400, 20_000) } else { (100, 5_000) };
    let bound = (first_ms << attempts.saturating_sub(1).min(16)).min(most_ms);
    Duration::from_millis(rand::random_range(0..=bound))
}
