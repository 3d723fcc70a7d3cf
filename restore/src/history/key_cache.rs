//! Data keys of encrypted objects, each asked for once: what failed is not tried again, unless the store or the key
//! service was away.
//!
//! A key counts for the cluster, topic and period that it was asked for by, as with [`DataKeys`]: an object of another
//! topic that names the same id is no more opened by it, and fails by itself alone.

use std::collections::HashMap;

use parking_lot::Mutex;
use varve_archive::{Archive, ArchivedObject};
use varve_format::{DataKey, EncryptionInfo, Id};
use varve_keys::{DataKeys, Kind};

use crate::error::{Error, Result};

/// Which data key, as an object names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct KeyOf {
    cluster_id: String,
    topic_id: Id,
    period: String,
    id: Id,
}

/// See the module.
#[derive(Debug)]
pub struct KeyCache {
    archive: Archive,
    keys: Option<DataKeys>,
    known: Mutex<HashMap<KeyOf, Result<DataKey, varve_keys::Error>>>,
}

impl KeyCache {
    /// Without keys what is sealed stays so.
    pub fn new(archive: &Archive, keys: Option<DataKeys>) -> Self {
        Self { archive: archive.clone(), keys, known: Mutex::default() }
    }

    pub fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// `None` without keys.
    pub async fn key(
        &self,
        cluster_id: &str,
        topic_id: Id,
        info: &EncryptionInfo,
    ) -> Option<Result<DataKey, varve_keys::Error>> {
        let keys = self.keys.as_ref()?;
        let of = KeyOf {
            cluster_id: cluster_id.to_owned(),
            topic_id,
            period: info.period.clone(),
            id: info.data_key_id,
        };
        if let Some(known) = self.known.lock().get(&of) {
            return Some(known.clone());
        }
        let found = keys.for_read(cluster_id, topic_id, info).await;
        let passes = matches!(&found, Err(error) if error.kind == Kind::Unavailable);
        if !passes {
            self.known.lock().insert(of, found.clone());
        }
        Some(found)
    }

    /// Opens an encrypted object; without keys it stays sealed.
    ///
    /// # Errors
    /// A key that can't be had, or does not open it.
    pub async fn unlock(&self, object: &mut ArchivedObject) -> Result<()> {
        let Some(info) = object.encryption() else { return Ok(()) };
        let footer = &object.footer().info;
        match self.key(&footer.cluster_id, footer.topic_id, info).await {
            None => Ok(()),
            Some(Ok(key)) => Ok(object.unlock(&key).await?),
            Some(Err(source)) => Err(Error::Key { object: object.name().to_owned(), source }),
        }
    }

    /// The same for callers that can't wait: on a thread that may. `None` where there is no key.
    pub fn now(&self, topic_id: Id, info: &EncryptionInfo) -> Option<DataKey> {
        self.keys.as_ref()?;
        let wait = async {
            let topic = self.archive.topic(topic_id).await.ok()??;
            self.key(&topic.cluster_id, topic_id, info).await?.ok()
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(wait))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use varve_archive::HashAlgorithm;
    use varve_format::{KeyRecord, KeyRing};
    use varve_keys::{KeyServices, Trusted};
    use varve_store::{Fault, Faults, FaultyStore, Key, MemoryStore, PutOptions, Rule, SharedStore, When};

    use super::*;

    const RING: &str = r#"{"active": "1", "keys": {"1": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="}}"#;
    const TOPIC: Id = Id([1; 16]);

    /// With a record of the key 7 of the topic.
    async fn cache() -> (KeyCache, Arc<Faults>) {
        let faults = Faults::new(1, Vec::new());
        let store: SharedStore =
            Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), Arc::clone(&faults)));
        let ring = KeyRing::parse(RING).unwrap();
        let key = DataKey::new(Id([7; 16]), [7; 32]);
        let record = KeyRecord::wrap(&ring, &key, "cluster", TOPIC, "2026", 5, [7; 12]).unwrap();
        let name = varve_format::key_record_name("cluster", TOPIC, "2026", key.id);
        let bytes = record.encode().unwrap().into();
        store.put(&Key::new(name).unwrap(), bytes, &PutOptions::default()).await.unwrap();
        let services = KeyServices::new(&BTreeMap::new(), Some(Arc::new(ring))).unwrap();
        let keys = DataKeys::new(store.clone(), services, Trusted::new([], true), Duration::from_secs(600));
        let archive =
            Archive::create(store, "", Id([9; 16]), HashAlgorithm::Blake3, "test", 0).await.unwrap();
        (KeyCache::new(&archive, Some(keys)), faults)
    }

    fn info(period: &str) -> EncryptionInfo {
        EncryptionInfo { data_key_id: Id([7; 16]), salt: [0; 32], period: period.to_owned() }
    }

    #[tokio::test]
    async fn an_object_that_names_anothers_key_spoils_it_for_nobody() {
        let (cache, _) = cache().await;
        let strangers =
            [("other", TOPIC, "2026"), ("cluster", Id([2; 16]), "2026"), ("cluster", TOPIC, "2025")];
        for (cluster_id, topic_id, period) in strangers {
            assert!(cache.key(cluster_id, topic_id, &info(period)).await.unwrap().is_err());
        }
        assert!(cache.key("cluster", TOPIC, &info("2026")).await.unwrap().is_ok());
        // Nor is what is known given to them.
        for (cluster_id, topic_id, period) in strangers {
            assert!(cache.key(cluster_id, topic_id, &info(period)).await.unwrap().is_err());
        }
    }

    fn of_object(source: varve_keys::Error) -> Error {
        Error::Key { object: "o".to_owned(), source }
    }

    #[tokio::test]
    async fn a_store_that_was_away_is_asked_again_and_others_are_not() {
        let (cache, faults) = cache().await;
        let fail = |kind| {
            let fault = Fault::ErrorBefore(kind);
            faults.set_rules(vec![Rule {
                operation: None,
                key_contains: "keys/".to_owned(),
                when: When::Always,
                fault,
            }]);
        };
        fail(varve_store::Kind::Unavailable);
        let away = cache.key("cluster", TOPIC, &info("2026")).await.unwrap().unwrap_err();
        assert!(of_object(away).may_pass());
        faults.set_rules(Vec::new());
        assert!(cache.key("cluster", TOPIC, &info("2026")).await.unwrap().is_ok());

        fail(varve_store::Kind::Denied);
        assert!(cache.key("cluster", TOPIC, &info("2025")).await.unwrap().is_err());
        let asked = faults.log().len();
        let denied = cache.key("cluster", TOPIC, &info("2025")).await.unwrap().unwrap_err();
        assert!(!of_object(denied).may_pass());
        assert_eq!(faults.log().len(), asked);
    }
}
