//! A PEM file of certificate authorities. HTTP clients differ in what they do with one that is damaged, up to a panic:
//! none of them is given a file that was not read whole here.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The file's content: it holds at least one certificate, and all that it holds can be authorities.
///
/// # Errors
/// The flaw, with the file's name.
pub fn authorities(path: &Path) -> Result<Vec<u8>, String> {
    let pem = std::fs::read(path).map_err(|error| format!("reading {path:?}: {error}"))?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap_or_default();
    if certificates.is_empty() {
        return Err(format!("{path:?} holds no PEM certificate"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| format!("{path:?} holds what is no authority: {error}"))?;
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_authorities_are_given_on() {
        let authority = varve_script::Authority::new();
        let good = authority.file("ca.pem");
        let pem = authorities(&good).unwrap();
        assert_eq!(pem, std::fs::read(good).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let flaw = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            let flaw = authorities(&path).unwrap_err();
            assert!(flaw.contains("ca.pem"), "{flaw}");
            flaw
        };
        assert!(flaw(b"").contains("holds no PEM certificate"));
        assert!(flaw(pem.get(..pem.len() / 2).unwrap()).contains("holds no PEM certificate"));
        let shell = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(flaw(shell).contains("no authority"));
        assert!(flaw(&[&pem, &shell[..]].concat()).contains("no authority"));
        std::fs::remove_file(&path).unwrap();
        assert!(authorities(&path).unwrap_err().starts_with("reading"));
    }
}
