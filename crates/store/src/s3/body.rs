//! Reading. A body that breaks off, or falls silent, is asked for again from where it stopped, of the same object
//! (`If-Match`). Giving up is bounded: `s3.max.attempts` breaks without 1 MiB in between, and 50 in all.

use std::ops::Range;
use std::sync::Arc;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::failure::{Failure, chain};
use super::{At, Inner};
use crate::contract::{GetRange, GetResult, Result};
use crate::error::{Error, Kind};
use crate::key::Key;

const PROGRESS_BYTES: u64 = 1 << 20;
const MAX_BREAKS: u32 = 50;
/// Servers read positions as signed numbers.
const LAST_POSITION: u64 = i64::MAX as u64;

pub(super) async fn get(
    inner: &Arc<Inner>,
    key: &Key,
    version: Option<&str>,
    range: GetRange,
) -> Result<GetResult> {
    let at = inner.at("get", key.as_str());
    let full = inner.full(key, &at)?;
    let header = match header_of(range) {
        Ok(header) => header,
        Err(flaw) => {
            inner.examine(key, version, &at).await?;
            return Err(at.error(Kind::InvalidRange, flaw));
        }
    };
    let of = Of { full, version: version.map(str::to_owned) };
    let answer = match request(inner, &at, &of, header.as_deref(), None).await {
        // S3 has no suffix of nothing, the contract has.
        Err(error) if error.kind == Kind::InvalidRange && matches!(range, GetRange::Suffix(_)) => {
            let (meta, _) = inner.examine(key, version, &at).await?;
            if meta.size_bytes > 0 {
                return Err(error);
            }
            let body = stream::empty().boxed();
            let (etag, version) = (meta.etag, meta.version);
            return Ok(GetResult { range: 0..0, object_size_bytes: Some(0), etag, version, body });
        }
        other => other?,
    };
    let (delivered, size_bytes) = delivered(&answer, range).map_err(|flaw| at.error(Kind::Other, flaw))?;
    let (etag, version) = (answer.e_tag, answer.version_id);
    let body = Body {
        inner: Arc::clone(inner),
        at,
        of,
        etag: etag.clone(),
        position: delivered.start,
        end: delivered.end,
        stream: answer.body,
        breaks: 0,
        breaks_in_all: 0,
        broke_at: delivered.start,
    };
    let body = stream::unfold(body, Body::step).boxed();
    Ok(GetResult { range: delivered, object_size_bytes: Some(size_bytes), etag, version, body })
}

/// The `Range` header, or why no object has such a range.
fn header_of(range: GetRange) -> std::result::Result<Option<String>, String> {
    match range {
        GetRange::Full => Ok(None),
        GetRange::Bounded { start, end } if start < end && start < LAST_POSITION => {
            Ok(Some(format!("bytes={start}-{}", (end - 1).min(LAST_POSITION))))
        }
        GetRange::From(start) if start < LAST_POSITION => Ok(Some(format!("bytes={start}-"))),
        GetRange::Suffix(n) if n > 0 => Ok(Some(format!("bytes=-{}", n.min(LAST_POSITION)))),
        _ => Err(format!("{range:?} holds no byte of any object")),
    }
}

/// Which object: its key in the bucket, and which version if not the current one.
struct Of {
    full: String,
    version: Option<String>,
}

async fn request(
    inner: &Inner,
    at: &At,
    of: &Of,
    range: Option<&str>,
    etag: Option<&str>,
) -> Result<GetObjectOutput> {
    let send = || async {
        let call = inner.client.get_object().bucket(&inner.config.bucket).key(&of.full);
        let call = call.set_version_id(of.version.clone());
        let call = call.set_range(range.map(str::to_owned)).set_if_match(etag.map(str::to_owned));
        call.send().await.map_err(Failure::of)
    };
    inner.retry.run(at, 0, send).await
}

/// Which bytes the answer says it brings, and the object's size.
fn delivered(answer: &GetObjectOutput, range: GetRange) -> std::result::Result<(Range<u64>, u64), String> {
    let length =
        answer.content_length().and_then(|len| u64::try_from(len).ok()).ok_or("no length in the answer")?;
    let Some(header) = answer.content_range() else {
        return match range {
            GetRange::Full => Ok((0..length, length)),
            _ => Err("the store does not obey Range: it sent the whole object".to_owned()),
        };
    };
    if length == 0 && matches!(range, GetRange::Suffix(_)) {
        // MinIO's answer for the end of an empty object, where AWS says 416.
        return Ok((0..0, 0));
    }
    let parsed = parse_content_range(header).filter(|(bytes, size)| {
        bytes.end - bytes.start == length && range.resolve(*size).as_ref() == Some(bytes)
    });
    parsed.ok_or_else(|| format!("asked for {range:?}, the answer has {header:?} and {length} bytes"))
}

fn parse_content_range(header: &str) -> Option<(Range<u64>, u64)> {
    let (bytes, size) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = bytes.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(())?;
    Some((first..last.checked_add(1)?, size.parse().ok()?))
}

struct Body {
    inner: Arc<Inner>,
    at: At,
    of: Of,
    etag: Option<String>,
    position: u64,
    end: u64,
    stream: ByteStream,
    /// Since the last good progress.
    breaks: u32,
    breaks_in_all: u32,
    broke_at: u64,
}

impl Body {
    async fn step(mut self) -> Option<(Result<Bytes>, Self)> {
        while self.position < self.end {
            let (kind, flaw) = match tokio::time::timeout(self.inner.retry.timeout, self.stream.next()).await
            {
                Ok(Some(Ok(piece))) if piece.is_empty() => continue,
                Ok(Some(Ok(mut piece))) => {
                    piece.truncate(usize::try_from(self.end - self.position).unwrap_or(usize::MAX));
                    self.position += piece.len() as u64;
                    return Some((Ok(piece), self));
                }
                Ok(Some(Err(error))) => (Kind::Unavailable, format!("broke off: {}", chain(&error))),
                Ok(None) => (Kind::Truncated, "ended".to_owned()),
                Err(_) => {
                    (Kind::Unavailable, format!("was silent for {} ms", self.inner.retry.timeout.as_millis()))
                }
            };
            let detail = format!("the body {flaw} at byte {}, expected {}", self.position, self.end);
            if let Err(error) = self.resume(kind, detail).await {
                self.position = self.end;
                return Some((Err(error), self));
            }
        }
        None
    }

    async fn resume(&mut self, kind: Kind, detail: String) -> Result<()> {
        if self.position - self.broke_at >= PROGRESS_BYTES {
            self.breaks = 0;
        }
        self.broke_at = self.position;
        self.breaks += 1;
        self.breaks_in_all += 1;
        let Some(etag) = self.etag.as_deref() else { return Err(self.at.error(kind, detail)) };
        if self.breaks >= self.inner.retry.max_attempts || self.breaks_in_all >= MAX_BREAKS {
            return Err(self.at.error(kind, format!("{detail} ({} times)", self.breaks_in_all)));
        }
        tracing::debug!(object = self.at.object, detail, "reading on");
        // The connection may have died for the same reason as its neighbours: not all at once.
        tokio::time::sleep(super::retry::pause(self.breaks)).await;
        let range = format!("bytes={}-{}", self.position, self.end - 1);
        let answer =
            request(&self.inner, &self.at, &self.of, Some(&range), Some(etag)).await.map_err(|error| {
                if error.kind == Kind::AlreadyExists {
                    // 412: the object at the key is another one now.
                    return self
                        .at
                        .error(Kind::Truncated, format!("{detail}; the object was replaced meanwhile"));
                }
                Error { detail: format!("{detail}; reading on: {}", error.detail), ..error }
            })?;
        let asked = GetRange::Bounded { start: self.position, end: self.end };
        delivered(&answer, asked).map_err(|flaw| self.at.error(Kind::Other, flaw))?;
        self.stream = answer.body;
        Ok(())
    }
}
