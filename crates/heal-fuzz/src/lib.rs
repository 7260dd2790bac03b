//! Hostile bytes for everything in this product that reads bytes from outside.
//!
//! A daemon that runs as root and acts on disks reads what a kernel, a target over the network, a
//! vendor, a person and its own crashed former life wrote. Each of these is a [`Target`]: a plain
//! function that takes bytes, reads them as the product does, and panics when what comes out breaks
//! a promise. That it does not panic by itself is the least of it:
//!
//! - **What was read can be written and read again**, and is the same, where we write it at all.
//! - **Less is never more.** Of a message that was cut, nothing is believed that the whole does not
//!   say; a cut superblock, record or configuration is an error and never a smaller one.
//! - **Unknown is never empty.** An array that cannot be read is unreadable, not gone; a table of
//!   mounts that cannot be understood does not say that a disk is free.
//! - **A newtype keeps its word**: no control character, nothing that could become an option, no
//!   length without a bound.
//! - **Nothing is written over that could not be read.**
//!
//! ```text
//!   corpus/TARGET/*  ──► tests/replay.rs ──┐                    every `cargo test`
//!                                          ├──► Target::run(bytes)
//!   cargo xtask fuzz ──► engine.rs ────────┘                    for as long as you like
//!        ▲                libFuzzer, guided by coverage
//!        └── what is new goes to target/fuzz, and what is worth keeping to corpus/
//! ```
//!
//! A corpus holds three kinds of files: `seed-*` were captured or written by hand, `found-*` made a
//! target fail once and are its regression test, and the rest, named by a hash, is the smallest set
//! that `cargo xtask fuzz --minimise` found to reach what exploration reached.
//!
//! libFuzzer's instrumentation is an LLVM pass that the stable compiler accepts as `-C passes`, so
//! exploring needs no other tool-chain, but a C++ compiler. The price: the standard library is not
//! instrumented, so a branch taken only inside of it (a number that does not parse) guides nobody.
#![forbid(unsafe_code)]
#![allow(
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a target says that a promise is broken by panicking, and has files of its own"
)]

mod disk;
mod inputs;
mod kernel;
mod netlink;
mod people;
mod tree;
mod vendors;
mod words;

use std::path::{Path, PathBuf};

/// A reader of outside bytes, and what must hold of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is its corpus' as well.
    pub name: &'static str,
    /// Where its bytes come from, and what it promises of them.
    pub about: &'static str,
    /// The longest input that tells anything new.
    pub longest: usize,
    /// Reads the bytes; panics when a promise is broken.
    pub run: fn(&[u8]),
}

/// Every target.
#[rustfmt::skip]
pub static TARGETS: &[Target] = &[
    Target { name: "uevent",      longest: 2048,   run: netlink::uevent,     about: "the kernel's uevents; a cut one is none" },
    Target { name: "rtnetlink",   longest: 2048,   run: netlink::links,      about: "changes of interfaces, as they are told and as they are listed; what is cut is a loss" },
    Target { name: "sock-diag",   longest: 2048,   run: netlink::sockets,    about: "TCP sockets; who is ended is who was told of" },
    Target { name: "dialog",      longest: 2048,   run: netlink::dialog,     about: "answers of the kernel; half a list is not a list" },
    Target { name: "kmsg",        longest: 1024,   run: kernel::log,         about: "the kernel's log; only the kernel is heard" },
    Target { name: "sysfs",       longest: 1024,   run: kernel::look,        about: "a look at a host whose attributes were changed; an array never vanishes" },
    Target { name: "counters",    longest: 512,    run: kernel::counters,    about: "what a path's disk counts" },
    Target { name: "superblock",  longest: 1024,   run: disk::superblock,    about: "MD superblocks; damage is never absence, and no byte of one goes unchecked" },
    Target { name: "content",     longest: 2048,   run: disk::content,       about: "superblocks and blkid together; blank takes two witnesses" },
    Target { name: "helper",      longest: 2048,   run: disk::helper,        about: "what the child that reads a device prints" },
    Target { name: "ledger",      longest: 6144,   run: disk::ledger,        about: "records of an earlier life; unreadable is not empty, and not written over" },
    Target { name: "words",       longest: 300,    run: words::words,        about: "every newtype that is read from text" },
    Target { name: "human",       longest: 300,    run: words::human,        about: "durations, sizes, portals as people write them" },
    Target { name: "config",      longest: 4096,   run: people::config,      about: "the daemon's configuration; half a file is refused" },
    Target { name: "inventory",   longest: 4096,   run: people::inventory,   about: "volumes and spares as an operator lists them" },
    Target { name: "fixed-state", longest: 4096,   run: people::fixed_state, about: "what the fixed backend noted; unreadable is not written over" },
    Target { name: "volume",      longest: 4096,   run: people::volume,      about: "a volume as a vendor's backend may hand it in; believed only without contradictions" },
    Target { name: "document",    longest: 4096,   run: vendors::document,   about: "answers of an http or exec backend; believed only without contradictions" },
    Target { name: "kumoscale",   longest: 4096,   run: vendors::kumoscale,  about: "answers of a KumoScale provisioner; half a list is not a list" },
    Target { name: "kioxia-conf", longest: 2048,   run: vendors::conf,       about: "the vendor's provisioner.conf; secrets are not shown" },
    Target { name: "control",     longest: 2048,   run: people::control,     about: "the control socket's lines" },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Where the corpora are.
#[must_use]
pub fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}
