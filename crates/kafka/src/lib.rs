//! Kafka as it is on the wire and on disk.
//!
//! [`protocol`] is pure: bytes to types, for record batches, index files and the records of
//! `__remote_log_metadata`. [`client`] is the async edge: connections to brokers, and reading from them.
//! Neither decodes a batch that it only passes on.

pub mod client;
pub mod protocol;

pub use varve_format::Id;
