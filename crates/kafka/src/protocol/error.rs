//! What can be wrong with bytes that claim to be Kafka's.

pub type Result<T, E = ProtocolError> = std::result::Result<T, E>;

/// Why bytes were refused. The caller, who knows the file or topic, adds its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// More bytes may follow elsewhere: the tail of a fetch response, or of a log that is being written.
    #[error("{what} ends too early at byte {position}: {needed} more bytes needed, {available} there")]
    Truncated { what: &'static str, position: u64, needed: u64, available: u64 },

    #[error("corrupt {what} at byte {position}: expected {expected}, found {found}")]
    Corrupt { what: &'static str, position: u64, expected: String, found: String },

    /// Written before Kafka 0.11. It is well formed as far as its length; what follows it can be read.
    #[error(
        "message set of magic {magic} at byte {position} (last offset {last_offset}, {size_bytes} bytes): \
         only batches of magic 2 are decoded"
    )]
    OldMagic { position: u64, magic: i8, last_offset: i64, size_bytes: u64 },

    #[error("{what} at byte {position} has version {found}; this build reads up to {supported}")]
    UnknownVersion { what: &'static str, position: u64, found: i64, supported: i64 },

    #[error("{what} at byte {position} unpacks to more than the limit of {limit_bytes} bytes")]
    TooLarge { what: &'static str, position: u64, limit_bytes: u64 },
}

impl ProtocolError {
    pub(crate) fn corrupt(
        what: &'static str,
        position: u64,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        Self::Corrupt { what, position, expected: expected.to_string(), found: found.to_string() }
    }
}
