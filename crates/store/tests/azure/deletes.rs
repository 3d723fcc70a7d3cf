//! Batches, and stores without.

use varve_script::{Answer, Server};
use varve_store::{Key, Kind, Result};

use super::signatures::expected_signature;
use super::{failed, store_at};

/// A batch's answer of these parts: place, status, code.
fn batch(parts: &[(usize, u16, &str)]) -> Answer {
    let mut body = String::new();
    for (place, status, code) in parts {
        body.push_str(&format!(
            "--answer_1\r\nContent-Type: application/http\r\nContent-ID: {place}\r\n\r\nHTTP/1.1 {status} Told\r\n\
            x-ms-error-code: {code}\r\nx-ms-request-id: R{place}\r\n\r\n<Error><Message>as told</Message></Error>\r\n"
        ));
    }
    body.push_str("--answer_1--");
    Answer::new(202).header("content-type", "multipart/mixed; boundary=answer_1").body(body)
}

#[tokio::test]
async fn a_batch_tells_each_keys_outcome() {
    let told = [
        (2, 404, "BlobNotFound"),
        (1, 403, "AuthorizationPermissionMismatch"),
        (0, 202, ""),
        (3, 409, "LeaseIdMissing"),
    ];
    let server = Server::start(move |_, _| batch(&told)).await;
    let store = store_at(&server.endpoint, &[]).await;
    let keys = ["a", "b b", "c", "d"].map(|name| Key::new(name.replace(' ', "%")).unwrap());
    let outcomes = store.delete_many(&keys).await.unwrap();
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    let error = outcomes[1].as_ref().unwrap_err();
    assert!(error.kind == Kind::Denied && error.object.ends_with("/b%b"), "{error}");
    assert!(error.to_string().contains("R1"), "{error}");
    assert_eq!(outcomes[3].as_ref().unwrap_err().kind, Kind::Denied);
    let request = &server.seen()[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/account1/box?restype=container&comp=batch")
    );
    let resource = "/account1/account1/box\ncomp:batch\nrestype:container";
    assert_eq!(request.header("authorization"), Some(expected_signature(request, resource).as_str()));
    let body = String::from_utf8(request.body.clone()).unwrap();
    assert!(
        body.contains("Content-ID: 1\r\n\r\nDELETE /account1/box/some/prefix/b%25b HTTP/1.1\r\n"),
        "{body}"
    );
    assert_eq!(body.matches("authorization: SharedKey account1:").count(), 4);
}

#[tokio::test]
async fn a_batch_with_gaps_or_troubles_is_sent_again() {
    let server = Server::start(|_, before| match before.len() {
        0 => batch(&[(0, 202, "")]),
        1 => batch(&[(0, 202, ""), (1, 503, "ServerBusy")]),
        _ => batch(&[(0, 404, "BlobNotFound"), (1, 202, "")]),
    })
    .await;
    let keys = ["a", "b"].map(|name| Key::new(name).unwrap());
    let outcomes = store_at(&server.endpoint, &[]).await.delete_many(&keys).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok) && server.seen().len() == 3);

    for answer in [|| batch(&[(1, 202, "")]), || Answer::new(202).body("what?"), || batch(&[])] {
        let server = Server::start(move |_, _| answer()).await;
        let outcomes = store_at(&server.endpoint, &[]).await.delete_many(&keys).await.unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(|e| e.kind == Kind::Unavailable)));
        assert_eq!(server.seen().len(), 3);
    }
}

#[tokio::test]
async fn where_there_is_no_batch_each_is_deleted_alone() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "POST" => failed(501, "NotImplemented"),
        _ if request.path.ends_with("/b") => failed(404, "BlobNotFound"),
        _ if request.path.ends_with("/c") => failed(404, "ContainerNotFound"),
        _ => Answer::new(202),
    })
    .await;
    let keys = ["a", "b", "c"].map(|name| Key::new(name).unwrap());
    let outcomes = store_at(&server.endpoint, &[]).await.delete_many(&keys).await.unwrap();
    assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
    assert!(outcomes[2].as_ref().is_err_and(|error| error.kind == Kind::NotFound));
    assert_eq!(server.seen().len(), 4);
}
