//! Google Cloud KMS over its REST interface.
//!
//! All that crosses carries a CRC32C, as Google asks for, and both sides check it: a bit that flips in a data key
//! between here and there would otherwise make garbage of everything sealed by it.

mod credentials;
mod failure;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;
use varve_format::crc32c;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::error::{Kind, Result};
use crate::http::{Body, Http, decode};
use crate::key_url::{KeyUrl, Name};
use crate::retry::{Failure, Passing, Retry};
use crate::sealed::plain_key;
use crate::settings::Secret;
use crate::wrapped::{Wrapped, algorithm};

pub(crate) struct GcpKms {
    http: Http,
    endpoint: Option<Url>,
    credentials: credentials::Credentials,
    retry: Retry,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encrypt<'a> {
    plaintext: &'a str,
    plaintext_crc32c: String,
    additional_authenticated_data: String,
    additional_authenticated_data_crc32c: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Decrypt {
    ciphertext: String,
    ciphertext_crc32c: String,
    additional_authenticated_data: String,
    additional_authenticated_data_crc32c: String,
}

/// Members that are missing in an answer have not been checked by Google: that is an error too.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encrypted {
    name: String,
    ciphertext: String,
    #[serde(default, deserialize_with = "checksum")]
    ciphertext_crc32c: Option<u32>,
    #[serde(default)]
    verified_plaintext_crc32c: bool,
    #[serde(default)]
    verified_additional_authenticated_data_crc32c: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decrypted {
    #[serde(default)]
    plaintext: String,
    #[serde(default, deserialize_with = "checksum")]
    plaintext_crc32c: Option<u32>,
}

/// Protobuf writes 64-bit numbers as text, and lets plain ones pass.
fn checksum<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Number(u64),
    }
    Ok(match Option::<Written>::deserialize(from)? {
        Some(Written::Text(text)) => text.parse().ok(),
        Some(Written::Number(number)) => u32::try_from(number).ok(),
        None => None,
    })
}

impl GcpKms {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            http: Http::new(config, true)?,
            endpoint: config.gcp.endpoint.clone(),
            credentials: credentials::Credentials::new(config.gcp.credentials_file.clone(), config.timeout),
            retry: Retry { max_attempts: config.max_attempts, timeout: config.timeout },
        })
    }

    pub(crate) async fn wrap(&self, key: &KeyUrl, secret: &[u8; 32], aad: &[u8]) -> Result<Wrapped> {
        self.retry.run("wrap", key, || self.wrap_once(key, secret, aad)).await
    }

    async fn wrap_once(&self, key: &KeyUrl, secret: &[u8; 32], aad: &[u8]) -> Result<Wrapped, Failure> {
        let plaintext = Zeroizing::new(STANDARD.encode(secret));
        let body = Encrypt {
            plaintext: &plaintext,
            plaintext_crc32c: crc32c(secret).to_string(),
            additional_authenticated_data: STANDARD.encode(aad),
            additional_authenticated_data_crc32c: crc32c(aad).to_string(),
        };
        let resource = resource(key)?;
        let answer: Encrypted = self.ask(resource, "encrypt", &body, &plaintext).await?;
        let version =
            answer.name.strip_prefix(resource).and_then(|rest| rest.strip_prefix("/cryptoKeyVersions/"));
        if version.is_none_or(|version| version.is_empty() || version.contains('/')) {
            return Err(Failure::last(Kind::Other, "the answer is another key's"));
        }
        if !(answer.verified_plaintext_crc32c && answer.verified_additional_authenticated_data_crc32c) {
            return Err(altered("Google did not confirm the checksums of what was sent"));
        }
        let flaw = |_| Failure::last(Kind::Other, "the answer holds what is no base64");
        let bytes = STANDARD.decode(answer.ciphertext).map_err(flaw)?;
        if answer.ciphertext_crc32c != Some(crc32c(&bytes)) {
            return Err(altered("the wrapped bytes don't have the checksum that came with them"));
        }
        Ok(Wrapped { wrapped_by: key.clone(), algorithm: algorithm::GCP.to_owned(), bytes })
    }

    pub(crate) async fn unwrap(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        self.retry.run("unwrap", &wrapped.wrapped_by, || self.unwrap_once(wrapped, aad)).await
    }

    async fn unwrap_once(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>, Failure> {
        let body = Decrypt {
            ciphertext: STANDARD.encode(&wrapped.bytes),
            ciphertext_crc32c: crc32c(&wrapped.bytes).to_string(),
            additional_authenticated_data: STANDARD.encode(aad),
            additional_authenticated_data_crc32c: crc32c(aad).to_string(),
        };
        let answer: Decrypted = self.ask(resource(&wrapped.wrapped_by)?, "decrypt", &body, "").await?;
        let plain = decode(&STANDARD, answer.plaintext)?;
        if answer.plaintext_crc32c != Some(crc32c(&plain)) {
            return Err(altered("the unwrapped bytes don't have the checksum that came with them"));
        }
        let flaw =
            || Failure::last(Kind::Refused, format!("{} bytes were unwrapped: expected 32", plain.len()));
        plain_key(&plain).ok_or_else(flaw)
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        resource: &str,
        verb: &str,
        body: &impl Serialize,
        secret: &str,
    ) -> Result<T, Failure> {
        let flaw = || Failure::last(Kind::Invalid, "kms.gcp.endpoint.url is no address");
        let mut url = self.endpoint.clone().ok_or_else(flaw)?;
        url.set_path(&format!("{}/v1/{resource}:{verb}", url.path().trim_end_matches('/')));
        let token: Secret = self.credentials.token().await?;
        let bearer = Secret::from(format!("Bearer {}", token.reveal()));
        let headers = [("authorization", bearer.reveal())];
        let answer = self.http.post(url, &headers, Body::json(body)?).await?;
        if answer.is_success() {
            return answer.json();
        }
        Err(failure::of(&answer, verb == "decrypt", &[token.reveal(), secret]))
    }
}

fn resource(key: &KeyUrl) -> Result<&str, Failure> {
    match key.name() {
        Name::Gcp { resource } => Ok(resource),
        _ => Err(Failure::last(Kind::Invalid, "no key of Google's")),
    }
}

/// Bits flipped on their way: another attempt may do better.
fn altered(detail: &str) -> Failure {
    Failure::new(Kind::Other, Passing::Transient, detail)
}
