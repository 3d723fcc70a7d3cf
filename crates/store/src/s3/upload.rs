//! Multipart uploads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use parking_lot::Mutex;

use super::onward::{self, Onward};
use super::write::crc32c;
use super::{Inner, failure};
use crate::contract::{Create, ObjectMeta, PendingUpload, PutOptions, Result, Upload};
use crate::create::{Found, ID_METADATA, Signed as _, new_id};
use crate::error::Kind;
use crate::failure::At;
use crate::key::Key;
use crate::memory::now_ms;
use crate::parts::PartPlan;

/// To complete an upload each part counts as so many bytes that are sent: of 10,000 parts S3 may take minutes.
const PART_PACE: u64 = 4 << 10;

/// A part that the store has.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) size_bytes: u64,
    pub(super) etag: Option<String>,
    pub(super) checksum: Option<String>,
}

enum State {
    Open,
    Completed(ObjectMeta),
    Aborted,
}

pub(super) struct S3Upload {
    pub(super) inner: Arc<Inner>,
    key: Key,
    pub(super) full: String,
    /// The store's id of the upload.
    pub(super) id: String,
    /// Ours, in the object's metadata.
    write_id: String,
    plan: PartPlan,
    options: PutOptions,
    checksums: bool,
    parts: Mutex<BTreeMap<u32, Part>>,
    state: Mutex<State>,
}

impl S3Upload {
    pub(super) async fn begin(
        inner: &Arc<Inner>,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Self> {
        let at = inner.at("upload", key.as_str());
        let plan = PartPlan::new(&inner.limits(), part_bytes, size_bytes)
            .map_err(|flaw| at.error(Kind::Invalid, flaw))?;
        Self::create(inner, key, plan, options, inner.config.checksums, &at).await
    }

    /// `checksums`: whether parts will come with theirs (parts that the store copies itself do not).
    pub(super) async fn create(
        inner: &Arc<Inner>,
        key: &Key,
        plan: PartPlan,
        options: &PutOptions,
        checksums: bool,
        at: &At,
    ) -> Result<Self> {
        let (full, write_id) = (inner.full(key, at)?, new_id());
        let request = || async {
            let call = inner.client.create_multipart_upload().bucket(&inner.config.bucket).key(&full);
            let call = call
                .metadata(ID_METADATA, &write_id)
                .set_checksum_algorithm(checksums.then_some(ChecksumAlgorithm::Crc32C))
                .set_storage_class(inner.storage_class(options))
                .set_server_side_encryption(inner.config.encryption.clone())
                .set_ssekms_key_id(inner.config.encryption_key.clone());
            call.send().await.map_err(failure::of)
        };
        let answer = inner.retry.run(at, 0, request).await?;
        let id = answer.upload_id.ok_or_else(|| at.error(Kind::Other, "the answer holds no upload id"))?;
        Ok(Self {
            inner: Arc::clone(inner),
            key: key.clone(),
            full,
            id,
            write_id,
            plan,
            options: options.clone(),
            checksums,
            parts: Mutex::default(),
            state: Mutex::new(State::Open),
        })
    }

    pub(super) fn at(&self, operation: impl Into<String>) -> At {
        self.inner.at(operation, self.key.as_str())
    }

    pub(super) fn record(&self, number: u32, part: Part) {
        self.parts.lock().insert(number, part);
    }

    fn completed_parts(&self, at: &At) -> Result<(CompletedMultipartUpload, u64)> {
        let parts = self.parts.lock();
        let sizes = parts.iter().map(|(&number, part)| (number, part.size_bytes)).collect();
        let size = self.plan.check_complete(&sizes).map_err(|flaw| at.error(Kind::Invalid, flaw))?;
        let named = parts.iter().map(|(&number, part)| {
            CompletedPart::builder()
                .part_number(i32::try_from(number).unwrap_or(i32::MAX))
                .set_e_tag(part.etag.clone())
                .set_checksum_crc32_c(part.checksum.clone())
                .build()
        });
        Ok((CompletedMultipartUpload::builder().set_parts(Some(named.collect())).build(), size))
    }

    async fn finish(&self) -> Result<ObjectMeta> {
        let at = self.at("complete");
        let (parts, size_bytes) = self.completed_parts(&at)?;
        let if_absent = self.options.create == Create::IfAbsent;
        let request = || async {
            let call = self.inner.client.complete_multipart_upload();
            let call = call
                .bucket(&self.inner.config.bucket)
                .key(&self.full)
                .upload_id(&self.id)
                .multipart_upload(parts.clone())
                .set_if_none_match(if_absent.then(|| "*".to_owned()));
            let answer = call.send().await.map_err(failure::of)?;
            Ok(ObjectMeta {
                key: self.key.clone(),
                size_bytes,
                etag: answer.e_tag,
                version: answer.version_id,
                last_modified_ms: now_ms(),
                storage_class: self.inner.storage_class(&self.options).map(|class| class.as_str().to_owned()),
            })
        };
        // The server may put them together before it answers.
        let pace = PART_PACE * parts.parts().len() as u64;
        let (mut course, mut in_doubt) = (self.inner.retry.course(), false);
        loop {
            let failure = match course.attempt(pace, &request).await {
                Ok(meta) => return Ok(meta),
                Err(failure) => failure,
            };
            in_doubt |= failure.ambiguous;
            // Only our own earlier attempt, or an abort, can have ended the upload.
            let ended = failure.code == "NoSuchUpload" || failure.kind == Kind::NotFound;
            let refused = failure.kind == Kind::AlreadyExists || failure.code == "ConditionalRequestConflict";
            if failure.ambiguous
                || ended
                || (refused && in_doubt)
                || failure.code == "ConditionalRequestConflict"
            {
                match self.inner.find(&self.key, &self.write_id, &at).await? {
                    Found::Ours(meta) => return Ok(meta),
                    Found::Another if if_absent => {
                        return Err(at.error(Kind::AlreadyExists, "the object exists"));
                    }
                    Found::Another | Found::Nothing => {}
                }
            }
            if let Err(last) = course.again(failure, &at).await {
                return Err(last.error(&at, course.attempts));
            }
        }
    }
}

impl fmt::Debug for S3Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Upload").field("key", &self.key).field("id", &self.id).finish_non_exhaustive()
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn put_part(&self, number: u32, body: Bytes) -> Result<()> {
        let at = self.at(format!("put part {number}"));
        if !matches!(*self.state.lock(), State::Open) {
            return Err(at.error(Kind::NotFound, "no such upload: it was completed or aborted"));
        }
        self.plan.check_part(number, body.len()).map_err(|flaw| at.error(Kind::Invalid, flaw))?;
        let checksum = self.checksums.then(|| crc32c(&body));
        let size_bytes = body.len() as u64;
        let request = || async {
            let call = self.inner.client.upload_part().bucket(&self.inner.config.bucket).key(&self.full);
            let call = call
                .upload_id(&self.id)
                .part_number(i32::try_from(number).unwrap_or(i32::MAX))
                .body(ByteStream::from(body.clone()))
                .set_checksum_crc32_c(checksum.clone());
            call.customize().disable_payload_signing().send().await.map_err(failure::of)
        };
        let answer = self.inner.retry.run(&at, size_bytes, request).await?;
        self.record(number, Part { size_bytes, etag: answer.e_tag, checksum });
        Ok(())
    }

    async fn complete(&self) -> Result<ObjectMeta> {
        match &*self.state.lock() {
            State::Open => {}
            State::Completed(meta) => return Ok(meta.clone()),
            State::Aborted => {
                return Err(self.at("complete").error(Kind::NotFound, "no such upload: it was aborted"));
            }
        }
        let meta = self.finish().await?;
        *self.state.lock() = State::Completed(meta.clone());
        Ok(meta)
    }

    async fn abort(&self) -> Result<()> {
        if matches!(*self.state.lock(), State::Completed(_)) {
            return Ok(());
        }
        *self.state.lock() = State::Aborted;
        abort(&self.inner, &self.key, &self.id).await
    }
}

pub(super) async fn abort(inner: &Inner, key: &Key, id: &str) -> Result<()> {
    let at = inner.at("abort upload", key.as_str());
    let full = inner.full(key, &at)?;
    let request = || async {
        let call =
            inner.client.abort_multipart_upload().bucket(&inner.config.bucket).key(&full).upload_id(id);
        call.send().await.map(drop).map_err(failure::of)
    };
    match inner.retry.run(&at, 0, request).await {
        Err(error) if error.kind == Kind::NotFound && !error.detail.contains("NoSuchBucket") => Ok(()),
        other => other,
    }
}

pub(super) async fn list(inner: &Inner, prefix: &str) -> Result<Vec<PendingUpload>> {
    let at = inner.at("list uploads", prefix);
    let wanted = format!("{}{prefix}", inner.config.prefix);
    // MinIO knows but whole keys as prefixes here: elsewhere than on AWS the whole bucket is asked for.
    let asked = if inner.config.is_aws() { wanted.as_str() } else { "" };
    let (mut found, mut from) = (Vec::new(), (None::<String>, None::<String>));
    let mut onward = Onward::from(from.clone());
    loop {
        let request = || async {
            let call = inner.client.list_multipart_uploads().bucket(&inner.config.bucket);
            let call = call
                .set_prefix((!asked.is_empty()).then(|| asked.to_owned()))
                .set_key_marker(from.0.clone())
                .set_upload_id_marker(from.1.clone());
            call.send().await.map_err(failure::of)
        };
        let page = inner.retry.run(&at, 0, request).await?;
        for upload in page.uploads() {
            let (Some(name), Some(id)) = (upload.key(), upload.upload_id()) else { continue };
            if !name.starts_with(&wanted) {
                continue;
            }
            let Some(Ok(key)) = name.strip_prefix(&inner.config.prefix).map(Key::new) else { continue };
            let started_ms = upload.initiated().and_then(|time| time.to_millis().ok());
            found.push(PendingUpload { key, id: id.to_owned(), started_ms });
        }
        if !page.is_truncated.unwrap_or(false) {
            return Ok(found);
        }
        let next = (page.next_key_marker, page.next_upload_id_marker);
        let goes_on = match next.0 {
            Some(_) => onward.step(&next, "uploads"),
            None => Err(onward::nowhere("uploads")),
        };
        goes_on.map_err(|flaw| at.error(Kind::Other, flaw))?;
        from = next;
    }
}
