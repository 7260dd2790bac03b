//! libudev: which devices are members, and whether udev is done with a new one.
//!
//! udev opens every new block device to see what is on it, and `mdadm --incremental` from its rules
//! may take the device. Whoever opens a new namespace in the middle of that gets "busy", or gets in
//! between. So before a new namespace is opened, its rules are waited for:
//!
//! ```text
//!   settled(dev, time-out) ──► thread "udev" ──► Done       the monitor told of it meanwhile, or
//!                               monitor, database            it is in the database and the queue is empty
//!                                            ──► TimedOut    the caller decides
//! ```
//!
//! libudev's objects must not leave their thread, so there is one thread that owns all of them and
//! is asked over a channel. It sleeps in `poll` while nobody waits.
//!
//! The price: udev tells nobody when its queue becomes empty, so while somebody waits, and only
//! then, the thread looks twenty times a second. And a worker of udev that hangs on another device
//! keeps the queue full: then only the monitor's word counts, and a device whose rules were done
//! before the question came is waited for in vain until the time-out.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use heal_types::{ArrayId, DevT, DeviceName, MdDeviceId, Observed, UnknownWhy};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::oneshot;

use crate::priority;

const CONTROL: &str = "/run/udev/control";
const QUEUE: &str = "/run/udev/queue";

/// How often to look while somebody waits.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// The most members that are listed.
const MEMBERS: usize = 65_536;

/// What became of waiting for a device's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// They are done, or no udev runs here.
    Done,
    /// They are not known to be done.
    TimedOut,
}

/// A block device that carries an MD superblock, as udev's database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub device: DeviceName,
    /// Its number.
    pub dev: DevT,
    /// The array it belongs to.
    pub array: Option<ArrayId>,
    /// Its own UUID.
    pub md_device: Option<MdDeviceId>,
}

/// The way to the thread that owns libudev. The thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Enumerator {
    /// Before `door`, so that a closed channel is what the last ring tells.
    questions: mpsc::Sender<Question>,
    door: Arc<Door>,
}

#[derive(Debug)]
enum Question {
    Settled { dev: DevT, until: Instant, answer: oneshot::Sender<Settle> },
    Members { answer: oneshot::Sender<Observed<Vec<Member>>> },
}

/// Wakes the thread out of its `poll`, the last time when it is dropped.
#[derive(Debug)]
struct Door(OwnedFd);

impl Door {
    fn ring(&self) {
        // It fails only when the counter is full: then the thread is awake.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.ring();
    }
}

impl Enumerator {
    /// Starts the thread.
    ///
    /// # Errors
    /// When libudev or the thread cannot be had.
    pub fn start() -> io::Result<Self> {
        let (questions, asked) = mpsc::channel();
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let door = Arc::new(Door(bell.try_clone()?));
        let (ready, started) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("udev".into()).spawn(move || {
            priority::step_back();
            match Thread::new(bell) {
                Ok(mut thread) => {
                    let _ = ready.send(Ok(()));
                    thread.run(&asked);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        started.recv().map_err(|_| io::Error::other("the udev thread ended at once"))??;
        Ok(Self { questions, door })
    }

    /// Waits until udev is done with the device.
    pub async fn settled(&self, dev: DevT, timeout: Duration) -> Settle {
        let answer = self.ask_settled(dev, timeout);
        answer.await.unwrap_or(Settle::TimedOut)
    }

    /// The same for a caller that has a thread of its own. Must not be called from async code.
    #[must_use]
    pub fn settled_blocking(&self, dev: DevT, timeout: Duration) -> Settle {
        let answer = self.ask_settled(dev, timeout);
        answer.blocking_recv().unwrap_or(Settle::TimedOut)
    }

    /// Every block device that udev knows to carry an MD superblock.
    pub async fn members(&self) -> Observed<Vec<Member>> {
        let (answer, answered) = oneshot::channel();
        self.ask(Question::Members { answer });
        answered.await.unwrap_or(Observed::Unknown(UnknownWhy::NoAnswer))
    }

    fn ask_settled(&self, dev: DevT, timeout: Duration) -> oneshot::Receiver<Settle> {
        let (answer, answered) = oneshot::channel();
        let until = Instant::now() + timeout;
        self.ask(Question::Settled { dev, until, answer });
        answered
    }

    fn ask(&self, question: Question) {
        // If the thread is gone, the question is dropped, and with it the way to answer.
        let _ = self.questions.send(question);
        self.door.ring();
    }
}

/// Somebody who waits for a device.
struct Waiting {
    dev: DevT,
    until: Instant,
    told: bool,
    answer: Option<oneshot::Sender<Settle>>,
}

struct Thread {
    bell: OwnedFd,
    monitor: udev::MonitorSocket,
    waiting: Vec<Waiting>,
}

impl Thread {
    fn new(bell: OwnedFd) -> io::Result<Self> {
        let monitor = udev::MonitorBuilder::new()?.match_subsystem("block")?.listen()?;
        Ok(Self { bell, monitor, waiting: Vec::new() })
    }

    fn run(&mut self, asked: &mpsc::Receiver<Question>) {
        loop {
            self.sleep();
            loop {
                match asked.try_recv() {
                    Ok(question) => self.take(question),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            self.hear();
            self.answer();
        }
    }

    fn sleep(&self) {
        let timeout = (!self.waiting.is_empty()).then_some(LOOK);
        let mut sources = [
            PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.monitor.as_fd(), PollFlags::IN),
        ];
        if let Err(errno) = poll(&mut sources, timeout.as_ref()) {
            tracing::debug!(%errno, "poll of udev's monitor was interrupted");
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count[..]);
    }

    fn take(&mut self, question: Question) {
        match question {
            Question::Settled { dev, until, answer } => {
                self.waiting.push(Waiting { dev, until, told: false, answer: Some(answer) });
            }
            Question::Members { answer } => {
                let members = members().unwrap_or_else(|error| {
                    tracing::warn!(%error, "udev's devices could not be listed");
                    Observed::Unknown(UnknownWhy::ReadFailed)
                });
                let _ = answer.send(members);
            }
        }
    }

    /// Takes what the monitor has. Events are lost without a word when its buffer is full; the
    /// database is looked at anyway.
    fn hear(&mut self) {
        for event in self.monitor.iter() {
            if event.event_type() == udev::EventType::Remove {
                continue;
            }
            let Some(dev) = event.device().devnum() else {
                continue;
            };
            for waiting in &mut self.waiting {
                waiting.told |= number(waiting.dev) == dev;
            }
        }
    }

    fn answer(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let no_udev = !Path::new(CONTROL).exists();
        let queue_empty = !Path::new(QUEUE).exists();
        let now = Instant::now();
        self.waiting.retain_mut(|waiting| {
            let done = no_udev || waiting.told || (queue_empty && is_initialized(waiting.dev));
            let settle = if done {
                Settle::Done
            } else if now >= waiting.until {
                Settle::TimedOut
            } else {
                return !waiting.answer.as_ref().is_none_or(oneshot::Sender::is_closed);
            };
            if let Some(answer) = waiting.answer.take() {
                let _ = answer.send(settle);
            }
            false
        });
    }
}

fn number(dev: DevT) -> u64 {
    rustix::fs::makedev(dev.major, dev.minor)
}

fn is_initialized(dev: DevT) -> bool {
    udev::Device::from_devnum(udev::DeviceType::Block, number(dev))
        .is_ok_and(|device| device.is_initialized())
}

fn members() -> io::Result<Observed<Vec<Member>>> {
    let mut enumerator = udev::Enumerator::new()?;
    enumerator.match_subsystem("block")?;
    enumerator.match_property("ID_FS_TYPE", "linux_raid_member")?;
    let members =
        enumerator.scan_devices()?.take(MEMBERS).filter_map(|device| member(&device)).collect();
    Ok(Observed::Known(members))
}

fn member(device: &udev::Device) -> Option<Member> {
    let dev = device.devnum()?;
    let property = |key| device.property_value(key)?.to_str();
    Some(Member {
        device: DeviceName::new(device.sysname().to_str()?).ok()?,
        dev: DevT { major: rustix::fs::major(dev), minor: rustix::fs::minor(dev) },
        array: property("ID_FS_UUID").and_then(|uuid| uuid.parse().ok()),
        md_device: property("ID_FS_UUID_SUB").and_then(|uuid| uuid.parse().ok()),
    })
}
