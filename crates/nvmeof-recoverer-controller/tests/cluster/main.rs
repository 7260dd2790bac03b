//! Scenarios on a real API server. `cargo xtask cluster test` starts one and runs them.
//!
//! Real are: the API server and the controllers of Deployments and Jobs, Rook's definition of a
//! CephCluster, our definitions, and the replicas of the controller, which are processes that are
//! killed. Ceph, the targets and the nodes are stand-ins (`fabric`, `kubelet`), with processes that
//! write to devices for as long as a target lets them. Every scenario ends with [`World::at_rest`]:
//! no device had two writers in turn, and nothing that a move sets is left.
//!
//! Two of them (`stores`) have a real Ceph as well, whose OSDs are the processes of pods.
//!
//! [`World::at_rest`]: world::World::at_rest
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "scenarios on a machine of their own"
)]

mod ceph;
#[allow(dead_code, unreachable_pub, reason = "shared with the stand-ins")]
mod fabric;
mod held;
mod kubelet;
mod leaders;
mod moved;
mod others;
mod rebalanced;
mod stores;
mod world;
