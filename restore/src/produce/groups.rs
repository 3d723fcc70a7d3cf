//! Offsets of consumer groups, as the target's.

use std::collections::BTreeMap;

use super::map::MapDir;
use crate::error::Result;
use crate::plan::{Offsets, Plan, PlannedGroup, PlannedProduce, PlannedTopic};

/// Each committed offset becomes that of the first record at or behind it; the end where none is. Equal offsets stay.
///
/// # Errors
/// A map that can't be read.
pub(crate) fn mapped(plan: &Plan, maps: &MapDir) -> Result<Vec<PlannedGroup>> {
    let mut groups = plan.groups.clone();
    // Each map is read once, for all groups.
    let mut wanted: BTreeMap<(String, i32), Vec<&mut i64>> = BTreeMap::new();
    for offset in groups.iter_mut().flat_map(|group| &mut group.offsets) {
        wanted.entry((offset.topic.clone(), offset.partition)).or_default().push(&mut offset.offset);
    }
    for topic in &plan.topics {
        for planned in &topic.partitions {
            let Some(offsets) = wanted.get_mut(&(topic.target.clone(), planned.partition)) else { continue };
            let Some(produce) = &planned.produce else { continue };
            if produce.offsets == Offsets::Mapped {
                look_up(maps, topic, planned.partition, produce, offsets)?;
            }
        }
    }
    Ok(groups)
}

fn look_up(
    maps: &MapDir,
    topic: &PlannedTopic,
    partition: i32,
    produce: &PlannedProduce,
    offsets: &mut [&mut i64],
) -> Result<()> {
    offsets.sort_unstable();
    let mut left = offsets.iter_mut().peekable();
    for run in maps.runs(topic, partition)? {
        let run = run?;
        while let Some(offset) = left.next_if(|offset| ***offset < run.source_end()) {
            **offset = run.target.saturating_add(offset.saturating_sub(run.source).max(0));
        }
        if left.peek().is_none() {
            return Ok(());
        }
    }
    left.for_each(|offset| **offset = produce.filler.saturating_add_unsigned(produce.records));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::plan::tests::{produce, topic};

    #[test]
    fn the_very_next_record_or_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let maps = MapDir::of(&folder.path().join("a.plan"));
        maps.make().unwrap();
        std::fs::write(maps.file(&topic(), 0), "5 0 3\n10 3 2\n20 5 1\n").unwrap();
        let mut offsets = [0, 20, 5, 7, 8, 10, 11, 12, 21, 99];
        let produce = PlannedProduce { records: 6, ..produce() };
        look_up(&maps, &topic(), 0, &produce, &mut offsets.iter_mut().collect::<Vec<_>>()).unwrap();
        assert_eq!(offsets, [0, 5, 0, 2, 3, 3, 4, 5, 6, 6]);
    }
}
