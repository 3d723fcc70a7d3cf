//! The shim's own check, without its native half, under the jars of each supported broker.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use varve_tests::{KAFKA_VERSIONS, Scratch, Suite, kafka_class_path};

fn main() -> ExitCode {
    let mut suite = Suite::new();
    for version in KAFKA_VERSIONS {
        suite = suite.test(&format!("shim_on_kafka_{version}"), move || check(version));
    }
    suite.run()
}

/// Compiled against the very version it then runs on, so that what one of them lacks is seen either way.
fn check(version: &str) -> Result<()> {
    let scratch = Scratch::new("shim")?;
    let jars = kafka_class_path(version)?;
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rsm-java-shim/src");
    let mut javac = Command::new("javac");
    javac
        .args(["--release", "17", "-Xlint:all,-processing,-options", "-Werror", "-cp", &jars, "-d"])
        .arg(scratch.path());
    run(javac
        .args(sources(&shim.join("main/java/io/varve/kafka"))?)
        .args(sources(&shim.join("test/java/io/varve/kafka"))?))?;
    let mut java = Command::new("java");
    let said = run(java
        .arg("-cp")
        .arg(format!("{}:{jars}", scratch.path().display()))
        .arg("io.varve.kafka.ShimCheck"))?;
    let expected = if version < "4.2" { "absent" } else { "present" };
    ensure!(said.contains(&format!("retriable exception {expected}")), "{said}");
    Ok(())
}

fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "java"));
    files.sort();
    Ok(files)
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
    Ok(said)
}
