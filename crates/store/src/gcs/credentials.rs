//! Who we are: Google's own crate fetches tokens and renews them before they expire.

use std::error::Error as StdError;
use std::time::Duration;

use google_cloud_auth::build_errors::Error as BuildError;
use google_cloud_auth::credentials::service_account::AccessSpecifier;
use google_cloud_auth::credentials::{
    Builder, CacheableResource, Credentials, external_account, impersonated, service_account, user_account,
};
use google_cloud_auth::errors::CredentialsError;
use hyper::HeaderMap;
use hyper::http::Extensions;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::config::Config;
use crate::contract::Result;
use crate::error::Kind;
use crate::failure::{Failure, Passing, chain};
use crate::settings::invalid;

const SCOPES: [&str; 1] = ["https://www.googleapis.com/auth/devstorage.read_write"];
/// Of what a token server says.
const SAID_BYTES_MAX: usize = 500;

/// A refusal is asked about again after so long, a failure that may pass much sooner.
const REFUSED: Duration = Duration::from_secs(30);
const FAILED: Duration = Duration::from_secs(1);

/// What requests are signed by. Google's crate renews tokens on its own, but after a refusal it never asks again, after
/// a failure it says the same for ten seconds, and a token server that hangs it waits for without end: so credentials
/// are begun anew then, from what the file or the environment says by that time.
pub(super) struct Signer {
    file: Option<String>,
    patience: Duration,
    current: Mutex<Current>,
}

struct Current {
    credentials: Credentials,
    /// When they were begun anew.
    renewed: Option<Instant>,
}

impl Signer {
    /// `None` where requests carry no token. Nothing is sent yet.
    pub(super) fn new(config: &Config) -> Result<Option<Self>> {
        if config.anonymous {
            return Ok(None);
        }
        let file = config.credentials_file.clone();
        let current = Mutex::new(Current { credentials: build(file.as_deref())?, renewed: None });
        // Before the attempt that waits for it is given up.
        Ok(Some(Self { file, patience: config.timeout * 9 / 10, current }))
    }

    /// The headers that a request goes with.
    pub(super) async fn headers(&self) -> std::result::Result<HeaderMap, Failure> {
        let credentials = self.current.lock().credentials.clone();
        match tokio::time::timeout(self.patience, credentials.headers(Extensions::new())).await {
            Ok(Ok(CacheableResource::New { data, .. })) => Ok(data),
            Ok(Ok(CacheableResource::NotModified)) => Err(Failure::new(
                Kind::Other,
                Passing::Never,
                false,
                "no credentials, although none were there",
            )),
            Ok(Err(error)) => {
                self.renew(if error.is_transient() { FAILED } else { REFUSED });
                Err(denied(&error))
            }
            Err(_) => {
                self.renew(FAILED);
                let detail = format!("no credentials: no token within {} ms", self.patience.as_millis());
                Err(Failure::of_credentials(Passing::Transient, detail))
            }
        }
    }

    /// Unless this was done a moment ago.
    fn renew(&self, pause: Duration) {
        let mut current = self.current.lock();
        if current.renewed.is_some_and(|renewed| renewed.elapsed() < pause) {
            return;
        }
        current.renewed = Some(Instant::now());
        match build(self.file.as_deref()) {
            Ok(credentials) => current.credentials = credentials,
            Err(error) => tracing::debug!(%error, "credentials were not begun anew"),
        }
    }
}

fn build(file: Option<&str>) -> Result<Credentials> {
    let Some(path) = file else {
        let found = Builder::default().with_scopes(SCOPES).build();
        return found.map_err(|error| invalid("gs.auth", why(&error)));
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
    built.map_err(|error| refuse(why(&error)))
}

fn why(error: &BuildError) -> String {
    // What could not be parsed may be a key, and the error may quote it.
    if error.is_parsing() { "the file is not as its type has it".to_owned() } else { chain(error) }
}

/// What the error and its causes say, without what they quote: Google's crate puts whole bodies into its words, those of
/// files with tokens too, and a parser's words may quote a token.
fn told(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let said = match cause.downcast_ref::<serde_json::Error>() {
            Some(flaw) => format!("not the JSON expected at line {} column {}", flaw.line(), flaw.column()),
            None => without_body(&cause.to_string()),
        };
        if !text.contains(&said) {
            let colon = if text.is_empty() { "" } else { ": " };
            text.push_str(colon);
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// Of a body, a refusal's code in OAuth's form alone.
fn without_body(said: &str) -> String {
    let Some((said, body)) = said.split_once(", body=<") else { return said.to_owned() };
    let value =
        serde_json::Deserializer::from_str(body).into_iter::<Value>().next().and_then(|read| read.ok());
    let code = value.as_ref().and_then(|value| value.get("error")).and_then(Value::as_str);
    let is_code = |code: &&str| code.len() <= 40 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    // A subject token's file is no refusal.
    match code.filter(is_code).filter(|_| !said.contains("subject token")) {
        Some(code) => format!("{said} ({code})"),
        None => said.to_owned(),
    }
}

fn denied(error: &CredentialsError) -> Failure {
    let passing = if error.is_transient() { Passing::Transient } else { Passing::Never };
    let mut said = told(error);
    if said.len() > SAID_BYTES_MAX {
        let end = (0..=SAID_BYTES_MAX).rev().find(|end| said.is_char_boundary(*end)).unwrap_or(0);
        said.truncate(end);
        said.push('…');
    }
    Failure::of_credentials(passing, format!("no credentials: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_google_quote_nothing() {
        let quoting =
            |said: &str, body: &str| CredentialsError::from_msg(false, format!("{said}, body=<{body}>"));
        let read = serde_json::from_str::<Vec<u8>>("\"hush\"").unwrap_err();
        assert!(read.to_string().contains("hush"));
        for (error, word) in [
            (quoting("failed to read subject token field `x` as string", r#"{"token":"hush"}"#), "field `x`"),
            (quoting("failed to request subject token", r#"{"error":"hush"}"#), "subject token"),
            (
                quoting("failed to exchange", r#"{"error":"invalid_grant","y":"hush"}"#),
                "exchange (invalid_grant)",
            ),
            (quoting("failed to exchange", r#"{"error":"HUSH hush"}"#), "exchange"),
            (quoting("failed to exchange", "hush"), "exchange"),
            (CredentialsError::from_source(false, read), "line 1 column"),
        ] {
            // As it is, and as a cause.
            let above = CredentialsError::new(false, "no token", error.clone());
            assert!(told(&above).starts_with("no token"));
            for text in [told(&error), told(&above)] {
                assert!(text.contains(word) && !text.to_lowercase().contains("hush"), "{text}");
            }
        }
    }
}
