//! Bearer tokens by the client credentials grant (RFC 6749, 4.4), as OAUTHBEARER logins need them.
//!
//! One token serves all connections. It is fetched with the first login and again when four fifths of its life
//! are over; brokers end a login's life with its token's, so connections that live on log in anew with the next
//! one. When the endpoint fails while the old token still lives, the old one is used.
//!
//! The endpoint is asked over HTTPS; without TLS it must be on the loopback, since the secret goes to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use url::Url;
use zeroize::Zeroizing;

use super::config::TlsFiles;
use super::connection::Stream;
use super::error::{ClientError, Result};
use super::secret::Secret;
use super::tls;

const MAX_ANSWER_BYTES: usize = 1 << 20;
const MECHANISM: &str = "OAUTHBEARER";
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(10);

/// Who we are, and where tokens come from. Clones share the token.
#[derive(Clone, Debug)]
pub struct Oauth {
    pub endpoint: Url,
    pub client_id: String,
    pub client_secret: Secret,
    pub scope: Option<String>,
    /// What brokers are told beside the token.
    pub extensions: Vec<(String, String)>,
    /// Whom to trust as the endpoint. Without it the well-known public CAs are.
    pub ca: Option<std::path::PathBuf>,
    token: Arc<Mutex<Option<Token>>>,
}

#[derive(Clone, Debug)]
struct Token {
    value: Secret,
    refresh_at: Instant,
    expires_at: Instant,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    expires_in: Option<u64>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Oauth {
    pub(super) fn new(endpoint: &str, client_id: &str, client_secret: &str) -> Result<Self> {
        let flaw = |problem: String| ClientError::config("sasl.oauthbearer.token.endpoint.url", problem);
        let endpoint = Url::parse(endpoint).map_err(|e| flaw(e.to_string()))?;
        if !endpoint.has_host() {
            return Err(flaw("it has no host".to_owned()));
        }
        match endpoint.scheme() {
            "https" => {}
            "http" if varve_tls::is_this_machine(&endpoint) => {}
            _ => return Err(flaw("must begin with https://".to_owned())),
        }
        Ok(Self {
            endpoint,
            client_id: client_id.to_owned(),
            client_secret: Secret::new(client_secret),
            scope: None,
            extensions: Vec::new(),
            ca: None,
            token: Arc::default(),
        })
    }

    /// The client's first message of a login (RFC 7628).
    pub(super) async fn first_message(&self) -> Result<Zeroizing<String>> {
        let token = self.token().await?;
        let mut message = Zeroizing::new(format!("n,,\u{1}auth=Bearer {}", token.reveal()));
        for (key, value) in &self.extensions {
            message.push_str(&format!("\u{1}{key}={value}"));
        }
        message.push_str("\u{1}\u{1}");
        Ok(message)
    }

    /// Logins that come at once wait for one fetch.
    async fn token(&self) -> Result<Secret> {
        let mut slot = self.token.lock().await;
        let now = Instant::now();
        if let Some(token) = slot.as_ref().filter(|t| now < t.refresh_at) {
            return Ok(token.value.clone());
        }
        let fetched = match tokio::time::timeout(ENDPOINT_TIMEOUT, self.fetch()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(self.unreachable("it did not answer in time")),
        };
        match (fetched, slot.as_ref().filter(|t| now < t.expires_at)) {
            (Ok(token), _) => Ok(slot.insert(token).value.clone()),
            (Err(error), Some(old)) => {
                tracing::warn!(%error, "no new token; the old one is used until it expires");
                Ok(old.value.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn fetch(&self) -> Result<Token> {
        let asked_at = Instant::now();
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.unreachable(e))?;
        let driving = tokio::spawn(connection);
        let answered: Result<_> = async {
            let response = sender.send_request(self.request()?).await.map_err(|e| self.unreachable(e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
            let body = body.collect().await.map_err(|e| self.unreachable(e))?.to_bytes();
            Ok((status, body))
        }
        .await;
        driving.abort();
        let (status, body) = answered?;
        if status.is_server_error() {
            return Err(self.unreachable(status));
        }
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|e| self.failed(format!("{status}, not JSON: {e}")))?;
        let Some(value) =
            answer.access_token.map(Zeroizing::new).filter(|t| status.is_success() && !t.is_empty())
        else {
            let code = answer.error.unwrap_or_else(|| "no access_token in the answer".to_owned());
            let more = answer.error_description.map(|d| format!(" ({d})")).unwrap_or_default();
            return Err(self.failed(format!("{status}: {code}{more}")));
        };
        // A token of unknown life serves one login.
        let life = Duration::from_secs(answer.expires_in.unwrap_or(0));
        Ok(Token {
            value: Secret::new(value.as_str()),
            refresh_at: asked_at + life.mul_f32(0.8),
            expires_at: asked_at + life,
        })
    }

    async fn connect(&self) -> Result<Box<dyn Stream>> {
        let host = self.endpoint.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.endpoint.port_or_known_default().unwrap_or(443);
        let tcp = TcpStream::connect((bare, port)).await.map_err(|e| self.unreachable(e))?;
        if self.endpoint.scheme() == "http" {
            return Ok(Box::new(tcp));
        }
        let trust = TlsFiles { ca: self.ca.clone(), certificate: None, key: None };
        let name = rustls::pki_types::ServerName::try_from(bare.to_owned()).map_err(|e| self.failed(e))?;
        let connector = tokio_rustls::TlsConnector::from(tls::client_tls(&trust)?);
        match connector.connect(name, tcp).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(e) if tls::is_refusal(&e) => Err(self.failed(e)),
            Err(e) => Err(self.unreachable(e)),
        }
    }

    fn request(&self) -> Result<Request<Full<Bytes>>> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        // The client's name and secret are form-encoded before they become a basic login (RFC 6749, 2.3.1).
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let login = Zeroizing::new(format!(
            "{}:{}",
            encoded(&self.client_id),
            Zeroizing::new(encoded(self.client_secret.reveal())).as_str()
        ));
        let login = Zeroizing::new(format!("Basic {}", STANDARD.encode(login.as_bytes())));
        let path = match self.endpoint.query() {
            Some(query) => format!("{}?{query}", self.endpoint.path()),
            None => self.endpoint.path().to_owned(),
        };
        let host = match self.endpoint.port() {
            Some(port) => format!("{}:{port}", self.endpoint.host_str().unwrap_or_default()),
            None => self.endpoint.host_str().unwrap_or_default().to_owned(),
        };
        Request::post(path)
            .header(HOST, host)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(AUTHORIZATION, login.as_str())
            .body(Full::new(Bytes::from(form.finish())))
            .map_err(|e| self.failed(e))
    }

    /// It may pass.
    fn unreachable(&self, detail: impl std::fmt::Display) -> ClientError {
        let broker = format!("token endpoint {}", self.endpoint);
        ClientError::Closed { broker, detail: detail.to_string() }
    }

    /// It won't.
    fn failed(&self, detail: impl std::fmt::Display) -> ClientError {
        let broker = format!("token endpoint {}", self.endpoint);
        ClientError::Authentication { broker, mechanism: MECHANISM, detail: detail.to_string() }
    }
}
