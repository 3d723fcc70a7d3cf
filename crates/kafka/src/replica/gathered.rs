//! A frame as it is sent: record batches stay where they are, and only what is around them is written anew.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::LazyLock;

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::buf::ByteBufMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Shorter ones are copied: a part costs more.
const PART_MIN_BYTES: usize = 4 << 10;
/// Given to the kernel at once.
const SLICES_MAX: usize = 64;
/// What records in several parts may have, to be shown as blank bytes. Nobody reads those, so that they take no memory.
const BLANK_BYTES: usize = 16 << 20;
static BLANK: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; BLANK_BYTES]));

/// Record batches, wherever they lie, and what the codec is shown in their place: as many bytes, of which it keeps none.
#[derive(Debug)]
pub(super) struct Records {
    shown: Bytes,
    parts: Vec<Bytes>,
}

impl Records {
    pub(super) fn new(mut parts: Vec<Bytes>) -> Self {
        let bytes = parts.iter().map(Bytes::len).sum();
        if parts.len() > 1 && (PART_MIN_BYTES..=BLANK_BYTES).contains(&bytes) {
            return Self { shown: BLANK.slice(..bytes), parts };
        }
        if parts.len() > 1 {
            parts = vec![Bytes::from(parts.concat())];
        }
        Self { shown: parts.first().cloned().unwrap_or_default(), parts }
    }

    pub(super) fn shown(&self) -> Bytes {
        self.shown.clone()
    }

    pub(super) fn len(&self) -> usize {
        self.shown.len()
    }
}

/// A whole frame, its length in front.
#[derive(Debug)]
pub(super) struct Parts(VecDeque<Bytes>);

impl From<Bytes> for Parts {
    fn from(frame: Bytes) -> Self {
        Self(VecDeque::from([frame]))
    }
}

impl Parts {
    pub(super) async fn write(mut self, out: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let parts = &mut self.0;
        while !parts.is_empty() {
            let slices: Vec<IoSlice<'_>> =
                parts.iter().take(SLICES_MAX).map(|part| IoSlice::new(part)).collect();
            let mut written = out.write_vectored(&slices).await?;
            if written == 0 && parts.iter().any(|part| !part.is_empty()) {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while let Some(part) = parts.front_mut() {
                let done = written.min(part.len());
                part.advance(done);
                written -= done;
                if !part.is_empty() {
                    break;
                }
                parts.pop_front();
            }
        }
        out.flush().await
    }
}

/// A buffer for the codec. Of the records that it is told to expect it keeps the parts, and copies nothing.
#[derive(Debug)]
pub(super) struct Gathered {
    parts: Vec<Bytes>,
    parts_bytes: usize,
    tail: BytesMut,
    expected: VecDeque<Records>,
}

impl Gathered {
    /// `expected` are those that the codec comes to, in its order.
    pub(super) fn new(expected: impl IntoIterator<Item = Records>) -> Self {
        let expected = expected.into_iter().filter(|records| records.len() >= PART_MIN_BYTES).collect();
        Self { parts: Vec::new(), parts_bytes: 0, tail: BytesMut::with_capacity(512), expected }
    }

    fn is_next(&self, slice: &[u8]) -> bool {
        self.expected.front().is_some_and(|next| std::ptr::eq::<[u8]>(&*next.shown, slice))
    }

    fn close(&mut self) {
        let tail = self.tail.split().freeze();
        self.parts_bytes += tail.len();
        self.parts.push(tail);
    }

    /// All of it, behind its length.
    pub(super) fn framed(mut self) -> Result<Parts, String> {
        self.close();
        let length = u32::try_from(self.parts_bytes).map_err(|error| error.to_string())?;
        let length = Bytes::copy_from_slice(&length.to_be_bytes());
        Ok(Parts(std::iter::once(length).chain(self.parts).collect()))
    }
}

// SAFETY: what is written goes into the tail, whose own implementation is handed on.
unsafe impl BufMut for Gathered {
    fn remaining_mut(&self) -> usize {
        self.tail.remaining_mut()
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: the caller has written as many bytes into the tail.
        unsafe { self.tail.advance_mut(count) };
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.tail.chunk_mut()
    }

    fn put_slice(&mut self, slice: &[u8]) {
        if !self.is_next(slice) {
            self.tail.put_slice(slice);
            return;
        }
        if let Some(records) = self.expected.pop_front() {
            self.close();
            self.parts_bytes += records.len();
            self.parts.extend(records.parts);
        }
    }
}

impl ByteBufMut for Gathered {
    fn offset(&self) -> usize {
        self.parts_bytes + self.tail.len()
    }

    fn seek(&mut self, offset: usize) {
        self.tail.resize(offset.saturating_sub(self.parts_bytes), 0);
    }

    /// Only what was written behind the last part can be written again.
    fn range(&mut self, range: Range<usize>) -> &mut [u8] {
        let from = self.parts_bytes;
        let range = range.start.saturating_sub(from)..range.end.saturating_sub(from);
        self.tail.get_mut(range).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::{FetchRequest, FetchResponse};
    use kafka_protocol::protocol::{Encodable, Message};

    use super::*;

    fn answer(records: impl Iterator<Item = Bytes>) -> FetchResponse {
        let of = |records| PartitionData::default().with_records(Some(records));
        let topic = FetchableTopicResponse::default().with_partitions(records.map(of).collect());
        FetchResponse::default().with_responses(vec![topic])
    }

    /// Other bytes everywhere.
    fn bytes(size: usize) -> Bytes {
        (0..size).map(|n| (n * n / 7 + size) as u8).collect()
    }

    #[tokio::test]
    async fn the_same_bytes_as_in_one_buffer_and_none_of_the_records_copied() {
        let sizes = [0, 5, PART_MIN_BYTES, 0, 1 << 20, PART_MIN_BYTES - 1, 70_000];
        // All but the first two of the long ones lie in two places, and so does a short one.
        let parts = |size: usize| match size {
            0 => Vec::new(),
            PART_MIN_BYTES | 5 => vec![bytes(size)],
            _ => vec![bytes(size).slice(..size / 3), bytes(size).slice(size / 3..)],
        };
        let plain = answer(sizes.iter().map(|size| bytes(*size)));
        for version in FetchRequest::VERSIONS.min..=FetchRequest::VERSIONS.max {
            let mut one = BytesMut::new();
            plain.encode(&mut one, version).unwrap();
            let records: Vec<Records> = sizes.iter().map(|size| Records::new(parts(*size))).collect();
            let answer = answer(records.iter().map(Records::shown));
            let mut frame = Gathered::new(records);
            answer.encode(&mut frame, version).unwrap();
            assert!(frame.expected.is_empty() && frame.parts.len() == 8, "version {version}");
            let mut sent = Vec::new();
            frame.framed().unwrap().write(&mut sent).await.unwrap();
            assert_eq!(sent[..4], u32::try_from(one.len()).unwrap().to_be_bytes(), "version {version}");
            assert!(sent[4..] == one[..], "version {version}");
        }
    }
}
