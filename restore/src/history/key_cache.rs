//! Data keys of encrypted objects, each fetched once.

use std::collections::HashMap;

use parking_lot::Mutex;
use varve_archive::{Archive, ArchivedObject};
use varve_format::{DataKey, EncryptionInfo, Id, KEY_RECORD_MAX_BYTES, KeyRecord, KeyRing, key_record_name};
use varve_store::{GetRange, Key, Kind, Store};

use crate::error::{Error, Result};

/// One byte more than is allowed, so that a longer one is refused, not cut.
const KEY_RECORD_FETCH_BYTES: u64 = KEY_RECORD_MAX_BYTES as u64 + 1;

/// See the module.
#[derive(Debug)]
pub struct KeyCache {
    archive: Archive,
    ring: Option<KeyRing>,
    /// By the data key's id; what failed is not tried again.
    known: Mutex<HashMap<Id, Result<DataKey, String>>>,
}

impl KeyCache {
    pub fn new(archive: &Archive, ring: Option<KeyRing>) -> Self {
        Self { archive: archive.clone(), ring, known: Mutex::default() }
    }

    pub fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// `None` without a key ring.
    pub async fn key(
        &self,
        cluster_id: &str,
        topic_id: Id,
        info: &EncryptionInfo,
    ) -> Option<Result<DataKey, String>> {
        let ring = self.ring.as_ref()?;
        if let Some(known) = self.known.lock().get(&info.data_key_id) {
            return Some(known.clone());
        }
        let found = data_key(self.archive.shelf().store(), cluster_id, topic_id, info, ring).await;
        self.known.lock().insert(info.data_key_id, found.clone());
        Some(found)
    }

    /// Opens an encrypted object; without a key ring it stays sealed.
    ///
    /// # Errors
    /// A key that can't be had, or does not open it.
    pub async fn unlock(&self, object: &mut ArchivedObject) -> Result<()> {
        let Some(info) = object.encryption() else { return Ok(()) };
        let footer = &object.footer().info;
        match self.key(&footer.cluster_id, footer.topic_id, info).await {
            None => Ok(()),
            Some(Ok(key)) => Ok(object.unlock(&key).await?),
            Some(Err(detail)) => Err(Error::Key { object: object.name().to_owned(), detail }),
        }
    }

    /// The same for callers that can't wait: on a thread that may. `None` where there is no key.
    pub fn now(&self, topic_id: Id, info: &EncryptionInfo) -> Option<DataKey> {
        self.ring.as_ref()?;
        let wait = async {
            let topic = self.archive.topic(topic_id).await.ok()??;
            self.key(&topic.cluster_id, topic_id, info).await?.ok()
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(wait))
    }
}

/// Of a topic and period: fetched from the store, and opened with the ring.
pub async fn data_key(
    store: &dyn Store,
    cluster_id: &str,
    topic_id: Id,
    encryption: &EncryptionInfo,
    ring: &KeyRing,
) -> Result<DataKey, String> {
    let name = key_record_name(cluster_id, topic_id, &encryption.period);
    let key = Key::new(name).map_err(|e| e.to_string())?;
    let got = store.get(&key, GetRange::Bounded { start: 0, end: KEY_RECORD_FETCH_BYTES }).await;
    let got = got.map_err(|e| match e.kind {
        Kind::NotFound => format!("{e}: it was destroyed, or --store.url is not the store's root"),
        _ => e.to_string(),
    })?;
    let bytes = got.bytes().await.map_err(|e| e.to_string())?;
    let record = KeyRecord::decode(&bytes).map_err(|e| format!("{key}: {e}"))?;
    record.check_is(topic_id, &encryption.period).map_err(|e| format!("{key}: {e}"))?;
    let data_key = record.unwrap(ring).map_err(|e| format!("{key}: {e}"))?;
    if data_key.id != encryption.data_key_id {
        return Err(format!(
            "{key} holds data key {}, the object needs {}",
            data_key.id, encryption.data_key_id
        ));
    }
    Ok(data_key)
}
