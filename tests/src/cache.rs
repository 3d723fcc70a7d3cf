//! The cache folder that installed servers, jars and compiled classes live in.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `$VARVE_CACHE`, or `varve` in the user's cache folder.
pub(crate) fn root() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("VARVE_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("varve")))
        .or_else(|| from("HOME").map(|home| home.join(".cache/varve")))
        .context("none of VARVE_CACHE, XDG_CACHE_HOME and HOME is set")
}

/// `root()/name`, made by `fill` if it isn't there. `fill` gets an empty folder that is renamed into place:
/// a crash leaves a folder that the next one removes, never a half-filled `name`. Whoever comes meanwhile waits.
pub(crate) fn ensure(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let target = root()?.join(name);
    if target.is_dir() {
        return Ok(target);
    }
    let parent = target.parent().context("a cache entry has a parent")?;
    fs::create_dir_all(parent)?;
    let _lock = lock(&target.with_added_extension("lock"))?;
    if target.is_dir() {
        return Ok(target);
    }
    let partial = target.with_added_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir(&partial)?;
    fill(&partial).with_context(|| format!("install {name}"))?;
    fs::rename(&partial, &target)?;
    Ok(target)
}

/// An exclusive lock that ends with the returned file, also when the program dies.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path)?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}
