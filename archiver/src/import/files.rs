//! Files of log directories, wherever they are: in a directory, or in a tar of one. Read by position, never mapped.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::checkpoint::parse_log_name;
use super::error::{ImportError, Result};
use super::tarball::Tarball;

/// Of a checkpoint of a broker with very many partitions.
pub(crate) const SMALL_MAX_BYTES: u64 = 256 << 20;

/// The bytes of one file.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub(crate) name: String,
    pub(crate) file: Arc<File>,
    pub(crate) position: u64,
    /// In a directory that is written to, as it was when it was opened.
    pub(crate) bytes: u64,
}

impl Blob {
    /// As many bytes as there are, at most `into`.
    pub(crate) fn read_at(&self, into: &mut [u8], at: u64) -> Result<usize> {
        let left = usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let wanted = into.len().min(left);
        let mut read = 0;
        while read < wanted {
            let rest = into.get_mut(read..wanted).unwrap_or_default();
            match self.file.read_at(rest, self.position + at + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ImportError::io(&self.name)(error)),
            }
        }
        Ok(read)
    }
}

/// One log directory's files.
#[derive(Clone, Debug)]
pub(crate) enum Files {
    Directory(PathBuf),
    /// Below this path in the tar; empty, or ends with a slash.
    Tar(Arc<Tarball>, String),
}

impl std::fmt::Display for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Files::Directory(path) => write!(f, "{}", path.display()),
            Files::Tar(tar, prefix) => write!(f, "{}:{}", tar.path.display(), prefix.trim_end_matches('/')),
        }
    }
}

impl Files {
    pub(crate) fn name(&self, file: &str) -> String {
        format!("{self}/{file}")
    }

    /// A small file, whole.
    pub(crate) fn small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Files::Tar(tar, prefix) => Ok(tar.small.get(&format!("{prefix}{name}")).cloned()),
            Files::Directory(path) => {
                let path = path.join(name);
                let failed = ImportError::io(path.display());
                match std::fs::metadata(&path) {
                    Ok(meta) if meta.len() > SMALL_MAX_BYTES => {
                        let expected = format!("at most {SMALL_MAX_BYTES} bytes");
                        return Err(ImportError::checkpoint(
                            &path.display().to_string(),
                            expected,
                            meta.len(),
                        ));
                    }
                    _ => {}
                }
                match std::fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(failed(error)),
                }
            }
        }
    }

    /// When a small file was last written.
    pub(crate) fn modified_ms(&self, name: &str) -> Option<i64> {
        match self {
            Files::Tar(tar, prefix) => tar.modified_ms.get(&format!("{prefix}{name}")).copied(),
            Files::Directory(path) => {
                let modified = std::fs::metadata(path.join(name)).ok()?.modified().ok()?;
                Some(since_1970_ms(modified))
            }
        }
    }

    /// Names of the directories in it.
    pub(crate) fn directories(&self) -> Result<Vec<String>> {
        match self {
            Files::Tar(tar, prefix) => {
                let names = tar.directories.range(prefix.clone()..).take_while(|d| d.starts_with(prefix));
                let names = names.filter_map(|d| d.strip_prefix(prefix.as_str()));
                Ok(names.filter(|d| !d.is_empty() && !d.contains('/')).map(str::to_owned).collect())
            }
            Files::Directory(path) => {
                let failed = ImportError::io(path.display());
                let mut names = Vec::new();
                for entry in std::fs::read_dir(path).map_err(&failed)? {
                    let entry = entry.map_err(&failed)?;
                    // What vanishes now is no directory any more.
                    if std::fs::metadata(entry.path()).is_ok_and(|meta| meta.is_dir()) {
                        names.extend(entry.file_name().into_string());
                    }
                }
                names.sort();
                Ok(names)
            }
        }
    }

    /// The logs of a partition's directory: base offsets and sizes, ascending. `None`: there is no such directory.
    pub(crate) fn logs(&self, directory: &str) -> Result<Option<Vec<(i64, u64)>>> {
        match self {
            Files::Tar(tar, prefix) => {
                let prefix = format!("{prefix}{directory}/");
                let names =
                    tar.logs.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
                let of = |(name, log): (&String, &Blob)| {
                    Some((parse_log_name(name.strip_prefix(prefix.as_str())?)?, log.bytes))
                };
                Ok(Some(names.filter_map(of).collect()))
            }
            Files::Directory(path) => {
                let path = path.join(directory);
                let failed = ImportError::io(path.display());
                let entries = match std::fs::read_dir(&path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                    entries => entries.map_err(&failed)?,
                };
                let mut logs = Vec::new();
                for entry in entries {
                    let entry = entry.map_err(&failed)?;
                    let Some(base) = entry.file_name().to_str().and_then(parse_log_name) else { continue };
                    match std::fs::metadata(entry.path()) {
                        Ok(meta) => logs.push((base, meta.len())),
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        Err(error) => return Err(failed(error)),
                    }
                }
                logs.sort_unstable();
                Ok(Some(logs))
            }
        }
    }

    /// A segment's log; `None` if it is gone.
    pub(crate) fn open_log(&self, directory: &str, base_offset: i64) -> Result<Option<Blob>> {
        let name = format!("{directory}/{base_offset:020}.log");
        match self {
            Files::Tar(tar, prefix) => Ok(tar.logs.get(&format!("{prefix}{name}")).cloned()),
            Files::Directory(path) => open(&path.join(name)),
        }
    }
}

fn open(path: &Path) -> Result<Option<Blob>> {
    let failed = ImportError::io(path.display());
    match File::open(path) {
        Ok(file) => {
            let bytes = file.metadata().map_err(&failed)?.len();
            Ok(Some(Blob { name: path.display().to_string(), file: Arc::new(file), position: 0, bytes }))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn since_1970_ms(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
