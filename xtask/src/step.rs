//! A step is one command with a name and a time. The first that fails ends the run, and all times are told.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

#[derive(Default)]
pub(crate) struct Steps {
    taken: Vec<(String, Duration)>,
}

impl Steps {
    pub(crate) fn step<T>(&mut self, name: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("==> {name}");
        let started = Instant::now();
        let outcome = body().with_context(|| format!("{name} failed"));
        let mark = if outcome.is_ok() { "" } else { " (failed)" };
        self.taken.push((format!("{name}{mark}"), started.elapsed()));
        outcome
    }

    /// Runs a command whose output is the user's to see.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) -> Result<()> {
        self.step(name, || shown(command))
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        let total: Duration = self.taken.iter().map(|(_, time)| *time).sum();
        for (name, time) in &self.taken {
            eprintln!("{:8.1} s  {name}", time.as_secs_f32());
        }
        eprintln!("{:8.1} s  in all", total.as_secs_f32());
    }
}

fn shown(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| spoken(command))?;
    if !status.success() {
        bail!("{} ended with {status}", spoken(command));
    }
    Ok(())
}

/// Runs a command whose output matters only when it fails.
pub(crate) fn quiet(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| spoken(command))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "{} ended with {}:\n{}",
            spoken(command),
            output.status,
            String::from_utf8_lossy(&said).trim_end()
        );
    }
    Ok(output)
}

fn spoken(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
