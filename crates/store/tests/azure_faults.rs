//! Azure when things go wrong, against a server that does as it is told.

#![cfg(feature = "azure")]
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod azurite;
#[path = "azure/copies.rs"]
mod copies;
#[path = "azure/deletes.rs"]
mod deletes;
#[path = "azure/listings.rs"]
mod listings;
#[path = "azure/reads.rs"]
mod reads;
#[path = "azure/signatures.rs"]
mod signatures;
#[path = "azure/uploads.rs"]
mod uploads;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use varve_script::{Answer, Request, Server};
use varve_store::{Create, GetRange, Key, Kind, PutOptions, SharedStore, open};

const KEY: &str = "aHVzaC1odXNoLWh1c2g=";
const SAS: &str = "sv=2022-11-02&sr=c&sp=racwdl&sig=hush%2Bhush%3D";
/// Where a server is silent.
const SOON: (&str, &str) = ("az.timeout.ms", "1000");

async fn store_at(endpoint: &str, more: &[(&str, &str)]) -> SharedStore {
    let endpoint = format!("{endpoint}/account1");
    let mut settings: BTreeMap<String, String> =
        [("az.endpoint.url", endpoint.as_str()), ("az.account.key", KEY), ("az.max.attempts", "3")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    for (name, value) in more {
        if name.starts_with("az.sas.") {
            settings.remove("az.account.key");
        }
        settings.insert((*name).to_owned(), (*value).to_owned());
    }
    open("az://account1/box/some/prefix", &settings).await.unwrap()
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
    let store = store_at(&server.endpoint, &[("az.max.attempts", "2")]).await;
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

#[tokio::test]
async fn silence_and_refused_connections_end_in_time() {
    let server = Server::start(|_, _| Answer::hang()).await;
    let store = store_at(&server.endpoint, &[SOON]).await;
    let started = Instant::now();
    let error = store.head(&key()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(server.seen().len(), 3);

    let store = store_at("http://127.0.0.1:1", &[("az.sas.token", SAS)]).await;
    let error = store.put(&key(), Bytes::from_static(b"x"), &if_absent()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
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

#[tokio::test]
async fn this_machine_is_reached_without_a_proxy() {
    let server = Server::start(|_, _| created()).await;
    let proxy = Server::start(|_, _| Answer::new(502)).await;
    for endpoint in [server.endpoint.clone(), server.endpoint.replace("127.0.0.1", "localhost")] {
        // What would be read on its way.
        let settings = [("az.sas.token", SAS), ("az.proxy.url", proxy.endpoint.as_str())];
        let store = store_at(&endpoint, &settings).await;
        store.put(&key(), Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap();
    }
    assert_eq!((server.seen().len(), proxy.seen().len()), (2, 0));
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
