//! One partition of a snapshot: its topic, branches, chains and what it has of the journal.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::listed::Listed;
use super::{Depth, Verifier};
use crate::coverage::Stay;
use crate::error::{Error, Kind, Result};
use crate::hash::Hash;
use crate::journal::continuation_to;
use crate::lineage::lineage_of;
use crate::names;
use crate::read::ObjectReader;
use crate::record::object::ObjectEntry;
use crate::record::state::{BranchState, JournalEntry, PartitionState};

impl Verifier<'_> {
    pub(super) async fn partition(&self, state: &PartitionState) -> Result<()> {
        self.pruned.write().add_state(state);
        self.topic(state).await?;
        for branch in &state.branches {
            self.branch(state, branch).await?;
            self.chain(state, branch).await?;
        }
        self.journal(state).await?;
        self.report.count(|p| p.partitions = p.partitions.saturating_add(1));
        Ok(())
    }

    /// The name that the snapshot has against the topic's record.
    async fn topic(&self, state: &PartitionState) -> Result<()> {
        let name = self.archive.shelf.place(&names::topic(state.topic_id));
        let known = Arc::clone(self.topics.lock().entry(state.topic_id).or_default());
        // Partitions of one topic are looked at together, and its record once.
        let read = || async {
            let found = self.archive.topic(state.topic_id).await;
            Ok::<_, Error>(self.report.take(&name, found)?.flatten().map(|record| record.topic))
        };
        let found = known.get_or_try_init(read).await?;
        if state.topic.is_some() && state.topic != *found {
            let what = format!("expected topic {:?}, found {found:?}", state.topic);
            self.report.find(&name, what);
        }
        Ok(())
    }

    async fn branch(&self, state: &PartitionState, branch: &BranchState) -> Result<()> {
        let Some(hash) = branch.record else { return Ok(()) };
        let name = self.archive.shelf.place(&names::branch(state.topic_id, state.partition, branch.branch));
        let found = self.archive.partition(state.topic_id, state.partition).branch(branch.branch).await;
        let Some(found) = self.report.take(&name, found)? else { return Ok(()) };
        match found {
            None => self.report.find(&name, "missing"),
            Some((_, other)) if other != hash => {
                self.report.find(&name, format!("expected {hash}, found {other}"));
            }
            Some((record, _))
                if (record.parent, record.start_offset) != (branch.parent, branch.start_offset) =>
            {
                self.report.find(&name, "another parent or start than the snapshot has");
            }
            Some(_) => {}
        }
        let parent = branch.parent.and_then(|p| state.branches.iter().find(|b| b.branch == p));
        if parent.is_some_and(|p| p.end_offset.max(p.start_offset) < branch.start_offset) {
            self.report.find(&name, "begins behind its parent's end");
        }
        let of = |n: u32| state.branches.iter().find(|b| b.branch == n).map(|b| (b.parent, b.start_offset));
        if branch.parent.is_some_and(|p| {
            lineage_of(p, of).first().is_none_or(|first| first.start_offset >= branch.start_offset)
        }) {
            self.report.find(name, "begins at or below all that its parent goes back to");
        }
        Ok(())
    }

    /// The entries against a listing, page by page, and the objects as deep as asked for.
    async fn chain(&self, state: &PartitionState, branch: &BranchState) -> Result<()> {
        let partition = self.archive.partition(state.topic_id, state.partition);
        let mut objects = self.archive.objects(branch);
        let mut listed = Listed::new(branch.start_offset);
        let mut batch: Vec<(ObjectEntry, bool)> = Vec::new();
        loop {
            let next = objects.next().await;
            let chain = names::chain_prefix(state.topic_id, state.partition, branch.branch);
            let Some(next) = self.report.take(&chain, next)? else { return Ok(()) };
            let end = next.is_none();
            if let Some(object) = next {
                let here = (state.topic_id, state.partition, branch.branch, object.first_offset);
                let pruned = self.pruned.read().holds(here.0, here.1, here.2, here.3);
                let name = partition.object_name(branch.branch, object.first_offset);
                let mut size = listed.size_at(&partition, branch.branch, object.first_offset).await?;
                if pruned && self.archive.shelf.oldest().is_hidden(&self.archive.shelf.key(&name)?) {
                    size = None;
                }
                for stray in listed.strays.drain(..) {
                    if !self.pruned.read().holds(here.0, here.1, here.2, stray) {
                        let name = partition.object_name(branch.branch, stray);
                        self.report.find(self.archive.shelf.place(&name), "in no snapshot, within the chain");
                    }
                }
                match size {
                    None if pruned => self.report.pruned(),
                    None => self.report.find(self.archive.shelf.place(&name), "missing"),
                    // What lies there is not what was pruned, and counts for nothing.
                    Some(size) if pruned && size != object.bytes => {
                        self.report.pruned();
                    }
                    Some(size) if size != object.bytes => {
                        let what = format!("expected {} bytes, found {size}", object.bytes);
                        self.report.find(self.archive.shelf.place(&name), what);
                    }
                    Some(_) if self.sampled(&object.footer) => batch.push((object, pruned)),
                    Some(_) => {}
                }
            }
            if end || batch.len() >= self.options.parallel.max(1).saturating_mul(8) {
                self.objects(state, branch, std::mem::take(&mut batch)).await?;
            }
            if end {
                return Ok(());
            }
        }
    }

    fn sampled(&self, footer: &Hash) -> bool {
        let drawn = self.archive.hash().of(&[&footer.0, &self.options.seed.to_be_bytes()]);
        let number = drawn.0.first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
        number % 1_000_000 < u64::from(self.options.sample_ppm)
    }

    async fn objects(
        &self,
        state: &PartitionState,
        branch: &BranchState,
        batch: Vec<(ObjectEntry, bool)>,
    ) -> Result<()> {
        let looked = stream::iter(batch).map(|(object, pruned)| async move {
            let name = names::object(state.topic_id, state.partition, branch.branch, object.first_offset);
            let outcome = match self.options.depth {
                Depth::Listed => Ok(false),
                _ => self.look(state, &name, &object).await,
            };
            (name, object.bytes, pruned, outcome)
        });
        let mut looked = Box::pin(looked.buffer_unordered(self.options.parallel.max(1)));
        while let Some((name, bytes, pruned, outcome)) = looked.next().await {
            if pruned && outcome.as_ref().is_err_and(|e| e.kind() == Kind::Corrupt) {
                self.report.pruned();
                continue;
            }
            self.report.sealed(&self.archive.shelf.place(&name), outcome)?;
            self.report.count(|p| {
                p.objects = p.objects.saturating_add(1);
                p.bytes = p.bytes.saturating_add(bytes);
            });
        }
        Ok(())
    }

    /// What the snapshot promises of the journal: in its bundles, or by now in the chain, the very same.
    async fn journal(&self, state: &PartitionState) -> Result<()> {
        let Some(goal) = &state.journal else { return Ok(()) };
        let (from, epoch) = (state.chain_end(), state.chains.as_ref().and_then(|c| c.last_epoch));
        let mut entries = self.journal.entries(state.topic_id, state.partition).to_vec();
        entries.retain(|e| e.branch == state.branch());
        if let Some(way) = continuation_to(&entries, from, epoch, goal) {
            for entry in way.iter().filter(|_| self.options.depth > Depth::Listed) {
                let name = self.archive.shelf.place(&names::bundle(&entry.archiver, entry.sequence));
                self.report.sealed(&name, self.look_into(state, entry).await)?;
            }
            return Ok(());
        }
        let stay = Stay {
            topic_id: state.topic_id,
            partition: state.partition,
            branch: state.branch(),
            first_offset: from,
            end_offset: goal.end_offset,
            last_epoch: goal.last_epoch,
        };
        let here = (state.topic_id, state.partition, state.branch());
        if self.pruned.read().holds(here.0, here.1, here.2, from)
            || self.coverage.lock().await.has(&stay).await?
        {
            return Ok(());
        }
        let chain = names::chain_prefix(here.0, here.1, here.2);
        let what = format!("offsets {from} to {} are in no bundle and no chain has them", goal.end_offset);
        self.report.find(self.archive.shelf.place(&chain), what);
        Ok(())
    }

    /// Whether the digests stayed sealed.
    async fn look(&self, state: &PartitionState, name: &str, object: &ObjectEntry) -> Result<bool> {
        let _one = self.permit().await;
        let (topic_id, partition) = (state.topic_id, state.partition);
        let mut reader = ObjectReader::open(self.archive, topic_id, partition, name, object).await?;
        let topic = &reader.head().footer.info.topic;
        if state.topic.as_ref().is_some_and(|expected| expected != topic) {
            let expected = format!("topic {}", state.topic.as_deref().unwrap_or_default());
            return Err(Error::mistaken(self.archive.shelf.place(name), expected, format!("topic {topic}")));
        }
        self.check(&mut reader, state).await
    }

    /// The same of an entry of the journal.
    async fn look_into(&self, state: &PartitionState, entry: &JournalEntry) -> Result<bool> {
        let _one = self.permit().await;
        let mut reader =
            ObjectReader::in_bundle(self.archive, state.topic_id, state.partition, entry).await?;
        self.check(&mut reader, state).await
    }

    async fn check(&self, reader: &mut ObjectReader<'_>, state: &PartitionState) -> Result<bool> {
        if self.options.depth == Depth::Footers {
            return Ok(false);
        }
        let key = match (&reader.head().footer.encryption, self.options.data_keys) {
            (Some(info), Some(keys)) => keys(state.topic_id, info),
            _ => None,
        };
        reader.check_contents(key.as_ref()).await
    }
}
