//! Whom key services are trusted by.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod script;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use script::faults::{AAD, SECRET, services};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use varve_keys::{KeyUrl, Kind};

/// An authority, and a certificate for 127.0.0.1 that it has signed.
fn make_certificates(folder: &Path) {
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").current_dir(folder).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let ca = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem";
    openssl(&ca.split(' ').collect::<Vec<_>>());
    let request = "req -newkey rsa:2048 -nodes -subj /CN=server -addext subjectAltName=IP:127.0.0.1 -keyout server.key -out server.csr";
    openssl(&request.split(' ').collect::<Vec<_>>());
    let sign = "x509 -req -in server.csr -copy_extensions copy -days 2 -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem";
    openssl(&sign.split(' ').collect::<Vec<_>>());
}

/// A Vault behind TLS that knows one answer.
async fn start(folder: &Path) -> (u16, tokio::task::JoinHandle<()>) {
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(folder.join("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let body = r#"{"data": {"ciphertext": "vault:v1:eA=="}}"#;
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, task)
}

#[tokio::test]
async fn an_authority_is_trusted_that_is_named_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    make_certificates(folder.path());
    let (port, task) = start(folder.path()).await;
    let key = KeyUrl::parse(&format!("vault://127.0.0.1:{port}/transit/k")).unwrap();
    let ca = folder.path().join("ca.pem");
    let ca = ca.to_str().unwrap();
    let trusting = services(&[("kms.vault.token", "t"), ("kms.tls.ca.file", ca)]);
    trusting.wrap(&key, &SECRET, AAD).await.unwrap();
    let error = services(&[("kms.vault.token", "t")]).wrap(&key, &SECRET, AAD).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid, "{error}");
    assert!(error.to_string().contains("kms.tls.ca.file"), "{error}");
    // The certificate is for an address, and not for a name that leads there.
    let named = KeyUrl::parse(&format!("vault://localhost:{port}/transit/k")).unwrap();
    assert_eq!(trusting.wrap(&named, &SECRET, AAD).await.unwrap_err().kind, Kind::Invalid);
    // AWS's library goes another way, by the same rule.
    let aws = |more: &[(&str, &str)]| {
        let endpoint = format!("https://127.0.0.1:{port}");
        let keys = [
            ("kms.aws.endpoint.url", endpoint.as_str()),
            ("kms.aws.access.key.id", "x"),
            ("kms.aws.secret.access.key", "x"),
            ("kms.max.attempts", "1"),
        ];
        services(&[&keys[..], more].concat())
    };
    let key = KeyUrl::parse("aws-kms://eu-north-1/x").unwrap();
    let error = aws(&[]).wrap(&key, &SECRET, AAD).await.unwrap_err();
    assert!(error.kind == Kind::Invalid && error.to_string().contains("kms.tls.ca.file"), "{error}");
    // It is spoken to; that it is no AWS is another matter.
    let error = aws(&[("kms.tls.ca.file", ca)]).wrap(&key, &SECRET, AAD).await.unwrap_err();
    assert_eq!(error.kind, Kind::Other, "{error}");
    task.abort();
}
