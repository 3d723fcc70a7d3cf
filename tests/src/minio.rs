//! A real S3 server.

use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use aws_sdk_s3::types::{
    BucketVersioningStatus, DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled,
    ObjectLockRetentionMode, ObjectLockRule, VersioningConfiguration,
};

use crate::bucket::{Bucket, runtime};
use crate::process::Process;
use crate::scratch::Scratch;
use crate::{free_port, http, install};

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
        let bucket = Bucket::at(self.port, name);
        bucket.create()?;
        Ok(bucket)
    }

    /// The same of a server that was resumed with this password.
    pub fn bucket_with_password(&self, name: &str, password: &str) -> Result<Bucket> {
        let bucket = Bucket::with_password(self.port, name, password);
        bucket.create()?;
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
        let bucket = Bucket::at(self.port, name);
        let call = bucket.client.create_bucket().bucket(name).object_lock_enabled_for_bucket(true);
        runtime()?.block_on(call.send())?;
        let retention = DefaultRetention::builder().mode(ObjectLockRetentionMode::Governance).days(1).build();
        let rule = ObjectLockRule::builder().default_retention(retention).build();
        let lock = ObjectLockConfiguration::builder().object_lock_enabled(ObjectLockEnabled::Enabled);
        let call = bucket.client.put_object_lock_configuration().bucket(name);
        runtime()?.block_on(call.object_lock_configuration(lock.rule(rule).build()).send())?;
        Ok(bucket)
    }
}
