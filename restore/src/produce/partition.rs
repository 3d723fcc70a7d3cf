//! One partition, from where it is to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use varve_format::Id;
use varve_kafka::client::admin::{AdminError, TopicPartition};
use varve_kafka::client::{Client, ClientError, KafkaCode, OffsetSpec, ProduceLane};
use varve_kafka::protocol::{Batch, Batches};
use varve_store::Rate;

use super::compare::is_same;
use super::filler::filler;
use super::map::{MapDir, PartitionMap, Run};
use super::outgoing::Outgoing;
use super::producer::Identity;
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::plan::{PlannedPartition, PlannedProduce, PlannedTopic};

/// A new leader learns within so long how far what was acknowledged reaches.
const NEW_LEADER_MAX: Duration = Duration::from_secs(60);
const NEW_LEADER_PAUSE: Duration = Duration::from_millis(250);

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
        let what = format!(
            "{} has other records at offset {offset} than the archive: somebody else writes there, or a broker took a \
             batch twice",
            self.name()
        );
        Error::refused(
            what,
            "stop who else writes, take back what was begun with varve restore cleanup, and plan anew",
        )
    }

    fn failed(&self, error: ClientError) -> Error {
        match error {
            ClientError::OffsetTaken { offset, .. } => self.foreign(offset),
            other => other.into(),
        }
    }
}

/// What of the source goes next, and at which offset of the target.
#[derive(Clone, Copy, Debug)]
struct Place {
    source: i64,
    target: i64,
}

impl Writing<'_> {
    /// Compares what is there, and writes what is not.
    ///
    /// # Errors
    /// Of archive and target; somebody else who writes there.
    pub(crate) async fn write(&self, lane: &mut ProduceLane, work: &Work<'_>) -> Result<()> {
        let (mut map, last) = PartitionMap::open(self.maps, work.topic, work.planned.partition)?;
        if work.produce.records == 0 && work.produce.filler == 0 {
            return map.sync();
        }
        let end = lane.turn_to(&work.topic.target, work.topic_id, work.planned.partition).await?;
        let start = self.offset(work, OffsetSpec::Earliest).await?;
        let filler = work.produce.filler;
        let mut at = match last {
            Some(last) => Place { source: last.source_end(), target: last.target_end() },
            None => Place { source: work.planned.start_offset, target: 0 },
        };
        if end < at.target {
            let what = format!("{}: its end", work.name());
            return Err(Error::unexpected(what, format!("offset {} or later", at.target), end));
        }
        if at.target < filler {
            at.target = self.fill(lane, work, at.target, (start, end)).await?;
        }
        if start < filler {
            self.start_at(work, filler).await?;
        }
        let Some(mut outgoing) = self.reading.outgoing(work, at.source).await? else { return Ok(()) };
        at = self.found(work, &mut outgoing, &mut map, at, end).await?;
        self.rest(lane, work, &mut outgoing, &mut map, at).await?;
        map.sync()?;
        let expected = filler.saturating_add_unsigned(work.produce.records);
        let end = self.offset(work, OffsetSpec::Latest).await?;
        if end < expected {
            return Err(Error::unexpected(format!("{}: its end", work.name()), expected, end));
        }
        self.nothing_more(work, expected, end).await
    }

    /// The log starts at `offset` then, up to which all was acknowledged. A broker that has just become the leader does
    /// not know at once that it was, and refuses.
    async fn start_at(&self, work: &Work<'_>, offset: i64) -> Result<()> {
        let place = TopicPartition::new(work.topic.target.clone(), work.planned.partition);
        let since = Instant::now();
        loop {
            match self.client.delete_records(&place, offset).await {
                Err(AdminError::Client(ClientError::Kafka { code: KafkaCode::OffsetOutOfRange, .. }))
                    if since.elapsed() < NEW_LEADER_MAX =>
                {
                    tokio::time::sleep(NEW_LEADER_PAUSE).await;
                }
                done => return Ok(done?),
            }
        }
    }

    /// Behind our last record others may write, and not we.
    async fn nothing_more(&self, work: &Work<'_>, from: i64, end: i64) -> Result<()> {
        let (topic, partition) = (&work.topic.target, work.planned.partition);
        let mut tail = self.client.read_partition(topic, work.topic_id, partition, from, end);
        while let Some(bytes) = tail.next().await? {
            for batch in Batches::new(bytes, 0) {
                let header = batch.map_err(|source| Error::Protocol { object: work.name(), source })?.header;
                if header.producer_id == self.producer.at(0).producer_id {
                    return Err(work.foreign(header.base_offset));
                }
            }
        }
        Ok(())
    }

    async fn offset(&self, work: &Work<'_>, spec: OffsetSpec) -> Result<i64> {
        let partition = work.planned.partition;
        let found = self.client.list_offsets(&work.topic.target, &[partition], spec).await?;
        Ok(found.get(&partition).copied().flatten().unwrap_or(0))
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
        while next < filler_end {
            let (batch, count) = filler(next, filler_end, timestamp_ms, self.producer.at(next))?;
            let acked = lane.send(batch, next).await.map_err(|e| work.failed(e))?;
            self.written(acked.unwrap_or(0));
            next += count;
        }
        while let Some(acked) = lane.oldest().await.map_err(|e| work.failed(e))? {
            self.written(acked);
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
                self.written(batch.bytes.len());
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
        // Of what was sent, and not acknowledged yet.
        let (name, mut runs) = (work.name(), VecDeque::new());
        while let Some(next) = outgoing.next().await? {
            let batch = next.bytes(&name, self.producer.at(at.target))?;
            self.rate.acquire(batch.len() as u64).await;
            runs.push_back(next.runs(at.target));
            if let Some(acked) = lane.send(batch, at.target).await.map_err(|e| work.failed(e))? {
                self.acked(acked, &mut runs, map)?;
            }
            at.target = at.target.saturating_add(i64::from(next.records));
        }
        while let Some(acked) = lane.oldest().await.map_err(|e| work.failed(e))? {
            self.acked(acked, &mut runs, map)?;
        }
        Ok(())
    }

    fn acked(&self, bytes: usize, runs: &mut VecDeque<Vec<Run>>, map: &mut PartitionMap) -> Result<()> {
        self.written(bytes);
        runs.pop_front().unwrap_or_default().into_iter().try_for_each(|run| map.add(run))
    }

    fn written(&self, bytes: usize) {
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
