//! From settings to what the services are made with: every flaw is found here, before anything is asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::error::Error;
use crate::key_url::is_loopback;
use crate::settings::{Secret, Values};

/// Secrets don't show in `Debug`.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_attempts: u32,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) proxy: Option<Secret>,
    pub(crate) aws: Aws,
    pub(crate) gcp: Gcp,
    pub(crate) azure: Azure,
    pub(crate) vault: Vault,
}

#[derive(Clone, Debug)]
pub(crate) struct Aws {
    pub(crate) endpoint: Option<Url>,
    pub(crate) profile: Option<String>,
    pub(crate) keys: Option<AwsKeys>,
}

#[derive(Clone, Debug)]
pub(crate) struct AwsKeys {
    pub(crate) id: String,
    pub(crate) secret: Secret,
    pub(crate) token: Option<Secret>,
}

#[derive(Clone, Debug)]
pub(crate) struct Gcp {
    /// There always is one, unless what was given is wrong.
    pub(crate) endpoint: Option<Url>,
    pub(crate) credentials_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub(crate) struct Azure {
    pub(crate) endpoint: Option<Url>,
    pub(crate) authority: Option<Url>,
    pub(crate) aes: bool,
    pub(crate) tenant: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) secret: Option<SecretSource>,
    pub(crate) federated_token_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub(crate) enum SecretSource {
    Value(Secret),
    File(PathBuf),
}

#[derive(Clone, Debug)]
pub(crate) struct Vault {
    pub(crate) login: VaultLogin,
    pub(crate) mount: String,
    pub(crate) namespace: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum VaultLogin {
    /// `None` if no token is given: an error where one is needed.
    Token(Option<SecretSource>),
    AppRole {
        role_id: String,
        secret_id_file: PathBuf,
    },
    Kubernetes {
        role: String,
        jwt_file: PathBuf,
    },
}

impl Config {
    /// What the settings say, as far as they are right, and all that is wrong with them.
    pub(crate) fn examine(given: &BTreeMap<String, String>) -> (Self, Vec<Error>) {
        let (values, mut flaws) = Values::examine(given);
        let config = Self {
            timeout: Duration::from_millis(values.number("kms.timeout.ms")),
            connect_timeout: Duration::from_millis(values.number("kms.connect.timeout.ms")),
            max_attempts: u32::try_from(values.number("kms.max.attempts")).unwrap_or(1),
            ca_file: values.given("kms.tls.ca.file").map(PathBuf::from),
            proxy: values.secret("kms.proxy.url"),
            aws: aws(&values, &mut flaws),
            gcp: gcp(&values, &mut flaws),
            azure: azure(&values, &mut flaws),
            vault: vault(&values, &mut flaws),
        };
        (config, flaws)
    }
}

/// Keys cross to it: in the clear only where nobody listens.
fn endpoint(values: &Values<'_>, name: &'static str, flaws: &mut Vec<Error>) -> Option<Url> {
    let text = values.text(name)?;
    let mut refuse = |flaw: &str| flaws.push(Error::configuration(name, flaw));
    let Ok(url) = Url::parse(text) else {
        refuse("is no URL");
        return None;
    };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        refuse("may hold neither a user nor a query");
    } else if url.scheme() == "http" && !url.host_str().is_some_and(is_loopback) {
        refuse("http:// would send keys in the clear: it is for loopback addresses only");
    } else {
        return Some(url);
    }
    None
}

/// `name` is needed because of `because`, which is given.
fn missing(flaws: &mut Vec<Error>, name: &'static str, because: &str) {
    flaws.push(Error::configuration(name, format!("missing: {because}")));
}

fn aws(values: &Values<'_>, flaws: &mut Vec<Error>) -> Aws {
    let (id, secret) = (values.given("kms.aws.access.key.id"), values.secret("kms.aws.secret.access.key"));
    let (token, profile) = (values.secret("kms.aws.session.token"), values.given("kms.aws.profile"));
    if id.is_none() && (secret.is_some() || token.is_some()) {
        missing(flaws, "kms.aws.access.key.id", "a secret key or a session token is given");
    }
    if id.is_some() && secret.is_none() {
        missing(flaws, "kms.aws.secret.access.key", "kms.aws.access.key.id is given");
    }
    if id.is_some() && profile.is_some() {
        let flaw = "says where keys come from, but kms.aws.access.key.id is given too";
        flaws.push(Error::configuration("kms.aws.profile", flaw));
    }
    Aws {
        endpoint: endpoint(values, "kms.aws.endpoint.url", flaws),
        profile: profile.map(str::to_owned),
        keys: id.zip(secret).map(|(id, secret)| AwsKeys { id: id.to_owned(), secret, token }),
    }
}

fn gcp(values: &Values<'_>, flaws: &mut Vec<Error>) -> Gcp {
    Gcp {
        endpoint: endpoint(values, "kms.gcp.endpoint.url", flaws),
        credentials_file: values.given("kms.gcp.credentials.file").map(PathBuf::from),
    }
}

fn azure(values: &Values<'_>, flaws: &mut Vec<Error>) -> Azure {
    let secret = values.secret("kms.azure.client.secret").map(SecretSource::Value);
    let file = values.given("kms.azure.client.secret.file").map(|path| SecretSource::File(path.into()));
    if secret.is_some() && file.is_some() {
        let flaw = "kms.azure.client.secret is given too";
        flaws.push(Error::configuration("kms.azure.client.secret.file", flaw));
    }
    let secret = secret.or(file);
    let federated_token_file = values.given("kms.azure.federated.token.file").map(PathBuf::from);
    if secret.is_some() {
        for name in ["kms.azure.tenant.id", "kms.azure.client.id"] {
            if values.given(name).is_none() {
                missing(flaws, name, "a client secret is given");
            }
        }
        if federated_token_file.is_some() {
            let flaw = "a client secret is given too";
            flaws.push(Error::configuration("kms.azure.federated.token.file", flaw));
        }
    }
    Azure {
        endpoint: endpoint(values, "kms.azure.endpoint.url", flaws),
        authority: endpoint(values, "kms.azure.authority.url", flaws),
        aes: values.text("kms.azure.algorithm") == Some("A256GCM"),
        tenant: values.given("kms.azure.tenant.id").map(str::to_owned),
        client: values.given("kms.azure.client.id").map(str::to_owned),
        secret,
        federated_token_file,
    }
}

fn vault(values: &Values<'_>, flaws: &mut Vec<Error>) -> Vault {
    let method = values.text("kms.vault.auth").unwrap_or("token");
    for (name, theirs) in [
        ("kms.vault.token", "token"),
        ("kms.vault.token.file", "token"),
        ("kms.vault.role.id", "approle"),
        ("kms.vault.secret.id.file", "approle"),
        ("kms.vault.kubernetes.role", "kubernetes"),
        ("kms.vault.kubernetes.jwt.file", "kubernetes"),
    ] {
        if values.given(name).is_some() && method != theirs {
            let flaw = format!("belongs to kms.vault.auth = {theirs}, which is {method}");
            flaws.push(Error::configuration(name, flaw));
        }
    }
    let mut needed = |name: &'static str| {
        let value = values.text(name);
        if value.is_none() {
            missing(flaws, name, &format!("kms.vault.auth is {method}"));
        }
        value.unwrap_or_default().to_owned()
    };
    let login = match method {
        "approle" => VaultLogin::AppRole {
            role_id: needed("kms.vault.role.id"),
            secret_id_file: needed("kms.vault.secret.id.file").into(),
        },
        "kubernetes" => VaultLogin::Kubernetes {
            role: needed("kms.vault.kubernetes.role"),
            jwt_file: needed("kms.vault.kubernetes.jwt.file").into(),
        },
        _ => VaultLogin::Token(vault_token(values, flaws)),
    };
    let mount = values.given("kms.vault.auth.mount").unwrap_or(method).trim_matches('/');
    let step = |step: &str| {
        !step.is_empty()
            && step.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
            && step.bytes().any(|b| b != b'.')
    };
    if !mount.split('/').all(step) {
        let flaw = "expected a path of letters, digits, _, - and .";
        flaws.push(Error::configuration("kms.vault.auth.mount", flaw));
    }
    let namespace = values.given("kms.vault.namespace").map(str::to_owned);
    if namespace.as_ref().is_some_and(|name| !name.bytes().all(|b| b.is_ascii_graphic())) {
        flaws.push(Error::configuration("kms.vault.namespace", "expected printable ASCII characters"));
    }
    Vault { login, mount: mount.to_owned(), namespace }
}

fn vault_token(values: &Values<'_>, flaws: &mut Vec<Error>) -> Option<SecretSource> {
    let token = values.secret("kms.vault.token").map(SecretSource::Value);
    let file = values.given("kms.vault.token.file").map(|path| SecretSource::File(path.into()));
    if token.is_some() && file.is_some() {
        flaws.push(Error::configuration("kms.vault.token.file", "kms.vault.token is given too"));
    }
    token.or(file)
}
