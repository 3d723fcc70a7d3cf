//! Reads a copy's log from an offset on, in large pieces: whole batches, each checked, in their order, up to the limit.
//!
//! Nothing leaves here that is not: of magic 2, right in its CRC, next in its log (beyond what the cleaner left out),
//! of the leader epoch that the copy's checkpoint says, and below the limit. What is not is a [`Fault`], with the
//! offset at which it can be gone on, if that is known.

use bytes::Bytes;
use varve_kafka::protocol::{BATCH_HEADER_BYTES, Batch, BatchHeader, ProtocolError};

use super::error::{Fault, Result};
use super::files::Blob;
use super::fingerprint::Fingerprint;
use super::log_dir::Replica;

/// Brokers take no larger ones, short of a configuration that nobody has: a length beyond it is none.
const BATCH_MAX_BYTES: u64 = 256 << 20;

/// Where a copy can't be read on.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) offset: i64,
    /// The next offset that it can give.
    pub(crate) resume: Option<i64>,
    pub(crate) fault: Fault,
}

pub(crate) enum Read {
    Batches {
        records: Bytes,
        first: Box<BatchHeader>,
    },
    /// The limit is reached.
    End,
    Broken(Broken),
}

pub(crate) struct Reader {
    replica: Replica,
    blob: Option<(i64, Blob)>,
    position: u64,
    /// The next offset.
    pub(crate) offset: i64,
    /// Nothing was read yet: the first batch may begin before `offset`.
    fresh: bool,
    /// The first batch that is not asked for by a larger piece.
    wanted_bytes: usize,
    /// Of all that was read, if somebody compares.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// What came of one piece.
struct Taken {
    /// Where what is kept begins, and ends.
    from: usize,
    to: usize,
    first: Option<BatchHeader>,
    stop: Option<Stop>,
}

enum Stop {
    Limit,
    /// The rest of the file is no data.
    FileEnds,
    Broken(Broken),
    /// A batch needs so many bytes.
    Needs(usize),
}

impl Reader {
    pub(crate) fn new(replica: &Replica, offset: i64, compare: bool) -> Self {
        Self {
            replica: replica.clone(),
            blob: None,
            position: 0,
            offset,
            fresh: true,
            wanted_bytes: 0,
            fingerprint: compare.then(Fingerprint::default),
        }
    }

    /// The next batches, of about `piece_bytes`. Blocks.
    pub(crate) fn next(&mut self, piece_bytes: usize) -> Result<Read> {
        loop {
            if self.offset >= self.replica.limit {
                return Ok(Read::End);
            }
            let (base, blob) = match self.open()? {
                Ok(open) => open,
                Err(broken) => return Ok(Read::Broken(broken)),
            };
            let left = blob.bytes.saturating_sub(self.position);
            let wanted = piece_bytes.max(self.wanted_bytes).min(usize::try_from(left).unwrap_or(usize::MAX));
            let mut piece = vec![0; wanted];
            if blob.read_at(&mut piece, self.position)? < wanted {
                // It was cut off while it was read.
                let fault = Fault::Vanished { file: blob.name.clone() };
                return Ok(Read::Broken(Broken { offset: self.offset, resume: None, fault }));
            }
            let piece = Bytes::from(piece);
            let taken = self.take(base, &blob, &piece);
            self.wanted_bytes = 0;
            self.position += taken.to as u64;
            let stop = taken.stop;
            if let Some(first) = taken.first {
                self.fresh = false;
                let records = piece.slice(taken.from..taken.to);
                return Ok(Read::Batches { records, first: Box::new(first) });
            }
            match stop {
                Some(Stop::Limit) => return Ok(Read::End),
                Some(Stop::Broken(broken)) => return Ok(Read::Broken(broken)),
                Some(Stop::FileEnds) => self.leave(base),
                Some(Stop::Needs(bytes)) => self.wanted_bytes = bytes,
                None => {}
            }
        }
    }

    /// The file that holds the next offset.
    fn open(&mut self) -> Result<Result<(i64, Blob), Broken>> {
        if let Some((base, blob)) = &self.blob {
            return Ok(Ok((*base, blob.clone())));
        }
        let replica = &self.replica;
        let offset = self.offset;
        let broken = |resume, fault| Ok(Err(Broken { offset, resume, fault }));
        let directory = replica.name();
        let Some(base) = replica.segments.range(..=offset).next_back().map(|(base, _)| *base) else {
            if replica.segments.is_empty() {
                let (end_offset, high_watermark) = (offset, replica.high_watermark);
                return broken(None, Fault::EndsEarly { directory, end_offset, high_watermark });
            }
            let next = replica.first_offset();
            return broken(Some(next), Fault::Missing { directory, offset, next });
        };
        match replica.dir.files.open_log(&replica.directory, base)? {
            Some(blob) => {
                self.position = 0;
                self.blob = Some((base, blob.clone()));
                Ok(Ok((base, blob)))
            }
            None => {
                let file = format!("{directory}/{base:020}.log");
                let resume = replica.segments.range(base + 1..).next().map(|(next, _)| *next);
                broken(resume, Fault::Vanished { file })
            }
        }
    }

    /// All of the file at `base` was read: what comes next is in the one behind it.
    fn leave(&mut self, base: i64) {
        let next = self.replica.segments.range(base + 1..).next().map(|(next, _)| *next);
        self.blob = None;
        match next {
            // The cleaner takes away whatever is at a file's end.
            Some(next) if next > self.offset && self.replica.cleaned => self.offset = next,
            Some(next) if next <= self.offset => {}
            _ => self.replica.segments.retain(|other, _| *other > base),
        }
    }

    fn take(&mut self, base: i64, blob: &Blob, piece: &Bytes) -> Taken {
        let is_last = self.replica.segments.keys().next_back() == Some(&base);
        let mut taken = Taken { from: 0, to: 0, first: None, stop: None };
        let stop = loop {
            if self.offset >= self.replica.limit {
                break Some(Stop::Limit);
            }
            let rest = piece.slice(taken.to..);
            let position = self.position + taken.to as u64;
            let left = blob.bytes.saturating_sub(position);
            if left == 0 {
                break Some(Stop::FileEnds);
            }
            if (rest.len() as u64) < left.min(BATCH_HEADER_BYTES as u64) {
                break (taken.to == 0).then_some(Stop::Needs(BATCH_HEADER_BYTES));
            }
            if is_last && rest.iter().take(BATCH_HEADER_BYTES).all(|byte| *byte == 0) {
                // Room that the broker made beforehand.
                break Some(Stop::FileEnds);
            }
            let header = match BatchHeader::parse(&rest, position) {
                Ok(header) => header,
                Err(source) => break Some(self.corrupt(base, blob, source, None)),
            };
            let size = usize::try_from(header.size_bytes()).unwrap_or(usize::MAX);
            if rest.len() < size {
                break self.cut_off(base, blob, &header, position, taken.to == 0);
            }
            if self.fresh && taken.first.is_none() && header.next_offset() <= self.offset {
                taken.to += size;
                taken.from = taken.to;
                continue;
            }
            let batch = Batch { header, position, bytes: rest.slice(..size) };
            if let Some(stop) = self.refuse(base, blob, &batch, taken.first.is_none()) {
                break Some(stop);
            }
            if let Some(fingerprint) = &mut self.fingerprint {
                fingerprint.add(&header);
            }
            self.offset = header.next_offset();
            taken.first.get_or_insert(header);
            taken.to += size;
        };
        Taken { stop, ..taken }
    }

    /// A batch that is not whole in the piece.
    fn cut_off(
        &self,
        base: i64,
        blob: &Blob,
        header: &BatchHeader,
        position: u64,
        first: bool,
    ) -> Option<Stop> {
        let needed = header.size_bytes();
        let available = blob.bytes.saturating_sub(position).min(BATCH_MAX_BYTES);
        if needed > available {
            let source = ProtocolError::Truncated { what: "record batch", position, needed, available };
            return Some(self.corrupt(base, blob, source, None));
        }
        first.then(|| Stop::Needs(usize::try_from(needed).unwrap_or(usize::MAX)))
    }

    /// Why a whole batch is not taken.
    fn refuse(&self, base: i64, blob: &Blob, batch: &Batch, may_begin_before: bool) -> Option<Stop> {
        let (due, header) = (self.offset, &batch.header);
        let behind = batch.position + header.size_bytes();
        if let Err(source) = batch.check_crc() {
            return Some(self.corrupt(base, blob, source, Some(behind)));
        }
        let corrupt = |what, expected: String, found: String| {
            let source = ProtocolError::Corrupt { what, position: batch.position, expected, found };
            Some(self.corrupt(base, blob, source, Some(behind)))
        };
        let delta = i64::from(header.last_offset_delta);
        if delta < 0 || !(0..=delta + 1).contains(&i64::from(header.records_count)) {
            let found = format!("{} of {} offsets", header.records_count, delta + 1);
            return corrupt("record batch (counts)", "at most a record for each offset".to_owned(), found);
        }
        let is_begun = self.fresh && may_begin_before && header.next_offset() > due;
        if header.base_offset < due && !is_begun {
            return corrupt("record batch (base offset)", due.to_string(), header.base_offset.to_string());
        }
        if header.next_offset() > self.replica.limit {
            return Some(Stop::Limit);
        }
        let file = blob.name.clone();
        if header.base_offset > due && !self.replica.cleaned {
            let next = header.base_offset;
            let fault = Fault::Jump { file, offset: due, next };
            return Some(Stop::Broken(Broken { offset: due, resume: Some(next), fault }));
        }
        let found = header.partition_leader_epoch;
        match self.replica.epoch_at(header.base_offset) {
            Some(expected) if found >= 0 && found != expected => {
                let fault = Fault::OtherEpoch { file, offset: header.base_offset, expected, found };
                Some(Stop::Broken(Broken { offset: due, resume: None, fault }))
            }
            _ => None,
        }
    }

    /// The bytes at the next offset are none that were written. If the batch says at least where it ends (`behind`),
    /// the next may be there; else the next file is where it goes on.
    fn corrupt(&self, base: i64, blob: &Blob, source: ProtocolError, behind: Option<u64>) -> Stop {
        let following = behind.and_then(|position| self.whole_at(blob, position));
        let next_file = self.replica.segments.range(base + 1..).next().map(|(next, _)| *next);
        let ends_here = || Some(self.replica.limit);
        let resume = following.or(next_file).or_else(ends_here).filter(|next| *next > self.offset);
        let fault = Fault::Corrupt { file: blob.name.clone(), offset: self.offset, source };
        Stop::Broken(Broken { offset: self.offset, resume, fault })
    }

    /// The base offset of the batch at `position`, if it is one.
    fn whole_at(&self, blob: &Blob, position: u64) -> Option<i64> {
        let mut head = [0; BATCH_HEADER_BYTES];
        (blob.read_at(&mut head, position).ok()? == head.len()).then_some(())?;
        let header = BatchHeader::parse(&head, position).ok()?;
        let left = blob.bytes.saturating_sub(position).min(BATCH_MAX_BYTES);
        let mut bytes =
            vec![0; usize::try_from(header.size_bytes()).ok().filter(|size| *size as u64 <= left)?];
        blob.read_at(&mut bytes, position).ok()?;
        let batch = Batch { header, position, bytes: Bytes::from(bytes) };
        batch.check_crc().ok()?;
        Some(header.base_offset)
    }
}
