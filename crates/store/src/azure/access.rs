//! What lets a request in: the account's key, a shared access signature, or a token of Microsoft Entra.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret as CoreSecret, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{ClientOptions, Context, Request};
use azure_core::time::{OffsetDateTime, to_rfc7231};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use tokio::time::timeout;

use super::config::{Access as Configured, Config, Identity, TokenSource};
use super::failure;
use super::sas_file::SasFile;
use super::signing::AccountKey;
use super::tokens::Tokens;
use crate::contract::Result;
use crate::failure::chain;
use crate::settings::{Secret, invalid};

/// An identity that is not there may only be silent, and another one behind it good.
const PATIENCE: Duration = Duration::from_secs(5);
/// A store that copies reads the source for no longer.
const SOURCE_VALID: Duration = Duration::from_secs(24 * 3600);

/// Authorizes requests; the last policy of the pipeline, as signatures are over all headers.
#[derive(Debug)]
pub(super) enum Access {
    Key(Box<AccountKey>),
    Sas(Secret),
    SasFile(SasFile),
    Token(Tokens),
}

impl Access {
    pub(super) fn new(config: &Config, options: &ClientOptions) -> Result<Self> {
        Ok(match &config.access {
            Configured::Key(key) => Self::Key(Box::new(AccountKey::new(&config.account, &key.0))),
            Configured::Sas(sas) => Self::Sas(sas.clone()),
            Configured::SasFile(path) => Self::SasFile(SasFile::new(path)),
            Configured::Token(identity) => Self::Token(Tokens::new(credential(identity, options)?)),
        })
    }

    /// Completes a request by the date and what authorizes it.
    pub(super) async fn authorize(&self, request: &mut Request) -> azure_core::Result<()> {
        request.insert_header("x-ms-date", to_rfc7231(&OffsetDateTime::now_utc()));
        match self {
            Self::Key(key) => {
                let authorization = key.authorization(request);
                request.insert_header("authorization", authorization);
            }
            Self::Sas(_) | Self::SasFile(_) => {
                let sas = self.sas().await?;
                append_query(request.url_mut(), &sas);
            }
            Self::Token(_) => {
                let bearer = self.bearer().await?;
                request.insert_header("authorization", bearer);
            }
        }
        Ok(())
    }

    /// What lets the store itself read the blob of this address, to copy it: what its address must hold besides,
    /// and the value of `x-ms-copy-source-authorization`.
    pub(super) async fn of_source(
        &self,
        container: &str,
        name: &str,
    ) -> azure_core::Result<(Option<String>, Option<String>)> {
        Ok(match self {
            Self::Key(key) => {
                let expiry = OffsetDateTime::now_utc() + SOURCE_VALID;
                let (date, time) = (expiry.date(), expiry.time());
                let expiry = format!("{date}T{:02}:{:02}:{:02}Z", time.hour(), time.minute(), time.second());
                (Some(key.read_blob(container, name, &expiry)), None)
            }
            Self::Sas(_) | Self::SasFile(_) => (Some(self.sas().await?), None),
            Self::Token(_) => (None, Some(self.bearer().await?)),
        })
    }

    async fn sas(&self) -> azure_core::Result<String> {
        match self {
            Self::Sas(sas) => Ok(sas.reveal().to_owned()),
            Self::SasFile(file) => {
                let sas = file.current().await.map_err(|flaw| no_credentials(&flaw))?;
                Ok(sas.reveal().to_owned())
            }
            _ => Err(no_credentials("no shared access signature")),
        }
    }

    async fn bearer(&self) -> azure_core::Result<String> {
        match self {
            Self::Token(tokens) => tokens.bearer().await,
            _ => Err(no_credentials("no token")),
        }
    }
}

fn no_credentials(flaw: &str) -> azure_core::Error {
    azure_core::Error::with_message(ErrorKind::Credential, flaw.to_owned())
}

pub(super) fn append_query(url: &mut url::Url, pairs: &str) {
    let query = match url.query() {
        Some(query) if !query.is_empty() => format!("{query}&{pairs}"),
        _ => pairs.to_owned(),
    };
    url.set_query(Some(&query));
}

#[async_trait]
impl Policy for Access {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        self.authorize(request).await?;
        match next {
            [first, rest @ ..] => first.send(ctx, request, rest).await,
            [] => Err(azure_core::Error::with_message(ErrorKind::Other, "the pipeline has no transport")),
        }
    }
}

fn credential(identity: &Identity, options: &ClientOptions) -> Result<Arc<dyn TokenCredential>> {
    let mut options = options.clone();
    if let Some(host) = &identity.authority_host {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host = host.trim_end_matches('/').to_owned();
        options.cloud = Some(Arc::new(CloudConfiguration::from(cloud)));
    }
    let known = |given: bool, variable: &str| given || std::env::var_os(variable).is_some();
    match identity.source {
        TokenSource::Cli => cli(identity),
        TokenSource::ClientSecret => client_secret(identity, options),
        TokenSource::ManagedIdentity => managed(identity, options),
        TokenSource::WorkloadIdentity => workload(identity, options),
        TokenSource::Default
            if known(identity.token_file.is_some(), "AZURE_FEDERATED_TOKEN_FILE")
                && identity.client_secret.is_none() =>
        {
            workload(identity, options)
        }
        TokenSource::Default if known(identity.client_secret.is_some(), "AZURE_CLIENT_SECRET") => {
            client_secret(identity, options)
        }
        TokenSource::Default => {
            let links = vec![managed(identity, options)?, cli(identity)?];
            Ok(Arc::new(Chain { links, answered: OnceLock::new() }))
        }
    }
}

/// A setting, else the environment's variable.
fn needed(name: &str, given: Option<&str>, variable: &str) -> Result<String> {
    let value = given.map(str::to_owned).or_else(|| std::env::var(variable).ok().filter(|v| !v.is_empty()));
    value.ok_or_else(|| invalid(name, format!("missing, and {variable} is not set")))
}

fn client_secret(identity: &Identity, client_options: ClientOptions) -> Result<Arc<dyn TokenCredential>> {
    let tenant = needed("az.tenant.id", identity.tenant_id.as_deref(), "AZURE_TENANT_ID")?;
    let client = needed("az.client.id", identity.client_id.as_deref(), "AZURE_CLIENT_ID")?;
    let given = identity.client_secret.as_ref().map(Secret::reveal);
    let secret = CoreSecret::new(needed("az.client.secret", given, "AZURE_CLIENT_SECRET")?);
    let options = ClientSecretCredentialOptions { client_options };
    let made = ClientSecretCredential::new(&tenant, client, secret, Some(options));
    Ok(made.map_err(|error| invalid("az.tenant.id", chain(&error)))?)
}

fn workload(identity: &Identity, client_options: ClientOptions) -> Result<Arc<dyn TokenCredential>> {
    let options = WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions { client_options },
        client_id: identity.client_id.clone(),
        tenant_id: identity.tenant_id.clone(),
        token_file_path: identity.token_file.as_ref().map(Into::into),
    };
    let made = WorkloadIdentityCredential::new(Some(options));
    Ok(made.map_err(|error| invalid("az.federated.token.file", chain(&error)))?)
}

fn managed(identity: &Identity, client_options: ClientOptions) -> Result<Arc<dyn TokenCredential>> {
    let user_assigned_id = identity.client_id.clone().map(UserAssignedId::ClientId);
    let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
    let made = ManagedIdentityCredential::new(Some(options));
    Ok(made.map_err(|error| invalid("az.auth", chain(&error)))?)
}

fn cli(identity: &Identity) -> Result<Arc<dyn TokenCredential>> {
    let options = AzureCliCredentialOptions { tenant_id: identity.tenant_id.clone(), ..Default::default() };
    Ok(AzureCliCredential::new(Some(options)).map_err(|error| invalid("az.tenant.id", chain(&error)))?)
}

/// The first that answers; from then on, that one alone.
#[derive(Debug)]
struct Chain {
    links: Vec<Arc<dyn TokenCredential>>,
    answered: OnceLock<usize>,
}

#[async_trait]
impl TokenCredential for Chain {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        if let Some(link) = self.answered.get().and_then(|&at| self.links.get(at)) {
            return link.get_token(scopes, options).await;
        }
        let none = "neither az.account.key nor az.sas.token is given, and no identity answers";
        let (mut flaws, mut passing) = (vec![none.to_owned()], None);
        for (at, link) in self.links.iter().enumerate() {
            let asked = link.get_token(scopes, options.clone());
            let answer = match self.links.get(at + 1) {
                None => asked.await,
                Some(_) => timeout(PATIENCE, asked).await.unwrap_or_else(|_| {
                    let flaw = format!("no answer within {} s", PATIENCE.as_secs());
                    Err(azure_core::Error::with_message(ErrorKind::Io, flaw))
                }),
            };
            match answer {
                Ok(token) => {
                    let _ = self.answered.set(at);
                    return Ok(token);
                }
                Err(error) if passing.is_none() && failure::may_pass(&error) => passing = Some(error),
                Err(error) => flaws.push(chain(&error)),
            }
        }
        let flaw = flaws.join("; ");
        Err(match passing {
            Some(error) => azure_core::Error::with_error(ErrorKind::Credential, error, flaw),
            None => no_credentials(&flaw),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    enum Link {
        Silent,
        None,
        Good,
    }

    #[async_trait]
    impl TokenCredential for Link {
        async fn get_token(
            &self,
            _: &[&str],
            _: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<AccessToken> {
            match self {
                Self::Silent => std::future::pending().await,
                Self::None => Err(no_credentials("not logged in")),
                Self::Good => Ok(AccessToken::new("token", OffsetDateTime::now_utc())),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_identity_that_is_silent_keeps_none_behind_it_back() {
        let chain =
            Chain { links: vec![Arc::new(Link::Silent), Arc::new(Link::Good)], answered: OnceLock::new() };
        let answer = timeout(2 * PATIENCE, chain.get_token(&["scope"], None)).await;
        assert_eq!(answer.unwrap().unwrap().token.secret(), "token");
        // From then on it is asked alone.
        let answer = timeout(PATIENCE / 2, chain.get_token(&["scope"], None)).await;
        assert!(answer.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_identity_that_may_come_is_no_refusal() {
        for (links, passes) in [([Link::Silent, Link::None], true), ([Link::None, Link::None], false)] {
            let links = links.into_iter().map(|link| Arc::new(link) as Arc<dyn TokenCredential>).collect();
            let chain = Chain { links, answered: OnceLock::new() };
            let error = chain.get_token(&["scope"], None).await.unwrap_err();
            assert_eq!(failure::may_pass(&error), passes, "{error}");
            let told = failure::of(error);
            assert!(told.detail.contains("not logged in"), "{told:?}");
            assert_eq!(told.detail.contains("no answer within 5 s"), passes, "{told:?}");
        }
    }
}
