//! A key service of a few lines that answers as a test says: any status, broken bodies, resets, silence.

#![allow(dead_code, reason = "each test target uses a part of this module")]

pub(crate) mod faults;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A member of the body that is text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_default().to_owned()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Whole,
    Broken,
    Silent,
}

#[derive(Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    sent: usize,
    end: End,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), sent: usize::MAX, end: End::Whole }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status).header("content-type", "application/json").body(body.to_string())
    }

    /// No answer at all, and the connection breaks.
    pub(crate) fn reset() -> Self {
        Self { end: End::Broken, ..Self::new(0) }
    }

    /// No answer at all, and the connection stays.
    pub(crate) fn hang() -> Self {
        Self { end: End::Silent, ..Self::new(0) }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Breaks the connection after so many bytes of the body.
    pub(crate) fn break_after(mut self, bytes: usize) -> Self {
        (self.sent, self.end) = (bytes, End::Broken);
        self
    }
}

pub(crate) struct Server {
    pub(crate) endpoint: String,
    seen: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// The script is told how many requests came before.
    pub(crate) async fn start(script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(script), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                connections.spawn(async move { serve(stream, &*script, &log).await });
            }
        });
        Self { endpoint, seen, task }
    }

    pub(crate) fn authority(&self) -> &str {
        self.endpoint.strip_prefix("http://").unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &(impl Fn(&Request, usize) -> Answer + ?Sized),
    log: &Mutex<Vec<Request>>,
) {
    while let Some(request) = read(&mut stream).await {
        let answer = {
            let mut log = log.lock();
            log.push(request.clone());
            script(&request, log.len() - 1)
        };
        if answer.status > 0 && write(&mut stream, &answer).await.is_err() {
            return;
        }
        match answer.end {
            End::Whole => {}
            End::Broken => {
                // Without this, what was sent may be thrown away with the connection.
                let _ = stream.shutdown().await;
                return;
            }
            End::Silent => tokio::time::sleep(Duration::from_secs(3600)).await,
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ').map(str::to_owned);
    let (method, path) = (first.next()?, first.next()?);
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut request = Request { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

async fn write(stream: &mut TcpStream, answer: &Answer) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Told\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", answer.body.len()));
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&answer.body[..answer.body.len().min(answer.sent)]).await?;
    stream.flush().await
}
