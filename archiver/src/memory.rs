//! One budget for all bytes that are held between source and store.
//!
//! Who brings bytes holds room for them first; the room goes with the bytes, and is free again when they are
//! dropped. Whoever finds no room says so, and those who hold much let go of it: what is held can always be put
//! into the store, or be read again from the source.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Memory {
    limit_bytes: usize,
    state: Mutex<State>,
    freed: Notify,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    used_bytes: usize,
    /// Of those, on their way into the store: they come free by themselves.
    leaving_bytes: usize,
}

/// Room for some bytes.
#[derive(Debug)]
pub(crate) struct Room {
    memory: Arc<Memory>,
    bytes: usize,
    leaving: bool,
}

impl Memory {
    pub(crate) fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self { limit_bytes, state: Mutex::default(), freed: Notify::new(), wanted: Notify::new() })
    }

    #[cfg(test)]
    fn used_bytes(&self) -> usize {
        self.state.lock().used_bytes
    }

    pub(crate) fn used_and_limit(&self) -> (u64, u64) {
        (self.state.lock().used_bytes as u64, self.limit_bytes as u64)
    }

    /// Whether nothing is on its way into the store.
    pub(crate) fn is_stuck(&self) -> bool {
        self.state.lock().leaving_bytes == 0
    }

    /// More than the limit is given if nothing else is held: a single thing may be larger.
    pub(crate) fn try_room(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        let mut state = self.state.lock();
        let used = state.used_bytes.saturating_add(bytes);
        if used > self.limit_bytes && state.used_bytes > 0 {
            return None;
        }
        state.used_bytes = used;
        Some(Room { memory: Arc::clone(self), bytes, leaving: false })
    }

    pub(crate) fn no_room(self: &Arc<Self>) -> Room {
        Room { memory: Arc::clone(self), bytes: 0, leaving: false }
    }

    /// Until some room has come free, or it is worth trying again anyhow; meanwhile others know that it is wanted.
    pub(crate) async fn freed(&self) {
        self.wanted.notify_waiters();
        let patience = std::time::Duration::from_millis(50);
        // A timeout means the same as a notification.
        let _ = tokio::time::timeout(patience, self.freed.notified()).await;
    }

    /// When somebody else finds no room.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

impl Room {
    /// Neither of them is on its way.
    pub(crate) fn join(&mut self, mut other: Room) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// A part of it, at most all.
    pub(crate) fn split(&mut self, bytes: usize) -> Room {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Room { memory: Arc::clone(&self.memory), bytes, leaving: self.leaving }
    }

    /// Gives back what is beyond `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let over = self.bytes.saturating_sub(bytes);
        drop(self.split(over));
    }

    /// From now on its bytes are on their way into the store.
    pub(crate) fn leave(mut self) -> Room {
        if !std::mem::replace(&mut self.leaving, true) {
            self.memory.state.lock().leaving_bytes += self.bytes;
        }
        self
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut state = self.memory.state.lock();
        state.used_bytes -= self.bytes;
        if self.leaving {
            state.leaving_bytes -= self.bytes;
        }
        drop(state);
        self.memory.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_goes_and_comes_back() {
        let memory = Memory::new(100);
        let mut first = memory.try_room(60).unwrap();
        assert!(memory.try_room(41).is_none());
        let part = first.split(20).leave();
        assert!(!memory.is_stuck());
        drop(part);
        assert!(memory.is_stuck());
        assert_eq!(memory.used_bytes(), 40);
        first.join(memory.try_room(60).unwrap());
        assert_eq!((first.bytes, memory.used_bytes()), (100, 100));
        first.shrink_to(10);
        assert_eq!(memory.used_bytes(), 10);
        drop(first);
        // A single thing may be larger than all.
        assert_eq!(memory.try_room(1000).unwrap().bytes, 1000);
        assert_eq!(memory.used_bytes(), 0);
    }
}
