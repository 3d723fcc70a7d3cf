//! The segment object: bytes to types and back. `docs/FORMAT.md` is its specification.
//!
//! Pure: no IO, no async, no clock, no randomness (salts and ids are passed in). Decoding is safe on any
//! bytes: every length is checked against what is really there before anything is allocated, and what does
//! not fit is an [`Error`] that names the place, what was expected and what was found. Nothing is indexed and
//! no number from outside is computed with unchecked: the lints below hold for all that decodes.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod bytes;
mod crc;
mod crypt;
mod custom_metadata;
mod digest;
mod encoder;
mod error;
mod extent;
mod features;
mod footer;
mod frame;
mod id;
mod key_record;
mod key_ring;
mod names;
mod plan;
mod text;
mod trailer;

pub use crc::{crc32c, crc32c_append};
pub use crypt::{DataKey, ObjectKey, SALT_BYTES, TAG_BYTES};
pub use custom_metadata::{ArchiveReference, CustomMetadata, STORE_ID_MAX_BYTES};
pub use digest::{Digest, DigestAlgorithm, Hasher, Leaf, merkle_root};
pub use encoder::{Encoder, Finished};
pub use error::{Error, Result};
pub use extent::{Codec, Extent, ExtentKind};
pub use features::{Features, OPTIONAL_DIGESTS, REQUIRED_AES_256_GCM, REQUIRED_STREAMED, REQUIRED_ZSTD};
pub use footer::{EncryptionInfo, EpochStart, Footer, Observed, SegmentInfo};
pub use frame::{Decoder, FrameRef};
pub use id::Id;
pub use key_record::{KEY_RECORD_MAX_BYTES, KeyRecord, Wrapping};
pub use key_ring::{KEY_RING_MAX_BYTES, KeyRing};
pub use names::{
    KEYS_PREFIX, KeyRecordName, SegmentName, check_cluster_id, key_prefix, key_record_1_name,
    key_record_name, partition_prefix, segment_name, segment_prefix, tombstone_name, topic_prefix,
};
pub use plan::{Compression, Encryption, Plan, WriteOptions};
pub use trailer::{TRAILER_BYTES, Trailer};

/// The version that this crate writes, and the highest it reads.
pub const FORMAT_VERSION: u16 = 1;
/// Frames of at least this many plain bytes (and a power of two).
pub const FRAME_MIN_BYTES: u32 = 4 * 1024;
/// Frames of at most this many plain bytes.
pub const FRAME_MAX_BYTES: u32 = 1024 * 1024;
/// Chunks of at most this many plain bytes.
pub const CHUNK_MAX_BYTES: u32 = 128 * 1024 * 1024;
/// Sections (indexes and the like) of at most this many plain bytes.
pub const SECTION_MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// A longer footer is refused before it is fetched.
pub const FOOTER_MAX_BYTES: u32 = 16 * 1024 * 1024;
