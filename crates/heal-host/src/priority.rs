//! Who of this program goes first.
//!
//! On a busy host the way from a lost carrier to destroyed sockets consists of waiting for a
//! processor: the application that stalls, MD and the NVMe driver's own workers are all awake at
//! that moment. So the few threads on that way stand ahead of everybody, and every thread whose
//! work can wait does not:
//!
//! ```text
//!   step_ahead()   SCHED_RR, least rank of it     the reactor, and the threads for what is urgent
//!        └─ refused ─► as the unit starts us: Nice=-20
//!   step_back()    Nice=0                         looks, tools, the journal, the ledger
//! ```
//!
//! As `multipathd` and `corosync` do, and for their reason. A thread ahead of everybody that does
//! not stop would keep a processor, so it is bounded from outside: the unit's `LimitRTTIME=` ends
//! such a process, and the kernel leaves a twentieth of each second to others
//! (`sched_rt_runtime_us`, sched(7)).
//!
//! A child and a new thread have the nice value of the thread that starts them, but never its
//! real-time rank (`SCHED_RESET_ON_FORK`, sched(7)): no tool runs ahead of the application.
//!
//! The price: one more system call that the sandbox lets through, and a host whose kernel shares
//! real-time out among groups (`CONFIG_RT_GROUP_SCHED`) refuses it: there the nice value has to do.

use std::fmt;
use std::io;

use rustix::process::{getpriority_process, setpriority_process};

/// The rank of an ordinary process.
const ORDINARY: i32 = 0;

/// The least of real time: it goes before everybody ordinary, and behind every other one of its
/// kind.
const LEAST: libc::c_int = 1;

/// Where a thread stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It goes before every ordinary thread of the host.
    RealTime,
    /// It has a larger share than ordinary threads.
    Favoured,
    /// Like everybody.
    Ordinary,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RealTime => "real-time",
            Self::Favoured => "favoured",
            Self::Ordinary => "ordinary",
        })
    }
}

/// The calling thread goes ahead of everybody, if it may; what it starts does not. Answers where it
/// stands from now on.
pub fn step_ahead() -> Standing {
    match real_time() {
        Ok(()) => return Standing::RealTime,
        Err(error) => tracing::debug!(%error, "no real time"),
    }
    if getpriority_process(None).is_ok_and(|rank| rank < ORDINARY) {
        Standing::Favoured
    } else {
        Standing::Ordinary
    }
}

#[allow(unsafe_code, reason = "a system call that only the C library wraps")]
fn real_time() -> io::Result<()> {
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    let rank = libc::sched_param { sched_priority: LEAST };
    // SAFETY: the pointer is to a `sched_param` that lives through the call, which only reads it; 0
    // is the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const rank) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The calling thread takes its place among everybody else. One that stands there already, or
/// behind, stays where it is.
pub fn step_back() {
    // On Linux the "process" without a name is the calling thread: setpriority(2), C library/kernel
    // differences.
    let ahead = getpriority_process(None).is_ok_and(|rank| rank < ORDINARY);
    if ahead && let Err(error) = setpriority_process(None, ORDINARY) {
        tracing::debug!(%error, "a thread cannot step back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 41 of proc_pid_stat(5).
    fn policy() -> libc::c_int {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn what_a_thread_ahead_of_everybody_starts_is_ordinary() {
        let ahead = std::thread::spawn(|| {
            let standing = step_ahead();
            let begun = std::thread::spawn(policy).join().unwrap();
            (standing, policy(), begun)
        });
        let (standing, own, begun) = ahead.join().unwrap();
        let expected = match standing {
            Standing::RealTime => libc::SCHED_RR,
            Standing::Favoured | Standing::Ordinary => libc::SCHED_OTHER,
        };
        assert_eq!(own & !libc::SCHED_RESET_ON_FORK, expected);
        assert_eq!(begun, libc::SCHED_OTHER);
    }

    #[test]
    fn a_thread_that_stands_behind_stays_there_and_takes_nobody_with_it() {
        let before = getpriority_process(None).unwrap();
        let behind = std::thread::spawn(|| {
            setpriority_process(None, 19).unwrap();
            step_back();
            getpriority_process(None).unwrap()
        });
        assert_eq!(behind.join().unwrap(), 19);
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
