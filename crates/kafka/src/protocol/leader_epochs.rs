//! `leader-epoch-checkpoint`: text lines: version (0), count, then `epoch startOffset` each.

use super::error::{ProtocolError, Result};

const WHAT: &str = "leader epoch checkpoint";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    pub epoch: i32,
    pub start_offset: i64,
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
}
