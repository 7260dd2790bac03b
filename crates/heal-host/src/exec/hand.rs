//! Helpers that stand ready.
//!
//! What a helper of ours does takes a millisecond; to start one takes twenty or a hundred, for a
//! whole program is mapped and linked. So one that has answered in time stays, and takes the next
//! call:
//!
//! ```text
//!   Call ──► does one stand ready? ──► its standard input ──► the job ──► an answer ──► stands ready
//!                  │ none                                         │ none in time
//!                  └──► a new one                                 └──► killed, as any child is
//! ```
//!
//! A call is one line of words. An answer is one line, `CODE OUT ERR`, and behind it so many bytes
//! of standard output and of standard error: what a child that lived for this call alone would have
//! exited with and said. Each has one job at a time, and one that hangs is nobody else's.
//!
//! It ends when its standard input does, and so with the daemon.
//!
//! The price: up to [`READY`] idle processes of a megabyte or two.

#![allow(
    clippy::disallowed_methods,
    reason = "this starts our own helper, as the one place that starts children does"
)]

use std::cmp::Ordering;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::run::{Ear, Ended, Ending, OUTPUT, timespec};
use crate::helper::SERVE;

/// So many stay when there is nothing to do.
const READY: usize = 2;

/// Longer than any first line of an answer.
const HEAD: usize = 64;

/// Those that stand ready. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Hands(Arc<Mutex<Vec<Hand>>>);

impl Hands {
    /// One that is alive, or a new one.
    pub(super) fn take(&self, program: &Path) -> io::Result<Hand> {
        loop {
            let ready = self.ready().pop();
            match ready {
                Some(hand) if hand.is_alive() => return Ok(hand),
                Some(mut dead) => drop(dead.child.wait()),
                None => return Hand::start(program),
            }
        }
    }

    /// One has done its job.
    pub(super) fn put_back(&self, mut hand: Hand) {
        let mut ready = self.ready();
        if ready.len() < READY {
            return ready.push(hand);
        }
        drop(ready);
        drop(hand.orders.take());
        let _ = hand.child.wait();
    }

    /// Sees to it that at least one stands ready.
    pub(super) fn stand_ready(&self, program: &Path) {
        if !self.ready().is_empty() {
            return;
        }
        match Hand::start(program) {
            Ok(hand) => self.put_back(hand),
            Err(error) => tracing::debug!(%error, "no helper stands ready"),
        }
    }

    fn ready(&self) -> MutexGuard<'_, Vec<Hand>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A helper, and both ends of the talk with it.
#[derive(Debug)]
pub(super) struct Hand {
    pub(super) child: Child,
    exit: OwnedFd,
    orders: Option<ChildStdin>,
    answers: Ear,
    words: Ear,
}

/// What came of a call.
pub(super) enum Heard {
    /// The answer, in time.
    Answer(Ended),
    /// None: it ended.
    Nothing,
    /// None in time.
    TooLate,
}

impl Hand {
    fn start(program: &Path) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(["helper", SERVE])
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let exit = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(exit) => exit,
            Err(errno) => {
                // It reads an end of file and goes.
                drop(child.stdin.take());
                child.wait()?;
                return Err(errno.into());
            }
        };
        Ok(Self {
            exit,
            orders: child.stdin.take(),
            answers: Ear::new(child.stdout.take()),
            words: Ear::new(child.stderr.take()),
            child,
        })
    }

    fn is_alive(&self) -> bool {
        let mut exit = [PollFd::from_borrowed_fd(self.exit.as_fd(), PollFlags::IN)];
        poll(&mut exit, Some(&timespec(Duration::ZERO))) == Ok(0)
    }

    /// Gives it a job and waits for the answer.
    pub(super) fn ask(&mut self, args: &[String], deadline: Instant) -> Heard {
        // The first word says that it is a helper, which it knows.
        let words = args.get(1..).unwrap_or_default();
        if words.iter().any(|word| word.is_empty() || word.contains(char::is_whitespace)) {
            return Heard::Answer(not_a_line());
        }
        let line = format!("{}\n", words.join(" "));
        let sent = self.orders.as_mut().map(|orders| orders.write_all(line.as_bytes()));
        if !matches!(sent, Some(Ok(()))) {
            return self.hear_its_end(deadline);
        }
        self.answers.forget();
        loop {
            // Asked first: what one that has ended said is all there.
            let alive = self.is_alive();
            self.answers.hear();
            match answer_in(self.answers.heard()) {
                Ok(Some(answer)) => return Heard::Answer(answer),
                // Whoever talks like that is not trusted with another call.
                Err(Garbled) => return Heard::TooLate,
                Ok(None) if !alive => return Heard::Nothing,
                Ok(None) => {}
            }
            if !self.wait(deadline) {
                return Heard::TooLate;
            }
        }
    }

    /// Until it says something or ends; `false` at the deadline.
    fn wait(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = vec![PollFd::from_borrowed_fd(self.exit.as_fd(), PollFlags::IN)];
        fds.extend(self.answers.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // Only an interrupted wait can fail here, and then the caller looks again.
        poll(&mut fds, Some(&timespec(left))).is_err() || !left.is_zero()
    }

    /// Whether it ends by then.
    pub(super) fn hear_its_end(&self, deadline: Instant) -> Heard {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut exit = [PollFd::from_borrowed_fd(self.exit.as_fd(), PollFlags::IN)];
        match poll(&mut exit, Some(&timespec(left))) {
            Ok(0) => Heard::TooLate,
            Ok(_) | Err(_) => Heard::Nothing,
        }
    }

    /// What it said beside its answers.
    pub(super) fn last_words(&mut self) -> Vec<u8> {
        self.words.hear();
        self.words.heard().to_vec()
    }
}

/// No value becomes two words, or another call: it is not handed over.
fn not_a_line() -> Ended {
    let error = io::Error::new(io::ErrorKind::InvalidInput, "an argument is no single word");
    Ended { ending: Ending::NotStarted(error), stdout: Vec::new(), stderr: Vec::new() }
}

/// Something that is no answer.
#[derive(Debug, PartialEq, Eq)]
struct Garbled;

/// `CODE OUT ERR` and so many bytes. `Ok(None)`: there is more to come.
fn answer_in(heard: &[u8]) -> Result<Option<Ended>, Garbled> {
    let Some(end) = heard.iter().position(|byte| *byte == b'\n') else {
        return if heard.len() > HEAD { Err(Garbled) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&heard[..end]).map_err(|_| Garbled)?;
    let numbers: Vec<u16> =
        head.split(' ').map(str::parse).collect::<Result<_, _>>().map_err(|_| Garbled)?;
    let [code, out, err] = numbers[..] else { return Err(Garbled) };
    let (out, err) = (usize::from(out), usize::from(err));
    if HEAD + out + err > OUTPUT {
        return Err(Garbled); // More than is ever heard.
    }
    let body = &heard[end + 1..];
    match body.len().cmp(&(out + err)) {
        Ordering::Less => Ok(None),
        Ordering::Greater => Err(Garbled),
        Ordering::Equal => Ok(Some(Ended {
            ending: Ending::Exited(i32::from(code)),
            stdout: body[..out].to_vec(),
            stderr: body[out..].to_vec(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::TempDir;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn words(line: &str) -> Vec<String> {
        format!("helper {line}").split(' ').map(str::to_owned).collect()
    }

    fn said(heard: Heard) -> String {
        match heard {
            Heard::Answer(ended) => String::from_utf8(ended.stdout).unwrap(),
            Heard::Nothing => "nothing".to_owned(),
            Heard::TooLate => "too late".to_owned(),
        }
    }

    #[test]
    fn one_helper_takes_one_call_after_the_other() {
        let dir = TempDir::new();
        let helper = dir.tools().path(crate::exec::Tool::OurHelper).to_owned();
        dir.tool_does("helper", r#"echo "$2 by $PPID""#);
        let hands = Hands::default();
        hands.stand_ready(&helper);
        let mut hand = hands.take(&helper).unwrap();
        let pid = hand.child.id();
        assert_eq!(said(hand.ask(&words("one"), soon())), format!("one by {pid}\n"));
        hands.put_back(hand);
        let mut hand = hands.take(&helper).unwrap();
        assert_eq!(said(hand.ask(&words("two"), soon())), format!("two by {pid}\n"));
    }

    #[test]
    fn one_that_has_ended_is_not_asked() {
        let dir = TempDir::new();
        let helper = dir.tools().path(crate::exec::Tool::OurHelper).to_owned();
        let hands = Hands::default();
        hands.stand_ready(&helper);
        let mut dead = hands.take(&helper).unwrap();
        dead.child.kill().unwrap();
        assert!(matches!(dead.hear_its_end(soon()), Heard::Nothing));
        let pid = dead.child.id();
        hands.put_back(dead);
        assert_ne!(hands.take(&helper).unwrap().child.id(), pid);
    }

    #[test]
    fn one_that_dies_over_its_job_is_told_from_one_that_hangs() {
        let dir = TempDir::new();
        let helper = dir.tools().path(crate::exec::Tool::OurHelper).to_owned();
        dir.tool_does("helper", "kill -9 $PPID");
        let mut hand = Hands::default().take(&helper).unwrap();
        assert_eq!(said(hand.ask(&words("die"), soon())), "nothing");
        assert!(!hand.child.wait().unwrap().success());
        dir.tool_does("helper", "sleep 60");
        let mut hand = Hands::default().take(&helper).unwrap();
        let deadline = Instant::now() + Duration::from_millis(300);
        assert_eq!(said(hand.ask(&words("hang"), deadline)), "too late");
        drop(hand.orders.take());
        hand.child.kill().unwrap();
        hand.child.wait().unwrap();
    }

    #[test]
    fn a_value_that_is_more_than_one_word_is_not_handed_over() {
        let dir = TempDir::new();
        let helper = dir.tools().path(crate::exec::Tool::OurHelper).to_owned();
        dir.tool_does("helper", "echo it was called");
        let mut hand = Hands::default().take(&helper).unwrap();
        for value in ["md127 remove", "md127\nthaw", ""] {
            let call = ["helper", "set-attr", value].map(str::to_owned);
            let Heard::Answer(ended) = hand.ask(&call, soon()) else { panic!("{value:?}") };
            assert!(matches!(ended.ending, Ending::NotStarted(_)), "{value:?}: {ended:?}");
        }
        assert_eq!(said(hand.ask(&words("one"), soon())), "it was called\n");
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let ended = answer_in(b"75 2 3\nababc").unwrap().unwrap();
        assert!(matches!(ended.ending, Ending::Exited(75)));
        assert_eq!((&*ended.stdout, &*ended.stderr), (&b"ab"[..], &b"abc"[..]));
        for part in ["", "0", "0 1 ", "0 1 1\n", "0 1 1\na"] {
            assert!(matches!(answer_in(part.as_bytes()), Ok(None)), "{part:?}");
        }
        let long = "1".repeat(HEAD + 1);
        for odd in ["0 1\n", "0 1 1\nabc", "a b c\n", "-1 0 0\n", "0 65535 65535\n", &long] {
            assert_eq!(answer_in(odd.as_bytes()).err(), Some(Garbled), "{odd:?}");
        }
    }
}
