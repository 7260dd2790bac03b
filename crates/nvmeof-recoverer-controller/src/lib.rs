//! Carries out what [`nvmeof_recoverer`] plans, in a Kubernetes cluster beside Rook.
//!
//! ```text
//!   node leases ┐                                                    ┌ Deployments of OSDs, their pods
//!   Deployments ┼─ watched ─► world ─► plan ─► a phase, written ─► act ┼ `ceph … -f json`
//!   our objects ┘               ▲               │  (or somebody   │  ├ the target's fence
//!   `ceph -f json` ─────────────┘               │   wrote first)  │  └ one Job on the new node
//!                                               └──── answer ◄────┘
//! ```
//!
//! Nothing is decided here. A controller looks ([`world`]), lets the plan say what follows, writes
//! the new phase into the object if nobody else has written since, and only then acts
//! ([`controller`]). It may die between any two of these: the object says what was begun, every
//! step can be done twice, and whoever leads next goes on. That the plan is safe is shown in its
//! own simulator; what is shown here, on a real API server, is that the hands do what the plan
//! believes they do.
//!
//! | module | what |
//! |---|---|
//! | [`crd`] | `FabricTarget` and `OsdRelocation`: schema, validation, and the way to the plan's types and back |
//! | [`rook`] | what Rook's objects say, and the patches they get: pure |
//! | [`world`] | a `ClusterView` from objects and the mons' word: pure |
//! | [`ceph`] | a typed client over the `ceph` command |
//! | [`fence`] | who takes a device away, and who says that it is gone |
//! | [`nodejob`] | one Job: connect the device on a node, and read its label |
//! | [`import`] | targets from a list that a person keeps |
//! | [`sight`] | the watches |
//! | [`lease`] | who leads, by our own clock |
//! | [`controller`] | the loop |
//!
//! The price: the controller is stateless and therefore chatty. A move is a dozen writes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod ceph;
pub mod clock;
pub mod config;
pub mod controller;
pub mod crd;
pub mod fence;
pub mod health;
pub mod import;
pub mod lease;
pub mod nodejob;
pub mod rook;
pub mod sight;
pub mod world;
