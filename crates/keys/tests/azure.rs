//! Azure Key Vault and Managed HSM, by a server that does as it is told: it is Microsoft Entra as well.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod faults;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use faults::{
    AAD, CANARY, SECRET, Suite, assert_hides, goes_by_a_tunnel, seen_by_people, services, toy_unwrap,
    toy_wrap,
};
use serde_json::{Value, json};
use varve_keys::{KeyServices, KeyUrl, Kind, Wrapped};
use varve_script::{Answer, Request, Server};

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const VERSION: &str = "0698c2156c1a4e1da5b6bab6f6422fd6";

fn key(_: &Server) -> KeyUrl {
    KeyUrl::parse("azure-kms://mine.vault.azure.net/keys/Orders").unwrap()
}

fn hsm_key(_: &Server) -> KeyUrl {
    KeyUrl::parse("azure-kms://mine.managedhsm.azure.net/keys/Orders").unwrap()
}

fn at<'a>(server: &'a Server, more: &[(&'a str, &'a str)]) -> KeyServices {
    let settings = [
        ("kms.azure.endpoint.url", server.endpoint.as_str()),
        ("kms.azure.authority.url", server.endpoint.as_str()),
    ];
    services(&[&settings[..], more].concat())
}

fn by_secret(server: &Server, more: &[(&str, &str)]) -> KeyServices {
    let secret = [
        ("kms.azure.tenant.id", TENANT),
        ("kms.azure.client.id", "me"),
        ("kms.azure.client.secret", "canary-token-client"),
    ];
    at(server, &[&secret[..], more].concat())
}

fn by_secret_for_hsm(server: &Server, more: &[(&str, &str)]) -> KeyServices {
    by_secret(server, &[&[("kms.azure.algorithm", "a256gcm")], more].concat())
}

fn error(status: u16, code: &str, inner: &str, message: &str) -> Answer {
    let inner = (!inner.is_empty()).then(|| json!({"code": inner}));
    Answer::json(status, json!({"error": {"code": code, "message": message, "innererror": inner}}))
}

fn is_for_key(request: &Request) -> bool {
    request.path.starts_with("/keys/")
}

fn token(request: &Request) -> Answer {
    assert_eq!(request.path, format!("/{TENANT}/oauth2/v2.0/token"));
    Answer::json(
        200,
        json!({"token_type": "Bearer", "expires_in": 3600, "ext_expires_in": 3600, "access_token": format!("{CANARY}-access")}),
    )
}

fn kid(host: &str) -> String {
    // Azure writes a name as it was made, however it was asked for.
    format!("https://{host}/keys/orders/{VERSION}")
}

fn good(request: &Request) -> Answer {
    if !is_for_key(request) {
        return token(request);
    }
    let value = BASE64.decode(request.text("value")).unwrap();
    let kid = kid("mine.vault.azure.net");
    if request.path.contains("/wrapkey") {
        return Answer::json(200, json!({"kid": kid, "value": BASE64.encode(toy_wrap(&value, b""))}));
    }
    match toy_unwrap(&value, b"") {
        Some(plain) => Answer::json(200, json!({"kid": kid, "value": BASE64.encode(plain)})),
        None => error(400, "BadParameter", "", "The parameter is incorrect."),
    }
}

fn good_hsm(request: &Request) -> Answer {
    if !is_for_key(request) {
        return token(request);
    }
    let value = BASE64.decode(request.text("value")).unwrap();
    let kid = kid("mine.managedhsm.azure.net");
    let aad = request.text("aad");
    let hidden: Vec<u8> = value.iter().map(|byte| byte ^ 0x5a).collect();
    if request.path.contains("/encrypt") {
        let answer = json!({"kid": kid, "value": BASE64.encode(hidden), "iv": BASE64.encode([1; 12]), "tag": aad, "aad": aad});
        return Answer::json(200, &answer);
    }
    assert_eq!(request.text("iv"), BASE64.encode([1; 12]));
    if request.text("tag") != aad {
        return error(400, "BadParameter", "", "The parameter is incorrect.");
    }
    Answer::json(200, json!({"kid": kid, "value": BASE64.encode(hidden)}))
}

const SUITE: Suite = Suite { key, good, is_for_key, services: by_secret };
const HSM: Suite = Suite { key: hsm_key, good: good_hsm, is_for_key, services: by_secret_for_hsm };

#[tokio::test]
async fn bears_what_services_do() {
    SUITE.run().await;
}

#[tokio::test]
async fn a_managed_hsm_bears_it_too() {
    HSM.run().await;
}

fn for_keys(server: &Server) -> Vec<Request> {
    server.seen().into_iter().filter(is_for_key).collect()
}

#[tokio::test]
async fn requests_are_those_of_key_vault() {
    let asked = SUITE.start(&[], &[]).await;
    let wrapped = asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap();
    asked.services.unwrap(&wrapped, AAD).await.unwrap();
    let [wrap, unwrap] = &for_keys(&asked.server)[..] else { panic!("not two requests") };
    assert_eq!((wrap.method.as_str(), wrap.path.as_str()), ("POST", "/keys/Orders/wrapkey?api-version=7.4"));
    assert_eq!(unwrap.path, format!("/keys/Orders/{VERSION}/unwrapkey?api-version=7.4"));
    for request in [wrap, unwrap] {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {CANARY}-access").as_str()));
        assert_eq!(request.text("alg"), "RSA-OAEP-256");
    }
    // What is wrapped by RSA is not the key itself, and there is no more in the request.
    assert_ne!(wrap.text("value"), BASE64.encode(SECRET));
    assert_eq!(BASE64.decode(wrap.text("value")).unwrap().len(), 32);
    assert_eq!(wrap.json().as_object().unwrap().len(), 2);
    assert_eq!(
        wrapped.wrapped_by.as_str(),
        format!("azure-kms://mine.vault.azure.net/keys/Orders/{VERSION}")
    );
    assert!(asked.key.covers(&wrapped.wrapped_by) == Some(true) && wrapped.anyone_can_wrap());
    let rsa = BASE64.decode(unwrap.text("value")).unwrap();
    let length = u16::try_from(rsa.len()).unwrap().to_be_bytes();
    assert_eq!(wrapped.bytes[..2 + rsa.len()], [&length, rsa.as_slice()].concat());
    assert_eq!(wrapped.bytes.len(), 2 + rsa.len() + 12 + 48);
    let tokens: Vec<_> = asked.server.seen().into_iter().filter(|request| !is_for_key(request)).collect();
    assert_eq!(tokens.len(), 1);
    let form = String::from_utf8(tokens[0].body.clone()).unwrap();
    assert!(form.contains("scope=https%3A%2F%2Fvault.azure.net%2F.default"), "{form}");
}

#[tokio::test]
async fn requests_are_those_of_managed_hsm() {
    let asked = HSM.start(&[], &[]).await;
    let wrapped = asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap();
    asked.services.unwrap(&wrapped, AAD).await.unwrap();
    let [wrap, unwrap] = &for_keys(&asked.server)[..] else { panic!("not two requests") };
    assert_eq!(wrap.path, "/keys/Orders/encrypt?api-version=7.4");
    assert_eq!(unwrap.path, format!("/keys/Orders/{VERSION}/decrypt?api-version=7.4"));
    assert_eq!(
        wrap.json(),
        json!({"alg": "A256GCM", "value": BASE64.encode(SECRET), "aad": BASE64.encode(AAD)})
    );
    assert_eq!(unwrap.text("aad"), BASE64.encode(AAD));
    assert!(!wrapped.anyone_can_wrap() && wrapped.algorithm == "A256GCM");
    let form = String::from_utf8(asked.server.seen()[0].body.clone()).unwrap();
    assert!(form.contains("scope=https%3A%2F%2Fmanagedhsm.azure.net%2F.default"), "{form}");
    // The algorithm of a record holds, whatever is set for new keys.
    let other = by_secret(&asked.server, &[]);
    assert_eq!(*other.unwrap(&wrapped, AAD).await.unwrap(), SECRET);
}

#[tokio::test]
async fn what_is_altered_is_refused_without_a_word_of_it() {
    let asked = SUITE.start(&[], &[]).await;
    let wrapped = SUITE.wrapped_for(&asked).await;
    for at in [0, 1, 2, 40, wrapped.bytes.len() - 60, wrapped.bytes.len() - 1] {
        let mut altered = wrapped.clone();
        altered.bytes[at] ^= 1;
        let error = asked.services.unwrap(&altered, AAD).await.unwrap_err();
        assert_eq!(error.kind, Kind::Refused, "{at}: {}", seen_by_people(&error));
    }
}

#[tokio::test]
async fn the_answer_of_another_key_is_seen() {
    let asked = SUITE.start(&[], &[]).await;
    let wrapped = SUITE.wrapped_for(&asked).await;
    for kid in [
        "https://other.vault.azure.net/keys/Orders/1",
        "https://mine.vault.azure.net/keys/Other/1",
        "https://mine.vault.azure.net/keys/Orders",
        "https://mine.vault.azure.net/secrets/Orders/1",
        "http://mine.vault.azure.net/keys/Orders/1",
        "",
    ] {
        let answer = Answer::json(200, json!({"kid": kid, "value": BASE64.encode([1; 32])}));
        let asked = SUITE.start(&vec![answer; 2], &[]).await;
        let error = asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap_err();
        assert_eq!(error.kind, Kind::Other, "{kid} {}", seen_by_people(&error));
        let error = asked.services.unwrap(&wrapped, AAD).await.unwrap_err();
        assert_eq!(error.kind, Kind::Other, "{kid} {}", seen_by_people(&error));
        assert_eq!(asked.times(), 2);
    }
    // Another version of the key isn't what the record names.
    let stale = KeyUrl::parse("azure-kms://mine.vault.azure.net/keys/Orders/abcd").unwrap();
    let error = asked.services.unwrap(&Wrapped { wrapped_by: stale, ..wrapped }, AAD).await.unwrap_err();
    assert_eq!(error.kind, Kind::Other);
}

#[tokio::test]
async fn refusals_have_kinds() {
    let disabled = "Operation unwrapKey is not allowed on a disabled key.";
    for (status, code, inner, message, kind) in [
        (404, "KeyNotFound", "", "A key with (name/id) Orders was not found", Kind::NotFound),
        (403, "Forbidden", "KeyDisabled", disabled, Kind::Disabled),
        (403, "Forbidden", "", disabled, Kind::Disabled),
        (409, "Conflict", "ObjectIsDeletedButRecoverable", "", Kind::Disabled),
        (403, "Forbidden", "ForbiddenByRbac", "Caller is not authorized", Kind::Denied),
        (401, "Unauthorized", "", "AKV10022: Invalid audience.", Kind::Denied),
        (400, "BadParameter", "", "The parameter is incorrect.", Kind::Refused),
    ] {
        let asked = SUITE.start(&[error(status, code, inner, message)], &[]).await;
        let wrapped = SUITE.wrapped_for(&asked).await;
        let found = asked.services.unwrap(&wrapped, AAD).await.unwrap_err();
        assert_eq!((found.kind, asked.times()), (kind, 1), "{}", seen_by_people(&found));
        assert!(found.to_string().contains(code), "{found}");
    }
}

#[tokio::test]
async fn tokens_come_by_secret_by_file_and_by_federation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, format!("{CANARY}-in-file\n")).unwrap();
    let path = path.to_str().unwrap();
    let server = Server::start(|request, _| good(request)).await;
    let me = [("kms.azure.tenant.id", TENANT), ("kms.azure.client.id", "me")];
    for (setting, expected) in [
        ("kms.azure.client.secret.file", format!("client_secret={CANARY}-in-file&")),
        ("kms.azure.federated.token.file", format!("client_assertion={CANARY}-in-file")),
    ] {
        let services = at(&server, &[&me[..], &[(setting, path)]].concat());
        services.wrap(&key(&server), &SECRET, AAD).await.unwrap();
        let seen = server.seen();
        let form = String::from_utf8(seen[seen.len() - 2].body.clone()).unwrap();
        assert!(form.contains(&expected), "{form}");
        assert_hides(&[format!("{services:?}")]);
    }
}

#[tokio::test]
async fn a_secret_that_was_refused_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, format!("{CANARY}-old")).unwrap();
    let server = Server::start(|request, _| {
        let form = String::from_utf8_lossy(&request.body);
        if !is_for_key(request) && form.contains(&format!("{CANARY}-old")) {
            return Answer::json(401, json!({"error": "invalid_client"}));
        }
        good(request)
    })
    .await;
    let secret = [
        ("kms.azure.tenant.id", TENANT),
        ("kms.azure.client.id", "me"),
        ("kms.azure.client.secret.file", path.to_str().unwrap()),
    ];
    let services = at(&server, &secret);
    let refused = services.wrap(&key(&server), &SECRET, AAD).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Denied, "{}", seen_by_people(&refused));
    std::fs::write(&path, format!("{CANARY}-new")).unwrap();
    services.wrap(&key(&server), &SECRET, AAD).await.unwrap();
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_proxy_is_gone_through() {
    let entra = Server::start(|request, _| good(request)).await;
    let elsewhere = |setting| {
        let entra = &entra;
        move |url: &str| by_secret(entra, &[(setting, "https://azure.invalid"), ("kms.proxy.url", url)])
    };
    for setting in ["kms.azure.endpoint.url", "kms.azure.authority.url"] {
        goes_by_a_tunnel(elsewhere(setting), &key(&entra), "azure.invalid:443").await;
    }
}

#[tokio::test]
async fn credentials_that_are_wrong_are_denied_and_hidden() {
    fn body(text: &str) -> Value {
        json!({"error": "invalid_client", "error_codes": [7000215], "error_description": text})
    }
    // A service of tokens that is away denies nobody.
    for (status, kind, times) in [(401, Kind::Denied, 1), (400, Kind::Denied, 1), (503, Kind::Unavailable, 3)]
    {
        let server = Server::start(move |_, _| {
            Answer::json(
                status,
                body("AADSTS7000215: Invalid client secret canary-token-client.\nTrace ID: x"),
            )
        })
        .await;
        let error = by_secret(&server, &[]).wrap(&key(&server), &SECRET, AAD).await.unwrap_err();
        assert_eq!((error.kind, server.seen().len()), (kind, times), "{}", seen_by_people(&error));
        assert!(error.to_string().contains("AADSTS7000215"), "{error}");
    }
    for body in [format!("{CANARY}{{"), format!("\"{CANARY}\""), format!("{{\"expires_in\": \"{CANARY}\"}}")]
    {
        let server = Server::start(move |_, _| Answer::new(200).body(body.clone())).await;
        let error = by_secret(&server, &[]).wrap(&key(&server), &SECRET, AAD).await.unwrap_err();
        assert_eq!(error.kind, Kind::Denied, "{}", seen_by_people(&error));
    }
}
