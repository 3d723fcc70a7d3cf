//! Whom stores trust is read again when its file changes: a server gets a certificate of another authority, and the
//! file is replaced, under a store that stays open.

#![cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::collections::BTreeMap;

use varve_script::{Answer, Authority, Front, Server, next_look, replace};
use varve_store::{Key, Kind, SharedStore, open};

/// What becomes of a request to a server that has nothing.
async fn ask(store: &SharedStore) -> (Kind, String) {
    let error = store.head(&Key::new("k").unwrap()).await.unwrap_err();
    (error.kind, error.to_string())
}

/// `settings` have `ADDRESS` for the server's.
async fn follows_its_file(url: &str, ca_setting: &str, settings: &[(&str, &str)]) {
    let (old, new) = (Authority::new(), Authority::new());
    let server = Server::start(|_, _| Answer::new(404)).await;
    let front = Front::start(server.address(), &old, None).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    replace(&file, &old.file("ca.pem"));
    let given = settings.iter().map(|(name, value)| (*name, value.replace("ADDRESS", &front.address)));
    let given = given.chain([(ca_setting, file.display().to_string())]);
    let given: BTreeMap<_, _> = given.map(|(name, value)| (name.to_owned(), value)).collect();
    let store = open(url, &given).await.unwrap();
    assert_eq!(ask(&store).await.0, Kind::NotFound);

    front.show(&new, None);
    next_look().await;
    let (kind, text) = ask(&store).await;
    assert!(kind == Kind::Invalid && text.contains(ca_setting), "{text}");

    // The beginning of a certificate, as while a file is written: it must not break the client that is in use.
    let pem = std::fs::read(new.file("ca.pem")).unwrap();
    std::fs::write(&file, &pem[..pem.len() / 2]).unwrap();
    next_look().await;
    assert_eq!(ask(&store).await.0, Kind::Invalid);

    replace(&file, &new.file("ca.pem"));
    next_look().await;
    let (kind, text) = ask(&store).await;
    assert_eq!(kind, Kind::NotFound, "{text}");
}

#[cfg(feature = "s3")]
#[tokio::test]
async fn of_s3() {
    let settings = [
        ("s3.endpoint.url", "https://ADDRESS"),
        ("s3.region", "eu-north-1"),
        ("s3.access.key.id", "someone"),
        ("s3.secret.access.key", "hush"),
    ];
    follows_its_file("s3://bucket", "s3.tls.ca.file", &settings).await;
}

#[cfg(feature = "gcs")]
#[tokio::test]
async fn of_google() {
    let settings = [("gs.endpoint.url", "https://ADDRESS"), ("gs.auth", "anonymous")];
    follows_its_file("gs://bucket", "gs.tls.ca.file", &settings).await;
}

#[cfg(feature = "azure")]
#[tokio::test]
async fn of_azure() {
    let settings = [("az.endpoint.url", "https://ADDRESS/account1"), ("az.account.key", "aHVzaA==")];
    follows_its_file("az://account1/box", "az.tls.ca.file", &settings).await;
}
