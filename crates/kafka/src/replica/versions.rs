//! What we serve, and in which versions.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
    SaslAuthenticateRequest,
};
use kafka_protocol::protocol::{Message, VersionRange};

use super::frames::{Head, encode};

/// Brokers of 4.2 ask in this version, whatever we say that we speak. It is as 10, which the codec knows, with one more
/// special timestamp.
const LIST_OFFSETS_MAX: i16 = 11;
/// The one in which tokens are requests of their own, as all brokers since 1.0 send them.
const SASL_HANDSHAKE: VersionRange = VersionRange { min: 1, max: 1 };

pub(super) fn served() -> [(ApiKey, VersionRange); 4] {
    [
        (ApiKey::Fetch, FetchRequest::VERSIONS),
        (ApiKey::ListOffsets, VersionRange { min: ListOffsetsRequest::VERSIONS.min, max: LIST_OFFSETS_MAX }),
        (ApiKey::ApiVersions, VersionRange { min: 0, max: 4 }),
        (ApiKey::OffsetForLeaderEpoch, OffsetForLeaderEpochRequest::VERSIONS),
    ]
}

/// For logging in, where that is wanted.
pub(super) fn login() -> [(ApiKey, VersionRange); 2] {
    [(ApiKey::SaslHandshake, SASL_HANDSHAKE), (ApiKey::SaslAuthenticate, SaslAuthenticateRequest::VERSIONS)]
}

/// The answer to ApiVersions. To a version that we don't know it is the oldest one, with an error: the other side
/// learns from it what we speak (KIP-511).
pub(super) fn told(head: Head, has_login: bool) -> Result<Bytes, String> {
    let of = |(api, versions): (ApiKey, VersionRange)| {
        let key = ApiVersion::default().with_api_key(api as i16);
        key.with_min_version(versions.min).with_max_version(versions.max)
    };
    let login = login().into_iter().filter(|_| has_login);
    let answer =
        ApiVersionsResponse::default().with_api_keys(served().into_iter().chain(login).map(of).collect());
    let known = served().into_iter().find(|(api, _)| *api == ApiKey::ApiVersions);
    if known.is_none_or(|(_, versions)| head.version < versions.min || head.version > versions.max) {
        let code = ResponseError::UnsupportedVersion.code();
        return encode(&answer.with_error_code(code), 0, 0, head.correlation_id);
    }
    let header_version = ApiKey::ApiVersions.response_header_version(head.version);
    encode(&answer, head.version, header_version, head.correlation_id)
}
