//! How long it will take, about. The assumptions are told with it; the copying itself tells what is left by its own pace.

use std::collections::BTreeMap;

use super::document::{PlannedTopic, Totals};

/// Of one fetcher thread of a broker. One broker alone, on a machine that it shares, came to five times as much.
pub const ASSUMED_BYTES_PER_SECOND: u64 = 64 << 20;
/// Of raising leader epochs once.
const EPOCH_CYCLE_MS: u64 = 150;
/// Creating, assigning and handing over.
const PARTITION_MS: u64 = 50;
const DEFAULT_FETCHERS: u32 = 1;

/// With the brokers' `num.replica.fetchers`. Each broker copies its part beside the others, so the one that gets most is
/// last.
pub(super) fn with_time(
    mut totals: Totals,
    topics: &[PlannedTopic],
    settings: &BTreeMap<String, String>,
) -> Totals {
    let fetchers = settings.get("num.replica.fetchers").and_then(|n| n.parse().ok());
    totals.assumed_fetchers = fetchers.unwrap_or(DEFAULT_FETCHERS).max(1);
    let mut of_broker: BTreeMap<i32, u64> = BTreeMap::new();
    for partition in topics.iter().flat_map(|t| &t.partitions) {
        for broker in &partition.replicas {
            let bytes = of_broker.entry(*broker).or_default();
            *bytes = bytes.saturating_add(partition.log_bytes);
        }
    }
    let most = of_broker.values().max().copied().unwrap_or(0);
    let pace = ASSUMED_BYTES_PER_SECOND.saturating_mul(totals.assumed_fetchers.into());
    totals.copying_seconds = most.div_ceil(pace);
    totals.expected_seconds = totals.seconds(None);
    totals
}

impl Totals {
    /// Until all is handed over, without verifying; at most this many bytes a second to all brokers together.
    pub fn seconds(&self, bytes_per_second: Option<u64>) -> u64 {
        let throttled = bytes_per_second.map_or(0, |pace| self.replica_bytes.div_ceil(pace.max(1)));
        let steps = self.epoch_cycles.saturating_mul(EPOCH_CYCLE_MS);
        let steps = steps.saturating_add(self.partitions.saturating_mul(PARTITION_MS));
        self.copying_seconds.max(throttled).saturating_add(steps.div_ceil(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_part_counts() {
        let totals = Totals {
            partitions: 100,
            replica_bytes: 1 << 30,
            epoch_cycles: 20,
            copying_seconds: 16,
            ..Totals::default()
        };
        assert_eq!(totals.seconds(None), 16 + 8);
        assert_eq!(totals.seconds(Some(1 << 20)), 1024 + 8);
        assert_eq!(totals.seconds(Some(1 << 30)), 16 + 8);
        assert_eq!(with_time(Totals::default(), &[], &BTreeMap::new()).expected_seconds, 0);
        let four = BTreeMap::from([("num.replica.fetchers".to_owned(), "4".to_owned())]);
        assert_eq!(with_time(totals, &[], &four).assumed_fetchers, 4);
    }
}
