//! A server that speaks Cloud Storage's JSON API, for tests: the one that `VARVE_TEST_GCS_ENDPOINT` names, else an
//! installed fake-gcs-server, started on a free port of the loopback interface. It keeps all in memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

const VERSION: &str = "v1.56.1";

pub(crate) struct Server {
    /// Host and port.
    address: String,
    /// Killed when the test ends.
    started: Option<Child>,
}

impl Server {
    pub(crate) fn settings(&self) -> BTreeMap<String, String> {
        let endpoint = format!("http://{}", self.address);
        [("gs.endpoint.url", endpoint.as_str()), ("gs.auth", "anonymous")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.started {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a server with an empty bucket; `None`, with a line that says so, where there is none to be had.
pub(crate) async fn start(bucket: &str) -> Option<Server> {
    if let Ok(endpoint) = std::env::var("VARVE_TEST_GCS_ENDPOINT") {
        let address = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let server = Server { address, started: None };
        make_bucket(&server, bucket, false).await;
        return Some(server);
    }
    let Some(binary) = installed() else {
        let text = "no GCS server: VARVE_TEST_GCS_ENDPOINT is not set and fake-gcs-server is not installed";
        assert!(std::env::var_os("VARVE_REQUIRE_SERVERS").is_none(), "{text}");
        println!("skipped: {text}");
        return None;
    };
    let port = varve_script::free_port().unwrap();
    let address = format!("127.0.0.1:{port}");
    let child = Command::new(binary)
        .args(["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-log-level", "error"])
        .args(["-port", &port.to_string(), "-public-host", &address])
        .args(["-external-url", &format!("http://{address}"), "-data", ""])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { address, started: Some(child) };
    let until = Instant::now() + Duration::from_secs(60);
    while ask(&server, "GET", "/_internal/healthcheck", "").await.is_none_or(|status| status != 200) {
        assert!(Instant::now() < until, "fake-gcs-server does not become ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    make_bucket(&server, bucket, false).await;
    Some(server)
}

fn installed() -> Option<PathBuf> {
    let cache = std::env::var_os("VARVE_CACHE")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/varve")))?;
    let binary = cache.join("servers").join(format!("fake-gcs-{VERSION}")).join("fake-gcs-server");
    binary.is_file().then_some(binary)
}

/// The store's own client makes no buckets.
pub(crate) async fn make_bucket(server: &Server, bucket: &str, versioned: bool) {
    let about = format!(r#"{{"name":"{bucket}","versioning":{{"enabled":{versioned}}}}}"#);
    let status = ask(server, "POST", "/storage/v1/b?project=test", &about).await;
    assert!(matches!(status, Some(200 | 409)), "making bucket {bucket}: {status:?}");
}

async fn ask(server: &Server, method: &str, path: &str, body: &str) -> Option<u16> {
    let mut stream = tokio::net::TcpStream::connect(&server.address).await.ok()?;
    let (host, length) = (&server.address, body.len());
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).await.ok()?;
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}
