//! The two clocks, read in one place, and an alarm that keeps to them.

use std::io;
use std::os::fd::OwnedFd;

use heal_types::{BootId, Moment, Now, Observed, WallTime};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::readable::readable;
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

/// Rings at a moment of [`moment`]'s clock. The runtime's own timers keep to milliseconds, come one
/// or two late, and stand still while the machine sleeps.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    set: Option<Moment>,
}

impl Alarm {
    /// An alarm that is not set. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// When the kernel gives out no timer.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        Ok(Self { timer: readable(timer)?, set: None })
    }

    /// Waits until `at`; for ever, if there is no such moment. Safe to drop while it waits.
    ///
    /// # Errors
    /// When the timer cannot be set or read, which a kernel has no reason for.
    pub async fn until(&mut self, at: Option<Moment>) -> io::Result<()> {
        let Some(at) = at else { return std::future::pending().await };
        if moment() >= at {
            return Ok(());
        }
        if self.set != Some(at) {
            let once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Itimerspec { it_interval: once, it_value: timespec(at) };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &value)?;
            self.set = Some(at);
        }
        while moment() < at {
            let mut ready = self.timer.readable().await?;
            let rang = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?));
            if let Ok(read) = rang {
                read?;
            }
        }
        self.set = None;
        Ok(())
    }
}

fn timespec(at: Moment) -> Timespec {
    let part = |nanos: u64| i64::try_from(nanos).unwrap_or(i64::MAX);
    Timespec { tv_sec: part(at.0 / 1_000_000_000), tv_nsec: part(at.0 % 1_000_000_000) }
}

fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn an_alarm_rings_at_its_moment_and_can_be_set_anew() {
        let mut alarm = Alarm::new().unwrap();
        let begun = moment();
        alarm.until(Some(begun)).await.unwrap();
        let soon = begun.after(Duration::from_millis(20));
        let long = tokio::time::timeout(
            Duration::from_millis(1),
            alarm.until(Some(begun.after(Duration::from_secs(100)))),
        );
        assert!(long.await.is_err(), "it was dropped while it waited");
        alarm.until(Some(soon)).await.unwrap();
        assert!(moment() >= soon && moment() < begun.after(Duration::from_secs(50)));
        let never = tokio::time::timeout(Duration::from_millis(5), alarm.until(None));
        assert!(never.await.is_err());
    }

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
