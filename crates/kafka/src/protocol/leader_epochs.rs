//! `leader-epoch-checkpoint`: text lines: version (0), count, then `epoch startOffset` each.

use std::fmt;

use super::error::{ProtocolError, Result};

const WHAT: &str = "leader epoch checkpoint";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    pub epoch: i32,
    pub start_offset: i64,
}

/// The leader epochs of a log, each with the offset that it begins at; both ascend. Prints as the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs(Vec<EpochEntry>);

impl LeaderEpochs {
    pub fn parse(file: &[u8]) -> Result<Self> {
        parse_leader_epochs(file).map(Self)
    }

    pub fn entries(&self) -> &[EpochEntry] {
        &self.0
    }

    /// A batch of `epoch` begins at `start_offset`. Only a newer epoch is noted, and what nothing was written in
    /// gives way to it. Batches without an epoch have -1.
    pub fn note(&mut self, epoch: i32, start_offset: i64) {
        if epoch < 0 || self.0.last().is_some_and(|last| last.epoch >= epoch) {
            return;
        }
        while self.0.last().is_some_and(|last| last.start_offset >= start_offset) {
            self.0.pop();
        }
        self.0.push(EpochEntry { epoch, start_offset });
    }

    /// The log begins at `log_start_offset` now: the epoch of that offset begins there too, earlier ones go.
    pub fn truncate_from_start(&mut self, log_start_offset: i64) {
        let before = self.0.iter().take_while(|entry| entry.start_offset <= log_start_offset).count();
        self.0.drain(..before.saturating_sub(1));
        if let (1.., Some(first)) = (before, self.0.first_mut()) {
            first.start_offset = log_start_offset;
        }
    }

    /// The epochs from `start_offset` to before `end_offset`.
    pub fn in_range(&self, start_offset: i64, end_offset: i64) -> Vec<EpochEntry> {
        let mut copy = self.clone();
        copy.truncate_from_start(start_offset);
        copy.0.retain(|entry| entry.start_offset < end_offset);
        copy.0
    }
}

impl fmt::Display for LeaderEpochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0\n{}\n", self.0.len())?;
        self.0.iter().try_for_each(|entry| writeln!(f, "{} {}", entry.epoch, entry.start_offset))
    }
}

/// Positions in errors are of the line's begin.
pub fn parse_leader_epochs(bytes: &[u8]) -> Result<Vec<EpochEntry>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| ProtocolError::corrupt(WHAT, e.valid_up_to() as u64, "UTF-8", "other bytes"))?;
    let mut position = 0_u64;
    let mut lines = text.split_inclusive('\n').map(|line| {
        let at = position;
        position += line.len() as u64;
        (at, line.trim_end())
    });
    let mut number = |expected: &'static str| {
        let (at, line) = lines.next().unwrap_or((bytes.len() as u64, ""));
        let value = line.parse::<u64>();
        value.map(|n| (at, n)).map_err(|_| ProtocolError::corrupt(WHAT, at, expected, format!("{line:?}")))
    };
    let (at, version) = number("a version")?;
    if version != 0 {
        let found = i64::try_from(version).unwrap_or(i64::MAX);
        return Err(ProtocolError::UnknownVersion { what: WHAT, position: at, found, supported: 0 });
    }
    let (_, count) = number("a count")?;
    let mut entries: Vec<EpochEntry> = Vec::new();
    for (at, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let parsed = line.split_once(' ').and_then(|(epoch, offset)| {
            Some(EpochEntry { epoch: epoch.parse().ok()?, start_offset: offset.parse().ok()? })
        });
        let Some(entry) = parsed else {
            return Err(ProtocolError::corrupt(WHAT, at, "an epoch and an offset", format!("{line:?}")));
        };
        if let Some(last) = entries.last()
            && (entry.epoch <= last.epoch || entry.start_offset < last.start_offset)
        {
            return Err(ProtocolError::corrupt(
                WHAT,
                at,
                format!("more than {last:?}"),
                format!("{entry:?}"),
            ));
        }
        entries.push(entry);
    }
    if entries.len() as u64 != count {
        let found = entries.len();
        return Err(ProtocolError::corrupt(WHAT, bytes.len() as u64, format!("{count} entries"), found));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_what_is_wrong_with_them() {
        let good = parse_leader_epochs(b"0\n2\n0 0\n3 150\n").unwrap();
        assert_eq!(good[1], EpochEntry { epoch: 3, start_offset: 150 });
        assert_eq!(parse_leader_epochs(b"0\n0\n"), Ok(vec![]));
        for bad in ["", "1\n0\n", "0\n1\n", "0\n1\n0 0\n1 1\n", "0\n2\n3 9\n1 10\n", "0\n1\nx 1\n", "0\n-1\n"]
        {
            assert!(parse_leader_epochs(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn epochs_are_noted_once_and_cut() {
        let mut epochs = LeaderEpochs::default();
        for (epoch, offset) in [(-1, 0), (0, 0), (0, 7), (2, 10), (1, 12), (3, 20), (5, 20), (7, 31)] {
            epochs.note(epoch, offset);
        }
        assert_eq!(epochs.to_string(), "0\n4\n0 0\n2 10\n5 20\n7 31\n");
        assert_eq!(LeaderEpochs::parse(epochs.to_string().as_bytes()), Ok(epochs.clone()));
        let pairs = |entries: &[EpochEntry]| -> Vec<(i32, i64)> {
            entries.iter().map(|e| (e.epoch, e.start_offset)).collect()
        };
        assert_eq!(pairs(&epochs.in_range(15, 31)), [(2, 15), (5, 20)]);
        assert_eq!(pairs(&epochs.in_range(0, 0)), []);
        epochs.truncate_from_start(20);
        assert_eq!(pairs(epochs.entries()), [(5, 20), (7, 31)]);
        epochs.truncate_from_start(19);
        assert_eq!(pairs(epochs.entries()), [(5, 20), (7, 31)]);
    }
}
