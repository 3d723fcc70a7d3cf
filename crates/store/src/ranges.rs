//! HTTP ranges: what is asked for, and whether the answer brings it. Pure.

use std::ops::Range;

use crate::contract::GetRange;

/// Servers read positions as signed numbers, and add one to the last.
const LAST_POSITION: u64 = i64::MAX as u64 - 1;

/// The `Range` header, or why no object has such a range.
pub(crate) fn header_of(range: GetRange) -> Result<Option<String>, String> {
    match range {
        GetRange::Full => Ok(None),
        GetRange::Bounded { start, end } if start < end && start < LAST_POSITION => {
            Ok(Some(format!("bytes={start}-{}", (end - 1).min(LAST_POSITION))))
        }
        GetRange::From(start) if start < LAST_POSITION => Ok(Some(format!("bytes={start}-"))),
        GetRange::Suffix(n) if n > 0 => Ok(Some(format!("bytes=-{}", n.min(LAST_POSITION)))),
        _ => Err(format!("{range:?} holds no byte of any object")),
    }
}

/// Which bytes an answer brings by its own word, and the object's size. `length` is its `Content-Length`,
/// `header` its `Content-Range`.
pub(crate) fn delivered(
    length: Option<u64>,
    header: Option<&str>,
    range: GetRange,
) -> Result<(Range<u64>, u64), String> {
    let length = length.ok_or("no length in the answer")?;
    let Some(header) = header else {
        return match range {
            GetRange::Full => Ok((0..length, length)),
            // Of an empty object some servers answer any range by 200: there is nothing else to send.
            GetRange::Suffix(_) if length == 0 => Ok((0..0, 0)),
            _ => Err("the store does not obey Range: it sent the whole object".to_owned()),
        };
    };
    if length == 0 && matches!(range, GetRange::Suffix(_)) {
        // MinIO's answer for the end of an empty object, where AWS says 416.
        return Ok((0..0, 0));
    }
    let parsed = parse_content_range(header).filter(|(bytes, size)| {
        bytes.end - bytes.start == length && range.resolve(*size).as_ref() == Some(bytes)
    });
    parsed.ok_or_else(|| format!("asked for {range:?}, the answer has {header:?} and {length} bytes"))
}

fn parse_content_range(header: &str) -> Option<(Range<u64>, u64)> {
    let (bytes, size) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = bytes.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(())?;
    Some((first..last.checked_add(1)?, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_bring_what_was_asked_for() {
        let asked = GetRange::Bounded { start: 2, end: 6 };
        assert_eq!(header_of(asked), Ok(Some("bytes=2-5".to_owned())));
        let all = GetRange::Bounded { start: 0, end: u64::MAX };
        assert_eq!(header_of(all), Ok(Some("bytes=0-9223372036854775806".to_owned())));
        assert_eq!(delivered(Some(4), Some("bytes 2-5/10"), asked), Ok((2..6, 10)));
        assert_eq!(delivered(Some(2), Some("bytes 2-3/4"), asked), Ok((2..4, 4)), "clamped");
        for (length, header) in [
            (Some(4), None),
            (None, Some("bytes 2-5/10")),
            (Some(3), Some("bytes 2-5/10")),
            (Some(4), Some("bytes 3-6/10")),
            (Some(2), Some("bytes 2-3/10")),
            (Some(4), Some("bytes 5-2/10")),
            (Some(4), Some("bytes 2-5/*")),
            (Some(0), Some("bytes 2-18446744073709551615/10")),
        ] {
            assert!(delivered(length, header, asked).is_err(), "{length:?} {header:?}");
        }
        assert_eq!(delivered(Some(0), None, GetRange::Suffix(3)), Ok((0..0, 0)));
        assert!(delivered(Some(9), None, GetRange::Suffix(3)).is_err());
    }
}
