//! A frame as it is sent: record batches stay where they are, and only what is around them is written anew.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::buf::ByteBufMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Shorter ones are copied: a part costs more.
const PART_MIN_BYTES: usize = 4 << 10;
/// Given to the kernel at once.
const SLICES_MAX: usize = 64;

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

/// A buffer for the codec. What it is told to expect it does not copy: it keeps the owner.
#[derive(Debug)]
pub(super) struct Gathered {
    parts: Vec<Bytes>,
    parts_bytes: usize,
    tail: BytesMut,
    expected: VecDeque<Bytes>,
}

impl Gathered {
    /// `expected` are those that the codec comes to, in its order.
    pub(super) fn new(expected: impl IntoIterator<Item = Bytes>) -> Self {
        let expected = expected.into_iter().filter(|bytes| bytes.len() >= PART_MIN_BYTES).collect();
        Self { parts: Vec::new(), parts_bytes: 0, tail: BytesMut::with_capacity(512), expected }
    }

    fn is_next(&self, slice: &[u8]) -> bool {
        self.expected.front().is_some_and(|next| std::ptr::eq::<[u8]>(&**next, slice))
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
        if let Some(part) = self.expected.pop_front() {
            self.close();
            self.parts_bytes += part.len();
            self.parts.push(part);
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

    fn answer(sizes: &[usize]) -> FetchResponse {
        let of =
            |size: &usize| PartitionData::default().with_records(Some(Bytes::from(vec![*size as u8; *size])));
        let topic = FetchableTopicResponse::default().with_partitions(sizes.iter().map(of).collect());
        FetchResponse::default().with_responses(vec![topic])
    }

    #[tokio::test]
    async fn the_same_bytes_as_in_one_buffer_and_none_of_the_records_copied() {
        let answer = answer(&[0, 5, PART_MIN_BYTES, 0, 1 << 20, PART_MIN_BYTES - 1, 70_000]);
        for version in FetchRequest::VERSIONS.min..=FetchRequest::VERSIONS.max {
            let mut one = BytesMut::new();
            answer.encode(&mut one, version).unwrap();
            let records = answer.responses[0].partitions.iter().filter_map(|p| p.records.clone());
            let mut frame = Gathered::new(records);
            answer.encode(&mut frame, version).unwrap();
            assert!(frame.expected.is_empty() && frame.parts.len() == 6, "version {version}");
            let mut sent = Vec::new();
            frame.framed().unwrap().write(&mut sent).await.unwrap();
            assert_eq!(sent[..4], u32::try_from(one.len()).unwrap().to_be_bytes(), "version {version}");
            assert!(sent[4..] == one[..], "version {version}");
        }
    }
}
