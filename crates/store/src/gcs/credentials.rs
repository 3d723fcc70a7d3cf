//! Who we are: Google's own crate fetches tokens and renews them before they expire.

use google_cloud_auth::build_errors::Error as BuildError;
use google_cloud_auth::credentials::service_account::AccessSpecifier;
use google_cloud_auth::credentials::{
    Builder, CacheableResource, Credentials, external_account, impersonated, service_account, user_account,
};
use google_cloud_auth::errors::CredentialsError;
use hyper::HeaderMap;
use hyper::http::Extensions;
use serde_json::Value;

use super::config::Config;
use crate::contract::Result;
use crate::error::Kind;
use crate::failure::{Failure, Passing, chain};
use crate::settings::invalid;

const SCOPES: [&str; 1] = ["https://www.googleapis.com/auth/devstorage.read_write"];
/// Of what a token server says.
const SAID_BYTES_MAX: usize = 500;

/// `None` where requests carry no token. Nothing is sent yet.
pub(super) fn connect(config: &Config) -> Result<Option<Credentials>> {
    if config.anonymous {
        return Ok(None);
    }
    let Some(path) = &config.credentials_file else {
        let found = Builder::default().with_scopes(SCOPES).build();
        return found.map(Some).map_err(|error| invalid("gs.auth", why(&error)));
    };
    let refuse = |flaw: String| invalid("gs.credentials.file", format!("{path:?}: {flaw}"));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    // serde's own words could quote a key.
    let json: Value = serde_json::from_str(&text).map_err(|_| refuse("is no JSON".to_owned()))?;
    let built = match json.get("type").and_then(Value::as_str) {
        Some("service_account") => service_account::Builder::new(json)
            .with_access_specifier(AccessSpecifier::from_scopes(SCOPES))
            .build(),
        Some("external_account") => external_account::Builder::new(json).with_scopes(SCOPES).build(),
        Some("impersonated_service_account") => impersonated::Builder::new(json).with_scopes(SCOPES).build(),
        Some("authorized_user") => user_account::Builder::new(json).with_scopes(SCOPES).build(),
        _ => {
            let known = "service_account, external_account, impersonated_service_account, authorized_user";
            return Err(refuse(format!("its type is none of {known}")));
        }
    };
    built.map(Some).map_err(|error| refuse(why(&error)))
}

fn why(error: &BuildError) -> String {
    // What could not be parsed may be a key, and the error may quote it.
    if error.is_parsing() { "the file is not as its type has it".to_owned() } else { chain(error) }
}

/// The headers that a request goes with.
pub(super) async fn headers(credentials: &Credentials) -> std::result::Result<HeaderMap, Failure> {
    match credentials.headers(Extensions::new()).await {
        Ok(CacheableResource::New { data, .. }) => Ok(data),
        Ok(CacheableResource::NotModified) => {
            Err(Failure::new(Kind::Other, Passing::Never, false, "no credentials, although none were there"))
        }
        Err(error) => Err(denied(&error)),
    }
}

fn denied(error: &CredentialsError) -> Failure {
    let passing = if error.is_transient() { Passing::Transient } else { Passing::Never };
    let mut said = chain(error);
    if said.len() > SAID_BYTES_MAX {
        let end = (0..=SAID_BYTES_MAX).rev().find(|end| said.is_char_boundary(*end)).unwrap_or(0);
        said.truncate(end);
        said.push('…');
    }
    Failure::new(Kind::Denied, passing, false, format!("no credentials: {said}"))
}
