//! Reading all of a Schema Registry.
//!
//! A bounded number of requests is under way. What we may not read, and versions that are listed and can't be
//! given (some registries list deleted ones alone), are noted one by one. Any other failure makes the whole part
//! missing: half of a registry would look like all of it.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::Value;

use super::document::Reason;
use super::groups::some;
use super::missing::MissingList;
use super::schema_registry::{RegistryError, SchemaRegistry};
use super::schemas::{RegistryConfig, SchemaReference, SchemaState, SchemaVersion, Subject};

const SUBJECTS_AT_ONCE: usize = 8;
const DELETED_TOO: &str = "deleted=true";
const OWN_ALONE: &str = "defaultToGlobal=false";
/// What Avro's schemas leave out.
const DEFAULT_TYPE: &str = "AVRO";

/// Of one request.
enum Read<T> {
    There(T),
    Absent,
    Denied,
}

/// All that a registry holds, for a comparison with it. With any of it missing it is an error: what is not known would
/// look like what is not there. Deleted versions that are listed and not given are left out.
///
/// # Errors
/// What is missing, by name.
pub async fn read_registry(registry: &SchemaRegistry) -> Result<SchemaState, String> {
    let (state, missing) = read_schemas(registry).await;
    let missing = missing.into_entries().into_iter().find(|m| m.reason != Reason::Unsupported);
    match (state, missing) {
        (Some(state), None) => Ok(state),
        (_, Some(missing)) => Err(format!("{}: {}", missing.what, missing.error)),
        (None, None) => Err("it tells nothing".to_owned()),
    }
}

pub(super) async fn own_config(
    registry: &SchemaRegistry,
    subject: &str,
) -> Result<Option<RegistryConfig>, RegistryError> {
    config(registry, &["config", subject], OWN_ALONE, "config", &mut MissingList::default()).await
}

/// One version; if it may be a deleted one, it is not told whether it is.
pub(super) async fn version_of(
    registry: &SchemaRegistry,
    subject: &str,
    number: i32,
    or_deleted: bool,
) -> Result<Option<SchemaVersion>, RegistryError> {
    let path = ["subjects", subject, "versions", &number.to_string()];
    match registry.get::<Version>(&path, if or_deleted { DELETED_TOO } else { "" }).await {
        Ok(found) => Ok(Some(version(found, number, false))),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

pub(super) async fn read_schemas(registry: &SchemaRegistry) -> (Option<SchemaState>, MissingList) {
    let mut missing = MissingList::default();
    match read_all(registry, &mut missing).await {
        Ok(state) => (state, missing),
        Err(error) => {
            // What was noted before concerns parts of what is now missing as a whole.
            let mut missing = MissingList::default();
            missing.note("Schema Registry", Reason::Failed, error);
            (None, missing)
        }
    }
}

async fn read_all(
    registry: &SchemaRegistry,
    missing: &mut MissingList,
) -> Result<Option<SchemaState>, RegistryError> {
    let living =
        match read::<BTreeSet<String>>(registry, &["subjects"], "", "Schema Registry", missing).await? {
            Read::There(living) => living,
            Read::Denied => return Ok(None),
            Read::Absent => {
                missing.note("Schema Registry", Reason::Failed, "404 for /subjects: is its URL right?");
                return Ok(None);
            }
        };
    let what = "deleted subjects of the Schema Registry";
    let all = listed::<String>(registry, &["subjects"], DELETED_TOO, what, missing).await?;
    let names: BTreeSet<String> = living.iter().cloned().chain(all.unwrap_or_default()).collect();
    let config = config(registry, &["config"], "", "config of the Schema Registry", missing).await?;
    let mode = mode(registry, &["mode"], "", "mode of the Schema Registry", missing).await?;
    let read = names.into_iter().map(|name| {
        let deleted = !living.contains(&name);
        read_subject(registry, name, deleted)
    });
    let mut read = futures::stream::iter(read).buffered(SUBJECTS_AT_ONCE);
    let mut subjects = Vec::new();
    while let Some((subject, more)) = read.try_next().await? {
        missing.extend(more);
        subjects.extend(subject);
    }
    Ok(Some(SchemaState { config, mode, subjects }))
}

async fn read_subject(
    registry: &SchemaRegistry,
    name: String,
    deleted: bool,
) -> Result<(Option<Subject>, MissingList), RegistryError> {
    let mut missing = MissingList::default();
    let what = format!("subject {name}");
    let path = ["subjects", &name, "versions"];
    let living = if deleted {
        BTreeSet::new()
    } else {
        match listed::<i32>(registry, &path, "", &what, &mut missing).await? {
            Some(versions) => versions,
            None => return Ok((None, missing)),
        }
    };
    let what_deleted = format!("deleted versions of subject {name}");
    let all = listed::<i32>(registry, &path, DELETED_TOO, &what_deleted, &mut missing).await?;
    let numbers: BTreeSet<i32> = living.iter().copied().chain(all.unwrap_or_default()).collect();
    let mut versions = Vec::with_capacity(numbers.len());
    for number in numbers {
        let deleted = !living.contains(&number);
        versions.extend(read_version(registry, &name, number, deleted, &mut missing).await?);
    }
    let (own_config, own_mode) = (format!("config of subject {name}"), format!("mode of subject {name}"));
    let config = config(registry, &["config", &name], OWN_ALONE, &own_config, &mut missing).await?;
    let mode = mode(registry, &["mode", &name], OWN_ALONE, &own_mode, &mut missing).await?;
    // It was deleted for good since it was listed.
    if versions.is_empty() && config.is_none() && mode.is_none() && deleted {
        return Ok((None, missing));
    }
    Ok((Some(Subject { subject: name, deleted, config, mode, versions }), missing))
}

async fn read_version(
    registry: &SchemaRegistry,
    subject: &str,
    number: i32,
    deleted: bool,
    missing: &mut MissingList,
) -> Result<Option<SchemaVersion>, RegistryError> {
    let what = format!("version {number} of subject {subject}");
    let path = ["subjects", subject, "versions", &number.to_string()];
    let query = if deleted { DELETED_TOO } else { "" };
    match read::<Version>(registry, &path, query, &what, missing).await? {
        Read::There(found) => Ok(Some(version(found, number, deleted))),
        Read::Denied => Ok(None),
        Read::Absent => {
            if deleted {
                let told = "the registry lists it among the deleted, and does not give it";
                missing.note(what, Reason::Unsupported, told);
            }
            Ok(None)
        }
    }
}

/// As the registry answers; what we don't know stays.
#[derive(Deserialize)]
struct Version {
    id: i64,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    schema: String,
    #[serde(default)]
    references: Option<Vec<SchemaReference>>,
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
}

fn version(found: Version, number: i32, deleted: bool) -> SchemaVersion {
    let mut more = found.more;
    more.retain(|name, _| !["subject", "version", "deleted"].contains(&name.as_str()));
    SchemaVersion {
        version: number,
        id: found.id,
        schema_type: found.schema_type.and_then(some).unwrap_or_else(|| DEFAULT_TYPE.to_owned()),
        deleted,
        schema: found.schema,
        references: found.references.unwrap_or_default(),
        more: object(more),
    }
}

async fn config(
    registry: &SchemaRegistry,
    path: &[&str],
    query: &str,
    what: &str,
    missing: &mut MissingList,
) -> Result<Option<RegistryConfig>, RegistryError> {
    let found = read::<BTreeMap<String, Value>>(registry, path, query, what, missing).await?;
    let Read::There(mut more) = found else { return Ok(None) };
    // The older name is that of requests.
    let level = more.remove("compatibilityLevel").or_else(|| more.remove("compatibility"));
    let compatibility = level.and_then(|level| level.as_str().map(str::to_owned)).and_then(some);
    let more = object(more);
    if compatibility.is_none() && more.is_none() {
        return Ok(None);
    }
    Ok(Some(RegistryConfig { compatibility, more }))
}

async fn mode(
    registry: &SchemaRegistry,
    path: &[&str],
    query: &str,
    what: &str,
    missing: &mut MissingList,
) -> Result<Option<String>, RegistryError> {
    #[derive(Deserialize)]
    struct Mode {
        mode: String,
    }
    match read::<Mode>(registry, path, query, what, missing).await? {
        Read::There(found) => Ok(some(found.mode)),
        _ => Ok(None),
    }
}

/// `None` if it is denied, which is noted; nothing if it is gone.
async fn listed<T: for<'de> Deserialize<'de> + Ord>(
    registry: &SchemaRegistry,
    path: &[&str],
    query: &str,
    what: &str,
    missing: &mut MissingList,
) -> Result<Option<BTreeSet<T>>, RegistryError> {
    // Some tell an empty list as null.
    match read::<Option<BTreeSet<T>>>(registry, path, query, what, missing).await? {
        Read::There(found) => Ok(Some(found.unwrap_or_default())),
        Read::Absent => Ok(Some(BTreeSet::new())),
        Read::Denied => Ok(None),
    }
}

async fn read<T: for<'de> Deserialize<'de>>(
    registry: &SchemaRegistry,
    path: &[&str],
    query: &str,
    what: &str,
    missing: &mut MissingList,
) -> Result<Read<T>, RegistryError> {
    match registry.get(path, query).await {
        Ok(found) => Ok(Read::There(found)),
        Err(e) if e.is_not_found() => Ok(Read::Absent),
        Err(e) if e.is_denied() => {
            missing.note(what, Reason::Denied, e);
            Ok(Read::Denied)
        }
        Err(e) => Err(e),
    }
}

/// As text, its members by name in all depths; `None` if it has none that says anything.
fn object(mut members: BTreeMap<String, Value>) -> Option<String> {
    members.retain(|_, value| !value.is_null());
    if members.is_empty() {
        return None;
    }
    let sorted: BTreeMap<String, Value> =
        members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
    serde_json::to_string(&sorted).ok()
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let by_name: BTreeMap<String, Value> =
                members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            Value::Object(by_name.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
