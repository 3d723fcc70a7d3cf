//! Authorities as reqwest takes them.

use std::path::Path;

use reqwest::Certificate;

use crate::authorities;

/// Of a PEM file, as [`authorities`] reads it.
///
/// # Errors
/// The flaw, with the file's name.
pub fn reqwest_authorities(path: &Path) -> Result<Vec<Certificate>, String> {
    Certificate::from_pem_bundle(&authorities(path)?).map_err(|error| format!("{path:?}: {error}"))
}
