//! Memory for the logs that are being read.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ArchiveLog;

/// The least that is counted.
const UNIT_BYTES: u64 = 64 << 10;
/// Runs that are fetched and decoded ahead, and the window: what a large log takes.
const LARGE_BYTES: u64 = 20 << 20;
/// Whoever has not read for so long gives way to those that wait.
const IDLE: Duration = Duration::from_secs(5);

/// See the module above.
pub struct Budget {
    free: Arc<Semaphore>,
    units: u32,
    logs: Mutex<Vec<Weak<ArchiveLog>>>,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("units", &self.units).finish_non_exhaustive()
    }
}

impl Budget {
    /// One large log at least is always read.
    pub fn new(bytes: u64) -> Arc<Self> {
        let units = u32::try_from(bytes.max(LARGE_BYTES) / UNIT_BYTES).unwrap_or(u32::MAX >> 4);
        let free = Arc::new(Semaphore::new(units as usize));
        Arc::new(Self { free, units, logs: Mutex::default() })
    }

    pub(super) fn know(&self, log: &Arc<ArchiveLog>) {
        self.logs.lock().push(Arc::downgrade(log));
    }

    /// For a log of this size; `None` while others have it all.
    pub(super) fn share(&self, log_bytes: u64) -> Option<OwnedSemaphorePermit> {
        // Fetched, and in the window.
        let bytes = log_bytes.saturating_mul(2).clamp(UNIT_BYTES, LARGE_BYTES);
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(1).min(self.units);
        if let Ok(share) = Arc::clone(&self.free).try_acquire_many_owned(units) {
            return Some(share);
        }
        let logs: Vec<Arc<ArchiveLog>> = {
            let mut logs = self.logs.lock();
            logs.retain(|log| log.strong_count() > 0);
            logs.iter().filter_map(Weak::upgrade).collect()
        };
        let rested = logs.iter().filter(|log| log.rest(IDLE)).count();
        if rested == 0 {
            return None;
        }
        Arc::clone(&self.free).try_acquire_many_owned(units).ok()
    }
}
