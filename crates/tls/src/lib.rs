//! What TLS is given by file. Certificates are rotated under processes that go on: whoever connects asks [`Reloaded`]
//! for what it connects with, each time.

mod authorities;
mod reloaded;

pub use authorities::authorities;
pub use reloaded::Reloaded;
