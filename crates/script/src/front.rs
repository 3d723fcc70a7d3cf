//! TLS before a plain server, for tests of whoever connects: what it shows is replaced under its clients.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// An authority (`ca.pem`), and what it has certified: a server at 127.0.0.1 and a client (`server.pem`, `client.key` …).
pub struct Authority {
    folder: TempDir,
}

#[allow(clippy::new_without_default, reason = "each is another one")]
impl Authority {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |args: &str| {
            let output = Command::new("openssl").current_dir(&folder).args(args.split(' ')).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(&format!("req -x509 {key} -days 2 -subj /CN=ca -keyout ca.key -out ca.pem"));
        for who in ["server", "client"] {
            let name = format!("-subj /CN={who} -addext subjectAltName=IP:127.0.0.1");
            openssl(&format!("req {key} {name} -keyout {who}.key -out {who}.csr"));
            let by = "-CA ca.pem -CAkey ca.key -CAcreateserial";
            openssl(&format!("x509 -req -in {who}.csr -copy_extensions copy -days 2 {by} -out {who}.pem"));
        }
        Self { folder }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn certificates(&self, name: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(self.file(name)).unwrap().map(Result::unwrap).collect()
    }

    /// What a server shows, and by whom its clients must be certified.
    fn server(&self, clients: Option<&Self>) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(authority.certificates("ca.pem"));
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from_pem_file(self.file("server.key")).unwrap();
        Arc::new(config.with_single_cert(self.certificates("server.pem"), key).unwrap())
    }
}

pub struct Front {
    /// `127.0.0.1:port`.
    pub address: String,
    shown: Arc<Mutex<Shown>>,
}

struct Shown {
    config: Arc<ServerConfig>,
    connections: JoinSet<()>,
}

impl Front {
    /// `behind`: host and port of the plain server.
    pub async fn start(behind: &str, server: &Authority, clients: Option<&Authority>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (config, connections) = (server.server(clients), JoinSet::new());
        let shown = Arc::new(Mutex::new(Shown { config, connections }));
        let (showing, behind) = (Arc::downgrade(&shown), behind.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Some(shown) = showing.upgrade() else { return };
                let mut shown = shown.lock();
                let (acceptor, behind) = (TlsAcceptor::from(Arc::clone(&shown.config)), behind.clone());
                shown.connections.spawn(async move {
                    let Ok(mut outer) = acceptor.accept(stream).await else { return };
                    let mut inner = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                });
            }
        });
        Self { address, shown }
    }

    /// From now on; who is connected has to connect again.
    pub fn show(&self, server: &Authority, clients: Option<&Authority>) {
        let mut shown = self.shown.lock();
        shown.config = server.server(clients);
        shown.connections = JoinSet::new();
    }
}

/// Puts a file in another's place.
pub fn replace(file: &Path, by: &Path) {
    let new = file.with_extension("new");
    std::fs::copy(by, &new).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// When files are looked at again: after `LOOK_EVERY` of `varve-tls`.
pub async fn next_look() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
}
