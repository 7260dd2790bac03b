//! The only crate that touches the machine.
//!
//! Everything nvme-heal learns from a host comes in here, and everything it does to a host goes out
//! here. What comes in is typed at the border ([`heal_types::HostSnapshot`]), what goes out is a
//! closed list ([`heal_types::HostAction`]). Neither half decides anything.
//!
//! ```text
//!                 reading                                          acting
//!   ┌──────────────────────────────────────┐        ┌──────────────────────────────────┐
//!   │ events::Sources     "look again"     │        │ exec     one action, checked     │
//!   │   mdwatch  mdstat, md attributes     │        │          again, then read back   │
//!   │   uevent   kernel group              │        │ helper   the child that may hang │
//!   │   link     rtnetlink                 │        │ ledger   intents, made durable   │
//!   │ enumerate  udev: "its rules are done"│        │ superblock, linux   borders      │
//!   │ scan::look sysfs → HostSnapshot      │───────►│          (looks before it acts)  │
//!   └──────────────────────────────────────┘        └──────────────────────────────────┘
//! ```
//!
//! Three rules hold for the reading half:
//!
//! - **An event is a hint, a look is the truth.** No event carries state to anybody. A lost event
//!   costs time; a look built from sysfs alone says what is so.
//! - **Reading never opens a block device**, neither an array nor a member: such an open can hang
//!   for ever while a leg's controller is not live. All of it is text below `/sys`, `/proc` and
//!   `/run/udev/data`, and the one attribute whose reader can wait (a controller's `address`) is
//!   read once in a controller's life, while it is live.
//! - **Everything is read below a root path**, so a tree captured from a real kernel is test data.
//!
//! The price: one look reads some twenty small files for each array and ten for each namespace,
//! although most of them did not change.
#![warn(missing_docs)]

mod dialog;
mod exec;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod helper;
mod ledger;
mod linux;
mod superblock;

pub mod clock;
pub mod connect_lock;
pub mod enumerate;
pub mod events;
pub mod filewatch;
pub mod isolation_support;
pub mod kmsg;
pub mod link;
pub mod mdwatch;
mod netlink;
pub mod network;
pub mod pathio;
pub mod plugin;
pub mod priority;
mod readable;
pub mod scan;
pub mod sockdiag;
pub mod socketbook;
pub mod sysfs;
pub mod uevent;

pub use exec::{MissingTools, Tool, Tools};
pub use ledger::{Ledger, LedgerError, LedgerHome, MAX_RECORD, Records, Settled};
pub use linux::LinuxHost;
pub use scan::{PortalCache, look};
