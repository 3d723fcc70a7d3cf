//! What Azure's refusals mean.

use serde::Deserialize;

use crate::error::Kind;
use crate::http::Answer;
use crate::retry::{Failure, Passing, meaning_of_status};
use crate::words::words;

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error: Coded,
}

#[derive(Default, Deserialize)]
struct Coded {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    innererror: Option<Inner>,
}

#[derive(Default, Deserialize)]
struct Inner {
    #[serde(default)]
    code: String,
}

pub(super) fn of(answer: &Answer, unwrapping: bool, secrets: &[&str]) -> Failure {
    let refusal = answer.json::<Refusal>().unwrap_or_default().error;
    let inner = refusal.innererror.unwrap_or_default().code;
    let (kind, passing) = meaning(answer.status, &refusal.code, &inner, &refusal.message, unwrapping);
    let code = [refusal.code.as_str(), inner.as_str()].join(" ");
    let (code, message) = (words(code.trim(), secrets), words(&refusal.message, secrets));
    let detail = format!("{} {code}: {message}", answer.status);
    Failure::new(kind, passing, detail.trim_end_matches([' ', ':']))
}

fn meaning(status: u16, code: &str, inner: &str, message: &str, unwrapping: bool) -> (Kind, Passing) {
    use Passing::{Never, Throttled};

    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match (code, inner) {
        (
            _,
            "KeyDisabled"
            | "KeyExpired"
            | "KeyNotYetValid"
            | "ObjectIsDeletedButRecoverable"
            | "ObjectIsBeingDeleted",
        ) => (Kind::Disabled, Never),
        ("Forbidden", _)
            if says(&[
                "disabled key",
                "key is disabled",
                "expired key",
                "not yet valid",
                "is not enabled",
            ]) =>
        {
            (Kind::Disabled, Never)
        }
        ("KeyDisabled", _) => (Kind::Disabled, Never),
        ("KeyNotFound", _) => (Kind::NotFound, Never),
        ("Forbidden" | "Unauthorized" | "AccessDenied", _) => (Kind::Denied, Never),
        ("Throttled" | "TooManyRequests", _) => (Kind::Unavailable, Throttled),
        ("BadParameter", _) if unwrapping && status == 400 => (Kind::Refused, Never),
        _ => meaning_of_status(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_have_meanings() {
        let disabled = "Operation wrapKey is not allowed on a disabled key.";
        for (status, code, inner, message, kind, passing) in [
            (404, "KeyNotFound", "", "", Kind::NotFound, Passing::Never),
            (403, "Forbidden", "ForbiddenByPolicy", "", Kind::Denied, Passing::Never),
            (403, "Forbidden", "KeyDisabled", "", Kind::Disabled, Passing::Never),
            (403, "Forbidden", "", disabled, Kind::Disabled, Passing::Never),
            (409, "Conflict", "ObjectIsDeletedButRecoverable", "", Kind::Disabled, Passing::Never),
            (401, "Unauthorized", "", "", Kind::Denied, Passing::Never),
            (400, "BadParameter", "", "", Kind::Refused, Passing::Never),
            (429, "Throttled", "", "", Kind::Unavailable, Passing::Throttled),
            (503, "", "", "", Kind::Unavailable, Passing::Transient),
        ] {
            assert_eq!(
                meaning(status, code, inner, message, true),
                (kind, passing),
                "{status} {code} {inner}"
            );
        }
        assert_eq!(meaning(400, "BadParameter", "", "", false).0, Kind::Invalid);
    }
}
