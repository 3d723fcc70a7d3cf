//! From settings to a client of the SDK for each region.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{
    ConfigBag, Intercept, Region, RuntimeComponents, SharedCredentialsProvider, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;
use varve_tls::{aws_http_client, aws_proxy};

use crate::config::{Aws, Config};
use crate::error::{Error, Result};
use crate::settings::Secret;
use crate::wrapped::ANSWER_MAX_BYTES;

pub(super) struct Connector {
    settings: Aws,
    connect_timeout: Duration,
    http: SharedHttpClient,
}

impl Connector {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let proxy = aws_proxy(config.proxy.as_ref().map(Secret::reveal));
        let proxy = proxy.ok_or_else(|| Error::configuration("kms.proxy.url", "is no proxy's URL"))?;
        let http = aws_http_client(config.ca_file.clone(), proxy);
        let http = http.map_err(|flaw| Error::configuration("kms.tls.ca.file", flaw))?;
        Ok(Self { settings: config.aws.clone(), connect_timeout: config.connect_timeout, http })
    }

    pub(super) async fn connect(&self, region: &str) -> Client {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .region(Region::new(region.to_owned()));
        if let Some(profile) = &self.settings.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(keys) = &self.settings.keys {
            let token = keys.token.as_ref().map(|token| token.reveal().to_owned());
            let credentials = Credentials::new(&keys.id, keys.secret.reveal(), token, None, "varve settings");
            loader = loader.credentials_provider(SharedCredentialsProvider::new(credentials));
        }
        let shared = loader.load().await;
        let timeouts = TimeoutConfig::builder().connect_timeout(self.connect_timeout).build();
        // An endpoint in the environment or a profile may be another service's, and plain: only the setting's counts.
        let mut builder = aws_sdk_kms::config::Builder::from(&shared);
        builder.set_endpoint_url(None);
        let mut builder = builder
            // Attempts are ours.
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .interceptor(Bounded)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &self.settings.endpoint {
            builder = builder.endpoint_url(endpoint.as_str());
        }
        Client::from_conf(builder.build())
    }
}

/// The SDK keeps whole answers in memory: they are cut where none of this service's would end.
#[derive(Debug)]
struct Bounded;

impl Intercept for Bounded {
    fn name(&self) -> &'static str {
        "Bounded"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(whole, ANSWER_MAX_BYTES));
        Ok(())
    }
}
