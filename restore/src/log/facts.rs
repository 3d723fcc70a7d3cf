//! What is known of an archived log before it is read: from the footers of its objects.

use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use varve_archive::{ArchivedLog, ArchivedObject, Piece, PieceContent};
use varve_format::Observed;
use varve_kafka::protocol::LeaderEpochs;

use super::blocks::Blocks;
use crate::error::{Error, Result};
use crate::history::{History, KeyCache, TRIES_MAX, has_expired, reason};

/// Footers that are fetched at once.
const PARALLEL: usize = 8;
/// Pieces that are looked at together.
const PIECES: usize = 64;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The log start offset.
    pub start_offset: i64,
    /// Where the first batch begins, which may be before: as far as it is known, of an object that begins within it not.
    pub base_offset: i64,
    /// Last offset + 1.
    pub end_offset: i64,
    /// Of batches, uncompressed by us.
    pub log_bytes: u64,
    /// As the store has them.
    pub stored_bytes: u64,
    pub objects: u64,
    pub leader_epochs: LeaderEpochs,
    /// Offsets that the archive does not have, in order.
    pub holes: Vec<Hole>,
    /// What the archivers saw of the partition, and when; in the order of the offsets.
    pub observed: Vec<Observed>,
    /// Those of them where what is stored does not hold, and is passed over.
    pub skipped: Vec<Hole>,
}

/// Some offsets that are not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hole {
    pub first_offset: i64,
    /// Last offset + 1.
    pub end_offset: i64,
    /// The reason of a gap, which may be sealed; or that it was pruned.
    pub why: String,
}

/// What one piece says.
pub(super) enum Said {
    Segment {
        offsets: (i64, i64),
        base_offset: i64,
        log_bytes: u64,
        stored_bytes: u64,
        epochs: Vec<(i32, i64)>,
        observed: Vec<Observed>,
    },
    Hole(Hole),
}

impl Facts {
    /// Of these offsets. Holes at the beginning move the log's start behind them; at the end, its end before them; and
    /// a batch that lies across the end is left out.
    ///
    /// # Errors
    /// Of the archive: each object's footer is read, and held against what the snapshot says.
    pub async fn of(log: &ArchivedLog, keys: &Arc<KeyCache>, offsets: Range<i64>) -> Result<Self> {
        let (mut facts, last_segment) = footers(log, keys, offsets, |_, error| Err(error)).await?;
        facts.leader_epochs.truncate_from_start(facts.start_offset);
        if let Some(last_segment) = last_segment {
            facts.end_offset = last_end(log, keys, &facts, last_segment).await?;
        }
        if facts.base_offset < facts.start_offset && facts.objects > 0 {
            let mut blocks = Blocks::new(log.clone(), Arc::clone(keys), facts.clone(), facts.start_offset);
            let first = blocks.next().await?;
            facts.base_offset =
                first.map_or(facts.start_offset, |block| block.first_offset.min(facts.start_offset));
        } else {
            facts.base_offset = facts.start_offset;
        }
        Ok(facts)
    }

    /// Where it ends.
    fn take(&mut self, said: Said, begun: bool) -> i64 {
        match said {
            Said::Segment {
                offsets: (first, end),
                base_offset,
                log_bytes,
                stored_bytes,
                epochs,
                observed,
            } => {
                if !begun {
                    self.start_offset = self.start_offset.max(first);
                    self.base_offset = base_offset;
                }
                self.end_offset = end;
                self.log_bytes = self.log_bytes.saturating_add(log_bytes);
                self.stored_bytes = self.stored_bytes.saturating_add(stored_bytes);
                self.objects = self.objects.saturating_add(1);
                self.observed.extend(observed);
                for (epoch, start) in epochs.into_iter().filter(|(_, start)| *start < end) {
                    self.leader_epochs.note(epoch, start);
                }
                end
            }
            Said::Hole(hole) => {
                let end = hole.end_offset;
                self.holes.push(hole);
                end
            }
        }
    }
}

/// What the footers of these offsets say together, and where the last segment begins; `None` without one. Of a piece
/// that can't be looked at `otherwise` says it.
pub(super) async fn footers(
    log: &ArchivedLog,
    keys: &KeyCache,
    offsets: Range<i64>,
    otherwise: impl Fn(&Piece, Error) -> Result<Said>,
) -> Result<(Facts, Option<i64>)> {
    let wanted = offsets.start.max(log.start_offset())..offsets.end.min(log.end_offset());
    let mut facts = Facts { start_offset: wanted.start, ..Facts::default() };
    let (mut at, mut tries, mut last_segment) = (wanted.start, 0, None);
    let mut pieces = log.pieces(at);
    loop {
        let mut some = Vec::new();
        while some.len() < PIECES {
            let Some(piece) = pieces.next().await?.filter(|piece| piece.first_offset < wanted.end) else {
                break;
            };
            some.push(piece);
        }
        let last = some.len() < PIECES;
        let looks = stream::iter(&some).map(async |piece| match look(log, keys, piece, &wanted).await {
            Err(Look::Failed(error)) => otherwise(piece, error).map_err(Look::Failed),
            looked => looked,
        });
        let said: Vec<Said> = match looks.buffered(PARALLEL).try_collect().await {
            Ok(said) => said,
            Err(Look::Expired) if tries < TRIES_MAX => {
                tries += 1;
                pieces = log.pieces(at);
                continue;
            }
            Err(Look::Expired) => {
                return Err(Error::unexpected("the journal", "bundles or objects", "neither"));
            }
            Err(Look::Failed(error)) => return Err(error),
        };
        for said in said {
            let begins = if let Said::Segment { offsets, .. } = &said { Some(offsets.0) } else { None };
            at = at.max(facts.take(said, last_segment.is_some()));
            last_segment = begins.or(last_segment);
        }
        if last {
            break;
        }
    }
    facts.end_offset = facts.end_offset.max(facts.start_offset);
    if last_segment.is_none() {
        // Nothing but holes: whoever writes goes on behind them.
        facts.start_offset = facts.start_offset.max(wanted.end);
        facts.end_offset = facts.start_offset;
    }
    Ok((facts, last_segment))
}

/// Behind the last batch: followers get no farther. What was compacted away behind it leaves no batch.
async fn last_end(log: &ArchivedLog, keys: &Arc<KeyCache>, facts: &Facts, last_segment: i64) -> Result<i64> {
    let froms =
        [facts.end_offset.saturating_sub(1), last_segment.max(facts.start_offset), facts.start_offset];
    for from in froms {
        let mut blocks = Blocks::new(log.clone(), Arc::clone(keys), facts.clone(), from);
        let mut end = None;
        while let Some(block) = blocks.next().await? {
            end = Some(block.end_offset);
        }
        if let Some(end) = end {
            return Ok(end);
        }
    }
    Ok(facts.start_offset)
}

enum Look {
    Expired,
    Failed(Error),
}

async fn look(log: &ArchivedLog, keys: &KeyCache, piece: &Piece, wanted: &Range<i64>) -> Result<Said, Look> {
    let opened = match log.open(piece).await {
        Err(e) if has_expired(piece, &e) => return Err(Look::Expired),
        opened => opened.map_err(|e| Look::Failed(e.into()))?,
    };
    let end_offset = piece.end_offset.min(wanted.end);
    let hole =
        |why: &str| Said::Hole(Hole { first_offset: piece.first_offset, end_offset, why: why.to_owned() });
    let (Some(mut object), Some(stored)) = (opened, piece.object()) else { return Ok(hole("pruned")) };
    if let PieceContent::Gap(_) = piece.content {
        keys.unlock(&mut object).await.map_err(Look::Failed)?;
        let record = History { log, keys }.gap(&object).await.map_err(Look::Failed)?;
        return Ok(hole(reason(record.as_ref())));
    }
    let log_bytes = wanted_bytes(&mut object, keys, piece, wanted).await.map_err(Look::Failed)?;
    let footer = object.footer();
    Ok(Said::Segment {
        offsets: (piece.first_offset, end_offset),
        base_offset: footer.info.base_offset,
        log_bytes,
        stored_bytes: stored.bytes(),
        epochs: footer.info.leader_epochs.iter().map(|e| (e.epoch, e.start_offset)).collect(),
        observed: footer.info.observed.clone(),
    })
}

/// Of the log that is in the object; where not all of it is wanted, about, by its offset index.
async fn wanted_bytes(
    object: &mut ArchivedObject,
    keys: &KeyCache,
    piece: &Piece,
    wanted: &Range<i64>,
) -> Result<u64> {
    let all = object.footer().log_bytes;
    if wanted.start <= piece.first_offset && wanted.end >= piece.end_offset {
        return Ok(all);
    }
    keys.unlock(object).await?;
    let from = if wanted.start > piece.first_offset { object.position(wanted.start).await? } else { 0 };
    let to = if wanted.end < piece.end_offset { object.position(wanted.end).await? } else { all };
    Ok(to.saturating_sub(from))
}
