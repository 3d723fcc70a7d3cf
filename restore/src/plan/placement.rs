//! Which brokers get a partition.

use std::collections::{BTreeMap, BTreeSet};

/// The brokers in an order in which neighbours are in different racks, as far as there are several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// Id and rack.
    order: Vec<(i32, Option<String>)>,
}

impl Placement {
    pub(super) fn new(brokers: impl IntoIterator<Item = (i32, Option<String>)>) -> Self {
        let mut racks: BTreeMap<Option<String>, Vec<i32>> = BTreeMap::new();
        for (id, rack) in brokers {
            racks.entry(rack).or_default().push(id);
        }
        racks.values_mut().for_each(|ids| ids.sort_unstable());
        let longest = racks.values().map(Vec::len).max().unwrap_or(0);
        let rounds = (0..longest).flat_map(|round| {
            racks.iter().filter_map(move |(rack, ids)| Some((*ids.get(round)?, rack.clone())))
        });
        Self { order: rounds.collect() }
    }

    pub(super) fn brokers(&self) -> usize {
        self.order.len()
    }

    /// The preferred leader first. Each broker leads something, and what one topic's partitions share is not always the
    /// same brokers. No rack has two replicas while another has none; brokers without a rack count as one.
    pub(super) fn of(&self, topic: usize, partition: i32, factor: usize) -> Vec<i32> {
        let count = self.order.len();
        let at = topic.wrapping_add(partition.unsigned_abs() as usize);
        let from = at.checked_rem(count).unwrap_or(0);
        // Who leads is followed by others each time around.
        let shift = at.checked_div(count).and_then(|round| round.checked_rem(count.max(2) - 1)).unwrap_or(0);
        let mut left: Vec<&(i32, Option<String>)> =
            self.order.iter().cycle().skip(from).take(count).collect();
        if let Some(followers) = left.get_mut(1..) {
            followers.rotate_left(shift.min(followers.len()));
        }
        let (mut replicas, mut racks) = (Vec::new(), BTreeSet::new());
        while replicas.len() < factor && !left.is_empty() {
            let next = left.iter().position(|(_, rack)| !racks.contains(rack));
            if next.is_none() {
                racks.clear();
            }
            let (id, rack) = left.remove(next.unwrap_or(0));
            racks.insert(rack);
            replicas.push(*id);
        }
        replicas
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_broker_leads_and_others_follow_it() {
        let placement = Placement::new((1..=4).map(|id| (id, None)));
        let all: Vec<Vec<i32>> = (0..12).map(|partition| placement.of(0, partition, 2)).collect();
        for id in 1..=4 {
            assert_eq!(all.iter().filter(|replicas| replicas[0] == id).count(), 3);
            assert_eq!(all.iter().filter(|replicas| replicas[1] == id).count(), 3);
        }
        assert_eq!(placement.of(0, 0, 9), [1, 2, 3, 4]);
        assert!(Placement::new([]).of(3, 7, 3).is_empty());
    }

    proptest! {
        #[test]
        fn racks_are_shared_out(
            racks in prop::collection::vec(0..4_u8, 1..12),
            topic in 0..20_usize,
            partition in 0..100_i32,
            factor in 1..6_usize,
        ) {
            let rack = |id: i32| racks[id as usize].to_string();
            let brokers = (0_i32..).take(racks.len());
            let placement = Placement::new(brokers.map(|id| (id, Some(rack(id)))));
            let replicas = placement.of(topic, partition, factor);
            prop_assert_eq!(replicas.len(), factor.min(racks.len()));
            let distinct: BTreeSet<i32> = replicas.iter().copied().collect();
            prop_assert_eq!(distinct.len(), replicas.len());
            let used: BTreeSet<String> = replicas.iter().map(|id| rack(*id)).collect();
            let there: BTreeSet<u8> = racks.iter().copied().collect();
            prop_assert_eq!(used.len(), replicas.len().min(there.len()));
        }
    }
}
