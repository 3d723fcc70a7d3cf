//! What lets requests in: Shared Key, or a signature in the address.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use varve_script::{Answer, Request, Server};
use varve_store::{GetRange, Key, Kind, PutOptions};

use super::{KEY, SAS, created, if_absent, key, store_at};

/// What Shared Key must be, put together anew from what arrived.
pub(super) fn expected_signature(request: &Request, resource: &str) -> String {
    let placed = |name: &str| request.header(name).unwrap_or_default().to_owned();
    let length = request.body.len();
    let mut lines = vec![request.method.clone(), placed("content-encoding"), placed("content-language")];
    lines.push(if length == 0 { String::new() } else { length.to_string() });
    for name in ["content-md5", "content-type", "date", "if-modified-since", "if-match", "if-none-match"] {
        lines.push(placed(name));
    }
    lines.extend([placed("if-unmodified-since"), placed("range")]);
    let mut own: Vec<_> = request.headers.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
    own.sort();
    lines.extend(own.into_iter().map(|(name, value)| format!("{name}:{value}")));
    lines.push(resource.to_owned());
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &STANDARD.decode(KEY).unwrap());
    let signature = aws_lc_rs::hmac::sign(&key, lines.join("\n").as_bytes());
    format!("SharedKey account1:{}", STANDARD.encode(signature))
}

#[tokio::test]
async fn bodies_go_hashed_and_signed() {
    let server = Server::start(|_, _| created()).await;
    let store = store_at(&server.endpoint, &[("az.access.tier", "cool")]).await;
    let odd = Key::new("o+d%d/(key)").unwrap();
    let meta = store.put(&odd, Bytes::from_static(b"123456789"), &if_absent()).await.unwrap();
    assert_eq!(meta.storage_class.as_deref(), Some("Cool"));
    let request = &server.seen()[0];
    let path = "/account1/box/some/prefix/o%2Bd%25d/%28key%29";
    assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", path));
    // The CRC-64/NVME of "123456789" is ae8b14860a799888, sent from its last byte.
    let checksum = STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_le_bytes());
    assert_eq!(request.header("x-ms-content-crc64"), Some(checksum.as_str()));
    assert_eq!(request.header("x-ms-blob-type"), Some("BlockBlob"));
    assert_eq!(request.header("x-ms-access-tier"), Some("Cool"));
    assert_eq!(request.header("if-none-match"), Some("*"));
    assert_eq!(request.header("content-length"), Some("9"));
    assert!(request.header("x-ms-meta-varve_write").is_some_and(|id| id.len() == 32));
    assert_eq!(request.body, b"123456789");
    let signature = expected_signature(request, &format!("/account1{path}"));
    assert_eq!(request.header("authorization"), Some(signature.as_str()));

    // An empty body, whose length is said and not signed, and a page of a listing with its query.
    store.put(&key(), Bytes::new(), &PutOptions::default()).await.unwrap();
    let _ = store.list("x", None, 10).await;
    let seen = server.seen();
    assert_eq!(seen[1].header("content-length"), Some("0"));
    let signature = expected_signature(&seen[1], "/account1/account1/box/some/prefix/the/object");
    assert_eq!(seen[1].header("authorization"), Some(signature.as_str()));
    let resource =
        "/account1/account1/box\ncomp:list\nmaxresults:10\nprefix:some/prefix/x\nrestype:container";
    let signature = expected_signature(&seen[2], resource);
    assert_eq!(seen[2].header("authorization"), Some(signature.as_str()));
}

#[tokio::test]
async fn a_signature_goes_in_the_address_and_nowhere_else() {
    let server =
        Server::start(|request, _| if request.method == "PUT" { created() } else { Answer::reset() }).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("?{SAS}\n")).unwrap();
    let path = file.path().display().to_string();
    for access in [("az.sas.token", SAS), ("az.sas.token.file", path.as_str())] {
        let store = store_at(&server.endpoint, &[access]).await;
        let before = server.seen().len();
        store.put(&key(), Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap();
        let error = store.get(&key(), GetRange::Full).await.unwrap_err();
        let text = format!("{error} {error:?} {store:?}");
        assert!(error.kind == Kind::Unavailable && !text.contains("hush"), "{text}");
        for request in &server.seen()[before..] {
            assert!(request.path.ends_with(&format!("?{SAS}")), "{}", request.path);
            assert_eq!(request.header("authorization"), None);
        }
    }
    let store =
        store_at(&server.endpoint, &[("az.sas.token.file", "/nowhere"), ("az.max.attempts", "1")]).await;
    let error = store.head(&key()).await.unwrap_err();
    assert!(error.kind == Kind::Denied && error.to_string().contains("/nowhere"), "{error}");
}
