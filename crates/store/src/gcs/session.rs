//! A resumable upload: one stream of bytes into one object, which appears when its end is sent.
//!
//! * Bytes go in chunks of whole quanta of 256 KiB, the last of any size; what does not fill a quantum is kept for
//!   the next chunk.
//! * Where an answer was lost, or the future that waited for it was dropped, the store is asked how far it got
//!   before anything is sent again.
//! * The session's address holds an id that is as good as a token: it is in no message, and requests to it carry no
//!   token.
//! * A crash leaves the session behind; no one can list it, and the store forgets it after a week.

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use reqwest::{Method, Response};
use url::Url;

use super::client::{Pieces, read_json};
use super::resource::{Object, show_crc32c};
use super::{Inner, failure};
use crate::contract::Result;
use crate::error::Kind;
use crate::failure::{At, Failure, Passing};

/// Chunks but the last are multiples of this.
pub(super) const QUANTUM_BYTES: u64 = 256 << 10;

/// What the store says of a session.
enum Told {
    /// It has so many bytes.
    Has(u64),
    Done(Box<Object>),
}

/// How the object ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) size_bytes: u64,
    pub(super) crc32c: u32,
}

pub(super) struct Session {
    url: Url,
    /// Where `tail` begins in the object.
    base: u64,
    /// Bytes of parts that were taken, and don't fill a quantum.
    tail: Bytes,
    /// The store has all bytes before.
    committed: u64,
    /// The store may have more.
    in_doubt: bool,
}

impl Session {
    pub(super) fn new(url: Url) -> Self {
        Self { url, base: 0, tail: Bytes::new(), committed: 0, in_doubt: false }
    }

    /// Whether the store may have bytes of the part whose turn it is.
    pub(super) fn is_within_a_part(&self) -> bool {
        self.in_doubt || self.committed > self.base
    }

    /// Appends a part. Where this fails, the same part may be sent again.
    pub(super) async fn append(&mut self, inner: &Inner, part: &Bytes, at: &At) -> Result<()> {
        let end = self.base + (self.tail.len() + part.len()) as u64;
        let goal = end / QUANTUM_BYTES * QUANTUM_BYTES;
        if goal > self.base && self.send(inner, part, goal, None, at).await?.is_some() {
            return Err(at.error(Kind::Other, "the store says that the upload is complete"));
        }
        let mut tail = BytesMut::new();
        for piece in self.pieces(part, goal, end) {
            tail.extend_from_slice(&piece);
        }
        (self.base, self.tail) = (goal, tail.freeze());
        Ok(())
    }

    /// Appends the last bytes, and makes the object of all of them.
    pub(super) async fn finish(&mut self, inner: &Inner, rest: &Bytes, end: End, at: &At) -> Result<Object> {
        match self.send(inner, rest, end.size_bytes, Some(end), at).await? {
            Some(object) => Ok(object),
            None => Err(at.error(Kind::Other, "the store has all bytes, and no object of them")),
        }
    }

    /// The bytes from `start` to `end`, of the tail with `part` behind.
    fn pieces(&self, part: &Bytes, start: u64, end: u64) -> [Bytes; 2] {
        let middle = self.base + self.tail.len() as u64;
        let cut = |bytes: &Bytes, base: u64| {
            let place =
                |at: u64| usize::try_from(at.saturating_sub(base)).map_or(0, |at| at.min(bytes.len()));
            bytes.slice(place(start)..place(end).max(place(start)))
        };
        [cut(&self.tail, self.base), cut(part, middle)]
    }

    /// Until the store has all bytes before `goal`, or the object.
    async fn send(
        &mut self,
        inner: &Inner,
        part: &Bytes,
        goal: u64,
        end: Option<End>,
        at: &At,
    ) -> Result<Option<Object>> {
        let mut course = inner.retry.course();
        loop {
            let (asks, start) = (self.in_doubt, self.committed);
            if end.is_none() && !asks && start >= goal {
                return Ok(None);
            }
            let body = if asks { [Bytes::new(), Bytes::new()] } else { self.pieces(part, start, goal) };
            // Whoever is dropped while he waits leaves this behind.
            self.in_doubt = true;
            let session = &*self;
            let request = || async {
                match asks {
                    true => session.ask(inner, end).await,
                    false => session.put(inner, body.clone(), start..goal, end).await,
                }
            };
            let body_bytes = if asks { 0 } else { goal - start };
            let failure = match course.attempt(body_bytes, &request).await {
                Ok(Told::Done(object)) => return Ok(Some(*object)),
                Ok(Told::Has(bytes)) if bytes < start || bytes > goal => {
                    let detail = format!("the store says it has {bytes} bytes, of {start} to {goal}");
                    return Err(at.error(Kind::Other, detail));
                }
                Ok(Told::Has(bytes)) => {
                    (self.committed, self.in_doubt) = (bytes, false);
                    if bytes > start {
                        // Attempts are counted from where it stops getting on.
                        course = inner.retry.course();
                        continue;
                    }
                    if asks {
                        continue;
                    }
                    let detail = format!("the store took no byte of {start} to {goal}");
                    Failure::new(Kind::Unavailable, Passing::Transient, false, detail)
                }
                Err(failure) => {
                    self.in_doubt = asks || failure.ambiguous;
                    failure
                }
            };
            if let Err(last) = course.again(failure, at).await {
                return Err(last.error(at, course.attempts));
            }
        }
    }

    async fn put(
        &self,
        inner: &Inner,
        body: [Bytes; 2],
        bytes: std::ops::Range<u64>,
        end: Option<End>,
    ) -> std::result::Result<Told, Failure> {
        let total = end.map_or_else(|| "*".to_owned(), |end| end.size_bytes.to_string());
        let range = match bytes.is_empty() {
            true => format!("bytes */{total}"),
            false => format!("bytes {}-{}/{total}", bytes.start, bytes.end - 1),
        };
        let call = inner.client.request(Method::PUT, self.url.clone());
        let call = call.header(CONTENT_RANGE, range).header(CONTENT_LENGTH, bytes.end - bytes.start);
        let call = end.iter().fold(call, |call, end| {
            call.header("x-goog-hash", format!("crc32c={}", show_crc32c(end.crc32c)))
        });
        told(inner.client.send_unsigned(call.body(Pieces::new(body).into_body())).await?).await
    }

    async fn ask(&self, inner: &Inner, end: Option<End>) -> std::result::Result<Told, Failure> {
        let total = end.map_or_else(|| "*".to_owned(), |end| end.size_bytes.to_string());
        let call = inner.client.request(Method::PUT, self.url.clone());
        let call = call.header(CONTENT_RANGE, format!("bytes */{total}")).header(CONTENT_LENGTH, 0);
        told(inner.client.send_unsigned(call).await?).await
    }
}

async fn told(answer: Response) -> std::result::Result<Told, Failure> {
    match answer.status().as_u16() {
        200 | 201 => Ok(Told::Done(Box::new(read_json(answer).await?))),
        308 => {
            let range = answer.headers().get(RANGE).map(|range| range.to_str().unwrap_or("?").to_owned());
            let bytes = has_bytes(range.as_deref());
            // Else the connection could not be used again.
            let _ = super::client::read_within(answer, 1 << 16).await;
            bytes.map(Told::Has).ok_or_else(|| {
                let detail = format!("the store has the bytes {range:?}, which is no range from 0");
                Failure::new(Kind::Other, Passing::Never, false, detail)
            })
        }
        _ => Err(failure::answered(answer).await),
    }
}

/// How many bytes the store has: `bytes=0-41` are 42, no header at all is none.
fn has_bytes(range: Option<&str>) -> Option<u64> {
    let Some(range) = range else { return Some(0) };
    let last = range.strip_prefix("bytes=0-")?.parse::<u64>().ok()?;
    last.checked_add(1)
}

/// Forgets the session; one that is gone is forgotten.
pub(super) async fn forget(inner: &Inner, url: &Url, at: &At) -> Result<()> {
    let request = || async {
        let call = inner.client.request(Method::DELETE, url.clone()).header(CONTENT_LENGTH, 0);
        let answer = inner.client.send_unsigned(call).await?;
        match answer.status().as_u16() {
            // 499 is how the store says that it did.
            200..=299 | 404 | 410 | 499 => Ok(()),
            _ => Err(failure::answered(answer).await),
        }
    };
    inner.retry.run(at, 0, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_has_is_read() {
        assert_eq!(has_bytes(None), Some(0));
        assert_eq!(has_bytes(Some("bytes=0-0")), Some(1));
        assert_eq!(has_bytes(Some("bytes=0-262143")), Some(QUANTUM_BYTES));
        for bad in ["bytes=1-5", "bytes 0-5", "bytes=0-", "bytes=0-18446744073709551615", ""] {
            assert_eq!(has_bytes(Some(bad)), None, "{bad}");
        }
    }

    #[test]
    fn pieces_are_cut_across_tail_and_part() {
        let mut session = Session::new(Url::parse("http://there/").unwrap());
        (session.base, session.tail) = (100, Bytes::from_static(b"abc"));
        let part = Bytes::from_static(b"defgh");
        let cut = |start, end| session.pieces(&part, start, end).concat();
        assert_eq!(cut(100, 108), b"abcdefgh");
        assert_eq!(cut(102, 104), b"cd");
        assert_eq!(cut(104, 107), b"efg");
        assert_eq!(cut(108, 108), b"");
    }
}
