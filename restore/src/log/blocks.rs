//! A partition's history forward from an offset, as blocks of whole batches.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use varve_archive::{ArchivedLog, ArchivedObject, LogStream, Piece, PieceContent};
use varve_kafka::protocol::{BATCH_HEADER_BYTES, Batch, BatchHeader, Batches, ProtocolError};

use super::damage::Damage;
use super::facts::{Facts, Hole};
use crate::error::{Error, Result};
use crate::history::{KeyCache, TRIES_MAX, has_expired};

/// Of what arrives in smaller pieces a block is made once there is so much.
const BLOCK_BYTES: usize = 1 << 20;
/// Batches that lie in a piece of this size stay there.
const IN_PLACE_BYTES: usize = 256 << 10;
/// Runs of 4 MiB that are fetched ahead.
const READ_AHEAD: usize = 2;

/// Some batches in order, none of them cut.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) first_offset: i64,
    /// Last offset + 1.
    pub(crate) end_offset: i64,
    pub(crate) last_producer_id: i64,
    /// Their bytes where they are: a batch may lie in several.
    parts: Vec<Bytes>,
    /// Last offset of each batch, and where it ends.
    ends: Vec<(i64, usize)>,
}

/// Whole batches of a block.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) parts: Vec<Bytes>,
    pub(crate) bytes: usize,
    /// Where the next batch is looked for.
    pub(crate) end_offset: i64,
    /// Whether these are all that the block has from there on.
    pub(crate) is_rest: bool,
}

impl Block {
    fn new(first_offset: i64) -> Self {
        Self {
            first_offset,
            end_offset: first_offset,
            last_producer_id: -1,
            parts: Vec::new(),
            ends: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.last().map_or(0, |(_, end)| *end)
    }

    pub(crate) fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// In one place.
    pub(crate) fn into_bytes(self) -> Bytes {
        match <[Bytes; 1]>::try_from(self.parts) {
            Ok([bytes]) => bytes,
            Err(parts) => parts.concat().into(),
        }
    }

    /// The batches from the one on that has `offset` or is the next behind it, up to `max_bytes`: `least` at least, if
    /// there are so many. `None` if that one is elsewhere.
    pub(crate) fn from(&self, offset: i64, max_bytes: usize, least: usize) -> Option<Cut> {
        if !(self.first_offset..self.end_offset).contains(&offset) {
            return None;
        }
        let first = self.ends.partition_point(|(last, _)| *last < offset);
        let from = first.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |(_, end)| *end);
        let rest = self.ends.get(first..)?;
        let fits = rest.partition_point(|(_, end)| end.saturating_sub(from) <= max_bytes).max(least);
        let last = fits.checked_sub(1).and_then(|last| rest.get(last));
        let (end_offset, to) = last.map_or((offset, from), |(last, end)| (last.saturating_add(1), *end));
        let is_rest = fits >= rest.len();
        let end_offset = if is_rest { self.end_offset } else { end_offset };
        Some(Cut { parts: self.slice(from..to), bytes: to - from, end_offset, is_rest })
    }

    fn slice(&self, range: Range<usize>) -> Vec<Bytes> {
        let mut before = 0;
        let of = |part: &Bytes| {
            let (from, to) = (range.start.max(before), range.end.min(before + part.len()));
            let slice = (from < to).then(|| part.slice(from - before..to - before));
            before += part.len();
            slice
        };
        self.parts.iter().filter_map(of).collect()
    }

    /// One batch more, that ends at `end` of the block.
    fn add(&mut self, header: &BatchHeader, end: usize) {
        self.first_offset = self.first_offset.min(header.base_offset);
        self.end_offset = header.next_offset();
        self.last_producer_id = self.last_producer_id.max(header.producer_id);
        self.ends.push((header.last_offset(), end));
    }
}

/// See the module.
pub(crate) struct Blocks {
    log: ArchivedLog,
    keys: Arc<KeyCache>,
    facts: Facts,
    /// The next that is looked for.
    next_offset: i64,
    /// Everything below was given out, or is not wanted. Holes belong to what follows them.
    given_offset: i64,
    begun: bool,
    object: Option<Open>,
    damage: Damage,
}

/// The object that is being read.
struct Open {
    object: ArchivedObject,
    name: String,
    stream: LogStream,
    /// Why it is read frame by frame, if it is.
    doubt: Option<Error>,
    /// A batch that has begun, and what was gathered with it; of large pieces only a header that is cut.
    begun: BytesMut,
    /// Or where it lies, the whole header in the first.
    parts: Vec<Bytes>,
    /// With fewer in these there is nothing to take.
    wanted_bytes: usize,
    /// What comes behind it, of a large piece.
    arrived: Bytes,
    /// Where what has begun begins in the log.
    position: u64,
    /// What counts of it ends here.
    end_offset: i64,
}

/// What comes next of an object.
enum Gathered {
    /// In one place, the last batch perhaps cut.
    Run(Bytes),
    /// One batch, in several.
    Batch(Vec<Bytes>),
}

impl Open {
    /// What comes next; `true` with the last.
    async fn gather(&mut self) -> Result<(Gathered, bool)> {
        loop {
            let mut piece = std::mem::take(&mut self.arrived);
            let mut is_large = true;
            if piece.is_empty() {
                match self.stream.next().await? {
                    Some(next) => piece = next,
                    None => {
                        self.join();
                        return Ok((Gathered::Run(self.begun.split().freeze()), true));
                    }
                }
                is_large = piece.len() >= IN_PLACE_BYTES;
            }
            if !is_large {
                self.join();
            }
            if !self.parts.is_empty() {
                let missing = self.wanted_bytes.saturating_sub(self.parts.iter().map(Bytes::len).sum());
                self.arrived = piece.split_off(missing.min(piece.len()));
                let is_whole = piece.len() == missing;
                self.parts.push(piece);
                if is_whole {
                    return Ok((Gathered::Batch(std::mem::take(&mut self.parts)), false));
                }
                continue;
            }
            if is_large && self.begun.is_empty() {
                return Ok((Gathered::Run(piece), false));
            }
            // One byte more than what it was not enough with, at least.
            let mut enough = self.wanted_bytes.max(self.begun.len() + 1);
            if is_large {
                // No more of it than the batch that has begun.
                let missing = enough.saturating_sub(self.begun.len()).min(piece.len());
                self.arrived = piece.split_off(missing);
                self.begun.reserve(enough.saturating_sub(self.begun.len()).min(BLOCK_BYTES));
            } else if self.doubt.is_none() {
                enough = enough.max(BLOCK_BYTES);
            }
            self.begun.extend_from_slice(&piece);
            if self.begun.len() >= enough {
                return Ok((Gathered::Run(self.begun.split().freeze()), false));
            }
        }
    }

    /// What has begun is in one place from now on.
    fn join(&mut self) {
        for part in self.parts.drain(..) {
            self.begun.extend_from_slice(&part);
        }
    }

    /// Keeps what is left of a run: a batch that is cut, or nothing.
    fn keep(&mut self, rest: Bytes) {
        // Its size is known where its header is whole.
        if rest.len() >= BATCH_HEADER_BYTES && self.doubt.is_none() {
            self.parts.push(rest);
        } else {
            self.begun.extend_from_slice(&rest);
        }
    }
}

impl Blocks {
    pub(crate) fn new(log: ArchivedLog, keys: Arc<KeyCache>, facts: Facts, offset: i64) -> Self {
        let damage = Damage::planned(&facts.skipped);
        Self {
            log,
            keys,
            facts,
            next_offset: offset,
            given_offset: offset,
            begun: false,
            object: None,
            damage,
        }
    }

    /// As [`Blocks::new`], and whatever does not hold is passed over: [`Blocks::into_found`] tells it.
    pub(super) fn finding(log: ArchivedLog, keys: Arc<KeyCache>, facts: Facts, offset: i64) -> Self {
        Self { damage: Damage::finding(), ..Self::new(log, keys, facts, offset) }
    }

    pub(super) fn into_found(self) -> Vec<Hole> {
        self.damage.into_found()
    }

    pub(crate) fn given_offset(&self) -> i64 {
        self.given_offset
    }

    /// `None` at the log's end. A block goes on where the one before ended: holes before its first batch are its own.
    pub(crate) async fn next(&mut self) -> Result<Option<Block>> {
        loop {
            if self.next_offset >= self.facts.end_offset {
                return Ok(None);
            }
            if self.object.is_none() && !self.open().await? {
                return Ok(None);
            }
            let Some(mut open) = self.object.take() else { return Ok(None) };
            let mut block = Block::new(self.given_offset);
            let more = match self.fill(&mut open, &mut block).await {
                Err(error) if self.damage.is_passed_over(&error) => {
                    self.pass_over(open, error).await?;
                    continue;
                }
                more => more?,
            };
            if more {
                self.object = Some(open);
            } else {
                // Offsets that no batch has, up to where the object's count.
                let end_offset = self.next_offset.max(open.end_offset);
                self.damage.ends(end_offset)?;
                self.next_offset = end_offset;
            }
            if !block.ends.is_empty() {
                self.given_offset = block.end_offset;
                return Ok(Some(block));
            }
        }
    }

    /// The next object that has batches. Whether there is one.
    async fn open(&mut self) -> Result<bool> {
        let (log, mut tries) = (self.log.clone(), 0);
        let mut pieces = log.pieces(self.next_offset);
        while let Some(piece) = pieces.next().await? {
            let PieceContent::Segment(_) = &piece.content else {
                self.next_offset = self.next_offset.max(piece.end_offset);
                continue;
            };
            if piece.first_offset >= self.facts.end_offset {
                return Ok(false);
            }
            match self.open_piece(&log, &piece).await {
                Err(Error::Archive(e)) if has_expired(&piece, &e) && tries < TRIES_MAX => {
                    tries += 1;
                    pieces = log.pieces(self.next_offset);
                }
                Err(error) if self.damage.is_passed_over(&error) => {
                    let end = piece.end_offset.min(self.facts.end_offset);
                    self.damage.begins(self.next_offset.max(piece.first_offset), &error);
                    self.damage.ends(end)?;
                    self.next_offset = self.next_offset.max(end);
                }
                Ok(None) => {}
                opened => {
                    self.object = opened?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn open_piece(&mut self, log: &ArchivedLog, piece: &Piece) -> Result<Option<Open>> {
        let Some(mut object) = log.open(piece).await? else { return Ok(None) };
        self.keys.unlock(&mut object).await?;
        let position = match object.position(self.next_offset).await.map_err(Error::from) {
            // The log may hold where its index does not.
            Err(error) if self.damage.is_passed_over(&error) => 0,
            position => position?,
        };
        let stream = object.read(position, READ_AHEAD)?;
        Ok(Some(Open {
            name: object.name().to_owned(),
            stream,
            doubt: None,
            begun: BytesMut::new(),
            parts: Vec::new(),
            wanted_bytes: 0,
            arrived: Bytes::new(),
            position,
            end_offset: piece.end_offset.min(self.facts.end_offset),
            object,
        }))
    }

    /// Something of `open` does not hold. First it is read again, frame by frame, up to what does not; then on from
    /// the next batch behind that.
    async fn pass_over(&mut self, mut open: Open, error: Error) -> Result<()> {
        open.begun.clear();
        open.parts.clear();
        (open.arrived, open.wanted_bytes) = (Bytes::new(), 0);
        if open.doubt.is_none() {
            open.stream = open.object.read_frames(open.position)?;
            open.doubt = Some(error);
            self.object = Some(open);
            return Ok(());
        }
        let frame_bytes = u64::from(open.object.footer().frame_bytes).max(1);
        let frame = open.stream.position() / frame_bytes;
        self.damage.begins(self.next_offset, &error);
        let behind = open.object.position_behind(frame.saturating_add(1).saturating_mul(frame_bytes)).await;
        match behind.map_err(Error::from) {
            Ok(Some(position)) => {
                open.stream = open.object.read(position, READ_AHEAD)?;
                (open.position, open.doubt) = (position, None);
                self.object = Some(open);
            }
            Err(error) if !self.damage.is_passed_over(&error) => return Err(error),
            // Nothing tells where the next batch begins.
            Ok(None) | Err(_) => {
                let end_offset = self.next_offset.max(open.end_offset);
                self.damage.ends(end_offset)?;
                self.next_offset = end_offset;
            }
        }
        Ok(())
    }

    /// Whether the object has more.
    async fn fill(&mut self, open: &mut Open, block: &mut Block) -> Result<bool> {
        loop {
            let (gathered, is_last) = open.gather().await?;
            let run = match gathered {
                Gathered::Run(run) => run,
                Gathered::Batch(parts) => {
                    if self.take_one(open, parts, block)? {
                        return Ok(false);
                    }
                    if !block.ends.is_empty() {
                        return Ok(true);
                    }
                    continue;
                }
            };
            let (seen, ended) = self.take(open, &run, block)?;
            if ended {
                return Ok(false);
            }
            open.position += seen as u64;
            let rest = run.slice(seen..);
            if is_last && !rest.is_empty() {
                let what = format!("{} at {}", open.name, open.position);
                return Err(Error::unexpected(
                    what,
                    "a whole batch",
                    format!("{} bytes that are none", rest.len()),
                ));
            }
            if is_last && let Some(doubt) = open.doubt.take() {
                // Each frame holds, and yet not all of them together: who knows which.
                return Err(Error::unexpected(&open.name, "the same each time it is read", doubt));
            }
            open.keep(rest);
            if is_last {
                return Ok(false);
            }
            if !block.ends.is_empty() {
                return Ok(true);
            }
        }
    }

    /// The whole batches of a run. How many bytes they are, and whether what counts of the object ends with them.
    fn take(&mut self, open: &mut Open, run: &Bytes, block: &mut Block) -> Result<(usize, bool)> {
        let name = open.name.clone();
        let protocol = |source| Error::Protocol { object: name.clone(), source };
        open.wanted_bytes = 0;
        // Of the run: what is not wanted before, what is, and what is seen.
        let (mut from, mut to, mut seen, mut ended) = (0, 0, 0, false);
        for batch in Batches::new(run.clone(), open.position) {
            let batch = match batch {
                Err(ProtocolError::Truncated { needed, .. }) => {
                    // Of a header that is cut, it is what one field of it needs.
                    open.wanted_bytes = usize::try_from(needed).unwrap_or(usize::MAX).max(BATCH_HEADER_BYTES);
                    break;
                }
                batch => batch.map_err(protocol)?,
            };
            let end = seen + batch.bytes.len();
            match self.place(open, &batch.header, batch.position)? {
                Place::Behind => {
                    ended = true;
                    break;
                }
                Place::Before => (seen, from, to) = (end, end, end),
                Place::Within => {
                    batch.check_crc().map_err(protocol)?;
                    self.accept(&batch.header)?;
                    block.add(&batch.header, end - from);
                    (seen, to) = (end, end);
                }
            }
        }
        if from < to {
            block.parts.push(run.slice(from..to));
        }
        Ok((seen, ended))
    }

    /// The same of one batch in several places.
    fn take_one(&mut self, open: &mut Open, parts: Vec<Bytes>, block: &mut Block) -> Result<bool> {
        let name = open.name.clone();
        let protocol = |source| Error::Protocol { object: name.clone(), source };
        let first = parts.first().map(Bytes::as_ref).unwrap_or_default();
        let header = BatchHeader::parse(first, open.position).map_err(protocol)?;
        match self.place(open, &header, open.position)? {
            Place::Behind => return Ok(true),
            Place::Before => {}
            Place::Within => {
                Batch::check_crc_of(&header, open.position, &parts).map_err(protocol)?;
                self.accept(&header)?;
                block.add(&header, parts.iter().map(Bytes::len).sum());
                block.parts = parts;
            }
        }
        open.position += header.size_bytes();
        open.wanted_bytes = 0;
        Ok(false)
    }

    fn accept(&mut self, header: &BatchHeader) -> Result<()> {
        self.begun = true;
        self.damage.ends(header.base_offset)?;
        self.next_offset = header.next_offset();
        Ok(())
    }

    /// A batch lies within what counts; only the one that the reading begins with may begin before.
    fn place(&self, open: &Open, header: &BatchHeader, position: u64) -> Result<Place> {
        // One that lies across the end of what is wanted is not wanted.
        if header.base_offset >= open.end_offset || header.next_offset() > self.facts.end_offset {
            return Ok(Place::Behind);
        }
        if header.last_offset() < self.next_offset {
            return Ok(Place::Before);
        }
        let before = header.base_offset < self.next_offset && self.begun;
        if before || header.next_offset() > open.end_offset {
            let what = format!("{} at {position}", open.name);
            let expected = format!("a batch within offsets {} to {}", self.next_offset, open.end_offset - 1);
            let found = format!("{} to {}", header.base_offset, header.last_offset());
            return Err(Error::unexpected(what, expected, found));
        }
        Ok(Place::Within)
    }
}

/// Of a batch, by what counts.
enum Place {
    Before,
    Within,
    Behind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_whole_wherever_their_bytes_lie() {
        let bytes: Bytes = (0..90_u8).collect();
        // Offsets 10 to 12, 13 to 19 and, behind a hole, 25.
        let ends = vec![(12, 30), (19, 70), (25, 90)];
        for places in [vec![0, 90], vec![0, 30, 90], vec![0, 1, 45, 69, 90]] {
            let parts = places.windows(2).map(|place| bytes.slice(place[0]..place[1])).collect();
            let block = Block { parts, ends: ends.clone(), end_offset: 26, ..Block::new(10) };
            assert_eq!(block.len(), 90);
            let cut = |offset, max_bytes, least| {
                let cut = block.from(offset, max_bytes, least)?;
                assert_eq!(cut.bytes, cut.parts.iter().map(Bytes::len).sum::<usize>());
                Some((cut.parts.concat(), cut.end_offset, cut.is_rest))
            };
            let some =
                |place: Range<usize>, end_offset, is_rest| Some((bytes[place].to_vec(), end_offset, is_rest));
            assert_eq!(cut(10, 90, 1), some(0..90, 26, true), "{places:?}");
            assert_eq!(cut(11, 89, 1), some(0..70, 20, false), "{places:?}");
            assert_eq!(cut(13, 1, 1), some(30..70, 20, false), "{places:?}");
            assert_eq!(cut(13, 39, 0), some(0..0, 13, false), "{places:?}");
            assert_eq!(cut(20, 20, 0), some(70..90, 26, true), "{places:?}");
            assert!(cut(26, 90, 1).is_none() && cut(9, 90, 1).is_none(), "{places:?}");
            assert_eq!(block.clone().into_bytes(), bytes);
        }
    }
}
