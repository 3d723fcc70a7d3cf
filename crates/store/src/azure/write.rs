//! Whole objects in one request, and what every write has in common.

use async_trait::async_trait;
use azure_core::http::{Method, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::{Inner, failure, text};
use crate::contract::{Create, ObjectMeta, PutOptions, Result};
use crate::create::{Signed, create_once, new_id};
use crate::error::Kind;
use crate::failure::At;
use crate::key::Key;
use crate::memory::now_ms;
use crate::retry::Retry;

/// Whose write made a blob; the other stores' name for it has a dash, which no C# identifier has.
pub(super) const ID_METADATA: &str = "varve_write";

/// As the header has it before base64: the smallest byte first.
pub(super) fn crc64(body: &[u8]) -> [u8; 8] {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, body).to_le_bytes()
}

impl Inner {
    pub(super) fn access_tier(&self, options: &PutOptions) -> Option<String> {
        options.storage_class.clone().or_else(|| self.config.access_tier.clone())
    }

    /// The headers that say how a blob is made.
    pub(super) fn describe(&self, request: &mut Request, id: &str, options: &PutOptions) {
        if options.create == Create::IfAbsent {
            request.insert_header("if-none-match", "*");
        }
        if let Some(tier) = self.access_tier(options) {
            request.insert_header("x-ms-access-tier", tier);
        }
        request.insert_header("x-ms-meta-varve_write", id.to_owned());
    }

    /// What a write's answer says of what it made.
    pub(super) fn written_meta(
        &self,
        key: &Key,
        size_bytes: u64,
        options: &PutOptions,
        headers: &azure_core::http::headers::Headers,
    ) -> ObjectMeta {
        let meta = self.meta(key, size_bytes, headers);
        let last_modified_ms =
            if text(headers, "last-modified").is_some() { meta.last_modified_ms } else { now_ms() };
        ObjectMeta { last_modified_ms, storage_class: self.access_tier(options), ..meta }
    }

    pub(super) async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        let at = self.at("put", key.as_str());
        let (full, id, size_bytes) = (self.full(key, &at)?, new_id(), body.len() as u64);
        if size_bytes > self.limits().max_put_bytes {
            return Err(at.error(Kind::Invalid, format!("{size_bytes} bytes are too many for one put")));
        }
        let checksum = STANDARD.encode(crc64(&body));
        let request = || async {
            let mut request = self.client.request(Method::Put, self.client.blob_url(&full));
            request.insert_header("content-type", "application/octet-stream");
            request.insert_header("x-ms-blob-type", "BlockBlob");
            request.insert_header("x-ms-content-crc64", checksum.clone());
            self.describe(&mut request, &id, options);
            request.set_body(body.clone());
            let answer = self.client.send(request, &[201]).await?;
            Ok(self.written_meta(key, size_bytes, options, answer.headers()))
        };
        if options.create == Create::Overwrite {
            return self.retry.run(&at, size_bytes, request).await;
        }
        let request = || async { request().await.map_err(failure::of_create) };
        create_once(self, key, &id, &at, size_bytes, request).await
    }
}

#[async_trait]
impl Signed for Inner {
    fn retry(&self) -> &Retry {
        &self.retry
    }

    async fn written(&self, key: &Key, at: &At) -> Result<(ObjectMeta, Option<String>)> {
        self.examine(key, None, at).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_nvme_crc64_in_little_endian() {
        // The catalogue's check value of CRC-64/NVME.
        assert_eq!(u64::from_le_bytes(crc64(b"123456789")), 0xae8b_1486_0a79_9888);
    }
}
