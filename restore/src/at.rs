//! The recovery point at a moment: the last snapshot that was made at or before it.

use varve_archive::Archive;

use crate::error::{Error, Result};

/// Its number.
///
/// # Errors
/// Of the archive; a moment before all snapshots.
pub async fn snapshot_at(archive: &Archive, time_ms: i64, shown: impl Fn(i64) -> String) -> Result<u64> {
    let latest = archive.latest_snapshot(0).await?;
    let Some(latest) = latest.map(|s| (s.record.sequence, s.record.created_ms)) else {
        return Err(Error::refused("the archive has no snapshot", "varve archive run makes them"));
    };
    let (before, after) = nearest(latest, time_ms, async |sequence| {
        Ok::<_, Error>(archive.snapshot(sequence).await?.map(|s| s.record.created_ms))
    })
    .await?;
    before.map(|(sequence, _)| sequence).ok_or_else(|| {
        let first = after.map_or_else(String::new, |(sequence, made)| {
            format!("; the first is {sequence} of {}", shown(made))
        });
        Error::refused(
            format!("no snapshot was made at or before {}{first}", shown(time_ms)),
            "give --at a later time, or a snapshot's number",
        )
    })
}

type Made = (u64, i64);

/// The last one at or before the moment, and the first one after it. Numbers ascend with time; one that is not there is
/// stepped over.
async fn nearest<E>(
    latest: Made,
    time_ms: i64,
    made: impl AsyncFn(u64) -> Result<Option<i64>, E>,
) -> Result<(Option<Made>, Option<Made>), E> {
    if latest.1 <= time_ms {
        return Ok((Some(latest), None));
    }
    let (mut before, mut after) = (None, latest);
    let (mut low, mut high) = (1, latest.0);
    while low < high {
        let middle = low + (high - low) / 2;
        let mut at = middle;
        let found = loop {
            match made(at).await? {
                Some(ms) => break Some((at, ms)),
                None if at + 1 < high => at += 1,
                None => break None,
            }
        };
        match found {
            Some(found) if found.1 <= time_ms => (before, low) = (Some(found), found.0 + 1),
            Some(found) => (after, high) = (found, middle),
            None => high = middle,
        }
    }
    Ok((before, Some(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_one_before_a_moment_is_found() {
        // Number 3 is not there.
        let all = [(1, 100), (2, 200), (4, 400), (5, 500), (6, 600), (7, 700)];
        for (time, expected) in [(99, None), (100, Some(1)), (399, Some(2)), (400, Some(4)), (650, Some(6))] {
            let made =
                async |n: u64| Ok::<_, ()>(all.iter().find(|(number, _)| *number == n).map(|(_, ms)| *ms));
            let (before, after) = nearest((7, 700), time, made).await.unwrap();
            assert_eq!(before.map(|b| b.0), expected, "{time}");
            assert!(after.is_some_and(|a| a.1 > time), "{time}: {after:?}");
        }
        let all_before = nearest((7, 700), 700, async |_| Err(())).await.unwrap();
        assert_eq!(all_before, (Some((7, 700)), None));
    }
}
