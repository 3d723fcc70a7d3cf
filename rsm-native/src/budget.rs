//! A bound on memory, shared by all that allocate: who waits is served first come, first served.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// `total` bytes to hand out.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    used: Mutex<u64>,
    freed: Notify,
    /// Held by the one at the head of the queue.
    turn: tokio::sync::Mutex<()>,
}

/// Bytes that are accounted for until it is dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub fn new(total: u64) -> Arc<Self> {
        Arc::new(Self { total, used: Mutex::new(0), freed: Notify::new(), turn: tokio::sync::Mutex::new(()) })
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn used(&self) -> u64 {
        *self.used.lock()
    }

    /// Waits its turn for `bytes`. `reclaim` is asked to free them where it can,
    /// again while it says that it let go of something. More than the total is never granted, so it must not be
    /// asked for.
    pub async fn acquire(self: &Arc<Self>, bytes: u64, reclaim: impl Fn(u64) -> bool) -> Permit {
        let bytes = bytes.min(self.total);
        let _turn = self.turn.lock().await;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            loop {
                if let Some(permit) = self.take(bytes) {
                    return permit;
                }
                if !reclaim(bytes) {
                    break;
                }
            }
            freed.await;
        }
    }

    /// Takes `bytes` if they are free and nobody waits.
    pub fn try_acquire(self: &Arc<Self>, bytes: u64) -> Option<Permit> {
        let _turn = self.turn.try_lock().ok()?;
        self.take(bytes)
    }

    /// Tells the one who waits that `reclaim` may find something now.
    pub fn retry(&self) {
        self.freed.notify_waiters();
    }

    fn take(self: &Arc<Self>, bytes: u64) -> Option<Permit> {
        let mut used = self.used.lock();
        if bytes > self.total - *used {
            return None;
        }
        *used += bytes;
        Some(Permit { budget: self.clone(), bytes })
    }
}

impl Permit {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Splits `bytes` off.
    pub fn split(&mut self, bytes: u64) -> Permit {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Permit { budget: self.budget.clone(), bytes }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.budget.used.lock() -= self.bytes;
        self.budget.retry();
    }
}
