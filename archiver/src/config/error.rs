//! What is wrong with a configuration: all of it at once. Secrets are never in here.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One thing to be corrected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flaw {
    /// `section.key`, a section, or nothing for the file as a whole.
    pub key: String,
    /// Of the file, if it is known and the value stands there.
    pub line: Option<u64>,
    pub problem: String,
}

impl Flaw {
    pub(super) fn new(key: impl Into<String>, line: Option<u64>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), line, problem: problem.into() }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    pub file: PathBuf,
    /// At least one, those of the file in its order.
    pub flaws: Vec<Flaw>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        match self.flaws.as_slice() {
            [flaw] => flaw.fmt(f),
            flaws => {
                write!(f, "{} flaws", flaws.len())?;
                flaws.iter().try_for_each(|flaw| write!(f, "\n  {flaw}"))
            }
        }
    }
}
