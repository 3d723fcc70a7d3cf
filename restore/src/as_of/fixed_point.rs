//! Cuts through several partitions that halve no transaction.
//!
//! A transaction whose commit lies before the cut in one partition has happened: the cuts of its other partitions move
//! behind its commit there. That may take in the commits of further transactions, and so on, until nothing moves.
//! Cuts only move forward, and never beyond what is archived.

use std::collections::BTreeMap;

/// One partition's part of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) producer_id: i64,
    /// Of its records; of its marker, if those are not known.
    pub(super) producer_epoch: i16,
    /// Of its first record that was seen; of the marker, if none was.
    pub(super) first_offset: i64,
    pub(super) end: Option<End>,
}

impl Part {
    /// Whether a cut there would leave it without its end.
    pub(super) fn is_open_at(&self, cut: i64) -> bool {
        self.first_offset < cut && self.end.is_none_or(|end| end.end_offset > cut)
    }
}

/// A transaction marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Behind it.
    pub(super) end_offset: i64,
    pub(super) producer_epoch: i16,
    pub(super) is_commit: bool,
    /// By the broker's clock.
    pub(super) time_ms: i64,
}

/// One partition: where it is to be cut, and its transactions around there, in the order of their markers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) cut: i64,
    pub(super) parts: Vec<Part>,
}

/// What a cut was moved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pull {
    pub(super) partition: usize,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) producer_id: i64,
    /// The broker numbers each transaction (`transaction.version` 2): it is surely the same one. Else it is the one
    /// whose markers are next to each other in time.
    pub(super) is_sure: bool,
}

/// A transaction that is committed in one partition, and whose commit in another is not in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Half {
    pub(super) committed_in: usize,
    pub(super) open_in: usize,
    pub(super) producer_id: i64,
    pub(super) first_offset: i64,
}

/// A part, by partition and place in it.
type Place = (usize, usize);

/// Moves the cuts; and says of what is halved all the same.
pub(super) fn settle(partitions: &mut [Partition]) -> (Vec<Pull>, Vec<Half>) {
    let transactions = committed(partitions);
    let mut pulls: Vec<Pull> = Vec::new();
    loop {
        let mut has_moved = false;
        for transaction in &transactions {
            let of = |(p, at): &Place| {
                let part = partitions.get(*p)?.parts.get(*at)?;
                Some((*p, part.producer_id, part.end?.end_offset))
            };
            let ends: Vec<(usize, i64, i64)> = transaction.iter().filter_map(of).collect();
            let is_in = |(p, _, end): &(usize, i64, i64)| partitions.get(*p).is_some_and(|p| *end <= p.cut);
            if !ends.iter().any(is_in) {
                continue;
            }
            let is_sure = is_numbered(partitions, transaction);
            for (number, producer_id, to) in ends {
                let Some(partition) = partitions.get_mut(number).filter(|p| to > p.cut) else { continue };
                pulls.push(Pull { partition: number, from: partition.cut, to, producer_id, is_sure });
                partition.cut = to;
                has_moved = true;
            }
        }
        if !has_moved {
            return (pulls, halves(partitions));
        }
    }
}

/// Whether no other transaction of the producer has the epoch of this one's markers.
fn is_numbered(partitions: &[Partition], transaction: &[Place]) -> bool {
    transaction.iter().any(|(p, at)| {
        let part = partitions.get(*p).and_then(|p| p.parts.get(*at));
        part.is_some_and(|part| part.end.is_some_and(|end| end.producer_epoch > part.producer_epoch))
    })
}

/// Committed transactions, each with its parts. Those of one producer and epoch are told apart by time: a producer has
/// one after the other, and one has one marker in each partition.
fn committed(partitions: &[Partition]) -> Vec<Vec<Place>> {
    let mut by_key: BTreeMap<(i64, i16), Vec<(i64, Place)>> = BTreeMap::new();
    for (number, partition) in partitions.iter().enumerate() {
        for (at, part) in partition.parts.iter().enumerate() {
            if let Some(end) = part.end.filter(|end| end.is_commit) {
                let key = (part.producer_id, end.producer_epoch);
                by_key.entry(key).or_default().push((end.time_ms, (number, at)));
            }
        }
    }
    let mut transactions = Vec::new();
    for mut markers in by_key.into_values() {
        markers.sort_unstable();
        let mut current: Vec<Place> = Vec::new();
        for (_, place) in markers {
            if current.iter().any(|(partition, _)| *partition == place.0) {
                transactions.push(std::mem::take(&mut current));
            }
            current.push(place);
        }
        transactions.push(current);
    }
    transactions.retain(|parts| parts.len() > 1);
    transactions
}

/// Parts that have no end in the archive, of transactions that are committed before a cut elsewhere.
fn halves(partitions: &[Partition]) -> Vec<Half> {
    let mut found = Vec::new();
    for (open_in, partition) in partitions.iter().enumerate() {
        let open =
            partition.parts.iter().filter(|part| part.end.is_none() && part.first_offset < partition.cut);
        for part in open {
            // The broker ends it under the next epoch where it numbers transactions. Under the same epoch it may as
            // well have been one before.
            let is_its = |other: &Part, cut: i64| {
                other.producer_id == part.producer_id
                    && other.end.is_some_and(|end| {
                        end.is_commit
                            && end.end_offset <= cut
                            && other.producer_epoch == part.producer_epoch
                            && end.producer_epoch > part.producer_epoch
                    })
            };
            let elsewhere = partitions.iter().enumerate().filter(|(number, _)| *number != open_in);
            let mut committed = elsewhere.filter(|(_, p)| p.parts.iter().any(|other| is_its(other, p.cut)));
            if let Some((committed_in, _)) = committed.next() {
                let (producer_id, first_offset) = (part.producer_id, part.first_offset);
                found.push(Half { committed_in, open_in, producer_id, first_offset });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of producer 7, its records under `epoch`, its marker under the next one.
    fn part(epoch: i16, first_offset: i64, end: Option<(i64, i64)>) -> Part {
        let end = end.map(|(end_offset, time_ms)| End {
            end_offset,
            producer_epoch: epoch + 1,
            is_commit: true,
            time_ms,
        });
        Part { producer_id: 7, producer_epoch: epoch, first_offset, end }
    }

    #[test]
    fn a_commit_pulls_the_others_and_those_pull_on() {
        // 0 and 1 share a transaction, 1 and 2 the next one.
        let mut all = [
            Partition { cut: 10, parts: vec![part(0, 1, Some((5, 100)))] },
            Partition { cut: 10, parts: vec![part(0, 8, Some((20, 101))), part(1, 12, Some((19, 90)))] },
            Partition { cut: 3, parts: vec![part(1, 5, Some((9, 91)))] },
        ];
        let (pulls, halves) = settle(&mut all);
        assert_eq!(all.each_ref().map(|p| p.cut), [10, 20, 9]);
        assert!(pulls.len() == 2 && pulls.iter().all(|pull| pull.is_sure) && halves.is_empty(), "{pulls:?}");
    }

    #[test]
    fn transactions_under_one_epoch_are_told_apart_by_time() {
        let old = |first_offset, end_offset, time_ms| {
            let mut part = part(0, first_offset, Some((end_offset, time_ms)));
            part.end = part.end.map(|end| End { producer_epoch: 0, ..end });
            part
        };
        let mut all = [
            Partition { cut: 6, parts: vec![old(1, 5, 100), old(6, 9, 200)] },
            Partition { cut: 2, parts: vec![old(1, 4, 101), old(5, 8, 201)] },
        ];
        let (pulls, _) = settle(&mut all);
        // The second one is behind both cuts, and stays there.
        assert_eq!(all.each_ref().map(|p| p.cut), [6, 4]);
        assert!(pulls.len() == 1 && !pulls[0].is_sure, "{pulls:?}");
    }

    #[test]
    fn an_abort_pulls_nothing_and_a_missing_commit_is_told() {
        let mut aborted = part(0, 1, Some((5, 100)));
        aborted.end = aborted.end.map(|end| End { is_commit: false, ..end });
        let mut all = [
            Partition { cut: 10, parts: vec![aborted, part(3, 6, Some((9, 300)))] },
            Partition { cut: 2, parts: vec![part(0, 1, Some((7, 101))), part(3, 1, None)] },
        ];
        let (pulls, halves) = settle(&mut all);
        assert!(pulls.is_empty(), "{pulls:?}");
        let half = Half { committed_in: 0, open_in: 1, producer_id: 7, first_offset: 1 };
        assert_eq!(halves, [half]);
    }

    proptest! {
        /// Of random transactions over random partitions none is committed here and not there.
        #[test]
        fn nothing_is_halved(
            members in prop::collection::vec(prop::collection::vec(0..5_usize, 1..4), 1..30),
            cuts in prop::collection::vec(0..60_i64, 5),
        ) {
            let mut all: Vec<Partition> =
                cuts.iter().map(|cut| Partition { cut: *cut, parts: Vec::new() }).collect();
            for (number, members) in (0_i16..).zip(&members) {
                for member in members {
                    let partition = &mut all[*member];
                    let last = partition.parts.last();
                    if last.is_some_and(|part| part.producer_epoch == number) {
                        continue;
                    }
                    let from = last.and_then(|part| part.end).map_or(0, |end| end.end_offset);
                    partition.parts.push(part(number, from, Some((from + 3, i64::from(number) * 10))));
                }
            }
            let before = all.clone();
            settle(&mut all);
            for (number, members) in (0_i16..).zip(&members) {
                let is_in = |member: &usize| {
                    let partition = &all[*member];
                    let part = partition.parts.iter().find(|part| part.producer_epoch == number);
                    part.is_some_and(|part| part.end.is_some_and(|end| end.end_offset <= partition.cut))
                };
                let inside = members.iter().filter(|m| is_in(m)).count();
                prop_assert!(inside == 0 || inside == members.len(), "transaction {number}: {inside}");
            }
            prop_assert!(before.iter().zip(&all).all(|(a, b)| a.cut <= b.cut));
        }
    }
}
