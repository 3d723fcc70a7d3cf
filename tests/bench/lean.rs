//! The limits: the least work that moves the same bytes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use varve_format::DigestAlgorithm;

use crate::measure::{at_once, thread_cpu_seconds};

const STEP: usize = 1 << 20;

/// A plain loop over one file, made durable as the store makes it: file synced, renamed, folder synced.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let mut buffer = vec![0; STEP];
    let temporary = to.with_extension("lean");
    let (mut source, mut out) = (File::open(from)?, File::create(&temporary)?);
    loop {
        let n = source.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        out.write_all(&buffer[..n])?;
    }
    out.sync_all()?;
    fs::rename(&temporary, to)?;
    File::open(to.parent().context("a folder")?)?.sync_all()?;
    Ok(())
}

/// Takes a file out of the page cache.
pub(crate) fn drop_cached(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    // SAFETY: the descriptor is open, and no memory is passed.
    let failed = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    ensure!(failed == 0, "posix_fadvise: error {failed}");
    Ok(())
}

/// A plain loop that reads `bytes` from the start of one file.
pub(crate) fn read_file(path: &Path, bytes: u64) -> Result<()> {
    let mut buffer = vec![0; STEP];
    let file = File::open(path)?;
    let mut at = 0;
    while at < bytes {
        let n = buffer.len().min((bytes - at) as usize);
        file.read_exact_at(&mut buffer[..n], at)?;
        at += n as u64;
    }
    Ok(())
}

/// Reads files, hashes them and sends them over a socket of this machine, in pieces that stay in a core's cache. The
/// sender's processor time; what receives throws away.
pub(crate) fn send(files: &[PathBuf], digest: DigestAlgorithm) -> Result<f64> {
    const PIECE: usize = 512 << 10;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let (mut stream, mut buffer) = (listener.accept()?.0, vec![0; PIECE]);
            while stream.read(&mut buffer)? > 0 {}
            Ok::<_, std::io::Error>(())
        });
        let sender = scope.spawn(move || {
            let (mut stream, mut buffer) = (TcpStream::connect(("127.0.0.1", port))?, vec![0; PIECE]);
            let cpu = thread_cpu_seconds();
            for path in files {
                let (mut file, mut hasher) = (File::open(path)?, digest.hasher());
                loop {
                    let n = file.read(&mut buffer)?;
                    let Some(read) = buffer.get(..n).filter(|b| !b.is_empty()) else { break };
                    if let Some(hasher) = &mut hasher {
                        hasher.update(read);
                    }
                    stream.write_all(read)?;
                }
                std::hint::black_box(hasher.map(varve_format::Hasher::finish));
            }
            Ok::<_, std::io::Error>(thread_cpu_seconds() - cpu)
        });
        let panicked = |_| anyhow!("a thread panicked");
        let seconds = sender.join().map_err(panicked)??;
        receiver.join().map_err(panicked)??;
        Ok(seconds)
    })
}

/// One pread of a part of a file.
pub(crate) fn read_range(path: &Path, at: u64, bytes: usize) -> Result<Duration> {
    let start = Instant::now();
    let mut buffer = vec![0; bytes];
    File::open(path)?.read_exact_at(&mut buffer, at)?;
    Ok(start.elapsed())
}

/// HTTP/1.1 over one kept connection, without signatures: the bucket lets anyone in.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
    port: u16,
}

/// Headers, lower case, and the body.
pub(crate) struct Answer {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Http {
    pub(crate) fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream: BufReader::with_capacity(256 << 10, stream), port })
    }

    pub(crate) fn send(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> Result<Answer> {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {}\r\n{headers}\r\n",
            self.port,
            body.len()
        );
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        self.answer()
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
        let length = headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body)?;
        let code: u16 = status.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
        ensure!((200..300).contains(&code), "{status}: {}", String::from_utf8_lossy(&body));
        Ok(Answer { headers, body })
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

/// Uploads a file in parts, `parallel` at once, each read and sent by its own thread.
pub(crate) fn upload(port: u16, target: &str, from: &Path, part_bytes: u64, parallel: u32) -> Result<()> {
    let mut http = Http::connect(port)?;
    let begun = http.send("POST", &format!("{target}?uploads="), "", &[])?;
    let id = begun.element("UploadId").context("UploadId")?;
    let bytes = fs::metadata(from)?.len();
    let parts = bytes.div_ceil(part_bytes);
    let next = AtomicU64::new(0);
    let worker = |_| -> Result<Vec<(u64, String)>> {
        let (file, mut http, mut etags) = (File::open(from)?, Http::connect(port)?, Vec::new());
        let mut buffer = vec![0; part_bytes as usize];
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return Ok(etags);
            }
            let n = part_bytes.min(bytes - part * part_bytes) as usize;
            file.read_exact_at(&mut buffer[..n], part * part_bytes)?;
            let answer = http.send(
                "PUT",
                &format!("{target}?partNumber={}&uploadId={id}", part + 1),
                "",
                &buffer[..n],
            )?;
            etags.push((part + 1, answer.header("etag").context("ETag")?.to_owned()));
        }
    };
    let mut etags = at_once(parallel, worker)?.concat();
    etags.sort_unstable();
    let list: String = etags
        .iter()
        .map(|(n, tag)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>"))
        .collect();
    let body = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
    http.send("POST", &format!("{target}?uploadId={id}"), "", body.as_bytes())?;
    Ok(())
}

/// Reads the first `bytes` of an object by ranges of `step`, `parallel` at once.
pub(crate) fn download(port: u16, target: &str, bytes: u64, step: u64, parallel: u32) -> Result<()> {
    let next = AtomicU64::new(0);
    let worker = |_| -> Result<()> {
        let mut http = Http::connect(port)?;
        loop {
            let at = next.fetch_add(step, Ordering::Relaxed);
            if at >= bytes {
                return Ok(());
            }
            let end = (at + step).min(bytes);
            let answer = http.send("GET", target, &format!("Range: bytes={at}-{}\r\n", end - 1), &[])?;
            ensure!(answer.body.len() as u64 == end - at);
        }
    };
    at_once(parallel, worker).map(drop)
}
