//! Whole objects in one request, and what every write has in common.

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::Inner;
use super::client::Pieces;
use super::resource::{Object, crc32c, show_crc32c};
use crate::contract::{Create, ObjectMeta, PutOptions, Result};
use crate::create::{ID_METADATA, Signed, create_once, new_id};
use crate::error::Kind;
use crate::failure::At;
use crate::key::Key;
use crate::retry::Retry;

const MEDIA_TYPE: &str = "application/octet-stream";

/// Of a create: no version may be live.
pub(super) fn precondition(create: Create) -> Option<&'static str> {
    (create == Create::IfAbsent).then_some("0")
}

impl Inner {
    /// How a new object is described.
    pub(super) fn description(&self, name: &str, id: &str, options: &PutOptions) -> Value {
        let mut about = json!({ "name": name, "contentType": MEDIA_TYPE, "metadata": { ID_METADATA: id } });
        if let Some(class) = options.storage_class.as_deref().or(self.config.storage_class.as_deref()) {
            about["storageClass"] = json!(class);
        }
        about
    }

    pub(super) async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        let at = self.at("put", key.as_str());
        let (full, id, size_bytes) = (self.full(key, &at)?, new_id(), body.len() as u64);
        if size_bytes > self.limits().max_put_bytes {
            return Err(at.error(Kind::Invalid, format!("{size_bytes} bytes are too many for one put")));
        }
        let mut about = self.description(&full, &id, options);
        about["crc32c"] = json!(show_crc32c(crc32c(&body)));
        let (boundary, head, tail) = envelope(&about.to_string());
        let query = [
            ("uploadType", Some("multipart")),
            ("ifGenerationMatch", precondition(options.create)),
            ("kmsKeyName", self.config.kms_key.as_deref()),
        ];
        let url = self.url(&format!("/upload{}/o", self.bucket_path()), &query, &at)?;
        let request = || async {
            let pieces = Pieces::new([head.clone(), body.clone(), tail.clone()]);
            let call = self.client.request(Method::POST, url.clone());
            let call = call.header(CONTENT_TYPE, format!("multipart/related; boundary={boundary}"));
            let object: Object = self.client.ask(call.body(pieces.into_body())).await?;
            Ok(object.meta(key.clone(), self.keeps_versions()))
        };
        let meta = match options.create {
            Create::Overwrite => self.retry.run(&at, size_bytes, request).await?,
            Create::IfAbsent => create_once(self, key, &id, &at, size_bytes, request).await?,
        };
        if meta.size_bytes != size_bytes {
            let detail = format!("{size_bytes} bytes were sent, the store has {}", meta.size_bytes);
            return Err(at.error(Kind::Truncated, detail));
        }
        Ok(meta)
    }
}

/// The boundary, and what stands before and after the body.
fn envelope(about: &str) -> (String, Bytes, Bytes) {
    // Random, so that no body holds it but by intent of who knew it before.
    let boundary = new_id();
    let head = format!(
        "--{boundary}\r\ncontent-type: application/json; charset=utf-8\r\n\r\n{about}\r\n\
         --{boundary}\r\ncontent-type: {MEDIA_TYPE}\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    (boundary, head.into(), tail.into())
}

#[async_trait]
impl Signed for Inner {
    fn retry(&self) -> &Retry {
        &self.retry
    }

    async fn written(&self, key: &Key, at: &At) -> Result<(ObjectMeta, Option<String>)> {
        let object = self.examine(key, None, at).await?;
        Ok((object.meta(key.clone(), self.keeps_versions()), object.written_by().map(str::to_owned)))
    }
}
