//! Tokens for Google, by Google's own library, which keeps them and gets new ones in time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use google_cloud_auth::build_errors::Error as BuildError;
use google_cloud_auth::credentials::{
    AccessTokenCredentials, Builder, external_account, impersonated, service_account, user_account,
};
use google_cloud_auth::errors::CredentialsError;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::Kind;
use crate::retry::{Failure, Passing};
use crate::settings::Secret;
use crate::words::words;

/// What a key may be used for is said at the key; a user's credentials may have no narrower scope.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A refusal is asked about again after so long, a failure that may pass much sooner.
const REFUSED: Duration = Duration::from_secs(30);
const FAILED: Duration = Duration::from_secs(1);

/// Google's library renews tokens on its own, but after a refusal it never asks again, after a failure it says the
/// same for ten seconds, and a token server that hangs it waits for without end: so credentials are begun anew then,
/// from what the file or the environment says by that time.
pub(super) struct Credentials {
    file: Option<PathBuf>,
    patience: Duration,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    built: Option<Arc<AccessTokenCredentials>>,
    /// When what was built was thrown away.
    dropped: Option<Instant>,
}

impl Credentials {
    /// `timeout` is that of an attempt: the wait for a token ends before it.
    pub(super) fn new(file: Option<PathBuf>, timeout: Duration) -> Self {
        Self { file, patience: timeout * 9 / 10, current: Mutex::default() }
    }

    pub(super) async fn token(&self) -> Result<Secret, Failure> {
        let built = self.built().await?;
        match tokio::time::timeout(self.patience, built.access_token()).await {
            Ok(Ok(token)) => Ok(Secret::from(token.token)),
            Ok(Err(error)) => {
                self.drop_built(&built, if error.is_transient() { FAILED } else { REFUSED }).await;
                Err(refused(&error))
            }
            Err(_) => {
                self.drop_built(&built, FAILED).await;
                let detail =
                    format!("no Google credentials: no token within {} ms", self.patience.as_millis());
                Err(Failure::of_credentials(Passing::Transient, detail))
            }
        }
    }

    async fn built(&self) -> Result<Arc<AccessTokenCredentials>, Failure> {
        let mut current = self.current.lock().await;
        if let Some(built) = &current.built {
            return Ok(Arc::clone(built));
        }
        let built = Arc::new(self.build().await?);
        current.built = Some(Arc::clone(&built));
        Ok(built)
    }

    /// Unless this was done a moment ago, or others have taken the place of what failed.
    async fn drop_built(&self, failed: &Arc<AccessTokenCredentials>, pause: Duration) {
        let mut current = self.current.lock().await;
        let failed = current.built.as_ref().is_some_and(|built| Arc::ptr_eq(built, failed));
        if failed && current.dropped.is_none_or(|dropped| dropped.elapsed() >= pause) {
            *current = Current { built: None, dropped: Some(Instant::now()) };
        }
    }

    async fn build(&self) -> Result<AccessTokenCredentials, Failure> {
        let built = match &self.file {
            Some(path) => from_file(path).await?,
            None => Builder::default().with_scopes([SCOPE]).build_access_token_credentials(),
        };
        built.map_err(|error| {
            // Its causes may quote the file.
            let what = if error.is_loading() {
                "can't be read"
            } else if error.is_unknown_type() {
                "are of an unknown type"
            } else {
                "are not as they should be"
            };
            let place = self.file.as_ref().map_or_else(String::new, |path| format!(" in {path:?}"));
            Failure::last(Kind::Denied, format!("Google's credentials{place} {what}"))
        })
    }
}

async fn from_file(path: &Path) -> Result<Result<AccessTokenCredentials, BuildError>, Failure> {
    let flaw = |what: &str| Failure::last(Kind::Denied, format!("kms.gcp.credentials.file: {path:?} {what}"));
    let text = tokio::fs::read(path).await.map_err(|error| flaw(&error.kind().to_string()))?;
    let text = zeroize::Zeroizing::new(text);
    let json: Value = serde_json::from_slice(&text).map_err(|_| flaw("holds no JSON"))?;
    let kind = json.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(match kind.as_str() {
        "service_account" => service_account::Builder::new(json)
            .with_access_specifier(service_account::AccessSpecifier::from_scopes([SCOPE]))
            .build_access_token_credentials(),
        "external_account" => {
            external_account::Builder::new(json).with_scopes([SCOPE]).build_access_token_credentials()
        }
        "authorized_user" => {
            user_account::Builder::new(json).with_scopes([SCOPE]).build_access_token_credentials()
        }
        "impersonated_service_account" => {
            impersonated::Builder::new(json).with_scopes([SCOPE]).build_access_token_credentials()
        }
        _ => {
            return Err(flaw(
                "has no type that is known: expected service_account, external_account, authorized_user or impersonated_service_account",
            ));
        }
    })
}

fn refused(error: &CredentialsError) -> Failure {
    // The library puts whole answers behind this.
    let text = error.to_string();
    let text = text.split(", body=").next().unwrap_or_default();
    let passing = if error.is_transient() { Passing::Transient } else { Passing::Never };
    Failure::of_credentials(passing, format!("no Google credentials: {}", words(text, &[])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_late_failure_of_former_credentials_leaves_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("user.json");
        let user = r#"{"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x",
            "token_uri": "http://127.0.0.1:1/token"}"#;
        std::fs::write(&path, user).unwrap();
        let credentials = Credentials::new(Some(path), Duration::from_secs(5));
        let former = credentials.built().await.unwrap();
        credentials.drop_built(&former, REFUSED).await;
        let new = credentials.built().await.unwrap();
        assert!(!Arc::ptr_eq(&former, &new));
        tokio::time::advance(REFUSED).await;
        credentials.drop_built(&former, REFUSED).await;
        assert!(Arc::ptr_eq(&new, &credentials.built().await.unwrap()), "thrown away");
        credentials.drop_built(&new, REFUSED).await;
        assert!(!Arc::ptr_eq(&new, &credentials.built().await.unwrap()), "kept");
    }
}
