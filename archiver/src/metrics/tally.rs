//! What metrics, health and status are made of: told by those who do the work, at the moment they do it.
//!
//! Counters only rise while the process lives. Topics beyond `metrics.topics.max` share one set of counters, and a
//! topic that has its own keeps it, so that no counter ever falls. One lock, held for moments.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use varve_archive::record::gap::GapReason;

use super::failure::FailureKind;
use super::lag::Seen;
use crate::memory::Memory;
use crate::tail::Key;

/// Label of all topics beyond the limit.
pub(crate) const OTHER_TOPICS: &str = "_other";
/// Of what can't be said in full.
const TROUBLE_MAX_BYTES: usize = 500;

/// Where a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum PartitionState {
    /// Ours, and with no worker: no leader, or not given yet.
    Waiting,
    Opening,
    Reading,
    /// Waits for a time, after a failure.
    Resting,
    /// Archived as far as was wanted.
    Done,
}

impl PartitionState {
    pub(crate) const ALL: [PartitionState; 5] =
        [Self::Waiting, Self::Opening, Self::Reading, Self::Resting, Self::Done];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Opening => "opening",
            Self::Reading => "reading",
            Self::Resting => "resting",
            Self::Done => "done",
        }
    }
}

/// What must be seen to be alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Task {
    Service,
    /// Of the broker with this id.
    Worker(i32),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum GroupState {
    /// There is none.
    #[default]
    None,
    Joining,
    Joined,
}

/// The outcome of the last look at something outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    pub(crate) at: Option<Instant>,
    pub(crate) problem: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotSeen {
    pub(crate) sequence: u64,
    pub(crate) created_ms: i64,
    /// When the cluster was asked for its state: earlier, if it was away then. `None` if the snapshot has none.
    pub(crate) cluster_asked_ms: Option<i64>,
    /// From its first question to its record; `None` for one that was found.
    pub(crate) duration: Option<Duration>,
    pub(crate) lagging: usize,
}

/// Of one topic, or of all beyond the limit.
#[derive(Debug, Default)]
pub(crate) struct TopicTotals {
    pub(crate) label: String,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) read_batches: AtomicU64,
    /// Offsets that were read over.
    pub(crate) read_offsets: AtomicU64,
    pub(crate) segments: AtomicU64,
}

/// One partition that is ours.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) topic: Arc<str>,
    pub(crate) totals: Arc<TopicTotals>,
    pub(crate) state: PartitionState,
    /// Safe in the store up to here; `None` until its chain was looked at.
    pub(crate) safe_end: Option<i64>,
    /// The log's high watermark; `None` until it was heard of.
    pub(crate) log_end: Option<i64>,
    pub(crate) log_start: i64,
    seen: Seen,
    pub(crate) trouble: Option<(FailureKind, String)>,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) partitions: HashMap<Key, Watched>,
    pub(crate) topics: BTreeMap<Arc<str>, Arc<TopicTotals>>,
    pub(crate) beats: BTreeMap<Task, Instant>,
    /// What brokers said they held back, by broker.
    pub(crate) throttled: BTreeMap<i32, Duration>,
    pub(crate) limited: Duration,
    pub(crate) errors: BTreeMap<FailureKind, u64>,
    /// Objects and offsets.
    pub(crate) gaps: BTreeMap<&'static str, (u64, u64)>,
    pub(crate) snapshot: Option<SnapshotSeen>,
    pub(crate) snapshots: u64,
    pub(crate) group: GroupState,
    pub(crate) cluster: Look,
    pub(crate) store: Look,
    pub(crate) stopping: bool,
}

#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) started: Instant,
    topics_max: usize,
    other: Arc<TopicTotals>,
    pub(crate) inner: Mutex<Inner>,
    pub(crate) branches: AtomicU64,
    pub(crate) bundles: AtomicU64,
    pub(crate) bundle_entries: AtomicU64,
    pub(crate) lost_races: AtomicU64,
    pub(crate) memory: OnceLock<Arc<Memory>>,
}

impl Watched {
    /// Offsets that the log has and the archive has not; `None` where either is not known.
    pub(crate) fn lag(&self) -> Option<u64> {
        let from = self.safe_end?.max(self.log_start);
        Some(self.log_end?.saturating_sub(from).max(0).unsigned_abs())
    }

    /// How long the first record that is not archived has been known.
    pub(crate) fn waiting(&self, now: Instant) -> Duration {
        self.seen.since().map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    fn ends_at(&mut self, log_end: i64, now: Instant) {
        self.log_end = Some(log_end);
        self.seen.note(log_end, self.safe_end.unwrap_or(0).max(self.log_start), now);
    }
}

impl TopicTotals {
    /// What `offsets` weigh, by what was read so far; `None` before anything was.
    pub(crate) fn estimate(&self, offsets: u64) -> Option<u64> {
        let read = self.read_offsets.load(Ordering::Relaxed);
        let bytes = u128::from(self.read_bytes.load(Ordering::Relaxed)) * u128::from(offsets);
        let known = read > 0 || offsets == 0;
        known.then(|| u64::try_from(bytes / u128::from(read.max(1))).unwrap_or(u64::MAX))
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new(1000)
    }
}

impl Tally {
    pub(crate) fn new(topics_max: usize) -> Self {
        Self {
            started: Instant::now(),
            topics_max,
            other: Arc::new(TopicTotals { label: OTHER_TOPICS.to_owned(), ..TopicTotals::default() }),
            inner: Mutex::default(),
            branches: AtomicU64::new(0),
            bundles: AtomicU64::new(0),
            bundle_entries: AtomicU64::new(0),
            lost_races: AtomicU64::new(0),
            memory: OnceLock::new(),
        }
    }

    /// These partitions are ours, and no others.
    pub(crate) fn assign<'a>(&self, ours: impl Iterator<Item = (Key, &'a str)>) {
        let mut inner = self.inner.lock();
        let mut before = std::mem::take(&mut inner.partitions);
        for (key, topic) in ours {
            let watched = before.remove(&key).unwrap_or_else(|| {
                let (topic, totals) = self.totals(&mut inner, topic);
                Watched {
                    topic,
                    totals,
                    state: PartitionState::Waiting,
                    safe_end: None,
                    log_end: None,
                    log_start: 0,
                    seen: Seen::default(),
                    trouble: None,
                }
            });
            inner.partitions.insert(key, watched);
        }
    }

    fn totals(&self, inner: &mut Inner, topic: &str) -> (Arc<str>, Arc<TopicTotals>) {
        if let Some((name, totals)) = inner.topics.get_key_value(topic) {
            return (Arc::clone(name), Arc::clone(totals));
        }
        let name: Arc<str> = Arc::from(topic);
        if inner.topics.len() >= self.topics_max || topic == OTHER_TOPICS {
            return (name, Arc::clone(&self.other));
        }
        let totals = Arc::new(TopicTotals { label: topic.to_owned(), ..TopicTotals::default() });
        inner.topics.insert(Arc::clone(&name), Arc::clone(&totals));
        (name, totals)
    }

    /// All that has been counted by topic.
    pub(crate) fn all_totals(&self) -> Vec<Arc<TopicTotals>> {
        let topics: Vec<_> = self.inner.lock().topics.values().cloned().collect();
        topics.into_iter().chain([Arc::clone(&self.other)]).collect()
    }

    fn with(&self, key: Key, change: impl FnOnce(&mut Watched)) {
        if let Some(watched) = self.inner.lock().partitions.get_mut(&key) {
            change(watched);
        }
    }

    pub(crate) fn state(&self, key: Key, state: PartitionState) {
        self.with(key, |watched| watched.state = state);
    }

    pub(crate) fn archived(&self, key: Key, safe_end: i64) {
        self.with(key, |watched| {
            watched.safe_end = Some(safe_end);
            watched.seen.archived(safe_end);
            watched.trouble = None;
        });
    }

    /// A fetch went over `offsets`.
    pub(crate) fn read(&self, key: Key, offsets: i64, batches: u32, bytes: usize, ends: (i64, i64)) {
        let now = Instant::now();
        self.with(key, |watched| {
            watched.log_start = ends.0;
            watched.ends_at(ends.1, now);
            let totals = &watched.totals;
            totals.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            totals.read_batches.fetch_add(u64::from(batches), Ordering::Relaxed);
            totals.read_offsets.fetch_add(offsets.max(0).unsigned_abs(), Ordering::Relaxed);
        });
    }

    /// The log's end, from somebody else than the one who reads it.
    pub(crate) fn log_end(&self, key: Key, log_end: i64) {
        let now = Instant::now();
        self.with(key, |watched| watched.ends_at(log_end, now));
    }

    pub(crate) fn failed(&self, key: Key, kind: FailureKind, text: &str) {
        self.error(kind);
        let mut text = text.to_owned();
        text.truncate(text.floor_char_boundary(TROUBLE_MAX_BYTES));
        self.with(key, |watched| watched.trouble = Some((kind, text)));
    }

    pub(crate) fn error(&self, kind: FailureKind) {
        *self.inner.lock().errors.entry(kind).or_default() += 1;
    }

    pub(crate) fn segment(&self, key: Key) {
        self.with(key, |watched| _ = watched.totals.segments.fetch_add(1, Ordering::Relaxed));
    }

    /// `reason` as [`gap_name`] has it.
    pub(crate) fn gap(&self, reason: &'static str, offsets: i64) {
        let mut inner = self.inner.lock();
        let (objects, all) = inner.gaps.entry(reason).or_default();
        *objects += 1;
        *all = all.saturating_add(offsets.max(0).unsigned_abs());
    }

    pub(crate) fn branch(&self) {
        self.branches.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn bundle(&self, entries: usize) {
        self.bundles.fetch_add(1, Ordering::Relaxed);
        self.bundle_entries.fetch_add(entries as u64, Ordering::Relaxed);
    }

    pub(crate) fn lost_race(&self) {
        self.lost_races.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn beat(&self, task: Task) {
        self.inner.lock().beats.insert(task, Instant::now());
    }

    /// A worker lives; `throttled` is all that its broker has made it wait.
    pub(crate) fn worker_beat(&self, node_id: i32, throttled: Duration) {
        let mut inner = self.inner.lock();
        inner.beats.insert(Task::Worker(node_id), Instant::now());
        if !throttled.is_zero() {
            inner.throttled.insert(node_id, throttled);
        }
    }

    /// Our own limit made a worker wait.
    pub(crate) fn limited(&self, wait: Duration) {
        self.inner.lock().limited += wait;
    }

    pub(crate) fn snapshot(&self, seen: SnapshotSeen) {
        let mut inner = self.inner.lock();
        if inner.snapshot.is_none_or(|known| known.sequence <= seen.sequence) {
            inner.snapshots += u64::from(seen.duration.is_some());
            inner.snapshot = Some(seen);
        }
    }

    pub(crate) fn group(&self, state: GroupState) {
        self.inner.lock().group = state;
    }

    pub(crate) fn stopping(&self) {
        self.inner.lock().stopping = true;
    }

    pub(crate) fn looked(&self, which: impl FnOnce(&mut Inner) -> &mut Look, problem: Option<String>) {
        *which(&mut self.inner.lock()) = Look { at: Some(Instant::now()), problem };
    }
}

/// All that [`gap_name`] gives.
pub(crate) const GAP_REASONS: [&str; 5] = ["log-start", "compacted", "corrupt", "lost", "other"];

/// As in the record.
pub(crate) fn gap_name(reason: &GapReason) -> &'static str {
    match reason {
        GapReason::LogStart => "log-start",
        GapReason::Compacted => "compacted",
        GapReason::Corrupt => "corrupt",
        GapReason::Lost => "lost",
        GapReason::Other(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use varve_format::Id;

    use super::*;

    fn key(topic: u8, partition: i32) -> Key {
        (Id([topic; 16]), partition)
    }

    #[test]
    fn topics_beyond_the_limit_are_counted_together() {
        let tally = Tally::new(2);
        let names = ["a", "b", "c", "d"];
        let all = || (1_u8..).zip(names).map(|(n, name)| (key(n, 0), name));
        tally.assign(all());
        for n in 1..=4 {
            tally.read(key(n, 0), 10, 1, 100 * usize::from(n), (0, 10));
        }
        // What comes back counts on where it was.
        tally.assign(std::iter::empty());
        tally.assign(all());
        tally.read(key(4, 0), 10, 1, 1, (0, 20));
        let read = |t: &Arc<TopicTotals>| (t.label.clone(), t.read_bytes.load(Ordering::Relaxed));
        let found: Vec<_> = tally.all_totals().iter().map(read).collect();
        assert_eq!(found, [("a".into(), 100), ("b".into(), 200), (OTHER_TOPICS.into(), 701)]);
    }

    #[test]
    fn lag_is_from_what_is_safe_or_still_there() {
        let tally = Tally::new(10);
        tally.assign([(key(1, 0), "t")].into_iter());
        let lag = || tally.inner.lock().partitions[&key(1, 0)].lag();
        assert_eq!(lag(), None);
        tally.log_end(key(1, 0), 100);
        assert_eq!(lag(), None, "nobody looked at its chain yet");
        tally.archived(key(1, 0), 30);
        assert_eq!(lag(), Some(70));
        tally.read(key(1, 0), 0, 0, 0, (50, 100));
        assert_eq!(lag(), Some(50), "what the log has no more is no lag");
        tally.archived(key(1, 0), 100);
        assert_eq!(lag(), Some(0));
        assert_eq!(tally.inner.lock().partitions[&key(1, 0)].waiting(Instant::now()), Duration::ZERO);
    }

    #[test]
    fn bytes_are_estimated_by_what_was_read() {
        let tally = Tally::new(10);
        tally.assign([(key(1, 0), "t")].into_iter());
        let estimate = |n| tally.all_totals()[0].estimate(n);
        assert_eq!((estimate(0), estimate(5)), (Some(0), None));
        tally.read(key(1, 0), 10, 2, 1000, (0, 30));
        assert_eq!(estimate(20), Some(2000));
    }
}
