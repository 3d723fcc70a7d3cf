//! What was found so far, by all who look at once.

use parking_lot::{Mutex, MutexGuard};

use super::{FINDINGS_MAX, Finding, FindingKind, Progress, Report};
use crate::error::{Kind, Result};

pub(super) struct Told<'a> {
    report: Mutex<Report>,
    progress: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Told<'a> {
    pub(super) fn new(progress: &'a (dyn Fn(Progress) + Sync)) -> Self {
        Self { report: Mutex::default(), progress }
    }

    pub(super) fn end(self) -> Report {
        self.report.into_inner()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Report> {
        self.report.lock()
    }

    pub(super) fn find(&self, object: impl Into<String>, what: impl ToString) {
        self.add(Finding { kind: FindingKind::Broken, object: object.into(), what: what.to_string() });
    }

    pub(super) fn add(&self, finding: Finding) {
        let mut report = self.lock();
        report.progress.findings = report.progress.findings.saturating_add(1);
        if report.findings.len() < FINDINGS_MAX {
            report.findings.push(finding);
        }
    }

    /// A store that can't answer ends it; anything else is a finding.
    pub(super) fn take<T>(&self, object: &str, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(e) if matches!(e.kind(), Kind::Retry | Kind::Denied) => Err(e),
            Err(e) => {
                self.find(object, e);
                Ok(None)
            }
        }
    }

    /// As [`Told::take`], of an object that was looked into: whether its digests stayed sealed.
    pub(super) fn sealed(&self, object: &str, outcome: Result<bool>) -> Result<()> {
        let sealed = self.take(object, outcome)? == Some(true);
        let mut report = self.lock();
        report.sealed = report.sealed.saturating_add(u64::from(sealed));
        Ok(())
    }

    /// An object that is declared.
    pub(super) fn pruned(&self) {
        let mut report = self.lock();
        report.pruned = report.pruned.saturating_add(1);
    }

    pub(super) fn count(&self, step: impl FnOnce(&mut Progress)) {
        let mut report = self.lock();
        step(&mut report.progress);
        let progress = report.progress;
        drop(report);
        (self.progress)(progress);
    }
}
