//! How long something has been waiting to be archived: samples of how far the log was, and when that was seen.
//!
//! Bounded: samples that are close in time become one, with the earlier time, so that a lag is told rather too
//! old than too young.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const SAMPLES_MAX: usize = 64;
/// Samples closer than this are one.
const CLOSE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// An end, and when it was first seen that the log goes beyond the end before. Both ascend.
    samples: VecDeque<(i64, Instant)>,
}

impl Seen {
    /// The log ends at `end_offset` now.
    pub(super) fn note(&mut self, end_offset: i64, safe_end: i64, now: Instant) {
        // An unclean leader election takes back what there was.
        let mut since = None;
        while let Some((end, at)) = self.samples.back().copied().filter(|(end, _)| *end > end_offset) {
            let _ = end;
            since = Some(at);
            self.samples.pop_back();
        }
        let known = self.samples.back().map_or(safe_end, |(end, _)| (*end).max(safe_end));
        if end_offset <= known {
            return;
        }
        match self.samples.back_mut() {
            Some((end, at)) if now.duration_since(*at) < CLOSE => *end = end_offset,
            _ => self.samples.push_back((end_offset, since.unwrap_or(now))),
        }
        if self.samples.len() > SAMPLES_MAX {
            self.halve();
        }
    }

    /// Each two neighbours become one: the later end, the earlier time.
    fn halve(&mut self) {
        let pairs: Vec<_> = self.samples.drain(..).collect();
        let merged = pairs.chunks(2).filter_map(|pair| Some((pair.last()?.0, pair.first()?.1)));
        self.samples.extend(merged);
    }

    pub(super) fn archived(&mut self, safe_end: i64) {
        while self.samples.front().is_some_and(|(end, _)| *end <= safe_end) {
            self.samples.pop_front();
        }
    }

    /// Since when the first record that is not archived has been known.
    pub(super) fn since(&self) -> Option<Instant> {
        self.samples.front().map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_not_archived_counts() {
        let (start, mut seen) = (Instant::now(), Seen::default());
        let at = |s| start + Duration::from_secs(s);
        seen.note(10, 10, at(0));
        assert_eq!(seen.since(), None, "all is archived");
        seen.note(20, 10, at(1));
        seen.note(20, 10, at(2));
        seen.note(30, 10, at(5));
        assert_eq!(seen.since(), Some(at(1)));
        seen.archived(15);
        assert_eq!(seen.since(), Some(at(1)), "only a part of it is archived");
        seen.archived(20);
        assert_eq!(seen.since(), Some(at(5)));
        seen.archived(30);
        assert_eq!(seen.since(), None);
    }

    #[test]
    fn a_log_that_became_shorter_is_waited_for_no_longer() {
        let (start, mut seen) = (Instant::now(), Seen::default());
        let at = |s| start + Duration::from_secs(s);
        seen.note(20, 10, at(1));
        seen.note(30, 10, at(2));
        seen.note(25, 10, at(3));
        seen.archived(20);
        assert_eq!(seen.since(), Some(at(2)));
        seen.note(20, 20, at(4));
        assert_eq!(seen.since(), None);
    }

    #[test]
    fn bounded_and_never_too_young() {
        let (start, mut seen) = (Instant::now(), Seen::default());
        for n in 0..10_000_i64 {
            seen.note(n + 1, 0, start + Duration::from_secs(n.unsigned_abs()));
        }
        assert!(seen.samples.len() <= SAMPLES_MAX);
        for safe in [1, 77, 5_000, 9_990] {
            seen.archived(safe);
            let truth = start + Duration::from_secs(safe.unsigned_abs());
            assert!(seen.since().is_some_and(|since| since <= truth), "{safe}");
        }
    }
}
