//! The permissions that docs/CLUSTER-STATE.md says an archiver needs, and docs/RESTORE.md a restore, read from their
//! tables: what the tests grant is what users are told.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// In Kafka's words: `Read`, `DescribeConfigs` …
    pub operation: String,
    /// `Topic`, `Group`, `Cluster` or `TransactionalId`.
    pub resource: String,
    pub name: ResourceName,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceName {
    Literal(String),
    /// The topics that are archived.
    Archived,
    /// The group that archivers share partitions in.
    OwnGroup,
}

impl Permission {
    /// Kafka's codes of the resource's type and the operation.
    pub fn codes(&self) -> Result<(i8, i8)> {
        let resource = match self.resource.as_str() {
            "Topic" => 2,
            "Group" => 3,
            "Cluster" => 4,
            "TransactionalId" => 5,
            other => bail!("a resource {other}"),
        };
        let operation = match self.operation.as_str() {
            "Read" => 3,
            "Write" => 4,
            "Create" => 5,
            "Delete" => 6,
            "Alter" => 7,
            "Describe" => 8,
            "ClusterAction" => 9,
            "DescribeConfigs" => 10,
            "AlterConfigs" => 11,
            "IdempotentWrite" => 12,
            other => bail!("an operation {other}"),
        };
        Ok((resource, operation))
    }
}

/// All rows of the archiver's table.
pub fn documented_permissions() -> Result<Vec<Permission>> {
    rows("CLUSTER-STATE.md", "\n## Permissions\n", "\n## ")
}

/// All rows of the restore's table.
pub fn documented_restore_permissions() -> Result<Vec<Permission>> {
    rows("RESTORE.md", "\n**Permissions**", "\n**")
}

/// All rows of the table of a restore without controllers.
pub fn documented_producer_permissions() -> Result<Vec<Permission>> {
    rows("RESTORE.md", "\n**Permissions of a producer**", "\n**")
}

fn rows(page: &str, begin: &str, end: &str) -> Result<Vec<Permission>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page))?;
    let (_, section) = text.split_once(begin).with_context(|| format!("no {begin:?} in {page}"))?;
    let section = section.split(end).next().unwrap_or_default();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with('|')).collect();
    ensure!(rows.len() > 2 && rows[0].starts_with("| Operation | Resource |"), "no table: {rows:?}");
    rows[2..].iter().map(|row| permission(row)).collect()
}

fn permission(row: &str) -> Result<Permission> {
    let mut cells = row.split('|').skip(1).map(str::trim);
    let (operation, what) = cells.next().zip(cells.next()).with_context(|| row.to_owned())?;
    let quoted = |text: &str| Some(text.split_once('`')?.1.split_once('`')?.0.to_owned());
    let (resource, name) = match what.split_once(": ") {
        Some((resource, words)) if words.starts_with("those archived") => (resource, ResourceName::Archived),
        Some((resource, words)) if words.starts_with("the archiver's own") => {
            (resource, ResourceName::OwnGroup)
        }
        Some(_) => bail!("which resource is it? {row}"),
        None => {
            let (resource, name) = what.split_once(' ').with_context(|| row.to_owned())?;
            (resource, ResourceName::Literal(quoted(name).with_context(|| row.to_owned())?))
        }
    };
    Ok(Permission { operation: operation.to_owned(), resource: resource.to_owned(), name })
}
