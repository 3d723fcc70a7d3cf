//! The Schema Registry's part of plans and reports.

use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};
use varve_restore::schemas::{Ids, PlannedSchemas, Restored};

use crate::archive::Table;
use crate::output::grouped;

/// More of a kind are in the file.
const SHOWN: usize = 20;

/// What the registry gets: each line is something that it lacks.
pub(crate) fn planned(schemas: &PlannedSchemas, out: &mut impl Write) -> Result<()> {
    let new: Vec<_> = schemas.versions.iter().filter(|v| !v.is_there).collect();
    let how = match schemas.ids {
        Ids::Kept => "with their ids",
        Ids::Mapped => "WITH NEW IDS",
    };
    writeln!(
        out,
        "schemas     {}: {} versions to register {how}, {} there already",
        schemas.url,
        grouped(new.len() as u64),
        grouped(schemas.equal)
    )?;
    let mut table = Table::new(&["schema", ">version", ">id", "type", ""]);
    for version in new.iter().take(SHOWN) {
        table.row(vec![
            format!("+ {}", version.subject),
            version.version.to_string(),
            version.id.to_string(),
            version.schema_type.clone(),
            if version.deleted { "deleted" } else { "" }.to_owned(),
        ]);
    }
    if !new.is_empty() {
        table.print(out)?;
    }
    if new.len() > SHOWN {
        writeln!(out, "and {} schemas more", new.len() - SHOWN)?;
    }
    let level = |config: &Option<varve_cluster::RegistryConfig>| {
        config.as_ref().map(|c| c.compatibility.clone().unwrap_or_else(|| "its settings".to_owned()))
    };
    let global = (String::from("the registry"), level(&schemas.config), schemas.mode.clone());
    let own = schemas.subjects.iter().map(|s| (s.subject.clone(), level(&s.config), s.mode.clone()));
    let mut settings = Vec::new();
    for (name, level, mode) in [global].into_iter().chain(own) {
        settings.extend(level.map(|level| format!("+ compatibility of {name}: {level}")));
        settings.extend(mode.map(|mode| format!("+ mode of {name}: {mode}")));
    }
    for setting in settings.iter().take(SHOWN) {
        writeln!(out, "{setting}")?;
    }
    if settings.len() > SHOWN {
        writeln!(out, "and {} settings more", settings.len() - SHOWN)?;
    }
    Ok(())
}

pub(crate) fn restored(schemas: &Restored, out: &mut impl Write) -> Result<()> {
    writeln!(
        out,
        "schemas     {} registered, {} there before, {} deleted again",
        grouped(schemas.registered),
        grouped(schemas.there_before),
        grouped(schemas.deleted)
    )?;
    let changed = schemas.ids.iter().filter(|m| m.id != m.new_id).count();
    if changed > 0 {
        writeln!(
            out,
            "{} of {} schemas have another id than records have: the map is beside the plan, .schema-ids.json",
            grouped(changed as u64),
            grouped(schemas.ids.len() as u64)
        )?;
    }
    Ok(())
}

pub(crate) fn json(schemas: &Restored) -> Value {
    json!({
        "registered": schemas.registered,
        "there_before": schemas.there_before,
        "deleted": schemas.deleted,
        "ids": schemas.ids,
    })
}
