//! Buffers of one part each, accounted for and reused while copies run: a fresh one costs a page fault for
//! each 4 KiB.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::budget::{Budget, Permit};

/// Hands out buffers within the budget for copies.
#[derive(Debug)]
pub struct Buffers {
    pub budget: Arc<Budget>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Box<[u8]>>,
    in_use: usize,
}

/// Memory for one part; goes back when dropped.
#[derive(Debug)]
pub struct Buffer {
    pool: Arc<Buffers>,
    bytes: Box<[u8]>,
    filled: usize,
    _permit: Permit,
}

impl Buffers {
    pub fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { budget, state: Mutex::default() })
    }

    /// A buffer of `size` bytes, when its turn has come.
    pub async fn take(self: &Arc<Self>, size: usize) -> Buffer {
        let permit = self.budget.acquire(size as u64, |_| false).await;
        let idle = {
            let mut state = self.state.lock();
            state.in_use += 1;
            // One of another size (another store's part) makes room.
            match state.idle.pop() {
                Some(bytes) if bytes.len() == size => Some(bytes),
                _ => None,
            }
        };
        let bytes = idle.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        Buffer { pool: self.clone(), bytes, filled: 0, _permit: permit }
    }
}

impl Buffer {
    pub fn len(&self) -> usize {
        self.filled
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The first `n` bytes that are still free, fewer where it ends.
    pub fn free(&mut self, n: usize) -> &mut [u8] {
        let end = self.bytes.len().min(self.filled + n);
        self.bytes.get_mut(self.filled..end).unwrap_or_default()
    }

    pub fn free_bytes(&self) -> usize {
        self.bytes.len() - self.filled
    }

    /// `n` bytes of [`Buffer::free`] were written.
    pub fn advance(&mut self, n: usize) {
        self.filled = self.bytes.len().min(self.filled + n);
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
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.in_use -= 1;
        if state.in_use == 0 {
            // No copy runs: the memory goes back to the system.
            state.idle.clear();
        } else {
            // As many idle as in use at most: with the permits that bounds both together by the budget's bytes
            // twice in the worst moment, and `take` clears them when room is short.
            state.idle.push(std::mem::take(&mut self.bytes));
        }
    }
}
