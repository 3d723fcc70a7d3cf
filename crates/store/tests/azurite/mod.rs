//! A real server of Azure's Blob protocol for tests: an installed Azurite (from npm), started on a free port of the
//! loopback interface with an account of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use azure_core::time::{OffsetDateTime, to_rfc7231};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::Url;

const VERSION: &str = "3.37.0";
const ACCOUNT: &str = "varvetest";
/// Of 64 bytes, as Azure's are.
const KEY: [u8; 64] = [42; 64];

pub(crate) struct Server {
    endpoint: String,
    child: Child,
    _data: tempfile::TempDir,
}

impl Server {
    pub(crate) fn url(&self, container: &str, prefix: &str) -> String {
        format!("az://{ACCOUNT}/{container}{prefix}")
    }

    /// With the account's key.
    pub(crate) fn settings(&self) -> BTreeMap<String, String> {
        self.settings_with("az.account.key", &STANDARD.encode(KEY))
    }

    pub(crate) fn settings_with(&self, name: &str, value: &str) -> BTreeMap<String, String> {
        [("az.endpoint.url", self.endpoint.as_str()), (name, value)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    /// A signature that allows everything in a container.
    #[allow(dead_code, reason = "each test target uses a part of this module")]
    pub(crate) fn container_sas(&self, container: &str) -> String {
        let (expiry, version) = ("2099-01-01T00:00:00Z", "2022-11-02");
        let resource = format!("/blob/{ACCOUNT}/{container}");
        let text = ["racwdl", "", expiry, &resource, "", "", "", version, "c", "", "", "", "", "", "", ""];
        let signature = sign(&text.join("\n"));
        let signature: String = url::form_urlencoded::byte_serialize(signature.as_bytes()).collect();
        format!("?sv={version}&sr=c&sp=racwdl&se={}&sig={signature}", expiry.replace(':', "%3A"))
    }

    /// The store's own client makes no containers.
    pub(crate) async fn make_container(&self, container: &str) {
        let url = Url::parse(&format!("{}/{container}?restype=container", self.endpoint)).unwrap();
        let date = to_rfc7231(&OffsetDateTime::now_utc());
        let text = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2022-11-02\n\
            /{ACCOUNT}/{ACCOUNT}/{container}\nrestype:container"
        );
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let call = client.put(url).body("").header("x-ms-date", date).header("x-ms-version", "2022-11-02");
        let call = call.header("authorization", format!("SharedKey {ACCOUNT}:{}", sign(&text)));
        let answer = call.send().await.unwrap();
        let status = answer.status();
        assert!(status == 201, "making container {container}: {status} {:?}", answer.text().await);
    }
}

fn sign(text: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &KEY);
    STANDARD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server with an empty container; `None`, with a line that says so, where it is not installed.
pub(crate) async fn start(container: &str) -> Option<Server> {
    let Some(program) = installed() else {
        let text = format!("no Azure server: Azurite {VERSION} is not installed");
        assert!(std::env::var_os("VARVE_REQUIRE_SERVERS").is_none(), "{text}");
        println!("skipped: {text}");
        return None;
    };
    let data = tempfile::tempdir().unwrap();
    let port = varve_script::free_port().unwrap();
    let child = Command::new("node")
        .arg(program)
        .args(["--silent", "--disableTelemetry", "--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
        .arg("--location")
        .arg(data.path())
        .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", STANDARD.encode(KEY)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let endpoint = format!("http://127.0.0.1:{port}/{ACCOUNT}");
    let server = Server { endpoint, child, _data: data };
    let until = Instant::now() + Duration::from_secs(60);
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(Instant::now() < until, "Azurite does not become ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.make_container(container).await;
    Some(server)
}

/// Azurite's program of the Blob service alone.
fn installed() -> Option<PathBuf> {
    let cache = std::env::var_os("VARVE_CACHE")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/varve")))?;
    let folder = cache.join("servers").join(format!("azurite-{VERSION}"));
    let program = folder.join("node_modules/azurite/dist/src/blob/main.js");
    program.is_file().then_some(program)
}
