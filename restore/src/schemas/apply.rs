//! Registering what a plan has.
//!
//! Each version is looked for before it is registered, since in import mode a registry replaces what has the version
//! already. Deletions follow when all is there, settings after them. One subject at a time is in import mode.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use varve_cluster::{
    IMPORT, NewSchema, RegistryConfig, RegistryError, SchemaReference, SchemaRegistry, SchemaState,
    SchemaVersion,
};

use super::document::{Ids, PlannedSchemas, PlannedSubject, PlannedVersion};
use super::ids::{self, MappedId};
use super::same::{is_same, referred};
use crate::error::{Error, Result};

const NO_COMPATIBILITY: &str = "NONE";

/// The plan's schemas, where they are, and where they go.
#[derive(Clone, Copy, Debug)]
pub struct Schemas<'a> {
    pub plan: &'a PlannedSchemas,
    /// The plan's file: beside it stands the map of ids.
    pub plan_file: &'a Path,
    pub archived: &'a SchemaState,
    pub registry: &'a SchemaRegistry,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub registered: u64,
    /// By an earlier apply, or by others.
    pub there_before: u64,
    pub deleted: u64,
    /// If they were not kept.
    pub ids: Vec<MappedId>,
}

impl Schemas<'_> {
    /// All of it. Modes are put back also after an error.
    ///
    /// # Errors
    /// Of the registry; another schema where one is to be.
    pub async fn restore(&self) -> Result<Restored> {
        // A killed apply may have left one.
        self.put_back().await?;
        let outcome = self.restored().await;
        if outcome.is_err()
            && let Err(error) = self.put_back().await
        {
            tracing::error!(%error, "a mode of the Schema Registry could not be put back: varve restore cleanup does it");
        }
        outcome
    }

    async fn restored(&self) -> Result<Restored> {
        let mut restored = Restored::default();
        match self.plan.ids {
            Ids::Kept => self.kept(&mut restored).await?,
            Ids::Mapped => self.mapped(&mut restored).await?,
        }
        self.settle().await?;
        Ok(restored)
    }

    /// What is known of an earlier apply.
    ///
    /// # Errors
    /// A file that does not hold.
    pub fn before(&self) -> Result<Restored> {
        let there_before = self.plan.versions.len() as u64;
        Ok(Restored { there_before, ids: ids::read(self.plan_file)?, ..Restored::default() })
    }

    /// Subjects that were left in import mode, or without compatibility, get what they had before.
    ///
    /// # Errors
    /// Of the registry.
    pub async fn put_back(&self) -> Result<()> {
        for subject in &self.plan.subjects {
            let name = &subject.subject;
            match self.plan.ids {
                Ids::Kept => {
                    let mode = self.registry.mode(Some(name)).await?;
                    if mode.as_deref() == Some(IMPORT) {
                        self.close(name).await?;
                    }
                }
                Ids::Mapped => {
                    let config = self.registry.config(name).await?;
                    if config.and_then(|c| c.compatibility).as_deref() == Some(NO_COMPATIBILITY) {
                        self.compatibility_back(subject).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn kept(&self, restored: &mut Restored) -> Result<()> {
        let mut open: Option<&str> = None;
        for planned in &self.plan.versions {
            let version = self.archived(planned)?;
            if self.is_there(planned, version).await? {
                restored.there_before += 1;
                continue;
            }
            self.open(&mut open, &planned.subject).await?;
            let schema = NewSchema {
                id_and_version: Some((version.id, version.version)),
                ..new(version, &version.references)
            };
            let id = self.registry.register(&planned.subject, &schema).await?;
            if id != version.id {
                let what = format!(
                    "the Schema Registry gave {} the id {id}, and not {}: it takes the mode IMPORT and does not keep ids",
                    named(planned),
                    version.id
                );
                return Err(Error::refused(
                    what,
                    "plan anew with --schema-ids-may-change, or into another registry",
                ));
            }
            restored.registered += 1;
        }
        for planned in self.deletions() {
            self.open(&mut open, &planned.subject).await?;
            self.registry.delete_version(&planned.subject, planned.version).await?;
            restored.deleted += 1;
        }
        for subject in self.plan.subjects.iter().filter(|s| s.deleted) {
            self.open(&mut open, &subject.subject).await?;
            self.registry.delete_subject(&subject.subject).await?;
            restored.deleted += 1;
        }
        match open {
            Some(subject) => self.close(subject).await,
            None => Ok(()),
        }
    }

    /// Under the same version and id. Another schema there is an error.
    async fn is_there(&self, planned: &PlannedVersion, version: &SchemaVersion) -> Result<bool> {
        let subject = &planned.subject;
        let Some(found) = self.registry.version(subject, planned.version, true).await? else {
            return Ok(false);
        };
        if found.id != version.id || !is_same(&found, version) {
            let what = format!("the Schema Registry has another schema as {} by now", named(planned));
            return Err(Error::refused(what, "make a new plan"));
        }
        Ok(planned.deleted || self.registry.version(subject, planned.version, false).await?.is_some())
    }

    async fn open<'p>(&self, open: &mut Option<&'p str>, subject: &'p str) -> Result<()> {
        if *open == Some(subject) {
            return Ok(());
        }
        if let Some(other) = open.take() {
            self.close(other).await?;
        }
        self.registry.set_mode(Some(subject), IMPORT).await?;
        *open = Some(subject);
        Ok(())
    }

    async fn close(&self, subject: &str) -> Result<()> {
        match self.subject(subject).and_then(|s| s.mode_before.as_deref()) {
            Some(mode) => self.registry.set_mode(Some(subject), mode).await?,
            None => self.registry.delete_mode(subject).await?,
        }
        Ok(())
    }

    async fn mapped(&self, restored: &mut Restored) -> Result<()> {
        let mut map: BTreeMap<(String, i32), MappedId> = BTreeMap::new();
        for planned in &self.plan.versions {
            let version = self.archived(planned)?;
            let references = remapped(&planned.subject, version, &map);
            let schema = new(version, &references);
            let found = match self.registry.lookup(&planned.subject, &schema).await? {
                Some(found) => {
                    restored.there_before += 1;
                    found
                }
                None => {
                    self.register(planned, &schema).await?;
                    restored.registered += 1;
                    let found = self.registry.lookup(&planned.subject, &schema).await?;
                    found.ok_or_else(|| {
                        Error::unexpected(named(planned), "a version", "none that is the same")
                    })?
                }
            };
            let mapped = MappedId {
                subject: planned.subject.clone(),
                version: planned.version,
                id: planned.id,
                new_version: found.version,
                new_id: found.id,
            };
            map.insert((planned.subject.clone(), planned.version), mapped);
        }
        restored.ids = map.values().cloned().collect();
        ids::write(self.plan_file, &restored.ids)?;
        self.delete_mapped(&map, restored).await?;
        for subject in &self.plan.subjects {
            self.compatibility_back(subject).await?;
        }
        Ok(())
    }

    async fn register(&self, planned: &PlannedVersion, schema: &NewSchema<'_>) -> Result<i64> {
        match self.registry.register(&planned.subject, schema).await {
            // What once was let in, under another compatibility, is let in again.
            Err(RegistryError::Status { status: 409, .. }) => {
                let none = RegistryConfig { compatibility: Some(NO_COMPATIBILITY.to_owned()), more: None };
                self.registry.set_config(Some(&planned.subject), &none).await?;
                Ok(self.registry.register(&planned.subject, schema).await?)
            }
            answer => Ok(answer?),
        }
    }

    /// Nothing that was there before, and nothing that a living version of the archive is.
    async fn delete_mapped(
        &self,
        map: &BTreeMap<(String, i32), MappedId>,
        restored: &mut Restored,
    ) -> Result<()> {
        let place = |v: &PlannedVersion| {
            let mapped = map.get(&(v.subject.clone(), v.version));
            mapped.map(|m| (m.subject.as_str(), m.new_version))
        };
        let deleted_as_a_whole = |v: &PlannedVersion| self.subject(&v.subject).is_some_and(|s| s.deleted);
        let living = self.plan.versions.iter().filter(|v| !v.deleted || v.is_there);
        let living: BTreeSet<(&str, i32)> = living.filter_map(place).collect();
        let dead = self.plan.versions.iter().rev().filter(|v| v.deleted && !deleted_as_a_whole(v));
        for (subject, version) in dead.filter_map(place).filter(|place| !living.contains(place)) {
            self.registry.delete_version(subject, version).await?;
            restored.deleted += 1;
        }
        for subject in self.plan.subjects.iter().filter(|s| s.deleted) {
            self.registry.delete_subject(&subject.subject).await?;
            restored.deleted += 1;
        }
        Ok(())
    }

    async fn compatibility_back(&self, subject: &PlannedSubject) -> Result<()> {
        let name = &subject.subject;
        match subject.config_before.as_ref() {
            Some(config) => self.registry.set_config(Some(name), config).await?,
            None => self.registry.delete_config(name).await?,
        }
        Ok(())
    }

    /// Configs, then modes, the global ones last: they may forbid the rest.
    async fn settle(&self) -> Result<()> {
        for subject in &self.plan.subjects {
            if let Some(config) = &subject.config {
                self.registry.set_config(Some(&subject.subject), config).await?;
            }
            if let Some(mode) = &subject.mode {
                self.registry.set_mode(Some(&subject.subject), mode).await?;
            }
        }
        if let Some(config) = &self.plan.config {
            self.registry.set_config(None, config).await?;
        }
        if let Some(mode) = &self.plan.mode {
            self.registry.set_mode(None, mode).await?;
        }
        Ok(())
    }

    /// What refers comes before what it refers to.
    fn deletions(&self) -> impl Iterator<Item = &PlannedVersion> {
        let whole: BTreeSet<&str> =
            self.plan.subjects.iter().filter(|s| s.deleted).map(|s| s.subject.as_str()).collect();
        self.plan.versions.iter().rev().filter(move |v| v.deleted && !whole.contains(v.subject.as_str()))
    }

    fn subject(&self, name: &str) -> Option<&PlannedSubject> {
        self.plan.subjects.iter().find(|s| s.subject == name)
    }

    pub(super) fn archived(&self, planned: &PlannedVersion) -> Result<&SchemaVersion> {
        let subject = self.archived.subjects.iter().find(|s| s.subject == planned.subject);
        let version = subject
            .and_then(|s| s.versions.iter().find(|v| (v.version, v.id) == (planned.version, planned.id)));
        version.ok_or_else(|| Error::unexpected("the plan's archive", named(planned), "no such schema"))
    }
}

pub(super) fn named(planned: &PlannedVersion) -> String {
    format!("schema {}:{} (id {})", planned.subject, planned.version, planned.id)
}

fn new<'s>(version: &'s SchemaVersion, references: &'s [SchemaReference]) -> NewSchema<'s> {
    NewSchema {
        schema_type: &version.schema_type,
        schema: &version.schema,
        references,
        more: version.more.as_deref(),
        id_and_version: None,
    }
}

/// To the versions that they have here.
pub(super) fn remapped(
    subject: &str,
    version: &SchemaVersion,
    map: &BTreeMap<(String, i32), MappedId>,
) -> Vec<SchemaReference> {
    let here = version.references.iter().map(|reference| {
        let mapped = map.get(&(referred(subject, reference), reference.version));
        SchemaReference { version: mapped.map_or(reference.version, |m| m.new_version), ..reference.clone() }
    });
    here.collect()
}
