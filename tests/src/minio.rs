//! A real S3 server, and a plain S3 client to look behind the plug-in's back.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketVersioningStatus, DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled,
    ObjectLockRetentionMode, ObjectLockRule, VersioningConfiguration,
};
use tokio::runtime::Runtime;

use crate::ports::free_port;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::{http, install};

pub const USER: &str = "varve-tests";
pub const PASSWORD: &str = "not-a-secret";
pub const REGION: &str = "us-east-1";

#[derive(Debug)]
pub struct Minio {
    pub port: u16,
    process: Mutex<Option<Process>>,
    scratch: Scratch,
}

impl Minio {
    pub fn start() -> Result<Self> {
        let minio = Self { port: free_port()?, process: Mutex::new(None), scratch: Scratch::new("minio")? };
        minio.resume()?;
        Ok(minio)
    }

    /// Starts a stopped server over the same data.
    pub fn resume(&self) -> Result<()> {
        self.resume_with_password(PASSWORD)
    }

    /// Starts a stopped server that expects another secret key than its clients know.
    pub fn resume_with_password(&self, password: &str) -> Result<()> {
        let mut minio = Command::new(install::minio()?);
        minio.args(["server", "--quiet", "--address", &format!("127.0.0.1:{}", self.port)]);
        minio.arg(self.scratch.path().join("data"));
        minio.env("MINIO_ROOT_USER", USER).env("MINIO_ROOT_PASSWORD", password).env("MINIO_CI_CD", "on");
        minio.env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off").env("GOMAXPROCS", "2");
        let mut process = Process::start("MinIO", minio, &self.scratch.path().join("minio.log"))?;
        process.wait_ready(Duration::from_secs(60), || {
            http::request("GET", self.port, "/minio/health/ready", "").is_ok()
        })?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }

    /// kill -9: whoever connects is refused.
    pub fn kill(&self) {
        drop(self.process.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Makes a bucket and a client for it.
    pub fn bucket(&self, name: &str) -> Result<Bucket> {
        let bucket = self.client_of(name);
        runtime()?.block_on(bucket.client.create_bucket().bucket(name).send())?;
        Ok(bucket)
    }

    /// A bucket that keeps versions.
    pub fn versioned_bucket(&self, name: &str) -> Result<Bucket> {
        let bucket = self.bucket(name)?;
        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let call = bucket.client.put_bucket_versioning().bucket(name).versioning_configuration(enabled);
        runtime()?.block_on(call.send())?;
        Ok(bucket)
    }

    /// A bucket of which no version can be removed for a day.
    pub fn locked_bucket(&self, name: &str) -> Result<Bucket> {
        let bucket = self.client_of(name);
        let call = bucket.client.create_bucket().bucket(name).object_lock_enabled_for_bucket(true);
        runtime()?.block_on(call.send())?;
        let retention = DefaultRetention::builder().mode(ObjectLockRetentionMode::Governance).days(1).build();
        let rule = ObjectLockRule::builder().default_retention(retention).build();
        let lock = ObjectLockConfiguration::builder().object_lock_enabled(ObjectLockEnabled::Enabled);
        let call = bucket.client.put_object_lock_configuration().bucket(name);
        runtime()?.block_on(call.object_lock_configuration(lock.rule(rule).build()).send())?;
        Ok(bucket)
    }

    fn client_of(&self, name: &str) -> Bucket {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(format!("http://127.0.0.1:{}", self.port))
            .credentials_provider(Credentials::new(USER, PASSWORD, None, None, "tests"))
            .force_path_style(true)
            .build();
        Bucket { name: name.to_owned(), client: Client::from_conf(config) }
    }
}

fn runtime() -> Result<Arc<Runtime>> {
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
    client: Client,
}

impl Bucket {
    /// Keys and sizes of all objects.
    pub fn list(&self) -> Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        let mut token = None;
        loop {
            let request = self.client.list_objects_v2().bucket(&self.name).set_continuation_token(token);
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
