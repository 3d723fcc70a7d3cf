//! Azure when things go wrong, against a server that does as it is told.

#![cfg(feature = "azure")]
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod azurite;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use varve_script::{Answer, Request, Server, free_port};
use varve_store::{Create, GetRange, Key, Kind, ObjectMeta, PutOptions, Result, SharedStore, Upload, open};

const KEY: &str = "aHVzaC1odXNoLWh1c2g=";
const SAS: &str = "sv=2022-11-02&sr=c&sp=racwdl&sig=hush%2Bhush%3D";

async fn store_with(endpoint: &str, more: &[(&str, &str)]) -> Result<SharedStore> {
    let endpoint = format!("{endpoint}/account1");
    let mut settings: BTreeMap<String, String> = [
        ("az.endpoint.url", endpoint.as_str()),
        ("az.account.key", KEY),
        ("az.max.attempts", "3"),
        ("az.timeout.ms", "400"),
        ("az.connect.timeout.ms", "400"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for (name, value) in more {
        if name.starts_with("az.sas.") {
            settings.remove("az.account.key");
        }
        settings.insert((*name).to_owned(), (*value).to_owned());
    }
    open("az://account1/box/some/prefix", &settings).await
}

async fn store_at(endpoint: &str, more: &[(&str, &str)]) -> SharedStore {
    store_with(endpoint, more).await.unwrap()
}

fn key() -> Key {
    Key::new("the/object").unwrap()
}

fn if_absent() -> PutOptions {
    PutOptions { create: Create::IfAbsent, ..PutOptions::default() }
}

fn failed(status: u16, code: &str) -> Answer {
    let body = format!(
        "\u{feff}<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as told\nTime</Message></Error>"
    );
    let answer = Answer::new(status).header("x-ms-request-id", "R42").body(body);
    if code.is_empty() { answer } else { answer.header("x-ms-error-code", code) }
}

fn created() -> Answer {
    Answer::new(201).header("etag", "\"e\"").header("last-modified", "Fri, 26 Jun 2015 23:39:12 GMT")
}

fn method_of(request: &Request) -> String {
    let comp = request.path.split(['?', '&']).find_map(|pair| pair.strip_prefix("comp="));
    comp.map_or_else(|| request.method.clone(), |comp| format!("{} {comp}", request.method))
}

fn methods(server: &Server) -> Vec<String> {
    server.seen().iter().map(method_of).collect()
}

#[tokio::test]
async fn throttling_is_waited_out() {
    let server = Server::start(|_, before| match before.len() {
        0 => failed(503, "ServerBusy"),
        1 => Answer::new(429),
        _ => created(),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let meta = store.put(&key(), Bytes::from_static(b"hello"), &PutOptions::default()).await.unwrap();
    assert_eq!((meta.size_bytes, meta.etag.as_deref()), (5, Some("\"e\"")));
    assert_eq!(meta.last_modified_ms, 1_435_361_952_000);
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn attempts_are_bounded_and_counted() {
    let server = Server::start(|_, _| failed(500, "OperationTimedOut")).await;
    let store = store_at(&server.endpoint, &[]).await;
    let error = store.head(&key()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("az://account1/box/some/prefix/the/object"), "{text}");
    assert!(text.contains("after 3 attempts") && text.contains("OperationTimedOut"), "{text}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_store_that_is_down_is_not_stormed() {
    let server = Server::start(|_, _| failed(500, "InternalError")).await;
    let store = store_at(&server.endpoint, &[("az.max.attempts", "2"), ("az.timeout.ms", "20000")]).await;
    let key = key();
    // Fewer at once than the listener's backlog holds, so that each attempt is seen.
    let calls = futures::stream::iter((0..300).map(|_| store.head(&key))).buffer_unordered(50);
    let calls: Vec<_> = calls.collect().await;
    assert!(calls.iter().all(|outcome| outcome.as_ref().is_err_and(|error| error.kind == Kind::Unavailable)));
    // 500 tokens at 5 each.
    assert_eq!(server.seen().len(), 300 + 100);
}

#[tokio::test]
async fn refusals_are_final_and_say_why() {
    for (status, code, kind) in [
        (403, "AuthorizationPermissionMismatch", Kind::Denied),
        // An expired signature.
        (403, "AuthenticationFailed", Kind::Denied),
        (400, "InvalidAuthenticationInfo", Kind::Denied),
        (409, "BlobImmutableDueToPolicy", Kind::Denied),
        (412, "LeaseIdMissing", Kind::Denied),
        (400, "InvalidHeaderValue", Kind::Invalid),
        (507, "", Kind::NoSpace),
        (501, "NotImplemented", Kind::Unsupported),
        (404, "ContainerNotFound", Kind::NotFound),
        (409, "BlobArchived", Kind::Frozen),
    ] {
        for access in [("az.account.key", KEY), ("az.sas.token", SAS)] {
            let server = Server::start(move |_, _| failed(status, code)).await;
            let store = store_at(&server.endpoint, &[access]).await;
            let put = store.put(&key(), Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap_err();
            let keys = ["a", "b"].map(|name| Key::new(name).unwrap());
            let listed = store.list("", None, 10).await.unwrap_err();
            let deleted = store.delete_many(&keys[..1]).await.unwrap().pop().unwrap();
            for error in [put, listed, store.get(&key(), GetRange::Full).await.unwrap_err()] {
                let text = format!("{error} {error:?} {store:?}");
                assert_eq!(error.kind, kind, "{text}");
                assert!(
                    text.contains(code) && text.contains(&status.to_string()) && text.contains("R42"),
                    "{text}"
                );
                assert!(text.contains("as told") && !text.contains("Time\""), "{text}");
                assert!(!text.contains("hush") && !text.contains(KEY), "{text}");
            }
            assert!(deleted.is_err_and(|error| error.kind == kind));
            assert_eq!(server.seen().len(), 4);
        }
    }
}

#[tokio::test]
async fn an_oversized_error_is_cut() {
    let server = Server::start(|_, _| Answer::new(400).body(vec![b'x'; 8 << 20])).await;
    let store = store_at(&server.endpoint, &[("az.timeout.ms", "20000")]).await;
    let error = store.list("", None, 10).await.unwrap_err();
    assert!(error.kind == Kind::Invalid && error.to_string().len() < 1000, "{error}");
    let long = "m".repeat(60_000);
    let server = Server::start(move |_, _| {
        Answer::new(409).body(format!("<Error><Code>Odd</Code><Message>{long}</Message></Error>"))
    })
    .await;
    let error = store_at(&server.endpoint, &[]).await.list("", None, 10).await.unwrap_err();
    assert!(error.to_string().contains("409 Odd: mmm") && error.to_string().len() < 1000, "{error}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let there = Server::start(|_, _| created()).await;
    let elsewhere = format!("{}/account1/box/other", there.endpoint);
    let server = Server::start(move |_, _| Answer::new(307).header("location", &elsewhere)).await;
    let store = store_at(&server.endpoint, &[]).await;
    let error = store.put(&key(), Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid, "{error}");
    assert!(store.get(&key(), GetRange::Full).await.is_err_and(|error| error.kind == Kind::Invalid));
    assert_eq!((server.seen().len(), there.seen().len()), (2, 0));
}

/// What Shared Key must be, put together anew from what arrived.
fn expected_signature(request: &Request, resource: &str) -> String {
    let placed = |name: &str| request.header(name).unwrap_or_default().to_owned();
    let length = request.body.len();
    let mut lines = vec![request.method.clone(), placed("content-encoding"), placed("content-language")];
    lines.push(if length == 0 { String::new() } else { length.to_string() });
    for name in ["content-md5", "content-type", "date", "if-modified-since", "if-match", "if-none-match"] {
        lines.push(placed(name));
    }
    lines.extend([placed("if-unmodified-since"), placed("range")]);
    let mut own: Vec<_> = request.headers.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
    own.sort();
    lines.extend(own.into_iter().map(|(name, value)| format!("{name}:{value}")));
    lines.push(resource.to_owned());
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &STANDARD.decode(KEY).unwrap());
    let signature = aws_lc_rs::hmac::sign(&key, lines.join("\n").as_bytes());
    format!("SharedKey account1:{}", STANDARD.encode(signature))
}

#[tokio::test]
async fn bodies_go_hashed_and_signed() {
    let server = Server::start(|_, _| created()).await;
    let store = store_at(&server.endpoint, &[("az.access.tier", "cool")]).await;
    let odd = Key::new("o+d%d/(key)").unwrap();
    let meta = store.put(&odd, Bytes::from_static(b"123456789"), &if_absent()).await.unwrap();
    assert_eq!(meta.storage_class.as_deref(), Some("Cool"));
    let request = &server.seen()[0];
    let path = "/account1/box/some/prefix/o%2Bd%25d/%28key%29";
    assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", path));
    // The CRC-64/NVME of "123456789" is ae8b14860a799888, sent from its last byte.
    let checksum = STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_le_bytes());
    assert_eq!(request.header("x-ms-content-crc64"), Some(checksum.as_str()));
    assert_eq!(request.header("x-ms-blob-type"), Some("BlockBlob"));
    assert_eq!(request.header("x-ms-access-tier"), Some("Cool"));
    assert_eq!(request.header("if-none-match"), Some("*"));
    assert_eq!(request.header("content-length"), Some("9"));
    assert!(request.header("x-ms-meta-varve_write").is_some_and(|id| id.len() == 32));
    assert_eq!(request.body, b"123456789");
    let signature = expected_signature(request, &format!("/account1{path}"));
    assert_eq!(request.header("authorization"), Some(signature.as_str()));

    // An empty body, whose length is said and not signed, and a page of a listing with its query.
    store.put(&key(), Bytes::new(), &PutOptions::default()).await.unwrap();
    let _ = store.list("x", None, 10).await;
    let seen = server.seen();
    assert_eq!(seen[1].header("content-length"), Some("0"));
    let signature = expected_signature(&seen[1], "/account1/account1/box/some/prefix/the/object");
    assert_eq!(seen[1].header("authorization"), Some(signature.as_str()));
    let resource =
        "/account1/account1/box\ncomp:list\nmaxresults:10\nprefix:some/prefix/x\nrestype:container";
    let signature = expected_signature(&seen[2], resource);
    assert_eq!(seen[2].header("authorization"), Some(signature.as_str()));
}

#[tokio::test]
async fn a_signature_goes_in_the_address_and_nowhere_else() {
    let server =
        Server::start(|request, _| if request.method == "PUT" { created() } else { Answer::reset() }).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("?{SAS}\n")).unwrap();
    let path = file.path().display().to_string();
    for access in [("az.sas.token", SAS), ("az.sas.token.file", path.as_str())] {
        let store = store_at(&server.endpoint, &[access]).await;
        let before = server.seen().len();
        store.put(&key(), Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap();
        let error = store.get(&key(), GetRange::Full).await.unwrap_err();
        let text = format!("{error} {error:?} {store:?}");
        assert!(error.kind == Kind::Unavailable && !text.contains("hush"), "{text}");
        for request in &server.seen()[before..] {
            assert!(request.path.ends_with(&format!("?{SAS}")), "{}", request.path);
            assert_eq!(request.header("authorization"), None);
        }
    }
    let store =
        store_at(&server.endpoint, &[("az.sas.token.file", "/nowhere"), ("az.max.attempts", "1")]).await;
    let error = store.head(&key()).await.unwrap_err();
    assert!(error.kind == Kind::Denied && error.to_string().contains("/nowhere"), "{error}");
}

#[tokio::test]
async fn a_body_altered_on_its_way_is_sent_again() {
    for code in ["Crc64Mismatch", "Md5Mismatch"] {
        let server = Server::start(move |_, before| match before.len() {
            0 => failed(400, code),
            _ => created(),
        })
        .await;
        let store = store_at(&server.endpoint, &[]).await;
        store.put(&key(), Bytes::from_static(b"hello"), &if_absent()).await.unwrap();
        assert_eq!(methods(&server), ["PUT", "PUT"]);
        let upload = store.upload(&key(), 1 << 20, None, &if_absent()).await.unwrap();
        upload.put_part(1, Bytes::from_static(b"123456789")).await.unwrap();
        let checksum = STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_le_bytes());
        assert_eq!(server.seen()[2].header("x-ms-content-crc64"), Some(checksum.as_str()));
    }
}

fn bytes_of(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n % 251) as u8).collect()
}

/// 10,000 bytes, of which more are asked for only as those of the same object.
fn served(request: &Request) -> Answer {
    assert!(request.header("range").is_none() || request.header("if-match") == Some("\"v1\""));
    Answer::of_range(request, &bytes_of(10_000)).header("etag", "\"v1\"")
}

#[tokio::test]
async fn a_body_that_breaks_is_read_on() {
    let server = Server::start(|request, _| served(request).break_after(4_000)).await;
    let store = store_at(&server.endpoint, &[]).await;
    let got = store.get(&key(), GetRange::Full).await.unwrap().bytes().await.unwrap();
    assert_eq!(got, bytes_of(10_000));
    let ranges: Vec<_> = server.seen().iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=4000-9999".to_owned()), Some("bytes=8000-9999".to_owned())]);
}

#[tokio::test]
async fn a_body_that_breaks_for_ever_is_an_error() {
    let server = Server::start(|request, _| served(request).break_after(10)).await;
    let store = store_at(&server.endpoint, &[("az.sas.token", SAS)]).await;
    let error = store.get(&key(), GetRange::Full).await.unwrap().bytes().await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    let text = format!("{error} {error:?}");
    assert!(text.contains("expected 10000") && !text.contains("hush"), "{text}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_body_that_falls_silent_is_read_on() {
    let server = Server::start(|request, before| match before.len() {
        0 => served(request).silent_after(4_000),
        _ => served(request),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let got = store.get(&key(), GetRange::Full).await.unwrap().bytes().await.unwrap();
    assert_eq!(got.len(), 10_000);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn an_object_replaced_while_read_is_no_mixture() {
    let server = Server::start(|request, _| match request.header("range") {
        None => served(request).break_after(4_000),
        Some(_) => failed(412, "ConditionNotMet"),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let error = store.get(&key(), GetRange::Full).await.unwrap().bytes().await.unwrap_err();
    assert_eq!(error.kind, Kind::Truncated);
    assert!(error.to_string().contains("replaced"), "{error}");
}

#[tokio::test]
async fn answers_of_other_lengths_are_errors() {
    for answer in [
        || Answer::new(200).header("etag", "\"e\"").body("0123456789"),
        || Answer::new(206).header("content-range", "bytes 5-9/10").body("0123"),
        || Answer::new(206).header("content-range", "bytes 4-9/10").body("012345"),
        || Answer::new(206).header("content-range", "bytes 5-9/*").body("01234"),
    ] {
        let server = Server::start(move |_, _| answer()).await;
        let store = store_at(&server.endpoint, &[]).await;
        let error = store.get(&key(), GetRange::From(5)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Other, "{error}");
    }
    // Less than was announced, and the connection ends properly.
    let server =
        Server::start(|_, _| Answer::new(200).header("content-length", "10").body("01234").break_after(4))
            .await;
    let error = store_at(&server.endpoint, &[]).await.get(&key(), GetRange::Full).await.unwrap();
    assert!(error.bytes().await.is_err());
}

/// The end is asked for by its place, of the same object.
#[tokio::test]
async fn the_end_of_an_object_is_asked_for_by_its_size() {
    let server = Server::start(|request, before| match request.method.as_str() {
        "HEAD" => {
            let (size, etag) = if before.is_empty() { ("10", "\"v1\"") } else { ("20", "\"v2\"") };
            Answer::new(200).header("content-length", size).header("etag", etag)
        }
        _ if request.header("if-match") == Some("\"v1\"") => failed(412, "ConditionNotMet"),
        _ => Answer::new(206).header("content-range", "bytes 17-19/20").header("etag", "\"v2\"").body("end"),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let got = store.get(&key(), GetRange::Suffix(3)).await.unwrap();
    assert_eq!((got.range.clone(), got.object_size_bytes), (17..20, Some(20)));
    assert_eq!(got.bytes().await.unwrap(), "end");
    assert_eq!(methods(&server), ["HEAD", "GET", "HEAD", "GET"]);
    assert_eq!(server.seen()[1].header("range"), Some("bytes=7-9"));
}

#[tokio::test]
async fn silence_and_refused_connections_end_in_time() {
    let server = Server::start(|_, _| Answer::hang()).await;
    let store = store_at(&server.endpoint, &[]).await;
    let started = Instant::now();
    let error = store.head(&key()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(server.seen().len(), 3);

    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let store = store_at(&endpoint, &[("az.sas.token", SAS)]).await;
    let error = store.put(&key(), Bytes::from_static(b"x"), &if_absent()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
}

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
    let server = Server::start(|_, _| failed(409, "BlobAlreadyExists")).await;
    let store = store_at(&server.endpoint, &[]).await;
    let outcome = store.put(&key(), Bytes::from_static(b"hello"), &if_absent()).await;
    assert_eq!(outcome.unwrap_err().kind, Kind::AlreadyExists);
    assert_eq!(methods(&server), ["PUT"]);
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

/// A batch's answer of these parts: place, status, code.
fn batch(parts: &[(usize, u16, &str)]) -> Answer {
    let mut body = String::new();
    for (place, status, code) in parts {
        body.push_str(&format!(
            "--answer_1\r\nContent-Type: application/http\r\nContent-ID: {place}\r\n\r\nHTTP/1.1 {status} Told\r\n\
            x-ms-error-code: {code}\r\nx-ms-request-id: R{place}\r\n\r\n<Error><Message>as told</Message></Error>\r\n"
        ));
    }
    body.push_str("--answer_1--");
    Answer::new(202).header("content-type", "multipart/mixed; boundary=answer_1").body(body)
}

#[tokio::test]
async fn a_batch_tells_each_keys_outcome() {
    let told = [
        (2, 404, "BlobNotFound"),
        (1, 403, "AuthorizationPermissionMismatch"),
        (0, 202, ""),
        (3, 409, "LeaseIdMissing"),
    ];
    let server = Server::start(move |_, _| batch(&told)).await;
    let store = store_at(&server.endpoint, &[]).await;
    let keys = ["a", "b b", "c", "d"].map(|name| Key::new(name.replace(' ', "%")).unwrap());
    let outcomes = store.delete_many(&keys).await.unwrap();
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    let error = outcomes[1].as_ref().unwrap_err();
    assert!(error.kind == Kind::Denied && error.object.ends_with("/b%b"), "{error}");
    assert!(error.to_string().contains("R1"), "{error}");
    assert_eq!(outcomes[3].as_ref().unwrap_err().kind, Kind::Denied);
    let request = &server.seen()[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/account1/box?restype=container&comp=batch")
    );
    let resource = "/account1/account1/box\ncomp:batch\nrestype:container";
    assert_eq!(request.header("authorization"), Some(expected_signature(request, resource).as_str()));
    let body = String::from_utf8(request.body.clone()).unwrap();
    assert!(
        body.contains("Content-ID: 1\r\n\r\nDELETE /account1/box/some/prefix/b%25b HTTP/1.1\r\n"),
        "{body}"
    );
    assert_eq!(body.matches("authorization: SharedKey account1:").count(), 4);
}

#[tokio::test]
async fn a_batch_with_gaps_or_troubles_is_sent_again() {
    let server = Server::start(|_, before| match before.len() {
        0 => batch(&[(0, 202, "")]),
        1 => batch(&[(0, 202, ""), (1, 503, "ServerBusy")]),
        _ => batch(&[(0, 404, "BlobNotFound"), (1, 202, "")]),
    })
    .await;
    let keys = ["a", "b"].map(|name| Key::new(name).unwrap());
    let outcomes = store_at(&server.endpoint, &[]).await.delete_many(&keys).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok) && server.seen().len() == 3);

    for answer in [|| batch(&[(1, 202, "")]), || Answer::new(202).body("what?"), || batch(&[])] {
        let server = Server::start(move |_, _| answer()).await;
        let outcomes = store_at(&server.endpoint, &[]).await.delete_many(&keys).await.unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(|e| e.kind == Kind::Unavailable)));
        assert_eq!(server.seen().len(), 3);
    }
}

#[tokio::test]
async fn where_there_is_no_batch_each_is_deleted_alone() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "POST" => failed(501, "NotImplemented"),
        _ if request.path.ends_with("/b") => failed(404, "BlobNotFound"),
        _ if request.path.ends_with("/c") => failed(404, "ContainerNotFound"),
        _ => Answer::new(202),
    })
    .await;
    let keys = ["a", "b", "c"].map(|name| Key::new(name).unwrap());
    let outcomes = store_at(&server.endpoint, &[]).await.delete_many(&keys).await.unwrap();
    assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
    assert!(outcomes[2].as_ref().is_err_and(|error| error.kind == Kind::NotFound));
    assert_eq!(server.seen().len(), 4);
}

/// A page of a listing: names, with versions (and whether current) if they have one.
fn listing(items: &[(&str, Option<(&str, bool)>)], next: &str) -> Answer {
    let mut blobs = String::new();
    for (name, version) in items {
        let version = version.map_or_else(String::new, |(id, current)| {
            let current = if current { "<IsCurrentVersion>true</IsCurrentVersion>" } else { "" };
            format!("<VersionId>{id}</VersionId>{current}")
        });
        blobs.push_str(&format!(
            "<Blob><Name>some/prefix/{name}</Name>{version}<Properties><Last-Modified>Fri, 26 Jun 2015 23:39:12 GMT\
            </Last-Modified><Etag>0x8D</Etag><Content-Length>7</Content-Length><BlobType>BlockBlob</BlobType>\
            <AccessTier>Cool</AccessTier></Properties></Blob>"
        ));
    }
    let body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"box\"><Blobs>{blobs}\
        </Blobs><NextMarker>{next}</NextMarker></EnumerationResults>"
    );
    Answer::new(200).header("content-type", "application/xml").body(body)
}

fn query(request: &Request, name: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(request.path.split_once('?')?.1.as_bytes());
    pairs.into_iter().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn listings_go_on_over_empty_pages_and_foreign_names() {
    let server = Server::start(|request, _| match query(request, "marker").as_deref() {
        None => listing(&[], "m1"),
        Some("m1") => listing(&[("a b", None)], "m2"),
        _ => listing(&[("c", None), ("d", None)], "m3"),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let page = store.list("", None, 10).await.unwrap();
    let names: Vec<_> = page.objects.iter().map(|object| object.key.as_str()).collect();
    assert!(page.more && names == ["c", "d"], "{page:?}");
    let object = &page.objects[0];
    assert_eq!((object.size_bytes, object.etag.as_deref()), (7, Some("\"0x8D\"")));
    assert_eq!((object.last_modified_ms, object.storage_class.as_deref()), (1_435_361_952_000, Some("Cool")));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_listing_goes_on_behind_a_key() {
    // A server that knows where to start, without a prefix: what lies beyond the prefix ends the listing.
    let server = Server::start(|_, _| listing(&[("p/b", None), ("p/c", None), ("q", None)], "m1")).await;
    let store = store_at(&server.endpoint, &[]).await;
    let after = Key::new("p/b").unwrap();
    let page = store.list("p/", Some(&after), 10).await.unwrap();
    assert!(page.objects.len() == 1 && page.objects[0].key.as_str() == "p/c" && !page.more, "{page:?}");
    let request = &server.seen()[0];
    assert_eq!(query(request, "startFrom").as_deref(), Some("some/prefix/p/b"));
    assert_eq!(query(request, "prefix"), None);

    // One that doesn't.
    let server = Server::start(|request, _| match query(request, "prefix") {
        None => listing(&[("o", None), ("p/a", None)], "m1"),
        Some(_) => listing(&[("p/a", None), ("p/b", None), ("p/c", None)], ""),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let page = store.list("p/", Some(&after), 10).await.unwrap();
    assert!(page.objects.len() == 1 && page.objects[0].key.as_str() == "p/c" && !page.more, "{page:?}");
    assert_eq!(query(&server.seen()[1], "prefix").as_deref(), Some("some/prefix/p/"));
    let nothing = store.list("p/", Some(&Key::new("q").unwrap()), 10).await.unwrap();
    assert!(nothing.objects.is_empty() && !nothing.more && server.seen().len() == 2);
}

#[tokio::test]
async fn another_order_and_folders_are_refused() {
    let server = Server::start(|_, _| listing(&[("a/b", None), ("a-b", None)], "")).await;
    let error = store_at(&server.endpoint, &[]).await.list("", None, 10).await.unwrap_err();
    assert!(error.kind == Kind::Unsupported && error.to_string().contains("order of bytes"), "{error}");
    let server = Server::start(|_, _| {
        Answer::new(200).body(
            "<EnumerationResults><Blobs><Blob><Name>some/prefix/a</Name><Properties>\
            <ResourceType>directory</ResourceType></Properties></Blob></Blobs></EnumerationResults>",
        )
    })
    .await;
    let error = store_at(&server.endpoint, &[]).await.list("", None, 10).await.unwrap_err();
    assert!(error.kind == Kind::Unsupported && error.to_string().contains("hierarchical"), "{error}");
}

#[tokio::test]
async fn a_listing_that_is_no_xml_is_tried_again() {
    let server = Server::start(|_, _| Answer::new(200).body("<html>")).await;
    let error = store_at(&server.endpoint, &[]).await.list("", None, 10).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn versions_are_told_where_an_account_keeps_them() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "HEAD" => Answer::new(200)
            .header("content-length", "5")
            .header("etag", "\"v1\"")
            .header("x-ms-version-id", &query(request, "versionid").unwrap()),
        "GET" if query(request, "versionid").is_some() => {
            Answer::new(200).header("etag", "\"v1\"").body("hello")
        }
        _ => listing(
            &[
                ("a", Some(("1", false))),
                ("a", Some(("2", true))),
                ("b", Some(("3", false))),
                ("b", Some(("4", false))),
                ("c", Some(("5", true))),
            ],
            "",
        ),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let versions = store.versions().await.unwrap().expect("the listing has ids");
    assert_eq!(query(&server.seen()[0], "include").as_deref(), Some("versions"));
    let page = versions.list("", None, 2).await.unwrap();
    assert!(page.more && page.keys.len() == 2, "{page:?}");
    let ids = |at: usize| page.keys[at].versions.iter().map(|v| v.id.as_str()).collect::<Vec<_>>();
    assert_eq!((ids(0), page.keys[0].is_hidden(), page.keys[0].count), (vec!["1", "2"], false, 2));
    assert_eq!((ids(1).len(), page.keys[1].is_hidden(), page.keys[1].count), (3, true, 3));
    let marker = page.keys[1].current().unwrap();
    let a = Key::new("a").unwrap();
    assert!(versions.get(&a, &marker.id, GetRange::Full).await.is_err_and(|e| e.kind == Kind::NotFound));
    let got = versions.get(&a, "1", GetRange::Full).await.unwrap();
    assert_eq!(got.version.as_deref(), Some("1"));
    assert_eq!(got.bytes().await.unwrap(), "hello");
    let head = versions.head(&a, "1").await.unwrap();
    assert_eq!((head.size_bytes, head.version.as_deref()), (5, Some("1")));

    // An account without, and one of which nothing is known before something is written.
    let server = Server::start(|_, _| listing(&[("a", None)], "")).await;
    assert!(store_at(&server.endpoint, &[]).await.versions().await.unwrap().is_none());
    let server = Server::start(|request, _| match request.method.as_str() {
        "PUT" => created().header("x-ms-version-id", "1"),
        _ => listing(&[], ""),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    assert!(store.versions().await.unwrap().is_none());
    let meta = store.put(&key(), Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap();
    assert_eq!(meta.version.as_deref(), Some("1"));
    assert!(store.versions().await.unwrap().is_some());
}

#[tokio::test]
async fn a_copy_names_its_source_and_what_lets_the_store_in() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "HEAD" => Answer::new(200).header("content-length", "5").header("etag", "\"v1\""),
        _ => Answer::new(202).header("etag", "\"v2\""),
    })
    .await;
    let to = Key::new("there").unwrap();
    let store = store_at(&server.endpoint, &[]).await;
    let meta = store.copy(&key(), &to, &if_absent()).await.unwrap();
    assert_eq!((meta.size_bytes, meta.etag.as_deref()), (5, Some("\"v2\"")));
    let seen = server.seen();
    let source = seen[1].header("x-ms-copy-source").unwrap();
    let address = format!("{}/account1/box/some/prefix/the/object?sv=", server.endpoint);
    assert!(
        source.starts_with(&address) && source.contains("&sp=r&") && source.contains("&sig="),
        "{source}"
    );
    assert_eq!(seen[1].header("x-ms-source-if-match"), Some("\"v1\""));
    assert_eq!(seen[1].header("x-ms-requires-sync"), Some("true"));
    assert_eq!(seen[1].header("if-none-match"), Some("*"));
    let store = store_at(&server.endpoint, &[("az.sas.token", SAS)]).await;
    store.copy(&key(), &to, &PutOptions::default()).await.unwrap();
    let source = server.seen()[3].header("x-ms-copy-source").unwrap().to_owned();
    assert!(source.ends_with(&format!("/the/object?{SAS}")), "{source}");
}

#[tokio::test]
async fn a_source_replaced_while_it_is_copied_is_told() {
    for (code, options) in [
        ("SourceConditionNotMet", if_absent()),
        ("SourceConditionNotMet", PutOptions::default()),
        ("ConditionNotMet", PutOptions::default()),
    ] {
        let server = Server::start(move |request, _| match request.method.as_str() {
            "HEAD" => Answer::new(200).header("content-length", "5").header("etag", "\"v1\""),
            _ => failed(412, code),
        })
        .await;
        let store = store_at(&server.endpoint, &[]).await;
        let error = store.copy(&key(), &Key::new("there").unwrap(), &options).await.unwrap_err();
        assert!(error.kind == Kind::Truncated && error.to_string().contains("replaced"), "{error}");
        assert!(!error.to_string().contains("sig="), "{error}");
    }
}

#[tokio::test]
async fn a_large_copy_is_made_of_blocks() {
    let size: u64 = (256 << 20) + 1;
    let server = Server::start(move |request, _| match request.method.as_str() {
        "HEAD" => Answer::new(200).header("content-length", &size.to_string()).header("etag", "\"v1\""),
        _ => created(),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let meta = store.copy(&key(), &Key::new("there").unwrap(), &if_absent()).await.unwrap();
    assert_eq!(meta.size_bytes, size);
    let seen = server.seen();
    let mut ranges: Vec<_> = seen.iter().filter_map(|request| request.header("x-ms-source-range")).collect();
    ranges.sort_unstable();
    assert_eq!(ranges, ["bytes=0-268435455", "bytes=268435456-268435456"]);
    assert!(seen[1..3].iter().all(|request| request.header("x-ms-source-if-match") == Some("\"v1\"")));
    assert!(seen[1..3].iter().all(|request| request.header("content-length") == Some("0")));
    assert_eq!(methods(&server), ["HEAD", "PUT block", "PUT block", "PUT blocklist"]);
    assert_eq!(seen[3].header("if-none-match"), Some("*"));
}

#[tokio::test]
async fn a_proxy_is_gone_through() {
    let proxy = Server::start(|_, _| created()).await;
    let address = proxy.endpoint.replace("http://", "http://me:hush@");
    let store = store_at("http://nowhere.invalid", &[("az.proxy.url", &address)]).await;
    store.put(&key(), Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap();
    let request = &proxy.seen()[0];
    assert_eq!(request.path, "http://nowhere.invalid/account1/box/some/prefix/the/object");
    assert!(request.header("proxy-authorization").is_some());
    assert!(!format!("{store:?}").contains("hush"));
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

#[tokio::test]
async fn configuration_errors_name_the_key() {
    for (url, settings, words) in [
        ("az://account1", vec![], vec!["no container", "az://account/container/prefix"]),
        ("az://account1/box", vec![("az.acount.key", "aGk=")], vec!["az.account.key"]),
        ("az://account1/box", vec![("az.account.key", "hush!")], vec!["az.account.key", "base64"]),
        (
            "az://account1/box",
            vec![("az.access.tier", "Lukewarm")],
            vec!["az.access.tier", "Hot, Cool, Cold, Archive"],
        ),
        (
            "az://account1/box",
            vec![("az.account.key", KEY), ("az.tls.ca.file", "/nowhere")],
            vec!["az.tls.ca.file"],
        ),
        ("az://account1/box", vec![("az.account.key", KEY), ("az.proxy.url", "hush")], vec!["az.proxy.url"]),
        (
            "az://account1/box",
            vec![("az.auth", "client-secret"), ("az.client.secret", "hush"), ("az.client.id", "c")],
            vec!["az.tenant.id", "AZURE_TENANT_ID"],
        ),
        ("s3://bucket/x", vec![("az.account.key", KEY)], vec!["az.account.key", "az://"]),
    ] {
        let given = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let error = open(url, &given).await.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind, Kind::Invalid, "{text}");
        assert!(words.iter().all(|word| text.contains(word)) && !text.contains("hush"), "{url}: {text}");
    }
}
