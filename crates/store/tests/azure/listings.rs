//! Listings of objects and of versions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use varve_script::{Answer, Request, Server};
use varve_store::{GetRange, Key, Kind, PutOptions};

use super::{created, key, store_at};

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

/// Azure gives ids to what was written since versions are kept alone.
#[tokio::test]
async fn blobs_of_before_versions_were_kept_are_versions() {
    let replaced = Arc::new(AtomicBool::new(false));
    let is_replaced = replaced.clone();
    let server =
        Server::start(move |request, _| match (request.method.as_str(), query(request, "maxresults")) {
            ("GET", None) if is_replaced.load(Ordering::Relaxed) => {
                Answer::new(200).header("etag", "\"v2\"").header("x-ms-version-id", "2").body("other")
            }
            ("GET", None) => Answer::new(200).header("etag", "\"v1\"").body("hello"),
            ("GET", Some(entries)) if entries == "1" => listing(&[("a", None)], "m"),
            _ => listing(&[("a", None), ("b", Some(("3", true)))], ""),
        })
        .await;
    let store = store_at(&server.endpoint, &[]).await;
    let versions = store.versions().await.unwrap().expect("a blob behind the first has an id");
    let page = versions.list("", None, 10).await.unwrap();
    let keys: Vec<_> = page.keys.iter().map(|k| (k.key.as_str(), k.is_hidden(), k.count)).collect();
    assert_eq!(keys, [("a", false, 1), ("b", false, 1)]);
    let (a, before) = (&page.keys[0].key, page.keys[0].current().unwrap().id.as_str());
    let got = versions.get(a, before, GetRange::Full).await.unwrap();
    assert!(query(server.seen().last().unwrap(), "versionid").is_none());
    assert_eq!(got.bytes().await.unwrap(), "hello");
    // It is another now: what was there before has an id of its own since.
    replaced.store(true, Ordering::Relaxed);
    let error = versions.get(a, before, GetRange::Full).await.unwrap_err();
    assert!(error.kind == Kind::NotFound && error.detail.contains("replaced"), "{error}");
}
