//! A folder for one cluster or server: removed at the end, kept when a test failed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::{env, fs, process};

use anyhow::{Context, Result, ensure};

static FAILED: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU32 = AtomicU32::new(0);

/// From now on scratch folders stay: somebody will want to read the logs.
pub(crate) fn keep_all() {
    FAILED.store(true, Ordering::Relaxed);
}

#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(name: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("varve-e2e-{}-{number}-{name}", process::id()));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path })
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
        if FAILED.load(Ordering::Relaxed) || std::thread::panicking() || env::var_os("VARVE_KEEP").is_some() {
            eprintln!("kept: {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}
