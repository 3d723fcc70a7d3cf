//! Secrets are planted wherever one may stand, used, and refused; then everything that was written is searched for
//! them: logs, what commands print, pages of HTTP, JMX, objects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use varve_tests::{
    Cluster, Consume, Look, Minio, Produce, Scratch, Suite, Tier, Vault, VaultMood, eventually, http_get,
    varve,
};

/// A store's secret key, a session's token, the token of a Vault, a password in a proxy's URL, one of SASL.
const CANARIES: [(&str, &str); 5] = [
    ("s3.secret.access.key", "canary-s3-eeYai3ohth"),
    ("s3.session.token", "canary-session-Ohl7ooph"),
    ("kms.vault.token", "canary-vault-ue4Beiz5"),
    ("kms.proxy.url", "canary-proxy-Eph2aeho"),
    ("sasl.password", "canary-sasl-aeV4ahgh"),
];
/// The bytes of a key-encryption key.
const RING_CANARY: [u8; 32] = *b"canary-ring-key-ieZ9ahC1ooK2eeW5";

fn canary(name: &str) -> &'static str {
    CANARIES.iter().find(|(known, _)| *known == name).map_or("", |(_, canary)| canary)
}

pub(crate) fn suite() -> Suite {
    Suite::new().test("no_secret_is_in_what_is_written", searched)
}

/// What may not hold a secret, by where it comes from.
#[derive(Default)]
struct Written(BTreeMap<String, Vec<u8>>);

impl Written {
    fn add(&mut self, from: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.insert(from.into(), bytes.into());
    }

    /// All files below, but for those in which secrets were planted.
    fn folder(&mut self, dir: &Path, planted: &[PathBuf]) -> Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                self.folder(&path, planted)?;
            } else if !planted.contains(&path) {
                self.add(path.display().to_string(), std::fs::read(&path).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Runs a command to its end, however it ends; its debug log too.
    fn command(&mut self, args: &[&str]) -> Result<()> {
        let mut command = varve()?;
        let output = command.args(args).env("VARVE_LOG", "debug").output()?;
        self.add(format!("varve {args:?}: {}", output.status), [output.stdout, output.stderr].concat());
        Ok(())
    }

    fn search(&self) -> Result<()> {
        let ring = STANDARD.encode(RING_CANARY);
        let texts = CANARIES.iter().map(|(_, canary)| canary.as_bytes());
        let sought: Vec<Vec<u8>> = texts
            .flat_map(|text| [text.to_vec(), STANDARD.encode(text).trim_end_matches('=').into()])
            .chain([RING_CANARY.to_vec(), ring.into_bytes()])
            .collect();
        let mut bytes = 0;
        for (from, written) in &self.0 {
            bytes += written.len();
            for secret in &sought {
                let found = written.windows(secret.len()).any(|window| window == secret);
                ensure!(!found, "{from} holds {:?}", String::from_utf8_lossy(secret));
            }
        }
        println!("{} places with {bytes} bytes hold none of {} secrets", self.0.len(), sought.len());
        Ok(())
    }
}

fn searched() -> Result<()> {
    let scratch = Scratch::new("canaries")?;
    let minio = Minio::start()?;
    minio.kill();
    minio.resume_with_password(canary("s3.secret.access.key"))?;
    let vault = Vault::start(canary("kms.vault.token"))?;
    let ring = scratch.path().join("ring.json");
    let text = format!(r#"{{"active": "one", "keys": {{"one": "{}"}}}}"#, STANDARD.encode(RING_CANARY));
    std::fs::write(&ring, text)?;
    let bucket = minio.bucket_with_password("tier", canary("s3.secret.access.key"))?;
    let tier =
        Tier::S3 { bucket, prefix: "tier".to_owned(), endpoint: format!("http://127.0.0.1:{}", minio.port) };
    let cluster = Cluster::builder()
        .tier(&tier)
        .rsm("s3.secret.access.key", canary("s3.secret.access.key"))
        .rsm("s3.timeout.ms", 3_000)
        .rsm("s3.max.attempts", 2)
        .rsm("log.level", "debug")
        .rsm("encryption.enabled", "true")
        .rsm("encryption.key", vault.key("brokers"))
        .rsm("encryption.key.ring.file", ring.display())
        .rsm("encryption.key.cache.ms", 2_000)
        .rsm("rules.ring.topics", "ring-.*")
        .rsm("rules.ring.encryption.key", "ring:one")
        .rsm("kms.vault.token", canary("kms.vault.token"))
        .rsm("kms.timeout.ms", 1_500)
        .rsm("kms.max.attempts", 2)
        .start()?;
    let mut written = Written::default();
    used(&cluster, &vault, &minio)?;
    let archive = archived(&scratch, &cluster, &minio, &vault, &ring, &mut written)?;
    commands(&scratch, &cluster, &tier, &archive, &minio, &ring, &mut written)?;

    for (key, _) in tier.list()? {
        written.add(format!("object {key}"), tier.read(&key)?);
    }
    written.add("JMX", beans(cluster.broker().pid().context("no broker")?)?);
    let planted = [ring, archive, scratch.path().join("store.properties"), scratch.path().join("bad.yaml")];
    written.folder(scratch.path(), &planted)?;
    let configured: Vec<PathBuf> =
        cluster.logs().iter().map(|log| log.with_file_name("server.properties")).collect();
    for log in cluster.logs() {
        written.folder(log.parent().context("a log without a folder")?, &configured)?;
    }
    written.search()
}

fn beans(pid: u32) -> Result<Vec<u8>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/java/Beans.java");
    let mut java = Command::new("java");
    let output = java.args(["--add-modules", "jdk.attach"]).arg(source).arg(pid.to_string()).output()?;
    let ours = output.stdout.windows(8).any(|window| window == b"io.varve");
    ensure!(output.status.success() && ours, "{}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Tiers and reads; then key service and store say no, are away, and come back.
fn used(cluster: &Cluster, vault: &Vault, minio: &Minio) -> Result<()> {
    let kafka = cluster.client();
    for topic in ["vault-a", "ring-a"] {
        kafka.create_tiered_topic(topic, 1, &[])?;
        kafka.produce(topic, &Produce { count: 3_000, ..Produce::default() })?;
        cluster.wait_tiered(topic, 0)?;
        kafka.consume_all(topic)?;
    }
    let some = Consume { timeout_ms: 5_000, check_crcs: false, ..Consume::default() };
    for mood in [VaultMood::SaysNo, VaultMood::Silent, VaultMood::Fair] {
        vault.set(mood);
        std::thread::sleep(Duration::from_secs(3));
        kafka.produce("vault-a", &Produce { count: 1_000, seed: 2, ..Produce::default() })?;
        kafka.consume("vault-a", &some)?;
    }
    minio.kill();
    minio.resume_with_password("another-secret")?;
    kafka.produce("ring-a", &Produce { count: 2_000, seed: 2, ..Produce::default() })?;
    cluster.wait_logged(0, &["copying", "ring-a", "denied"])?;
    kafka.consume("ring-a", &some)?;
    minio.kill();
    minio.resume_with_password(canary("s3.secret.access.key"))?;
    cluster.wait_tiered("ring-a", 0).map(drop)
}

/// An archiver with all of them in its file, asked over HTTP, which ends well.
fn archived(
    scratch: &Scratch,
    cluster: &Cluster,
    minio: &Minio,
    vault: &Vault,
    ring: &Path,
    written: &mut Written,
) -> Result<PathBuf> {
    minio.bucket_with_password("archive", canary("s3.secret.access.key"))?;
    let config = scratch.path().join("archive.yaml");
    let port = varve_tests::free_port()?;
    let text = format!(
        "source: {{ bootstrap.servers: \"{}\" }}\n\
         archive:\n  url: s3://archive/a\n  s3.endpoint.url: http://127.0.0.1:{}\n  s3.region: us-east-1\n  \
         s3.path.style: \"true\"\n  s3.access.key.id: {}\n  s3.secret.access.key: {}\n\
         topics: {{ include: [\"*\"] }}\nmetrics: {{ listen: \"127.0.0.1:{port}\" }}\n\
         encryption:\n  topics: [\"*\"]\n  key: {}\n  key.ring.file: {}\n  kms.vault.token: {}\n",
        cluster.bootstrap(),
        minio.port,
        varve_tests::MINIO_USER,
        canary("s3.secret.access.key"),
        vault.key("archiver"),
        ring.display(),
        canary("kms.vault.token"),
    );
    std::fs::write(&config, text)?;
    let path = config.display().to_string();
    written.command(&["config", "check", &path])?;
    written.command(&[
        "config",
        "check",
        &path,
        "--set",
        &format!("source.sasl.password={}", canary("sasl.password")),
    ])?;
    written.command(&["archive", "run", "-c", &path, "--once", "--json"])?;
    let log = scratch.path().join("archiver.log");
    let mut run = varve()?;
    run.args(["archive", "run", "-c", &path]).env("VARVE_LOG", "debug");
    let running = varve_tests::Running::begin(run, &log)?;
    eventually("the archiver answers", Duration::from_secs(120), || {
        let answer = http_get(port, "/readyz");
        Ok(Look::when(answer.as_ref().is_ok_and(|(status, ..)| *status == 200), (), format!("{answer:?}")))
    })?;
    vault.set(VaultMood::SaysNo);
    for page in ["/metrics", "/status", "/healthz", "/readyz", "/nothing"] {
        let (status, head, body) = http_get(port, page)?;
        written.add(format!("{page}: {status}"), format!("{head}\n{body}"));
    }
    vault.set(VaultMood::Fair);
    drop(running);
    Ok(config)
}

/// With right secrets, wrong ones, and secrets where none belongs.
fn commands(
    scratch: &Scratch,
    cluster: &Cluster,
    tier: &Tier,
    archive: &Path,
    minio: &Minio,
    ring: &Path,
    written: &mut Written,
) -> Result<()> {
    let file = scratch.path().join("store.properties");
    let mut lines: Vec<String> = tier
        .rsm_config()
        .into_iter()
        .filter(|(name, _)| name.starts_with("s3.") && name != "s3.secret.access.key")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    lines.push(format!("s3.secret.access.key={}", canary("s3.secret.access.key")));
    std::fs::write(&file, lines.join("\n"))?;
    let (file, ring) = (file.display().to_string(), ring.display().to_string());
    let token = format!("s3.session.token={}", canary("s3.session.token"));
    let key = format!("kms.vault.token={}", canary("kms.vault.token"));
    let proxy = format!("kms.proxy.url=http://me:{}@127.0.0.1:1", canary("kms.proxy.url"));
    let endpoint = format!("s3.endpoint.url=http://me:{}@127.0.0.1:{}", canary("kms.proxy.url"), minio.port);
    let store = ["--store-config-file", file.as_str()];
    let in_url = format!("s3://me:{}@archive/a", canary("kms.proxy.url"));
    let asked = format!("s3://archive/a?sig={}", canary("s3.session.token"));
    let kek = format!("vault://me:{}@v/transit/k", canary("kms.vault.token"));
    let lines: [&[&str]; 12] = [
        &["verify", "s3://archive/a"],
        &["verify", "s3://archive/a", "--key-ring", &ring],
        &["verify", "s3://archive/a", "--store-config", &token],
        &["ls", &in_url],
        &["ls", &asked],
        &["verify", "s3://archive/a", "--store-config", &endpoint],
        &["verify", "s3://archive/a", "--kek", &kek],
        &[
            "verify",
            "s3://archive/a",
            "--kek",
            "vault://vault.invalid/transit/k",
            "--key-config",
            &key,
            "--key-config",
            &proxy,
        ],
        &["keys", "audit", "s3://archive/a", "--key-ring", &ring, "--try"],
        &["keys", "audit", "s3://tier/tier", "--key-ring", &ring, "--key-config", &key, "--try"],
        &["store", "check", "s3://nowhere/x", "--store-config", &token],
        &["restore", "--from", "s3://archive/a", "--to", "127.0.0.1:1", "--key-ring", &ring, "--dry-run"],
    ];
    for line in lines {
        written.command(&[line, &store].concat())?;
    }
    let bad = scratch.path().join("bad.yaml");
    let text = std::fs::read_to_string(archive)?.replace("key.ring.file", "key.rnig.file");
    std::fs::write(&bad, text.replace("  key: ", &format!("  key: {}:", canary("kms.vault.token"))))?;
    written.command(&["config", "check", &bad.display().to_string()])?;
    written.command(&[
        "tier",
        "scrub",
        "--bootstrap-server",
        &cluster.bootstrap(),
        "--store-url",
        "s3://tier/tier",
        "--store-config",
        &token,
    ])
}
