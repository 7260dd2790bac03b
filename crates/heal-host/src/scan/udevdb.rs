//! udev's database as text: what its rules found out about a device, without opening the device.
//!
//! One file for each device, `/run/udev/data/bMAJOR:MINOR`, one property a line: `E:KEY=VALUE`. The
//! format is private to udev, but has been the same since udev 173 and is what libudev itself
//! reads. A property that is not there, or a file that is not there, means only that nobody has
//! looked.

use heal_types::{ArrayId, DevT, MdDeviceId, Observed, UnknownWhy};

use crate::sysfs::Root;

/// The properties udev keeps of one block device.
#[derive(Debug)]
pub(super) struct Properties {
    text: Observed<String>,
}

impl Properties {
    pub(super) fn read(root: &Root, dev: DevT) -> Self {
        Self { text: root.table(format!("run/udev/data/b{dev}")) }
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.text.known()?.lines().find_map(|line| {
            let (name, value) = line.strip_prefix("E:")?.split_once('=')?;
            (name == key && !value.is_empty()).then_some(value)
        })
    }

    /// The UUID of this member of `array`, as blkid read it from the superblock.
    ///
    /// What blkid saw of another array, or before the device became a member, is no answer.
    pub(super) fn md_device(&self, array: ArrayId) -> Observed<MdDeviceId> {
        if let Observed::Unknown(why) = self.text {
            // No database entry: udev has not processed the device, or does not run.
            let why = match why {
                UnknownWhy::Vanished => UnknownWhy::NoAnswer,
                UnknownWhy::NotReadYet
                | UnknownWhy::NotFilledYet
                | UnknownWhy::ReadFailed
                | UnknownWhy::Malformed
                | UnknownWhy::WouldBlock
                | UnknownWhy::NoAnswer
                | UnknownWhy::Unsupported => why,
            };
            return Observed::Unknown(why);
        }
        let ours = self.get("ID_FS_TYPE") == Some("linux_raid_member")
            && self.get("ID_FS_UUID").and_then(|uuid| uuid.parse::<ArrayId>().ok()) == Some(array);
        let Some(uuid) = self.get("ID_FS_UUID_SUB").filter(|_| ours) else {
            return Observed::Unknown(UnknownWhy::NotFilledYet);
        };
        uuid.parse().map_or(Observed::Unknown(UnknownWhy::Malformed), Observed::Known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(text: &str) -> Properties {
        Properties { text: Observed::Known(text.to_owned()) }
    }

    #[test]
    fn a_members_uuid_counts_only_if_it_is_of_this_array() {
        let array: ArrayId = "8e0a1b6c:1f2e3d4c:5b6a7988:00112233".parse().unwrap();
        let ours = properties(
            "I:123\nE:ID_FS_TYPE=linux_raid_member\n\
             E:ID_FS_UUID=8e0a1b6c-1f2e-3d4c-5b6a-798800112233\n\
             E:ID_FS_UUID_SUB=0a0a0a0a-0b0b-0c0c-0d0d-0e0e0e0e0e0e\nG:systemd\n",
        );
        let id = ours.md_device(array);
        assert_eq!(id.known().unwrap().to_string(), "0a0a0a0a:0b0b0c0c:0d0d0e0e:0e0e0e0e");
        let stranger: ArrayId = "11111111:11111111:11111111:11111111".parse().unwrap();
        assert_eq!(ours.md_device(stranger), Observed::Unknown(UnknownWhy::NotFilledYet));
        assert_eq!(
            properties("E:ID_FS_TYPE=ext4\n").md_device(array),
            Observed::Unknown(UnknownWhy::NotFilledYet)
        );
    }

    #[test]
    fn odd_lines_are_no_properties() {
        let odd = properties("E:\nE:=\nE:KEY\nX:MD_NAME=a\nE:MD_NAME=\nE:MD_NAME=host:vol=1\n");
        assert_eq!(odd.get("MD_NAME"), Some("host:vol=1"));
        assert_eq!(odd.get("KEY"), None);
    }
}
