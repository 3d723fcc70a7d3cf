//! From YAML to sections, keys and scalars as they are written. Nothing is decided here of what they mean.
//!
//! YAML would make `0123`, `on` or `1e3` a number or a truth value, and a password something else than what was
//! written: whatever YAML infers of a plain scalar, its own text is taken.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{NonFiniteFloatPolicy, Spanned};
use zeroize::Zeroizing;

use super::error::Flaw;
use super::settings;

pub(super) type Text = Zeroizing<String>;

/// What is given for one key.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// As if the key weren't there.
    Nothing,
    Text(Text),
    List(Vec<Text>),
    /// A shape that no key has.
    Other(&'static str),
}

/// One key of a section, as the file or `--set` has it.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) section: String,
    pub(super) key: String,
    /// `None`: by `--set`.
    pub(super) line: Option<u64>,
    pub(super) value: Value,
}

/// A whole file.
#[derive(Default)]
pub(super) struct Document {
    /// In the file's order, also empty ones.
    pub(super) sections: Vec<(String, Option<u64>)>,
    pub(super) given: Vec<Given>,
    pub(super) flaws: Vec<Flaw>,
}

/// What YAML has at a place.
enum Node {
    Nothing,
    /// Its text is where its span is.
    Plain,
    Text(Text),
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Plain)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = sequence.next_element()? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key()? {
            entries.push((key, map.next_value()?));
        }
        Ok(Node::Map(entries))
    }
}

fn parse_node(source: &str) -> Result<Spanned<Node>, Flaw> {
    let options = serde_saphyr::options! {
        // A snippet could show a secret.
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    };
    serde_saphyr::from_str_with_options(source, options).map_err(|error| {
        let line = error.location().map(|place| place.line()).filter(|line| *line > 0);
        Flaw::new("", line, format!("is no YAML that can be read: {}", error.without_snippet()))
    })
}

fn line_of(node: &Spanned<Node>) -> Option<u64> {
    Some(node.referenced.line()).filter(|line| *line > 0)
}

/// All that the file says.
pub(super) fn parse(source: &str) -> Document {
    let source = source.trim_start_matches('\u{feff}');
    let mut document = Document::default();
    let root = match parse_node(source) {
        Ok(root) => root,
        Err(flaw) => {
            document.flaws.push(flaw);
            return document;
        }
    };
    let line = line_of(&root);
    let sections = match root.value {
        Node::Map(sections) => sections,
        Node::Nothing => Vec::new(),
        _ => {
            let problem = "holds no sections: expected source, archive, topics …";
            document.flaws.push(Flaw::new("", line, problem));
            Vec::new()
        }
    };
    for (section, node) in sections {
        document.sections.push((section.clone(), line_of(&node)));
        match node.value {
            Node::Map(entries) => document.given.extend(entries.into_iter().map(|(key, node)| Given {
                section: section.clone(),
                key,
                line: line_of(&node),
                value: value_of(node, source),
            })),
            Node::Nothing => {}
            _ => {
                let flaw = Flaw::new(section, line_of(&node), "is a section: expected keys with values");
                document.flaws.push(flaw);
            }
        }
    }
    document
}

fn value_of(node: Spanned<Node>, source: &str) -> Value {
    let plain = |node: &Spanned<Node>| Zeroizing::new(plain_text(node, source).to_owned());
    match node.value {
        Node::Nothing => Value::Nothing,
        Node::Plain => Value::Text(plain(&node)),
        Node::Text(text) => Value::Text(text),
        Node::List(nodes) => {
            let entries = nodes.into_iter().map(|node| match node.value {
                Node::Plain => Some(plain(&node)),
                Node::Text(text) => Some(text),
                _ => None,
            });
            entries.collect::<Option<_>>().map_or(Value::Other("a list of more than texts"), Value::List)
        }
        Node::Map(_) => {
            Value::Other("a mapping; the parts of a key are joined by dots, as in `ssl.ca.location: …`")
        }
    }
}

/// A plain scalar that YAML takes for a number or truth value stands in one piece.
fn plain_text<'a>(node: &Spanned<Node>, source: &'a str) -> &'a str {
    let span = node.defined.span();
    let text = span.byte_offset().zip(span.byte_len()).and_then(|(begin, len)| {
        let begin = usize::try_from(begin).ok()?;
        source.get(begin..begin.checked_add(usize::try_from(len).ok()?)?)
    });
    text.unwrap_or_default().trim()
}

/// `section.key` and a value: text as it is, or YAML where it stands between quotes or brackets.
pub(super) fn parse_set(path: &str, text: &str) -> Result<Given, Flaw> {
    let of_section = |name: &str| path.strip_prefix(name)?.strip_prefix('.').map(str::to_owned);
    let found = settings::SECTIONS.iter().find_map(|known| Some((known.name, of_section(known.name)?)));
    let Some((section, key)) = found else {
        let first = path.split('.').next().unwrap_or_default();
        return Err(Flaw::new(path, None, format!("--set: {}", unknown_section(first))));
    };
    let text = text.trim();
    let between = [('[', ']'), ('{', '}'), ('"', '"'), ('\'', '\'')];
    let is_yaml =
        text.len() > 1 && between.iter().any(|(begin, end)| text.starts_with(*begin) && text.ends_with(*end));
    let value = if text.is_empty() {
        Value::Nothing
    } else if is_yaml {
        // What is wrong with it isn't shown: it may be a secret.
        let problem = "--set: stands between quotes or brackets, but is no YAML value";
        value_of(parse_node(text).map_err(|_| Flaw::new(path, None, problem))?, text)
    } else {
        Value::Text(Zeroizing::new(text.to_owned()))
    };
    Ok(Given { section: section.to_owned(), key, line: None, value })
}

pub(super) fn unknown_section(name: &str) -> String {
    let names = || settings::SECTIONS.iter().map(|section| section.name);
    match varve_store::nearest(name, names()) {
        Some((near, true)) => format!("no such section; did you mean {near}?"),
        _ => format!("no such section; there are {}", names().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &Value) -> String {
        match value {
            Value::Nothing => "-".to_owned(),
            Value::Text(text) => format!("{:?}", text.as_str()),
            Value::List(list) => format!("{:?}", list.iter().map(|text| text.as_str()).collect::<Vec<_>>()),
            Value::Other(_) => "?".to_owned(),
        }
    }

    fn values(yaml: &str) -> Vec<String> {
        let document = parse(yaml);
        assert_eq!(document.flaws, []);
        document
            .given
            .iter()
            .map(|given| format!("{}.{}={}", given.section, given.key, shown(&given.value)))
            .collect()
    }

    #[test]
    fn scalars_are_taken_as_they_are_written() {
        let yaml = "a: {b: 0123, c: on, d: 1e3, e: '0x1F', f: 1_000, g: .inf, h: -0.50, i: \"a\\tb\", j: ~, k: }\n\
                    é:\n  l: 0o17  # a comment\n  m: |\n    two\n    lines\n  n: a b # another\n  o: 007\r\n  p: yes";
        assert_eq!(
            values(yaml),
            [
                "a.b=\"0123\"",
                "a.c=\"on\"",
                "a.d=\"1e3\"",
                "a.e=\"0x1F\"",
                "a.f=\"1_000\"",
                "a.g=\".inf\"",
                "a.h=\"-0.50\"",
                "a.i=\"a\\tb\"",
                "a.j=-",
                "a.k=-",
                "é.l=\"0o17\"",
                "é.m=\"two\\nlines\\n\"",
                "é.n=\"a b\"",
                "é.o=\"007\"",
                "é.p=\"yes\""
            ]
        );
        assert_eq!(values("\u{feff}a: {b: 12}"), ["a.b=\"12\""]);
        assert_eq!(
            values("a: {b: [x, 1, 'y z', true], c: [], d: {e: f}, g: [[x]]}"),
            ["a.b=[\"x\", \"1\", \"y z\", \"true\"]", "a.c=[]", "a.d=?", "a.g=?"]
        );
        assert_eq!(
            values("x: &x {b: 12}\ny: *x\nz: {<<: *x, c: 13}"),
            ["x.b=\"12\"", "y.b=\"12\"", "z.c=\"13\"", "z.b=\"12\""]
        );
        assert_eq!(values("x: {a: &n 5, b: *n, c: !!str 6}"), ["x.a=\"5\"", "x.b=\"5\"", "x.c=\"6\""]);
        for nothing in ["", "# a comment", "---\n", "a:\nb: ~"] {
            assert_eq!(values(nothing), Vec::<String>::new());
        }
    }

    #[test]
    fn lines_are_known() {
        let all = parse("a:\n  b: 1\n  c:\n    - x\n  d: 'e'\n").given;
        assert_eq!(all.iter().map(|given| given.line).collect::<Vec<_>>(), [Some(2), Some(4), Some(5)]);
    }

    #[test]
    fn what_is_no_configuration_is_refused_without_showing_it() {
        let flaw = |yaml: &str| {
            let flaws = parse(yaml).flaws;
            assert_eq!(flaws.len(), 1, "{yaml}");
            flaws[0].to_string()
        };
        assert!(flaw("- a").contains("sections") && flaw("5").contains("sections"));
        assert!(flaw("a: 5").contains("a: is a section"));
        for broken in [
            "a: {b: 'hush",
            "a: {b: hush, b: hush}",
            "a: &x [*x, hush]",
            "a: {b: hush}\n---\nc: d",
            "a: [hush",
        ] {
            let said = flaw(broken);
            assert!(said.contains("YAML") && !said.contains("hush"), "{said}");
        }
        assert!(flaw("a:\n  b: 1\n  b: 2").starts_with("line 3"), "{}", flaw("a:\n  b: 1\n  b: 2"));
    }

    #[test]
    fn values_of_the_command_line_are_text_or_yaml() {
        let set = |path: &str, text: &str| {
            let given = parse_set(path, text).unwrap();
            format!("{}|{}|{}", given.section, given.key, shown(&given.value))
        };
        assert_eq!(set("source.sasl.password", "a: b #c"), "source|sasl.password|\"a: b #c\"");
        assert_eq!(set("topics.include", "*"), "topics|include|\"*\"");
        assert_eq!(set("topics.include", "['a b', /c/]"), "topics|include|[\"a b\", \"/c/\"]");
        assert_eq!(set("schema.registry.url", "\"\\x41\""), "schema.registry|url|\"A\"");
        assert_eq!(set("journal.name", ""), "journal|name|-");
        let refused = |path: &str, text: &str| match parse_set(path, text) {
            Ok(_) => panic!("{path}={text} was accepted"),
            Err(flaw) => flaw.to_string(),
        };
        assert!(refused("sources.client.id", "x").contains("did you mean source?"));
        assert!(refused("rpo", "1s").contains("there are source, archive"));
        assert_eq!(set("metrics.listen", "[::1]:9644"), "metrics|listen|\"[::1]:9644\"");
        assert!(!refused("source.sasl.password", "'hush' 'hush'").contains("hush"));
    }
}
