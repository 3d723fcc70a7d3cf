//! The facts of a log of which not everything holds: all of it is read, and what does not hold is a hole.

use std::ops::Range;
use std::sync::Arc;

use varve_archive::{ArchivedLog, Piece};

use super::blocks::Blocks;
use super::damage::is_damage;
use super::facts::{Facts, Said, footers};
use crate::error::{Error, Result};
use crate::history::KeyCache;

impl Facts {
    /// As [`Facts::of`], of what holds. Holes at the beginning move the log's start behind them; at the end, its end
    /// before them.
    ///
    /// # Errors
    /// Of the archive; not of objects that are damaged or gone.
    pub async fn of_what_holds(log: &ArchivedLog, keys: &Arc<KeyCache>, offsets: Range<i64>) -> Result<Self> {
        let wanted = offsets.clone();
        let otherwise = |piece: &Piece, error: Error| match is_damage(&error) {
            true => Ok(offsets_of(piece, &wanted)),
            false => Err(error),
        };
        let (mut facts, _) = footers(log, keys, offsets, otherwise).await?;
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

/// Where a footer can't be read, only the offsets are known.
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
