//! Starts a child, listens to it, and ends it when its time is up.
//!
//! Most children live for one call and speak into pipes. Helpers of ours stay
//! ([`hand`](super::hand)). `mdadm` writes into memory instead: it freezes an array while it adds a
//! member, says that it did, and thaws the array. Were the daemon to die meanwhile, a pipe without
//! a reader would end it by `SIGPIPE` between the two, and nothing would be filled any more.

#![allow(
    clippy::disallowed_methods,
    reason = "this is the one place that starts a child: an allow-listed one, with a deadline"
)]

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_getfl, fcntl_setfl, ftruncate,
    memfd_create,
};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::breaker::Breaker;
use super::hand::{Hand, Hands, Heard};
use super::{Call, Subject, Tool, Tools};

/// As much of each output as is kept; the rest is read and dropped, so that the child can go on.
pub(super) const OUTPUT: usize = 64 * 1024;

/// How long a child may take to die of `SIGKILL` before it counts as stuck.
const DEATH: Duration = Duration::from_secs(2);

/// The longest piece of a child's words that an outcome repeats.
const SHOWN: usize = 300;

/// What became of a child.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) ending: Ending,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that was not ours.
    Signalled(i32),
    /// By ours, after its deadline.
    TimedOut,
    /// It did not: it hangs in the kernel.
    Stuck,
    /// It was not started, because an earlier one hangs on the same subject.
    Behind,
    /// It could not be started.
    NotStarted(io::Error),
}

impl Ended {
    /// Whether it ended by itself and is content.
    pub(crate) fn is_success(&self) -> bool {
        matches!(self.ending, Ending::Exited(0))
    }

    /// What it said, fit for an outcome: one line, printable, short.
    pub(crate) fn said(&self) -> String {
        let said = one_line(&self.stderr);
        if said.is_empty() { one_line(&self.stdout) } else { said }
    }

    fn silent(ending: Ending) -> Self {
        Self { ending, stdout: Vec::new(), stderr: Vec::new() }
    }
}

fn one_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<&str> = printable.split_whitespace().collect();
    words.join(" ").chars().take(SHOWN).collect()
}

/// Starts children. Clones share the tools and the list of children that hang.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    tools: Arc<Tools>,
    hands: Hands,
    breaker: Breaker,
    death: Duration,
    deadline: Option<Duration>,
    kill: fn(Pid),
}

impl Runner {
    pub(crate) fn new(tools: Tools) -> Self {
        Self {
            tools: Arc::new(tools),
            hands: Hands::default(),
            breaker: Breaker::default(),
            death: DEATH,
            deadline: None,
            kill,
        }
    }

    /// The same with short times and another way to kill: a child that `SIGKILL` does not end
    /// cannot be made to order.
    #[cfg(test)]
    pub(crate) fn impatient(self, deadline: Duration, death: Duration, kill: fn(Pid)) -> Self {
        Self { death, deadline: Some(deadline), kill, ..self }
    }

    /// The children that hang.
    pub(crate) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Whether a call on `subjects` would wait behind a child that hangs.
    pub(crate) fn is_blocked(&self, subjects: &[Subject]) -> bool {
        self.breaker.holds(subjects)
    }

    /// Sees to it that a helper stands ready, so that the next call on one need not wait for its
    /// start.
    pub(crate) fn stand_ready(&self) {
        self.hands.stand_ready(self.tools.path(Tool::OurHelper));
    }

    /// Runs one call to its end, or to its deadline.
    pub(crate) fn run(&self, call: &Call) -> Ended {
        if self.is_blocked(&call.subjects) {
            return Ended::silent(Ending::Behind);
        }
        let begun = Instant::now();
        let ended = match call.tool {
            Tool::OurHelper => self.ask_a_hand(call, begun),
            Tool::Mdadm | Tool::Nvme | Tool::Blkid => match self.start(call) {
                Ok((child, sheets)) => self.attend(child, sheets, call, begun),
                Err(error) => Ended::silent(Ending::NotStarted(error)),
            },
        };
        tracing::debug!(
            tool = %call.tool,
            args = call.args.join(" "),
            ending = ?ended.ending,
            took = ?begun.elapsed(),
            "child ended"
        );
        ended
    }

    fn ask_a_hand(&self, call: &Call, begun: Instant) -> Ended {
        let mut hand = match self.hands.take(self.tools.path(Tool::OurHelper)) {
            Ok(hand) => hand,
            Err(error) => return Ended::silent(Ending::NotStarted(error)),
        };
        let deadline = begun + self.deadline.unwrap_or(call.deadline);
        match hand.ask(&call.args, deadline) {
            Heard::Answer(ended) => {
                self.hands.put_back(hand);
                ended
            }
            Heard::Nothing => self.put_down(hand, call, true),
            Heard::TooLate => self.put_down(hand, call, false),
        }
    }

    /// The end of a helper that did not answer.
    fn put_down(&self, mut hand: Hand, call: &Call, ended: bool) -> Ended {
        (self.kill)(Pid::from_child(&hand.child));
        let dead =
            ended || matches!(hand.hear_its_end(Instant::now() + self.death), Heard::Nothing);
        let stderr = hand.last_words();
        let ending = match (dead, ended) {
            (false, _) => {
                self.breaker.take(hand.child, call.subjects.clone());
                Ending::Stuck
            }
            (true, false) => {
                let _ = hand.child.wait();
                Ending::TimedOut
            }
            (true, true) => match hand.child.wait() {
                Ok(status) => ending_of(status),
                Err(error) => Ending::NotStarted(error),
            },
        };
        Ended { ending, stdout: Vec::new(), stderr }
    }

    fn start(&self, call: &Call) -> io::Result<(Child, Option<Sheets>)> {
        let sheets = match call.tool {
            Tool::Mdadm => Some(Sheets { stdout: sheet()?, stderr: sheet()? }),
            Tool::Nvme | Tool::Blkid | Tool::OurHelper => None,
        };
        let (stdout, stderr) = match &sheets {
            Some(sheets) => (sheets.stdout.try_clone()?.into(), sheets.stderr.try_clone()?.into()),
            None => (Stdio::piped(), Stdio::piped()),
        };
        let child = Command::new(self.tools.path(call.tool))
            .args(&call.args)
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()?;
        Ok((child, sheets))
    }

    fn attend(
        &self,
        mut child: Child,
        sheets: Option<Sheets>,
        call: &Call,
        begun: Instant,
    ) -> Ended {
        let pid = Pid::from_child(&child);
        let exit = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(exit) => exit,
            Err(errno) => {
                // Without it nobody would know when the child ends, so it must not go on.
                (self.kill)(pid);
                self.breaker.take(child, call.subjects.clone());
                return Ended::silent(Ending::NotStarted(errno.into()));
            }
        };
        let mut stdout = Ear::new(child.stdout.take());
        let mut stderr = Ear::new(child.stderr.take());
        let deadline = begun + self.deadline.unwrap_or(call.deadline);

        let in_time = listen(exit.as_fd(), &mut stdout, &mut stderr, deadline);
        // Before the child is reaped, so that its group's number cannot be somebody else's.
        (self.kill)(pid);
        let dead =
            in_time || listen(exit.as_fd(), &mut stdout, &mut stderr, Instant::now() + self.death);

        let ending = if !dead {
            self.breaker.take(child, call.subjects.clone());
            Ending::Stuck
        } else {
            match child.wait() {
                Ok(_) if !in_time => Ending::TimedOut,
                Ok(status) => ending_of(status),
                Err(error) => Ending::NotStarted(error),
            }
        };
        let cut_short = matches!(ending, Ending::TimedOut | Ending::Stuck);
        if cut_short && call.tool == Tool::Mdadm {
            self.breaker.cuts_short(&call.subjects);
        }
        match sheets {
            Some(sheets) => {
                Ended { ending, stdout: written(&sheets.stdout), stderr: written(&sheets.stderr) }
            }
            None => Ended { ending, stdout: stdout.heard, stderr: stderr.heard },
        }
    }
}

/// What a child writes its outputs on, where nobody needs to listen.
struct Sheets {
    stdout: File,
    stderr: File,
}

/// A piece of memory that takes [`OUTPUT`] bytes; more is an error to whoever writes, and no
/// signal.
fn sheet() -> io::Result<File> {
    let fd = memfd_create("words", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, OUTPUT as u64)?;
    fcntl_add_seals(&fd, SealFlags::GROW)?;
    Ok(fd.into())
}

/// What was written: the child shares the sheet's position.
fn written(mut sheet: &File) -> Vec<u8> {
    let length = sheet.stream_position().unwrap_or(0);
    let mut words = vec![0; usize::try_from(length).unwrap_or(OUTPUT).min(OUTPUT)];
    match sheet.read_exact_at(&mut words, 0) {
        Ok(()) => words,
        Err(_) => Vec::new(),
    }
}

fn ending_of(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exited(code),
        (None, signal) => Ending::Signalled(signal.unwrap_or(0)),
    }
}

fn kill(pid: Pid) {
    // It fails only if the whole group is gone already, which is what is wanted.
    let _ = kill_process_group(pid, Signal::KILL);
}

/// Hears both outputs until the child ends; `false` if it has not by `deadline`. A grandchild that
/// keeps an output open is not waited for.
fn listen(exit: BorrowedFd<'_>, stdout: &mut Ear, stderr: &mut Ear, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = vec![PollFd::from_borrowed_fd(exit, PollFlags::IN)];
        for ear in [&*stdout, &*stderr] {
            fds.extend(ear.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        // Only an interrupted wait can fail here, and then the loop looks again.
        let woken = poll(&mut fds, Some(&timespec(left))).unwrap_or(0);
        let ended = fds[0].revents().contains(PollFlags::IN);
        drop(fds);
        stdout.hear();
        stderr.hear();
        if ended {
            return true;
        }
        if woken == 0 && left.is_zero() {
            return false;
        }
    }
}

pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// One output of a child.
#[derive(Debug)]
pub(super) struct Ear {
    pipe: Option<Pipe>,
    heard: Vec<u8>,
}

pub(super) trait Output: Read + AsFd + Send + std::fmt::Debug {}
impl<T: Read + AsFd + Send + std::fmt::Debug> Output for T {}
type Pipe = Box<dyn Output>;

impl Ear {
    pub(super) fn new(pipe: Option<impl Output + 'static>) -> Self {
        let pipe = pipe.filter(|pipe| {
            fcntl_getfl(pipe).and_then(|flags| fcntl_setfl(pipe, flags | OFlags::NONBLOCK)).is_ok()
        });
        Self { pipe: pipe.map(|pipe| Box::new(pipe) as Pipe), heard: Vec::new() }
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn heard(&self) -> &[u8] {
        &self.heard
    }

    pub(super) fn forget(&mut self) {
        self.heard.clear();
    }

    /// Takes what is there, up to a bound: a child that never stops talking must not keep its
    /// deadline from being looked at.
    pub(super) fn hear(&mut self) {
        let mut piece = [0; 4096];
        for _ in 0..OUTPUT / 4096 {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut piece) {
                Ok(0) => self.pipe = None,
                Ok(read) => {
                    let room = OUTPUT.saturating_sub(self.heard.len()).min(read);
                    self.heard.extend_from_slice(&piece[..room]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use heal_types::{DeviceName, Nqn};

    use super::*;
    use crate::exec::argv;
    use crate::exec::testing::TempDir;
    use crate::helper::Verb;

    fn disconnect() -> Call {
        argv::disconnect(&Nqn::new("nqn.test:a").unwrap())
    }

    fn two_slots(id: heal_types::ArrayId) -> Call {
        let node = crate::linux::Node::for_test("/dev/md127");
        argv::set_raid_disks(argv::ArrayNode { id, node: &node }, 2)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_child_gets_a_clean_environment_and_its_output_comes_back() {
        let dir = TempDir::new();
        let runner = Runner::new(dir.tools());
        dir.tool_does("nvme", "env; pwd; cat; echo oops >&2; exit 3");
        let ended = runner.run(&disconnect());
        assert!(matches!(ended.ending, Ending::Exited(3)), "{ended:?}");
        let stdout = String::from_utf8(ended.stdout).unwrap();
        assert!(stdout.contains("LC_ALL=C\n") && stdout.ends_with("/\n"), "{stdout}");
        assert!(!stdout.contains("HOME=") && !stdout.contains("CARGO"), "{stdout}");
        assert_eq!(ended.stderr, b"oops\n");
    }

    #[test]
    fn what_a_child_says_is_one_short_printable_line() {
        let dir = TempDir::new();
        let runner = Runner::new(dir.tools());
        dir.tool_does("nvme", r"printf 'a\033[1mb\n\n\tc '; head -c 2000 /dev/zero | tr '\0' x");
        let said = runner.run(&disconnect()).said();
        assert!(said.starts_with("a [1mb c xxx"), "{said}");
        assert_eq!(said.chars().count(), SHOWN);
    }

    #[test]
    fn a_child_that_talks_without_end_is_heard_to_a_bound() {
        let dir = TempDir::new();
        let runner = Runner::new(dir.tools());
        dir.tool_does("nvme", "head -c 1000000 /dev/zero; exit 0");
        let ended = runner.run(&disconnect());
        assert!(ended.is_success());
        assert_eq!(ended.stdout.len(), OUTPUT);

        let hasty = runner.impatient(Duration::from_millis(300), seconds(5), kill);
        dir.tool_does("nvme", "while :; do echo on and on; done");
        assert!(matches!(hasty.run(&disconnect()).ending, Ending::TimedOut));
    }

    #[test]
    fn a_child_past_its_deadline_dies_with_its_whole_group() {
        let dir = TempDir::new();
        let runner =
            Runner::new(dir.tools()).impatient(Duration::from_millis(300), seconds(5), kill);
        dir.tool_does("nvme", "trap '' TERM INT HUP; sleep 600 & echo $! >&2; wait");
        let begun = Instant::now();
        let ended = runner.run(&disconnect());
        assert!(matches!(ended.ending, Ending::TimedOut), "{ended:?}");
        assert!(begun.elapsed() < seconds(5));
        let grandchild = ended.said();
        let state = || std::fs::read_to_string(format!("/proc/{grandchild}/stat"));
        // Killed at once, reaped by whoever adopts orphans here.
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            state().map_or(true, |stat| stat.contains(") Z "))
        });
        assert!(gone);
        assert_eq!(runner.breaker().count(), 0);
    }

    #[test]
    fn a_grandchild_that_keeps_the_output_open_is_not_waited_for() {
        let dir = TempDir::new();
        let runner = Runner::new(dir.tools());
        dir.tool_does("nvme", "sleep 600 & exit 0");
        let begun = Instant::now();
        assert!(runner.run(&disconnect()).is_success());
        assert!(begun.elapsed() < seconds(30));
    }

    #[test]
    fn a_child_that_outlives_the_kill_keeps_others_away_until_it_is_gone() {
        let dir = TempDir::new();
        // A child in uninterruptible sleep ignores SIGKILL; here nobody sends it.
        let runner = Runner::new(dir.tools()).impatient(
            Duration::from_millis(100),
            Duration::from_millis(100),
            |_| {},
        );
        let release = dir.path().join("release");
        let wait = format!("while ! [ -e {} ]; do sleep 0.05; done", release.display());
        dir.tool_does("nvme", &wait);
        assert!(matches!(runner.run(&disconnect()).ending, Ending::Stuck));
        assert_eq!(runner.breaker().count(), 1);
        assert!(matches!(runner.run(&disconnect()).ending, Ending::Behind));
        assert_eq!(dir.calls().len(), 1, "nothing was started behind it");

        // Another subject is not held up.
        let array = heal_types::ArrayId::from_bytes([1; 16]);
        let (md, leg) = (DeviceName::new("md0").unwrap(), DeviceName::new("nvme0n1").unwrap());
        let other = argv::set_attribute(array, &md, &leg, Verb::Remove);
        assert!(runner.clone().run(&other).is_success());

        dir.file("release", "");
        let gone = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            runner.breaker().count() == 0
        });
        assert!(gone);
        assert!(!runner.is_blocked(&disconnect().subjects));
    }

    #[test]
    fn an_mdadm_that_outlives_the_daemon_can_say_what_it_did_and_goes_on() {
        let dir = TempDir::new();
        let runner = Runner::new(dir.tools());
        let done = dir.path().join("done");
        let array = heal_types::ArrayId::from_bytes([1; 16]);
        let call = two_slots(array);
        // `mdadm` freezes an array, says that it has added a member, and thaws it.
        let acts = format!("sleep 0.3; echo added >&2; echo added; touch {}", done.display());
        dir.tool_does("mdadm", &acts);
        let (mut child, outputs) = runner.start(&call).unwrap();
        drop((child.stdout.take(), child.stderr.take(), outputs)); // What the daemon's death does.
        child.wait().unwrap();
        assert!(done.exists(), "it died of its own words");
    }

    #[test]
    fn what_mdadm_says_comes_back_and_is_bounded() {
        let dir = TempDir::new();
        let runner = Runner::new(dir.tools());
        let call = two_slots(heal_types::ArrayId::from_bytes([1; 16]));
        dir.tool_does("mdadm", "echo one; echo two >&2; echo three");
        let ended = runner.run(&call);
        assert!(ended.is_success());
        assert_eq!((&*ended.stdout, &*ended.stderr), (&b"one\nthree\n"[..], &b"two\n"[..]));
        dir.tool_does("mdadm", "head -c 1000000 /dev/zero; exit 0");
        let ended = runner.run(&call);
        assert!(ended.is_success() && ended.stdout.len() <= OUTPUT);
    }

    #[test]
    fn a_tool_that_vanished_is_an_answer() {
        let dir = TempDir::new();
        let runner = Runner::new(dir.tools());
        std::fs::rename(dir.path().join("bin/nvme"), dir.path().join("bin/gone")).unwrap();
        assert!(matches!(runner.run(&disconnect()).ending, Ending::NotStarted(_)));
    }
}
