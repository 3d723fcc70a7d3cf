//! The batches of segment files, as Kafka's own `kafka-dump-log` tells them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::install;

/// A line for each batch of a partition's folder, in order: offsets, epochs, producer, size, checksum. Where in a file
/// it lies is left out, and so are batches that end before `start_offset`.
pub fn dumped_batches(version: &str, dir: &Path, start_offset: i64) -> Result<Vec<String>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"]);
    java.args(["-cp", &install::kafka_class_path(version)?, "kafka.tools.DumpLogSegments", "--files"]);
    let output = java.arg(names.join(",")).output()?;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {}\n{out}\n{err}", dir.display(), output.status);
    let mut batches = Vec::new();
    for line in out.lines().filter(|line| line.starts_with("baseOffset: ")) {
        ensure!(line.contains("isvalid: true"), "{}: {line}", dir.display());
        let last: i64 = field(line, "lastOffset:")?.parse()?;
        if last >= start_offset {
            let position = format!(" position: {}", field(line, "position:")?);
            batches.push(line.replacen(&position, "", 1));
        }
    }
    Ok(batches)
}

fn field<'a>(line: &'a str, name: &str) -> Result<&'a str> {
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    words.nth(1).with_context(|| format!("no {name} in {line}"))
}
