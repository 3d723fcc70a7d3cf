//! HashiCorp Vault's and OpenBao's transit engine.
//!
//! A token is worth as much as all that it may do, and a key's URL says where it is sent. So what a record says is
//! no reason to send it: only hosts of trusted keys get one to unwrap something.
//!
//! A role that may `create` at `MOUNT/encrypt/KEY` makes a key that isn't there; one that may only `update` doesn't:
//! a mistyped name is then an error.

mod failure;
mod login;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::http::{Body, Http, decode};
use crate::key_url::{KeyUrl, Name};
use crate::retry::{Failure, Retry};
use crate::sealed::plain_key;
use crate::settings::Secret;
use crate::wrapped::{Wrapped, algorithm};

pub(crate) struct Vault {
    http: Http,
    settings: config::Vault,
    retry: Retry,
    tokens: login::Tokens,
    /// `host:port`.
    trusted: RwLock<BTreeSet<String>>,
}

#[derive(Serialize)]
struct Encrypt<'a> {
    plaintext: &'a str,
    associated_data: String,
}

#[derive(Serialize)]
struct Decrypt<'a> {
    ciphertext: &'a str,
    associated_data: String,
}

#[derive(Deserialize)]
struct Enveloped<T> {
    data: T,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: String,
}

impl Vault {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            http: Http::new(config, true)?,
            settings: config.vault.clone(),
            retry: Retry { max_attempts: config.max_attempts, timeout: config.timeout },
            tokens: login::Tokens::default(),
            trusted: RwLock::default(),
        })
    }

    pub(crate) fn trust(&self, key: &KeyUrl) {
        if let Name::Vault { authority, .. } = key.name() {
            self.trusted.write().insert(authority.clone());
        }
    }

    pub(crate) async fn wrap(&self, key: &KeyUrl, secret: &[u8; 32], aad: &[u8]) -> Result<Wrapped> {
        self.retry.run("wrap", key, || self.wrap_once(key, secret, aad)).await
    }

    async fn wrap_once(&self, key: &KeyUrl, secret: &[u8; 32], aad: &[u8]) -> Result<Wrapped, Failure> {
        let plaintext = Zeroizing::new(STANDARD.encode(secret));
        let body = Encrypt { plaintext: &plaintext, associated_data: STANDARD.encode(aad) };
        let answer: Enveloped<Encrypted> = self.ask(key, "encrypt", &body, &plaintext).await?;
        // Vault before 1.13 doesn't know associated data, and goes on without.
        let ignored = |warning: &String| warning.contains("associated_data");
        if answer.warnings.unwrap_or_default().iter().any(ignored) {
            let detail = "this Vault ignores associated data, so nothing would be bound: upgrade it";
            return Err(Failure::last(Kind::Invalid, detail));
        }
        let text = answer.data.ciphertext;
        if !is_ciphertext(&text) {
            return Err(Failure::last(Kind::Other, "the answer's ciphertext is none of the transit engine"));
        }
        let algorithm = algorithm::VAULT.to_owned();
        Ok(Wrapped { wrapped_by: key.clone(), algorithm, bytes: text.into_bytes() })
    }

    pub(crate) async fn unwrap(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let key = &wrapped.wrapped_by;
        if let Name::Vault { authority, .. } = key.name()
            && !self.trusted.read().contains(authority)
        {
            let detail =
                format!("a record names the Vault {authority}, but no key in the configuration does");
            return Err(Error::new(Kind::Denied, "unwrap", key, detail));
        }
        let text = std::str::from_utf8(&wrapped.bytes).ok().filter(|text| is_ciphertext(text));
        let Some(text) = text else {
            let detail = "the wrapped bytes are no ciphertext of the transit engine";
            return Err(Error::new(Kind::Refused, "unwrap", key, detail));
        };
        self.retry.run("unwrap", key, || self.unwrap_once(key, text, aad)).await
    }

    async fn unwrap_once(
        &self,
        key: &KeyUrl,
        ciphertext: &str,
        aad: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, Failure> {
        let body = Decrypt { ciphertext, associated_data: STANDARD.encode(aad) };
        let answer: Enveloped<Decrypted> = self.ask(key, "decrypt", &body, "").await?;
        let plain = decode(&STANDARD, answer.data.plaintext)?;
        let flaw =
            || Failure::last(Kind::Refused, format!("{} bytes were unwrapped: expected 32", plain.len()));
        plain_key(&plain).ok_or_else(flaw)
    }

    /// One request with a token; once more with another one if that was refused.
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        key: &KeyUrl,
        verb: &str,
        body: &impl Serialize,
        secret: &str,
    ) -> Result<T, Failure> {
        let Name::Vault { tls, authority, mount, key } = key.name() else {
            return Err(Failure::last(Kind::Invalid, "no key of Vault"));
        };
        let base = base(*tls, authority)?;
        let url = join(&base, &format!("{mount}/{verb}/{key}"))?;
        let mut again = self.tokens.can_be_renewed(&self.settings);
        loop {
            let token = self.tokens.get(&self.http, &self.settings, &base).await?;
            let answer = self.http.post(url.clone(), &self.headers(&token), Body::json(body)?).await?;
            if answer.is_success() {
                return answer.json();
            }
            if answer.status == 403 && again {
                self.tokens.forget(&base, &token).await;
                again = false;
                continue;
            }
            return Err(failure::of(&answer, verb == "decrypt", &[token.reveal(), secret]));
        }
    }

    fn headers<'a>(&'a self, token: &'a Secret) -> Vec<(&'static str, &'a str)> {
        let mut headers = login::headers(&self.settings);
        headers.push(("x-vault-token", token.reveal()));
        headers
    }
}

fn is_ciphertext(text: &str) -> bool {
    text.starts_with("vault:v") && text.bytes().all(|b| b.is_ascii_graphic())
}

fn base(tls: bool, authority: &str) -> Result<Url, Failure> {
    let text = format!("http{}://{authority}/v1/", if tls { "s" } else { "" });
    Url::parse(&text).map_err(|_| Failure::last(Kind::Invalid, "no address of a Vault"))
}

/// `path` has been checked: it has no steps upwards, and nothing to be escaped.
fn join(base: &Url, path: &str) -> Result<Url, Failure> {
    base.join(path).map_err(|_| Failure::last(Kind::Invalid, "no path of a Vault"))
}
