//! The registry read back, and compared with the plan.

use std::collections::BTreeMap;

use varve_cluster::{RegistryConfig, SchemaState, SchemaVersion, Subject, read_registry};

use super::apply::{Schemas, named, remapped};
use super::document::{Ids, PlannedVersion};
use super::ids::{self, MappedId};
use super::same::is_same;
use crate::error::{Error, Result};

impl Schemas<'_> {
    /// What is not as the plan says.
    ///
    /// # Errors
    /// Of the registry, and of the map of ids.
    pub async fn differs(&self) -> Result<Vec<String>> {
        let target = read_registry(self.registry).await;
        let target = target.map_err(|what| {
            Error::refused(format!("the Schema Registry {}: {what}", self.plan.url), "look again later")
        })?;
        let map: BTreeMap<(String, i32), MappedId> = match self.plan.ids {
            Ids::Kept => BTreeMap::new(),
            Ids::Mapped => {
                let ids = ids::read(self.plan_file)?;
                ids.into_iter().map(|m| ((m.subject.clone(), m.version), m)).collect()
            }
        };
        let mut found = Vec::new();
        for planned in &self.plan.versions {
            found.extend(self.version_differs(planned, &target, &map)?);
        }
        self.settings_differ(&target, &mut found);
        Ok(found)
    }

    fn version_differs(
        &self,
        planned: &PlannedVersion,
        target: &SchemaState,
        map: &BTreeMap<(String, i32), MappedId>,
    ) -> Result<Option<String>> {
        let name = named(planned);
        let wanted = self.archived(planned)?;
        let place = match self.plan.ids {
            Ids::Kept => Some((planned.version, planned.id)),
            Ids::Mapped => {
                map.get(&(planned.subject.clone(), planned.version)).map(|m| (m.new_version, m.new_id))
            }
        };
        let Some((version, id)) = place else { return Ok(Some(format!("{name} is not in the map of ids"))) };
        let wanted = SchemaVersion { references: remapped(&planned.subject, wanted, map), ..wanted.clone() };
        let Some(found) = subject(target, &planned.subject)
            .and_then(|s| s.versions.iter().find(|v| (v.version, v.id) == (version, id)))
        else {
            return Ok(Some(format!("{name} is not in the Schema Registry")));
        };
        if !is_same(found, &wanted) {
            return Ok(Some(format!("{name} is another schema in the Schema Registry")));
        }
        // One that is deleted may live here: it did before, or under another version of the archive.
        if found.deleted && !planned.deleted {
            return Ok(Some(format!("{name} is deleted in the Schema Registry")));
        }
        Ok(None)
    }

    fn settings_differ(&self, target: &SchemaState, found: &mut Vec<String>) {
        let mut config = |what: String, wanted: &Option<RegistryConfig>, own: Option<&RegistryConfig>| {
            let level =
                |c: Option<&RegistryConfig>| c.and_then(|c| c.compatibility.clone()).unwrap_or_default();
            if wanted.is_some() && level(wanted.as_ref()) != level(own) {
                found.push(format!(
                    "the compatibility of {what}: expected {}, found {}",
                    level(wanted.as_ref()),
                    level(own)
                ));
            }
        };
        config("the Schema Registry".to_owned(), &self.plan.config, target.config.as_ref());
        for planned in self.plan.subjects.iter().filter(|s| !s.deleted) {
            let own = subject(target, &planned.subject);
            let what = format!("subject {}", planned.subject);
            config(what, &planned.config, own.and_then(|s| s.config.as_ref()));
        }
        let mut mode = |what: String, wanted: Option<&str>, own: Option<&str>| {
            if wanted.is_some() && wanted != own {
                let (wanted, own) = (wanted.unwrap_or("none"), own.unwrap_or("none"));
                found.push(format!("the mode of {what}: expected {wanted}, found {own}"));
            }
        };
        mode("the Schema Registry".to_owned(), self.plan.mode.as_deref(), target.mode.as_deref());
        for planned in self.plan.subjects.iter().filter(|s| !s.deleted) {
            let own = subject(target, &planned.subject).and_then(|s| s.mode.as_deref());
            let wanted = planned.mode.as_deref().or(planned.mode_before.as_deref());
            mode(format!("subject {}", planned.subject), wanted, own);
        }
    }
}

fn subject<'s>(state: &'s SchemaState, name: &str) -> Option<&'s Subject> {
    state.subjects.iter().find(|s| s.subject == name)
}
