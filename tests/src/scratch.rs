//! A folder for one cluster or server: removed at the end, kept when a test failed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{env, fs, process};

use anyhow::{Context, Result, ensure};

/// Set while a test runs: what it let go of stays until its outcome is known.
static HELD: Mutex<Option<Vec<PathBuf>>> = Mutex::new(None);
static FAILED: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A test begins. Its scratch folders go when it has passed; if it fails all stay from then on: somebody will want to
/// read the logs.
pub(crate) fn hold() {
    *held() = Some(Vec::new());
}

/// The test that [`hold`] began has ended.
pub(crate) fn settle(passed: bool) {
    if !passed {
        FAILED.store(true, Ordering::Relaxed);
    }
    let held = held().take().unwrap_or_default();
    held.iter().for_each(|path| end(path));
}

fn held() -> MutexGuard<'static, Option<Vec<PathBuf>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(path: &Path) {
    if FAILED.load(Ordering::Relaxed) || env::var_os("VARVE_KEEP").is_some() {
        eprintln!("kept: {}", path.display());
    } else if let Err(error) = fs::remove_dir_all(path) {
        eprintln!("cannot remove {}: {error}", path.display());
    }
}

#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(name: &str) -> Result<Self> {
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = env::temp_dir().join(format!("varve-e2e-{}-{number}-{name}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                // Of an earlier run, whose process had the same id.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("create {}", path.display())),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A folder with all in it, as a volume's snapshot would have it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = process::Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match &mut *held() {
            Some(held) => held.push(self.path.clone()),
            None => end(&self.path),
        }
    }
}
