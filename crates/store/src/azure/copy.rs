//! Copies by the store itself.
//!
//! Up to 256 MiB in one request; beyond that as an upload whose blocks the store copies, several at once. The store
//! reads the source as anybody else would, so that each request says what lets it in there.

use std::sync::Arc;

use azure_core::http::{Etag, Method, Url};
use azure_storage_blob::models::{BlockBlobClientStageBlockFromUrlOptions, HttpRange};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::access::append_query;
use super::upload::AzureUpload;
use super::{Inner, MIB, failure};
use crate::contract::{Create, ObjectMeta, PutOptions, Result, Upload};
use crate::create::{create_once, new_id};
use crate::error::{Error, Kind};
use crate::failure::{At, Failure};
use crate::key::Key;

const ONE_REQUEST_BYTES: u64 = 256 * MIB;
const PART_BYTES: u64 = 256 * MIB;
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
    let name = inner.full(from, &at)?;
    let at = At { operation: "copy".to_owned(), object: format!("{} to {to}", at.object) };
    let of = Source { meta: source, name };
    match of.meta.size_bytes {
        // There is no block of nothing, and no need to let the store in anywhere.
        0 => inner.put(to, Bytes::new(), options).await,
        size if size <= ONE_REQUEST_BYTES => whole(inner, &of, to, options, &at).await,
        _ => in_parts(inner, &of, to, options).await,
    }
}

struct Source {
    meta: ObjectMeta,
    /// The blob's name.
    name: String,
}

impl Source {
    /// Its address, as the store is told it, and what else lets it in.
    async fn address(&self, inner: &Inner) -> std::result::Result<(Url, Option<String>), Failure> {
        let mut url = inner.client.blob_url(&self.name);
        let access = inner.client.access.of_source(&inner.config.container_name, &self.name);
        let (query, bearer) = access.await.map_err(failure::of)?;
        if let Some(query) = query {
            append_query(&mut url, &query);
        }
        Ok((url, bearer))
    }
}

async fn whole(
    inner: &Inner,
    source: &Source,
    to: &Key,
    options: &PutOptions,
    at: &At,
) -> Result<ObjectMeta> {
    let (full, id, size_bytes) = (inner.full(to, at)?, new_id(), source.meta.size_bytes);
    let request = || async {
        let mut request = inner.client.request(Method::Put, inner.client.blob_url(&full));
        let (address, bearer) = source.address(inner).await?;
        request.insert_header("x-ms-copy-source", String::from(address));
        request.insert_header("x-ms-requires-sync", "true");
        if let Some(bearer) = bearer {
            request.insert_header("x-ms-copy-source-authorization", bearer);
        }
        if let Some(etag) = &source.meta.etag {
            request.insert_header("x-ms-source-if-match", etag.clone());
        }
        inner.describe(&mut request, &id, options);
        let answer = inner.client.send(request, &[202]).await.map_err(about_source)?;
        Ok(inner.written_meta(to, size_bytes, options, answer.headers()))
    };
    let pace = size_bytes / PACE;
    if options.create == Create::IfAbsent {
        let request = || async { request().await.map_err(failure::of_create) };
        return create_once(inner, to, &id, at, pace, request).await;
    }
    inner.retry.run(at, pace, request).await.map_err(|error| replaced(error, at))
}

/// A condition that the source did not meet is none about the target.
fn about_source(failure: Failure) -> Failure {
    if failure.code != failure::SOURCE_REPLACED {
        return failure;
    }
    let detail = format!("the source was replaced while it was copied: {}", failure.detail);
    Failure { kind: Kind::Truncated, detail, ..failure }
}

/// Where the target has no condition, one that is not met can only be the source's.
fn replaced(error: Error, at: &At) -> Error {
    if error.kind != Kind::AlreadyExists {
        return error;
    }
    at.error(Kind::Truncated, format!("the source was replaced while it was copied: {}", error.detail))
}

async fn in_parts(inner: &Arc<Inner>, source: &Source, to: &Key, options: &PutOptions) -> Result<ObjectMeta> {
    let size = source.meta.size_bytes;
    let part_bytes = PART_BYTES.max(size.div_ceil(u64::from(inner.limits().max_parts)));
    let upload = AzureUpload::begin(inner, to, part_bytes, Some(size), options)?;
    let count = u32::try_from(size.div_ceil(part_bytes)).unwrap_or(u32::MAX);
    let parts = stream::iter(1..=count).map(|number| {
        let start = u64::from(number - 1) * part_bytes;
        copy_part(&upload, source, number, start..size.min(start + part_bytes))
    });
    parts.buffer_unordered(PARALLEL_PARTS).try_collect::<Vec<()>>().await?;
    upload.complete().await
}

async fn copy_part(
    upload: &AzureUpload,
    source: &Source,
    number: u32,
    bytes: std::ops::Range<u64>,
) -> Result<()> {
    let (inner, at) = (&upload.inner, upload.at(format!("copy part {number}")));
    let id = upload.block_id(number);
    let request = || async {
        let (address, bearer) = source.address(inner).await?;
        let options = BlockBlobClientStageBlockFromUrlOptions {
            copy_source_authorization: bearer,
            source_if_match: source.meta.etag.clone().map(Etag::from),
            source_range: Some(HttpRange::from(bytes.clone())),
            ..Default::default()
        };
        let client = inner.client.blob(&upload.full, None)?.block_blob_client();
        let sent = client.stage_block_from_url(&id, 0, String::from(address), Some(options)).await;
        sent.map(drop).map_err(failure::of)
    };
    let size_bytes = bytes.end - bytes.start;
    inner.retry.run(&at, size_bytes / PACE, request).await.map_err(|error| replaced(error, &at))?;
    upload.record(number, size_bytes);
    Ok(())
}
