//! What AWS's services of credentials refuse, which asking again does not cure. In the SDK's error it looks as a service
//! that is away does: only the code tells them apart, or the name of the exception where there is a type for it.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_types::error::ErrorMetadata;

/// Codes of STS, and of what signs people in, without the `Exception` that some of them end with.
const REFUSALS: [&str; 26] = [
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "Forbidden",
    "IDPRejectedClaim",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidIdentityToken",
    "InvalidSignature",
    "InvalidToken",
    "MalformedPolicyDocument",
    "MissingAuthenticationToken",
    "NotAuthorized",
    "OptInRequired",
    "PackedPolicyTooLarge",
    "RegionDisabled",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "Unauthorized",
    "UnauthorizedClient",
    "UnrecognizedClient",
    "ValidationError",
];

/// STS says `InvalidIdentityToken` then too, and AWS asks to try again: it did not reach the identity provider.
const PROVIDER_AWAY: &str = "retrieve verification key";

/// Whether asking again may bring credentials: whoever gives them is slow or away, and has refused nothing.
pub fn credentials_may_pass(error: &CredentialsError) -> bool {
    matches!(error, CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_))
        && !credentials_refused(error)
}

/// By what is among the error's causes.
fn credentials_refused(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(current) = next {
        // Errors with a type of their own hide their code: what they say begins with their name.
        let refused = match current.downcast_ref::<ErrorMetadata>() {
            Some(answer) => {
                is_refusal(answer.code().unwrap_or_default(), answer.message().unwrap_or_default())
            }
            None => {
                let text = current.to_string();
                let (name, message) = text.split_once([':', ' ']).unwrap_or((&text, ""));
                is_refusal(name, message)
            }
        };
        if refused {
            return true;
        }
        next = current.source();
    }
    false
}

fn is_refusal(code: &str, message: &str) -> bool {
    let code = code.strip_suffix("Exception").unwrap_or(code);
    REFUSALS.iter().any(|refusal| refusal.eq_ignore_ascii_case(code)) && !message.contains(PROVIDER_AWAY)
}

#[cfg(test)]
mod tests {
    use aws_sdk_sts::error::SdkError;
    use aws_sdk_sts::operation::assume_role::AssumeRoleError;
    use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError as ByToken;
    use aws_sdk_sts::types::error::{
        ExpiredTokenException, IdpCommunicationErrorException, IdpRejectedClaimException,
        InvalidIdentityTokenException, PackedPolicyTooLargeException, RegionDisabledException,
    };

    use super::*;

    /// As AWS's providers of credentials hand it on.
    fn refused<E: Error + Send + Sync + 'static>(error: E) -> bool {
        credentials_refused(&SdkError::service_error(error, "the answer"))
    }

    #[test]
    fn what_sts_refuses_is_told_from_an_sts_that_is_away() {
        let invalid = |message: &str| {
            ByToken::InvalidIdentityTokenException(
                InvalidIdentityTokenException::builder().message(message).build(),
            )
        };
        let expired =
            || ExpiredTokenException::builder().message("Token expired: current date/time ...").build();
        let claim = IdpRejectedClaimException::builder().message("no").build();
        let away = IdpCommunicationErrorException::builder().message("AccessDenied").build();
        for (refusal, error) in [
            (true, ByToken::ExpiredTokenException(expired())),
            (true, ByToken::ExpiredTokenException(ExpiredTokenException::builder().build())),
            (true, ByToken::IdpRejectedClaimException(claim)),
            (true, ByToken::PackedPolicyTooLargeException(PackedPolicyTooLargeException::builder().build())),
            (true, ByToken::RegionDisabledException(RegionDisabledException::builder().build())),
            (true, invalid("No OpenIDConnect provider found in your account for https://oidc.eks.example")),
            (false, invalid("Couldn't retrieve verification key from your identity provider")),
            (false, ByToken::IdpCommunicationErrorException(away)),
        ] {
            let told = format!("{error:?}");
            assert_eq!(refused(error), refusal, "{told}");
        }
        assert!(refused(AssumeRoleError::ExpiredTokenException(expired())));
    }

    #[test]
    fn errors_without_a_type_are_told_by_their_code() {
        for (code, refusal) in [
            ("AccessDenied", true),
            ("AccessDeniedException", true),
            ("ExpiredToken", true),
            ("IDPRejectedClaim", true),
            ("InvalidClientTokenId", true),
            ("InvalidIdentityToken", true),
            ("SignatureDoesNotMatch", true),
            ("UnrecognizedClientException", true),
            ("ValidationError", true),
            ("IDPCommunicationError", false),
            ("InternalFailure", false),
            ("ServiceUnavailable", false),
            ("Throttling", false),
        ] {
            let answer = ErrorMetadata::builder().code(code).message("AccessDenied").build();
            assert_eq!(refused(ByToken::generic(answer.clone())), refusal, "{code}");
            assert_eq!(refused(AssumeRoleError::generic(answer)), refusal, "{code}");
        }
        assert!(!credentials_refused(&std::io::Error::other("connection refused")));
        assert!(!credentials_refused(&ErrorMetadata::builder().build()));
    }
}
