//! The key that signs snapshots: PKCS#8 as `openssl genpkey -algorithm ed25519` writes it, PEM or DER.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use varve_archive::record::snapshot::Signer;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

pub(crate) fn read_signer(path: &Path) -> Result<Signer> {
    let what = || format!("signing key {}", path.display());
    let refuse = |found: &dyn ToString| {
        Error::unexpected(what(), "an Ed25519 private key, PKCS#8 in PEM or DER", found.to_string())
    };
    let bytes = std::fs::read(path).map(Zeroizing::new).map_err(|error| refuse(&error))?;
    let document = match std::str::from_utf8(&bytes).ok().and_then(|text| text.split_once(BEGIN)) {
        Some((_, rest)) => {
            let body = rest.split(END).next().unwrap_or_default();
            let body: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
            Zeroizing::new(STANDARD.decode(body.as_bytes()).map_err(|_| refuse(&"PEM that is no base64"))?)
        }
        None => bytes,
    };
    Signer::from_pkcs8(&document).map_err(|error| refuse(&error))
}
