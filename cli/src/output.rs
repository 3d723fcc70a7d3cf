//! Numbers and times for people.

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Milliseconds since 1970 as `2023-11-14T22:13:20.123Z`, with the number beside it.
pub(crate) fn time(ms: i64) -> String {
    if ms < 0 {
        return format!("none ({ms})");
    }
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z ({ms})")
}

/// Days since 1970-01-01 (not before) as year, month, day, by counting in eras of 400 years from March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, in_era) = (days / 146_097, days % 146_097);
    let in_era_year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * in_era_year + in_era_year / 4 - in_era_year / 100);
    let shifted_month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (in_era_year + era * 400 + i64::from(month <= 2), month, day)
}

/// An age for people: its largest unit.
pub(crate) fn age(ms: i64) -> String {
    match ms.max(0) / 1000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times() {
        assert_eq!(
            (grouped(0), grouped(999), grouped(1_234_567)),
            ("0".into(), "999".into(), "1,234,567".into())
        );
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z (1700000000123)");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z (951782400000)");
        assert!(time(i64::MAX).ends_with(&format!("({})", i64::MAX)));
        assert_eq!(time(-1), "none (-1)");
        assert_eq!((age(-5), age(7_200_000)), ("0 s".into(), "2 h".into()));
    }
}
