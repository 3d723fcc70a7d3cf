//! Whether a leader still has what the chain ends with: the last batch, and where its last epoch begins. A cluster
//! that was restored from volumes counts epochs again, and then equal epochs say nothing.
//!
//! Each partition is compared once in the life of a process, and whenever its leader refuses to go on from the
//! chain's end: one small fetch and one question. What can't be compared (it is below the log's start, the cleaner
//! was there, the chain ends with a gap, no key opens it any more) counts as equal.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use varve_archive::{Seam, SeamBatch, is_restored};
use varve_format::EpochStart;
use varve_kafka::client::{Client, FetchLimits, FetchProblem, FetchSession, FetchTarget, FetchedBatches};
use varve_kafka::protocol::Batches;

use crate::branching::Leading;
use crate::error::{Error, Result};
use crate::opening::Leader;
use crate::rescue;
use crate::segment::Lane;
use crate::standing::Standing;
use crate::tail::Key;

/// The first batch comes whole, whatever its size.
const ONE_BATCH: FetchLimits =
    FetchLimits { max_wait_ms: 0, min_bytes: 1, max_bytes: 1, partition_max_bytes: 1 };

/// What this process knows of the leaders that it met.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Whether a branch had to be started for another history under the same epochs.
    compared: Mutex<HashMap<Key, bool>>,
    stale: Mutex<HashMap<Key, (u32, Instant)>>,
}

impl Met {
    /// `None` before the first comparison.
    pub(crate) fn was_restored(&self, key: Key) -> Option<bool> {
        self.compared.lock().get(&key).copied()
    }

    pub(crate) fn same(&self, key: Key) {
        self.compared.lock().entry(key).or_insert(false);
    }

    pub(crate) fn restored(&self, key: Key) {
        self.compared.lock().insert(key, true);
    }

    /// The leader is as new as the chain: whatever was seen before is over.
    pub(crate) fn is_current(&self, key: Key) {
        self.stale.lock().remove(&key);
    }

    /// The leader is older than the chain: how often that was seen in a row, and for how long.
    pub(crate) fn stale(&self, key: Key) -> (u32, Duration) {
        let mut stale = self.stale.lock();
        let (times, since) = stale.entry(key).or_insert_with(|| (0, Instant::now()));
        *times += 1;
        (*times, since.elapsed())
    }
}

/// What a comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    Same,
    /// Another history under the same epochs.
    Restored,
    /// The leader that we know is not the leader any more.
    Stale,
}

pub(crate) async fn compare(
    lane: &Lane,
    client: &Client,
    leader: Leader,
    leading: &impl Leading,
    standing: &Standing,
) -> Result<Compared> {
    let Some((batch, epoch)) = chain_end(lane, standing).await? else { return Ok(Compared::Same) };
    let answer = match fetch_one(lane, client, leader, batch.base_offset).await? {
        Ok(answer) => answer,
        // Below the log's start; or the leader's log is shorter, which it says when it is asked to go on.
        Err(FetchProblem::OffsetOutOfRange) => return Ok(Compared::Same),
        Err(FetchProblem::UnknownTopicId) => return Ok(Compared::Stale),
        Err(problem) if problem.is_retriable() => return Ok(Compared::Stale),
        Err(problem) => return Err(Error::unexpected(lane, "a record batch", problem)),
    };
    let Some(theirs) = batches(lane, answer.records).next().transpose()? else { return Ok(Compared::Same) };
    let epoch_start = match epoch {
        Some(e) => leading.end_of_epoch(e.epoch - 1).await?.map(|(_, end)| end),
        None => None,
    };
    let chain = Seam { last_batch: Some(batch), epoch_start: epoch.map(|e| e.start_offset) };
    let leader = Seam { last_batch: Some(theirs), epoch_start };
    let compacted = lane.topic.delete_retention_ms.is_some();
    Ok(match is_restored(&chain, &leader, answer.log_start_offset, compacted) {
        true => Compared::Restored,
        false => Compared::Same,
    })
}

/// The chain's last batch; and its last epoch, where its beginning is known exactly: it is a batch's within the
/// last object.
async fn chain_end(lane: &Lane, standing: &Standing) -> Result<Option<(SeamBatch, Option<EpochStart>)>> {
    let (log, epochs, base_offset) = if let Some(entry) = standing.journal.last() {
        let Some(log) = rescue::journal_log(lane, entry).await? else { return Ok(None) };
        let epochs = entry.leader_epochs.iter();
        let epochs: Vec<EpochStart> =
            epochs.map(|e| EpochStart { epoch: e.epoch, start_offset: e.start_offset }).collect();
        (log, epochs, entry.first_offset)
    } else {
        let Some(head) = standing.last.as_ref().filter(|head| !head.gap) else { return Ok(None) };
        let mut object = lane.archive.object(head)?;
        if !lane.sealing.unlock(&mut object).await? {
            return Ok(None);
        }
        let position = object.position(head.footer.info.last_offset).await?;
        let (mut stream, mut log) = (object.read(position, 1)?, BytesMut::new());
        while let Some(bytes) = stream.next().await? {
            log.extend_from_slice(&bytes);
        }
        (log.freeze(), head.epochs().to_vec(), head.first_offset())
    };
    let last = batches(lane, log).try_fold(None, |_, batch| batch.map(Some))?;
    let epoch = epochs.last().copied().filter(|e| e.start_offset > base_offset);
    Ok(last.map(|last| (last, epoch)))
}

async fn fetch_one(
    lane: &Lane,
    client: &Client,
    leader: Leader,
    offset: i64,
) -> Result<std::result::Result<FetchedBatches, FetchProblem>> {
    let mut session = FetchSession::new(client, leader.node_id, ONE_BATCH);
    let target = FetchTarget::new(lane.topic.topic_id, lane.partition, offset);
    session.set(FetchTarget { leader_epoch: Some(leader.epoch), ..target });
    let answer = session.next().await?;
    let answer = answer.and_then(|answer| answer.into_iter().next());
    answer.map(|fetch| fetch.outcome).ok_or_else(|| Error::unexpected(lane, "an answer to a fetch", "none"))
}

fn batches(lane: &Lane, log: Bytes) -> impl Iterator<Item = Result<SeamBatch>> {
    Batches::new(log, 0).map(|batch| {
        let header = batch.map_err(|source| Error::Batches { what: lane.to_string(), source })?.header;
        Ok(SeamBatch { base_offset: header.base_offset, crc: header.crc })
    })
}
