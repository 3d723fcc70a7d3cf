//! Data keys of encrypted objects, each asked for once: what failed is not tried again.

use std::collections::HashMap;

use parking_lot::Mutex;
use varve_archive::{Archive, ArchivedObject};
use varve_format::{DataKey, EncryptionInfo, Id};
use varve_keys::DataKeys;

use crate::error::{Error, Result};

/// See the module.
#[derive(Debug)]
pub struct KeyCache {
    archive: Archive,
    keys: Option<DataKeys>,
    /// By the data key's id.
    known: Mutex<HashMap<Id, Result<DataKey, String>>>,
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
    ) -> Option<Result<DataKey, String>> {
        let keys = self.keys.as_ref()?;
        if let Some(known) = self.known.lock().get(&info.data_key_id) {
            return Some(known.clone());
        }
        let found = keys.for_read(cluster_id, topic_id, info).await.map_err(|e| e.to_string());
        self.known.lock().insert(info.data_key_id, found.clone());
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
            Some(Err(detail)) => Err(Error::Key { object: object.name().to_owned(), detail }),
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
