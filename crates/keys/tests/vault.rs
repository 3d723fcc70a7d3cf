//! Vault's transit engine, by a server that does as it is told.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod faults;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faults::{
    AAD, CANARY, SECRET, Suite, assert_hides, goes_by_a_tunnel, seen_by_people, services, toy_unwrap,
    toy_wrap,
};
use serde_json::json;
use varve_keys::{KeyServices, KeyUrl, Kind, Wrapped};
use varve_script::{Answer, Request, Server};

fn key(server: &Server) -> KeyUrl {
    KeyUrl::parse(&format!("vault+http://{}/team/transit/orders", server.address())).unwrap()
}

fn with_token(_: &Server, more: &[(&str, &str)]) -> KeyServices {
    services(&[&[("kms.vault.token", CANARY), ("kms.vault.namespace", "ns/one")], more].concat())
}

fn error(status: u16, text: &str) -> Answer {
    Answer::json(status, json!({"errors": [text]}))
}

fn good(request: &Request) -> Answer {
    let aad = STANDARD.decode(request.text("associated_data")).unwrap();
    let data = if request.path.contains("/encrypt/") {
        let plain = STANDARD.decode(request.text("plaintext")).unwrap();
        json!({"ciphertext": format!("vault:v3:{}", STANDARD.encode(toy_wrap(&plain, &aad))), "key_version": 3})
    } else {
        let text = request.text("ciphertext");
        let bytes = STANDARD.decode(text.strip_prefix("vault:v3:").unwrap()).unwrap();
        match toy_unwrap(&bytes, &aad) {
            Some(plain) => json!({"plaintext": STANDARD.encode(plain)}),
            None => return error(400, "cipher: message authentication failed"),
        }
    };
    Answer::json(200, json!({"request_id": "r", "data": data, "warnings": null}))
}

const SUITE: Suite =
    Suite { key, good, is_for_key: |request| !request.path.starts_with("/v1/auth/"), services: with_token };

#[tokio::test]
async fn bears_what_services_do() {
    SUITE.run().await;
}

#[tokio::test]
async fn requests_are_those_of_transit() {
    let asked = SUITE.start(&[], &[]).await;
    let wrapped = asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap();
    asked.services.unwrap(&wrapped, AAD).await.unwrap();
    let [wrap, unwrap] = &asked.server.seen()[..] else { panic!("not two requests") };
    assert_eq!((wrap.method.as_str(), wrap.path.as_str()), ("POST", "/v1/team/transit/encrypt/orders"));
    assert_eq!((unwrap.method.as_str(), unwrap.path.as_str()), ("POST", "/v1/team/transit/decrypt/orders"));
    for request in [wrap, unwrap] {
        assert_eq!(request.header("x-vault-token"), Some(CANARY));
        assert_eq!(request.header("x-vault-namespace"), Some("ns/one"));
        assert_eq!(request.header("x-vault-request"), Some("true"));
    }
    let text = String::from_utf8(wrapped.bytes.clone()).unwrap();
    assert_eq!(
        wrap.json(),
        json!({"plaintext": STANDARD.encode(SECRET), "associated_data": STANDARD.encode(AAD)})
    );
    assert_eq!(unwrap.json(), json!({"ciphertext": text, "associated_data": STANDARD.encode(AAD)}));
    assert!(text.starts_with("vault:v3:"));
    assert_eq!((wrapped.wrapped_by, wrapped.algorithm.as_str()), (asked.key.clone(), "VAULT-TRANSIT"));
}

#[tokio::test]
async fn refusals_have_kinds() {
    for (status, text, wrapping, unwrapping) in [
        (400, "cipher: message authentication failed", Kind::Invalid, Kind::Refused),
        (400, "encryption key not found", Kind::NotFound, Kind::NotFound),
        (404, "no handler for route \"x\"", Kind::NotFound, Kind::NotFound),
        (
            400,
            "ciphertext or signature version is disallowed by policy (too old)",
            Kind::Disabled,
            Kind::Disabled,
        ),
        (403, "permission denied", Kind::Denied, Kind::Denied),
    ] {
        let asked = SUITE.start(&vec![error(status, text); 2], &[]).await;
        let found = asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap_err();
        assert_eq!(found.kind, wrapping, "{}", seen_by_people(&found));
        let wrapped = SUITE.wrapped_for(&asked).await;
        let found = asked.services.unwrap(&wrapped, AAD).await.unwrap_err();
        assert_eq!(found.kind, unwrapping, "{}", seen_by_people(&found));
        assert!(found.to_string().contains(&status.to_string()), "{found}");
        assert_eq!(asked.times(), 2);
    }
}

#[tokio::test]
async fn a_record_sends_no_token_anywhere() {
    let asked = SUITE.start(&[], &[]).await;
    let wrapped = SUITE.wrapped_for(&asked).await;
    let strict = with_token(&asked.server, &[]);
    let refused = strict.unwrap(&wrapped, AAD).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Denied);
    assert!(seen_by_people(&refused).contains(asked.server.address()), "{refused}");
    assert_eq!(asked.times(), 0);
    // Wrapping there, as a configuration says, doesn't open it to records.
    strict.wrap(&asked.key, &SECRET, AAD).await.unwrap();
    assert!(strict.unwrap(&wrapped, AAD).await.is_err());
    strict.trust(&asked.key);
    assert_eq!(*strict.unwrap(&wrapped, AAD).await.unwrap(), SECRET);
}

#[tokio::test]
async fn an_old_vault_that_binds_nothing_is_seen() {
    let warning = "Endpoint ignored these unrecognized parameters: [associated_data]";
    let answer = Answer::json(200, json!({"data": {"ciphertext": "vault:v1:eA=="}, "warnings": [warning]}));
    let asked = SUITE.start(&[answer], &[]).await;
    let error = asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(seen_by_people(&error).contains("upgrade"), "{error}");
}

#[tokio::test]
async fn what_is_no_ciphertext_is_not_sent() {
    let asked = SUITE.start(&[], &[]).await;
    for bytes in [b"x".to_vec(), b"vault:v1:\n".to_vec(), b"\xff".to_vec(), Vec::new(), vec![b'x'; 9000]] {
        let wrapped = Wrapped { bytes, ..SUITE.wrapped_for(&asked).await };
        let error = asked.services.unwrap(&wrapped, AAD).await.unwrap_err();
        assert_eq!(error.kind, Kind::Refused);
    }
    let odd = Wrapped { algorithm: "AES-256-GCM".to_owned(), ..SUITE.wrapped_for(&asked).await };
    assert_eq!(asked.services.unwrap(&odd, AAD).await.unwrap_err().kind, Kind::Refused);
    assert_eq!(asked.times(), 0);
    // A ciphertext that is none of the engine's is not kept.
    let answer = Answer::json(200, json!({"data": {"ciphertext": "plain"}}));
    let asked = SUITE.start(&[answer], &[]).await;
    let error = asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap_err();
    assert_eq!(error.kind, Kind::Other);
}

#[tokio::test]
async fn a_token_file_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let server = Server::start(|request, _| good(request)).await;
    let services = services(&[("kms.vault.token.file", path.to_str().unwrap())]);
    let error = services.wrap(&key(&server), &SECRET, AAD).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied);
    assert!(error.to_string().contains("kms.vault.token.file"), "{error}");
    for token in ["one", "two"] {
        std::fs::write(&path, format!("{token}\n")).unwrap();
        services.wrap(&key(&server), &SECRET, AAD).await.unwrap();
    }
    let tokens: Vec<_> =
        server.seen().iter().map(|request| request.header("x-vault-token").unwrap().to_owned()).collect();
    assert_eq!(tokens, ["one", "two"]);
}

/// Logs anyone in who knows the canary; each login gives another token, of which the last is good.
fn with_logins(request: &Request, before: usize) -> Answer {
    if !request.path.starts_with("/v1/auth/") {
        return good(request);
    }
    let known = request.text("secret_id") == CANARY || request.text("jwt") == CANARY;
    if !known {
        return error(400, &format!("invalid secret id {CANARY}"));
    }
    Answer::json(200, json!({"auth": {"client_token": format!("{CANARY}-{before}"), "lease_duration": 3600}}))
}

#[tokio::test]
async fn logins_give_tokens_that_are_kept_until_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, CANARY).unwrap();
    let path = path.to_str().unwrap();
    let approle =
        [("kms.vault.auth", "approle"), ("kms.vault.role.id", "me"), ("kms.vault.secret.id.file", path)];
    let kubernetes = [
        ("kms.vault.auth", "kubernetes"),
        ("kms.vault.kubernetes.role", "me"),
        ("kms.vault.kubernetes.jwt.file", path),
        ("kms.vault.auth.mount", "k8s/east"),
    ];
    for (settings, place, body) in [
        (&approle[..], "/v1/auth/approle/login", json!({"role_id": "me", "secret_id": CANARY})),
        (&kubernetes[..], "/v1/auth/k8s/east/login", json!({"role": "me", "jwt": CANARY})),
    ] {
        // The fourth request meets a token that was taken back.
        let server = Server::start(|request, before| match before.len() {
            3 => error(403, "permission denied"),
            _ => with_logins(request, before.len()),
        })
        .await;
        let services = services(settings);
        for _ in 0..3 {
            services.wrap(&key(&server), &SECRET, AAD).await.unwrap();
        }
        let seen = server.seen();
        let paths: Vec<_> = seen.iter().map(|request| request.path.contains("/auth/")).collect();
        assert_eq!(paths, [true, false, false, false, true, false]);
        assert_eq!((seen[0].path.as_str(), seen[0].json()), (place, body));
        assert_eq!(seen[0].header("x-vault-token"), None);
        assert_eq!(seen[2].header("x-vault-token"), Some(format!("{CANARY}-0").as_str()));
        assert_eq!(seen[5].header("x-vault-token"), Some(format!("{CANARY}-4").as_str()));
        assert_hides(&[format!("{services:?}")]);
    }
}

#[tokio::test]
async fn a_refused_login_is_denied_and_a_refused_token_is_renewed_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, CANARY).unwrap();
    let settings = [
        ("kms.vault.auth", "approle"),
        ("kms.vault.role.id", "me"),
        ("kms.vault.secret.id.file", path.to_str().unwrap()),
    ];
    let server = Server::start(|_, _| error(400, &format!("invalid {CANARY}"))).await;
    let refused = services(&settings).wrap(&key(&server), &SECRET, AAD).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Denied);
    assert!(seen_by_people(&refused).contains("login"), "{refused}");
    assert_eq!(server.seen().len(), 1);
    let server = Server::start(|request, before| match request.path.contains("/auth/") {
        true => with_logins(request, before.len()),
        false => error(403, "permission denied"),
    })
    .await;
    let refused = services(&settings).wrap(&key(&server), &SECRET, AAD).await.unwrap_err();
    assert_eq!((refused.kind, server.seen().len()), (Kind::Denied, 4));
}

#[tokio::test]
async fn without_a_token_nothing_is_asked() {
    let server = Server::start(|request, _| good(request)).await;
    let error = services(&[]).wrap(&key(&server), &SECRET, AAD).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied);
    assert!(error.to_string().contains("kms.vault.token.file"), "{error}");
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn a_proxy_is_gone_through() {
    let key = KeyUrl::parse("vault://vault.invalid/transit/k").unwrap();
    let by_proxy = |url: &str| services(&[("kms.vault.token", CANARY), ("kms.proxy.url", url)]);
    goes_by_a_tunnel(by_proxy, &key, "vault.invalid:8200").await;
}
