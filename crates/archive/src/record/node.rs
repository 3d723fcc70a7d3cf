//! Nodes of the tree over all partitions: a hash trie that has one form for one set, so that whoever writes it
//! gets the same hashes, and two snapshots share what is the same.

use serde::{Deserialize, Serialize};

use super::MANIFEST_MAX_BYTES;
use super::more::{More, check_more};
use super::state::PartitionEntry;
use crate::canonical::{Record, RecordError, V1, flaw, rule};
use crate::hash::{Hash, HashAlgorithm};

/// Partitions of a leaf: more are an inner node.
pub const LEAF_PARTITIONS: usize = 64;
/// Nibbles of a path, but for the last.
pub const DEPTH_MAX: usize = 63;
pub const PARTITIONS_MAX: u64 = 1 << 24;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRef {
    pub hash: Hash,
    pub partitions: u64,
    pub objects: u64,
    pub object_bytes: u64,
    pub lagging: u64,
    pub open_transactions: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    pub varve_leaf: V1,
    pub since: u64,
    /// The nibbles that the paths of all below it begin with.
    pub prefix: String,
    pub partitions: Vec<PartitionEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inner {
    pub varve_inner: V1,
    pub since: u64,
    pub prefix: String,
    pub children: Vec<Child>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Child {
    pub nibble: u8,
    pub node: NodeRef,
}

/// Either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Leaf(Leaf),
    Inner(Inner),
}

impl NodeRef {
    fn nothing(hash: Hash) -> Self {
        Self { hash, partitions: 0, objects: 0, object_bytes: 0, lagging: 0, open_transactions: 0 }
    }

    fn add(&mut self, other: &Self) {
        self.partitions = self.partitions.saturating_add(other.partitions);
        self.objects = self.objects.saturating_add(other.objects);
        self.object_bytes = self.object_bytes.saturating_add(other.object_bytes);
        self.lagging = self.lagging.saturating_add(other.lagging);
        self.open_transactions = self.open_transactions.saturating_add(other.open_transactions);
    }

    pub(crate) fn check(&self) -> Result<(), RecordError> {
        for number in [self.partitions, self.objects, self.object_bytes, self.lagging, self.open_transactions]
        {
            rule::count("count of a node", number)?;
        }
        if self.partitions > PARTITIONS_MAX {
            return Err(flaw("partitions", format!("at most {PARTITIONS_MAX}"), self.partitions));
        }
        Ok(())
    }
}

impl Record for Leaf {
    const NAME: &'static str = "varve_leaf";
    const MAX_BYTES: u64 = MANIFEST_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::sequence(self.since)?;
        check_prefix(&self.prefix, DEPTH_MAX)?;
        if self.partitions.is_empty() || self.partitions.len() > LEAF_PARTITIONS {
            return Err(flaw("leaf", format!("1 to {LEAF_PARTITIONS} partitions"), self.partitions.len()));
        }
        self.partitions.iter().try_for_each(PartitionEntry::check)?;
        check_more(&self.more)
    }
}

impl Record for Inner {
    const NAME: &'static str = "varve_inner";
    const MAX_BYTES: u64 = MANIFEST_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::sequence(self.since)?;
        check_prefix(&self.prefix, DEPTH_MAX.saturating_sub(1))?;
        let ascending = self.children.is_sorted_by(|a, b| a.nibble < b.nibble);
        let nibbles = self.children.iter().all(|c| c.nibble < 16);
        if self.children.is_empty() || !ascending || !nibbles {
            return Err(flaw("inner node", "children in order of their nibbles", self.children.len()));
        }
        self.children.iter().try_for_each(|c| c.node.check())?;
        let partitions = self.children.iter().fold(0_u64, |sum, c| sum.saturating_add(c.node.partitions));
        if partitions <= LEAF_PARTITIONS as u64 {
            return Err(flaw("inner node", format!("more than {LEAF_PARTITIONS} partitions"), partitions));
        }
        check_more(&self.more)
    }
}

fn check_prefix(prefix: &str, most: usize) -> Result<(), RecordError> {
    if prefix.len() <= most && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(flaw("prefix", format!("at most {most} lowercase hexadecimal digits"), prefix.len()))
}

/// Nibbles as text.
pub(crate) fn prefix_text(nibbles: &[u8]) -> String {
    nibbles.iter().filter_map(|n| char::from_digit(u32::from(*n), 16)).collect()
}

impl Node {
    /// # Errors
    /// As [`Record::decode`]; and what is neither leaf nor inner node.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.starts_with(b"{\"varve_leaf\":") {
            return Leaf::decode(bytes).map(Self::Leaf);
        }
        Inner::decode(bytes).map(Self::Inner)
    }

    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        match self {
            Self::Leaf(leaf) => leaf.encode(),
            Self::Inner(inner) => inner.encode(),
        }
    }

    /// How this node, stored under `hash`, is referred to.
    pub fn reference(&self, hash: Hash) -> NodeRef {
        let mut sum = NodeRef::nothing(hash);
        match self {
            Self::Leaf(leaf) => leaf.partitions.iter().for_each(|p| sum.add(&counted(p, hash))),
            Self::Inner(inner) => inner.children.iter().for_each(|c| sum.add(&c.node)),
        }
        sum
    }

    /// Whether this is the node that `reference` promises, below the nibbles of `prefix`.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`], naming what differs.
    pub fn check_place(
        &self,
        reference: &NodeRef,
        hash: HashAlgorithm,
        prefix: &[u8],
    ) -> Result<(), RecordError> {
        let found = match self {
            Self::Leaf(leaf) => &leaf.prefix,
            Self::Inner(inner) => &inner.prefix,
        };
        if *found != prefix_text(prefix) {
            return Err(flaw("prefix of a node", prefix_text(prefix), found));
        }
        let counted = self.reference(reference.hash);
        if counted != *reference {
            return Err(flaw("counts of a node", format!("{reference:?}"), format!("{counted:?}")));
        }
        let Self::Leaf(leaf) = self else { return Ok(()) };
        let paths: Vec<Hash> = leaf.partitions.iter().map(|p| p.path(hash)).collect();
        let placed = paths.iter().all(|path| prefix.iter().zip(0_u8..).all(|(n, i)| path.nibble(i) == *n));
        if placed && paths.is_sorted_by(|a, b| a < b) {
            return Ok(());
        }
        Err(flaw("leaf", "partitions of its place, in order of their paths", "others"))
    }
}

fn counted(partition: &PartitionEntry, hash: Hash) -> NodeRef {
    let chains = partition.chains.as_ref();
    NodeRef {
        partitions: 1,
        objects: chains.map_or(0, |c| c.objects),
        object_bytes: chains.map_or(0, |c| c.object_bytes),
        lagging: u64::from(partition.lags()),
        open_transactions: partition.open_transactions.len() as u64,
        ..NodeRef::nothing(hash)
    }
}
