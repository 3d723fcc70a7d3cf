//! From settings to a client of the SDK.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_credential_types::Credentials;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedCredentialsProvider, StalledStreamProtectionConfig, retry::RetryConfig,
};
use aws_sdk_s3::types::ServerSideEncryption;
use url::Url;
use varve_tls::{aws_http_client, aws_proxy};

use crate::contract::Result;
use crate::error::{Error, Kind};
use crate::key::Key;
use crate::settings::{Secret, Values, invalid};

const NO_PROXY: &str = "is no proxy's address";
/// Ends of hosts that are S3 itself.
const AWS: [&str; 8] = [
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".amazonaws.eu",
    ".api.aws",
    ".c2s.ic.gov",
    ".cloud.adc-e.uk",
    ".csp.hci.ic.gov",
    ".sc2s.sgov.gov",
];
/// Ends of buckets' and access points' names.
const DIRECTORY_BUCKETS: [&str; 2] = ["--x-s3", "--xa-s3"];

/// All that a store is opened with; secrets don't show in `Debug`.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) url: String,
    pub(super) bucket: String,
    /// Empty, or ends with `/`.
    pub(super) prefix: String,
    /// Of a store that is not AWS.
    pub(super) endpoint: Option<String>,
    pub(super) max_attempts: u32,
    pub(super) timeout: Duration,
    pub(super) part_bytes: u64,
    pub(super) storage_class: Option<String>,
    pub(super) encryption: Option<ServerSideEncryption>,
    pub(super) encryption_key: Option<String>,
    pub(super) checksums: bool,
    region: Option<String>,
    profile: Option<String>,
    keys: Option<Keys>,
    path_style: bool,
    connect_timeout: Duration,
    proxy: Option<Secret>,
    ca_file: Option<PathBuf>,
}

struct Keys {
    id: String,
    secret: Secret,
    token: Option<Secret>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?})", self.id)
    }
}

impl Config {
    pub(super) fn parse(url: &Url, values: &Values<'_>) -> Result<Self> {
        let refuse = |flaw: &str| {
            let detail = format!("{flaw}: expected s3://bucket/prefix");
            Error::new(Kind::Invalid, "open", url.as_str(), detail)
        };
        let bucket = url.host_str().filter(|bucket| !bucket.is_empty()).ok_or_else(|| refuse("no bucket"))?;
        if url.port().is_some() {
            return Err(refuse("a bucket has no port (the server's address is the setting s3.endpoint.url)"));
        }
        if DIRECTORY_BUCKETS.iter().any(|suffix| bucket.ends_with(suffix)) {
            return Err(refuse("a directory bucket (S3 Express) lists objects in no order"));
        }
        let path = url.path().trim_matches('/');
        if path.contains('%') {
            return Err(refuse("the prefix holds characters that a key can't"));
        }
        if !path.is_empty() {
            Key::new(path).map_err(|error| refuse(&format!("the prefix: {}", error.detail)))?;
        }
        let endpoint = values.text("s3.endpoint.url").map(str::to_owned);
        let text = |name: &str| values.text(name).map(str::to_owned);
        let config = Self {
            url: format!("s3://{bucket}/{path}").trim_end_matches('/').to_owned(),
            bucket: bucket.to_owned(),
            prefix: if path.is_empty() { String::new() } else { format!("{path}/") },
            path_style: values.boolean("s3.path.style").unwrap_or(endpoint.is_some()),
            endpoint,
            max_attempts: u32::try_from(values.number("s3.max.attempts")).unwrap_or(u32::MAX),
            timeout: Duration::from_millis(values.number("s3.timeout.ms")),
            connect_timeout: Duration::from_millis(values.number("s3.connect.timeout.ms")),
            part_bytes: values.number("s3.part.size.bytes"),
            storage_class: text("s3.storage.class"),
            encryption: values.text("s3.sse").map(ServerSideEncryption::from),
            encryption_key: text("s3.sse.kms.key.id"),
            checksums: values.word("s3.checksum") == Some("crc32c"),
            region: text("s3.region"),
            profile: text("s3.profile"),
            keys: parse_keys(values)?,
            proxy: values.text("s3.proxy.url").map(Secret::new),
            ca_file: text("s3.tls.ca.file").map(PathBuf::from),
        };
        if aws_proxy(values.text("s3.proxy.url")).is_none() {
            return Err(invalid("s3.proxy.url", NO_PROXY));
        }
        if config.encryption_key.is_some() && config.encryption.is_none() {
            return Err(invalid("s3.sse.kms.key.id", "needs s3.sse to be aws:kms or aws:kms:dsse"));
        }
        Ok(config)
    }

    /// Not a server of others: S3 itself, at an interface endpoint too.
    pub(super) fn is_aws(&self) -> bool {
        let Some(endpoint) = &self.endpoint else { return true };
        let url = Url::parse(endpoint).ok();
        let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
        AWS.iter().any(|suffix| host.ends_with(suffix))
    }
}

fn parse_keys(values: &Values<'_>) -> Result<Option<Keys>> {
    let (id, secret) = (values.text("s3.access.key.id"), values.text("s3.secret.access.key"));
    let token = values.text("s3.session.token");
    match (id, secret) {
        (Some(id), Some(secret)) => {
            if values.text("s3.profile").is_some() {
                return Err(invalid(
                    "s3.profile",
                    "says where keys come from, but s3.access.key.id is given too",
                ));
            }
            Ok(Some(Keys { id: id.to_owned(), secret: Secret::new(secret), token: token.map(Secret::new) }))
        }
        (Some(_), None) => Err(invalid("s3.secret.access.key", "missing: s3.access.key.id is given")),
        (None, Some(_)) => Err(invalid("s3.access.key.id", "missing: s3.secret.access.key is given")),
        (None, None) if token.is_some() => {
            Err(invalid("s3.access.key.id", "missing: s3.session.token is given"))
        }
        (None, None) => Ok(None),
    }
}

pub(super) async fn connect(config: &Config) -> Result<aws_sdk_s3::Client> {
    let proxy = aws_proxy(config.proxy.as_ref().map(Secret::reveal));
    let proxy = proxy.ok_or_else(|| invalid("s3.proxy.url", NO_PROXY))?;
    let http = aws_http_client(config.ca_file.clone(), proxy);
    let http = http.map_err(|flaw| invalid("s3.tls.ca.file", flaw))?;
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(keys) = &config.keys {
        let token = keys.token.as_ref().map(|token| token.reveal().to_owned());
        let credentials = Credentials::new(&keys.id, keys.secret.reveal(), token, None, "varve settings");
        loader = loader.credentials_provider(SharedCredentialsProvider::new(credentials));
    }
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    } else if !config.is_aws() {
        // Not the whole chain: its last link asks the cloud's metadata service, which is not there.
        let mut profile = ProfileFileRegionProvider::builder();
        if let Some(name) = &config.profile {
            profile = profile.profile_name(name);
        }
        let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(profile.build())
            .or_else(Region::new("us-east-1"));
        loader = loader.region(chain);
    }
    let shared = loader.load().await;
    if shared.region().is_none() {
        let detail = "not given, and neither AWS_REGION nor a profile nor the instance says it";
        return Err(invalid("s3.region", detail));
    }
    let timeouts = TimeoutConfig::builder().connect_timeout(config.connect_timeout).build();
    let mut builder = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(config.path_style)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        // Checksums are ours, and stalls are watched where bodies are read.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    Ok(aws_sdk_s3::Client::from_conf(builder.build()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn interface_endpoints_are_s3_itself() {
        for (endpoint, is_aws) in [
            (None, true),
            (Some("https://bucket.vpce-1a2b-5678.s3.eu-west-1.vpce.amazonaws.com"), true),
            (Some("https://s3.cn-north-1.amazonaws.com.cn"), true),
            (Some("https://s3.eu-west-1.api.aws"), true),
            (Some("http://127.0.0.1:9000"), false),
            (Some("https://s3.example.com"), false),
            (Some("https://amazonaws.com.example.com"), false),
        ] {
            let given = endpoint.map(|url| ("s3.endpoint.url".to_owned(), url.to_owned()));
            let given: BTreeMap<String, String> = given.into_iter().collect();
            let url = Url::parse("s3://bucket/x").unwrap();
            let config = Config::parse(&url, &Values::parse("s3", &given).unwrap()).unwrap();
            assert_eq!(config.is_aws(), is_aws, "{endpoint:?}");
        }
    }
}
