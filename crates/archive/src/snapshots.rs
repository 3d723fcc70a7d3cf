//! Snapshots: written on top of the newest, found without a list of all, read by their hash.
//!
//! A crash before the record leaves manifests that nobody names. Of two that write the next number one wins, and
//! the other begins again with the winner as its base, so that the chain can't fork and no partition goes back.
//! A number that holds no record of this archive is stepped over, a tree that is damaged is not built upon: whoever
//! can write to the store can't stop the next snapshot by what he puts there.

use bytes::Bytes;

use crate::archive::Archive;
use crate::canonical::{Record, V1};
use crate::error::{Error, Kind, Result};
use crate::growth::{Growth, Target};
use crate::hash::Hash;
use crate::names;
use crate::record::bundles::BundlesRef;
use crate::record::node::NodeRef;
use crate::record::snapshot::{
    DOCUMENT_MAX_BYTES, DocumentRef, RecordRef, Signable, Signed, Signer, SnapshotRecord, skipped,
};
use crate::shelf::Created;

const TRIES_MAX: u32 = 16;
/// Numbers without a record that are stepped over, and snapshots that are no base.
const STEPS_MAX: u32 = 10_000;

/// A snapshot that was read, and what names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub record: SnapshotRecord,
    /// Of the whole record: the next one names it, and so may a notary.
    pub hash: Hash,
}

/// A document that goes into a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub name: String,
    pub format: String,
    pub bytes: Bytes,
}

/// What goes into a new snapshot.
#[derive(Debug)]
pub struct NewSnapshot<'a> {
    /// Partitions that may have something new; all others stay as they were.
    pub targets: &'a [Target],
    pub documents: &'a [Document],
    pub writer: &'a str,
    pub now_ms: i64,
    pub signer: Option<&'a Signer>,
    /// Who signs vouches for the tree it builds upon: it must be signed by itself or by one of these.
    pub trusted: &'a [[u8; 32]],
}

/// What a new record says of what lies below it.
struct Grown {
    root: Option<NodeRef>,
    bundles: Option<BundlesRef>,
    pruned: Option<RecordRef>,
}

impl Snapshot {
    pub fn reference(&self) -> RecordRef {
        RecordRef { sequence: self.record.sequence, hash: self.hash }
    }
}

impl NewSnapshot<'_> {
    fn keys(&self) -> Vec<[u8; 32]> {
        match self.signer {
            Some(signer) => self.trusted.iter().copied().chain([signer.public_key()]).collect(),
            None => Vec::new(),
        }
    }
}

impl Archive {
    /// The newest snapshot; `known` is a number that exists, or 0. Numbers that hold no record of this archive are
    /// stepped over.
    ///
    /// # Errors
    /// Of the store; a record of a later version.
    pub async fn latest_snapshot(&self, known: u64) -> Result<Option<Snapshot>> {
        let (mut known, mut below) = (known, u64::MAX);
        for _ in 0..STEPS_MAX {
            let parse =
                |name: &str| names::number(name, names::SNAPSHOTS, 20, ".json").filter(|n| *n < below);
            let highest = self.shelf.highest(names::SNAPSHOTS, known, names::snapshot, parse).await?;
            if highest == 0 {
                return Ok(None);
            }
            if let Some(found) = self.whole_snapshot(highest).await? {
                return Ok(Some(found));
            }
            (known, below) = (0, highest);
        }
        Err(Error::Contended { object: self.shelf.place(names::SNAPSHOTS), tries: STEPS_MAX })
    }

    /// # Errors
    /// Of the store; [`Error::Record`], [`Error::Mistaken`] for a record of another place.
    pub async fn snapshot(&self, sequence: u64) -> Result<Option<Snapshot>> {
        let name = names::snapshot(sequence);
        let Some((record, bytes)) = self.shelf.record::<SnapshotRecord>(&name).await? else {
            return Ok(None);
        };
        self.checked_snapshot(sequence, record, &bytes).map(Some)
    }

    /// The same; what is no record of this archive is as good as absent.
    async fn whole_snapshot(&self, sequence: u64) -> Result<Option<Snapshot>> {
        match self.snapshot(sequence).await {
            Err(e) if e.kind() == Kind::Corrupt => Ok(None),
            found => found,
        }
    }

    fn checked_snapshot(&self, sequence: u64, record: SnapshotRecord, bytes: &[u8]) -> Result<Snapshot> {
        let (expected, found) = ((self.id(), sequence), (record.archive_id, record.sequence));
        if expected == found {
            return Ok(Snapshot { record, hash: self.hash().of(&[bytes]) });
        }
        let place = self.shelf.place(&names::snapshot(sequence));
        Err(Error::mistaken(place, format!("{expected:?}"), format!("{found:?}")))
    }

    /// The snapshot before that another names; `None` if it is not there as it was.
    async fn named_snapshot(&self, named: Option<RecordRef>) -> Result<Option<Snapshot>> {
        let Some(named) = named else { return Ok(None) };
        Ok(self.whole_snapshot(named.sequence).await?.filter(|found| found.hash == named.hash))
    }

    /// An older snapshot, proven by a newer one in few steps; `None` if there is none of that number in its
    /// history, or the way there is damaged.
    ///
    /// # Errors
    /// Of the store.
    pub async fn ancestor(&self, newer: &Snapshot, sequence: u64) -> Result<Option<Snapshot>> {
        let mut at = Some(newer.clone());
        while let Some(snapshot) = at {
            if snapshot.record.sequence <= sequence {
                return Ok(Some(snapshot).filter(|s| s.record.sequence == sequence));
            }
            let far = snapshot.record.skip.filter(|skip| skip.sequence >= sequence);
            at = self.named_snapshot(far.or(snapshot.record.previous)).await?;
        }
        Ok(None)
    }

    /// A document that a snapshot holds.
    ///
    /// # Errors
    /// Of the store; [`Error::Corrupt`] for another.
    pub async fn document(&self, document: &DocumentRef) -> Result<Bytes> {
        let bytes = self.manifest(document.hash, document.bytes.min(DOCUMENT_MAX_BYTES)).await?;
        if bytes.len() as u64 == document.bytes {
            return Ok(bytes);
        }
        let name = self.shelf.place(&names::manifest(document.hash));
        Err(Error::corrupt(name, format!("{} bytes", document.bytes), bytes.len()))
    }

    /// Writes the next snapshot.
    ///
    /// # Errors
    /// Of the store: no snapshot was written then, or its answer was lost and it is the newest.
    /// [`Error::Contended`] where others always were first; [`Error::Requires`] where the archive was upgraded.
    pub async fn write_snapshot(&self, new: &NewSnapshot<'_>) -> Result<Snapshot> {
        self.check_upgrades().await?;
        let documents = self.put_documents(new.documents).await?;
        let mut newest = self.latest_snapshot(0).await?;
        for _ in 0..TRIES_MAX {
            let (found, sequence) = self.free_number(newest).await?;
            newest = found;
            let grown = self.grown(newest.as_ref(), new, sequence).await?;
            let skip = match (&newest, skipped(sequence)) {
                (Some(newest), Some(back)) => self.ancestor(newest, back).await?,
                _ => None,
            };
            let mut record = SnapshotRecord {
                varve_snapshot: V1,
                archive_id: self.id(),
                sequence,
                previous: newest.as_ref().map(Snapshot::reference),
                skip: skip.as_ref().map(Snapshot::reference),
                root: grown.root,
                bundles: grown.bundles,
                documents: documents.clone(),
                pruned: grown.pruned,
                writer: new.writer.to_owned(),
                created_ms: new.now_ms,
                more: Vec::new(),
                signature: None,
            };
            let name = names::snapshot(sequence);
            let damaged = self.shelf.damaged(&name);
            if let Some(signer) = new.signer {
                record.sign(signer).map_err(&damaged)?;
            }
            let bytes = Bytes::from(record.encode().map_err(&damaged)?);
            match self.shelf.create(&name, bytes.clone()).await? {
                Created::Ours => return self.checked_snapshot(sequence, record, &bytes),
                // A winner, or junk: the next look tells.
                Created::Other(_) => {}
            }
        }
        Err(Error::Contended { object: self.shelf.place(names::SNAPSHOTS), tries: TRIES_MAX })
    }

    async fn put_documents(&self, documents: &[Document]) -> Result<Vec<DocumentRef>> {
        let mut found = Vec::new();
        for document in documents {
            let bytes = document.bytes.len() as u64;
            if bytes > DOCUMENT_MAX_BYTES {
                return Err(Error::invalid("document", bytes, "at most 256 MiB"));
            }
            let (name, format) = (document.name.clone(), document.format.clone());
            let hash = self.put_manifest(document.bytes.clone()).await?;
            found.push(DocumentRef { name, format, hash, bytes });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The first number behind the newest snapshot that nothing is at, and the newest: others may have written
    /// meanwhile.
    async fn free_number(&self, newest: Option<Snapshot>) -> Result<(Option<Snapshot>, u64)> {
        let mut number = newest.as_ref().map_or(0, |s| s.record.sequence);
        let mut newest = newest;
        for _ in 0..STEPS_MAX {
            number = number.saturating_add(1);
            if self.shelf.get(&names::snapshot(number), 0).await?.is_none() {
                return Ok((newest, number));
            }
            newest = self.whole_snapshot(number).await?.or(newest);
        }
        Err(Error::Contended { object: self.shelf.place(names::SNAPSHOTS), tries: STEPS_MAX })
    }

    /// The tree of the next snapshot, built upon the newest that may be and can be built upon.
    async fn grown(&self, newest: Option<&Snapshot>, new: &NewSnapshot<'_>, since: u64) -> Result<Grown> {
        let keys = new.keys();
        let mut base = newest.cloned();
        for _ in 0..STEPS_MAX {
            let Some(found) = &base else { break };
            let before = found.record.previous;
            if new.signer.is_none() || found.record.signed(&keys) == Signed::ByTrusted {
                match self.grown_from(Some(found), new, since, &keys).await {
                    Err(e) if e.is_damage() => {}
                    grown => return grown,
                }
            }
            base = self.named_snapshot(before).await?;
        }
        self.grown_from(None, new, since, &keys).await
    }

    async fn grown_from(
        &self,
        base: Option<&Snapshot>,
        new: &NewSnapshot<'_>,
        since: u64,
        keys: &[[u8; 32]],
    ) -> Result<Grown> {
        let root = base.and_then(|b| b.record.root.clone());
        let folded = base.and_then(|b| b.record.pruned);
        let pruned = self.pruned(folded.map_or(0, |p| p.sequence), keys).await?;
        let growth = Growth::new(self, since);
        let root = growth.grow(root, new.targets, pruned.ranges()).await?;
        let named = base.and_then(|b| b.record.bundles.as_ref());
        let bundles = self.put_bundles(since, named, growth.into_bundles()).await?;
        Ok(Grown { root, bundles, pruned: pruned.last().or(folded) })
    }
}
