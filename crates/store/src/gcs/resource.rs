//! Objects as Cloud Storage describes them, and what it is told of new ones. Pure.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::contract::ObjectMeta;
use crate::create::ID_METADATA;
use crate::key::Key;

/// What listings ask for of each object.
pub(super) const FIELDS: &str =
    "nextPageToken,items(name,size,generation,timeCreated,timeDeleted,storageClass)";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Object {
    pub(super) name: String,
    size: String,
    generation: String,
    crc32c: Option<String>,
    time_created: Option<String>,
    /// Of a version that is not live any more.
    time_deleted: Option<String>,
    storage_class: Option<String>,
    metadata: HashMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Page {
    pub(super) items: Vec<Object>,
    pub(super) next_page_token: Option<String>,
}

impl Object {
    pub(super) fn size_bytes(&self) -> u64 {
        self.size.parse().unwrap_or(0)
    }

    /// Grows with each version of a key.
    pub(super) fn generation(&self) -> u64 {
        self.generation.parse().unwrap_or(0)
    }

    pub(super) fn crc32c(&self) -> Option<u32> {
        parse_crc32c(self.crc32c.as_deref()?)
    }

    pub(super) fn written_by(&self) -> Option<&str> {
        self.metadata.get(ID_METADATA).map(String::as_str)
    }

    pub(super) fn created_ms(&self) -> i64 {
        self.time_created.as_deref().and_then(millis).unwrap_or(0)
    }

    pub(super) fn deleted_ms(&self) -> Option<i64> {
        self.time_deleted.as_deref().and_then(millis)
    }

    pub(super) fn storage_class(&self) -> Option<&str> {
        self.storage_class.as_deref()
    }

    /// `versioned`: whether the bucket keeps versions.
    pub(super) fn meta(&self, key: Key, versioned: bool) -> ObjectMeta {
        let generation = (!self.generation.is_empty()).then(|| self.generation.clone());
        ObjectMeta {
            key,
            size_bytes: self.size_bytes(),
            version: generation.clone().filter(|_| versioned),
            etag: generation,
            last_modified_ms: self.created_ms(),
            storage_class: self.storage_class.clone(),
        }
    }
}

pub(super) fn crc32c(body: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body) as u32
}

/// Of two pieces after each other, the second of `len` bytes.
pub(super) fn crc32c_of_both(first: u32, second: u32, len: u64) -> u32 {
    let algorithm = crc_fast::CrcAlgorithm::Crc32Iscsi;
    crc_fast::checksum_combine(algorithm, first.into(), second.into(), len) as u32
}

/// As Google writes it.
pub(super) fn show_crc32c(crc: u32) -> String {
    STANDARD.encode(crc.to_be_bytes())
}

fn parse_crc32c(text: &str) -> Option<u32> {
    Some(u32::from_be_bytes(STANDARD.decode(text).ok()?.try_into().ok()?))
}

/// Out of `crc32c=AAAAAA==,md5=…`, which may be one header or two.
pub(super) fn crc32c_of_header(header: &str) -> Option<u32> {
    header.split(',').find_map(|hash| parse_crc32c(hash.trim().strip_prefix("crc32c=")?))
}

fn millis(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// All but letters, digits and `-_.~` in hex: of an object's name also the slashes, since it is one segment of a
/// path.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + text.len() / 4);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_as_google_writes_it() {
        let text = r#"{"kind":"storage#object","name":"a/b","size":"5","generation":"1700000000000001","crc32c":"4waSgw==",
            "timeCreated":"2026-01-02T03:04:05.678Z","storageClass":"NEARLINE","metadata":{"varve-write":"me"},"more":{}}"#;
        let object: Object = serde_json::from_str(text).unwrap();
        assert_eq!(object.crc32c(), Some(crc32c(b"123456789")));
        assert_eq!((object.written_by(), object.deleted_ms()), (Some("me"), None));
        let meta = object.meta(Key::new("b").unwrap(), false);
        assert_eq!((meta.size_bytes, meta.last_modified_ms, meta.version), (5, 1_767_323_045_678, None));
        assert_eq!(meta.etag.as_deref(), Some("1700000000000001"));
    }

    #[test]
    fn checksums_are_read_and_combined() {
        assert_eq!(crc32c_of_header("crc32c=4waSgw==,md5=x"), Some(0xe306_9283));
        assert_eq!(crc32c_of_header("md5=x, crc32c=4waSgw=="), Some(0xe306_9283));
        assert_eq!(crc32c_of_header("md5=x"), None);
        assert_eq!(crc32c_of_header("crc32c=??"), None);
        assert_eq!(crc32c_of_both(crc32c(b"1234"), crc32c(b"56789"), 5), 0xe306_9283);
        assert_eq!(show_crc32c(0xe306_9283), "4waSgw==");
    }

    #[test]
    fn names_are_one_segment() {
        assert_eq!(encode("a/b+c%2F~.-_?"), "a%2Fb%2Bc%252F~.-_%3F");
    }
}
