//! Kafka's offset and time index, as far as it takes to seek: whose entries they are and what a batch is stays
//! unknown here.
//!
//! An entry of the offset index is the last offset of what was appended at a position, relative to the base
//! (i32), and that position (i32). One of the time index is the largest timestamp so far (i64) and the offset
//! that had it (i32).

/// Where in the log to begin for `offset`: a batch begins there, and none before has the offset.
pub(super) fn position(index: &[u8], base_offset: i64, offset: i64, log_bytes: u64) -> Option<u64> {
    let (entries, rest) = index.as_chunks::<8>();
    let (mut found, mut last) = (0_u64, (-1_i64, -1_i64));
    for [a, b, c, d, e, f, g, h] in entries {
        let relative = i64::from(i32::from_be_bytes([*a, *b, *c, *d]));
        let position = i64::from(i32::from_be_bytes([*e, *f, *g, *h]));
        // A broker pads the index of an active segment with zeros.
        if (relative, position) == (0, 0) && last.0 >= 0 {
            break;
        }
        if relative < last.0 || position < last.1 {
            return None;
        }
        last = (relative, position);
        if base_offset.saturating_add(relative) <= offset {
            found = u64::try_from(position).ok()?;
        }
    }
    (rest.is_empty() && found < log_bytes.max(1)).then_some(found)
}

/// The first place at or behind byte `from` of the log at which a batch is known to begin.
pub(super) fn behind(index: &[u8], from: u64, log_bytes: u64) -> Option<u64> {
    let (entries, _) = index.as_chunks::<8>();
    let positions = entries.iter().filter_map(|entry| {
        let [_, _, _, _, e, f, g, h] = *entry;
        u64::try_from(i32::from_be_bytes([e, f, g, h])).ok()
    });
    let mut behind = positions.filter(|position| (from..log_bytes).contains(position));
    behind.next()
}

/// An offset before which no record has `time_ms` or later.
pub(super) fn offset_at(index: &[u8], base_offset: i64, time_ms: i64) -> Option<i64> {
    let (entries, rest) = index.as_chunks::<12>();
    let mut found = None;
    for entry in entries {
        let (time, relative) = entry.split_first_chunk::<8>()?;
        let relative = i64::from(i32::from_be_bytes(*relative.first_chunk::<4>()?));
        if i64::from_be_bytes(*time) < time_ms && relative >= 0 {
            found = Some(base_offset.saturating_add(relative));
        } else {
            break;
        }
    }
    if rest.is_empty() { found } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(entries: &[(i32, i32)]) -> Vec<u8> {
        entries.iter().flat_map(|(o, p)| [o.to_be_bytes(), p.to_be_bytes()].concat()).collect()
    }

    #[test]
    fn the_last_entry_at_or_below() {
        let index = offsets(&[(5, 100), (9, 200), (0, 0)]);
        let at = |offset| position(&index, 1000, offset, 1000);
        assert_eq!((at(1000), at(1004), at(1005), at(1008)), (Some(0), Some(0), Some(100), Some(100)));
        assert_eq!((at(1009), at(5000), at(3)), (Some(200), Some(200), Some(0)));
        assert_eq!(position(&[], 1000, 1001, 10), Some(0));
    }

    #[test]
    fn what_is_no_index_is_not_gone_by() {
        assert_eq!(position(&offsets(&[(9, 200), (5, 100)]), 0, 9, 1000), None);
        assert_eq!(position(&offsets(&[(9, 200)]), 0, 9, 200), None);
        assert_eq!(position(&[1, 2, 3], 0, 9, 200), None);
    }

    #[test]
    fn the_next_begin_of_a_batch() {
        let index = offsets(&[(5, 100), (9, 200), (0, 0)]);
        let at = |from| behind(&index, from, 300);
        assert_eq!((at(0), at(100), at(101), at(201)), (Some(100), Some(100), Some(200), None));
        assert_eq!(behind(&index, 101, 200), None);
    }

    #[test]
    fn times() {
        let entry = |t: i64, o: i32| [t.to_be_bytes().as_slice(), &o.to_be_bytes()].concat();
        let index = [entry(100, 3), entry(200, 7)].concat();
        let at = |time| offset_at(&index, 10, time);
        assert_eq!((at(100), at(101), at(200), at(201)), (None, Some(13), Some(13), Some(17)));
    }
}
