//! A snapshot: a recovery point, proven by one hash, in a chain that can't fork.

use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::SMALL_MAX_BYTES;
use super::bundles::BundlesRef;
use super::more::{More, check_more};
use super::node::NodeRef;
pub use super::signature::{Signable, Signature, SignatureAlgorithm, Signed, Signer};
use crate::canonical::{Record, RecordError, V1, flaw, id_text, rule};
use crate::hash::Hash;

pub const DOCUMENT_MAX_BYTES: u64 = 256 << 20;
pub const DOCUMENTS_MAX: usize = 64;
/// The name of the document about the cluster.
pub const CLUSTER_STATE: &str = "cluster-state";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRecord {
    pub varve_snapshot: V1,
    #[serde(with = "id_text")]
    pub archive_id: Id,
    pub sequence: u64,
    /// The record before, by its whole bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<RecordRef>,
    /// One further back, so that an old one is proven in few steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<RecordRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<NodeRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundles: Option<BundlesRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<DocumentRef>,
    /// The last pruning record whose ranges the tree has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<RecordRef>,
    pub writer: String,
    pub created_ms: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// Another record of a numbered kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordRef {
    pub sequence: u64,
    pub hash: Hash,
}

/// A document that this crate does not look into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentRef {
    pub name: String,
    pub format: String,
    pub hash: Hash,
    pub bytes: u64,
}

/// The number that `skip` names: without its lowest bit; `None` where that is 0.
pub fn skipped(sequence: u64) -> Option<u64> {
    let without = sequence & sequence.wrapping_sub(1);
    (without > 0).then_some(without)
}

impl SnapshotRecord {
    pub fn document(&self, name: &str) -> Option<&DocumentRef> {
        self.documents.iter().find(|d| d.name == name)
    }
}

impl Signable for SnapshotRecord {
    const CONTEXT: &'static [u8] = b"varve snapshot v1";

    fn signature_mut(&mut self) -> &mut Option<Signature> {
        &mut self.signature
    }
}

impl Record for SnapshotRecord {
    const NAME: &'static str = "varve_snapshot";
    const MAX_BYTES: u64 = SMALL_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::sequence(self.sequence)?;
        check_before("previous", self.previous, self.sequence)?;
        check_before("skip", self.skip, self.sequence)?;
        if self.skip.is_some_and(|s| Some(s.sequence) != skipped(self.sequence)) {
            return Err(flaw("skip", format!("{:?}", skipped(self.sequence)), format!("{:?}", self.skip)));
        }
        if let Some(root) = &self.root {
            root.check()?;
            if root.partitions == 0 {
                return Err(flaw("root", "left out where there is no partition", 0));
            }
        }
        self.bundles.as_ref().map_or(Ok(()), BundlesRef::check)?;
        rule::at_most("documents", self.documents.len(), DOCUMENTS_MAX)?;
        for document in &self.documents {
            rule::safe("name of a document", &document.name, rule::NAME_MAX_BYTES)?;
            rule::safe("format of a document", &document.format, rule::NAME_MAX_BYTES)?;
            if document.bytes > DOCUMENT_MAX_BYTES {
                return Err(flaw("document", "at most 256 MiB", document.bytes));
            }
        }
        if !self.documents.is_sorted_by(|a, b| a.name < b.name) {
            return Err(flaw("documents", "strictly ascending names", "others"));
        }
        check_before("pruned", self.pruned, u64::MAX)?;
        rule::written(&self.writer, self.created_ms)?;
        check_more(&self.more)?;
        self.signature.as_ref().map_or(Ok(()), Signature::check)
    }
}

pub(crate) fn check_before(
    what: &'static str,
    reference: Option<RecordRef>,
    sequence: u64,
) -> Result<(), RecordError> {
    let Some(reference) = reference else { return Ok(()) };
    rule::sequence(reference.sequence)?;
    if reference.sequence < sequence {
        return Ok(());
    }
    Err(flaw(what, format!("a number below {sequence}"), reference.sequence))
}
