//! What is in the store.

use std::collections::BTreeMap;

use anyhow::Result;
use indicatif::ProgressBar;
use varve_store::{Key, Kind, PendingUpload, SharedStore};

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

/// The first parts of the keys that there are, up to `most`, each with its slash.
pub(crate) async fn list_first_parts(store: &SharedStore, most: usize) -> Result<Vec<String>> {
    let (mut parts, mut after) = (Vec::new(), None);
    while parts.len() < most {
        let page = store.list("", after.as_ref(), 1).await?;
        let Some(object) = page.objects.first() else { break };
        let Some((part, _)) = object.key.as_str().split_once('/') else {
            after = Some(object.key.clone());
            continue;
        };
        parts.push(format!("{part}/"));
        // The character behind the slash: no key of this part is at or behind it.
        after = Some(Key::new(format!("{part}0"))?);
    }
    Ok(parts)
}

/// Uploads that are neither completed nor aborted; or a note where the server can't list them.
pub(crate) async fn list_uploads(
    store: &SharedStore,
    prefix: &str,
) -> Result<(Vec<PendingUpload>, Option<String>)> {
    match store.list_uploads(prefix).await {
        Err(e) if e.kind == Kind::Unsupported => {
            let note = format!("unfinished uploads are not looked for, the server can't list them: {e}");
            Ok((Vec::new(), Some(note)))
        }
        uploads => Ok((uploads?, None)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use varve_store::{Fault, Faults, FaultyStore, MemoryStore, Operation, Rule, When};

    use super::*;

    #[tokio::test]
    async fn a_server_that_lists_no_uploads_is_looked_through_all_the_same() {
        for (kind, noted) in [(Kind::Unsupported, true), (Kind::Denied, false)] {
            let fault = Fault::ErrorBefore(kind);
            let (operation, when) = (Some(Operation::ListUploads), When::Always);
            let rule = Rule { operation, key_contains: String::new(), when, fault };
            let faults = Faults::new(1, vec![rule]);
            let store: SharedStore = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), faults));
            let listed = list_uploads(&store, "c/").await;
            assert_eq!(listed.is_ok_and(|(uploads, note)| uploads.is_empty() && note.is_some()), noted);
        }
    }
}
