//! Deciding, without IO, what each object and each segment is.

use std::collections::{BTreeMap, HashSet};

use varve_format::{CustomMetadata, Id, SegmentName, segment_name};
use varve_kafka::protocol::{PartitionKey, RemoteLogState, RemoteSegment, SegmentState};

use super::finding::{Finding, FindingKind};
use super::listing::Listed;
use crate::output::age;

/// What was seen, and when.
pub(crate) struct View<'a> {
    pub(crate) cluster_id: &'a str,
    pub(crate) objects: &'a BTreeMap<String, Listed>,
    pub(crate) state: &'a RemoteLogState,
    /// Topics that the cluster shows us.
    pub(crate) topics: &'a HashSet<Id>,
    pub(crate) now_ms: i64,
    pub(crate) grace_ms: i64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Classified {
    pub(crate) findings: Vec<Finding>,
    /// Finished segments whose object is there: their footers are to be looked at.
    pub(crate) present: Vec<(String, PartitionKey, RemoteSegment)>,
    /// Finished segments whose object was not listed: to be asked for once more.
    pub(crate) absent: Vec<(String, PartitionKey, RemoteSegment)>,
    pub(crate) in_flight: u64,
    /// Segments that are read in place from an archive: their objects are not the tier's.
    pub(crate) archived: u64,
}

pub(crate) fn classify(view: &View<'_>) -> Classified {
    let mut out = Classified::default();
    let mut known: HashSet<String> = HashSet::new();
    for partition in view.state.partitions() {
        for segment in view.state.segments(partition) {
            let key = key_of(view.cluster_id, partition, segment);
            view.segment(&key, partition, segment, &mut out);
            known.insert(key);
        }
    }
    for (key, listed) in view.objects {
        if !known.contains(key) {
            view.unknown(key, *listed, &mut out);
        }
    }
    out
}

pub(crate) fn key_of(cluster_id: &str, partition: PartitionKey, segment: &RemoteSegment) -> String {
    segment_name(&SegmentName {
        cluster_id: cluster_id.to_owned(),
        topic_id: partition.0,
        partition: partition.1,
        base_offset: segment.start_offset,
        segment_id: segment.segment_id,
    })
}

impl View<'_> {
    fn segment(&self, key: &str, partition: PartitionKey, segment: &RemoteSegment, out: &mut Classified) {
        let listed = self.objects.get(key).copied();
        let event_age = self.now_ms.saturating_sub(segment.event_timestamp_ms);
        let young = event_age < self.grace_ms;
        let unfinished = match segment.state {
            SegmentState::CopyFinished => return self.finished(key, partition, segment, listed, out),
            SegmentState::CopyStarted => FindingKind::UnfinishedCopy,
            SegmentState::DeleteStarted => FindingKind::UnfinishedDelete,
            SegmentState::DeleteFinished => FindingKind::Orphan,
        };
        // An archive's object is never the tier's to delete.
        let Some(listed) = listed.filter(|_| !is_archived(segment)) else { return };
        if young {
            out.in_flight += 1;
            return;
        }
        let detail = format!("{} {} ago, and the object is there", segment.state.name(), age(event_age));
        out.findings.push(self.finding(unfinished, key, partition, Some(listed), detail));
    }

    fn finished(
        &self,
        key: &str,
        partition: PartitionKey,
        segment: &RemoteSegment,
        listed: Option<Listed>,
        out: &mut Classified,
    ) {
        if is_archived(segment) {
            out.archived += 1;
            return;
        }
        if !self.topics.contains(&partition.0) {
            let event_age = self.now_ms.saturating_sub(segment.event_timestamp_ms);
            match listed {
                Some(listed) if event_age >= self.grace_ms => {
                    let detail = "no such topic on the cluster, or none that we may see".to_owned();
                    let kind = FindingKind::DeletedTopic;
                    out.findings.push(self.finding(kind, key, partition, Some(listed), detail));
                }
                Some(_) => out.in_flight += 1,
                // Gone with its topic: nobody asks for it.
                None => {}
            }
            return;
        }
        let list = if listed.is_some() { &mut out.present } else { &mut out.absent };
        list.push((key.to_owned(), partition, segment.clone()));
    }

    /// No metadata names it.
    fn unknown(&self, key: &str, listed: Listed, out: &mut Classified) {
        let object_age = self.now_ms.saturating_sub(listed.last_modified_ms);
        if object_age < self.grace_ms {
            out.in_flight += 1;
            return;
        }
        let (kind, topic, detail) = match SegmentName::parse(key) {
            Ok(name) => {
                let topic = self.state.topic_name(name.topic_id);
                let topic = topic.map(|topic| format!("{topic}-{}", name.partition));
                (FindingKind::Orphan, topic, format!("{} old, and unknown to the brokers", age(object_age)))
            }
            Err(_) => {
                (FindingKind::Foreign, None, format!("{} old, and no segment by its name", age(object_age)))
            }
        };
        let size_bytes = Some(listed.size_bytes);
        out.findings.push(Finding { kind, key: key.to_owned(), topic, size_bytes, detail });
    }

    pub(crate) fn finding(
        &self,
        kind: FindingKind,
        key: &str,
        partition: PartitionKey,
        listed: Option<Listed>,
        detail: String,
    ) -> Finding {
        let topic = self.state.topic_name(partition.0).unwrap_or("?");
        Finding {
            kind,
            key: key.to_owned(),
            topic: Some(format!("{topic}-{}", partition.1)),
            size_bytes: listed.map(|l| l.size_bytes),
            detail,
        }
    }
}

fn is_archived(segment: &RemoteSegment) -> bool {
    let custom = segment.custom_metadata.as_deref().map(CustomMetadata::decode);
    matches!(custom, Some(Ok(CustomMetadata { archive: Some(_), .. })))
}

#[cfg(test)]
mod tests {
    use varve_kafka::protocol::{
        RemoteLogRecord, SegmentRecord, SegmentSnapshot, SegmentUpdate, TopicIdPartition,
    };

    use super::*;

    const TOPIC: Id = Id([1; 16]);
    const NOW_MS: i64 = 1_700_000_000_000;
    const GRACE_MS: i64 = 3_600_000;
    const OLD_MS: i64 = NOW_MS - GRACE_MS;
    const YOUNG_MS: i64 = NOW_MS - GRACE_MS + 1;

    fn partition() -> TopicIdPartition {
        TopicIdPartition { topic_id: TOPIC, topic: "t".to_owned(), partition: 0 }
    }

    fn state(segments: &[(u8, SegmentState, i64)]) -> RemoteLogState {
        let mut state = RemoteLogState::new();
        for (id, last, event_timestamp_ms) in segments {
            let description = SegmentSnapshot {
                segment_id: Id([*id; 16]),
                start_offset: i64::from(*id),
                end_offset: i64::from(*id),
                broker_id: 1,
                max_timestamp_ms: 0,
                event_timestamp_ms: *event_timestamp_ms,
                leader_epochs: vec![],
                size_bytes: 10,
                custom_metadata: None,
                state: SegmentState::CopyStarted,
                txn_index_empty: false,
            };
            let begun = RemoteLogRecord::Segment(SegmentRecord { partition: partition(), description });
            state.apply(begun).unwrap();
            use SegmentState::*;
            for next in [CopyFinished, DeleteStarted, DeleteFinished] {
                if next <= *last {
                    let update = SegmentUpdate {
                        partition: partition(),
                        segment_id: Id([*id; 16]),
                        broker_id: 1,
                        event_timestamp_ms: *event_timestamp_ms,
                        custom_metadata: None,
                        state: next,
                    };
                    state.apply(RemoteLogRecord::Update(update)).unwrap();
                }
            }
        }
        state
    }

    fn key(id: u8) -> String {
        format!("c/{TOPIC}/0/{id:020}-{}.varve", Id([id; 16]))
    }

    fn run(segments: &[(u8, SegmentState, i64)], objects: &[(String, i64)], topics: &[Id]) -> Classified {
        let listed = |ms: &i64| Listed { size_bytes: 5, last_modified_ms: *ms };
        let objects = objects.iter().map(|(key, ms)| (key.clone(), listed(ms))).collect();
        classify(&View {
            cluster_id: "c",
            objects: &objects,
            state: &state(segments),
            topics: &topics.iter().copied().collect(),
            now_ms: NOW_MS,
            grace_ms: GRACE_MS,
        })
    }

    fn kinds(out: &Classified) -> Vec<FindingKind> {
        out.findings.iter().map(|f| f.kind).collect()
    }

    #[test]
    fn finished_segments_are_looked_at_or_looked_for() {
        let finished = SegmentState::CopyFinished;
        let out = run(&[(1, finished, OLD_MS), (2, finished, NOW_MS)], &[(key(1), OLD_MS)], &[TOPIC]);
        assert_eq!(kinds(&out), []);
        assert_eq!((out.present.len(), out.present[0].0.clone()), (1, key(1)));
        assert_eq!((out.absent.len(), out.absent[0].0.clone()), (1, key(2)));
    }

    #[test]
    fn states_that_linger_are_findings_and_young_ones_in_flight() {
        for (last, kind) in [
            (SegmentState::CopyStarted, FindingKind::UnfinishedCopy),
            (SegmentState::DeleteStarted, FindingKind::UnfinishedDelete),
            (SegmentState::DeleteFinished, FindingKind::Orphan),
        ] {
            let out = run(&[(1, last, OLD_MS)], &[(key(1), OLD_MS)], &[TOPIC]);
            assert_eq!(kinds(&out), [kind], "{last:?}");
            let out = run(&[(1, last, YOUNG_MS)], &[(key(1), OLD_MS)], &[TOPIC]);
            assert_eq!((kinds(&out), out.in_flight), (vec![], 1), "{last:?}");
            // Without its object nothing is left of it.
            let out = run(&[(1, last, OLD_MS)], &[], &[TOPIC]);
            assert_eq!((kinds(&out), out.in_flight), (vec![], 0), "{last:?}");
        }
    }

    #[test]
    fn objects_nobody_knows() {
        let out = run(&[], &[(key(1), OLD_MS), (key(2), YOUNG_MS), ("c/notes.txt".into(), OLD_MS)], &[]);
        assert_eq!(kinds(&out), [FindingKind::Orphan, FindingKind::Foreign]);
        assert_eq!(out.in_flight, 1);
    }

    #[test]
    fn segments_of_topics_that_are_gone() {
        let segments = [(1, SegmentState::CopyFinished, OLD_MS), (2, SegmentState::CopyFinished, YOUNG_MS)];
        let out = run(&segments, &[(key(1), OLD_MS), (key(2), OLD_MS)], &[]);
        assert_eq!((kinds(&out), out.in_flight), (vec![FindingKind::DeletedTopic], 1));
        let out = run(&segments, &[], &[]);
        assert_eq!((kinds(&out), out.absent.len()), (vec![], 0));
    }
}
