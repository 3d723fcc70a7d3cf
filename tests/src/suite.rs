//! Runs the tests of one file, one after the other, over servers that they share.
//!
//! The standard harness has no end of a file: shared servers would live in statics and never be dropped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::install::Unavailable;
use crate::scratch;
use crate::stores::{NotHere, StoreKind, end_servers, only_on};

#[derive(Default)]
#[must_use]
pub struct Suite {
    trials: Vec<Trial>,
    only: Option<(&'static [StoreKind], &'static str)>,
}

impl Suite {
    pub fn new() -> Self {
        Self::default()
    }

    /// The tests that follow are passed over where another store was chosen.
    pub fn only_on(mut self, kinds: &'static [StoreKind], why: &'static str) -> Self {
        self.only = Some((kinds, why));
        self
    }

    pub fn test(mut self, name: &str, body: impl FnOnce() -> Result<()> + Send + 'static) -> Self {
        let only = self.only;
        let body = move || {
            only.map_or(Ok(()), |(kinds, why)| only_on(kinds, why))?;
            body()
        };
        self.trials.push(Trial::ignorable_test(name, move || run(body)));
        self
    }

    /// A test over shared servers, which start with the first test that needs them.
    pub fn test_with<T: Send + Sync + 'static>(
        self,
        shared: &Arc<Shared<T>>,
        name: &str,
        body: impl FnOnce(&T) -> Result<()> + Send + 'static,
    ) -> Self {
        let shared = Arc::clone(shared);
        self.test(name, move || body(shared.get()?))
    }

    /// Runs it, with the arguments of `cargo test`. Its servers end with it.
    pub fn passes(self, args: &[String]) -> bool {
        let mut arguments = Arguments::from_iter(args);
        // Two brokers on two cores make both slow enough to miss deadlines.
        arguments.test_threads = Some(1);
        let has_failed = libtest_mimic::run(&arguments, self.trials).has_failed();
        end_servers();
        !has_failed
    }
}

fn run(body: impl FnOnce() -> Result<()>) -> Result<Completion, Failed> {
    scratch::hold();
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(anyhow!("panicked")));
    let passed_over = |error: &anyhow::Error| {
        let unavailable = error.is::<Unavailable>() && std::env::var_os("VARVE_REQUIRE_SERVERS").is_none();
        unavailable || error.is::<NotHere>()
    };
    scratch::settle(outcome.as_ref().err().is_none_or(passed_over));
    match outcome {
        Ok(()) => Ok(Completion::Completed),
        Err(error) if passed_over(&error) => Ok(Completion::ignored_with(format!("{error:#}"))),
        Err(error) => Err(format!("{error:#}").into()),
    }
}

/// Servers that the tests of a file share: started once, ended when the last test lets go of them.
pub struct Shared<T> {
    start: fn() -> Result<T>,
    started: OnceLock<Result<T, StartFailure>>,
}

/// Why shared servers did not start, to be told to everyone who wants them.
pub(crate) struct StartFailure {
    text: String,
    unavailable: Option<Unavailable>,
    not_here: Option<NotHere>,
}

impl From<anyhow::Error> for StartFailure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            text: format!("{error:#}"),
            unavailable: error.downcast_ref().cloned(),
            not_here: error.downcast_ref().cloned(),
        }
    }
}

impl StartFailure {
    pub(crate) fn told(&self) -> anyhow::Error {
        match (&self.unavailable, &self.not_here) {
            (Some(unavailable), _) => unavailable.clone().into(),
            (None, Some(not_here)) => not_here.clone().into(),
            (None, None) => anyhow!("the shared servers did not start: {}", self.text),
        }
    }
}

impl<T> Shared<T> {
    pub fn new(start: fn() -> Result<T>) -> Arc<Self> {
        Arc::new(Self { start, started: OnceLock::new() })
    }

    /// A start that failed is not tried again: every test would wait for it.
    pub fn get(&self) -> Result<&T> {
        let started = self.started.get_or_init(|| (self.start)().map_err(StartFailure::from));
        started.as_ref().map_err(StartFailure::told)
    }
}
