//! What was seen of a partition around a point in time.

use std::ops::Range;

use varve_format::Observed;

/// Older looks are of no use: nothing stays open for so long.
const NEAR_MS: i64 = 24 * 60 * 60 * 1000;

/// In the order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Samples(Vec<Observed>);

impl Samples {
    /// Those around `time_ms`.
    pub(super) fn new(mut observed: Vec<Observed>, time_ms: i64) -> Self {
        observed.sort_by_key(|sample| sample.time_ms);
        let mut samples = Self(observed);
        let (before, after) = samples.around(time_ms);
        let far = |sample: &Observed| sample.time_ms < time_ms.saturating_sub(NEAR_MS);
        let from = before.partition_point(far).min(before.len().saturating_sub(1));
        let near = |sample: &Observed| sample.time_ms <= time_ms.saturating_add(NEAR_MS);
        let to = before.len() + after.partition_point(near).max(1).min(after.len());
        samples.0.truncate(to);
        samples.0.drain(..from);
        samples
    }

    /// The offsets of which nobody saw whether they were there at `time_ms`: what is below them was, what is behind
    /// them was not. Within `offsets`, which the archive has.
    pub(super) fn unsure(&self, time_ms: i64, offsets: &Range<i64>) -> Range<i64> {
        let (before, after) = self.around(time_ms);
        let surely = before.iter().map(|sample| sample.high_watermark).max().unwrap_or(offsets.start);
        let surely_not = after.iter().map(|sample| sample.high_watermark).min().unwrap_or(offsets.end);
        let start = surely.clamp(offsets.start, offsets.end);
        start..surely_not.clamp(start, offsets.end)
    }

    /// Transactions that were open at `time_ms` begin there or behind it: nothing is known below the first sample.
    pub(super) fn stable(&self, time_ms: i64) -> Option<i64> {
        let (before, _) = self.around(time_ms);
        before.last().map(|sample| sample.last_stable_offset)
    }

    /// The last time at which it was looked at before.
    pub(super) fn seen_before_ms(&self, time_ms: i64) -> Option<i64> {
        self.around(time_ms).0.last().map(|sample| sample.time_ms)
    }

    pub(super) fn is_seen_after(&self, time_ms: i64) -> bool {
        !self.around(time_ms).1.is_empty()
    }

    /// What was there at `time_ms` for sure; `None` if nobody had looked yet.
    pub(super) fn surely(&self, time_ms: i64) -> Option<i64> {
        self.around(time_ms).0.iter().map(|sample| sample.high_watermark).max()
    }

    /// A time at which `offset` was not there yet; `None` if that was never seen.
    pub(super) fn time_before(&self, offset: i64) -> Option<i64> {
        self.0.iter().rev().find(|sample| sample.high_watermark <= offset).map(|sample| sample.time_ms)
    }

    fn around(&self, time_ms: i64) -> (&[Observed], &[Observed]) {
        self.0.split_at(self.0.partition_point(|sample| sample.time_ms <= time_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(all: &[(i64, i64)]) -> Samples {
        let of = |(time_ms, high_watermark): &(i64, i64)| Observed {
            time_ms: *time_ms,
            high_watermark: *high_watermark,
            last_stable_offset: high_watermark - 1,
        };
        Samples::new(all.iter().map(of).collect(), 20)
    }

    #[test]
    fn what_was_there_and_what_was_not() {
        let seen = samples(&[(30, 50), (10, 20), (20, 40)]);
        assert_eq!(seen.unsure(20, &(0..60)), 40..50);
        assert_eq!(seen.unsure(29, &(0..60)), 40..50);
        assert_eq!(seen.unsure(5, &(3..60)), 3..20);
        assert_eq!(seen.unsure(35, &(0..60)), 50..60);
        assert_eq!(seen.unsure(35, &(0..45)), 45..45);
        assert_eq!(samples(&[]).unsure(7, &(3..9)), 3..9);
        assert_eq!((seen.stable(25), seen.stable(9)), (Some(39), None));
        assert_eq!((seen.time_before(45), seen.time_before(19)), (Some(20), None));
        assert_eq!((seen.surely(20), seen.surely(9)), (Some(40), None));
        assert!(seen.is_seen_after(29) && !seen.is_seen_after(30));
        let day = NEAR_MS;
        let far = samples(&[(20 - 3 * day, 1), (20 - 2 * day, 2), (20 + 2 * day, 3), (20 + 3 * day, 4)]);
        assert_eq!(far.0.iter().map(|s| s.high_watermark).collect::<Vec<_>>(), [2, 3]);
    }
}
