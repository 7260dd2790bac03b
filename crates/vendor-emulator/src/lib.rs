//! Provisioners to test against.
//!
//! ```text
//!   client ══ TLS ══► Server ── Fault? ──► Service (KumoScale, or anything that maps a request to a reply)
//!                        │                     │ add, delete
//!                        ▼                     ▼
//!                  Log, with times        trait Replicas: in memory, or real targets in a lab
//! ```
//!
//! [`kumoscale`] is the provisioner as its clients reveal it: every field, every oddity, and
//! switches for what nobody outside knows. [`server`] serves it, or any other [`server::Service`],
//! over HTTPS with certificates made on the spot, breaks on demand, and writes down what came in
//! and when.
//!
//! [`polling`] is a model of the vendor's own agent, to be compared with.
//!
//! The price: it is made from what clients of the real thing do and expect. Where they never look,
//! it may differ from the real thing; what is inferred is marked so.
#![forbid(unsafe_code)]

pub use async_trait::async_trait;

pub mod certificates;
pub mod kumoscale;
pub mod polling;
pub mod server;
