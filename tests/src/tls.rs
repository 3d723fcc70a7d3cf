//! Certificates for servers on 127.0.0.1, made on the spot.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::install;

/// An authority, and certificates for 127.0.0.1 that it has signed: `server` and `client`.
#[derive(Clone, Debug)]
pub struct Certificates(PathBuf);

impl Certificates {
    /// Into a folder that must live as long as they are used.
    pub fn make(dir: &Path) -> Result<Self> {
        let openssl = |args: &[&str]| install::run(Command::new("openssl").current_dir(dir).args(args));
        let ca = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem";
        openssl(&ca.split(' ').collect::<Vec<_>>())?;
        let mut all = Vec::new();
        for who in ["server", "client"] {
            let (key, csr, pem) = (format!("{who}.key"), format!("{who}.csr"), format!("{who}.pem"));
            let name = format!("/CN={who}");
            let address = "subjectAltName=IP:127.0.0.1";
            let request = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", &name, "-addext", address];
            openssl(&[&request[..], &["-keyout", &key, "-out", &csr]].concat())?;
            let sign = ["x509", "-req", "-in", &csr, "-copy_extensions", "copy", "-days", "2"];
            let by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", &pem];
            openssl(&[&sign[..], &by].concat())?;
            if who == "server" {
                all = [key, pem, "ca.pem".to_owned()].to_vec();
            }
        }
        let mut joined = Vec::new();
        for file in all {
            joined.extend(std::fs::read(dir.join(file))?);
        }
        std::fs::write(dir.join("server-all.pem"), joined)?;
        Ok(Self(dir.to_owned()))
    }

    /// Whom to trust.
    pub fn ca(&self) -> String {
        self.file("ca.pem")
    }

    pub fn client(&self) -> String {
        self.file("client.pem")
    }

    pub fn client_key(&self) -> String {
        self.file("client.key")
    }

    /// Keys of our own client, for a listener that wants a certificate.
    pub fn client_properties(&self) -> [(&'static str, String); 3] {
        [
            ("ssl.ca.location", self.ca()),
            ("ssl.certificate.location", self.client()),
            ("ssl.key.location", self.client_key()),
        ]
    }

    /// Lines of `server.properties`, for all listeners with TLS.
    pub fn broker_properties(&self) -> [(&'static str, String); 4] {
        [
            ("ssl.keystore.type", "PEM".to_owned()),
            ("ssl.keystore.location", self.file("server-all.pem")),
            ("ssl.truststore.type", "PEM".to_owned()),
            ("ssl.truststore.location", self.file("ca.pem")),
        ]
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}
