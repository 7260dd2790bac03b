//! The knocker: whoever attaches volumes says that there is something to see.
//!
//! ```text
//!   nova-compute, cinder-volume ── {"look"} ──► look.sock ── one at a time, with a rest ──► reactor
//!     any user, any container       0666          nothing but `look` is heard
//! ```
//!
//! The services that attach volumes run as users of their own, in containers whose groups are not
//! the host's: no mode of [`super::SOCKET`] would let them in and keep others out. So this door is
//! open to everybody, and behind it is nothing to gain: no answer tells anything about an array,
//! and all that can be brought about is a look, which happens on every event of the kernel anyway.
//!
//! The price of an open door is whoever rings all day. Clients are taken one after the other, and
//! between two of them is [`REST`]: so that costs five looks a second and as many questions to the
//! provisioner, and meanwhile other callers stand in the kernel's queue. A knock that is lost is no
//! loss: the daemon hears of new arrays from the kernel itself.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use heal_types::control::{Request, Response};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::{Inbound, Peer, listen, parse, pass_on, read_line, write_line};

/// The socket's name in the runtime directory.
pub(crate) const SOCKET: &str = "look.sock";
/// Between two clients.
const REST: Duration = Duration::from_millis(200);
/// How long a client may take to send its line: it is one write after the connect.
const CLIENT: Duration = Duration::from_millis(500);

/// The open door.
#[derive(Debug)]
pub(crate) struct Knocker {
    listener: UnixListener,
}

impl Knocker {
    /// Opens the door in `directory`, which is the control socket's.
    ///
    /// # Errors
    /// When something else has the name, or the system says no.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(SOCKET);
        let listener = listen(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self { listener })
    }

    /// Hears one client after the other, for ever.
    pub(crate) async fn serve(self, inbound: mpsc::Sender<Inbound>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = hear(stream, &inbound).await {
                        // Most clients are gone before they are answered.
                        tracing::trace!(%error, "a knock broke off");
                    }
                }
                Err(error) => tracing::debug!(%error, "a knock was not heard"),
            }
            tokio::time::sleep(REST).await;
        }
    }
}

async fn hear(mut stream: UnixStream, inbound: &mpsc::Sender<Inbound>) -> io::Result<()> {
    let credentials = stream.peer_cred()?;
    let peer = Peer { uid: credentials.uid(), pid: credentials.pid() };
    let line = tokio::time::timeout(CLIENT, read_line(&mut stream)).await??;
    let response = match parse(&line) {
        Ok(request) => admit(request, peer, inbound).await,
        Err(why) => Response::Refused(why),
    };
    tokio::time::timeout(CLIENT, write_line(&mut stream, &response)).await?
}

async fn admit(request: Request, peer: Peer, inbound: &mpsc::Sender<Inbound>) -> Response {
    match request {
        Request::Look { .. } => pass_on(request, peer, inbound).await,
        Request::Status
        | Request::Explain { .. }
        | Request::Hold { .. }
        | Request::Resume { .. } => {
            Response::Refused(format!("here one may only ask for a look; use {}", super::SOCKET))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::tests::{refusal, say};
    use super::*;
    use crate::control::ROOM;
    use crate::testing::Scratch;

    fn door(scratch: &Scratch) -> (PathBuf, mpsc::Receiver<Inbound>) {
        let knocker = Knocker::open(scratch.path()).unwrap();
        let (inbound, inbox) = mpsc::channel(ROOM);
        tokio::spawn(knocker.serve(inbound));
        (scratch.path().join(SOCKET), inbox)
    }

    const LOOK: &[u8] = b"{\"protocol\":1,\"request\":{\"look\":{\"array\":\"/dev/md/db\"}}}\n";

    #[tokio::test]
    async fn everybody_may_ask_for_a_look_and_for_nothing_else() {
        let scratch = Scratch::new("knock-only");
        let (path, mut inbox) = door(&scratch);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        for request in [
            "\"status\"",
            r#"{"explain":{"array":"md0"}}"#,
            r#"{"hold":{"array":"md0","reason":"x","duration":null}}"#,
            r#"{"resume":{"array":"md0"}}"#,
        ] {
            let line = format!("{{\"protocol\":1,\"request\":{request}}}\n");
            let why = refusal(say(&path, line.as_bytes()).await);
            assert!(why.contains("only ask for a look"), "{why}");
        }
        assert!(inbox.try_recv().is_err(), "nothing of it came through");
        let asked = tokio::spawn(async move { say(&path, LOOK).await });
        let heard = inbox.recv().await.unwrap();
        assert_eq!(heard.request, Request::Look { array: Some("/dev/md/db".to_owned()) });
        heard.answer.send(Response::Done("looking".to_owned())).unwrap();
        assert_eq!(asked.await.unwrap(), Response::Done("looking".to_owned()));
    }

    #[tokio::test]
    async fn a_client_that_does_not_wait_for_the_answer_is_heard_all_the_same() {
        use std::io::Write as _;
        let scratch = Scratch::new("knock-gone");
        let (path, mut inbox) = door(&scratch);
        for _ in 0..3 {
            let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            stream.write_all(LOOK).unwrap();
            drop(stream);
        }
        for _ in 0..3 {
            let heard = inbox.recv().await.unwrap();
            assert_eq!(heard.request, Request::Look { array: Some("/dev/md/db".to_owned()) });
            let _ = heard.answer.send(Response::Done("looking".to_owned()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_rings_all_day_is_heard_five_times_a_second() {
        let scratch = Scratch::new("knock-often");
        let (path, mut inbox) = door(&scratch);
        let began = tokio::time::Instant::now();
        tokio::spawn(async move {
            while let Some(heard) = inbox.recv().await {
                let _ = heard.answer.send(Response::Done("looking".to_owned()));
            }
        });
        for _ in 0..10 {
            assert_eq!(say(&path, LOOK).await, Response::Done("looking".to_owned()));
        }
        assert!(began.elapsed() >= REST * 9, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_silent_client_costs_the_next_one_half_a_second() {
        let scratch = Scratch::new("knock-silent");
        let (path, mut inbox) = door(&scratch);
        let _silent = UnixStream::connect(&path).await.unwrap();
        tokio::spawn(async move {
            while let Some(heard) = inbox.recv().await {
                let _ = heard.answer.send(Response::Done("looking".to_owned()));
            }
        });
        let answer = tokio::time::timeout(CLIENT * 10, say(&path, LOOK)).await.unwrap();
        assert_eq!(answer, Response::Done("looking".to_owned()));
    }
}
