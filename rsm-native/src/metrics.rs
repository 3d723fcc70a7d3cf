//! Counts, bytes, errors and latencies of each operation, some by topic, as the shim's JMX beans show them
//! ([`beans`]). Nothing is kept beyond the process: all begins at 0 with it.

pub mod beans;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// More topics than this are counted together only.
const TOPICS_MAX: usize = 1000;

/// One operation's numbers, since the start.
#[derive(Debug, Default)]
pub struct Numbers {
    pub count: AtomicU64,
    pub errors: AtomicU64,
    pub cancelled: AtomicU64,
    pub bytes: AtomicU64,
    pub in_flight: AtomicI64,
    latency: Histogram,
    rate: Rate,
}

#[derive(Debug, Default)]
pub struct Metrics {
    pub copy: Numbers,
    /// Log streams: latency is from opening to the first byte.
    pub fetch_log: Numbers,
    pub fetch_index: Numbers,
    pub delete: Numbers,
    /// GET requests that fill the cache.
    pub store_get: Numbers,
    pub cache_hits: AtomicU64,
    pub cache_misses: AtomicU64,
    pub prefetched_bytes: AtomicU64,
    pub evicted_unread_bytes: AtomicU64,
    pub swept_uploads: AtomicU64,
    topics: Mutex<BTreeMap<String, Arc<TopicNumbers>>>,
}

#[derive(Debug, Default)]
pub struct TopicNumbers {
    pub copied_bytes: AtomicU64,
    pub copied_segments: AtomicU64,
    pub copy_errors: AtomicU64,
    pub fetched_bytes: AtomicU64,
    pub fetch_errors: AtomicU64,
}

impl Numbers {
    /// Counts an operation that begins; [`Running::end`] counts how it ends.
    pub fn begin(&self) -> Running<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Running { numbers: self, since: Instant::now() }
    }

    /// A stream delivered its first byte so long after it was opened.
    pub fn first_byte(&self, elapsed: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.rate.event();
        self.latency.record(elapsed);
    }

    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rate.add(bytes);
    }
}

/// An operation under way; dropped without [`Running::end`] it is counted as an error.
pub struct Running<'a> {
    numbers: &'a Numbers,
    since: Instant,
}

impl Running<'_> {
    pub fn end<T>(self, outcome: &Result<T, crate::Error>) {
        let n = self.numbers;
        match outcome {
            Ok(_) => {
                n.count.fetch_add(1, Ordering::Relaxed);
                n.rate.event();
                n.latency.record(self.since.elapsed());
            }
            Err(e) if e.kind == crate::Kind::Cancelled => {
                n.cancelled.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                n.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.numbers.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub fn topic(&self, topic: &str) -> Arc<TopicNumbers> {
        let mut topics = self.topics.lock();
        if let Some(found) = topics.get(topic) {
            return found.clone();
        }
        let name = if topics.len() < TOPICS_MAX { topic } else { "(others)" };
        topics.entry(name.to_owned()).or_default().clone()
    }
}

/// Microseconds in buckets of an eighth of a power of two: quantiles are right within 9 %.
#[derive(Debug)]
struct Histogram {
    buckets: Vec<AtomicU64>,
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

const STEPS: u32 = 8;

impl Default for Histogram {
    fn default() -> Self {
        let buckets = std::iter::repeat_with(AtomicU64::default).take(40 * STEPS as usize).collect();
        Self { buckets, sum_us: AtomicU64::new(0), max_us: AtomicU64::new(0) }
    }
}

impl Histogram {
    fn record(&self, elapsed: Duration) {
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        let index = ((us as f64).log2() * f64::from(STEPS)) as usize;
        if let Some(bucket) = self.buckets.get(index.min(self.buckets.len() - 1)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }

    fn mean(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            n => self.sum_us.load(Ordering::Relaxed) as f64 / n as f64 / 1e3,
        }
    }

    fn max(&self) -> f64 {
        self.max_us.load(Ordering::Relaxed) as f64 / 1e3
    }

    /// Upper edge of the bucket that holds the quantile, in milliseconds.
    fn quantile(&self, q: f64) -> f64 {
        let wanted = (self.count() as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Ordering::Relaxed);
            if wanted > 0 && seen >= wanted {
                let edge = ((index + 1) as f64 / f64::from(STEPS)).exp2();
                return edge.min(self.max_us.load(Ordering::Relaxed) as f64) / 1e3;
            }
        }
        0.0
    }
}

/// Events and bytes of the last minute, in slots of five seconds.
#[derive(Debug)]
struct Rate {
    since: Instant,
    slots: Mutex<[(u64, u64, u64); 12]>,
}

impl Default for Rate {
    fn default() -> Self {
        Self { since: Instant::now(), slots: Mutex::new([(0, 0, 0); 12]) }
    }
}

impl Rate {
    fn event(&self) {
        self.update(1, 0);
    }

    fn add(&self, bytes: u64) {
        self.update(0, bytes);
    }

    fn update(&self, events: u64, bytes: u64) {
        let now = self.since.elapsed().as_secs() / 5;
        let mut slots = self.slots.lock();
        let slot = &mut slots[(now % 12) as usize];
        if slot.0 != now {
            *slot = (now, 0, 0);
        }
        slot.1 += events;
        slot.2 += bytes;
    }

    fn per_second(&self) -> (f64, f64) {
        let now = self.since.elapsed().as_secs() / 5;
        let slots = self.slots.lock();
        let recent = slots.iter().filter(|(at, ..)| at + 12 > now);
        let (events, bytes) = recent.fold((0, 0), |(e, b), slot| (e + slot.1, b + slot.2));
        let seconds = self.since.elapsed().as_secs_f64().clamp(1.0, 60.0);
        (events as f64 / seconds, bytes as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close() {
        let h = Histogram::default();
        (1..=1000_u64).for_each(|ms| h.record(Duration::from_millis(ms)));
        assert!((h.quantile(0.5) / 500.0 - 1.0).abs() < 0.1, "{}", h.quantile(0.5));
        assert!((h.quantile(0.99) / 990.0 - 1.0).abs() < 0.1);
        assert!((h.mean() / 500.5 - 1.0).abs() < 0.01);
    }
}
