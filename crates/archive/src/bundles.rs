//! Which bundles a snapshot names. Those that expired meanwhile are left out: the chains have what was in them.

use std::collections::{BTreeMap, BTreeSet};

use crate::archive::Archive;
use crate::canonical::{Record, V1};
use crate::coverage::Coverage;
use crate::error::{Error, Kind, Result};
use crate::journal::BundleName;
use crate::names;
use crate::partition::PAGE;
use crate::prune::Pruned;
use crate::record::MANIFEST_MAX_BYTES;
use crate::record::bundles::{BLOCK_BUNDLES, BundleBlock, BundleBlockRef, BundleRef, Bundles, BundlesRef};

/// Bundles by archiver and number of the block.
type Blocks<T> = BTreeMap<(String, u64), T>;

impl Archive {
    /// Writes what is new of the list of bundles: the base's that are still there, and those that are needed.
    pub(crate) async fn put_bundles(
        &self,
        since: u64,
        base: Option<&BundlesRef>,
        needed: BTreeSet<BundleName>,
    ) -> Result<Option<BundlesRef>> {
        let mut known: Blocks<BundleBlockRef> = BTreeMap::new();
        if let Some(base) = base {
            let blocks = self.bundle_blocks(base).await?.blocks;
            known.extend(blocks.into_iter().map(|b| ((b.archiver.clone(), b.block), b)));
        }
        if known.is_empty() && needed.is_empty() {
            return Ok(None);
        }
        let there = self.bundles_there().await?;
        let mut wanted: Blocks<BTreeSet<u64>> = BTreeMap::new();
        for name in needed {
            wanted.entry((name.archiver, name.sequence / BLOCK_BUNDLES)).or_default().insert(name.sequence);
        }
        for place in known.keys() {
            wanted.entry(place.clone()).or_default();
        }
        let none = BTreeSet::new();
        let mut blocks = Vec::new();
        let mut hidden = Hidden::of(self).await?;
        for (place, needed) in wanted {
            let there = there.get(&place).unwrap_or(&none);
            blocks.extend(
                self.bundle_block(since, &place, known.get(&place), there, &needed, &mut hidden).await?,
            );
        }
        if blocks.is_empty() {
            return Ok(None);
        }
        let list = Bundles { varve_bundles: V1, since, blocks, more: Vec::new() };
        if let Some(base) = base.filter(|_| list.blocks.iter().eq(known.values())) {
            return Ok(Some(base.clone()));
        }
        let bytes = list.encode().map_err(self.shelf.damaged("the list of bundles"))?;
        let (bundles, sum) = list.sum();
        Ok(Some(BundlesRef { hash: self.put_manifest(bytes.into()).await?, bundles, bytes: sum }))
    }

    /// A block of bundles; `None` if none of them is left.
    async fn bundle_block(
        &self,
        since: u64,
        place: &(String, u64),
        known: Option<&BundleBlockRef>,
        there: &BTreeSet<u64>,
        needed: &BTreeSet<u64>,
        hidden: &mut Option<Hidden<'_>>,
    ) -> Result<Option<BundleBlockRef>> {
        // Numbers begin at 1.
        let full = if place.1 == 0 { BLOCK_BUNDLES - 1 } else { BLOCK_BUNDLES };
        if let Some(known) = known.filter(|k| k.bundles == full && there.len() as u64 == full) {
            return Ok(Some(known.clone()));
        }
        let before = match known {
            Some(known) => self.bundle_refs(known).await?,
            None => Vec::new(),
        };
        let mut bundles: BTreeMap<u64, BundleRef> =
            before.iter().filter(|b| there.contains(&b.sequence)).map(|b| (b.sequence, b.clone())).collect();
        for sequence in needed.iter().filter(|s| there.contains(s)) {
            if !bundles.contains_key(sequence) {
                let name = BundleName { archiver: place.0.clone(), sequence: *sequence };
                let found = self.bundle_and_reference(&name).await?;
                bundles.extend(found.map(|(_, reference)| (*sequence, reference)));
            }
        }
        if let Some(hidden) = hidden {
            let known = before.iter().map(|b| b.sequence);
            for sequence in known.chain(needed.iter().copied()).filter(|s| !there.contains(s)) {
                let name = BundleName { archiver: place.0.clone(), sequence };
                bundles.extend(hidden.look(self, &name).await?.map(|reference| (sequence, reference)));
            }
        }
        if bundles.is_empty() {
            return Ok(None);
        }
        if let Some(known) = known.filter(|_| bundles.values().eq(before.iter())) {
            return Ok(Some(known.clone()));
        }
        let bundles: Vec<BundleRef> = bundles.into_values().collect();
        let (archiver, block) = place.clone();
        let record =
            BundleBlock { varve_bundle_block: V1, since, archiver, block, bundles, more: Vec::new() };
        let bytes = record.encode().map_err(self.shelf.damaged("a block of bundles"))?;
        let hash = self.put_manifest(bytes.into()).await?;
        Ok(Some(reference(&record, hash)))
    }

    /// All bundles that the store has now.
    async fn bundles_there(&self) -> Result<Blocks<BTreeSet<u64>>> {
        let mut there: Blocks<BTreeSet<u64>> = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.shelf.list(names::JOURNAL, after.as_deref(), PAGE).await?;
            for object in &page.objects {
                if let Some((archiver, sequence)) = names::parse_bundle(self.shelf.name(&object.key)) {
                    let place = (archiver.to_owned(), sequence / BLOCK_BUNDLES);
                    there.entry(place).or_default().insert(sequence);
                }
            }
            match page.objects.last() {
                Some(last) if page.more => after = Some(self.shelf.name(&last.key).to_owned()),
                _ => return Ok(there),
            }
        }
    }

    /// The bundles that a snapshot names, in order.
    ///
    /// # Errors
    /// As [`Archive::manifest`].
    pub async fn named_bundles(&self, list: &BundlesRef) -> Result<Vec<(BundleName, BundleRef)>> {
        let mut found = Vec::new();
        for block in self.bundle_blocks(list).await?.blocks {
            for bundle in self.bundle_refs(&block).await? {
                let name = BundleName { archiver: block.archiver.clone(), sequence: bundle.sequence };
                found.push((name, bundle));
            }
        }
        Ok(found)
    }

    async fn bundle_blocks(&self, list: &BundlesRef) -> Result<Bundles> {
        let bytes = self.manifest(list.hash, MANIFEST_MAX_BYTES).await?;
        let name = names::manifest(list.hash);
        let found = Bundles::decode(&bytes).map_err(self.shelf.damaged(&name))?;
        if found.sum() == (list.bundles, list.bytes) {
            return Ok(found);
        }
        Err(Error::mistaken(self.shelf.place(&name), format!("{list:?}"), format!("{:?}", found.sum())))
    }

    async fn bundle_refs(&self, expected: &BundleBlockRef) -> Result<Vec<BundleRef>> {
        let bytes = self.manifest(expected.hash, MANIFEST_MAX_BYTES).await?;
        let name = names::manifest(expected.hash);
        let block = BundleBlock::decode(&bytes).map_err(self.shelf.damaged(&name))?;
        let found = reference(&block, expected.hash);
        if found == *expected {
            return Ok(block.bundles);
        }
        Err(Error::mistaken(self.shelf.place(&name), format!("{expected:?}"), format!("{found:?}")))
    }
}

/// To tell bundles that somebody hid from those that expired, in a store that keeps versions.
struct Hidden<'a> {
    pruned: Pruned,
    coverage: Coverage<'a>,
}

impl<'a> Hidden<'a> {
    async fn of(archive: &'a Archive) -> Result<Option<Self>> {
        if archive.shelf.oldest().versions().is_none() {
            return Ok(None);
        }
        let (pruned, coverage) = (archive.pruned(0, &[]).await?, Coverage::new(archive));
        Ok(Some(Self { pruned, coverage }))
    }

    async fn look(&mut self, archive: &Archive, name: &BundleName) -> Result<Option<BundleRef>> {
        match archive.hidden_bundle(name, &self.pruned, &mut self.coverage).await {
            Err(e) if e.kind() == Kind::Corrupt => Ok(None),
            found => found,
        }
    }
}

fn reference(block: &BundleBlock, hash: crate::hash::Hash) -> BundleBlockRef {
    BundleBlockRef {
        archiver: block.archiver.clone(),
        block: block.block,
        hash,
        bundles: block.bundles.len() as u64,
        bytes: block.bundles.iter().fold(0, |sum, b| u64::saturating_add(sum, b.bytes)),
    }
}
