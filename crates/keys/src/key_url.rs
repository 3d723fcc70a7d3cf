//! Names of keys. Each key has one spelling per name: hosts in small letters, the port of a Vault always there, no
//! escapes. What follows from a name (a host to send a token to, a path) is taken from its parsed parts alone, whose
//! characters are checked one by one, so that no name leads elsewhere than it says.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::error::{Error, Result};

/// A longer URL is refused.
pub const KEY_URL_MAX_BYTES: usize = 512;
/// Vault's own port.
const VAULT_PORT: u16 = 8200;

/// Hosts of Azure's own that keys lie on, of all its clouds. No other host gets one of its tokens.
const AZURE_HOSTS: [&str; 6] = [
    ".vault.azure.net",
    ".managedhsm.azure.net",
    ".vault.azure.cn",
    ".managedhsm.azure.cn",
    ".vault.usgovcloudapi.net",
    ".managedhsm.usgovcloudapi.net",
];

/// Where a key lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// The file key ring.
    Ring,
    AwsKms,
    GcpKms,
    AzureKms,
    /// HashiCorp Vault or OpenBao.
    Vault,
}

/// Names a key-encryption key: what stands in configuration and in key records. Never holds secrets.
///
/// | service | form |
/// |---|---|
/// | file key ring | `ring:ID` |
/// | AWS | `aws-kms://REGION/KEY-ID`, `aws-kms://REGION/alias/NAME`, `aws-kms://arn:aws:kms:REGION:ACCOUNT:key/ID` (or `:alias/NAME`); a bare ARN is taken too |
/// | Google | `gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K`, without a version |
/// | Azure | `azure-kms://HOST/keys/NAME` or `…/NAME/VERSION` |
/// | Vault, OpenBao | `vault://HOST[:PORT]/MOUNT/KEY` (8200 without a port); `vault+http://` on a loopback address only |
#[derive(Clone)]
pub struct KeyUrl {
    text: String,
    name: Name,
}

/// The parts of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Ring {
        id: String,
    },
    /// `id` is what AWS calls a key id: an id, `alias/…` or an ARN.
    Aws {
        region: String,
        id: String,
    },
    /// `projects/…/cryptoKeys/…`.
    Gcp {
        resource: String,
    },
    Azure {
        host: String,
        key: String,
        version: Option<String>,
    },
    Vault {
        tls: bool,
        /// With its port.
        authority: String,
        mount: String,
        key: String,
    },
}

impl KeyUrl {
    /// # Errors
    /// [`Kind::Invalid`](crate::Kind::Invalid), saying what is expected. What may hold a secret is not shown.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |flaw: &str| Error::configuration(shown(text), flaw);
        if text.len() > KEY_URL_MAX_BYTES {
            return Err(refuse(&format!("longer than {KEY_URL_MAX_BYTES} bytes")));
        }
        let name = if let Some(id) = text.strip_prefix("ring:") {
            ring(id)
        } else if text.contains(['@', '?', '#']) {
            Err("a key's URL has no user, password, query or fragment: what is secret belongs into settings")
        } else if let Some(rest) = text.strip_prefix("aws-kms://") {
            aws(rest)
        } else if text.starts_with("arn:") {
            arn(text)
        } else if let Some(rest) = text.strip_prefix("gcp-kms://") {
            gcp(rest)
        } else if let Some(rest) = text.strip_prefix("azure-kms://") {
            azure(rest)
        } else if let Some(rest) = text.strip_prefix("vault://") {
            vault(rest, true)
        } else if let Some(rest) = text.strip_prefix("vault+http://") {
            vault(rest, false)
        } else {
            Err("expected ring:, aws-kms://, gcp-kms://, azure-kms:// or vault://")
        };
        Ok(Self::of(name.map_err(refuse)?))
    }

    /// Of a configuration, which must say for certain which key is meant.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); of an alias of AWS, which may come to mean another key.
    pub fn configured(text: &str) -> Result<Self> {
        let url = Self::parse(text)?;
        match &url.name {
            Name::Aws { id, .. } if id.rsplit(':').next().is_some_and(|id| id.starts_with("alias/")) => {
                let flaw = "an alias may come to mean another key: name the key itself, by its id or ARN";
                Err(Error::configuration(url.as_str(), flaw))
            }
            _ => Ok(url),
        }
    }

    pub(crate) fn of(name: Name) -> Self {
        let text = match &name {
            Name::Ring { id } => format!("ring:{id}"),
            Name::Aws { id, .. } if id.starts_with("arn:") => format!("aws-kms://{id}"),
            Name::Aws { region, id } => format!("aws-kms://{region}/{id}"),
            Name::Gcp { resource } => format!("gcp-kms://{resource}"),
            Name::Azure { host, key, version: None } => format!("azure-kms://{host}/keys/{key}"),
            Name::Azure { host, key, version: Some(version) } => {
                format!("azure-kms://{host}/keys/{key}/{version}")
            }
            Name::Vault { tls, authority, mount, key } => {
                format!("vault{}://{authority}/{mount}/{key}", if *tls { "" } else { "+http" })
            }
        };
        Self { text, name }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn service(&self) -> Service {
        match self.name {
            Name::Ring { .. } => Service::Ring,
            Name::Aws { .. } => Service::AwsKms,
            Name::Gcp { .. } => Service::GcpKms,
            Name::Azure { .. } => Service::AzureKms,
            Name::Vault { .. } => Service::Vault,
        }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Whether `self`, as it stands in a configuration, names the key that `used`, as a service answered, names
    /// more exactly: an Azure key its versions, an AWS key's id its ARN. `None` for an AWS alias against a key:
    /// only the service knows.
    pub fn covers(&self, used: &Self) -> Option<bool> {
        match (&self.name, &used.name) {
            (Name::Azure { host, key, version }, Name::Azure { host: h, key: k, version: v }) => {
                Some(host == h && key.eq_ignore_ascii_case(k) && (version.is_none() || version == v))
            }
            (Name::Aws { region, id }, Name::Aws { region: r, id: i }) => {
                aws_covers(id, i).map(|same| same && region == r)
            }
            (a, b) => Some(a == b),
        }
    }
}

fn aws_covers(asked: &str, used: &str) -> Option<bool> {
    let local = |id: &str| id.rsplit_once(':').map_or(id, |(_, local)| local).to_owned();
    let (asked_local, used_local) = (local(asked), local(used));
    let (asked_alias, used_alias) = (asked_local.starts_with("alias/"), used_local.starts_with("alias/"));
    if asked_alias != used_alias {
        return None;
    }
    let both_arns = asked.starts_with("arn:") && used.starts_with("arn:");
    let plain = |id: &str| id.strip_prefix("key/").unwrap_or(id).to_owned();
    Some(if both_arns { asked == used } else { plain(&asked_local) == plain(&used_local) })
}

/// What of a refused text an error may show.
fn shown(text: &str) -> String {
    let plain = text.len() <= KEY_URL_MAX_BYTES
        && text.bytes().all(|b| b.is_ascii_graphic() && !b"@?#%\"".contains(&b));
    if plain { text.to_owned() } else { "a key's URL (not shown)".to_owned() }
}

type Parsed = std::result::Result<Name, &'static str>;

/// 1 to `max` of letters, digits and `more`.
fn plain(text: &str, max: usize, more: &[u8]) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
}

fn ring(id: &str) -> Parsed {
    if (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(Name::Ring { id: id.to_owned() });
    }
    Err("expected ring:ID, where ID is 1 to 64 printable ASCII characters")
}

const AWS_FORM: &str = "expected aws-kms://REGION/KEY-ID, aws-kms://REGION/alias/NAME or aws-kms://arn:aws:kms:REGION:ACCOUNT:key/ID";

fn aws(rest: &str) -> Parsed {
    if rest.starts_with("arn:") {
        return arn(rest);
    }
    let (region, id) = rest.split_once('/').ok_or(AWS_FORM)?;
    let fits = aws_region(region) && (aws_key_id(id) || aws_alias(id));
    fits.then(|| Name::Aws { region: region.to_owned(), id: id.to_owned() }).ok_or(AWS_FORM)
}

fn arn(text: &str) -> Parsed {
    let parts: Vec<_> = text.splitn(6, ':').collect();
    let [_, partition, "kms", region, account, resource] = parts[..] else { return Err(AWS_FORM) };
    let named = resource.strip_prefix("key/").is_some_and(aws_key_id) || aws_alias(resource);
    let owned = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    if !(named && owned && plain(partition, 32, b"-") && aws_region(region)) {
        return Err(AWS_FORM);
    }
    Ok(Name::Aws { region: region.to_owned(), id: text.to_owned() })
}

/// It becomes a part of a host's name.
fn aws_region(region: &str) -> bool {
    let small = region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    small && (1..=32).contains(&region.len()) && !region.starts_with('-') && !region.ends_with('-')
}

fn aws_key_id(id: &str) -> bool {
    plain(id, 64, b"-")
}

fn aws_alias(id: &str) -> bool {
    id.strip_prefix("alias/").is_some_and(|name| plain(name, 250, b"/_-"))
}

fn gcp(rest: &str) -> Parsed {
    let form = "expected gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K";
    let parts: Vec<_> = rest.split('/').collect();
    if matches!(parts[..], [_, _, _, _, _, _, _, _, "cryptoKeyVersions", ..]) {
        return Err(
            "a version of the key may not be given: Google wraps with the primary one and finds by itself which one unwraps",
        );
    }
    let ["projects", project, "locations", location, "keyRings", ring, "cryptoKeys", key] = parts[..] else {
        return Err(form);
    };
    let fits = plain(project, 100, b"-.:")
        && project.bytes().any(|b| b.is_ascii_alphanumeric())
        && plain(location, 63, b"-")
        && plain(ring, 63, b"_-")
        && plain(key, 63, b"_-");
    fits.then(|| Name::Gcp { resource: rest.to_owned() }).ok_or(form)
}

fn azure(rest: &str) -> Parsed {
    let form = "expected azure-kms://NAME.vault.azure.net/keys/KEY or …/keys/KEY/VERSION (or a host under managedhsm.azure.net, or of Azure's other clouds)";
    let parts: Vec<_> = rest.split('/').collect();
    let (host, key, version) = match parts[..] {
        [host, "keys", key] => (host, key, None),
        [host, "keys", key, version] => (host, key, Some(version)),
        _ => return Err(form),
    };
    let host = host.to_ascii_lowercase();
    let label = AZURE_HOSTS.iter().find_map(|suffix| host.strip_suffix(suffix));
    let fits = label.is_some_and(|label| plain(label, 63, b"-"))
        && plain(key, 127, b"-")
        && version.is_none_or(|version| plain(version, 64, b""));
    if !fits {
        return Err(form);
    }
    Ok(Name::Azure { host, key: key.to_owned(), version: version.map(str::to_owned) })
}

fn vault(rest: &str, tls: bool) -> Parsed {
    let form = "expected vault://HOST[:PORT]/MOUNT/KEY";
    let (authority, path) = rest.split_once('/').ok_or(form)?;
    let (mount, key) = path.rsplit_once('/').ok_or(form)?;
    let step = |step: &str| plain(step, 128, b"_-.") && step.bytes().any(|b| b != b'.');
    if !mount.split('/').all(step) || !step(key) {
        return Err(form);
    }
    let (host, _) = host_and_port(authority).ok_or(form)?;
    if !tls && !is_loopback(&host) {
        return Err("vault+http:// sends keys in the clear: it is for loopback addresses only");
    }
    let authority = vault_authority(authority).ok_or(form)?;
    Ok(Name::Vault { tls, authority, mount: mount.to_owned(), key: key.to_owned() })
}

/// A Vault's host with its port, as it stands in key URLs.
pub(crate) fn vault_authority(text: &str) -> Option<String> {
    let (host, port) = host_and_port(text)?;
    Some(format!("{host}:{}", port.unwrap_or(VAULT_PORT)))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; a v6 address keeps its brackets.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            (format!("[{address}]"), port.strip_prefix(':').or(port.is_empty().then_some("")))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
            None => (authority.to_ascii_lowercase(), Some("")),
        },
    };
    let named = host.starts_with('[') || host.split('.').all(|label| plain(label, 63, b"-_"));
    let port = match port? {
        "" if authority.ends_with(':') => return None,
        "" => None,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port > 0)?)
        }
        _ => return None,
    };
    (named && host.len() <= 253).then_some((host, port))
}

/// Of a URL's host, brackets and all.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl FromStr for KeyUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for KeyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for KeyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyUrl({})", self.text)
    }
}

impl PartialEq for KeyUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for KeyUrl {}

impl Hash for KeyUrl {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn each_name_has_one_spelling() {
        let arn = format!("arn:aws:kms:eu-west-1:111122223333:key/{ID}");
        for (given, normal, service) in [
            ("ring:2026/a@b?", "ring:2026/a@b?".to_owned(), Service::Ring),
            (&arn, format!("aws-kms://{arn}"), Service::AwsKms),
            (&format!("aws-kms://{arn}"), format!("aws-kms://{arn}"), Service::AwsKms),
            ("aws-kms://eu-west-1/mrk-12", "aws-kms://eu-west-1/mrk-12".to_owned(), Service::AwsKms),
            ("aws-kms://eu-west-1/alias/a/b", "aws-kms://eu-west-1/alias/a/b".to_owned(), Service::AwsKms),
            (
                "gcp-kms://projects/example.com:p/locations/global/keyRings/r/cryptoKeys/k",
                "gcp-kms://projects/example.com:p/locations/global/keyRings/r/cryptoKeys/k".to_owned(),
                Service::GcpKms,
            ),
            (
                "azure-kms://Mine.Vault.Azure.NET/keys/K1",
                "azure-kms://mine.vault.azure.net/keys/K1".to_owned(),
                Service::AzureKms,
            ),
            (
                "azure-kms://m.managedhsm.azure.net/keys/k/0a1b",
                "azure-kms://m.managedhsm.azure.net/keys/k/0a1b".to_owned(),
                Service::AzureKms,
            ),
            (
                "vault://Vault.Example/transit/k",
                "vault://vault.example:8200/transit/k".to_owned(),
                Service::Vault,
            ),
            ("vault://h:443/a/b/k", "vault://h:443/a/b/k".to_owned(), Service::Vault),
            ("vault://[0:0::1]:1/t/k", "vault://[::1]:1/t/k".to_owned(), Service::Vault),
            ("vault+http://[::1]/t/k", "vault+http://[::1]:8200/t/k".to_owned(), Service::Vault),
            ("vault+http://127.0.0.1:1/t/k", "vault+http://127.0.0.1:1/t/k".to_owned(), Service::Vault),
        ] {
            let url = KeyUrl::parse(given).unwrap();
            assert_eq!((url.as_str(), url.service()), (normal.as_str(), service));
            assert_eq!(KeyUrl::parse(url.as_str()).unwrap(), url);
            assert_eq!(url.to_string().parse::<KeyUrl>().unwrap().name(), url.name());
        }
    }

    #[test]
    fn a_configuration_names_no_alias() {
        for alias in ["aws-kms://eu-west-1/alias/a", "arn:aws:kms:eu-west-1:111122223333:alias/a"] {
            assert!(KeyUrl::parse(alias).is_ok());
            assert!(KeyUrl::configured(alias).unwrap_err().detail.contains("id or ARN"));
        }
        KeyUrl::configured("arn:aws:kms:eu-west-1:111122223333:key/a").unwrap();
        KeyUrl::configured("ring:alias/a").unwrap();
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for bad in [
            "",
            "ring:",
            "ring:a b",
            "kms://x/y",
            "aws-kms://eu-west-1",
            "aws-kms://evil.example/x",
            "aws-kms://-/x",
            "aws-kms://eu-west-1/alias/",
            "aws-kms://eu-west-1/key/../x",
            "aws-kms://arn:aws:kms:eu-west-1:1:key/x",
            "arn:aws:s3:eu-west-1:111122223333:key/x",
            "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
            "gcp-kms://projects/../locations/l/keyRings/r/cryptoKeys/k",
            "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k:destroy",
            "azure-kms://vault.azure.net/keys/k",
            "azure-kms://evil.example/keys/k",
            "azure-kms://evil.example.vault.azure.net/keys/k",
            "azure-kms://a.vault.azure.net:1/keys/k",
            "azure-kms://a.vault.azure.net/secrets/k",
            "azure-kms://a.vault.azure.net/keys/k/",
            "vault://h/k",
            "vault://h//k",
            "vault://h/../k",
            "vault://h/t/..",
            "vault://h:/t/k",
            "vault://h:0/t/k",
            "vault://h:+1/t/k",
            "vault://h:65536/t/k",
            "vault://::1/t/k",
            "vault://h%2f/t/k",
            "vault+http://vault.example/t/k",
            "vault+http://127.0.0.1.example/t/k",
        ] {
            assert!(KeyUrl::parse(bad).is_err(), "{bad}");
        }
        assert!(KeyUrl::parse(&format!("ring:{}", "x".repeat(65))).is_err());
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        for bad in [
            "vault://user:hush@h/t/k",
            "vault://h/t/k?token=hush",
            "vault://h/t/k#hush",
            "hush@x",
            "azure-kms://a.vault.azure.net/keys/k?x=hush",
        ] {
            let error = KeyUrl::parse(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
        let error = KeyUrl::parse("vault://h/k").unwrap_err().to_string();
        assert!(error.contains("vault://h/k") && error.contains("MOUNT"), "{error}");
    }

    #[test]
    fn a_name_covers_what_it_was_resolved_to() {
        let arn = |id: &str| format!("aws-kms://arn:aws:kms:eu-west-1:111122223333:{id}");
        for (asked, used, expected) in [
            ("ring:a", "ring:a".to_owned(), Some(true)),
            ("ring:a", "ring:b".to_owned(), Some(false)),
            ("aws-kms://eu-west-1/k", arn("key/k"), Some(true)),
            ("aws-kms://eu-west-1/k", arn("key/l"), Some(false)),
            ("aws-kms://eu-west-2/k", arn("key/k"), Some(false)),
            ("aws-kms://eu-west-1/alias/k", arn("key/k"), None),
            (
                "azure-kms://a.vault.azure.net/keys/k",
                "azure-kms://a.vault.azure.net/keys/K/1".to_owned(),
                Some(true),
            ),
            (
                "azure-kms://a.vault.azure.net/keys/k/2",
                "azure-kms://a.vault.azure.net/keys/k/1".to_owned(),
                Some(false),
            ),
            (
                "azure-kms://b.vault.azure.net/keys/k",
                "azure-kms://a.vault.azure.net/keys/k/1".to_owned(),
                Some(false),
            ),
        ] {
            let used = KeyUrl::parse(&used).unwrap();
            assert_eq!(KeyUrl::parse(asked).unwrap().covers(&used), expected, "{asked} {used}");
        }
    }
}
