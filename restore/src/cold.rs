//! Objects that must be thawed before they can be read.
//!
//! Whether one is thawed shows when it is read, and not in a listing: so the first footer that can't be read tells, and
//! then the listings say how much there is in such storage classes.

use varve_archive::{Archive, names};
use varve_format::Id;
use varve_store::ObjectMeta;

use crate::error::{Error, Result};

/// By the stores' own names. Others are read at once, if for more money.
const THAWED_FIRST: [&str; 3] = ["GLACIER", "DEEP_ARCHIVE", "Archive"];
const PAGE: usize = 1000;

/// As the error tells it: the objects of these partitions, how many, the first one, and what to do. Other errors stay as
/// they are.
pub(crate) async fn told(error: Error, archive: &Archive, partitions: &[(Id, i32)]) -> Error {
    let frozen = match &error {
        Error::Archive(source) if source.is_frozen() => source.to_string(),
        _ => return error,
    };
    let mut cold = Vec::new();
    for (topic_id, partition) in partitions {
        match listed(archive, &names::partition_prefix(*topic_id, *partition)).await {
            Ok(more) => cold.extend(more),
            Err(other) => return other,
        }
    }
    let url = archive.shelf().store().url().to_owned();
    let Some(first) = cold.first() else {
        return Error::refused(
            frozen,
            "thaw it (restore-object) with all the others of its age, and plan again",
        );
    };
    let bytes: u64 = cold.iter().map(|object| object.size_bytes).sum();
    Error::refused(
        format!(
            "{} objects with {bytes} bytes are in a storage class that has to be thawed ({} of {url}/{} among them): {frozen}",
            cold.len(),
            first.storage_class.as_deref().unwrap_or_default(),
            first.key
        ),
        "thaw them, as by aws s3api restore-object --bucket … --key … --restore-request Days=7, or a batch job for all \
         of the prefix topics/; plan again when they are",
    )
}

async fn listed(archive: &Archive, prefix: &str) -> Result<Vec<ObjectMeta>> {
    let store = archive.shelf().store();
    // No key ends with a slash.
    let below = archive.shelf().key(&format!("{prefix}0"))?.to_string();
    let prefix = below.trim_end_matches('0');
    let (mut cold, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(prefix, after.as_ref(), PAGE).await.map_err(varve_archive::Error::from)?;
        after = page.objects.last().map(|object| object.key.clone());
        let is_cold = |object: &ObjectMeta| {
            object.storage_class.as_deref().is_some_and(|class| THAWED_FIRST.contains(&class))
        };
        cold.extend(page.objects.into_iter().filter(is_cold));
        if !page.more {
            return Ok(cold);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use varve_archive::HashAlgorithm;
    use varve_store::{Create, Kind, MemoryStore, PutOptions, SharedStore};

    use super::*;

    #[tokio::test]
    async fn the_cold_ones_are_counted_and_the_first_is_named() {
        let store: SharedStore = std::sync::Arc::new(MemoryStore::new());
        let (id, classes) = (Id([7; 16]), ["GLACIER", "STANDARD_IA", "DEEP_ARCHIVE", "GLACIER_IR"]);
        let archive =
            Archive::create(store.clone(), "a", id, HashAlgorithm::Blake3, "varve test", 1).await.unwrap();
        for (n, class) in (0..).zip(classes) {
            let key = archive.shelf().key(&names::object(id, 0, 0, n)).unwrap();
            let options = PutOptions { create: Create::Overwrite, storage_class: Some(class.to_owned()) };
            store.put(&key, Bytes::from_static(b"12345"), &options).await.unwrap();
        }
        let frozen = |kind| {
            let error = varve_store::Error::new(kind, "get", "s3://b/x.varve", "403 InvalidObjectState");
            Error::from(varve_archive::Error::from(error))
        };
        let text = told(frozen(Kind::Frozen), &archive, &[(id, 0), (id, 1)]).await.to_string();
        for part in ["2 objects with 10 bytes", "GLACIER of", "s3://b/x.varve", "restore-object"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let first = names::object(id, 0, 0, 0);
        assert!(text.contains(&first), "{first}: {text}");
        // Of others nothing is said.
        let other = told(frozen(Kind::Denied), &archive, &[(id, 0)]).await.to_string();
        assert!(!other.contains("thaw"), "{other}");
        // The listing may not tell: intelligent tiering.
        let text = told(frozen(Kind::Frozen), &archive, &[(id, 1)]).await.to_string();
        assert!(text.contains("s3://b/x.varve") && text.contains("thaw it"), "{text}");
    }
}
