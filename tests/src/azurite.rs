//! A server that speaks Azure Blob Storage's protocol: Microsoft's own emulator.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::form_urlencoded::byte_serialize;

use crate::process::Process;
use crate::scratch::Scratch;
use crate::{free_port, http, install};

/// Protects nothing.
const KEY: &[u8] = b"varve tests: this key protects nothing, and is known to everybody";
/// The last that signs an account's signature without the scope of its encryption.
const VERSION: &str = "2019-12-12";
const EXPIRY: &str = "2099-01-01T00:00:00Z";

#[derive(Debug)]
pub(crate) struct Azurite {
    port: u16,
    _process: Process,
    _scratch: Scratch,
}

impl Azurite {
    pub(crate) const ACCOUNT: &str = "varvetest";

    pub(crate) fn start() -> Result<Self> {
        let (port, scratch) = (free_port()?, Scratch::new("azurite")?);
        let mut azurite = Command::new("node");
        azurite.arg(install::azurite()?.join("node_modules/azurite/dist/src/blob/main.js"));
        azurite.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--location"]);
        azurite.arg(scratch.path().join("data")).args(["--silent", "--disableTelemetry"]);
        azurite.env("AZURITE_ACCOUNTS", format!("{}:{}", Self::ACCOUNT, STANDARD.encode(KEY)));
        let mut process = Process::start("Azurite", azurite, &scratch.path().join("azurite.log"))?;
        // Whatever it answers to a request without a signature.
        process.wait_ready(Duration::from_secs(60), || http::http_get(port, "/").is_ok())?;
        Ok(Self { port, _process: process, _scratch: scratch })
    }

    pub(crate) fn create_container(&self, name: &str) -> Result<()> {
        let path = format!("/{}/{name}?restype=container&{}", Self::ACCOUNT, signature());
        http::request("PUT", self.port, &path, "").map(drop)
    }

    /// How a store of the account is opened.
    pub(crate) fn settings(&self) -> BTreeMap<String, String> {
        let endpoint = format!("http://127.0.0.1:{}/{}", self.port, Self::ACCOUNT);
        let pairs = [("az.endpoint.url", endpoint), ("az.account.key", STANDARD.encode(KEY))];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The parameters of a shared access signature of the account, for all that can be done with blobs.
pub fn signature() -> String {
    let signed = [Azurite::ACCOUNT, "rwdlac", "b", "sco", "", EXPIRY, "", "http", VERSION, ""].join("\n");
    let mac = STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), signed.as_bytes()));
    let mac: String = byte_serialize(mac.as_bytes()).collect();
    format!("sv={VERSION}&ss=b&srt=sco&sp=rwdlac&se={EXPIRY}&spr=http&sig={mac}")
}
