//! From a URL and settings to a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

#[cfg(feature = "azure")]
use crate::azure::AzureStore;
use crate::contract::{Result, SharedStore};
use crate::error::{Error, Kind};
use crate::filesystem::FilesystemStore;
use crate::memory::MemoryStore;
#[cfg(feature = "s3")]
use crate::s3::S3Store;
use crate::settings::Values;

const SCHEMES: &str =
    "s3://bucket/prefix, gs://bucket/prefix, az://account/container/prefix, file:///directory, memory://name";

/// Opens a store by its URL, which is one of these. `given` are the store's own settings
/// (see [`settings`](crate::settings)); an unknown one, or a wrong value, is [`Kind::Invalid`]. Nothing is sent
/// yet: whether the store answers shows with the first call.
pub async fn open(url: &str, given: &BTreeMap<String, String>) -> Result<SharedStore> {
    let parsed = parse_url(url)?;
    let values = |scheme| Values::parse(scheme, given);
    match parsed.scheme() {
        "memory" => {
            values("memory")?;
            Ok(Arc::new(MemoryStore::named(parsed.host_str().unwrap_or_default())))
        }
        "file" => {
            values("file")?;
            let path = parsed.to_file_path().map_err(|()| no_directory(url))?;
            let store = tokio::task::spawn_blocking(move || FilesystemStore::open(path)).await;
            match store {
                Ok(store) => Ok(Arc::new(store?)),
                Err(error) => Err(Error::new(Kind::Other, "open", url, error.to_string())),
            }
        }
        #[cfg(feature = "s3")]
        "s3" => Ok(Arc::new(S3Store::open(&parsed, &values("s3")?).await?)),
        #[cfg(feature = "azure")]
        "az" => Ok(Arc::new(AzureStore::open(&parsed, &values("az")?)?)),
        #[cfg(feature = "gcs")]
        "gs" => Ok(Arc::new(crate::gcs::GcsStore::open(&parsed, &values("gs")?).await?)),
        other => Err(unknown_scheme(url, other)),
    }
}

/// All that [`open`] would refuse without asking the store, so that it can be told at once.
pub fn check(url: &str, given: &BTreeMap<String, String>) -> Vec<Error> {
    let parsed = match parse_url(url) {
        Ok(parsed) => parsed,
        Err(flaw) => return vec![flaw],
    };
    if !is_known(parsed.scheme()) {
        return vec![unknown_scheme(url, parsed.scheme())];
    }
    #[allow(unused_variables, reason = "only where no store has settings")]
    let (values, mut flaws) = Values::examine(parsed.scheme(), given);
    match parsed.scheme() {
        "file" if parsed.to_file_path().is_err() => flaws.push(no_directory(url)),
        #[cfg(feature = "s3")]
        "s3" => flaws.extend(S3Store::check(&parsed, &values)),
        #[cfg(feature = "azure")]
        "az" => flaws.extend(AzureStore::check(&parsed, &values)),
        #[cfg(feature = "gcs")]
        "gs" => flaws.extend(crate::gcs::GcsStore::check(&parsed, &values)),
        _ => {}
    }
    flaws
}

fn is_known(scheme: &str) -> bool {
    let compiled_in =
        [("az", cfg!(feature = "azure")), ("gs", cfg!(feature = "gcs")), ("s3", cfg!(feature = "s3"))];
    matches!(scheme, "memory" | "file") || compiled_in.contains(&(scheme, true))
}

fn parse_url(url: &str) -> Result<Url> {
    let parsed = Url::parse(url.trim()).map_err(|error| invalid(url, &format!("is no URL ({error})")))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        let mut bare = parsed.clone();
        let _ = (bare.set_username(""), bare.set_password(None));
        return Err(invalid(bare.as_str(), "holds a user or password; keys are given as settings"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(invalid(url, "holds ? or #, which mean nothing in a store's URL"));
    }
    Ok(parsed)
}

fn no_directory(url: &str) -> Error {
    invalid(url, "names no directory of this machine")
}

fn unknown_scheme(url: &str, scheme: &str) -> Error {
    invalid(url, &format!("begins with {scheme}://, which no store has"))
}

/// What of a store's URL may be printed: where a user, a password, a signature or a token may stand, it is cut.
pub fn shown_url(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (kept, cut) = url.split_at(end);
    let (scheme, rest) = kept.split_once("://").unwrap_or(("", kept));
    let authority = rest.split('/').next().unwrap_or_default();
    let bare =
        authority.rsplit_once('@').map_or(rest, |(user, _)| rest.get(user.len() + 1..).unwrap_or_default());
    let colon = if scheme.is_empty() { "" } else { "://" };
    let end = if cut.is_empty() { "" } else { "[…]" };
    format!("{scheme}{colon}{bare}{end}")
}

fn invalid(url: &str, flaw: &str) -> Error {
    let url = shown_url(url);
    Error::new(Kind::Invalid, "open", url, format!("the store's URL {flaw}: expected one of {SCHEMES}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_flaws_are_told_at_once() {
        let check = |url: &str, pairs: &[(&str, &str)]| -> Vec<_> {
            let given = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            check(url, &given).iter().map(ToString::to_string).collect()
        };
        let flaws = check("s3://bucket:80/", &[("s3.regoin", "x"), ("s3.timeout.ms", "soon")]);
        assert!(
            flaws.len() == 3 && flaws[0].contains("s3.region?") && flaws[2].contains("port"),
            "{flaws:?}"
        );
        let flaws = check("s3://bucket", &[("s3.access.key.id", "x")]);
        assert!(flaws.len() == 1 && flaws[0].contains("s3.secret.access.key"), "{flaws:?}");
        assert!(check("file:///there", &[("s3.region", "x")])[0].contains("belongs to"));
        assert!(check("ftp://there", &[])[0].contains("ftp://"));
        for url in
            ["s3://me:hush@bucket", "s3://bucket/a?sig=hush", "s3://a b/?hush", "ftp://me:hush@x/#hush"]
        {
            let flaws = check(url, &[]);
            assert!(!flaws.is_empty() && flaws.iter().all(|flaw| !flaw.contains("hush")), "{flaws:?}");
        }
        assert_eq!(shown_url("az://me:hush@a/b/c?sig=hush"), "az://a/b/c[…]");
        assert_eq!(shown_url("file:///a@b/c"), "file:///a@b/c");
        assert_eq!(check("s3://bucket/a/b", &[("s3.region", "x")]), Vec::<String>::new());
        #[cfg(feature = "azure")]
        {
            let flaws = check("az://account1", &[("az.auht", "cli")]);
            assert!(
                flaws.len() == 2 && flaws[0].contains("az.auth?") && flaws[1].contains("container"),
                "{flaws:?}"
            );
            assert_eq!(check("az://account1/box/a", &[("az.auth", "cli")]), Vec::<String>::new());
        }
    }
}
