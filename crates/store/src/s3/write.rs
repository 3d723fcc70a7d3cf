//! Whole objects in one request, and what every write has in common.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::StorageClass;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::failure::Failure;
use super::retry::Course;
use super::{At, Inner};
use crate::contract::{Create, ObjectMeta, PutOptions, Result};
use crate::error::Kind;
use crate::key::Key;
use crate::memory::now_ms;

/// Whose write made an object: `x-amz-meta-varve-write`.
pub(super) const ID_METADATA: &str = "varve-write";

pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// The header's form of a body's CRC32C.
pub(super) fn crc32c(body: &[u8]) -> String {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body) as u32;
    STANDARD.encode(crc.to_be_bytes())
}

/// What is at the key after an answer was lost or refused.
pub(super) enum Found {
    Ours(ObjectMeta),
    Another,
    Nothing,
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
            let answer = call.customize().disable_payload_signing().send().await.map_err(Failure::of)?;
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
        let (mut course, mut in_doubt) = (self.retry.course(), false);
        loop {
            match course.attempt(size_bytes, &request).await {
                Ok(meta) => return Ok(meta),
                Err(failure) => {
                    in_doubt |= failure.ambiguous;
                    if let Some(meta) = self.settle(key, &id, &at, &mut course, failure, in_doubt).await? {
                        return Ok(meta);
                    }
                }
            }
        }
    }

    /// After a failed create: our success after all, an error, or `None` to try again.
    async fn settle(
        &self,
        key: &Key,
        id: &str,
        at: &At,
        course: &mut Course<'_>,
        failure: Failure,
        in_doubt: bool,
    ) -> Result<Option<ObjectMeta>> {
        let refused = failure.kind == Kind::AlreadyExists;
        if in_doubt && (refused || failure.ambiguous) {
            match self.find(key, id, at).await? {
                Found::Ours(meta) => return Ok(Some(meta)),
                Found::Another => return Err(at.error(Kind::AlreadyExists, "the object exists")),
                Found::Nothing => {}
            }
        }
        match course.again(failure, at).await {
            Ok(()) => Ok(None),
            Err(last) => Err(last.error(at, course.attempts)),
        }
    }

    pub(super) async fn find(&self, key: &Key, id: &str, at: &At) -> Result<Found> {
        match self.examine(key, None, at).await {
            Ok((meta, written_by)) if written_by.as_deref() == Some(id) => Ok(Found::Ours(meta)),
            Ok(_) => Ok(Found::Another),
            Err(error) if error.kind == Kind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }
}
