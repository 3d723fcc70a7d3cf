//! What the tests run, and where it comes from: Go's module proxy, Maven Central, PyPI and npm, at pinned versions.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{KAFKA_VERSION, cache};

const MINIO_VERSION: &str = "v0.0.0-20260212201848-7aac2a2c5b7c";
const TOXIPROXY_VERSION: &str = "v2.12.0";
const FAKE_GCS_VERSION: &str = "v1.56.1";
const AZURITE_VERSION: &str = "3.37.0";

/// Since 5.2 it names the answer to GetBucketVersioning otherwise than S3, and its SDK refuses it.
const MOTO: &str = "moto[s3]==5.1.22";
/// What serves it over HTTP.
const MOTO_SERVER: [&str; 2] = ["flask==3.1.3", "flask-cors==6.0.5"];

/// A server that can't be installed here. Tests that need it are skipped, unless `VARVE_REQUIRE_SERVERS` is set.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what} cannot be installed: {why}")]
pub struct Unavailable {
    pub what: String,
    pub why: String,
}

fn available<T>(what: &str, installed: Result<T>) -> Result<T> {
    installed.map_err(|error| Unavailable { what: what.to_owned(), why: format!("{error:#}") }.into())
}

/// The MinIO binary. AGPL-3.0: run as a process of its own, never linked or shipped.
pub(crate) fn minio() -> Result<PathBuf> {
    let dir = cache::ensure(&format!("servers/minio-{MINIO_VERSION}"), |dir| {
        go_install(dir, "github.com/minio/minio", MINIO_VERSION, "minio")
    });
    Ok(available("MinIO", dir)?.join("minio"))
}

/// The fake-gcs-server binary.
pub(crate) fn fake_gcs() -> Result<PathBuf> {
    let dir = cache::ensure(&format!("servers/fake-gcs-{FAKE_GCS_VERSION}"), |dir| {
        go_install(dir, "github.com/fsouza/fake-gcs-server", FAKE_GCS_VERSION, "fake-gcs-server")
    });
    Ok(available("fake-gcs-server", dir)?.join("fake-gcs-server"))
}

/// A folder with Azurite in its `node_modules`.
pub(crate) fn azurite() -> Result<PathBuf> {
    let dir = cache::ensure(&format!("servers/azurite-{AZURITE_VERSION}"), |dir| {
        let mut npm = Command::new("npm");
        // What packages would run at their installation is not needed, and not run.
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
        run(npm.arg(dir).arg(format!("azurite@{AZURITE_VERSION}")))
    });
    available("Azurite", dir)
}

/// What unit tests want to find, and don't install themselves.
pub fn install_for_unit_tests() -> Result<()> {
    minio()?;
    fake_gcs()?;
    moto()?;
    azurite().map(drop)
}

pub(crate) fn toxiproxy() -> Result<PathBuf> {
    let dir = cache::ensure(&format!("servers/toxiproxy-{TOXIPROXY_VERSION}"), |dir| {
        go_install(dir, "github.com/Shopify/toxiproxy/v2/cmd/server", TOXIPROXY_VERSION, "toxiproxy-server")
    });
    Ok(available("toxiproxy", dir)?.join("toxiproxy-server"))
}

/// A folder of Python's packages.
pub(crate) fn moto() -> Result<PathBuf> {
    let name = MOTO.replace(['[', ']', '='], "-");
    let dir = cache::ensure(&format!("servers/{name}"), |dir| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(dir);
        run(pip.arg(MOTO).args(MOTO_SERVER))
    });
    available("moto", dir)
}

/// A Schema Registry over franz-go's package: `tests/registry/`.
pub(crate) fn registry() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("registry");
    let mut text = Vec::new();
    for file in ["main.go", "import.go", "go.mod", "go.sum"] {
        text.extend(std::fs::read(source.join(file))?);
    }
    // The name follows from the source, so an edited server is built anew.
    let dir = cache::ensure(&format!("servers/registry-{:016x}", fingerprint(&text)), |dir| {
        let mut go = Command::new("go");
        go.current_dir(&source).args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(dir).arg(".");
        go.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOFLAGS", "-buildvcs=false");
        run(&mut go)
    });
    Ok(available("the Schema Registry", dir)?.join("registry"))
}

fn go_install(into: &Path, package: &str, version: &str, binary: &str) -> Result<()> {
    let mut go = Command::new("go");
    go.args(["install", "-trimpath", "-ldflags", "-s -w"]).arg(format!("{package}@{version}"));
    go.env("GOBIN", into)
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-buildvcs=false");
    run(&mut go)?;
    // Go names the binary after the package's last element.
    let built = std::fs::read_dir(into)?.next().context("go install left no binary")??.path();
    std::fs::rename(built, into.join(binary))?;
    Ok(())
}

/// The folder with all jars of a broker.
pub fn kafka_jars(version: &str) -> Result<PathBuf> {
    let dir = cache::ensure(&format!("jars/kafka-{version}"), |dir| {
        let root = workspace_root()?;
        let project_cache = cache::root()?.join("gradle-project");
        let mut gradle = Command::new("gradle");
        gradle.current_dir(root).args(["-q", "--no-daemon", "--project-cache-dir"]).arg(&project_cache);
        gradle
            .arg("resolveKafka")
            .arg(format!("-PkafkaVersion={version}"))
            .arg(format!("-Pinto={}", dir.display()));
        gradle.env("VARVE_GRADLE_BUILD", cache::root()?.join("gradle-build"));
        run(&mut gradle)
    });
    available(&format!("Kafka {version}"), dir)
}

/// The class path of a broker's jars, with one SLF4J binding.
pub fn kafka_class_path(version: &str) -> Result<String> {
    let mut jars = Vec::new();
    for entry in std::fs::read_dir(kafka_jars(version)?)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".jar") && !name.starts_with("slf4j-reload4j") && !name.starts_with("log4j-slf4j") {
            jars.push(path.display().to_string());
        }
    }
    ensure!(!jars.is_empty(), "no jars of Kafka {version} in the cache");
    jars.sort();
    Ok(jars.join(":"))
}

/// The compiled driver's class path. It always runs on one version's clients, whatever the brokers' version.
pub(crate) fn driver_class_path() -> Result<String> {
    let kafka = kafka_class_path(KAFKA_VERSION)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("driver");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&source)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    let mut text = Vec::new();
    for file in &files {
        text.extend(std::fs::read(file)?);
    }
    // The name follows from the source, so an edited driver is compiled anew.
    let classes = cache::ensure(&format!("driver/{KAFKA_VERSION}-{:016x}", fingerprint(&text)), |dir| {
        let mut javac = Command::new("javac");
        javac
            .args(["--release", "17", "-Xlint:all,-processing,-options", "-Werror", "-cp", &kafka, "-d"])
            .arg(dir);
        run(javac.args(&files))
    })?;
    Ok(format!("{}:{kafka}", classes.display()))
}

/// FNV-1a: stable from build to build, which the standard library's hasher doesn't promise.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The plug-in: `$VARVE_RSM_JAR`, or what `cargo xtask dist` left in the target folder.
pub fn rsm_jar() -> Result<PathBuf> {
    if let Some(jar) = std::env::var_os("VARVE_RSM_JAR") {
        return Ok(jar.into());
    }
    let mut candidates = vec![workspace_root()?.join("target/dist/varve-rsm.jar")];
    candidates.extend(
        std::env::var_os("CARGO_TARGET_DIR").map(|dir| PathBuf::from(dir).join("dist/varve-rsm.jar")),
    );
    match candidates.iter().find(|jar| jar.is_file()) {
        Some(jar) => Ok(jar.clone()),
        None => {
            bail!("no varve-rsm.jar at {candidates:?}: run `cargo xtask dist` first, or set VARVE_RSM_JAR")
        }
    }
}

fn workspace_root() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("tests/ is in a workspace")?.to_owned())
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{name} ended with {}:\n{}", output.status, String::from_utf8_lossy(&said));
    }
    Ok(())
}
