//! A test program, as Cargo tells of it when it has built it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::workspace::cargo;

/// All that start servers.
const END_TO_END: &str = "e2e";
/// Those that take longest, longest first: a lane that begins one of them last is alone for minutes.
const LONG: [&str; 9] = [
    "cluster_state",
    "archive_service",
    "segment_files",
    "three_brokers",
    "kafka_admin",
    "archive_faults",
    "archive_import",
    "archive_once",
    "restore",
];

#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: String,
    executable: PathBuf,
    /// Of a program of several: which one.
    suite: Option<String>,
    /// Where Cargo runs it.
    dir: PathBuf,
}

/// Builds all of them: those that start servers, and those that do not.
pub(super) fn build() -> Result<(Vec<Program>, Vec<Program>)> {
    let mut build = cargo();
    build.args(["test", "--quiet", "--release", "--workspace", "--no-run"]);
    let mut child = build.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped()).spawn()?;
    let (mut with_servers, mut alone): (Vec<Program>, Vec<Program>) = (Vec::new(), Vec::new());
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let message = serde_json::from_str(&line?).context("what Cargo told of an artifact")?;
        let Some(program) = told(&message) else { continue };
        if program.name == END_TO_END { &mut with_servers } else { &mut alone }.push(program);
    }
    ensure!(child.wait()?.success(), "the tests do not build");
    let suites: Vec<Vec<Program>> = with_servers.iter().map(Program::suites).collect::<Result<_>>()?;
    let mut with_servers: Vec<Program> = suites.into_iter().flatten().collect();
    alone.sort_by(|a, b| a.executable.cmp(&b.executable));
    with_servers
        .sort_by_key(|p| (LONG.iter().position(|l| *l == p.name).unwrap_or(LONG.len()), p.name.clone()));
    Ok((with_servers, alone))
}

/// Unit tests only find servers; those that start brokers can install them.
pub(super) fn install(with_servers: &[Program]) -> Result<()> {
    let program = with_servers.first().context("no end-to-end tests")?;
    let status = Command::new(&program.executable).arg("--install").current_dir(&program.dir).status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn told(message: &serde_json::Value) -> Option<Program> {
    let executable = message["executable"].as_str().filter(|_| message["profile"]["test"] == true)?;
    let dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let name = message["target"]["name"].as_str()?.to_owned();
    Some(Program { name, executable: executable.into(), suite: None, dir })
}

impl Program {
    /// Each of its suites as a program.
    fn suites(&self) -> Result<Vec<Self>> {
        let told = self.command().arg("--suites").output()?;
        ensure!(told.status.success(), "{} --suites: {}", self.name, told.status);
        let suite = |name: &str| Self {
            name: name.to_owned(),
            executable: self.executable.clone(),
            suite: Some(name.to_owned()),
            dir: self.dir.clone(),
        };
        Ok(String::from_utf8(told.stdout)?.lines().map(suite).collect())
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.dir).env("CARGO_MANIFEST_DIR", &self.dir).args(&self.suite);
        command
    }
}
