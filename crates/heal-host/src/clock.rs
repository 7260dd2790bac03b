//! The two clocks, read in one place.

use heal_types::{BootId, Moment, Now, Observed, WallTime};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::sysfs::Root;

/// Now, by the clock that goes on while the machine sleeps (`CLOCK_BOOTTIME`).
#[must_use]
pub fn moment() -> Moment {
    Moment(nanos(clock_gettime(ClockId::Boottime)))
}

/// Both clocks, one right after the other.
#[must_use]
pub fn now() -> Now {
    Now { mono: moment(), wall: WallTime(nanos(clock_gettime(ClockId::Realtime)) / 1_000_000) }
}

/// The kernel's id of this boot.
#[must_use]
pub fn boot_id(root: &Root) -> Observed<BootId> {
    root.dir("proc/sys/kernel/random").text("boot_id").map(BootId)
}

fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_and_this_boot_has_an_id() {
        let first = moment();
        let second = now();
        assert!(second.mono >= first && first.0 > 0);
        // 2020-01-01: a wall clock before that would be seconds read as milliseconds.
        assert!(second.wall.0 > 1_577_836_800_000);
        assert!(boot_id(&Root::host()).is_known_and(|id| id.0.len() == 36));
    }
}
