//! Tags of the footer's fields, and of the digest fields within.

pub(super) const WRITER: u16 = 1;
pub(super) const OBJECT_ID: u16 = 2;
pub(super) const CLUSTER_ID: u16 = 3;
pub(super) const TOPIC_ID: u16 = 4;
pub(super) const TOPIC: u16 = 5;
pub(super) const PARTITION: u16 = 6;
pub(super) const SEGMENT_ID: u16 = 7;
pub(super) const BASE_OFFSET: u16 = 8;
pub(super) const LAST_OFFSET: u16 = 9;
pub(super) const MAX_TIMESTAMP: u16 = 10;
pub(super) const CREATED: u16 = 11;
pub(super) const BROKER: u16 = 12;
pub(super) const LEADER_EPOCHS: u16 = 13;
pub(super) const LOG_BYTES: u16 = 14;
pub(super) const FRAME_BYTES: u16 = 15;
pub(super) const CHUNK_BYTES: u16 = 16;
pub(super) const DIGEST: u16 = 17;
pub(super) const EXTENTS: u16 = 18;
pub(super) const OBSERVED: u16 = 19;
pub(super) const ENCRYPTION: u16 = 20;
pub(super) const FORMAT: u16 = 21;
pub(super) const PRIVATE: u16 = 0xfff0;
pub(super) const SEALED: u16 = 0xfff1;
pub(super) const PRIVATE_ROOT: u16 = 1;
pub(super) const PRIVATE_DIGESTS: u16 = 2;
