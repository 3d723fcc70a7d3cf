//! The configuration: one YAML file, parsed once into a typed struct, validated before anything starts.

mod model;
mod topics;

pub use model::{
    ArchiveConfig, Config, GroupConfig, JournalConfig, LimitsConfig, LogConfig, LogFormat, MetricsConfig,
    SchemaRegistryConfig, SegmentsConfig, SnapshotsConfig, StateConfig,
};
pub use topics::{TopicPattern, TopicPatterns};
