//! Data keys of encrypted objects, each fetched once.

use std::collections::HashMap;

use parking_lot::Mutex;
use varve_archive::{Archive, ArchivedObject};
use varve_format::{DataKey, EncryptionInfo, Id, KeyRing};

use crate::object::data_key;

/// See the module.
#[derive(Debug)]
pub(crate) struct KeyCache {
    archive: Archive,
    ring: Option<KeyRing>,
    /// By the data key's id; what failed is not tried again.
    known: Mutex<HashMap<Id, Result<DataKey, String>>>,
}

impl KeyCache {
    pub(crate) fn new(archive: &Archive, ring: Option<KeyRing>) -> Self {
        Self { archive: archive.clone(), ring, known: Mutex::default() }
    }

    pub(crate) fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// `None` without a key ring.
    pub(crate) async fn key(
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
    pub(crate) async fn unlock(&self, object: &mut ArchivedObject) -> anyhow::Result<()> {
        let Some(info) = object.encryption() else { return Ok(()) };
        let footer = &object.footer().info;
        match self.key(&footer.cluster_id, footer.topic_id, info).await {
            None => Ok(()),
            Some(Ok(key)) => Ok(object.unlock(&key).await?),
            Some(Err(detail)) => anyhow::bail!("{}: its key can't be had: {detail}", object.name()),
        }
    }

    /// The same for callers that can't wait: on a thread that may. `None` where there is no key.
    pub(crate) fn now(&self, topic_id: Id, info: &EncryptionInfo) -> Option<DataKey> {
        self.ring.as_ref()?;
        let wait = async {
            let topic = self.archive.topic(topic_id).await.ok()??;
            self.key(&topic.cluster_id, topic_id, info).await?.ok()
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(wait))
    }
}
