//! What a registry lacks of the archive's subjects, and what stands against adding it.

use std::collections::{BTreeMap, BTreeSet};

use varve_cluster::{
    ClusterState, IMPORT, Part, SchemaRegistry, SchemaState, SchemaVersion, StateParts, Subject,
    read_registry,
};

use super::document::{Ids, PlannedSchemas, PlannedSubject, PlannedVersion};
use super::order::ordered;
use super::same::{context, is_alike, is_same, referred};
use crate::plan::Refusal;
use crate::select::Patterns;

const READ_WRITE: &str = "READWRITE";

/// What is asked for, beside the archive.
#[derive(Clone, Debug)]
pub struct WantedSchemas {
    pub registry: SchemaRegistry,
    pub url: String,
    /// None is all.
    pub subjects: Patterns,
    /// Where the registry does not take the archive's.
    pub ids_may_change: bool,
}

/// Reads the registry, and changes nothing in it. What stands against it is among `refusals`.
pub(crate) async fn planned(
    state: &ClusterState,
    wanted: Option<&WantedSchemas>,
    parts: &StateParts,
    refusals: &mut Vec<Refusal>,
    differences: &mut Vec<String>,
) -> Option<PlannedSchemas> {
    let archived = state.schemas.as_ref().filter(|_| parts.has(Part::Schemas));
    let Some(wanted) = wanted else {
        if let Some(archived) = archived.filter(|a| !a.subjects.is_empty()) {
            differences.push(format!(
                "{} subjects of the Schema Registry are not restored: --schema-registry URL restores them",
                archived.subjects.len()
            ));
        }
        return None;
    };
    let Some(archived) = archived else {
        refusals.push(Refusal {
            what: "the archive's snapshot has no Schema Registry".to_owned(),
            todo: "take another snapshot, or leave --schema-registry out".to_owned(),
        });
        return None;
    };
    for missing in state.missing.iter().filter(|m| m.what.contains(" of subject ")) {
        differences.push(format!("{} is not in the archive ({})", missing.what, missing.error));
    }
    let unreadable = |what: String| Refusal {
        what: format!("the Schema Registry {}: {what}", wanted.url),
        todo: "check --schema-registry and --schema-registry-config".to_owned(),
    };
    let (target, imports) = match (read_registry(&wanted.registry).await, imports(wanted).await) {
        (Ok(target), Ok(imports)) => (target, imports),
        (Err(what), _) | (_, Err(what)) => {
            refusals.push(unreadable(what));
            return None;
        }
    };
    let comparison = Comparison::new(archived, &target, wanted);
    let mut found = Vec::new();
    let plan = comparison.kept(&mut found);
    if imports || (plan.versions.is_empty() && found.is_empty()) {
        refusals.append(&mut found);
        comparison.settings(&plan, differences);
        return Some(plan);
    }
    if !wanted.ids_may_change {
        refusals.append(&mut found);
        refusals.push(Refusal {
            what: format!(
                "the Schema Registry {} has no mode IMPORT: it would give {} schemas new ids, and records carry the old ones",
                wanted.url,
                plan.versions.len()
            ),
            todo: "restore into a registry that has it; or say --schema-ids-may-change, and mind the map of ids"
                .to_owned(),
        });
        return Some(plan);
    }
    let plan = comparison.mapped(refusals, differences);
    comparison.settings(&plan, differences);
    Some(plan)
}

async fn imports(wanted: &WantedSchemas) -> Result<bool, String> {
    wanted.registry.knows_import().await.map_err(|e| format!("it does not tell its modes: {e}"))
}

struct Comparison<'a> {
    archived: &'a SchemaState,
    target: &'a SchemaState,
    url: &'a str,
    /// Of the archive, by name; those that are wanted.
    wanted: BTreeMap<&'a str, &'a Subject>,
    /// Of the target, by name.
    there: BTreeMap<&'a str, &'a Subject>,
    /// Of the target, by context and id.
    ids: BTreeMap<(&'a str, i64), (&'a str, &'a SchemaVersion)>,
}

impl<'a> Comparison<'a> {
    fn new(archived: &'a SchemaState, target: &'a SchemaState, wanted: &'a WantedSchemas) -> Self {
        let is_wanted = |s: &&Subject| wanted.subjects.is_empty() || wanted.subjects.has(&s.subject);
        let by_name = |s: &'a Subject| (s.subject.as_str(), s);
        let versions = target.subjects.iter().flat_map(|s| s.versions.iter().map(move |v| (s, v)));
        Self {
            archived,
            target,
            url: &wanted.url,
            wanted: archived.subjects.iter().filter(is_wanted).map(by_name).collect(),
            there: target.subjects.iter().map(by_name).collect(),
            ids: versions.map(|(s, v)| ((context(&s.subject), v.id), (s.subject.as_str(), v))).collect(),
        }
    }

    fn versions(&self) -> Vec<(&'a str, &'a SchemaVersion)> {
        let all: Vec<_> =
            self.wanted.iter().flat_map(|(name, s)| s.versions.iter().map(move |v| (*name, v))).collect();
        ordered(&all)
    }

    fn version_there(&self, subject: &str, version: i32) -> Option<&'a SchemaVersion> {
        self.there.get(subject)?.versions.iter().find(|v| v.version == version)
    }

    fn plan(&self, ids: Ids) -> PlannedSchemas {
        let is_empty = self.target.subjects.iter().all(|s| s.versions.is_empty());
        PlannedSchemas {
            url: self.url.to_owned(),
            ids,
            config: self
                .archived
                .config
                .clone()
                .filter(|c| is_empty && self.target.config.as_ref() != Some(c)),
            mode: self.archived.mode.clone().filter(|m| is_empty && self.target.mode.as_ref() != Some(m)),
            subjects: Vec::new(),
            versions: Vec::new(),
            equal: 0,
        }
    }

    fn kept(&self, refusals: &mut Vec<Refusal>) -> PlannedSchemas {
        let mut plan = self.plan(Ids::Kept);
        for (subject, version) in self.versions() {
            self.references(subject, version, refusals);
            let known = self.ids.get(&(context(subject), version.id));
            let name = format!("{subject}:{} (id {})", version.version, version.id);
            let conflict = match self.version_there(subject, version.version) {
                Some(own) if is_same(own, version) && own.id == version.id => {
                    // What was deleted there and lives in the archive comes to life again; never the other way.
                    if version.deleted || !own.deleted {
                        plan.equal += 1;
                        continue;
                    }
                    None
                }
                Some(own) => Some(format!("{subject}:{} (id {}) is another schema", own.version, own.id)),
                None => known
                    .filter(|(_, own)| !is_same(own, version))
                    .map(|(at, own)| format!("id {} is another schema, {at}:{}", own.id, own.version)),
            };
            if let Some(conflict) = conflict {
                refusals.push(Refusal {
                    what: format!("schema {name}: in the Schema Registry {conflict}"),
                    todo: "restore into a registry without it, or leave the subject out with --subjects"
                        .to_owned(),
                });
            }
            plan.versions.push(planned_version(subject, version, false));
        }
        self.subjects(&mut plan);
        plan
    }

    fn mapped(&self, refusals: &mut Vec<Refusal>, differences: &mut Vec<String>) -> PlannedSchemas {
        let mut plan = self.plan(Ids::Mapped);
        let mut read_only: BTreeSet<&str> = BTreeSet::new();
        let global = self.target.mode.as_deref().unwrap_or(READ_WRITE);
        for (subject, version) in self.versions() {
            self.references(subject, version, refusals);
            let there = self.there.get(subject);
            let is_there = there.is_some_and(|s| s.versions.iter().any(|own| is_alike(own, version)));
            if is_there {
                plan.equal += 1;
            } else if there.and_then(|s| s.mode.as_deref()).unwrap_or(global) != READ_WRITE {
                read_only.insert(subject);
            }
            plan.versions.push(planned_version(subject, version, is_there));
        }
        if let Some(first) = read_only.first() {
            refusals.push(Refusal {
                what: format!(
                    "{} subjects of the Schema Registry can't be written, {first} among them",
                    read_only.len()
                ),
                todo: format!("set the mode {READ_WRITE} for the time"),
            });
        }
        self.subjects(&mut plan);
        differences.push(format!(
            "THE IDS OF {} SCHEMAS CHANGE. Records carry the old ones in their first 5 bytes: whoever reads them by this \
             registry finds another schema, or none. The map of old and new ids will be beside the plan, PLAN.schema-ids.json",
            plan.versions.len()
        ));
        plan
    }

    /// What is referred to must come with it, or be there.
    fn references(&self, subject: &str, version: &SchemaVersion, refusals: &mut Vec<Refusal>) {
        for reference in &version.references {
            let name = referred(subject, reference);
            let comes = self
                .wanted
                .get(name.as_str())
                .is_some_and(|s| s.versions.iter().any(|v| v.version == reference.version));
            if !comes && self.version_there(&name, reference.version).is_none() {
                refusals.push(Refusal {
                    what: format!(
                        "schema {subject}:{} refers to {name}:{}, which is not restored and not in the Schema Registry",
                        version.version, reference.version
                    ),
                    todo: "let --subjects match it too".to_owned(),
                });
            }
        }
    }

    /// Those that get a version, a config or a mode.
    fn subjects(&self, plan: &mut PlannedSchemas) {
        for (name, archived) in &self.wanted {
            let there = self.there.get(name).copied();
            let has_versions = there.is_some_and(|s| !s.versions.is_empty());
            let (config_before, mode_before) =
                (there.and_then(|s| s.config.clone()), there.and_then(|s| s.mode.clone()));
            let planned = PlannedSubject {
                subject: (*name).to_owned(),
                deleted: archived.deleted && !has_versions,
                config: archived.config.clone().filter(|_| config_before.is_none()),
                mode: archived.mode.clone().filter(|_| mode_before.is_none()),
                config_before,
                mode_before,
            };
            let gets = plan.versions.iter().any(|v| v.subject == *name && !v.is_there);
            if gets || planned.config.is_some() || planned.mode.is_some() {
                plan.subjects.push(planned);
            }
        }
    }

    /// Where the registry has settings of its own, they stay.
    fn settings(&self, plan: &PlannedSchemas, differences: &mut Vec<String>) {
        let level = |config: &Option<varve_cluster::RegistryConfig>| {
            config.as_ref().and_then(|c| c.compatibility.clone()).unwrap_or_default()
        };
        let mut told = |what: String, own: &str, archived: &str| {
            if !archived.is_empty() && own != archived {
                differences.push(format!("{what} stays {own}; the archive has {archived}"));
            }
        };
        if plan.config.is_none() {
            let what = "the compatibility of the Schema Registry".to_owned();
            told(what, &level(&self.target.config), &level(&self.archived.config));
        }
        if plan.mode.is_none() {
            let mode = |of: &SchemaState| of.mode.clone().unwrap_or_default();
            told("the mode of the Schema Registry".to_owned(), &mode(self.target), &mode(self.archived));
        }
        for (name, archived) in &self.wanted {
            let Some(own) = self.there.get(name) else { continue };
            if own.config.is_some() {
                let what = format!("the compatibility of subject {name}");
                told(what, &level(&own.config), &level(&archived.config));
            }
            if let Some(mode) = own.mode.as_deref().filter(|mode| *mode != IMPORT) {
                told(
                    format!("the mode of subject {name}"),
                    mode,
                    archived.mode.as_deref().unwrap_or_default(),
                );
            }
        }
        for (subject, version) in self.versions().into_iter().filter(|(_, v)| v.deleted) {
            if self.version_there(subject, version.version).is_some_and(|own| !own.deleted) {
                let number = version.version;
                differences.push(format!(
                    "schema {subject}:{number} stays in the Schema Registry; in the archive it is deleted"
                ));
            }
        }
    }
}

fn planned_version(subject: &str, version: &SchemaVersion, is_there: bool) -> PlannedVersion {
    PlannedVersion {
        subject: subject.to_owned(),
        version: version.version,
        id: version.id,
        schema_type: version.schema_type.clone(),
        deleted: version.deleted,
        is_there,
    }
}
