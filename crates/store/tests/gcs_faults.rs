//! Cloud Storage when things go wrong, against a server that does as it is told.

#![cfg(feature = "gcs")]
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "gcs/tokens.rs"]
mod tokens;
#[path = "gcs/uploads.rs"]
mod uploads;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use varve_script::{Answer, Request, Server};
use varve_store::{Create, GetRange, Key, Kind, ObjectMeta, PutOptions, SharedStore, delete, open};

const SECRET: &str = "hush-hush-hush";
/// Where a server is silent.
const SOON: (&str, &str) = ("gs.timeout.ms", "1000");

fn settings(endpoint: &str, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let common = [("gs.endpoint.url", endpoint), ("gs.auth", "anonymous"), ("gs.max.attempts", "3")];
    common.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn store_at(endpoint: &str, more: &[(&str, &str)]) -> SharedStore {
    open("gs://bucket/some/prefix", &settings(endpoint, more)).await.unwrap()
}

fn key() -> Key {
    Key::new("the/object").unwrap()
}

fn if_absent() -> PutOptions {
    PutOptions { create: Create::IfAbsent, ..PutOptions::default() }
}

fn error_json(status: u16, reason: &str) -> Answer {
    let error = format!(r#"{{"message":"as told","errors":[{{"domain":"global","reason":"{reason}"}}]}}"#);
    Answer::new(status).body(format!(r#"{{"error":{error}}}"#))
}

fn crc32c(body: &[u8]) -> String {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body) as u32;
    STANDARD.encode(crc.to_be_bytes())
}

/// An object of `body`, made by the write `id`.
fn object_json(body: &[u8], id: &str) -> String {
    let (size, crc) = (body.len(), crc32c(body));
    format!(
        r#"{{"name":"some/prefix/the/object","size":"{size}","generation":"7","crc32c":"{crc}",
        "timeCreated":"2026-01-02T03:04:05Z","metadata":{{"varve-write":"{id}"}}}}"#
    )
}

fn object(body: &[u8]) -> Answer {
    Answer::new(200).body(object_json(body, "?"))
}

/// The id of the write that a request carries.
fn id_of(request: &Request) -> Option<String> {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let rest = text.split_once(r#""varve-write":""#)?.1;
    Some(rest.split_once('"')?.0.to_owned())
}

fn methods(server: &Server) -> Vec<String> {
    server.seen().iter().map(|request| request.method.clone()).collect()
}

#[tokio::test]
async fn throttling_is_waited_out() {
    let server = Server::start(|_, before| match before.len() {
        0 => error_json(503, "backendError"),
        1 => error_json(403, "userRateLimitExceeded"),
        _ => object(b"hello"),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let meta = store.put(&key(), Bytes::from_static(b"hello"), &PutOptions::default()).await.unwrap();
    assert_eq!((meta.size_bytes, meta.etag.as_deref(), meta.version), (5, Some("7"), None));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn attempts_are_bounded_and_counted() {
    let server = Server::start(|_, _| error_json(500, "internalError")).await;
    let store = store_at(&server.endpoint, &[]).await;
    let error = store.head(&key()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("gs://bucket/some/prefix/the/object"), "{text}");
    assert!(text.contains("after 3 attempts"), "{text}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn refusals_are_final_and_say_why() {
    for (status, reason, kind) in [
        (401, "authError", Kind::Denied),
        (403, "forbidden", Kind::Denied),
        (400, "invalid", Kind::Invalid),
        (400, "userProjectMissing", Kind::Invalid),
        (501, "notImplemented", Kind::Unsupported),
        (404, "notFound", Kind::NotFound),
        (507, "full", Kind::NoSpace),
    ] {
        let server = Server::start(move |_, _| error_json(status, reason)).await;
        let store = store_at(&server.endpoint, &[]).await;
        let error = store.put(&key(), Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind, kind, "{text}");
        assert!(text.contains(reason) && text.contains(&status.to_string()), "{text}");
        assert_eq!(server.seen().len(), 1, "{text}");
    }
}

#[tokio::test]
async fn a_put_is_one_request_with_its_checksum() {
    let server = Server::start(|_, _| object(b"123456789")).await;
    let more = [("gs.storage.class", "NEARLINE"), ("gs.kms.key.name", "a/b"), ("gs.user.project", "payer")];
    let store = store_at(&server.endpoint, &more).await;
    store.put(&key(), Bytes::from_static(b"123456789"), &if_absent()).await.unwrap();
    let request = &server.seen()[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        (
            "POST",
            "/upload/storage/v1/b/bucket/o?uploadType=multipart&ifGenerationMatch=0&kmsKeyName=a%2Fb&userProject=payer"
        )
    );
    let body = String::from_utf8(request.body.clone()).unwrap();
    // The CRC32C of "123456789" is e3069283.
    for words in
        [r#""crc32c":"4waSgw==""#, r#""name":"some/prefix/the/object""#, "NEARLINE", "\r\n\r\n123456789\r\n"]
    {
        assert!(body.contains(words), "{words}: {body}");
    }
    assert_eq!(request.header("accept-encoding"), None);
    assert_eq!(request.header("authorization"), None);
}

#[tokio::test]
async fn a_body_altered_on_its_way_is_sent_again() {
    let server = Server::start(|_, before| match before.len() {
        0 => Answer::new(400)
            .body(r#"{"error":{"message":"Provided CRC32C \"x\" doesn't match calculated CRC32C \"y\"."}}"#),
        _ => object(b"hello"),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    store.put(&key(), Bytes::from_static(b"hello"), &PutOptions::default()).await.unwrap();
    assert_eq!(server.seen().len(), 2);
}

fn bytes_of(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n % 251) as u8).collect()
}

/// 10,000 bytes, of which more are asked for only as those of the same object.
fn served(request: &Request) -> Answer {
    let whole = bytes_of(10_000);
    assert!(request.header("range").is_none() || request.path.contains("ifGenerationMatch=7"), "{request:?}");
    Answer::of_range(request, &whole)
        .header("x-goog-generation", "7")
        .header("x-goog-stored-content-length", "10000")
        .header("x-goog-hash", "md5=unknown")
        .header("x-goog-hash", &format!("crc32c={}", crc32c(&whole)))
}

async fn read(store: &SharedStore) -> varve_store::Result<Bytes> {
    store.get(&key(), GetRange::Full).await?.bytes().await
}

#[tokio::test]
async fn a_body_that_breaks_is_read_on() {
    let server = Server::start(|request, _| served(request).break_after(4_000)).await;
    let store = store_at(&server.endpoint, &[]).await;
    assert_eq!(read(&store).await.unwrap(), bytes_of(10_000));
    let ranges: Vec<_> = server.seen().iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=4000-9999".to_owned()), Some("bytes=8000-9999".to_owned())]);
}

#[tokio::test]
async fn a_body_that_breaks_for_ever_is_an_error() {
    let server = Server::start(|request, _| served(request).break_after(10)).await;
    let store = store_at(&server.endpoint, &[]).await;
    let error = read(&store).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(error.to_string().contains("expected 10000"), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_body_that_falls_silent_is_read_on() {
    let server = Server::start(|request, before| match before.len() {
        0 => served(request).silent_after(4_000),
        _ => served(request),
    })
    .await;
    let store = store_at(&server.endpoint, &[SOON]).await;
    assert_eq!(read(&store).await.unwrap().len(), 10_000);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn an_object_replaced_while_read_is_no_mixture() {
    let server = Server::start(|request, _| match request.header("range") {
        None => served(request).break_after(4_000),
        Some(_) => error_json(412, "conditionNotMet"),
    })
    .await;
    let error = read(&store_at(&server.endpoint, &[]).await).await.unwrap_err();
    assert_eq!(error.kind, Kind::Truncated);
    assert!(error.to_string().contains("replaced"), "{error}");
}

#[tokio::test]
async fn whole_objects_are_checked_and_ranges_are_not() {
    let wrong = |request: &Request, _: &[Request]| {
        let answer = Answer::new(if request.header("range").is_some() { 206 } else { 200 })
            .header("x-goog-generation", "7")
            .header("x-goog-hash", "crc32c=AAAAAA==,md5=x");
        match request.header("range") {
            Some("bytes=8-") => answer.header("content-range", "bytes 8-9/10").body("89"),
            Some(_) => answer.header("content-range", "bytes 4-9/10").body("456789"),
            None => answer.body("0123456789").break_after(4),
        }
    };
    let server = Server::start(wrong).await;
    let store = store_at(&server.endpoint, &[]).await;
    // Over two answers, of which only the first says the checksum of the whole.
    let mut body = store.get(&key(), GetRange::Full).await.unwrap().body;
    assert_eq!(body.next().await.unwrap().unwrap(), "0123");
    let error = body.next().await.unwrap().unwrap_err();
    assert!(error.kind == Kind::Truncated && error.to_string().contains("CRC32C"), "{error}");
    assert!(body.next().await.is_none());
    let range = store.get(&key(), GetRange::From(8)).await.unwrap();
    assert_eq!(range.bytes().await.unwrap(), "89");
    // A body of one piece is not handed out before it was checked.
    let server =
        Server::start(|_, _| Answer::new(200).header("x-goog-hash", "crc32c=AAAAAA==").body("x")).await;
    assert_eq!(read(&store_at(&server.endpoint, &[]).await).await.unwrap_err().kind, Kind::Truncated);
}

#[tokio::test]
async fn answers_of_another_length_are_refused() {
    let server =
        Server::start(|_, _| Answer::new(200).header("x-goog-generation", "7").body("0123456789")).await;
    let error = store_at(&server.endpoint, &[]).await.get(&key(), GetRange::From(5)).await.unwrap_err();
    assert!(error.to_string().contains("does not obey Range"), "{error}");
    let server = Server::start(|_, _| {
        Answer::new(200).header("x-goog-stored-content-length", "11").body("0123456789")
    })
    .await;
    let error = read(&store_at(&server.endpoint, &[]).await).await.unwrap_err();
    assert!(error.to_string().contains("the store has 11"), "{error}");
    let server = Server::start(|_, _| object(b"hell")).await;
    let store = store_at(&server.endpoint, &[]).await;
    let error = store.put(&key(), Bytes::from_static(b"hello"), &PutOptions::default()).await.unwrap_err();
    assert!(error.kind == Kind::Truncated && error.to_string().contains("the store has 4"), "{error}");
}

#[tokio::test]
async fn what_is_decompressed_on_its_way_is_refused() {
    let server = Server::start(|_, _| {
        Answer::new(200).header("x-goog-stored-content-encoding", "gzip").body("0123456789")
    })
    .await;
    let error = read(&store_at(&server.endpoint, &[]).await).await.unwrap_err();
    assert!(error.kind == Kind::Unsupported && error.to_string().contains("gzip"), "{error}");
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

    let store = store_at("http://127.0.0.1:1", &[]).await;
    let error = store.put(&key(), Bytes::from_static(b"x"), &if_absent()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
}

/// A create whose answer is lost: `mine` says who made what is there then.
async fn lost_create(mine: bool) -> (varve_store::Result<ObjectMeta>, Vec<String>) {
    let server = Server::start(move |request, before| match request.method.as_str() {
        "POST" => Answer::reset(),
        _ => {
            let written = if mine { id_of(&before[0]).unwrap() } else { "another".to_owned() };
            Answer::new(200).body(object_json(b"hello", &written))
        }
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
    assert_eq!(methods, ["POST", "GET"]);
    let (outcome, methods) = lost_create(false).await;
    assert_eq!(outcome.unwrap_err().kind, Kind::AlreadyExists);
    assert_eq!(methods, ["POST", "GET"]);
}

/// The answer to a batch: a status for each number.
fn batch_answer(statuses: &[(usize, u16)]) -> Answer {
    let part = |(number, status): &(usize, u16)| {
        let body = match status {
            204 => String::new(),
            _ => format!(r#"{{"error":{{"message":"no","errors":[{{"reason":"r{status}"}}]}}}}"#),
        };
        format!(
            "--b\r\nContent-Type: application/http\r\nContent-ID: <response-x+{number}>\r\n\r\n\
             HTTP/1.1 {status} Told\r\nContent-Length: {}\r\n\r\n{body}\r\n",
            body.len()
        )
    };
    let body = format!("{}--b--\r\n", statuses.iter().map(part).collect::<String>());
    Answer::new(200).header("content-type", "multipart/mixed; boundary=b").body(body)
}

#[tokio::test]
async fn a_batch_tells_each_keys_outcome() {
    let server = Server::start(|request, before| {
        assert_eq!(request.path, "/batch/storage/v1");
        match before.len() {
            // One that may pass, and one without an answer: all of it is repeated.
            0 => batch_answer(&[(0, 204), (1, 503), (2, 204)]),
            1 => batch_answer(&[(0, 204), (2, 204)]),
            _ => batch_answer(&[(2, 404), (0, 204), (1, 403)]),
        }
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let keys = ["a", "b", "c"].map(|name| Key::new(name).unwrap());
    let outcomes = store.delete_many(&keys).await.unwrap();
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    let error = outcomes[1].as_ref().unwrap_err();
    assert!(error.kind == Kind::Denied && error.object.ends_with("/b"), "{error}");
    assert_eq!(server.seen().len(), 3);
    let body = String::from_utf8(server.seen()[0].body.clone()).unwrap();
    assert!(body.contains("DELETE /storage/v1/b/bucket/o/some%2Fprefix%2Fa HTTP/1.1\r\n"), "{body}");
}

#[tokio::test]
async fn without_batches_keys_are_deleted_one_by_one() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "POST" => Answer::new(404).body("404 page not found"),
        _ if request.path.ends_with("b") => error_json(404, "notFound"),
        _ if request.path.ends_with("c") => error_json(403, "forbidden"),
        _ => Answer::new(204),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let keys = ["a", "b", "c"].map(|name| Key::new(name).unwrap());
    for _ in 0..2 {
        let outcomes = store.delete_many(&keys).await.unwrap();
        assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
        assert_eq!(outcomes[2].as_ref().unwrap_err().kind, Kind::Denied);
    }
    let posts = methods(&server).iter().filter(|method| *method == "POST").count();
    assert_eq!((posts, server.seen().len()), (1, 7), "it is remembered");
}

#[tokio::test]
async fn a_bucket_that_is_absent_is_no_absent_object() {
    let server = Server::start(|_, _| {
        Answer::new(404).body(r#"{"error":{"message":"The specified bucket does not exist.","errors":[{"reason":"notFound"}]}}"#)
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    assert_eq!(delete(&*store, &key()).await.unwrap_err().kind, Kind::NotFound);
}

/// A copy of three steps, the last of which goes as `last` says.
async fn stepwise(
    options: &PutOptions,
    last: impl Fn(usize) -> Answer + Send + Sync + 'static,
) -> (varve_store::Result<u64>, Vec<Request>) {
    let server = Server::start(move |request, before| {
        let is_last = |request: &Request| request.path.contains("rewriteToken=T2");
        let written = before.iter().find_map(id_of).unwrap_or_default();
        let more = |token: &str| {
            Answer::new(200)
                .body(format!(r#"{{"done":false,"rewriteToken":"{token}","totalBytesRewritten":"1"}}"#))
        };
        match request.method.as_str() {
            "GET" if request.path.contains("copied") => {
                Answer::new(200).body(object_json(b"hello", &written))
            }
            "GET" => object(b"hello"),
            _ if is_last(request) => last(before.iter().filter(|request| is_last(request)).count()),
            _ if request.path.contains("rewriteToken=T1") => more("T2"),
            _ => more("T1"),
        }
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let outcome = store.copy(&key(), &Key::new("copied").unwrap(), options).await;
    (outcome.map(|meta| meta.size_bytes), server.seen())
}

fn copied() -> Answer {
    Answer::new(200).body(format!(r#"{{"done":true,"resource":{}}}"#, object_json(b"hello", "?")))
}

#[tokio::test]
async fn a_copy_goes_in_as_many_steps_as_the_store_wants() {
    let (outcome, seen) = stepwise(&PutOptions::default(), |_| copied()).await;
    assert_eq!((outcome.unwrap(), seen.len()), (5, 4));
    assert_eq!(
        seen[3].path,
        "/storage/v1/b/bucket/o/some%2Fprefix%2Fthe%2Fobject/rewriteTo/b/bucket/o/some%2Fprefix%2Fcopied\
         ?sourceGeneration=7&rewriteToken=T2"
    );
    // Only the step that failed is repeated.
    let throttled = |tries| if tries == 0 { error_json(429, "rateLimitExceeded") } else { copied() };
    let (outcome, seen) = stepwise(&PutOptions::default(), throttled).await;
    assert_eq!((outcome.unwrap(), seen.len()), (5, 5));
    // A creating copy whose last answer is lost is looked at.
    let (outcome, seen) = stepwise(&if_absent(), |_| Answer::reset()).await;
    assert_eq!((outcome.unwrap(), seen.len()), (5, 5));
    assert!(seen[3].path.contains("ifGenerationMatch=0"));
    let (outcome, _) = stepwise(&if_absent(), |_| error_json(412, "conditionNotMet")).await;
    assert_eq!(outcome.unwrap_err().kind, Kind::AlreadyExists);
    let (outcome, _) = stepwise(&PutOptions::default(), |_| error_json(404, "notFound")).await;
    assert_eq!(outcome.unwrap_err().kind, Kind::Truncated, "the source was there, and is gone");
}

#[tokio::test]
async fn listings_pass_over_what_is_no_key() {
    let server = Server::start(|request, _| {
        let body = match request.path.contains("pageToken=T") {
            true => r#"{"items":[{"name":"some/prefix/b","size":"1","generation":"2"}]}"#,
            false => r#"{"items":[{"name":"some/prefix/a","size":"1"},{"name":"some/prefix/a//x"}],"nextPageToken":"T"}"#,
        };
        Answer::new(200).body(body)
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let page = store.list("", Some(&Key::new("a").unwrap()), 10).await.unwrap();
    assert_eq!((page.objects.len(), page.more, page.objects[0].key.as_str()), (1, false, "b"));
    let first = &server.seen()[0].path;
    assert!(
        first.contains("prefix=some%2Fprefix%2F&startOffset=some%2Fprefix%2Fa%21&maxResults=10"),
        "{first}"
    );
}

#[tokio::test]
async fn versions_are_told_with_what_hides_them() {
    let server = Server::start(|request, _| {
        if request.path.starts_with("/storage/v1/b/bucket?") {
            return Answer::new(200).body(r#"{"versioning":{"enabled":true}}"#);
        }
        assert!(request.path.contains("versions=true"), "{}", request.path);
        let (first, last) = (request.path.contains("maxResults=3"), request.path.contains("pageToken=T"));
        let item = |name: &str, generation: u32, more: &str| {
            format!(r#"{{"name":"some/prefix/{name}","size":"{generation}","generation":"{generation}","timeCreated":"2026-01-01T00:00:0{generation}Z"{more}}}"#)
        };
        let hidden = item("a", 1, r#","timeDeleted":"2026-01-01T00:00:05Z""#);
        let items = if first || last { vec![hidden, item("b", 2, "")] } else { vec![hidden] };
        let token = if first || last { "" } else { r#","nextPageToken":"T""# };
        Answer::new(200).body(format!(r#"{{"items":[{}]{token}}}"#, items.join(",")))
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let versions = store.versions().await.unwrap().unwrap();
    for max_keys in [2, 10] {
        let page = versions.list("", None, max_keys).await.unwrap();
        let keys: Vec<_> = page.keys.iter().map(|found| (found.key.as_str(), found.is_hidden())).collect();
        assert_eq!(keys, [("a", true), ("b", false)], "{max_keys}");
        assert_eq!(page.keys[0].oldest().unwrap().id, "1");
        let marker = &page.keys[0].current().unwrap().id;
        assert_eq!(versions.head(&Key::new("a").unwrap(), marker).await.unwrap_err().kind, Kind::NotFound);
    }
    let server = Server::start(|_, _| error_json(403, "forbidden")).await;
    let error = store_at(&server.endpoint, &[]).await.versions().await.unwrap_err();
    assert!(error.kind == Kind::Denied && error.to_string().contains("storage.buckets.get"), "{error}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::start(|_, _| object(b"hello")).await;
    let target = format!("{}/there", elsewhere.endpoint);
    let server = Server::start(move |_, _| Answer::new(302).header("location", &target)).await;
    let store = store_at(&server.endpoint, &[]).await;
    assert_eq!(store.head(&key()).await.unwrap_err().kind, Kind::Invalid);
    assert!(read(&store).await.is_err());
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn long_errors_are_cut() {
    let server = Server::start(|_, _| Answer::new(400).body("x\n".repeat(5 << 20))).await;
    let error = store_at(&server.endpoint, &[]).await.head(&key()).await.unwrap_err();
    let text = error.to_string();
    assert!(error.kind == Kind::Invalid && text.len() < 2000, "{}", text.len());
    // What can't be read is no object.
    let server = Server::start(|_, _| Answer::new(200).body("{".repeat(100))).await;
    let error = store_at(&server.endpoint, &[]).await.head(&key()).await.unwrap_err();
    assert!(error.kind == Kind::Unavailable && error.to_string().contains("can't be read"), "{error}");
}

#[tokio::test]
async fn a_proxy_is_used_and_its_password_not_told() {
    let proxy = Server::start(|_, _| object(b"hello")).await;
    let url = proxy.endpoint.replace("http://", &format!("http://me:{SECRET}@"));
    let store = store_at("http://store.invalid", &[("gs.proxy.url", &url)]).await;
    store.head(&key()).await.unwrap();
    let request = &proxy.seen()[0];
    assert!(request.path.starts_with("http://store.invalid/storage/v1/b/bucket/o/"), "{}", request.path);
    assert!(request.header("proxy-authorization").is_some());
    assert!(!format!("{store:?}").contains(SECRET));
    let store = store_at("http://store.invalid", &[("gs.proxy.url", "http://me:hush@127.0.0.1:1")]).await;
    let text = format!("{:?}", store.head(&key()).await.unwrap_err());
    assert!(!text.contains("hush"), "{text}");
}

const CHILD_ENDPOINT: &str = "VARVE_TEST_ENDPOINT";

#[tokio::test]
async fn this_machine_is_reached_without_a_proxy() {
    let server = Server::start(|_, _| object(b"hello")).await;
    let proxy = Server::start(|_, _| Answer::new(502)).await;
    let endpoints = [server.endpoint.clone(), server.endpoint.replace("127.0.0.1", "localhost")];
    for endpoint in &endpoints {
        store_at(endpoint, &[("gs.proxy.url", &proxy.endpoint)]).await.head(&key()).await.unwrap();
    }
    // Nor by one of the environment.
    for (endpoint, variable) in endpoints.iter().zip(["HTTP_PROXY", "ALL_PROXY"]) {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "child_behind_a_proxy"]).env_clear();
        child.env(variable, &proxy.endpoint).env(CHILD_ENDPOINT, endpoint);
        let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!((server.seen().len(), proxy.seen().len()), (4, 0));
}

#[tokio::test]
async fn child_behind_a_proxy() {
    let Ok(endpoint) = std::env::var(CHILD_ENDPOINT) else { return };
    store_at(&endpoint, &[]).await.head(&key()).await.unwrap();
}

#[tokio::test]
async fn configuration_errors_name_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let odd = file("odd.json", r#"{"type":"hush"}"#);
    let junk = file("junk.json", r#"{"private_key": hush"#);
    let keyless = file("keyless.json", r#"{"type":"service_account","private_key":5,"hush":1}"#);
    for (url, settings, words) in [
        ("gs:///prefix", vec![], vec!["no bucket"]),
        ("gs://bucket:9000/x", vec![], vec!["gs.endpoint.url"]),
        ("gs://buc%20ket/x", vec![], vec!["bucket"]),
        ("gs://bucket/x", vec![("gs.auth", "maybe")], vec!["gs.auth", "anonymous"]),
        ("gs://bucket/x", vec![("gs.endpoint.url", "http://10.0.0.1")], vec!["gs.endpoint.url", "clear"]),
        (
            "gs://bucket/x",
            vec![("gs.auth", "anonymous"), ("gs.credentials.file", "/x")],
            vec!["gs.credentials.file", "anonymous"],
        ),
        ("gs://bucket/x", vec![("gs.credentials.file", "/nowhere")], vec!["gs.credentials.file", "/nowhere"]),
        ("gs://bucket/x", vec![("gs.credentials.file", &odd)], vec!["service_account"]),
        ("gs://bucket/x", vec![("gs.credentials.file", &junk)], vec!["is no JSON"]),
        ("gs://bucket/x", vec![("gs.credentials.file", &keyless)], vec!["gs.credentials.file"]),
        ("gs://bucket/x", vec![("gs.tls.ca.file", &odd)], vec!["gs.tls.ca.file", "PEM"]),
        ("gs://bucket/x", vec![("gs.part.size.bytes", "300000")], vec!["multiple of 262144"]),
        ("gs://bucket/x", vec![("gs.proxy.url", "hush")], vec!["gs.proxy.url"]),
        ("gs://bucket/x", vec![("s3.region", "x")], vec!["s3.region", "gs://"]),
    ] {
        let given = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let error = open(url, &given).await.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind, Kind::Invalid, "{text}");
        assert!(words.iter().all(|word| text.contains(word)) && !text.contains("hush"), "{url}: {text}");
    }
}
