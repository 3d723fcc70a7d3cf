//! Where to cut partitions for a point in time.
//!
//! Time is what the archivers saw: footers say where a partition's high watermark was, and when. Between two looks at it
//! nobody knows; there, and only there, the batches' own timestamps decide. Then cuts move forward until no committed
//! transaction is halved, and what is still open there is ended as aborted.

mod fixed_point;
mod samples;
mod transactions;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use varve_archive::record::state::PartitionState;
use varve_archive::{ArchivedLog, JournalView, LogReader};
use varve_format::{Id, Observed};

use crate::error::Result;
use crate::history::KeyCache;
use crate::log::Facts;
use crate::plan::{PlannedTransaction, Refusal};
use crate::select::Selection;
use crate::source::{Source, SourceTopic};
use fixed_point::{Half, Part, Partition, Pull, settle};
use samples::Samples;
use transactions::{Scan, Transactions};

/// Partitions that are looked at at once.
const PARALLEL: usize = 8;

/// Where a partition ends, and what is open there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) end_offset: i64,
    pub(crate) open: Vec<PlannedTransaction>,
}

/// Of all partitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cuts {
    by_partition: BTreeMap<(Id, i32), Cut>,
    /// What is not as sure as it seems.
    pub(crate) notes: Vec<String>,
    pub(crate) refusals: Vec<Refusal>,
}

impl Cuts {
    pub(crate) fn of(&self, topic_id: Id, partition: i32) -> Option<&Cut> {
        self.by_partition.get(&(topic_id, partition))
    }
}

/// A partition, before it is cut.
struct Looked {
    topic_id: Id,
    partition: i32,
    name: String,
    log: ArchivedLog,
    samples: Samples,
    /// That the archive has.
    offsets: Range<i64>,
    unsure: Range<i64>,
}

impl Looked {
    /// Transactions that are open at the cut begin there or behind.
    fn first_open(&self, time_ms: i64) -> i64 {
        let stable = self.samples.stable(time_ms).unwrap_or(self.offsets.start);
        stable.clamp(self.offsets.start, self.unsure.start)
    }
}

/// Of all partitions that are selected.
///
/// # Errors
/// Of the archive.
pub(crate) async fn cuts(
    source: &Source,
    keys: &Arc<KeyCache>,
    archive: (&LogReader, &JournalView),
    selection: &Selection,
    time_ms: i64,
) -> Result<Cuts> {
    let partitions =
        source.topics.iter().flat_map(|topic| topic.partitions.values().map(move |p| (topic, p)));
    let created_ms = source.snapshot.record.created_ms;
    let wanted = partitions.filter(|(topic, state)| selection.has_partition(&topic.name, state.partition));
    let looks = stream::iter(wanted.collect::<Vec<_>>())
        .map(|(topic, state)| look(keys, topic, state, archive, (time_ms, created_ms)));
    let looked: Vec<Looked> = looks.buffered(PARALLEL).try_collect().await?;
    let from: Vec<i64> = looked.iter().map(|l| l.first_open(time_ms)).collect();
    let mut found = scan(&looked, keys, &from, time_ms).await?;
    // What is open at a cut may have been committed elsewhere long before.
    if let Some(since_ms) = open_since(&looked, &found) {
        let earlier = looked.iter().zip(&from).map(|(looked, from)| {
            let surely = looked.samples.surely(since_ms).unwrap_or(looked.offsets.start);
            surely.clamp(looked.offsets.start, *from)
        });
        let earlier: Vec<i64> = earlier.collect();
        if earlier != from {
            found = scan(&looked, keys, &earlier, time_ms).await?;
        }
    }
    let mut settled: Vec<Partition> =
        found.iter().map(|(found, cut)| Partition { cut: *cut, parts: found.parts() }).collect();
    let (pulls, halves) = settle(&mut settled);
    Ok(told(&looked, &settled, &pulls, &halves, time_ms))
}

/// What is open at an end that somebody chose.
///
/// # Errors
/// Of the archive.
pub(crate) async fn cut_at(log: &ArchivedLog, keys: &KeyCache, facts: &Facts) -> Result<Cut> {
    let end_offset = facts.end_offset;
    let before = facts.observed.iter().filter(|sample| sample.high_watermark <= end_offset);
    let stable = before.map(|sample| sample.last_stable_offset).max().unwrap_or(facts.start_offset);
    let offsets = stable.clamp(facts.start_offset, end_offset)..end_offset;
    let scan = Scan { log, keys, offsets, unsure: end_offset..end_offset, time_ms: 0 };
    let (found, _) = scan.run().await?;
    Ok(Cut { end_offset, open: open_at(&found.parts(), end_offset) })
}

async fn look(
    keys: &Arc<KeyCache>,
    topic: &SourceTopic,
    state: &PartitionState,
    (reader, journal): (&LogReader, &JournalView),
    (time_ms, created_ms): (i64, i64),
) -> Result<Looked> {
    let log = reader.at(state, None, journal)?;
    let facts = Facts::of(&log, keys, state.log_start_offset.unwrap_or(0)..i64::MAX).await?;
    let offsets = facts.start_offset..facts.end_offset;
    let mut observed = facts.observed;
    observed.extend(at_snapshot(state, created_ms));
    let samples = Samples::new(observed, time_ms);
    let unsure = samples.unsure(time_ms, &offsets);
    let partition = state.partition;
    let name = format!("{}-{partition}", topic.name);
    Ok(Looked { topic_id: topic.topic_id, partition, name, log, samples, offsets, unsure })
}

/// A snapshot looks at the log's end too.
fn at_snapshot(state: &PartitionState, time_ms: i64) -> Option<Observed> {
    let high_watermark = state.log_end_offset?;
    let open = state.open_transactions.iter().map(|open| open.first_offset).min();
    Some(Observed { time_ms, high_watermark, last_stable_offset: open.unwrap_or(high_watermark) })
}

async fn scan(
    looked: &[Looked],
    keys: &KeyCache,
    from: &[i64],
    time_ms: i64,
) -> Result<Vec<(Transactions, i64)>> {
    let scans = looked.iter().zip(from).map(|(looked, from)| {
        let offsets = *from..looked.offsets.end;
        Scan { log: &looked.log, keys, offsets, unsure: looked.unsure.clone(), time_ms }.run()
    });
    stream::iter(scans.collect::<Vec<_>>()).buffered(PARALLEL).try_collect().await
}

/// When the first of those began that are open at a cut and are committed behind it.
fn open_since(looked: &[Looked], found: &[(Transactions, i64)]) -> Option<i64> {
    let begun = looked.iter().zip(found).flat_map(|(looked, (found, cut))| {
        let parts = found.parts();
        let times = parts.iter().filter(|part| part.is_open_at(*cut)).map(|part| {
            // Never seen without it: it may be as old as the log.
            looked.samples.time_before(part.first_offset).unwrap_or(i64::MIN)
        });
        times.collect::<Vec<_>>()
    });
    begun.min()
}

fn open_at(parts: &[Part], cut: i64) -> Vec<PlannedTransaction> {
    let mut open: Vec<PlannedTransaction> = parts
        .iter()
        .filter(|part| part.is_open_at(cut))
        .map(|part| PlannedTransaction {
            producer_id: part.producer_id,
            producer_epoch: part.producer_epoch,
            first_offset: part.first_offset,
        })
        .collect();
    open.sort_unstable_by_key(|open| (open.first_offset, open.producer_id));
    open
}

fn told(looked: &[Looked], settled: &[Partition], pulls: &[Pull], halves: &[Half], time_ms: i64) -> Cuts {
    let mut cuts = Cuts::default();
    let name = |number: usize| looked.get(number).map_or("", |l| l.name.as_str());
    for (looked, settled) in looked.iter().zip(settled) {
        let Looked { name, unsure, samples, .. } = looked;
        if !samples.is_seen_after(time_ms) && !looked.offsets.is_empty() {
            let seen =
                samples.seen_before_ms(time_ms).map_or_else(|| "never".to_owned(), |ms| ms.to_string());
            cuts.notes.push(format!(
                "{name}: the archive looked at it last at {seen} (milliseconds), not after the time that is wanted: \
                 what came in between is not in it"
            ));
        }
        if !unsure.is_empty() {
            cuts.notes.push(format!(
                "{name}: offsets {} to {} came between two looks at it: those are taken that say that they are not \
                 younger, up to the first that is; it ends at offset {}",
                unsure.start,
                unsure.end.saturating_sub(1),
                settled.cut
            ));
        }
        let cut = Cut { end_offset: settled.cut, open: open_at(&settled.parts, settled.cut) };
        cuts.by_partition.insert((looked.topic_id, looked.partition), cut);
    }
    for pull in pulls {
        let how =
            if pull.is_sure { "" } else { " (told from the producer's others by the time of its markers)" };
        cuts.notes.push(format!(
            "{}: ends at offset {} instead of {}: a transaction of producer {} that is committed in another \
             partition{how} is committed there",
            name(pull.partition),
            pull.to,
            pull.from,
            pull.producer_id
        ));
    }
    for half in halves {
        let (open_in, committed_in) = (name(half.open_in), name(half.committed_in));
        cuts.refusals.push(Refusal {
            what: format!(
                "a transaction of producer {} is committed in {committed_in}, and its end in {open_in} (begun at \
                 offset {}) is not in the archive",
                half.producer_id, half.first_offset
            ),
            todo: "restore from a later snapshot (--at), or as of an earlier time".to_owned(),
        });
    }
    cuts
}
