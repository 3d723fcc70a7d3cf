//! What tests of several crates play against. A dependency of tests alone: a failure here fails the test.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod front;
mod server;
mod warnings;

pub use front::{Authority, Front, next_look, replace};
pub use server::{Answer, Request, Server};
pub use warnings::Warnings;

/// A port at which nobody listens: for a server that is about to start, or for none.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
