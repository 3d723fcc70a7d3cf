//! The pages of `docs/runbooks`, carried out as they stand there: the commands of their blocks, and those within the text
//! that name whom they ask. Only what `README.md` there calls an example's value is replaced.
//!
//! A test takes what a page has, step by step. What it does not take makes [`Runbook::done`] fail: a new command, another
//! file, another output.

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::ptr::null_mut;

use anyhow::{Context, Result, bail, ensure};

use crate::archive::{Ended, Running, varve_file};
use crate::install::kafka_class_path;
use crate::process::Process;
use crate::stores::{self, SETTINGS_FILE};

/// Kafka's own commands, by their main classes.
const TOOLS: [(&str, &str); 6] = [
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-consumer-groups.sh", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("kafka-get-offsets.sh", "org.apache.kafka.tools.GetOffsetShell"),
    ("kafka-configs.sh", "kafka.admin.ConfigCommand"),
    ("kafka-reassign-partitions.sh", "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"),
    ("kafka-cluster.sh", "org.apache.kafka.tools.ClusterTool"),
];
/// What a command within the text names, and a mere mention of one doesn't.
const NAMES: [&str; 4] = ["s3://", ":9092", ".plan", ".yaml"];
/// `0 3 * * 0` and its like.
const CRON_FIELDS: usize = 5;
/// What is said when a command asks.
const YES: &[u8] = b"y\n";

/// One page, and where it is carried out.
#[derive(Debug)]
pub struct Runbook {
    page: String,
    parts: Vec<Part>,
    declared: String,
    values: Vec<(&'static str, String)>,
    dir: PathBuf,
}

#[derive(Debug)]
struct Part {
    /// `5`, or of a section `The day 5`, or the section alone.
    step: String,
    kind: Kind,
    text: String,
    is_taken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Command,
    /// Its first line is `# NAME`.
    File,
    /// What a command prints.
    Output,
}

impl Runbook {
    /// All pages, by their names.
    pub fn pages() -> Result<Vec<String>> {
        let names = std::fs::read_dir(folder()?)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<String>>>()?;
        names.sort();
        Ok(names)
    }

    /// `dir` gets what the commands need and write.
    pub fn open(page: &str, dir: &Path, values: &[(&'static str, String)]) -> Result<Self> {
        let readme = std::fs::read_to_string(folder()?.join("README.md"))?;
        let declared = readme.lines().find(|line| line.contains("those of the examples"));
        let parts = parts(&std::fs::read_to_string(folder()?.join(page))?);
        let mut runbook = Self {
            page: page.to_owned(),
            parts,
            declared: declared.context("README.md declares no examples")?.to_owned(),
            values: Vec::new(),
            dir: dir.join(page),
        };
        for (example, value) in values {
            runbook.value(example, value)?;
        }
        runbook.install()?;
        Ok(runbook)
    }

    /// What stands in the place of an example's value from now on.
    pub fn value(&mut self, example: &'static str, value: impl ToString) -> Result<()> {
        ensure!(self.declared.contains(&format!("`{example}`")), "{example} is no example's value");
        self.values.retain(|(other, _)| *other != example);
        self.values.push((example, value.to_string()));
        // `old-broker-1` before `broker-1`.
        self.values.sort_by_key(|(example, _)| std::cmp::Reverse(example.len()));
        Ok(())
    }

    /// The folder that commands run in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was mailed.
    pub fn mails(&self) -> String {
        std::fs::read_to_string(self.dir.join("mails")).unwrap_or_default()
    }

    /// `varve`, Kafka's commands and `mail`, which writes a file.
    fn install(&self) -> Result<()> {
        let bin = self.dir.join("bin");
        std::fs::create_dir_all(&bin)?;
        symlink(varve_file()?, bin.join("varve"))?;
        let class_path = kafka_class_path(crate::KAFKA_VERSION)?;
        let options = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx256m -XX:-UsePerfData \
                       -Dorg.slf4j.simpleLogger.defaultLogLevel=error";
        for (name, class) in TOOLS {
            script(&bin.join(name), &format!("exec java {options} -cp '{class_path}' {class} \"$@\""))?;
        }
        script(&bin.join("mail"), &format!("echo \"$@\" >> '{}'", self.dir.join("mails").display()))
    }

    /// The next part of a step that begins so. One that was taken is given once more where there is no other.
    fn take(&mut self, step: &str, kind: Kind, begins: &str) -> Result<String> {
        let matching =
            |part: &&mut Part| part.step == step && part.kind == kind && part.text.starts_with(begins);
        let mut found: Vec<&mut Part> = self.parts.iter_mut().filter(matching).collect();
        let at = found.iter().position(|part| !part.is_taken).unwrap_or(0);
        let part = found.get_mut(at).with_context(|| format!("{}, {step}: no {begins:?}", self.page))?;
        part.is_taken = true;
        let text = part.text.clone();
        Ok(self.with_values(&text))
    }

    fn with_values(&self, text: &str) -> String {
        let (mut out, mut rest) = (String::new(), text);
        'next: while let Some(first) = rest.chars().next() {
            for (example, value) in &self.values {
                if let Some(behind) = rest.strip_prefix(example) {
                    out.push_str(value);
                    rest = behind;
                    continue 'next;
                }
            }
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
        out
    }

    /// A command as it is run.
    pub fn command(&mut self, step: &str, begins: &str) -> Result<String> {
        self.take(step, Kind::Command, begins)
    }

    /// Runs the command of a step that begins so. It must end with `code`.
    pub fn run(&mut self, step: &str, begins: &str, code: i32) -> Result<Ended> {
        let command = self.command(step, begins)?;
        self.shell(&command, code).with_context(|| format!("{}, {step}", self.page))
    }

    /// Runs what is no command of the page, but follows from its words.
    pub fn shell(&self, command: &str, code: i32) -> Result<Ended> {
        let terminal = Terminal::saying(YES)?;
        let output = self.process(command)?.stdin(terminal.reader.try_clone()?).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ended =
            Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) };
        ensure!(
            ended.code == Some(code),
            "{command}\n{:?}, not {code}\n{}\n{}",
            ended.code,
            ended.out,
            ended.err
        );
        Ok(ended)
    }

    /// Starts a command that goes on until it is stopped; its output goes to `log` in the folder.
    pub fn start(&mut self, step: &str, begins: &str, log: &str) -> Result<Running> {
        // So that what is stopped is the command itself.
        let command = format!("exec {}", self.command(step, begins)?);
        Ok(Running(Process::start(begins, self.process(&command)?, &self.dir.join(log))?))
    }

    fn process(&self, command: &str) -> Result<Command> {
        let mut shell = Command::new("sh");
        let path = std::env::var("PATH").unwrap_or_default();
        shell.args(["-e", "-c", command]).current_dir(&self.dir).stdin(Stdio::null());
        shell.env("PATH", format!("{}:{path}", self.dir.join("bin").display()));
        shell.envs(stores::settings_file()?.map(|file| (SETTINGS_FILE, file)));
        Ok(shell)
    }

    /// Writes a file of the page, with `more` behind it.
    pub fn file(&mut self, step: &str, name: &str, more: &str) -> Result<()> {
        let text = self.take(step, Kind::File, &format!("# {name}\n"))?;
        Ok(std::fs::write(self.dir.join(name), format!("{text}{more}\n"))?)
    }

    /// What a step shows was printed: of each line the words without numbers and `…`, in their order. Lines that begin as
    /// `sometimes` says need not be there.
    pub fn shows(&mut self, step: &str, printed: &Ended, sometimes: &[&str]) -> Result<()> {
        let shown = self.take(step, Kind::Output, "")?;
        let printed = format!("{}\n{}", printed.out, printed.err);
        for line in shown.lines().filter(|line| !sometimes.iter().any(|begin| line.starts_with(begin))) {
            let is_there = printed.lines().any(|other| {
                let mut words = other.split_whitespace();
                fixed_words(line).all(|word| words.any(|other| other == word))
            });
            ensure!(is_there, "{}, {step} shows {line:?}:\n{printed}", self.page);
        }
        Ok(())
    }

    /// Nothing of the page was left out.
    pub fn done(self) -> Result<()> {
        let left: Vec<&Part> = self.parts.iter().filter(|part| !part.is_taken).collect();
        ensure!(left.is_empty(), "{}: not carried out: {left:#?}", self.page);
        Ok(())
    }
}

fn folder() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("tests/ is in a workspace")?;
    Ok(root.join("docs/runbooks"))
}

fn script(path: &Path, line: &str) -> Result<()> {
    std::fs::write(path, format!("#!/bin/sh\n{line}\n"))?;
    Ok(std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))?)
}

/// Units stand beside numbers, and change with them.
fn fixed_words(line: &str) -> impl Iterator<Item = &str> {
    let is_unit = |word: &str| ["s", "s,", "min:", "s:"].contains(&word);
    let is_fixed =
        move |word: &&str| !word.contains(|c: char| c.is_ascii_digit() || c == '…') && !is_unit(word);
    line.split_whitespace().filter(is_fixed)
}

/// Of a page's Markdown, in order.
fn parts(markdown: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut section, mut number) = ("", "");
    let (mut block, mut indent): (Option<(&str, String)>, usize) = (None, 0);
    for line in markdown.lines() {
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            match block.take() {
                None => {
                    block = Some((kind, String::new()));
                    indent = line.len() - line.trim_start().len();
                }
                Some((kind, text)) => add_block(&mut parts, &step_of(section, number), kind, &text),
            }
        } else if let Some((_, text)) = &mut block {
            text.push_str(line.get(indent..).unwrap_or_default());
            text.push('\n');
        } else {
            if let Some(title) = line.strip_prefix("## ") {
                (section, number) = (title, "");
            } else if let Some((first, _)) = line.split_once(". ").filter(|(n, _)| n.parse::<u32>().is_ok()) {
                number = first;
            }
            let spans = line.split('`').skip(1).step_by(2).filter(|span| is_whole(span));
            let step = step_of(section, number);
            parts.extend(spans.map(|span| part(&step, Kind::Command, span)));
        }
    }
    parts
}

fn step_of(section: &str, number: &str) -> String {
    [section, number].join(" ").trim().to_owned()
}

fn part(step: &str, kind: Kind, text: &str) -> Part {
    Part { step: step.to_owned(), kind, text: text.to_owned(), is_taken: false }
}

fn add_block(parts: &mut Vec<Part>, step: &str, language: &str, text: &str) {
    if !language.is_empty() {
        parts.push(part(step, Kind::File, text));
    } else if is_command(text) {
        let joined = text.replace("\\\n", "");
        parts.extend(joined.lines().map(|line| part(step, Kind::Command, without_times(line))));
    } else {
        parts.push(part(step, Kind::Output, text));
    }
}

fn is_command(text: &str) -> bool {
    let text = without_times(text);
    text.starts_with("varve ") || text.starts_with("kafka-")
}

/// A command within the text, not a mention of one.
fn is_whole(span: &str) -> bool {
    is_command(span) && !span.contains('…') && NAMES.iter().any(|name| span.contains(name))
}

/// A line of a crontab without its first fields.
fn without_times(line: &str) -> &str {
    let is_field = |word: &str| word.chars().all(|c| c.is_ascii_digit() || c == '*');
    if !line.split(' ').take(CRON_FIELDS).all(is_field) {
        return line;
    }
    line.splitn(CRON_FIELDS + 1, ' ').last().unwrap_or(line).trim_start()
}

/// A pair of a terminal's ends, at which somebody has answered already.
struct Terminal {
    reader: OwnedFd,
    _writer: File,
}

impl Terminal {
    fn saying(answer: &[u8]) -> Result<Self> {
        let (mut outer, mut inner) = (0, 0);
        // SAFETY: both ends are written before it returns 0; the rest may be null.
        if unsafe { libc::openpty(&mut outer, &mut inner, null_mut(), null_mut(), null_mut()) } != 0 {
            bail!("openpty: {}", std::io::Error::last_os_error());
        }
        // SAFETY: both are open and nobody else's.
        let (mut writer, reader) = unsafe { (File::from_raw_fd(outer), OwnedFd::from_raw_fd(inner)) };
        writer.write_all(answer)?;
        Ok(Self { reader, _writer: writer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_falls_into_its_commands_files_and_outputs() {
        let page = "1. **Look** with `varve ls s3://a`, or `varve cat`:\n   ```\n   varve a \\\n     --b\n   kafka-c.sh\n   ```\n\
                    ## Then\n   ```yaml\n   # x.yaml\n   ```\n2. Cron:\n   ```\n   0 3 * * 0  varve d\n   ```\n   ```\n   e 5\n   ```\n";
        let found: Vec<_> = parts(page).into_iter().map(|p| (p.step, p.kind, p.text)).collect();
        let expected = [
            ("1", Kind::Command, "varve ls s3://a"),
            ("1", Kind::Command, "varve a   --b"),
            ("1", Kind::Command, "kafka-c.sh"),
            ("Then", Kind::File, "# x.yaml\n"),
            ("Then 2", Kind::Command, "varve d"),
            ("Then 2", Kind::Output, "e 5\n"),
        ];
        let expected = expected.map(|(step, kind, text)| (step.to_owned(), kind, text.to_owned()));
        assert_eq!(found, expected);
    }
}
