//! The way to a fence that is somewhere else: TLS 1.3 with certificates on both sides.
//!
//! Certificates are read anew for each connection: in a cluster they are renewed under our feet.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::ceph::chain;
use crate::config::FenceTls;

/// A connection to `host`, whose certificate must say that name.
pub(super) async fn connect(
    host: &str,
    port: u16,
    files: Option<&FenceTls>,
    protocols: &[&str],
) -> Result<TlsStream<TcpStream>, String> {
    let failed = |what: &str, error: &(dyn std::error::Error + 'static)| {
        format!("{host}: {what}: {}", chain(error))
    };
    let files = files.ok_or("there are no certificates to ask it with: fence_tls")?;
    let mut config = client(files)?;
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(host.to_owned()).map_err(|e| failed("its name", &e))?;
    let tcp = TcpStream::connect((host, port)).await;
    let tcp = tcp.map_err(|error| failed("no connection", &error))?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    tls.map_err(|error| failed("TLS", &error))
}

fn client(files: &FenceTls) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.authority)? {
        roots.add(authority).map_err(|error| chain(&error))?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|_| format!("{} has no private key in PEM form", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| chain(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.certificate)?, key)
        .map_err(|error| chain(&error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path);
    let found = found.map(|found| found.filter_map(Result::ok).take(64).collect::<Vec<_>>());
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(format!("{} has no certificate in PEM form", path.display())),
    }
}
