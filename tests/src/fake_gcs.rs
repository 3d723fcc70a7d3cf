//! A server that speaks Google Cloud Storage's JSON API. It asks nobody who they are.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::process::Process;
use crate::scratch::Scratch;
use crate::{free_port, http, install};

#[derive(Debug)]
pub(crate) struct FakeGcs {
    port: u16,
    _process: Process,
    _scratch: Scratch,
}

impl FakeGcs {
    pub(crate) fn start() -> Result<Self> {
        let (port, scratch) = (free_port()?, Scratch::new("fake-gcs")?);
        let (data, address) = (scratch.path().join("data"), format!("127.0.0.1:{port}"));
        std::fs::create_dir(&data)?;
        let mut server = Command::new(install::fake_gcs()?);
        server.args(["-scheme", "http", "-host", "127.0.0.1", "-port", &port.to_string()]);
        server.args(["-public-host", &address, "-external-url", &format!("http://{address}")]);
        server.args(["-backend", "filesystem", "-filesystem-root"]).arg(data);
        server.env("GOMAXPROCS", "2");
        let mut process =
            Process::start("fake-gcs-server", server, &scratch.path().join("fake-gcs-server.log"))?;
        process.wait_ready(Duration::from_secs(60), || {
            http::request("GET", port, "/_internal/healthcheck", "").is_ok()
        })?;
        Ok(Self { port, _process: process, _scratch: scratch })
    }

    pub(crate) fn create_bucket(&self, name: &str) -> Result<()> {
        let body = serde_json::json!({ "name": name }).to_string();
        http::request("POST", self.port, "/storage/v1/b?project=varve-tests", &body).map(drop)
    }

    /// How a store in it is opened.
    pub(crate) fn settings(&self) -> BTreeMap<String, String> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let pairs = [("gs.endpoint.url", endpoint), ("gs.auth", "anonymous".to_owned())];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
