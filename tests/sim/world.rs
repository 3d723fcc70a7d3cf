//! A model of brokers: logs with leaders that come and go, cleanly or not. A leader that was replaced stays
//! readable, for an archiver that has not heard of it yet.

use varve_archive::LeaderAnswer;
use varve_format::{EpochStart, Id};

use crate::rng::Rng;

pub const BATCH_BYTES: usize = 28;

/// A batch; its payload is a number that no other batch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    pub base: i64,
    pub end: i64,
    pub epoch: i32,
    pub payload: u64,
}

impl Batch {
    pub fn bytes(&self) -> Vec<u8> {
        let (base, end) = (self.base.to_be_bytes(), self.end.to_be_bytes());
        [base.as_slice(), &end, &self.epoch.to_be_bytes(), &self.payload.to_be_bytes()].concat()
    }

    pub fn parse(bytes: &[u8]) -> Vec<Self> {
        let (batches, rest) = bytes.as_chunks::<BATCH_BYTES>();
        assert!(rest.is_empty(), "whole batches");
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |n, b| n << 8 | u64::from(*b));
        let batch = |b: &[u8; BATCH_BYTES]| Self {
            base: number(&b[..8]) as i64,
            end: number(&b[8..16]) as i64,
            epoch: number(&b[16..20]) as i32,
            payload: number(&b[20..]),
        };
        batches.iter().map(batch).collect()
    }
}

/// One leader's log: all that it ever had, with where it begins and up to where it is committed.
#[derive(Clone, Debug)]
pub struct Leader {
    pub epoch: i32,
    pub epochs: Vec<EpochStart>,
    pub batches: Vec<Batch>,
    pub start: i64,
    pub high_watermark: i64,
    pub end: i64,
}

impl Leader {
    fn new() -> Self {
        let epochs = vec![EpochStart { epoch: 0, start_offset: 0 }];
        Self { epoch: 0, epochs, batches: Vec::new(), start: 0, high_watermark: 0, end: 0 }
    }

    /// What the broker still knows of its epochs.
    fn known_epochs(&self) -> Vec<EpochStart> {
        let ends = self.epochs.iter().skip(1).map(|e| e.start_offset).chain([i64::MAX]);
        let kept = self.epochs.iter().zip(ends).filter(|(_, end)| *end > self.start);
        kept.map(|(e, _)| EpochStart { start_offset: e.start_offset.max(self.start), ..*e }).collect()
    }

    /// OffsetForLeaderEpoch, as Kafka answers it.
    pub fn answer(&self, asked: i32) -> LeaderAnswer {
        let epochs = self.known_epochs();
        let index = epochs.partition_point(|e| e.epoch <= asked);
        let end = epochs.get(index).map_or(self.end, |e| e.start_offset);
        let known = match index.checked_sub(1) {
            Some(floor) => Some((epochs[floor].epoch, end)),
            None if epochs.is_empty() => None,
            None => Some((asked, end)),
        };
        let (log_start_offset, log_end_offset) = (self.start, self.end);
        LeaderAnswer { leader_epoch: self.epoch, known, log_start_offset, log_end_offset }
    }

    /// What a fetch from `offset` gives: committed batches, the first perhaps beginning before it.
    pub fn fetch(&self, offset: i64, max: usize) -> Vec<Batch> {
        let wanted = self.batches.iter().filter(|b| b.end > offset.max(self.start));
        wanted.take_while(|b| b.end <= self.high_watermark).take(max).copied().collect()
    }

    /// A replica that has the log up to `count` batches becomes the leader.
    fn successor(&self, count: usize, epoch: i32) -> Self {
        let batches = self.batches[..count].to_vec();
        let end = batches.last().map_or(0, |b| b.end);
        let mut epochs = self.epochs.clone();
        epochs.retain(|e| e.start_offset < end);
        epochs.push(EpochStart { epoch, start_offset: end });
        let high_watermark = self.high_watermark.min(end);
        Self { epoch, epochs, batches, start: self.start.min(end), high_watermark, end }
    }
}

/// One partition of one topic; the last leader is the current one.
#[derive(Clone, Debug)]
pub struct Log {
    pub topic_id: Id,
    pub topic: String,
    pub partition: i32,
    pub leaders: Vec<Leader>,
    /// Where any of them ever began.
    pub starts: Vec<i64>,
    pub deleted: bool,
}

impl Log {
    pub fn current(&self) -> &Leader {
        self.leaders.last().expect("a log has a leader")
    }
}

#[derive(Debug)]
pub struct World {
    pub logs: Vec<Log>,
    payloads: u64,
    rng: Rng,
}

impl World {
    pub fn new(rng: Rng) -> Self {
        let mut world = Self { logs: Vec::new(), payloads: 0, rng };
        for partition in 0..1 + world.rng.below(2) as i32 {
            let topic_id = world.logs.first().map_or_else(|| world.rng.id(), |log| log.topic_id);
            world.add(topic_id, "orders", partition);
        }
        world
    }

    fn add(&mut self, topic_id: Id, topic: &str, partition: i32) {
        let leaders = vec![Leader::new()];
        let (topic, starts) = (topic.to_owned(), vec![0]);
        self.logs.push(Log { topic_id, topic, partition, leaders, starts, deleted: false });
    }

    /// Something happens to one of the logs.
    pub fn happen(&mut self) {
        let rng = self.rng.clone();
        let alive: Vec<usize> = (0..self.logs.len()).filter(|i| !self.logs[*i].deleted).collect();
        let index = alive[rng.below(alive.len())];
        match rng.below(100) {
            0..60 => self.append(index),
            60..72 => self.elect(index, true),
            72..84 => self.elect(index, false),
            84..96 => {
                let leader = self.logs[index].leaders.last_mut().expect("a log has a leader");
                let room = (leader.high_watermark - leader.start).max(0) as usize;
                leader.start += rng.below(room + 1) as i64;
                let start = leader.start;
                self.logs[index].starts.push(start);
            }
            _ if self.logs.len() < 4 => {
                self.logs[index].deleted = true;
                let partition = self.logs[index].partition;
                self.add(rng.id(), "orders", partition);
            }
            _ => {}
        }
    }

    fn append(&mut self, index: usize) {
        let rng = self.rng.clone();
        for _ in 0..1 + rng.below(3) {
            self.payloads += 1;
            let payload = self.payloads;
            let leader = self.logs[index].leaders.last_mut().expect("a log has a leader");
            // Sometimes a hole that the cleaner left.
            let base = leader.end + if rng.percent(10) { 1 + rng.below(3) as i64 } else { 0 };
            let end = base + 1 + rng.below(4) as i64;
            leader.batches.push(Batch { base, end, epoch: leader.epoch, payload });
            leader.end = end;
        }
        if rng.percent(80) {
            self.commit(index);
        }
    }

    /// The high watermark rises to some batch's end.
    pub fn commit(&mut self, index: usize) {
        let rng = self.rng.clone();
        let leader = self.logs[index].leaders.last_mut().expect("a log has a leader");
        let ends: Vec<i64> =
            leader.batches.iter().map(|b| b.end).filter(|end| *end > leader.high_watermark).collect();
        if !ends.is_empty() {
            let last = if rng.percent(70) { ends.len() - 1 } else { rng.below(ends.len()) };
            leader.high_watermark = ends[last];
        }
    }

    fn elect(&mut self, index: usize, clean: bool) {
        let rng = self.rng.clone();
        let log = &mut self.logs[index];
        let old = log.current();
        let floor = if clean { old.high_watermark } else { old.start };
        let kept: Vec<usize> = (0..=old.batches.len())
            .filter(|count| count.checked_sub(1).map_or(0, |last| old.batches[last].end) >= floor)
            .collect();
        // Unclean: a replica that lagged, or one that lost its disk.
        let count = if !clean && rng.percent(10) { 0 } else { kept[rng.below(kept.len())] };
        let mut new = old.successor(count, old.epoch + 1 + rng.below(2) as i32);
        if !clean {
            new.high_watermark = new.end;
            // A replica that was out of sync did not follow the log's start either.
            if rng.percent(50) {
                new.start = rng.below(new.start as usize + 1) as i64;
            }
        }
        log.starts.push(new.start);
        log.leaders.push(new);
    }
}
