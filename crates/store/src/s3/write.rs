//! Whole objects in one request, and what every write has in common.

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::StorageClass;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::{Inner, failure};
use crate::contract::{Create, ObjectMeta, PutOptions, Result};
use crate::create::{ID_METADATA, Signed, create_once, new_id};
use crate::error::Kind;
use crate::failure::At;
use crate::key::Key;
use crate::memory::now_ms;
use crate::retry::Retry;

/// The header's form of a body's CRC32C.
pub(super) fn crc32c(body: &[u8]) -> String {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body) as u32;
    STANDARD.encode(crc.to_be_bytes())
}

impl Inner {
    pub(super) fn storage_class(&self, options: &PutOptions) -> Option<StorageClass> {
        let named = options.storage_class.as_deref().or(self.config.storage_class.as_deref());
        named.map(StorageClass::from)
    }

    pub(super) async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        let at = self.at("put", key.as_str());
        let (full, id, size_bytes) = (self.full(key, &at)?, new_id(), body.len() as u64);
        if size_bytes > self.limits().max_put_bytes {
            return Err(at.error(Kind::Invalid, format!("{size_bytes} bytes are too many for one put")));
        }
        let checksum = self.config.checksums.then(|| crc32c(&body));
        let storage_class = self.storage_class(options);
        let request = || async {
            let call = self.client.put_object().bucket(&self.config.bucket).key(&full);
            let call = call
                .body(ByteStream::from(body.clone()))
                .set_checksum_crc32_c(checksum.clone())
                .set_if_none_match((options.create == Create::IfAbsent).then(|| "*".to_owned()))
                .metadata(ID_METADATA, &id)
                .set_storage_class(storage_class.clone())
                .set_server_side_encryption(self.config.encryption.clone())
                .set_ssekms_key_id(self.config.encryption_key.clone());
            let answer = call.customize().disable_payload_signing().send().await.map_err(failure::of)?;
            Ok(ObjectMeta {
                key: key.clone(),
                size_bytes,
                etag: answer.e_tag,
                version: answer.version_id,
                last_modified_ms: now_ms(),
                storage_class: storage_class.as_ref().map(|class| class.as_str().to_owned()),
            })
        };
        if options.create == Create::Overwrite {
            return self.retry.run(&at, size_bytes, request).await;
        }
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
