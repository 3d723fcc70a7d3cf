//! Creates and commits whose answers are lost, and blocks that are gone or many.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use varve_script::{Answer, Request, Server};
use varve_store::{GetRange, Kind, ObjectMeta, PutOptions, Result, SharedStore, Upload, open};

use super::{azurite, created, failed, if_absent, key, method_of, methods, store_at};

/// Whose write the store shows after an answer was lost.
fn head_of(mine: Option<&str>) -> Answer {
    Answer::new(200).header("x-ms-meta-varve_write", mine.unwrap_or("another")).header("content-length", "5")
}

fn written_by(before: &[Request]) -> String {
    before.iter().find_map(|seen| seen.header("x-ms-meta-varve_write")).unwrap_or("?").to_owned()
}

async fn lost_create(mine: bool) -> (Result<ObjectMeta>, Vec<String>) {
    let server = Server::start(move |request, before| match request.method.as_str() {
        "PUT" => Answer::reset(),
        _ => head_of(mine.then_some(&written_by(before))),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let outcome = store.put(&key(), Bytes::from_static(b"hello"), &if_absent()).await;
    (outcome, methods(&server))
}

#[tokio::test]
async fn a_lost_answer_to_a_create_is_asked_for() {
    let (outcome, methods) = lost_create(true).await;
    assert_eq!(outcome.unwrap().size_bytes, 5);
    assert_eq!(methods, ["PUT", "HEAD"]);
    let (outcome, methods) = lost_create(false).await;
    assert_eq!(outcome.unwrap_err().kind, Kind::AlreadyExists);
    assert_eq!(methods, ["PUT", "HEAD"]);
}

#[tokio::test]
async fn a_create_that_is_refused_outright_is_not_asked_for() {
    // A policy may be looked at before the condition is.
    for code in ["BlobAlreadyExists", "BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold"] {
        let server = Server::start(move |request, _| match method_of(request).as_str() {
            "PUT block" => created(),
            _ => failed(409, code),
        })
        .await;
        let store = store_at(&server.endpoint, &[]).await;
        let error = store.put(&key(), Bytes::from_static(b"hello"), &if_absent()).await.unwrap_err();
        assert_eq!(error.kind, Kind::AlreadyExists, "{error}");
        let error = one_block(&store, &if_absent()).await.complete().await.unwrap_err();
        assert_eq!(error.kind, Kind::AlreadyExists, "{error}");
        assert_eq!(methods(&server), ["PUT", "PUT block", "PUT blocklist"]);
        let error = store.put(&key(), Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap_err();
        assert_eq!(error.kind == Kind::Denied, code != "BlobAlreadyExists", "{error}");
    }
}

async fn one_block(store: &SharedStore, options: &PutOptions) -> Arc<dyn Upload> {
    let upload = store.upload(&key(), 1 << 20, None, options).await.unwrap();
    upload.put_part(1, Bytes::from_static(b"hello")).await.unwrap();
    upload
}

/// An upload whose commit goes wrong in `first`'s way, having had its effect or not.
async fn lost_commit(first: fn() -> Answer, effect: bool) -> (Result<u64>, Vec<String>) {
    let server = Server::start(move |request, before| match method_of(request).as_str() {
        "PUT block" => created(),
        "PUT blocklist" if before.len() == 1 => first(),
        "PUT blocklist" if !effect => created(),
        "HEAD" if effect => head_of(Some(&written_by(before))),
        _ => failed(404, "BlobNotFound"),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let upload = one_block(&store, &PutOptions::default()).await;
    let outcome = upload.complete().await.map(|meta| meta.size_bytes);
    (outcome, methods(&server))
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_is_asked_for() {
    for first in [Answer::reset, Answer::hang, || failed(500, "InternalError")] {
        let (outcome, methods) = lost_commit(first, true).await;
        assert_eq!(outcome.unwrap(), 5);
        assert_eq!(methods, ["PUT block", "PUT blocklist", "HEAD"]);
        let (outcome, methods) = lost_commit(first, false).await;
        assert_eq!(outcome.unwrap(), 5);
        assert_eq!(methods, ["PUT block", "PUT blocklist", "HEAD", "PUT blocklist"]);
    }
}

/// Another write at the key has made the store throw the blocks away.
#[tokio::test]
async fn blocks_that_are_gone_are_told() {
    for (options, there, kind) in [
        (if_absent(), true, Kind::AlreadyExists),
        (if_absent(), false, Kind::NotFound),
        (PutOptions::default(), true, Kind::NotFound),
    ] {
        let server = Server::start(move |request, _| match method_of(request).as_str() {
            "PUT block" => created(),
            "PUT blocklist" => failed(400, "InvalidBlockList"),
            _ if there => head_of(None),
            _ => failed(404, "BlobNotFound"),
        })
        .await;
        let upload = one_block(&store_at(&server.endpoint, &[]).await, &options).await;
        let error = upload.complete().await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert_eq!(methods(&server), ["PUT block", "PUT blocklist", "HEAD"]);
    }
}

#[tokio::test]
async fn uploads_of_one_key_share_no_block_and_abort_deletes_nothing() {
    let server = Server::start(|_, _| created()).await;
    let store = store_at(&server.endpoint, &[("az.access.tier", "Cold")]).await;
    let (one, other) = (one_block(&store, &if_absent()).await, one_block(&store, &if_absent()).await);
    other.put_part(50_000, Bytes::from_static(b"x")).await.unwrap();
    let ids: Vec<String> = server
        .seen()
        .iter()
        .map(|request| {
            let id = request.path.split("blockid=").nth(1).unwrap().split('&').next().unwrap();
            let id = url::form_urlencoded::parse(format!("i={id}").as_bytes()).next().unwrap().1.into_owned();
            String::from_utf8(STANDARD.decode(id).unwrap()).unwrap()
        })
        .collect();
    assert!(ids.iter().all(|id| id.len() == ids[0].len() && id.len() <= 64), "{ids:?}");
    assert!(ids[0] != ids[1] && ids[1][..32] == ids[2][..32], "{ids:?}");
    other.abort().await.unwrap();
    other.abort().await.unwrap();
    assert_eq!(server.seen().len(), 3, "an abort asks for nothing");
    assert!(other.put_part(1, Bytes::from_static(b"x")).await.is_err());
    assert!(other.complete().await.is_err_and(|error| error.kind == Kind::NotFound));
    one.complete().await.unwrap();
    one.abort().await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    let commit = &seen[3];
    assert_eq!(commit.header("if-none-match"), Some("*"));
    assert_eq!(commit.header("x-ms-access-tier"), Some("Cold"));
    let list = String::from_utf8(commit.body.clone()).unwrap();
    assert!(list.contains(&format!("<Latest>{}</Latest>", STANDARD.encode(&ids[0]))), "{list}");
    assert!(!store.limits().lists_uploads && store.list_uploads("").await.unwrap().is_empty());
}

/// 200 MiB in blocks of 16 MiB, four at once, and back: what is held in between is some blocks, not the object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "200 MiB through an emulator"]
async fn a_large_object_goes_through_little_memory() {
    const PART: usize = 16 << 20;
    const PARTS: u32 = 13;
    let Some(server) = azurite::start("large").await else { return };
    let store = open(&server.url("large", ""), &server.settings()).await.unwrap();
    let part = |number: u32| {
        let len = if number == PARTS { PART / 2 } else { PART };
        Bytes::from(vec![u8::try_from(number).unwrap(); len])
    };
    let upload = store.upload(&key(), PART as u64, None, &if_absent()).await.unwrap();
    let parts = futures::stream::iter(1..=PARTS).map(|number| upload.put_part(number, part(number)));
    let sent: Vec<_> = parts.buffer_unordered(4).collect().await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    let size = upload.complete().await.unwrap().size_bytes;
    assert_eq!(size, (PARTS as usize * PART - PART / 2) as u64);
    let mut body = store.get(&key(), GetRange::Full).await.unwrap().body;
    let mut position = 0_usize;
    while let Some(piece) = body.next().await {
        let piece = piece.unwrap();
        for (at, byte) in piece.iter().enumerate().step_by(4093) {
            assert_eq!(usize::from(*byte), (position + at) / PART + 1);
        }
        position += piece.len();
    }
    assert_eq!(position as u64, size);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    let peak: u64 = peak.split(' ').next().unwrap().parse().unwrap();
    println!("{size} bytes, {peak} KiB at most");
    assert!(peak < 180 << 10, "{peak} KiB were held");
}
