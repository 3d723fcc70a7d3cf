//! Several requests in one: Google's `multipart/mixed` of whole HTTP messages. Pure.

use std::collections::HashMap;

/// Headers and status lines of one answer.
const HEAD_LINES_MAX: usize = 200;

/// The body of a request for `calls`, each a method and a path. Answers are told apart by their numbers.
pub(super) fn compose(boundary: &str, calls: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut body = String::new();
    for (number, (method, path)) in calls.into_iter().enumerate() {
        body.push_str(&format!(
            "--{boundary}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\
             Content-ID: <{boundary}+{number}>\r\n\r\n{method} {path} HTTP/1.1\r\n\r\n\r\n"
        ));
    }
    body.push_str(&format!("--{boundary}--\r\n"));
    body
}

/// What an answer's `Content-Type` says parts are divided by.
pub(super) fn boundary_of(content_type: &str) -> Option<&str> {
    let (kind, rest) = content_type.split_once(';')?;
    let value = rest.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    let value = value.trim_matches('"');
    (kind.trim().eq_ignore_ascii_case("multipart/mixed") && !value.is_empty()).then_some(value)
}

/// Status and body of each answer, by the number of its request.
pub(super) fn parse(text: &str, boundary: &str) -> HashMap<usize, (u16, String)> {
    let divider = format!("--{boundary}");
    text.split(divider.as_str()).skip(1).filter_map(parse_part).collect()
}

fn parse_part(part: &str) -> Option<(usize, (u16, String))> {
    let mut lines = part.trim_start_matches(['\r', '\n']).lines().take(HEAD_LINES_MAX);
    let mut number = None;
    for line in lines.by_ref().take_while(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once(':')?;
        if name.trim().eq_ignore_ascii_case("content-id") {
            let (_, last) = value.trim().trim_end_matches('>').rsplit_once('+')?;
            number = last.parse().ok();
        }
    }
    let status = lines.find(|line| !line.trim().is_empty())?;
    let status = status.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()?;
    let body = lines.skip_while(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("\n");
    Some((number?, (status, body.trim().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole_messages() {
        let body = compose("B", [("DELETE", "/a".to_owned()), ("DELETE", "/b".to_owned())]);
        assert!(body.starts_with("--B\r\nContent-Type: application/http\r\n"), "{body}");
        assert!(body.contains("Content-ID: <B+1>\r\n\r\nDELETE /b HTTP/1.1\r\n\r\n"), "{body}");
        assert!(body.ends_with("--B--\r\n"), "{body}");
    }

    #[test]
    fn answers_are_told_apart_in_any_order() {
        let text = "--b_1\r\nContent-Type: application/http\r\nContent-ID: <response-x+1>\r\n\r\n\
            HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n\r\n{\"error\":\r\n {}}\r\n\r\n\
            --b_1\r\nContent-ID: <response-x+0>\r\nContent-Type: application/http\r\n\r\n\
            HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n\r\n--b_1--\r\n";
        let found = parse(text, "b_1");
        assert_eq!(found.len(), 2);
        assert_eq!(found[&0], (204, String::new()));
        assert_eq!(found[&1], (404, "{\"error\":\n {}}".to_owned()));
        assert_eq!(boundary_of("multipart/mixed; boundary=b_1"), Some("b_1"));
        assert_eq!(boundary_of("multipart/mixed; charset=x; boundary=\"b_1\""), Some("b_1"));
        assert_eq!(boundary_of("application/json"), None);
    }

    #[test]
    fn what_is_no_answer_is_passed_over() {
        for text in
            ["", "--b", "--b--", "--b\r\n\r\n", "--b\r\nContent-ID: x\r\n\r\nHTTP/1.1 200\r\n", "junk"]
        {
            assert!(parse(text, "b").is_empty(), "{text}");
        }
    }
}
