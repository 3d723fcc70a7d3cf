//! One error for all key services: a kind that tells the caller what to do, and a text that tells a person which
//! key of which service, what was asked, and what came back. Neither a key nor a token stands in it.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No such key.
    NotFound,
    /// Credentials wrong, missing, expired or not allowed to do this.
    Denied,
    /// Down, slow, throttling or resetting connections; was retried; may work later.
    Unavailable,
    /// The call or the configuration is wrong; repeating it is pointless.
    Invalid,
    /// The service, or the cipher, says that these bytes are not what this key wrapped with this context: altered,
    /// another's, or bound to something else.
    Refused,
    /// The key is there, but disabled, waiting for its deletion, or destroyed.
    Disabled,
    /// The store of key records has no room for one.
    NoSpace,
    /// The data key was destroyed on purpose.
    Destroyed,
    /// A key record is altered, or is not the one that its name says.
    Corrupt,
    /// An answer or a failure that fits none of the others.
    Other,
}

/// An error of a key service, or of the settings that lead to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    pub kind: Kind,
    /// `wrap`, `unwrap`, what is done to key records (`read`, `write` …), or `configuration`.
    pub operation: &'static str,
    /// The key's URL, the key record's place in its store, or the setting's name.
    pub key: String,
    pub detail: String,
}

impl Error {
    pub(crate) fn new(
        kind: Kind,
        operation: &'static str,
        key: impl ToString,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, operation, key: key.to_string(), detail: detail.into() }
    }

    /// Something about the setting `name`, or about a URL, that must be put right first.
    pub(crate) fn configuration(name: impl ToString, detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, "configuration", name, detail)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joint = if matches!(self.operation, "wrap" | "unwrap") { "by" } else { "of" };
        write!(f, "{} {joint} {}: {} ({})", self.operation, self.key, self.detail, self.kind.advice())
    }
}

impl Kind {
    /// What a person should look at.
    pub fn advice(self) -> &'static str {
        match self {
            Self::NotFound => "no such key: check its name, and that it was not deleted",
            Self::Denied => "denied: check the credentials and what they may do with this key",
            Self::Unavailable => "the key service is unavailable or throttling: try again later",
            Self::Invalid => "invalid request or configuration",
            Self::Refused => "these bytes are altered, or belong to another key or another place",
            Self::Disabled => "enable the key, or cancel its deletion; a destroyed key is lost",
            Self::NoSpace => "the store has no space left",
            Self::Destroyed => "nothing opens it any more",
            Self::Corrupt => "restore the key record from a copy",
            Self::Other => "unexpected answer",
        }
    }
}
