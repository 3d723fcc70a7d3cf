//! TLS by rustls: whom we trust, and who we are, by files that are read again when they change.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use varve_tls::Reloaded;

use super::config::TlsFiles;
use super::error::{ClientError, Result};

/// For each connection, [`client_tls`] of the files as they are then.
pub(super) fn reloaded_tls(files: &TlsFiles) -> Result<Reloaded<Arc<rustls::ClientConfig>>> {
    let paths = files.paths();
    let files = files.clone();
    Reloaded::new(paths, move || client_tls(&files))
}

/// Of the files as they are now.
pub fn client_tls(files: &TlsFiles) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    match &files.ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in certificates("ssl.ca.location", path)? {
                roots.add(certificate).map_err(|e| flaw("ssl.ca.location", path, &e))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ClientError::config("security.protocol", e.to_string()))?
        .with_root_certificates(roots);
    let config = match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("ssl.certificate.location", certificate)?;
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| flaw("ssl.key.location", key, &e))?;
            builder.with_client_auth_cert(chain, key_der).map_err(|e| flaw("ssl.key.location", key, &e))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Whether one side did not like what the other said, rather than a handshake that was cut off.
pub(super) fn is_refusal(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

fn certificates(key: &str, path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| flaw(key, path, &e))?;
    if found.is_empty() {
        return Err(flaw(key, path, &"no certificate in it"));
    }
    Ok(found)
}

fn flaw(key: &str, path: &std::path::Path, problem: &dyn std::fmt::Display) -> ClientError {
    ClientError::config(key, format!("{}: {problem}", path.display()))
}
