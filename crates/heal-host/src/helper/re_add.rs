//! Gives a member that left back to its array: one question to the kernel, which judges and acts in
//! one.
//!
//! `mdadm --re-add` comes to the same `ADD_NEW_DISK`, with the same words: the slot and the number
//! that stand in the superblock, and "in sync" (`Manage.c`, `attempt_re_add`). To that the kernel
//! says yes only if the device's events are within what the array's bitmap still knows
//! (`md_add_new_disk`, `super_1_validate`); it claims the device for itself, and refuses one that
//! is too small or whose number is taken (`md_import_device`, `bind_rdev_to_array`). What `mdadm`
//! does around it is asked here as well:
//!
//! | question | asked by |
//! |---|---|
//! | the array, by UUID, and the device, by number | here, on what is held open through the call |
//! | its superblock: this array's, active, the very one that was judged before | here, read anew |
//! | what of it is bound still is faulty, and is unbound | here |
//! | the number of the member is free | here, and by the kernel |
//! | nobody else has the device, it is large enough, the bitmap covers its absence | the kernel |
//!
//! What `mdadm` does besides is not done. It freezes the array meanwhile, so that MD does not begin
//! with the first of several devices: there is one. So nobody can be killed between freezing and
//! thawing.
//!
//! The price: a second user of an interface that is `mdadm`'s. A superblock that asks for more than
//! a plain mirror needs is left to `mdadm`.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use heal_types::{ArrayId, DevT, DeviceName, MdDeviceId, MdRole};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};

use super::probe::{self, Member};
use super::{Exit, Failure, Verb, set_attr};

/// `MD_MAJOR`, the type of MD's calls.
const MD: u8 = 9;
const GET_DISK_INFO: Opcode = opcode::read::<DiskInfo>(MD, 0x12);
const ADD_NEW_DISK: Opcode = opcode::write::<DiskInfo>(MD, 0x21);

/// `MD_DISK_ACTIVE`, `MD_DISK_SYNC`: what `mdadm` says of a member with a slot.
const ACTIVE_AND_IN_SYNC: i32 = 1 << 1 | 1 << 2;
const WRITE_MOSTLY: i32 = 1 << 9;
const FAIL_FAST: i32 = 1 << 10;

/// `struct mdu_disk_info_s`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct DiskInfo {
    number: i32,
    major: i32,
    minor: i32,
    raid_disk: i32,
    state: i32,
}

/// Which device is to be a member of which array again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Return<'a> {
    pub(super) array: &'a DeviceName,
    pub(super) id: ArrayId,
    pub(super) node: &'a Path,
    pub(super) dev: DevT,
    /// The member, as it was when it was judged.
    pub(super) member: MdDeviceId,
    pub(super) events: u64,
    /// What of it is bound still, and faulty.
    pub(super) leaving: Option<&'a DeviceName>,
}

/// Gives it back, or says why not.
pub(super) fn member(wanted: &Return<'_>) -> Result<(), Failure> {
    // Both stay open to the end, so that neither number becomes another one's.
    let array = array_of(wanted)?;
    let (device, found) = probe::only_member(wanted.node, wanted.dev)?;
    let info = disk_info(wanted, found)?;
    if let Some(leg) = wanted.leaving {
        let array = (wanted.array, wanted.id);
        set_attr::write(Path::new("/sys/block"), array, leg, Verb::RemoveFaulty)?;
    }
    if is_taken(&array, info.number)? {
        return Err(refused(format!("number {} of {} is taken", info.number, wanted.array)));
    }
    let added = add(&array, info);
    drop(device);
    added.map_err(|errno| match errno {
        // MD says no more than that; why stands in the kernel's log.
        Errno::INVAL | Errno::NOSPC => {
            refused(format!("the kernel does not take {}: {errno}", wanted.node.display()))
        }
        other => Failure::kernel(wanted.node.display(), &other.into()),
    })
}

fn refused(said: String) -> Failure {
    Failure { exit: Exit::Refused, said }
}

/// The array's node, once it is the array that was meant.
fn array_of(wanted: &Return<'_>) -> Result<File, Failure> {
    let dev = set_attr::number_of(Path::new("/sys/block"), wanted.array, wanted.id)?;
    probe::open_if(&Path::new("/dev").join(wanted.array.as_str()), dev)
}

/// What MD is told of it: what `mdadm` would read from its superblock.
fn disk_info(wanted: &Return<'_>, found: Option<Member>) -> Result<DiskInfo, Failure> {
    let Some(Member { superblock, manners }) = found else {
        return Err(refused("it carries no superblock, or more than one".to_owned()));
    };
    let same = (wanted.id, wanted.member, wanted.events)
        == (superblock.array, superblock.device, superblock.events);
    if !same {
        return Err(refused("its superblock is another one by now".to_owned()));
    }
    let slot = match superblock.role {
        MdRole::Active(slot) => slot,
        MdRole::Spare | MdRole::Faulty | MdRole::Journal => {
            return Err(refused("it left as no active member".to_owned()));
        }
    };
    let Some(manners) = manners else {
        let said = "its superblock asks for more than a plain mirror does".to_owned();
        return Err(Failure { exit: Exit::NotHere, said });
    };
    let write_mostly = if manners.write_mostly { WRITE_MOSTLY } else { 0 };
    let fail_fast = if manners.fail_fast { FAIL_FAST } else { 0 };
    let number = |value: u32| i32::try_from(value).map_err(Failure::usage);
    Ok(DiskInfo {
        number: number(superblock.number)?,
        major: number(wanted.dev.major)?,
        minor: number(wanted.dev.minor)?,
        raid_disk: i32::from(slot),
        state: ACTIVE_AND_IN_SYNC | write_mostly | fail_fast,
    })
}

/// Whether some member of the array goes by this number.
#[allow(unsafe_code, reason = "MD's own call, which no library wraps")]
fn is_taken(array: impl AsFd, number: i32) -> Result<bool, Failure> {
    let mut info = DiskInfo { number, ..DiskInfo::default() };
    // SAFETY: `GET_DISK_INFO` reads a `struct mdu_disk_info_s` and writes one back, nothing beyond
    // it.
    let asked = unsafe { ioctl(array, Updater::<GET_DISK_INFO, DiskInfo>::new(&mut info)) };
    asked.map_err(|errno| Failure::kernel("the array's members", &errno.into()))?;
    Ok(info.major != 0 || info.minor != 0)
}

#[allow(unsafe_code, reason = "MD's own call, which no library wraps")]
fn add(array: impl AsFd, info: DiskInfo) -> Result<(), Errno> {
    // SAFETY: `ADD_NEW_DISK` reads a `struct mdu_disk_info_s`, and keeps nothing of it.
    unsafe { ioctl(array, Setter::<ADD_NEW_DISK, DiskInfo>::new(info)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::Manners;
    use crate::superblock::tests::written;

    fn wanted<'a>(array: &'a DeviceName, node: &'a Path) -> Return<'a> {
        Return {
            array,
            id: ArrayId::from_bytes([0x11; 16]),
            node,
            dev: DevT { major: 259, minor: 3 },
            member: MdDeviceId::from_bytes([0x22; 16]),
            events: 42,
            leaving: None,
        }
    }

    fn told(change: impl FnOnce(&mut Member)) -> Result<DiskInfo, Exit> {
        let array = "md127".parse().unwrap();
        let superblock = crate::superblock::parse(&written(8, 1), 8).unwrap().unwrap();
        let manners = Some(Manners { write_mostly: false, fail_fast: true });
        let mut found = Member { superblock, manners };
        change(&mut found);
        disk_info(&wanted(&array, Path::new("/dev/nvme1n1")), Some(found))
            .map_err(|failure| failure.exit)
    }

    #[test]
    fn md_is_told_what_mdadm_would_tell_it() {
        let info = told(|_| {}).unwrap();
        assert_eq!((info.number, info.raid_disk), (1, 1));
        assert_eq!((info.major, info.minor), (259, 3));
        // 6 is `mdadm`'s "active and in sync", 0x400 that the leg fails fast.
        assert_eq!(info.state, 6 | 0x400);
        let slow = Manners { write_mostly: true, fail_fast: false };
        assert_eq!(told(|found| found.manners = Some(slow)).unwrap().state, 6 | 0x200);
    }

    #[test]
    fn the_calls_have_the_numbers_of_the_kernels_headers() {
        // `_IOR (MD_MAJOR, 0x12, mdu_disk_info_t)` and `_IOW (MD_MAJOR, 0x21, mdu_disk_info_t)`.
        assert_eq!((GET_DISK_INFO, ADD_NEW_DISK), (0x8014_0912, 0x4014_0921));
    }

    #[test]
    fn another_superblock_than_the_one_that_was_judged_is_not_given_back() {
        let other = [9; 16];
        assert_eq!(told(|it| it.superblock.events = 43), Err(Exit::Refused));
        let device = MdDeviceId::from_bytes(other);
        assert_eq!(told(|it| it.superblock.device = device), Err(Exit::Refused));
        let array = ArrayId::from_bytes(other);
        assert_eq!(told(|it| it.superblock.array = array), Err(Exit::Refused));
        for role in [MdRole::Spare, MdRole::Faulty, MdRole::Journal] {
            assert_eq!(told(|it| it.superblock.role = role), Err(Exit::Refused));
        }
        let array = "md127".parse().unwrap();
        let none = disk_info(&wanted(&array, Path::new("/dev/nvme1n1")), None);
        assert_eq!(none.unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn what_asks_for_more_than_a_plain_mirror_is_left_to_mdadm() {
        assert_eq!(told(|found| found.manners = None), Err(Exit::NotHere));
    }

    #[test]
    fn what_is_no_array_gets_nothing() {
        let file = File::open("/dev/null").unwrap();
        assert_eq!(is_taken(&file, 1).unwrap_err().exit, Exit::Failed);
        let info = DiskInfo::default();
        assert_eq!(add(&file, info), Err(Errno::NOTTY));
    }
}
