//! The file key ring as a key service.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use varve_format::KeyRing;
use varve_keys::{KeyServices, KeyUrl, Kind, Wrapped, algorithm};

const SECRET: [u8; 32] = [7; 32];

fn services(active: &str) -> KeyServices {
    let key = |byte: u8| STANDARD.encode([byte; 32]);
    let text = format!(r#"{{"active": "{active}", "keys": {{"old": "{}", "new": "{}"}}}}"#, key(1), key(2));
    KeyServices::new(&BTreeMap::new(), Some(Arc::new(KeyRing::parse(&text).unwrap()))).unwrap()
}

fn url(text: &str) -> KeyUrl {
    KeyUrl::parse(text).unwrap()
}

#[tokio::test]
async fn keys_come_back_from_active_and_former_keys() {
    let wrapped = services("old").wrap(&url("ring:old"), &SECRET, b"here").await.unwrap();
    assert_eq!((wrapped.wrapped_by.as_str(), wrapped.algorithm.as_str()), ("ring:old", algorithm::RING));
    assert_eq!(wrapped.bytes.len(), 12 + 48);
    assert!(!wrapped.anyone_can_wrap());
    assert_eq!(*services("new").unwrap(&wrapped, b"here").await.unwrap(), SECRET);
    let again = services("old").wrap(&url("ring:old"), &SECRET, b"here").await.unwrap();
    assert_ne!(again.bytes, wrapped.bytes);
}

#[tokio::test]
async fn anything_else_is_refused() {
    let services = services("old");
    let wrapped = services.wrap(&url("ring:old"), &SECRET, b"here").await.unwrap();
    let kind = async |wrapped: &Wrapped, aad: &[u8]| services.unwrap(wrapped, aad).await.unwrap_err().kind;
    assert_eq!(kind(&wrapped, b"there").await, Kind::Refused);
    assert_eq!(kind(&wrapped, b"").await, Kind::Invalid);
    let other = Wrapped { wrapped_by: url("ring:new"), ..wrapped.clone() };
    assert_eq!(kind(&other, b"here").await, Kind::Refused);
    let missing = Wrapped { wrapped_by: url("ring:gone"), ..wrapped.clone() };
    assert_eq!(kind(&missing, b"here").await, Kind::NotFound);
    let odd = Wrapped { algorithm: "ROT13".to_owned(), ..wrapped.clone() };
    assert_eq!(kind(&odd, b"here").await, Kind::Refused);
    for at in 0..wrapped.bytes.len() {
        let mut altered = wrapped.clone();
        altered.bytes[at] ^= 0x80;
        assert_eq!(kind(&altered, b"here").await, Kind::Refused, "{at}");
        altered.bytes.truncate(at);
        assert_eq!(kind(&altered, b"here").await, Kind::Refused, "{at}");
    }
}

#[tokio::test]
async fn only_the_active_key_wraps_and_there_must_be_a_ring() {
    let error = services("old").wrap(&url("ring:new"), &SECRET, b"here").await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.to_string().contains("active key is old"), "{error}");
    let none = KeyServices::new(&BTreeMap::new(), None).unwrap();
    let error = none.wrap(&url("ring:old"), &SECRET, b"here").await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
}
