//! Who may ask, and what comes back: TLS with certificates made on the spot.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "scratch files of these tests")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heal_types::fence::{Question, Told};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use nvmet_fenced::config::Config;
use nvmet_fenced::fence::Fence;
use nvmet_fenced::record::Records;
use nvmet_fenced::server;
use nvmet_fenced::tree::Kernel;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    fn signs(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

struct Daemon {
    at: SocketAddr,
    ours: Authority,
    dir: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Daemon {
    async fn start(test: &str) -> Self {
        let name = format!("nvmet-fenced-wire-{}-{test}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        // A target without a subsystem.
        std::fs::create_dir_all(dir.join("nvmet/subsystems")).unwrap();
        std::fs::create_dir_all(dir.join("nvmet/ports")).unwrap();
        std::fs::create_dir_all(dir.join("state")).unwrap();
        let ours = Authority::new();
        let (certificate, key) = ours.signs("target.example");
        let path = |name: &str| dir.join(name);
        for (name, text) in [("cert", &certificate), ("key", &key), ("clients", &ours.pem)] {
            std::fs::write(path(name), text).unwrap();
        }
        let text = format!(
            "(certificate: {:?}, key: {:?}, clients: {:?})",
            path("cert"),
            path("key"),
            path("clients")
        );
        std::fs::write(path("config"), text).unwrap();
        let config = Config::load(&path("config")).unwrap();
        let tree = Arc::new(Kernel::at(&path("nvmet")));
        let fence = Fence::new(tree, Records::at(&path("state")), Vec::new(), None);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let tls = server::tls(&config).unwrap();
        tokio::spawn(server::serve(listener, tls, Arc::new(fence)));
        Self { at, ours, dir }
    }

    async fn ask(&self, who: Option<&Authority>, body: Vec<u8>) -> Result<Told, String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ours.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match who {
            None => builder.with_no_client_auth(),
            Some(who) => {
                let (certificate, key) = who.signs("recoverer.example");
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let failed = |error: &dyn std::error::Error| error.to_string();
        let tcp = TcpStream::connect(self.at).await.unwrap();
        let name = ServerName::try_from("target.example").unwrap();
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
        let tls = tls.map_err(|error| failed(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|e| failed(&e))?;
        tokio::spawn(connection);
        let request = hyper::Request::post("/v1/fence")
            .header("host", "target.example")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let body = response.into_body().collect().await.map_err(|error| failed(&error))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| failed(&error))
    }
}

fn health() -> Vec<u8> {
    serde_json::to_vec(&Question::health()).unwrap()
}

#[tokio::test]
async fn only_who_has_a_certificate_of_the_right_authority_is_answered() {
    let daemon = Daemon::start("mtls").await;
    assert_eq!(daemon.ask(Some(&daemon.ours), health()).await, Ok(Told::Done {}));
    assert!(daemon.ask(None, health()).await.is_err(), "no certificate");
    assert!(daemon.ask(Some(&Authority::new()), health()).await.is_err(), "another authority's");
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_what_is_too_long_is_not_read() {
    let daemon = Daemon::start("strange").await;
    let told = daemon.ask(Some(&daemon.ours), b"{}".to_vec()).await;
    assert!(matches!(told, Ok(Told::Refused(_))), "{told:?}");
    let told = daemon.ask(Some(&daemon.ours), vec![b' '; 1 << 20]).await;
    assert!(!matches!(told, Ok(Told::Done {})), "{told:?}");
}

#[test]
fn the_kernels_tree_is_changed_where_it_is_and_never_beside_it() {
    use nvmet_fenced::tree::Tree as _;
    let dir = std::env::temp_dir().join(format!("nvmet-fenced-tree-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let tree = Kernel::at(&dir);
    let (one, attribute) = (Path::new("one"), Path::new("one/attr"));
    assert_eq!(tree.list(one).unwrap(), None);
    tree.make(one).unwrap();
    tree.make(one).unwrap();
    assert_eq!(tree.read(attribute).unwrap(), None);
    assert!(tree.write(attribute, "1").is_err(), "an attribute this kernel has not is not made up");
    std::fs::write(dir.join(attribute), "old\n").unwrap();
    assert_eq!(tree.read(attribute).unwrap().as_deref(), Some("old"));
    tree.link(one, Path::new("link")).unwrap();
    tree.link(one, Path::new("link")).unwrap();
    assert_eq!(tree.list(Path::new("")).unwrap().unwrap(), ["link", "one"]);
    tree.unlink(Path::new("link")).unwrap();
    tree.unlink(Path::new("link")).unwrap();
    assert!(tree.remove(one).is_err(), "what has something in it stays");
    std::fs::remove_dir_all(&dir).unwrap();
}
