//! The listener: whoever connects speaks TLS and logs in as the brokers do among each other, and is then answered as
//! long as it is a broker. Whoever sends what we don't serve is hung up on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, ListOffsetsRequest, OffsetForLeaderEpochRequest, RequestHeader,
    ResponseHeader,
};
use kafka_protocol::protocol::{Encodable, Message};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::answers;
use super::frames::{self, Head, decode, encode};
use super::gathered::{Gathered, Parts, Records};
use super::led::Partitions;
use super::listener::{ListenerSecurity, NotLetIn, log_in, tls_refusal};
use super::versions;

/// As a broker's `socket.request.max.bytes`.
const REQUEST_MAX_BYTES: usize = 100 << 20;
const CONNECTIONS_MAX: usize = 1000;
/// For TLS and login together: whoever only holds a connection open loses it.
const ENTRY_MAX: Duration = Duration::from_secs(10);
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

impl Server {
    /// On a free port where `address` has port 0.
    pub(super) async fn start(
        address: SocketAddr,
        security: ListenerSecurity,
        partitions: Arc<Partitions>,
    ) -> io::Result<(Self, u16)> {
        let listener = TcpListener::bind(address).await?;
        let port = listener.local_addr()?.port();
        let security = Arc::new(security);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                while connections.len() >= CONNECTIONS_MAX {
                    connections.join_next().await;
                }
                while connections.try_join_next().is_some() {}
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let (security, partitions) = (Arc::clone(&security), Arc::clone(&partitions));
                        connections
                            .spawn(async move { connected(stream, peer, &security, &partitions).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no connection can be taken");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok((Self { accepting: accepting.abort_handle() }, port))
    }
}

/// One connection, to its end.
async fn connected(
    stream: TcpStream,
    peer: SocketAddr,
    security: &ListenerSecurity,
    partitions: &Partitions,
) {
    let entering = tokio::time::timeout(ENTRY_MAX, enter(stream, security)).await;
    let entered = entering.unwrap_or_else(|_| {
        let why = format!("it did not come through TLS and login within {} s", ENTRY_MAX.as_secs());
        Err(NotLetIn::Refused(why))
    });
    match entered {
        Ok(stream) => {
            if let Err(error) = serve(stream, security, partitions).await {
                tracing::warn!(%peer, %error, "a connection was ended");
            }
        }
        Err(NotLetIn::Refused(why)) => partitions.entrance.refused(peer, why),
        // Somebody who came and went, as health checks do.
        Err(NotLetIn::Gone(error)) => tracing::debug!(%peer, %error, "a connection ended early"),
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn enter(tcp: TcpStream, security: &ListenerSecurity) -> Result<Box<dyn Stream>, NotLetIn> {
    tcp.set_nodelay(true).map_err(NotLetIn::Gone)?;
    let mut stream: Box<dyn Stream> = match security.tls() {
        None => Box::new(tcp),
        Some(tls) => Box::new(TlsAcceptor::from(Arc::clone(tls)).accept(tcp).await.map_err(tls_refusal)?),
    };
    if let Some(login) = security.login() {
        log_in(&mut stream, login).await?;
    }
    Ok(stream)
}

/// An error is what a broker must not send.
async fn serve(
    mut stream: Box<dyn Stream>,
    security: &ListenerSecurity,
    partitions: &Partitions,
) -> io::Result<()> {
    while let Some(frame) = frames::read(&mut stream, REQUEST_MAX_BYTES).await? {
        match answer(frame, security, partitions).await.map_err(io::Error::other)? {
            Some(answer) => answer.write(&mut stream).await?,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// One request's answer as a frame; `None` for whoever is no broker.
async fn answer(
    frame: Bytes,
    security: &ListenerSecurity,
    partitions: &Partitions,
) -> Result<Option<Parts>, String> {
    let mut behind = frame.clone();
    let head = Head::take(&mut behind)?;
    if !is_broker(&mut behind) {
        return Ok(None);
    }
    partitions.entrance.let_in();
    let (version, id) = (head.version, head.correlation_id);
    let api = ApiKey::try_from(head.key).map_err(|()| format!("request {}", head.key))?;
    if api == ApiKey::ApiVersions {
        return versions::told(head, security.login().is_some()).map(|told| Some(told.into()));
    }
    let versions =
        versions::served().iter().find(|(served, _)| *served == api).map(|(_, versions)| *versions);
    let versions = versions.ok_or_else(|| format!("{api:?} is not served here"))?;
    if version < versions.min || version > versions.max {
        return Err(format!("{api:?} version {version}, of {} to {}", versions.min, versions.max));
    }
    let mut body = frame;
    let _: RequestHeader = decode(&mut body, api.request_header_version(version))?;
    let header_version = api.response_header_version(version);
    let encoded = match api {
        ApiKey::Fetch => {
            let request: FetchRequest = decode(&mut body, version)?;
            let (answer, records) = answers::fetch(partitions, request, version).await;
            return fetched(&answer, records, version, header_version, id).map(Some);
        }
        ApiKey::ListOffsets => {
            let version = version.min(ListOffsetsRequest::VERSIONS.max);
            let request: ListOffsetsRequest = decode(&mut body, version)?;
            encode(&answers::list_offsets(partitions, &request), version, header_version, id)
        }
        _ => {
            let request: OffsetForLeaderEpochRequest = decode(&mut body, version)?;
            encode(&answers::ends_of_epochs(partitions, &request), version, header_version, id)
        }
    };
    encoded.map(|frame| Some(frame.into()))
}

fn fetched(
    answer: &FetchResponse,
    records: Vec<Records>,
    version: i16,
    header_version: i16,
    id: i32,
) -> Result<Parts, String> {
    let mut frame = Gathered::new(records);
    let header = ResponseHeader::default().with_correlation_id(id);
    let encoded = header.encode(&mut frame, header_version).and_then(|()| answer.encode(&mut frame, version));
    encoded.map_err(|error| error.to_string())?;
    frame.framed()
}

/// By the client id, which stands at the same place in all headers that brokers use.
fn is_broker(header: &mut Bytes) -> bool {
    let length = header.try_get_i16().ok().and_then(|length| usize::try_from(length).ok());
    length.and_then(|length| header.get(..length)).is_some_and(|id| id.starts_with(FOLLOWERS.as_bytes()))
}
