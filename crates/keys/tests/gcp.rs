//! Google Cloud KMS, by a server that does as it is told: it gives tokens as well.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod faults;

use std::path::PathBuf;
use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faults::{
    AAD, CANARY, SECRET, Suite, assert_hides, goes_by_a_tunnel, seen_by_people, services, toy_unwrap,
    toy_wrap,
};
use serde_json::{Value, json};
use varve_format::crc32c;
use varve_keys::{KeyServices, KeyUrl, Kind};
use varve_script::{Answer, Request, Server};

const RESOURCE: &str = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k";

/// Files of credentials, for as long as the tests run.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fn key(_: &Server) -> KeyUrl {
    KeyUrl::parse(&format!("gcp-kms://{RESOURCE}")).unwrap()
}

fn credentials(name: &str, server: &Server, content: &Value) -> PathBuf {
    let path = FOLDER.path().join(format!("{name}-{}", server.address().replace(':', "-")));
    std::fs::write(&path, content.to_string()).unwrap();
    path
}

fn by(path: &std::path::Path, server: &Server, more: &[(&str, &str)]) -> KeyServices {
    let settings = [
        ("kms.gcp.endpoint.url", server.endpoint.as_str()),
        ("kms.gcp.credentials.file", path.to_str().unwrap()),
    ];
    services(&[&settings[..], more].concat())
}

fn as_user(server: &Server, more: &[(&str, &str)]) -> KeyServices {
    by(&credentials("user", server, &user("refresh", server)), server, more)
}

fn error(code: u16, status: &str, message: &str) -> Answer {
    Answer::json(code, json!({"error": {"code": code, "status": status, "message": message}}))
}

fn decoded(request: &Request, name: &str) -> Vec<u8> {
    STANDARD.decode(request.text(name)).unwrap()
}

fn good(request: &Request) -> Answer {
    if request.path.starts_with("/token") || request.path.starts_with("/sts") {
        return Answer::json(
            200,
            json!({
                "access_token": format!("{CANARY}-access"),
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "expires_in": 3600,
                "token_type": "Bearer",
            }),
        );
    }
    let aad = decoded(request, "additionalAuthenticatedData");
    assert_eq!(request.text("additionalAuthenticatedDataCrc32c"), crc32c(&aad).to_string());
    Answer::json(
        200,
        if request.path.ends_with(":encrypt") {
            encrypted(request, &aad)
        } else {
            let bytes = decoded(request, "ciphertext");
            assert_eq!(request.text("ciphertextCrc32c"), crc32c(&bytes).to_string());
            let Some(plain) = toy_unwrap(&bytes, &aad) else {
                let words = "Decryption failed: verify that 'name' refers to the correct CryptoKey.";
                return error(400, "INVALID_ARGUMENT", words);
            };
            decrypted(&plain)
        },
    )
}

fn encrypted(request: &Request, aad: &[u8]) -> Value {
    let plain = decoded(request, "plaintext");
    assert_eq!(request.text("plaintextCrc32c"), crc32c(&plain).to_string());
    let wrapped = toy_wrap(&plain, aad);
    json!({
        "name": format!("{RESOURCE}/cryptoKeyVersions/7"),
        "ciphertext": STANDARD.encode(&wrapped),
        "ciphertextCrc32c": crc32c(&wrapped).to_string(),
        "verifiedPlaintextCrc32c": true,
        "verifiedAdditionalAuthenticatedDataCrc32c": true,
        "protectionLevel": "HSM",
    })
}

fn decrypted(plain: &[u8]) -> Value {
    json!({
        "plaintext": STANDARD.encode(plain),
        "plaintextCrc32c": crc32c(plain).to_string(),
        "usedPrimary": true,
    })
}

const SUITE: Suite =
    Suite { key, good, is_for_key: |request| request.path.starts_with("/v1/"), services: as_user };

#[tokio::test]
async fn bears_what_services_do() {
    SUITE.run().await;
}

#[tokio::test]
async fn requests_are_those_of_cloud_kms() {
    let asked = SUITE.start(&[], &[]).await;
    let wrapped = asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap();
    asked.services.unwrap(&wrapped, AAD).await.unwrap();
    let seen = asked.server.seen();
    let for_keys: Vec<_> = seen.iter().filter(|request| !request.path.starts_with("/token")).collect();
    let [wrap, unwrap] = for_keys[..] else { panic!("not two requests") };
    assert_eq!(
        (wrap.method.as_str(), wrap.path.as_str()),
        ("POST", format!("/v1/{RESOURCE}:encrypt").as_str())
    );
    assert_eq!(unwrap.path, format!("/v1/{RESOURCE}:decrypt"));
    for request in [wrap, unwrap] {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {CANARY}-access").as_str()));
    }
    let aad = json!(STANDARD.encode(AAD));
    assert_eq!(wrap.json()["plaintext"], json!(STANDARD.encode(SECRET)));
    assert_eq!(wrap.json()["additionalAuthenticatedData"], aad);
    assert_eq!(unwrap.json()["ciphertext"], json!(STANDARD.encode(&wrapped.bytes)));
    assert_eq!(unwrap.json()["additionalAuthenticatedData"], aad);
    assert_eq!((wrapped.wrapped_by, wrapped.algorithm.as_str()), (asked.key.clone(), "GCP-SYMMETRIC"));
    // One token serves both.
    assert_eq!(seen.len(), 3);
}

/// Good answers to wrapping and to unwrapping, each with one member changed.
async fn changed(wrapping: bool, name: &str, value: Option<Value>) -> (Result<(), varve_keys::Error>, usize) {
    let good = SUITE.start(&[], &[]).await;
    let wrapped = good.services.wrap(&good.key, &SECRET, AAD).await.unwrap();
    let request = good.server.seen().pop().unwrap();
    let mut answer = if wrapping { encrypted(&request, AAD) } else { decrypted(&SECRET) };
    match value {
        Some(value) => answer[name] = value,
        None => _ = answer.as_object_mut().unwrap().remove(name),
    }
    let asked = SUITE.start(&vec![Answer::json(200, &answer); 3], &[]).await;
    let outcome = if wrapping {
        asked.services.wrap(&asked.key, &SECRET, AAD).await.map(drop)
    } else {
        asked.services.unwrap(&wrapped, AAD).await.map(drop)
    };
    (outcome, asked.times())
}

#[tokio::test]
async fn checksums_are_checked_and_another_try_is_made() {
    for (wrapping, name, value) in [
        (true, "verifiedPlaintextCrc32c", Some(json!(false))),
        (true, "verifiedPlaintextCrc32c", None),
        (true, "verifiedAdditionalAuthenticatedDataCrc32c", None),
        (true, "ciphertextCrc32c", Some(json!("1"))),
        (true, "ciphertextCrc32c", None),
        (false, "plaintextCrc32c", Some(json!("1"))),
        (false, "plaintextCrc32c", Some(json!("99999999999999"))),
        (false, "plaintextCrc32c", None),
        (false, "plaintext", Some(json!(STANDARD.encode([1; 32])))),
    ] {
        let (outcome, times) = changed(wrapping, name, value).await;
        let error = outcome.unwrap_err();
        assert_eq!((error.kind, times), (Kind::Other, 3), "{name}: {}", seen_by_people(&error));
    }
    // A number that is written as one.
    assert_eq!(changed(false, "plaintextCrc32c", Some(json!(crc32c(&SECRET)))).await, (Ok(()), 1));
}

#[tokio::test]
async fn the_answer_of_another_key_is_seen() {
    for name in [
        "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k2/cryptoKeyVersions/1".to_owned(),
        RESOURCE.to_owned(),
        format!("{RESOURCE}/cryptoKeyVersions/"),
    ] {
        let (outcome, times) = changed(true, "name", Some(json!(name))).await;
        let error = outcome.unwrap_err();
        assert_eq!((error.kind, times), (Kind::Other, 1));
        assert!(seen_by_people(&error).contains("another key"), "{error}");
    }
}

#[tokio::test]
async fn refusals_have_kinds() {
    for (code, status, message, kind) in [
        (
            400,
            "FAILED_PRECONDITION",
            "x/cryptoKeyVersions/1 is not enabled, current state is: DISABLED.",
            Kind::Disabled,
        ),
        (400, "FAILED_PRECONDITION", "current state is: DESTROY_SCHEDULED.", Kind::Disabled),
        (400, "INVALID_ARGUMENT", "Decryption failed: the ciphertext is invalid.", Kind::Refused),
        (403, "PERMISSION_DENIED", "Permission 'x' denied (or it may not exist).", Kind::Denied),
        (404, "NOT_FOUND", "CryptoKey not found.", Kind::NotFound),
    ] {
        let asked = SUITE.start(&[error(code, status, message)], &[]).await;
        let wrapped = SUITE.wrapped_for(&asked).await;
        let found = asked.services.unwrap(&wrapped, AAD).await.unwrap_err();
        assert_eq!((found.kind, asked.times()), (kind, 1), "{}", seen_by_people(&found));
        assert!(found.to_string().contains(status) && found.to_string().contains(RESOURCE), "{found}");
    }
}

#[tokio::test]
async fn a_service_account_signs_for_itself() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der.as_ref())
    );
    let server = Server::start(|request, _| good(request)).await;
    let account = json!({
        "type": "service_account",
        "client_email": "varve@p.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": pem,
        "project_id": "p",
    });
    let services = by(&credentials("account", &server, &account), &server, &[]);
    let wrapped = services.wrap(&key(&server), &SECRET, AAD).await.unwrap();
    assert_eq!(*services.unwrap(&wrapped, AAD).await.unwrap(), SECRET);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    let token = seen[0].header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    assert_eq!(token.split('.').count(), 3, "a JWT");
}

#[tokio::test]
async fn a_workload_exchanges_its_token() {
    let server = Server::start(|request, _| good(request)).await;
    let subject = FOLDER.path().join("subject");
    std::fs::write(&subject, format!("{CANARY}-subject")).unwrap();
    let workload = json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/sts", server.endpoint),
        "credential_source": {"file": subject},
    });
    let services = by(&credentials("workload", &server, &workload), &server, &[]);
    services.wrap(&key(&server), &SECRET, AAD).await.unwrap();
    let exchanged = String::from_utf8(server.seen()[0].body.clone()).unwrap();
    assert!(exchanged.contains(&format!("{CANARY}-subject")), "{exchanged}");
    assert_hides(&[format!("{services:?}")]);
}

#[tokio::test]
async fn a_proxy_is_gone_through() {
    let tokens = Server::start(|request, _| good(request)).await;
    let by_proxy = |url: &str| {
        as_user(&tokens, &[("kms.gcp.endpoint.url", "https://kms.invalid"), ("kms.proxy.url", url)])
    };
    goes_by_a_tunnel(by_proxy, &key(&tokens), "kms.invalid:443").await;
}

#[tokio::test]
async fn credentials_that_are_wrong_are_denied_and_hidden() {
    let server = Server::start(|_, _| {
        Answer::json(400, json!({"error": "invalid_grant", "error_description": format!("{CANARY}-refresh")}))
    })
    .await;
    let refused = as_user(&server, &[]).wrap(&key(&server), &SECRET, AAD).await.unwrap_err();
    assert_eq!((refused.kind, server.seen().len()), (Kind::Denied, 1), "{}", seen_by_people(&refused));
    for content in [
        json!({"type": "authorized_user", "client_id": CANARY}),
        json!({"type": "service_account", "private_key": CANARY, "client_email": "x", "private_key_id": "x", "project_id": "x"}),
        json!({"type": CANARY}),
        json!(CANARY),
    ] {
        let services = by(&credentials("wrong", &server, &content), &server, &[]);
        let error = services.wrap(&key(&server), &SECRET, AAD).await.unwrap_err();
        assert_eq!(error.kind, Kind::Denied, "{}", seen_by_people(&error));
    }
    let services = by(std::path::Path::new("/nowhere/x.json"), &server, &[]);
    let error = services.wrap(&key(&server), &SECRET, AAD).await.unwrap_err();
    assert!(error.kind == Kind::Denied && error.to_string().contains("/nowhere/x.json"), "{error}");
}

fn user(refresh_token: &str, server: &Server) -> Value {
    let token_uri = format!("{}/token", server.endpoint);
    json!({
        "type": "authorized_user",
        "client_id": "me",
        "client_secret": format!("{CANARY}-client"),
        "refresh_token": format!("{CANARY}-{refresh_token}"),
        "token_uri": token_uri,
    })
}

/// Google's library would say so for ever: credentials begin anew, by what the file says then.
#[tokio::test]
async fn a_token_that_was_refused_is_asked_for_again_later() {
    let server = Server::start(|request, before| match before.len() {
        0 => Answer::json(400, json!({"error": "invalid_grant"})),
        1 => Answer::hang(),
        _ => good(request),
    })
    .await;
    let path = credentials("replaced", &server, &user("old", &server));
    // A silence is longer than the pause between credentials that are thrown away, which is a second.
    let services = by(&path, &server, &[("kms.timeout.ms", "4000")]);
    let refused = services.wrap(&key(&server), &SECRET, AAD).await.unwrap_err();
    assert_eq!((refused.kind, server.seen().len()), (Kind::Denied, 1), "{}", seen_by_people(&refused));

    std::fs::write(&path, user("new", &server).to_string()).unwrap();
    services.wrap(&key(&server), &SECRET, AAD).await.unwrap();
    let seen = server.seen();
    let shown = |at: usize, token: &str| {
        String::from_utf8_lossy(&seen[at].body).contains(&format!("{CANARY}-{token}"))
    };
    assert_eq!(seen.len(), 4, "refused, silent, a token, the key");
    assert!(shown(0, "old") && shown(1, "new") && shown(2, "new"), "{seen:?}");
}

#[tokio::test]
async fn a_token_that_is_refused_again_is_not_asked_for_with_each_call() {
    let server = Server::start(|_, _| Answer::json(400, json!({"error": "invalid_grant"}))).await;
    let services = as_user(&server, &[]);
    for _ in 0..5 {
        let refused = services.wrap(&key(&server), &SECRET, AAD).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Denied, "{}", seen_by_people(&refused));
    }
    assert_eq!(server.seen().len(), 2);
}
