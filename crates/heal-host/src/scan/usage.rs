//! What is mounted or swapped on: from `/proc`, by device number and by name.

use std::collections::BTreeSet;

use heal_types::{DevT, Observed, UnknownWhy};

use crate::sysfs::Root;

/// Devices in use by a file system or as swap.
#[derive(Debug)]
pub(super) struct Usage {
    /// Numbers from `mountinfo`; a file system of several devices shows a number of its own there.
    numbers: BTreeSet<DevT>,
    /// Names from `mountinfo`'s source and from `swaps`.
    names: BTreeSet<String>,
    /// Why one of the two tables could not be read, or not understood: then nothing is known to be
    /// unused.
    failed: Option<UnknownWhy>,
}

impl Usage {
    pub(super) fn read(root: &Root) -> Self {
        let mut usage = Self { numbers: BTreeSet::new(), names: BTreeSet::new(), failed: None };
        match root.table("proc/self/mountinfo") {
            Observed::Known(text) => text.lines().for_each(|line| usage.mount(line)),
            Observed::Unknown(why) => usage.failed = Some(why),
        }
        match root.table("proc/swaps") {
            Observed::Known(text) => text.lines().skip(1).for_each(|line| usage.swap(line)),
            // A kernel without swap has no such file.
            Observed::Unknown(UnknownWhy::Vanished) => {}
            Observed::Unknown(why) => usage.failed = Some(why),
        }
        usage
    }

    /// Whether the device `name` with the number `dev` is in use.
    pub(super) fn of(&self, name: &str, dev: DevT) -> Observed<bool> {
        if self.numbers.contains(&dev) || self.names.contains(name) {
            return Observed::Known(true);
        }
        match self.failed {
            Some(why) => Observed::Unknown(why),
            None => Observed::Known(false),
        }
    }

    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
    fn mount(&mut self, line: &str) {
        let number = line.split(' ').nth(2).and_then(|word| word.parse::<DevT>().ok());
        let source = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if number.is_none() || source.is_none() {
            self.failed = Some(UnknownWhy::Malformed);
        }
        self.numbers.extend(number);
        if let Some(source) = source {
            self.device_path(source);
        }
    }

    /// `/dev/sda2   partition   999420   0   -2`
    fn swap(&mut self, line: &str) {
        if let Some(path) = line.split_ascii_whitespace().next() {
            self.device_path(path);
        }
    }

    fn device_path(&mut self, path: &str) {
        if let Some(name) = path.strip_prefix("/dev/") {
            self.names.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_counts_by_number_and_by_source() {
        let mut usage = Usage { numbers: BTreeSet::new(), names: BTreeSet::new(), failed: None };
        usage.mount("36 35 98:0 / /mnt rw master:1 shared:2 - ext4 /dev/nvme0n1p1 rw");
        usage.mount("40 35 0:45 / /b rw - btrfs /dev/nvme3n1 rw");
        usage.swap("/dev/nvme4n1p2  partition 1 0 -2");
        let dev = |major, minor| DevT { major, minor };
        assert_eq!(usage.of("x", dev(98, 0)), Observed::Known(true));
        assert_eq!(usage.of("nvme3n1", dev(1, 1)), Observed::Known(true));
        assert_eq!(usage.of("nvme4n1p2", dev(1, 1)), Observed::Known(true));
        assert_eq!(usage.of("nvme4n1", dev(1, 1)), Observed::Known(false));
    }

    #[test]
    fn a_line_that_is_not_understood_may_be_about_any_device() {
        for line in ["", "a b c", "36 35 98:0 / /mnt rw", "36 35 98 / /mnt rw - ext4 /dev/y rw"] {
            let mut usage =
                Usage { numbers: BTreeSet::new(), names: BTreeSet::new(), failed: None };
            usage.mount("40 35 0:45 / /b rw - btrfs /dev/nvme3n1 rw");
            usage.mount(line);
            let dev = DevT { major: 1, minor: 1 };
            assert_eq!(usage.of("nvme3n1", dev), Observed::Known(true), "{line:?}");
            assert_eq!(usage.of("x", dev), Observed::Unknown(UnknownWhy::Malformed), "{line:?}");
        }
    }

    #[test]
    fn without_the_table_nothing_is_known_to_be_unused() {
        let usage = Usage::read(&Root::new("/nonexistent"));
        let dev = DevT { major: 1, minor: 1 };
        assert!(usage.of("nvme0n1", dev).known().is_none());
    }
}
