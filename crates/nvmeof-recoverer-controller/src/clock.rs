//! The only place that reads a clock.

use heal_types::{Moment, Now, WallTime};
use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where this process' monotonic time begins; nothing of it is ever stored.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Both clocks.
#[must_use]
pub fn now() -> Now {
    // Not zero at the start: what was a moment ago must not be before time.
    let mono = START.elapsed().as_nanos().saturating_add(1_000_000_000_000);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Now {
        mono: Moment(u64::try_from(mono).unwrap_or(u64::MAX)),
        wall: WallTime(u64::try_from(wall).unwrap_or(u64::MAX)),
    }
}
