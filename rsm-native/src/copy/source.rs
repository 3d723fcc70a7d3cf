//! The broker's files of one segment, read by pread and never mapped: a file that gets shorter is an error, not
//! a signal.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use varve_format::ExtentKind;

use super::WHAT;
use crate::error::{Error, Kind, Result};
use crate::wire::CopyRequest;

/// The files of a segment, open, with their sizes.
pub(super) struct Source {
    pub(super) log: (File, u64),
    pub(super) sections: Vec<(ExtentKind, Section)>,
}

pub(super) enum Section {
    File(File, u64),
    Bytes(Vec<u8>),
}

impl Source {
    pub(super) fn open(request: &CopyRequest) -> Result<Self> {
        let log = open(&request.log)?;
        if log.1 != u64::from(request.metadata.segment_bytes) {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "{}: {} bytes by the broker's metadata, the file has {}",
                    request.log.display(),
                    request.metadata.segment_bytes,
                    log.1
                ),
            ));
        }
        let mut sections = Vec::new();
        let files = [
            (ExtentKind::OffsetIndex, Some(&request.offset_index)),
            (ExtentKind::TimeIndex, Some(&request.time_index)),
            (ExtentKind::TransactionIndex, request.transaction_index.as_ref()),
            (ExtentKind::ProducerSnapshot, Some(&request.producer_snapshot)),
        ];
        for (kind, path) in files {
            if let Some(path) = path {
                let (file, bytes) = open(path)?;
                sections.push((kind, Section::File(file, bytes)));
            }
        }
        sections.push((ExtentKind::LeaderEpochs, Section::Bytes(request.leader_epochs.clone())));
        Ok(Self { log, sections })
    }
}

impl Section {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::File(_, bytes) => *bytes,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    pub(super) fn read(&self, kind: ExtentKind, at: u64, buffer: &mut [u8]) -> Result<()> {
        match self {
            Self::File(file, _) => read_exact(file, Path::new(kind.name()), at, buffer),
            Self::Bytes(bytes) => {
                let from = at as usize;
                let part = bytes
                    .get(from..from + buffer.len())
                    .ok_or_else(|| Error::internal(WHAT, "leader epochs"))?;
                buffer.copy_from_slice(part);
                Ok(())
            }
        }
    }
}

fn open(path: &Path) -> Result<(File, u64)> {
    let opened = File::open(path).and_then(|f| f.metadata().map(|m| (f, m.len())));
    opened.map_err(|e| Error::io("opening", path, &e))
}

/// By pread, never mapped: a file that gets shorter is an error, not a signal.
pub(super) fn read_exact(file: &File, path: &Path, at: u64, buffer: &mut [u8]) -> Result<()> {
    file.read_exact_at(buffer, at)
        .map_err(|e| Error::io(&format!("reading {} bytes at {at} of", buffer.len()), path, &e))
}
