//! `${NAME}`, `${NAME:-default}` and `${file:/path}` in values. What comes in is never looked at again, neither as
//! YAML nor for further substitutions: it can't become a key, or a list, or another variable.

use std::fs::File;
use std::io::Read as _;

use zeroize::Zeroizing;

use super::document::Text;

/// Secrets are shorter.
const FILE_MAX_BYTES: u64 = 64 << 10;

/// A value as it counts.
pub(super) struct Substituted {
    pub(super) text: Text,
    /// A file's content is in it: not to be printed.
    pub(super) from_file: bool,
}

/// # Errors
/// What is wrong, in words: the variable or file is named, its content isn't shown.
pub(super) fn substitute(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Substituted, String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    let mut from_file = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, opened) = rest.split_at(at);
        let inner = &opened["${".len()..];
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = inner;
            continue;
        }
        out.push_str(before);
        let (reference, after) =
            inner.split_once('}').ok_or("holds ${ without }; a literal ${ is written $${")?;
        if let Some(path) = reference.strip_prefix("file:") {
            out.push_str(&file(path)?);
            from_file = true;
        } else {
            out.push_str(&variable(reference, env)?);
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(Substituted { text: out, from_file })
}

fn variable(reference: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Text, String> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !letters || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!(
            "${{{name}}} names no variable: expected ${{NAME}}, ${{NAME:-default}} or ${{file:/path}}"
        ));
    }
    match (env(name).map(Zeroizing::new), default) {
        // As in a shell: the default also stands for an empty one.
        (Some(value), Some(default)) if value.is_empty() => Ok(Zeroizing::new(default.to_owned())),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(Zeroizing::new(default.to_owned())),
        (None, None) => Err(format!("the environment variable {name} is not set")),
    }
}

/// Without the line break at its end.
fn file(path: &str) -> Result<Text, String> {
    let flaw = |problem: String| format!("${{file:{path}}}: {problem}");
    let mut text = Zeroizing::new(String::new());
    let opened = File::open(path).map_err(|error| flaw(error.to_string()))?;
    let mut bounded = opened.take(FILE_MAX_BYTES + 1);
    bounded.read_to_string(&mut text).map_err(|error| flaw(error.to_string()))?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(flaw(format!("is longer than {FILE_MAX_BYTES} bytes")));
    }
    let kept = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text));
    if let Some(len) = kept.map(str::len) {
        text.truncate(len);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("${B}: [x]".to_owned()),
            "EMPTY" => Some(String::new()),
            "_b2" => Some("two".to_owned()),
            _ => None,
        }
    }

    fn of(text: &str) -> Result<String, String> {
        substitute(text, &env).map(|done| done.text.to_string())
    }

    #[test]
    fn variables_defaults_and_literals() {
        let is = |text: &str, expected: &str| assert_eq!(of(text).as_deref(), Ok(expected), "{text}");
        is("plain $ {} $$ $A", "plain $ {} $$ $A");
        is("<${_b2}${_b2}>", "<twotwo>");
        is("${A}", "${B}: [x]");
        is("${EMPTY}|${EMPTY:-e}|${NONE:-}|${NONE:-a:-b}", "|e||a:-b");
        is("$${A} $$${A} ${_b2}", "${A} $${A} two");
    }

    #[test]
    fn mistakes_are_named() {
        let says = |text: &str, part: &str| {
            let said = of(text).unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        };
        says("x${NONE}", "variable NONE is not set");
        says("${A", "without }");
        says("${}", "names no variable");
        says("${2}", "names no variable");
        says("${A-x}", "names no variable");
        says("${file:/nowhere/at/all}", "/nowhere/at/all");
    }

    #[test]
    fn files_lose_one_line_break_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let with = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            substitute(&format!("<${{file:{}}}>", path.display()), &env)
        };
        for (content, expected) in
            [("a\n", "<a>"), ("a\r\n", "<a>"), ("a\n\n", "<a\n>"), ("", "<>"), (" ${A}", "< ${A}>")]
        {
            let done = with(content.as_bytes()).ok().unwrap();
            assert_eq!((done.text.as_str(), done.from_file), (expected, true));
        }
        assert!(with(&[b'a'; (64 << 10) + 1]).err().unwrap().contains("longer"));
        assert!(with(b"hush\xff").err().is_some_and(|said| !said.contains("hush")));
    }

    proptest! {
        /// Whatever the text, escaped it comes back; and what a variable holds stays as it is.
        #[test]
        fn what_is_escaped_and_what_is_put_in_stays(text in "[${}a:\\[\n-]{0,20}", value in "[${}a:\\[\n-]{0,20}") {
            let escaped = text.replace("${", "$${");
            let env = |name: &str| (name == "V").then(|| value.clone());
            let back = substitute(&escaped, &env).map(|done| done.text.to_string());
            prop_assert_eq!(back.as_deref(), Ok(text.as_str()));
            let around = substitute(&format!("{escaped} ${{V}}"), &env).map(|done| done.text.to_string());
            let expected = format!("{text} {value}");
            prop_assert_eq!(around.as_deref(), Ok(expected.as_str()));
        }
    }
}
