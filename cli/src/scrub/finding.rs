//! What a scrub reports.

use std::fmt;

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FindingKind {
    /// The brokers rely on an object that is not there.
    Loss,
    /// An object is not what the brokers were told it is, or is damaged.
    Corruption,
    /// An object that no metadata speaks of, or whose deletion is said to be finished.
    Orphan,
    /// A copy that began long ago and never finished.
    UnfinishedCopy,
    /// A deletion that began long ago and never finished.
    UnfinishedDelete,
    /// A segment of a topic that the cluster doesn't have (or doesn't show us).
    DeletedTopic,
    /// An upload that was neither completed nor aborted.
    LeftOverUpload,
    /// An object among the segments whose name is no segment's.
    Foreign,
    /// What could not be judged: no key, or of a newer format.
    Unreadable,
}

impl FindingKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            FindingKind::Loss => "loss",
            FindingKind::Corruption => "corruption",
            FindingKind::Orphan => "orphan",
            FindingKind::UnfinishedCopy => "unfinished-copy",
            FindingKind::UnfinishedDelete => "unfinished-delete",
            FindingKind::DeletedTopic => "deleted-topic",
            FindingKind::LeftOverUpload => "left-over-upload",
            FindingKind::Foreign => "foreign",
            FindingKind::Unreadable => "unreadable",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Finding {
    pub(crate) kind: FindingKind,
    /// The object's key in the store.
    pub(crate) key: String,
    /// As the metadata names it.
    pub(crate) topic: Option<String>,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<18}{}", self.kind.name(), self.key)?;
        if let Some(topic) = &self.topic {
            write!(f, " ({topic})")?;
        }
        write!(f, ": {}", self.detail)
    }
}
