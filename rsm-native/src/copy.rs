//! Copying a closed segment: read, checksum, transform and upload overlap, in one object.
//!
//! One thread reads and encodes; each part goes up by a task of its own. Memory is one buffer for each part
//! under way, all from one budget: a copy that waits for a buffer holds none, so none waits for another.
//!
//! A failure aborts the upload and deletes the object before it is reported: nothing is left. What can't be
//! cleaned then (the store is down) is kept on the list of [`crate::sweep`]; after kill -9 an unfinished upload
//! stays, invisible to readers, until a sweep finds it by its age.

mod output;
mod source;

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::Instant;
use varve_format::{Encoder, Encryption, EncryptionInfo, Id, Plan, SegmentInfo, WriteOptions};
use varve_store::{Key, SharedStore};

use self::output::Output;
use self::source::{Source, read_exact};
use crate::buffers::Buffers;
use crate::config::{Config, TopicPolicy};
use crate::error::{Error, Kind, Result};
use crate::keys::{Keys, random};
use crate::operation::Cancel;
use crate::sweep::{Sweep, Traces};
use crate::wire::{CopyRequest, SegmentMetadata};

/// How much is read from a file at once: small enough to be in the cache when it is checksummed.
const READ_BYTES: usize = 256 << 10;
const WHAT: &str = "the copy";

/// All that copying needs.
pub struct Copier {
    pub config: Arc<Config>,
    pub store: SharedStore,
    pub keys: Arc<Keys>,
    pub buffers: Arc<Buffers>,
    pub sweep: Arc<Sweep>,
}

impl Copier {
    /// Returns the custom metadata for the broker.
    pub async fn copy(
        self: &Arc<Self>,
        request: CopyRequest,
        cancel: Cancel,
        now_ms: i64,
    ) -> Result<Vec<u8>> {
        let key = crate::read::segment::object_key(&self.config, &request.metadata)?;
        let policy = self.config.policy(&request.metadata.topic).clone();
        let (encryption, key_until) = match policy.encrypt {
            false => (None, None),
            true => {
                let m = &request.metadata;
                let (data_key, period, until) = cancel
                    .run(
                        WHAT,
                        self.keys.for_write(&self.config.cluster_id, m.topic_id, policy.key.as_ref(), now_ms),
                    )
                    .await??;
                (Some(Encryption { key: data_key, period, salt: random()? }), Some(until))
            }
        };
        let traces = Arc::new(Traces::default());
        let job = Job {
            copier: self.clone(),
            key: key.clone(),
            options: write_options(&policy, encryption)?,
            policy,
            key_until,
            request,
            cancel,
            handle: Handle::current(),
            traces: traces.clone(),
            now_ms,
        };
        let outcome = match tokio::task::spawn_blocking(move || job.run()).await {
            Ok(outcome) => outcome,
            Err(e) => Err(Error::internal(WHAT, e)),
        };
        match outcome {
            Err(e) if !self.sweep.clean(&key, &traces).await => {
                // Not retriable: after that, brokers of 4.3 would not call delete.
                let kind = if e.kind == Kind::Retry { Kind::Unclean } else { e.kind };
                Err(Error::new(kind, format!("{e}; what it left could not be cleaned up yet")))
            }
            outcome => outcome,
        }
    }
}

fn write_options(policy: &TopicPolicy, encryption: Option<Encryption>) -> Result<WriteOptions> {
    Ok(WriteOptions {
        frame_bytes: policy.frame_bytes(),
        chunk_bytes: policy.chunk_bytes,
        compression: policy.compression,
        digest: policy.digest,
        encryption,
        object_id: Id(random()?),
    })
}

struct Job {
    copier: Arc<Copier>,
    key: Key,
    policy: TopicPolicy,
    options: WriteOptions,
    key_until: Option<Instant>,
    request: CopyRequest,
    cancel: Cancel,
    handle: Handle,
    traces: Arc<Traces>,
    now_ms: i64,
}

impl Job {
    fn run(self) -> Result<Vec<u8>> {
        let source = Source::open(&self.request)?;
        let sizes: Vec<_> = source.sections.iter().map(|(kind, s)| (*kind, s.bytes())).collect();
        let fail = |e| Error::format(&format!("{}/{}", self.copier.config.store_url, self.key), e);
        let info = info(&self.copier.config, &self.request.metadata, self.now_ms);
        // Before the first byte is sent, not after the last.
        info.check().map_err(fail)?;
        let plan = Plan::new(source.log.1, self.options.chunk_bytes, &sizes).map_err(fail)?;
        let plain_bytes = source.log.1 + sizes.iter().map(|(_, n)| n).sum::<u64>();
        let mut encoder = Encoder::new(self.options.clone(), plan).map_err(fail)?;
        let mut output = Output::new(&self, plain_bytes)?;
        if encoder.is_identity() {
            self.pass_log(&source, &mut encoder, &mut output)?;
        } else if let Some(tag_bytes) = encoder.seals_in_place() {
            self.seal_log(&source, &mut encoder, &mut output, tag_bytes)?;
        } else {
            let (file, bytes) = &source.log;
            self.encode(&mut encoder, &mut output, *bytes, |at, buffer| {
                read_exact(file, &self.request.log, at, buffer)
            })?;
        }
        for (kind, section) in &source.sections {
            self.encode(&mut encoder, &mut output, section.bytes(), |at, buffer| {
                section.read(*kind, at, buffer)
            })?;
        }
        let mut end = Vec::new();
        let finished = encoder.finish(info, &mut end).map_err(fail)?;
        output.push(&end)?;
        self.check_key()?;
        output.finish(&finished)?;
        finished.custom_metadata(&self.copier.config.store_id, None).encode().map_err(fail)
    }

    /// A copy may take longer than a key may be used without asking: what was destroyed meanwhile seals nothing.
    fn check_key(&self) -> Result<()> {
        let (Some(until), Some(encryption)) = (self.key_until, &self.options.encryption) else {
            return Ok(());
        };
        if Instant::now() < until {
            return Ok(());
        }
        let info = EncryptionInfo {
            data_key_id: encryption.key.id,
            period: encryption.period.clone(),
            salt: encryption.salt,
        };
        let (cluster_id, topic_id) = (&self.copier.config.cluster_id, self.request.metadata.topic_id);
        let asked = self.copier.keys.for_read(cluster_id, topic_id, &info);
        self.handle.block_on(self.cancel.run(WHAT, asked))?.map(drop)
    }

    /// Runs a call that leaves something in the store. Cancelled, it is not dropped half way, since what it
    /// began might end unseen, after the cleaning: it goes on, and the cleaning waits for it.
    fn effect<T: Send + 'static>(
        &self,
        call: impl Future<Output = varve_store::Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.traces.touch();
        let mut task = self.handle.spawn(call);
        match self.handle.block_on(self.cancel.run(WHAT, &mut task)) {
            Ok(Ok(done)) => Ok(done?),
            Ok(Err(e)) => Err(Error::internal(WHAT, e)),
            Err(cancelled) => {
                self.traces.under_way(async move { drop(task.await) });
                Err(cancelled)
            }
        }
    }

    /// The log as it is: read straight into the part's buffer, and checksummed there.
    fn pass_log(&self, source: &Source, encoder: &mut Encoder, output: &mut Output<'_>) -> Result<()> {
        let (file, log_bytes) = &source.log;
        // Whole frames: the largest are longer than what is read at once.
        let read_bytes = READ_BYTES.max(self.options.frame_bytes as usize);
        let mut at = 0;
        while at < *log_bytes {
            self.cancel.check(WHAT)?;
            let left = usize::try_from(log_bytes - at).unwrap_or(usize::MAX);
            let place = output.place;
            let buffer = output.buffer()?;
            let target = buffer.free(left.min(read_bytes));
            read_exact(file, &self.request.log, at, target)?;
            let mut rest: &[u8] = target;
            while let Some(n) = encoder.next_frame_bytes().filter(|n| *n <= rest.len() && !rest.is_empty()) {
                let (frame, after) = rest.split_at(n);
                encoder.pass(frame).map_err(|e| Error::format(place, e))?;
                rest = after;
            }
            let taken = target.len() - rest.len();
            if !rest.is_empty() {
                return Err(Error::internal(
                    WHAT,
                    format!("{} bytes at {at} are no whole frames", target.len()),
                ));
            }
            buffer.advance(taken);
            at += taken as u64;
        }
        Ok(())
    }

    /// The log encrypted: read straight into the part's buffer, and sealed there. A frame that would reach into the
    /// next part is sealed beside.
    fn seal_log(
        &self,
        source: &Source,
        encoder: &mut Encoder,
        output: &mut Output<'_>,
        tag_bytes: usize,
    ) -> Result<()> {
        let (file, log_bytes) = &source.log;
        let mut beside = vec![0; self.options.frame_bytes as usize + tag_bytes];
        let mut at = 0;
        while at < *log_bytes {
            self.cancel.check(WHAT)?;
            let n = encoder.next_frame_bytes();
            let n = n.ok_or_else(|| Error::internal(WHAT, format!("no frame at {at} of {log_bytes}")))?;
            let (place, stored) = (output.place, n + tag_bytes);
            let mut seal = |frame: &mut [u8]| {
                read_exact(file, &self.request.log, at, frame.get_mut(..n).unwrap_or_default())?;
                encoder.seal(frame).map_err(|e| Error::format(place, e))
            };
            let buffer = output.buffer()?;
            if buffer.free_bytes() >= stored {
                seal(buffer.free(stored))?;
                buffer.advance(stored);
            } else {
                let frame = beside.get_mut(..stored).unwrap_or_default();
                seal(frame)?;
                output.push(frame)?;
            }
            at += n as u64;
        }
        Ok(())
    }

    fn encode(
        &self,
        encoder: &mut Encoder,
        output: &mut Output<'_>,
        bytes: u64,
        read: impl Fn(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut plain = vec![0; self.options.frame_bytes as usize];
        let mut stored = Vec::new();
        let mut at = 0;
        while at < bytes {
            self.cancel.check(WHAT)?;
            let n = encoder.next_frame_bytes();
            let frame = n.and_then(|n| plain.get_mut(..n));
            let frame = frame.ok_or_else(|| Error::internal(WHAT, format!("no frame at {at} of {bytes}")))?;
            read(at, frame)?;
            stored.clear();
            encoder.frame(frame, &mut stored).map_err(|e| Error::format(output.place, e))?;
            output.push(&stored)?;
            at += frame.len() as u64;
        }
        Ok(())
    }
}

fn info(config: &Config, metadata: &SegmentMetadata, now_ms: i64) -> SegmentInfo {
    SegmentInfo {
        writer: concat!("varve-rsm ", env!("CARGO_PKG_VERSION")).to_owned(),
        cluster_id: config.cluster_id.clone(),
        topic_id: metadata.topic_id,
        topic: metadata.topic.clone(),
        partition: metadata.partition,
        segment_id: Some(metadata.segment_id),
        base_offset: metadata.start_offset,
        last_offset: metadata.end_offset,
        max_timestamp_ms: metadata.max_timestamp_ms.max(-1),
        created_ms: now_ms,
        broker_id: Some(metadata.broker_id).filter(|id| *id >= 0),
        leader_epochs: metadata.leader_epochs.clone(),
        observed: Vec::new(),
    }
}
