//! The fences, from the controller's end: over a wire, against targets in this process. What they
//! prove is read by the plan itself.
//!
//! Each kind keeps the same contract, and shows besides what is its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "scratch files and small numbers of these tests"
)]

mod contract;
mod nvmet;
mod reservation;
mod scratch;
mod spdk;
mod target;
