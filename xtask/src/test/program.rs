//! A test program, as Cargo tells of it when it has built it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::workspace::cargo;

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
    /// Where Cargo runs it.
    dir: PathBuf,
}

/// Builds all of them: those that start servers, and those that do not.
pub(super) fn build() -> Result<(Vec<Program>, Vec<Program>)> {
    let mut build = cargo();
    build.args(["test", "--quiet", "--release", "--workspace", "--no-run"]);
    let mut child = build.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped()).spawn()?;
    let (mut with_servers, mut alone) = (Vec::new(), Vec::new());
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let message = serde_json::from_str(&line?).context("what Cargo told of an artifact")?;
        let Some(program) = told(&message) else { continue };
        let starts_servers = program.dir.ends_with("tests") && message["target"]["kind"][0] == "test";
        if starts_servers { &mut with_servers } else { &mut alone }.push(program);
    }
    ensure!(child.wait()?.success(), "the tests do not build");
    alone.sort_by(|a, b| a.executable.cmp(&b.executable));
    with_servers
        .sort_by_key(|p| (LONG.iter().position(|l| *l == p.name).unwrap_or(LONG.len()), p.name.clone()));
    Ok((with_servers, alone))
}

fn told(message: &serde_json::Value) -> Option<Program> {
    let executable = message["executable"].as_str().filter(|_| message["profile"]["test"] == true)?;
    let dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let name = message["target"]["name"].as_str()?.to_owned();
    Some(Program { name, executable: executable.into(), dir })
}

impl Program {
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.dir).env("CARGO_MANIFEST_DIR", &self.dir);
        command
    }
}
