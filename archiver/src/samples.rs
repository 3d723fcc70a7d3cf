//! What was seen of a partition, and when. Restoring as of a point in time goes by these.

use varve_format::Observed;

use crate::clock;

/// That a segment's footer takes.
const MAX: usize = 128;
/// That a journal's does: there are many of them.
const FEW: usize = 16;

/// In the order of time, and thinned where there are too many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<Observed>);

impl Samples {
    pub(crate) fn push(&mut self, sample: Observed) {
        let same = |other: &Observed| {
            (other.high_watermark, other.last_stable_offset)
                == (sample.high_watermark, sample.last_stable_offset)
        };
        // Of a while in which nothing happens, its beginning and its end.
        if let [.., first, last] = self.0.as_mut_slice()
            && same(first)
            && same(last)
        {
            last.time_ms = last.time_ms.max(sample.time_ms);
            return;
        }
        // The newest counts as long as nothing comes behind it; before it, one a second.
        if let [.., before, last] = self.0.as_slice()
            && last.time_ms.saturating_sub(before.time_ms) < clock::SECOND_MS
        {
            self.0.pop();
        }
        self.0.push(sample);
        self.thin();
    }

    fn thin(&mut self) {
        while self.0.len() > MAX {
            let mut number = 0_u32;
            self.0.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
    }

    /// What others saw before.
    pub(crate) fn inherit(&mut self, mut before: Vec<Observed>) {
        before.sort_by_key(|sample| sample.time_ms);
        let first_ms = self.0.first().map_or(i64::MAX, |first| first.time_ms);
        before.retain(|sample| sample.time_ms < first_ms);
        before.append(&mut self.0);
        self.0 = before;
        self.thin();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Some of those behind `time_ms`, with the last.
    pub(crate) fn few_since(&self, time_ms: i64) -> Vec<Observed> {
        let new =
            self.0.get(self.0.partition_point(|sample| sample.time_ms <= time_ms)..).unwrap_or_default();
        let step = new.len().div_ceil(FEW).max(1);
        let mut few: Vec<Observed> = new.iter().rev().step_by(step).copied().collect();
        few.reverse();
        few
    }

    /// All but the last, which tells of what comes next too, are gone then.
    pub(crate) fn take(&mut self) -> Vec<Observed> {
        let all = std::mem::take(&mut self.0);
        self.0.extend(all.last());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(time_ms: i64, high_watermark: i64) -> Observed {
        Observed { time_ms, high_watermark, last_stable_offset: high_watermark }
    }

    #[test]
    fn a_quiet_while_is_two_samples_and_a_busy_one_is_thinned() {
        let mut samples = Samples::default();
        for second in 0..1000 {
            samples.push(sample(second * 1000, 7));
        }
        samples.push(sample(999_500, 8));
        assert_eq!(samples.0, [sample(0, 7), sample(999_000, 7), sample(999_500, 8)]);
        samples.push(sample(999_600, 9));
        assert_eq!(samples.0, [sample(0, 7), sample(999_000, 7), sample(999_600, 9)]);
        for second in 1000..2000 {
            samples.push(sample(second * 1000, second));
        }
        assert!(samples.0.len() <= MAX && samples.0.is_sorted_by_key(|s| s.time_ms), "{}", samples.0.len());
        let few = samples.few_since(1_500_000);
        assert!(few.len() <= FEW && few.len() > FEW / 2 && few[0].time_ms > 1_500_000, "{few:?}");
        assert_eq!(few.last(), samples.0.last());
        assert!(samples.few_since(i64::MAX).is_empty());
        let all = samples.take();
        assert_eq!(samples.0, [*all.last().unwrap()]);
    }

    #[test]
    fn what_others_saw_comes_before_and_is_thinned_too() {
        let mut samples = Samples::default();
        samples.push(sample(1_000_000, 7));
        samples.inherit((0..2000).map(|second| sample(second * 1000, second)).collect());
        assert!(samples.0.len() <= MAX && samples.0.is_sorted_by_key(|s| s.time_ms), "{:?}", samples.0);
        assert_eq!(samples.0.iter().filter(|s| s.time_ms >= 1_000_000).count(), 1);
        assert_eq!(samples.0.first(), Some(&sample(0, 0)));
    }
}
