//! Everything that says "look again", behind one question: what is next?
//!
//! ```text
//!   MdWatch ──────┐
//!   UeventSocket ─┼──► Sources::next() ──► SourceEvent
//!   LinkSocket ───┘
//! ```
//!
//! No source can starve another: each is asked at every poll, and the turn goes round. A source
//! that lost events says so once, as [`SourceEvent::Overrun`]; whoever gets it looks at everything.
//!
//! The price: events are not in the order in which they happened. Nobody may conclude from their
//! order.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use crate::link::{LinkEvent, LinkSocket};
use crate::mdwatch::{MdCounters, MdWake, MdWatch};
use crate::sysfs::Root;
use crate::uevent::{Action, Subject, Uevent, UeventSocket, Woke};

pub use crate::netlink::SocketCounters;

/// One reason to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEvent {
    /// MD notified.
    Md(MdWake),
    /// The kernel told of an object.
    Uevent(Uevent),
    /// The network changed.
    Link(LinkEvent),
    /// A source lost events.
    Overrun(Source),
}

/// A source that can lose events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Kernel uevents.
    Uevents,
    /// rtnetlink.
    Links,
}

/// Counts of all sources since they were opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// MD's notifications.
    pub md: MdCounters,
    /// Kernel uevents.
    pub uevents: SocketCounters,
    /// rtnetlink.
    pub links: SocketCounters,
}

/// All sources.
#[derive(Debug)]
pub struct Sources {
    md: MdWatch,
    uevents: UeventSocket,
    links: LinkSocket,
    /// Who is asked first.
    turn: u8,
}

impl Sources {
    /// Opens all of them. Look after this, not before: what happens in between is told.
    ///
    /// # Errors
    /// When the kernel refuses one of them.
    pub fn open(root: Root) -> io::Result<Self> {
        Ok(Self {
            uevents: UeventSocket::open()?,
            links: LinkSocket::open()?,
            md: MdWatch::new(root)?,
            turn: 0,
        })
    }

    /// The next reason to look. May be dropped while it waits; nothing is lost by that.
    pub async fn next(&mut self) -> SourceEvent {
        self.turn = (self.turn + 1) % 3;
        let turn = self.turn;
        let event = {
            let mut md = pin!(self.md.wake());
            let mut uevent = pin!(self.uevents.next());
            let mut link = pin!(self.links.next());
            poll_fn(|context| {
                for source in 0..3 {
                    let polled = match (turn + source) % 3 {
                        0 => md.as_mut().poll(context).map(SourceEvent::Md),
                        1 => uevent.as_mut().poll(context).map(from_uevent),
                        _ => link.as_mut().poll(context).map(from_link),
                    };
                    if polled.is_ready() {
                        return polled;
                    }
                }
                Poll::Pending
            })
            .await
        };
        if moves_an_array(&event) {
            self.md.relist();
        }
        event
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            md: self.md.counters(),
            uevents: self.uevents.counters(),
            links: self.links.counters(),
        }
    }
}

fn from_uevent(woke: Woke) -> SourceEvent {
    match woke {
        Woke::Event(event) => SourceEvent::Uevent(event),
        Woke::Overrun => SourceEvent::Overrun(Source::Uevents),
    }
}

fn from_link(event: LinkEvent) -> SourceEvent {
    match event {
        LinkEvent::Overrun => SourceEvent::Overrun(Source::Links),
        LinkEvent::Link { .. } | LinkEvent::Address { .. } | LinkEvent::Route => {
            SourceEvent::Link(event)
        }
    }
}

/// Whether there may be files of an array that nobody holds yet, or files held of one that is gone.
/// mdstat exists only once MD is loaded, so the first array of a host is told by its uevent alone.
fn moves_an_array(event: &SourceEvent) -> bool {
    match event {
        SourceEvent::Overrun(Source::Uevents) => true,
        SourceEvent::Uevent(event) => match (&event.subject, event.action) {
            (Subject::Block { device, .. }, Action::Add | Action::Change | Action::Remove) => {
                device.as_str().starts_with("md")
            }
            (Subject::Block { .. }, Action::Other)
            | (
                Subject::NvmeController { .. }
                | Subject::NvmeSubsystem
                | Subject::Net
                | Subject::Other,
                _,
            ) => false,
        },
        SourceEvent::Md(_) | SourceEvent::Link(_) | SourceEvent::Overrun(Source::Links) => false,
    }
}
