//! Asks a running archiver for its status.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

use super::status::Status;

const WITHIN: Duration = Duration::from_secs(30);
/// 100,000 partitions are some 40 MB.
const ANSWER_MAX_BYTES: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {detail}")]
pub struct AskError {
    url: String,
    detail: String,
}

/// What the archiver that listens at `url` (`http://host:port`) says of itself.
///
/// # Errors
/// Whatever keeps it from saying so.
pub async fn ask(url: &Url) -> Result<Status, AskError> {
    let fail = |detail: &dyn ToString| AskError { url: url.to_string(), detail: detail.to_string() };
    match tokio::time::timeout(WITHIN, get(url)).await {
        Ok(Ok(answer)) => serde_json::from_slice(&answer).map_err(|error| fail(&error)),
        Ok(Err(detail)) => Err(fail(&detail)),
        Err(_) => Err(fail(&format!("no answer within {} s", WITHIN.as_secs()))),
    }
}

async fn get(url: &Url) -> Result<bytes::Bytes, String> {
    if url.scheme() != "http" {
        return Err(format!("expected http://, found {}://: archivers speak no TLS", url.scheme()));
    }
    let host = url.host_str().ok_or("names no host")?;
    let port = url.port_or_known_default().unwrap_or(80);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((address, port)).await.map_err(|e| format!("can't connect: {e}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driven = tokio::spawn(connection);
    let path = format!("{}/status", url.path().trim_end_matches('/'));
    let request =
        Request::get(path).header(HOST, format!("{host}:{port}")).body(Empty::<bytes::Bytes>::new());
    let answer = sender.send_request(request.map_err(|e| e.to_string())?).await.map_err(|e| e.to_string())?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("answered {status}"));
    }
    let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
    driven.abort();
    Ok(body.map_err(|e| e.to_string())?.to_bytes())
}
