//! A real S3 server for tests: the one that `VARVE_TEST_S3_ENDPOINT` names (with `VARVE_TEST_S3_ACCESS_KEY` and
//! `VARVE_TEST_S3_SECRET_KEY`), else an installed MinIO, started on a free port of the loopback interface.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

const VERSION: &str = "v0.0.0-20260212201848-7aac2a2c5b7c";

pub(crate) struct Server {
    endpoint: String,
    access: String,
    secret: String,
    /// Killed with its directory when the test ends.
    started: Option<(Child, tempfile::TempDir)>,
}

impl Server {
    pub(crate) fn settings(&self) -> BTreeMap<String, String> {
        [
            ("s3.endpoint.url", self.endpoint.as_str()),
            ("s3.region", "us-east-1"),
            ("s3.path.style", "true"),
            ("s3.access.key.id", &self.access),
            ("s3.secret.access.key", &self.secret),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Process id of the server, where the test started it.
    #[allow(dead_code, reason = "each test target uses a part of this module")]
    pub(crate) fn pid(&self) -> Option<u32> {
        self.started.as_ref().map(|(child, _)| child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.started {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a server with an empty bucket; `None`, with a line that says so, where there is none to be had.
pub(crate) async fn start(bucket: &str) -> Option<Server> {
    if let Ok(endpoint) = std::env::var("VARVE_TEST_S3_ENDPOINT") {
        let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| "minioadmin".to_owned());
        let (access, secret) = (variable("VARVE_TEST_S3_ACCESS_KEY"), variable("VARVE_TEST_S3_SECRET_KEY"));
        let server = Server { endpoint, access, secret, started: None };
        make_bucket(&server, bucket).await;
        return Some(server);
    }
    let Some(binary) = installed() else {
        let text = "no S3 server: VARVE_TEST_S3_ENDPOINT is not set and MinIO is not installed";
        assert!(std::env::var_os("VARVE_REQUIRE_SERVERS").is_none(), "{text}");
        println!("skipped: {text}");
        return None;
    };
    let data = tempfile::tempdir().unwrap();
    let port = varve_script::free_port().unwrap();
    let (access, secret) = ("varve-test".to_owned(), "varve-test-secret".to_owned());
    let child = Command::new(binary)
        .args([
            "server",
            "--quiet",
            "--address",
            &format!("127.0.0.1:{port}"),
            "--console-address",
            "127.0.0.1:0",
        ])
        .arg(data.path())
        .env("MINIO_ROOT_USER", &access)
        .env("MINIO_ROOT_PASSWORD", &secret)
        .env("MINIO_BROWSER", "off")
        .env("MINIO_UPDATE", "off")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let endpoint = format!("http://127.0.0.1:{port}");
    let server = Server { endpoint, access, secret, started: Some((child, data)) };
    let until = Instant::now() + Duration::from_secs(60);
    while !ready(port).await {
        assert!(Instant::now() < until, "MinIO does not become ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    make_bucket(&server, bucket).await;
    Some(server)
}

fn installed() -> Option<PathBuf> {
    let cache = std::env::var_os("VARVE_CACHE")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/varve")))?;
    let binary = cache.join("servers").join(format!("minio-{VERSION}")).join("minio");
    binary.is_file().then_some(binary)
}

async fn ready(port: u16) -> bool {
    let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let request = "GET /minio/health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).await.is_ok()
        && stream.read_to_string(&mut answer).await.is_ok()
        && answer.starts_with("HTTP/1.0 200")
}

/// The store's own client makes no buckets: the SDK does.
fn client(server: &Server) -> aws_sdk_s3::Client {
    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};

    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(&server.endpoint)
        .region(Region::new("us-east-1"))
        .force_path_style(true)
        .credentials_provider(Credentials::new(&server.access, &server.secret, None, None, "test"))
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

async fn make_bucket(server: &Server, bucket: &str) {
    let made = client(server).create_bucket().bucket(bucket).send().await;
    if let Err(error) = made {
        let known = error.as_service_error().is_some_and(|error| error.is_bucket_already_owned_by_you());
        assert!(known, "making bucket {bucket}: {error:?}");
    }
}

/// A bucket that keeps versions.
#[allow(dead_code, reason = "each test target uses a part of this module")]
pub(crate) async fn make_versioned_bucket(server: &Server, bucket: &str) {
    use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};

    make_bucket(server, bucket).await;
    let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    let call = client(server).put_bucket_versioning().bucket(bucket).versioning_configuration(enabled);
    call.send().await.unwrap();
}

/// A bucket under an object lock: each version may not be removed for a day.
#[allow(dead_code, reason = "each test target uses a part of this module")]
pub(crate) async fn make_locked_bucket(server: &Server, bucket: &str) {
    use aws_sdk_s3::types::{
        DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockRetentionMode, ObjectLockRule,
    };

    let client = client(server);
    let call = client.create_bucket().bucket(bucket).object_lock_enabled_for_bucket(true);
    call.send().await.unwrap();
    let retention = DefaultRetention::builder().mode(ObjectLockRetentionMode::Governance).days(1).build();
    let rule = ObjectLockRule::builder().default_retention(retention).build();
    let lock = ObjectLockConfiguration::builder().object_lock_enabled(ObjectLockEnabled::Enabled).rule(rule);
    let call = client.put_object_lock_configuration().bucket(bucket);
    call.object_lock_configuration(lock.build()).send().await.unwrap();
}

/// Tries to remove one version for good.
#[allow(dead_code, reason = "each test target uses a part of this module")]
pub(crate) async fn remove_version(server: &Server, bucket: &str, key: &str, version: &str) -> bool {
    client(server).delete_object().bucket(bucket).key(key).version_id(version).send().await.is_ok()
}
