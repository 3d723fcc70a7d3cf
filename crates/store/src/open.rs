//! From a URL and settings to a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

use crate::contract::{Result, SharedStore};
use crate::error::{Error, Kind};
use crate::filesystem::FilesystemStore;
use crate::memory::MemoryStore;
use crate::s3::S3Store;
use crate::settings::Values;

const SCHEMES: &str = "file:///directory, s3://bucket/prefix, memory://name";

/// Opens `memory://name`, `file:///directory` or `s3://bucket/prefix`. `given` are the store's own settings
/// (see [`settings`](crate::settings)); an unknown one, or a wrong value, is [`Kind::Invalid`]. Nothing is sent
/// yet: whether the store answers shows with the first call.
pub async fn open(url: &str, given: &BTreeMap<String, String>) -> Result<SharedStore> {
    let parsed = Url::parse(url.trim()).map_err(|error| invalid(url, &format!("is no URL ({error})")))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        let mut bare = parsed.clone();
        let _ = (bare.set_username(""), bare.set_password(None));
        return Err(invalid(bare.as_str(), "holds a user or password; keys are given as settings"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(invalid(url, "holds ? or #, which mean nothing in a store's URL"));
    }
    let values = |scheme| Values::parse(scheme, given);
    match parsed.scheme() {
        "memory" => {
            values("memory")?;
            Ok(Arc::new(MemoryStore::named(parsed.host_str().unwrap_or_default())))
        }
        "file" => {
            values("file")?;
            let path =
                parsed.to_file_path().map_err(|()| invalid(url, "names no directory of this machine"))?;
            let store = tokio::task::spawn_blocking(move || FilesystemStore::open(path)).await;
            match store {
                Ok(store) => Ok(Arc::new(store?)),
                Err(error) => Err(Error::new(Kind::Other, "open", url, error.to_string())),
            }
        }
        "s3" => Ok(Arc::new(S3Store::open(&parsed, &values("s3")?).await?)),
        other => Err(invalid(url, &format!("begins with {other}://, which no store has"))),
    }
}

fn invalid(url: &str, flaw: &str) -> Error {
    Error::new(Kind::Invalid, "open", url, format!("the store's URL {flaw}: expected one of {SCHEMES}"))
}
