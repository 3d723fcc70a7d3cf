//! The highest producer id of what was given out.

use parking_lot::Mutex;

use crate::error::Result;

/// Ids are used up in blocks of so many.
const BLOCK: i64 = 1000;

type Keep = Box<dyn Fn(i64) -> Result<()> + Send + Sync>;

/// Of all partitions together. It is kept before the batches that have it leave: whoever resumes after a crash knows it.
pub struct ProducerIds {
    last: Mutex<i64>,
    keep: Keep,
}

impl std::fmt::Debug for ProducerIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "producer ids up to {}", self.last())
    }
}

impl ProducerIds {
    /// `last` is what was kept before; -1 if nothing was.
    pub fn new(last: i64, keep: impl Fn(i64) -> Result<()> + Send + Sync + 'static) -> Self {
        Self { last: Mutex::new(last), keep: Box::new(keep) }
    }

    pub(super) fn note(&self, id: i64) -> Result<()> {
        let mut last = self.last.lock();
        if id > *last {
            // The rest of its block is used up with it.
            let upto = (id / BLOCK).saturating_mul(BLOCK).saturating_add(BLOCK - 1);
            (self.keep)(upto)?;
            *last = upto;
        }
        Ok(())
    }

    pub(super) fn last(&self) -> i64 {
        *self.last.lock()
    }
}
