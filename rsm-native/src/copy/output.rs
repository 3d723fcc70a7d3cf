//! From the encoder to the store: cuts what is written into parts and sends them, some at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;
use varve_format::Finished;
use varve_store::{Create, PutOptions, Upload};

use super::{Job, READ_BYTES, WHAT};
use crate::buffers::{Buffer, Lease};
use crate::error::{Error, Kind, Result};

/// Cuts what is written into parts and sends them: one PUT where all fits into one.
pub(super) struct Output<'a> {
    job: &'a Job,
    pub(super) place: &'a str,
    part_bytes: usize,
    options: PutOptions,
    plain_bytes: u64,
    buffer: Option<Buffer>,
    _lease: Lease,
    parts: u32,
    parallel: usize,
    tasks: JoinSet<varve_store::Result<()>>,
    since: Instant,
    sent: u64,
}

impl<'a> Output<'a> {
    pub(super) fn new(job: &'a Job, plain_bytes: u64) -> Result<Self> {
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
            _lease: job.copier.buffers.lease(),
            parts: 0,
            parallel: limits.preferred_parallel_parts.max(1),
            tasks: JoinSet::new(),
            since: Instant::now(),
            sent: 0,
        })
    }

    /// The buffer to fill; it has room.
    pub(super) fn buffer(&mut self) -> Result<&mut Buffer> {
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
            self.buffer = Some(job.handle.block_on(job.cancel.run(WHAT, job.copier.buffers.take(size)))??);
        }
        self.buffer.as_mut().ok_or_else(|| Error::internal(WHAT, "no buffer"))
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
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

    pub(super) fn finish(mut self, finished: &Finished) -> Result<()> {
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
