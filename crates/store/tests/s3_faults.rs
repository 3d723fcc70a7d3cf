//! S3 when things go wrong, against a server that does as it is told.

#![cfg(feature = "s3")]
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use varve_script::{Answer, Request, Server};
use varve_store::conformance::{self, CheckResult, Outcome};
use varve_store::{Create, GetRange, Key, Kind, PutOptions, SharedStore, open};

const SECRET: &str = "hush-hush-hush";
/// Where a server is silent.
const SOON: (&str, &str) = ("s3.timeout.ms", "1000");

async fn store_at(endpoint: &str, more: &[(&str, &str)]) -> SharedStore {
    let mut settings: BTreeMap<String, String> = [
        ("s3.endpoint.url", endpoint),
        ("s3.region", "eu-north-1"),
        ("s3.access.key.id", "someone"),
        ("s3.secret.access.key", SECRET),
        ("s3.max.attempts", "3"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    open("s3://bucket/some/prefix", &settings).await.unwrap()
}

fn key() -> Key {
    Key::new("the/object").unwrap()
}

fn if_absent() -> PutOptions {
    PutOptions { create: Create::IfAbsent, ..PutOptions::default() }
}

fn error_xml(status: u16, code: &str) -> Answer {
    let body =
        format!("<Error><Code>{code}</Code><Message>as told</Message><RequestId>R42</RequestId></Error>");
    Answer::new(status).header("x-amz-request-id", "R42").body(body)
}

#[tokio::test]
async fn throttling_is_waited_out() {
    let server = Server::start(|_, before| match before.len() {
        0 => error_xml(503, "SlowDown"),
        1 => Answer::new(429),
        _ => Answer::new(200).header("etag", "\"e\""),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let meta = store.put(&key(), Bytes::from_static(b"hello"), &PutOptions::default()).await.unwrap();
    assert_eq!((meta.size_bytes, meta.etag.as_deref()), (5, Some("\"e\"")));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn attempts_are_bounded_and_counted() {
    let server = Server::start(|_, _| error_xml(500, "InternalError")).await;
    let store = store_at(&server.endpoint, &[]).await;
    let error = store.head(&key()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    let text = error.to_string();
    assert!(
        text.contains("s3://bucket/some/prefix/the/object") && text.contains("after 3 attempts"),
        "{text}"
    );
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_store_that_is_down_is_not_stormed() {
    let server = Server::start(|_, _| error_xml(500, "InternalError")).await;
    let store = store_at(&server.endpoint, &[("s3.max.attempts", "2")]).await;
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
        (403, "AccessDenied", Kind::Denied),
        (400, "ExpiredToken", Kind::Denied),
        (403, "RequestTimeTooSkewed", Kind::Denied),
        (400, "InvalidArgument", Kind::Invalid),
        (507, "XMinioStorageFull", Kind::NoSpace),
        (501, "NotImplemented", Kind::Unsupported),
        (404, "NoSuchBucket", Kind::NotFound),
    ] {
        let server = Server::start(move |_, _| error_xml(status, code)).await;
        let store = store_at(&server.endpoint, &[]).await;
        let error = store.put(&key(), Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap_err();
        let text = format!("{error} {error:?} {store:?}");
        assert_eq!(error.kind, kind, "{text}");
        assert!(text.contains(code) && text.contains(&status.to_string()) && text.contains("R42"), "{text}");
        assert!(!text.contains(SECRET), "{text}");
        assert_eq!(server.seen().len(), 1, "{text}");
    }
}

#[tokio::test]
async fn bodies_go_once_hashed_and_unsigned() {
    let server = Server::start(|_, _| Answer::new(200)).await;
    let store = store_at(&server.endpoint, &[]).await;
    store.put(&key(), Bytes::from_static(b"123456789"), &if_absent()).await.unwrap();
    let request = &server.seen()[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("PUT", "/bucket/some/prefix/the/object?x-id=PutObject")
    );
    // The CRC32C of "123456789" is e3069283.
    assert_eq!(request.header("x-amz-checksum-crc32c"), Some("4waSgw=="));
    assert_eq!(request.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
    assert_eq!(request.header("if-none-match"), Some("*"));
    assert_eq!(request.header("content-encoding"), None);
    assert_eq!(request.body, b"123456789");
    assert!(request.header("authorization").unwrap().contains("x-amz-checksum-crc32c"));
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
    let store = store_at(&server.endpoint, &[]).await;
    let error = store.get(&key(), GetRange::Full).await.unwrap().bytes().await.unwrap_err();
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
    let got = store.get(&key(), GetRange::Full).await.unwrap().bytes().await.unwrap();
    assert_eq!(got.len(), 10_000);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn an_object_replaced_while_read_is_no_mixture() {
    let server = Server::start(|request, _| match request.header("range") {
        None => served(request).break_after(4_000),
        Some(_) => error_xml(412, "PreconditionFailed"),
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let error = store.get(&key(), GetRange::Full).await.unwrap().bytes().await.unwrap_err();
    assert_eq!(error.kind, Kind::Truncated);
    assert!(error.to_string().contains("replaced"), "{error}");
}

#[tokio::test]
async fn a_range_that_is_not_obeyed_is_an_error() {
    let server = Server::start(|_, _| Answer::new(200).header("etag", "\"e\"").body("0123456789")).await;
    let store = store_at(&server.endpoint, &[]).await;
    let error = store.get(&key(), GetRange::From(5)).await.unwrap_err();
    assert!(error.to_string().contains("does not obey Range"), "{error}");
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

/// A create whose answer is lost: `stored` says who made what is there then.
async fn lost_create(mine: bool) -> (varve_store::Result<varve_store::ObjectMeta>, Vec<String>) {
    let server = Server::start(move |request, before| {
        let written =
            before.iter().find_map(|seen| seen.header("x-amz-meta-varve-write")).unwrap_or("?").to_owned();
        match request.method.as_str() {
            "PUT" => Answer::reset(),
            "HEAD" => Answer::new(200)
                .header("x-amz-meta-varve-write", if mine { &written } else { "another" })
                .header("content-length", "5"),
            _ => Answer::new(500),
        }
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let outcome = store.put(&key(), Bytes::from_static(b"hello"), &if_absent()).await;
    (outcome, server.seen().iter().map(|request| request.method.clone()).collect())
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

/// An upload whose completion goes wrong in `first`'s way, having had its effect or not.
async fn lost_complete(first: fn() -> Answer, effect: bool) -> (varve_store::Result<u64>, Vec<String>) {
    let server = Server::start(move |request, before| {
        let written =
            before.iter().find_map(|seen| seen.header("x-amz-meta-varve-write")).unwrap_or("?").to_owned();
        match (request.method.as_str(), request.path.contains("uploadId")) {
            ("POST", false) => Answer::new(200).body(
                "<InitiateMultipartUploadResult><UploadId>U1</UploadId></InitiateMultipartUploadResult>",
            ),
            ("PUT", true) => Answer::new(200).header("etag", "\"part\""),
            ("POST", true) if before.len() == 2 => first(),
            ("POST", true) if effect => error_xml(404, "NoSuchUpload"),
            ("POST", true) => Answer::new(200).body(
                "<CompleteMultipartUploadResult><ETag>&quot;x&quot;</ETag></CompleteMultipartUploadResult>",
            ),
            ("HEAD", _) if effect => {
                Answer::new(200).header("x-amz-meta-varve-write", &written).header("content-length", "5")
            }
            _ => Answer::new(404),
        }
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let upload = store.upload(&key(), 5 << 20, None, &PutOptions::default()).await.unwrap();
    upload.put_part(1, Bytes::from_static(b"hello")).await.unwrap();
    let outcome = upload.complete().await.map(|meta| meta.size_bytes);
    (outcome, server.seen().iter().skip(2).map(|request| request.method.clone()).collect())
}

#[tokio::test]
async fn a_lost_answer_to_a_completion_is_asked_for() {
    let in_a_200: fn() -> Answer = || error_xml(200, "InternalError");
    for first in [Answer::reset, in_a_200, || error_xml(500, "InternalError")] {
        let (outcome, methods) = lost_complete(first, true).await;
        assert_eq!(outcome.unwrap(), 5);
        assert_eq!(methods, ["POST", "HEAD"]);
        let (outcome, methods) = lost_complete(first, false).await;
        assert_eq!(outcome.unwrap(), 5);
        assert_eq!(methods, ["POST", "HEAD", "POST"]);
    }
}

#[tokio::test]
async fn a_batch_tells_each_keys_outcome() {
    let server = Server::start(|_, _| {
        let named = |key: &str, code: &str| {
            format!("<Error><Key>some/prefix/{key}</Key><Code>{code}</Code><Message>no</Message></Error>")
        };
        Answer::new(200).body(format!(
            "<DeleteResult>{}{}</DeleteResult>",
            named("b", "AccessDenied"),
            named("c", "NoSuchKey")
        ))
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let keys = ["a", "b", "c"].map(|name| Key::new(name).unwrap());
    let outcomes = store.delete_many(&keys).await.unwrap();
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    let error = outcomes[1].as_ref().unwrap_err();
    assert!(error.kind == Kind::Denied && error.object.ends_with("/b"), "{error}");
}

#[tokio::test]
async fn configuration_errors_name_the_key() {
    for (url, settings, words) in [
        ("ftp://x", vec![], vec!["ftp://", "s3://bucket/prefix"]),
        ("s3:///prefix", vec![], vec!["no bucket"]),
        ("s3://bucket:9000/x", vec![], vec!["s3.endpoint.url"]),
        ("s3://b--use1-az4--x-s3/x", vec![], vec!["directory bucket"]),
        ("s3://user:hush@bucket/x", vec![], vec!["settings"]),
        ("s3://bucket/x", vec![("s3.access.key.id", "a")], vec!["s3.secret.access.key", "missing"]),
        ("s3://bucket/x", vec![("s3.tls.ca.file", "/nowhere")], vec!["s3.tls.ca.file", "/nowhere"]),
        ("s3://bucket/x", vec![("s3.endpont.url", "http://x")], vec!["s3.endpoint.url"]),
        ("file:///tmp/x", vec![("s3.region", "x")], vec!["s3.region"]),
        ("memory://x?y=z", vec![], vec!["?"]),
        ("no url", vec![], vec!["file:///directory"]),
    ] {
        let given = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let error = open(url, &given).await.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind, Kind::Invalid, "{text}");
        assert!(words.iter().all(|word| text.contains(word)) && !text.contains("hush"), "{url}: {text}");
    }
}

#[tokio::test]
async fn a_proxy_is_used_and_its_password_not_told() {
    let proxy = Server::start(|_, _| Answer::new(200).header("etag", "\"e\"")).await;
    let url = proxy.endpoint.replace("http://", &format!("http://me:{SECRET}%21@"));
    let store = store_at("http://store.invalid", &[("s3.proxy.url", &url)]).await;
    store.put(&key(), Bytes::from_static(b"hello"), &PutOptions::default()).await.unwrap();
    let request = &proxy.seen()[0];
    assert!(request.path.starts_with("http://store.invalid/bucket/"), "{}", request.path);
    let expected = format!("Basic {}", STANDARD.encode(format!("me:{SECRET}!")));
    assert_eq!(request.header("proxy-authorization"), Some(expected.as_str()));

    // Away: the proxy is asked again, and nobody is told its password.
    let away = format!("http://me:{SECRET}@127.0.0.1:1");
    let store = store_at("http://store.invalid", &[("s3.proxy.url", &away)]).await;
    let error = store.head(&key()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(!format!("{error:?} {error} {store:?}").contains(SECRET));
}

#[tokio::test]
async fn this_machine_is_reached_without_a_proxy() {
    let server = Server::start(|_, _| Answer::new(200).header("etag", "\"e\"")).await;
    let proxy = Server::start(|_, _| Answer::new(502)).await;
    for endpoint in [server.endpoint.clone(), server.endpoint.replace("127.0.0.1", "localhost")] {
        let store = store_at(&endpoint, &[("s3.proxy.url", &proxy.endpoint)]).await;
        store.put(&key(), Bytes::from_static(b"hello"), &PutOptions::default()).await.unwrap();
    }
    assert_eq!((server.seen().len(), proxy.seen().len()), (2, 0));
}

fn xml(body: String) -> Answer {
    Answer::new(200).header("content-type", "application/xml").body(body)
}

/// A listing that has not come to its end by then never does.
async fn in_time<T>(listing: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), listing).await.expect("an end")
}

/// A server that keeps versions, lists those of one key, and goes on from nowhere.
fn versions_again(request: &Request, next: &str) -> Answer {
    if request.path.contains("versioning") {
        return xml("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>".to_owned());
    }
    let version = |id: &str, latest: bool| {
        format!(
            "<Version><Key>some/prefix/k</Key><VersionId>{id}</VersionId><IsLatest>{latest}</IsLatest>\
             <LastModified>2026-01-01T00:00:00Z</LastModified><Size>1</Size></Version>"
        )
    };
    xml(format!(
        "<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>some/prefix/k</NextKeyMarker>\
         <NextVersionIdMarker>{next}</NextVersionIdMarker>{}{}</ListVersionsResult>",
        version("v2", true),
        version("v1", false)
    ))
}

#[tokio::test]
async fn versions_that_do_not_go_on_are_an_error() {
    let server = Server::start(|request, _| versions_again(request, "v1")).await;
    let store = store_at(&server.endpoint, &[]).await;
    let versions = store.versions().await.unwrap().unwrap();
    // Within a key, and behind one.
    for after in [None, Some(Key::new("k").unwrap())] {
        let error = in_time(versions.list("", after.as_ref(), 1)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unsupported, "{error}");
        assert!(error.to_string().contains("do not go on"), "{error}");
    }
}

/// Some servers go on within the key that they were asked to go on behind.
#[tokio::test]
async fn versions_of_the_key_behind_which_a_listing_goes_on_are_passed_over() {
    let server = Server::start(|request, _| {
        if request.path.contains("version-id-marker=v1") {
            let version = "<Version><Key>some/prefix/l</Key><VersionId>v0</VersionId><IsLatest>true</IsLatest>\
                           <LastModified>2026-01-01T00:00:00Z</LastModified><Size>1</Size></Version>";
            return xml(format!(
                "<ListVersionsResult><IsTruncated>false</IsTruncated>{version}</ListVersionsResult>"
            ));
        }
        versions_again(request, "v1")
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let versions = store.versions().await.unwrap().unwrap();
    let page = in_time(versions.list("", Some(&Key::new("k").unwrap()), 1)).await.unwrap();
    let keys: Vec<_> = page.keys.iter().map(|found| (found.key.as_str(), found.count)).collect();
    assert_eq!((keys, page.more), (vec![("l", 1)], false));
}

/// Versions of one key on two pages that name each other as the next.
#[tokio::test]
async fn versions_that_go_round_are_an_error() {
    let server = Server::start(|request, _| {
        let turned = request.path.contains("version-id-marker=v1");
        versions_again(request, if turned { "v0" } else { "v1" })
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let versions = store.versions().await.unwrap().unwrap();
    let error = in_time(versions.list("", None, 1)).await.unwrap_err();
    assert!(error.to_string().contains("do not go on"), "{error}");
}

fn listing(truncated: bool, token: &str, names: &[&str]) -> Answer {
    let contents: String =
        names.iter().map(|name| format!("<Contents><Key>{name}</Key><Size>1</Size></Contents>")).collect();
    let token = if token.is_empty() {
        String::new()
    } else {
        format!("<NextContinuationToken>{token}</NextContinuationToken>")
    };
    xml(format!(
        "<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}{contents}</ListBucketResult>"
    ))
}

#[tokio::test]
async fn a_listing_that_does_not_go_on_is_an_error() {
    let after = Key::new("b").unwrap();
    for (names, words) in [
        // From the start again, and again the last one.
        (&["some/prefix/a", "some/prefix/b"][..], "start-after"),
        (&["some/prefix/b"], "start-after"),
        // Another order.
        (&["some/prefix/d", "some/prefix/c"], "order of bytes"),
        // Nothing to go on from, or only names that are nobody's, again and again.
        (&[], "no place to go on from"),
        (&["some/prefix//"], "do not go on"),
    ] {
        let server = Server::start(move |_, _| listing(true, "", names)).await;
        let store = store_at(&server.endpoint, &[]).await;
        let error = in_time(store.list("", Some(&after), 10)).await.expect_err(words);
        assert_eq!(error.kind, Kind::Unsupported, "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn an_empty_page_of_a_listing_goes_on_by_its_token() {
    let server = Server::start(|request, _| {
        if request.path.contains("continuation-token=T1") {
            listing(false, "", &["some/prefix/c"])
        } else {
            listing(true, "T1", &[])
        }
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let page = in_time(store.list("", None, 10)).await.unwrap();
    assert_eq!((page.objects.len(), page.more), (1, false));

    let server = Server::start(|_, _| listing(true, "T1", &[])).await;
    let store = store_at(&server.endpoint, &[]).await;
    let error = in_time(store.list("", None, 10)).await.unwrap_err();
    assert!(error.to_string().contains("do not go on"), "{error}");
}

#[tokio::test]
async fn uploads_that_do_not_go_on_are_an_error() {
    for marker in
        ["", "<NextKeyMarker>some/prefix/k</NextKeyMarker><NextUploadIdMarker>U</NextUploadIdMarker>"]
    {
        let server = Server::start(move |_, _| {
            xml(format!(
                "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>{marker}<Upload>\
                 <Key>some/prefix/k</Key><UploadId>U</UploadId></Upload></ListMultipartUploadsResult>"
            ))
        })
        .await;
        let store = store_at(&server.endpoint, &[]).await;
        let error = in_time(store.list_uploads("")).await.unwrap_err();
        assert_eq!(error.kind, Kind::Other, "{error}");
        assert!(error.to_string().contains("go on"), "{error}");
    }
}

/// Batches are refused in each of these ways: then keys go one by one, and nobody asks for a batch again.
#[tokio::test]
async fn without_batches_keys_are_deleted_one_by_one() {
    for (status, code) in
        [(501, "NotImplemented"), (405, "MethodNotAllowed"), (405, ""), (400, "MissingContentMD5")]
    {
        let server =
            Server::start(move |request, _| match (request.method.as_str(), request.path.as_str()) {
                ("POST", _) if code.is_empty() => Answer::new(status),
                ("POST", _) => error_xml(status, code),
                ("DELETE", path) if path.contains("/b?") => error_xml(403, "AccessDenied"),
                ("DELETE", _) => Answer::new(204),
                _ => Answer::new(500),
            })
            .await;
        let store = store_at(&server.endpoint, &[]).await;
        let keys = ["a", "b", "c"].map(|name| Key::new(name).unwrap());
        for _ in 0..2 {
            let outcomes = store.delete_many(&keys).await.unwrap();
            assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{status} {code}: {outcomes:?}");
            let error = outcomes[1].as_ref().unwrap_err();
            assert!(error.kind == Kind::Denied && error.object.ends_with("/b"), "{error}");
        }
        let batches = server.seen().iter().filter(|request| request.method == "POST").count();
        assert_eq!((batches, server.seen().len()), (1, 7), "{status} {code}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_says_why() {
    let server = Server::start(|_, _| xml("<SomethingElse></SomethingElse>".to_owned())).await;
    let store = store_at(&server.endpoint, &[]).await;
    let error = store.list("", None, 10).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(error.to_string().contains("SomethingElse"), "{error}");
}

fn check_of<'a>(results: &'a [CheckResult], name: &str) -> &'a CheckResult {
    results.iter().find(|result| result.name == name).unwrap()
}

#[tokio::test]
async fn a_check_of_a_store_that_is_gone_ends_early() {
    let store = store_at("http://127.0.0.1:1", &[("s3.max.attempts", "1")]).await;
    let results = conformance::run(&store, "scratch/").await;
    assert!(results.iter().all(|result| result.outcome == Outcome::Failed));
    assert!(results[0].detail.contains("dispatch failure"), "{}", results[0].detail);
    for result in &results[1..] {
        assert!(result.detail.starts_with("not tried: since round_trip "), "{result}");
    }
}

/// A server that knows little more than listings and deletes: what is there is removed all the same.
#[tokio::test]
async fn a_check_cleans_up_where_uploads_are_not_listed() {
    let server = Server::start(|request, before| {
        let gone = before.iter().any(|seen| seen.method == "DELETE" && seen.path.contains("scratch/left"));
        match request.method.as_str() {
            "GET" if request.path.contains("list-type=2") && !gone => {
                listing(false, "", &["some/prefix/scratch/left"])
            }
            "GET" if request.path.contains("list-type=2") => listing(false, "", &[]),
            "DELETE" => Answer::new(204),
            _ => error_xml(501, "NotImplemented"),
        }
    })
    .await;
    let store = store_at(&server.endpoint, &[]).await;
    let results = in_time(conformance::run(&store, "scratch/")).await;
    let cleanup = check_of(&results, "cleanup");
    assert_eq!(cleanup.outcome, Outcome::Passed, "{cleanup}");
    assert!(check_of(&results, "round_trip").detail.contains("NotImplemented"));
}
