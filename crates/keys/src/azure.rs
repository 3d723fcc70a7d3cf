//! Azure Key Vault and Managed HSM over their REST interface.
//!
//! An RSA key binds nothing to what it wraps. So what it wraps is a key for one use, and that seals the data key
//! together with what it is bound to. It proves nothing about who did so: whoever has the public part of the RSA key
//! can wrap as well (`Wrapped::anyone_can_wrap`). AES keys of a Managed HSM bind by themselves.

mod credentials;
mod failure;
mod parts;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::error::{Kind, Result};
use crate::http::{Body, Http, decode};
use crate::key_url::{KeyUrl, Name};
use crate::retry::{Failure, Retry};
use crate::sealed::{fresh, open, plain_key, seal};
use crate::settings::Secret;
use crate::wrapped::{Wrapped, algorithm};

const API_VERSION: &str = "7.4";
const RSA: &str = "RSA-OAEP-256";
const AES: &str = "A256GCM";

/// As Azure writes it, padded or not.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(crate) struct AzureKms {
    http: Http,
    endpoint: Option<Url>,
    aes: bool,
    credentials: credentials::Credentials,
    retry: Retry,
}

#[derive(Serialize)]
struct Request<'a> {
    alg: &'static str,
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aad: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

impl<'a> Request<'a> {
    fn new(alg: &'static str, value: &'a str) -> Self {
        Self { alg, value, aad: None, iv: None, tag: None }
    }
}

#[derive(Deserialize)]
struct Outcome {
    kid: String,
    value: String,
    #[serde(default)]
    iv: Option<String>,
    #[serde(default)]
    tag: Option<String>,
}

impl AzureKms {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            http: Http::new(config, true)?,
            endpoint: config.azure.endpoint.clone(),
            aes: config.azure.aes,
            credentials: credentials::Credentials::new(config)?,
            retry: Retry { max_attempts: config.max_attempts, timeout: config.timeout },
        })
    }

    pub(crate) async fn wrap(&self, key: &KeyUrl, secret: &[u8; 32], aad: &[u8]) -> Result<Wrapped> {
        let attempt = || async {
            if self.aes {
                self.encrypt(key, secret, aad).await
            } else {
                self.wrap_key(key, secret, aad).await
            }
        };
        self.retry.run("wrap", key, attempt).await
    }

    async fn wrap_key(&self, key: &KeyUrl, secret: &[u8; 32], aad: &[u8]) -> Result<Wrapped, Failure> {
        let once = fresh::<32>()?;
        let value = Zeroizing::new(BASE64_URL.encode(once.as_slice()));
        let answer = self.ask(key, "wrapkey", &Request::new(RSA, &value)).await?;
        let wrapped_by = used(key, &answer.kid)?;
        let by_rsa = decode(&BASE64_URL, answer.value)?;
        let bytes = parts::join_rsa(&by_rsa, &seal(&once, secret, aad)?)?;
        Ok(Wrapped { wrapped_by, algorithm: algorithm::AZURE_RSA.to_owned(), bytes })
    }

    async fn encrypt(&self, key: &KeyUrl, secret: &[u8; 32], aad: &[u8]) -> Result<Wrapped, Failure> {
        let value = Zeroizing::new(BASE64_URL.encode(secret));
        let request = Request { aad: Some(BASE64_URL.encode(aad)), ..Request::new(AES, &value) };
        let answer = self.ask(key, "encrypt", &request).await?;
        let wrapped_by = used(key, &answer.kid)?;
        let iv = decode(&BASE64_URL, answer.iv.unwrap_or_default())?;
        let tag = decode(&BASE64_URL, answer.tag.unwrap_or_default())?;
        let bytes = parts::join_aes(&iv, &tag, &decode(&BASE64_URL, answer.value)?)?;
        Ok(Wrapped { wrapped_by, algorithm: algorithm::AZURE_HSM.to_owned(), bytes })
    }

    pub(crate) async fn unwrap(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let attempt = || async {
            if wrapped.algorithm == algorithm::AZURE_HSM {
                self.decrypt(wrapped, aad).await
            } else {
                self.unwrap_key(wrapped, aad).await
            }
        };
        self.retry.run("unwrap", &wrapped.wrapped_by, attempt).await
    }

    async fn unwrap_key(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>, Failure> {
        let (by_rsa, sealed) = parts::split_rsa(&wrapped.bytes)?;
        let value = BASE64_URL.encode(by_rsa);
        let answer = self.ask(&wrapped.wrapped_by, "unwrapkey", &Request::new(RSA, &value)).await?;
        used(&wrapped.wrapped_by, &answer.kid)?;
        let once = decode(&BASE64_URL, answer.value)?;
        let once = plain_key(&once).ok_or_else(|| {
            Failure::last(Kind::Refused, format!("{} bytes were unwrapped: expected 32", once.len()))
        })?;
        open(&once, sealed, aad)
    }

    async fn decrypt(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>, Failure> {
        let parts = parts::split_aes(&wrapped.bytes)?;
        let value = BASE64_URL.encode(parts.sealed);
        let request = Request {
            aad: Some(BASE64_URL.encode(aad)),
            iv: Some(BASE64_URL.encode(parts.iv)),
            tag: Some(BASE64_URL.encode(parts.tag)),
            ..Request::new(AES, &value)
        };
        let answer = self.ask(&wrapped.wrapped_by, "decrypt", &request).await?;
        used(&wrapped.wrapped_by, &answer.kid)?;
        let plain = decode(&BASE64_URL, answer.value)?;
        let flaw =
            || Failure::last(Kind::Refused, format!("{} bytes were unwrapped: expected 32", plain.len()));
        plain_key(&plain).ok_or_else(flaw)
    }

    async fn ask(&self, key: &KeyUrl, verb: &str, request: &Request<'_>) -> Result<Outcome, Failure> {
        let (host, name, version) = parts_of(key)?;
        let mut url = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => Url::parse(&format!("https://{host}/"))
                .map_err(|_| Failure::last(Kind::Invalid, "no host of Azure's"))?,
        };
        let version = version.map_or_else(String::new, |version| format!("{version}/"));
        url.set_path(&format!("{}/keys/{name}/{version}{verb}", url.path().trim_end_matches('/')));
        url.set_query(Some(&format!("api-version={API_VERSION}")));
        let token: Secret = self.credentials.token(host).await?;
        let bearer = Secret::from(format!("Bearer {}", token.reveal()));
        let headers = [("authorization", bearer.reveal())];
        let answer = self.http.post(url, &headers, Body::json(request)?).await?;
        if answer.is_success() {
            return answer.json();
        }
        let unwrapping = matches!(verb, "unwrapkey" | "decrypt");
        Err(failure::of(&answer, unwrapping, &[token.reveal(), request.value]))
    }
}

fn parts_of(key: &KeyUrl) -> Result<(&str, &str, Option<&str>), Failure> {
    match key.name() {
        Name::Azure { host, key, version } => Ok((host, key, version.as_deref())),
        _ => Err(Failure::last(Kind::Invalid, "no key of Azure's")),
    }
}

/// The key's version that Azure says it used: `https://HOST/keys/NAME/VERSION`.
fn used(asked: &KeyUrl, kid: &str) -> Result<KeyUrl, Failure> {
    let named =
        kid.strip_prefix("https://").and_then(|rest| KeyUrl::parse(&format!("azure-kms://{rest}")).ok());
    let used = named.ok_or_else(|| Failure::last(Kind::Other, "the answer names no key"))?;
    let (_, _, version) = parts_of(&used)?;
    if version.is_none() || asked.covers(&used) != Some(true) {
        return Err(Failure::last(Kind::Other, format!("the answer is another key's ({used})")));
    }
    // In the asked spelling: Azure doesn't tell capital letters from small ones in a key's name.
    let (host, name, _) = parts_of(asked)?;
    Ok(KeyUrl::of(Name::Azure {
        host: host.to_owned(),
        key: name.to_owned(),
        version: version.map(str::to_owned),
    }))
}
