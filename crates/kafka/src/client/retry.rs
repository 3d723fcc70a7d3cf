//! How long to wait before asking again.

use std::time::{Duration, Instant};

use rand::Rng;

use super::error::{ClientError, Result};

/// Exponential, with jitter, until a deadline.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
    begun: Instant,
    deadline: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration, deadline: Duration) -> Self {
        Self { next: first.min(max), max, begun: Instant::now(), deadline }
    }

    /// Waits, or gives the error back: at once if it is lasting, as `GaveUp` if time is over.
    pub(crate) async fn wait_or_fail(&mut self, what: &str, error: ClientError) -> Result<()> {
        if !error.is_retriable() {
            return Err(error);
        }
        let waited = self.begun.elapsed();
        if waited >= self.deadline {
            let waited_ms = waited.as_millis() as u64;
            return Err(ClientError::GaveUp { what: what.to_owned(), waited_ms, last: Box::new(error) });
        }
        tracing::debug!(what, %error, "trying again");
        let jitter = rand::rng().random_range(0.8..1.2);
        tokio::time::sleep(self.next.mul_f64(jitter)).await;
        self.next = (self.next * 2).min(self.max);
        Ok(())
    }
}
