//! The key services' own settings as data: parsed by it, documented from it.

use std::collections::BTreeMap;
use std::fmt;

use varve_store::{Setting, SettingKind, nearest};

use crate::error::Error;

/// Text of no certain kind.
const TEXT: SettingKind = SettingKind::Text("text");
const PATH: SettingKind = SettingKind::Text("a path");

const MINUTES_10_MS: u64 = 600_000;

const SETTINGS: &[Setting] = &[
    Setting::new(
        "kms.aws.access.key.id",
        TEXT,
        None,
        "Access key for AWS KMS. Without it the AWS SDK's chain is asked: environment, profile, web identity, container, instance.",
    ),
    Setting::new(
        "kms.aws.endpoint.url",
        SettingKind::Url,
        None,
        "Address of AWS KMS where it is not AWS's own of the key's region: a VPC endpoint, for instance. http:// on loopback addresses only.",
    ),
    Setting::new(
        "kms.aws.profile",
        TEXT,
        None,
        "Profile of the AWS configuration files for AWS KMS. Default: `AWS_PROFILE`, else `default`.",
    ),
    Setting::new("kms.aws.secret.access.key", TEXT, None, "Secret key that belongs to `kms.aws.access.key.id`.")
        .secret(),
    Setting::new("kms.aws.session.token", TEXT, None, "Session token of temporary keys for AWS KMS.").secret(),
    Setting::new(
        "kms.azure.algorithm",
        SettingKind::Choice(&["RSA-OAEP-256", "A256GCM"]),
        Some("RSA-OAEP-256"),
        "How Azure wraps: `RSA-OAEP-256` with RSA keys of a vault or a Managed HSM, `A256GCM` with AES keys of a Managed HSM. Whoever has the public part of an RSA key can wrap with it.",
    ),
    Setting::new(
        "kms.azure.authority.url",
        SettingKind::Url,
        None,
        "Address of Microsoft Entra. Default: that of the cloud that the key's host belongs to.",
    ),
    Setting::new(
        "kms.azure.client.id",
        TEXT,
        None,
        "Application that asks Azure for keys; with no secret and no token file, the client id of a user-assigned managed identity. Default: `AZURE_CLIENT_ID` with a federated token file, else the system-assigned identity.",
    ),
    Setting::new("kms.azure.client.secret", TEXT, None, "Client secret of `kms.azure.client.id`.").secret(),
    Setting::new(
        "kms.azure.client.secret.file",
        PATH,
        None,
        "File that holds the client secret of `kms.azure.client.id`.",
    ),
    Setting::new(
        "kms.azure.endpoint.url",
        SettingKind::Url,
        None,
        "Address that requests for Azure keys are sent to instead of the host in the key's URL. http:// on loopback addresses only.",
    ),
    Setting::new(
        "kms.azure.federated.token.file",
        PATH,
        None,
        "File with the federated token of a workload identity, read again when it changes. Default: `AZURE_FEDERATED_TOKEN_FILE`, unless a client secret is given.",
    ),
    Setting::new(
        "kms.azure.tenant.id",
        TEXT,
        None,
        "Microsoft Entra tenant of `kms.azure.client.id`. Default: `AZURE_TENANT_ID` with a federated token file.",
    ),
    Setting::new(
        "kms.connect.timeout.ms",
        SettingKind::Integer { min: 1, max: MINUTES_10_MS },
        Some("5000"),
        "Longest wait for a connection to a key service.",
    ),
    Setting::new(
        "kms.gcp.credentials.file",
        PATH,
        None,
        "JSON file with Google credentials: of a service account, a workload identity federation or a user. Default: `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's own, the metadata server.",
    ),
    Setting::new(
        "kms.gcp.endpoint.url",
        SettingKind::Url,
        Some("https://cloudkms.googleapis.com"),
        "Address of Google Cloud KMS: a regional one, or one of Private Service Connect. http:// on loopback addresses only.",
    ),
    Setting::new(
        "kms.max.attempts",
        SettingKind::Integer { min: 1, max: 100 },
        Some("4"),
        "How often a request to a key service is sent in all before its error is reported. Only what may pass by itself is sent again: throttling, 5xx, timeouts, broken connections.",
    ),
    Setting::new(
        "kms.proxy.url",
        SettingKind::Url,
        None,
        "HTTP proxy to the key services, with user and password if it wants them; also for what AWS's library asks to get its credentials, not for what Google's asks. Never for this machine, nor for the metadata services of a machine or container. Without it there is none, whatever the environment says.",
    )
    .secret(),
    Setting::new(
        "kms.timeout.ms",
        SettingKind::Integer { min: 1, max: MINUTES_10_MS },
        Some("10000"),
        "Longest time that one attempt of a request to a key service may take.",
    ),
    Setting::new(
        "kms.tls.ca.file",
        PATH,
        None,
        "PEM file of certificate authorities that key services may be certified by, besides the system's. It is read again when it changes.",
    ),
    Setting::new(
        "kms.vault.auth",
        SettingKind::Choice(&["token", "approle", "kubernetes"]),
        Some("token"),
        "How to log in to Vault: with a token that is there, with a role's id and secret, or with a Kubernetes service account.",
    ),
    Setting::new(
        "kms.vault.auth.mount",
        TEXT,
        None,
        "Path that the login method is mounted at. Default: its name.",
    ),
    Setting::new(
        "kms.vault.kubernetes.jwt.file",
        PATH,
        Some("/var/run/secrets/kubernetes.io/serviceaccount/token"),
        "Token of the service account, for `kms.vault.auth` = `kubernetes`. Read at each login.",
    ),
    Setting::new("kms.vault.kubernetes.role", TEXT, None, "Vault's role for `kms.vault.auth` = `kubernetes`."),
    Setting::new("kms.vault.namespace", TEXT, None, "Namespace in Vault Enterprise or OpenBao."),
    Setting::new("kms.vault.role.id", TEXT, None, "Role id for `kms.vault.auth` = `approle`."),
    Setting::new(
        "kms.vault.secret.id.file",
        PATH,
        None,
        "File with the secret id for `kms.vault.auth` = `approle`. Read at each login.",
    ),
    Setting::new("kms.vault.token", TEXT, None, "Token for `kms.vault.auth` = `token`.").secret(),
    Setting::new(
        "kms.vault.token.file",
        PATH,
        None,
        "File with the token for `kms.vault.auth` = `token`, as an agent keeps it. Read at each use.",
    ),
];

/// All settings of all key services, sorted by name.
pub fn settings() -> &'static [Setting] {
    SETTINGS
}

/// Settings, each known and of its kind.
pub(crate) struct Values<'a> {
    values: BTreeMap<&'static str, &'a str>,
}

impl<'a> Values<'a> {
    /// What is right of them, and all that is wrong.
    pub(crate) fn examine(given: &'a BTreeMap<String, String>) -> (Self, Vec<Error>) {
        let (mut values, mut flaws) = (BTreeMap::new(), Vec::new());
        for (name, value) in given {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
                flaws.push(Error::configuration(name, unknown(name)));
                continue;
            };
            let value = value.trim();
            match setting.check(value) {
                Ok(()) => _ = values.insert(setting.name, setting.kind.canonical(value)),
                Err(problem) => flaws.push(Error::configuration(name, problem)),
            }
        }
        (Self { values }, flaws)
    }

    pub(crate) fn given(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).copied()
    }

    /// The value, else the table's default.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.given(name)
            .or_else(|| SETTINGS.iter().find(|setting| setting.name == name).and_then(|known| known.default))
    }

    /// Values were checked when they were parsed.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.text(name).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    pub(crate) fn secret(&self, name: &str) -> Option<Secret> {
        self.given(name).map(Secret::new)
    }
}

fn unknown(name: &str) -> String {
    match nearest(name, SETTINGS.iter().map(|setting| setting.name)) {
        Some((near, true)) => format!("no such setting; did you mean {near}?"),
        _ => {
            let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            format!("no such setting; there are {}", names.join(", "))
        }
    }
}

/// A value that is never printed, and wiped when it is no longer needed.
#[derive(Clone)]
pub(crate) struct Secret(zeroize::Zeroizing<String>);

impl Secret {
    pub(crate) fn new(value: &str) -> Self {
        Self(zeroize::Zeroizing::new(value.to_owned()))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(zeroize::Zeroizing::new(value))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, value: &str) -> String {
        let given = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let (_, flaws) = Values::examine(&given);
        assert_eq!(flaws.len(), 1, "{name}={value}");
        format!("{} {:?}", flaws[0], flaws[0])
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_valid() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
        for setting in SETTINGS {
            assert!(setting.name.starts_with("kms."), "{}", setting.name);
            if let Some(default) = setting.default {
                setting.check(default).unwrap();
            }
        }
    }

    #[test]
    fn errors_name_setting_value_and_what_is_allowed() {
        assert!(refused("kms.vault.tokn", "x").contains("did you mean kms.vault.token?"));
        assert!(refused("banana", "x").contains("kms.gcp.endpoint.url"));
        let text = refused("kms.timeout.ms", "soon");
        assert!(text.contains("soon") && text.contains("1 to 600000"), "{text}");
        assert!(refused("kms.vault.auth", "ldap").contains("token, approle, kubernetes"));
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("hush")), "[hidden]");
        assert!(!refused("kms.proxy.url", "user:hush@proxy").contains("hush"));
    }
}
