//! Whom key services are trusted by.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod faults;

use faults::{AAD, SECRET, services};
use varve_keys::{KeyServices, KeyUrl, Kind};
use varve_script::{Answer, Authority, Front, Server, next_look, replace};

/// A Vault that knows one answer.
async fn vault() -> Server {
    Server::start(|_, _| Answer::new(200).body(r#"{"data": {"ciphertext": "vault:v1:eA=="}}"#)).await
}

async fn before(server: &Server, authority: &Authority) -> Front {
    Front::start(server.address(), authority, None).await
}

fn aws_at(address: &str, more: &[(&str, &str)]) -> KeyServices {
    let endpoint = format!("https://{address}");
    let keys = [
        ("kms.aws.endpoint.url", endpoint.as_str()),
        ("kms.aws.access.key.id", "x"),
        ("kms.aws.secret.access.key", "x"),
        ("kms.max.attempts", "1"),
    ];
    services(&[&keys[..], more].concat())
}

#[tokio::test]
async fn an_authority_is_trusted_that_is_named_and_no_other() {
    let authority = Authority::new();
    let server = vault().await;
    let front = before(&server, &authority).await;
    let key = KeyUrl::parse(&format!("vault://{}/transit/k", front.address)).unwrap();
    let ca = authority.file("ca.pem").display().to_string();
    let ca = ca.as_str();
    let trusting = services(&[("kms.vault.token", "t"), ("kms.tls.ca.file", ca)]);
    trusting.wrap(&key, &SECRET, AAD).await.unwrap();
    let error = services(&[("kms.vault.token", "t")]).wrap(&key, &SECRET, AAD).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid, "{error}");
    assert!(error.to_string().contains("kms.tls.ca.file"), "{error}");
    // The certificate is for an address, and not for a name that leads there.
    let named = front.address.replace("127.0.0.1", "localhost");
    let named = KeyUrl::parse(&format!("vault://{named}/transit/k")).unwrap();
    assert_eq!(trusting.wrap(&named, &SECRET, AAD).await.unwrap_err().kind, Kind::Invalid);
    // AWS's library goes another way, by the same rule.
    let key = KeyUrl::parse("aws-kms://eu-north-1/x").unwrap();
    let error = aws_at(&front.address, &[]).wrap(&key, &SECRET, AAD).await.unwrap_err();
    assert!(error.kind == Kind::Invalid && error.to_string().contains("kms.tls.ca.file"), "{error}");
    // It is spoken to; that it is no AWS is another matter.
    let error =
        aws_at(&front.address, &[("kms.tls.ca.file", ca)]).wrap(&key, &SECRET, AAD).await.unwrap_err();
    assert_eq!(error.kind, Kind::Other, "{error}");
}

/// The services are made with a file that is replaced, after the server's certificate is one of another authority.
/// `spoken_to`: what an answer comes to.
async fn follows_its_file(
    services_at: impl Fn(&str, &str) -> (KeyServices, KeyUrl),
    spoken_to: std::result::Result<(), Kind>,
) {
    let (old, new) = (Authority::new(), Authority::new());
    let server = vault().await;
    let front = before(&server, &old).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    replace(&file, &old.file("ca.pem"));
    let (services, key) = services_at(&front.address, file.to_str().unwrap());
    let ask = async || services.wrap(&key, &SECRET, AAD).await.map(drop).map_err(|error| error.kind);
    assert_eq!(ask().await, spoken_to);
    front.show(&new, None);
    next_look().await;
    assert_eq!(ask().await, Err(Kind::Invalid));
    // As while a file is written: it must not break the client that is in use.
    let pem = std::fs::read(new.file("ca.pem")).unwrap();
    std::fs::write(&file, &pem[..pem.len() / 2]).unwrap();
    next_look().await;
    assert_eq!(ask().await, Err(Kind::Invalid));
    replace(&file, &new.file("ca.pem"));
    next_look().await;
    assert_eq!(ask().await, spoken_to);
}

#[tokio::test]
async fn authorities_are_read_again_when_their_file_changes() {
    let vault = |address: &str, ca: &str| {
        let key = KeyUrl::parse(&format!("vault://{address}/transit/k")).unwrap();
        (services(&[("kms.vault.token", "t"), ("kms.tls.ca.file", ca)]), key)
    };
    follows_its_file(vault, Ok(())).await;
}

#[tokio::test]
async fn authorities_of_aws_are_read_again_when_their_file_changes() {
    let aws = |address: &str, ca: &str| {
        (aws_at(address, &[("kms.tls.ca.file", ca)]), KeyUrl::parse("aws-kms://eu-north-1/x").unwrap())
    };
    // That it is no AWS is another matter.
    follows_its_file(aws, Err(Kind::Other)).await;
}
