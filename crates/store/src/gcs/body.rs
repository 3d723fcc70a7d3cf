//! Reading. A body is read on from the generation that it began with, and a whole object is checked against the
//! CRC32C that the store has of it: an object that does not match ends in an error in place of its last piece.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use reqwest::{Method, Response};

use super::Inner;
use super::resource::{crc32c_of_header, show_crc32c};
use crate::body::{self, Answer, Source};
use crate::contract::{GetRange, GetResult, Result};
use crate::error::Kind;
use crate::failure::{At, Failure, Passing, chain};
use crate::key::Key;
use crate::ranges::{delivered, header_of};
use crate::retry::Retry;

pub(super) async fn get(
    inner: &Arc<Inner>,
    key: &Key,
    version: Option<&str>,
    range: GetRange,
) -> Result<GetResult> {
    let at = inner.at("get", key.as_str());
    let path = inner.object_path(key, &at)?;
    let (key, version) = (key.clone(), version.map(str::to_owned));
    let source = Arc::new(Of { inner: Arc::clone(inner), key, path, version, crc32c: Mutex::new(None) });
    let mut got = body::get(Arc::clone(&source) as Arc<dyn Source>, at.clone(), range).await?;
    let whole = got.object_size_bytes == Some(got.range.end) && got.range.start == 0;
    if let Some(expected) = source.crc32c.lock().filter(|_| whole && got.range.end > 0) {
        got.body = checked(got.body, got.range.end, expected, at);
    }
    Ok(got)
}

/// Which object: its path, and which version if not the current one.
struct Of {
    inner: Arc<Inner>,
    key: Key,
    path: String,
    version: Option<String>,
    /// Of the whole object, as the first answer says.
    crc32c: Mutex<Option<u32>>,
}

#[async_trait]
impl Source for Of {
    fn retry(&self) -> &Retry {
        &self.inner.retry
    }

    async fn request(&self, at: &At, range: GetRange, etag: Option<&str>) -> Result<Answer> {
        let inner = &self.inner;
        let header = header_of(range).map_err(|flaw| at.error(Kind::InvalidRange, flaw))?;
        let query =
            [("alt", Some("media")), ("generation", self.version.as_deref()), ("ifGenerationMatch", etag)];
        let url = inner.url(&self.path, &query, at)?;
        let send = || async {
            let call = inner.client.request(Method::GET, url.clone());
            let call = header.iter().fold(call, |call, range| call.header(RANGE, range));
            let answer = inner.client.send(call).await?;
            stored_as_read(&answer).map(|()| answer)
        };
        let answer = inner.retry.run(at, 0, send).await?;
        let length = text(&answer, CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
        let (range, object_size_bytes) = delivered(length, text(&answer, CONTENT_RANGE.as_str()), range)
            .map_err(|flaw| at.error(Kind::Other, flaw))?;
        stored_length(&answer, object_size_bytes).map_err(|flaw| at.error(Kind::Other, flaw))?;
        if etag.is_none() {
            let hashes = answer.headers().get_all("x-goog-hash").iter();
            *self.crc32c.lock() = hashes.filter_map(|hash| hash.to_str().ok()).find_map(crc32c_of_header);
        }
        let etag = text(&answer, "x-goog-generation").map(str::to_owned);
        let version = etag.clone().filter(|_| inner.keeps_versions());
        let body = stream::unfold(answer, |mut answer| async {
            match answer.chunk().await {
                Ok(piece) => piece.map(|piece| (Ok(piece), answer)),
                Err(error) => Some((Err(chain(&error.without_url())), answer)),
            }
        });
        Ok(Answer { range, object_size_bytes, etag, version, body: body.boxed() })
    }

    async fn examine(&self, at: &At) -> Result<(u64, Option<String>, Option<String>)> {
        let object = self.inner.examine(&self.key, self.version.as_deref(), at).await?;
        let meta = object.meta(self.key.clone(), self.inner.keeps_versions());
        Ok((meta.size_bytes, meta.etag, meta.version))
    }
}

fn text<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// An object that somebody stored compressed arrives decompressed, with another length and another checksum.
fn stored_as_read(answer: &Response) -> std::result::Result<(), Failure> {
    let encodings =
        [CONTENT_ENCODING.as_str(), "x-goog-stored-content-encoding"].map(|name| text(answer, name));
    match encodings.into_iter().flatten().find(|encoding| *encoding != "identity") {
        None => Ok(()),
        Some(encoding) => {
            let detail = format!("it is stored with the encoding {encoding:?}, which nothing of ours is");
            Err(Failure::new(Kind::Unsupported, Passing::Never, false, detail))
        }
    }
}

fn stored_length(answer: &Response, size_bytes: u64) -> std::result::Result<(), String> {
    match text(answer, "x-goog-stored-content-length").and_then(|length| length.parse::<u64>().ok()) {
        Some(stored) if stored != size_bytes => {
            Err(format!("the answer is of {size_bytes} bytes, the store has {stored}"))
        }
        _ => Ok(()),
    }
}

/// The body of a whole object, its last piece delivered only if all of it is right.
fn checked(
    body: BoxStream<'static, Result<Bytes>>,
    size_bytes: u64,
    expected: u32,
    at: At,
) -> BoxStream<'static, Result<Bytes>> {
    let digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    let state = (body, digest, size_bytes, at);
    stream::unfold(state, move |(mut body, mut digest, left, at)| async move {
        let piece = match body.next().await? {
            Ok(piece) => piece,
            Err(error) => return Some((Err(error), (body, digest, left, at))),
        };
        digest.update(&piece);
        let left = left.saturating_sub(piece.len() as u64);
        let found = digest.finalize() as u32;
        if left == 0 && found != expected {
            let (expected, found) = (show_crc32c(expected), show_crc32c(found));
            let detail = format!("the body has the CRC32C {found}, the object {expected}");
            let nothing = stream::empty().boxed();
            return Some((Err(at.error(Kind::Truncated, detail)), (nothing, digest, left, at)));
        }
        Some((Ok(piece), (body, digest, left, at)))
    })
    .boxed()
}
