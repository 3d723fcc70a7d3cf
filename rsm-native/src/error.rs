//! What an operation can fail with, by kind: the shim turns each into the right Java exception.

use varve_store::Kind as StoreKind;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The numbers are part of the boundary to Java (`NativeException.kind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Kind {
    Invalid = 1,
    NotFound = 2,
    Corrupt = 3,
    Denied = 4,
    Retry = 5,
    Cancelled = 6,
    Closed = 7,
    Internal = 8,
    Config = 9,
    NoSpace = 10,
    /// A write failed, might be tried again, and left something that is not cleaned up yet.
    Unclean = 11,
}

/// Cloneable, since one failed fetch fails all who wait for it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub message: String,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn config(key: &str, value: &str, allowed: &str) -> Self {
        Self::new(Kind::Config, format!("{key}={value}: {allowed}"))
    }

    pub fn cancelled(what: &str) -> Self {
        Self::new(Kind::Cancelled, format!("{what} was cancelled"))
    }

    pub fn internal(what: &str, detail: impl std::fmt::Display) -> Self {
        Self::new(Kind::Internal, format!("{what}: {detail} (this is a defect of Varve: please report it)"))
    }

    /// An error of the format in the object at `place` (store and key).
    pub fn format(place: &str, error: varve_format::Error) -> Self {
        let kind = match error {
            varve_format::Error::KeyMissing { .. } => Kind::Denied,
            varve_format::Error::Invalid { .. } => Kind::Invalid,
            _ => Kind::Corrupt,
        };
        Self::new(kind, format!("{place}: {error}"))
    }

    pub fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::PermissionDenied => Kind::Denied,
            std::io::ErrorKind::StorageFull => Kind::NoSpace,
            _ => Kind::Invalid,
        };
        Self::new(kind, format!("{what} {}: {error}", path.display()))
    }
}

impl From<varve_store::Error> for Error {
    fn from(e: varve_store::Error) -> Self {
        let kind = match e.kind {
            StoreKind::NotFound => Kind::NotFound,
            StoreKind::Denied => Kind::Denied,
            StoreKind::NoSpace => Kind::NoSpace,
            StoreKind::Unavailable => Kind::Retry,
            StoreKind::Truncated | StoreKind::InvalidRange => Kind::Corrupt,
            _ => Kind::Invalid,
        };
        Self::new(kind, e.to_string())
    }
}
