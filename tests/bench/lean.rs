//! The limits: the least work that moves the same bytes. Of stores that are reached by HTTP see [`remote`](crate::remote).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use varve_format::DigestAlgorithm;

use crate::measure::thread_cpu_seconds;

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
