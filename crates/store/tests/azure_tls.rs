//! Azure over TLS: whom the store trusts, and the tokens that it asks for, from a server that does as it is told.

#![cfg(feature = "azure")]
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use varve_script::{Answer, Request, Server};
use varve_store::{Create, Key, Kind, PutOptions, SharedStore, open};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// TLS before a plain server; its address.
async fn tls_before(server: &Server) -> String {
    let chain = CertificateDer::pem_file_iter(data("tls-server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(data("tls-server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let behind = server.address().to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let Ok(mut outer) = acceptor.accept(stream).await else { return };
                let mut inner = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    address
}

async fn store_at(address: &str, more: &[(&str, &str)]) -> SharedStore {
    let authority = data("tls-authority.pem").display().to_string();
    let endpoint = format!("{address}/account1");
    let mut settings = BTreeMap::from([
        ("az.endpoint.url".to_owned(), endpoint),
        ("az.tls.ca.file".to_owned(), authority),
        ("az.max.attempts".to_owned(), "3".to_owned()),
    ]);
    for (name, value) in more {
        settings.insert((*name).to_owned(), (*value).to_owned());
    }
    settings.retain(|_, value| !value.is_empty());
    open("az://account1/box", &settings).await.unwrap()
}

async fn put(store: &SharedStore) -> varve_store::Result<()> {
    let options = PutOptions { create: Create::Overwrite, ..PutOptions::default() };
    store.put(&Key::new("k").unwrap(), Bytes::from_static(b"x"), &options).await.map(drop)
}

#[tokio::test]
async fn only_known_authorities_are_trusted() {
    let server = Server::start(|_, _| Answer::new(201)).await;
    let address = tls_before(&server).await;
    let key = ("az.account.key", "aHVzaA==");
    put(&store_at(&address, &[key]).await).await.unwrap();
    assert_eq!(server.seen().len(), 1);
    let error = put(&store_at(&address, &[key, ("az.tls.ca.file", "")]).await).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid, "{error}");
    assert!(
        error.to_string().contains("certificate") && error.to_string().contains("az.tls.ca.file"),
        "{error}"
    );
    let elsewhere = address.replace("localhost", "127.0.0.2");
    assert!(put(&store_at(&elsewhere, &[key]).await).await.is_err(), "another name");
    assert_eq!(server.seen().len(), 1);
}

fn is_token_request(request: &Request) -> bool {
    request.path.ends_with("/some-tenant/oauth2/v2.0/token")
}

fn token(value: &str) -> Answer {
    let body = format!("{{\"token_type\":\"Bearer\",\"expires_in\":3600,\"access_token\":\"{value}\"}}");
    Answer::new(200).header("content-type", "application/json").body(body)
}

const SECRET: [(&str, &str); 3] =
    [("az.tenant.id", "some-tenant"), ("az.client.id", "some-client"), ("az.client.secret", "hush-hush")];

#[tokio::test]
async fn a_token_is_asked_for_once_and_sent_with_each_request() {
    let server = Server::start(|request, before| match is_token_request(request) {
        // Whoever gives tokens may be away for a moment too.
        true if before.is_empty() => Answer::new(503).body("{\"error\":\"x\",\"error_description\":\"later\"}"),
        true => token("hush-token"),
        false if request.method == "POST" => Answer::new(202)
            .header("content-type", "multipart/mixed; boundary=b")
            .body("--b\r\nContent-ID: 0\r\n\r\nHTTP/1.1 202 A\r\n\r\n--b\r\nContent-ID: 1\r\n\r\nHTTP/1.1 202 A\r\n\r\n--b--"),
        false if request.method == "HEAD" => Answer::new(200).header("content-length", "5"),
        false if request.header("x-ms-copy-source").is_some() => Answer::new(202),
        false => Answer::new(201),
    })
    .await;
    let address = tls_before(&server).await;
    let mut settings = SECRET.to_vec();
    settings.push(("az.authority.host", &address));
    let store = store_at(&address, &settings).await;
    put(&store).await.unwrap();
    put(&store).await.unwrap();
    let keys = ["a", "b"].map(|name| Key::new(name).unwrap());
    assert!(store.delete_many(&keys).await.unwrap().iter().all(Result::is_ok));
    store.copy(&keys[0], &keys[1], &PutOptions::default()).await.unwrap();
    let seen = server.seen();
    let asked: Vec<_> = seen.iter().filter(|request| is_token_request(request)).collect();
    assert_eq!((asked.len(), seen.len()), (2, 7));
    let form = String::from_utf8(asked[1].body.clone()).unwrap();
    assert!(form.contains("client_secret=hush-hush") && form.contains("storage.azure.com"), "{form}");
    let bearer = Some("Bearer hush-token");
    assert!(seen[2..].iter().all(|request| request.header("authorization") == bearer));
    assert_eq!(String::from_utf8_lossy(&seen[4].body).matches("authorization: Bearer hush-token").count(), 2);
    assert_eq!(seen[6].header("x-ms-copy-source-authorization"), bearer);
    assert!(seen[6].header("x-ms-copy-source").is_some_and(|source| source.ends_with("/box/a")));
}

#[tokio::test]
async fn a_refused_secret_is_told_at_once_and_not_shown() {
    let server = Server::start(|_, _| {
        Answer::new(401).body("{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: wrong\",\"error_codes\":[7000215]}")
    })
    .await;
    let address = tls_before(&server).await;
    let mut settings = SECRET.to_vec();
    settings.push(("az.authority.host", &address));
    let store = store_at(&address, &settings).await;
    let error = put(&store).await.unwrap_err();
    let text = format!("{error} {error:?} {store:?}");
    assert_eq!(error.kind, Kind::Denied, "{text}");
    assert!(text.contains("AADSTS7000215") && !text.contains("hush"), "{text}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_workload_identity_shows_its_file() {
    let server =
        Server::start(
            |request, _| {
                if is_token_request(request) { token("hush-token") } else { Answer::new(201) }
            },
        )
        .await;
    let address = tls_before(&server).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "an-assertion").unwrap();
    let path = file.path().display().to_string();
    let store = store_at(
        &address,
        &[
            ("az.auth", "workload-identity"),
            ("az.tenant.id", "some-tenant"),
            ("az.client.id", "some-client"),
            ("az.federated.token.file", &path),
            ("az.authority.host", &address),
        ],
    )
    .await;
    put(&store).await.unwrap();
    let seen = server.seen();
    assert!(String::from_utf8_lossy(&seen[0].body).contains("client_assertion=an-assertion"));
    assert_eq!(seen[1].header("authorization"), Some("Bearer hush-token"));
}
