//! What Vault's refusals mean. It has hardly any codes: its words are what there is.

use serde::Deserialize;

use crate::error::Kind;
use crate::http::Answer;
use crate::retry::{Failure, Passing, meaning_of_status};
use crate::words::words;

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Vec<String>,
}

pub(super) fn of(answer: &Answer, unwrapping: bool, secrets: &[&str]) -> Failure {
    let refusal: Refusal = answer.json().unwrap_or_default();
    let text = refusal.errors.join("; ");
    let (kind, passing) = meaning(answer.status, unwrapping, &text);
    let mut detail = format!("{} {}", answer.status, words(&text, secrets)).trim_end().to_owned();
    if refusal.errors.is_empty() && answer.status == 404 {
        detail.push_str(" (is the transit engine mounted there?)");
    }
    Failure::new(kind, passing, detail)
}

fn meaning(status: u16, unwrapping: bool, text: &str) -> (Kind, Passing) {
    let says = |words: &[&str]| words.iter().any(|words| text.contains(words));
    match status {
        // States of a cluster whose members follow one another.
        412 | 472 | 473 => (Kind::Unavailable, Passing::Transient),
        400 | 404 if says(&["encryption key not found", "no existing key", "no handler for route"]) => {
            (Kind::NotFound, Passing::Never)
        }
        400 if says(&["disallowed by policy", "soft deleted", "soft-deleted", "is archived"]) => {
            (Kind::Disabled, Passing::Never)
        }
        400 if unwrapping
            && says(&["message authentication failed", "invalid ciphertext", "unable to decrypt"]) =>
        {
            (Kind::Refused, Passing::Never)
        }
        _ => meaning_of_status(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_meanings() {
        for (status, text, kind, passing) in [
            (400, "cipher: message authentication failed", Kind::Refused, Passing::Never),
            (400, "chacha20poly1305: message authentication failed", Kind::Refused, Passing::Never),
            (400, "invalid ciphertext: no prefix", Kind::Refused, Passing::Never),
            (400, "encryption key not found", Kind::NotFound, Passing::Never),
            (
                404,
                "no handler for route \"x/decrypt/k\". route entry not found.",
                Kind::NotFound,
                Passing::Never,
            ),
            (404, "", Kind::NotFound, Passing::Never),
            (
                400,
                "ciphertext or signature version is disallowed by policy (too old)",
                Kind::Disabled,
                Passing::Never,
            ),
            (
                400,
                "'[0].associated_data' provided for non-AEAD cipher suite rsa-2048",
                Kind::Invalid,
                Passing::Never,
            ),
            (403, "permission denied", Kind::Denied, Passing::Never),
            (412, "", Kind::Unavailable, Passing::Transient),
            (429, "", Kind::Unavailable, Passing::Throttled),
            (500, "", Kind::Unavailable, Passing::Transient),
            (503, "Vault is sealed", Kind::Unavailable, Passing::Transient),
        ] {
            assert_eq!(meaning(status, true, text), (kind, passing), "{status} {text}");
        }
        assert_eq!(meaning(400, false, "invalid ciphertext").0, Kind::Invalid);
    }
}
