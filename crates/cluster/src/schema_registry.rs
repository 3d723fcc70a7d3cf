//! A client of a Schema Registry's REST API.
//!
//! One pool of connections, and a new one when the file of the CA changes; every request has a time limit, every answer
//! a size limit. What may pass (no connection, no answer in time, 429, 5xx) is asked again until `retry_for` is over.
//! Redirects are not followed: the login would go with them. A login goes over HTTPS or to the loopback, nowhere else.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rand::Rng;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;
use varve_kafka::client::{ClientError, Secret, TlsFiles, client_tls};
use varve_tls::Reloaded;
use zeroize::Zeroizing;

/// Of one answer: a schema, or the list of all subjects.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// Of an error's message that we repeat.
const MAX_MESSAGE_CHARS: usize = 300;
const ACCEPTED: &str = "application/vnd.schemaregistry.v1+json, application/json";
const SENT: &str = "application/vnd.schemaregistry.v1+json";

#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// What stands before `/subjects`.
    pub url: Url,
    pub login: Option<RegistryLogin>,
    /// Without a CA the well-known public ones are trusted.
    pub tls: TlsFiles,
    /// For one request and its answer.
    pub request_timeout: Duration,
    /// How long what may pass is asked again.
    pub retry_for: Duration,
    pub retry_backoff: Duration,
    pub retry_backoff_max: Duration,
}

impl RegistrySettings {
    pub fn new(url: Url) -> Self {
        Self {
            url,
            login: None,
            tls: TlsFiles::default(),
            request_timeout: Duration::from_secs(30),
            retry_for: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(5),
        }
    }
}

#[derive(Clone, Debug)]
pub enum RegistryLogin {
    Basic { user: String, password: Secret },
    Bearer(Secret),
}

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("Schema Registry {url}: {problem}")]
    Config { url: String, problem: String },

    #[error("{request}: {status}{message}")]
    Status { request: String, status: u16, message: String },

    #[error("{request}: {detail}")]
    Unreachable { request: String, detail: String },

    #[error("{request}: an answer of more than {allowed} bytes")]
    TooLarge { request: String, allowed: usize },

    #[error("{request}: not the answer of a Schema Registry: {detail}")]
    Answer { request: String, detail: String },
}

impl RegistryError {
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Status { status: 401 | 403, .. })
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status: 404, .. })
    }

    /// Whether the same request may succeed in a moment.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// A handle; clones share the connections.
#[derive(Clone)]
pub struct SchemaRegistry {
    settings: RegistrySettings,
    /// `url`, ending with a slash.
    base: String,
    authorization: Option<HeaderValue>,
    http: Arc<Reloaded<Http>>,
}

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

impl fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaRegistry").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl SchemaRegistry {
    /// Reads the CA; connects to nothing yet.
    ///
    /// # Errors
    /// [`RegistryError::Config`].
    pub fn new(settings: RegistrySettings) -> Result<Self, RegistryError> {
        let shown = shown(&settings.url);
        let flaw = |problem: String| RegistryError::Config { url: shown.clone(), problem };
        check(&settings).map_err(|problem| flaw(problem.to_owned()))?;
        let authorization = match &settings.login {
            Some(login) => Some(header(login).map_err(|problem| flaw(problem.to_owned()))?),
            None => None,
        };
        let (files, timeout) = (settings.tls.clone(), settings.request_timeout);
        let http = Reloaded::new(files.paths(), move || http(&files, timeout));
        let http = Arc::new(http.map_err(|e| flaw(e.to_string()))?);
        let base = format!("{}/", settings.url.as_str().trim_end_matches('/'));
        Ok(Self { settings, base, authorization, http })
    }

    /// The answer to `GET <url>/<segments…>?<query>`.
    ///
    /// # Errors
    /// [`RegistryError`], when trying again has not helped.
    pub async fn get<T: DeserializeOwned>(&self, segments: &[&str], query: &str) -> Result<T, RegistryError> {
        self.send(Method::GET, segments, query, None).await
    }

    /// The answer to any request, with a body of JSON. It may be sent more than once.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        segments: &[&str],
        query: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<T, RegistryError> {
        let url = self.address(segments, query);
        let name = format!("{method} {url}");
        let body = body.map(|body| Bytes::from(body.to_string()));
        let begun = Instant::now();
        let mut pause = self.settings.retry_backoff;
        loop {
            let timeout = self.settings.request_timeout;
            let asked = self.ask(&method, &url, body.clone());
            let asked = tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| {
                let detail = format!("no answer within {} ms", timeout.as_millis());
                Err(RegistryError::Unreachable { request: name.clone(), detail })
            });
            let error = match asked {
                Ok(body) => {
                    let wrong =
                        |e: serde_json::Error| RegistryError::Answer { request: name, detail: e.to_string() };
                    return serde_json::from_slice(&body).map_err(wrong);
                }
                Err(error) => error,
            };
            if !error.is_retriable() || begun.elapsed() >= self.settings.retry_for {
                return Err(error);
            }
            tracing::debug!(%error, "asking the Schema Registry again");
            let jitter = rand::rng().random_range(0.8..1.2);
            tokio::time::sleep(pause.mul_f64(jitter)).await;
            pause = pause.saturating_mul(2).min(self.settings.retry_backoff_max);
        }
    }

    /// Names of subjects hold what they like: slashes, colons, blanks.
    fn address(&self, segments: &[&str], query: &str) -> String {
        let mut url = self.base.clone();
        for (n, segment) in segments.iter().enumerate() {
            if n > 0 {
                url.push('/');
            }
            for byte in segment.bytes() {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                        url.push(char::from(byte))
                    }
                    // A segment of dots alone would be a step in the path.
                    b'.' if !segment.bytes().all(|b| b == b'.') => url.push('.'),
                    _ => url.push_str(&format!("%{byte:02X}")),
                }
            }
        }
        if !query.is_empty() {
            url.push('?');
            url.push_str(query);
        }
        url
    }

    async fn ask(&self, method: &Method, url: &str, body: Option<Bytes>) -> Result<Bytes, RegistryError> {
        let name = || format!("{method} {url}");
        let unreachable = |detail: String| RegistryError::Unreachable { request: name(), detail };
        let mut request =
            Request::builder().method(method).uri(url).header(ACCEPT, ACCEPTED).header(USER_AGENT, "varve");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, SENT);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|e| RegistryError::Answer { request: name(), detail: e.to_string() })?;
        let response = self.http.current().request(request).await.map_err(|e| unreachable(chain(&e)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = match body {
            Ok(body) => body.to_bytes(),
            Err(e) if e.is::<http_body_util::LengthLimitError>() => {
                return Err(RegistryError::TooLarge { request: name(), allowed: MAX_ANSWER_BYTES });
            }
            Err(e) => return Err(unreachable(chain(e.as_ref()))),
        };
        if status == StatusCode::OK {
            return Ok(body);
        }
        Err(RegistryError::Status { request: name(), status: status.as_u16(), message: message(&body) })
    }
}

fn http(files: &TlsFiles, connect_timeout: Duration) -> Result<Http, ClientError> {
    let tls = client_tls(files)?;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect_timeout));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config((*tls).clone())
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(10))
        .pool_timer(TokioTimer::new())
        .build(connector))
}

/// Without what may be a secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // A URL that can't have a login has none.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.set_query(None);
    url.to_string()
}

fn check(settings: &RegistrySettings) -> Result<(), &'static str> {
    let url = &settings.url;
    if !url.has_host() {
        return Err("it has no host");
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err("it must begin with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("user and password belong into the login, not into the URL");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must not have a query or a fragment");
    }
    if settings.login.is_some() && url.scheme() == "http" && !varve_tls::is_this_machine(url) {
        return Err("a login is sent over https:// alone");
    }
    Ok(())
}

fn header(login: &RegistryLogin) -> Result<HeaderValue, &'static str> {
    let text = match login {
        RegistryLogin::Basic { user, .. } if user.contains(':') => return Err("its user has a colon"),
        RegistryLogin::Basic { user, password } => {
            let pair = Zeroizing::new(format!("{user}:{}", password.reveal()));
            Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
        }
        RegistryLogin::Bearer(token) => Zeroizing::new(format!("Bearer {}", token.reveal())),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| "its token can't be sent in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

/// An error with all its causes: the last one says what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[derive(Deserialize)]
struct Failure {
    error_code: Option<i64>,
    message: Option<String>,
}

fn message(body: &[u8]) -> String {
    let Ok(failure) = serde_json::from_slice::<Failure>(body) else { return String::new() };
    let code = failure.error_code.map(|c| format!(" ({c})")).unwrap_or_default();
    let text: String = failure.message.unwrap_or_default().chars().take(MAX_MESSAGE_CHARS).collect();
    if text.is_empty() { code } else { format!("{code}: {text}") }
}

#[cfg(test)]
mod tests;
