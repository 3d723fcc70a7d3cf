//! Tokens by an external account, from a server that does as it is told.

use std::time::{Duration, Instant};

use varve_store::{Kind, SharedStore, open};

use super::{SECRET, error_json, key, object, settings};
use varve_script::{Answer, Server};

/// A store whose token comes from `token`, by an external account.
async fn federated(
    folder: &tempfile::TempDir,
    store: &Server,
    token: &Server,
) -> varve_store::Result<SharedStore> {
    let (subject, account) = (folder.path().join("subject"), folder.path().join("account.json"));
    std::fs::write(&subject, SECRET).unwrap();
    let json = format!(
        r#"{{"type":"external_account","audience":"a","subject_token_type":"urn:ietf:params:oauth:token-type:jwt",
        "token_url":"{}/token","credential_source":{{"file":"{}"}}}}"#,
        token.endpoint,
        subject.display()
    );
    std::fs::write(&account, json).unwrap();
    let file = account.to_str().unwrap();
    let more = [("gs.auth", "default"), ("gs.credentials.file", file), ("gs.timeout.ms", "2000")];
    open("gs://bucket/some/prefix", &settings(&store.endpoint, &more)).await
}

#[tokio::test]
async fn tokens_are_fetched_and_sent() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| object(b"hello")).await;
    let token = Server::start(|_, before| match before.len() {
        0 => Answer::new(503),
        _ => Answer::json(
            200,
            r#"{"access_token":"T0KEN","issued_token_type":"x","token_type":"Bearer","expires_in":3600}"#,
        ),
    })
    .await;
    let store = federated(&folder, &server, &token).await.unwrap();
    store.head(&key()).await.unwrap();
    store.head(&key()).await.unwrap();
    assert!(server.seen().iter().all(|request| request.header("authorization") == Some("Bearer T0KEN")));
    assert_eq!((server.seen().len(), token.seen().len()), (2, 2), "one token for both, at the second try");
    assert!(!format!("{store:?}").contains("T0KEN"));
}

/// Google's crate would say so for ever: credentials begin anew, so that what was mended is seen.
#[tokio::test]
async fn a_token_that_was_refused_is_asked_for_again_later() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| object(b"hello")).await;
    let token = Server::start(|_, before| match before.len() {
        0 => Answer::new(400).body(r#"{"error":"invalid_grant"}"#),
        1 => Answer::hang(),
        _ => Answer::json(
            200,
            r#"{"access_token":"T0KEN","issued_token_type":"x","token_type":"Bearer","expires_in":3600}"#,
        ),
    })
    .await;
    let store = federated(&folder, &server, &token).await.unwrap();
    assert_eq!(store.head(&key()).await.unwrap_err().kind, Kind::Denied);
    let started = Instant::now();
    store.head(&key()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(8), "a token server that hangs is given up");
    assert_eq!((server.seen().len(), token.seen().len()), (1, 3));
}

#[tokio::test]
async fn a_token_that_is_refused_is_final() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| object(b"hello")).await;
    let token = Server::start(|_, _| Answer::new(400).body(r#"{"error":"invalid_grant"}"#)).await;
    let store = federated(&folder, &server, &token).await.unwrap();
    let error = store.head(&key()).await.unwrap_err();
    let text = format!("{error} {error:?} {store:?}");
    assert!(error.kind == Kind::Denied && text.contains("invalid_grant"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    assert_eq!((server.seen().len(), token.seen().len()), (0, 1));
}

/// Also for longer than it is tried again: whoever asked may go on with what it has.
#[tokio::test]
async fn a_token_server_that_is_away_denies_nothing() {
    for hangs in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(|_, _| object(b"hello")).await;
        let token = Server::start(move |_, _| if hangs { Answer::hang() } else { Answer::new(503) }).await;
        let store = federated(&folder, &server, &token).await.unwrap();
        let error = store.head(&key()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
        assert!(error.to_string().contains("no credentials"), "{error}");
        assert!(server.seen().is_empty() && !token.seen().is_empty());
    }
}

#[tokio::test]
async fn an_expired_token_is_denied_and_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| error_json(401, "authError")).await;
    let token = Server::start(|_, _| {
        let body = format!(
            r#"{{"access_token":"{SECRET}","issued_token_type":"x","token_type":"Bearer","expires_in":3600}}"#
        );
        Answer::json(200, body)
    })
    .await;
    let store = federated(&folder, &server, &token).await.unwrap();
    let error = store.head(&key()).await.unwrap_err();
    let text = format!("{error} {error:?} {store:?}");
    assert!(error.kind == Kind::Denied && !text.contains(SECRET), "{text}");
    assert_eq!(server.seen().len(), 1);
}

/// Google's crate quotes a file whole in which it does not find its field.
#[tokio::test]
async fn a_subject_token_that_is_not_found_is_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| object(b"hello")).await;
    let (subject, account) = (folder.path().join("subject"), folder.path().join("account.json"));
    std::fs::write(&subject, format!(r#"{{"token":"{SECRET}"}}"#)).unwrap();
    let json = format!(
        r#"{{"type":"external_account","audience":"a","subject_token_type":"urn:ietf:params:oauth:token-type:jwt",
        "token_url":"{}/token","credential_source":{{"file":"{}",
        "format":{{"type":"json","subject_token_field_name":"id_token"}}}}}}"#,
        server.endpoint,
        subject.display()
    );
    std::fs::write(&account, json).unwrap();
    let file = account.to_str().unwrap();
    let more = [("gs.auth", "default"), ("gs.credentials.file", file)];
    let store = open("gs://bucket/some/prefix", &settings(&server.endpoint, &more)).await.unwrap();
    let error = store.head(&key()).await.unwrap_err();
    let text = format!("{error} {error:?} {store:?}");
    assert!(error.kind == Kind::Denied && text.contains("id_token"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    assert!(server.seen().is_empty());
}
