//! Object stores behind one contract.

#![cfg_attr(
    not(all(feature = "azure", feature = "gcs", feature = "s3")),
    allow(dead_code, reason = "what stores share is not all used by each")
)]

#[cfg(feature = "azure")]
mod azure;
mod body;
pub mod conformance;
mod contract;
mod count;
mod create;
mod error;
mod failure;
mod fault;
mod filesystem;
#[cfg(feature = "gcs")]
mod gcs;
mod key;
mod memory;
mod open;
mod operation;
mod parts;
mod ranges;
mod retry;
#[cfg(feature = "s3")]
mod s3;
mod setting;
pub mod setting_page;
mod settings;
mod throttle;
mod versions;

#[cfg(feature = "azure")]
pub use azure::AzureStore;
pub use contract::{
    Create, GetRange, GetResult, Limits, ListPage, ObjectMeta, PendingUpload, PutOptions, Result,
    SharedStore, Store, Upload, delete,
};
pub use count::{CountingStore, Counts, LATENCY_BUCKETS_SECONDS, OperationCount};
pub use error::{Error, Kind};
pub use fault::{Event, Fault, Faults, FaultyStore, Rule, When};
pub use filesystem::FilesystemStore;
#[cfg(feature = "gcs")]
pub use gcs::GcsStore;
pub use key::Key;
pub use memory::MemoryStore;
pub use open::{check, open, shown_url};
pub use operation::Operation;
#[cfg(feature = "s3")]
pub use s3::S3Store;
pub use setting::{Setting, SettingKind, nearest, parse_bytes, parse_duration};
pub use settings::{STORES_WITH_SETTINGS, is_setting, settings, store_of};
pub use throttle::{Rate, ThrottledStore};
pub use versions::{KEY_VERSIONS_MAX, KeyVersions, Version, VersionPage, Versions};
