//! The harness for tests against real servers: brokers from Maven Central's jars, MinIO, moto, fake-gcs-server,
//! Azurite, toxiproxy.
//!
//! * Everything is installed once under the user's cache folder, by whoever needs it first; a lock file makes
//!   the others wait, a rename makes it whole or absent.
//! * Every server listens on a free loopback port and keeps its files in a [`Scratch`] folder, which stays
//!   when a test fails.
//! * A server never outlives the program that started it: it is killed by its pid when it is dropped, and by
//!   the kernel when the program dies first.
//! * The ledger of the [`Driver`] holds what was acknowledged; reading back is always compared with it, so
//!   that no test has to trust what a broker says of its own data.

mod archive;
mod azurite;
mod bucket;
mod cache;
mod cluster;
mod driver;
mod dump;
mod fake_gcs;
mod fault;
mod http;
mod install;
mod minio;
mod moto;
mod node;
mod permissions;
mod process;
pub mod raw_admin;
mod reference;
mod registry;
mod restored;
mod restoring;
mod runbook;
mod scratch;
mod stores;
mod suite;
mod throttle;
mod tier;
mod tls;
mod toxiproxy;
mod traffic;
mod vault;
mod wait;

pub use archive::{
    ArchivedObject, Compared, Ended, RawLog, Running, TestArchive, TopicLogs, archive_section, client,
    plain_client, runtime, varve, varve_file,
};
pub use azurite::signature as azure_signature;
pub use bucket::Bucket;
pub use cluster::{Cluster, ClusterBuilder};
pub use driver::{
    At, Client, Consume, Consumed, Driver, Produce, Produced, SegmentState, TierSegment, TopicInfo,
    Transactions,
};
pub use dump::dumped_batches;
pub use fault::{Fault, ride_out};
pub use http::http_get;
pub use install::{Unavailable, install_for_unit_tests, kafka_class_path, kafka_jars, rsm_jar};
pub use minio::{Minio, PASSWORD as MINIO_PASSWORD, REGION as MINIO_REGION, USER as MINIO_USER};
pub use moto::Moto;
pub use node::Node;
pub use permissions::{
    Permission, ResourceName, documented_permissions, documented_producer_permissions,
    documented_restore_permissions,
};
pub use reference::reference_pages;
pub use registry::{Import, Registry};
pub use restored::{same_logs, writers_go_on};
pub use restoring::{
    Archived, Restoring, USUAL, active_controller, ended, has_left, is_registered, of_plan, restore_from,
    write_usual,
};
pub use runbook::Runbook;
pub use scratch::{Scratch, copy};
pub use stores::{NotHere, StoreKind, end_servers, only_on};
pub use suite::{Shared, Suite};
pub use throttle::{Throttle, Weather};
pub use tier::Tier;
pub use tls::Certificates;
pub use toxiproxy::{Proxy, Toxiproxy};
pub use traffic::while_producing;
pub use varve_script::free_port;
pub use vault::{Vault, VaultMood};
pub use wait::{Look, eventually};

/// Broker versions that are supported, oldest first.
pub const KAFKA_VERSIONS: [&str; 4] = ["3.9.2", "4.1.1", "4.2.0", "4.3.0"];

/// The version that tests use when the version is not what they are about.
pub const KAFKA_VERSION: &str = "4.2.0";
