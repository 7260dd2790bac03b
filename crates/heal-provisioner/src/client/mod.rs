//! The HTTPS client that the backends over a network share.
//!
//! ```text
//!   Request ──► token ──► address, the one that answered last first ──► TLS, judged ──► HTTP/1.1 ──► Reply
//!                 ▲            │ nobody there, nothing sent: the next one                    │
//!                 │            │ sent, no answer: the next one if the call may be repeated   │
//!                 └── once more with another token ◄──────────── "who are you?" ─────────────┘
//! ```
//!
//! Everything is bounded: a call by its deadline, an address by its share of it, an answer by its
//! size. Connections are kept for the next calls, as many as were ever needed at once and few in
//! any case: a handshake takes longer than a call. But a call that must not be repeated by accident
//! gets a fresh one: on an old one nobody can tell "never arrived" from "done, and the answer
//! lost".
//!
//! It knows nothing of any vendor. What an answer means is the backend's affair, and so is what
//! "not authorised" looks like: some say it with status 200.
//!
//! The price: HTTP/1.1 and one call at a time on a connection. A host makes a few calls an hour.

mod credentials;
mod endpoint;
mod secret;
mod trust;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use heal_types::{FaultClass, ProvisionerFault};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Version};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

pub use credentials::CredentialOptions;
pub use endpoint::Endpoint;
pub(crate) use endpoint::quoted;
pub(crate) use secret::Secret;
pub use secret::{SecretError, SecretSource};
pub use trust::{Pin, TlsOptions, TrustError};

use credentials::Credentials;

use crate::CallContext;

/// The largest answer that is read.
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// As much of a header block as is read.
const MAX_HEAD: usize = 64 * 1024;
/// How long one address may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection nobody used for this long is not used again. Longer than the pause between two
/// signs of life: a report finds one that is open.
const IDLE: Duration = Duration::from_secs(30);
/// As many connections are kept.
const MAX_IDLE: usize = 4;
/// How often it is said that anybody is believed.
const REMIND: Duration = Duration::from_secs(3600);

/// How a client is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// Where the provisioner is; the first that answers is used.
    pub endpoints: Vec<Endpoint>,
    /// Whom to believe there.
    pub tls: TlsOptions,
    /// Who we are.
    pub credentials: CredentialOptions,
}

/// A call. The path begins with a slash, and what is in it is quoted.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// JSON.
    pub(crate) body: Option<Vec<u8>>,
    /// Sent as `Idempotency-Key`.
    pub(crate) key: Option<String>,
    /// Whether having it twice is the same as having it once.
    pub(crate) repeatable: bool,
}

/// What came back, whatever its status.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// Why there is no reply.
#[derive(Debug)]
struct Broken {
    why: String,
    class: FaultClass,
    /// Whether the server may have read the call.
    sent: bool,
}

impl Broken {
    fn before(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), class: FaultClass::Unreachable, sent: false }
    }

    fn after(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), class: FaultClass::Unreachable, sent: true }
    }
}

fn fault(class: FaultClass, detail: impl fmt::Display) -> ProvisionerFault {
    ProvisionerFault::new(class, detail)
}

/// Calls one provisioner, at whichever of its addresses answers.
#[derive(Debug)]
pub(crate) struct Client {
    endpoints: Vec<Endpoint>,
    /// The one that answered last.
    preferred: AtomicUsize,
    wire: Wire,
    credentials: Credentials,
    /// The one that was used last at the end.
    idle: Mutex<Vec<Live>>,
    refuses: fn(&Reply) -> bool,
    reminder: Option<Mutex<Option<Instant>>>,
}

impl Client {
    /// A client; `refuses` says whether a reply means that our credentials were not accepted. Reads
    /// the certificates, calls nobody.
    pub(crate) fn new(
        options: ClientOptions,
        refuses: fn(&Reply) -> bool,
    ) -> Result<Self, TrustError> {
        let wire = Wire::new(trust::client_config(&options.tls)?);
        Ok(Self {
            endpoints: options.endpoints,
            preferred: AtomicUsize::new(0),
            credentials: Credentials::new(options.credentials, wire.clone()),
            wire,
            idle: Mutex::default(),
            refuses,
            reminder: options.tls.believe_anybody.then(Mutex::default),
        })
    }

    /// Makes the call, with another token if the first is not accepted.
    pub(crate) async fn call(
        &self,
        context: &CallContext,
        request: &Request,
    ) -> Result<Reply, ProvisionerFault> {
        self.remind();
        let mut refused = None;
        for _ in 0..2 {
            let token = self.credentials.token(context, refused).await?;
            let header = token.as_ref().map(credentials::Token::header);
            let reply = self.somewhere(context, request, header).await?;
            if !(self.refuses)(&reply) {
                return Ok(reply);
            }
            let Some(token) = token else { break };
            refused = Some(token.number());
        }
        Err(fault(FaultClass::Unauthorized, "the provisioner does not accept our credentials"))
    }

    /// At the address that answered last, or the next one that does.
    async fn somewhere(
        &self,
        context: &CallContext,
        request: &Request,
        authorization: Option<&Secret>,
    ) -> Result<Reply, ProvisionerFault> {
        let count = self.endpoints.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = None;
        for turn in 0..count {
            let at = (first + turn) % count;
            let left = count - turn;
            // An address that says nothing must leave time for the others.
            let share = if request.repeatable || left == 1 {
                context.remaining() / u32::try_from(left).unwrap_or(1)
            } else {
                context.remaining()
            };
            let context = CallContext { deadline: Instant::now() + share };
            match self.at(&context, at, request, authorization).await {
                Ok(reply) if reply.status >= 502 && request.repeatable && left > 1 => {
                    last = Some(Ok(reply));
                }
                Ok(reply) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(broken) => {
                    let endpoint = &self.endpoints[at];
                    tracing::debug!(%endpoint, why = broken.why, sent = broken.sent, "no answer");
                    let over = broken.sent && !request.repeatable;
                    last =
                        Some(Err(fault(broken.class, format_args!("{endpoint}: {}", broken.why))));
                    if over || broken.class != FaultClass::Unreachable {
                        break;
                    }
                }
            }
        }
        last.unwrap_or_else(|| Err(fault(FaultClass::Unreachable, "no address is configured")))
    }

    async fn at(
        &self,
        context: &CallContext,
        at: usize,
        request: &Request,
        authorization: Option<&Secret>,
    ) -> Result<Reply, Broken> {
        let endpoint = &self.endpoints[at];
        if let Some(mut live) = request.repeatable.then(|| self.take_idle(at)).flatten() {
            let sent = sent(request, authorization);
            match live.exchange(context, endpoint, sent).await {
                Ok(reply) => {
                    self.keep(live);
                    return Ok(reply);
                }
                Err(broken) if context.remaining().is_zero() => return Err(broken),
                // The server closed it while nobody looked.
                Err(_) => {}
            }
        }
        let mut live = self.wire.connect(context, endpoint, at).await?;
        let reply = live.exchange(context, endpoint, sent(request, authorization)).await?;
        self.keep(live);
        Ok(reply)
    }

    /// The youngest connection to the address `at` that is still good. The others are closed.
    fn take_idle(&self, at: usize) -> Option<Live> {
        let mut idle = self.idle();
        idle.retain(|live| live.at == at && live.used.elapsed() < IDLE && live.sender.is_ready());
        idle.pop()
    }

    fn keep(&self, live: Live) {
        let mut idle = self.idle();
        if idle.len() >= MAX_IDLE {
            idle.remove(0);
        }
        idle.push(live);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Live>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remind(&self) {
        if self.reminder_is_due(Instant::now()) {
            tracing::warn!(
                "the provisioner's certificate is not verified: whoever can reach this network can \
                 pose as it"
            );
        }
    }

    /// Whether it is time to say so again; then it counts as said.
    fn reminder_is_due(&self, now: Instant) -> bool {
        let Some(reminder) = &self.reminder else { return false };
        let mut said = reminder.lock().unwrap_or_else(PoisonError::into_inner);
        let due = said.is_none_or(|said| now.saturating_duration_since(said) >= REMIND);
        if due {
            *said = Some(now);
        }
        due
    }
}

fn sent(request: &Request, authorization: Option<&Secret>) -> Sent {
    let mut headers: Vec<(&'static str, Bytes)> = Vec::new();
    if request.method != Method::GET {
        headers.push((CONTENT_TYPE.as_str(), Bytes::from_static(b"application/json")));
    }
    if let Some(key) = &request.key {
        headers.push(("idempotency-key", Bytes::copy_from_slice(key.as_bytes())));
    }
    if let Some(value) = authorization {
        headers.push((AUTHORIZATION.as_str(), Bytes::copy_from_slice(value.expose())));
    }
    Sent {
        method: request.method.clone(),
        path: request.path.clone(),
        body: request.body.clone().unwrap_or_default().into(),
        headers,
    }
}

/// What goes over a connection.
struct Sent {
    method: Method,
    path: String,
    body: Bytes,
    headers: Vec<(&'static str, Bytes)>,
}

/// Makes connections.
#[derive(Clone)]
struct Wire(Arc<ClientConfig>);

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    fn new(config: ClientConfig) -> Self {
        Self(Arc::new(config))
    }

    /// One exchange on a connection of its own.
    async fn once(
        &self,
        context: &CallContext,
        endpoint: &Endpoint,
        sent: Sent,
    ) -> Result<Reply, Broken> {
        self.connect(context, endpoint, 0).await?.exchange(context, endpoint, sent).await
    }

    async fn connect(
        &self,
        context: &CallContext,
        endpoint: &Endpoint,
        at: usize,
    ) -> Result<Live, Broken> {
        let deadline = context.deadline.min(Instant::now() + CONNECT);
        match timeout_at(deadline, self.open(endpoint)).await {
            Ok(opened) => opened.map(|(sender, connection)| Live {
                sender,
                connection,
                at,
                used: Instant::now(),
            }),
            Err(_) => Err(Broken::before("no connection in time")),
        }
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<Opened, Broken> {
        let tcp =
            TcpStream::connect((endpoint.host(), endpoint.port())).await.map_err(Broken::before)?;
        // A call is one small write: waiting for more would only be late.
        let _ = tcp.set_nodelay(true);
        let tls = TlsConnector::from(Arc::clone(&self.0))
            .connect(endpoint.server_name(), tcp)
            .await
            .map_err(|error| Broken::before(format_args!("TLS: {error}")))?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(Broken::before)?;
        let connection = tokio::spawn(async move {
            // Its end, good or bad, is seen at the sender.
            let _ = connection.await;
        });
        Ok((sender, connection))
    }
}

type Opened = (SendRequest<Full<Bytes>>, JoinHandle<()>);

/// A connection. Dropping it closes it, whatever the server is doing.
struct Live {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
    at: usize,
    used: Instant,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Live {
    async fn exchange(
        &mut self,
        context: &CallContext,
        endpoint: &Endpoint,
        sent: Sent,
    ) -> Result<Reply, Broken> {
        let request = build(endpoint, sent)?;
        let answered = timeout_at(context.deadline, async {
            let response = self.sender.send_request(request).await.map_err(Broken::after)?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| unreadable(&*error))?
                .to_bytes();
            Ok(Reply { status, body })
        });
        let reply = answered.await.map_err(|_| Broken::after("no answer in time"))??;
        self.used = Instant::now();
        Ok(reply)
    }
}

fn unreadable(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Broken {
    if error.is::<http_body_util::LengthLimitError>() {
        let why = format!("an answer of more than {MAX_ANSWER} bytes");
        Broken { why, class: FaultClass::Invalid, sent: true }
    } else {
        Broken::after(format_args!("the answer broke off: {error}"))
    }
}

fn build(endpoint: &Endpoint, sent: Sent) -> Result<hyper::Request<Full<Bytes>>, Broken> {
    let path = endpoint.path(&sent.path);
    let path = if path.is_empty() { "/".to_owned() } else { path };
    let mut request = hyper::Request::builder()
        .version(Version::HTTP_11)
        .method(sent.method)
        .uri(path)
        .header(HOST, endpoint.authority())
        .header(USER_AGENT, concat!("nvme-heald/", env!("CARGO_PKG_VERSION")));
    for (name, value) in sent.headers {
        let mut value = HeaderValue::from_maybe_shared(value)
            .map_err(|_| Broken::before(format_args!("{name} cannot be sent")))?;
        value.set_sensitive(name == AUTHORIZATION);
        request = request.header(HeaderName::from_static(name), value);
    }
    request.body(Full::new(sent.body)).map_err(Broken::before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(believe_anybody: bool) -> Client {
        let tls = TlsOptions {
            pins: vec!["ab".repeat(32).parse().unwrap()],
            believe_anybody,
            ..TlsOptions::default()
        };
        let credentials = CredentialOptions::None;
        let options = ClientOptions { endpoints: Vec::new(), tls, credentials };
        Client::new(options, |_| false).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_nobody_verifies_is_warned_of_every_hour() {
        let client = client(true);
        assert!(client.reminder_is_due(Instant::now()));
        tokio::time::advance(Duration::from_secs(3599)).await;
        assert!(!client.reminder_is_due(Instant::now()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(client.reminder_is_due(Instant::now()));
        assert!(!client.reminder_is_due(Instant::now()));
    }

    #[test]
    fn a_certificate_that_is_verified_needs_no_warning() {
        assert!(!client(false).reminder_is_due(Instant::now()));
    }
}
