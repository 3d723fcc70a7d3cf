//! Every store passes the one suite.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

#[cfg(feature = "azure")]
mod azurite;
#[cfg(feature = "gcs")]
mod fake_gcs;
#[cfg(feature = "s3")]
mod minio;

use std::collections::BTreeMap;

use varve_store::conformance::{Outcome, run};
use varve_store::{
    CountingStore, Faults, FaultyStore, FilesystemStore, MemoryStore, Rate, SharedStore, Store,
    ThrottledStore, open,
};
#[cfg(feature = "s3")]
use varve_store::{GetRange, Key, PutOptions, delete};

async fn check(store: SharedStore, scratch_prefix: &str) {
    check_but(store, scratch_prefix, &[]).await;
}

/// `beyond` are checks that the server can't pass, whatever the store does.
async fn check_but(store: SharedStore, scratch_prefix: &str, beyond: &[&str]) {
    let results = run(&store, scratch_prefix).await;
    for result in &results {
        println!("{result}");
    }
    assert!(results.len() > 25, "the suite ran {} checks only", results.len());
    let expected = |name: &str| !beyond.contains(&name);
    let failed: Vec<_> =
        results.iter().filter(|result| result.outcome != Outcome::Passed && expected(result.name)).collect();
    assert!(failed.is_empty(), "{} of {} checks did not pass: {failed:#?}", failed.len(), results.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    check(std::sync::Arc::new(MemoryStore::new()), "scratch/").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_with_versions() {
    check(std::sync::Arc::new(MemoryStore::versioned()), "scratch/").await;
}

/// The decorators pass versions on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decorated() {
    let store = std::sync::Arc::new(MemoryStore::versioned());
    let store = std::sync::Arc::new(FaultyStore::new(store, Faults::new(1, Vec::new())));
    let store = std::sync::Arc::new(ThrottledStore::new(store, Rate::new(0)));
    let store = std::sync::Arc::new(CountingStore::new(store));
    assert!(store.versions().await.unwrap().is_some());
    check(store, "scratch/").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filesystem() {
    let root = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(FilesystemStore::open(root.path().join("a store")).unwrap());
    check(store, "scratch/").await;
    let left: Vec<_> =
        std::fs::read_dir(root.path().join("a store")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == ".varve-uploads"), "left in the root: {left:?}");
}

/// Without a folder of its own: the suite works at the root too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filesystem_by_url() {
    let root = tempfile::tempdir().unwrap();
    let url = format!("file://{}", root.path().display());
    check(open(&url, &BTreeMap::new()).await.unwrap(), "").await;
}

#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3() {
    let Some(server) = minio::start("conformance").await else { return };
    for (prefix, scratch) in [("/deep/prefix", "scratch/"), ("", "")] {
        let store = open(&format!("s3://conformance{prefix}"), &server.settings()).await.unwrap();
        assert!(store.versions().await.unwrap().is_none(), "the bucket was never told to keep versions");
        check(store, scratch).await;
    }
}

#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_with_versions() {
    let Some(server) = minio::start("unused").await else { return };
    minio::make_versioned_bucket(&server, "versions").await;
    for (prefix, scratch) in [("/deep/prefix", "scratch/"), ("", "root/")] {
        let store = open(&format!("s3://versions{prefix}"), &server.settings()).await.unwrap();
        assert!(store.versions().await.unwrap().is_some());
        check(store, scratch).await;
    }
}

/// A lock keeps versions from being removed, and nothing else: whoever can write can still put another version on top,
/// or hide all of them.
#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lock_does_not_stop() {
    let Some(server) = minio::start("unused").await else { return };
    minio::make_locked_bucket(&server, "locked").await;
    let store = open("s3://locked/archive", &server.settings()).await.unwrap();
    let versions = store.versions().await.unwrap().expect("a lock needs versions");
    let key = Key::new("object").unwrap();
    let first = store.put(&key, "the truth".into(), &PutOptions::default()).await.unwrap().version.unwrap();
    store.put(&key, "a lie".into(), &PutOptions::default()).await.unwrap();
    delete(&*store, &key).await.unwrap();
    assert!(store.get(&key, GetRange::Full).await.is_err());
    assert!(!minio::remove_version(&server, "locked", "archive/object", &first).await, "the lock holds");
    let page = versions.list("", None, 10).await.unwrap();
    let found = &page.keys[0];
    assert_eq!((page.keys.len(), found.versions.len(), found.is_hidden()), (1, 3, true));
    assert_eq!(found.oldest().unwrap().id, first);
    let body = versions.get(&key, &first, GetRange::Full).await.unwrap().bytes().await.unwrap();
    assert_eq!(body, "the truth");
    let results = run(&store, "scratch/").await;
    let failed: Vec<_> = results.iter().filter(|r| r.outcome != Outcome::Passed).map(|r| r.name).collect();
    assert_eq!(failed, ["version_removed"], "but for what the lock is there to stop, all holds");
}

#[cfg(feature = "azure")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure() {
    let Some(server) = azurite::start("conformance").await else { return };
    for (prefix, scratch) in [("/deep/prefix", "scratch/"), ("", "")] {
        let store = open(&server.url("conformance", prefix), &server.settings()).await.unwrap();
        assert!(store.versions().await.unwrap().is_none(), "Azurite keeps none");
        check(store, scratch).await;
    }
}

/// By a signature for the container instead of the account's key, read from a file.
#[cfg(feature = "azure")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure_by_signature() {
    let Some(server) = azurite::start("shared").await else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{}\n", server.container_sas("shared"))).unwrap();
    let settings = server.settings_with("az.sas.token.file", &file.path().display().to_string());
    check(open(&server.url("shared", "/some"), &settings).await.unwrap(), "scratch/").await;
}

/// What fake-gcs-server does not do: it ignores conditions of a rewrite.
#[cfg(feature = "gcs")]
const BEYOND_FAKE_GCS: &[&str] = &["copy_if_absent"];

#[cfg(feature = "gcs")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcs() {
    let Some(server) = fake_gcs::start("conformance").await else { return };
    for (prefix, scratch) in [("/deep/prefix", "scratch/"), ("", "")] {
        let store = open(&format!("gs://conformance{prefix}"), &server.settings()).await.unwrap();
        assert!(store.versions().await.unwrap().is_none(), "the bucket was never told to keep versions");
        check_but(store, scratch, BEYOND_FAKE_GCS).await;
    }
}

/// Its tokens name keys: a listing of versions does not get past a key with more of them than a page holds. As on the
/// real one, no version becomes current when the current one is removed.
#[cfg(feature = "gcs")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcs_with_versions() {
    let Some(server) = fake_gcs::start("unused").await else { return };
    fake_gcs::make_bucket(&server, "versions", true).await;
    let store = open("gs://versions/deep/prefix", &server.settings()).await.unwrap();
    assert!(store.versions().await.unwrap().is_some());
    let beyond = [BEYOND_FAKE_GCS, &["version_pages", "version_many", "version_removed"]].concat();
    check_but(store, "scratch/", &beyond).await;
}
