//! Free loopback ports.
//!
//! They are taken from below the kernel's ephemeral range: a port that is free now then can't become the
//! source port of some client's connection before the server binds it. Other programs of tests that run beside this
//! one are kept off by a UDP socket at the same port, which no server here wants.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

use rand::Rng;

/// Held as long as this program runs: a server may be stopped, and started again at its port.
static TAKEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A port that nobody listens on and that neither this program nor one beside it has been given before.
///
/// # Errors
/// There is none.
pub fn free_port() -> io::Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..1000 {
        let port = rand::rng().random_range(20_000..32_000);
        let Ok(claim) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.push(claim);
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free loopback port found between 20000 and 32000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_another_program_was_given_is_passed_over() {
        let port = free_port().expect("a port");
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok(), "a server may have it");
        assert!(UdpSocket::bind(("127.0.0.1", port)).is_err(), "nobody else is given it");
    }
}
