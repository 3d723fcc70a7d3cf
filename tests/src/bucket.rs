//! A plain S3 client, to look behind the product's back.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{RestoreRequest, StorageClass};
use tokio::runtime::Runtime;

use crate::minio::{PASSWORD, REGION, USER};

pub(crate) fn runtime() -> Result<Arc<Runtime>> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(Arc::clone(runtime));
    }
    let fresh = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    Ok(Arc::clone(RUNTIME.get_or_init(|| Arc::new(fresh))))
}

#[derive(Clone, Debug)]
pub struct Bucket {
    pub name: String,
    pub(crate) client: Client,
}

impl Bucket {
    /// Of a server on loopback.
    pub(crate) fn at(port: u16, name: &str) -> Self {
        Self::with_password(port, name, PASSWORD)
    }

    pub(crate) fn with_password(port: u16, name: &str, password: &str) -> Self {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .credentials_provider(Credentials::new(USER, password, None, None, "tests"))
            .force_path_style(true)
            .build();
        Self { name: name.to_owned(), client: Client::from_conf(config) }
    }

    pub fn create(&self) -> Result<()> {
        let request = self.client.create_bucket().bucket(&self.name);
        runtime()?.block_on(request.send()).map(drop).map_err(Into::into)
    }

    /// Moves an object into a storage class.
    pub fn set_class(&self, key: &str, class: StorageClass) -> Result<()> {
        let request = self.client.copy_object().bucket(&self.name).key(key);
        let request = request.copy_source(format!("{}/{key}", self.name)).storage_class(class);
        runtime()?.block_on(request.send()).map(drop).map_err(Into::into)
    }

    /// Has an object that is in a cold class readable for a day.
    pub fn thaw(&self, key: &str) -> Result<()> {
        let for_a_day = RestoreRequest::builder().days(1).build();
        let request = self.client.restore_object().bucket(&self.name).key(key).restore_request(for_a_day);
        runtime()?.block_on(request.send()).map(drop).map_err(Into::into)
    }

    /// Keys and sizes of all objects.
    pub fn list(&self) -> Result<BTreeMap<String, u64>> {
        self.list_prefix("")
    }

    /// Of those whose keys begin so.
    pub fn list_prefix(&self, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        let mut token = None;
        loop {
            let request = self.client.list_objects_v2().bucket(&self.name).prefix(prefix);
            let request = request.set_continuation_token(token);
            let page = runtime()?.block_on(request.send())?;
            for object in page.contents() {
                let size = object.size().unwrap_or_default().cast_unsigned();
                all.insert(object.key().context("an object without a key")?.to_owned(), size);
            }
            token = page.next_continuation_token().map(str::to_owned);
            if token.is_none() {
                return Ok(all);
            }
        }
    }

    /// Lets anyone read and write without a signature: for the least client there can be.
    pub fn open_to_all(&self) -> Result<()> {
        let policy = serde_json::json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"AWS": ["*"]},
            "Action": ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
            "Resource": [format!("arn:aws:s3:::{}/*", self.name)],
        }]});
        let request = self.client.put_bucket_policy().bucket(&self.name).policy(policy.to_string());
        runtime()?.block_on(request.send()).map(drop).map_err(Into::into)
    }

    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        runtime()?.block_on(async {
            let object = self.client.get_object().bucket(&self.name).key(key).send().await?;
            Ok(object.body.collect().await?.to_vec())
        })
    }

    pub fn put(&self, key: &str, body: Vec<u8>) -> Result<()> {
        let request = self.client.put_object().bucket(&self.name).key(key).body(ByteStream::from(body));
        runtime()?.block_on(request.send()).map(drop).map_err(Into::into)
    }

    pub fn delete(&self, key: &str) -> Result<()> {
        let request = self.client.delete_object().bucket(&self.name).key(key);
        runtime()?.block_on(request.send()).map(drop).map_err(Into::into)
    }

    /// Uploads that were begun and neither completed nor aborted. MinIO lists them by exact key only, so this
    /// asks for each of `keys`.
    pub fn uploads(&self, keys: &[String]) -> Result<Vec<String>> {
        let mut pending = Vec::new();
        for key in keys {
            let request = self.client.list_multipart_uploads().bucket(&self.name).prefix(key);
            let page = runtime()?.block_on(request.send())?;
            pending.extend(page.uploads().iter().filter_map(|upload| upload.key().map(str::to_owned)));
        }
        Ok(pending)
    }
}
