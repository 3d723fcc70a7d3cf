//! The RemoteStorageManager, in Rust: what a Kafka broker loads to move closed segments into an object store
//! and to serve reads of them. `rsm-java-shim` is the Java side.
//!
//! * [`rsm`] is the whole, for whoever calls; [`jni`] are the entries for the JVM.
//! * [`copy`] writes a segment as one object; [`read`] serves its log and indexes from a cache.
//! * [`budget`] bounds memory: one for copies, one for reads, whatever the number of segments and readers.
//!
//! Invariants: a segment is one object, whole or absent. Every byte that leaves was checked against a checksum
//! made at the source. Nothing here panics across the boundary, and nothing outlives [`rsm::Rsm::close`].

pub mod budget;
pub mod buffers;
pub mod config;
pub mod copy;
mod error;
pub mod jni;
pub mod keys;
pub mod logging;
pub mod metrics;
pub mod operation;
pub mod read;
pub mod reference;
pub mod rsm;
pub mod settings;
pub mod sweep;
pub mod wire;

pub use error::{Error, Kind, Result};
