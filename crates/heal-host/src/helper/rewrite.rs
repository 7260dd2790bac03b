//! Has MD write the blocks of a member again that it must not read.
//!
//! An error that passed leaves entries in a member's list of bad blocks. MD does not read those blocks
//! from it any more, so they have a copy less, and nobody sees it. MD's own repair is the cure: where an
//! in-sync member of a mirror has bad blocks, and no error of the last write stands against it, repair
//! writes them from another member and takes them off the list (`raid1_sync_request`, `end_sync_write`,
//! `handle_sync_write_finished`, `drivers/md/raid1.c`). Repair is told where to begin and where to stop,
//! so what it reads and writes is the entries and a little around them:
//!
//! ```text
//!   bad_blocks    2064 8 ── less the member's data offset ──► 16..24 ── to whole windows ──► 0..128
//!
//!   sync_min 0, sync_max 128 ──► repair ──► stands still at 128 ──► idle ──► sync_min 0, sync_max max
//! ```
//!
//! Where repair ends is put back whatever happens, but only after it has stopped: given free while it
//! runs, it would go through the whole array. The price: if it cannot be stopped, because a member
//! hangs, it stays where it is, and somebody has to write `idle` later.

use std::path::Path;
use std::time::{Duration, Instant};

use heal_types::{
    ArrayId, DeviceName, LegFlag, LegFlags, Observed, SectorCount, SyncAction, UnknownWhy,
};

use super::{Exit, Failure};
use crate::sysfs::{Held, Root};

/// How long repair may take, all of it together.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks at how far it is.
const PAUSE: Duration = Duration::from_millis(50);

/// Repair works in windows of 64 KiB (`RESYNC_SECTORS`).
const WINDOW: u64 = 128;

/// Entries no farther apart than this are repaired in one go.
const NEAR: u64 = 2048;

/// As many goes as one call makes. The list is read again afterwards.
const GOES: usize = 64;

/// A stretch of the array, in sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// Repairs what the member `leg` of the array has on its list.
pub(super) fn bad_blocks(
    root: &Path,
    array: (&DeviceName, ArrayId),
    leg: &DeviceName,
) -> Result<(), Failure> {
    let (name, id) = array;
    let path = Root::new(root).dir("sys/block").dir(name.as_str()).dir("md");
    let md = there(Held::open(&path), name)?;
    if there(md.text("uuid"), name)?.parse() != Ok(id) {
        let said = format!("{name} is another array by now");
        return Err(Failure { exit: Exit::OtherDevice, said });
    }
    let member = there(md.dir(&format!("dev-{leg}")), leg)?;
    let flags = LegFlags::parse(&there(member.list_text("state"), leg)?);
    if !flags.has(LegFlag::InSync) || flags.has(LegFlag::Faulty) {
        return Err(failed(format!("{leg} is {flags}")));
    }
    let stretches = stretches(&md, &member, leg)?;
    is_idle(&md, name)?;
    if flags.has(LegFlag::WriteError) {
        write(&member, "state", "-write_error")?;
    }
    let begun = Instant::now();
    let mut done = Ok(());
    for stretch in stretches.into_iter().take(GOES) {
        done = repair(&md, stretch, begun);
        if done.is_err() {
            break;
        }
    }
    let restored = stop(&md).and_then(|()| set_free(&md));
    done.and(restored)
}

/// The member's list as stretches of the array. The list counts from the beginning of the device
/// (`rdev_set_badblocks`, `drivers/md/md.c`).
fn stretches(md: &Held, member: &Held, leg: &DeviceName) -> Result<Vec<Stretch>, Failure> {
    let offset: u64 = there(member.value("offset"), leg)?;
    let kibibytes: u64 = there(md.value("component_size"), leg)?;
    let size = SectorCount(kibibytes.saturating_mul(2));
    let list = there(member.list_text("bad_blocks"), leg)?;
    parse(&list, offset, size).ok_or_else(|| failed(format!("bad_blocks of {leg}: {list:?}")))
}

pub(crate) fn parse(list: &str, offset: u64, size: SectorCount) -> Option<Vec<Stretch>> {
    let mut found: Vec<Stretch> = Vec::new();
    for line in list.lines() {
        let (sector, count) = line.trim().split_once(' ')?;
        let from = sector.parse::<u64>().ok()?.checked_sub(offset)?;
        let to = from.checked_add(count.parse().ok()?)?;
        if to > size.0 {
            return None;
        }
        let whole = Stretch {
            from: from / WINDOW * WINDOW,
            to: to.div_ceil(WINDOW).saturating_mul(WINDOW).min(size.0),
        };
        found.push(whole);
    }
    found.sort_unstable_by_key(|stretch| stretch.from);
    found.dedup_by(|next, last| {
        let near = next.from <= last.to.saturating_add(NEAR);
        if near {
            last.to = last.to.max(next.to);
        }
        near
    });
    Some(found)
}

fn repair(md: &Held, stretch: Stretch, begun: Instant) -> Result<(), Failure> {
    // Whichever order keeps the beginning before the end.
    set_free(md)?;
    write(md, "sync_min", &stretch.from.to_string())?;
    write(md, "sync_max", &stretch.to.to_string())?;
    write(md, "sync_action", "repair")?;
    loop {
        if action(md)? == SyncAction::Idle {
            return Ok(());
        }
        if reached(md).is_some_and(|sector| sector >= stretch.to) {
            return stop(md);
        }
        if begun.elapsed() >= PATIENCE {
            let said = format!("repair did not come from {} to {}", stretch.from, stretch.to);
            return Err(Failure { exit: Exit::Busy, said });
        }
        std::thread::sleep(PAUSE);
    }
}

/// How far repair has come: `SECTORS / SECTORS`.
fn reached(md: &Held) -> Option<u64> {
    md.text("sync_completed").known()?.split_once('/')?.0.trim().parse().ok()
}

/// Ends repair, if it runs.
fn stop(md: &Held) -> Result<(), Failure> {
    match action(md)? {
        SyncAction::Idle => Ok(()),
        SyncAction::Repair => write(md, "sync_action", "idle"),
        // Not ours. A member failed meanwhile, and MD has more urgent things to do.
        SyncAction::Resync
        | SyncAction::Recover
        | SyncAction::Check
        | SyncAction::Reshape
        | SyncAction::Frozen => Ok(()),
    }
}

/// Repair, and whatever comes next, goes from the beginning to the end. The end above all: a rebuild
/// that began meanwhile would stand still there, and while it runs the beginning cannot be written.
fn set_free(md: &Held) -> Result<(), Failure> {
    let from = write(md, "sync_min", "0");
    write(md, "sync_max", "max").and(from)
}

fn is_idle(md: &Held, name: &DeviceName) -> Result<(), Failure> {
    match action(md)? {
        SyncAction::Idle => Ok(()),
        SyncAction::Resync
        | SyncAction::Recover
        | SyncAction::Check
        | SyncAction::Repair
        | SyncAction::Reshape
        | SyncAction::Frozen => {
            Err(Failure { exit: Exit::Busy, said: format!("{name} is not idle") })
        }
    }
}

fn action(md: &Held) -> Result<SyncAction, Failure> {
    match md.value("sync_action") {
        Observed::Known(action) => Ok(action),
        Observed::Unknown(why) => Err(failed(format!("sync_action: {why}"))),
    }
}

fn write(dir: &Held, name: &str, text: &str) -> Result<(), Failure> {
    dir.write(name, text)
        .map_err(|errno| Failure::kernel(format!("{text} to {name}"), &errno.into()))
}

fn there<T>(fact: Observed<T>, what: &DeviceName) -> Result<T, Failure> {
    match fact {
        Observed::Known(value) => Ok(value),
        Observed::Unknown(UnknownWhy::Vanished) => {
            Err(Failure { exit: Exit::NotThere, said: format!("{what} is not there") })
        }
        Observed::Unknown(why) => Err(failed(format!("{what}: {why}"))),
    }
}

fn failed(said: String) -> Failure {
    Failure { exit: Exit::Failed, said }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::TempDir;

    const UUID: &str = "8e0a1b6c-1f2e-3d4c-5b6a-798800112233";
    const MD: &str = "sys/block/md127/md";

    fn stretch(from: u64, to: u64) -> Stretch {
        Stretch { from, to }
    }

    #[test]
    fn entries_become_stretches_of_the_array() {
        let size = SectorCount(100_000);
        let parse = |list| parse(list, 2048, size);
        assert_eq!(parse(""), Some(vec![]));
        assert_eq!(parse("2064 8"), Some(vec![stretch(0, 128)]));
        assert_eq!(
            parse("52048 8\n2064 8\n3000 300\n102040 8\n"),
            Some(vec![stretch(0, 1280), stretch(49_920, 50_048), stretch(99_968, 100_000)])
        );
        for bad in ["100 8", "102048 8", "2064", "a b", "2064 8 9", "18446744073709551615 8"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    /// An array whose member has bad blocks. Repair of a plain file ends when somebody says so.
    fn tree(action: &str) -> TempDir {
        let dir = TempDir::new();
        for (name, text) in [
            ("uuid", UUID),
            ("component_size", "1046528\n"),
            ("sync_action", action),
            ("sync_completed", "128 / 2093056\n"),
            ("sync_min", "0\n"),
            ("sync_max", "max\n"),
            ("dev-nvme1n1/state", "in_sync,write_error,want_replacement\n"),
            ("dev-nvme1n1/offset", "2048\n"),
            ("dev-nvme1n1/bad_blocks", "2064 8\n"),
        ] {
            dir.file(&format!("{MD}/{name}"), text);
        }
        dir
    }

    fn run(dir: &TempDir) -> Result<(), Failure> {
        let (array, leg) = ("md127".parse().unwrap(), "nvme1n1".parse().unwrap());
        bad_blocks(dir.path(), (&array, UUID.parse().unwrap()), &leg)
    }

    #[test]
    fn repair_is_stopped_where_it_was_told_to_and_set_free_again() {
        let dir = tree("idle\n");
        run(&dir).unwrap();
        assert_eq!(dir.read(&format!("{MD}/dev-nvme1n1/state")), "-write_error");
        assert_eq!(dir.read(&format!("{MD}/sync_action")), "idle");
        assert_eq!(dir.read(&format!("{MD}/sync_min")), "0");
        assert_eq!(dir.read(&format!("{MD}/sync_max")), "max");
    }

    #[test]
    fn what_fails_half_way_is_put_back() {
        let dir = tree("idle\n");
        // The beginning cannot be written: nothing is started, and there is no other end.
        std::fs::rename(dir.path().join(format!("{MD}/sync_min")), dir.path().join("away"))
            .unwrap();
        assert_eq!(run(&dir).unwrap_err().exit, Exit::NotThere);
        assert_eq!(dir.read(&format!("{MD}/sync_action")), "idle\n");
        assert_eq!(dir.read(&format!("{MD}/sync_max")), "max");
    }

    #[test]
    fn an_array_that_is_busy_and_a_member_that_is_not_whole_are_left_alone() {
        let dir = tree("recover\n");
        assert_eq!(run(&dir).unwrap_err().exit, Exit::Busy);
        let dir = tree("idle\n");
        dir.file(&format!("{MD}/dev-nvme1n1/state"), "spare\n");
        assert_eq!(run(&dir).unwrap_err().exit, Exit::Failed);
        let dir = tree("idle\n");
        dir.file(&format!("{MD}/uuid"), "11111111-1f2e-3d4c-5b6a-798800112233\n");
        assert_eq!(run(&dir).unwrap_err().exit, Exit::OtherDevice);
        for dir in [tree("recover\n"), dir] {
            let _ = run(&dir);
            assert_eq!(dir.read(&format!("{MD}/sync_max")), "max\n");
            assert!(dir.read(&format!("{MD}/dev-nvme1n1/state")).starts_with("in_sync"));
        }
    }
}
