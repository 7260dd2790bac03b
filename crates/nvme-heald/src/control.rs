//! The control socket: what an operator may ask, one line in and one line out.
//!
//! ```text
//!   client ── line of JSON ──► connection task ── Inbound ──► reactor
//!     at most 16 KiB, 5 s         who is it? (SO_PEERCRED)      │
//!          ◄── line of JSON ──────────────◄──── Response ───────┘
//! ```
//!
//! Whoever can open the socket may read: that is root and the group `nvme-heal`. Only root may
//! change anything, and what may be changed is to do *less*, or to end that. There is no way in to
//! make the daemon act on a device of somebody's choice.
//!
//! A client that sends nothing, too much, or reads nothing costs one connection for some seconds.
//! The number of connections is bounded, so it cannot cost more.
//!
//! Beside it is a second socket, [`knock`], for those who may do nothing but ask for a look.

pub(crate) mod knock;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heal_types::control::{Envelope, MAX_REQUEST, MAX_RESPONSE, PROTOCOL, Request, Response};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The socket's name in the runtime directory.
pub(crate) const SOCKET: &str = "control.sock";
/// The group that may read.
const GROUP: &str = "nvme-heal";
/// Connections at once.
const CONNECTIONS: usize = 32;
/// Requests that may wait for the reactor.
pub(crate) const ROOM: usize = CONNECTIONS;
/// How long a client may take to send its line, and again to take the answer.
const CLIENT: Duration = Duration::from_secs(5);
/// How long the daemon may take to answer.
const DAEMON: Duration = Duration::from_secs(20);

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) pid: Option<i32>,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "uid={},pid={pid}", self.uid),
            None => write!(f, "uid={}", self.uid),
        }
    }
}

/// A request on its way to the reactor.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) request: Request,
    pub(crate) peer: Peer,
    pub(crate) answer: oneshot::Sender<Response>,
}

/// The open socket. Its file stays when the daemon ends: removing it could take the next daemon's.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
}

impl Control {
    /// Opens the socket in `directory`, which is made if it is missing.
    ///
    /// # Errors
    /// When another daemon answers there, something else has the name, or the system says no.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(SOCKET);
        let listener = listen(&path)?;
        if let Some(gid) = group_id(Path::new("/etc/group"), GROUP) {
            if let Err(error) = std::os::unix::fs::chown(&path, None, Some(gid)) {
                tracing::warn!(group = GROUP, %error, "the control socket is for root only");
            }
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self { listener })
    }

    /// Serves clients for ever.
    pub(crate) async fn serve(self, inbound: mpsc::Sender<Inbound>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: others must get the time to end.
                    tracing::warn!(%error, "a control connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                drop(stream);
                continue;
            };
            let inbound = inbound.clone();
            tokio::spawn(async move {
                if let Err(error) = converse(stream, &inbound).await {
                    tracing::debug!(%error, "a control connection broke off");
                }
                drop(place);
            });
        }
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    make_room(path)?;
    UnixListener::bind(path)
}

/// Takes a socket away that nobody answers on. Anything else at that name is somebody's.
fn make_room(path: &Path) -> io::Result<()> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let taken = |what: &str| {
        let text = format!("{} {what}", path.display());
        io::Error::new(io::ErrorKind::AddrInUse, text)
    };
    if !meta.file_type().is_socket() {
        return Err(taken("is not a socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(taken("is answered by another daemon")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => remove_socket(path),
        Err(error) => Err(error),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the daemon's own socket in its own directory, left by an earlier life"
)]
fn remove_socket(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// The number of `group` in a file of the form of `/etc/group`.
fn group_id(file: &Path, group: &str) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == group).then(|| fields.nth(1)?.parse().ok())?
    })
}

async fn converse(mut stream: UnixStream, inbound: &mpsc::Sender<Inbound>) -> io::Result<()> {
    let credentials = stream.peer_cred()?;
    let peer = Peer { uid: credentials.uid(), pid: credentials.pid() };
    let line = tokio::time::timeout(CLIENT, read_line(&mut stream)).await??;
    let response = match parse(&line) {
        Ok(request) => pass_on(request, peer, inbound).await,
        Err(why) => Response::Refused(why),
    };
    tokio::time::timeout(CLIENT, write_line(&mut stream, &response)).await?
}

/// One line, or what there is when the client has said all of it, up to one byte too much.
async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_REQUEST + 1).unwrap_or(u64::MAX);
    BufReader::new(stream.take(limit)).read_until(b'\n', &mut line).await?;
    Ok(line)
}

pub(crate) fn parse(line: &[u8]) -> Result<Request, String> {
    /// The version is read by itself first: a newer request is a matter of versions, not of form.
    #[derive(Deserialize)]
    struct Version {
        protocol: u16,
    }
    if line.len() > MAX_REQUEST {
        return Err(format!("the request is longer than {MAX_REQUEST} bytes"));
    }
    let version: Version =
        serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))?;
    if version.protocol != PROTOCOL {
        let theirs = version.protocol;
        return Err(format!("this daemon speaks protocol {PROTOCOL}, the request is in {theirs}"));
    }
    let envelope: Envelope =
        serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))?;
    Ok(envelope.request)
}

async fn pass_on(request: Request, peer: Peer, inbound: &mpsc::Sender<Inbound>) -> Response {
    let changes = match &request {
        Request::Status | Request::Explain { .. } | Request::Look { .. } => false,
        Request::Hold { .. } | Request::Resume { .. } => true,
    };
    if changes && peer.uid != 0 {
        return Response::Refused("only root may do that".to_owned());
    }
    let (answer, answered) = oneshot::channel();
    let sent = inbound.try_send(Inbound { request, peer, answer });
    if sent.is_err() {
        return Response::Refused("the daemon is busy or stopping: try again".to_owned());
    }
    match tokio::time::timeout(DAEMON, answered).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Response::Refused("the daemon is stopping".to_owned()),
        Err(_) => Response::Refused(format!("no answer within {DAEMON:?}")),
    }
}

async fn write_line(stream: &mut UnixStream, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    if line.len() >= MAX_RESPONSE {
        let why = format!("the answer would be longer than {MAX_RESPONSE} bytes");
        line = serde_json::to_vec(&Response::Refused(why))?;
    }
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests;
