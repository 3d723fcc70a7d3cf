//! One connection to one broker, shared by any number of callers.
//!
//! Requests are pipelined: each is numbered, a writer task sends them, a reader task hands each answer to
//! the call that waits for its number. A call may be dropped at any time; its answer is then read and thrown
//! away. After a timeout, a frame that is too long, or an unexpected number the connection is over: every
//! waiting call gets an error, and whoever needs the broker connects again.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::config::{ClientConfig, HostPort};
use super::error::{ClientError, Result};
use super::{sasl, tls};

/// Requests that wait to be sent. Answers that are awaited are at most as many as calls under way.
const WRITE_QUEUE: usize = 16;
/// Asked with this version always: brokers since 2.4 know it.
const API_VERSIONS_VERSION: i16 = 3;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A handle; clones share the connection, and the last one closes it.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    broker: String,
    client_id: StrBytes,
    request_timeout: Duration,
    /// Api key → lowest and highest version that the broker speaks.
    versions: Mutex<HashMap<i16, (i16, i16)>>,
    /// When to log in anew, by connecting again.
    expires: Mutex<Option<Instant>>,
    waiting: Arc<Waiting>,
    next_id: AtomicI32,
    frames: mpsc::Sender<Bytes>,
    tasks: [AbortHandle; 2],
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("broker", &self.broker).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Calls that await an answer, or why none will come any more.
#[derive(Default)]
struct Waiting(Mutex<WaitingState>);

#[derive(Default)]
struct WaitingState {
    calls: HashMap<i32, oneshot::Sender<Bytes>>,
    ended: Option<Ended>,
}

#[derive(Clone)]
enum Ended {
    Closed(String),
    FrameTooLarge { found: i64, limit: usize },
}

impl Waiting {
    fn end(&self, why: Ended) {
        let mut state = self.0.lock();
        state.ended.get_or_insert(why);
        state.calls.clear();
    }
}

impl Connection {
    /// Connects, negotiates versions and logs in.
    pub async fn open(
        address: &HostPort,
        config: &ClientConfig,
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> Result<Self> {
        let opening = async {
            let stream = connect(address, tls).await?;
            let connection = Self::start(address.to_string(), stream, config);
            connection.negotiate().await?;
            if let Some(sasl) = &config.sasl {
                let lifetime = sasl::login(&connection, sasl).await?;
                *connection.shared.expires.lock() = lifetime.map(|l| Instant::now() + l.mul_f32(0.85));
            }
            Ok(connection)
        };
        match tokio::time::timeout(config.connect_timeout, opening).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout {
                broker: address.to_string(),
                request: "connecting".to_owned(),
                timeout_ms: config.connect_timeout.as_millis() as u64,
            }),
        }
    }

    fn start(broker: String, stream: Box<dyn Stream>, config: &ClientConfig) -> Self {
        let (reader, mut writer) = tokio::io::split(stream);
        let (frames, mut queue) = mpsc::channel::<Bytes>(WRITE_QUEUE);
        let waiting = Arc::new(Waiting::default());
        let on_write = Arc::clone(&waiting);
        let writing = tokio::spawn(async move {
            while let Some(frame) = queue.recv().await {
                let sent = async {
                    writer.write_all(&frame).await?;
                    writer.flush().await
                };
                if let Err(e) = sent.await {
                    on_write.end(Ended::Closed(e.to_string()));
                    return;
                }
            }
        });
        let on_read = Arc::clone(&waiting);
        let limit = config.receive_message_max_bytes;
        let reading = tokio::spawn(async move {
            let why = read_answers(reader, limit, &on_read).await;
            on_read.end(why);
        });
        let shared = Shared {
            broker,
            client_id: StrBytes::from_string(config.client_id.clone()),
            request_timeout: config.request_timeout,
            versions: Mutex::default(),
            expires: Mutex::new(None),
            waiting,
            next_id: AtomicI32::new(0),
            frames,
            tasks: [writing.abort_handle(), reading.abort_handle()],
        };
        Self { shared: Arc::new(shared) }
    }

    /// `host:port`.
    pub fn broker(&self) -> &str {
        &self.shared.broker
    }

    /// For one request and its answer.
    pub fn request_timeout(&self) -> Duration {
        self.shared.request_timeout
    }

    /// Whether a new call may succeed on it.
    pub fn is_usable(&self) -> bool {
        let expired = self.shared.expires.lock().is_some_and(|at| Instant::now() >= at);
        !expired && !self.has_ended()
    }

    /// Whether calls that wait for an answer get none any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.waiting.0.lock().ended.is_some()
    }

    /// The highest version of `R` that both sides speak, at most `cap`.
    pub fn version<R: Request>(&self, cap: i16) -> Result<i16> {
        self.version_to::<R>(R::VERSIONS.max.min(cap))
    }

    /// The highest version of `R` up to `newest` that the other side speaks.
    pub(crate) fn version_to<R: Request>(&self, newest: i16) -> Result<i16> {
        let ours = R::VERSIONS;
        let theirs = self.shared.versions.lock().get(&R::KEY).copied();
        let (low, high) = theirs.unwrap_or((0, -1));
        let version = newest.min(high);
        if version < ours.min.max(low) {
            return Err(ClientError::UnsupportedVersion {
                broker: self.shared.broker.clone(),
                request: request_name::<R>(),
                ours: format!("{}..{newest}", ours.min),
                theirs: theirs.map_or_else(|| "(none)".to_owned(), |(low, high)| format!("{low}..{high}")),
            });
        }
        Ok(version)
    }

    /// The broker's highest version of `R` is below `needed`.
    pub(crate) fn too_old<R: Request>(&self, needed: i16) -> ClientError {
        let theirs = self.shared.versions.lock().get(&R::KEY).copied();
        ClientError::UnsupportedVersion {
            broker: self.shared.broker.clone(),
            request: request_name::<R>(),
            ours: format!("{needed}..{}", R::VERSIONS.max),
            theirs: theirs.map_or_else(|| "(none)".to_owned(), |(low, high)| format!("{low}..{high}")),
        }
    }

    /// Sends a request in the highest common version and waits for its answer.
    pub async fn call<R: Request>(&self, request: R) -> Result<R::Response> {
        let version = self.version::<R>(i16::MAX)?;
        self.call_version(request, version).await
    }

    /// The caller chose the version, by [`Connection::version`]. One that the codec does not know yet may differ from
    /// its newest in tagged fields only.
    pub async fn call_version<R: Request>(&self, request: R, version: i16) -> Result<R::Response> {
        self.begin(request, version).await?.await
    }

    /// Sends it, behind what was begun before, and gives what waits for its answer.
    pub(crate) async fn begin<R: Request>(
        &self,
        request: R,
        version: i16,
    ) -> Result<impl Future<Output = Result<R::Response>> + Send + use<R>> {
        let shared = &self.shared;
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let frame = self.encode(&request, version, id)?;
        let (sender, answer) = oneshot::channel();
        {
            let mut state = shared.waiting.0.lock();
            if let Some(why) = &state.ended {
                return Err(self.ended(why.clone()));
            }
            state.calls.insert(id, sender);
        }
        let deadline = tokio::time::Instant::now() + shared.request_timeout;
        match tokio::time::timeout_at(deadline, shared.frames.send(frame)).await {
            Ok(Ok(())) => {}
            // The writer has ended; the answer's channel then ends too.
            Ok(Err(_)) => shared.waiting.end(Ended::Closed("it was closed".to_owned())),
            Err(_) => return Err(self.timed_out::<R>()),
        }
        let connection = self.clone();
        Ok(async move {
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(body)) => connection.decode::<R>(body, version),
                Ok(Err(_)) => {
                    let why = connection.shared.waiting.0.lock().ended.clone();
                    Err(connection.ended(why.unwrap_or_else(|| Ended::Closed("it was closed".to_owned()))))
                }
                Err(_) => Err(connection.timed_out::<R>()),
            }
        })
    }

    /// Whatever comes now would be another request's: the connection is over.
    fn timed_out<R: Request>(&self) -> ClientError {
        let shared = &self.shared;
        let timeout_ms = shared.request_timeout.as_millis() as u64;
        shared.waiting.end(Ended::Closed("a request timed out on it".to_owned()));
        ClientError::Timeout { broker: shared.broker.clone(), request: request_name::<R>(), timeout_ms }
    }

    fn encode<R: Request>(&self, request: &R, version: i16, id: i32) -> Result<Bytes> {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(id)
            .with_client_id(Some(self.shared.client_id.clone()));
        // Its records are copied once, and not again each time that the frame grows.
        let size = request.compute_size(version.min(R::VERSIONS.max)).unwrap_or(0);
        let mut frame = BytesMut::with_capacity(size.saturating_add(256));
        frame.extend_from_slice(&[0; 4]);
        let encoded = header
            .encode(&mut frame, R::header_version(version))
            .and_then(|()| request.encode(&mut frame, version.min(R::VERSIONS.max)));
        encoded.map_err(|e| self.codec::<R>(format!("cannot encode version {version}: {e}")))?;
        let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
        if let Some(head) = frame.get_mut(..4) {
            head.copy_from_slice(&length.to_be_bytes());
        }
        Ok(frame.freeze())
    }

    /// The codec is not ours, and answers are outside bytes: a panic in it is an error, not the end.
    fn decode<R: Request>(&self, mut body: Bytes, version: i16) -> Result<R::Response> {
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            ResponseHeader::decode(&mut body, R::Response::header_version(version))?;
            R::Response::decode(&mut body, version.min(R::VERSIONS.max))
        }));
        match decoded {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => Err(self.codec::<R>(format!("cannot decode the answer, version {version}: {e}"))),
            Err(_) => Err(self.codec::<R>(format!("the answer, version {version}, is not decodable"))),
        }
    }

    fn codec<R: Request>(&self, detail: String) -> ClientError {
        ClientError::Codec { broker: self.shared.broker.clone(), request: request_name::<R>(), detail }
    }

    fn ended(&self, why: Ended) -> ClientError {
        let broker = self.shared.broker.clone();
        match why {
            Ended::Closed(detail) => ClientError::Closed { broker, detail },
            Ended::FrameTooLarge { found, limit } => ClientError::FrameTooLarge { broker, found, limit },
        }
    }

    /// What the other side speaks, and its features.
    pub(crate) async fn api_versions(&self) -> Result<ApiVersionsResponse> {
        let answer = self.call_version(api_versions_request(), API_VERSIONS_VERSION).await?;
        match ResponseError::try_from_code(answer.error_code) {
            None => Ok(answer),
            Some(code) => Err(ClientError::kafka(format!("ApiVersions of {}", self.broker()), code)),
        }
    }

    async fn negotiate(&self) -> Result<()> {
        let answer = self.api_versions().await?;
        *self.shared.versions.lock() =
            answer.api_keys.iter().map(|k| (k.api_key, (k.min_version, k.max_version))).collect();
        Ok(())
    }
}

/// With our name in it.
pub(crate) fn api_versions_request() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("varve"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")))
}

fn request_name<R: Request>() -> String {
    ApiKey::try_from(R::KEY).map_or_else(|()| format!("request {}", R::KEY), |key| format!("{key:?}"))
}

async fn connect(address: &HostPort, config: Option<&Arc<rustls::ClientConfig>>) -> Result<Box<dyn Stream>> {
    let failed = |source| ClientError::Connect { broker: address.to_string(), source };
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let Some(config) = config else { return Ok(Box::new(tcp)) };
    let refused = |detail: String| ClientError::Tls { broker: address.to_string(), detail };
    let name =
        rustls::pki_types::ServerName::try_from(address.host.clone()).map_err(|e| refused(format!("{e}")))?;
    match tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(e) if tls::is_refusal(&e) => Err(refused(e.to_string())),
        // The network's doing, as far as anyone can tell: another try may do.
        Err(e) => Err(ClientError::Closed {
            broker: address.to_string(),
            detail: format!("in the TLS handshake: {e}"),
        }),
    }
}

async fn read_answers(mut reader: impl AsyncRead + Unpin, limit: usize, waiting: &Waiting) -> Ended {
    loop {
        let mut body = match read_frame(&mut reader, limit).await {
            Ok(body) => body,
            Err(why) => return why,
        };
        if body.len() < 4 {
            return Ended::Closed(format!("it sent a frame of {} bytes", body.len()));
        }
        // The header is decoded again by the call, which knows its version.
        let id = body.clone().get_i32();
        let Some(call) = waiting.0.lock().calls.remove(&id) else {
            return Ended::Closed(format!("it answered a request that was not made ({id})"));
        };
        // Nobody waits any more: the call was dropped.
        let _ = call.send(body.split_to(body.len()));
    }
}

async fn read_frame(
    reader: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> std::result::Result<Bytes, Ended> {
    let mut head = [0; 4];
    let closed = |e: std::io::Error| {
        Ended::Closed(match e.kind() {
            std::io::ErrorKind::UnexpectedEof => "the broker closed it".to_owned(),
            _ => e.to_string(),
        })
    };
    reader.read_exact(&mut head).await.map_err(closed)?;
    let found = i32::from_be_bytes(head);
    let length = usize::try_from(found).ok().filter(|n| *n <= limit);
    let Some(length) = length else {
        return Err(Ended::FrameTooLarge { found: found.into(), limit });
    };
    let mut body = BytesMut::with_capacity(length);
    let mut rest = reader.take(length as u64);
    while body.len() < length {
        if rest.read_buf(&mut body).await.map_err(closed)? == 0 {
            return Err(Ended::Closed("the broker closed it in mid-frame".to_owned()));
        }
    }
    Ok(body.freeze())
}
