//! What an archive knows of topics that were deleted before its snapshot: an earlier one still describes them, and has
//! the groups' offsets in them, which Kafka forgets with a topic.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use varve_archive::record::snapshot::CLUSTER_STATE;
use varve_cluster::{ClusterState, Group, TopicOffsets};

use crate::at::snapshot_at;
use crate::error::{Error, Result};
use crate::source::{Source, SourceTopic, state_of};

/// Snapshots that are looked through, from the deletion back: it was seen within seconds, a snapshot takes longer.
const STEPS_MAX: u64 = 16;

impl Source {
    /// Describes deleted topics that are restored by their names.
    ///
    /// # Errors
    /// Of the archive.
    pub async fn recall(&mut self) -> Result<()> {
        let living: BTreeSet<String> =
            self.topics.iter().filter(|t| !t.is_deleted).map(|t| t.name.clone()).collect();
        let mut read: BTreeMap<u64, Option<ClusterState>> = BTreeMap::new();
        for number in 0..self.topics.len() {
            let Some(topic) = self.topics.get(number) else { break };
            if !topic.is_deleted || topic.described.is_some() || living.contains(&topic.name) {
                continue;
            }
            let Some(sequence) = self.last_with(topic, &mut read).await? else { continue };
            let Some(Some(state)) = read.get(&sequence) else { continue };
            let text = topic.topic_id.to_string();
            let described = state.topics.iter().find(|t| t.topic_id == text).cloned();
            let offsets = offsets_in(state, &topic.name);
            for (group, offsets) in offsets {
                self.add_offsets(group, offsets);
            }
            if let Some(topic) = self.topics.get_mut(number) {
                (topic.described, topic.described_by) = (described, Some(sequence));
            }
        }
        Ok(())
    }

    /// The last snapshot in which it lived.
    async fn last_with(
        &self,
        topic: &SourceTopic,
        read: &mut BTreeMap<u64, Option<ClusterState>>,
    ) -> Result<Option<u64>> {
        let newest = self.snapshot.record.sequence;
        let from = match topic.deleted_ms {
            None => newest,
            Some(deleted_ms) => match snapshot_at(&self.archive, deleted_ms, |ms| ms.to_string()).await {
                Ok(sequence) => sequence.min(newest),
                // Before all of them.
                Err(Error::Refused { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let text = topic.topic_id.to_string();
        for sequence in (from.saturating_sub(STEPS_MAX)..=from).rev() {
            if let Entry::Vacant(vacant) = read.entry(sequence) {
                let state = match self.archive.snapshot(sequence).await? {
                    Some(snapshot) if snapshot.record.document(CLUSTER_STATE).is_some() => {
                        Some(state_of(&self.archive, &snapshot).await?)
                    }
                    _ => None,
                };
                vacant.insert(state);
            }
            let state = read.get(&sequence).and_then(Option::as_ref);
            if state.is_some_and(|state| state.topics.iter().any(|t| t.topic_id == text)) {
                return Ok(Some(sequence));
            }
        }
        Ok(None)
    }

    fn add_offsets(&mut self, group: Group, offsets: TopicOffsets) {
        match self.state.groups.iter_mut().find(|g| g.group_id == group.group_id) {
            Some(known) if known.offsets.iter().any(|t| t.topic == offsets.topic) => {}
            Some(known) => known.offsets.push(offsets),
            None => self.state.groups.push(Group { offsets: vec![offsets], ..group }),
        }
    }
}

fn offsets_in(state: &ClusterState, topic: &str) -> Vec<(Group, TopicOffsets)> {
    let of = |group: &Group| {
        let offsets = group.offsets.iter().find(|t| t.topic == topic)?;
        Some((group.clone(), offsets.clone()))
    };
    state.groups.iter().filter_map(of).collect()
}
