//! What is wanted of an archive, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use regex::Regex;

use crate::error::{Error, Result};

/// Names, with `*` for any characters.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    compiled: Regex,
}

impl Patterns {
    /// # Errors
    /// A pattern that is too long.
    pub fn new(patterns: &[String]) -> Result<Self> {
        let compiled = patterns.iter().map(|pattern| {
            let quoted: Vec<String> = pattern.split('*').map(regex::escape).collect();
            let compiled = Regex::new(&format!("^{}$", quoted.join(".*")))
                .map_err(|error| Error::refused(format!("the pattern {pattern:?}"), error.to_string()))?;
            Ok(Pattern { text: pattern.clone(), compiled })
        });
        Ok(Self(compiled.collect::<Result<_>>()?))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.compiled.is_match(name))
    }

    /// Those that name one thing alone.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|pattern| pattern.text.as_str()).filter(|text| !text.contains('*'))
    }
}

/// Which topics, and under which names.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// None is all.
    pub topics: Patterns,
    pub without: Patterns,
    /// None is all that have offsets in these topics.
    pub groups: Patterns,
    pub renamed: BTreeMap<String, String>,
    /// Of a topic these only; of one that is not here, all.
    pub partitions: BTreeMap<String, BTreeSet<i32>>,
    /// Of a partition these only.
    pub offsets: BTreeMap<(String, i32), Range<i64>>,
    /// From the first record on that is not older.
    pub since_ms: Option<i64>,
    /// As it was then.
    pub as_of_ms: Option<i64>,
}

impl Selection {
    pub fn has_topic(&self, name: &str) -> bool {
        (self.topics.is_empty() || self.topics.has(name)) && !self.without.has(name)
    }

    pub fn has_group(&self, name: &str) -> bool {
        self.groups.is_empty() || self.groups.has(name)
    }

    pub fn has_partition(&self, topic: &str, partition: i32) -> bool {
        self.partitions.get(topic).is_none_or(|some| some.contains(&partition))
    }

    /// Those that are wanted of a partition that is.
    pub fn offsets(&self, topic: &str, partition: i32) -> Range<i64> {
        self.offsets.get(&(topic.to_owned(), partition)).cloned().unwrap_or(0..i64::MAX)
    }

    /// On the target.
    pub fn name<'a>(&'a self, topic: &'a str) -> &'a str {
        self.renamed.get(topic).map_or(topic, String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(all: &[&str]) -> Patterns {
        Patterns::new(&all.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn names_and_stars() {
        let some = patterns(&["orders", "eu.*", "*-dlq"]);
        assert_eq!(some.names().collect::<Vec<_>>(), ["orders"]);
        for name in ["orders", "eu.a", "eu.", "x-dlq"] {
            assert!(some.has(name), "{name}");
        }
        for name in ["orders2", "my-orders", "euXa", "dlq"] {
            assert!(!some.has(name), "{name}");
        }
        let selection = Selection { without: patterns(&["eu.b"]), topics: some, ..Selection::default() };
        assert!(selection.has_topic("eu.a") && !selection.has_topic("eu.b") && !selection.has_topic("other"));
    }
}
