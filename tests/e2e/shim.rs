//! The shim's own checks under the jars of each supported broker: without its native half, then as the jar.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use varve_tests::{KAFKA_VERSIONS, Scratch, Suite, kafka_class_path, rsm_jar};

pub(crate) fn suite() -> Suite {
    let mut suite = Suite::new();
    for version in KAFKA_VERSIONS {
        suite = suite.test(&format!("shim_on_kafka_{version}"), move || check(version));
        suite = suite.test(&format!("jar_on_kafka_{version}"), move || check_jar(version));
    }
    suite
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

/// The JVM itself watches the border (`-Xcheck:jni`), and would name each misuse.
fn check_jar(version: &str) -> Result<()> {
    let scratch = Scratch::new("jar")?;
    let (jars, jar) = (kafka_class_path(version)?, rsm_jar()?);
    let (classes, data) = (scratch.path().join("classes"), scratch.path().join("data"));
    let test = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rsm-java-shim/src/test/java/io/varve/kafka");
    let class_path = format!("{}:{jars}", jar.display());
    let mut javac = Command::new("javac");
    javac
        .args(["--release", "17", "-cp", &class_path, "-d"])
        .arg(&classes)
        .arg(test.join("NativeCheck.java"));
    run(&mut javac)?;
    let mut java = Command::new("timeout");
    java.args(["120", "java", "-Xcheck:jni", "-cp"]).arg(format!("{}:{class_path}", classes.display()));
    let said = run(java.arg("io.varve.kafka.NativeCheck").arg(&data).arg(&jar))?;
    ensure!(said.contains("NativeCheck: passed") && !said.contains("WARNING in native method"), "{said}");
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
