//! The trait behind which storage vendors plug in, and the built-in backends.
//!
//! A provisioner knows which volume an MD array is, which replicas the volume has, and can give it
//! another one. The daemon knows nothing of vendors: it hands a [`ProvisionerCall`] to
//! [`dispatch::call`] and gets back an answer that has been checked, or a fault with a class. What
//! a backend must promise is written at the trait, [`Provisioner`], and every promise there is a
//! case of the [`contract`] suite, which runs against any backend through a [`contract::Fixture`].
//!
//! ```text
//!   machine ── ProvisionerCall ──►  dispatch::call  ── typed call, deadline ──►  dyn Provisioner
//!                                        │                                        │  fixed
//!           ◄── answer or fault ─────────┘  ◄── answer, believed only if ─────────┘  kumoscale, http, exec
//!                                               it keeps the contract
//! ```
//!
//! A backend sees ids, text and a deadline. It cannot see MD, NVMe or the host, because they are
//! not in its dependency graph: the worst a wrong backend can do is to give a wrong answer, and the
//! answer is checked twice, here for contradictions and on the host against the device itself.
//!
//! The price: a vendor whose API knows better (tasks, events, bulk reads) is squeezed through a few
//! narrow verbs, and asked again where it could have told.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod away;
pub mod client;
pub mod contract;
pub mod dispatch;
pub mod exec;
pub mod fixed;
pub mod http;
pub mod kumoscale;
pub mod protocol;
mod provisioner;
pub mod ron_text;
mod store;
pub mod text;

pub use async_trait::async_trait;
pub use away::Away;
pub use dispatch::call;
pub use heal_types::ProvisionerCall;
pub use provisioner::{
    CallContext, Capabilities, ForwardedEvent, HostInfo, Provisioner, ReplicaRef, Severity,
};
