//! Who of this program goes first.
//!
//! On a busy host the way from a lost carrier to destroyed sockets consists of waiting for a processor:
//! the application that stalls, MD and the NVMe driver's own workers are all awake at that moment. So
//! the unit starts the daemon ahead of everybody (`Nice=-20`), and every thread whose work can wait
//! steps back. That way round no privilege is needed: to step back is free, to step forward is not.
//!
//! A child has the rank of the thread that starts it.

use rustix::process::{getpriority_process, setpriority_process};

/// The rank of an ordinary process.
const ORDINARY: i32 = 0;

/// The calling thread takes its place among everybody else. One that stands there already, or behind,
/// stays where it is.
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
