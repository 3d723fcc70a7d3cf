//! How long one data key is used for new objects of a topic, and what that time is called in names.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPeriod {
    Day,
    Month,
    Year,
}

impl KeyPeriod {
    /// As they stand in a configuration.
    pub const WORDS: &'static [&'static str] = &["day", "month", "year"];

    /// One of [`WORDS`](Self::WORDS), in small letters.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "day" => Some(Self::Day),
            "month" => Some(Self::Month),
            "year" => Some(Self::Year),
            _ => None,
        }
    }

    /// `2026-11-21`, `2026-11` or `2026`, in UTC.
    pub fn at(self, now_ms: i64) -> String {
        let now = time::OffsetDateTime::from_unix_timestamp(now_ms.div_euclid(1000))
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = now.to_calendar_date();
        match self {
            Self::Day => format!("{year:04}-{:02}-{day:02}", u8::from(month)),
            Self::Month => format!("{year:04}-{:02}", u8::from(month)),
            Self::Year => format!("{year:04}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods() {
        let day = 86_400_000;
        assert_eq!(KeyPeriod::Day.at(0), "1970-01-01");
        assert_eq!(KeyPeriod::Day.at(11_016 * day), "2000-02-29");
        assert_eq!(KeyPeriod::Month.at(1_795_219_200_000), "2026-11");
        assert_eq!(KeyPeriod::Year.at(-1), "1969");
        assert!(KeyPeriod::WORDS.iter().all(|word| KeyPeriod::parse(word).is_some()));
    }
}
