//! Kafka's 128-bit ids (topics, segments, objects), printed as Kafka prints them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, Result};

/// A 16-byte id. Its text is URL-safe base64 without padding, 22 characters, as in Kafka's own tools.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// Parses the text form.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything but 22 characters of canonical URL-safe base64.
    pub fn parse(text: &str) -> Result<Self> {
        let fail = || Error::invalid("id", format!("{text:?}"), "22 characters of URL-safe base64");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| fail())?;
        Ok(Self(bytes.try_into().map_err(|_| fail())?))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
