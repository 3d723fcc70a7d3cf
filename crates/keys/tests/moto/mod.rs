//! AWS KMS for tests, by moto: the one that `VARVE_TEST_KMS_ENDPOINT` names, else one that is installed, started on
//! a free port of the loopback interface. It keeps all in memory, and believes every signature.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};

const VERSION: &str = "5.1.22";

pub(crate) struct Moto {
    pub(crate) endpoint: String,
    /// Killed when the test ends.
    started: Option<Child>,
}

impl Drop for Moto {
    fn drop(&mut self) {
        if let Some(child) = &mut self.started {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `None`, with a line that says so, where there is none to be had.
pub(crate) async fn start() -> Option<Moto> {
    if let Ok(endpoint) = std::env::var("VARVE_TEST_KMS_ENDPOINT") {
        return Some(Moto { endpoint, started: None });
    }
    let Some(mut command) = installed() else {
        let text = "no AWS KMS: VARVE_TEST_KMS_ENDPOINT is not set and moto is not installed";
        assert!(std::env::var_os("VARVE_REQUIRE_SERVERS").is_none(), "{text}");
        println!("skipped: {text}");
        return None;
    };
    let port = varve_script::free_port().unwrap();
    let child = command
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let moto = Moto { endpoint: format!("http://127.0.0.1:{port}"), started: Some(child) };
    let until = Instant::now() + Duration::from_secs(60);
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(Instant::now() < until, "moto does not become ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Some(moto)
}

/// Among the servers of the end-to-end tests.
fn installed() -> Option<Command> {
    let cache = std::env::var_os("VARVE_CACHE")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/varve")))?;
    let packages = cache.join("servers").join(format!("moto-s3---{VERSION}"));
    packages.is_dir().then(|| {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", packages);
        command
    })
}

impl Moto {
    /// Its ARN.
    pub(crate) async fn create_key(&self) -> String {
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new("eu-north-1"))
            .credentials_provider(Credentials::new("someone", "secret", None, None, "test"))
            .build();
        let made = aws_sdk_kms::Client::from_conf(config).create_key().send().await.unwrap();
        made.key_metadata.unwrap().arn.unwrap()
    }
}
