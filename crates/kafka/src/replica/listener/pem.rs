//! PEM as Kafka takes it (KIP-651): files, or the text itself as a key's value.

use std::borrow::Cow;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::client::{ClientError, Result};

/// What a key of the configuration holds or points to.
pub(super) struct Pem<'a> {
    /// For errors.
    key: &'a str,
    whence: String,
    text: Zeroizing<Vec<u8>>,
}

impl<'a> Pem<'a> {
    pub(super) fn file(key: &'a str, path: &str) -> Result<Self> {
        let read = std::fs::read(Path::new(path));
        let text = read.map_err(|error| ClientError::config(key, format!("{path}: {error}")))?;
        Ok(Self { key, whence: format!("{path}: "), text: Zeroizing::new(text) })
    }

    pub(super) fn value(key: &'a str, value: &str) -> Self {
        Self { key, whence: String::new(), text: Zeroizing::new(unfolded(value).into_owned().into_bytes()) }
    }

    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>> {
        let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&self.text).collect();
        let found = found.map_err(|error| self.flaw(&error))?;
        if found.is_empty() {
            return Err(self.flaw(
                &"no certificate in PEM in it; of a PKCS12 or JKS store, openssl pkcs12 -in STORE -nodes makes PEM \
                  (a JKS store becomes PKCS12 by keytool -importkeystore -deststoretype PKCS12)",
            ));
        }
        Ok(found)
    }

    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>> {
        if self.text.windows(9).any(|part| part == b"ENCRYPTED") {
            return Err(self.flaw(&"the key is encrypted: openssl pkey -in KEY -out PLAIN decrypts it"));
        }
        PrivateKeyDer::from_pem_slice(&self.text).map_err(|error| match error {
            pem::Error::NoItemsFound => self.flaw(&"no private key in PEM in it"),
            other => self.flaw(&other),
        })
    }

    /// Never with the text.
    pub(super) fn flaw(&self, problem: &dyn std::fmt::Display) -> ClientError {
        ClientError::config(self.key, format!("{}{problem}", self.whence))
    }
}

/// A value of a properties file stands on one line: its line breaks are escapes, or blanks, or gone.
fn unfolded(value: &str) -> Cow<'_, str> {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";
    const DASHES: &str = "-----";
    if value.contains('\n') || !value.contains(BEGIN) {
        return Cow::Borrowed(value);
    }
    let value = value.replace("\\n", " ");
    let mut text = String::with_capacity(value.len() + 64);
    let mut rest = value.as_str();
    while let Some((_, behind)) = rest.split_once(BEGIN) {
        let Some((name, behind)) = behind.split_once(DASHES) else { break };
        let Some((body, behind)) = behind.split_once(END) else { break };
        let Some((_, behind)) = behind.split_once(DASHES) else { break };
        let body: String = body.split_whitespace().collect();
        text.push_str(&format!("{BEGIN}{name}{DASHES}\n{body}\n{END}{name}{DASHES}\n"));
        rest = behind;
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_becomes_a_file_again() {
        let made = "-----BEGIN A B-----\nabcd\n-----END A B-----\n-----BEGIN C-----\nef==\n-----END C-----\n";
        for folded in [
            made.replace('\n', "\\n"),
            made.replace('\n', " "),
            "-----BEGIN A B-----ab cd-----END A B----- -----BEGIN C-----ef==-----END C-----".to_owned(),
        ] {
            assert_eq!(unfolded(&folded), made, "{folded}");
        }
        assert_eq!(unfolded(made), made);
        assert_eq!(unfolded("-----BEGIN A-----cut"), "");
    }

    #[test]
    fn what_is_no_pem_is_told_with_what_to_do_and_not_printed() {
        let says = |value: &str, what: &str| {
            let pem = Pem::value("ssl.keystore.key", value);
            let error = pem.private_key().unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("ssl.keystore.key"), "{error}");
            assert!(!error.contains("c2VjcmV0"), "{error}");
        };
        says("c2VjcmV0", "no private key");
        says(
            "-----BEGIN ENCRYPTED PRIVATE KEY-----c2VjcmV0-----END ENCRYPTED PRIVATE KEY-----",
            "openssl pkey",
        );
        let error = Pem::value("ssl.truststore.certificates", "jks").certificates().unwrap_err();
        assert!(error.to_string().contains("openssl pkcs12"), "{error}");
    }
}
