//! What is not worth a segment yet, kept safe meanwhile: the newest batches of many partitions in one object.
//!
//! Partitions bring what they hold; one task puts what has come together into a bundle, so that the number of
//! requests follows time, not partitions. A crash leaves a bundle or none; a bundle that is there is found at the
//! next start, and goes when the chains have all of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use varve_archive::record::bundle::{BundleEntry, BundleIndex};
use varve_archive::record::state::JournalEntry;
use varve_archive::{Archive, BundleBuilder, BundleName, Coverage, Place, names};
use varve_format::{Encoder, Encryption, EpochStart, Id, Observed, Plan, SegmentInfo};
use varve_kafka::protocol::Batches;

use crate::clock;
use crate::error::{Error, Result};
use crate::memory::Room;
use crate::progress::Progress;
use crate::segment::{Lane, Style};
use crate::tail::Key;

/// What comes within this of the first goes into the same bundle.
const GATHER: Duration = Duration::from_millis(100);
/// A bundle is written when it is this large, whatever else may come.
const BUNDLE_BYTES: u64 = 32 << 20;
/// An index has room for more; many small bundles cost more than one.
const BUNDLE_ENTRIES: usize = 10_000;

/// One partition's batches, on their way.
pub(crate) struct Item {
    pub(crate) lane: Lane,
    pub(crate) branch: u32,
    pub(crate) first_offset: i64,
    pub(crate) object: Bytes,
    pub(crate) room: Room,
    pub(crate) answer: oneshot::Sender<Result<JournalEntry, String>>,
}

/// Writes bundles. Dropping it ends the task.
#[derive(Clone)]
pub(crate) struct Journal {
    items: mpsc::Sender<Item>,
    written: Arc<Mutex<VecDeque<BundleName>>>,
}

impl Journal {
    pub(crate) fn start(archive: Archive, name: String, writer: String, progress: Arc<Progress>) -> Self {
        // Another name with each start: no name of a bundle comes back.
        let name = names::archiver(&name, Id(rand::random()));
        let (items, receiver) = mpsc::channel(64);
        let written = Arc::new(Mutex::new(VecDeque::new()));
        tokio::spawn(write_bundles(archive, name, writer, receiver, Arc::clone(&written), progress));
        Self { items, written }
    }

    pub(crate) async fn put(&self, item: Item) {
        // Who waits for the answer hears of the end by it.
        let _ = self.items.send(item).await;
    }

    /// Takes bundles that were found at the start for its own, as far as expiry goes.
    pub(crate) fn inherit(&self, bundles: Vec<BundleName>) {
        self.written.lock().extend(bundles);
    }

    /// Deletes bundles that the chains cover, each writer's oldest first. `known` tells where a chain ends.
    pub(crate) async fn expire(
        &self,
        archive: &Archive,
        known: impl Fn(Key, u32) -> Option<i64>,
    ) -> Result<u64> {
        let mut writers: BTreeMap<String, VecDeque<BundleName>> = BTreeMap::new();
        for bundle in self.written.lock().iter() {
            writers.entry(bundle.archiver.clone()).or_default().push_back(bundle.clone());
        }
        let (mut expired, mut coverage) = (0, Coverage::new(archive));
        for mut bundles in writers.into_values() {
            // A writer's newest stays: its number is not given again.
            bundles.pop_back();
            for bundle in bundles {
                if let Some(index) = archive.bundle(&bundle).await? {
                    let behind = |e: &BundleEntry| {
                        known((e.topic_id, e.partition), e.branch).is_some_and(|end| end < e.end_offset)
                    };
                    if index.entries.iter().any(behind) {
                        break;
                    }
                    // What no chain has stays: it is the only copy.
                    if !archive.expire_bundle(&index, &mut coverage).await? {
                        continue;
                    }
                    expired += 1;
                }
                self.written.lock().retain(|name| *name != bundle);
            }
        }
        Ok(expired)
    }
}

async fn write_bundles(
    archive: Archive,
    name: String,
    writer: String,
    mut items: mpsc::Receiver<Item>,
    written: Arc<Mutex<VecDeque<BundleName>>>,
    progress: Arc<Progress>,
) {
    let mut known = 0;
    while let Some(first) = items.recv().await {
        let mut gathered = vec![first];
        let mut bytes = gathered.iter().map(|item| item.object.len() as u64).sum::<u64>();
        let until = tokio::time::Instant::now() + GATHER;
        while bytes < BUNDLE_BYTES && gathered.len() < BUNDLE_ENTRIES {
            match tokio::time::timeout_at(until, items.recv()).await {
                Ok(Some(item)) => {
                    bytes += item.object.len() as u64;
                    gathered.push(item);
                }
                _ => break,
            }
        }
        let outcome = write_bundle(&archive, &name, &writer, known, &gathered).await;
        if let Ok(index) = &outcome {
            known = index.sequence;
            progress.tally.bundle(index.entries.len());
            written.lock().push_back(BundleName { archiver: name.clone(), sequence: known });
        }
        answer(gathered, outcome);
    }
}

async fn write_bundle(
    archive: &Archive,
    name: &str,
    writer: &str,
    known: u64,
    items: &[Item],
) -> Result<BundleIndex, varve_archive::Error> {
    let mut builder = BundleBuilder::default();
    for item in items {
        let place = Place {
            topic_id: item.lane.topic.topic_id,
            partition: item.lane.partition,
            first_offset: item.first_offset,
        };
        builder.add(archive, item.branch, place, item.object.clone())?;
    }
    archive.put_bundle(name, known, builder, writer, clock::now_ms()).await
}

fn answer(items: Vec<Item>, outcome: Result<BundleIndex, varve_archive::Error>) {
    let index = match outcome {
        Ok(index) => index,
        Err(error) => {
            for item in items {
                let _ = item.answer.send(Err(error.to_string()));
            }
            return;
        }
    };
    let bundle = BundleName { archiver: index.archiver.clone(), sequence: index.sequence };
    let by_place: HashMap<_, _> =
        index.entries.iter().map(|e| ((e.topic_id, e.partition, e.branch, e.first_offset), e)).collect();
    for item in items {
        drop(item.room);
        let place = (item.lane.topic.topic_id, item.lane.partition, item.branch, item.first_offset);
        let entry = by_place.get(&place).map(|entry| entry.in_snapshot(&bundle));
        let _ = item.answer.send(entry.ok_or_else(|| "not in its bundle".to_owned()));
    }
}

/// A journal's object: the batches from `first_offset` on, each checked, without indexes; sealed as a segment of them
/// would be. Also what the epoch is behind them.
pub(crate) fn object(
    lane: &Lane,
    style: &Style,
    seal: Option<Encryption>,
    first_offset: i64,
    epoch_before: Option<EpochStart>,
    observed: Vec<Observed>,
    records: &[u8],
) -> Result<(Bytes, Option<EpochStart>)> {
    let batches = |source| Error::Batches { what: lane.to_string(), source };
    let segment = |source| Error::Segment { what: lane.to_string(), source };
    lane.sealing.check(&lane.topic.name, seal.as_ref())?;
    let (mut end_offset, mut max_timestamp_ms) = (first_offset, -1);
    let mut leader_epochs: Vec<EpochStart> = epoch_before.into_iter().collect();
    for batch in Batches::new(Bytes::copy_from_slice(records), 0) {
        let batch = batch.map_err(batches)?;
        batch.check_crc().map_err(batches)?;
        let header = &batch.header;
        if header.next_offset() <= end_offset {
            return Err(Error::unexpected(lane, format!("a batch behind {end_offset}"), header.base_offset));
        }
        let epoch = header.partition_leader_epoch;
        if epoch >= 0 && leader_epochs.last().is_none_or(|last| last.epoch < epoch) {
            let start_offset = header.base_offset.max(first_offset);
            leader_epochs.push(EpochStart { epoch, start_offset });
        }
        end_offset = header.next_offset();
        max_timestamp_ms = max_timestamp_ms.max(header.max_timestamp_ms);
    }
    let epoch_after = leader_epochs.last().copied();
    let info = SegmentInfo {
        max_timestamp_ms,
        leader_epochs,
        observed,
        ..lane.info(style, first_offset..end_offset)
    };
    let options = style.options(seal);
    let plan = Plan::new(records.len() as u64, options.chunk_bytes, &[]).map_err(segment)?;
    let mut encoder = Encoder::new(options, plan).map_err(segment)?;
    let (mut out, mut rest) = (Vec::with_capacity(records.len() + 1024), records);
    while let Some(bytes) = encoder.next_frame_bytes() {
        let (frame, later) = rest.split_at(bytes.min(rest.len()));
        encoder.frame(frame, &mut out).map_err(segment)?;
        rest = later;
    }
    encoder.finish(info, &mut out).map_err(segment)?;
    Ok((Bytes::from(out), epoch_after))
}

/// All that the journal has, by partition, and the bundles it is in.
pub(crate) async fn found(archive: &Archive) -> Result<(HashMap<Key, Vec<JournalEntry>>, Vec<BundleName>)> {
    let (mut entries, mut bundles): (HashMap<Key, Vec<JournalEntry>>, _) = (HashMap::new(), Vec::new());
    let mut after: Option<BundleName> = None;
    while let Some(name) = archive.next_bundle(after.as_ref()).await? {
        let index = match archive.bundle(&name).await {
            Err(error) if error.kind() == varve_archive::Kind::Corrupt => {
                // What it had is read from the source again, or becomes a gap that says so.
                tracing::error!(%error, "a bundle of the journal is passed over");
                None
            }
            index => index?,
        };
        if let Some(index) = index {
            for entry in &index.entries {
                let key = (entry.topic_id, entry.partition);
                entries.entry(key).or_default().push(entry.in_snapshot(&name));
            }
            bundles.push(name.clone());
        }
        after = Some(name);
    }
    Ok((entries, bundles))
}
