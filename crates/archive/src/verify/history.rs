//! What comes before the tree: the snapshots' chain, signatures, and what was declared pruned.

use std::collections::HashMap;

use super::Verifier;
use crate::error::Result;
use crate::names;
use crate::record::snapshot::{RecordRef, Signable, Signature, Signed};
use crate::snapshots::Snapshot;

/// Numbers without a record between two snapshots that are looked at.
const STRAYS_MAX: u64 = 1000;

impl Verifier<'_> {
    pub(super) fn signature(&self, snapshot: &Snapshot) {
        self.report.count(|p| p.snapshots = p.snapshots.saturating_add(1));
        let own = snapshot.record.signature.as_ref().and_then(Signature::key);
        let any: Vec<[u8; 32]> = own.into_iter().collect();
        let given = !self.options.trusted.is_empty();
        let what = match snapshot.record.signed(if given { self.options.trusted } else { &any }) {
            Signed::ByTrusted => return,
            Signed::Not if !given => return,
            Signed::Not => "not signed",
            Signed::Refused if given => "not signed by a key that is trusted",
            Signed::Refused => "its signature is not over what it says",
        };
        self.report.find(self.archive.shelf.place(&names::snapshot(snapshot.record.sequence)), what);
    }

    /// The chain of snapshots. An older one counts as signed by those after it, which name its hash.
    pub(super) async fn before(&self, newest: &Snapshot) -> Result<()> {
        let (mut at, mut skips) = (newest.record.clone(), HashMap::new());
        while let Some(RecordRef { sequence, hash }) = at.previous {
            self.strays(sequence, at.sequence).await?;
            if sequence <= self.options.since {
                return Ok(());
            }
            skips.extend(at.skip.map(|skip| (skip.sequence, skip.hash)));
            let name = self.archive.shelf.place(&names::snapshot(sequence));
            let found = self.archive.snapshot(sequence).await;
            let Some(found) = self.report.take(&name, found)? else { return Ok(()) };
            let Some(snapshot) = found else {
                self.report.find(name, "missing");
                return Ok(());
            };
            let skipped = skips.remove(&sequence);
            if let Some(hash) = [Some(hash), skipped].into_iter().flatten().find(|h| *h != snapshot.hash) {
                let what = format!("expected {hash}, as a later one says, found {}", snapshot.hash);
                self.report.find(name, what);
            }
            self.report.count(|p| p.snapshots = p.snapshots.saturating_add(1));
            at = snapshot.record;
        }
        self.strays(0, at.sequence).await
    }

    /// Numbers that were stepped over.
    async fn strays(&self, after: u64, before: u64) -> Result<()> {
        for number in after.saturating_add(1)..before.min(after.saturating_add(STRAYS_MAX)) {
            let name = names::snapshot(number);
            if self.archive.shelf.get(&name, 0).await?.is_some() {
                self.report.find(self.archive.shelf.place(&name), "no snapshot of this archive's history");
            }
        }
        Ok(())
    }

    /// What was declared pruned since the snapshot, as far as it is true; what was before is in its tree.
    pub(super) async fn pruning(&self, snapshot: &Snapshot) -> Result<()> {
        let folded = snapshot.record.pruned.map_or(0, |p| p.sequence);
        let pruned = self.archive.pruned(folded, self.options.trusted).await;
        let Some(pruned) = self.report.take(names::PRUNED, pruned)? else { return Ok(()) };
        for number in pruned.refused() {
            let what = "no pruning record, or not signed by a key that is trusted: it counts for nothing";
            self.report.find(self.archive.shelf.place(&names::pruned(*number)), what);
        }
        let mut number = folded;
        let last = pruned.last().map_or(0, |p| p.sequence);
        while number < last {
            number = number.saturating_add(1);
            if pruned.refused().contains(&number) {
                continue;
            }
            let name = self.archive.shelf.place(&names::pruned(number));
            let found = self.archive.pruned_record(number).await;
            let Some(Some((record, reference))) = self.report.take(&name, found)? else { continue };
            if pruned.gave_up(record.snapshot) {
                self.pruned.write().add(&record, reference);
                continue;
            }
            let odd = self.archive.undeclarable(&record).await;
            match self.report.take(&name, odd)? {
                Some(None) => self.pruned.write().add(&record, reference),
                Some(Some(range)) => {
                    self.report
                        .find(name, format!("{range} is not what its snapshot has: it does not count"));
                }
                None => {}
            }
        }
        Ok(())
    }
}
