//! A kernel, a provisioner and a clock that exist only in memory.
//!
//! The healing machine decides about disks with people's data on them, and most of what it must
//! survive happens once a year and never on a developer's desk: the second leg dies during the
//! rebuild, the daemon is killed between two system calls, the provisioner answers an hour late.
//! Here all of that happens in milliseconds, the same way every time, and afterwards every rule of
//! the product is checked against what the kernel *really* holds.
//!
//! ```text
//!   story ── faults ──► World ──► FakeKernel       MD, NVMe-oF, versions instead of bytes
//!     │                  │  │
//!     │                  │  └───► FakeProvisioner  one key, one effect
//!     │                  └──────► ArrayMachine     the real one, from heal-core
//!     ▼
//!   transcript, compared with a golden file, and invariants, checked after every step
//! ```
//!
//! [`kernel::FakeKernel`] implements the same port as the real host, so the real host's contract
//! tests run on it; [`port::SharedProvisioner`] does the same for the provisioner's contract suite.
//! This crate never links heal-host: a simulation must not be able to touch the machine it runs on.
//!
//! The price: a rule of the kernel that is wrong here is wrong in every test. The rules name the
//! kernel's functions so that they can be checked, and the laboratory runs the same stories on the
//! real one.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod contract;
pub mod hunt;
pub mod invariants;
pub mod kernel;
pub mod port;
pub mod provisioner;
pub mod story;
pub mod world;

pub use invariants::Violation;
pub use kernel::{Blur, FakeKernel, Gone, LastError, ToolFault};
pub use provisioner::FakeProvisioner;
pub use world::World;
pub use world::setup::{ArraySetup, Flaw, Setup, StandsOn, Wiring};
pub use world::transcript::{Line, LineKind};
