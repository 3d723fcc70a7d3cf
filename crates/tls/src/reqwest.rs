//! Authorities and a proxy as reqwest takes them.

use std::path::Path;

use reqwest::{Certificate, NoProxy, Proxy};

use crate::authorities;
use crate::direct::DIRECT;

/// Of a PEM file, as [`authorities`] reads it.
///
/// # Errors
/// The flaw, with the file's name.
pub fn reqwest_authorities(path: &Path) -> Result<Vec<Certificate>, String> {
    Certificate::from_pem_bundle(&authorities(path)?).map_err(|error| format!("{path:?}: {error}"))
}

/// For all but this machine and the metadata services next door; `None` for what is no proxy's URL, which is not
/// shown: it may hold a password.
pub fn reqwest_proxy(url: &str) -> Option<Proxy> {
    Some(Proxy::all(url).ok()?.no_proxy(NoProxy::from_string(DIRECT)))
}
