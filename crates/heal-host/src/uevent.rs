//! Kernel uevents: what the kernel says the moment an object comes, changes or goes.
//!
//! ```text
//!   change@/devices/virtual/nvme-fabrics/ctl/nvme2 \0
//!   ACTION=change \0 SUBSYSTEM=nvme \0 DEVNAME=nvme2 \0 NVME_EVENT=connected \0 SEQNUM=4711 \0
//! ```
//!
//! They are taken from the kernel's own multicast group, not from udev's: udev forwards an event
//! only when its rules are done, and a rule that reads a stuck device holds it back.
//!
//! What an event *is about* is typed ([`Subject`]); what it *says* is little, because an event is a
//! hint. The kernel sends none for a lost path or a failed leg.
//!
//! The parser takes bytes: nothing says that a path or a value is UTF-8. A message that is not of
//! the form, or was cut, is counted and dropped; a property of a bad form is as good as missing.

use std::io;

use heal_types::{ControllerName, DevT, DeviceName, DiskSeq};

use crate::netlink::{Datagram, KernelSocket, SocketCounters};

/// The kernel's group; udev's own is 2.
const KERNEL_GROUP: u32 = 1;

/// The most properties that are looked at (the kernel's own bound is 64, `UEVENT_NUM_ENVP`).
const PROPERTIES: usize = 128;

/// One uevent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent {
    /// What happened.
    pub action: Action,
    /// To whom.
    pub subject: Subject,
    /// The kernel's running number of uevents.
    pub sequence: Option<u64>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It came.
    Add,
    /// It goes.
    Remove,
    /// Something about it changed.
    Change,
    /// Anything else: bound, renamed, put offline.
    Other,
}

/// The object of an event, as far as this product cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A block device.
    Block {
        /// Its name.
        device: DeviceName,
        /// Its number.
        dev: Option<DevT>,
        /// Its disk sequence number.
        diskseq: Option<DiskSeq>,
    },
    /// An NVMe controller.
    NvmeController {
        /// Its name.
        name: ControllerName,
        /// What the driver has to say.
        event: Option<NvmeEvent>,
    },
    /// An NVMe subsystem.
    NvmeSubsystem,
    /// A network interface.
    Net,
    /// Anything else.
    Other,
}

/// `NVME_EVENT` and `NVME_AEN` (`drivers/nvme/host/core.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NvmeEvent {
    /// A controller connected, for the first time or again. Its namespaces may still be to come.
    Connected,
    /// A discovery controller connected again: what it knows may have changed.
    Rediscover,
    /// The target sent an asynchronous event that the kernel leaves to others.
    Aen(u32),
}

impl Uevent {
    /// Reads one message. `None` if it is not of the form.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        // Each part ends with a zero byte. Without the last one, the last part was cut: a name that
        // lacks its end is another one's.
        let mut fields = message.strip_suffix(&[0])?.split(|byte| *byte == 0);
        let header = fields.next()?;
        let at = header.iter().position(|byte| *byte == b'@')?;
        if at == 0 || header.get(at + 1) != Some(&b'/') {
            return None;
        }
        let path = &header[at + 1..];
        let mut properties = Properties::default();
        for field in fields.take(PROPERTIES) {
            properties.take(field);
        }
        Some(Self {
            action: Action::of(&header[..at]),
            subject: properties.subject(path),
            sequence: properties.sequence,
        })
    }
}

impl Action {
    fn of(word: &[u8]) -> Self {
        match word {
            b"add" => Self::Add,
            b"remove" => Self::Remove,
            b"change" => Self::Change,
            _ => Self::Other,
        }
    }
}

/// The properties that matter. Of two with one name the first counts.
#[derive(Debug, Default)]
struct Properties<'a> {
    subsystem: Option<&'a [u8]>,
    name: Option<&'a str>,
    major: Option<u32>,
    minor: Option<u32>,
    diskseq: Option<u64>,
    event: Option<NvmeEvent>,
    sequence: Option<u64>,
}

impl<'a> Properties<'a> {
    fn take(&mut self, field: &'a [u8]) {
        let Some(equals) = field.iter().position(|byte| *byte == b'=') else {
            return;
        };
        let (key, value) = (&field[..equals], &field[equals + 1..]);
        let text = || std::str::from_utf8(value).ok();
        let number = || text()?.parse::<u64>().ok();
        match key {
            b"SUBSYSTEM" => self.subsystem = self.subsystem.or(Some(value)),
            b"DEVNAME" => self.name = self.name.or_else(text),
            b"MAJOR" => self.major = self.major.or_else(|| number()?.try_into().ok()),
            b"MINOR" => self.minor = self.minor.or_else(|| number()?.try_into().ok()),
            b"DISKSEQ" => self.diskseq = self.diskseq.or_else(number),
            b"SEQNUM" => self.sequence = self.sequence.or_else(number),
            b"NVME_EVENT" => {
                self.event = self.event.or(match value {
                    b"connected" => Some(NvmeEvent::Connected),
                    b"rediscover" => Some(NvmeEvent::Rediscover),
                    _ => None,
                });
            }
            b"NVME_AEN" => {
                self.event = self.event.or_else(|| {
                    let digits = text()?.strip_prefix("0x")?;
                    u32::from_str_radix(digits, 16).ok().map(NvmeEvent::Aen)
                });
            }
            _ => {}
        }
    }

    fn subject(&self, path: &[u8]) -> Subject {
        let subject = match self.subsystem {
            Some(b"block") => self.block(path),
            Some(b"nvme") => self.controller(path),
            Some(b"nvme-subsystem") => Some(Subject::NvmeSubsystem),
            Some(b"net") => Some(Subject::Net),
            _ => None,
        };
        subject.unwrap_or(Subject::Other)
    }

    fn block(&self, path: &[u8]) -> Option<Subject> {
        // The path has the kernel's name; `DEVNAME` has the node's, where `/` stands for `!`.
        let device = DeviceName::new(last_part(path)?).ok()?;
        let dev = match (self.major, self.minor) {
            (Some(major), Some(minor)) => Some(DevT { major, minor }),
            (Some(_) | None, _) => None,
        };
        Some(Subject::Block { device, dev, diskseq: self.diskseq.map(DiskSeq) })
    }

    fn controller(&self, path: &[u8]) -> Option<Subject> {
        let name = self.name.or_else(|| last_part(path))?;
        Some(Subject::NvmeController { name: ControllerName::new(name).ok()?, event: self.event })
    }
}

fn last_part(path: &[u8]) -> Option<&str> {
    let last = path.rsplit(|byte| *byte == b'/').next()?;
    std::str::from_utf8(last).ok()
}

/// What came over the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Woke {
    /// An event.
    Event(Uevent),
    /// Events were lost: look at everything again.
    Overrun,
}

/// The socket.
#[derive(Debug)]
pub struct UeventSocket {
    socket: KernelSocket,
}

impl UeventSocket {
    /// Starts listening. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// When the kernel does not give out the socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            socket: KernelSocket::open(
                netlink_sys::protocols::NETLINK_KOBJECT_UEVENT,
                KERNEL_GROUP,
            )?,
        })
    }

    /// The next event. May be dropped while it waits; nothing is lost by that.
    pub async fn next(&mut self) -> Woke {
        loop {
            let parsed = match self.socket.next().await {
                Datagram::Overrun => return Woke::Overrun,
                Datagram::Message(message) => Uevent::parse(message),
            };
            match parsed {
                Some(event) => return Woke::Event(event),
                None => self.socket.counters.malformed += 1,
            }
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> SocketCounters {
        self.socket.counters
    }
}
