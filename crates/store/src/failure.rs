//! What a request to a store came to: which [`Kind`] it is, whether it may pass by itself, and whether the request
//! may have taken effect all the same. Each store says what its own answers mean.

use std::error::Error as StdError;

use crate::error::{Error, Kind};

/// What is done to what, for errors.
#[derive(Clone, Debug)]
pub(crate) struct At {
    pub(crate) operation: String,
    pub(crate) object: String,
}

impl At {
    pub(crate) fn error(&self, kind: Kind, detail: impl Into<String>) -> Error {
        Error::new(kind, &self.operation, &self.object, detail)
    }
}

/// How a failure passes, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passing {
    Never,
    /// The store asks for fewer requests.
    Throttled,
    /// The store or the way to it broke down for a moment.
    Transient,
}

#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) passing: Passing,
    /// The request may have taken effect.
    pub(crate) ambiguous: bool,
    /// The store's own word for it, where it has one.
    pub(crate) code: String,
    pub(crate) detail: String,
    /// No answer came in time.
    pub(crate) timed_out: bool,
}

impl Failure {
    pub(crate) fn new(kind: Kind, passing: Passing, ambiguous: bool, detail: impl Into<String>) -> Self {
        Self { kind, passing, ambiguous, code: String::new(), detail: detail.into(), timed_out: false }
    }

    pub(crate) fn with_code(self, code: impl Into<String>) -> Self {
        Self { code: code.into(), ..self }
    }

    pub(crate) fn may_pass(&self) -> bool {
        self.passing != Passing::Never
    }

    pub(crate) fn error(self, at: &At, attempts: u32) -> Error {
        let times = if attempts > 1 { format!(" (after {attempts} attempts)") } else { String::new() };
        at.error(self.kind, format!("{}{times}", self.detail))
    }

    /// Of credentials that can't be had: by a service that is away, which denies nothing, or at all.
    pub(crate) fn of_credentials(passing: Passing, detail: impl Into<String>) -> Self {
        let kind = if passing == Passing::Never { Kind::Denied } else { Kind::Unavailable };
        Self::new(kind, passing, false, detail)
    }

    /// The request itself is wrong.
    pub(crate) fn invalid(error: &dyn StdError) -> Self {
        Self::new(Kind::Invalid, Passing::Never, false, chain(error))
    }

    pub(crate) fn timeout(detail: String) -> Self {
        let failure = Self::new(Kind::Unavailable, Passing::Transient, true, detail);
        Self { timed_out: true, ..failure }
    }

    /// The way to the store broke down; `ca_setting` names where authorities are configured.
    pub(crate) fn broken_way(detail: String, ca_setting: &str) -> Self {
        // A certificate does not become valid within seconds.
        if detail.contains("invalid peer certificate") {
            let detail = format!("{detail} (is {ca_setting} right?)");
            return Self::new(Kind::Invalid, Passing::Never, false, detail);
        }
        Self::new(Kind::Unavailable, Passing::Transient, true, detail)
    }
}

/// What an HTTP status means where the store has no word of its own.
pub(crate) fn meaning_of_status(status: u16) -> (Kind, Passing, bool) {
    use Passing::{Never, Throttled, Transient};

    match status {
        401 | 403 => (Kind::Denied, Never, false),
        404 => (Kind::NotFound, Never, false),
        405 | 501 => (Kind::Unsupported, Never, false),
        408 => (Kind::Unavailable, Transient, true),
        412 => (Kind::AlreadyExists, Never, false),
        416 => (Kind::InvalidRange, Never, false),
        429 | 503 => (Kind::Unavailable, Throttled, status == 503),
        507 => (Kind::NoSpace, Never, false),
        500..=599 => (Kind::Unavailable, Transient, true),
        300..=499 => (Kind::Invalid, Never, false),
        // An answer that could not be read, or an error without a known code in a 200.
        _ => (Kind::Unavailable, Transient, true),
    }
}

/// The error and its causes in one line, each said once.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}

/// The first of its causes, itself included, that is a `T`.
pub(crate) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref() {
            return Some(found);
        }
        next = current.source();
    }
    None
}
