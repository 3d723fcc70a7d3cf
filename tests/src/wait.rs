//! Waiting for something that a server does in its own time.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What a look at the world found: what was waited for, or how far it is.
pub enum Look<T> {
    Done(T),
    NotYet(String),
}

impl<T> Look<T> {
    /// `Done` if `condition` holds; `state` is told when time runs out.
    pub fn when(condition: bool, value: T, state: impl Debug) -> Self {
        if condition { Self::Done(value) } else { Self::NotYet(format!("{state:?}")) }
    }
}

/// Looks every 100 ms until it is done. An error of a look is one more state to wait past (brokers restart,
/// leaders move); the last state is in the message when `limit` has passed.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        let state = match look() {
            Ok(Look::Done(value)) => return Ok(value),
            Ok(Look::NotYet(state)) => state,
            Err(error) => format!("{error:#}"),
        };
        if started.elapsed() > limit {
            bail!("not within {} s: {what}; last seen: {state}", limit.as_secs());
        }
        sleep(Duration::from_millis(100));
    }
}
