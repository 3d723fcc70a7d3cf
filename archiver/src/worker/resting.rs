//! Partitions that are not read for a while, or not by us any more.

use std::time::{Duration, Instant};

use super::{BACKOFF_BROKER_MAX, BACKOFF_LASTING, Notice, Worker, backoff};
use crate::error::Error;
use crate::metrics::{FailureKind, PartitionState};
use crate::tail::{Key, Next, Phase};

/// A leader that stays older than the archive for so long will not catch up by itself.
const STALE_PATIENCE: Duration = Duration::from_secs(60);

impl Worker {
    /// For what won't go by itself: what is held goes into the store, then the partition rests.
    pub(super) async fn refused(&mut self, key: Key, error: &Error) {
        if let Some(tail) = self.tails.get_mut(&key) {
            tail.trouble = Some((FailureKind::of(error), error.to_string()));
        }
        self.tell(Notice::Failed(key, error.to_string()));
        self.end(key, Next::Rest).await;
    }

    /// Waits for the service, or for a time.
    pub(super) fn rest(&mut self, key: Key, next: Next, pause: Option<Duration>) {
        self.session.remove(key.0, key.1);
        let Some(tail) = self.tails.get_mut(&key) else { return };
        tail.drop_hold();
        (tail.phase, tail.next) = (Phase::Resting, next);
        tail.rest_until = pause.map(|pause| Instant::now() + pause);
        // Said last, since every commit before it is a success.
        if let Some((kind, why)) = tail.trouble.take() {
            self.shared.progress.failed_for(key, kind, &why);
        }
        self.shared.progress.tally.state(key, PartitionState::Resting);
        if pause == Some(BACKOFF_LASTING) {
            self.tell(Notice::Stuck(key));
        }
        if next == Next::Move && pause.is_none() {
            self.shared.progress.tally.state(key, PartitionState::Waiting);
            self.tails.remove(&key);
            self.tell(Notice::Moved(key));
        }
    }

    /// The leader that we know is an old one, or its cluster is older than the archive: it is asked for anew, less
    /// and less often.
    pub(super) fn stale(&mut self, key: Key) {
        let (times, lasting) = self.shared.met.stale(key);
        if lasting > STALE_PATIENCE {
            let Some(tail) = self.tails.get(&key) else { return };
            let why = format!(
                "leader epoch {} is older than what is archived: was the cluster restored, or made anew?",
                tail.leader.epoch
            );
            tracing::error!(partition = %tail.lane, why, "nothing is archived");
            self.shared.progress.failed_for(key, FailureKind::Cluster, &why);
        }
        self.rest(key, Next::Move, (times > 1).then(|| backoff(times)));
    }

    pub(super) fn gone(&mut self, key: Key) {
        self.session.remove(key.0, key.1);
        self.tails.remove(&key);
        self.tell(Notice::Gone(key));
    }

    pub(super) fn failed(&mut self, key: Key, error: &Error) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        tail.failures += 1;
        let pause = match error.is_passing() {
            true => backoff(tail.failures),
            false => BACKOFF_LASTING,
        };
        tracing::warn!(partition = %tail.lane, %error, again_in_ms = pause.as_millis() as u64, "can't go on");
        self.shared.progress.failed(key, error);
        self.tell(Notice::Failed(key, error.to_string()));
        self.rest(key, Next::Open { refused: false }, Some(pause));
    }

    /// The broker, or the way to it, is in trouble: what was held is kept, and the leaders may be others soon.
    pub(super) async fn fetch_failed(&mut self, error: &varve_kafka::client::ClientError) {
        self.fetch_failures += 1;
        let pause = backoff(self.fetch_failures).min(BACKOFF_BROKER_MAX);
        tracing::warn!(broker = self.session.node_id(), %error, "a fetch failed");
        self.shared.progress.tally.error(FailureKind::of_client(error));
        self.fetch_not_before = Some(Instant::now() + pause);
        if self.fetch_failures > 1 {
            let keys: Vec<Key> = self.session.targets().map(|t| (t.topic_id, t.partition)).collect();
            for key in keys {
                self.end(key, Next::Move).await;
            }
        }
    }
}
