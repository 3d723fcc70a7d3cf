//! Requests in, answers out, each a frame with its length before it. What comes in is outside bytes: bounded, and
//! decoded with care.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::ResponseHeader;
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What every request begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) key: i16,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
}

impl Head {
    /// Takes it off the frame.
    pub(super) fn take(frame: &mut Bytes) -> Result<Self, String> {
        if frame.len() < 8 {
            return Err("a request without a header".to_owned());
        }
        Ok(Self { key: frame.get_i16(), version: frame.get_i16(), correlation_id: frame.get_i32() })
    }
}

/// The next frame; `None` where the other side has closed the connection behind a whole one.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    max_bytes: usize,
) -> io::Result<Option<Bytes>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > max_bytes {
        return Err(io::Error::other(format!("a request of {length} bytes, at most {max_bytes} are taken")));
    }
    // Grows with what comes: a length alone takes no memory.
    let mut frame = Vec::new();
    stream.take(length as u64).read_to_end(&mut frame).await?;
    if frame.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(frame.into()))
}

/// The codec is not ours: a panic in it is an error.
pub(super) fn decode<T: Decodable>(body: &mut Bytes, version: i16) -> Result<T, String> {
    let decoded = catch_unwind(AssertUnwindSafe(|| T::decode(body, version)));
    decoded.map_err(|_| "not decodable".to_owned())?.map_err(|error| error.to_string())
}

pub(super) fn encode(
    answer: &impl Encodable,
    version: i16,
    header_version: i16,
    correlation_id: i32,
) -> Result<Bytes, String> {
    let mut frame = BytesMut::with_capacity(256);
    frame.extend_from_slice(&[0; 4]);
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    let encoded = header.encode(&mut frame, header_version).and_then(|()| answer.encode(&mut frame, version));
    encoded.map_err(|error| error.to_string())?;
    let length = u32::try_from(frame.len().saturating_sub(4)).map_err(|error| error.to_string())?;
    if let Some(head) = frame.first_chunk_mut() {
        *head = length.to_be_bytes();
    }
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8]) -> io::Result<Option<Bytes>> {
        read(&mut &bytes[..], 10).await
    }

    #[tokio::test]
    async fn lengths_are_not_believed() {
        assert_eq!(read_all(b"\0\0\0\x02ab").await.unwrap().as_deref(), Some(&b"ab"[..]));
        assert!(read_all(b"").await.unwrap().is_none(), "closed behind a frame");
        assert!(read_all(b"\0\0\0\x03ab").await.is_err(), "cut off");
        assert!(read_all(b"\0\0\0\x0bab").await.is_err(), "longer than is taken");
        assert!(read_all(b"\xff\xff\xff\xff").await.is_err(), "a negative length");
        assert!(Head::take(&mut Bytes::from_static(b"\0\x12\0\0\0\0\0")).is_err());
    }
}
