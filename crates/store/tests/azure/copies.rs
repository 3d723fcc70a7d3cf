//! Copies, at once and by blocks.

use varve_script::{Answer, Server};
use varve_store::{Key, Kind, PutOptions};

use super::{SAS, created, failed, if_absent, key, methods, store_at};

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
