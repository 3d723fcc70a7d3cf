//! The SDK's pipeline over an HTTP client of ours: retries off, redirects not followed, and nothing in an error that
//! an address may hold of a signature.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::Bytes;
use azure_core::error::{CheckSuccessOptions, ErrorKind};
use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::{
    AsyncRawResponse, Body, ClientOptions, Context, HttpClient, Method, Pipeline, PipelineSendOptions,
    PipelineStreamOptions, RawResponse, Request, RetryOptions, StatusCode, Transport, Url,
};
use azure_storage_blob::{BlobClient, BlobClientOptions, BlobContainerClient, BlobContainerClientOptions};
use futures::{StreamExt, TryStreamExt};
use varve_tls::{Reloaded, reqwest_authorities, reqwest_proxy};

use super::access::Access;
use super::config::Config;
use super::failure;
use super::signing::encode_path;
use crate::contract::Result;
use crate::failure::{Failure, chain};
use crate::settings::{Secret, invalid};

/// What the SDK speaks too.
const VERSION: &str = "2026-04-06";
/// Idle connections are given up before the store does so, lest a request meets a closing one.
const POOL_IDLE: Duration = Duration::from_secs(15);
/// Of an answer that is an error, what is read.
const ERROR_BYTES: usize = 64 << 10;

/// The container, through the SDK's clients and through the bare pipeline where they lack something.
pub(super) struct Client {
    container: Url,
    container_client: BlobContainerClient,
    options: ClientOptions,
    pipeline: Pipeline,
    pub(super) access: Arc<Access>,
}

impl Client {
    pub(super) fn connect(config: &Config) -> Result<Self> {
        let transport = Transport::new(Arc::new(Http::new(config)?));
        let plain =
            ClientOptions { transport: Some(transport), retry: RetryOptions::none(), ..Default::default() };
        let access = Arc::new(Access::new(config, &plain)?);
        let options = ClientOptions { per_try_policies: vec![access.clone()], ..plain };
        let name = option_env!("CARGO_PKG_NAME");
        let version = option_env!("CARGO_PKG_VERSION");
        let pipeline = Pipeline::new(name, version, options.clone(), Vec::new(), Vec::new(), None);
        let container_options =
            BlobContainerClientOptions { client_options: options.clone(), version: VERSION.to_owned() };
        let container_client =
            BlobContainerClient::new(config.container.clone(), None, Some(container_options))
                .map_err(|error| invalid("az.endpoint.url", chain(&error)))?;
        Ok(Self { container: config.container.clone(), container_client, options, pipeline, access })
    }

    pub(super) fn container(&self) -> &BlobContainerClient {
        &self.container_client
    }

    pub(super) fn container_url(&self) -> Url {
        self.container.clone()
    }

    /// The address of a blob by its name in the container.
    pub(super) fn blob_url(&self, name: &str) -> Url {
        let mut url = self.container.clone();
        // Keys hold no segment that a URL would resolve.
        url.set_path(&format!("{}/{}", self.container.path(), encode_path(name)));
        url
    }

    pub(super) fn blob(&self, name: &str, version: Option<&str>) -> std::result::Result<BlobClient, Failure> {
        let options = BlobClientOptions { client_options: self.options.clone(), version: VERSION.to_owned() };
        let client = BlobClient::new(self.blob_url(name), None, Some(options)).map_err(failure::of)?;
        match version {
            None => Ok(client),
            Some(version) => client.with_version(version).map_err(failure::of),
        }
    }

    pub(super) fn request(&self, method: Method, url: Url) -> Request {
        let mut request = Request::new(url, method);
        request.insert_header("x-ms-version", VERSION);
        request
    }

    /// An answer of another status than `success` is a failure.
    pub(super) async fn send(
        &self,
        mut request: Request,
        success: &'static [u16],
    ) -> std::result::Result<RawResponse, Failure> {
        let check_success = CheckSuccessOptions { success_codes: success };
        let options = PipelineSendOptions { check_success, ..Default::default() };
        self.pipeline.send(&Context::new(), &mut request, Some(options)).await.map_err(failure::of)
    }

    /// As [`send`](Self::send), the body still to come.
    pub(super) async fn stream(
        &self,
        mut request: Request,
        success: &'static [u16],
    ) -> std::result::Result<AsyncRawResponse, Failure> {
        let check_success = CheckSuccessOptions { success_codes: success };
        let options = PipelineStreamOptions { check_success, ..Default::default() };
        self.pipeline.stream(&Context::new(), &mut request, Some(options)).await.map_err(failure::of)
    }
}

/// How the store is reached.
struct Way {
    connect_timeout: Duration,
    proxy: Option<Secret>,
    ca_file: Option<PathBuf>,
    has_tls: bool,
}

impl Way {
    fn client(&self) -> Result<reqwest::Client> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_rustls()
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .pool_idle_timeout(POOL_IDLE)
            .connect_timeout(self.connect_timeout)
            .no_proxy();
        if let Some(proxy) = &self.proxy {
            let proxy = reqwest_proxy(proxy.reveal());
            builder = builder.proxy(proxy.ok_or_else(|| invalid("az.proxy.url", "is no proxy's address"))?);
        }
        if let Some(path) = &self.ca_file {
            let trusted = reqwest_authorities(path).map_err(|flaw| invalid("az.tls.ca.file", flaw))?;
            builder = builder.tls_certs_merge(trusted);
        } else if !self.has_tls {
            // Nothing to trust, so that a machine without any authorities is good enough.
            builder = builder.tls_certs_only([]);
        }
        builder.build().map_err(|error| invalid("az.tls.ca.file", chain(&error)))
    }
}

/// The SDK's transport.
#[derive(Debug)]
struct Http {
    client: Reloaded<reqwest::Client>,
}

impl Http {
    fn new(config: &Config) -> Result<Self> {
        let way = Way {
            connect_timeout: config.connect_timeout,
            proxy: config.proxy.clone(),
            ca_file: config.ca_file.clone(),
            has_tls: config.container.scheme() != "http",
        };
        Ok(Self { client: Reloaded::new(config.ca_file.clone(), move || way.client())? })
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let Body::Bytes(body) = request.body() else {
            return Err(azure_core::Error::with_message(ErrorKind::Other, "a body that is a stream"));
        };
        let unknown = |error| azure_core::Error::with_error(ErrorKind::Other, error, "the method");
        let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes()).map_err(unknown)?;
        let has_body = ["POST", "PUT"].contains(&method.as_str());
        let mut call = self.client.current().request(method, request.url().clone());
        for (name, value) in request.headers().iter() {
            // The client counts for itself.
            if name.as_str() != "content-length" {
                call = call.header(name.as_str(), value.as_str());
            }
        }
        if has_body && body.is_empty() {
            // Of nothing it says no length, which the store insists on.
            call = call.header("content-length", "0");
        } else if has_body {
            call = call.body(body.clone());
        }
        let answer = call.send().await.map_err(broken)?;
        let (status, headers) = (answer.status(), headers_of(answer.headers()));
        let code = StatusCode::from(status.as_u16());
        let body = answer.bytes_stream().map_err(broken);
        if status.is_success() {
            return Ok(AsyncRawResponse::new(code, headers, Box::pin(body)));
        }
        let body = beginning(body).await;
        Ok(AsyncRawResponse::from_bytes(code, headers, body))
    }
}

/// Of a body that tells of an error, as much as there is of use, and as much as comes.
async fn beginning(body: impl futures::Stream<Item = azure_core::Result<Bytes>>) -> Vec<u8> {
    let mut body = std::pin::pin!(body);
    let mut read = Vec::new();
    while let Some(Ok(piece)) = body.next().await {
        read.extend_from_slice(&piece);
        if read.len() >= ERROR_BYTES {
            read.truncate(ERROR_BYTES);
            break;
        }
    }
    read
}

fn broken(error: reqwest::Error) -> azure_core::Error {
    let kind = if error.is_connect() { ErrorKind::Connection } else { ErrorKind::Io };
    azure_core::Error::with_error(kind, error.without_url(), "the way to the store broke")
}

fn headers_of(headers: &reqwest::header::HeaderMap) -> Headers {
    let mut known = Headers::new();
    for (name, value) in headers {
        if let Ok(value) = value.to_str() {
            let name = HeaderName::from(name.as_str().to_owned());
            known.insert(name, HeaderValue::from(value.to_owned()));
        }
    }
    known
}
