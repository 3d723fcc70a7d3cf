//! The Schema Registry's part of an apply. It comes first: what it refuses shows before hours of copying.

use std::path::Path;
use std::pin::Pin;

use varve_cluster::{SchemaRegistry, SchemaState};

use super::journal::{self, Done, Journal};
use super::{Apply, Stage, stopped};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::schemas::{Restored, Schemas};
use crate::source::Source;

impl Apply<'_> {
    /// `None` of a plan without schemas.
    pub(super) async fn schemas(
        &self,
        journal: &Journal,
        done: &Done,
        stop: Pin<&mut impl Future<Output = ()>>,
        told: &(dyn Fn(Stage) + Sync),
    ) -> Result<Option<Restored>> {
        let Some(schemas) = schemas(self.plan, self.plan_file, self.source, self.registry)? else {
            return Ok(None);
        };
        if done.schemas {
            return schemas.before().map(Some);
        }
        told(Stage::Schemas);
        let restored = tokio::select! {
            restored = schemas.restore() => restored?,
            () = stop => {
                schemas.put_back().await?;
                return Err(stopped());
            }
        };
        journal.schemas()?;
        Ok(Some(restored))
    }
}

/// Those of a plan; `None` if it has none.
///
/// # Errors
/// A plan with schemas, and no registry or none in the archive.
pub fn schemas<'a>(
    plan: &'a Plan,
    plan_file: &'a Path,
    source: &'a Source,
    registry: Option<&'a SchemaRegistry>,
) -> Result<Option<Schemas<'a>>> {
    let Some(planned) = &plan.schemas else { return Ok(None) };
    let archived = source.state.schemas.as_ref();
    let (Some(archived), Some(registry)) = (archived, registry) else {
        return Err(Error::unexpected("the plan's archive", "a Schema Registry", "none"));
    };
    Ok(Some(Schemas { plan: planned, plan_file, archived, registry }))
}

/// After an apply that ended before all schemas were there: none stays in import mode.
///
/// # Errors
/// Of the registry.
pub async fn put_modes_back(plan: &Plan, plan_file: &Path, registry: Option<&SchemaRegistry>) -> Result<()> {
    let (Some(planned), Some(registry)) = (&plan.schemas, registry) else { return Ok(()) };
    if journal::done(plan_file)?.schemas {
        return Ok(());
    }
    let archived = SchemaState::default();
    Schemas { plan: planned, plan_file, archived: &archived, registry }.put_back().await
}
