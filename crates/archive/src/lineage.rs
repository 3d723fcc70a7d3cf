//! Which branch counts for which offsets. Pure.

use crate::record::branch::BranchRecord;

/// Offsets `start_offset..end_offset` of a lineage come from `branch`; no end is the chain's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub branch: u32,
    pub start_offset: i64,
    pub end_offset: Option<i64>,
}

/// Of `branch`, in order of offsets. `record` gives a branch's parent and start; branch 0 has none and begins
/// at 0. Empty stretches are left out, but for the branch's own.
pub fn lineage<'r>(branch: u32, record: impl Fn(u32) -> Option<&'r BranchRecord>) -> Vec<Stretch> {
    lineage_of(branch, |number| record(number).map(|r| (r.parent, r.start_offset)))
}

/// The same, of a branch's parent and start.
pub(crate) fn lineage_of(branch: u32, record: impl Fn(u32) -> Option<(Option<u32>, i64)>) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let (mut branch, mut end) = (branch, None::<i64>);
    loop {
        let found = record(branch);
        let start_offset = found.map_or(0, |(_, start)| start);
        if end.is_none_or(|end| start_offset < end) {
            stretches.push(Stretch { branch, start_offset, end_offset: end });
            end = Some(start_offset);
        }
        // A parent is below its branch: this ends.
        match found.and_then(|(parent, _)| parent.filter(|parent| *parent < branch)) {
            Some(parent) => branch = parent,
            None => break,
        }
    }
    stretches.reverse();
    stretches
}
