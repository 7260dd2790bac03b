//! Deletes one controller, once it is the one that was meant and still connecting.

use std::path::Path;

use heal_types::{ControllerName, ControllerState, Observed};

use super::{Exit, Failure};
use crate::sysfs::{Held, Root};

/// Deletes `name` below `root`, if its directory has this inode.
///
/// In any other state than `connecting` the write can wait for an answer of the target, half a
/// minute and more. What changes between the look at the state and the write is up to the kernel.
pub(super) fn controller(root: &Path, name: &ControllerName, inode: u64) -> Result<(), Failure> {
    let path = Root::new(root).dir("sys/class/nvme").dir(name.as_str());
    let not_there = |why| Failure { exit: Exit::NotThere, said: format!("{name}: {why}") };
    let held = match Held::open(&path) {
        Observed::Known(held) => held,
        Observed::Unknown(why) => return Err(not_there(why)),
    };
    match held.inode() {
        Observed::Known(found) if found == inode => {}
        Observed::Known(_) => {
            let said = format!("{name} is another controller by now");
            return Err(Failure { exit: Exit::OtherDevice, said });
        }
        Observed::Unknown(why) => return Err(not_there(why)),
    }
    match held.value("state") {
        Observed::Known(ControllerState::Connecting) => {}
        Observed::Known(state) => {
            let said = format!("{name} is {state}, not connecting");
            return Err(Failure { exit: Exit::Busy, said });
        }
        Observed::Unknown(why) => return Err(not_there(why)),
    }
    held.write("delete_controller", "1")
        .map_err(|errno| Failure::kernel(format!("delete_controller of {name}"), &errno.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::exec::testing::TempDir;

    fn tree(state: &str) -> (TempDir, ControllerName, u64) {
        let dir = TempDir::new();
        dir.file("sys/class/nvme/nvme3/state", state);
        dir.file("sys/class/nvme/nvme3/delete_controller", "");
        let inode = std::fs::metadata(dir.path().join("sys/class/nvme/nvme3")).unwrap().ino();
        (dir, ControllerName::new("nvme3").unwrap(), inode)
    }

    #[test]
    fn a_controller_that_is_connecting_is_deleted() {
        let (dir, name, inode) = tree("connecting\n");
        controller(dir.path(), &name, inode).unwrap();
        assert_eq!(dir.read("sys/class/nvme/nvme3/delete_controller"), "1");
    }

    #[test]
    fn a_controller_in_another_state_is_left_alone() {
        for state in ["live\n", "resetting\n", "deleting (no IO)\n", "new\n"] {
            let (dir, name, inode) = tree(state);
            assert_eq!(controller(dir.path(), &name, inode).unwrap_err().exit, Exit::Busy);
            assert_eq!(dir.read("sys/class/nvme/nvme3/delete_controller"), "");
        }
    }

    #[test]
    fn another_controller_of_the_same_name_is_left_alone() {
        let (dir, name, inode) = tree("connecting\n");
        let failure = controller(dir.path(), &name, inode + 1).unwrap_err();
        assert_eq!(failure.exit, Exit::OtherDevice);
        assert_eq!(dir.read("sys/class/nvme/nvme3/delete_controller"), "");
        let other = ControllerName::new("nvme4").unwrap();
        assert_eq!(controller(dir.path(), &other, inode).unwrap_err().exit, Exit::NotThere);
    }
}
