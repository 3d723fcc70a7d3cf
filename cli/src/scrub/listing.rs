//! What is in the store.

use std::collections::BTreeMap;

use anyhow::Result;
use indicatif::ProgressBar;
use varve_store::{PendingUpload, SharedStore};

const PAGE_KEYS: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) size_bytes: u64,
    pub(crate) last_modified_ms: i64,
}

/// All objects of the cluster, by key: about 200 bytes of memory each.
pub(crate) async fn list_store(
    store: &SharedStore,
    prefix: &str,
    progress: &ProgressBar,
) -> Result<BTreeMap<String, Listed>> {
    let mut all = BTreeMap::new();
    let mut after = None;
    loop {
        let page = store.list(prefix, after.as_ref(), PAGE_KEYS).await?;
        progress.inc(page.objects.len() as u64);
        after = page.objects.last().map(|object| object.key.clone());
        for object in page.objects {
            let listed = Listed { size_bytes: object.size_bytes, last_modified_ms: object.last_modified_ms };
            all.insert(object.key.as_str().to_owned(), listed);
        }
        if !page.more || after.is_none() {
            return Ok(all);
        }
    }
}

/// Uploads that are neither completed nor aborted.
pub(crate) async fn list_uploads(store: &SharedStore, prefix: &str) -> Result<Vec<PendingUpload>> {
    Ok(store.list_uploads(prefix).await?)
}
