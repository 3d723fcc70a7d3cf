//! Opening a Schema Registry: its login has the names that the archiver's config has for it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use url::Url;
use varve_cluster::{RegistryLogin, RegistrySettings, SchemaRegistry};
use varve_kafka::client::Secret;

use crate::args::properties_file;

/// Somebody is waiting.
const RETRY_FOR: Duration = Duration::from_secs(30);

pub(crate) fn open(url: &str, config: Option<&Path>) -> Result<SchemaRegistry> {
    let pairs = config.map(properties_file).transpose()?.unwrap_or_default();
    Ok(SchemaRegistry::new(settings(url, pairs)?)?)
}

fn settings(url: &str, pairs: Vec<(String, String)>) -> Result<RegistrySettings> {
    let mut settings = RegistrySettings::new(Url::parse(url).context("--schema-registry: not a URL")?);
    settings.retry_for = RETRY_FOR;
    let (mut user, mut password) = (None, None);
    for (key, value) in pairs {
        match key.as_str() {
            "schema.registry.user" => user = Some(value),
            "schema.registry.password" => password = Some(value),
            "schema.registry.ca.file" => settings.tls.ca = Some(value.into()),
            other => bail!(
                "--schema-registry-config: expected schema.registry.user, schema.registry.password or \
                 schema.registry.ca.file, found {other}"
            ),
        }
    }
    settings.login = match (user, password) {
        (Some(user), Some(password)) => {
            Some(RegistryLogin::Basic { user, password: Secret::new(password.as_str()) })
        }
        (None, None) => None,
        (Some(_), None) => bail!("--schema-registry-config: schema.registry.password is missing"),
        (None, Some(_)) => bail!("--schema-registry-config: schema.registry.user is missing"),
    };
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_whole() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(k, v)| (format!("schema.registry.{k}"), (*v).to_owned()));
            settings("https://registry:8081", pairs.collect())
        };
        let given = of(&[("user", "ann"), ("password", "p"), ("ca.file", "/ca.pem")]).unwrap();
        assert!(matches!(&given.login, Some(RegistryLogin::Basic { user, .. }) if user == "ann"));
        assert_eq!(given.tls.ca.as_deref(), Some(Path::new("/ca.pem")));
        assert!(of(&[]).unwrap().login.is_none());
        for (bad, told) in
            [("user", "password is missing"), ("password", "user is missing"), ("url", "found")]
        {
            let error = of(&[(bad, "x")]).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
