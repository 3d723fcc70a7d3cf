//! What S3's answers mean.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::{RequestId, RequestIdExt};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use varve_tls::credentials_may_pass;

use crate::error::Kind;
use crate::failure::{Failure, Passing, chain, find, meaning_of_status};

/// An error that stands in the answer to a batch.
pub(super) fn coded(code: Option<&str>, message: Option<&str>) -> Failure {
    let code = code.unwrap_or("an error without a code");
    let (kind, passing, ambiguous) = meaning(200, code);
    let detail = format!("{code}: {}", message.unwrap_or("no message"));
    Failure::new(kind, passing, ambiguous, detail).with_code(code)
}

pub(super) fn of<E>(error: SdkError<E, HttpResponse>) -> Failure
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    if let Some(cause) = find::<CredentialsError>(&error) {
        return credentials(cause);
    }
    match &error {
        SdkError::ConstructionFailure(_) => Failure::invalid(&error),
        SdkError::TimeoutError(_) => Failure::timeout(chain(&error)),
        SdkError::DispatchFailure(failure) if failure.is_user() => Failure::invalid(&error),
        SdkError::DispatchFailure(_) => Failure::broken_way(chain(&error), "s3.tls.ca.file"),
        SdkError::ResponseError(_) | SdkError::ServiceError(_) => answered(&error),
        _ => Failure::new(Kind::Other, Passing::Never, true, chain(&error)),
    }
}

fn credentials(cause: &CredentialsError) -> Failure {
    let passing = if credentials_may_pass(cause) { Passing::Transient } else { Passing::Never };
    Failure::of_credentials(passing, format!("no credentials: {}", chain(cause)))
}

fn answered<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    let metadata = error.as_service_error().map(ProvideErrorMetadata::meta);
    let code = metadata.and_then(|meta| meta.code()).unwrap_or_default().to_owned();
    let (kind, passing, ambiguous) = meaning(status, &code);
    let message = match metadata.and_then(|meta| meta.message()) {
        Some(message) => format!(": {message}"),
        // A success that can't be read is one of these too.
        None if code.is_empty() && (error.as_service_error().is_none() || status < 300) => {
            format!(": {}", chain(error))
        }
        None => String::new(),
    };
    let mut detail = format!("{status} {code}").trim_end().to_owned();
    detail.push_str(&message);
    if let Some(id) = metadata.and_then(RequestId::request_id) {
        detail.push_str(&format!(" [request {id}]"));
    }
    if let Some(id) = metadata.and_then(RequestIdExt::extended_request_id) {
        detail.push_str(&format!(" [host {id}]"));
    }
    Failure::new(kind, passing, ambiguous, detail).with_code(code)
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
    meaning_of_status(status)
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::error::ErrorMetadata;
    use aws_sdk_s3::operation::put_object::PutObjectError;

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

    #[test]
    fn credentials_that_are_away_are_not_denied() {
        let of_sts = |code: &str| ErrorMetadata::builder().code(code).message("no").build();
        for (cause, kind) in [
            (CredentialsError::provider_error("connection refused"), Kind::Unavailable),
            (CredentialsError::provider_timed_out(std::time::Duration::from_secs(5)), Kind::Unavailable),
            (CredentialsError::provider_error(of_sts("Throttling")), Kind::Unavailable),
            (CredentialsError::provider_error(of_sts("AccessDenied")), Kind::Denied),
            (CredentialsError::provider_error(of_sts("InvalidClientTokenId")), Kind::Denied),
            (CredentialsError::provider_error(of_sts("ExpiredTokenException")), Kind::Denied),
            (CredentialsError::not_loaded("none"), Kind::Denied),
            (CredentialsError::invalid_configuration("no such profile"), Kind::Denied),
        ] {
            let error = SdkError::<PutObjectError, HttpResponse>::construction_failure(cause);
            let failure = of(error);
            assert_eq!((failure.kind, failure.may_pass()), (kind, kind == Kind::Unavailable), "{failure:?}");
            assert!(!failure.ambiguous && failure.detail.contains("no credentials"), "{failure:?}");
        }
    }
}
