//! Looks at the cluster and the store from time to time, beside the work: whether they can be reached, and how far
//! the logs are where nobody reads.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use varve_archive::record::snapshot::CLUSTER_STATE;
use varve_cluster::EarlierState;
use varve_kafka::client::OffsetSpec;
use varve_kafka::client::admin::TopicPartition;
use varve_store::Key as StoreKey;

use super::Watch;
use super::health::{CLUSTER_EVERY, STORE_EVERY};
use super::tally::SnapshotSeen;
use crate::tail::Key;

/// Between two looks at the logs' ends.
const ENDS_EVERY: Duration = Duration::from_secs(15);
const ARCHIVE_RECORD: &str = "archive.json";

/// Until it is dropped.
pub(super) async fn run(watch: &Watch) {
    newest_snapshot(watch).await;
    tokio::join!(cluster(watch), store(watch), ends(watch));
}

async fn within<T, E: ToString>(limit: Duration, look: impl Future<Output = Result<T, E>>) -> Option<String> {
    match tokio::time::timeout(limit, look).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} s", limit.as_secs())),
    }
}

async fn cluster(watch: &Watch) {
    loop {
        let problem = within(CLUSTER_EVERY, watch.client.metadata(Some(&[]))).await;
        watch.progress.tally.looked(|inner| &mut inner.cluster, problem);
        tokio::time::sleep(CLUSTER_EVERY).await;
    }
}

async fn store(watch: &Watch) {
    let Ok(key) = StoreKey::new(ARCHIVE_RECORD) else { return };
    loop {
        let problem = within(STORE_EVERY, watch.store.head(&key)).await;
        watch.progress.tally.looked(|inner| &mut inner.store, problem);
        tokio::time::sleep(STORE_EVERY).await;
    }
}

/// What can't be asked stays as it was: that the cluster can't be reached is told elsewhere.
async fn ends(watch: &Watch) {
    loop {
        let partitions: HashMap<TopicPartition, Key> = {
            let inner = watch.progress.tally.inner.lock();
            let named = inner.partitions.iter();
            named.map(|(key, watched)| (TopicPartition::new(&*watched.topic, key.1), *key)).collect()
        };
        let asked: Vec<TopicPartition> = partitions.keys().cloned().collect();
        let found = watch.client.list_offsets_of(&asked, OffsetSpec::Latest);
        if let Ok(Ok(found)) = tokio::time::timeout(ENDS_EVERY, found).await {
            for item in found.items {
                let key = partitions.get(&TopicPartition::new(item.topic, item.partition));
                if let (Some(key), Some(offset)) = (key, item.offset) {
                    watch.progress.tally.log_end(*key, offset);
                }
            }
        }
        tokio::time::sleep(ENDS_EVERY).await;
    }
}

async fn newest_snapshot(watch: &Watch) {
    let seen = async {
        let Some(snapshot) = watch.archive.latest_snapshot(0).await? else { return Ok(None) };
        let earlier = EarlierState::of(&watch.archive, &snapshot).await?;
        let record = snapshot.record;
        let own_ms = record.document(CLUSTER_STATE).map(|_| record.created_ms);
        Ok::<_, varve_archive::Error>(Some(SnapshotSeen {
            sequence: record.sequence,
            created_ms: record.created_ms,
            cluster_asked_ms: earlier.map(|of| of.created_ms).or(own_ms),
            duration: None,
            lagging: 0,
        }))
    };
    match seen.await {
        Ok(Some(seen)) => watch.progress.tally.snapshot(seen),
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "the newest snapshot is not known"),
    }
}
