//! The vocabulary of nvme-heal: what the daemon, the machine, the host and the vendors talk in.
//!
//! Everything that crosses a border in this product is a type of this crate, and everything in this
//! crate is plain data: no I/O, no clock, no runtime. A value that came from outside (sysfs text, a
//! provisioner's answer, a configuration file, a superblock) becomes one of these types at the
//! border or it does not come in. Behind the border nobody has to ask again whether an NQN may
//! start with a dash or whether a name contains a slash.
//!
//! ```text
//!    heal-host ──── HostSnapshot, HostAnswer ───►┐                 ┌◄── Volume, ProvisionerFault ── heal-provisioner
//!                                                │   heal-core     │
//!    heal-host ◄─── HostAction ──────────────────┤  the machine    ├──► ProvisionerCall ──────────► heal-provisioner
//!                                                │                 │
//!                         ledger ◄── record ─────┘                 └──► status, explain ─────────► nvme-heal
//! ```
//!
//! Three conventions hold everywhere:
//!
//! - **Names are never identity.** A [`DeviceName`] is where to look; who it is, is the namespace's
//!   id, the subsystem's NQN, the disk sequence number and the MD device UUID ([`DeviceIdentity`]).
//! - **"No answer" is not "nothing there".** What is read from a host or a vendor is
//!   [`Observed`]: `Known` or `Unknown` with a reason.
//! - **"Already so" is success.** Every action answers with an [`Outcome`] that says whether
//!   anything changed.
//!
//! The price: a reader of sysfs has to build a type where a string would do, and two crates that
//! could share a struct with behaviour share only its data.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod action;
pub mod cluster;
mod content;
pub mod control;
pub mod fence;
mod ids;
mod observed;
mod outcome;
mod path;
mod provision;
mod snapshot;
pub mod status;
mod text;
mod time;
mod transport;

pub use action::{
    ConnectOptions, FailWhy, HostAction, HostAnswer, HostPort, LegRef, Permits, ask_then_act,
};
pub use content::{Content, ForeignKind, History, MdRole, MdSuperblock};
pub use ids::{
    Alias, ArrayId, ControllerName, DevT, DeviceIdentity, DeviceName, DiskSeq, InterfaceName,
    MdDeviceId, NamespaceId, NamespaceIds, Nqn, ReplicaId, SectorCount, Slot, VolumeId,
};
pub use observed::{Observed, UnknownWhy};
pub use outcome::{Outcome, RefusedWhy, RetryWhy};
pub use path::{
    ConnectParams, ControllerRef, Digests, FastIoFail, IfIndex, Interface, IoReading, KeyRef,
    LinkState, MadeOf, Network, PathDoubt, PathHealth, SocketReading,
};
pub use provision::{
    CallKey, Condition, FaultClass, GracePolicy, ProvisionerAnswer, ProvisionerCall,
    ProvisionerFault, Replacement, Replica, ReplicaState, Target, Volume, VolumeError, VolumeQuery,
};
pub use snapshot::{
    ArraySnapshot, ArrayState, Backing, Bitmap, ControllerSnapshot, ControllerState, HostSnapshot,
    LegFlag, LegFlags, LegSnapshot, Level, Metadata, NamespaceSnapshot, PathSnapshot, SyncAction,
    SyncProgress,
};
pub use text::InvalidText;
pub use time::{BootId, Deadline, Moment, Now, WallTime};
pub use transport::{Portal, TransportAddress, TransportKind};
