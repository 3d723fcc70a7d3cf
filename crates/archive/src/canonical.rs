//! Canonical JSON: the same contents are the same bytes, so that records can be named and proven by hashes.
//!
//! Safe on any bytes: a record longer than its limit is refused before it is parsed, a newer version before
//! anything else of it is looked at, and what would not be written in the same bytes again is no record.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a record of {found} bytes: at most {allowed} are allowed")]
    TooLong { found: u64, allowed: u64 },
    #[error("version {found} is newer than {supported}, the highest this build reads: upgrade Varve")]
    Future { found: u64, supported: u64 },
    #[error("corrupt {what}: expected {expected}, found {found}")]
    Corrupt { what: &'static str, expected: String, found: String },
}

/// A value that a record must not have.
pub(crate) type Flaw = RecordError;

pub(crate) fn flaw(what: &'static str, expected: impl ToString, found: impl ToString) -> Flaw {
    RecordError::Corrupt { what, expected: expected.to_string(), found: found.to_string() }
}

/// Something that is stored as one canonical JSON object.
pub trait Record: Serialize + DeserializeOwned {
    /// Its first member, whose value is the version.
    const NAME: &'static str;
    const MAX_BYTES: u64;

    /// What the types alone do not rule out.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`], naming the member.
    fn check(&self) -> Result<(), RecordError>;

    /// # Errors
    /// [`RecordError`] for what could not be read again.
    fn encode(&self) -> Result<Vec<u8>, RecordError> {
        self.check()?;
        let bytes = self.bytes()?;
        limit::<Self>(bytes.len())?;
        Ok(bytes)
    }

    /// # Errors
    /// [`RecordError`] for anything but what [`Record::encode`] gives.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        limit::<Self>(bytes.len())?;
        let found = version(bytes, Self::NAME)
            .ok_or_else(|| flaw(Self::NAME, "a record that begins with its version", shown(bytes)))?;
        if found > 1 {
            return Err(RecordError::Future { found, supported: 1 });
        }
        let record: Self =
            serde_json::from_slice(bytes).map_err(|e| flaw(Self::NAME, "a record of version 1", e))?;
        record.check()?;
        if record.bytes()? != bytes {
            return Err(flaw(Self::NAME, "canonical form", "other bytes of the same contents"));
        }
        Ok(record)
    }

    #[doc(hidden)]
    fn bytes(&self) -> Result<Vec<u8>, RecordError> {
        serde_json::to_vec(self).map_err(|e| flaw(Self::NAME, "what JSON can hold", e))
    }
}

fn limit<R: Record>(bytes: usize) -> Result<(), RecordError> {
    let found = bytes as u64;
    if found <= R::MAX_BYTES {
        return Ok(());
    }
    Err(RecordError::TooLong { found, allowed: R::MAX_BYTES })
}

/// The number after the first member's name, if that is `name`.
fn version(bytes: &[u8], name: &str) -> Option<u64> {
    let rest = bytes.strip_prefix(b"{\"")?.strip_prefix(name.as_bytes())?.strip_prefix(b"\":")?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).take(19).count();
    std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..40).unwrap_or(bytes)).escape_debug().to_string()
}

/// The member that says kind and version: of value 1 and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct V1;

impl Serialize for V1 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for V1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            1 => Ok(Self),
            _ => Err(de::Error::custom("expected version 1")),
        }
    }
}

/// Ids as text: `#[serde(with = "id_text")]`.
pub(crate) mod id_text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use varve_format::Id;

    pub(crate) fn serialize<S: Serializer>(id: &Id, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        Id::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Checks that many records share.
pub(crate) mod rule {
    use super::{Flaw, flaw};

    pub(crate) const TEXT_MAX_BYTES: usize = 1024;
    pub(crate) const WRITER_MAX_BYTES: usize = 256;
    pub(crate) const NAME_MAX_BYTES: usize = 64;
    pub(crate) const TOPIC_MAX_BYTES: usize = 249;

    pub(crate) fn text(what: &'static str, text: &str, max_bytes: usize) -> Result<(), Flaw> {
        if !text.is_empty() && text.len() <= max_bytes && !text.chars().any(char::is_control) {
            return Ok(());
        }
        let found = format!("{} bytes", text.len());
        Err(flaw(what, format!("1 to {max_bytes} bytes without control characters"), found))
    }

    pub(crate) fn detail(text: Option<&String>) -> Result<(), Flaw> {
        text.map_or(Ok(()), |detail| self::text("detail", detail, TEXT_MAX_BYTES))
    }

    pub(crate) fn safe(what: &'static str, text: &str, max_bytes: usize) -> Result<(), Flaw> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let fits = !text.is_empty() && text.len() <= max_bytes;
        if fits && text.bytes().all(legal) && !matches!(text, "." | "..") {
            return Ok(());
        }
        let found = format!("{} bytes", text.len());
        Err(flaw(what, format!("1 to {max_bytes} of A-Z a-z 0-9 . _ -"), found))
    }

    /// Offsets, times, partitions: whatever is signed and not negative.
    pub(crate) fn positive(what: &'static str, number: impl Into<i64>) -> Result<(), Flaw> {
        match number.into() {
            0.. => Ok(()),
            found => Err(flaw(what, "0 or more", found)),
        }
    }

    pub(crate) fn count(what: &'static str, number: u64) -> Result<(), Flaw> {
        i64::try_from(number).map(|_| ()).map_err(|_| flaw(what, "below 2^63", number))
    }

    pub(crate) fn range(what: &'static str, first: i64, end: i64) -> Result<(), Flaw> {
        if first >= 0 && end > first {
            return Ok(());
        }
        Err(flaw(what, "offsets from 0, the end above the first", format!("{first} to {end}")))
    }

    pub(crate) fn at_most(what: &'static str, found: usize, allowed: usize) -> Result<(), Flaw> {
        if found <= allowed {
            return Ok(());
        }
        Err(flaw(what, format!("at most {allowed}"), found))
    }

    pub(crate) fn sequence(number: u64) -> Result<(), Flaw> {
        if number == 0 {
            return Err(flaw("sequence", "1 or more", number));
        }
        count("sequence", number)
    }

    pub(crate) fn written(writer: &str, created_ms: i64) -> Result<(), Flaw> {
        text("writer", writer, WRITER_MAX_BYTES)?;
        positive("created_ms", created_ms)
    }
}
