//! A topic from its begin to the ends it had when the reading began, as undecoded batches.
//!
//! One fetch per leader is under way at a time, and only while the caller waits for more: memory is the
//! answers of one round, at most `fetch.max.bytes` per broker and one oversized batch. Per partition,
//! batches come in order, each once. A leader that moves, a connection that breaks and a log start that
//! advances are followed; what cannot be read goes on being tried for `default.api.timeout.ms`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use varve_format::Id;

use super::cluster::Client;
use super::error::{ClientError, Result};
use super::fetch::{FetchFrom, FetchedPartition, fetch};
use super::list_offsets::OffsetSpec;
use super::retry::Backoff;
use crate::protocol::Batches;

/// Whole batches of one partition.
#[derive(Clone, Debug)]
pub struct TopicBatches {
    pub partition: i32,
    /// The first batch may begin before it: records below do not belong to the answer.
    pub from_offset: i64,
    /// Behind the last batch.
    pub next_offset: i64,
    /// Where the log began instead, if what was to be read was deleted meanwhile.
    pub skipped_from: Option<i64>,
    pub bytes: Bytes,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    next: i64,
    end: i64,
    skipped_from: Option<i64>,
}

/// See the module.
#[derive(Debug)]
pub struct TopicReader {
    client: Client,
    topic: String,
    topic_id: Id,
    /// Partitions that are not at their end yet. Those at the front are asked for first.
    order: VecDeque<i32>,
    progress: BTreeMap<i32, Progress>,
    leaders: HashMap<i32, i32>,
    ready: VecDeque<TopicBatches>,
    total_offsets: u64,
    last_progress: Instant,
    backoff: Backoff,
    throttled_until: Option<Instant>,
}

impl Client {
    /// A reader of all partitions of `topic`, read uncommitted.
    pub async fn read_topic_to_end(&self, topic: &str) -> Result<TopicReader> {
        let metadata = self.topic(topic).await?;
        let partitions: Vec<i32> = metadata.partitions.iter().map(|p| p.partition).collect();
        let ends = self.list_offsets(topic, &partitions, OffsetSpec::Latest).await?;
        let starts = self.list_offsets(topic, &partitions, OffsetSpec::Earliest).await?;
        let mut progress = BTreeMap::new();
        for partition in partitions {
            let offset = |of: &BTreeMap<i32, Option<i64>>| of.get(&partition).copied().flatten().unwrap_or(0);
            let (next, end) = (offset(&starts), offset(&ends));
            if next < end {
                progress.insert(partition, Progress { next, end, skipped_from: None });
            }
        }
        let total = progress.values().map(|p| p.end.saturating_sub(p.next).unsigned_abs()).sum();
        Ok(TopicReader {
            client: self.clone(),
            topic: topic.to_owned(),
            topic_id: metadata.topic_id,
            order: progress.keys().copied().collect(),
            progress,
            leaders: HashMap::new(),
            ready: VecDeque::new(),
            total_offsets: total,
            last_progress: Instant::now(),
            backoff: self.backoff(),
            throttled_until: None,
        })
    }
}

impl TopicReader {
    /// Offsets between begins and ends, as they were at the start.
    pub fn total_offsets(&self) -> u64 {
        self.total_offsets
    }

    /// Offsets that are still to come: for a progress bar.
    pub fn remaining_offsets(&self) -> u64 {
        self.progress.values().map(|p| p.end.saturating_sub(p.next).max(0).unsigned_abs()).sum()
    }

    /// `None` when all partitions are at their ends. After an error it may be called again.
    pub async fn next(&mut self) -> Result<Option<TopicBatches>> {
        loop {
            if let Some(batches) = self.ready.pop_front() {
                return Ok(Some(batches));
            }
            if self.order.is_empty() {
                return Ok(None);
            }
            match self.round().await {
                Ok(()) if !self.ready.is_empty() => {
                    self.last_progress = Instant::now();
                    self.backoff = self.client.backoff();
                }
                Ok(()) => self.check_stall()?,
                Err(e) => {
                    self.leaders.clear();
                    self.backoff.wait_or_fail(&format!("reading {}", self.topic), e).await?;
                }
            }
        }
    }

    /// Asks each leader once. What arrived is kept whatever else failed.
    async fn round(&mut self) -> Result<()> {
        if let Some(until) = self.throttled_until.take() {
            tokio::time::sleep_until(until.into()).await;
        }
        let plan = self.plan().await?;
        let (client, topic, topic_id) = (&self.client, &self.topic, self.topic_id);
        let calls = plan.iter().map(|(leader, from)| async move {
            let connection = client.connection(*leader).await?;
            fetch(&connection, client.config(), topic, topic_id, from).await
        });
        let answers = futures::future::join_all(calls).await;
        let mut first_error = None;
        for answer in answers {
            match answer {
                Err(e) => first_error = Some(e),
                Ok((fetched, throttle_ms)) => {
                    if throttle_ms > 0 {
                        self.throttled_until = Some(Instant::now() + Duration::from_millis(throttle_ms));
                    }
                    for partition in fetched {
                        if let Err(e) = self.take(partition).await {
                            first_error = Some(e);
                        }
                    }
                }
            }
        }
        match first_error {
            Some(e) if e.is_retriable() && !self.ready.is_empty() => {
                self.leaders.clear();
                Ok(())
            }
            Some(e) => Err(e),
            None => Ok(()),
        }
    }

    /// Which broker is asked for which partitions.
    async fn plan(&mut self) -> Result<HashMap<i32, Vec<FetchFrom>>> {
        if self.order.iter().any(|p| !self.leaders.contains_key(p)) {
            let metadata = self.client.topic(&self.topic).await?;
            if metadata.topic_id != self.topic_id {
                // Deleted and made again: what is left to read is gone.
                return Err(ClientError::NoSuchTopic {
                    topic: format!("{} (id {})", self.topic, self.topic_id),
                });
            }
            self.leaders =
                metadata.partitions.iter().filter_map(|p| Some((p.partition, p.leader_id?))).collect();
        }
        let mut plan: HashMap<i32, Vec<FetchFrom>> = HashMap::new();
        for partition in &self.order {
            let (Some(leader), Some(progress)) = (self.leaders.get(partition), self.progress.get(partition))
            else {
                continue;
            };
            let from = FetchFrom { partition: *partition, offset: progress.next };
            plan.entry(*leader).or_default().push(from);
        }
        if plan.is_empty() {
            return Err(ClientError::NoLeader { what: self.topic.clone() });
        }
        Ok(plan)
    }

    async fn take(&mut self, fetched: FetchedPartition) -> Result<()> {
        let partition = fetched.partition;
        let Some(&progress) = self.progress.get(&partition) else { return Ok(()) };
        let what = format!("{}-{partition}", self.topic);
        match fetched.error {
            None => {}
            Some(ResponseError::OffsetOutOfRange) => return self.skip_deleted(partition).await,
            Some(code) => return Err(ClientError::kafka(what, code)),
        }
        let whole = Batches::whole(&fetched.records);
        let (whole_bytes, next) =
            whole.map_err(|source| ClientError::Protocol { what: what.clone(), source })?;
        let Some(next) = next.filter(|next| *next > progress.next) else { return Ok(()) };
        let batches = TopicBatches {
            partition,
            from_offset: progress.next,
            next_offset: next,
            skipped_from: progress.skipped_from,
            bytes: fetched.records.slice(..whole_bytes),
        };
        self.ready.push_back(batches);
        self.advance(partition, next, None);
        Ok(())
    }

    /// Retention or DeleteRecords was faster: go on from where the log begins now.
    async fn skip_deleted(&mut self, partition: i32) -> Result<()> {
        let starts = self.client.list_offsets(&self.topic, &[partition], OffsetSpec::Earliest).await?;
        let Some(&progress) = self.progress.get(&partition) else { return Ok(()) };
        let start = starts.get(&partition).copied().flatten().unwrap_or(progress.next);
        if start <= progress.next {
            // The end went back: the log was truncated, as after an unclean election.
            let what = format!("{}-{partition} at offset {}", self.topic, progress.next);
            return Err(ClientError::kafka(what, ResponseError::OffsetOutOfRange));
        }
        self.advance(partition, start, Some(progress.skipped_from.unwrap_or(progress.next)));
        Ok(())
    }

    /// Partitions that moved on go to the back: only the first in a request is sure to get a large batch.
    fn advance(&mut self, partition: i32, next: i64, skipped_from: Option<i64>) {
        self.order.retain(|p| *p != partition);
        let Some(progress) = self.progress.get_mut(&partition) else { return };
        progress.next = next;
        progress.skipped_from = skipped_from;
        if next < progress.end {
            self.order.push_back(partition);
        } else {
            self.progress.remove(&partition);
        }
    }

    fn check_stall(&self) -> Result<()> {
        let waited = self.last_progress.elapsed();
        if waited < self.client.config().api_timeout {
            return Ok(());
        }
        let what = format!("reading {}", self.topic);
        let left =
            format!("{} offsets of {} were announced but not given", self.remaining_offsets(), self.topic);
        let last = Box::new(ClientError::NoLeader { what: left });
        Err(ClientError::GaveUp { what, waited_ms: waited.as_millis() as u64, last })
    }
}
