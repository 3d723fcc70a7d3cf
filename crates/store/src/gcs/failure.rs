//! What the answers of Cloud Storage mean.

use reqwest::Response;
use serde::Deserialize;

use super::client::read_within;
use crate::error::Kind;
use crate::failure::{Failure, Passing, chain, find, meaning_of_status};

/// Of an answer that is an error, so much is read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Of what it says, so much is told.
const MESSAGE_BYTES_MAX: usize = 1000;

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    error: Told,
}

#[derive(Default, Deserialize)]
struct Told {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Default, Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
}

/// The request did not come through, or its answer did not.
pub(super) fn unsent(error: reqwest::Error) -> Failure {
    // The address may hold the id of an upload, which is as good as a token.
    let error = error.without_url();
    if error.is_builder() {
        return Failure::invalid(&error);
    }
    let text = chain(&error);
    if error.is_timeout() {
        return Failure::timeout(text);
    }
    let refused = find::<std::io::Error>(&error).map(std::io::Error::kind);
    let failure = Failure::broken_way(text, "gs.tls.ca.file");
    // Nothing was sent where no connection came about.
    let ambiguous = failure.ambiguous && refused != Some(std::io::ErrorKind::ConnectionRefused);
    Failure { ambiguous, ..failure }
}

/// An answer other than was hoped for.
pub(super) async fn answered(response: Response) -> Failure {
    let status = response.status().as_u16();
    let body = read_within(response, ERROR_BYTES_MAX).await.unwrap_or_default();
    told(status, &body)
}

/// The same where the answer is there already, as in a batch.
pub(super) fn told(status: u16, body: &[u8]) -> Failure {
    let body: Body = serde_json::from_slice(body).unwrap_or_else(|_| plain(body));
    let reason = body.error.errors.first().map(|error| error.reason.clone()).unwrap_or_default();
    let message = shown(&body.error.message);
    let (kind, passing, ambiguous) = meaning(status, &reason, &message);
    let detail = format!("{status} {reason}: {message}").replace(" : ", ": ");
    let detail = detail.trim_end_matches([':', ' ']);
    Failure::new(kind, passing, ambiguous, detail).with_code(reason)
}

/// Media and proxies answer in plain text, HTML or XML.
fn plain(body: &[u8]) -> Body {
    let message = String::from_utf8_lossy(body.get(..body.len().min(300)).unwrap_or_default()).into_owned();
    Body { error: Told { message, errors: Vec::new() } }
}

/// One line of bounded length.
fn shown(message: &str) -> String {
    let line: Vec<&str> = message.split_whitespace().collect();
    let mut line = line.join(" ");
    if line.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}

/// By Google's reason first, since a status has several; then by status.
fn meaning(status: u16, reason: &str, message: &str) -> (Kind, Passing, bool) {
    use Passing::{Never, Throttled, Transient};

    match reason {
        // Both as 403 and as 429.
        "rateLimitExceeded" | "userRateLimitExceeded" | "slowDown" => {
            return (Kind::Unavailable, Throttled, false);
        }
        "backendError" | "internalError" | "uploadBrokenConnection" | "responsePreparationFailure"
            if status != 503 =>
        {
            return (Kind::Unavailable, Transient, true);
        }
        "conditionNotMet" => return (Kind::AlreadyExists, Never, false),
        _ => {}
    }
    match status {
        // The body was altered on its way: its checksum or its length says so.
        400 if is_altered(message) => (Kind::Unavailable, Transient, false),
        // A session that has ended.
        410 => (Kind::NotFound, Never, false),
        _ => meaning_of_status(status),
    }
}

fn is_altered(message: &str) -> bool {
    message.contains("match calculated") && (message.contains("CRC32C") || message.contains("crc32c"))
}

/// An object that is absent is one thing, a bucket another.
pub(super) fn is_of_bucket(failure: &str) -> bool {
    failure.contains("bucket does not exist")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(reason: &str, message: &str) -> Vec<u8> {
        format!(r#"{{"error":{{"code":0,"message":"{message}","errors":[{{"domain":"global","reason":"{reason}"}}]}}}}"#)
            .into_bytes()
    }

    #[test]
    fn only_what_may_pass_is_repeated() {
        for (status, reason, kind, passing) in [
            (429, "rateLimitExceeded", Kind::Unavailable, Passing::Throttled),
            (403, "userRateLimitExceeded", Kind::Unavailable, Passing::Throttled),
            (503, "backendError", Kind::Unavailable, Passing::Throttled),
            (503, "", Kind::Unavailable, Passing::Throttled),
            (500, "internalError", Kind::Unavailable, Passing::Transient),
            (502, "", Kind::Unavailable, Passing::Transient),
            (504, "", Kind::Unavailable, Passing::Transient),
            (408, "", Kind::Unavailable, Passing::Transient),
            (401, "authError", Kind::Denied, Passing::Never),
            (403, "forbidden", Kind::Denied, Passing::Never),
            (403, "retentionPolicyNotMet", Kind::Denied, Passing::Never),
            (404, "notFound", Kind::NotFound, Passing::Never),
            (410, "", Kind::NotFound, Passing::Never),
            (412, "conditionNotMet", Kind::AlreadyExists, Passing::Never),
            (416, "requestedRangeNotSatisfiable", Kind::InvalidRange, Passing::Never),
            (400, "invalid", Kind::Invalid, Passing::Never),
            (302, "", Kind::Invalid, Passing::Never),
            (501, "notImplemented", Kind::Unsupported, Passing::Never),
        ] {
            let failure = told(status, &json(reason, "as told"));
            assert_eq!((failure.kind, failure.passing), (kind, passing), "{status} {reason}");
        }
        let altered = r#"Provided CRC32C \"AAAA\" doesn't match calculated CRC32C \"BBBB\"."#;
        assert!(told(400, &json("invalid", altered)).may_pass());
    }

    #[test]
    fn what_is_said_is_one_short_line() {
        assert_eq!(told(404, &json("notFound", "No such object")).detail, "404 notFound: No such object");
        assert_eq!(told(502, b"<html>\n  bad gateway </html>").detail, "502: <html> bad gateway </html>");
        assert_eq!(told(500, b"").detail, "500");
        let long = told(400, &json("invalid", &"é".repeat(5000)));
        assert!(long.detail.len() < 1100 && long.detail.ends_with('…'));
    }
}
