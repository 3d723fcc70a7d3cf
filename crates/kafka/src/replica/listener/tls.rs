//! TLS of the listener by rustls: who we are, whom we believe, and why it failed.

use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{Error, RootCertStore, ServerConfig};

use super::login::NotLetIn;
use crate::client::{ClientError, Result};

/// `ssl.client.auth`, in Kafka's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAuth {
    None,
    Requested,
    Required,
}

impl ClientAuth {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self::None),
            "requested" => Some(Self::Requested),
            "required" => Some(Self::Required),
            _ => None,
        }
    }
}

pub(super) fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_auth: ClientAuth,
    trusted: Vec<CertificateDer<'static>>,
) -> Result<Arc<ServerConfig>> {
    let flaw =
        |key: &'static str| move |error: &dyn std::fmt::Display| ClientError::config(key, error.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| flaw("ssl.keystore.location")(&error))?;
    let builder = match client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Requested | ClientAuth::Required => {
            let mut roots = RootCertStore::empty();
            for certificate in trusted {
                roots.add(certificate).map_err(|error| flaw("ssl.truststore.location")(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match client_auth {
                ClientAuth::Requested => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = verifier.build().map_err(|error| flaw("ssl.truststore.location")(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(chain, key);
    Ok(Arc::new(config.map_err(|error| flaw("ssl.keystore.location")(&error))?))
}

/// Why a handshake failed, in words that say what to do.
pub(in super::super) fn refusal(error: io::Error) -> NotLetIn {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return NotLetIn::Gone(error);
    };
    NotLetIn::Refused(match tls {
        Error::AlertReceived(alert) => format!(
            "it ended the TLS handshake ({alert:?}): our certificate (ssl.keystore.*) has to be of an authority that \
             the brokers trust, valid, and for the host that --advertise names"
        ),
        Error::NoCertificatesPresented => {
            "it showed no certificate of an authority in ssl.truststore.*, and \
             ssl.client.auth=required wants one: name the authority of the brokers' certificates there"
                .to_owned()
        }
        Error::InvalidCertificate(problem) => format!(
            "its certificate is not accepted ({problem}): ssl.truststore.* has to have the authority of the brokers' \
             certificates"
        ),
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        other => format!("TLS: {other}"),
    })
}
