//! Which bundles of the journal a snapshot names: in blocks that the next one shares.

use serde::{Deserialize, Serialize};

use super::MANIFEST_MAX_BYTES;
use super::more::{More, check_more};
use crate::canonical::{Record, RecordError, V1, flaw, rule};
use crate::hash::Hash;

/// Numbers of one archiver's bundles that are in one block.
pub const BLOCK_BUNDLES: u64 = 32;
pub const BLOCKS_MAX: usize = 50_000;

/// All bundles of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundlesRef {
    pub hash: Hash,
    pub bundles: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundles {
    pub varve_bundles: V1,
    pub since: u64,
    pub blocks: Vec<BundleBlockRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleBlockRef {
    pub archiver: String,
    /// Sequences from `block` times 32 on.
    pub block: u64,
    pub hash: Hash,
    pub bundles: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleBlock {
    pub varve_bundle_block: V1,
    pub since: u64,
    pub archiver: String,
    pub block: u64,
    pub bundles: Vec<BundleRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRef {
    pub sequence: u64,
    /// Of the whole bundle.
    pub bytes: u64,
    /// Of index and trailer.
    pub hash: Hash,
}

impl BundlesRef {
    pub(crate) fn check(&self) -> Result<(), RecordError> {
        rule::count("bytes of bundles", self.bytes)?;
        if self.bundles == 0 {
            return Err(flaw("bundles", "left out where there are none", 0));
        }
        rule::count("bundles", self.bundles)
    }
}

impl Bundles {
    /// How many, and of how many bytes.
    pub(crate) fn sum(&self) -> (u64, u64) {
        self.blocks.iter().fold((0, 0), |(count, bytes), b| {
            (u64::saturating_add(count, b.bundles), u64::saturating_add(bytes, b.bytes))
        })
    }
}

impl Record for Bundles {
    const NAME: &'static str = "varve_bundles";
    const MAX_BYTES: u64 = MANIFEST_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::sequence(self.since)?;
        rule::at_most("blocks", self.blocks.len(), BLOCKS_MAX)?;
        let place = |b: &BundleBlockRef| (b.archiver.clone(), b.block);
        if self.blocks.is_empty() || !self.blocks.is_sorted_by(|a, b| place(a) < place(b)) {
            return Err(flaw("blocks", "1 or more, ascending by archiver and number", self.blocks.len()));
        }
        for block in &self.blocks {
            rule::safe("archiver", &block.archiver, rule::NAME_MAX_BYTES)?;
            rule::count("block", block.block)?;
            rule::count("bytes", block.bytes)?;
            if block.bundles == 0 || block.bundles > BLOCK_BUNDLES {
                return Err(flaw("bundles of a block", "1 to 32", block.bundles));
            }
        }
        check_more(&self.more)
    }
}

impl Record for BundleBlock {
    const NAME: &'static str = "varve_bundle_block";
    const MAX_BYTES: u64 = MANIFEST_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::sequence(self.since)?;
        rule::safe("archiver", &self.archiver, rule::NAME_MAX_BYTES)?;
        rule::count("block", self.block)?;
        if self.bundles.is_empty() || !self.bundles.is_sorted_by(|a, b| a.sequence < b.sequence) {
            return Err(flaw("bundles", "1 or more, ascending", self.bundles.len()));
        }
        for bundle in &self.bundles {
            rule::sequence(bundle.sequence)?;
            rule::count("bytes", bundle.bytes)?;
            if bundle.sequence / BLOCK_BUNDLES != self.block {
                return Err(flaw("sequence", format!("one of block {}", self.block), bundle.sequence));
            }
        }
        check_more(&self.more)
    }
}
