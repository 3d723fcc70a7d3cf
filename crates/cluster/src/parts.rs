//! What of a cluster's state is wanted.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// In the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Acls,
    /// Dynamic configs of brokers, of the cluster, of client metrics and of groups.
    Configs,
    Features,
    Groups,
    Quotas,
    Schemas,
    /// With their configs.
    Topics,
    /// SCRAM users.
    Users,
}

impl Part {
    pub const ALL: [Self; 8] = [
        Self::Acls,
        Self::Configs,
        Self::Features,
        Self::Groups,
        Self::Quotas,
        Self::Schemas,
        Self::Topics,
        Self::Users,
    ];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Acls => "acls",
            Self::Configs => "configs",
            Self::Features => "features",
            Self::Groups => "groups",
            Self::Quotas => "quotas",
            Self::Schemas => "schemas",
            Self::Topics => "topics",
            Self::Users => "users",
        };
        f.write_str(name)
    }
}

/// A set of parts; all of them by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateParts(BTreeSet<Part>);

impl StateParts {
    pub fn all() -> Self {
        Part::ALL.into_iter().collect()
    }

    pub fn none() -> Self {
        Self(BTreeSet::new())
    }

    pub fn has(&self, part: Part) -> bool {
        self.0.contains(&part)
    }

    pub fn without(mut self, part: Part) -> Self {
        self.0.remove(&part);
        self
    }

    pub fn iter(&self) -> impl Iterator<Item = Part> + '_ {
        self.0.iter().copied()
    }
}

impl Default for StateParts {
    fn default() -> Self {
        Self::all()
    }
}

impl FromIterator<Part> for StateParts {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        Self(parts.into_iter().collect())
    }
}
