//! An S3 server with storage classes that must be thawed. It keeps all in memory, and believes every signature.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bucket::Bucket;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::{free_port, http, install};

#[derive(Debug)]
pub struct Moto {
    pub port: u16,
    _process: Process,
    _scratch: Scratch,
}

impl Moto {
    pub fn start() -> Result<Self> {
        let (port, scratch) = (free_port()?, Scratch::new("moto")?);
        let mut moto = Command::new("python3");
        moto.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        moto.env("PYTHONPATH", install::moto()?).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut process = Process::start("moto", moto, &scratch.path().join("moto.log"))?;
        process.wait_ready(Duration::from_secs(60), || {
            http::request("GET", port, "/moto-api/data.json", "").is_ok()
        })?;
        Ok(Self { port, _process: process, _scratch: scratch })
    }

    /// The ARN of a key of its KMS.
    pub fn kms_key(&self) -> Result<String> {
        let headers = "X-Amz-Target: TrentService.CreateKey\r\nAuthorization: AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/kms/aws4_request, SignedHeaders=host, Signature=none\r\n";
        let answer = http::request_with("POST", self.port, "/", headers, "{}")?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        let arn = answer["KeyMetadata"]["Arn"].as_str().context("no ARN")?;
        Ok(arn.to_owned())
    }

    pub fn bucket(&self, name: &str) -> Result<Bucket> {
        let bucket = Bucket::at(self.port, name);
        bucket.create()?;
        Ok(bucket)
    }
}
