//! Every store passes the one suite.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod minio;

use std::collections::BTreeMap;

use varve_store::conformance::{Outcome, run};
use varve_store::{FilesystemStore, MemoryStore, SharedStore, open};

async fn check(store: SharedStore, scratch_prefix: &str) {
    let results = run(&store, scratch_prefix).await;
    for result in &results {
        println!("{result}");
    }
    assert!(results.len() > 25, "the suite ran {} checks only", results.len());
    let failed: Vec<_> = results.iter().filter(|result| result.outcome != Outcome::Passed).collect();
    assert!(failed.is_empty(), "{} of {} checks did not pass: {failed:#?}", failed.len(), results.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    check(std::sync::Arc::new(MemoryStore::new()), "scratch/").await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3() {
    let Some(server) = minio::start("conformance").await else { return };
    for (prefix, scratch) in [("/deep/prefix", "scratch/"), ("", "")] {
        let store = open(&format!("s3://conformance{prefix}"), &server.settings()).await.unwrap();
        check(store, scratch).await;
    }
}
