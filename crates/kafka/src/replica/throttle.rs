//! So many bytes per second, over all followers.

use std::time::Instant;

use parking_lot::Mutex;

/// Bytes that were not used gather for so long.
const BURST_SECONDS: f64 = 1.0;

/// A bucket that fills with time. One answer may take more than is in it: the next ones wait for that.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes: f64,
    at: Instant,
}

impl Throttle {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second as f64,
            state: Mutex::new(State { bytes: 0.0, at: Instant::now() }),
        }
    }

    /// What may be given out now.
    pub(super) fn allowed(&self, now: Instant) -> usize {
        let mut state = self.state.lock();
        let passed = now.saturating_duration_since(state.at).as_secs_f64();
        state.at = now;
        let most = self.bytes_per_second * BURST_SECONDS;
        state.bytes = (state.bytes + passed * self.bytes_per_second).min(most);
        state.bytes.max(0.0) as usize
    }

    pub(super) fn spend(&self, bytes: usize) {
        self.state.lock().bytes -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn in_the_long_run_no_more_than_the_rate() {
        let throttle = Throttle::new(1000);
        let begun = Instant::now();
        let (mut given, batch) = (0, 700);
        for step in 1..=100 {
            if throttle.allowed(begun + Duration::from_millis(step * 100)) > 0 {
                throttle.spend(batch);
                given += batch;
            }
        }
        assert!((9_000..=11_000).contains(&given), "{given} bytes in 10 s");
        // What is not used does not gather for ever.
        assert!(throttle.allowed(begun + Duration::from_secs(1000)) <= 1000);
    }
}
