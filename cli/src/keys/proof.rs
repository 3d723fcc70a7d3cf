//! That a data key is destroyed: looked at in the store, not concluded from answers.

use anyhow::Result;
use serde::Serialize;
use varve_format::{KeyRecordName, tombstone_name};
use varve_keys::DataKeys;
use varve_store::{Key, Kind, SharedStore};

/// What was found of one record's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Proof {
    pub(crate) record: String,
    pub(crate) is_record_gone: bool,
    /// Versions of it that are left, by their ids; nothing where the store keeps none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) versions_left: Option<Vec<String>>,
    pub(crate) has_tombstone: bool,
    /// Whoever asks for the key is told that it was destroyed.
    pub(crate) is_refused: bool,
}

impl Proof {
    pub(crate) fn holds(&self) -> bool {
        let gone = self.versions_left.as_ref().is_none_or(Vec::is_empty);
        self.is_record_gone && gone && self.has_tombstone && self.is_refused
    }

    /// What does not hold.
    pub(crate) fn flaws(&self) -> Vec<String> {
        let mut flaws = Vec::new();
        if !self.is_record_gone {
            flaws.push("its record is still there".to_owned());
        }
        if let Some(left) = self.versions_left.as_ref().filter(|left| !left.is_empty()) {
            flaws.push(format!("versions of its record are still there: {}", left.join(", ")));
        }
        if !self.has_tombstone {
            flaws.push("it has no tombstone".to_owned());
        }
        if !self.is_refused {
            flaws.push("it is not refused as destroyed".to_owned());
        }
        flaws
    }
}

pub(crate) async fn prove(store: &SharedStore, keys: &DataKeys, name: &KeyRecordName) -> Result<Proof> {
    let record = name.record();
    let versions_left = match store.versions().await? {
        None => None,
        Some(versions) => {
            let page = versions.list(&record, None, 1).await?;
            let found = page.keys.into_iter().find(|found| found.key.as_str() == record);
            Some(found.into_iter().flat_map(|found| found.versions).map(|version| version.id).collect())
        }
    };
    Ok(Proof {
        is_record_gone: !is_there(store, &record).await?,
        versions_left,
        has_tombstone: is_there(store, &tombstone_name(&record)).await?,
        is_refused: matches!(keys.try_open(name).await, Err(e) if e.kind == varve_keys::Kind::Destroyed),
        record,
    })
}

async fn is_there(store: &SharedStore, name: &str) -> Result<bool> {
    match store.head(&Key::new(name)?).await {
        Ok(_) => Ok(true),
        Err(e) if e.kind == Kind::NotFound => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use varve_format::Id;
    use varve_store::{MemoryStore, PutOptions};

    use super::*;
    use crate::args::sealed_keys;

    #[tokio::test]
    async fn what_is_left_anywhere_is_seen() {
        for (memory, kept) in [(MemoryStore::new(), None), (MemoryStore::versioned(), Some(2))] {
            let store: SharedStore = Arc::new(memory);
            let keys = sealed_keys(&store).unwrap();
            let name = KeyRecordName {
                cluster_id: "cluster".into(),
                topic_id: Id([1; 16]),
                period: "2026-11".into(),
                id: Some(Id([2; 16])),
                is_tombstone: false,
            };
            let key = Key::new(name.record()).unwrap();
            store.put(&key, "a record".into(), &PutOptions::default()).await.unwrap();
            let proof = prove(&store, &keys, &name).await.unwrap();
            assert!(!proof.holds() && !proof.is_record_gone && !proof.has_tombstone && !proof.is_refused);
            // Where versions are kept, this hides it alone.
            varve_store::delete(store.as_ref(), &key).await.unwrap();
            let proof = prove(&store, &keys, &name).await.unwrap();
            assert_eq!((proof.is_record_gone, proof.versions_left.as_ref().map(Vec::len)), (true, kept));
            assert_eq!(proof.flaws().len(), if kept.is_some() { 3 } else { 2 });
            keys.destroy(&name, 5).await.unwrap();
            let proof = prove(&store, &keys, &name).await.unwrap();
            assert!(proof.holds() && proof.flaws().is_empty(), "{proof:?}");
        }
    }
}
