//! The listener: frames in, frames out. What comes in is outside bytes: bounded, decoded with care, and whoever sends
//! what we don't serve is hung up on.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
    RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, Message, VersionRange};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::answers;
use super::frame::Frame;
use super::led::Partitions;

/// As a broker's `socket.request.max.bytes`.
const REQUEST_MAX_BYTES: usize = 100 << 20;
const CONNECTIONS_MAX: usize = 1000;
/// How brokers name themselves when they fetch.
const FOLLOWERS: &str = "broker-";

/// Ends with the last handle.
#[derive(Debug)]
pub(super) struct Server {
    accepting: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Brokers of 4.2 ask in this version, whatever we say that we speak. It is as 10, which the codec knows, with one more
/// special timestamp.
const LIST_OFFSETS_MAX: i16 = 11;

/// What we serve, and in which versions.
fn served() -> [(ApiKey, VersionRange); 4] {
    [
        (ApiKey::Fetch, FetchRequest::VERSIONS),
        (ApiKey::ListOffsets, VersionRange { min: ListOffsetsRequest::VERSIONS.min, max: LIST_OFFSETS_MAX }),
        (ApiKey::ApiVersions, VersionRange { min: 0, max: 4 }),
        (ApiKey::OffsetForLeaderEpoch, OffsetForLeaderEpochRequest::VERSIONS),
    ]
}

impl Server {
    /// On a free port where `address` has port 0.
    pub(super) async fn start(address: SocketAddr, partitions: Arc<Partitions>) -> io::Result<(Self, u16)> {
        let listener = TcpListener::bind(address).await?;
        let port = listener.local_addr()?.port();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                while connections.len() >= CONNECTIONS_MAX {
                    connections.join_next().await;
                }
                while connections.try_join_next().is_some() {}
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let partitions = Arc::clone(&partitions);
                        connections.spawn(async move {
                            if let Err(error) = serve(stream, &partitions).await {
                                tracing::warn!(%peer, %error, "a connection was ended");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no connection can be taken");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok((Self { accepting: accepting.abort_handle() }, port))
    }
}

/// An error is what a broker must not send.
async fn serve(mut stream: TcpStream, partitions: &Partitions) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut length = [0; 4];
        match stream.read_exact(&mut length).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        };
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > REQUEST_MAX_BYTES {
            return Err(io::Error::other(format!("a request of {length} bytes")));
        }
        // Grows with what comes: a length alone takes no memory.
        let mut frame = Vec::new();
        (&mut stream).take(length as u64).read_to_end(&mut frame).await?;
        if frame.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match answer(frame.into(), partitions).await.map_err(io::Error::other)? {
            Some(answer) => answer.write(&mut stream).await?,
            None => return Ok(()),
        }
    }
}

/// One request's answer as a frame; `None` for whoever is no broker.
async fn answer(frame: Bytes, partitions: &Partitions) -> Result<Option<Frame>, String> {
    let mut head = frame.clone();
    if head.len() < 8 {
        return Err("a request without a header".to_owned());
    }
    let (key, version, id) = (head.get_i16(), head.get_i16(), head.get_i32());
    if !is_broker(&mut head) {
        return Ok(None);
    }
    let api = ApiKey::try_from(key).map_err(|()| format!("request {key}"))?;
    let versions = served().iter().find(|(served, _)| *served == api).map(|(_, versions)| *versions);
    let versions = versions.ok_or_else(|| format!("{api:?} is not served here"))?;
    if version < versions.min || version > versions.max {
        if api == ApiKey::ApiVersions {
            // KIP-511: the oldest answer, from which the other side learns what we speak.
            let code = ResponseError::UnsupportedVersion.code();
            return encode(&api_versions().with_error_code(code), 0, 0, id, []).map(Some);
        }
        return Err(format!("{api:?} version {version}, of {} to {}", versions.min, versions.max));
    }
    let mut body = frame;
    let _: RequestHeader = decode(&mut body, api.request_header_version(version))?;
    let head = api.response_header_version(version);
    let encoded = match api {
        ApiKey::ApiVersions => encode(&api_versions(), version, head, id, []),
        ApiKey::Fetch => {
            let request: FetchRequest = decode(&mut body, version)?;
            let answer = answers::fetch(partitions, request, version).await;
            let given = answer.responses.iter().flat_map(|topic| &topic.partitions);
            let records: Vec<Bytes> = given.filter_map(|partition| partition.records.clone()).collect();
            encode(&answer, version, head, id, records)
        }
        ApiKey::ListOffsets => {
            let version = version.min(ListOffsetsRequest::VERSIONS.max);
            let request: ListOffsetsRequest = decode(&mut body, version)?;
            encode(&answers::list_offsets(partitions, &request), version, head, id, [])
        }
        _ => {
            let request: OffsetForLeaderEpochRequest = decode(&mut body, version)?;
            encode(&answers::ends_of_epochs(partitions, &request), version, head, id, [])
        }
    };
    encoded.map(Some)
}

/// By the client id, which stands at the same place in all headers that brokers use.
fn is_broker(header: &mut Bytes) -> bool {
    let length = header.try_get_i16().ok().and_then(|length| usize::try_from(length).ok());
    length.and_then(|length| header.get(..length)).is_some_and(|id| id.starts_with(FOLLOWERS.as_bytes()))
}

fn api_versions() -> ApiVersionsResponse {
    let of = |(api, versions): &(ApiKey, VersionRange)| {
        let key = ApiVersion::default().with_api_key(*api as i16);
        key.with_min_version(versions.min).with_max_version(versions.max)
    };
    ApiVersionsResponse::default().with_api_keys(served().iter().map(of).collect())
}

/// The codec is not ours: a panic in it is an error.
fn decode<T: Decodable>(body: &mut Bytes, version: i16) -> Result<T, String> {
    let decoded = catch_unwind(AssertUnwindSafe(|| T::decode(body, version)));
    decoded.map_err(|_| "not decodable".to_owned())?.map_err(|error| error.to_string())
}

/// `records` are those that are in the answer, in its order.
fn encode(
    answer: &impl Encodable,
    version: i16,
    header_version: i16,
    id: i32,
    records: impl IntoIterator<Item = Bytes>,
) -> Result<Frame, String> {
    let mut frame = Frame::new(records);
    let header = ResponseHeader::default().with_correlation_id(id);
    let encoded = header.encode(&mut frame, header_version).and_then(|()| answer.encode(&mut frame, version));
    encoded.map_err(|error| error.to_string())?;
    Ok(frame)
}
