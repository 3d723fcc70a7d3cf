//! Tokens for Vault: one that is there, or one that a login gives.
//!
//! A token of a login is kept for nine tenths of its time, and given up when Vault refuses it. One in a file is read
//! at each use: whoever keeps that file renews it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use url::Url;

use super::{failure, join};
use crate::config::{self, SecretSource, VaultLogin};
use crate::error::Kind;
use crate::http::{Body, Http, secret_in};
use crate::retry::{Failure, Passing};
use crate::settings::Secret;

#[derive(Default)]
pub(super) struct Tokens {
    /// By the Vault's address. Held over a login, so that many that wait for a token log in once.
    of_logins: Mutex<BTreeMap<Url, Kept>>,
}

struct Kept {
    token: Secret,
    /// `None`: it doesn't end.
    until: Option<Instant>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Login<'a> {
    AppRole { role_id: &'a str, secret_id: &'a str },
    Kubernetes { role: &'a str, jwt: &'a str },
}

#[derive(Deserialize)]
struct LoggedIn {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
}

/// Those that go with all requests.
pub(super) fn headers(settings: &config::Vault) -> Vec<(&'static str, &str)> {
    let mut headers = vec![("x-vault-request", "true")];
    headers.extend(settings.namespace.as_deref().map(|namespace| ("x-vault-namespace", namespace)));
    headers
}

impl Tokens {
    pub(super) fn can_be_renewed(&self, settings: &config::Vault) -> bool {
        !matches!(settings.login, VaultLogin::Token(None | Some(SecretSource::Value(_))))
    }

    pub(super) async fn get(
        &self,
        http: &Http,
        settings: &config::Vault,
        base: &Url,
    ) -> Result<Secret, Failure> {
        match &settings.login {
            VaultLogin::Token(Some(SecretSource::Value(token))) => return Ok(token.clone()),
            VaultLogin::Token(Some(SecretSource::File(path))) => {
                return secret_in(path, "kms.vault.token.file").await;
            }
            VaultLogin::Token(None) => {
                let detail = "no token: set kms.vault.token.file, or another kms.vault.auth";
                return Err(Failure::last(Kind::Denied, detail));
            }
            VaultLogin::AppRole { .. } | VaultLogin::Kubernetes { .. } => {}
        }
        let mut kept = self.of_logins.lock().await;
        if let Some(known) = kept.get(base)
            && known.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(known.token.clone());
        }
        let fresh = log_in(http, settings, base).await?;
        let token = fresh.token.clone();
        kept.insert(base.clone(), fresh);
        Ok(token)
    }

    /// Unless another caller has replaced it already.
    pub(super) async fn forget(&self, base: &Url, refused: &Secret) {
        let mut kept = self.of_logins.lock().await;
        if kept.get(base).is_some_and(|known| known.token.reveal() == refused.reveal()) {
            kept.remove(base);
        }
    }
}

async fn log_in(http: &Http, settings: &config::Vault, base: &Url) -> Result<Kept, Failure> {
    let secret;
    let body = match &settings.login {
        VaultLogin::AppRole { role_id, secret_id_file } => {
            secret = secret_in(secret_id_file, "kms.vault.secret.id.file").await?;
            Body::json(&Login::AppRole { role_id, secret_id: secret.reveal() })?
        }
        VaultLogin::Kubernetes { role, jwt_file } => {
            secret = secret_in(jwt_file, "kms.vault.kubernetes.jwt.file").await?;
            Body::json(&Login::Kubernetes { role, jwt: secret.reveal() })?
        }
        VaultLogin::Token(_) => return Err(Failure::last(Kind::Invalid, "a token needs no login")),
    };
    let url = join(base, &format!("auth/{}/login", settings.mount))?;
    let answer = http.post(url, &headers(settings), body).await?;
    if !answer.is_success() {
        let failure = failure::of(&answer, false, &[secret.reveal()]);
        // Whatever is wrong with a login that was answered, it is no permission to use the key.
        let kind = if failure.passing == Passing::Never { Kind::Denied } else { failure.kind };
        return Err(Failure { kind, detail: format!("login: {}", failure.detail), ..failure });
    }
    let auth = answer.json::<LoggedIn>()?.auth;
    let lease = Duration::from_secs(auth.lease_duration.min(u64::from(u32::MAX)));
    let until = (!lease.is_zero()).then(|| Instant::now() + lease * 9 / 10);
    Ok(Kept { token: Secret::from(auth.client_token), until })
}
