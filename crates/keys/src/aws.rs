//! AWS KMS, by Amazon's own library. What is wrapped is bound by an encryption context, which AWS writes into its
//! logs: it says what the key is for, never what the key is.

mod client;
mod failure;

use std::collections::BTreeMap;

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::EncryptionAlgorithmSpec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::error::{Kind, Result};
use crate::key_url::{KeyUrl, Name};
use crate::retry::{Failure, Retry};
use crate::sealed::plain_key;
use crate::wrapped::{Wrapped, algorithm};

/// Name of the encryption context.
const CONTEXT: &str = "varve";

pub(crate) struct AwsKms {
    connector: client::Connector,
    retry: Retry,
    /// By region.
    clients: Mutex<BTreeMap<String, Client>>,
}

impl AwsKms {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            connector: client::Connector::new(config)?,
            retry: Retry { max_attempts: config.max_attempts, timeout: config.timeout },
            clients: Mutex::default(),
        })
    }

    async fn client(&self, region: &str) -> Client {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(region) {
            return client.clone();
        }
        let client = self.connector.connect(region).await;
        clients.insert(region.to_owned(), client.clone());
        client
    }

    pub(crate) async fn wrap(&self, key: &KeyUrl, secret: &[u8; 32], aad: &[u8]) -> Result<Wrapped> {
        self.retry.run("wrap", key, || self.wrap_once(key, secret, aad)).await
    }

    async fn wrap_once(&self, key: &KeyUrl, secret: &[u8; 32], aad: &[u8]) -> Result<Wrapped, Failure> {
        let (region, id) = parts(key)?;
        let call = self.client(region).await.encrypt();
        let call = call.key_id(id).plaintext(Blob::new(secret.as_slice()));
        let call = call.encryption_context(CONTEXT, STANDARD.encode(aad));
        let call = call.encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault);
        let answer = call.send().await.map_err(|error| {
            let written = Zeroizing::new(STANDARD.encode(secret));
            failure::of(error, &written)
        })?;
        let wrapped_by = used(key, answer.key_id())?;
        let bytes = answer.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        Ok(Wrapped { wrapped_by, algorithm: algorithm::AWS.to_owned(), bytes })
    }

    pub(crate) async fn unwrap(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        self.retry.run("unwrap", &wrapped.wrapped_by, || self.unwrap_once(wrapped, aad)).await
    }

    async fn unwrap_once(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>, Failure> {
        let (region, id) = parts(&wrapped.wrapped_by)?;
        let call = self.client(region).await.decrypt();
        let call = call.key_id(id).ciphertext_blob(Blob::new(wrapped.bytes.as_slice()));
        let call = call.encryption_context(CONTEXT, STANDARD.encode(aad));
        let call = call.encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault);
        let answer = call.send().await.map_err(|error| failure::of(error, ""))?;
        used(&wrapped.wrapped_by, answer.key_id())?;
        let plain = Zeroizing::new(answer.plaintext.map(Blob::into_inner).unwrap_or_default());
        let flaw =
            || Failure::last(Kind::Refused, format!("{} bytes were unwrapped: expected 32", plain.len()));
        plain_key(&plain).ok_or_else(flaw)
    }
}

fn parts(key: &KeyUrl) -> Result<(&str, &str), Failure> {
    match key.name() {
        Name::Aws { region, id } => Ok((region, id)),
        _ => Err(Failure::last(Kind::Invalid, "no key of AWS")),
    }
}

/// The key that AWS says it used, by its ARN, which stays right when an alias moves on to another key.
fn used(asked: &KeyUrl, answered: Option<&str>) -> Result<KeyUrl, Failure> {
    let other = |found: &str| Failure::last(Kind::Other, format!("the answer is another key's ({found})"));
    let arn = answered.filter(|arn| arn.starts_with("arn:")).ok_or_else(|| other("not named by an ARN"))?;
    let used = KeyUrl::parse(arn).map_err(|_| other("not named by a key's ARN"))?;
    match asked.covers(&used) {
        Some(false) => Err(other(used.as_str())),
        None if parts(&used)?.0 != parts(asked)?.0 => Err(other(used.as_str())),
        _ => Ok(used),
    }
}
