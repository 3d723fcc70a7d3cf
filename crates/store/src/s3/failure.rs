//! What an answer of the store, or the lack of one, means: which [`Kind`] it is, whether it may pass by itself,
//! and whether the request may have taken effect all the same.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::{RequestId, RequestIdExt};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::At;
use crate::error::{Error, Kind};

/// How a failure passes, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    Never,
    /// The store asks for fewer requests.
    Throttled,
    /// The store or the way to it broke down for a moment.
    Transient,
}

#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) passing: Passing,
    /// The request may have taken effect.
    pub(super) ambiguous: bool,
    pub(super) code: String,
    pub(super) detail: String,
}

impl Failure {
    pub(super) fn may_pass(&self) -> bool {
        self.passing != Passing::Never
    }

    pub(super) fn error(self, at: &At, attempts: u32) -> Error {
        let times = if attempts > 1 { format!(" (after {attempts} attempts)") } else { String::new() };
        at.error(self.kind, format!("{}{times}", self.detail))
    }

    pub(super) fn invalid(error: &dyn StdError) -> Self {
        Self::new(Kind::Invalid, Passing::Never, false, chain(error))
    }

    pub(super) fn timeout(detail: String) -> Self {
        Self::new(Kind::Unavailable, Passing::Transient, true, detail)
    }

    fn new(kind: Kind, passing: Passing, ambiguous: bool, detail: String) -> Self {
        Self { kind, passing, ambiguous, code: String::new(), detail }
    }

    /// An error that stands in the answer to a batch.
    pub(super) fn coded(code: Option<&str>, message: Option<&str>) -> Self {
        let code = code.unwrap_or("an error without a code");
        let (kind, passing, ambiguous) = meaning(200, code);
        let detail = format!("{code}: {}", message.unwrap_or("no message"));
        Self { kind, passing, ambiguous, code: code.to_owned(), detail }
    }

    pub(super) fn of<E>(error: SdkError<E, HttpResponse>) -> Self
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        if let Some(cause) = find::<CredentialsError>(&error) {
            return Self::credentials(cause);
        }
        match &error {
            SdkError::ConstructionFailure(_) => Self::invalid(&error),
            SdkError::TimeoutError(_) => Self::timeout(chain(&error)),
            SdkError::DispatchFailure(failure) if failure.is_user() => Self::invalid(&error),
            // A certificate does not become valid within seconds.
            SdkError::DispatchFailure(_) if chain(&error).contains("invalid peer certificate") => {
                let detail = format!("{} (is s3.tls.ca.file right?)", chain(&error));
                Self::new(Kind::Invalid, Passing::Never, false, detail)
            }
            SdkError::DispatchFailure(_) => {
                Self::new(Kind::Unavailable, Passing::Transient, true, chain(&error))
            }
            SdkError::ResponseError(_) | SdkError::ServiceError(_) => Self::answered(&error),
            _ => Self::new(Kind::Other, Passing::Never, true, chain(&error)),
        }
    }

    fn credentials(cause: &CredentialsError) -> Self {
        // Only these can be cured by asking again: a metadata service that is slow or away.
        let passes =
            matches!(cause, CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_));
        let passing = if passes { Passing::Transient } else { Passing::Never };
        Self::new(Kind::Denied, passing, false, format!("no credentials: {}", chain(cause)))
    }

    fn answered<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        let metadata = error.as_service_error().map(ProvideErrorMetadata::meta);
        let code = metadata.and_then(|meta| meta.code()).unwrap_or_default().to_owned();
        let (kind, passing, ambiguous) = meaning(status, &code);
        let message = match metadata.and_then(|meta| meta.message()) {
            Some(message) => format!(": {message}"),
            None if code.is_empty() && error.as_service_error().is_none() => format!(": {}", chain(error)),
            None => String::new(),
        };
        let mut detail = format!("{status} {code}{message}").trim_end().replace("  ", " ");
        if let Some(id) = metadata.and_then(RequestId::request_id) {
            detail.push_str(&format!(" [request {id}]"));
        }
        if let Some(id) = metadata.and_then(RequestIdExt::extended_request_id) {
            detail.push_str(&format!(" [host {id}]"));
        }
        Self { kind, passing, ambiguous, code, detail }
    }
}

/// By S3's code first, since servers differ in the status; then by status (a HEAD has no code).
fn meaning(status: u16, code: &str) -> (Kind, Passing, bool) {
    use Passing::{Never, Throttled, Transient};

    match code {
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded" => {
            return (Kind::Unavailable, Throttled, false);
        }
        // 400s and 409s that S3 itself asks to repeat.
        "RequestTimeout" | "IncompleteBody" | "BadDigest" | "InternalError" => {
            return (Kind::Unavailable, Transient, true);
        }
        "OperationAborted" | "ConditionalRequestConflict" => return (Kind::Unavailable, Transient, false),
        "XMinioStorageFull"
        | "QuotaExceeded"
        | "XMinioAdminBucketQuotaExceeded"
        | "EntityTooLargeForQuota" => {
            return (Kind::NoSpace, Never, false);
        }
        "NoSuchKey" | "NoSuchBucket" | "NoSuchUpload" | "NoSuchVersion" => {
            return (Kind::NotFound, Never, false);
        }
        "InvalidRange" => return (Kind::InvalidRange, Never, false),
        "PreconditionFailed" => return (Kind::AlreadyExists, Never, false),
        "InvalidObjectState" => return (Kind::Frozen, Never, false),
        "AccessDenied"
        | "ExpiredToken"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "RequestTimeTooSkewed"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "TokenRefreshRequired" => {
            return (Kind::Denied, Never, false);
        }
        "NotImplemented" | "MethodNotAllowed" => return (Kind::Unsupported, Never, false),
        _ => {}
    }
    match status {
        401 | 403 => (Kind::Denied, Never, false),
        404 => (Kind::NotFound, Never, false),
        405 | 501 => (Kind::Unsupported, Never, false),
        408 => (Kind::Unavailable, Transient, true),
        412 => (Kind::AlreadyExists, Never, false),
        416 => (Kind::InvalidRange, Never, false),
        429 | 503 => (Kind::Unavailable, Throttled, status == 503),
        507 => (Kind::NoSpace, Never, false),
        500..=599 => (Kind::Unavailable, Transient, true),
        300..=499 => (Kind::Invalid, Never, false),
        // An answer that could not be read, or an error without a known code in a 200.
        _ => (Kind::Unavailable, Transient, true),
    }
}

/// The error and its causes in one line, each said once.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}

fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_repeated() {
        for (status, code, kind, passing) in [
            (503, "SlowDown", Kind::Unavailable, Passing::Throttled),
            (503, "", Kind::Unavailable, Passing::Throttled),
            (429, "", Kind::Unavailable, Passing::Throttled),
            (500, "InternalError", Kind::Unavailable, Passing::Transient),
            (502, "", Kind::Unavailable, Passing::Transient),
            (400, "RequestTimeout", Kind::Unavailable, Passing::Transient),
            (409, "OperationAborted", Kind::Unavailable, Passing::Transient),
            (400, "ExpiredToken", Kind::Denied, Passing::Never),
            (403, "", Kind::Denied, Passing::Never),
            (403, "SignatureDoesNotMatch", Kind::Denied, Passing::Never),
            (404, "", Kind::NotFound, Passing::Never),
            (412, "", Kind::AlreadyExists, Passing::Never),
            (416, "", Kind::InvalidRange, Passing::Never),
            (400, "InvalidArgument", Kind::Invalid, Passing::Never),
            (301, "PermanentRedirect", Kind::Invalid, Passing::Never),
            (501, "NotImplemented", Kind::Unsupported, Passing::Never),
            (403, "InvalidObjectState", Kind::Frozen, Passing::Never),
            (507, "XMinioStorageFull", Kind::NoSpace, Passing::Never),
        ] {
            let (found, passes, _) = meaning(status, code);
            assert_eq!((found, passes), (kind, passing), "{status} {code}");
        }
    }
}
