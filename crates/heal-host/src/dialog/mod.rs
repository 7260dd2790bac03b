//! One question to the kernel over netlink, and its whole answer.
//!
//! The multicast listeners (`crate::netlink`) wait; this asks. It blocks, for a second at most
//! while nothing comes, and for [`PATIENCE`] in all, so it belongs where a second does no harm, or
//! on questions the kernel answers from within `sendto` (all but dumps): there the answer is
//! already queued when it is read.
//!
//! ```text
//!   list   request ──► message, message, … DONE       the list may have moved: `Torn`
//!   get    request ──► message │ ERROR
//!   act    request ──► ERROR 0 │ ERROR
//! ```
//!
//! - **Only the kernel is heard**: its port is 0 and no process's is (see `crate::netlink`).
//! - **Only this answer is heard**: an answer to an earlier question that was given up has another
//!   number and is passed over.
//! - **An answer that cannot be followed spoils the socket.** The kernel may still be in the middle
//!   of a dump, and refuses the next one on the same socket. So the next question gets a new
//!   socket.
//!
//! The price: a copy of each request, and a socket that is bound twice after a failure.

pub(crate) mod message;

use std::io;
use std::time::{Duration, Instant};

use heal_types::Moment;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};

use crate::clock;
use message::{Malformed, Message, Request, messages, u32_at};

/// How long to wait for a datagram.
const SILENCE: Duration = Duration::from_secs(1);

/// The most acts of one datagram: what they are answered with waits in the receive buffer.
const TOGETHER: usize = 64;

/// How long a whole answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longer than any datagram of a dump: the kernel fills at most 32 KiB (`netlink_dump`,
/// `net/netlink/af_netlink.c`).
const DATAGRAM: usize = 64 * 1024;

/// The kernel says how long the datagram was, not how much of it fitted.
const MSG_TRUNC: i32 = 0x20;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;

const NLM_F_MULTI: u16 = 0x2;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// `NLM_F_ROOT | NLM_F_MATCH`.
pub(crate) const NLM_F_DUMP: u16 = 0x300;
/// Answer also when there is nothing to say.
pub(crate) const NLM_F_ACK: u16 = 0x4;

/// How a list was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// As it was at one moment, as far as the kernel knows.
    Whole,
    /// It changed while it was told (`NLM_F_DUMP_INTR`).
    Torn,
}

/// A socket to ask on.
#[derive(Debug)]
pub(crate) struct Dialog {
    protocol: isize,
    line: Line,
    sequence: u32,
    /// The line may still carry the rest of an answer that was not heard to its end.
    spoilt: bool,
}

#[derive(Debug)]
struct Line {
    socket: Socket,
    port: u32,
    buffer: Vec<u8>,
}

impl Dialog {
    /// A dialog with `protocol`, one of `netlink_sys::protocols`.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        Ok(Self { protocol, line: Line::open(protocol)?, sequence: 0, spoilt: false })
    }

    /// Asks for one object, for a list (`NLM_F_DUMP`) or for an act (`NLM_F_ACK`), and hands every
    /// message of the answer, its kind and its body, to `each`.
    pub(crate) fn ask(
        &mut self,
        request: &Request,
        mut each: impl FnMut(u16, &[u8]) -> io::Result<()>,
    ) -> io::Result<Heard> {
        let sequence = self.send(std::slice::from_ref(request))?;
        match self.line.answer(sequence, &mut each) {
            Ok(Answer::Told(heard)) => Ok(heard),
            Ok(Answer::Refused(errno)) => Err(errno.into()),
            Err(error) => {
                self.spoilt = true;
                Err(error)
            }
        }
    }

    /// Asks for several acts (`NLM_F_ACK`) in one call, which the kernel carries out one after the
    /// other before it returns.
    pub(crate) fn ask_acts(&mut self, requests: &[Request]) -> io::Result<Acts> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut done_at = clock::moment();
        for some in requests.chunks(TOGETHER) {
            let first = self.send(some)?;
            done_at = clock::moment();
            for number in 0..some.len() {
                // The kernel answers in the order it was asked in.
                let sequence = first.wrapping_add(u32::try_from(number).unwrap_or(u32::MAX));
                match self.line.answer(sequence, &mut |_, _| Ok(())) {
                    Ok(Answer::Told(_)) => answers.push(None),
                    Ok(Answer::Refused(errno)) => answers.push(Some(errno)),
                    Err(error) => {
                        self.spoilt = true;
                        return Err(error);
                    }
                }
            }
        }
        Ok(Acts { answers, done_at })
    }

    /// Sends `requests` in one datagram; the number of the first.
    fn send(&mut self, requests: &[Request]) -> io::Result<u32> {
        if self.spoilt {
            self.line = Line::open(self.protocol)?;
            self.spoilt = false;
        }
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend(request.numbered(self.sequence));
        }
        match self.line.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0) {
            Ok(_) => Ok(first),
            Err(error) => {
                self.spoilt = true;
                Err(error)
            }
        }
    }
}

/// What became of several acts.
#[derive(Debug)]
pub(crate) struct Acts {
    /// In the order they were asked for: nothing, or what the kernel refused that one with.
    pub(crate) answers: Vec<Option<Errno>>,
    /// When the kernel returned from the last. The answers were still to be read.
    pub(crate) done_at: Moment,
}

/// Reads one datagram of the answer to the question `asked`, its number and our port. Nothing, if
/// there is more to come.
pub(crate) fn hear(
    datagram: &[u8],
    asked: (u32, u32),
    heard: &mut Heard,
    each: &mut impl FnMut(u16, &[u8]) -> io::Result<()>,
) -> io::Result<Option<Answer>> {
    for message in messages(datagram) {
        let message = message.map_err(malformed)?;
        if (message.sequence, message.port) != asked {
            continue;
        }
        if message.flags & NLM_F_DUMP_INTR != 0 {
            *heard = Heard::Torn;
        }
        match part(&message).map_err(malformed)? {
            Part::Nothing => {}
            Part::End => return Ok(Some(Answer::Told(*heard))),
            Part::Refusal(errno) => return Ok(Some(Answer::Refused(errno))),
            Part::Object => {
                each(message.kind, message.body)?;
                if message.flags & NLM_F_MULTI == 0 {
                    return Ok(Some(Answer::Told(*heard)));
                }
            }
        }
    }
    Ok(None)
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Told(Heard),
    Refused(Errno),
}

impl Line {
    fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(SILENCE))?;
        sockopt::set_socket_timeout(&socket, Timeout::Send, Some(SILENCE))?;
        let port = socket.bind_auto()?.port_number();
        Ok(Self { socket, port, buffer: vec![0; DATAGRAM] })
    }

    fn answer(
        &mut self,
        sequence: u32,
        each: &mut impl FnMut(u16, &[u8]) -> io::Result<()>,
    ) -> io::Result<Answer> {
        let asked = Instant::now();
        let mut heard = Heard::Whole;
        loop {
            let Some(length) = self.receive()? else {
                if asked.elapsed() > PATIENCE {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                continue;
            };
            let datagram = &self.buffer[..length];
            if let Some(answer) = hear(datagram, (sequence, self.port), &mut heard, each)? {
                return Ok(answer);
            }
            if asked.elapsed() > PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// The length of the next datagram; nothing, if it is not from the kernel.
    fn receive(&mut self) -> io::Result<Option<usize>> {
        let mut room = &mut self.buffer[..];
        match self.socket.recv_from(&mut room, MSG_TRUNC) {
            Ok((_, sender)) if sender.port_number() != 0 => Ok(None),
            Ok((length, _)) if length > DATAGRAM => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink answer was cut"))
            }
            Ok((length, _)) => Ok(Some(length)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::INTR) => Ok(None),
                Some(Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
                Some(_) | None => Err(error),
            },
        }
    }
}

enum Part {
    Object,
    Nothing,
    End,
    Refusal(Errno),
}

fn part(message: &Message<'_>) -> Result<Part, Malformed> {
    Ok(match message.kind {
        NLMSG_NOOP => Part::Nothing,
        NLMSG_OVERRUN => Part::Refusal(Errno::NOBUFS),
        NLMSG_ERROR => {
            let code = u32_at(message.body, 0).ok_or(Malformed)?;
            refusal(code).map_or(Part::End, Part::Refusal)
        }
        // A dump that failed on its way says so at its end; older kernels say nothing there.
        NLMSG_DONE => u32_at(message.body, 0).and_then(refusal).map_or(Part::End, Part::Refusal),
        _ => Part::Object,
    })
}

/// The error in a code of the kernel's: a negative number is one, zero is none.
fn refusal(code: u32) -> Option<Errno> {
    let code = i32::from_ne_bytes(code.to_ne_bytes());
    if code >= 0 {
        return None;
    }
    // `MAX_ERRNO` is 4095.
    let number = code.checked_neg().filter(|number| *number <= 4095);
    Some(number.map_or(Errno::PROTO, Errno::from_raw_os_error))
}

pub(crate) fn malformed(_: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a netlink answer is not of its form")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Message<'_> {
        Message { kind, flags: 0, sequence: 1, port: 1, body }
    }

    #[test]
    fn an_error_of_the_kernel_is_an_errno_and_zero_is_an_end() {
        let code = |code: i32| code.to_ne_bytes();
        let refused = |kind, body: &[u8]| match part(&message(kind, body)) {
            Ok(Part::Refusal(errno)) => Some(errno),
            Ok(Part::End) => None,
            Ok(Part::Object | Part::Nothing) | Err(Malformed) => panic!("{kind} {body:?}"),
        };
        assert_eq!(refused(NLMSG_ERROR, &code(-2)), Some(Errno::NOENT));
        assert_eq!(refused(NLMSG_ERROR, &code(0)), None);
        assert_eq!(refused(NLMSG_ERROR, &code(i32::MIN)), Some(Errno::PROTO));
        assert_eq!(refused(NLMSG_ERROR, &code(-100_000)), Some(Errno::PROTO));
        assert_eq!(refused(NLMSG_DONE, &code(-95)), Some(Errno::OPNOTSUPP));
        assert_eq!(refused(NLMSG_DONE, &[]), None);
        assert_eq!(refused(NLMSG_DONE, &code(7)), None);
        assert_eq!(refused(NLMSG_OVERRUN, &[]), Some(Errno::NOBUFS));
        assert!(part(&message(NLMSG_ERROR, &[0; 3])).is_err());
    }

    #[test]
    fn a_refused_question_does_not_spoil_the_next_one() {
        let mut dialog = Dialog::open(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
        let unknown = Request::new(18, 0, &body);
        let error = dialog.ask(&unknown, |_, _| Ok(())).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NODEV));
        assert!(!dialog.spoilt);
        let mut links = 0;
        let list = Request::new(18, NLM_F_DUMP, &[0; 16]);
        dialog
            .ask(&list, |_, _| {
                links += 1;
                Ok(())
            })
            .unwrap();
        assert!(links > 0, "there is at least the loopback interface");
    }

    #[test]
    fn an_answer_that_is_given_up_half_way_does_not_reach_the_next_question() {
        let mut dialog = Dialog::open(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
        let list = Request::new(18, NLM_F_DUMP, &[0; 16]);
        dialog.ask(&list, |_, _| Err(io::ErrorKind::Other.into())).unwrap_err();
        let before = dialog.line.port;
        dialog.ask(&list, |_, _| Ok(())).unwrap();
        assert_ne!(dialog.line.port, before);
    }
}
