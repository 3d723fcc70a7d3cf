//! One partition: its branches, their chains, and the commit.
//!
//! Creating the object under the chain's end, if it is absent, is the commit, and there is no other. Nothing is
//! held here between two calls, so that a crash leaves nothing but what was committed.

use bytes::Bytes;
use varve_format::{EpochStart, Id};
use varve_store::{Create, Key, ObjectMeta, PutOptions};

use crate::archive::Archive;
use crate::canonical::Record;
use crate::error::{Error, Kind, Result};
use crate::hash::Hash;
use crate::head::{ObjectHead, Place};
use crate::lineage::lineage;
use crate::names;
use crate::record::branch::BranchRecord;
use crate::shelf::Created;

pub(crate) const PAGE: usize = 1000;

/// One partition of a topic in an archive.
#[derive(Clone, Copy, Debug)]
pub struct Partition<'a> {
    pub(crate) archive: &'a Archive,
    pub topic_id: Id,
    pub partition: i32,
}

/// Where a chain ends, and its last object, if it has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainEnd {
    pub end_offset: i64,
    pub last: Option<Box<ObjectHead>>,
    /// What is wrong with what lies at the end, where something does that is no object of the chain. Nothing can
    /// be appended: a branch goes on from there.
    pub damaged: Option<String>,
}

/// What an attempt to commit came to.
#[derive(Debug)]
pub enum Commit {
    /// Ours: the chain ends at its end now, or later.
    Committed,
    /// Another was first: go on from its end, after a look whether the source continues it.
    Lost(Box<ObjectHead>),
}

/// What an attempt to start a branch came to.
#[derive(Debug)]
pub enum Started {
    Ours,
    /// The number is another's branch, which is the current one now.
    Taken(Box<BranchRecord>),
}

impl<'a> Partition<'a> {
    pub fn archive(&self) -> &'a Archive {
        self.archive
    }

    fn place(&self, first_offset: i64) -> Place {
        Place { topic_id: self.topic_id, partition: self.partition, first_offset }
    }

    /// Where the object that begins at `first_offset` lies.
    pub fn object_name(&self, branch: u32, first_offset: i64) -> String {
        names::object(self.topic_id, self.partition, branch, first_offset)
    }

    /// # Errors
    /// Of the store.
    pub fn object_key(&self, branch: u32, first_offset: i64) -> Result<Key> {
        self.archive.shelf.key(&self.object_name(branch, first_offset))
    }

    /// The head of the object that begins at `first_offset`; `None` if there is none.
    ///
    /// # Errors
    /// Of the store; whatever makes the object none of this chain.
    pub async fn head(&self, branch: u32, first_offset: i64) -> Result<Option<ObjectHead>> {
        let name = self.object_name(branch, first_offset);
        self.archive.head(&name, self.place(first_offset)).await
    }

    /// Records of branches above `known`, in order, with their hashes. Branch 0 has none. Numbers that hold no
    /// record of this partition are stepped over: verification names them.
    ///
    /// # Errors
    /// Of the store; a record of a later version.
    pub async fn branches(&self, known: u32) -> Result<Vec<(BranchRecord, Hash)>> {
        let prefix = names::branches_prefix(self.topic_id, self.partition);
        let mut found = Vec::new();
        let mut after = names::branch(self.topic_id, self.partition, known);
        loop {
            let page = self.archive.shelf.list(&prefix, Some(&after), PAGE).await?;
            for object in &page.objects {
                let name = self.archive.shelf.name(&object.key);
                let number = names::number(name, &prefix, 10, ".json").and_then(|n| u32::try_from(n).ok());
                let Some(number) = number else { continue };
                match self.branch(number).await {
                    Ok(record) => found.extend(record),
                    Err(e) if e.kind() == Kind::Corrupt => {}
                    Err(e) => return Err(e),
                }
            }
            match page.objects.last() {
                Some(last) if page.more => self.archive.shelf.name(&last.key).clone_into(&mut after),
                _ => return Ok(found),
            }
        }
    }

    /// The record of a branch, and its hash.
    ///
    /// # Errors
    /// Of the store; [`Error::Mistaken`] for a record of another place.
    pub async fn branch(&self, branch: u32) -> Result<Option<(BranchRecord, Hash)>> {
        let name = names::branch(self.topic_id, self.partition, branch);
        let Some((record, bytes)) = self.archive.shelf.record::<BranchRecord>(&name).await? else {
            return Ok(None);
        };
        self.check_branch(&name, branch, &record)?;
        Ok(Some((record, self.archive.hash().of(&[&bytes]))))
    }

    fn check_branch(&self, name: &str, branch: u32, record: &BranchRecord) -> Result<()> {
        let found = (record.topic_id, record.partition, record.branch);
        let expected = (self.topic_id, self.partition, branch);
        if found == expected {
            return Ok(());
        }
        let place = self.archive.shelf.place(name);
        Err(Error::mistaken(place, format!("{expected:?}"), format!("{found:?}")))
    }

    /// Starts a branch under `record`'s number, or the next one behind those that hold no record. The number is in
    /// `record` then.
    ///
    /// # Errors
    /// Of the store; [`Error::Mistaken`] for a record of another partition.
    pub async fn start_branch(&self, record: &mut BranchRecord) -> Result<Started> {
        loop {
            let name = names::branch(self.topic_id, self.partition, record.branch);
            self.check_branch(&name, record.branch, record)?;
            let damaged = self.archive.shelf.damaged(&name);
            let bytes = record.encode().map_err(&damaged)?;
            let Created::Other(found) = self.archive.shelf.create(&name, Bytes::from(bytes)).await? else {
                return Ok(Started::Ours);
            };
            let found = BranchRecord::decode(&found).map_err(&damaged);
            let found = found.and_then(|r| self.check_branch(&name, record.branch, &r).map(|()| r));
            match found {
                Ok(found) => return Ok(Started::Taken(Box::new(found))),
                Err(e) if e.kind() == Kind::Corrupt => record.branch = record.branch.saturating_add(1),
                Err(e) => return Err(e),
            }
        }
    }

    /// A name that sorts before that of every object from `from` on, and behind those before it.
    fn before(&self, branch: u32, from: i64) -> String {
        match from.checked_sub(1) {
            Some(last @ 0..) => self.object_name(branch, last),
            _ => {
                let prefix = names::chain_prefix(self.topic_id, self.partition, branch);
                prefix.trim_end_matches('/').to_owned()
            }
        }
    }

    /// Where the chain ends now. `start` is where it begins; `from` is the first offset of an object of it that
    /// is known, or `start`. A damaged object is no part of it: nothing can follow one.
    ///
    /// # Errors
    /// Of the store; [`Error::Missing`] for an object that was listed; an object of a later version.
    pub async fn chain_end(&self, branch: u32, start: i64, from: i64) -> Result<ChainEnd> {
        let Some(mut first_offset) = self.last_listed(branch, from).await? else {
            if from > start {
                return Err(self.missing(&self.object_name(branch, from)));
            }
            return Ok(ChainEnd { end_offset: start, last: None, damaged: None });
        };
        let mut damaged = None;
        loop {
            let name = self.object_name(branch, first_offset);
            match self.head(branch, first_offset).await {
                Ok(Some(head)) => {
                    let end_offset = head.end_offset();
                    let damaged = damaged.filter(|(at, _)| *at == end_offset).map(|(_, what)| what);
                    return Ok(ChainEnd { end_offset, last: Some(Box::new(head)), damaged });
                }
                Ok(None) => return Err(self.missing(&name)),
                Err(e) if e.kind() == Kind::Corrupt => damaged = Some((first_offset, e.to_string())),
                Err(e) => return Err(e),
            }
            match first_offset.checked_sub(1).filter(|before| *before >= start) {
                Some(before) => match self.last_at_or_below(branch, before).await? {
                    Some(before) if before >= start => first_offset = before,
                    _ => break,
                },
                None => break,
            }
        }
        let damaged = damaged.filter(|(at, _)| *at == start).map(|(_, what)| what);
        Ok(ChainEnd { end_offset: start, last: None, damaged })
    }

    /// The first offset of the last name in a chain from `from` on.
    async fn last_listed(&self, branch: u32, from: i64) -> Result<Option<i64>> {
        let prefix = names::chain_prefix(self.topic_id, self.partition, branch);
        let mut after = Some(self.before(branch, from));
        let mut last = None;
        loop {
            let page = self.archive.shelf.list(&prefix, after.as_deref(), PAGE).await?;
            let names = page.objects.iter().map(|object| self.archive.shelf.name(&object.key));
            last = names.filter_map(|name| names::first_offset(name, &prefix)).next_back().or(last);
            match page.objects.last() {
                Some(object) if page.more => after = Some(self.archive.shelf.name(&object.key).to_owned()),
                _ => return Ok(last),
            }
        }
    }

    /// The first offset of the last name in a chain that is not above `offset`: looked for near it, then further
    /// and further away.
    pub(crate) async fn last_at_or_below(&self, branch: u32, offset: i64) -> Result<Option<i64>> {
        let mut span = 1_i64;
        loop {
            let low = offset.saturating_sub(span).max(0);
            let (mut from, mut found) = (low, None);
            loop {
                let (page, more) = self.page(branch, from).await?;
                found = page.iter().map(|(first, _)| *first).take_while(|f| *f <= offset).last().or(found);
                match page.last() {
                    Some((last, _)) if more && *last < offset => from = last.saturating_add(1),
                    _ => break,
                }
            }
            if found.is_some() || low == 0 {
                return Ok(found);
            }
            span = span.saturating_mul(64);
        }
    }

    /// The names of the chain from `from` on, one page: first offsets, with what the store says of them, and
    /// whether more follow.
    pub(crate) async fn page(&self, branch: u32, from: i64) -> Result<(Vec<(i64, ObjectMeta)>, bool)> {
        let prefix = names::chain_prefix(self.topic_id, self.partition, branch);
        let mut after = Some(self.before(branch, from));
        loop {
            let page = self.archive.shelf.list(&prefix, after.as_deref(), PAGE).await?;
            let next = page.objects.last().map(|object| self.archive.shelf.name(&object.key).to_owned());
            let found: Vec<_> = page
                .objects
                .into_iter()
                .filter_map(|o| Some((names::first_offset(self.archive.shelf.name(&o.key), &prefix)?, o)))
                .collect();
            if !found.is_empty() || !page.more {
                return Ok((found, page.more));
            }
            after = next;
        }
    }

    /// How many objects the store has of a chain from `from` on, and their bytes: by names alone.
    ///
    /// # Errors
    /// Of the store.
    pub async fn tally(&self, branch: u32, from: i64) -> Result<(u64, u64)> {
        let (mut objects, mut bytes, mut from) = (0_u64, 0_u64, from);
        loop {
            let (page, more) = self.page(branch, from).await?;
            objects = objects.saturating_add(page.len() as u64);
            bytes = page.iter().fold(bytes, |sum, (_, meta)| sum.saturating_add(meta.size_bytes));
            match page.last() {
                Some((last, _)) if more => from = last.saturating_add(1),
                _ => return Ok((objects, bytes)),
            }
        }
    }

    /// Where versions are kept, a listing of names that are going to be read one by one: so those that were overwritten
    /// are known.
    async fn look_through(&self, branch: u32, from: i64, end: i64) -> Result<()> {
        let mut from = from;
        while self.archive.shelf.oldest().versions().is_some() && from < end {
            match self.page(branch, from).await? {
                (page, true) => match page.last() {
                    Some((last, _)) => from = last.saturating_add(1),
                    None => break,
                },
                _ => break,
            }
        }
        Ok(())
    }

    /// Where the first object of the chain begins that does not begin below `from`.
    pub(crate) async fn first_from(&self, branch: u32, from: i64) -> Result<Option<i64>> {
        let prefix = names::chain_prefix(self.topic_id, self.partition, branch);
        let parse = |name: &str| names::first_offset(name, &prefix);
        let found = self.archive.shelf.first(&prefix, Some(self.before(branch, from)), parse).await?;
        Ok(found.map(|(first, _)| first))
    }

    /// The epochs of the lineage of `branch`, whose chain ends at `end_offset`, object by object. `records` are
    /// those of all branches.
    ///
    /// # Errors
    /// Of the store; whatever makes an object none of its chain.
    pub async fn lineage_epochs(
        &self,
        records: &[BranchRecord],
        branch: u32,
        end_offset: i64,
    ) -> Result<Vec<EpochStart>> {
        let mut epochs: Vec<EpochStart> = Vec::new();
        let record = |number: u32| records.iter().find(|r| r.branch == number);
        for stretch in lineage(branch, record) {
            let end = stretch.end_offset.unwrap_or(end_offset);
            let mut offset = stretch.start_offset;
            self.look_through(stretch.branch, offset, end).await?;
            while offset < end {
                let Some(head) = self.head(stretch.branch, offset).await? else { break };
                for e in head.epochs().iter().filter(|e| e.start_offset < end) {
                    if epochs.last().is_none_or(|l| l.epoch < e.epoch && l.start_offset < e.start_offset) {
                        epochs.push(*e);
                    }
                }
                offset = head.end_offset();
            }
        }
        Ok(epochs)
    }

    /// Commits a whole object at `first_offset`, which must be the chain's end.
    ///
    /// # Errors
    /// [`Error::Mistaken`] and others for an object that does not belong there: nothing was sent. Of the store:
    /// whether it was committed is not known, and the chain's end tells.
    pub async fn commit(&self, branch: u32, first_offset: i64, object: Bytes) -> Result<Commit> {
        let name = self.object_name(branch, first_offset);
        let bytes = object.len() as u64;
        let ours = ObjectHead::read(self.archive.hash(), self.place(first_offset), &name, &object, bytes)?;
        let options = PutOptions { create: Create::IfAbsent, storage_class: None };
        let key = self.archive.shelf.key(&name)?;
        let outcome = self.archive.shelf.store().put(&key, object, &options).await;
        self.settle(branch, first_offset, ours.footer.object_id, outcome).await
    }

    /// What became of an object of ours that was put, uploaded or copied to `first_offset` by create-if-absent.
    /// An answer that was lost is found out.
    ///
    /// # Errors
    /// `outcome`'s, where the name is free or can't be looked at; whatever makes what is there none of this chain.
    pub async fn settle(
        &self,
        branch: u32,
        first_offset: i64,
        object_id: Id,
        outcome: varve_store::Result<ObjectMeta>,
    ) -> Result<Commit> {
        let Err(error) = outcome else { return Ok(Commit::Committed) };
        match self.head(branch, first_offset).await {
            Ok(Some(head)) if head.footer.object_id == object_id => Ok(Commit::Committed),
            Ok(Some(head)) => Ok(Commit::Lost(Box::new(head))),
            // What the store had to say of the commit tells more than what it says of the look.
            Ok(None) | Err(Error::Store(_)) => Err(error.into()),
            Err(other) => Err(other),
        }
    }

    /// Where `branch` begins, by its record.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is no such branch.
    pub async fn start_offset(&self, branch: u32) -> Result<i64> {
        if branch == 0 {
            return Ok(0);
        }
        let name = names::branch(self.topic_id, self.partition, branch);
        let found = self.branch(branch).await?.ok_or_else(|| self.missing(&name))?;
        Ok(found.0.start_offset)
    }

    pub(crate) fn missing(&self, name: &str) -> Error {
        Error::Missing { object: self.archive.shelf.place(name) }
    }
}
