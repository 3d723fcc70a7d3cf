//! Topics that were deleted before the snapshot. An earlier one still describes them, and has the groups' offsets in
//! them, which Kafka forgets with a topic. Of several that had one name, one is restored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use varve_archive::Archive;
use varve_cluster::{ClusterState, Group, Part, TopicOffsets};

use crate::at::snapshot_at;
use crate::error::{Error, Result};
use crate::select::Selection;
use crate::source::{Source, SourceTopic};

/// Snapshots that are looked through, from the deletion back: it was seen within seconds, a snapshot takes longer.
const STEPS_MAX: u64 = 16;
/// States of the cluster that are in memory at once.
const STATES_MAX: usize = 4;

impl Source {
    /// Describes the deleted topics that are restored.
    ///
    /// # Errors
    /// Of the archive. What is damaged describes nothing.
    pub async fn recall(&mut self, selection: &Selection) -> Result<()> {
        let mut wanted: Vec<usize> = (0..self.topics.len())
            .filter(|number| {
                let topic = self.topics.get(*number);
                topic.is_some_and(|topic| topic.described.is_none() && self.may_be_restored(topic, selection))
            })
            .collect();
        // One after the other in time: their states are the same ones.
        wanted.sort_by_key(|number| self.topics.get(*number).and_then(|topic| topic.deleted_ms));
        let newest = self.snapshot.record.sequence;
        let mut states = States { archive: self.archive.clone(), read: VecDeque::new() };
        for number in wanted {
            let Some(topic) = self.topics.get_mut(number) else { break };
            let from = match topic.deleted_ms {
                None => newest,
                Some(deleted_ms) => match snapshot_at(&states.archive, deleted_ms, |ms| ms.to_string()).await
                {
                    Ok(sequence) => sequence.min(newest),
                    // Before all of them.
                    Err(Error::Refused { .. }) => continue,
                    Err(error) => return Err(error),
                },
            };
            let text = topic.topic_id.to_string();
            for sequence in (from.saturating_sub(STEPS_MAX)..=from).rev() {
                let Some(state) = states.of(sequence).await? else { continue };
                let Some(described) = state.topics.iter().find(|t| t.topic_id == text) else { continue };
                (topic.described, topic.described_by) = (Some(described.clone()), Some(sequence));
                topic.recalled = offsets_in(state, &topic.name);
                break;
            }
        }
        Ok(())
    }

    /// All groups. Of topics that are restored and were recalled, the offsets that go with them: what the state has
    /// under such a name is of another topic.
    pub(crate) fn groups(&self, is_restored: impl Fn(&SourceTopic) -> bool) -> Vec<Group> {
        let recalled: Vec<&SourceTopic> =
            self.topics.iter().filter(|topic| topic.described_by.is_some() && is_restored(topic)).collect();
        // One that is not in the state is not the one that groups of the state have read.
        let are_told = self.state.parts.has(Part::Topics);
        let is_of_another = |topic: &SourceTopic| {
            is_restored(topic) && (topic.described_by.is_some() || (are_told && topic.described.is_none()))
        };
        let others: BTreeSet<&str> = self
            .topics
            .iter()
            .filter(|topic| is_of_another(topic))
            .map(|topic| topic.name.as_str())
            .collect();
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for group in &self.state.groups {
            let mut group = group.clone();
            group.offsets.retain(|of| !others.contains(of.topic.as_str()));
            groups.insert(group.group_id.clone(), group);
        }
        for (group, offsets) in recalled.iter().flat_map(|topic| &topic.recalled) {
            let known = groups.entry(group.group_id.clone()).or_insert_with(|| group.clone());
            known.offsets.push(offsets.clone());
        }
        groups.into_values().collect()
    }

    fn may_be_restored(&self, topic: &SourceTopic, selection: &Selection) -> bool {
        let is_named = !selection.topics.is_empty() && !self.is_taken_by_living(topic);
        topic.is_deleted && (is_named || lived(topic, selection))
    }

    fn is_taken_by_living(&self, topic: &SourceTopic) -> bool {
        self.topics.iter().any(|other| !other.is_deleted && other.name == topic.name)
    }

    /// Why a topic is not restored, if it is not.
    pub(crate) fn left_out(&self, topic: &SourceTopic, selection: &Selection) -> Option<&'static str> {
        let same_name = self.topics.iter().filter(|other| other.name == topic.name);
        let then = same_name.filter(|other| other.described.is_some() && lived(other, selection));
        if let Some(then) = then.min_by_key(|other| other.deleted_ms) {
            let is_other = then.topic_id != topic.topic_id;
            return is_other.then_some("was not the one of its name at that time, and is left out");
        }
        if !topic.is_deleted {
            return None;
        }
        if self.is_taken_by_living(topic) {
            return Some("has been created anew before the snapshot, and is left out");
        }
        let why = "was deleted before the snapshot, and is left out: --topics with its name restores it";
        selection.topics.is_empty().then_some(why)
    }
}

/// Whether it was deleted only after the time that is wanted.
fn lived(topic: &SourceTopic, selection: &Selection) -> bool {
    let deleted_ms = topic.deleted_ms.filter(|_| topic.is_deleted);
    selection.as_of_ms.is_some_and(|then| deleted_ms.is_some_and(|at| then < at))
}

/// The last few that were read.
struct States {
    archive: Archive,
    read: VecDeque<(u64, Option<ClusterState>)>,
}

impl States {
    async fn of(&mut self, sequence: u64) -> Result<Option<&ClusterState>> {
        if !self.read.iter().any(|(known, _)| *known == sequence) {
            let state = match self.load(sequence).await {
                Err(error) if error.is_damage() => None,
                state => state?,
            };
            self.read.truncate(STATES_MAX - 1);
            self.read.push_front((sequence, state));
        }
        let found = self.read.iter().find(|(known, _)| *known == sequence);
        Ok(found.and_then(|(_, state)| state.as_ref()))
    }

    async fn load(&self, sequence: u64) -> varve_archive::Result<Option<ClusterState>> {
        match self.archive.snapshot(sequence).await? {
            Some(snapshot) => ClusterState::of(&self.archive, &snapshot).await,
            None => Ok(None),
        }
    }
}

fn offsets_in(state: &ClusterState, topic: &str) -> Vec<(Group, TopicOffsets)> {
    let of = |group: &Group| {
        let offsets = group.offsets.iter().find(|t| t.topic == topic)?;
        Some((Group { offsets: Vec::new(), ..group.clone() }, offsets.clone()))
    };
    state.groups.iter().filter_map(of).collect()
}
