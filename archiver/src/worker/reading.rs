//! What a fetch brought.

use std::sync::Arc;
use std::time::Instant;

use varve_format::Observed;
use varve_kafka::client::admin::{AdminError, NeededAcl};
use varve_kafka::client::{FetchProblem, FetchedBatches, PartitionFetch};

use super::putting::stream;
use super::{BACKOFF_LASTING, Worker};
use crate::clock;
use crate::error::{Error, Result};
use crate::intake::{self, Odd};
use crate::sealing::AtHand;
use crate::tail::{Hold, Key, Next, Phase, Tail};

/// A fetch that brings more than this of one partition is streamed at once.
const STREAM_BYTES: usize = 1 << 20;
/// With this many holes, a topic was compacted once, whatever its policy is now.
const HOLES_MAX: u32 = 16;

impl Worker {
    pub(super) async fn answer(&mut self, answer: Vec<PartitionFetch>) {
        let bytes: usize = answer.iter().filter_map(|f| Some(f.outcome.as_ref().ok()?.records.len())).sum();
        self.pay(bytes as u64);
        let now_ms = clock::now_ms();
        for fetch in answer {
            let key = (fetch.topic_id, fetch.partition);
            let reads = |t: &Tail| matches!(t.phase, Phase::Reading) && t.next_offset == fetch.from_offset;
            if !self.tails.get(&key).is_some_and(reads) {
                continue;
            }
            match fetch.outcome {
                Ok(batches) => {
                    if let Err(error) = self.take(key, batches, now_ms).await {
                        self.session.remove(key.0, key.1);
                        self.failed(key, &error);
                    }
                }
                Err(problem) => self.problem(key, problem).await,
            }
        }
    }

    /// What has come is taken; what comes next waits, and the worker goes on meanwhile.
    pub(super) fn pay(&mut self, bytes: u64) {
        let Some(next) = self.shared.read_rate.pay(bytes) else { return };
        self.fetch_not_before = Some(next.into_std());
        self.limited_since = Some(Instant::now());
    }

    pub(super) async fn take(&mut self, key: Key, mut batches: FetchedBatches, came_ms: i64) -> Result<()> {
        let Some(tail) = self.tails.get(&key) else { return Ok(()) };
        let dense = tail.lane.topic.delete_retention_ms.is_none() && tail.holes < HOLES_MAX;
        let mut open = tail.open.clone();
        let intake = intake::examine(&batches.records, tail.next_offset, dense, open.as_mut());
        batches.records.truncate(intake.bytes);
        batches.next_offset = intake.next_offset;
        let room = self.room(batches.records.len()).await;
        let (style, rules, memory) =
            (Arc::clone(&self.shared.style), Arc::clone(&self.shared.rules), Arc::clone(&self.shared.memory));
        // While there was no room, a commit may have been lost, and the partition be opened again.
        let Some(tail) = self.tails.get_mut(&key).filter(|t| t.phase == Phase::Reading) else {
            return Ok(());
        };
        tail.failures = 0;
        tail.log_start_offset = batches.log_start_offset;
        tail.observe(Observed {
            time_ms: came_ms,
            high_watermark: batches.high_watermark,
            last_stable_offset: batches.last_stable_offset.unwrap_or(batches.high_watermark),
        });
        self.shared.progress.seen(key, tail.next_offset, &batches);
        if !batches.records.is_empty() {
            tail.held_since.get_or_insert_with(Instant::now);
            tail.uncut_since.get_or_insert_with(Instant::now);
            let attached = tail.is_attached();
            let stays_small = match &tail.hold {
                Hold::Nothing => batches.records.len() < STREAM_BYTES || !attached,
                Hold::Small { records, .. } => {
                    ((records.len() + batches.records.len()) as u64) < rules.min_bytes || !attached
                }
                Hold::Stream(_) => false,
            };
            let seal = match &tail.hold {
                // It has its own.
                Hold::Stream(_) => AtHand::Now(None),
                _ if stays_small => AtHand::Later,
                _ => tail.lane.seal_at_hand()?,
            };
            tail.hold = match (seal, std::mem::take(&mut tail.hold)) {
                (AtHand::Now(seal), hold) => {
                    let mut writer = stream(tail, hold, seal, &style, &memory).await?;
                    writer.push(&batches.records, room).await?;
                    Hold::Stream(writer)
                }
                // What waits for a key is held as it came.
                (AtHand::Later, Hold::Small { mut records, room: mut held }) => {
                    records.extend_from_slice(&batches.records);
                    held.join(room);
                    Hold::Small { records, room: held }
                }
                (AtHand::Later, _) => Hold::Small { records: batches.records.to_vec(), room },
            };
            tail.next_offset = batches.next_offset;
            tail.open = open;
        }
        let Observed { high_watermark, last_stable_offset, .. } = tail.observed;
        if tail.next_offset == high_watermark && high_watermark == last_stable_offset {
            tail.open.get_or_insert_default();
            self.shared.progress.nothing_open(key, tail.next_offset);
        }
        if let Some(odd) = intake.odd {
            self.odd(key, odd).await
        } else if tail.is_at_stop() {
            self.end(key, Next::Done).await;
        } else if tail.cut_at.is_some_and(|cut| tail.next_offset >= cut)
            || tail.held_bytes() >= rules.segment_bytes
            || (!tail.is_attached() && tail.held_bytes() >= rules.min_bytes)
        {
            self.close(key).await;
        }
        Ok(())
    }

    /// What is before it goes into the store first.
    pub(super) async fn odd(&mut self, key: Key, odd: Odd) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        match odd {
            Odd::Hole { end_offset } => {
                tail.holes += 1;
                let first_offset = tail.next_offset;
                tracing::error!(
                    partition = %tail.lane, first_offset, end_offset,
                    "the log has no batch for these offsets, though its topic is not compacted"
                );
                if tail.holes == HOLES_MAX {
                    tracing::warn!(partition = %tail.lane, "taken for a topic that was compacted once");
                }
                self.end(key, Next::Skip { end_offset }).await;
            }
            Odd::Corrupt(source) => {
                let what = format!("{} at offset {}", tail.lane, tail.next_offset);
                let error = Error::Batches { what, source };
                tracing::error!(partition = %tail.lane, %error, "the broker's bytes are corrupt");
                self.refused(key, &error).await;
            }
        }
    }

    pub(super) async fn problem(&mut self, key: Key, problem: FetchProblem) {
        let Some(tail) = self.tails.get(&key) else { return };
        tracing::debug!(partition = %tail.lane, %problem, "a fetch gave nothing");
        match problem {
            FetchProblem::OffsetOutOfRange | FetchProblem::Diverged { .. } => {
                self.end(key, Next::Open { refused: true }).await;
            }
            FetchProblem::UnknownTopicId => {
                // Also while a broker has not heard of the topic yet: the service knows.
                self.end(key, Next::Move).await;
            }
            problem if problem.is_retriable() => self.end(key, Next::Move).await,
            problem => {
                let error = match problem {
                    FetchProblem::NotAuthorized => {
                        let needs = NeededAcl::on_topic("Read", &tail.lane.topic.name);
                        AdminError::NotAuthorized { what: tail.lane.to_string(), needs }.into()
                    }
                    problem => Error::unexpected(&tail.lane, "record batches", problem),
                };
                tracing::warn!(
                    partition = %tail.lane, %error, again_in_ms = BACKOFF_LASTING.as_millis() as u64,
                    "can't go on"
                );
                self.refused(key, &error).await;
            }
        }
    }
}
