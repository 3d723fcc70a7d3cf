//! This process: its clock, and when it is told to end.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// Since 1970.
pub(crate) fn now_ms() -> Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    Ok(i64::try_from(since.as_millis())?)
}

/// Ctrl-C, or what a service manager sends.
pub(crate) async fn stopped() {
    let interrupt = tokio::signal::ctrl_c();
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = interrupt.await;
        }
    }
}
