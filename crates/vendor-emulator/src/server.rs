//! An HTTPS server that breaks on demand and writes down what it heard.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Certificates;

/// More of a request's body is not taken.
const MAX_BODY: usize = 1024 * 1024;
/// As many requests are remembered.
const MAX_LOG: usize = 100_000;

/// A request, read whole.
#[derive(Debug, Clone)]
pub struct Heard {
    /// `GET`, `POST`…
    pub method: String,
    /// Path and query, as they came.
    pub path: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// The `Idempotency-Key` header.
    pub key: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// With status 200.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self { status: 200, body: body.into() }
    }
}

/// What answers requests.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// The answer to one request.
    async fn answer(&self, heard: Heard) -> Answer;
}

/// What goes wrong, on demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed before the request is handled.
    Drop,
    /// The request is handled, and the connection closed instead of an answer.
    LoseAnswer,
    /// Nothing is ever answered, and nothing handled.
    Hang,
    /// The answer comes late.
    Slow(Duration),
    /// This comes instead of the answer; nothing is handled.
    Say(Answer),
    /// The request is handled, and this comes instead of its answer.
    Garble(Answer),
}

/// Which requests a fault is for.
#[derive(Debug, Clone)]
struct Planned {
    method: String,
    path: String,
    times: usize,
    fault: Fault,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Since the epoch.
    pub at: Duration,
    /// `GET`, `POST`…
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The body as text.
    pub body: String,
    /// The status that was answered; none if nothing was.
    pub status: Option<u16>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.at.as_secs(), self.at.subsec_millis());
        write!(f, "{seconds}.{millis:03} {} {}", self.method, self.path)?;
        match self.status {
            Some(status) => write!(f, " {status}")?,
            None => f.write_str(" no answer")?,
        }
        let body: String = self.body.split_whitespace().collect::<Vec<_>>().join(" ");
        if body.is_empty() { Ok(()) } else { write!(f, " {body}") }
    }
}

/// Called for every line, as it is written.
pub type OnLine = Box<dyn Fn(&Line) + Send + Sync>;

#[derive(Default)]
struct Shared {
    away: bool,
    faults: Vec<Planned>,
    log: VecDeque<Line>,
    connections: usize,
    on_line: Option<OnLine>,
}

/// How a server is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerOptions {
    /// Only clients with a certificate of our authority are talked to.
    pub client_certificate: bool,
}

/// A running server. Dropping it ends it, and every connection.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set TLS up")]
    Tls(#[source] rustls::Error),
    /// The authority for clients cannot be used.
    #[error("cannot judge clients")]
    Clients(#[source] rustls::server::VerifierBuilderError),
}

impl Server {
    /// Serves `service` at `address` (port 0: any).
    ///
    /// # Errors
    /// When it cannot be listened there, or TLS cannot be set up.
    pub async fn start(
        address: SocketAddr,
        certificates: &Certificates,
        options: ServerOptions,
        service: Arc<dyn Service>,
    ) -> Result<Self, StartError> {
        let listen = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let acceptor = TlsAcceptor::from(Arc::new(tls(certificates, options)?));
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared), service));
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nobody is talked to, or everybody again.
    pub fn set_away(&self, away: bool) {
        lock(&self.shared).away = away;
    }

    /// The next `times` requests of `method` whose path begins with `path` meet `fault`.
    pub fn plan(&self, method: &str, path: &str, times: usize, fault: Fault) {
        let planned = Planned { method: method.to_owned(), path: path.to_owned(), times, fault };
        lock(&self.shared).faults.push(planned);
    }

    /// Forgets the faults that were planned.
    pub fn heal(&self) {
        lock(&self.shared).faults.clear();
    }

    /// What was heard so far.
    #[must_use]
    pub fn log(&self) -> Vec<Line> {
        lock(&self.shared).log.iter().cloned().collect()
    }

    /// From now on every line is also given to `on_line`.
    pub fn tell(&self, on_line: OnLine) {
        lock(&self.shared).on_line = Some(on_line);
    }

    /// How many connections were made so far, handshake and all.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.shared).connections
    }

    /// How many requests of `method` whose path begins with `path` were heard.
    #[must_use]
    pub fn count(&self, method: &str, path: &str) -> usize {
        let is = |line: &&Line| line.method == method && line.path.starts_with(path);
        lock(&self.shared).log.iter().filter(is).count()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tls(certificates: &Certificates, options: ServerOptions) -> Result<ServerConfig, StartError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(StartError::Tls)?;
    let builder = if options.client_certificate {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificates.authority.clone()).map_err(StartError::Tls)?;
        let judge = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(StartError::Clients)?;
        builder.with_client_cert_verifier(judge)
    } else {
        builder.with_no_client_auth()
    };
    let (certificate, key) = certificates.server();
    builder.with_single_cert(vec![certificate], key).map_err(StartError::Tls)
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Mutex<Shared>>,
    service: Arc<dyn Service>,
) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                if lock(&shared).away {
                    continue;
                }
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(converse(stream, acceptor, shared, Arc::clone(&service)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The connection ends without an answer.
#[derive(Debug)]
struct HangUp;

impl fmt::Display for HangUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hung up")
    }
}

impl std::error::Error for HangUp {}

async fn converse(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    shared: Arc<Mutex<Shared>>,
    service: Arc<dyn Service>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else { return };
    lock(&shared).connections += 1;
    let handler = service_fn(move |request| {
        let (shared, service) = (Arc::clone(&shared), Arc::clone(&service));
        async move {
            let Some(heard) = read(request).await else { return Err(HangUp) };
            handle(&shared, &*service, heard).await.ok_or(HangUp)
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), handler).await;
}

async fn read(request: hyper::Request<Incoming>) -> Option<Heard> {
    let (parts, body) = request.into_parts();
    let header = |name: &str| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let heard = Heard {
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        authorization: header("authorization"),
        content_type: header("content-type"),
        key: header("idempotency-key"),
        body: Bytes::new(),
    };
    let body = Limited::new(body, MAX_BODY).collect().await.ok()?.to_bytes();
    Some(Heard { body, ..heard })
}

async fn handle(
    shared: &Mutex<Shared>,
    service: &dyn Service,
    heard: Heard,
) -> Option<hyper::Response<Full<Bytes>>> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let line = Line {
        at,
        method: heard.method.clone(),
        path: heard.path.clone(),
        body: String::from_utf8_lossy(&heard.body).into_owned(),
        status: None,
    };
    let (away, fault) = {
        let mut shared = lock(shared);
        (shared.away, take(&mut shared.faults, &heard))
    };
    if fault == Some(Fault::Hang) {
        // It is heard, and nothing more will be.
        note(shared, line.clone());
    }
    let answer = if away { None } else { meet(fault, service, heard).await };
    note(shared, Line { status: answer.as_ref().map(|answer| answer.status), ..line });
    let answer = answer?;
    hyper::Response::builder().status(answer.status).body(Full::new(answer.body)).ok()
}

async fn meet(fault: Option<Fault>, service: &dyn Service, heard: Heard) -> Option<Answer> {
    match fault {
        None => Some(service.answer(heard).await),
        Some(Fault::Drop) => None,
        Some(Fault::LoseAnswer) => {
            service.answer(heard).await;
            None
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Slow(wait)) => {
            tokio::time::sleep(wait).await;
            Some(service.answer(heard).await)
        }
        Some(Fault::Say(answer)) => Some(answer),
        Some(Fault::Garble(answer)) => {
            service.answer(heard).await;
            Some(answer)
        }
    }
}

fn take(faults: &mut Vec<Planned>, heard: &Heard) -> Option<Fault> {
    let at = faults.iter().position(|planned| {
        planned.method == heard.method && heard.path.starts_with(&planned.path)
    })?;
    faults[at].times = faults[at].times.saturating_sub(1);
    let fault = faults[at].fault.clone();
    if faults[at].times == 0 {
        faults.remove(at);
    }
    Some(fault)
}

fn note(shared: &Mutex<Shared>, line: Line) {
    let mut shared = lock(shared);
    if let Some(on_line) = &shared.on_line {
        on_line(&line);
    }
    if shared.log.len() >= MAX_LOG {
        shared.log.pop_front();
    }
    shared.log.push_back(line);
}
