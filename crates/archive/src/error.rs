//! What can go wrong with an archive: a rich error for people, a kind for the caller.

use crate::canonical::RecordError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on an archive failed. Each names the object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] varve_store::Error),
    #[error("{object}: {source}")]
    Record { object: String, source: RecordError },
    #[error("{object}: {source}")]
    Segment { object: String, source: varve_format::Error },
    #[error("{object}: expected {expected}, found {found}")]
    Corrupt { object: String, expected: String, found: String },
    #[error("{object} is another than was looked for: expected {expected}, found {found}")]
    Mistaken { object: String, expected: String, found: String },
    #[error("{object} is missing")]
    Missing { object: String },
    #[error("the archive at {object} needs what this build does not know: {names}: upgrade Varve")]
    Requires { object: String, names: String },
    #[error("invalid {what}: {found} (allowed: {allowed})")]
    Invalid { what: &'static str, found: String, allowed: String },
    /// What concerns a piece of a partition's history.
    #[error("offsets {first_offset} to {}: {source}", end_offset.saturating_sub(1))]
    Offsets { first_offset: i64, end_offset: i64, source: Box<Error> },
    #[error("{object}: gave up after {tries} tries, each time another writer was first")]
    Contended { object: String, tries: u32 },
}

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// May work later; nothing is known to be wrong with the archive.
    Retry,
    NotFound,
    /// Bytes in the store are not what they must be.
    Corrupt,
    /// The call, the configuration or the version of this program.
    Invalid,
    Denied,
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => match e.kind {
                varve_store::Kind::NotFound => Kind::NotFound,
                varve_store::Kind::Denied => Kind::Denied,
                varve_store::Kind::Invalid
                | varve_store::Kind::Unsupported
                | varve_store::Kind::Frozen
                | varve_store::Kind::InvalidRange => Kind::Invalid,
                _ => Kind::Retry,
            },
            Self::Record { source: RecordError::Future { .. }, .. } => Kind::Invalid,
            Self::Segment { source, .. } => match source {
                varve_format::Error::Corrupt { .. }
                | varve_format::Error::TooShort { .. }
                | varve_format::Error::KeyRefused { .. }
                | varve_format::Error::Mistaken { .. } => Kind::Corrupt,
                _ => Kind::Invalid,
            },
            Self::Record { .. } | Self::Corrupt { .. } | Self::Mistaken { .. } => Kind::Corrupt,
            Self::Missing { .. } => Kind::NotFound,
            Self::Requires { .. } | Self::Invalid { .. } => Kind::Invalid,
            Self::Contended { .. } => Kind::Retry,
            Self::Offsets { source, .. } => source.kind(),
        }
    }

    /// Whether an object is damaged or gone: it stays so.
    pub fn is_damage(&self) -> bool {
        matches!(self.kind(), Kind::Corrupt | Kind::NotFound)
    }

    /// Whether an object must be thawed before it can be read.
    pub fn is_frozen(&self) -> bool {
        match self {
            Self::Store(e) => e.kind == varve_store::Kind::Frozen,
            Self::Offsets { source, .. } => source.is_frozen(),
            _ => false,
        }
    }

    /// Of the offsets from the first up to the end; what is already said is not said again.
    pub(crate) fn at_offsets(self, first_offset: i64, end_offset: i64) -> Self {
        match self {
            Self::Offsets { .. } => self,
            other => Self::Offsets { first_offset, end_offset, source: Box::new(other) },
        }
    }

    pub(crate) fn corrupt(object: impl ToString, expected: impl ToString, found: impl ToString) -> Self {
        Self::Corrupt { object: object.to_string(), expected: expected.to_string(), found: found.to_string() }
    }

    pub(crate) fn mistaken(object: impl ToString, expected: impl ToString, found: impl ToString) -> Self {
        Self::Mistaken {
            object: object.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    pub(crate) fn invalid(what: &'static str, found: impl ToString, allowed: impl ToString) -> Self {
        Self::Invalid { what, found: found.to_string(), allowed: allowed.to_string() }
    }
}
