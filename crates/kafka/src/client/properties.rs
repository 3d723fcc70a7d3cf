//! Java's properties files, as Kafka's tools take them by `--command-config`.

use super::error::{ClientError, Result};

/// `key=value` lines in their order; `#` and `!` begin comments, a backslash at a line's end goes on.
pub fn parse_properties(text: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut logical = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if logical.is_empty() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        if let Some(begun) = line.strip_suffix('\\') {
            logical.push_str(begun);
            continue;
        }
        logical.push_str(line);
        let whole = std::mem::take(&mut logical);
        // The value is not printed: it may be a password.
        let Some((key, value)) = whole.split_once(['=', ':']) else {
            let problem = "expected key=value".to_owned();
            return Err(ClientError::config(format!("line {}", number + 1), problem));
        };
        pairs.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    if !logical.is_empty() {
        return Err(ClientError::config("last line", "ends with a backslash"));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_continuations_and_secrets() {
        let text = "# a comment\n\nsecurity.protocol = SASL_SSL\nsasl.jaas.config=Module required \\\n  username=\"a\";\n";
        let pairs = parse_properties(text).unwrap();
        assert_eq!(pairs[0], ("security.protocol".into(), "SASL_SSL".into()));
        assert_eq!(pairs[1].1, "Module required username=\"a\";");
        let error = parse_properties("hunter2").unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
    }
}
