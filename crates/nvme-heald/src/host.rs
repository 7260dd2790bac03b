//! What the daemon needs of a host beyond looking and acting: the seam between its shell and the
//! machine it runs on, so that the shell is tested on a host that exists only in memory.

use std::collections::BTreeSet;

use heal_types::{DevT, HostPort};

/// A host the daemon can run on.
pub(crate) trait Host: HostPort + Clone + Send + 'static {
    /// Waits on the caller's thread, for a bounded time, until udev is done with a device that is
    /// about to be opened.
    fn await_settled(&self, device: DevT);

    /// Tells udev's guard which devices are managed legs.
    fn mark_managed(&self, devices: &BTreeSet<DevT>);

    /// Children that hang in the kernel now.
    fn stuck_children(&self) -> u64;
}
