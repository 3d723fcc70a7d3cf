//! One partition, from where it is to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use varve_format::Id;
use varve_kafka::client::admin::TopicPartition;
use varve_kafka::client::{Acked, Client, OffsetSpec, ProduceLane};
use varve_kafka::protocol::{Batch, Batches};
use varve_store::Rate;

use super::compare::is_same;
use super::filler::filler;
use super::map::{MapDir, PartitionMap, Run};
use super::outgoing::{Outgoing, Sendable};
use super::producer::Identity;
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::plan::{PlannedPartition, PlannedProduce, PlannedTopic};

/// What all partitions share.
pub(crate) struct Writing<'a> {
    pub(crate) reading: Reading<'a>,
    pub(crate) client: &'a Client,
    pub(crate) maps: &'a MapDir,
    pub(crate) producer: Identity,
    pub(crate) rate: Arc<Rate>,
    /// Of batches that the target has.
    pub(crate) written_bytes: AtomicU64,
}

/// A partition that is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    pub(crate) topic: &'a PlannedTopic,
    pub(crate) topic_id: Id,
    pub(crate) planned: &'a PlannedPartition,
    pub(crate) produce: &'a PlannedProduce,
}

impl Work<'_> {
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.topic.target, self.planned.partition)
    }

    fn foreign(&self, offset: i64) -> Error {
        let what = format!("somebody else writes into {} at offset {offset}", self.name());
        Error::refused(what, "stop them, take back what was begun with varve restore cleanup, and plan anew")
    }
}

/// What of the source goes next, and at which offset of the target.
#[derive(Clone, Copy, Debug)]
struct Place {
    source: i64,
    target: i64,
}

/// What was sent, and not acknowledged yet.
struct Sent {
    target: i64,
    runs: Vec<Run>,
}

impl Writing<'_> {
    /// Compares what is there, and writes what is not.
    ///
    /// # Errors
    /// Of archive and target; somebody else who writes there.
    pub(crate) async fn write(&self, lane: &mut ProduceLane, work: &Work<'_>) -> Result<()> {
        let (mut map, last) = PartitionMap::open(self.maps, work.topic, work.planned.partition)?;
        let (start, end) = self.bounds(work).await?;
        let filler = work.produce.filler;
        let mut at = match last {
            Some(last) => Place { source: last.source_end(), target: last.target_end() },
            None => Place { source: work.planned.start_offset, target: 0 },
        };
        if end < at.target {
            let what = format!("{}: its end", work.name());
            return Err(Error::unexpected(what, format!("offset {} or later", at.target), end));
        }
        lane.turn_to(&work.topic.target, work.topic_id, work.planned.partition).await?;
        if at.target < filler {
            at.target = self.fill(lane, work, at.target, (start, end)).await?;
        }
        if start < filler {
            let place = TopicPartition::new(work.topic.target.clone(), work.planned.partition);
            self.client.delete_records(&place, filler).await?;
        }
        let Some(mut outgoing) = self.reading.outgoing(work, at.source).await? else { return Ok(()) };
        at = self.found(work, &mut outgoing, &mut map, at, end).await?;
        self.rest(lane, work, &mut outgoing, &mut map, at).await?;
        map.sync()?;
        let expected = filler.saturating_add_unsigned(work.produce.records);
        let (_, end) = self.bounds(work).await?;
        if end < expected {
            return Err(Error::unexpected(format!("{}: its end", work.name()), expected, end));
        }
        Ok(())
    }

    async fn bounds(&self, work: &Work<'_>) -> Result<(i64, i64)> {
        let partition = work.planned.partition;
        let of = async |spec| {
            let found = self.client.list_offsets(&work.topic.target, &[partition], spec).await?;
            Ok::<_, Error>(found.get(&partition).copied().flatten().unwrap_or(0))
        };
        Ok((of(OffsetSpec::Earliest).await?, of(OffsetSpec::Latest).await?))
    }

    /// Takes the offsets before the first real one. Where the target goes on then.
    async fn fill(
        &self,
        lane: &mut ProduceLane,
        work: &Work<'_>,
        from: i64,
        (start, end): (i64, i64),
    ) -> Result<i64> {
        let (filler_end, timestamp_ms) = (work.produce.filler, work.produce.first_timestamp_ms);
        if start > from {
            // They were there, and are deleted.
            return if start == filler_end { Ok(filler_end) } else { Err(work.foreign(start)) };
        }
        let mut next = from;
        let there = end.min(filler_end);
        let mut found = self.client.read_partition(
            &work.topic.target,
            work.topic_id,
            work.planned.partition,
            from,
            there,
        );
        while let Some(bytes) = found.next().await? {
            for batch in Batches::new(bytes, 0) {
                let header = batch.map_err(|source| Error::Protocol { object: work.name(), source })?.header;
                if header.base_offset >= there {
                    break;
                }
                let by = self.producer.at(next);
                let ours = header.base_offset == next
                    && (header.producer_id, header.base_sequence) == (by.producer_id, by.base_sequence);
                if !ours {
                    return Err(work.foreign(next));
                }
                next = header.next_offset();
            }
        }
        let mut expected = VecDeque::new();
        while next < filler_end {
            let (batch, count) = filler(next, filler_end, timestamp_ms, self.producer.at(next))?;
            expected.push_back(Sent { target: next, runs: Vec::new() });
            if let Some(acked) = lane.send(batch).await? {
                self.acked(work, acked, &mut expected, None)?;
            }
            next += count;
        }
        while let Some(acked) = lane.oldest().await? {
            self.acked(work, acked, &mut expected, None)?;
        }
        Ok(next)
    }

    /// What the target has already, up to `end`, is what would have been sent.
    async fn found(
        &self,
        work: &Work<'_>,
        outgoing: &mut Outgoing,
        map: &mut PartitionMap,
        mut at: Place,
        end: i64,
    ) -> Result<Place> {
        let (name, partition) = (work.name(), work.planned.partition);
        let mut reader =
            self.client.read_partition(&work.topic.target, work.topic_id, partition, at.target, end);
        while let Some(bytes) = reader.next().await? {
            for batch in Batches::new(bytes, 0) {
                let batch: Batch =
                    batch.map_err(|source| Error::Protocol { object: name.clone(), source })?;
                // Behind our last record others may write.
                let Some(sent) = outgoing.next().await? else { return Ok(at) };
                if batch.header.base_offset != at.target || !is_same(&name, &sent, &batch)? {
                    return Err(work.foreign(at.target));
                }
                at = self.note(map, &sent.runs(at.target), at)?;
                self.written_bytes.fetch_add(batch.bytes.len() as u64, Ordering::Relaxed);
            }
        }
        Ok(at)
    }

    fn note(&self, map: &mut PartitionMap, runs: &[Run], mut at: Place) -> Result<Place> {
        for run in runs {
            map.add(*run)?;
            at = Place { source: run.source_end(), target: run.target_end() };
        }
        Ok(at)
    }

    async fn rest(
        &self,
        lane: &mut ProduceLane,
        work: &Work<'_>,
        outgoing: &mut Outgoing,
        map: &mut PartitionMap,
        mut at: Place,
    ) -> Result<()> {
        let (name, mut expected) = (work.name(), VecDeque::new());
        while let Some(next) = outgoing.next().await? {
            at.target = self.send(lane, work, &name, next, map, &mut expected, at.target).await?;
        }
        while let Some(acked) = lane.oldest().await? {
            self.acked(work, acked, &mut expected, Some(map))?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one step of the loop above")]
    async fn send(
        &self,
        lane: &mut ProduceLane,
        work: &Work<'_>,
        name: &str,
        next: Sendable,
        map: &mut PartitionMap,
        expected: &mut VecDeque<Sent>,
        target: i64,
    ) -> Result<i64> {
        let batch = next.bytes(name, self.producer.at(target))?;
        self.rate.acquire(batch.len() as u64).await;
        expected.push_back(Sent { target, runs: next.runs(target) });
        if let Some(acked) = lane.send(batch).await? {
            self.acked(work, acked, expected, Some(map))?;
        }
        Ok(target.saturating_add(i64::from(next.records)))
    }

    fn acked(
        &self,
        work: &Work<'_>,
        acked: Acked,
        expected: &mut VecDeque<Sent>,
        map: Option<&mut PartitionMap>,
    ) -> Result<()> {
        let Some(sent) = expected.pop_front() else { return Ok(()) };
        if acked.base_offset != sent.target {
            let (name, found) = (work.name(), acked.base_offset);
            tracing::error!(
                partition = name,
                expected = sent.target,
                found,
                "acknowledged at another offset"
            );
            return Err(work.foreign(sent.target));
        }
        self.written_bytes.fetch_add(acked.bytes as u64, Ordering::Relaxed);
        if let Some(map) = map {
            sent.runs.iter().try_for_each(|run| map.add(*run))?;
        }
        Ok(())
    }
}
