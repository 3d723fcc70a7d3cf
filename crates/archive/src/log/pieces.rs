//! The walk over a partition's pieces, in bounded memory: one path of blocks, or one page of a listing.

use varve_store::Kind;

use super::listing::ChainListing;
use super::object::{At, Expected, OpenObject};
use super::opened::ArchivedObject;
use super::{ArchivedLog, Part};
use crate::coverage::{Coverage, Stay};
use crate::error::{Error, Result};
use crate::head::{ObjectHead, Place};
use crate::manifest::ChainObjects;
use crate::names;
use crate::record::branch::epoch_before;
use crate::record::object::ObjectEntry;
use crate::record::state::JournalEntry;

/// Some offsets of a partition, and where they are.
#[derive(Clone, Debug)]
pub struct Piece {
    pub branch: u32,
    /// The first offset that counts of it; its object may begin before.
    pub first_offset: i64,
    /// Last offset that counts + 1; its object may go on.
    pub end_offset: i64,
    pub content: PieceContent,
}

/// What a piece is.
#[derive(Clone, Debug)]
pub enum PieceContent {
    Segment(PieceObject),
    /// Not archived; its object says why.
    Gap(PieceObject),
    /// Deleted on purpose, as is declared.
    Pruned,
}

/// The object of a piece, not opened yet.
#[derive(Clone, Debug)]
pub struct PieceObject {
    pub(super) at: At,
    pub(super) expected: Expected,
    /// Where it was looked up by its footer anyway.
    pub(super) head: Option<Box<ObjectHead>>,
    from_journal: bool,
    log_bytes: Option<u64>,
}

impl PieceObject {
    /// For messages.
    pub fn name(&self) -> &str {
        &self.at.name
    }

    /// Of the whole object.
    pub fn bytes(&self) -> u64 {
        self.at.bytes
    }

    /// Of the whole object's plain log; `None` if that needs its footer.
    pub fn log_bytes(&self) -> Option<u64> {
        self.log_bytes
    }

    /// First offset and end of the whole object.
    pub fn offsets(&self) -> (i64, i64) {
        (self.expected.place.first_offset, self.expected.end_offset)
    }

    pub fn is_from_journal(&self) -> bool {
        self.from_journal
    }
}

impl Piece {
    pub fn object(&self) -> Option<&PieceObject> {
        match &self.content {
            PieceContent::Segment(object) | PieceContent::Gap(object) => Some(object),
            PieceContent::Pruned => None,
        }
    }
}

/// An object of a chain as it was found.
struct Found {
    entry: ObjectEntry,
    head: Option<Box<ObjectHead>>,
}

enum Source<'l> {
    Known(ChainObjects<'l>),
    Listed(ChainListing),
}

/// See [`ArchivedLog::pieces`].
pub struct Pieces<'l> {
    log: &'l ArchivedLog,
    /// The next offset that is wanted.
    at: i64,
    part: usize,
    source: Option<Source<'l>>,
    held: Option<Found>,
    entry: usize,
    /// What takes the place of bundles that are gone.
    behind: Option<Part>,
    done: bool,
}

impl std::fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").field("at", &self.at).finish_non_exhaustive()
    }
}

impl<'l> Pieces<'l> {
    pub(super) fn new(log: &'l ArchivedLog, offset: i64) -> Self {
        let at = offset.max(log.start_offset());
        Self { log, at, part: 0, source: None, held: None, entry: 0, behind: None, done: false }
    }

    /// The next piece; `None` at the recovery point.
    ///
    /// # Errors
    /// Of the store; [`Error::Offsets`] for what is missing or damaged. It is the end.
    pub async fn next(&mut self) -> Result<Option<Piece>> {
        if self.done {
            return Ok(None);
        }
        let next = self.step().await;
        self.done = !matches!(next, Ok(Some(_)));
        next
    }

    async fn step(&mut self) -> Result<Option<Piece>> {
        let log = self.log;
        while let Some(part) = log.stretches.get(self.part) {
            if let Some(piece) = self.chain(part).await? {
                return Ok(Some(piece));
            }
            self.part = self.part.saturating_add(1);
            (self.source, self.held) = (None, None);
        }
        while let Some(entry) = log.journal.get(self.entry).filter(|_| self.behind.is_none()) {
            if entry.end_offset <= self.at {
                self.entry = self.entry.saturating_add(1);
                continue;
            }
            if let Some(piece) = self.journal_piece(entry).await? {
                self.entry = self.entry.saturating_add(1);
                return Ok(Some(piece));
            }
            // Its bundle expired, so the chain has it by now.
            self.behind = Some(self.instead(entry.branch).await?);
        }
        if self.behind.is_none() && self.at < log.end_offset {
            // All of the snapshot's bundles are gone.
            self.behind = Some(self.instead(log.branch()).await?);
        }
        match self.behind.clone() {
            Some(part) => self.chain(&part).await,
            None => Ok(None),
        }
    }

    /// What the chain has in place of bundles that are gone. It must be what they held.
    async fn instead(&self, branch: u32) -> Result<Part> {
        let log = self.log;
        let last_epoch = match (&log.goal, log.journal.last()) {
            (Some(goal), _) => goal.last_epoch,
            (None, Some(last)) => epoch_before(&last.leader_epochs, last.end_offset),
            (None, None) => None,
        };
        let stay = Stay {
            topic_id: log.topic_id,
            partition: log.partition,
            branch,
            first_offset: self.at,
            end_offset: log.end_offset,
            last_epoch,
        };
        let pruned = log.pruned.end_of(log.topic_id, log.partition, branch, self.at).is_some();
        if !pruned && !Coverage::new(&log.archive).has(&stay).await? {
            let object = log.archive.shelf().place(&names::chain_prefix(log.topic_id, log.partition, branch));
            return Err(Error::Missing { object }.at_offsets(self.at, log.end_offset));
        }
        Ok(Part {
            branch,
            start_offset: log.chain_end(),
            end_offset: log.end_offset,
            known: None,
            listed: true,
        })
    }

    /// The next piece of a stretch; `None` behind its end.
    async fn chain(&mut self, part: &Part) -> Result<Option<Piece>> {
        while self.at < part.end_offset {
            let found = match self.held.take() {
                Some(found) => Some(found),
                None => self.found(part).await?,
            };
            let log = self.log;
            let from = found.as_ref().map_or(part.end_offset, |f| f.entry.first_offset).min(part.end_offset);
            if from > self.at {
                let ranges = (log.topic_id, log.partition, part.branch);
                let end = log.pruned.end_of(ranges.0, ranges.1, ranges.2, self.at).map(|end| end.min(from));
                self.held = found;
                return match end {
                    Some(end) => Ok(Some(self.piece(part.branch, end, PieceContent::Pruned))),
                    None => Err(self.hole(part, from)),
                };
            }
            let Some(Found { entry, head }) = found else { return Err(self.hole(part, part.end_offset)) };
            if entry.end_offset <= self.at {
                continue;
            }
            let end = entry.end_offset.min(part.end_offset);
            if log.pruned.holds(log.topic_id, log.partition, part.branch, entry.first_offset) {
                return Ok(Some(self.piece(part.branch, end, PieceContent::Pruned)));
            }
            let name = names::object(log.topic_id, log.partition, part.branch, entry.first_offset);
            let place =
                Place { topic_id: log.topic_id, partition: log.partition, first_offset: entry.first_offset };
            let shelf = log.archive.shelf();
            let at = At {
                key: shelf.key(&name)?,
                name: shelf.place(&name),
                origin: 0,
                bytes: entry.bytes,
                whole: true,
                version: entry.version.clone(),
            };
            let expected = Expected { place, end_offset: entry.end_offset, footer: entry.footer };
            let log_bytes = Some(entry.log_bytes);
            let object = PieceObject { at, expected, head, from_journal: false, log_bytes };
            let gap = entry.is_gap();
            let content = if gap { PieceContent::Gap(object) } else { PieceContent::Segment(object) };
            return Ok(Some(self.piece(part.branch, end, content)));
        }
        Ok(None)
    }

    fn piece(&mut self, branch: u32, end_offset: i64, content: PieceContent) -> Piece {
        let first_offset = self.at;
        self.at = end_offset;
        Piece { branch, first_offset, end_offset, content }
    }

    fn hole(&self, part: &Part, end: i64) -> Error {
        let prefix = names::object(self.log.topic_id, self.log.partition, part.branch, self.at);
        let object = self.log.archive.shelf().place(&prefix);
        Error::Missing { object }.at_offsets(self.at, end)
    }

    /// The next object of the chain, from the one on that holds the offset wanted.
    async fn found(&mut self, part: &Part) -> Result<Option<Found>> {
        let log = self.log;
        let partition = log.archive.partition(log.topic_id, log.partition);
        loop {
            match &mut self.source {
                Some(Source::Known(objects)) => match objects.next().await {
                    Ok(Some(entry)) => return Ok(Some(Found { entry, head: None })),
                    Ok(None) if part.listed => self.source = Some(self.listing(part).await?),
                    Ok(None) => return Ok(None),
                    Err(e) => return Err(e.at_offsets(self.at, part.end_offset)),
                },
                Some(Source::Listed(listing)) => {
                    let next = listing.next(partition, &log.pruned).await?;
                    return Ok(next.map(|(head, meta)| Found {
                        entry: head.entry(meta.version),
                        head: Some(Box::new(head)),
                    }));
                }
                None => {
                    // The same part, as the log holds it: this one may be a copy.
                    let known = log.stretches.get(self.part).and_then(|p| p.known.as_ref());
                    match known.filter(|k| part.known.is_some() && self.at < k.end_offset) {
                        Some(known) => {
                            let objects = log.archive.objects_from(known, self.at);
                            self.source = Some(Source::Known(objects));
                        }
                        None => self.source = Some(self.listing(part).await?),
                    }
                }
            }
        }
    }

    /// What the store has of a chain, behind what is known of it.
    async fn listing(&self, part: &Part) -> Result<Source<'l>> {
        let partition = self.log.archive.partition(self.log.topic_id, self.log.partition);
        let known = part.known.as_ref().map_or(part.start_offset, |k| k.end_offset);
        let listing = ChainListing::from(partition, part.branch, known.min(self.at), self.at).await?;
        Ok(Source::Listed(listing))
    }

    /// `None` if the bundle is gone.
    async fn journal_piece(&mut self, entry: &JournalEntry) -> Result<Option<Piece>> {
        let log = self.log;
        let shelf = log.archive.shelf();
        let name = names::bundle(&entry.archiver, entry.sequence);
        let key = shelf.key(&name)?;
        if entry.first_offset > self.at {
            let object = shelf.place(&name);
            return Err(Error::Missing { object }.at_offsets(self.at, entry.first_offset));
        }
        match shelf.store().head(&key).await {
            Ok(_) => {}
            Err(e) if e.kind == Kind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        let place =
            Place { topic_id: log.topic_id, partition: log.partition, first_offset: entry.first_offset };
        let at = At {
            key,
            name: shelf.place(&name),
            origin: entry.position,
            bytes: entry.bytes,
            whole: false,
            version: None,
        };
        let expected = Expected { place, end_offset: entry.end_offset, footer: entry.footer };
        let object = PieceObject { at, expected, head: None, from_journal: true, log_bytes: None };
        let end = entry.end_offset.min(log.end_offset);
        Ok(Some(self.piece(entry.branch, end, PieceContent::Segment(object))))
    }
}

impl ArchivedLog {
    /// Opens the object of a piece: its head is fetched and held against what names it. `None` of what was pruned.
    ///
    /// # Errors
    /// [`Error::Offsets`]: of the store; [`Error::Missing`] in it for an object that is not there, or was taken
    /// away since the walk: an entry of the journal whose bundle expired is in the chain then, and a new walk from
    /// the piece's first offset finds it.
    pub async fn open(&self, piece: &Piece) -> Result<Option<ArchivedObject>> {
        let Some(object) = piece.object() else { return Ok(None) };
        let offsets = (piece.first_offset, piece.end_offset);
        let store = self.archive.shelf().oldest().clone();
        let opened = match &object.head {
            Some(head) => Ok(OpenObject::of(store, object.at.clone(), head.as_ref().clone())),
            None => OpenObject::open(store, self.archive.hash(), object.at.clone(), &object.expected).await,
        };
        let opened = opened.map_err(|e| e.at_offsets(offsets.0, offsets.1))?;
        Ok(Some(ArchivedObject::new(opened, offsets)))
    }
}
