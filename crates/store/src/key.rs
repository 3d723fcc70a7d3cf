//! Names of objects inside a store. A key is a relative path that is safe on every store, the filesystem
//! included: whoever holds a [`Key`] need not check it again.

use std::borrow::Borrow;
use std::fmt;

use crate::error::{Error, Kind};

/// A validated object name: `/`-separated, non-empty segments of printable ASCII, none of them `.` or `..`,
/// none longer than 255 bytes, at most 1,024 bytes in all, not beginning or ending with `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    pub const MAX_BYTES: usize = 1024;

    pub fn new(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        match Self::flaw(&name) {
            None => Ok(Self(name)),
            Some(flaw) => Err(Error::new(Kind::Invalid, "name", format!("{name:?}"), flaw)),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn flaw(name: &str) -> Option<&'static str> {
        if name.is_empty() {
            return Some("a key must not be empty");
        }
        if name.len() > Self::MAX_BYTES {
            return Some("a key has at most 1,024 bytes");
        }
        if !name.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'\\') {
            return Some("a key holds printable ASCII without space and backslash only");
        }
        for segment in name.split('/') {
            match segment {
                "" => return Some("a key has no empty segment"),
                "." | ".." => return Some("a key has no segment . or .."),
                s if s.len() > 255 => return Some("a key's segment has at most 255 bytes"),
                _ => {}
            }
        }
        None
    }
}

/// Keys are in the order of their text.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
