//! The limits of stores that are reached by HTTP: plain requests over kept connections, as few as the store's protocol
//! has it, and no signatures but one that is made once.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use url::form_urlencoded::byte_serialize;

use crate::measure::at_once;

/// Of an upload; of a GET.
const PART_BYTES: u64 = 8 << 20;
const RANGE_BYTES: u64 = 4 << 20;
const PARALLEL: u32 = 4;

/// A bucket, or container, of a server on this machine.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) port: u16,
    pub(crate) dialect: Dialect,
    /// As it stands in a request's target.
    pub(crate) bucket: String,
}

#[derive(Clone)]
pub(crate) enum Dialect {
    S3,
    Gcs,
    /// With a signature that allows all.
    Azure {
        signature: String,
    },
}

impl Remote {
    /// Of an object, to be read.
    pub(crate) fn target(&self, key: &str) -> String {
        match &self.dialect {
            Dialect::S3 => format!("/{}/{key}", self.bucket),
            Dialect::Gcs => {
                let key: String = byte_serialize(key.as_bytes()).collect();
                format!("/storage/v1/b/{}/o/{key}?alt=media", self.bucket)
            }
            Dialect::Azure { signature } => format!("/{}/{key}?{signature}", self.bucket),
        }
    }

    /// A file's bytes as an object.
    pub(crate) fn upload(&self, key: &str, from: &Path) -> Result<()> {
        match &self.dialect {
            Dialect::S3 => self.upload_parts(key, from),
            Dialect::Gcs => self.upload_whole(key, from),
            Dialect::Azure { signature } => self.upload_blocks(key, signature, from),
        }
    }

    /// Cloud Storage takes an object's bytes in their order.
    fn upload_whole(&self, key: &str, from: &Path) -> Result<()> {
        let name: String = byte_serialize(key.as_bytes()).collect();
        let target = format!("/upload/storage/v1/b/{}/o?uploadType=media&name={name}", self.bucket);
        Http::connect(self.port)?.send_file("POST", &target, from).map(drop)
    }

    fn upload_parts(&self, key: &str, from: &Path) -> Result<()> {
        let target = self.target(key);
        let begun = Http::connect(self.port)?.send("POST", &format!("{target}?uploads="), "", &[])?;
        let id = begun.element("UploadId").context("UploadId")?;
        let mut etags = self.in_parts(from, |http, part, body| {
            let answer = http.send("PUT", &format!("{target}?partNumber={part}&uploadId={id}"), "", body)?;
            Ok((part, answer.header("etag").context("ETag")?.to_owned()))
        })?;
        etags.sort_unstable();
        let list: String = etags
            .iter()
            .map(|(n, tag)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>"))
            .collect();
        let body = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let target = format!("{target}?uploadId={id}");
        Http::connect(self.port)?.send("POST", &target, "", body.as_bytes()).map(drop)
    }

    fn upload_blocks(&self, key: &str, signature: &str, from: &Path) -> Result<()> {
        let target = format!("/{}/{key}?{signature}", self.bucket);
        // Twelve digits are their own base64, of nine bytes.
        let mut ids = self.in_parts(from, |http, part, body| {
            let id = format!("{part:012}");
            http.send("PUT", &format!("{target}&comp=block&blockid={id}"), "", body)?;
            Ok(id)
        })?;
        ids.sort_unstable();
        let list: String = ids.iter().map(|id| format!("<Latest>{id}</Latest>")).collect();
        let body = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{list}</BlockList>");
        let target = format!("{target}&comp=blocklist");
        Http::connect(self.port)?.send("PUT", &target, "", body.as_bytes()).map(drop)
    }

    /// Each part read and sent by one of several threads; parts count from 1.
    fn in_parts<T: Send>(
        &self,
        from: &Path,
        send: impl Fn(&mut Http, u64, &[u8]) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let bytes = fs::metadata(from)?.len();
        let (parts, next) = (bytes.div_ceil(PART_BYTES), AtomicU64::new(0));
        let worker = |_| -> Result<Vec<T>> {
            let (file, mut http, mut sent) = (File::open(from)?, Http::connect(self.port)?, Vec::new());
            let mut buffer = vec![0; PART_BYTES as usize];
            loop {
                let part = next.fetch_add(1, Ordering::Relaxed);
                if part >= parts {
                    return Ok(sent);
                }
                let n = PART_BYTES.min(bytes - part * PART_BYTES) as usize;
                file.read_exact_at(&mut buffer[..n], part * PART_BYTES)?;
                sent.push(send(&mut http, part + 1, &buffer[..n])?);
            }
        };
        Ok(at_once(PARALLEL, worker)?.into_iter().flatten().collect())
    }

    /// Reads the first `bytes` of an object by ranges.
    pub(crate) fn download(&self, key: &str, bytes: u64) -> Result<()> {
        let (target, next) = (self.target(key), AtomicU64::new(0));
        let worker = |_| -> Result<()> {
            let mut http = Http::connect(self.port)?;
            loop {
                let at = next.fetch_add(RANGE_BYTES, Ordering::Relaxed);
                if at >= bytes {
                    return Ok(());
                }
                let end = (at + RANGE_BYTES).min(bytes);
                let answer = http.send("GET", &target, &format!("Range: bytes={at}-{}\r\n", end - 1), &[])?;
                ensure!(answer.body.len() as u64 == end - at);
            }
        };
        at_once(PARALLEL, worker).map(drop)
    }

    /// Ranges of an object, one after the other over one connection, and how long each took.
    pub(crate) fn ranges(&self, key: &str) -> Result<impl FnMut(u64, usize) -> Result<Duration> + use<>> {
        let (mut http, target) = (Http::connect(self.port)?, self.target(key));
        Ok(move |at, bytes| {
            let start = Instant::now();
            let range = format!("Range: bytes={at}-{}\r\n", at + bytes as u64 - 1);
            http.send("GET", &target, &range, &[])?;
            Ok(start.elapsed())
        })
    }
}

/// HTTP/1.1 over one kept connection.
struct Http {
    stream: BufReader<TcpStream>,
    port: u16,
}

/// Headers, lower case, and the body.
struct Answer {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Http {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream: BufReader::with_capacity(256 << 10, stream), port })
    }

    fn send(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> Result<Answer> {
        self.head(method, target, headers, body.len() as u64)?;
        self.stream.get_mut().write_all(body)?;
        self.answer()
    }

    fn send_file(&mut self, method: &str, target: &str, from: &Path) -> Result<Answer> {
        let (mut file, mut buffer) = (File::open(from)?, vec![0; 1 << 20]);
        self.head(method, target, "", file.metadata()?.len())?;
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                return self.answer();
            }
            self.stream.get_mut().write_all(&buffer[..n])?;
        }
    }

    fn head(&mut self, method: &str, target: &str, headers: &str, bytes: u64) -> Result<()> {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {bytes}\r\n{headers}\r\n",
            self.port
        );
        Ok(self.stream.get_mut().write_all(head.as_bytes())?)
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.trim_end().to_owned();
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut answer = Answer { headers, body: Vec::new() };
        match answer.header("content-length").and_then(|length| length.parse().ok()) {
            Some(length) => {
                answer.body = vec![0; length];
                self.stream.read_exact(&mut answer.body)?;
            }
            None if answer.header("transfer-encoding") == Some("chunked") => answer.body = self.chunks()?,
            None => {}
        }
        let code: u16 = status.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
        ensure!((200..300).contains(&code), "{status}: {}", String::from_utf8_lossy(&answer.body));
        Ok(answer)
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let (mut body, mut line) = (Vec::new(), String::new());
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let n = u64::from_str_radix(line.trim_end(), 16).context("the size of a chunk")?;
            (&mut self.stream).take(n).read_to_end(&mut body)?;
            line.clear();
            self.stream.read_line(&mut line)?;
            if n == 0 {
                return Ok(body);
            }
        }
    }
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn element(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once('<')?.0.to_owned())
    }
}
