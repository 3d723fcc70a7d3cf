//! The order in which Java's `HashMap<Long, _>` hands out its entries.
//!
//! A broker writes a producer snapshot by walking such a map, so the bytes of the file depend on the map's
//! inner order. That is: by bucket, and within a bucket by arrival. The table has 16 buckets at first, doubles
//! when more than three quarters as many entries are in it, and keeps the order within buckets as it splits
//! them. It also doubles, while it has fewer than 64 buckets, when one bucket would get a ninth entry. It never
//! shrinks.
//!
//! From 64 buckets on, a bucket with nine entries becomes a tree, whose order is not reproduced here: it takes
//! nine producers whose ids agree in as many low bits. The entries are right even then, and a broker reads them
//! in any order.

const FIRST_BUCKETS: usize = 16;
const MIN_BUCKETS_FOR_TREES: usize = 64;
/// A bucket with so many entries doesn't take another one as a list.
const LIST_LIMIT: usize = 8;
/// Java's limit, which no partition comes near.
const MAX_BUCKETS: usize = 1 << 30;

/// How many buckets the table has, told of each key that is new to the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HashOrder {
    buckets: usize,
}

impl HashOrder {
    /// Of an empty map.
    pub(super) fn new() -> Self {
        Self { buckets: FIRST_BUCKETS }
    }

    pub(super) fn bucket(self, key: i64) -> usize {
        let folded = (key ^ (key.cast_unsigned() >> 32).cast_signed()) as u32;
        (folded ^ (folded >> 16)) as usize & (self.buckets - 1)
    }

    /// `keys` are those in the map already, `len` of them; `key` is not among them.
    pub(super) fn insert(&mut self, key: i64, keys: impl Iterator<Item = i64>, len: usize) {
        if self.buckets < MIN_BUCKETS_FOR_TREES {
            let bucket = self.bucket(key);
            if keys.filter(|other| self.bucket(*other) == bucket).count() >= LIST_LIMIT {
                self.buckets *= 2;
            }
        }
        if len + 1 > self.buckets / 4 * 3 && self.buckets < MAX_BUCKETS {
            self.buckets *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a `java.util.HashMap` (JDK 17) printed its keys, which had been put in the order of the first list.
    const JAVA: &[(&[i64], &[i64])] = &[
        (&[33, 17, 1, 0, 2000, 1000], &[0, 2000, 33, 17, 1, 1000]),
        (&[0, 16, 32, 48, 64, 80, 96, 112, 1, 128, 17], &[0, 32, 64, 96, 128, 1, 16, 48, 80, 112, 17]),
        (
            &[0, 64, 128, 192, 256, 320, 384, 448, 512, 3, 576, 32],
            &[0, 64, 128, 192, 256, 320, 384, 448, 512, 576, 3, 32],
        ),
        (
            &[
                0, 1014, 2028, 13, 1027, 2012, 26, 1011, 2025, 10, 1024, 2009, 23, 1008, 2022, 7, 1021, 2006,
                20, 1005, 2019, 4, 1018, 2003, 17, 1002, 2016, 1, 1015, 2000,
            ],
            &[
                0, 1024, 1, 1027, 4, 7, 10, 13, 2000, 17, 2003, 20, 2006, 23, 2009, 26, 2012, 2016, 2019,
                2022, 2025, 1002, 2028, 1005, 1008, 1011, 1014, 1015, 1018, 1021,
            ],
        ),
        (
            &[4294967296, 1, 4294967297, 9223372036854775807, -1, 65536, 281474976710656, 131072, 15, 14],
            &[4294967297, 9223372036854775807, -1, 4294967296, 1, 65536, 281474976710656, 131072, 14, 15],
        ),
        (
            &[
                2243, 2902, 4673, 1101, 1837, 4152, 899, 4591, 3992, 2212, 541, 2758, 4495, 4672, 4595, 2340,
                663, 995, 4898, 500, 1871, 2774, 3406, 4407, 80, 3452, 453, 4119, 1667, 582, 3116, 910, 2636,
                3809, 0, 3325, 3984, 2234, 2203, 3365,
            ],
            &[
                4672, 0, 4673, 2243, 899, 1667, 453, 2758, 582, 2636, 1101, 3406, 910, 4495, 1871, 80, 3984,
                2902, 2774, 663, 4119, 3992, 2203, 541, 3809, 4898, 995, 2212, 2340, 3365, 3116, 1837, 4591,
                4595, 500, 4407, 4152, 2234, 3452, 3325,
            ],
        ),
    ];

    fn order(keys: &[i64]) -> Vec<i64> {
        let mut map = HashOrder::new();
        for (i, key) in keys.iter().enumerate() {
            map.insert(*key, keys[..i].iter().copied(), i);
        }
        let mut sorted = keys.to_vec();
        // A stable sort: arrival decides within a bucket.
        sorted.sort_by_key(|key| map.bucket(*key));
        sorted
    }

    #[test]
    fn as_java_orders_keys() {
        for (put, walked) in JAVA {
            assert_eq!(order(put), *walked);
        }
    }
}
