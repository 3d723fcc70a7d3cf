//! Buffers of one part each, accounted for and reused while copies run: a fresh one costs page faults.
//!
//! Each is a mapping of its own, not the allocator's: glibc would keep the memory of large blocks that come and
//! go, and small blocks that stay would split it, so that a broker grew by half of the budget over hours.

use std::sync::Arc;

use bytes::Bytes;
use memmap2::MmapMut;
use parking_lot::Mutex;

use crate::budget::{Budget, Permit};
use crate::error::{Error, Result};

/// Hands out buffers within the budget for copies.
#[derive(Debug)]
pub struct Buffers {
    pub budget: Arc<Budget>,
    state: Mutex<State>,
}

/// Held by a copy: while there is one, buffers are kept for the next part.
#[derive(Debug)]
pub struct Lease(Arc<Buffers>);

#[derive(Debug, Default)]
struct State {
    leases: usize,
    idle: Vec<MmapMut>,
    idle_bytes: usize,
    used_bytes: usize,
}

impl State {
    fn take_idle(&mut self, index: usize) -> MmapMut {
        let bytes = self.idle.swap_remove(index);
        self.idle_bytes -= bytes.len();
        bytes
    }
}

/// Memory for one part; goes back when dropped.
#[derive(Debug)]
pub struct Buffer {
    pool: Arc<Buffers>,
    /// Empty only after it went back.
    bytes: Option<MmapMut>,
    filled: usize,
    _permit: Permit,
}

impl Buffers {
    pub fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { budget, state: Mutex::default() })
    }

    pub fn lease(self: &Arc<Self>) -> Lease {
        self.state.lock().leases += 1;
        Lease(self.clone())
    }

    /// A buffer of `size` bytes, when its turn has come.
    pub async fn take(self: &Arc<Self>, size: usize) -> Result<Buffer> {
        let permit = self.budget.acquire(size as u64, |_| false).await;
        let mut dropped = Vec::new();
        let idle = {
            let mut state = self.state.lock();
            state.used_bytes += size;
            let same = state.idle.iter().position(|bytes| bytes.len() == size);
            let same = same.map(|index| state.take_idle(index));
            // Idle ones of other sizes make room: all together never exceed the budget.
            while (state.used_bytes + state.idle_bytes) as u64 > self.budget.total() && !state.idle.is_empty()
            {
                let last = state.idle.len() - 1;
                dropped.push(state.take_idle(last));
            }
            same
        };
        drop(dropped);
        let bytes = match idle {
            Some(bytes) => bytes,
            None => map(size).inspect_err(|_| self.state.lock().used_bytes -= size)?,
        };
        Ok(Buffer { pool: self.clone(), bytes: Some(bytes), filled: 0, _permit: permit })
    }
}

fn map(size: usize) -> Result<MmapMut> {
    let bytes = MmapMut::map_anon(size)
        .map_err(|e| Error::internal("memory for a part", format!("{size} bytes: {e}")))?;
    // Large pages where the system has them: less faults. Without them it is as good.
    #[cfg(target_os = "linux")]
    let _ = bytes.advise(memmap2::Advice::HugePage);
    Ok(bytes)
}

impl Buffer {
    fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.filled
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The first `n` bytes that are still free, fewer where it ends.
    pub fn free(&mut self, n: usize) -> &mut [u8] {
        let end = self.bytes().len().min(self.filled + n);
        self.bytes.as_deref_mut().and_then(|b| b.get_mut(self.filled..end)).unwrap_or_default()
    }

    pub fn free_bytes(&self) -> usize {
        self.bytes().len() - self.filled
    }

    /// `n` bytes of [`Buffer::free`] were written.
    pub fn advance(&mut self, n: usize) {
        self.filled = self.bytes().len().min(self.filled + n);
    }

    /// Takes what fits of `bytes`; returns how much.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let free = self.free(bytes.len());
        let n = free.len();
        free.copy_from_slice(bytes.get(..n).unwrap_or_default());
        self.advance(n);
        n
    }

    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes().get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(bytes) = self.bytes.take() else { return };
        let mut state = self.pool.state.lock();
        state.used_bytes -= bytes.len();
        if state.leases > 0 {
            state.idle_bytes += bytes.len();
            state.idle.push(bytes);
        }
    }
}

impl Drop for Lease {
    /// After the last copy the memory goes back to the system.
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.leases -= 1;
        if state.leases == 0 {
            state.idle_bytes = 0;
            let idle = std::mem::take(&mut state.idle);
            drop(state);
            drop(idle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_all_sizes_stay_within_the_budget() {
        let pool = Buffers::new(Budget::new(1000));
        let held = || {
            let state = pool.state.lock();
            let idle: usize = state.idle.iter().map(|b| b.len()).sum();
            assert_eq!(idle, state.idle_bytes);
            state.used_bytes + idle
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let lease = pool.lease();
            let kept = pool.take(100).await.unwrap();
            for size in [300, 90, 200, 300, 450, 10] {
                let some = [pool.take(size).await.unwrap(), pool.take(size).await.unwrap()];
                assert!(some.iter().all(|b| b.free_bytes() == size));
                assert!(held() <= 1000, "{} with buffers of {size}", held());
                drop(some);
                assert!(held() <= 1000 && held() > 100);
            }
            drop(kept);
            assert!(held() > 100 && pool.budget.used() == 0);
            drop(lease);
            assert_eq!(held(), 0);
            drop(pool.take(100).await.unwrap());
            assert_eq!(held(), 0, "nothing is kept without a copy");
        });
    }
}
