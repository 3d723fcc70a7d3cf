//! Kafka as it is on the wire and on disk.
//!
//! [`protocol`] is pure: bytes to types, for record batches, index files and the records of
//! `__remote_log_metadata`. [`client`] is the async edge: connections to brokers, and reading from them; [`replica`] its
//! other side, the leader that brokers copy from. None of them decodes a batch that it only passes on.

pub mod client;
pub mod protocol;
pub mod replica;

pub use varve_format::Id;
