//! What Azure's answers mean.

use std::error::Error as StdError;

use azure_core::error::ErrorKind;
use azure_core::http::RawResponse;
use azure_core::http::headers::HeaderName;

use crate::error::Kind;
use crate::failure::{Failure, Passing, chain, meaning_of_status};

/// Said by [`Kind::AlreadyExists`] too, but about what a copy is made of.
pub(super) const SOURCE_REPLACED: &str = "SourceConditionNotMet";
/// Blocks that a commit names are not there (any more).
pub(super) const NO_SUCH_BLOCKS: &str = "InvalidBlockList";
const BY_LEGAL_HOLD: &str = "BlobImmutableDueToLegalHold";
const BY_POLICY: &str = "BlobImmutableDueToPolicy";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const MESSAGE_CHARS: usize = 500;

pub(super) fn of(error: azure_core::Error) -> Failure {
    match error.kind() {
        ErrorKind::HttpResponse { status, error_code, raw_response } => {
            let status = u16::from(*status);
            answered(status, error_code.as_deref().unwrap_or_default(), raw_response.as_deref())
        }
        ErrorKind::Connection | ErrorKind::Io => {
            Failure::broken_way(hide_signatures(&chain(&error)), "az.tls.ca.file")
        }
        ErrorKind::Credential => {
            let text: String = chain(&error).chars().take(2 * MESSAGE_CHARS).collect();
            let passing = if may_pass(&error) { Passing::Transient } else { Passing::Never };
            Failure::of_credentials(passing, format!("no credentials: {}", hide_signatures(&text)))
        }
        ErrorKind::DataConversion => {
            Failure::new(Kind::Unavailable, Passing::Transient, true, hide_signatures(&chain(&error)))
        }
        _ => Failure::new(Kind::Other, Passing::Never, true, hide_signatures(&chain(&error))),
    }
}

/// Whether whoever gives tokens is slow or away, rather than that it gives none.
pub(super) fn may_pass(error: &azure_core::Error) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = next {
        match current.downcast_ref::<azure_core::Error>().map(azure_core::Error::kind) {
            Some(ErrorKind::Io | ErrorKind::Connection) => return true,
            Some(ErrorKind::HttpResponse { status, .. }) => {
                // The machine's identity service says 404 and 410 while it is set up or updated.
                let status = u16::from(*status);
                return matches!(status, 404 | 410) || meaning_of_status(status).1 != Passing::Never;
            }
            _ => next = current.source(),
        }
    }
    false
}

fn answered(status: u16, code: &str, answer: Option<&RawResponse>) -> Failure {
    let body = answer.map(|answer| String::from_utf8_lossy(answer.body()).into_owned()).unwrap_or_default();
    // Without a code the SDK gives a description of the status.
    let told = element(&body, "Code");
    let is_code = |code: &&str| !code.is_empty() && code.bytes().all(|b| b.is_ascii_alphanumeric());
    let code = told.or(Some(code)).filter(is_code).unwrap_or_default();
    let request = answer.and_then(|answer| answer.headers().get_optional_str(&REQUEST_ID));
    said(status, code, element(&body, "Message"), request)
}

/// An answer's status, code, message and request id.
pub(super) fn said(status: u16, code: &str, message: Option<&str>, request: Option<&str>) -> Failure {
    let (kind, passing, ambiguous) = meaning(status, code);
    let mut detail = format!("{status} {code}");
    if let Some(line) = message.and_then(|message| message.lines().next()) {
        let line: String = line.chars().take(MESSAGE_CHARS).collect();
        detail.push_str(&format!(": {}", hide_signatures(line.trim())));
    }
    if let Some(id) = request {
        detail.push_str(&format!(" [request {id}]"));
    }
    Failure::new(kind, passing, ambiguous, detail.replace("  ", " ").trim_end()).with_code(code)
}

/// The text of the first such element of a small XML text.
pub(super) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</").map_or(rest, |(text, _)| text))
}

/// Addresses may hold a signature: nobody's errors should.
fn hide_signatures(text: &str) -> String {
    let mut pieces = text.split("sig=");
    let mut hidden = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let secret = piece.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"%+/=-_".contains(b)).count();
        hidden.push_str("sig=[hidden]");
        hidden.push_str(&piece[secret..]);
    }
    hidden
}

/// By Azure's code first, then by status.
fn meaning(status: u16, code: &str) -> (Kind, Passing, bool) {
    use Passing::{Never, Throttled, Transient};

    match code {
        "ServerBusy" | "TooManyRequests" => (Kind::Unavailable, Throttled, false),
        "OperationTimedOut" | "InternalError" => (Kind::Unavailable, Transient, true),
        // What arrived is not what was sent.
        "Md5Mismatch" | "Crc64Mismatch" | "IncompleteBody" => (Kind::Unavailable, Transient, false),
        "BlobNotFound" | "ContainerNotFound" | "ResourceNotFound" | "ContainerBeingDeleted" => {
            (Kind::NotFound, Never, false)
        }
        "BlobAlreadyExists" | "ConditionNotMet" | "TargetConditionNotMet" | SOURCE_REPLACED => {
            (Kind::AlreadyExists, Never, false)
        }
        "BlobArchived" | "BlobBeingRehydrated" => (Kind::Frozen, Never, false),
        "InvalidRange" => (Kind::InvalidRange, Never, false),
        "AccountIsDisabled"
        | "AuthenticationFailed"
        | "AuthorizationFailure"
        | "AuthorizationPermissionMismatch"
        | "AuthorizationProtocolMismatch"
        | "AuthorizationResourceTypeMismatch"
        | "AuthorizationServiceMismatch"
        | "AuthorizationSourceIPMismatch"
        | BY_LEGAL_HOLD
        | BY_POLICY
        | "InsufficientAccountPermissions"
        | "InvalidAuthenticationInfo"
        | "LeaseIdMissing"
        | "NoAuthenticationInformation"
        | "PublicAccessNotPermitted"
        | "SnapshotsPresent"
        | "UnauthorizedBlobOverwrite" => (Kind::Denied, Never, false),
        "FeatureVersionMismatch" | "NotImplemented" | "APINotImplemented" | "UnsupportedHttpVerb" => {
            (Kind::Unsupported, Never, false)
        }
        "MemoryExtentStoreAtSizeLimit" | "AccountCapacityExceeded" => (Kind::NoSpace, Never, false),
        _ => meaning_of_status(status),
    }
}

/// Of a request that creates what is not there: a policy or a hold refuses it only where something is.
pub(super) fn of_create(failure: Failure) -> Failure {
    let is_there = [BY_LEGAL_HOLD, BY_POLICY].contains(&failure.code.as_str());
    if is_there { Failure { kind: Kind::AlreadyExists, ..failure } } else { failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_repeated() {
        for (status, code, kind, passing) in [
            (503, "ServerBusy", Kind::Unavailable, Passing::Throttled),
            (503, "", Kind::Unavailable, Passing::Throttled),
            (429, "", Kind::Unavailable, Passing::Throttled),
            (500, "InternalError", Kind::Unavailable, Passing::Transient),
            (500, "OperationTimedOut", Kind::Unavailable, Passing::Transient),
            (400, "Md5Mismatch", Kind::Unavailable, Passing::Transient),
            (400, "Crc64Mismatch", Kind::Unavailable, Passing::Transient),
            (502, "", Kind::Unavailable, Passing::Transient),
            (400, "InvalidHeaderValue", Kind::Invalid, Passing::Never),
            (400, "InvalidBlockList", Kind::Invalid, Passing::Never),
            (403, "AuthenticationFailed", Kind::Denied, Passing::Never),
            (409, BY_POLICY, Kind::Denied, Passing::Never),
            (409, BY_LEGAL_HOLD, Kind::Denied, Passing::Never),
            (412, "LeaseIdMissing", Kind::Denied, Passing::Never),
            (404, "BlobNotFound", Kind::NotFound, Passing::Never),
            (404, "", Kind::NotFound, Passing::Never),
            (409, "BlobAlreadyExists", Kind::AlreadyExists, Passing::Never),
            (412, "ConditionNotMet", Kind::AlreadyExists, Passing::Never),
            (409, "BlobArchived", Kind::Frozen, Passing::Never),
            (409, "BlobBeingRehydrated", Kind::Frozen, Passing::Never),
            (416, "InvalidRange", Kind::InvalidRange, Passing::Never),
            (501, "NotImplemented", Kind::Unsupported, Passing::Never),
            (302, "", Kind::Invalid, Passing::Never),
        ] {
            let failure = said(status, code, None, None);
            assert_eq!((failure.kind, failure.passing), (kind, passing), "{status} {code}");
        }
    }

    #[test]
    fn signatures_are_hidden_and_messages_short() {
        let message = format!("of https://x/y?sig=hu%2Bsh=&sv=1 and sig=hush\n{}", "x".repeat(1000));
        let failure = said(403, "AuthenticationFailed", Some(&message), Some("R42"));
        let expected =
            "403 AuthenticationFailed: of https://x/y?sig=[hidden]&sv=1 and sig=[hidden] [request R42]";
        assert_eq!(failure.detail, expected);
        assert_eq!(element("<E><Code>A</Code><Message>b", "Code"), Some("A"));
        assert_eq!(element("<E><Code>A</Code><Message>b", "Message"), Some("b"));
    }
}
