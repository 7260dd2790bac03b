//! Device nodes, proven.

use std::fmt;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use heal_types::{DevT, DeviceName, Outcome};

use super::{Step, other_device, refused_here};

/// A path below `/dev` that was seen to be the block device that was meant. There is no other way
/// to get a device path into a child's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node(String);

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where nodes are, and how their numbers are read.
#[derive(Debug, Clone)]
pub(super) struct Nodes {
    directory: PathBuf,
    number: fn(&Path) -> io::Result<Option<DevT>>,
}

impl Nodes {
    pub(super) fn host() -> Self {
        Self { directory: PathBuf::from("/dev"), number: block_device_number }
    }

    /// Only root can make a device node, so a test says otherwise what number a file stands for.
    #[cfg(test)]
    pub(super) fn for_test(
        directory: &Path,
        number: fn(&Path) -> io::Result<Option<DevT>>,
    ) -> Self {
        Self { directory: directory.to_owned(), number }
    }

    /// The node of `device`, if it is the block device `dev`.
    pub(super) fn prove(&self, device: &DeviceName, dev: DevT) -> Step<Node> {
        // The kernel writes a slash of a node's name as `!` below /sys. No device here has one.
        if device.as_str().contains('!') {
            return Err(refused_here(format!("{device} has no node by that name")));
        }
        let path = self.directory.join(device.as_str());
        match (self.number)(&path) {
            Ok(Some(found)) if found == dev => Ok(Node(path.display().to_string())),
            Ok(Some(found)) => {
                Err(other_device(format!("{} is {found}, not {dev}", path.display())))
            }
            Ok(None) => Err(other_device(format!("{} is no block device", path.display()))),
            Err(error) => Err(missing(&path, &error)),
        }
    }
}

/// Right after a device appeared, its node may still be on the way.
fn missing(path: &Path, error: &io::Error) -> Outcome {
    let detail = format!("{}: {error}", path.display());
    super::retry(super::SOON, heal_types::RetryWhy::ToolFailed { exit: None, detail })
}

/// Without following a link: a link is not what the kernel made.
fn block_device_number(path: &Path) -> io::Result<Option<DevT>> {
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.file_type().is_block_device() {
        return Ok(None);
    }
    Ok(Some(DevT { major: rustix::fs::major(meta.rdev()), minor: rustix::fs::minor(meta.rdev()) }))
}

#[cfg(test)]
impl Node {
    pub(crate) fn for_test(path: &str) -> Self {
        Self(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_block_device_is_not_handed_out() {
        let null = DeviceName::new("null").unwrap();
        let refused = Nodes::host().prove(&null, DevT { major: 1, minor: 3 }).unwrap_err();
        assert_eq!(refused, other_device("/dev/null is no block device"));
        let missing = DeviceName::new("no-such").unwrap();
        let later = Nodes::host().prove(&missing, DevT { major: 1, minor: 3 }).unwrap_err();
        assert!(matches!(later, Outcome::Retry { .. }), "{later}");
    }
}
