//! Everything that is told at one moment, summed up by topic.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use varve_store::OperationCount;

use super::Watch;
use super::failure::FailureKind;
use super::tally::{PartitionState, SnapshotSeen};
use crate::{clock, resident};

/// Of one topic.
#[derive(Clone, Debug, Default)]
pub(super) struct TopicView {
    pub(super) lag_records: u64,
    /// `None` while nothing was read of it.
    pub(super) lag_bytes: Option<u64>,
    pub(super) lag: Duration,
    pub(super) archived_end: i64,
    pub(super) log_end: i64,
    pub(super) log_start: i64,
    pub(super) partitions: u64,
    pub(super) read_bytes: u64,
    pub(super) read_batches: u64,
    pub(super) segments: u64,
}

#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) now_ms: i64,
    pub(super) uptime: Duration,
    /// Those with partitions of ours; and those that ever had some, for what was counted.
    pub(super) topics: BTreeMap<String, TopicView>,
    pub(super) states: BTreeMap<PartitionState, u64>,
    pub(super) failed: BTreeMap<FailureKind, u64>,
    pub(super) errors: BTreeMap<FailureKind, u64>,
    pub(super) gaps: BTreeMap<&'static str, (u64, u64)>,
    pub(super) branches: u64,
    pub(super) bundles: u64,
    pub(super) bundle_entries: u64,
    pub(super) lost_races: u64,
    pub(super) snapshot: Option<SnapshotSeen>,
    pub(super) snapshots: u64,
    pub(super) memory_used_bytes: u64,
    pub(super) memory_limit_bytes: u64,
    pub(super) resident_bytes: Option<u64>,
    pub(super) throttled: Duration,
    pub(super) limited: Duration,
    pub(super) store: Vec<OperationCount>,
    pub(super) dollars: Vec<(&'static str, f64)>,
    pub(super) ready: bool,
    pub(super) rpo: Duration,
}

impl View {
    pub(super) fn of(watch: &Watch) -> Self {
        let (now, tally) = (Instant::now(), &watch.progress.tally);
        let mut view = Self {
            now_ms: clock::now_ms(),
            uptime: now.duration_since(tally.started),
            branches: tally.branches.load(Ordering::Relaxed),
            bundles: tally.bundles.load(Ordering::Relaxed),
            bundle_entries: tally.bundle_entries.load(Ordering::Relaxed),
            lost_races: tally.lost_races.load(Ordering::Relaxed),
            resident_bytes: resident::bytes(),
            store: watch.counts.all(),
            ready: watch.not_ready().is_empty(),
            rpo: watch.rpo,
            ..Self::default()
        };
        if let Some(memory) = tally.memory.get() {
            (view.memory_used_bytes, view.memory_limit_bytes) = memory.used_and_limit();
        }
        view.dollars = view.store.iter().map(|c| (c.operation.name(), watch.prices.dollars(c))).collect();
        for totals in tally.all_totals() {
            let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            let counted = TopicView {
                read_bytes: read(&totals.read_bytes),
                read_batches: read(&totals.read_batches),
                segments: read(&totals.segments),
                ..TopicView::default()
            };
            view.topics.insert(totals.label.clone(), counted);
        }
        view.add_partitions(watch, now);
        // Nobody needs to see that nothing is left over.
        view.topics.retain(|label, topic| {
            label != super::tally::OTHER_TOPICS || topic.partitions > 0 || topic.read_bytes > 0
        });
        view
    }

    fn add_partitions(&mut self, watch: &Watch, now: Instant) {
        let inner = watch.progress.tally.inner.lock();
        for watched in inner.partitions.values() {
            *self.states.entry(watched.state).or_default() += 1;
            if let Some((kind, _)) = &watched.trouble {
                *self.failed.entry(*kind).or_default() += 1;
            }
            let topic = self.topics.entry(watched.totals.label.clone()).or_default();
            topic.partitions += 1;
            topic.log_start = topic.log_start.saturating_add(watched.log_start);
            topic.log_end = topic.log_end.saturating_add(watched.log_end.unwrap_or(0));
            topic.archived_end = topic.archived_end.saturating_add(watched.safe_end.unwrap_or(0));
            let Some(lag) = watched.lag() else { continue };
            topic.lag_records = topic.lag_records.saturating_add(lag);
            if lag > 0 {
                topic.lag = topic.lag.max(watched.waiting(now));
            }
        }
        for totals in inner.topics.values() {
            if let Some(topic) = self.topics.get_mut(&totals.label) {
                topic.lag_bytes = totals.estimate(topic.lag_records);
            }
        }
        self.errors.clone_from(&inner.errors);
        self.gaps.clone_from(&inner.gaps);
        (self.snapshot, self.snapshots) = (inner.snapshot, inner.snapshots);
        self.throttled = inner.throttled.values().sum();
        self.limited = inner.limited;
    }

    /// Topics that have partitions of ours.
    pub(super) fn ours(&self) -> impl Iterator<Item = (&String, &TopicView)> {
        self.topics.iter().filter(|(_, topic)| topic.partitions > 0)
    }
}
