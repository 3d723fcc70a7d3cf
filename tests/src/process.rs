//! A server's process: started with its output in a file, ended by its pid.
//!
//! Processes are started by a thread that lives as long as the program, since the kernel's promise to kill
//! a child when its parent dies holds for the parent *thread*.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

type Job = (Command, Sender<io::Result<Child>>);

/// Starts `command` so that it dies with this program, however that ends.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, work) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in work {
                // SAFETY: prctl is async-signal-safe and touches nothing of ours.
                unsafe {
                    command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                        0 => Ok(()),
                        _ => Err(io::Error::last_os_error()),
                    });
                }
                // The asker waits for the answer; if it is gone, nobody needs the child.
                if let Err(unsent) = answer.send(command.spawn()) {
                    drop(unsent.0.map(|mut child| child.kill()));
                }
            }
        });
        jobs
    });
    let (answer, wait) = channel();
    spawner.send((command, answer)).map_err(io::Error::other)?;
    wait.recv().map_err(io::Error::other)?
}

#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Output is appended to `log`: a restarted server goes on in the same file.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = spawn(command).with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Waits until `ready`; fails at once if the process dies.
    pub(crate) fn wait_ready(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let started = Instant::now();
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} at start; its log ends with:\n{}", self.name, self.log_tail());
            }
            if started.elapsed() > limit {
                bail!(
                    "{} not ready within {} s; its log ends with:\n{}",
                    self.name,
                    limit.as_secs(),
                    self.log_tail()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        // SAFETY: a plain system call; the pid is our child's, which was not waited for, so it can't be another's.
        match unsafe { libc::kill(self.child.id().cast_signed(), signal) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()).with_context(|| format!("signal {signal} to {}", self.name)),
        }
    }

    /// TERM, and what the process said of its end. Fails (after a kill) when it doesn't end.
    pub(crate) fn stop(mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        let started = Instant::now();
        while started.elapsed() < limit {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(50));
        }
        let tail = self.log_tail();
        bail!("{} did not stop within {} s; its log ends with:\n{tail}", self.name, limit.as_secs())
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already dead is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
