//! Time as an argument: nobody in the core reads a clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment on the monotonic clock of this boot (`CLOCK_BOOTTIME`), in nanoseconds since boot.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment, `later` on.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Wall-clock time in milliseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct WallTime(pub u64);

impl WallTime {
    /// This time, `later` on.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The kernel's random id of this boot (`/proc/sys/kernel/random/boot_id`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootId(pub String);

/// Both clocks, read together by the shell when an event arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// For deadlines within one boot.
    pub mono: Moment,
    /// For deadlines that must survive a restart, and for people.
    pub wall: WallTime,
}

/// A deadline that survives a restart of the daemon and of the machine.
///
/// Within the boot that set it the monotonic clock counts, so a step of the wall clock neither
/// shortens nor stretches it. After a reboot only the wall clock is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The boot that set it.
    pub boot: BootId,
    /// When, within that boot.
    pub mono: Moment,
    /// When, by the wall clock.
    pub wall: WallTime,
}

impl Deadline {
    /// The deadline `after` from `now`, set in `boot`.
    #[must_use]
    pub fn new(now: Now, boot: &BootId, after: Duration) -> Self {
        Self { boot: boot.clone(), mono: now.mono.after(after), wall: now.wall.after(after) }
    }

    /// The same deadline on the monotonic clock of the boot that runs now.
    ///
    /// `longest` bounds what is left after a reboot: a wall clock that jumped back must not turn
    /// ten minutes into ten years.
    #[must_use]
    pub fn moment(&self, now: Now, boot: &BootId, longest: Duration) -> Moment {
        if self.boot == *boot {
            return self.mono;
        }
        now.mono.after(self.wall.since(now.wall).min(longest))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_ignores_the_wall_clock_until_a_reboot() {
        let boot = BootId("a".into());
        let now = Now { mono: Moment(5_000_000_000), wall: WallTime(1_000_000) };
        let deadline = Deadline::new(now, &boot, Duration::from_secs(10));
        let jumped = Now { mono: Moment(6_000_000_000), wall: WallTime(9_000_000) };
        let hour = Duration::from_secs(3600);
        assert_eq!(deadline.moment(jumped, &boot, hour), Moment(15_000_000_000));

        let rebooted = Now { mono: Moment(1_000_000_000), wall: WallTime(1_004_000) };
        let after = deadline.moment(rebooted, &BootId("b".into()), hour);
        assert_eq!(after, Moment(7_000_000_000));

        let clock_lost = Now { mono: Moment(0), wall: WallTime(0) };
        let bounded = deadline.moment(clock_lost, &BootId("b".into()), Duration::from_secs(10));
        assert_eq!(bounded, Moment(10_000_000_000));
    }
}
