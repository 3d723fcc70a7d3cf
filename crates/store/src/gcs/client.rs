//! Requests, one at a time: whoever calls decides whether to send them again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use reqwest::{Method, RequestBuilder, Response, redirect, retry, tls};
use serde::de::DeserializeOwned;
use url::Url;
use varve_tls::{Reloaded, reqwest_authorities, reqwest_proxy};

use super::config::Config;
use super::credentials::Signer;
use super::failure;
use crate::contract::Result;
use crate::error::Kind;
use crate::failure::{Failure, Passing, chain};
use crate::settings::{Secret, invalid};

/// Idle connections are given up before the store does so, lest a request meets a closing one.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// A page of a listing is some 2 MiB.
const ANSWER_BYTES_MAX: usize = 32 << 20;

pub(super) struct Client {
    http: Reloaded<reqwest::Client>,
    signer: Option<Signer>,
}

impl Client {
    pub(super) fn connect(config: &Config) -> Result<Self> {
        let way = Way {
            connect_timeout: config.connect_timeout,
            proxy: config.proxy.clone(),
            ca_file: config.ca_file.clone(),
            is_here: config.endpoint.is_here(),
        };
        let http = Reloaded::new(config.ca_file.clone(), move || way.client())?;
        Ok(Self { http, signer: Signer::new(config)? })
    }

    pub(super) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.current().request(method, url)
    }

    /// Any answer at all, to a request without a token.
    pub(super) async fn send_unsigned(
        &self,
        request: RequestBuilder,
    ) -> std::result::Result<Response, Failure> {
        request.send().await.map_err(failure::unsent)
    }

    /// An answer that is a success.
    pub(super) async fn send(&self, request: RequestBuilder) -> std::result::Result<Response, Failure> {
        let request = match &self.signer {
            Some(signer) => request.headers(signer.headers().await?),
            None => request,
        };
        let response = self.send_unsigned(request).await?;
        if response.status().is_success() { Ok(response) } else { Err(failure::answered(response).await) }
    }

    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> std::result::Result<T, Failure> {
        read_json(self.send(request).await?).await
    }
}

pub(super) async fn read_json<T: DeserializeOwned>(response: Response) -> std::result::Result<T, Failure> {
    let body = read_within(response, ANSWER_BYTES_MAX).await?;
    serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("the answer can't be read: {error}");
        Failure::new(Kind::Unavailable, Passing::Transient, true, detail)
    })
}

/// The whole body, or its first `most` bytes.
pub(super) async fn read_within(
    mut response: Response,
    most: usize,
) -> std::result::Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(failure::unsent)? {
        let room = most - body.len();
        body.extend_from_slice(piece.get(..room).unwrap_or(&piece));
        if piece.len() >= room {
            break;
        }
    }
    Ok(body)
}

/// How the store is reached.
struct Way {
    connect_timeout: Duration,
    proxy: Option<Secret>,
    ca_file: Option<PathBuf>,
    /// On this machine.
    is_here: bool,
}

impl Way {
    fn client(&self) -> Result<reqwest::Client> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("varve/", env!("CARGO_PKG_VERSION")))
            // What redirects a request is not the store.
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .tls_version_min(tls::Version::TLS_1_2)
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(POOL_IDLE);
        if let Some(path) = &self.ca_file {
            let trusted = reqwest_authorities(path).map_err(|flaw| invalid("gs.tls.ca.file", flaw))?;
            builder = builder.tls_certs_merge(trusted);
        }
        if let Some(proxy) = &self.proxy {
            let proxy = reqwest_proxy(proxy.reveal());
            builder = builder.proxy(proxy.ok_or_else(|| invalid("gs.proxy.url", "is no proxy's address"))?);
        } else if self.is_here {
            // Not by one of the environment either.
            builder = builder.no_proxy();
        }
        builder
            .build()
            .map_err(|error| invalid("gs.tls.ca.file", format!("TLS does not start: {}", chain(&error))))
    }
}

/// A body of several pieces, none of them copied.
pub(super) struct Pieces {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl Pieces {
    pub(super) fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces, left }
    }

    pub(super) fn into_body(self) -> reqwest::Body {
        reqwest::Body::wrap(self)
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let next = self.pieces.pop_front();
        self.left -= next.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
