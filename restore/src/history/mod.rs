//! What a range of a partition's history holds, batch by batch.

mod batches;
mod key_cache;
mod since;

use std::ops::Range;

use varve_archive::record::gap::GapRecord;
use varve_archive::{ArchivedLog, ArchivedObject, Kind, Piece, PieceContent};
use varve_kafka::protocol::{Batch, OldMessageSet};

pub use batches::{BatchReader, Found};
pub use key_cache::KeyCache;
pub use since::since;

use crate::error::Result;

/// Runs of 4 MiB that are fetched ahead.
const READ_AHEAD: usize = 4;
/// A bundle that expires between the walk and the reading is looked for in the chain instead.
pub(crate) const TRIES_MAX: u32 = 3;

/// Something in the history. Of a batch the records at `offsets` count, and no others.
#[derive(Debug)]
pub enum Event {
    Batch {
        batch: Batch,
        offsets: Range<i64>,
    },
    OldSet(OldMessageSet),
    /// Not archived; the reason is sealed in an encrypted object without its key.
    Gap {
        offsets: Range<i64>,
        record: Option<GapRecord>,
    },
    Pruned {
        offsets: Range<i64>,
    },
}

/// See the module.
#[derive(Debug)]
pub struct History<'a> {
    pub log: &'a ArchivedLog,
    pub keys: &'a KeyCache,
}

impl History<'_> {
    /// Gives `sink` what lies in `offsets`, until it says that it has enough. Where `since_ms` is given, what is
    /// known to be older may be left out.
    ///
    /// # Errors
    /// Of the archive; a batch that does not hold; whatever `sink` fails with.
    pub async fn each<E: From<crate::Error>>(
        &self,
        offsets: Range<i64>,
        since_ms: Option<i64>,
        mut sink: impl FnMut(Event) -> Result<bool, E>,
    ) -> Result<(), E> {
        let (mut pieces, mut tries) = (self.log.pieces(offsets.start), 0);
        while let Some(piece) = pieces.next().await.map_err(crate::Error::from)? {
            if piece.first_offset >= offsets.end {
                return Ok(());
            }
            let opened = match self.log.open(&piece).await {
                Err(e) if has_expired(&piece, &e) && tries < TRIES_MAX => {
                    tries += 1;
                    pieces = self.log.pieces(piece.first_offset);
                    continue;
                }
                opened => opened.map_err(crate::Error::from)?,
            };
            let wanted = piece.first_offset.max(offsets.start)..piece.end_offset.min(offsets.end);
            let go_on = match opened {
                None => sink(Event::Pruned { offsets: wanted })?,
                Some(mut object) => {
                    self.keys.unlock(&mut object).await?;
                    match piece.content {
                        PieceContent::Gap(_) => {
                            let record = self.gap(&object).await?;
                            sink(Event::Gap { offsets: wanted, record })?
                        }
                        _ => self.segment(&object, wanted, since_ms, &mut sink).await?,
                    }
                }
            };
            if !go_on {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `None` of one that stays sealed.
    ///
    /// # Errors
    /// Of the archive.
    pub async fn gap(&self, object: &ArchivedObject) -> Result<Option<GapRecord>> {
        if object.encryption().is_some() && !self.keys.has_keys() {
            return Ok(None);
        }
        Ok(object.gap().await?)
    }

    async fn segment<E: From<crate::Error>>(
        &self,
        object: &ArchivedObject,
        wanted: Range<i64>,
        since_ms: Option<i64>,
        sink: &mut impl FnMut(Event) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let mut from = wanted.start;
        if let Some(since_ms) = since_ms {
            match object.offset_at(since_ms).await.map_err(crate::Error::from)? {
                None => return Ok(true),
                Some(offset) => from = from.max(offset),
            }
        }
        let position = object.position(from).await.map_err(crate::Error::from)?;
        let stream = object.read(position, READ_AHEAD).map_err(crate::Error::from)?;
        let mut batches = BatchReader::new(object.name(), stream);
        while let Some(found) = batches.next().await? {
            let (last, event) = match found {
                Found::Batch(batch) if batch.header.base_offset >= wanted.end => return Ok(true),
                Found::Batch(batch) => {
                    (batch.header.last_offset(), Event::Batch { batch, offsets: wanted.clone() })
                }
                Found::OldSet(set) => (set.last_offset, Event::OldSet(set)),
            };
            if last >= wanted.start && !sink(event)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub(crate) fn has_expired(piece: &Piece, error: &varve_archive::Error) -> bool {
    error.kind() == Kind::NotFound && piece.object().is_some_and(varve_archive::PieceObject::is_from_journal)
}

/// As in the record.
pub fn reason(record: Option<&GapRecord>) -> &str {
    record.map_or("sealed", |r| r.reason.name())
}
