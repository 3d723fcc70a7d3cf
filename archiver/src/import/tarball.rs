//! A tar of log directories, read where it lies.
//!
//! A tar's files come in any order, checkpoints after the logs that they are about, so it is gone through once for
//! names and positions; small files are kept, logs are read by their positions afterwards. A compressed tar has no
//! positions: the logs that are wanted of it are unpacked on the way, into one file without a name in the directory
//! for temporary files, which is gone with this process, however that ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tar::{Archive, Entry, EntryType};

use super::checkpoint::{DirectoryName, parse_directory, parse_log_name};
use super::error::{ImportError, Result};
use super::files::{Blob, SMALL_MAX_BYTES};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const SMALL: [&str; 6] = [
    "meta.properties",
    "replication-offset-checkpoint",
    "log-start-offset-checkpoint",
    "cleaner-offset-checkpoint",
    "leader-epoch-checkpoint",
    "partition.metadata",
];

/// What is in a tar, by names without a leading `./`.
#[derive(Debug, Default)]
pub(crate) struct Tarball {
    pub(crate) path: PathBuf,
    pub(crate) small: HashMap<String, Vec<u8>>,
    pub(crate) modified_ms: HashMap<String, i64>,
    pub(crate) logs: BTreeMap<String, Blob>,
    /// Without a slash at the end.
    pub(crate) directories: BTreeSet<String>,
}

impl Tarball {
    /// `wants` tells the topics whose logs will be read.
    pub(crate) fn open(path: &Path, wants: &dyn Fn(&str) -> bool) -> Result<Self> {
        let failed = ImportError::io(path.display());
        let mut file = File::open(path).map_err(&failed)?;
        let mut magic = Vec::new();
        Read::by_ref(&mut file).take(4).read_to_end(&mut magic).map_err(&failed)?;
        file.seek(SeekFrom::Start(0)).map_err(&failed)?;
        let mut tar = Self { path: path.to_owned(), ..Self::default() };
        if magic.starts_with(&GZIP) {
            let stream = flate2::read::MultiGzDecoder::new(BufReader::with_capacity(1 << 20, file));
            tar.unpack(stream, wants).map_err(&failed)?;
        } else if magic == ZSTD {
            let stream = zstd::stream::read::Decoder::new(file).map_err(&failed)?;
            tar.unpack(stream, wants).map_err(&failed)?;
        } else {
            tar.index(file).map_err(&failed)?;
        }
        Ok(tar)
    }

    fn index(&mut self, file: File) -> std::io::Result<()> {
        let whole = Arc::new(file.try_clone()?);
        let (mut archive, mut spool) = (Archive::new(file), None);
        for entry in archive.entries_with_seek()? {
            let mut entry = entry?;
            let Some(name) = self.note(&mut entry)? else { continue };
            let blob = if entry.header().entry_type() == EntryType::GNUSparse {
                // Its bytes lie in pieces.
                copy(&mut spool, &name, &mut entry)?
            } else {
                let (position, bytes) = (entry.raw_file_position(), entry.size());
                Blob { name: self.shown(&name), file: Arc::clone(&whole), position, bytes }
            };
            self.logs.insert(name, blob);
        }
        Ok(())
    }

    fn unpack(&mut self, stream: impl Read, wants: &dyn Fn(&str) -> bool) -> std::io::Result<()> {
        let (mut archive, mut spool) = (Archive::new(stream), None);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let Some(name) = self.note(&mut entry)? else { continue };
            let directory = name.rsplit('/').nth(1).unwrap_or_default();
            if matches!(parse_directory(directory), DirectoryName::Partition { topic, .. } if wants(&topic)) {
                let mut blob = copy(&mut spool, &name, &mut entry)?;
                blob.name = self.shown(&name);
                self.logs.insert(name, blob);
            }
        }
        Ok(())
    }

    fn shown(&self, name: &str) -> String {
        format!("{}:{name}", self.path.display())
    }

    /// Takes what is small, and the directories; the name, if it is a segment's log.
    fn note(&mut self, entry: &mut Entry<'_, impl Read>) -> std::io::Result<Option<String>> {
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let name = parts.join("/");
        let kind = entry.header().entry_type();
        let parents = if kind.is_dir() { parts.len() } else { parts.len().saturating_sub(1) };
        for depth in 1..=parents {
            self.directories.insert(parts.get(..depth).unwrap_or_default().join("/"));
        }
        if !(kind.is_file() || kind == EntryType::GNUSparse) {
            return Ok(None);
        }
        let last = parts.last().copied().unwrap_or_default();
        if SMALL.contains(&last) && entry.size() <= SMALL_MAX_BYTES {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            let modified_s = i64::try_from(entry.header().mtime()?).unwrap_or(0);
            self.modified_ms.insert(name.clone(), modified_s.saturating_mul(1000));
            self.small.insert(name, bytes);
            return Ok(None);
        }
        Ok(parse_log_name(last).map(|_| name))
    }

    /// Where log directories are in it: prefixes, empty or with a slash at the end.
    pub(crate) fn log_directories(&self) -> BTreeSet<String> {
        let marks = ["meta.properties", "replication-offset-checkpoint"];
        let of = |name: &String| marks.iter().find_map(|mark| name.strip_suffix(mark).map(str::to_owned));
        let whole = |prefix: &String| prefix.is_empty() || prefix.ends_with('/');
        self.small.keys().filter_map(of).filter(whole).collect()
    }
}

fn copy(spool: &mut Option<(Arc<File>, u64)>, name: &str, entry: &mut impl Read) -> std::io::Result<Blob> {
    let (file, end) = match spool.take() {
        Some(open) => open,
        None => (Arc::new(tempfile::tempfile()?), 0),
    };
    let bytes = std::io::copy(entry, &mut &*file)?;
    *spool = Some((Arc::clone(&file), end + bytes));
    Ok(Blob { name: name.to_owned(), file, position: end, bytes })
}
