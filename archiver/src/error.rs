//! What stops an archiver, or one of its partitions.

use varve_cluster::StateError;
use varve_kafka::client::ClientError;
use varve_kafka::client::admin::AdminError;
use varve_kafka::protocol::ProtocolError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Archive(#[from] varve_archive::Error),
    #[error(transparent)]
    Store(#[from] varve_store::Error),
    #[error(transparent)]
    Keys(#[from] varve_keys::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Registry(#[from] varve_cluster::RegistryError),
    #[error("{what}: {source}")]
    Segment { what: String, source: varve_format::Error },
    #[error("{what}: {source}")]
    Batches { what: String, source: ProtocolError },
    #[error("{what}: expected {expected}, found {found}")]
    Unexpected { what: String, expected: String, found: String },
    #[error("the brokers are of cluster {found} now, and what is archived is of {expected}")]
    AnotherCluster { expected: String, found: String },
    #[error("{0} was ended")]
    Ended(&'static str),
}

impl Error {
    pub(crate) fn unexpected(what: impl ToString, expected: impl ToString, found: impl ToString) -> Self {
        Self::Unexpected { what: what.to_string(), expected: expected.to_string(), found: found.to_string() }
    }

    /// Whether the cluster can't be asked: no broker answers, or only another's.
    pub(crate) fn is_away(&self) -> bool {
        if matches!(self, Error::AnotherCluster { .. }) {
            return true;
        }
        let (Error::Client(error)
        | Error::Admin(AdminError::Client(error))
        | Error::State(StateError::Admin(AdminError::Client(error)))) = self
        else {
            return false;
        };
        let last = if let ClientError::GaveUp { last, .. } = error { last } else { error };
        matches!(
            last,
            ClientError::Connect { .. }
                | ClientError::Timeout { .. }
                | ClientError::Closed { .. }
                | ClientError::NoLeader { .. }
        )
    }

    /// Whether it may go by itself: then it is tried again, for as long as it takes.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Archive(error) => error.kind() == varve_archive::Kind::Retry,
            Error::Store(error) => {
                matches!(error.kind, varve_store::Kind::Unavailable | varve_store::Kind::Truncated)
            }
            Error::Keys(error) => error.kind == varve_keys::Kind::Unavailable,
            Error::Client(error) => error.is_retriable() || matches!(error, ClientError::GaveUp { .. }),
            Error::Admin(error) => !error.is_not_authorized(),
            Error::Registry(error) => error.is_retriable(),
            Error::Ended(_) | Error::State(_) => true,
            Error::Segment { .. }
            | Error::Batches { .. }
            | Error::Unexpected { .. }
            | Error::AnotherCluster { .. } => false,
        }
    }
}
