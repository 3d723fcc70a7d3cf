//! All key services behind one door.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

#[allow(unused_imports, reason = "only where the file key ring is alone")]
use futures::FutureExt;
use varve_format::KeyRing;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::key_url::{KeyUrl, Service};
use crate::ring;
use crate::wrapped::{AAD_MAX_BYTES, Wrapped};

// What the services' clients do is boxed: their futures are large, and nest deeper than a compiler likes in those of
// callers.

/// Wraps and unwraps data keys. Cheap to clone; nothing is asked before the first key is.
#[derive(Clone)]
pub struct KeyServices {
    inner: Arc<Inner>,
}

struct Inner {
    ring: Option<Arc<KeyRing>>,
    #[cfg(feature = "aws")]
    aws: crate::aws::AwsKms,
    #[cfg(feature = "gcp")]
    gcp: crate::gcp::GcpKms,
    #[cfg(feature = "azure")]
    azure: crate::azure::AzureKms,
    #[cfg(feature = "vault")]
    vault: crate::vault::Vault,
}

impl fmt::Debug for KeyServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyServices").field("ring", &self.inner.ring).finish_non_exhaustive()
    }
}

impl KeyServices {
    /// `settings` are those of [`settings`](crate::settings()), by name; `ring` the file key ring, if there is
    /// one. Reads the file of certificates, and asks nothing of the network.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: the first flaw that [`check`](Self::check) finds, or what is wrong with a file.
    pub fn new(given: &BTreeMap<String, String>, ring: Option<Arc<KeyRing>>) -> Result<Self> {
        #[allow(unused_variables, reason = "only where the file key ring is alone")]
        let (config, flaws) = Config::examine(given);
        if let Some(flaw) = flaws.into_iter().next() {
            return Err(flaw);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                ring,
                #[cfg(feature = "aws")]
                aws: crate::aws::AwsKms::new(&config)?,
                #[cfg(feature = "gcp")]
                gcp: crate::gcp::GcpKms::new(&config)?,
                #[cfg(feature = "azure")]
                azure: crate::azure::AzureKms::new(&config)?,
                #[cfg(feature = "vault")]
                vault: crate::vault::Vault::new(&config)?,
            }),
        })
    }

    /// All that is wrong with the settings. Asks nothing of the network, and reads no file.
    pub fn check(given: &BTreeMap<String, String>) -> Vec<Error> {
        Config::examine(given).1
    }

    /// Says that `key` stands in the configuration, and not only in a record that anyone who can write to a store
    /// may have written: its Vault may be sent a token when something is unwrapped. (Other services' tokens go to
    /// hosts that are theirs whatever a name says.)
    pub fn trust(&self, key: &KeyUrl) {
        #[cfg(feature = "vault")]
        self.inner.vault.trust(key);
        #[cfg(not(feature = "vault"))]
        let _ = key;
    }

    /// Wraps `secret` by `key`, which stands in the configuration. The same `aad` (1 to [`AAD_MAX_BYTES`] bytes)
    /// is needed to unwrap it.
    ///
    /// # Errors
    /// Of any [`Kind`]; holds neither the secret nor a token.
    pub async fn wrap(&self, key: &KeyUrl, secret: &[u8; 32], aad: &[u8]) -> Result<Wrapped> {
        check_aad("wrap", key, aad)?;
        let wrapped = match key.service() {
            Service::Ring => ring::wrap(self.inner.ring.as_ref(), key, secret, aad),
            #[cfg(feature = "aws")]
            Service::AwsKms => self.inner.aws.wrap(key, secret, aad).boxed().await,
            #[cfg(feature = "gcp")]
            Service::GcpKms => self.inner.gcp.wrap(key, secret, aad).boxed().await,
            #[cfg(feature = "azure")]
            Service::AzureKms => self.inner.azure.wrap(key, secret, aad).boxed().await,
            #[cfg(feature = "vault")]
            Service::Vault => self.inner.vault.wrap(key, secret, aad).boxed().await,
            #[allow(unreachable_patterns, reason = "only where a feature is off")]
            service => Err(absent("wrap", key, service)),
        }?;
        wrapped.check("wrap", Kind::Other)?;
        Ok(wrapped)
    }

    /// The data key that was wrapped with `aad`.
    ///
    /// # Errors
    /// Of any [`Kind`]; [`Kind::Refused`] if key, bytes and `aad` don't belong together.
    pub async fn unwrap(&self, wrapped: &Wrapped, aad: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let key = &wrapped.wrapped_by;
        check_aad("unwrap", key, aad)?;
        wrapped.check("unwrap", Kind::Refused)?;
        match key.service() {
            Service::Ring => ring::unwrap(self.inner.ring.as_ref(), wrapped, aad),
            #[cfg(feature = "aws")]
            Service::AwsKms => self.inner.aws.unwrap(wrapped, aad).boxed().await,
            #[cfg(feature = "gcp")]
            Service::GcpKms => self.inner.gcp.unwrap(wrapped, aad).boxed().await,
            #[cfg(feature = "azure")]
            Service::AzureKms => self.inner.azure.unwrap(wrapped, aad).boxed().await,
            #[cfg(feature = "vault")]
            Service::Vault => self.inner.vault.unwrap(wrapped, aad).boxed().await,
            #[allow(unreachable_patterns, reason = "only where a feature is off")]
            service => Err(absent("unwrap", key, service)),
        }
    }
}

fn check_aad(operation: &'static str, key: &KeyUrl, aad: &[u8]) -> Result<()> {
    if aad.is_empty() || aad.len() > AAD_MAX_BYTES {
        let detail = format!("bound to {} bytes: expected 1 to {AAD_MAX_BYTES}", aad.len());
        return Err(Error::new(Kind::Invalid, operation, key, detail));
    }
    Ok(())
}

#[allow(dead_code, reason = "used where a feature is off")]
fn absent(operation: &'static str, key: &KeyUrl, service: Service) -> Error {
    Error::new(Kind::Invalid, operation, key, format!("this build has no {service:?}: its feature is off"))
}
