//! What two copies of a log are compared by: sums over stretches of offsets, in bounded memory whatever the log's size.

use std::collections::BTreeMap;
use std::ops::Range;

use varve_kafka::protocol::BatchHeader;

/// With more, neighbours are added up.
const STRETCHES_MAX: usize = 1 << 16;

/// Of the batches of one range of offsets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fingerprint {
    /// A stretch has `1 << shift` offsets; a batch counts where it begins.
    shift: u32,
    sums: BTreeMap<i64, u64>,
}

impl Fingerprint {
    pub(crate) fn add(&mut self, header: &BatchHeader) {
        let word = (u64::from(header.crc) << 32) ^ header.size_bytes();
        let place = header.base_offset.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let sum = (word ^ place)
            .wrapping_mul(0xd6e8_feb8_6659_fd93)
            .rotate_left(31)
            .wrapping_mul(0xa076_1d64_78bd_642f);
        let stretch = self.sums.entry(header.base_offset >> self.shift).or_default();
        *stretch = stretch.wrapping_add(sum);
        if self.sums.len() > STRETCHES_MAX {
            self.widen();
        }
    }

    fn widen(&mut self) {
        self.shift += 1;
        let mut wider: BTreeMap<i64, u64> = BTreeMap::new();
        for (at, sum) in &self.sums {
            let stretch = wider.entry(at >> 1).or_default();
            *stretch = stretch.wrapping_add(*sum);
        }
        self.sums = wider;
    }

    /// The first stretch that is not the same in both, of those that lie in `common`.
    pub(crate) fn difference(mut self, mut other: Self, common: &Range<i64>) -> Option<Range<i64>> {
        while self.shift < other.shift {
            self.widen();
        }
        while other.shift < self.shift {
            other.widen();
        }
        let offsets = |at: i64| at << self.shift..(at + 1) << self.shift;
        let within = |at: &&i64| offsets(**at).start >= common.start && offsets(**at).end <= common.end;
        let all = self.sums.keys().chain(other.sums.keys());
        let first = all.filter(within).filter(|at| self.sums.get(at) != other.sums.get(at)).min()?;
        Some(offsets(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(base_offset: i64, crc: u32) -> BatchHeader {
        let mut bytes = [0_u8; 61];
        bytes[11] = 49;
        bytes[16] = 2;
        let header = BatchHeader::parse(&bytes, 0).unwrap();
        BatchHeader { base_offset, crc, ..header }
    }

    #[test]
    fn one_batch_that_differs_is_found() {
        let make = |changed: i64| {
            let mut made = Fingerprint::default();
            (0..200_000_i64).for_each(|n| made.add(&header(n * 3, u32::from(n == changed))));
            made
        };
        assert!(make(-1).sums.len() <= STRETCHES_MAX);
        let all = 0..1 << 40;
        assert_eq!(make(-1).difference(make(-1), &all), None);
        let found = make(-1).difference(make(77_777), &all).unwrap();
        assert!(found.contains(&(77_777 * 3)) && found.end - found.start <= 64, "{found:?}");
        // More of one than of the other.
        let mut few = Fingerprint::default();
        few.add(&header(0, 0));
        assert!(few.clone().difference(Fingerprint::default(), &all).is_some());
        assert_eq!(few.clone().difference(Fingerprint::default(), &(1..1 << 40)), None);
        assert!(few.difference(make(-1), &all).is_some());
    }
}
