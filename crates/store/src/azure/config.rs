//! From a URL and settings to what a store is opened with: parsed and checked without asking anyone.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::Url;
use varve_tls::is_this_machine;

use crate::contract::Result;
use crate::error::{Error, Kind};
use crate::key::Key;
use crate::settings::{Secret, Values, invalid};

/// All that a store is opened with; secrets don't show in `Debug`.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) url: String,
    pub(super) account: String,
    /// The container's address, without a slash at the end.
    pub(super) container: Url,
    /// The container's name.
    pub(super) container_name: String,
    /// Empty, or ends with `/`.
    pub(super) prefix: String,
    pub(super) access: Access,
    pub(super) access_tier: Option<String>,
    pub(super) max_attempts: u32,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) part_bytes: u64,
    pub(super) proxy: Option<Secret>,
    pub(super) ca_file: Option<PathBuf>,
}

/// What requests are authorized by.
#[derive(Debug)]
pub(super) enum Access {
    /// The account's key, decoded.
    Key(KeyBytes),
    Sas(Secret),
    SasFile(String),
    Token(Identity),
}

#[derive(Clone)]
pub(super) struct KeyBytes(pub(super) Vec<u8>);

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// Who asks for tokens, as far as settings say it.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) source: TokenSource,
    pub(super) client_id: Option<String>,
    pub(super) tenant_id: Option<String>,
    pub(super) client_secret: Option<Secret>,
    pub(super) token_file: Option<String>,
    pub(super) authority_host: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenSource {
    Default,
    Cli,
    ClientSecret,
    ManagedIdentity,
    WorkloadIdentity,
}

impl Config {
    pub(super) fn parse(url: &Url, values: &Values<'_>) -> Result<Self> {
        let (account, container, prefix) = parse_location(url)?;
        let text = |name: &str| values.text(name).map(str::to_owned);
        let access = parse_access(values)?;
        let endpoint = match values.text("az.endpoint.url") {
            Some(endpoint) => parse_endpoint(endpoint, &access)?,
            None => format!("https://{account}.blob.core.windows.net"),
        };
        let address = format!("{endpoint}/{container}");
        let address = Url::parse(&address).map_err(|error| invalid("az.endpoint.url", error.to_string()))?;
        Ok(Self {
            url: format!("az://{account}/{container}/{prefix}").trim_end_matches('/').to_owned(),
            account,
            container: address,
            container_name: container,
            prefix,
            access,
            access_tier: text("az.access.tier"),
            max_attempts: u32::try_from(values.number("az.max.attempts")).unwrap_or(u32::MAX),
            timeout: Duration::from_millis(values.number("az.timeout.ms")),
            connect_timeout: Duration::from_millis(values.number("az.connect.timeout.ms")),
            part_bytes: values.number("az.part.size.bytes"),
            proxy: values.text("az.proxy.url").map(Secret::new),
            ca_file: text("az.tls.ca.file").map(PathBuf::from),
        })
    }
}

/// Account, container, and the prefix with its slash.
fn parse_location(url: &Url) -> Result<(String, String, String)> {
    let refuse = |flaw: &str| {
        let detail = format!("{flaw}: expected az://account/container/prefix");
        Error::new(Kind::Invalid, "open", url.as_str(), detail)
    };
    let account = url.host_str().filter(|account| !account.is_empty()).ok_or_else(|| refuse("no account"))?;
    if url.port().is_some() {
        return Err(refuse("an account has no port (the server's address is the setting az.endpoint.url)"));
    }
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !plain(account) || !(3..=24).contains(&account.len()) {
        return Err(refuse("an account's name has 3 to 24 small letters and digits"));
    }
    let path = url.path().trim_matches('/');
    let (container, prefix) = path.split_once('/').unwrap_or((path, ""));
    if container.is_empty() {
        return Err(refuse("no container"));
    }
    if !container.split('-').all(|word| plain(word) && !word.is_empty())
        || !(3..=63).contains(&container.len())
    {
        return Err(refuse("a container's name has 3 to 63 small letters, digits and single dashes"));
    }
    let prefix = prefix.trim_start_matches('/');
    if prefix.contains('%') {
        return Err(refuse("the prefix holds characters that a key can't"));
    }
    if prefix.is_empty() {
        return Ok((account.to_owned(), container.to_owned(), String::new()));
    }
    Key::new(prefix).map_err(|error| refuse(&format!("the prefix: {}", error.detail)))?;
    Ok((account.to_owned(), container.to_owned(), format!("{prefix}/")))
}

fn parse_endpoint(endpoint: &str, access: &Access) -> Result<String> {
    let name = "az.endpoint.url";
    let parsed = Url::parse(endpoint).map_err(|error| invalid(name, error.to_string()))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(invalid(name, "holds a user or password; keys are given as settings"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(invalid(name, "holds ? or #; a shared access signature is the setting az.sas.token"));
    }
    if parsed.scheme() != "https" {
        // An account's key signs and is not sent.
        let flaw = match access {
            Access::Token(_) => Some("no token goes: https or az.account.key is needed"),
            Access::Sas(_) | Access::SasFile(_) if !is_this_machine(&parsed) => Some(
                "a shared access signature goes to loopback addresses only: https or az.account.key is needed",
            ),
            _ => None,
        };
        if let Some(flaw) = flaw {
            return Err(invalid(name, format!("is plain http, over which {flaw}")));
        }
    }
    Ok(parsed.as_str().trim_end_matches('/').to_owned())
}

const TOKEN_SETTINGS: [&str; 6] = [
    "az.auth",
    "az.authority.host",
    "az.client.id",
    "az.client.secret",
    "az.federated.token.file",
    "az.tenant.id",
];

fn parse_access(values: &Values<'_>) -> Result<Access> {
    let given: Vec<&str> = ["az.account.key", "az.sas.token", "az.sas.token.file"]
        .into_iter()
        .filter(|name| values.text(name).is_some())
        .collect();
    if let [first, second, ..] = given[..] {
        return Err(invalid(
            second,
            format!("authorizes requests, and so does {first}: one of them too many"),
        ));
    }
    let Some(&name) = given.first() else { return parse_identity(values).map(Access::Token) };
    if let Some(other) = TOKEN_SETTINGS.into_iter().find(|name| values.text(name).is_some()) {
        let detail = format!("says how tokens are had, but {name} is given, with which none are asked for");
        return Err(invalid(other, detail));
    }
    let value = values.text(name).unwrap_or_default();
    match name {
        "az.account.key" => match STANDARD.decode(value) {
            Ok(key) if !key.is_empty() => Ok(Access::Key(KeyBytes(key))),
            _ => Err(invalid(name, "is no base64 text")),
        },
        "az.sas.token" => parse_sas(value).map(Access::Sas).map_err(|flaw| invalid(name, flaw)),
        _ => Ok(Access::SasFile(value.to_owned())),
    }
}

/// The pairs of a shared access signature, without what may surround them.
pub(super) fn parse_sas(text: &str) -> std::result::Result<Secret, &'static str> {
    let text = text.trim();
    let pairs = text.strip_prefix('?').unwrap_or(text);
    if !pairs.split('&').any(|pair| pair.starts_with("sig=")) {
        return Err("is no shared access signature: it holds no sig=");
    }
    if !pairs.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err("is no shared access signature: it must be percent-encoded, and one line");
    }
    Ok(Secret::new(pairs))
}

fn parse_identity(values: &Values<'_>) -> Result<Identity> {
    let text = |name: &str| values.text(name).map(str::to_owned);
    let source = match values.word("az.auth") {
        Some("cli") => TokenSource::Cli,
        Some("client-secret") => TokenSource::ClientSecret,
        Some("managed-identity") => TokenSource::ManagedIdentity,
        Some("workload-identity") => TokenSource::WorkloadIdentity,
        _ => TokenSource::Default,
    };
    let (secret, file) = ("az.client.secret", "az.federated.token.file");
    if values.text(secret).is_some() && values.text(file).is_some() {
        return Err(invalid(file, format!("is for a workload identity, but {secret} is given too")));
    }
    let unused: &[&str] = match source {
        TokenSource::Default => &[],
        TokenSource::Cli => &[secret, file, "az.client.id", "az.authority.host"],
        TokenSource::ClientSecret => &[file],
        TokenSource::ManagedIdentity => &[secret, file, "az.tenant.id", "az.authority.host"],
        TokenSource::WorkloadIdentity => &[secret],
    };
    if let Some(name) = unused.iter().find(|name| values.text(name).is_some()) {
        let word = values.word("az.auth").unwrap_or_default();
        return Err(invalid(name, format!("means nothing where az.auth is {word}")));
    }
    if values.text("az.authority.host").is_some_and(|host| !host.starts_with("https://")) {
        return Err(invalid("az.authority.host", "must begin with https://"));
    }
    Ok(Identity {
        source,
        client_id: text("az.client.id"),
        tenant_id: text("az.tenant.id"),
        client_secret: values.text(secret).map(Secret::new),
        token_file: text(file),
        authority_host: text("az.authority.host"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn parse(url: &str, pairs: &[(&str, &str)]) -> std::result::Result<Config, String> {
        let given: BTreeMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let values = Values::parse("az", &given).unwrap();
        Config::parse(&Url::parse(url).unwrap(), &values).map_err(|error| error.to_string())
    }

    #[test]
    fn a_location_is_account_container_and_prefix() {
        let config = parse("az://account1/some-container/a/b/", &[]).unwrap();
        assert_eq!(config.url, "az://account1/some-container/a/b");
        assert_eq!(config.container.as_str(), "https://account1.blob.core.windows.net/some-container");
        assert_eq!((config.container_name.as_str(), config.prefix.as_str()), ("some-container", "a/b/"));
        let endpoint = ("az.endpoint.url", "http://127.0.0.1:10000/account1/");
        let config = parse("az://account1/box", &[endpoint, ("az.account.key", "aGk=")]).unwrap();
        assert_eq!(
            (config.container.as_str(), config.prefix.as_str()),
            ("http://127.0.0.1:10000/account1/box", "")
        );
        for (url, word) in [
            ("az:///box", "no account"),
            ("az://account1", "no container"),
            ("az://account1:80/box", "az.endpoint.url"),
            ("az://Account/box", "small letters"),
            ("az://account.blob.core.windows.net/box", "small letters"),
            ("az://account1/a--b", "single dashes"),
            ("az://account1/$root", "single dashes"),
            ("az://account1/box/a//b", "prefix"),
            ("az://account1/box/ä", "prefix"),
        ] {
            let text = parse(url, &[]).unwrap_err();
            assert!(text.contains(word), "{url}: {text}");
        }
    }

    #[test]
    fn contradictions_are_told_by_name() {
        let (key, sas) = (("az.account.key", "aHVzaA=="), ("az.sas.token", "sv=1&sig=hush"));
        for (pairs, words) in [
            (vec![key, sas], vec!["az.sas.token", "az.account.key"]),
            (vec![key, ("az.sas.token.file", "/f")], vec!["az.sas.token.file", "az.account.key"]),
            (vec![sas, ("az.auth", "cli")], vec!["az.auth", "az.sas.token"]),
            (vec![key, ("az.client.id", "c")], vec!["az.client.id", "az.account.key"]),
            (vec![("az.account.key", "hush!")], vec!["az.account.key", "base64"]),
            (vec![("az.sas.token", "hush")], vec!["az.sas.token", "sig="]),
            (vec![("az.auth", "cli"), ("az.client.secret", "hush")], vec!["az.client.secret", "cli"]),
            (vec![("az.auth", "managed-identity"), ("az.tenant.id", "t")], vec!["az.tenant.id", "managed"]),
            (
                vec![("az.client.secret", "hush"), ("az.federated.token.file", "/f")],
                vec!["az.federated.token.file", "az.client.secret"],
            ),
            (vec![("az.authority.host", "http://login")], vec!["az.authority.host", "https://"]),
            (vec![("az.endpoint.url", "http://there")], vec!["az.endpoint.url", "plain http", "token"]),
            (vec![("az.endpoint.url", "http://localhost")], vec!["az.endpoint.url", "plain http", "token"]),
            (
                vec![sas, ("az.endpoint.url", "http://there")],
                vec!["az.endpoint.url", "signature", "loopback"],
            ),
            (
                vec![("az.sas.token.file", "/f"), ("az.endpoint.url", "http://10.0.0.1:10000/account1")],
                vec!["az.endpoint.url", "signature", "loopback"],
            ),
            (vec![key, ("az.endpoint.url", "http://me:hush@there")], vec!["az.endpoint.url", "password"]),
            (
                vec![sas, ("az.endpoint.url", "http://there?sig=hush")],
                vec!["az.endpoint.url", "az.sas.token"],
            ),
        ] {
            let text = parse("az://account1/box", &pairs).unwrap_err();
            assert!(
                words.iter().all(|word| text.contains(word)) && !text.contains("hush"),
                "{pairs:?}: {text}"
            );
        }
    }

    #[test]
    fn what_is_no_secret_or_stays_here_may_go_in_the_clear() {
        for access in [("az.account.key", "aGk="), ("az.sas.token", "sig=hush"), ("az.sas.token.file", "/f")]
        {
            for host in ["127.0.0.1:10000", "localhost:10000", "[::1]:10000"] {
                parse("az://account1/box", &[access, ("az.endpoint.url", &format!("http://{host}"))])
                    .unwrap();
            }
            parse("az://account1/box", &[access, ("az.endpoint.url", "https://there")]).unwrap();
        }
        let key = ("az.account.key", "aGk=");
        parse("az://account1/box", &[key, ("az.endpoint.url", "http://there")]).unwrap();
    }

    #[test]
    fn secrets_are_not_printed() {
        for pairs in [
            [("az.account.key", "aHVzaA=="), ("az.proxy.url", "http://me:hush@proxy")],
            [("az.sas.token", "?sv=1&sig=hush"), ("az.timeout.ms", "1")],
            [("az.client.secret", "hush"), ("az.client.id", "c")],
        ] {
            let text = format!("{:?}", parse("az://account1/box", &pairs).unwrap());
            assert!(
                !text.contains("hush") && !text.contains("aHVzaA") && text.contains("[hidden]"),
                "{text}"
            );
        }
    }
}
