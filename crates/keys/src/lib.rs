//! Data keys, wrapped and unwrapped by a key-encryption key that lies in a key service: a file key ring, AWS KMS,
//! Google Cloud KMS, Azure Key Vault, HashiCorp Vault or OpenBao.
//!
//! What is wrapped is bound to what the caller says it is for (`aad`): a service, or a cipher of ours where the
//! service can't, refuses to unwrap it for anything else. Keys in the clear and credentials stand in no error, no
//! log line and no `Debug`, and are wiped where they are ours to wipe.
//!
//! A crash leaves nothing behind: no call changes anything in a key service, and [`DataKeys`] says what its records are.

// Settings are known in every build, and what they lead to is there in some.
#![cfg_attr(
    not(all(feature = "aws", feature = "azure", feature = "gcp", feature = "vault")),
    allow(dead_code, reason = "used where all features are on")
)]

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod config;
mod data_keys;
mod error;
#[cfg(feature = "gcp")]
mod gcp;
#[cfg(any(feature = "azure", feature = "gcp", feature = "vault"))]
mod http;
mod key_url;
mod period;
mod retry;
mod ring;
mod sealed;
mod services;
mod settings;
mod trusted;
#[cfg(feature = "vault")]
mod vault;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault"))]
mod words;
mod wrapped;

pub use data_keys::{DataKeys, Rewrapped};
pub use error::{Error, Kind, Result};
pub use key_url::{KEY_URL_MAX_BYTES, KeyUrl, Service};
pub use period::KeyPeriod;
pub use services::KeyServices;
pub use settings::settings;
pub use trusted::Trusted;
pub use wrapped::{AAD_MAX_BYTES, WRAPPED_MAX_BYTES, Wrapped, algorithm};
