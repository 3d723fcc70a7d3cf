//! What connections are made by: what TLS is given by file, which go by no proxy, and whether AWS refused who connects.
//! Certificates are rotated under processes that go on: whoever connects asks [`Reloaded`] for what it connects with,
//! each time.

mod authorities;
#[cfg(feature = "aws")]
mod aws;
mod direct;
#[cfg(feature = "aws")]
mod refused;
mod reloaded;
#[cfg(feature = "reqwest")]
mod reqwest;

pub use authorities::authorities;
#[cfg(feature = "aws")]
pub use aws::{aws_http_client, aws_proxy};
pub use direct::is_this_machine;
#[cfg(feature = "aws")]
pub use refused::credentials_may_pass;
pub use reloaded::Reloaded;
#[cfg(feature = "reqwest")]
pub use reqwest::{reqwest_authorities, reqwest_proxy};
