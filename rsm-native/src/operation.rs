//! Work under way for a Java thread that waits for it in slices, and the tables that turn it into numbers.
//!
//! Java holds ids, never pointers: one that was closed, or never was, is an error and not a crash.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::Notify;

use crate::error::{Error, Kind, Result};

/// Ends work early. Cheap to clone and to ask.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    set: AtomicBool,
    notify: Notify,
}

impl Cancel {
    pub fn set(&self) {
        self.0.set.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Acquire)
    }

    pub fn check(&self, what: &str) -> Result<()> {
        if self.is_set() { Err(Error::cancelled(what)) } else { Ok(()) }
    }

    /// Runs `future` unless cancelled first.
    pub async fn run<T>(&self, what: &str, future: impl Future<Output = T>) -> Result<T> {
        let mut notified = std::pin::pin!(self.0.notify.notified());
        notified.as_mut().enable();
        self.check(what)?;
        tokio::select! {
            out = future => Ok(out),
            () = notified => Err(Error::cancelled(what)),
        }
    }
}

type Outcome = Result<Option<Vec<u8>>>;

/// One copy, index fetch or delete.
#[derive(Debug, Default)]
pub struct Operation {
    outcome: Mutex<Option<Outcome>>,
    done: Condvar,
    pub cancel: Cancel,
}

impl Operation {
    pub fn finish(&self, outcome: Outcome) {
        let mut slot = self.outcome.lock();
        if slot.is_none() {
            *slot = Some(outcome);
        }
        self.done.notify_all();
    }

    /// Whether it is done, after waiting for at most `timeout`.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut slot = self.outcome.lock();
        if slot.is_none() {
            self.done.wait_for(&mut slot, timeout);
        }
        slot.is_some()
    }

    pub fn take(&self) -> Outcome {
        self.outcome
            .lock()
            .take()
            .unwrap_or_else(|| Err(Error::internal("operation", "its result was asked for too early")))
    }
}

/// Ids for things that Java holds.
pub struct Table<T> {
    what: &'static str,
    next: AtomicI64,
    entries: RwLock<Option<HashMap<i64, Arc<T>>>>,
}

impl<T> Table<T> {
    pub const fn new(what: &'static str) -> Self {
        Self { what, next: AtomicI64::new(1), entries: RwLock::new(None) }
    }

    pub fn insert(&self, entry: Arc<T>) -> i64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.entries.write().get_or_insert_default().insert(id, entry);
        id
    }

    pub fn get(&self, id: i64) -> Result<Arc<T>> {
        let entries = self.entries.read();
        let found = entries.as_ref().and_then(|e| e.get(&id)).cloned();
        found.ok_or_else(|| Error::new(Kind::Closed, format!("the {} is closed", self.what)))
    }

    pub fn remove(&self, id: i64) -> Option<Arc<T>> {
        self.entries.write().as_mut().and_then(|e| e.remove(&id))
    }
}
