//! Copying a closed segment: read, checksum, transform and upload overlap, in one object.
//!
//! One thread reads and encodes; each part goes up by a task of its own. Memory is one buffer for each part
//! under way, all from one budget: a copy that waits for a buffer holds none, so none waits for another.
//!
//! A failure aborts the upload and deletes the object before it is reported: nothing is left. What can't be
//! cleaned then (the store is down) is kept on the list of [`crate::sweep`]; after kill -9 an unfinished upload
//! stays, invisible to readers, until a sweep finds it by its age.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use varve_format::{Encoder, Encryption, ExtentKind, Finished, Id, Plan, SegmentInfo, WriteOptions};
use varve_store::{Create, Key, PutOptions, SharedStore, Upload};

use crate::buffers::{Buffer, Buffers};
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

/// The files of a segment, open, with their sizes.
struct Source {
    log: (File, u64),
    sections: Vec<(ExtentKind, Section)>,
}

enum Section {
    File(File, u64),
    Bytes(Vec<u8>),
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
        let encryption = match policy.encrypt {
            false => None,
            true => {
                let m = &request.metadata;
                let (data_key, period) = cancel
                    .run(WHAT, self.keys.for_write(&self.config.cluster_id, m.topic_id, now_ms))
                    .await??;
                Some(Encryption { key: data_key, period, salt: random()? })
            }
        };
        let traces = Arc::new(Traces::default());
        let job = Job {
            copier: self.clone(),
            key: key.clone(),
            options: write_options(&policy, encryption)?,
            policy,
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
        let plan = Plan::new(source.log.1, self.options.chunk_bytes, &sizes).map_err(fail)?;
        let plain_bytes = source.log.1 + sizes.iter().map(|(_, n)| n).sum::<u64>();
        let mut encoder = Encoder::new(self.options.clone(), plan).map_err(fail)?;
        let mut output = Output::new(&self, plain_bytes)?;
        if encoder.is_identity() {
            self.pass_log(&source, &mut encoder, &mut output)?;
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
        let finished = encoder
            .finish(info(&self.copier.config, &self.request.metadata, self.now_ms), &mut end)
            .map_err(fail)?;
        output.push(&end)?;
        output.finish(&finished)?;
        finished.custom_metadata(&self.copier.config.store_id, None).encode().map_err(fail)
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

/// Cuts what is written into parts and sends them: one PUT where all fits into one.
struct Output<'a> {
    job: &'a Job,
    place: &'a str,
    part_bytes: usize,
    options: PutOptions,
    plain_bytes: u64,
    buffer: Option<Buffer>,
    parts: u32,
    parallel: usize,
    tasks: JoinSet<varve_store::Result<()>>,
    since: Instant,
    sent: u64,
}

impl<'a> Output<'a> {
    fn new(job: &'a Job, plain_bytes: u64) -> Result<Self> {
        let limits = job.copier.store.limits();
        let frame = u64::from(job.options.frame_bytes);
        // Large enough that the parts suffice for the worst case, and whole frames.
        let least = (plain_bytes + plain_bytes / 64 + (64 << 20)).div_ceil(limits.max_parts.into());
        let part = limits
            .preferred_part_bytes
            .max(least)
            .max(READ_BYTES as u64)
            .next_multiple_of(frame.max(READ_BYTES as u64));
        let part = part.min(job.copier.config.copy_memory_bytes / 2).min(limits.max_part_bytes);
        if part < limits.min_part_bytes || part < least {
            return Err(Error::new(
                Kind::Invalid,
                format!(
                    "copy.memory.bytes={} is too little for parts of {least} bytes",
                    job.copier.config.copy_memory_bytes
                ),
            ));
        }
        Ok(Self {
            job,
            place: &job.copier.config.store_url,
            part_bytes: (part / frame.max(READ_BYTES as u64) * frame.max(READ_BYTES as u64)) as usize,
            options: PutOptions {
                create: Create::Overwrite,
                storage_class: job.policy.storage_class.clone(),
            },
            plain_bytes,
            buffer: None,
            parts: 0,
            parallel: limits.preferred_parallel_parts.max(1),
            tasks: JoinSet::new(),
            since: Instant::now(),
            sent: 0,
        })
    }

    /// The buffer to fill; it has room.
    fn buffer(&mut self) -> Result<&mut Buffer> {
        if self.buffer.as_ref().is_some_and(|b| b.free_bytes() == 0) {
            self.ship()?;
        }
        if self.buffer.is_none() {
            // A small segment takes what it needs, not a whole part.
            let size = match self.parts {
                0 => self.part_bytes.min(
                    (self.plain_bytes + self.plain_bytes / 64 + (1 << 20)).next_multiple_of(READ_BYTES as u64)
                        as usize,
                ),
                _ => self.part_bytes,
            };
            let job = self.job;
            self.buffer = Some(job.handle.block_on(job.cancel.run(WHAT, job.copier.buffers.take(size)))?);
        }
        self.buffer.as_mut().ok_or_else(|| Error::internal(WHAT, "no buffer"))
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let n = self.buffer()?.push(bytes);
            bytes = bytes.get(n..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sends the buffer as the next part.
    fn ship(&mut self) -> Result<()> {
        let Some(buffer) = self.buffer.take() else { return Ok(()) };
        let upload = self.upload()?;
        self.pace(buffer.len())?;
        while self.tasks.len() >= self.parallel {
            self.join_one()?;
        }
        self.parts += 1;
        let (number, body) = (self.parts, buffer.into_bytes());
        self.tasks.spawn_on(async move { upload.put_part(number, body).await }, &self.job.handle);
        Ok(())
    }

    fn upload(&mut self) -> Result<Arc<dyn Upload>> {
        let job = self.job;
        if let Some(upload) = job.traces.upload() {
            return Ok(upload);
        }
        let (store, key, traces) = (job.copier.store.clone(), job.key.clone(), job.traces.clone());
        let (part_bytes, options) = (self.part_bytes as u64, self.options.clone());
        job.traces.begin_upload();
        job.effect(async move {
            let upload = store.upload(&key, part_bytes, None, &options).await?;
            traces.begun(upload.clone());
            Ok(upload)
        })
    }

    fn join_one(&mut self) -> Result<()> {
        let job = self.job;
        match job.handle.block_on(job.cancel.run(WHAT, self.tasks.join_next()))? {
            Some(Ok(sent)) => Ok(sent?),
            Some(Err(e)) => Err(Error::internal(WHAT, e)),
            None => Ok(()),
        }
    }

    /// Keeps to the upload rate.
    fn pace(&mut self, bytes: usize) -> Result<()> {
        self.sent += bytes as u64;
        if self.job.policy.upload_rate == 0 {
            return Ok(());
        }
        let due = Duration::from_secs_f64(self.sent as f64 / self.job.policy.upload_rate as f64);
        let wait = due.saturating_sub(self.since.elapsed());
        let job = self.job;
        job.handle.block_on(async { job.cancel.run(WHAT, tokio::time::sleep(wait)).await })
    }

    fn finish(mut self, finished: &Finished) -> Result<()> {
        let job = self.job;
        let small = self.parts == 0;
        let stored = if small {
            let body = self.buffer.take().map_or_else(Bytes::new, Buffer::into_bytes);
            self.pace(body.len())?;
            let (store, key, options) = (job.copier.store.clone(), job.key.clone(), self.options.clone());
            job.effect(async move { store.put(&key, body, &options).await })?
        } else {
            self.ship()?;
            while !self.tasks.is_empty() {
                self.join_one()?;
            }
            let upload = self.upload()?;
            job.effect(async move { upload.complete().await })?
        };
        let expected = finished.trailer.object_bytes();
        if stored.size_bytes != expected {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "{}/{}: {expected} bytes were written, the store has {}",
                    self.place, job.key, stored.size_bytes
                ),
            ));
        }
        Ok(())
    }
}

impl Drop for Output<'_> {
    /// No part may arrive after the upload was aborted.
    fn drop(&mut self) {
        self.tasks.abort_all();
        self.job.handle.block_on(async { while self.tasks.join_next().await.is_some() {} });
    }
}

impl Source {
    fn open(request: &CopyRequest) -> Result<Self> {
        let log = open(&request.log)?;
        if log.1 != u64::from(request.metadata.segment_bytes) {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "{}: {} bytes by the broker's metadata, the file has {}",
                    request.log.display(),
                    request.metadata.segment_bytes,
                    log.1
                ),
            ));
        }
        let mut sections = Vec::new();
        let files = [
            (ExtentKind::OffsetIndex, Some(&request.offset_index)),
            (ExtentKind::TimeIndex, Some(&request.time_index)),
            (ExtentKind::TransactionIndex, request.transaction_index.as_ref()),
            (ExtentKind::ProducerSnapshot, Some(&request.producer_snapshot)),
        ];
        for (kind, path) in files {
            if let Some(path) = path {
                let (file, bytes) = open(path)?;
                sections.push((kind, Section::File(file, bytes)));
            }
        }
        sections.push((ExtentKind::LeaderEpochs, Section::Bytes(request.leader_epochs.clone())));
        Ok(Self { log, sections })
    }
}

impl Section {
    fn bytes(&self) -> u64 {
        match self {
            Self::File(_, bytes) => *bytes,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    fn read(&self, kind: ExtentKind, at: u64, buffer: &mut [u8]) -> Result<()> {
        match self {
            Self::File(file, _) => read_exact(file, Path::new(kind.name()), at, buffer),
            Self::Bytes(bytes) => {
                let from = at as usize;
                let part = bytes
                    .get(from..from + buffer.len())
                    .ok_or_else(|| Error::internal(WHAT, "leader epochs"))?;
                buffer.copy_from_slice(part);
                Ok(())
            }
        }
    }
}

fn open(path: &Path) -> Result<(File, u64)> {
    let opened = File::open(path).and_then(|f| f.metadata().map(|m| (f, m.len())));
    opened.map_err(|e| Error::io("opening", path, &e))
}

/// By pread, never mapped: a file that gets shorter is an error, not a signal.
fn read_exact(file: &File, path: &Path, at: u64, buffer: &mut [u8]) -> Result<()> {
    file.read_exact_at(buffer, at)
        .map_err(|e| Error::io(&format!("reading {} bytes at {at} of", buffer.len()), path, &e))
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
        max_timestamp_ms: metadata.max_timestamp_ms,
        created_ms: now_ms,
        broker_id: Some(metadata.broker_id),
        leader_epochs: metadata.leader_epochs.clone(),
        observed: Vec::new(),
    }
}
