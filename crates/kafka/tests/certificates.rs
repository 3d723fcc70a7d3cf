//! Certificates that are rotated under a client: connections from then on are made with the new ones.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod broker;

use std::os::unix::fs::symlink;
use std::path::Path;

use broker::broker;
use kafka_protocol::messages::MetadataResponse;
use varve_kafka::client::{Client, ClientConfig, ClientError};
use varve_script::{Authority, Front, next_look, replace};

fn client(front: &Front, files: &[(&str, &Path)]) -> Client {
    let mut pairs = vec![
        ("bootstrap.servers", front.address.as_str()),
        ("security.protocol", "SSL"),
        ("default.api.timeout.ms", "5000"),
    ];
    pairs.extend(files.iter().map(|(key, path)| (*key, path.to_str().unwrap())));
    Client::new(ClientConfig::from_pairs(pairs).unwrap()).unwrap()
}

#[tokio::test]
async fn authorities_are_read_again_when_their_file_changes() {
    let (old, new) = (Authority::new(), Authority::new());
    let front = Front::start(&broker(|_| MetadataResponse::default()).await, &old, None).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    replace(&file, &old.file("ca.pem"));
    let client = client(&front, &[("ssl.ca.location", &file)]);
    client.metadata(None).await.unwrap();
    front.show(&new, None);
    next_look().await;
    let error = client.metadata(None).await.unwrap_err();
    assert!(matches!(error, ClientError::Tls { .. }), "{error}");
    replace(&file, &new.file("ca.pem"));
    next_look().await;
    client.metadata(None).await.unwrap();
}

/// The certificate and its key are swapped at once, as Kubernetes does.
#[tokio::test]
async fn our_own_certificate_is_read_again_when_it_changes() {
    let (old, new) = (Authority::new(), Authority::new());
    let front = Front::start(&broker(|_| MetadataResponse::default()).await, &old, Some(&old)).await;
    let folder = tempfile::tempdir().unwrap();
    let point_to = |authority: &Authority| {
        let (link, swap) = (folder.path().join("data"), folder.path().join("swap"));
        symlink(authority.file("."), &swap).unwrap();
        std::fs::rename(swap, link).unwrap();
    };
    point_to(&old);
    let [certificate, key] = ["client.pem", "client.key"].map(|name| folder.path().join("data").join(name));
    let files = [
        ("ssl.ca.location", old.file("ca.pem")),
        ("ssl.certificate.location", certificate),
        ("ssl.key.location", key),
    ];
    let client = client(&front, &files.each_ref().map(|(key, path)| (*key, path.as_path())));
    client.metadata(None).await.unwrap();
    front.show(&old, Some(&new));
    next_look().await;
    client.metadata(None).await.unwrap_err();
    point_to(&new);
    next_look().await;
    client.metadata(None).await.unwrap();
}
