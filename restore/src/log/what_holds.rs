//! The facts of a log of which not everything holds: all of it is read, and what does not hold is a hole.

use std::ops::Range;
use std::sync::Arc;

use varve_archive::{ArchivedLog, Piece};

use super::blocks::Blocks;
use super::damage::is_damage;
use super::facts::{Facts, Look, Said, look};
use crate::error::{Error, Result};
use crate::history::{KeyCache, TRIES_MAX};

impl Facts {
    /// As [`Facts::of`], of what holds. Holes at the beginning move the log's start behind them; at the end, its end
    /// before them.
    ///
    /// # Errors
    /// Of the archive; not of objects that are damaged or gone.
    pub async fn of_what_holds(log: &ArchivedLog, keys: &Arc<KeyCache>, offsets: Range<i64>) -> Result<Self> {
        let offsets = offsets.start.max(log.start_offset())..offsets.end.min(log.end_offset());
        let mut facts = footers(log, keys, &offsets).await?;
        let wanted = facts.start_offset;
        let mut blocks = Blocks::finding(log.clone(), Arc::clone(keys), facts.clone(), wanted);
        let mut held = None::<(i64, i64)>;
        while let Some(block) = blocks.next().await? {
            held = Some((held.map_or(block.first_offset, |(first, _)| first), block.end_offset));
        }
        facts.skipped = blocks.into_found();
        facts.holes.extend(facts.skipped.iter().cloned());
        facts.holes.sort_by_key(|hole| hole.first_offset);
        let Some((first, end)) = held else {
            // Nothing but holes: whoever writes goes on behind them.
            (facts.start_offset, facts.base_offset) = (facts.end_offset, facts.end_offset);
            return Ok(facts);
        };
        for hole in facts.holes.iter().filter(|hole| hole.first_offset < end) {
            if hole.first_offset <= facts.start_offset {
                facts.start_offset = facts.start_offset.max(hole.end_offset);
            }
        }
        let is_whole = facts.start_offset == wanted;
        facts.base_offset = if is_whole { first.min(wanted) } else { facts.start_offset };
        facts.end_offset = end;
        facts.leader_epochs.truncate_from_start(facts.start_offset);
        Ok(facts)
    }
}

/// As far as they can be read: of other objects only the offsets are known.
async fn footers(log: &ArchivedLog, keys: &Arc<KeyCache>, wanted: &Range<i64>) -> Result<Facts> {
    let mut facts = Facts { start_offset: wanted.start, ..Facts::default() };
    let (mut at, mut begun, mut tries) = (wanted.start, false, 0);
    let mut pieces = log.pieces(at);
    while let Some(piece) = pieces.next().await?.filter(|piece| piece.first_offset < wanted.end) {
        let said = match look(log, keys, &piece, wanted).await {
            Ok(said) => said,
            Err(Look::Expired) if tries < TRIES_MAX => {
                tries += 1;
                pieces = log.pieces(at);
                continue;
            }
            Err(Look::Expired) => {
                return Err(Error::unexpected("the journal", "bundles or objects", "neither"));
            }
            Err(Look::Failed(error)) if is_damage(&error) => offsets_of(&piece, wanted),
            Err(Look::Failed(error)) => return Err(error),
        };
        at = at.max(facts.take(said, &mut begun));
    }
    facts.end_offset = facts.end_offset.max(facts.start_offset);
    if !begun {
        facts.start_offset = facts.start_offset.max(wanted.end);
        facts.end_offset = facts.start_offset;
    }
    Ok(facts)
}

fn offsets_of(piece: &Piece, wanted: &Range<i64>) -> Said {
    Said::Segment {
        offsets: (piece.first_offset, piece.end_offset.min(wanted.end)),
        base_offset: piece.first_offset,
        log_bytes: 0,
        stored_bytes: 0,
        epochs: Vec::new(),
        observed: Vec::new(),
    }
}
