//! What a manifest says of one object of a chain, and of many.

use serde::{Deserialize, Serialize};

use super::MANIFEST_MAX_BYTES;
use super::more::{More, check_more};
use crate::canonical::{Record, RecordError, V1, flaw, rule};
use crate::hash::Hash;

/// Entries of a block, and blocks of a block of the next level.
pub const BLOCK_ENTRIES: usize = 32;
pub const LEVEL_MAX: u8 = 8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectEntry {
    pub first_offset: i64,
    pub end_offset: i64,
    pub bytes: u64,
    /// 0 of a gap.
    pub log_bytes: u64,
    pub footer: Hash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockRef {
    pub hash: Hash,
    pub first_offset: i64,
    pub end_offset: i64,
    pub objects: u64,
    pub object_bytes: u64,
}

/// A full block: objects at level 0, blocks above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    pub varve_block: V1,
    pub since: u64,
    pub level: u8,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

impl ObjectEntry {
    pub fn is_gap(&self) -> bool {
        self.log_bytes == 0
    }

    pub(crate) fn check(&self) -> Result<(), RecordError> {
        rule::range("object", self.first_offset, self.end_offset)?;
        rule::count("bytes", self.bytes)?;
        rule::count("log_bytes", self.log_bytes)?;
        self.version.as_ref().map_or(Ok(()), |text| rule::text("version", text, rule::TEXT_MAX_BYTES))
    }
}

impl BlockRef {
    /// `level` is that of the block referred to.
    pub(crate) fn check(&self, level: u8) -> Result<(), RecordError> {
        rule::range("block", self.first_offset, self.end_offset)?;
        rule::count("object_bytes", self.object_bytes)?;
        let objects = (BLOCK_ENTRIES as u64).saturating_pow(u32::from(level).saturating_add(1));
        if self.objects == objects {
            return Ok(());
        }
        Err(flaw("objects of a block", objects, self.objects))
    }
}

impl Block {
    pub(crate) fn of_objects(since: u64, objects: Vec<ObjectEntry>) -> Self {
        Self { varve_block: V1, since, level: 0, objects, blocks: Vec::new(), more: Vec::new() }
    }

    pub(crate) fn of_blocks(since: u64, level: u8, blocks: Vec<BlockRef>) -> Self {
        Self { varve_block: V1, since, level, objects: Vec::new(), blocks, more: Vec::new() }
    }

    /// How a full block stored under `hash` is referred to.
    pub(crate) fn reference(&self, hash: Hash) -> BlockRef {
        let mut reference =
            BlockRef { hash, first_offset: i64::MAX, end_offset: 0, objects: 0, object_bytes: 0 };
        let of_objects = self.objects.iter().map(|o| (o.first_offset, o.end_offset, 1, o.bytes));
        let of_blocks = self.blocks.iter().map(|b| (b.first_offset, b.end_offset, b.objects, b.object_bytes));
        for (first, end, objects, bytes) in of_objects.chain(of_blocks) {
            reference.first_offset = reference.first_offset.min(first);
            reference.end_offset = reference.end_offset.max(end);
            reference.objects = reference.objects.saturating_add(objects);
            reference.object_bytes = reference.object_bytes.saturating_add(bytes);
        }
        reference
    }
}

impl Record for Block {
    const NAME: &'static str = "varve_block";
    const MAX_BYTES: u64 = MANIFEST_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::sequence(self.since)?;
        check_more(&self.more)?;
        let (objects, blocks) = if self.level == 0 { (BLOCK_ENTRIES, 0) } else { (0, BLOCK_ENTRIES) };
        if self.level > LEVEL_MAX || self.objects.len() != objects || self.blocks.len() != blocks {
            let found = format!(
                "{} objects, {} blocks at level {}",
                self.objects.len(),
                self.blocks.len(),
                self.level
            );
            return Err(flaw("block", format!("exactly {BLOCK_ENTRIES} entries of its level"), found));
        }
        self.objects.iter().try_for_each(ObjectEntry::check)?;
        self.blocks.iter().try_for_each(|b| b.check(self.level.saturating_sub(1)))?;
        let objects = self.objects.iter().map(|o| (o.first_offset, o.end_offset));
        without_holes(None, objects.chain(self.blocks.iter().map(|b| (b.first_offset, b.end_offset))))
            .map(|_| ())
    }
}

/// Where the last range ends; each must begin at the end of the one before, the first at `start` if given.
pub(crate) fn without_holes(
    start: Option<i64>,
    ranges: impl Iterator<Item = (i64, i64)>,
) -> Result<Option<i64>, RecordError> {
    let mut end = start;
    for (first, next) in ranges {
        if end.is_some_and(|end| end != first) {
            let expected = format!("offset {}", end.unwrap_or(0));
            return Err(flaw("chain", expected, format!("offset {first}")));
        }
        end = Some(next);
    }
    Ok(end)
}
