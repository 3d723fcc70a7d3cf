//! Copies by the store itself.
//!
//! Up to 1 GiB in one request; beyond that, and for create-if-absent (which not every server knows for a plain
//! copy), as an upload whose parts the store copies, several at once.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::upload::{Part, S3Upload};
use super::{Inner, failure};
use crate::contract::{Create, ObjectMeta, PutOptions, Result, Upload};
use crate::error::Kind;
use crate::failure::At;
use crate::key::Key;
use crate::memory::now_ms;
use crate::parts::PartPlan;

const ONE_REQUEST_BYTES: u64 = 1 << 30;
const PART_BYTES: u64 = 512 << 20;
const PARALLEL_PARTS: usize = 8;
/// A server copies at this pace at the least, else the attempt times out (an eighth of what bodies are given).
const PACE: u64 = 32;

pub(super) async fn copy(
    inner: &Arc<Inner>,
    from: &Key,
    to: &Key,
    options: &PutOptions,
) -> Result<ObjectMeta> {
    let at = inner.at("copy", from.as_str());
    let (source, _) = inner.examine(from, None, &at).await?;
    let at = At { operation: "copy".to_owned(), object: format!("{} to {to}", at.object) };
    let named = encode(&format!("{}/{}", inner.config.bucket, inner.full(from, &at)?));
    match options.create {
        Create::Overwrite if source.size_bytes <= ONE_REQUEST_BYTES => {
            whole(inner, &source, &named, to, options, &at).await
        }
        // There is no part of nothing.
        _ if source.size_bytes == 0 => inner.put(to, bytes::Bytes::new(), options).await,
        _ => in_parts(inner, &source, &named, to, options, &at).await,
    }
}

async fn whole(
    inner: &Inner,
    source: &ObjectMeta,
    named: &str,
    to: &Key,
    options: &PutOptions,
    at: &At,
) -> Result<ObjectMeta> {
    let (full, storage_class) = (inner.full(to, at)?, inner.storage_class(options));
    let request = || async {
        let call = inner.client.copy_object().bucket(&inner.config.bucket).key(&full).copy_source(named);
        let call = call
            .set_copy_source_if_match(source.etag.clone())
            .set_storage_class(storage_class.clone())
            .set_server_side_encryption(inner.config.encryption.clone())
            .set_ssekms_key_id(inner.config.encryption_key.clone());
        call.send().await.map_err(failure::of)
    };
    let answer =
        inner.retry.run(at, source.size_bytes / PACE, request).await.map_err(|error| replaced(error, at))?;
    let result = answer.copy_object_result;
    Ok(ObjectMeta {
        key: to.clone(),
        size_bytes: source.size_bytes,
        etag: result.as_ref().and_then(|result| result.e_tag.clone()),
        version: answer.version_id,
        last_modified_ms: result
            .and_then(|result| result.last_modified)
            .and_then(|time| time.to_millis().ok())
            .unwrap_or_else(now_ms),
        storage_class: storage_class.map(|class| class.as_str().to_owned()),
    })
}

/// A 412 here is about the source, not about the target.
fn replaced(error: crate::error::Error, at: &At) -> crate::error::Error {
    if error.kind == Kind::AlreadyExists {
        return at.error(
            Kind::Truncated,
            format!("the source was replaced while it was copied: {}", error.detail),
        );
    }
    error
}

async fn in_parts(
    inner: &Arc<Inner>,
    source: &ObjectMeta,
    named: &str,
    to: &Key,
    options: &PutOptions,
    at: &At,
) -> Result<ObjectMeta> {
    let size = source.size_bytes;
    let limits = inner.limits();
    let part_bytes = PART_BYTES.max(size.div_ceil(u64::from(limits.max_parts)));
    let plan =
        PartPlan::new(&limits, part_bytes, Some(size)).map_err(|flaw| at.error(Kind::Invalid, flaw))?;
    let upload = S3Upload::create(inner, to, plan, options, false, at).await?;
    let count = u32::try_from(size.div_ceil(part_bytes)).unwrap_or(u32::MAX);
    let parts = stream::iter(1..=count).map(|number| {
        let start = u64::from(number - 1) * part_bytes;
        copy_part(&upload, source, named, number, start..size.min(start + part_bytes))
    });
    let copied = parts.buffer_unordered(PARALLEL_PARTS).try_collect::<Vec<()>>().await;
    let completed = match copied {
        Ok(_) => upload.complete().await,
        Err(error) => Err(error),
    };
    if completed.is_err() {
        // The first error is the one to tell; what stays is found by `list_uploads`.
        let _ = upload.abort().await;
    }
    completed
}

async fn copy_part(
    upload: &S3Upload,
    source: &ObjectMeta,
    named: &str,
    number: u32,
    bytes: std::ops::Range<u64>,
) -> Result<()> {
    let (inner, at) = (&upload.inner, upload.at(format!("copy part {number}")));
    let request = || async {
        let call = inner.client.upload_part_copy().bucket(&inner.config.bucket).key(&upload.full);
        let call = call
            .upload_id(&upload.id)
            .part_number(i32::try_from(number).unwrap_or(i32::MAX))
            .copy_source(named)
            .copy_source_range(format!("bytes={}-{}", bytes.start, bytes.end - 1))
            .set_copy_source_if_match(source.etag.clone());
        call.send().await.map_err(failure::of)
    };
    let size_bytes = bytes.end - bytes.start;
    let answer =
        inner.retry.run(&at, size_bytes / PACE, request).await.map_err(|error| replaced(error, &at))?;
    let etag = answer.copy_part_result.and_then(|result| result.e_tag);
    upload.record(number, Part { size_bytes, etag, checksum: None });
    Ok(())
}

/// The SDK sends this header as it is given: percent-encoded, `/` kept.
fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
