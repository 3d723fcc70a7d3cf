//! Bodies that break off, fall silent, or are not those that were asked for.

use varve_script::{Answer, Request, Server};
use varve_store::{GetRange, Kind};

use super::{SAS, SOON, failed, key, methods, store_at};

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
    let store = store_at(&server.endpoint, &[SOON]).await;
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
