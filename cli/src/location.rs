//! From what a person types to a store and a key in it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use url::Url;
use varve_archive::Archive;
use varve_format::SegmentName;
use varve_store::{Key, SharedStore, shown_url};

use crate::args::SegmentArgs;

/// Parts of a tier segment's name: cluster, topic, partition, file.
const NAME_PARTS: usize = 4;

/// Opens a store for reading: a directory that is not there is an error, and not made.
pub(crate) async fn open_store(url: &str, settings: &BTreeMap<String, String>) -> Result<SharedStore> {
    let url = normal(url)?;
    if let Ok(parsed) = Url::parse(&url)
        && parsed.scheme() == "file"
        && let Ok(path) = parsed.to_file_path()
        && !path.is_dir()
    {
        bail!("{url}: no such directory");
    }
    Ok(varve_store::open(&url, settings).await?)
}

/// Opens an archive; its root is the store's.
pub(crate) async fn open_archive(url: &str, settings: &BTreeMap<String, String>) -> Result<Archive> {
    match Archive::open(open_store(url, settings).await?, "").await {
        Err(error @ varve_archive::Error::Missing { .. }) => Err(error)
            .with_context(|| format!("{url} holds no archive; of a tier, varve tier scrub tells how it is")),
        opened => Ok(opened?),
    }
}

/// Opens the store that holds the segment, and names the segment in it.
pub(crate) async fn open_segment(args: &SegmentArgs) -> Result<(SharedStore, Key)> {
    let url = normal(&args.url)?;
    let (store_url, key) = match &args.store_url {
        Some(store_url) => {
            let store_url = normal(store_url)?;
            let inside = url.strip_prefix(store_url.trim_end_matches('/')).and_then(|k| k.strip_prefix('/'));
            let key = inside
                .with_context(|| format!("{} does not lie in {}", shown_url(&url), shown_url(&store_url)))?;
            (store_url, key.to_owned())
        }
        None => split(&url)?,
    };
    let store = open_store(&store_url, &args.store.settings()?).await?;
    Ok((store, Key::new(key)?))
}

/// A path becomes a URL.
fn normal(text: &str) -> Result<String> {
    if text.contains("://") {
        return Ok(text.to_owned());
    }
    let path = std::path::absolute(Path::new(text)).with_context(|| text.to_owned())?;
    match Url::from_file_path(&path) {
        Ok(url) => Ok(url.into()),
        Err(()) => bail!("{text} is neither a URL nor a path"),
    }
}

/// The longest tail that is a tier segment's name is the key, since then the store is where the key records
/// are too; else the last part is.
fn split(url: &str) -> Result<(String, String)> {
    let (scheme, rest) = url.split_once("://").context("not a URL")?;
    let parts: Vec<&str> = rest.split('/').collect();
    let at = |n: usize| -> Option<(String, String)> {
        let (store, key) = parts.split_at_checked(parts.len().checked_sub(n)?)?;
        // Something must be left: the bucket, or the empty host of a file.
        (!store.is_empty()).then(|| (format!("{scheme}://{}", store.join("/")), key.join("/")))
    };
    if let Some((store, key)) = at(NAME_PARTS)
        && SegmentName::parse(&key).is_ok()
    {
        return Ok((if store == "file://" { "file:///".to_owned() } else { store }, key));
    }
    at(1).filter(|(_, key)| !key.is_empty()).with_context(|| format!("{} names no object", shown_url(url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_and_keys() {
        let name = "c/AQEBAQEBAQEBAQEBAQEBAQ/3/00000000000000000100-AgICAgICAgICAgICAgICAg.varve";
        let cases = [
            (format!("s3://b/p/{name}"), "s3://b/p", name),
            (format!("s3://b/{name}"), "s3://b", name),
            (format!("file:///var/tier/{name}"), "file:///var/tier", name),
            (format!("file:///{name}"), "file:///", name),
            ("s3://b/odd.varve".to_owned(), "s3://b", "odd.varve"),
            ("file:///tmp/x/odd.varve".to_owned(), "file:///tmp/x", "odd.varve"),
        ];
        for (url, store, key) in cases {
            assert_eq!(split(&url).unwrap(), (store.to_owned(), key.to_owned()));
        }
        assert!(split("s3://b/").is_err());
        assert!(split("s3://b").is_err());
    }
}
