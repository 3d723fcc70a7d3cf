//! Reading over HTTP. A body that breaks off, or falls silent, is asked for again from where it stopped, of the same
//! object by its ETag. Giving up is bounded: `max_attempts` breaks without 1 MiB in between, and 50 in all.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use crate::contract::{GetRange, GetResult, Result};
use crate::error::{Error, Kind};
use crate::failure::At;
use crate::ranges::header_of;
use crate::retry::{Retry, pause};

const PROGRESS_BYTES: u64 = 1 << 20;
const MAX_BREAKS: u32 = 50;

/// An answer to a read, its body still to come.
pub(crate) struct Answer {
    /// What the body brings, as the answer says; checked against what was asked for.
    pub(crate) range: Range<u64>,
    pub(crate) object_size_bytes: u64,
    pub(crate) etag: Option<String>,
    pub(crate) version: Option<String>,
    /// Pieces, or how the way broke, in words.
    pub(crate) body: BoxStream<'static, std::result::Result<Bytes, String>>,
}

/// One object of one store, to be read from.
#[async_trait]
pub(crate) trait Source: Send + Sync {
    fn retry(&self) -> &Retry;

    /// Sends the request, again where it fails. With `etag`, another object at the key is [`Kind::AlreadyExists`].
    async fn request(&self, at: &At, range: GetRange, etag: Option<&str>) -> Result<Answer>;

    /// Size, ETag and version, by a request of its own.
    async fn examine(&self, at: &At) -> Result<(u64, Option<String>, Option<String>)>;
}

pub(crate) async fn get(source: Arc<dyn Source>, at: At, range: GetRange) -> Result<GetResult> {
    if let Err(flaw) = header_of(range) {
        source.examine(&at).await?;
        return Err(at.error(Kind::InvalidRange, flaw));
    }
    let answer = match source.request(&at, range, None).await {
        // HTTP has no suffix of nothing, the contract has.
        Err(error) if error.kind == Kind::InvalidRange && matches!(range, GetRange::Suffix(_)) => {
            let (size_bytes, etag, version) = source.examine(&at).await?;
            if size_bytes > 0 {
                return Err(error);
            }
            let body = stream::empty().boxed();
            return Ok(GetResult { range: 0..0, object_size_bytes: Some(0), etag, version, body });
        }
        other => other?,
    };
    let (etag, version, delivered) = (answer.etag, answer.version, answer.range);
    let body = Body {
        source,
        at,
        etag: etag.clone(),
        position: delivered.start,
        end: delivered.end,
        stream: answer.body,
        breaks: 0,
        breaks_in_all: 0,
        broke_at: delivered.start,
    };
    let body = stream::unfold(body, Body::step).boxed();
    let object_size_bytes = Some(answer.object_size_bytes);
    Ok(GetResult { range: delivered, object_size_bytes, etag, version, body })
}

struct Body {
    source: Arc<dyn Source>,
    at: At,
    etag: Option<String>,
    position: u64,
    end: u64,
    stream: BoxStream<'static, std::result::Result<Bytes, String>>,
    /// Since the last good progress.
    breaks: u32,
    breaks_in_all: u32,
    broke_at: u64,
}

impl Body {
    async fn step(mut self) -> Option<(Result<Bytes>, Self)> {
        while self.position < self.end {
            let silence = self.source.retry().timeout;
            let (kind, flaw) = match tokio::time::timeout(silence, self.stream.next()).await {
                Ok(Some(Ok(piece))) if piece.is_empty() => continue,
                Ok(Some(Ok(mut piece))) => {
                    piece.truncate(usize::try_from(self.end - self.position).unwrap_or(usize::MAX));
                    self.position += piece.len() as u64;
                    return Some((Ok(piece), self));
                }
                Ok(Some(Err(broken))) => (Kind::Unavailable, format!("broke off: {broken}")),
                Ok(None) => (Kind::Truncated, "ended".to_owned()),
                Err(_) => (Kind::Unavailable, format!("was silent for {} ms", silence.as_millis())),
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
        if self.breaks >= self.source.retry().max_attempts || self.breaks_in_all >= MAX_BREAKS {
            return Err(self.at.error(kind, format!("{detail} ({} times)", self.breaks_in_all)));
        }
        tracing::debug!(object = self.at.object, detail, "reading on");
        // The connection may have died for the same reason as its neighbours: not all at once.
        tokio::time::sleep(pause(self.breaks)).await;
        let rest = GetRange::Bounded { start: self.position, end: self.end };
        let answer = self.source.request(&self.at, rest, Some(etag)).await.map_err(|error| {
            if error.kind == Kind::AlreadyExists {
                // 412: the object at the key is another one now.
                return self
                    .at
                    .error(Kind::Truncated, format!("{detail}; the object was replaced meanwhile"));
            }
            Error { detail: format!("{detail}; reading on: {}", error.detail), ..error }
        })?;
        self.stream = answer.body;
        Ok(())
    }
}
