//! One kernel multicast socket, with the discipline both listeners need.
//!
//! - **Only the kernel is heard.** Any process may send to a netlink socket. The kernel writes the
//!   sender's port into the address, and only its own port is 0: a process is given another one
//!   when it binds or sends (`netlink_autobind`, `net/netlink/af_netlink.c`). So the address proves
//!   the sender; credentials would prove the same again.
//! - **A loss is an event.** When the receive buffer is full, the kernel drops messages and the
//!   next read says `ENOBUFS`. That, a message that was cut, and an error nobody has seen yet all
//!   become
//!   [`Datagram::Overrun`]: look at everything again.
//! - **The buffer is forced large** (`SO_RCVBUFFORCE` goes past the host's limit and needs
//!   `CAP_NET_ADMIN`); without the right to, as large as the host allows.

use std::io;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::io::unix::AsyncFd;

use crate::readable::readable;

/// Room for some ten thousand messages while the daemon is busy elsewhere.
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;

/// The longest message. Uevents are bounded by 2 KiB (`UEVENT_BUFFER_SIZE`), link messages by the
/// number of virtual functions they list.
const MESSAGE: usize = 64 * 1024;

/// How long to leave a socket alone that answers with an unknown error.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Counts of one socket since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketCounters {
    /// Messages taken.
    pub received: u64,
    /// Messages dropped because the kernel did not send them.
    pub forged: u64,
    /// Messages dropped because they are not of the expected form.
    pub malformed: u64,
    /// Times messages were lost.
    pub overruns: u64,
}

/// What a socket answered.
#[derive(Debug)]
pub(crate) enum Datagram<'a> {
    /// One message.
    Message(&'a [u8]),
    /// Messages were lost.
    Overrun,
}

/// A socket that hears one set of the kernel's multicast groups.
#[derive(Debug)]
pub(crate) struct KernelSocket {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
    pub(crate) counters: SocketCounters,
    /// An error was met and is still to be answered for.
    failed: bool,
}

impl KernelSocket {
    /// Joins `groups`, a mask, of `protocol` (one of `netlink_sys::protocols`). Needs a tokio
    /// runtime with I/O.
    pub(crate) fn open(protocol: isize, groups: u32) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        if let Err(errno) = sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER) {
            tracing::info!(%errno, "netlink buffer not forced: the host's limit holds");
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
        }
        socket.bind(&SocketAddr::new(0, groups))?;
        Ok(Self {
            socket: readable(socket)?,
            buffer: vec![0; MESSAGE],
            counters: SocketCounters::default(),
            failed: false,
        })
    }

    /// The next message. A caller that gives up waiting loses nothing.
    pub(crate) async fn next(&mut self) -> Datagram<'_> {
        if self.failed {
            tokio::time::sleep(AFTER_ERROR).await;
            self.failed = false;
            return self.overrun();
        }
        let read = loop {
            let mut ready = match self.socket.readable().await {
                Ok(ready) => ready,
                Err(error) => break Err(error),
            };
            match receive(ready.get_inner(), &mut self.buffer) {
                Ok(Received::Message(length)) => break Ok(Some(length)),
                Ok(Received::Cut) => break Ok(None),
                Ok(Received::Forged) => self.counters.forged += 1,
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => break Ok(None),
                Err(errno) => break Err(errno.into()),
            }
        };
        match read {
            Ok(Some(length)) => {
                self.counters.received += 1;
                Datagram::Message(&self.buffer[..length])
            }
            Ok(None) => self.overrun(),
            Err(error) => {
                tracing::warn!(%error, "netlink socket failed");
                self.failed = true;
                tokio::time::sleep(AFTER_ERROR).await;
                self.failed = false;
                self.overrun()
            }
        }
    }

    fn overrun(&mut self) -> Datagram<'_> {
        self.counters.overruns += 1;
        Datagram::Overrun
    }
}

enum Received {
    Message(usize),
    /// It was as long as the buffer, or longer.
    Cut,
    Forged,
}

fn receive(socket: &Socket, mut buffer: &mut [u8]) -> Result<Received, Errno> {
    let room = buffer.len();
    let (length, sender) = socket
        .recv_from(&mut buffer, 0)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(if sender.port_number() != 0 {
        Received::Forged
    } else if length >= room {
        // One that fills the buffer to the last byte was cut, as far as anybody can tell.
        Received::Cut
    } else {
        Received::Message(length)
    })
}
