//! What can be wrong with bytes that claim to be ours.

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why bytes were refused. The caller, who knows the object's name, adds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("corrupt {what} at byte {offset}: expected {expected}, found {found}")]
    Corrupt { what: &'static str, offset: u64, expected: String, found: String },
    #[error("{what} ends too early at byte {offset}: {needed} more bytes needed, {available} there")]
    TooShort { what: &'static str, offset: u64, needed: u64, available: u64 },
    #[error("format version {found} is newer than {supported}, the highest this build reads: upgrade Varve")]
    FutureVersion { found: u16, supported: u16 },
    #[error("the object needs features this build does not have: {0}: upgrade Varve")]
    UnknownFeatures(String),
    #[error("{what} is encrypted and no key was given (key id {key_id})")]
    KeyMissing { what: &'static str, key_id: String },
    #[error("{what} at byte {offset} does not open with key {key_id}: wrong key or altered bytes")]
    KeyRefused { what: &'static str, offset: u64, key_id: String },
    /// Whole perhaps, but another than it must be.
    #[error("not the {what} that was looked for: expected {expected}, found {found}")]
    Mistaken { what: &'static str, expected: String, found: String },
    #[error("invalid {what}: {found} (allowed: {allowed})")]
    Invalid { what: &'static str, found: String, allowed: String },
}

impl Error {
    pub(crate) fn corrupt(
        what: &'static str,
        offset: u64,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        Self::Corrupt { what, offset, expected: expected.to_string(), found: found.to_string() }
    }

    /// All of `pairs`, expected and found, must be equal.
    pub(crate) fn unless_same(what: &'static str, pairs: &[(&str, String, String)]) -> Result<()> {
        match pairs.iter().find(|(_, expected, found)| expected != found) {
            None => Ok(()),
            Some((name, expected, found)) => {
                let (expected, found) = (format!("{name} {expected}"), found.clone());
                Err(Self::Mistaken { what, expected, found })
            }
        }
    }

    pub(crate) fn invalid(what: &'static str, found: impl ToString, allowed: impl ToString) -> Self {
        Self::Invalid { what, found: found.to_string(), allowed: allowed.to_string() }
    }
}

/// A value that the format does not allow, before it is known whether it was read or is to be written.
#[derive(Debug)]
pub(crate) struct Flaw {
    what: &'static str,
    found: String,
    allowed: String,
}

impl Flaw {
    pub(crate) fn new(what: &'static str, found: impl ToString, allowed: impl ToString) -> Self {
        Self { what, found: found.to_string(), allowed: allowed.to_string() }
    }

    /// It came from outside, in a record that begins at `offset`.
    pub(crate) fn corrupt(self, offset: u64) -> Error {
        Error::Corrupt { what: self.what, offset, expected: self.allowed, found: self.found }
    }

    /// The caller gave it.
    pub(crate) fn invalid(self) -> Error {
        Error::Invalid { what: self.what, found: self.found, allowed: self.allowed }
    }
}
