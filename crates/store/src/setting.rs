//! What a setting is: a name, what its value may be, what holds without it, and what it is good for. Everything
//! that Varve is configured by stands in tables of these, by which values are checked and from which the reference
//! is made.

use std::fmt;
use std::time::Duration;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// Anything but nothing: what it is meant to be is said in words.
    Text(&'static str),
    /// Of a server.
    Url,
    Boolean,
    /// Upper and lower case alike.
    Choice(&'static [&'static str]),
    /// Part of object keys and the like.
    Name {
        max_bytes: usize,
    },
    /// A whole number, both ends included.
    Integer {
        min: u64,
        max: u64,
    },
    MultipleOf {
        step: u64,
        max: u64,
    },
    PowerOfTwo {
        min: u64,
        max: u64,
    },
    /// See [`parse_bytes`]. A multiple of `step`, both ends included.
    Bytes {
        min: u64,
        max: u64,
        step: u64,
    },
    /// See [`parse_duration`]; both ends included.
    Duration {
        min_ms: u64,
        max_ms: u64,
    },
    /// Any number of texts; of what, is said in words.
    List(&'static str),
    /// Any number of words out of these.
    Choices(&'static [&'static str]),
}

impl SettingKind {
    pub const fn at_least(min: u64) -> Self {
        Self::Integer { min, max: u64::MAX }
    }

    pub const fn is_list(&self) -> bool {
        matches!(self, Self::List(_) | Self::Choices(_))
    }

    /// Whether `text` is allowed: the value, or one entry of a list.
    pub fn holds(&self, text: &str) -> bool {
        let number = |fits: &dyn Fn(u64) -> bool| text.parse().is_ok_and(fits);
        match *self {
            Self::Text(_) | Self::List(_) => !text.is_empty(),
            Self::Url => {
                url::Url::parse(text).is_ok_and(|url| url.has_host() && url.scheme().starts_with("http"))
            }
            Self::Boolean => ["true", "false"].iter().any(|word| word.eq_ignore_ascii_case(text)),
            Self::Choice(words) | Self::Choices(words) => {
                words.iter().any(|word| word.eq_ignore_ascii_case(text))
            }
            Self::Name { max_bytes } => {
                let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
                plain && (1..=max_bytes).contains(&text.len())
            }
            Self::Integer { min, max } => number(&|n| (min..=max).contains(&n)),
            Self::MultipleOf { step, max } => {
                number(&|n| (step..=max).contains(&n) && n.is_multiple_of(step))
            }
            Self::PowerOfTwo { min, max } => number(&|n| (min..=max).contains(&n) && n.is_power_of_two()),
            Self::Bytes { min, max, step } => {
                parse_bytes(text).is_some_and(|n| (min..=max).contains(&n) && n.is_multiple_of(step))
            }
            Self::Duration { min_ms, max_ms } => {
                let range = Duration::from_millis(min_ms)..=Duration::from_millis(max_ms);
                parse_duration(text).is_some_and(|time| range.contains(&time))
            }
        }
    }

    /// A choice as the table writes it, anything else as it is.
    pub fn canonical<'a>(&self, text: &'a str) -> &'a str {
        match *self {
            Self::Choice(words) | Self::Choices(words) => {
                words.iter().find(|word| word.eq_ignore_ascii_case(text)).copied().unwrap_or(text)
            }
            _ => text,
        }
    }
}

/// What is expected.
impl fmt::Display for SettingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Text(what) => f.write_str(what),
            Self::Url => f.write_str("a URL that begins with https:// or http://"),
            Self::Boolean => f.write_str("true or false"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Self::Name { max_bytes } => write!(f, "1 to {max_bytes} of letters, digits, _ and -"),
            Self::Integer { min, max } if min == max => write!(f, "{min}"),
            Self::Integer { min, max: u64::MAX } => write!(f, "a whole number, {min} or more"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::MultipleOf { step, max } => write!(f, "a multiple of {step}, up to {max}"),
            Self::PowerOfTwo { min, max } => write!(f, "a power of two from {min} to {max}"),
            Self::Bytes { .. } => write!(f, "bytes, as 8388608 or 8MiB, {}", self.written_range()),
            Self::Duration { .. } => write!(f, "a time, as 500ms, 60s, 5m or 24h, {}", self.written_range()),
            Self::List(what) => write!(f, "a list of {what}"),
            Self::Choices(words) => write!(f, "a list out of {}", words.join(", ")),
        }
    }
}

/// In words, as an error or a reference says it.
fn range(min: u64, max: u64, written: impl Fn(u64) -> String) -> String {
    if max == u64::MAX {
        format!("{} or more", written(min))
    } else {
        format!("{} to {}", written(min), written(max))
    }
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub kind: SettingKind,
    /// As it would be written; `None` where it must be set, or something outside decides as `doc` says.
    pub default: Option<&'static str>,
    pub doc: &'static str,
    pub required: bool,
    /// Never printed.
    pub secret: bool,
}

impl Setting {
    pub const fn new(
        name: &'static str,
        kind: SettingKind,
        default: Option<&'static str>,
        doc: &'static str,
    ) -> Self {
        Self { name, kind, default, doc, required: false, secret: false }
    }

    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    pub const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// # Errors
    /// What is wrong with `value`, and what is allowed; a secret isn't shown.
    pub fn check(&self, value: &str) -> Result<(), String> {
        if self.kind.holds(value) {
            return Ok(());
        }
        let kind = self.kind;
        // What is meant as a URL may hold a password.
        let hidden = self.secret || kind == SettingKind::Url && value.contains('@');
        let shown = if hidden { "the value".to_owned() } else { format!("{value:?}") };
        Err(match kind {
            SettingKind::Text(_) | SettingKind::List(_) => format!("is empty: expected {kind}"),
            _ => format!("{shown} is not allowed: expected {kind}"),
        })
    }
}

/// The known name that is most like `name`, and whether it is like enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<(&'a str, bool)> {
    let by_distance = known.into_iter().map(|known| (strsim::osa_distance(known, name), known));
    let (distance, near) = by_distance.min_by_key(|(distance, _)| *distance)?;
    Some((near, distance <= near.len() / 3))
}

const BYTE_UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

const TIME_UNITS_MS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A whole number, alone or before KiB, MiB, GiB or TiB.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    match unit {
        "" => Some(number),
        _ => number.checked_mul(BYTE_UNITS.iter().find(|(name, _)| *name == unit)?.1),
    }
}

/// A whole number before ms, s, m, h or d; 0 needs none.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    if unit.is_empty() {
        return (number == 0).then_some(Duration::ZERO);
    }
    let unit_ms = TIME_UNITS_MS.iter().find(|(name, _)| *name == unit)?.1;
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
}

fn written_bytes(bytes: u64) -> String {
    let whole = BYTE_UNITS.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

fn written_ms(ms: u64) -> String {
    let mut units = TIME_UNITS_MS.iter().rev();
    let whole = units.find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit));
    whole.map_or_else(|| ms.to_string(), |(name, unit)| format!("{}{name}", ms / unit))
}

impl SettingKind {
    /// What sizes and times may be, as they would be written in a configuration.
    pub(crate) fn written_range(&self) -> String {
        match *self {
            Self::Bytes { min, max, step: 1 } => range(min, max, written_bytes),
            Self::Bytes { min, max, step } => {
                format!("a multiple of {}, {}", written_bytes(step), range(min, max, written_bytes))
            }
            Self::Duration { min_ms, max_ms } => range(min_ms, max_ms, written_ms),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_has_edges() {
        let held = |kind: SettingKind, texts: &[&'static str]| -> Vec<_> {
            texts.iter().copied().filter(|text| kind.holds(text)).collect()
        };
        let chunk = SettingKind::MultipleOf { step: 64, max: 256 };
        assert_eq!(held(chunk, &["0", "63", "64", "100", "256", "320", "x", ""]), ["64", "256"]);
        let frame = SettingKind::PowerOfTwo { min: 4, max: 16 };
        assert_eq!(held(frame, &["2", "4", "12", "16", "32"]), ["4", "16"]);
        let number = SettingKind::at_least(5);
        assert_eq!(held(number, &["4", "5", "18446744073709551615", "-1"]), ["5", "18446744073709551615"]);
        let name = SettingKind::Name { max_bytes: 3 };
        assert_eq!(held(name, &["", "a-1", "a/1", "abcd", "é"]), ["a-1"]);
        assert_eq!(held(SettingKind::Choice(&["day"]), &["Day", "days"]), ["Day"]);
        assert_eq!(SettingKind::Choice(&["AES256"]).canonical("aes256"), "AES256");
        let size = SettingKind::Bytes { min: 1024, max: 4096, step: 1024 };
        assert_eq!(held(size, &["1023", "1KiB", "1025", "4 KiB", "4097", "5KiB", "1kb"]), ["1KiB", "4 KiB"]);
        let time = SettingKind::Duration { min_ms: 1000, max_ms: 60_000 };
        assert_eq!(held(time, &["999ms", "1s", "1m", "61s", "30", "0", "-1s"]), ["1s", "1m"]);
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(parse_bytes("8388608"), Some(8 << 20));
        assert_eq!(parse_bytes("256MiB"), Some(256 << 20));
        assert_eq!(parse_bytes("1 GiB"), Some(1 << 30));
        for bad in
            ["", "MiB", "1MB", "1mib", "-1", "1.5GiB", "99999999999TiB", "1 \tKiB", "99999999999999999999"]
        {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("2d"), Some(Duration::from_secs(172_800)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for bad in ["", "60", "s", "5min", "1.5h", "99999999999999999999s", "9999999999999999999d"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_are_said_as_they_are_written() {
        let size = SettingKind::Bytes { min: 1 << 20, max: 1 << 30, step: 64 << 10 };
        assert_eq!(size.to_string(), "bytes, as 8388608 or 8MiB, a multiple of 64KiB, 1MiB to 1GiB");
        let time = SettingKind::Duration { min_ms: 1000, max_ms: u64::MAX };
        assert_eq!(time.to_string(), "a time, as 500ms, 60s, 5m or 24h, 1s or more");
    }

    #[test]
    fn a_secret_is_not_in_its_error() {
        let setting = Setting::new("pin", SettingKind::Integer { min: 0, max: 9 }, None, "").secret();
        assert_eq!(
            setting.check("12").unwrap_err(),
            "the value is not allowed: expected a whole number from 0 to 9"
        );
        assert_eq!(nearest("regoin", ["region", "profile"]), Some(("region", true)));
        assert_eq!(nearest("rop", ["name", "rpo"]), Some(("rpo", true)));
        assert_eq!(nearest("banana", ["region", "profile"]).map(|(_, like)| like), Some(false));
    }
}
