//! One request, one response.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use heal_types::control::{Envelope, MAX_RESPONSE, PROTOCOL, Request, Response};

/// The daemon answers within twenty seconds, or says that it cannot.
const PATIENCE: Duration = Duration::from_secs(25);

/// Asks the daemon behind `socket`.
pub(crate) fn ask(socket: &Path, request: Request) -> anyhow::Result<Response> {
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        let kind = error.kind();
        let hint = if matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
            "is nvme-heald running? (systemctl status nvme-heald)"
        } else if kind == ErrorKind::PermissionDenied {
            "you need to be root or in the group nvme-heal"
        } else {
            "the control socket does not work"
        };
        anyhow::Error::new(error).context(format!("{}: {hint}", socket.display()))
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&Envelope { protocol: PROTOCOL, request })?;
    line.push(b'\n');
    stream.write_all(&line).context("the daemon does not take the request")?;
    let mut answer = Vec::new();
    let limit = u64::try_from(MAX_RESPONSE).unwrap_or(u64::MAX).saturating_add(1);
    BufReader::new(stream.take(limit))
        .read_until(b'\n', &mut answer)
        .context("the daemon does not answer")?;
    if answer.is_empty() {
        bail!("the daemon hung up: it is busy or stopping");
    }
    if answer.last() != Some(&b'\n') {
        bail!("the daemon's answer is cut off after {} bytes", answer.len());
    }
    serde_json::from_slice(&answer).context("the daemon's answer makes no sense")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    /// A daemon that reads a line, sends these bytes and hangs up.
    fn daemon(name: &str, bytes: &'static [u8]) -> PathBuf {
        let file = format!("nvme-heal-{}-{name}.sock", std::process::id());
        let path = std::env::temp_dir().join(file);
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            assert_eq!(line, "{\"protocol\":1,\"request\":\"status\"}\n");
            let _ = stream.write_all(bytes);
        });
        path
    }

    fn error(name: &str, bytes: &'static [u8]) -> String {
        let path = daemon(name, bytes);
        format!("{:#}", ask(&path, Request::Status).unwrap_err())
    }

    #[test]
    fn an_answer_is_one_whole_line() {
        let path = daemon("done", b"{\"done\":\"held\"}\n");
        assert_eq!(ask(&path, Request::Status).unwrap(), Response::Done("held".into()));
        assert!(error("cut", b"{\"done\":").contains("cut off after 8 bytes"));
        assert!(error("none", b"").contains("hung up"));
        assert!(error("garbage", b"?\n").contains("makes no sense"));
    }

    #[test]
    fn a_daemon_that_is_not_there_is_said_so() {
        let missing = Path::new("/nonexistent/control.sock");
        let error = format!("{:#}", ask(missing, Request::Status).unwrap_err());
        assert!(error.contains("is nvme-heald running?"), "{error}");
    }
}
