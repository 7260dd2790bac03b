//! The one way in: a question for each request, over TLS 1.3 with certificates on both sides.
//!
//! Who has no certificate of the right authority does not come as far as HTTP. Everything is
//! bounded: how many ask at once, how long they may take to ask, how much they may say. How long an
//! answer takes is up to the kernel: a write that hangs on a dead disk is waited for, because
//! nobody knows when it lands. Whoever asks again meanwhile is told so.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use heal_types::fence::{Question, Told};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::config::Config;
use crate::fence::Fence;

/// As much of a question as is read.
const MOST: usize = 64 * 1024;
/// How long a question may take until it is here.
const ASKING: Duration = Duration::from_secs(10);
/// How many ask at once.
const AT_ONCE: usize = 64;
/// Nobody uses a connection that long.
const LONGEST: Duration = Duration::from_secs(600);

/// Why nobody can be let in.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file has nothing of use in it.
    #[error("{} has no {what} in PEM form that can be used", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The library does not take what the files have.
    #[error("the certificates cannot be used")]
    Rustls(#[source] rustls::Error),
    /// Nor this.
    #[error("the authorities of clients cannot be used")]
    Clients(#[source] rustls::server::VerifierBuilderError),
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let empty = || TlsError::Empty { path: path.to_path_buf(), what: "certificate" };
    let found = CertificateDer::pem_file_iter(path).map_err(|_| empty())?;
    let found: Vec<_> = found.filter_map(Result::ok).take(64).collect();
    if found.is_empty() { Err(empty()) } else { Ok(found) }
}

/// How we show ourselves, and whom we believe. Reads files.
///
/// # Errors
/// When they have nothing that can be used.
pub fn tls(config: &Config) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut clients = RootCertStore::empty();
    for authority in certificates(&config.clients)? {
        clients.add(authority).map_err(TlsError::Rustls)?;
    }
    let judge =
        WebPkiClientVerifier::builder_with_provider(Arc::new(clients), Arc::clone(&provider))
            .build()
            .map_err(TlsError::Clients)?;
    let key = PrivateKeyDer::from_pem_file(&config.key);
    let key = key.map_err(|_| TlsError::Empty { path: config.key.clone(), what: "private key" })?;
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Rustls)?
        .with_client_cert_verifier(judge)
        .with_single_cert(certificates(&config.certificate)?, key)
        .map_err(TlsError::Rustls)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// Answers until the process ends.
pub async fn serve(listener: TcpListener, tls: ServerConfig, fence: Arc<Fence>) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was lost before it was one");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, fence) = (acceptor.clone(), Arc::clone(&fence));
        tokio::spawn(async move {
            let peer = stream.peer_addr();
            if let Err(error) = timeout(LONGEST, talk(stream, acceptor, fence))
                .await
                .unwrap_or_else(|_| Err(io::Error::other("it went on for too long")))
            {
                tracing::info!(?peer, %error, "somebody was not listened to");
            }
            drop(slot);
        });
    }
}

async fn talk(stream: TcpStream, acceptor: TlsAcceptor, fence: Arc<Fence>) -> io::Result<()> {
    let stream = timeout(ASKING, acceptor.accept(stream)).await??;
    let service = service_fn(move |request| {
        let fence = Arc::clone(&fence);
        async move { Ok::<_, Infallible>(answer(request, fence).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASKING)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

async fn answer(request: Request<Incoming>, fence: Arc<Fence>) -> Response<Full<Bytes>> {
    if request.method() != Method::POST || request.uri().path() != "/v1/fence" {
        return respond(StatusCode::NOT_FOUND, &Told::Refused("POST /v1/fence".to_owned()));
    }
    let body = timeout(ASKING, Limited::new(request.into_body(), MOST).collect()).await;
    let question = match body {
        Ok(Ok(body)) => serde_json::from_slice::<Question>(&body.to_bytes()),
        Ok(Err(_)) | Err(_) => {
            let told = Told::Again("the question did not come whole".to_owned());
            return respond(StatusCode::BAD_REQUEST, &told);
        }
    };
    match question {
        Ok(question) => {
            // On a thread of its own: the kernel may make it wait.
            let told = tokio::task::spawn_blocking(move || fence.ask(&question)).await;
            let told = told.unwrap_or_else(|_| Told::Again("it was broken off".to_owned()));
            respond(StatusCode::OK, &told)
        }
        Err(error) => {
            let told = Told::Refused(format!("the question is not understood: {error}"));
            respond(StatusCode::BAD_REQUEST, &told)
        }
    }
}

fn respond(code: StatusCode, told: &Told) -> Response<Full<Bytes>> {
    let text = serde_json::to_vec(told).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
