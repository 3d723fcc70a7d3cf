//! Reading.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::http::Method;
use futures::StreamExt;

use super::{Inner, text};
use crate::body::{self, Answer, Source};
use crate::contract::{GetRange, GetResult, Result};
use crate::error::Kind;
use crate::failure::{At, chain};
use crate::key::Key;
use crate::ranges::{delivered, header_of};
use crate::retry::Retry;

/// How often an object is asked for its end anew when it was replaced in between.
const END_ATTEMPTS: usize = 3;

pub(super) async fn get(
    inner: &Arc<Inner>,
    key: &Key,
    version: Option<&str>,
    range: GetRange,
) -> Result<GetResult> {
    let at = inner.at("get", key.as_str());
    let full = inner.full(key, &at)?;
    let (inner, version) = (Arc::clone(inner), version.map(str::to_owned));
    body::get(Arc::new(Of { inner, key: key.clone(), full, version }), at, range).await
}

/// Which object: its name in the container, and which version if not the current one.
struct Of {
    inner: Arc<Inner>,
    key: Key,
    full: String,
    version: Option<String>,
}

impl Of {
    async fn bounded(&self, at: &At, range: GetRange, etag: Option<&str>) -> Result<Answer> {
        let header = header_of(range).map_err(|flaw| at.error(Kind::InvalidRange, flaw))?;
        let client = &self.inner.client;
        let send = || async {
            let mut url = client.blob_url(&self.full);
            if let Some(version) = &self.version {
                url.query_pairs_mut().append_pair("versionid", version);
            }
            let mut request = client.request(Method::Get, url);
            if let Some(header) = &header {
                request.insert_header("range", header.clone());
            }
            if let Some(etag) = etag {
                request.insert_header("if-match", etag.to_owned());
            }
            client.stream(request, &[200, 206]).await
        };
        let (_, headers, body) = self.inner.retry.run(at, 0, send).await?.deconstruct();
        let length = text(&headers, "content-length").and_then(|length| length.parse().ok());
        let told = text(&headers, "content-range");
        // Azurite answers by 206 and nothing where Azure says 416.
        let size = told.and_then(|told| told.rsplit('/').next()?.parse().ok());
        if size.is_some_and(|size| range.resolve(size).is_none()) {
            return Err(at.error(Kind::InvalidRange, format!("{range:?} of {size:?} bytes")));
        }
        let (range, object_size_bytes) =
            delivered(length, told, range).map_err(|flaw| at.error(Kind::Other, flaw))?;
        let etag = text(&headers, "etag").map(str::to_owned);
        let version = self.inner.version_of(&headers);
        let body = body.map(|piece| piece.map_err(|error| chain(&error))).boxed();
        Ok(Answer { range, object_size_bytes, etag, version, body })
    }

    /// The last `wanted` bytes.
    async fn end(&self, at: &At, wanted: u64) -> Result<Answer> {
        let mut attempts = 0;
        loop {
            let (size, etag, _) = self.examine(at).await?;
            let Some(bytes) = GetRange::Suffix(wanted).resolve(size).filter(|bytes| !bytes.is_empty()) else {
                return Err(at.error(Kind::InvalidRange, "the object is empty"));
            };
            let range = GetRange::Bounded { start: bytes.start, end: bytes.end };
            attempts += 1;
            match self.bounded(at, range, etag.as_deref()).await {
                // Replaced since.
                Err(error)
                    if matches!(error.kind, Kind::AlreadyExists | Kind::InvalidRange)
                        && attempts < END_ATTEMPTS => {}
                Err(error) if error.kind == Kind::AlreadyExists => {
                    return Err(at.error(Kind::Truncated, "the object is replaced again and again"));
                }
                other => return other,
            }
        }
    }
}

#[async_trait]
impl Source for Of {
    fn retry(&self) -> &Retry {
        &self.inner.retry
    }

    async fn request(&self, at: &At, range: GetRange, etag: Option<&str>) -> Result<Answer> {
        match range {
            GetRange::Suffix(wanted) if etag.is_none() => self.end(at, wanted).await,
            range => self.bounded(at, range, etag).await,
        }
    }

    async fn examine(&self, at: &At) -> Result<(u64, Option<String>, Option<String>)> {
        let (meta, _) = self.inner.examine(&self.key, self.version.as_deref(), at).await?;
        Ok((meta.size_bytes, meta.etag, meta.version))
    }
}
