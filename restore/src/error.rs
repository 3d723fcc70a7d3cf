//! What can go wrong with a restore.

use varve_kafka::client::ClientError;
use varve_kafka::client::admin::AdminError;
use varve_kafka::protocol::ProtocolError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Each says what it concerns, and what to do where that is not plain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Archive(#[from] varve_archive::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("the target's state: {0}")]
    State(#[from] varve_cluster::StateError),
    #[error(transparent)]
    Registry(#[from] varve_cluster::RegistryError),
    #[error("{object}: {source}")]
    Protocol { object: String, source: ProtocolError },
    #[error("{object}: its key can't be had: {source}")]
    Key { object: String, source: varve_keys::Error },
    #[error("{what}: expected {expected}, found {found}")]
    Unexpected { what: String, expected: String, found: String },
    /// What the plan or the target does not allow.
    #[error("{what}: {todo}")]
    Refused { what: String, todo: String },
    #[error("{what}: {source}")]
    File { what: String, source: std::io::Error },
}

impl Error {
    /// Whether the same may work later: nothing is known to be wrong with the archive.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Archive(error) => {
                matches!(error.kind(), varve_archive::Kind::Retry | varve_archive::Kind::Denied)
            }
            Self::Key { source, .. } => source.kind == varve_keys::Kind::Unavailable,
            Self::Client(error) => error.is_retriable(),
            Self::Registry(error) => error.is_retriable(),
            _ => false,
        }
    }

    pub(crate) fn unexpected(what: impl Into<String>, expected: impl ToString, found: impl ToString) -> Self {
        Self::Unexpected { what: what.into(), expected: expected.to_string(), found: found.to_string() }
    }

    pub(crate) fn refused(what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), todo: todo.into() }
    }
}
