//! One error for all stores: a kind that tells the caller what to do, and a text that tells a person
//! which object of which store, what was asked, and what came back.

use std::fmt;

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No such object, bucket or upload.
    NotFound,
    /// Create-if-absent lost.
    AlreadyExists,
    /// Credentials wrong, expired or not allowed to do this.
    Denied,
    /// Down, slow, throttling or resetting connections; was retried; may work later.
    Unavailable,
    /// The store has no room.
    NoSpace,
    /// The body ended before its range did, or differs from its checksum.
    Truncated,
    /// The range begins at or after the object's end.
    InvalidRange,
    /// The call or the configuration is wrong; repeating it is pointless.
    Invalid,
    /// The store does not do this.
    Unsupported,
    /// The object lies in a storage class from which it must be thawed before it can be read.
    Frozen,
    /// An answer or a failure that fits none of the others.
    Other,
}

/// An error of a store.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    pub kind: Kind,
    /// `get`, `put part 3`, `list` …
    pub operation: String,
    /// Key or prefix, with the store's URL before it.
    pub object: String,
    pub detail: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub fn new(
        kind: Kind,
        operation: impl Into<String>,
        object: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, operation: operation.into(), object: object.into(), detail: detail.into(), source: None }
    }

    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: {} ({})", self.operation, self.object, self.detail, self.kind.advice())
    }
}

impl Kind {
    /// What a person should look at.
    pub fn advice(self) -> &'static str {
        match self {
            Kind::NotFound => "not found",
            Kind::AlreadyExists => "already exists",
            Kind::Denied => "denied: check the credentials and the bucket policy",
            Kind::Unavailable => "the store is unavailable or throttling: will be tried again",
            Kind::NoSpace => "the store has no space left",
            Kind::Truncated => "the body was truncated or altered on its way",
            Kind::InvalidRange => "the range lies outside the object",
            Kind::Invalid => "invalid request or configuration",
            Kind::Unsupported => "not supported by this store",
            Kind::Frozen => "it must be thawed first (restore-object)",
            Kind::Other => "unexpected answer",
        }
    }
}
