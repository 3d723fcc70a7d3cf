//! What the brokers have deleted by now, and only the journal still has, becomes a segment.
//!
//! Entries that nothing opens any more cost no others: what comes before them is kept first, and where the source does
//! not have their offsets either, a gap up to their end leads to those behind them.

use bytes::Bytes;
use varve_archive::record::branch::{EpochEntry, epoch_before};
use varve_archive::record::bundle::BundleEntry;
use varve_archive::record::gap::GapReason;
use varve_archive::record::state::JournalEntry;
use varve_archive::{BundleName, ObjectHead};
use varve_format::{DataKey, Decoder, EpochStart, ObjectKey, Observed};
use varve_kafka::protocol::Batches;

use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::segment::{Lane, SegmentWriter, Style};
use crate::standing::Standing;

const LOST: &str = "nothing opens what the journal has of it any more";

/// A gap where the journal's first entries were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) end_offset: i64,
    /// Not another archiver's, which was first.
    pub(crate) is_ours: bool,
}

/// Up to the first entry that nothing opens any more. `false` where the journal has nothing to go on with. Whoever wins
/// the race, the chain has gone on.
pub(crate) async fn from_journal(lane: &Lane, style: &Style, standing: &Standing) -> Result<bool> {
    if standing.journal.is_empty() {
        return Ok(false);
    }
    // Of its own: what the journal holds of one partition is less than a segment.
    let memory = Memory::new(usize::MAX);
    let mut writer = SegmentWriter::new(
        lane.clone(),
        std::sync::Arc::new(style.clone()),
        lane.seal().await?,
        standing.begin(),
        memory.no_room(),
    )?;
    let mut looks = Vec::new();
    for entry in &standing.journal {
        let Some(found) = Found::of(lane, entry).await? else { break };
        let kept = behind(lane, &Bytes::from(found.log()?), writer.end_offset())?;
        looks.extend(found.head.footer.info.observed);
        writer.push(&kept, memory.no_room()).await?;
    }
    writer.observe(looks);
    if writer.bytes() == 0 {
        return Ok(false);
    }
    let (closing, _) = writer.close()?;
    closing.commit().await?;
    Ok(true)
}

/// Writes a gap over the journal's first entries if nothing opens them any more and others behind them can be read, and
/// if it ends at or below `limit`: what lies above that the source still has. `None` where there is no such gap; else
/// the chain has gone on, whoever wins the race.
///
/// Of an entry that has expired the same is tried: where the chains have it, the gap's name is taken.
pub(crate) async fn pass_lost(
    lane: &Lane,
    style: &Style,
    standing: &Standing,
    limit: i64,
) -> Result<Option<Passed>> {
    if limit <= standing.end_offset {
        return Ok(None);
    }
    let mut lost: Vec<&JournalEntry> = Vec::new();
    for entry in &standing.journal {
        if Found::of(lane, entry).await?.is_none() {
            lost.push(entry);
            continue;
        }
        let Some(last) = lost.last() else { return Ok(None) };
        let end_offset = joint(standing, last, entry);
        if end_offset > limit {
            return Ok(None);
        }
        // With these what is behind the gap joins it.
        let epochs = lost.iter().flat_map(|entry| &entry.leader_epochs);
        let epochs: Vec<EpochStart> =
            epochs.map(|e| EpochStart { epoch: e.epoch, start_offset: e.start_offset }).collect();
        let detail = Some(LOST.to_owned());
        let is_ours = standing.gap(lane, style, end_offset, GapReason::Lost, detail, &epochs).await?;
        return Ok(Some(Passed { end_offset, is_ours }));
    }
    Ok(None)
}

/// Where `next` goes on behind a gap over `lost`: it may hold some of its offsets.
fn joint(standing: &Standing, lost: &JournalEntry, next: &JournalEntry) -> i64 {
    let at = next.first_offset;
    let before = |epochs: &[EpochEntry]| epoch_before(epochs, at);
    let joins = at > standing.end_offset && before(&lost.leader_epochs) == before(&next.leader_epochs);
    if joins { at.min(lost.end_offset) } else { lost.end_offset }
}

/// What those who wrote these entries saw of the partition, in their order. Of what has expired there is nothing.
pub(crate) async fn looks(lane: &Lane, entries: &[JournalEntry]) -> Result<Vec<Observed>> {
    let mut looks = Vec::new();
    for entry in entries {
        if let Some(found) = Found::of(lane, entry).await? {
            looks.extend(found.head.footer.info.observed);
        }
    }
    Ok(looks)
}

/// The batches of an entry of the journal. `None` once it has expired (the chain went on meanwhile), and where its
/// data key was destroyed.
pub(crate) async fn journal_log(lane: &Lane, entry: &JournalEntry) -> Result<Option<Bytes>> {
    match Found::of(lane, entry).await? {
        Some(found) => Ok(Some(Bytes::from(found.log()?))),
        None => Ok(None),
    }
}

/// An entry of the journal, opened.
struct Found {
    head: ObjectHead,
    object: Bytes,
    key: Option<ObjectKey>,
}

impl Found {
    async fn of(lane: &Lane, entry: &JournalEntry) -> Result<Option<Self>> {
        let bundle = BundleName { archiver: entry.archiver.clone(), sequence: entry.sequence };
        let sought = BundleEntry {
            topic_id: lane.topic.topic_id,
            partition: lane.partition,
            branch: entry.branch,
            first_offset: entry.first_offset,
            end_offset: entry.end_offset,
            position: entry.position,
            bytes: entry.bytes,
            footer: entry.footer,
            leader_epochs: entry.leader_epochs.clone(),
        };
        let Some((head, object)) = lane.archive.bundle_object(&bundle, &sought).await? else {
            return Ok(None);
        };
        match lane.sealing.key_of(&head.name, &head.footer).await {
            Ok(key) => Self::open(head, object, key.as_ref()).map(Some),
            Err(Error::Keys(error)) if error.kind == varve_keys::Kind::Destroyed => {
                tracing::warn!(partition = %lane, %error, "nothing opens an entry of the journal any more");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn open(mut head: ObjectHead, object: Bytes, key: Option<&DataKey>) -> Result<Self> {
        let fail = |source| Error::Segment { what: head.name.clone(), source };
        let (Some(info), Some(key)) = (&head.footer.encryption, key) else {
            return Ok(Self { head, object, key: None });
        };
        let key = key.object_key(&info.salt, head.footer.object_id).map_err(fail)?;
        let (from, bytes) = (head.trailer.footer_offset, u64::from(head.trailer.footer_bytes));
        let footer = object.get(from as usize..from.saturating_add(bytes) as usize);
        let footer = footer.ok_or_else(|| Error::unexpected(&head.name, "a whole footer", object.len()))?;
        let unlocked = head.footer.unlock(footer, &key, from);
        unlocked.map_err(|source| Error::Segment { what: head.name.clone(), source })?;
        Ok(Self { head, object, key: Some(key) })
    }

    /// The plain log, each frame checked.
    fn log(&self) -> Result<Vec<u8>> {
        let (head, object) = (&self.head, &self.object);
        let fail = |source| Error::Segment { what: head.name.clone(), source };
        let mut decoder = Decoder::new(&head.footer, self.key.as_ref()).map_err(fail)?;
        let mut log = Vec::new();
        for extent in head.footer.chunks() {
            for number in extent.first_frame..extent.first_frame + extent.frame_count() {
                let frame = head.footer.frame(number).map_err(fail)?;
                let stored = frame.stored.start as usize..frame.stored.end as usize;
                let stored = object
                    .get(stored)
                    .ok_or_else(|| Error::unexpected(&head.name, "all frames", object.len()))?;
                let from = log.len();
                log.resize(from + frame.plain_bytes as usize, 0);
                decoder.decode(&frame, stored, log.get_mut(from..).unwrap_or_default()).map_err(fail)?;
            }
        }
        Ok(log)
    }
}

/// The batches that end behind `offset`.
fn behind(lane: &Lane, log: &Bytes, offset: i64) -> Result<Bytes> {
    let mut position = 0;
    for batch in Batches::new(log.clone(), 0) {
        let batch = batch.map_err(|source| Error::Batches { what: lane.to_string(), source })?;
        if batch.header.next_offset() > offset {
            break;
        }
        position += batch.bytes.len();
    }
    Ok(log.slice(position..))
}
