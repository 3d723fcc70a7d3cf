//! HTTP below AWS's SDK: by the authorities of a file, and by a proxy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{HttpClient, SharedHttpClient, http_client_fn};

use crate::direct::DIRECT;
use crate::{Reloaded, authorities};

/// Idle connections are given up before AWS does so (after about 20 s), lest a request meets a closing one.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// A proxy for all but this machine and the metadata services next door; `None` for what is no proxy's URL, which is not
/// shown: it may hold a password. Without a URL there is none, whatever the environment says.
pub fn aws_proxy(url: Option<&str>) -> Option<ProxyConfig> {
    match url {
        None => Some(ProxyConfig::disabled()),
        Some(url) => Some(ProxyConfig::all(url).ok()?.no_proxy(DIRECT)),
    }
}

/// By the system's authorities, and those of the file, which is read again when it changes: the SDK asks for the
/// connector of each attempt.
///
/// # Errors
/// What is wrong with the file.
pub fn aws_http_client(ca_file: Option<PathBuf>, proxy: ProxyConfig) -> Result<SharedHttpClient, String> {
    let Some(path) = ca_file else { return https(None, proxy) };
    let reloaded = Reloaded::new([path.clone()], move || https(Some(&path), proxy.clone()))?;
    Ok(http_client_fn(move |settings, components| reloaded.current().http_connector(settings, components)))
}

fn https(ca_file: Option<&Path>, proxy: ProxyConfig) -> Result<SharedHttpClient, String> {
    let mut trust = TrustStore::default();
    if let Some(path) = ca_file {
        trust.add_pem_certificate(authorities(path)?);
    }
    let context = TlsContext::builder().with_trust_store(trust).build().map_err(|error| error.to_string())?;
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
    let client = Builder::new().pool_idle_timeout(POOL_IDLE);
    Ok(client.build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder().pool_idle_timeout(POOL_IDLE).proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.tls_provider(provider.clone()).tls_context(context.clone()).build()
    }))
}
