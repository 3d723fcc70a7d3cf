//! Snapshots: written on top of the newest, found without a list of all, read by their hash.
//!
//! A crash before the record leaves manifests that nobody names. Of two that write the next number one wins, and
//! the other begins again with the winner as its base, so that the chain can't fork and no partition goes back.

use bytes::Bytes;

use crate::archive::Archive;
use crate::canonical::{Record, V1};
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::names;
use crate::record::snapshot::{CLUSTER_STATE_MAX_BYTES, DocumentRef, Signer, SnapshotRecord};
use crate::shelf::Created;
use crate::tree::Target;

const TRIES_MAX: u32 = 16;

/// A snapshot that was read, and what names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub record: SnapshotRecord,
    /// Of the whole record: the next one names it, and so may a notary.
    pub hash: Hash,
}

/// What goes into a new snapshot.
#[derive(Debug)]
pub struct NewSnapshot<'a> {
    /// Partitions that may have something new; all others stay as they were.
    pub targets: &'a [Target],
    pub cluster_state: Option<Bytes>,
    pub writer: &'a str,
    pub now_ms: i64,
    pub signer: Option<&'a Signer>,
}

impl Archive {
    /// The newest snapshot's number, 0 if there is none; `known` is one that exists, or 0.
    ///
    /// # Errors
    /// Of the store.
    pub async fn latest_sequence(&self, known: u64) -> Result<u64> {
        let parse = |name: &str| names::number(name, names::SNAPSHOTS, 20, ".json");
        self.shelf.highest(names::SNAPSHOTS, known, names::snapshot, parse).await
    }

    /// # Errors
    /// Of the store; what makes the newest snapshot none.
    pub async fn latest_snapshot(&self, known: u64) -> Result<Option<Snapshot>> {
        match self.latest_sequence(known).await? {
            0 => Ok(None),
            sequence => {
                let missing = || Error::Missing { object: self.shelf.place(&names::snapshot(sequence)) };
                self.snapshot(sequence).await?.ok_or_else(missing).map(Some)
            }
        }
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

    fn checked_snapshot(&self, sequence: u64, record: SnapshotRecord, bytes: &[u8]) -> Result<Snapshot> {
        let (expected, found) = ((self.id(), sequence), (record.archive_id, record.sequence));
        if expected == found {
            return Ok(Snapshot { record, hash: self.hash().of(&[bytes]) });
        }
        let place = self.shelf.place(&names::snapshot(sequence));
        Err(Error::mistaken(place, format!("{expected:?}"), format!("{found:?}")))
    }

    /// The document about the cluster that a snapshot holds.
    ///
    /// # Errors
    /// Of the store; [`Error::Corrupt`] for another.
    pub async fn cluster_state(&self, document: &DocumentRef) -> Result<Bytes> {
        let bytes = self.manifest(document.hash, document.bytes.min(CLUSTER_STATE_MAX_BYTES)).await?;
        if bytes.len() as u64 == document.bytes {
            return Ok(bytes);
        }
        let name = self.shelf.place(&names::manifest(document.hash));
        Err(Error::corrupt(name, format!("{} bytes", document.bytes), bytes.len()))
    }

    /// Writes the next snapshot.
    ///
    /// # Errors
    /// Of the store, and whatever is found damaged: no snapshot was written then, or its answer was lost and it
    /// is the newest. [`Error::Contended`] where others always were first.
    pub async fn write_snapshot(&self, new: &NewSnapshot<'_>) -> Result<Snapshot> {
        let cluster_state = match &new.cluster_state {
            Some(document) if document.len() as u64 > CLUSTER_STATE_MAX_BYTES => {
                return Err(Error::invalid("cluster state", document.len(), "at most 256 MiB"));
            }
            Some(document) => {
                let hash = self.put_manifest(document.clone()).await?;
                Some(DocumentRef { hash, bytes: document.len() as u64 })
            }
            None => None,
        };
        let mut base = self.latest_snapshot(0).await?;
        for _ in 0..TRIES_MAX {
            let root = base.as_ref().and_then(|b| b.record.root.clone());
            let mut record = SnapshotRecord {
                varve_snapshot: V1,
                archive_id: self.id(),
                sequence: base.as_ref().map_or(0, |b| b.record.sequence).saturating_add(1),
                previous: base.as_ref().map(|b| b.hash),
                root: self.grow(root, new.targets).await?,
                cluster_state: cluster_state.clone(),
                writer: new.writer.to_owned(),
                created_ms: new.now_ms,
                signature: None,
            };
            let name = names::snapshot(record.sequence);
            let damaged = self.shelf.damaged(&name);
            if let Some(signer) = new.signer {
                record.sign(signer).map_err(&damaged)?;
            }
            let bytes = Bytes::from(record.encode().map_err(&damaged)?);
            match self.shelf.create(&name, bytes.clone()).await? {
                Created::Ours => return self.checked_snapshot(record.sequence, record, &bytes),
                Created::Other(_) => base = self.latest_snapshot(record.sequence).await?,
            }
        }
        Err(Error::Contended { object: self.shelf.place(names::SNAPSHOTS), tries: TRIES_MAX })
    }
}
