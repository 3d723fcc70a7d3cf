//! Whether copies of one partition have one history, by their leader epochs alone. Pure.
//!
//! Within one epoch an offset has but one content. So of two copies the one that reaches less far is a part of the
//! other, or they part at an offset that their epochs tell.

use varve_format::EpochStart;

/// What a copy has: all epochs from its start on, and its readable end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    epochs: Vec<EpochStart>,
    start_offset: i64,
    end_offset: i64,
}

impl History {
    pub(crate) fn new(epochs: &[EpochStart], start_offset: i64, end_offset: i64) -> Self {
        let epochs = epochs.iter().filter(|e| e.start_offset < end_offset).copied().collect();
        Self { epochs, start_offset, end_offset }
    }

    /// The epoch of its last record, and its end: what is greater is later.
    pub(crate) fn rank(&self) -> (i32, i64) {
        (self.epochs.last().map_or(-1, |e| e.epoch), self.end_offset)
    }

    fn end_of(&self, index: usize) -> i64 {
        self.epochs.get(index + 1).map_or(self.end_offset, |next| next.start_offset)
    }

    /// Where it parts from `other`, if anywhere that can be seen.
    pub(crate) fn parts_at(&self, other: &Self) -> Option<i64> {
        if self.epochs.is_empty() || other.epochs.is_empty() {
            return None;
        }
        let both_end = self.end_offset.min(other.end_offset);
        if both_end <= self.start_offset.max(other.start_offset) {
            // They have no offset in common.
            return None;
        }
        let mut common = None;
        for (index, e) in self.epochs.iter().enumerate() {
            if let Some(others) = other.epochs.iter().position(|o| o.epoch == e.epoch) {
                common = Some((index, others));
            }
        }
        let at = match common {
            Some((mine, others)) => self.end_of(mine).min(other.end_of(others)),
            None => {
                let first = |h: &Self| h.epochs.first().map_or(0, |e| e.start_offset.max(h.start_offset));
                first(self).max(first(other))
            }
        };
        (at < both_end).then_some(at)
    }
}

/// `histories` as groups of those that agree with the group's first, which reaches furthest; the groups in the order
/// in which the histories came to be.
pub(crate) fn groups(histories: &[History]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..histories.len()).collect();
    let rank = |index: &usize| histories.get(*index).map(History::rank);
    order.sort_by_key(|index| std::cmp::Reverse(rank(index)));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for index in order {
        let agrees = |group: &&mut Vec<usize>| {
            let main = group.first().and_then(|main| histories.get(*main));
            main.zip(histories.get(index)).is_some_and(|(main, this)| main.parts_at(this).is_none())
        };
        match groups.iter_mut().find(agrees) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    groups.reverse();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(epochs: &[(i32, i64)], start_offset: i64, end_offset: i64) -> History {
        let epochs: Vec<_> =
            epochs.iter().map(|&(epoch, start_offset)| EpochStart { epoch, start_offset }).collect();
        History::new(&epochs, start_offset, end_offset)
    }

    #[test]
    fn a_part_agrees_with_the_whole() {
        let whole = history(&[(0, 0), (2, 1000), (5, 1500)], 0, 2000);
        for part in [
            history(&[(0, 0)], 0, 900),
            history(&[(0, 0), (2, 1000)], 0, 1000),
            history(&[(0, 0), (2, 1000)], 0, 1500),
            history(&[(2, 1200), (5, 1500)], 1200, 2000),
            history(&[], 0, 0),
            // Nothing in common: nothing to disagree in.
            history(&[(7, 3000)], 3000, 4000),
        ] {
            assert_eq!(whole.parts_at(&part), None, "{part:?}");
            assert_eq!(part.parts_at(&whole), None, "{part:?}");
        }
    }

    #[test]
    fn an_unclean_election_shows() {
        let old = history(&[(0, 0)], 0, 2000);
        let new = history(&[(0, 0), (2, 1000)], 0, 1300);
        assert_eq!((old.parts_at(&new), new.parts_at(&old)), (Some(1000), Some(1000)));
        let later = history(&[(3, 500)], 500, 5000);
        assert_eq!((old.parts_at(&later), later.parts_at(&old)), (Some(500), Some(500)));
        let other = history(&[(0, 0), (1, 1000)], 0, 1600);
        assert_eq!(other.parts_at(&new), Some(1000));
    }

    #[test]
    fn groups_are_in_the_order_of_their_leaders() {
        let all = [
            history(&[(0, 0), (2, 1000)], 0, 1300),
            history(&[(0, 0)], 0, 2000),
            history(&[(0, 0), (2, 1000)], 0, 1200),
            history(&[(0, 0)], 0, 800),
        ];
        assert_eq!(groups(&all), [vec![1], vec![0, 2, 3]]);
        assert!(groups(&[]).is_empty());
    }
}
