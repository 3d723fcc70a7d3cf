//! The HTTP side: `/metrics`, `/healthz`, `/readyz`, `/status`. Read only, without authentication, bounded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::view::View;
use super::{Watch, status, text};

const CONNECTIONS_MAX: usize = 64;
/// Until a request's head is there, also between two on one connection.
const HEAD_WITHIN: Duration = Duration::from_secs(90);
/// However busy: it can come again.
const CONNECTION_WITHIN: Duration = Duration::from_secs(3600);
/// After a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(200);
const PLAIN: &str = "text/plain; charset=utf-8";
const PATHS: &str = "/metrics\n/healthz\n/readyz\n/status\n";

pub(super) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Until it is dropped.
pub(super) async fn serve(listener: TcpListener, watch: Arc<Watch>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let watch = Arc::clone(&watch);
        connections.spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = answer(&watch, request.method(), request.uri().path());
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .serve_connection(TokioIo::new(stream), answer);
            // A client that goes away, or is too slow, is no event.
            let _ = tokio::time::timeout(CONNECTION_WITHIN, connection).await;
            drop(permit);
        });
    }
}

fn answer(watch: &Watch, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET or HEAD\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => match text::encode(View::of(watch)) {
            Ok(text) => response(StatusCode::OK, text::CONTENT_TYPE, text),
            Err(error) => failed(&error),
        },
        "/healthz" => verdict("healthy", &watch.unhealthy()),
        "/readyz" => verdict("ready", &watch.not_ready()),
        "/status" => match serde_json::to_string(&status::of(watch)) {
            Ok(text) => response(StatusCode::OK, "application/json", text + "\n"),
            Err(error) => failed(&error),
        },
        "/" => response(StatusCode::OK, PLAIN, PATHS.to_owned()),
        _ => response(StatusCode::NOT_FOUND, PLAIN, PATHS.to_owned()),
    }
}

fn verdict(fine: &str, flaws: &[String]) -> Response<Full<Bytes>> {
    match flaws {
        [] => response(StatusCode::OK, PLAIN, format!("{fine}\n")),
        _ => response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, flaws.join("\n") + "\n"),
    }
}

fn failed(error: &dyn std::fmt::Display) -> Response<Full<Bytes>> {
    response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n"))
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
