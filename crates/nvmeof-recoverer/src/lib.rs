//! The cluster half of nvme-heal: an OSD whose node died runs elsewhere, with its data.
//!
//! When a compute node dies, the disk of an OSD on NVMe-oF is still there, on the fabric. Bringing
//! the OSD up on another node with the same disk, the same id and the same place in the CRUSH map
//! moves no data at all. One mistake undoes all of it: two nodes that write to one disk destroy the
//! store, and Ceph does not prevent that. So there is one rule above all others, and the types
//! carry it:
//!
//! > **No connect on the new node before the old node provably cannot write.**
//!
//! ```text
//!    leases · mons · targets · objects                              Kubernetes · Ceph · targets · nodes
//!            │  ClusterView, with ages                                          ▲
//!            ▼                                                                  │ Command, one at a time
//!    plan::detect ──► plan::decide ──► plan::schedule ──► OsdRelocation ──► plan::relocate
//!     two witnesses    storm, cooldown   who takes what     (an object)      the machine: its phase *is*
//!                                                                            the object's status
//! ```
//!
//! [`plan`] holds every decision and does no I/O: it opens nothing, calls nothing and reads no
//! clock. The same code runs in the controller, under the command, and in the simulator that
//! crashes, partitions and lies to it a hundred thousand times (`tests/simulator`).
//!
//! The price: what a controller would do in one breath is written as a phase, an effect and an
//! answer, and every one of them must be ready to be repeated by somebody else.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod plan;
