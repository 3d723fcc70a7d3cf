//! What tests of several crates play against. A dependency of tests alone: a failure here fails the test.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod front;
mod ports;
mod server;
mod warnings;

pub use front::{Authority, Front, next_look, replace};
pub use ports::free_port;
pub use server::{Answer, Request, Server};
pub use warnings::Warnings;
