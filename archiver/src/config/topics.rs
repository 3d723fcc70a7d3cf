//! Which topics are archived: by patterns over their names.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// A pattern is compiled to at most this; what doesn't fit is refused.
const COMPILED_MAX_BYTES: usize = 1 << 20;

/// Over a whole name: a glob of `*` and `?`, or between slashes a regular expression.
#[derive(Clone, Debug)]
pub struct TopicPattern {
    text: String,
    regex: Regex,
    /// A plain name, which may be an internal topic's.
    exact: bool,
}

impl TopicPattern {
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        let (expression, exact) = if let Some(rest) = text.strip_prefix('/') {
            let inner = rest.strip_suffix('/').filter(|inner| !inner.is_empty());
            let inner = inner.ok_or("begins with a slash, but is no regular expression between two")?;
            (inner.to_owned(), false)
        } else {
            if let Some(odd) = text.chars().find(|c| !is_glob_char(*c)) {
                return Err(format!(
                    "holds {odd:?}, which is in no topic's name and means nothing in a glob; \
                     a regular expression stands between slashes"
                ));
            }
            (glob_expression(text), !text.contains(['*', '?']))
        };
        // Alone first: `a)|(b` would be well-formed between the anchors, and not whole.
        compile(&expression)?;
        let regex = compile(&format!("^(?:{expression})$"))?;
        Ok(Self { text: text.to_owned(), regex, exact })
    }

    /// Whether it is the name of one topic.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn compile(expression: &str) -> Result<Regex, String> {
    RegexBuilder::new(expression).size_limit(COMPILED_MAX_BYTES).build().map_err(|error| {
        // The regex crate draws the pattern over several lines: its last one says what is wrong.
        let said = error.to_string();
        said.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

fn is_glob_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-*?".contains(c)
}

fn glob_expression(glob: &str) -> String {
    glob.chars()
        .map(|c| match c {
            '*' => ".*".to_owned(),
            '?' => ".".to_owned(),
            c => regex::escape(c.encode_utf8(&mut [0; 4])),
        })
        .collect()
}

/// Included by one pattern at least, excluded by none.
#[derive(Clone, Debug, Default)]
pub struct TopicPatterns {
    include: Vec<TopicPattern>,
    exclude: Vec<TopicPattern>,
}

impl TopicPatterns {
    pub fn new(include: Vec<TopicPattern>, exclude: Vec<TopicPattern>) -> Self {
        Self { include, exclude }
    }

    /// `internal` is what Kafka says of the topic; a name that begins with `__` counts as such too. Internal topics
    /// are wanted only where `include` holds their very name.
    pub fn wants(&self, name: &str, internal: bool) -> bool {
        let internal = internal || name.starts_with("__");
        let included = |pattern: &TopicPattern| (pattern.exact || !internal) && pattern.matches(name);
        self.include.iter().any(included) && !self.exclude.iter().any(|pattern| pattern.matches(name))
    }

    /// What `include` has that no topic of these `(name, internal)` matches.
    pub(crate) fn unmatched(&self, topics: &[(&str, bool)]) -> Vec<&TopicPattern> {
        let matches = |pattern: &TopicPattern, (name, internal): &(&str, bool)| {
            let internal = *internal || name.starts_with("__");
            (pattern.exact || !internal) && pattern.matches(name)
        };
        self.include.iter().filter(|pattern| !topics.iter().any(|topic| matches(pattern, topic))).collect()
    }

    pub fn include(&self) -> &[TopicPattern] {
        &self.include
    }

    pub fn exclude(&self) -> &[TopicPattern] {
        &self.exclude
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(include: &[&str], exclude: &[&str]) -> TopicPatterns {
        let parse = |list: &[&str]| list.iter().map(|text| TopicPattern::parse(text).unwrap()).collect();
        TopicPatterns::new(parse(include), parse(exclude))
    }

    #[test]
    fn globs_and_expressions_match_whole_names() {
        let two = patterns(&["orders-*", "a.?", r"/pay-\d+|refund/"], &["*-tmp", "/.*secret.*/"]);
        let wanted = |name: &str| two.wants(name, false);
        for name in ["orders-", "orders-eu", "a.b", "pay-12", "refund"] {
            assert!(wanted(name), "{name}");
        }
        for name in
            ["xorders-eu", "axb", "a.bc", "pay-12x", "xpay-12", "refunds", "orders-tmp", "orders-secrets"]
        {
            assert!(!wanted(name), "{name}");
        }
    }

    #[test]
    fn internal_topics_are_wanted_by_their_very_name_alone() {
        let all = patterns(&["*", "/.*/", "__c*"], &[]);
        assert!(all.wants("orders", false));
        assert!(!all.wants("__consumer_offsets", true) && !all.wants("__consumer_offsets", false));
        assert!(!all.wants("marked-by-kafka", true));
        let named = patterns(&["*", "__consumer_offsets", "marked-by-kafka"], &[]);
        assert!(named.wants("__consumer_offsets", true) && named.wants("marked-by-kafka", true));
        assert!(!named.wants("__transaction_state", true));
        assert!(!patterns(&["__a"], &["__*"]).wants("__a", true));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let refused = |text: &str, part: &str| {
            let said = TopicPattern::parse(text).map(|_| ()).unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        };
        refused("", "empty");
        refused("/orders", "slash");
        refused("/", "slash");
        refused("//", "slash");
        refused("orders-[0-9]", "'['");
        refused("/orders-(/", "unclosed");
        refused("/a)|(b/", "unopened");
        refused("/(a{1000}){1000}/", "size");
    }
}
