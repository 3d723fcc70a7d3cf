//! The journal: bundles of many partitions' newest batches, for as long as no chain has them.
//!
//! Duplicates are allowed: every entry is true for its branch, whoever wrote it. A bundle is whole or absent; what
//! a crash leaves of it is the bundle, which expires once the chains cover it.

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};
use varve_store::{Create, GetRange, PutOptions, delete};

use crate::archive::Archive;
use crate::canonical::{V1, rule};
use crate::coverage::{Coverage, Stay};
use crate::error::{Error, Kind, Result};
use crate::head::{ObjectHead, Place};
use crate::names;
use crate::prune::Pruned;
use crate::record::branch::{epoch_before, newest_epochs};
use crate::record::bundle::{BundleEntry, BundleIndex, BundleTrailer, TRAILER_BYTES};
use crate::record::bundles::BundleRef;
use crate::record::state::{JournalEnd, JournalEntry};
use crate::shelf::Created;

/// Collects whole segment objects for one bundle.
#[derive(Debug, Default)]
pub struct BundleBuilder {
    objects: Vec<(BundleEntry, Bytes)>,
    bytes: u64,
}

/// A bundle that was written or found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleName {
    pub archiver: String,
    pub sequence: u64,
}

impl BundleBuilder {
    /// Adds a segment object of `branch`.
    ///
    /// # Errors
    /// Whatever makes it no segment of a chain; [`Error::Invalid`] for a gap.
    pub fn add(&mut self, archive: &Archive, branch: u32, place: Place, object: Bytes) -> Result<()> {
        let name = format!("journal entry of {} {}", place.topic_id, place.partition);
        let bytes = object.len() as u64;
        let head = ObjectHead::read(archive.hash(), place, &name, &object, bytes)?;
        if head.gap {
            return Err(Error::invalid("journal entry", "a gap", "a segment"));
        }
        let entry = BundleEntry {
            topic_id: place.topic_id,
            partition: place.partition,
            branch,
            first_offset: head.first_offset(),
            end_offset: head.end_offset(),
            position: 0,
            bytes,
            footer: head.footer_hash,
            leader_epochs: newest_epochs(head.epochs().iter().copied()),
        };
        self.objects.push((entry, object));
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    /// Bytes of all objects added.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    fn ordered(mut self) -> (Vec<BundleEntry>, BytesMut) {
        self.objects.sort_by_key(|(e, _)| (e.topic_id, e.partition, e.branch, e.first_offset));
        let mut body = BytesMut::with_capacity(usize::try_from(self.bytes).unwrap_or(0));
        let mut entries = Vec::with_capacity(self.objects.len());
        for (mut entry, object) in self.objects {
            entry.position = body.len() as u64;
            body.extend_from_slice(&object);
            entries.push(entry);
        }
        (entries, body)
    }
}

impl Archive {
    /// Writes a bundle under `archiver`'s next number.
    ///
    /// # Errors
    /// Of the store: it may be there nevertheless, which is harmless. [`Error::Invalid`] for none or two of the
    /// same entry.
    pub async fn put_bundle(
        &self,
        archiver: &str,
        known: u64,
        builder: BundleBuilder,
        writer: &str,
        now_ms: i64,
    ) -> Result<BundleIndex> {
        rule::safe("archiver", archiver, 64).map_err(self.shelf.damaged(names::JOURNAL))?;
        let (entries, body) = builder.ordered();
        let mut index = BundleIndex {
            varve_bundle: V1,
            archive_id: self.id(),
            archiver: archiver.to_owned(),
            sequence: self.latest_bundle(archiver, known).await?,
            entries,
            writer: writer.to_owned(),
            created_ms: now_ms,
            more: Vec::new(),
        };
        for _ in 0..16 {
            index.sequence = index.sequence.saturating_add(1);
            let name = names::bundle(archiver, index.sequence);
            let tail = index.tail().map_err(self.shelf.damaged(&name))?;
            let object = Bytes::from([body.as_ref(), tail.as_ref()].concat());
            match self.create_bundle(&name, object).await? {
                Created::Ours => return Ok(index),
                Created::Other(_) => {}
            }
        }
        Err(Error::Contended { object: self.shelf.place(&names::journal_prefix(archiver)), tries: 16 })
    }

    /// Bundles may be large: what is there is told by its last bytes.
    async fn create_bundle(&self, name: &str, object: Bytes) -> Result<Created> {
        let options = PutOptions { create: Create::IfAbsent, storage_class: None };
        let key = self.shelf.key(name)?;
        let error = match self.shelf.store().put(&key, object.clone(), &options).await {
            Ok(_) => return Ok(Created::Ours),
            Err(error) => error,
        };
        let tail = object.len().saturating_sub(1 << 20);
        match self.shelf.store().get(&key, GetRange::Suffix(1 << 20)).await {
            Ok(got) => {
                let same_size = got.range.end == object.len() as u64;
                let found = got.bytes().await?;
                let same = same_size && object.get(tail..).is_some_and(|ours| ours == found);
                Ok(if same { Created::Ours } else { Created::Other(found) })
            }
            Err(_) => Err(error.into()),
        }
    }

    async fn latest_bundle(&self, archiver: &str, known: u64) -> Result<u64> {
        let prefix = names::journal_prefix(archiver);
        let parse = |name: &str| names::number(name, &prefix, 20, ".bundle");
        self.shelf.highest(&prefix, known, |n| names::bundle(archiver, n), parse).await
    }

    /// The next bundle behind `after`, in the order of names.
    ///
    /// # Errors
    /// Of the store.
    pub async fn next_bundle(&self, after: Option<&BundleName>) -> Result<Option<BundleName>> {
        let after = after.map(|b| names::bundle(&b.archiver, b.sequence));
        let parse = |name: &str| {
            let (archiver, sequence) = names::parse_bundle(name)?;
            Some(BundleName { archiver: archiver.to_owned(), sequence })
        };
        Ok(self.shelf.first(names::JOURNAL, after, parse).await?.map(|(name, _)| name))
    }

    /// A bundle's index; `None` if it is gone.
    ///
    /// # Errors
    /// Of the store; [`Error::Record`], [`Error::Mistaken`] for what is not this bundle.
    pub async fn bundle(&self, bundle: &BundleName) -> Result<Option<BundleIndex>> {
        Ok(self.bundle_and_reference(bundle).await?.map(|(index, _)| index))
    }

    /// The same, and how a snapshot refers to it.
    pub(crate) async fn bundle_and_reference(
        &self,
        bundle: &BundleName,
    ) -> Result<Option<(BundleIndex, BundleRef)>> {
        match self.bundle_once(bundle).await {
            Err(error) => {
                let name = names::bundle(&bundle.archiver, bundle.sequence);
                match self.shelf.again(&name, &error).await? {
                    true => self.bundle_once(bundle).await,
                    false => Err(error),
                }
            }
            found => found,
        }
    }

    /// A bundle that a snapshot names, by its hash; `None` if it is not there any more, also under a delete marker.
    pub(crate) async fn named_bundle(
        &self,
        bundle: &BundleName,
        expected: &BundleRef,
    ) -> Result<Option<BundleIndex>> {
        let held = |found: Result<Option<(BundleIndex, BundleRef)>>| match found {
            Ok(Some((index, found))) if found == *expected => Ok(Some(index)),
            Err(e) if e.kind() != Kind::Corrupt => Err(e),
            _ => Ok(None),
        };
        if let Some(index) = held(self.bundle_once(bundle).await)? {
            return Ok(Some(index));
        }
        let key = self.shelf.key(&names::bundle(&bundle.archiver, bundle.sequence))?;
        match self.shelf.oldest().look(&key, None).await? {
            true => held(self.bundle_once(bundle).await),
            false => Ok(None),
        }
    }

    /// A bundle that lies under a delete marker and did not expire: neither have the chains its records, nor were
    /// theirs pruned.
    pub(crate) async fn hidden_bundle(
        &self,
        bundle: &BundleName,
        pruned: &Pruned,
        coverage: &mut Coverage<'_>,
    ) -> Result<Option<BundleRef>> {
        let key = self.shelf.key(&names::bundle(&bundle.archiver, bundle.sequence))?;
        self.shelf.oldest().look(&key, None).await?;
        let found = self.bundle_once(bundle).await;
        self.shelf.oldest().forget(&key);
        let Some((index, reference)) = found? else { return Ok(None) };
        for entry in &index.entries {
            let (topic_id, partition, branch) = (entry.topic_id, entry.partition, entry.branch);
            let gone = pruned.end_of(topic_id, partition, branch, entry.first_offset).is_some();
            if !gone && !coverage.has(&Stay::of(entry)).await? {
                return Ok(Some(reference));
            }
        }
        Ok(None)
    }

    async fn bundle_once(&self, bundle: &BundleName) -> Result<Option<(BundleIndex, BundleRef)>> {
        let name = names::bundle(&bundle.archiver, bundle.sequence);
        let (key, damaged) = (self.shelf.key(&name)?, self.shelf.damaged(&name));
        let got = match self.shelf.store().get(&key, GetRange::Suffix(TRAILER_BYTES as u64)).await {
            Ok(got) => got,
            Err(e) if e.kind == varve_store::Kind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let object_bytes = got.range.end;
        let tail = got.bytes().await?;
        let last = tail.last_chunk::<TRAILER_BYTES>();
        let last = last.ok_or_else(|| Error::corrupt(self.shelf.place(&name), "a trailer", tail.len()))?;
        let trailer = BundleTrailer::decode(last, object_bytes).map_err(&damaged)?;
        let end = trailer.index_offset.saturating_add(u64::from(trailer.index_bytes));
        let range = GetRange::Bounded { start: trailer.index_offset, end };
        let bytes = self.shelf.store().get(&key, range).await?.bytes().await?;
        let index = BundleIndex::decode_at(&bytes, &trailer).map_err(damaged)?;
        let expected = (self.id(), bundle.archiver.as_str(), bundle.sequence);
        let found = (index.archive_id, index.archiver.as_str(), index.sequence);
        if expected == found {
            let hash = self.hash().of(&[&bytes, last]);
            let reference = BundleRef { sequence: bundle.sequence, bytes: object_bytes, hash };
            return Ok(Some((index, reference)));
        }
        Err(Error::mistaken(self.shelf.place(&name), format!("{expected:?}"), format!("{found:?}")))
    }

    /// The whole segment object of an entry, its head checked; `None` if the bundle is gone.
    ///
    /// # Errors
    /// Of the store; whatever makes it another object.
    pub async fn bundle_object(
        &self,
        bundle: &BundleName,
        entry: &BundleEntry,
    ) -> Result<Option<(ObjectHead, Bytes)>> {
        let name = names::bundle(&bundle.archiver, bundle.sequence);
        let range =
            GetRange::Bounded { start: entry.position, end: entry.position.saturating_add(entry.bytes) };
        let object = match self.shelf.store().get(&self.shelf.key(&name)?, range).await {
            Ok(got) => got.bytes().await?,
            Err(e) if e.kind == varve_store::Kind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let place =
            Place { topic_id: entry.topic_id, partition: entry.partition, first_offset: entry.first_offset };
        let head = ObjectHead::read(self.hash(), place, &self.shelf.place(&name), &object, entry.bytes)?;
        if head.footer_hash == entry.footer && head.end_offset() == entry.end_offset {
            return Ok(Some((head, object)));
        }
        Err(Error::mistaken(self.shelf.place(&name), entry.footer, head.footer_hash))
    }

    /// Deletes a bundle if the chains have every record of it, and if it is not the last of its archiver, whose
    /// number must not come back.
    ///
    /// # Errors
    /// Of the store.
    pub async fn expire_bundle(&self, index: &BundleIndex, coverage: &mut Coverage<'_>) -> Result<bool> {
        let name = names::bundle(&index.archiver, index.sequence);
        let prefix = names::journal_prefix(&index.archiver);
        let parse = |name: &str| names::number(name, &prefix, 20, ".bundle");
        if self.shelf.first(&prefix, Some(name.clone()), parse).await?.is_none() {
            return Ok(false);
        }
        for entry in &index.entries {
            if !coverage.has(&Stay::of(entry)).await? {
                return Ok(false);
            }
        }
        delete(self.shelf.store(), &self.shelf.key(&name)?).await?;
        Ok(true)
    }
}

/// What goes on from `end_offset`, behind a record of `epoch`: of entries of one branch, in any order and from any
/// bundles, those that are needed, in order. Of all ways to go on it is the one that ends in the highest epoch, of
/// these the one that reaches furthest. What overlaps is trimmed by who reads them.
pub fn continuation(entries: &[JournalEntry], end_offset: i64, epoch: Option<i32>) -> Vec<JournalEntry> {
    let ways = Ways::from(entries, end_offset, epoch);
    let best = ways.reached.iter().enumerate().max_by_key(|(_, r)| (r.epoch, r.end_offset));
    best.map_or_else(Vec::new, |(index, _)| ways.back_from(index))
}

/// The same, but up to `goal`, behind a record of its epoch; `None` if no way leads there.
pub fn continuation_to(
    entries: &[JournalEntry],
    end_offset: i64,
    epoch: Option<i32>,
    goal: &JournalEnd,
) -> Option<Vec<JournalEntry>> {
    let below: Vec<JournalEntry> =
        entries.iter().filter(|e| e.first_offset < goal.end_offset).cloned().collect();
    let ways = Ways::from(&below, end_offset, epoch);
    let there = |r: &Reached| {
        let entry = r.by.and_then(|(_, entry)| ways.entries.get(entry).copied());
        let known = entry.map_or(r.epoch, |e| epoch_before(&e.leader_epochs, goal.end_offset));
        r.end_offset >= goal.end_offset && known == goal.last_epoch
    };
    let found = ways.reached.iter().position(there)?;
    Some(ways.back_from(found))
}

/// All ways to go on, the shortest to each place.
struct Ways<'e> {
    entries: Vec<&'e JournalEntry>,
    reached: Vec<Reached>,
}

/// A place that entries lead to: within one epoch, one offset has but one history before it.
struct Reached {
    end_offset: i64,
    epoch: Option<i32>,
    /// From which place, by which entry.
    by: Option<(usize, usize)>,
}

impl<'e> Ways<'e> {
    fn from(entries: &'e [JournalEntry], end_offset: i64, epoch: Option<i32>) -> Self {
        let mut entries: Vec<&JournalEntry> = entries.iter().filter(|e| e.end_offset > end_offset).collect();
        entries.sort_by_key(|e| (e.first_offset, e.end_offset, &e.archiver, e.sequence));
        let mut ways = Self { entries, reached: vec![Reached { end_offset, epoch, by: None }] };
        let mut seen = HashSet::from([(end_offset, epoch)]);
        let mut next = 0_usize;
        while let Some((end, epoch)) = ways.reached.get(next).map(|r| (r.end_offset, r.epoch)) {
            for (index, entry) in ways.entries.iter().enumerate() {
                if entry.first_offset > end {
                    break;
                }
                if entry.end_offset <= end || epoch_before(&entry.leader_epochs, end) != epoch {
                    continue;
                }
                let last = epoch_before(&entry.leader_epochs, entry.end_offset);
                if seen.insert((entry.end_offset, last)) {
                    let by = Some((next, index));
                    ways.reached.push(Reached { end_offset: entry.end_offset, epoch: last, by });
                }
            }
            next = next.saturating_add(1);
        }
        ways
    }

    fn back_from(&self, reached: usize) -> Vec<JournalEntry> {
        let mut way = Vec::new();
        let mut at = self.reached.get(reached);
        while let Some((from, entry)) = at.and_then(|r| r.by) {
            way.extend(self.entries.get(entry).map(|e| (*e).clone()));
            at = self.reached.get(from);
        }
        way.reverse();
        way
    }
}

impl BundleEntry {
    /// As a snapshot names it.
    pub fn in_snapshot(&self, bundle: &BundleName) -> JournalEntry {
        JournalEntry {
            branch: self.branch,
            archiver: bundle.archiver.clone(),
            sequence: bundle.sequence,
            first_offset: self.first_offset,
            end_offset: self.end_offset,
            position: self.position,
            bytes: self.bytes,
            footer: self.footer,
            leader_epochs: self.leader_epochs.clone(),
        }
    }
}
