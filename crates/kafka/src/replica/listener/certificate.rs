//! What is wrong with a certificate, before brokers find out.

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

/// Who the brokers trust is theirs to know, and is not looked at. `host` is none where they don't look at names.
pub(super) fn flaw(chain: &[CertificateDer<'_>], host: Option<&str>, now: UnixTime) -> Option<String> {
    let (first, others) = chain.split_first()?;
    let parsed = match ParsedCertificate::try_from(first) {
        Ok(parsed) => parsed,
        Err(error) => return Some(format!("can't be read: {error}")),
    };
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let nobody = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, others, now, algorithms) {
        Ok(()) | Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
        Err(error) => return Some(told(&error)),
    }
    let host = host?;
    let Ok(name) = ServerName::try_from(host) else {
        return Some(format!("can't be for {host:?}, which is no name of a host"));
    };
    verify_server_name(&parsed, &name).err().map(|error| told(&error))
}

fn told(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(problem) => problem.to_string(),
        other => other.to_string(),
    }
}
