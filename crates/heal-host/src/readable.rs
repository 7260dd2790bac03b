//! A file descriptor that tokio can wait for.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A value that owns one open descriptor for as long as it lives, and never changes it.
pub(crate) trait OwnsFd: AsRawFd {}

impl OwnsFd for OwnedFd {}
impl OwnsFd for netlink_sys::Socket {}

/// Hands `fd` to the runtime this is called in, to wait until it is readable.
#[allow(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
pub(crate) fn readable<T: OwnsFd>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the `AsyncFd` owns `fd` until it is dropped. An `OwnsFd` is open, keeps its number
    // and its file description, and nobody in this crate takes it out, replaces it or clones it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(registered?)
}
