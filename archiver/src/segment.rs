//! A segment object that is made while its batches arrive.
//!
//! Each batch is checked once (its CRC, its place in the log), by what builds the indexes; from then on the
//! object's own checksums vouch for it. Full parts are sent at once, so that memory is a part and what is on its
//! way, whatever the segment's size. Nothing is visible before [`Closing::commit`]; a writer that is dropped, or
//! dies, leaves at most an unfinished upload.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use varve_archive::{Archive, Commit};
use varve_format::{
    Compression, DigestAlgorithm, Encoder, Encryption, EpochStart, ExtentKind, Id, Observed, Plan,
    SegmentInfo, WriteOptions,
};
use varve_kafka::protocol::{BuiltSegment, LogState, ProducerExpiry, SegmentBuilder, SegmentRules};
use varve_store::{Create, PutOptions, SharedStore};

use crate::clock;
use crate::error::{Error, Result};
use crate::memory::Room;
use crate::sealing::{AtHand, Sealing};
use crate::tail::Key;
use crate::transactions::OpenTransactions;
use crate::upload::Uploading;

/// How objects are written.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    pub(crate) frame_bytes: u32,
    pub(crate) chunk_bytes: u32,
    pub(crate) compression: Compression,
    pub(crate) digest: DigestAlgorithm,
    /// A multiple of `frame_bytes`.
    pub(crate) part_bytes: usize,
    pub(crate) parallel_parts: usize,
    pub(crate) storage_class: Option<String>,
    pub(crate) writer: String,
}

/// One partition of one topic, and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) archive: Archive,
    pub(crate) store: SharedStore,
    pub(crate) sealing: Arc<Sealing>,
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: i32,
}

/// What is known of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) topic_id: Id,
    pub(crate) name: String,
    pub(crate) cluster_id: String,
    /// If it is compacted: how long deletions can be read.
    pub(crate) delete_retention_ms: Option<i64>,
    pub(crate) index_interval_bytes: u32,
}

impl Lane {
    pub(crate) fn key(&self) -> Key {
        (self.topic.topic_id, self.partition)
    }

    pub(crate) fn partition(&self) -> varve_archive::Partition<'_> {
        self.archive.partition(self.topic.topic_id, self.partition)
    }

    /// What an object that is begun now is sealed with, without waiting.
    pub(crate) fn seal_at_hand(&self) -> Result<AtHand> {
        self.sealing.at_hand(&self.topic)
    }

    /// What an object that is begun now is sealed with, if it is.
    pub(crate) async fn seal(&self) -> Result<Option<Encryption>> {
        self.sealing.seal(&self.topic).await
    }

    /// What an object of these offsets, made now, says of itself, but for what is in it.
    pub(crate) fn info(&self, style: &Style, offsets: Range<i64>) -> SegmentInfo {
        SegmentInfo {
            writer: style.writer.clone(),
            cluster_id: self.topic.cluster_id.clone(),
            topic_id: self.topic.topic_id,
            topic: self.topic.name.clone(),
            partition: self.partition,
            segment_id: None,
            base_offset: offsets.start,
            last_offset: offsets.end - 1,
            max_timestamp_ms: -1,
            created_ms: clock::now_ms(),
            broker_id: None,
            leader_epochs: Vec::new(),
            observed: Vec::new(),
        }
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic.name, self.partition)
    }
}

/// Where a segment begins, and what came before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Begin {
    pub(crate) branch: u32,
    pub(crate) offset: i64,
    /// The lineage's last epoch before `offset`.
    pub(crate) epoch_before: Option<EpochStart>,
    pub(crate) state: LogState,
    /// Whether `state` is all that came before, so that a broker's snapshot can be made of it.
    pub(crate) state_is_whole: bool,
}

impl Begin {
    /// Before `offset`, where they are known.
    pub(crate) fn open_transactions(&self) -> Option<OpenTransactions> {
        self.state_is_whole.then(|| OpenTransactions::of(&self.state))
    }
}

/// See the module.
pub(crate) struct SegmentWriter {
    lane: Lane,
    style: Arc<Style>,
    begin: Begin,
    builder: SegmentBuilder,
    encoder: Encoder,
    object_id: Id,
    /// Plain bytes that don't fill a frame yet; used only where stored bytes are others.
    plain: Vec<u8>,
    /// Stored bytes that don't fill a part yet, of which so many are in frames.
    part: Vec<u8>,
    framed: usize,
    parts: u32,
    uploading: Option<Uploading>,
    room: Room,
    observed: Vec<Observed>,
}

/// A segment whose last byte was made.
pub(crate) struct Closing {
    lane: Lane,
    style: Arc<Style>,
    branch: u32,
    base_offset: i64,
    object_id: Id,
    rest: Vec<u8>,
    parts: u32,
    uploading: Option<Uploading>,
    room: Room,
}

impl SegmentWriter {
    /// Each with a `seal` of its own.
    pub(crate) fn new(
        lane: Lane,
        style: Arc<Style>,
        seal: Option<Encryption>,
        begin: Begin,
        room: Room,
    ) -> Result<Self> {
        let expiry = ProducerExpiry { now_ms: clock::now_ms(), after_ms: clock::DAY_MS };
        let rules = SegmentRules {
            index_interval_bytes: lane.topic.index_interval_bytes,
            producer_expiry: Some(expiry),
        };
        let builder =
            SegmentBuilder::new(begin.offset, begin.state.clone(), rules).map_err(batches(&lane))?;
        lane.sealing.check(&lane.topic.name, seal.as_ref())?;
        let options = style.options(seal);
        let object_id = options.object_id;
        let plan = Plan::open(options.chunk_bytes).map_err(segment(&lane))?;
        let encoder = Encoder::new(options, plan).map_err(segment(&lane))?;
        Ok(Self {
            lane,
            style,
            begin,
            builder,
            encoder,
            object_id,
            plain: Vec::new(),
            part: Vec::new(),
            framed: 0,
            parts: 0,
            uploading: None,
            room,
            observed: Vec::new(),
        })
    }

    /// Of the log.
    pub(crate) fn bytes(&self) -> u64 {
        self.builder.summary().size_bytes
    }

    pub(crate) fn end_offset(&self) -> i64 {
        self.builder.summary().next_offset
    }

    /// Where the source stood, and when.
    pub(crate) fn observe(&mut self, observed: Vec<Observed>) {
        self.observed = observed;
    }

    /// Whole batches, with the room that they take. Waits while too many parts are on their way.
    pub(crate) async fn push(&mut self, records: &[u8], room: Room) -> Result<()> {
        self.builder.feed(records).map_err(batches(&self.lane))?;
        self.room.join(room);
        if self.encoder.is_identity() {
            self.push_as_is(records).await
        } else {
            self.push_encoded(records).await
        }
    }

    async fn push_as_is(&mut self, mut records: &[u8]) -> Result<()> {
        while !records.is_empty() {
            if self.part.capacity() == 0 && (self.uploading.is_some() || records.len() > 1 << 20) {
                self.part.reserve_exact(self.style.part_bytes);
            }
            let fits = records.len().min(self.style.part_bytes - self.part.len());
            let (now, later) = records.split_at(fits);
            self.part.extend_from_slice(now);
            records = later;
            self.pass_frames()?;
            if self.part.len() == self.style.part_bytes {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Checksums of all frames that are whole. Parts are a number of whole frames.
    fn pass_frames(&mut self) -> Result<()> {
        while let Some(bytes) = self.encoder.next_frame_bytes() {
            let Some(frame) = self.part.get(self.framed..self.framed + bytes) else { break };
            self.encoder.pass(frame).map_err(segment(&self.lane))?;
            self.framed += bytes;
        }
        Ok(())
    }

    async fn push_encoded(&mut self, records: &[u8]) -> Result<()> {
        self.plain.extend_from_slice(records);
        let mut taken = 0;
        while let Some(bytes) = self.encoder.next_frame_bytes() {
            let Some(frame) = self.plain.get(taken..taken + bytes) else { break };
            self.encoder.frame(frame, &mut self.part).map_err(segment(&self.lane))?;
            taken += bytes;
        }
        self.plain.drain(..taken);
        self.room.shrink_to(self.plain.len() + self.part.len());
        while self.part.len() >= self.style.part_bytes {
            self.send_part().await?;
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<()> {
        let later = self.part.split_off(self.style.part_bytes);
        let part = std::mem::replace(&mut self.part, later);
        self.framed = 0;
        let uploading = match self.uploading.take() {
            Some(uploading) => uploading,
            None => self.lane.begin_upload(&self.style, self.begin.branch, self.begin.offset)?,
        };
        self.parts += 1;
        let room = self.room.split(part.len());
        uploading.part(self.parts, Bytes::from(part), room).await;
        self.uploading = Some(uploading);
        Ok(())
    }

    /// Ends the log: what is committed then, and where the next segment begins.
    pub(crate) fn close(mut self) -> Result<(Closing, Begin)> {
        let BuiltSegment { files, summary, state } = self.builder.finish().map_err(batches(&self.lane))?;
        let mut sections =
            vec![(ExtentKind::OffsetIndex, files.offset_index), (ExtentKind::TimeIndex, files.time_index)];
        if !files.transaction_index.is_empty() {
            sections.push((ExtentKind::TransactionIndex, files.transaction_index));
        }
        if self.begin.state_is_whole {
            sections.push((ExtentKind::ProducerSnapshot, files.producer_snapshot));
            sections.push((ExtentKind::LeaderEpochs, files.leader_epochs));
        }
        let fail = segment(&self.lane);
        let sizes: Vec<_> = sections.iter().map(|(kind, bytes)| (*kind, bytes.len() as u64)).collect();
        let identity = self.encoder.is_identity();
        let rest = if identity { self.part.split_off(self.framed) } else { std::mem::take(&mut self.plain) };
        self.encoder.end_log(rest.len() as u64, &sizes).map_err(&fail)?;
        for mut bytes in std::iter::once(rest.as_slice()).chain(sections.iter().map(|(_, b)| b.as_slice())) {
            while !bytes.is_empty() {
                let frame = self.encoder.next_frame_bytes().unwrap_or(bytes.len()).min(bytes.len());
                let (now, later) = bytes.split_at(frame);
                self.encoder.frame(now, &mut self.part).map_err(&fail)?;
                bytes = later;
            }
        }
        let before = self.begin.epoch_before;
        let mut leader_epochs: Vec<EpochStart> = before.into_iter().collect();
        for e in &summary.leader_epochs {
            if leader_epochs.last().is_none_or(|last| last.epoch < e.epoch) {
                let start_offset = e.start_offset.max(self.begin.offset);
                leader_epochs.push(EpochStart { epoch: e.epoch, start_offset });
            }
        }
        let epoch_before = leader_epochs.last().copied();
        let info = SegmentInfo {
            max_timestamp_ms: summary.max_timestamp.map_or(-1, |max| max.timestamp_ms),
            leader_epochs,
            observed: self.observed,
            ..self.lane.info(&self.style, self.begin.offset..summary.next_offset)
        };
        self.encoder.finish(info, &mut self.part).map_err(&fail)?;
        let next = Begin {
            branch: self.begin.branch,
            offset: summary.next_offset,
            epoch_before,
            state,
            state_is_whole: self.begin.state_is_whole,
        };
        let closing = Closing {
            lane: self.lane,
            style: self.style,
            branch: self.begin.branch,
            base_offset: self.begin.offset,
            object_id: self.object_id,
            rest: self.part,
            parts: self.parts,
            uploading: self.uploading,
            room: self.room.leave(),
        };
        Ok((closing, next))
    }
}

impl Closing {
    pub(crate) async fn commit(self) -> Result<Commit> {
        let partition = self.lane.partition();
        let Some(uploading) = self.uploading else {
            let key = partition.object_key(self.branch, self.base_offset)?;
            let storage_class = self.style.storage_class.clone();
            let options = PutOptions { create: Create::IfAbsent, storage_class };
            let outcome = self.lane.store.put(&key, Bytes::from(self.rest), &options).await;
            return Ok(partition.settle(self.branch, self.base_offset, self.object_id, outcome).await?);
        };
        let (mut rest, mut number, mut room) = (Bytes::from(self.rest), self.parts, self.room);
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(self.style.part_bytes));
            number += 1;
            let share = room.split(part.len());
            uploading.part(number, part, share).await;
        }
        let outcome = uploading.complete().await;
        Ok(partition.settle(self.branch, self.base_offset, self.object_id, outcome).await?)
    }
}

impl Style {
    /// Of a new object, with what it is sealed with, if it is.
    pub(crate) fn options(&self, encryption: Option<Encryption>) -> WriteOptions {
        WriteOptions {
            frame_bytes: self.frame_bytes,
            chunk_bytes: self.chunk_bytes,
            compression: self.compression,
            digest: self.digest,
            encryption,
            object_id: Id(rand::random()),
        }
    }
}

impl Lane {
    fn begin_upload(&self, style: &Style, branch: u32, offset: i64) -> Result<Uploading> {
        let key = self.partition().object_key(branch, offset)?;
        let store = Arc::clone(&self.store);
        Ok(Uploading::begin(store, key, style.part_bytes, style.parallel_parts, style.storage_class.clone()))
    }
}

fn batches(lane: &Lane) -> impl Fn(varve_kafka::protocol::ProtocolError) -> Error + use<> {
    let what = lane.to_string();
    move |source| Error::Batches { what: what.clone(), source }
}

fn segment(lane: &Lane) -> impl Fn(varve_format::Error) -> Error + use<> {
    let what = lane.to_string();
    move |source| Error::Segment { what: what.clone(), source }
}
