//! AWS KMS, by a server that does as it is told, and by moto.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod faults;
mod moto;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faults::{AAD, CANARY, SECRET, Suite, goes_by_a_tunnel, seen_by_people, services, toy_unwrap, toy_wrap};
use serde_json::{Value, json};
use varve_keys::{KeyServices, KeyUrl, Kind, Wrapped};
use varve_script::{Answer, Request, Server};

const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
const ARN: &str = "arn:aws:kms:eu-north-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn key(_: &Server) -> KeyUrl {
    KeyUrl::parse(&format!("aws-kms://eu-north-1/{ID}")).unwrap()
}

fn with_keys(endpoint: &str, more: &[(&str, &str)]) -> KeyServices {
    let settings = [
        ("kms.aws.endpoint.url", endpoint),
        ("kms.aws.access.key.id", "someone"),
        ("kms.aws.secret.access.key", "canary-token-secret"),
        ("kms.aws.session.token", "canary-token-session"),
    ];
    services(&[&settings[..], more].concat())
}

fn error(status: u16, code: &str) -> Answer {
    Answer::json(status, json!({"__type": code, "message": "as told"})).header("x-amzn-requestid", "R42")
}

fn good(request: &Request) -> Answer {
    let aad = STANDARD.decode(request.json()["EncryptionContext"]["varve"].as_str().unwrap()).unwrap();
    if request.header("x-amz-target") == Some("TrentService.Encrypt") {
        let plain = STANDARD.decode(request.text("Plaintext")).unwrap();
        let blob = STANDARD.encode(toy_wrap(&plain, &aad));
        return answer(
            json!({"KeyId": ARN, "CiphertextBlob": blob, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}),
        );
    }
    match toy_unwrap(&STANDARD.decode(request.text("CiphertextBlob")).unwrap(), &aad) {
        Some(plain) => answer(json!({"KeyId": ARN, "Plaintext": STANDARD.encode(plain)})),
        None => error(400, "InvalidCiphertextException"),
    }
}

fn answer(body: Value) -> Answer {
    Answer::json(200, body)
}

const SUITE: Suite =
    Suite { key, good, is_for_key: |_| true, services: |server, more| with_keys(&server.endpoint, more) };

#[tokio::test]
async fn bears_what_services_do() {
    SUITE.run().await;
}

#[tokio::test]
async fn requests_are_those_of_kms() {
    let asked = SUITE.start(&[], &[]).await;
    let wrapped = asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap();
    asked.services.unwrap(&wrapped, AAD).await.unwrap();
    let [wrap, unwrap] = &asked.server.seen()[..] else { panic!("not two requests") };
    let context = json!({"varve": STANDARD.encode(AAD)});
    assert_eq!(wrap.header("x-amz-target"), Some("TrentService.Encrypt"));
    assert_eq!(
        wrap.json(),
        json!({
            "KeyId": ID,
            "Plaintext": STANDARD.encode(SECRET),
            "EncryptionContext": context,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        })
    );
    assert_eq!(unwrap.header("x-amz-target"), Some("TrentService.Decrypt"));
    assert_eq!(
        unwrap.json(),
        json!({
            "KeyId": ARN,
            "CiphertextBlob": STANDARD.encode(&wrapped.bytes),
            "EncryptionContext": context,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        })
    );
    for request in [wrap, unwrap] {
        let signed = request.header("authorization").unwrap();
        assert!(signed.contains("someone/") && signed.contains("/eu-north-1/kms/aws4_request"), "{signed}");
        assert!(!signed.contains(CANARY), "{signed}");
    }
    assert_eq!(wrapped.wrapped_by.as_str(), format!("aws-kms://{ARN}"));
    assert!(asked.key.covers(&wrapped.wrapped_by) == Some(true) && !wrapped.anyone_can_wrap());
}

#[tokio::test]
async fn a_proxy_is_gone_through() {
    let key = KeyUrl::parse(&format!("aws-kms://eu-north-1/{ID}")).unwrap();
    let by_proxy = |url: &str| with_keys("https://kms.invalid", &[("kms.proxy.url", url)]);
    goes_by_a_tunnel(by_proxy, &key, "kms.invalid:443").await;
}

const CHILD_ENDPOINT: &str = "VARVE_TEST_ENDPOINT";
const CHILD_PROXY: &str = "VARVE_TEST_PROXY";

/// The environment of a container names a server of its own machine, which no proxy reaches.
#[tokio::test]
async fn a_containers_credentials_are_asked_for_without_a_proxy() {
    let server = Server::start(|request, _| match request.path.as_str() {
        "/credentials" => answer(json!({
            "AccessKeyId": "someone",
            "SecretAccessKey": "canary-token-secret",
            "Token": "canary-token-session",
            "Expiration": "2999-01-01T00:00:00Z",
        })),
        _ => good(request),
    })
    .await;
    let proxy = Server::start(|_, _| Answer::new(502)).await;
    let home = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "child_in_a_container"])
        .env_clear()
        .env("HOME", home.path())
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/credentials", server.endpoint))
        .env(CHILD_ENDPOINT, &server.endpoint)
        .env(CHILD_PROXY, &proxy.endpoint);
    let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let paths: Vec<_> = server.seen().into_iter().map(|request| request.path).collect();
    assert_eq!((paths, proxy.seen().len()), (vec!["/credentials".to_owned(), "/".to_owned()], 0));
}

#[tokio::test]
async fn child_in_a_container() {
    let (Ok(endpoint), Ok(proxy)) = (std::env::var(CHILD_ENDPOINT), std::env::var(CHILD_PROXY)) else {
        return;
    };
    let services = services(&[("kms.aws.endpoint.url", &endpoint), ("kms.proxy.url", &proxy)]);
    let key = KeyUrl::parse(&format!("aws-kms://eu-north-1/{ID}")).unwrap();
    services.wrap(&key, &SECRET, AAD).await.unwrap();
}

#[tokio::test]
async fn refusals_have_kinds() {
    for (status, code, kind, times) in [
        (400, "NotFoundException", Kind::NotFound, 1),
        (400, "DisabledException", Kind::Disabled, 1),
        (400, "KMSInvalidStateException", Kind::Disabled, 1),
        (400, "InvalidCiphertextException", Kind::Refused, 1),
        (400, "IncorrectKeyException", Kind::Refused, 1),
        (400, "AccessDeniedException", Kind::Denied, 1),
        (400, "ExpiredTokenException", Kind::Denied, 1),
        (400, "ThrottlingException", Kind::Unavailable, 3),
        (500, "KMSInternalException", Kind::Unavailable, 3),
        (400, "InvalidKeyUsageException", Kind::Invalid, 1),
    ] {
        let asked = SUITE.start(&vec![error(status, code); 3], &[]).await;
        let wrapped = SUITE.wrapped_for(&asked).await;
        let found = asked.services.unwrap(&wrapped, AAD).await.unwrap_err();
        let text = seen_by_people(&found);
        assert_eq!((found.kind, asked.times()), (kind, times), "{text}");
        assert!(text.contains(code) && text.contains("R42") && text.contains(ARN), "{text}");
    }
}

#[tokio::test]
async fn the_answer_of_another_key_is_seen() {
    let asked = SUITE.start(&[], &[]).await;
    let wrapped = SUITE.wrapped_for(&asked).await;
    for arn in [
        "arn:aws:kms:eu-north-1:111122223333:key/another".to_owned(),
        ARN.replace("eu-north-1", "eu-west-1"),
        ID.to_owned(),
        String::new(),
    ] {
        let blob = STANDARD.encode("x");
        let told =
            answer(json!({"KeyId": arn, "CiphertextBlob": blob, "Plaintext": STANDARD.encode([1; 32])}));
        let asked = SUITE.start(&vec![told; 2], &[]).await;
        let error = asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap_err();
        assert_eq!(error.kind, Kind::Other, "{arn} {}", seen_by_people(&error));
        let error = asked.services.unwrap(&wrapped, AAD).await.unwrap_err();
        assert_eq!(error.kind, Kind::Other, "{arn} {}", seen_by_people(&error));
        assert_eq!(asked.times(), 2);
    }
}

#[tokio::test]
async fn an_alias_is_resolved_once_and_for_all() {
    let asked = SUITE.start(&[], &[]).await;
    let alias = KeyUrl::parse("aws-kms://eu-north-1/alias/orders").unwrap();
    let wrapped = asked.services.wrap(&alias, &SECRET, AAD).await.unwrap();
    assert_eq!(wrapped.wrapped_by.as_str(), format!("aws-kms://{ARN}"));
    assert_eq!(asked.server.seen()[0].text("KeyId"), "alias/orders");
    assert_eq!(alias.covers(&wrapped.wrapped_by), None);
}

#[tokio::test]
async fn a_key_of_another_length_is_no_key() {
    let told = answer(json!({"KeyId": ARN, "Plaintext": STANDARD.encode([1; 31])}));
    let asked = SUITE.start(&[told], &[]).await;
    let wrapped = SUITE.wrapped_for(&asked).await;
    let error = asked.services.unwrap(&wrapped, AAD).await.unwrap_err();
    assert_eq!(error.kind, Kind::Refused);
    assert!(error.to_string().contains("31 bytes"), "{error}");
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let blob = STANDARD.encode(toy_wrap(&SECRET, AAD));
    let told = |bytes: usize| {
        let body = json!({"KeyId": ARN, "CiphertextBlob": blob, "Filler": "x".repeat(bytes)});
        vec![answer(body); 3]
    };
    let asked = SUITE.start(&told(60_000), &[]).await;
    asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap();
    let asked = SUITE.start(&told(66_000), &[]).await;
    let error = asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap_err();
    assert!(matches!(error.kind, Kind::Other | Kind::Unavailable), "{}", seen_by_people(&error));
}

#[tokio::test]
async fn moto_wraps_and_unwraps() {
    let Some(moto) = moto::start().await else { return };
    let services = with_keys(&moto.endpoint, &[]);
    let arn = moto.create_key().await;
    let by_arn = KeyUrl::parse(&arn).unwrap();
    let id = arn.rsplit('/').next().unwrap();
    let by_id = KeyUrl::parse(&format!("aws-kms://eu-north-1/{id}")).unwrap();
    for key in [&by_arn, &by_id] {
        let wrapped = services.wrap(key, &SECRET, AAD).await.unwrap();
        assert_eq!(wrapped.wrapped_by, by_arn);
        assert_eq!(*services.unwrap(&wrapped, AAD).await.unwrap(), SECRET);
        // A restarted process has nothing but the record.
        assert_eq!(*with_keys(&moto.endpoint, &[]).unwrap(&wrapped, AAD).await.unwrap(), SECRET);
        let error = services.unwrap(&wrapped, b"elsewhere").await.unwrap_err();
        assert_eq!(error.kind, Kind::Refused, "{}", seen_by_people(&error));
        let mut altered = wrapped.clone();
        *altered.bytes.last_mut().unwrap() ^= 1;
        let error = services.unwrap(&altered, AAD).await.unwrap_err();
        assert_eq!(error.kind, Kind::Refused, "{}", seen_by_people(&error));
    }
    let wrapped = services.wrap(&by_arn, &SECRET, AAD).await.unwrap();
    let another = Wrapped { wrapped_by: KeyUrl::parse(&moto.create_key().await).unwrap(), ..wrapped };
    let error = services.unwrap(&another, AAD).await.unwrap_err();
    assert!(matches!(error.kind, Kind::Refused | Kind::Other), "{}", seen_by_people(&error));
    let missing = KeyUrl::parse(&format!("aws-kms://eu-north-1/{ID}")).unwrap();
    let error = services.wrap(&missing, &SECRET, AAD).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound, "{}", seen_by_people(&error));
}
