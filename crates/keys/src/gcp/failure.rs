//! What Google's refusals mean.

use serde::Deserialize;

use crate::error::Kind;
use crate::http::Answer;
use crate::retry::{Failure, Passing, meaning_of_status};
use crate::words::words;

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: Inner,
}

#[derive(Default, Deserialize)]
struct Inner {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
}

pub(super) fn of(answer: &Answer, unwrapping: bool, secrets: &[&str]) -> Failure {
    let Inner { status, message } = answer.json::<Refusal>().unwrap_or_default().error;
    let (kind, passing) = meaning(answer.status, &status, &message, unwrapping);
    let detail = format!("{} {}: {}", answer.status, words(&status, secrets), words(&message, secrets));
    Failure::new(kind, passing, detail.trim_end_matches([' ', ':']))
}

fn meaning(code: u16, status: &str, message: &str, unwrapping: bool) -> (Kind, Passing) {
    use Passing::{Never, Throttled, Transient};

    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match status {
        "INVALID_ARGUMENT" if says(&["crc32c", "checksum"]) => (Kind::Other, Transient),
        "INVALID_ARGUMENT" if unwrapping && says(&["decryption failed", "ciphertext"]) => {
            (Kind::Refused, Never)
        }
        "FAILED_PRECONDITION" if says(&["disabled", "destroy", "not enabled", "pending"]) => {
            (Kind::Disabled, Never)
        }
        "RESOURCE_EXHAUSTED" => (Kind::Unavailable, Throttled),
        "NOT_FOUND" => (Kind::NotFound, Never),
        "PERMISSION_DENIED" | "UNAUTHENTICATED" => (Kind::Denied, Never),
        "UNAVAILABLE" | "INTERNAL" | "DEADLINE_EXCEEDED" | "ABORTED" | "CANCELLED" => {
            (Kind::Unavailable, Transient)
        }
        _ => meaning_of_status(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_have_meanings() {
        let failed = "Decryption failed: verify that 'name' refers to the correct CryptoKey.";
        let disabled = "projects/p/cryptoKeyVersions/1 is not enabled, current state is: DISABLED.";
        for (code, status, message, kind, passing) in [
            (400, "INVALID_ARGUMENT", failed, Kind::Refused, Passing::Never),
            (
                400,
                "INVALID_ARGUMENT",
                "Decryption failed: the ciphertext is invalid.",
                Kind::Refused,
                Passing::Never,
            ),
            (
                400,
                "INVALID_ARGUMENT",
                "the field ciphertext_crc32c did not match",
                Kind::Other,
                Passing::Transient,
            ),
            (400, "INVALID_ARGUMENT", "purpose", Kind::Invalid, Passing::Never),
            (400, "FAILED_PRECONDITION", disabled, Kind::Disabled, Passing::Never),
            (400, "FAILED_PRECONDITION", "another", Kind::Invalid, Passing::Never),
            (403, "PERMISSION_DENIED", "", Kind::Denied, Passing::Never),
            (401, "", "", Kind::Denied, Passing::Never),
            (404, "", "", Kind::NotFound, Passing::Never),
            (429, "RESOURCE_EXHAUSTED", "", Kind::Unavailable, Passing::Throttled),
            (503, "UNAVAILABLE", "", Kind::Unavailable, Passing::Transient),
            (502, "", "", Kind::Unavailable, Passing::Transient),
        ] {
            assert_eq!(meaning(code, status, message, true), (kind, passing), "{code} {status} {message}");
        }
        assert_eq!(meaning(400, "INVALID_ARGUMENT", failed, false).0, Kind::Invalid);
    }
}
