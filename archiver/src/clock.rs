//! The only place that asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) const SECOND_MS: i64 = 1000;
pub(crate) const DAY_MS: i64 = 86_400_000;

/// Milliseconds since 1970-01-01 UTC; 0 before.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
