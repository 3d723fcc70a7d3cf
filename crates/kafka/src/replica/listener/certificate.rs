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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// For restore.example.com and 10.0.0.1, from 2026-11-22 on for a year, by an authority that nobody knows.
    const PEM: &str = "\
-----BEGIN CERTIFICATE-----
MIIBiDCCAS+gAwIBAgIUYuBTNwDmY3D5oNopi97UAeVmDmIwCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCY2EwHhcNMjYxMTIyMDIwMTU5WhcNMjcxMTIyMDIwMTU5WjAS
MRAwDgYDVQQDDAdyZXN0b3JlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqSYK
3wgWqC1d6K2SaL2j8XAM2/XB1EnEh/LBWVV22WU1ay0KXiLqa4CUvvXQAMd3rsyD
gtgAtqaxfv5aCj/MdaNoMGYwJAYDVR0RBB0wG4ITcmVzdG9yZS5leGFtcGxlLmNv
bYcECgAAATAdBgNVHQ4EFgQUroFzYgBaFxOmQljqU82GqZHOeV0wHwYDVR0jBBgw
FoAUCL3hf8yIFIu04SUebPDnTvvboZwwCgYIKoZIzj0EAwIDRwAwRAIgXVaKekpT
0s5jJBsZwh5JtXThbtsMt6NT/drBn4U/500CIDWbKUxo9bkYCJ291ELyB4foD1yj
F48zldrCGHO5L3VM
-----END CERTIFICATE-----
";
    const DAY: u64 = 86_400;
    /// 2026-11-21.
    const BEFORE: u64 = 1_795_219_200;

    fn flaw_at(host: Option<&str>, seconds: u64) -> Option<String> {
        let chain = [CertificateDer::from_pem_slice(PEM.as_bytes()).unwrap()];
        flaw(&chain, host, UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }

    #[test]
    fn hosts_and_times_are_those_of_the_certificate() {
        let valid = BEFORE + 10 * DAY;
        for host in [None, Some("restore.example.com"), Some("10.0.0.1")] {
            assert_eq!(flaw_at(host, valid), None, "{host:?}");
        }
        let says = |host, seconds, text: &str| {
            let found = flaw_at(host, seconds).unwrap_or_default();
            assert!(found.contains(text), "{text:?} is not in {found:?}");
        };
        says(Some("example.com"), valid, "not valid for name");
        says(Some("10.0.0.2"), valid, "not valid for name");
        says(Some("no host"), valid, "no name of a host");
        says(None, BEFORE, "not valid yet");
        says(None, BEFORE + 400 * DAY, "expired");
    }
}
