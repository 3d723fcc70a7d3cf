//! What the answers of AWS KMS mean.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use varve_tls::credentials_may_pass;

use crate::error::Kind;
use crate::retry::{Failure, Passing, chain, meaning_of_status};
use crate::words::words;

/// `secret` is what was sent to be wrapped, as it was written.
pub(super) fn of<E>(error: SdkError<E, HttpResponse>, secret: &str) -> Failure
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    if let Some(cause) = find::<CredentialsError>(&error) {
        return credentials(cause);
    }
    match &error {
        SdkError::ConstructionFailure(_) => Failure::last(Kind::Invalid, chain(&error)),
        SdkError::TimeoutError(_) => Failure::new(Kind::Unavailable, Passing::Transient, chain(&error)),
        SdkError::DispatchFailure(failure) if failure.is_user() => {
            Failure::last(Kind::Invalid, chain(&error))
        }
        SdkError::DispatchFailure(_) if chain(&error).contains("invalid peer certificate") => {
            Failure::last(Kind::Invalid, format!("{} (is kms.tls.ca.file right?)", chain(&error)))
        }
        SdkError::DispatchFailure(_) => Failure::new(Kind::Unavailable, Passing::Transient, chain(&error)),
        SdkError::ServiceError(_) => answered(&error, secret),
        // Its causes may quote the body, which may hold a key.
        SdkError::ResponseError(_) => {
            let status = error.raw_response().map_or(0, |response| response.status().as_u16());
            let (kind, passing) = match meaning_of_status(status) {
                // The answer broke off, or is none of AWS KMS.
                (Kind::Other, _) => (Kind::Unavailable, Passing::Transient),
                meaning => meaning,
            };
            Failure::new(kind, passing, format!("status {status}, with an answer that can't be read"))
        }
        _ => Failure::last(Kind::Other, "a failure unknown to this build"),
    }
}

fn credentials(cause: &CredentialsError) -> Failure {
    let passing = if credentials_may_pass(cause) { Passing::Transient } else { Passing::Never };
    Failure::of_credentials(passing, format!("no credentials: {}", words(&chain(cause), &[])))
}

fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn answered<E>(error: &SdkError<E, HttpResponse>, secret: &str) -> Failure
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    let metadata = error.as_service_error().map(ProvideErrorMetadata::meta);
    let code = metadata.and_then(|meta| meta.code()).unwrap_or_default();
    let (kind, passing) = meaning(status, code);
    let mut detail = format!("{status} {code}").trim_end().to_owned();
    if let Some(message) = metadata.and_then(|meta| meta.message()) {
        detail.push_str(&format!(": {}", words(message, &[secret])));
    }
    if let Some(id) = metadata.and_then(RequestId::request_id) {
        detail.push_str(&format!(" [request {}]", words(id, &[secret])));
    }
    Failure::new(kind, passing, detail)
}

fn meaning(status: u16, code: &str) -> (Kind, Passing) {
    use Passing::{Never, Throttled, Transient};

    match code {
        "NotFoundException" => (Kind::NotFound, Never),
        // The state is one in which the key is of no use: disabled, waiting for its deletion or for its material.
        "DisabledException" | "KMSInvalidStateException" => (Kind::Disabled, Never),
        "InvalidCiphertextException" | "IncorrectKeyException" => (Kind::Refused, Never),
        "AccessDeniedException"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "UnrecognizedClientException" => (Kind::Denied, Never),
        "LimitExceededException"
        | "RequestLimitExceeded"
        | "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException" => (Kind::Unavailable, Throttled),
        "DependencyTimeoutException"
        | "InternalFailure"
        | "KMSInternalException"
        | "KeyUnavailableException"
        | "RequestTimeout"
        | "ServiceUnavailable" => (Kind::Unavailable, Transient),
        "InvalidGrantTokenException" | "InvalidKeyUsageException" | "ValidationException" => {
            (Kind::Invalid, Never)
        }
        _ => meaning_of_status(status),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::error::ErrorMetadata;

    use super::*;

    #[test]
    fn only_what_may_pass_is_repeated() {
        for (status, code, kind, passing) in [
            (400, "NotFoundException", Kind::NotFound, Passing::Never),
            (400, "DisabledException", Kind::Disabled, Passing::Never),
            (400, "KMSInvalidStateException", Kind::Disabled, Passing::Never),
            (400, "InvalidCiphertextException", Kind::Refused, Passing::Never),
            (400, "IncorrectKeyException", Kind::Refused, Passing::Never),
            (400, "AccessDeniedException", Kind::Denied, Passing::Never),
            (403, "", Kind::Denied, Passing::Never),
            (400, "ThrottlingException", Kind::Unavailable, Passing::Throttled),
            (500, "KeyUnavailableException", Kind::Unavailable, Passing::Transient),
            (502, "", Kind::Unavailable, Passing::Transient),
            (400, "InvalidKeyUsageException", Kind::Invalid, Passing::Never),
            (400, "SomethingNew", Kind::Invalid, Passing::Never),
        ] {
            assert_eq!(meaning(status, code), (kind, passing), "{status} {code}");
        }
    }

    #[test]
    fn credentials_that_are_away_are_not_denied() {
        let of_sts = |code: &str| ErrorMetadata::builder().code(code).message("no").build();
        for (cause, kind) in [
            (CredentialsError::provider_error("connection refused"), Kind::Unavailable),
            (CredentialsError::provider_error(of_sts("Throttling")), Kind::Unavailable),
            (CredentialsError::provider_error(of_sts("AccessDenied")), Kind::Denied),
            (CredentialsError::provider_error(of_sts("SignatureDoesNotMatch")), Kind::Denied),
            (CredentialsError::provider_error(of_sts("ExpiredToken")), Kind::Denied),
            (CredentialsError::not_loaded("none"), Kind::Denied),
        ] {
            assert_eq!(credentials(&cause).kind, kind, "{cause:?}");
        }
    }
}
