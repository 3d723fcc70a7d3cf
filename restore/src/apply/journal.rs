//! What an apply has done: a line each, beside the plan. Whoever resumes reads it; a line that a crash cut off is none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use varve_format::Id;

use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Made on the target, under this id.
    Topic {
        target: String,
        topic_id: String,
    },
    /// Ids up to this one are in batches that may have left.
    ProducerIds {
        last: i64,
    },
    /// A transaction's marker was written.
    Aborted {
        target: String,
        partition: i32,
        producer_id: i64,
    },
    /// ACLs, quotas and configs were added.
    Rest {},
    Group {
        group_id: String,
    },
    /// The Schema Registry has all of the plan's schemas.
    Schemas {},
}

/// What the lines say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) topics: BTreeMap<String, Id>,
    pub(super) last_producer_id: i64,
    pub(super) aborted: BTreeSet<(String, i32, i64)>,
    pub(super) rest: bool,
    pub(super) groups: BTreeSet<String>,
    pub(super) schemas: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Its path, of the plan's.
    pub(super) fn path(plan: &Path) -> PathBuf {
        let mut name = plan.as_os_str().to_owned();
        name.push(".done");
        name.into()
    }

    /// What was done so far, and the place for what follows. It is locked until it is dropped.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Done)> {
        let fail = |source| Error::File { what: path.display().to_string(), source };
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(fail)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let what = format!("another process is at work: it has {}", path.display());
                return Err(Error::refused(what, "wait for its end, or end it; then go on with apply"));
            }
            // Not every file system has locks.
            Err(TryLockError::Error(error)) => tracing::warn!(%error, path = %path.display(), "no lock"),
            Ok(()) => {}
        }
        let text = std::fs::read_to_string(&path).map_err(fail)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let done = read(&path, text.get(..whole).unwrap_or_default())?;
        file.set_len(whole as u64).map_err(fail)?;
        Ok((Self { file: Mutex::new(file), path }, done))
    }

    fn write(&self, line: &Line) -> Result<()> {
        let fail = |source| Error::File { what: self.path.display().to_string(), source };
        let mut text = serde_json::to_vec(line).map_err(|e| fail(e.into()))?;
        text.push(b'\n');
        let mut file = self.file.lock();
        file.write_all(&text).and_then(|()| file.sync_data()).map_err(fail)
    }

    pub(super) fn topic(&self, target: &str, topic_id: Id) -> Result<()> {
        self.write(&Line::Topic { target: target.to_owned(), topic_id: topic_id.to_string() })
    }

    pub(super) fn producer_ids(&self, last: i64) -> Result<()> {
        self.write(&Line::ProducerIds { last })
    }

    pub(super) fn aborted(&self, target: &str, partition: i32, producer_id: i64) -> Result<()> {
        self.write(&Line::Aborted { target: target.to_owned(), partition, producer_id })
    }

    pub(super) fn rest(&self) -> Result<()> {
        self.write(&Line::Rest {})
    }

    pub(super) fn group(&self, group_id: &str) -> Result<()> {
        self.write(&Line::Group { group_id: group_id.to_owned() })
    }

    pub(super) fn schemas(&self) -> Result<()> {
        self.write(&Line::Schemas {})
    }
}

fn read(path: &Path, text: &str) -> Result<Done> {
    let mut done = Done {
        topics: BTreeMap::new(),
        last_producer_id: -1,
        aborted: BTreeSet::new(),
        rest: false,
        groups: BTreeSet::new(),
        schemas: false,
    };
    for (number, line) in text.lines().enumerate() {
        let odd = |found: String| {
            Error::unexpected(format!("{}, line {}", path.display(), number + 1), "what was done", found)
        };
        match serde_json::from_str(line).map_err(|e| odd(e.to_string()))? {
            Line::Topic { target, topic_id } => {
                let id = Id::parse(&topic_id).map_err(|e| odd(e.to_string()))?;
                done.topics.insert(target, id);
            }
            Line::ProducerIds { last } => done.last_producer_id = done.last_producer_id.max(last),
            Line::Aborted { target, partition, producer_id } => {
                done.aborted.insert((target, partition, producer_id));
            }
            Line::Rest {} => done.rest = true,
            Line::Group { group_id } => {
                done.groups.insert(group_id);
            }
            Line::Schemas {} => done.schemas = true,
        }
    }
    Ok(done)
}

/// What was done under the plan at `path`; for a cleanup.
pub(super) fn done(path: &Path) -> Result<Done> {
    let path = Journal::path(path);
    match std::fs::read_to_string(&path) {
        Ok(text) => read(&path, text.get(..text.rfind('\n').map_or(0, |end| end + 1)).unwrap_or_default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => read(&path, ""),
        Err(source) => Err(Error::File { what: path.display().to_string(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_known_again_and_a_cut_line_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = Journal::path(&dir.path().join("a.plan"));
        let (journal, before) = Journal::open(path.clone()).unwrap();
        assert_eq!((before.topics.len(), before.last_producer_id), (0, -1));
        journal.topic("orders", Id([7; 16])).unwrap();
        journal.producer_ids(1999).unwrap();
        journal.group("billing").unwrap();
        journal.aborted("orders", 1, 17).unwrap();
        std::fs::write(&path, [std::fs::read(&path).unwrap(), b"{\"group\":{".to_vec()].concat()).unwrap();
        assert!(matches!(Journal::open(path.clone()), Err(Error::Refused { .. })), "two at work");
        drop(journal);
        let (journal, done) = Journal::open(path.clone()).unwrap();
        assert_eq!(done.topics.get("orders"), Some(&Id([7; 16])));
        assert_eq!((done.last_producer_id, done.groups.len(), done.aborted.len()), (1999, 1, 1));
        journal.group("audit").unwrap();
        drop(journal);
        assert_eq!(Journal::open(path.clone()).unwrap().1.groups.len(), 2);
        std::fs::write(&path, "{\"other\":{}}\n").unwrap();
        assert!(Journal::open(path).is_err());
    }
}
