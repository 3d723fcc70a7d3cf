//! What a store is opened with, parsed and checked before anyone is asked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;
use varve_tls::is_this_machine;

use super::settings::PART_BYTES_MAX;
use crate::contract::Result;
use crate::error::{Error, Kind};
use crate::key::Key;
use crate::settings::{Secret, Values, invalid};

const ENDPOINT: &str = "https://storage.googleapis.com";

/// Secrets don't show in `Debug`.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) url: String,
    pub(super) bucket: String,
    /// Empty, or ends with `/`.
    pub(super) prefix: String,
    pub(super) endpoint: Endpoint,
    pub(super) anonymous: bool,
    pub(super) credentials_file: Option<String>,
    pub(super) max_attempts: u32,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) part_bytes: u64,
    pub(super) storage_class: Option<String>,
    pub(super) kms_key: Option<String>,
    pub(super) user_project: Option<String>,
    pub(super) proxy: Option<Secret>,
    pub(super) ca_file: Option<PathBuf>,
}

/// Scheme, host, and perhaps a path; without a slash at the end.
pub(super) struct Endpoint(Url);

impl Endpoint {
    /// Where `path` (with its query, encoded) is.
    pub(super) fn at(&self, path: &str) -> std::result::Result<Url, url::ParseError> {
        Url::parse(&format!("{}{path}", self.0.as_str().trim_end_matches('/')))
    }

    /// The address that an answer names, but always on this endpoint: what it names may not be reachable from here,
    /// and what belongs to the store is sent nowhere else.
    pub(super) fn own(&self, location: &str) -> std::result::Result<Url, url::ParseError> {
        let named = self.0.join(location)?;
        if named.origin() == self.0.origin() {
            return Ok(named);
        }
        let query = named.query().map(|query| format!("?{query}")).unwrap_or_default();
        self.at(&format!("{}{query}", named.path()))
    }

    /// Whether a token may go there: in the clear it stays on this machine.
    fn keeps_tokens(&self) -> bool {
        self.0.scheme() == "https" || self.is_here()
    }

    /// On this machine.
    pub(super) fn is_here(&self) -> bool {
        is_this_machine(&self.0)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl Config {
    pub(super) fn parse(url: &Url, values: &Values<'_>) -> Result<Self> {
        let refuse = |flaw: &str| {
            let detail = format!("{flaw}: expected gs://bucket/prefix");
            Error::new(Kind::Invalid, "open", url.as_str(), detail)
        };
        let bucket = url.host_str().filter(|bucket| !bucket.is_empty()).ok_or_else(|| refuse("no bucket"))?;
        if url.port().is_some() {
            return Err(refuse("a bucket has no port (the server's address is the setting gs.endpoint.url)"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !bucket.bytes().all(plain) {
            return Err(refuse("a bucket's name holds letters, digits, dots, _ and - only"));
        }
        let path = url.path().trim_matches('/');
        if path.contains('%') {
            return Err(refuse("the prefix holds characters that a key can't"));
        }
        if !path.is_empty() {
            Key::new(path).map_err(|error| refuse(&format!("the prefix: {}", error.detail)))?;
        }
        let text = |name: &str| values.text(name).map(str::to_owned);
        let config = Self {
            url: format!("gs://{bucket}/{path}").trim_end_matches('/').to_owned(),
            bucket: bucket.to_owned(),
            prefix: if path.is_empty() { String::new() } else { format!("{path}/") },
            endpoint: parse_endpoint(values)?,
            anonymous: values.word("gs.auth") == Some("anonymous"),
            credentials_file: text("gs.credentials.file"),
            max_attempts: u32::try_from(values.number("gs.max.attempts")).unwrap_or(u32::MAX),
            timeout: Duration::from_millis(values.number("gs.timeout.ms")),
            connect_timeout: Duration::from_millis(values.number("gs.connect.timeout.ms")),
            part_bytes: values.number("gs.part.size.bytes").min(PART_BYTES_MAX),
            storage_class: text("gs.storage.class"),
            kms_key: text("gs.kms.key.name"),
            user_project: text("gs.user.project"),
            proxy: values.text("gs.proxy.url").map(Secret::new),
            ca_file: text("gs.tls.ca.file").map(PathBuf::from),
        };
        if config.anonymous && config.credentials_file.is_some() {
            return Err(invalid("gs.credentials.file", "is of no use: gs.auth is anonymous"));
        }
        if !config.anonymous && !config.endpoint.keeps_tokens() {
            let detail =
                "begins with http://, over which tokens would go in the clear: https, or gs.auth=anonymous";
            return Err(invalid("gs.endpoint.url", detail));
        }
        Ok(config)
    }
}

fn parse_endpoint(values: &Values<'_>) -> Result<Endpoint> {
    let name = "gs.endpoint.url";
    let url = Url::parse(values.text(name).unwrap_or(ENDPOINT))
        .map_err(|error| invalid(name, format!("is no URL ({error})")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(name, "holds a user or password, which go nowhere"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid(name, "holds ? or #"));
    }
    Ok(Endpoint(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_names_stays_on_the_endpoint() {
        let endpoint = |url: &str| Endpoint(Url::parse(url).unwrap());
        let own = |url: &str, location: &str| endpoint(url).own(location).unwrap().to_string();
        assert_eq!(
            own("https://a.example", "https://a.example/upload?id=1"),
            "https://a.example/upload?id=1"
        );
        assert_eq!(own("https://a.example", "/upload?id=1"), "https://a.example/upload?id=1");
        assert_eq!(own("https://a.example/gcs/", "http://evil/up?id=1"), "https://a.example/gcs/up?id=1");
        assert_eq!(endpoint("http://h:1/").at("/b?x=y").unwrap().as_str(), "http://h:1/b?x=y");
    }

    #[test]
    fn tokens_stay_out_of_the_clear() {
        for (url, kept) in [
            ("https://storage.example", true),
            ("http://localhost:4443", true),
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(Endpoint(Url::parse(url).unwrap()).keeps_tokens(), kept, "{url}");
        }
    }
}
