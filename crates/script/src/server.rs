//! An HTTP server of a few lines that answers as a test says: any status, broken bodies, resets, silence.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A member of the body that is text.
    pub fn text(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_default().to_owned()
    }
}

/// Where an answer ends before its time.
#[derive(Clone, Copy)]
enum Fault {
    Break,
    Silence,
}

#[derive(Clone)]
pub struct Answer {
    /// `None`: not even a head.
    status: Option<u16>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// After so many bytes of the body, if it has more.
    fault: Option<(usize, Fault)>,
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self { status: Some(status), headers: Vec::new(), body: Vec::new(), fault: None }
    }

    pub fn json(status: u16, body: impl Display) -> Self {
        Self::new(status).header("content-type", "application/json").body(body.to_string())
    }

    /// All of `whole`, or what comes from where the request's `Range` begins.
    pub fn of_range(request: &Request, whole: &[u8]) -> Self {
        let Some(range) = request.header("range") else { return Self::new(200).body(whole) };
        let start = range.strip_prefix("bytes=").unwrap().split('-').next().unwrap();
        let (start, size): (usize, _) = (start.parse().unwrap(), whole.len());
        let range = format!("bytes {start}-{}/{size}", size - 1);
        Self::new(206).header("content-range", &range).body(&whole[start..])
    }

    /// No answer at all, and the connection breaks.
    pub fn reset() -> Self {
        Self { status: None, ..Self::new(0).break_after(0) }
    }

    /// No answer at all, and the connection stays.
    pub fn hang() -> Self {
        Self { status: None, ..Self::new(0).silent_after(0) }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Breaks the connection after so many bytes of the body, if it has more.
    pub fn break_after(self, bytes: usize) -> Self {
        Self { fault: Some((bytes, Fault::Break)), ..self }
    }

    /// Falls silent after so many bytes of the body, if it has more.
    pub fn silent_after(self, bytes: usize) -> Self {
        Self { fault: Some((bytes, Fault::Silence)), ..self }
    }

    async fn send(&self, stream: &mut TcpStream, with_body: bool) -> std::io::Result<()> {
        let Some(status) = self.status else { return Ok(()) };
        let mut head = format!("HTTP/1.1 {status} Told\r\n");
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.headers.iter().any(|(name, _)| name == "content-length") {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await?;
        if with_body {
            let sent = self.fault.map_or(usize::MAX, |(bytes, _)| bytes);
            stream.write_all(&self.body[..self.body.len().min(sent)]).await?;
        }
        stream.flush().await
    }

    fn fault(&self) -> Option<Fault> {
        let (bytes, fault) = self.fault?;
        (self.status.is_none() || bytes < self.body.len()).then_some(fault)
    }
}

/// Ends with its value.
pub struct Server {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// The script gives each request its answer; it is shown the requests before, too.
    pub async fn start(script: impl Fn(&Request, &[Request]) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(script), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                connections.spawn(async move { serve(stream, &*script, &log).await });
            }
        });
        Self { endpoint, seen, task }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        self.endpoint.strip_prefix("http://").unwrap()
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &impl Fn(&Request, &[Request]) -> Answer,
    log: &Mutex<Vec<Request>>,
) {
    while let Some(request) = read(&mut stream).await {
        let with_body = request.method != "HEAD";
        let answer = {
            let mut log = log.lock();
            log.push(request);
            let (request, before) = log.split_last().unwrap();
            script(request, before)
        };
        if answer.send(&mut stream, with_body).await.is_err() {
            return;
        }
        match answer.fault() {
            None => {}
            Some(Fault::Break) => {
                // Without this, what was sent may be thrown away with the connection.
                let _ = stream.shutdown().await;
                return;
            }
            Some(Fault::Silence) => tokio::time::sleep(Duration::from_secs(3600)).await,
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
