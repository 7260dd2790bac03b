//! Every decision of the recoverer, without I/O and without a clock.
//!
//! | module | question | answer |
//! |---|---|---|
//! | [`view`] | what is known, and how old is it? | `ClusterView` |
//! | [`detect`] | who is lost? | `Standing` of a node or a device, by two witnesses |
//! | [`decide`] | may we act on it now? | a new move, or why it is held |
//! | [`schedule`] | where to? | a node with its score, or why each one is out |
//! | [`relocate`] | what comes next in a move? | a command, and the next phase |
//!
//! The order is also the order of trust. A finding is not a permission, and a permission is not a
//! move: each stage can only say less than the one before.

pub mod decide;
pub mod detect;
pub mod evidence;
mod policy;
pub mod relocate;
pub mod schedule;
#[cfg(test)]
mod testing;
pub mod view;

pub use policy::{Automatic, Policy, Weights};
