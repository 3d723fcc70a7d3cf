//! So many bytes per second, over all partitions.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Each reservation begins where the one before ends.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_second: f64,
    free_at: Mutex<Instant>,
}

impl Throttle {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second as f64, free_at: Mutex::new(Instant::now()) }
    }

    pub(super) async fn wait(&self, bytes: usize) {
        let begin = {
            let mut free_at = self.free_at.lock();
            let begin = (*free_at).max(Instant::now());
            *free_at = begin + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.max(1.0));
            begin
        };
        tokio::time::sleep_until(begin).await;
    }
}
