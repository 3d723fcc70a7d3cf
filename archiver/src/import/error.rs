//! What stops an import, or the import of one partition.

use varve_kafka::protocol::ProtocolError;

use crate::error::Error;

pub(crate) type Result<T, E = ImportError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Archiver(#[from] Error),
    #[error(transparent)]
    Archive(#[from] varve_archive::Error),
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    /// A small file that is none, or says something else than others do.
    #[error("{file}: expected {expected}, found {found}")]
    Checkpoint { file: String, expected: String, found: String },
    #[error(
        "{path} is no log directory of a broker: it has neither meta.properties nor replication-offset-checkpoint"
    )]
    NoLogDirectory { path: String },
    #[error("{path}: no meta.properties tells the cluster: name it by --cluster-id")]
    NoClusterId { path: String },
    #[error("a broker holds {path}/.lock: to read what it is writing to, say --online")]
    InUse { path: String },
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("{what}: it changed {tries} times while it was read")]
    Restless { what: String, tries: u32 },
}

/// Why a log can't be read on from some offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{file} at offset {offset}: {source}")]
    Corrupt { file: String, offset: i64, source: ProtocolError },
    #[error("{directory}: the file that holds offset {offset} is missing; the next begins at {next}")]
    Missing { directory: String, offset: i64, next: i64 },
    #[error("{file}: offset {next} follows where {offset} is due, in a log that was never compacted")]
    Jump { file: String, offset: i64, next: i64 },
    #[error(
        "{directory}: the log starts at {log_start_offset}, its first file at {next}: what is before is in the brokers' tier"
    )]
    Tiered { directory: String, log_start_offset: i64, next: i64 },
    #[error(
        "{file}: the batch at offset {offset} is of leader epoch {found}, by leader-epoch-checkpoint it is {expected}"
    )]
    OtherEpoch { file: String, offset: i64, expected: i32, found: i32 },
    #[error("{file} is gone")]
    Vanished { file: String },
    #[error("{directory}: the log ends at {end_offset}, below its high watermark {high_watermark}")]
    EndsEarly { directory: String, end_offset: i64, high_watermark: i64 },
}

impl ImportError {
    pub(crate) fn io(path: impl ToString) -> impl Fn(std::io::Error) -> Self {
        let path = path.to_string();
        move |source| Self::Io { path: path.clone(), source }
    }

    pub(crate) fn checkpoint(file: &str, expected: impl ToString, found: impl ToString) -> Self {
        Self::Checkpoint { file: file.to_owned(), expected: expected.to_string(), found: found.to_string() }
    }
}
