//! How far the I/O of one path has come.
//!
//! A path's own disk counts its commands: `nvme1c3n1` below the controller where native multipath
//! is on, `nvme3n1` where it is off. The numbers are read from two small files that take no lock
//! and never wait for the device (`part_inflight_show`, `part_stat_show`, `block/genhd.c`), so a
//! path may be asked while it is dead.

use heal_types::{ControllerName, IoReading, Observed};

use crate::sysfs::{Dir, Root};

/// Namespaces of one controller that are counted. More of them say the same.
const NAMESPACES: usize = 64;

/// The fields of `stat` that every kernel has; discards and flushes came later.
const FIELDS: usize = 11;

/// What the disks of `controller` count, together. `None` when it has none, or they cannot be read.
#[must_use]
pub fn read(root: &Root, controller: &ControllerName) -> Option<IoReading> {
    let dir = root.dir("sys/class/nvme").dir(controller.as_str());
    let Observed::Known(entries) = dir.entries() else { return None };
    let mut sum: Option<IoReading> = None;
    for name in entries.iter().filter(|name| is_disk(name, controller)).take(NAMESPACES) {
        let own = disk(&dir.dir(name))?;
        let so_far = sum.unwrap_or(IoReading { in_flight: 0, completed: 0 });
        sum = Some(IoReading {
            in_flight: so_far.in_flight.saturating_add(own.in_flight),
            completed: so_far.completed.wrapping_add(own.completed),
        });
    }
    sum
}

/// `nvme1c3n1` or `nvme3n1` of `nvme3`; not its character device, not its hwmon.
fn is_disk(name: &str, controller: &ControllerName) -> bool {
    let Some(rest) = name.strip_prefix("nvme") else { return false };
    let Some(instance) = controller.as_str().strip_prefix("nvme") else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let Some((head, namespace)) = rest.split_once('n') else { return false };
    let owner = match head.split_once('c') {
        Some((subsystem, controller)) if digits(subsystem) => controller,
        Some(_) => return false,
        None => head,
    };
    owner == instance && digits(namespace)
}

fn disk(dir: &Dir) -> Option<IoReading> {
    let numbers = |name: &str| -> Option<Vec<u64>> {
        let text = dir.text(name);
        text.known()?.split_whitespace().map(|word| word.parse().ok()).collect()
    };
    let stat = numbers("stat").filter(|fields| fields.len() >= FIELDS)?;
    // `Documentation/block/stat.rst`: reads, writes, discards and flushes that ended.
    let ended = [0, 4, 11, 15].iter().filter_map(|field| stat.get(*field));
    let [reads, writes] = numbers("inflight")?[..] else { return None };
    Some(IoReading {
        in_flight: reads.saturating_add(writes),
        completed: ended.fold(0, |sum, count| sum.wrapping_add(*count)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::TempDir;

    #[test]
    fn only_the_disks_of_the_controller_are_counted() {
        let controller = ControllerName::new("nvme3").unwrap();
        for (name, counts) in [
            ("nvme1c3n1", true),
            ("nvme3n1", true),
            ("nvme1c33n1", false),
            ("nvme33n1", false),
            ("nvme3", false),
            ("nvme3c1n1", false),
            ("ng3n1", false),
            ("hwmon2", false),
            ("nvme3n", false),
        ] {
            assert_eq!(is_disk(name, &controller), counts, "{name}");
        }
    }

    #[test]
    fn a_disks_numbers_are_added_up() {
        let dir = TempDir::new();
        dir.file("sys/class/nvme/nvme3/nvme1c3n1/inflight", "       2        3\n");
        let stat = " 10 0 0 0 20 0 0 0 5 0 0 30 0 0 0 40 0\n";
        dir.file("sys/class/nvme/nvme3/nvme1c3n1/stat", stat);
        let controller = ControllerName::new("nvme3").unwrap();
        let counted = || read(&Root::new(dir.path()), &controller);
        assert_eq!(counted(), Some(IoReading { in_flight: 5, completed: 100 }));

        // A line that lacks its end counts less than there was.
        dir.file("sys/class/nvme/nvme3/nvme1c3n1/stat", " 10 0 0 0 20\n");
        assert_eq!(counted(), None);
        dir.file("sys/class/nvme/nvme3/nvme1c3n1/stat", stat);
        dir.file("sys/class/nvme/nvme3/nvme1c3n1/inflight", "2\n");
        assert_eq!(counted(), None);
        dir.file("sys/class/nvme/nvme3/nvme1c3n1/inflight", &format!("{} 1\n", u64::MAX));
        assert_eq!(counted().unwrap().in_flight, u64::MAX, "more than there can be is not little");
    }
}
