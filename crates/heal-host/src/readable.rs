//! A file descriptor that tokio can wait for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Hands `fd` to the runtime this is called in, to wait until it is readable.
#[allow(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the `AsyncFd` owns the `OwnedFd` until it is dropped. An `OwnedFd` is open, keeps its
    // number and its file description, and nobody in this crate takes it out or replaces it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(registered?)
}
