//! Requests to Google, Azure and Vault: JSON out, JSON back, within bounds.
//!
//! * An answer's body is read up to 64 KiB; redirects are answers like others, and mean a failure: a token goes
//!   nowhere but where its request was sent.
//! * TLS 1.2 or newer, by the system's certificates and those of `kms.tls.ca.file` as it is when a request is sent.
//! * No error holds a body. Of refusals, the service's own message is shown, shortened, and without what was secret
//!   in the request, should a service or a proxy send it back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, redirect, tls};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;
use varve_tls::{Reloaded, reqwest_authorities, reqwest_proxy};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::retry::{Failure, Passing, chain, meaning_of_status};
use crate::settings::Secret;
use crate::wrapped::ANSWER_MAX_BYTES;

/// More than any request has.
const REQUEST_BYTES: usize = 32 * 1024;
/// Of a token or the like in a file.
const SECRET_MAX_BYTES: usize = 16 * 1024;
const POOL_IDLE: Duration = Duration::from_secs(15);

#[derive(Clone)]
pub(crate) struct Http {
    client: Arc<Reloaded<Client>>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http")
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// A request's body, wiped when it was sent.
pub(crate) struct Body(Zeroizing<Vec<u8>>);

impl Body {
    pub(crate) fn json(value: &impl Serialize) -> Result<Self, Failure> {
        // Grown at once: a buffer that grows leaves its former bytes behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(REQUEST_BYTES));
        let written = serde_json::to_writer(&mut *bytes, value);
        written.map_err(|_| Failure::last(Kind::Other, "the request can't be written as JSON"))?;
        Ok(Self(bytes))
    }
}

impl Http {
    /// `proxied`: by `kms.proxy.url`, if there is one, but never to this machine. No environment variable names another.
    pub(crate) fn new(config: &Config, proxied: bool) -> Result<Self> {
        let way = Way {
            connect_timeout: config.connect_timeout,
            proxy: config.proxy.clone().filter(|_| proxied),
            ca_file: config.ca_file.clone(),
        };
        let client = Reloaded::new(config.ca_file.clone(), move || way.client())?;
        Ok(Self { client: Arc::new(client) })
    }

    /// A POST of JSON.
    pub(crate) async fn post(
        &self,
        url: Url,
        headers: &[(&'static str, &str)],
        body: Body,
    ) -> Result<Answer, Failure> {
        let mut request = self.client.current().post(url).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(HeaderName::from_static(name), header(value)?);
        }
        self.send(request.body(Bytes::from_owner(body.0))).await
    }

    /// Any request.
    #[cfg(feature = "azure")]
    pub(crate) async fn request(
        &self,
        method: &str,
        url: Url,
        headers: impl Iterator<Item = (&str, &str)>,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let method = reqwest::Method::from_bytes(method.as_bytes())
            .map_err(|_| Failure::last(Kind::Other, "no method of HTTP"))?;
        let mut request = self.client.current().request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(name, header(value)?);
        }
        self.send(request).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, Failure> {
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers =
            response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        let mut body = Zeroizing::new(Vec::with_capacity(ANSWER_MAX_BYTES));
        while let Some(piece) = response.chunk().await.map_err(broken)? {
            if body.len() + piece.len() > ANSWER_MAX_BYTES {
                let (kind, passing) = match meaning_of_status(status) {
                    (_, Passing::Never) => (Kind::Other, Passing::Never),
                    passes => passes,
                };
                let detail = format!("status {status}, with a body longer than {ANSWER_MAX_BYTES} bytes");
                return Err(Failure::new(kind, passing, detail));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status, headers, body })
    }
}

/// How the services are reached.
struct Way {
    connect_timeout: Duration,
    proxy: Option<Secret>,
    ca_file: Option<PathBuf>,
}

impl Way {
    fn client(&self) -> Result<Client> {
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .tls_version_min(tls::Version::TLS_1_2)
            .retry(reqwest::retry::never())
            .no_proxy();
        if let Some(path) = &self.ca_file {
            let trusted =
                reqwest_authorities(path).map_err(|flaw| Error::configuration("kms.tls.ca.file", flaw))?;
            builder = builder.tls_certs_merge(trusted);
        }
        if let Some(proxy) = &self.proxy {
            let proxy = reqwest_proxy(proxy.reveal());
            let proxy = proxy.ok_or_else(|| Error::configuration("kms.proxy.url", "is no proxy's URL"))?;
            builder = builder.proxy(proxy);
        }
        let client = builder.build();
        client.map_err(|error| Error::configuration("kms.*", chain(&error.without_url())))
    }
}

fn header(value: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Failure::last(Kind::Invalid, "a token holds what no header may hold"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn broken(error: reqwest::Error) -> Failure {
    let detail = chain(&error.without_url());
    // A certificate does not become valid within seconds.
    if detail.contains("invalid peer certificate") {
        return Failure::last(Kind::Invalid, format!("{detail} (is kms.tls.ca.file right?)"));
    }
    Failure::new(Kind::Unavailable, Passing::Transient, detail)
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What a parser finds wrong may quote the body: only the place is told.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            Failure::last(
                Kind::Other,
                format!("status {}, but not the expected JSON at {place}", self.status),
            )
        })
    }
}

/// A secret in a file, without the white space around it.
pub(crate) async fn secret_in(path: &std::path::Path, setting: &str) -> Result<Secret, Failure> {
    let flaw = |what: String| Failure::last(Kind::Denied, format!("{setting}: {path:?} {what}"));
    let text = tokio::fs::read_to_string(path).await.map_err(|error| flaw(error.kind().to_string()))?;
    let text = Zeroizing::new(text);
    if text.trim().is_empty() || text.len() > SECRET_MAX_BYTES {
        return Err(flaw(format!("has {} bytes: expected a secret", text.len())));
    }
    Ok(Secret::new(text.trim()))
}

/// Bytes of an answer that are secret.
pub(crate) fn decode(engine: &GeneralPurpose, text: String) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let text = Zeroizing::new(text);
    let bytes = engine.decode(text.as_bytes());
    let bytes = bytes.map_err(|_| Failure::last(Kind::Other, "the answer holds what is no base64"))?;
    Ok(Zeroizing::new(bytes))
}
