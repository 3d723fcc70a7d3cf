//! Which offset of the source became which on the target: a file for each partition, in a folder beside the plan.
//!
//! A line is three numbers: first offset of the source, first offset of the target, how many. Lines that go on from one
//! another are one run. They are appended as acknowledgements come, and brought to the disk now and then: what a crash
//! cuts off is found on the target again.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::plan::{PlannedPartition, PlannedTopic};

const SYNC: Duration = Duration::from_secs(1);
const HELD_MAX_BYTES: usize = 64 << 10;

/// Neighbours that stay neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) source: i64,
    pub(crate) target: i64,
    pub(crate) count: i64,
}

impl Run {
    pub(crate) fn source_end(&self) -> i64 {
        self.source.saturating_add(self.count)
    }

    pub(crate) fn target_end(&self) -> i64 {
        self.target.saturating_add(self.count)
    }

    pub(crate) fn goes_on_with(&self, next: &Self) -> bool {
        (self.source_end(), self.target_end()) == (next.source, next.target)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split(' ').map(str::parse::<i64>);
        let mut number = || numbers.next()?.ok().filter(|n| *n >= 0);
        let run = Self { source: number()?, target: number()?, count: number()? };
        (numbers.next().is_none() && run.count > 0).then_some(run)
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.source, self.target, self.count)
    }
}

/// The folder of all of them.
#[derive(Clone, Debug)]
pub(crate) struct MapDir(PathBuf);

impl MapDir {
    /// Of the plan in this file.
    pub(crate) fn of(plan_file: &Path) -> Self {
        let mut name = plan_file.as_os_str().to_owned();
        name.push(".map");
        Self(name.into())
    }

    /// # Errors
    /// Of the file system.
    pub(crate) fn make(&self) -> Result<()> {
        std::fs::create_dir_all(&self.0)
            .map_err(|source| Error::File { what: self.0.display().to_string(), source })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, topic: &PlannedTopic, partition: i32) -> PathBuf {
        self.0.join(format!("{}.{partition}", topic.topic_id))
    }

    /// Runs of a partition, as long as can be. What a crash cut off is not among them.
    ///
    /// # Errors
    /// Of the file system; a line that is none.
    pub(crate) fn runs(&self, topic: &PlannedTopic, partition: i32) -> Result<Runs> {
        let path = self.file(topic, partition);
        let fail = |source| Error::File { what: path.display().to_string(), source };
        let lines = match File::open(&path) {
            Ok(file) => Some(BufReader::new(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(fail(e)),
        };
        Ok(Runs { path, lines, number: 0, held: None, whole_bytes: 0 })
    }

    /// Whether all of it is there.
    ///
    /// # Errors
    /// As [`MapDir::runs`].
    pub(crate) fn is_whole(&self, topic: &PlannedTopic, planned: &PlannedPartition) -> Result<bool> {
        let Some(produce) = &planned.produce else { return Ok(false) };
        let mut found = 0_u64;
        for run in self.runs(topic, planned.partition)? {
            found = found.saturating_add(run?.count.unsigned_abs());
        }
        Ok(found == produce.records && found > 0)
    }
}

/// See [`MapDir::runs`].
#[derive(Debug)]
pub(crate) struct Runs {
    path: PathBuf,
    lines: Option<BufReader<File>>,
    number: u64,
    held: Option<Run>,
    /// Up to the end of the last whole line.
    whole_bytes: u64,
}

impl Runs {
    fn line(&mut self) -> Result<Option<Run>> {
        let Some(lines) = &mut self.lines else { return Ok(None) };
        let mut line = String::new();
        let fail = |source| Error::File { what: self.path.display().to_string(), source };
        lines.read_line(&mut line).map_err(fail)?;
        let Some(text) = line.strip_suffix('\n') else {
            self.lines = None;
            return Ok(None);
        };
        self.number += 1;
        let odd = || {
            Error::unexpected(
                format!("{}, line {}", self.path.display(), self.number),
                "two offsets and a count, above those before",
                text,
            )
        };
        let run = Run::parse(text).ok_or_else(odd)?;
        if self.held.is_some_and(|h| run.source < h.source_end() || run.target != h.target_end()) {
            return Err(odd());
        }
        self.whole_bytes += line.len() as u64;
        Ok(Some(run))
    }

    fn step(&mut self) -> Result<Option<Run>> {
        loop {
            match (self.line()?, &mut self.held) {
                (Some(next), Some(held)) if held.goes_on_with(&next) => held.count += next.count,
                (Some(next), held) => {
                    if let Some(done) = held.replace(next) {
                        return Ok(Some(done));
                    }
                }
                (None, held) => return Ok(held.take()),
            }
        }
    }
}

impl Iterator for Runs {
    type Item = Result<Run>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// One partition's, being written.
#[derive(Debug)]
pub(super) struct PartitionMap {
    path: PathBuf,
    file: File,
    held: String,
    open: Option<Run>,
    synced: Instant,
}

impl PartitionMap {
    /// Goes on behind what is there; its last run, if there is any.
    pub(super) fn open(dir: &MapDir, topic: &PlannedTopic, partition: i32) -> Result<(Self, Option<Run>)> {
        let mut runs = dir.runs(topic, partition)?;
        let mut last = None;
        for run in runs.by_ref() {
            last = Some(run?);
        }
        let path = runs.path.clone();
        let fail = |source| Error::File { what: path.display().to_string(), source };
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(fail)?;
        file.set_len(runs.whole_bytes).map_err(fail)?;
        Ok((Self { path, file, held: String::new(), open: None, synced: Instant::now() }, last))
    }

    pub(super) fn add(&mut self, run: Run) -> Result<()> {
        match &mut self.open {
            Some(open) if open.goes_on_with(&run) => open.count += run.count,
            open => {
                if let Some(done) = open.replace(run) {
                    self.held.push_str(&format!("{done}\n"));
                }
            }
        }
        if self.held.len() >= HELD_MAX_BYTES {
            self.write()?;
        }
        if self.synced.elapsed() >= SYNC { self.sync() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let fail = |source| Error::File { what: self.path.display().to_string(), source };
        self.file.write_all(self.held.as_bytes()).map_err(fail)?;
        self.held.clear();
        Ok(())
    }

    /// All of it is on disk.
    pub(super) fn sync(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            self.held.push_str(&format!("{open}\n"));
        }
        self.write()?;
        self.synced = Instant::now();
        self.file.sync_data().map_err(|source| Error::File { what: self.path.display().to_string(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::plan::tests::topic;

    fn run(source: i64, target: i64, count: i64) -> Run {
        Run { source, target, count }
    }

    fn all(dir: &MapDir) -> Result<Vec<Run>> {
        dir.runs(&topic(), 0)?.collect()
    }

    #[test]
    fn runs_grow_together_and_a_cut_line_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let dir = MapDir::of(&folder.path().join("a.plan"));
        dir.make().unwrap();
        assert_eq!(all(&dir).unwrap(), []);
        let (mut map, last) = PartitionMap::open(&dir, &topic(), 0).unwrap();
        assert_eq!(last, None);
        for some in [run(5, 0, 10), run(15, 10, 2), run(20, 12, 1)] {
            map.add(some).unwrap();
        }
        map.sync().unwrap();
        map.add(run(21, 13, 4)).unwrap();
        map.sync().unwrap();
        assert_eq!(all(&dir).unwrap(), [run(5, 0, 12), run(20, 12, 5)]);
        let file = dir.file(&topic(), 0);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}30 17")).unwrap();
        let (mut map, last) = PartitionMap::open(&dir, &topic(), 0).unwrap();
        assert_eq!(last, Some(run(20, 12, 5)));
        map.add(run(30, 17, 1)).unwrap();
        map.sync().unwrap();
        assert_eq!(all(&dir).unwrap(), [run(5, 0, 12), run(20, 12, 5), run(30, 17, 1)]);
    }

    #[test]
    fn what_is_no_map_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let dir = MapDir::of(&folder.path().join("a.plan"));
        dir.make().unwrap();
        for bad in ["5 0", "5 0 0", "5 0 1 2", "x 0 1", "-1 0 1", "5 0 2\n6 2 1", "5 0 2\n9 3 1"] {
            std::fs::write(dir.file(&topic(), 0), format!("{bad}\n")).unwrap();
            let error = all(&dir).unwrap_err().to_string();
            assert!(error.contains("line "), "{bad:?}: {error}");
        }
    }
}
