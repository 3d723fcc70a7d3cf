//! The footer: all that a stranger needs to know of the segment, without Kafka and without us.
//!
//! It is a block of tagged fields, so that fields can be added that old readers skip. Of an encrypted object
//! the last field seals all that stand before it; the fields themselves stay readable, since the key is found
//! by them, and nothing else of them is used before [`Footer::unlock`].

mod decode;
mod encode;
mod tag;

use crate::crypt::SALT_BYTES;
use crate::digest::{Digest, DigestAlgorithm, Leaf, merkle_root};
use crate::error::{Error, Flaw, Result};
use crate::extent::{Extent, ExtentKind, Shape};
use crate::features::{Features, OPTIONAL_DIGESTS, REQUIRED_AES_256_GCM, REQUIRED_STREAMED, REQUIRED_ZSTD};
use crate::id::Id;
use crate::names::{SegmentName, cluster_id_flaw};
use crate::text::{check_printable, check_safe};
use crate::{CHUNK_MAX_BYTES, FRAME_MAX_BYTES, FRAME_MIN_BYTES};

const WHAT: &str = "footer";
const WRITER_MAX_BYTES: usize = 256;
/// Kafka's own limit.
const TOPIC_MAX_BYTES: usize = 249;
const PERIOD_MAX_BYTES: usize = 64;

/// Where an epoch's leader began to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    pub epoch: i32,
    pub start_offset: i64,
}

/// What was seen of the partition, and when: point-in-time restore goes by these, not by record timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub time_ms: i64,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
}

/// Where a segment comes from and what it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Program and version that wrote the object.
    pub writer: String,
    pub cluster_id: String,
    pub topic_id: Id,
    pub topic: String,
    pub partition: i32,
    /// The tier's id of this copy; none for what never was in a tier.
    pub segment_id: Option<Id>,
    pub base_offset: i64,
    /// The last offset that the segment covers, inclusive; `base_offset - 1` if it covers none.
    pub last_offset: i64,
    /// -1 if there is none.
    pub max_timestamp_ms: i64,
    pub created_ms: i64,
    /// `None` if it is not known.
    pub broker_id: Option<i32>,
    /// Epochs and start offsets strictly ascend; no start is behind `last_offset`.
    pub leader_epochs: Vec<EpochStart>,
    pub observed: Vec<Observed>,
}

impl SegmentInfo {
    /// Whether this may stand in a footer. To be asked before the first byte of an object is sent:
    /// [`crate::Encoder::finish`], which refuses the same, comes after all of them.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the value and what is allowed.
    pub fn check(&self) -> Result<()> {
        self.flaw().map_err(Flaw::invalid)
    }

    pub(crate) fn flaw(&self) -> Result<(), Flaw> {
        check_printable("writer", &self.writer, WRITER_MAX_BYTES)?;
        cluster_id_flaw(&self.cluster_id)?;
        check_safe("topic", &self.topic, TOPIC_MAX_BYTES)?;
        if self.partition < 0 {
            return Err(Flaw::new("partition", self.partition, "0 or more"));
        }
        let first_offset_free = self.last_offset.checked_add(1);
        if self.base_offset < 0 || first_offset_free.is_none_or(|end| end < self.base_offset) {
            let found = format!("{} to {}", self.base_offset, self.last_offset);
            return Err(Flaw::new("offsets", found, "0 or more, ascending, below 2^63 - 1"));
        }
        if self.max_timestamp_ms < -1 {
            return Err(Flaw::new("max timestamp", self.max_timestamp_ms, "-1 or more"));
        }
        if self.created_ms < 0 {
            return Err(Flaw::new("created", self.created_ms, "0 or more"));
        }
        if self.broker_id.is_some_and(|id| id < 0) {
            return Err(Flaw::new("broker", format!("{:?}", self.broker_id), "none, or 0 or more"));
        }
        self.epochs_flaw()
    }

    /// As Kafka keeps them: it drops an epoch in which nothing was written before the next began.
    fn epochs_flaw(&self) -> Result<(), Flaw> {
        let (mut epoch, mut start) = (-1, -1);
        for e in &self.leader_epochs {
            if e.epoch <= epoch || e.start_offset <= start || e.start_offset > self.last_offset {
                let found =
                    format!("epoch {} from {} after epoch {epoch} from {start}", e.epoch, e.start_offset);
                let allowed = format!("both strictly ascending, from 0, up to offset {}", self.last_offset);
                return Err(Flaw::new("leader epochs", found, allowed));
            }
            (epoch, start) = (e.epoch, e.start_offset);
        }
        Ok(())
    }

    /// Whether this is the segment that was looked for, by name or by Kafka's metadata: a name proves nothing.
    ///
    /// # Errors
    /// [`Error::Mistaken`], naming what differs.
    pub fn check_is(&self, sought: &SegmentName) -> Result<()> {
        let segment_id = self.segment_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
        let pairs = [
            ("cluster id", sought.cluster_id.clone(), self.cluster_id.clone()),
            ("topic id", sought.topic_id.to_string(), self.topic_id.to_string()),
            ("partition", sought.partition.to_string(), self.partition.to_string()),
            ("base offset", sought.base_offset.to_string(), self.base_offset.to_string()),
            ("segment id", sought.segment_id.to_string(), segment_id),
        ];
        Error::unless_same("segment", &pairs)
    }
}

/// Which key opens the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionInfo {
    pub data_key_id: Id,
    pub period: String,
    pub salt: [u8; SALT_BYTES],
}

/// The decoded footer; positions and lengths in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    pub info: SegmentInfo,
    pub object_id: Id,
    /// Plain bytes of the log.
    pub log_bytes: u64,
    /// Plain bytes of a frame.
    pub frame_bytes: u32,
    /// Plain bytes of a chunk.
    pub chunk_bytes: u32,
    pub digest: DigestAlgorithm,
    pub encryption: Option<EncryptionInfo>,
    /// Encrypted, and sealed before the number of frames was known.
    pub streamed: bool,
    pub extents: Vec<Extent>,
    /// Digest of each extent's plain bytes; empty where digests are off, or the footer is still sealed.
    pub digests: Vec<Digest>,
    /// The Merkle root over `digests`; none where they are.
    pub root: Option<Digest>,
    /// Of an encrypted object: not authenticated yet, and of no use but to find the key.
    pub(crate) sealed: bool,
}

impl Footer {
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            frame_bytes: self.frame_bytes,
            chunk_bytes: self.chunk_bytes,
            encrypted: self.encryption.is_some(),
            log_bytes: self.log_bytes,
        }
    }

    /// What a reader of this object must know and may know.
    pub fn features(&self) -> Features {
        let zstd = self.extents.iter().any(|e| e.codec == crate::Codec::Zstd);
        Features {
            required: if zstd { REQUIRED_ZSTD } else { 0 }
                | if self.encryption.is_some() { REQUIRED_AES_256_GCM } else { 0 }
                | if self.encryption.is_some() && self.streamed { REQUIRED_STREAMED } else { 0 },
            optional: if self.digest == DigestAlgorithm::None { 0 } else { OPTIONAL_DIGESTS },
        }
    }

    /// The stored bytes of all extents are the plain ones.
    pub fn is_identity(&self) -> bool {
        self.encryption.is_none() && self.extents.iter().all(|e| e.codec == crate::Codec::None)
    }

    /// The log's chunks, in order.
    pub fn chunks(&self) -> &[Extent] {
        let n = self.extents.iter().take_while(|e| e.kind == ExtentKind::Log).count();
        self.extents.get(..n).unwrap_or_default()
    }

    /// The section of this kind, if the object has it. The log is none: see [`Footer::chunks`].
    pub fn section(&self, kind: ExtentKind) -> Option<&Extent> {
        self.extents.iter().find(|e| e.kind == kind && kind != ExtentKind::Log)
    }

    /// Frames of the whole object.
    pub fn frame_count(&self) -> u64 {
        self.extents.last().map_or(0, Extent::end_frame)
    }

    /// End of the chunks, and of the sections: where the footer begins.
    pub(crate) fn ends(&self) -> (u64, u64) {
        let end = Extent::stored_end;
        (self.chunks().last().map_or(0, end), self.extents.last().map_or(0, end))
    }

    /// The root that follows from the leaves; `None` where digests are off.
    pub(crate) fn computed_root(&self) -> Option<Digest> {
        let leaves = self.extents.iter().zip(&self.digests);
        merkle_root(
            self.digest,
            leaves.map(|(e, digest)| Leaf { kind: e.kind, plain_bytes: e.plain_bytes, digest: *digest }),
        )
    }
}

/// A period is a part of the key record's name.
pub(crate) fn check_period(period: &str) -> Result<(), Flaw> {
    check_safe("period", period, PERIOD_MAX_BYTES)
}

/// Associated data of the sealed field: all that stands before it.
fn sealed_aad(object_id: Id, public: &[u8]) -> Vec<u8> {
    [b"varve footer v1".as_slice(), &object_id.0, public].concat()
}

pub(crate) fn check_sizes(frame_bytes: u32, chunk_bytes: u32) -> Result<(), Flaw> {
    if !frame_bytes.is_power_of_two() || !(FRAME_MIN_BYTES..=FRAME_MAX_BYTES).contains(&frame_bytes) {
        return Err(Flaw::new("frame size", frame_bytes, "a power of two from 4 KiB to 1 MiB"));
    }
    if chunk_bytes == 0 || chunk_bytes > CHUNK_MAX_BYTES || !chunk_bytes.is_multiple_of(frame_bytes) {
        return Err(Flaw::new(
            "chunk size",
            chunk_bytes,
            format!("a multiple of the frame's {frame_bytes} bytes, at most {CHUNK_MAX_BYTES}"),
        ));
    }
    Ok(())
}
