//! How brokers come in: by TLS, by SASL, by both or neither, as they do among each other.
//!
//! [`ListenerConfig`] is what a file says, in the keys of a broker's own `server.properties`; bound to the protocol of the
//! brokers' listener it is a [`ListenerSecurity`], which is valid as a whole. PLAIN and SCRAM are served, with the one
//! user that brokers log in as. Nothing but ApiVersions is answered before a login; its outcome is the same whether the
//! user or the password is wrong, and comparing takes the same time.

mod certificate;
mod config;
mod login;
mod pem;
mod scram;
mod tls;

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};

use crate::client::SecurityProtocol;

pub use config::ListenerConfig;
pub(super) use login::{Login, NotLetIn, log_in};
pub(super) use tls::refusal as tls_refusal;

/// What the listener serves.
#[derive(Clone)]
pub struct ListenerSecurity {
    protocol: SecurityProtocol,
    tls: Option<Tls>,
    login: Option<Login>,
}

#[derive(Clone)]
struct Tls {
    config: Arc<rustls::ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
}

/// Without the key and the password.
impl fmt::Debug for ListenerSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerSecurity").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl ListenerSecurity {
    pub fn plaintext() -> Self {
        Self { protocol: SecurityProtocol::Plaintext, tls: None, login: None }
    }

    pub fn protocol(&self) -> SecurityProtocol {
        self.protocol
    }

    /// By which brokers can log in.
    pub fn mechanisms(&self) -> Vec<&'static str> {
        self.login.as_ref().map(Login::mechanisms).unwrap_or_default()
    }

    /// Why brokers would not accept our certificate, as far as it can be seen from here: it has expired, or is not for
    /// servers, or not for `host`, which they check unless their `ssl.endpoint.identification.algorithm` is empty.
    pub fn certificate_flaw(&self, host: Option<&str>) -> Option<String> {
        certificate::flaw(&self.tls.as_ref()?.chain, host, UnixTime::now())
    }

    pub(super) fn tls(&self) -> Option<&Arc<rustls::ServerConfig>> {
        self.tls.as_ref().map(|tls| &tls.config)
    }

    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }
}
