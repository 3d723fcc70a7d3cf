//! Test programs in lanes: so many run at once, each one's output in one piece.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::program::Program;
use crate::store::Store;
use crate::workspace::target_dir;

/// No program takes half of that; one that does not end would take all failures' texts with it.
const LIMIT: Duration = Duration::from_secs(20 * 60);
const TICK: Duration = Duration::from_millis(100);
/// Of a program that died without telling what failed.
const LAST_BYTES: usize = 8000;

pub(super) struct Lanes<'a> {
    pub(super) at_once: usize,
    pub(super) jar: &'a Path,
    /// That end-to-end tests run on, if it is not for them to choose.
    pub(super) store: Option<Store>,
    pub(super) filter: Option<&'a str>,
}

impl Lanes<'_> {
    /// Runs them all. What those that failed told of it.
    pub(super) fn run(&self, programs: Vec<Program>) -> Result<Vec<String>> {
        let (waiting, failures) = (Mutex::new(VecDeque::from(programs)), Mutex::new(Vec::new()));
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let lane = || -> Result<()> {
            while let Some(program) = next() {
                let failed = self.one(&program).with_context(|| program.name.clone())?;
                failures.lock().unwrap_or_else(PoisonError::into_inner).extend(failed);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let lanes: Vec<_> = (0..self.at_once).map(|_| scope.spawn(lane)).collect();
            lanes.into_iter().try_for_each(|lane| lane.join().map_err(|_| anyhow!("a lane panicked"))?)
        })?;
        Ok(failures.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn one(&self, program: &Program) -> Result<Option<String>> {
        let (name, started) = (&program.name, Instant::now());
        let path = target_dir().join(format!("{name}.out"));
        let output = File::create(&path)?;
        let mut command = program.command();
        command.args(self.filter).env("VARVE_REQUIRE_SERVERS", "1").env("VARVE_RSM_JAR", self.jar);
        command.envs(self.store.map(|store| ("VARVE_TEST_STORE", store.name())));
        let mut child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
        let ended = watch(&mut child, started)?;
        let told = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        std::fs::remove_file(&path)?;
        println!("\n==> {name}: {ended}, {:.1} s\n{}", started.elapsed().as_secs_f32(), told.trim());
        Ok((ended != "passed").then(|| format!("FAILED {name}: {ended}\n{}", failures(&told))))
    }
}

fn watch(child: &mut Child, started: Instant) -> Result<String> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() { "passed".to_owned() } else { status.to_string() });
        }
        if started.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Ok(format!("did not end within {} minutes", LIMIT.as_secs() / 60));
        }
        thread::sleep(TICK);
    }
}

/// The part of a test program's output that tells of failures.
fn failures(told: &str) -> &str {
    if let Some((_, failures)) = told.split_once("\nfailures:\n") {
        return failures.trim();
    }
    let from = told.len().saturating_sub(LAST_BYTES);
    told.get(told.ceil_char_boundary(from)..).unwrap_or(told).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_what_the_harness_tells_last() {
        let told = "running 2 tests\ntest a ... FAILED\n\nfailures:\n\n---- a ----\nno\n\nfailures:\n    a\n";
        assert_eq!(failures(told), "---- a ----\nno\n\nfailures:\n    a");
        let died = "é".repeat(LAST_BYTES);
        assert!(died.ends_with(failures(&died)) && failures(&died).len() <= LAST_BYTES);
    }
}
