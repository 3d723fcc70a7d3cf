//! Tokens of Microsoft Entra, by Microsoft's own library, over our own requests: so they keep to our bounds, our
//! certificates and our proxy. (A managed identity is asked without the proxy: its server is next door.)

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{Secret as AzureSecret, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::{
    AsyncRawResponse, Body, ClientOptions, HttpClient, Request, RetryOptions, Transport, Url,
};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::config::{Azure, Config, SecretSource};
use crate::error::{Kind, Result};
use crate::http::{Answer, Http, secret_in};
use crate::retry::{Failure, Passing, meaning_of_status};
use crate::settings::Secret;
use crate::words::words;

pub(super) struct Credentials {
    settings: Azure,
    direct: Http,
    proxied: Http,
    /// By the address of the cloud's Entra.
    made: Mutex<BTreeMap<String, Arc<dyn TokenCredential>>>,
}

impl Credentials {
    pub(super) fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            settings: config.azure.clone(),
            direct: Http::new(config, false)?,
            proxied: Http::new(config, true)?,
            made: Mutex::default(),
        })
    }

    /// For the service that `host` is one of.
    pub(super) async fn token(&self, host: &str) -> Result<Secret, Failure> {
        let (_, service) = host.split_once('.').unwrap_or_default();
        let scope = format!("https://{service}/.default");
        let authority = self.authority(service)?;
        let credential = self.credential(&authority).await?;
        let token = credential.get_token(&[scope.as_str()], None).await.map_err(|error| refused(&error));
        if token.as_ref().is_err_and(|failure| failure.passing == Passing::Never) {
            self.drop_made(&authority, &credential).await;
        }
        Ok(Secret::new(token?.token.secret()))
    }

    fn authority(&self, service: &str) -> Result<Url, Failure> {
        self.settings.authority.clone().map_or_else(|| cloud_of(service), Ok)
    }

    async fn credential(&self, authority: &Url) -> Result<Arc<dyn TokenCredential>, Failure> {
        let mut made = self.made.lock().await;
        if let Some(credential) = made.get(authority.as_str()) {
            return Ok(Arc::clone(credential));
        }
        let credential = self.make(authority).await?;
        made.insert(authority.as_str().to_owned(), Arc::clone(&credential));
        Ok(credential)
    }

    /// What was refused is made anew, by what the file says by then: the secret may have been replaced.
    async fn drop_made(&self, authority: &Url, refused: &Arc<dyn TokenCredential>) {
        let mut made = self.made.lock().await;
        if made.get(authority.as_str()).is_some_and(|made| Arc::ptr_eq(made, refused)) {
            made.remove(authority.as_str());
        }
    }

    async fn make(&self, authority: &Url) -> Result<Arc<dyn TokenCredential>, Failure> {
        let settings = &self.settings;
        let flaw = |error: azure_core::Error| unmade(&error);
        if let Some(source) = &settings.secret {
            let secret = match source {
                SecretSource::Value(secret) => secret.clone(),
                SecretSource::File(path) => secret_in(path, "kms.azure.client.secret.file").await?,
            };
            let options = ClientSecretCredentialOptions { client_options: self.options(authority) };
            let (tenant, client) = (settings.tenant.clone(), settings.client.clone());
            let secret = AzureSecret::new(secret.reveal().to_owned());
            let made = ClientSecretCredential::new(
                &tenant.unwrap_or_default(),
                client.unwrap_or_default(),
                secret,
                Some(options),
            );
            return Ok(made.map_err(flaw)?);
        }
        let in_environment = std::env::var_os("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from);
        if let Some(path) = settings.federated_token_file.clone().or(in_environment) {
            let options = WorkloadIdentityCredentialOptions {
                credential_options: ClientAssertionCredentialOptions {
                    client_options: self.options(authority),
                },
                client_id: settings.client.clone(),
                tenant_id: settings.tenant.clone(),
                token_file_path: Some(path),
            };
            return Ok(WorkloadIdentityCredential::new(Some(options)).map_err(flaw)?);
        }
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: settings.client.clone().map(UserAssignedId::ClientId),
            client_options: client_options(Requests { http: self.direct.clone(), plain: None }),
        };
        Ok(ManagedIdentityCredential::new(Some(options)).map_err(flaw)?)
    }

    fn options(&self, authority: &Url) -> ClientOptions {
        let plain = (authority.scheme() == "http").then(|| authority.clone());
        let mut secure = authority.to_string();
        if plain.is_some() {
            secure = secure.replacen("http://", "https://", 1);
        }
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host = secure;
        ClientOptions {
            cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
            ..client_options(Requests { http: self.proxied.clone(), plain })
        }
    }
}

fn client_options(requests: Requests) -> ClientOptions {
    ClientOptions {
        transport: Some(Transport::new(Arc::new(requests))),
        // Attempts are ours.
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    }
}

/// Entra's address in the cloud that a key's host belongs to.
fn cloud_of(service: &str) -> Result<Url, Failure> {
    let address = if service.ends_with(".azure.cn") {
        "https://login.chinacloudapi.cn"
    } else if service.ends_with(".usgovcloudapi.net") {
        "https://login.microsoftonline.us"
    } else {
        "https://login.microsoftonline.com"
    };
    Url::parse(address).map_err(|_| Failure::last(Kind::Other, "no address of Microsoft Entra"))
}

/// A header of requests to the machine's identity service alone.
const METADATA: HeaderName = HeaderName::from_static("metadata");

/// The library's requests, made by us.
#[derive(Debug)]
struct Requests {
    http: Http,
    /// The library takes an Entra behind https:// alone; `kms.azure.authority.url` may name one on a loopback
    /// address that has no certificate.
    plain: Option<Url>,
}

#[async_trait]
impl HttpClient for Requests {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let mut url = request.url().clone();
        if let Some(plain) = &self.plain
            && (url.host(), url.port()) == (plain.host(), plain.port())
        {
            url = Url::parse(&url.as_str().replacen("https://", "http://", 1))?;
        }
        let Body::Bytes(body) = request.body().clone() else {
            return Err(azure_core::Error::with_message(ErrorKind::Other, "a body that is no bytes"));
        };
        let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let ours = |failure: Failure| azure_core::Error::new(ErrorKind::Other, Ours(failure));
        let answer = self.http.request(request.method().as_str(), url, headers, body.clone()).await;
        let answer = answer.map_err(ours)?;
        if !answer.is_success() {
            let by_machine = request.headers().get_optional_str(&METADATA).is_some();
            return Err(ours(refusal(&answer, &body, by_machine)));
        }
        let mut headers = Headers::new();
        for (name, value) in answer.headers {
            headers.insert(name, value);
        }
        let body = bytes::Bytes::from_owner(answer.body);
        Ok(AsyncRawResponse::from_bytes(answer.status.into(), headers, body))
    }
}

/// A failure of ours on its way through the library, which would make other words of it, and might quote a body.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.detail)]
struct Ours(Failure);

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    message: String,
}

/// The machine's identity service says 404 and 410 while it is set up or updated.
fn passing(status: u16, by_machine: bool) -> Passing {
    match status {
        404 | 410 if by_machine => Passing::Transient,
        _ => meaning_of_status(status).1,
    }
}

/// Of Entra, of a machine's identity service, or of App Service's.
fn refusal(answer: &Answer, form: &[u8], by_machine: bool) -> Failure {
    let refusal: Refusal = answer.json().unwrap_or_default();
    let text = [refusal.error_description, refusal.message].concat();
    // What the request held, should it come back.
    let sent: Vec<_> = url::form_urlencoded::parse(form)
        .filter(|(name, _)| name == "client_secret" || name == "client_assertion")
        .map(|(_, value)| Zeroizing::new(value.into_owned()))
        .collect();
    let secrets: Vec<&str> = sent.iter().map(|value| value.as_str()).collect();
    let passing = passing(answer.status, by_machine);
    // What follows the first line are numbers for Microsoft's support.
    let line = text.lines().next().unwrap_or_default();
    Failure::of_credentials(passing, format!("{} {}", answer.status, words(line, &secrets)))
}

fn refused(error: &azure_core::Error) -> Failure {
    let mut source = Some(error as &(dyn std::error::Error + 'static));
    while let Some(cause) = source {
        if let Some(Ours(failure)) = cause.downcast_ref::<Ours>() {
            let detail = format!("no Azure credentials: {}", failure.detail.trim_end());
            return Failure::of_credentials(failure.passing, detail);
        }
        source = cause.source();
    }
    Failure::last(Kind::Denied, "no Azure credentials: the answer for a token can't be understood")
}

/// What is wrong with what a credential was to be made of.
fn unmade(error: &azure_core::Error) -> Failure {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    Failure::last(Kind::Denied, format!("no Azure credentials: {}", words(line, &[])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_service_that_is_set_up_is_no_refusal() {
        assert!([404, 410, 503].iter().all(|status| passing(*status, true) == Passing::Transient));
        assert!([404, 410, 400].iter().all(|status| passing(*status, false) == Passing::Never));
        assert_eq!(passing(400, true), Passing::Never);
    }
}
