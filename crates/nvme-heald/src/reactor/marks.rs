//! Which legs udev's stock rules must leave alone.
//!
//! A mark is a file named after a device number. It has to be there when udev handles the `remove`
//! event of the leg, which is some time after the kernel sent it, and gone before that number is
//! given to another disk. So a mark outlives its device for a few seconds and no longer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heal_types::DevT;
use tokio::time::Instant;

/// How long udev may take to come to a `remove` event.
const LINGERS: Duration = Duration::from_secs(10);

/// The marks there should be.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Managed legs whose device is gone, and since when.
    gone: BTreeMap<DevT, Instant>,
    made: Option<BTreeSet<DevT>>,
}

impl Marks {
    /// The marks to be made now, if they are others than those made last.
    pub(super) fn update(
        &mut self,
        now: Instant,
        managed: &BTreeSet<DevT>,
        present: &BTreeSet<DevT>,
    ) -> Option<BTreeSet<DevT>> {
        self.gone.retain(|dev, _| managed.contains(dev) && !present.contains(dev));
        for dev in managed.difference(present) {
            self.gone.entry(*dev).or_insert(now);
        }
        let lingers = |dev: &DevT| self.gone.get(dev).is_none_or(|since| now < *since + LINGERS);
        let wanted: BTreeSet<DevT> = managed.iter().copied().filter(lingers).collect();
        if self.made.as_ref() == Some(&wanted) {
            return None;
        }
        self.made = Some(wanted.clone());
        Some(wanted)
    }

    /// When a mark has lingered long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let made = self.made.as_ref()?;
        let waiting = self.gone.iter().filter(|(dev, _)| made.contains(dev));
        waiting.map(|(_, since)| *since + LINGERS).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devs(minors: &[u32]) -> BTreeSet<DevT> {
        minors.iter().map(|minor| DevT { major: 259, minor: *minor }).collect()
    }

    #[test]
    fn a_mark_outlives_its_device_for_ten_seconds_and_no_longer() {
        let start = Instant::now();
        let mut marks = Marks::default();
        assert_eq!(marks.update(start, &devs(&[1, 2]), &devs(&[1, 2])), Some(devs(&[1, 2])));
        assert_eq!(marks.update(start, &devs(&[1, 2]), &devs(&[1, 2])), None);
        assert_eq!(marks.deadline(), None);
        assert_eq!(marks.update(start, &devs(&[1, 2]), &devs(&[1])), None, "it lingers");
        let over = start + LINGERS;
        assert_eq!(marks.deadline(), Some(over));
        assert_eq!(marks.update(over, &devs(&[1, 2]), &devs(&[1])), Some(devs(&[1])));
        assert_eq!(marks.deadline(), None, "it is not waited for again");
    }

    #[test]
    fn a_device_that_is_back_in_time_keeps_its_mark() {
        let start = Instant::now();
        let mut marks = Marks::default();
        marks.update(start, &devs(&[1]), &devs(&[1]));
        marks.update(start, &devs(&[1]), &devs(&[]));
        marks.update(start + LINGERS / 2, &devs(&[1]), &devs(&[1]));
        assert_eq!(marks.update(start + LINGERS, &devs(&[1]), &devs(&[1])), None);
    }
}
