//! What an adversary, or a mistake, put on top of objects in a store that keeps versions.
//!
//! What the archive deletes by itself lies under a delete marker too, and is told from the rest by the rules for
//! deleting: an object that is declared pruned, a manifest of a tree that was given up, and a bundle whose records the
//! chains have.

use varve_store::KeyVersions;

use super::{FINDINGS_MAX, Finding, FindingKind, Verifier};
use crate::error::{Kind, Result};
use crate::journal::BundleName;
use crate::names;
use crate::oldest::Displaced;

/// Where names are that last.
const LASTING: [&str; 7] = [
    names::ARCHIVE,
    names::TOPICS,
    names::SNAPSHOTS,
    names::MANIFESTS,
    names::PRUNED,
    names::UPGRADES,
    names::RESTORES,
];

/// What was found displaced before anything was read.
#[derive(Debug, Default)]
pub(super) struct Survey {
    displaced: Vec<Displaced>,
    /// Others, which are not judged.
    more: u64,
}

impl Verifier<'_> {
    /// Looks at the versions of all names that last, so that all of them are read as they were written.
    pub(super) async fn survey(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        let oldest = self.archive.shelf.oldest();
        let keeps = oldest.versions().is_some();
        self.report.lock().versions = keeps;
        if !keeps {
            return Ok(survey);
        }
        for prefix in LASTING {
            let mut pages = oldest.pages(format!("{}{prefix}", self.archive.shelf.root()));
            while let Some(keys) = pages.next().await? {
                for (found, displaced) in displaced(&keys) {
                    oldest.learn(found);
                    if survey.displaced.len() < FINDINGS_MAX {
                        survey.displaced.push(displaced);
                    } else {
                        survey.more = survey.more.saturating_add(1);
                    }
                }
            }
        }
        oldest.all_learnt();
        Ok(survey)
    }

    /// When the tree was walked it is known what was deleted on purpose.
    pub(super) async fn judge(&mut self, survey: Survey) -> Result<()> {
        for displaced in survey.displaced {
            if !self.is_meant(&displaced) {
                self.displaced(displaced);
            }
        }
        self.report.count(|p| p.findings = p.findings.saturating_add(survey.more));
        self.hidden_bundles().await
    }

    fn displaced(&self, displaced: Displaced) {
        let object = self.archive.shelf.place(self.archive.shelf.name(&displaced.key));
        let what = displaced.to_string();
        self.report.add(Finding { kind: FindingKind::Displaced(displaced), object, what });
    }

    fn is_meant(&self, displaced: &Displaced) -> bool {
        let name = self.archive.shelf.name(&displaced.key);
        if name.starts_with(names::MANIFESTS) {
            return displaced.hidden && self.pruned.read().gave_up_any();
        }
        names::parse_object(name).is_some_and(|(topic_id, partition, branch, first_offset)| {
            self.pruned.read().holds(topic_id, partition, branch, first_offset)
        })
    }

    async fn hidden_bundles(&mut self) -> Result<()> {
        let archive = self.archive;
        let prefix = format!("{}{}", archive.shelf.root(), names::JOURNAL);
        let mut pages = archive.shelf.oldest().pages(prefix);
        while let Some(keys) = pages.next().await? {
            for (_, displaced) in displaced(&keys) {
                let bundle = names::parse_bundle(archive.shelf.name(&displaced.key));
                let name = bundle.map(|(archiver, sequence)| (archiver.to_owned(), sequence));
                let expired = match name.filter(|_| displaced.hidden) {
                    Some((archiver, sequence)) => self.is_expired(&BundleName { archiver, sequence }).await?,
                    None => false,
                };
                if !expired {
                    self.displaced(displaced);
                }
            }
        }
        Ok(())
    }

    /// What can't be read is not taken for expired.
    async fn is_expired(&mut self, bundle: &BundleName) -> Result<bool> {
        let (pruned, coverage) = (self.pruned.get_mut(), self.coverage.get_mut());
        match self.archive.hidden_bundle(bundle, pruned, coverage).await {
            Err(e) if matches!(e.kind(), Kind::Retry | Kind::Denied) => Err(e),
            found => Ok(matches!(found, Ok(None))),
        }
    }
}

fn displaced(keys: &[KeyVersions]) -> impl Iterator<Item = (&KeyVersions, Displaced)> {
    keys.iter().filter_map(|found| Displaced::of(found, None).map(|displaced| (found, displaced)))
}
