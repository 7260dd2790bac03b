//! MD arrays and the members bound to them.

use std::path::Path;

use heal_types::{
    Alias, ArrayId, ArraySnapshot, ArrayState, Backing, Bitmap, DevT, DeviceName, LegFlags,
    LegSnapshot, Level, Metadata, Observed, SectorCount, Slot, SyncAction, SyncProgress,
    UnknownWhy,
};

use super::namespace::{Found, Namespaces, device_names};
use super::udevdb::Properties;
use crate::sysfs::{Dir, Root, parsed};

/// What stands behind the name of an md device.
#[derive(Debug)]
pub(super) enum ArrayRead {
    /// An array.
    Array(Box<ArraySnapshot>),
    /// An array of which a fact is missing that every conclusion needs.
    Unreadable,
    /// A name without an array: stopped, being made, or never given a superblock.
    NoArray,
}

/// Why reading an array was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GivenUp {
    /// A fact that every conclusion needs could not be read.
    Unreadable,
    /// There is nothing to read.
    NoArray,
}

impl From<UnknownWhy> for GivenUp {
    fn from(_: UnknownWhy) -> Self {
        Self::Unreadable
    }
}

pub(super) fn read(
    root: &Root,
    disk: &Dir,
    device: &DeviceName,
    namespaces: &Namespaces,
) -> ArrayRead {
    let md = disk.dir("md");
    if !md.exists() {
        return ArrayRead::NoArray;
    }
    match read_array(root, disk, &md, device, namespaces) {
        Ok(array) => ArrayRead::Array(Box::new(array)),
        Err(GivenUp::NoArray) => ArrayRead::NoArray,
        // It may have been stopped while it was read.
        Err(GivenUp::Unreadable) if !md.exists() => ArrayRead::NoArray,
        Err(GivenUp::Unreadable) => ArrayRead::Unreadable,
    }
}

fn read_array(
    root: &Root,
    disk: &Dir,
    md: &Dir,
    device: &DeviceName,
    namespaces: &Namespaces,
) -> Result<ArraySnapshot, GivenUp> {
    let state: Observed<ArrayState> = md.value("array_state");
    if state == Observed::Known(ArrayState::Clear) {
        return Err(GivenUp::NoArray);
    }
    let dev: DevT = need(disk.value("dev"))?;
    let udev = Properties::read(root, dev);
    let metadata = metadata(md)?;
    let id = identity(md, &udev, &state, metadata)?;
    let sync_action = md.optional("sync_action");
    Ok(ArraySnapshot {
        id,
        device: device.clone(),
        dev,
        alias: alias(&udev),
        level: level(md)?,
        metadata,
        state,
        raid_disks: need(parsed(&md.text("raid_disks"), first_number))?,
        degraded: md.optional("degraded"),
        sync_action,
        sync_progress: md.text("sync_completed").known().and_then(|text| progress(text)),
        reshaping: sync_action == Observed::Known(SyncAction::Reshape)
            || need(md.text("reshape_position"))? != "none",
        component_size: parsed(&md.text("component_size"), kibibytes),
        logical_block: disk.dir("queue").value("logical_block_size"),
        bitmap: bitmap(md),
        in_flight: parsed(&disk.text("inflight"), in_flight),
        legs: legs(root, md, device, id, namespaces)?,
    })
}

fn need<T>(fact: Observed<T>) -> Result<T, GivenUp> {
    match fact {
        Observed::Known(value) => Ok(value),
        Observed::Unknown(why) => Err(why.into()),
    }
}

/// The UUID in the array's superblocks.
///
/// `md/uuid` has it from the moment the array runs, all zeros before and where MD keeps no metadata
/// itself. The way through udev's database is for kernels without the attribute and for external
/// metadata; of an array that does not run, the database may still tell what stood there before.
fn identity(
    md: &Dir,
    udev: &Properties,
    state: &Observed<ArrayState>,
    metadata: Metadata,
) -> Result<ArrayId, GivenUp> {
    let text = match md.text("uuid") {
        Observed::Known(text) => Some(text),
        Observed::Unknown(UnknownWhy::Vanished) => None,
        Observed::Unknown(why) => return Err(why.into()),
    };
    if let Some(id) = text.and_then(|text| text.parse().ok()) {
        return Ok(id);
    }
    match state {
        Observed::Known(ArrayState::Clear | ArrayState::Inactive) => return Err(GivenUp::NoArray),
        Observed::Known(
            ArrayState::Suspended
            | ArrayState::Readonly
            | ArrayState::ReadAuto
            | ArrayState::Clean
            | ArrayState::Active
            | ArrayState::WritePending
            | ArrayState::ActiveIdle
            | ArrayState::Broken,
        ) => {}
        Observed::Unknown(why) => return Err((*why).into()),
    }
    let from_udev = udev.get("MD_UUID").and_then(|text| text.parse().ok());
    from_udev.ok_or(match metadata {
        // It has a UUID; udev has not said it yet.
        Metadata::V1 | Metadata::V090 | Metadata::Clustered => GivenUp::Unreadable,
        Metadata::External | Metadata::None => GivenUp::NoArray,
    })
}

/// The array's name without the host that made it: `host:name` is what `mdadm` writes into the
/// superblock.
fn alias(udev: &Properties) -> Option<Alias> {
    let name = match udev.get("MD_NAME") {
        Some(name) => name.split_once(':').map_or(name, |(_, name)| name),
        None => udev.get("MD_DEVNAME")?,
    };
    Alias::new(name).ok()
}

fn level(md: &Dir) -> Result<Level, GivenUp> {
    let level = match md.list_text("level") {
        Observed::Known(level) => level,
        Observed::Unknown(why) => return Err(why.into()),
    };
    match level.as_str() {
        "raid1" => Ok(Level::Raid1),
        "raid10" => {
            let layout = need(parsed(&md.text("layout"), first_number))?;
            Ok(Level::Raid10 { layout })
        }
        // An array that does not run has no level; the others are observed only.
        _ => Ok(Level::Other),
    }
}

fn metadata(md: &Dir) -> Result<Metadata, GivenUp> {
    let version = need(md.text("metadata_version"))?;
    if version.starts_with("external:") {
        return Ok(Metadata::External);
    }
    match version.as_str() {
        "none" => Ok(Metadata::None),
        "0.90" => Ok(Metadata::V090),
        "1.0" | "1.1" | "1.2" if is_clustered(md)? => Ok(Metadata::Clustered),
        "1.0" | "1.1" | "1.2" => Ok(Metadata::V1),
        _ => Err(GivenUp::Unreadable),
    }
}

fn is_clustered(md: &Dir) -> Result<bool, GivenUp> {
    match md.dir("bitmap").text("metadata") {
        Observed::Known(text) => Ok(text == "clustered"),
        // No bitmap, no cluster: its locks live in the bitmap.
        Observed::Unknown(UnknownWhy::Vanished) => Ok(false),
        Observed::Unknown(why) => Err(why.into()),
    }
}

/// Newer kernels show the directory `bitmap` only while there is one.
fn bitmap(md: &Dir) -> Observed<Bitmap> {
    match md.dir("bitmap").text("location") {
        Observed::Known(text) if text == "none" => Observed::Known(Bitmap::Absent),
        Observed::Known(_) => Observed::Known(Bitmap::Present),
        Observed::Unknown(UnknownWhy::Vanished) => {
            parsed(&md.text("consistency_policy"), |policy| match policy {
                "bitmap" => Some(Bitmap::Present),
                "resync" | "journal" | "ppl" | "none" => Some(Bitmap::Absent),
                _ => None,
            })
        }
        Observed::Unknown(why) => Observed::Unknown(why),
    }
}

/// `2`, or `2 (3)` while the value changes: what is so, then what will be.
fn first_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.split(' ').next()?.parse().ok()
}

fn kibibytes(text: &str) -> Option<SectorCount> {
    text.parse::<u64>().ok()?.checked_mul(2).map(SectorCount)
}

/// Reads, then writes.
pub(super) fn in_flight(text: &str) -> Option<u64> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
    match (numbers.next()?, numbers.next()?, numbers.next()) {
        (Ok(reads), Ok(writes), None) => reads.checked_add(writes),
        (Ok(_) | Err(_), Ok(_) | Err(_), Some(_) | None) => None,
    }
}

/// `none`, `delayed`, or `SECTORS / SECTORS`.
fn progress(text: &str) -> Option<SyncProgress> {
    let (done, total) = text.split_once('/')?;
    Some(SyncProgress {
        done: SectorCount(done.trim().parse().ok()?),
        total: SectorCount(total.trim().parse().ok()?),
    })
}

fn legs(
    root: &Root,
    md: &Dir,
    array: &DeviceName,
    id: ArrayId,
    namespaces: &Namespaces,
) -> Result<Vec<LegSnapshot>, GivenUp> {
    let entries = need(md.entries())?;
    let mut legs = Vec::new();
    for entry in &entries {
        let Some(name) = entry.strip_prefix("dev-") else {
            continue;
        };
        let device = DeviceName::new(name).map_err(|_| GivenUp::Unreadable)?;
        let dir = md.dir(entry);
        match leg(root, &dir, device, array, id, namespaces) {
            Ok(leg) => legs.push(leg),
            // MD let go of it while it was read.
            Err(GivenUp::NoArray) => {}
            Err(GivenUp::Unreadable) if !dir.exists() => {}
            Err(GivenUp::Unreadable) => return Err(GivenUp::Unreadable),
        }
    }
    Ok(legs)
}

fn leg(
    root: &Root,
    dir: &Dir,
    device: DeviceName,
    array: &DeviceName,
    id: ArrayId,
    namespaces: &Namespaces,
) -> Result<LegSnapshot, GivenUp> {
    // A flag that is not seen would read as one that is not set, so without flags there is no leg.
    let flags = LegFlags::parse(&bound(dir.list_text("state"))?);
    let slot = match bound(dir.text("slot"))?.as_str() {
        "none" | "journal" => None,
        text => Some(Slot(text.parse().map_err(|_| GivenUp::Unreadable)?)),
    };
    let (backing, dev) = backing(dir, array, namespaces);
    if backing == Backing::Unreadable {
        // MD takes the links away before the member: is it bound still?
        bound(dir.list_text("state"))?;
    }
    let md_device = match dev {
        Observed::Known(dev) => Properties::read(root, dev).md_device(id),
        Observed::Unknown(why) => Observed::Unknown(why),
    };
    Ok(LegSnapshot {
        device,
        slot,
        flags,
        md_device,
        data_offset: dir.value("offset").map(SectorCount),
        bad_blocks: dir.list_text("bad_blocks").map(|text| !text.is_empty()),
        backing,
    })
}

/// A member's attribute. When it vanishes, MD has let go of the member.
fn bound(fact: Observed<String>) -> Result<String, GivenUp> {
    match fact {
        Observed::Known(text) => Ok(text),
        Observed::Unknown(UnknownWhy::Vanished) => Err(GivenUp::NoArray),
        Observed::Unknown(why) => Err(why.into()),
    }
}

/// Whether a member's device is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Member {
    /// It is, under this name.
    Held(String),
    Gone,
    Unreadable(UnknownWhy),
}

/// Who the member in `dir` of `array` is now.
///
/// The `block` link leads to whoever has the name now. He is the member only if this array holds
/// him, which he says himself. The array's `slaves` says the same from the other side, made with
/// the member and kept when the device goes: without it the member is being bound or unbound just
/// now, and that is not "gone".
pub(super) fn held_by(dir: &Dir, array: &DeviceName) -> Member {
    let target = match dir.link_target("block") {
        Observed::Known(target) => target,
        Observed::Unknown(why) => return Member::Unreadable(why),
    };
    let Some(name) = target.file_name().and_then(|name| name.to_str()) else {
        return Member::Unreadable(UnknownWhy::Malformed);
    };
    if let Observed::Unknown(why) = dir.dir("../../slaves").link_target(name) {
        return Member::Unreadable(why);
    }
    let block = dir.dir("block");
    match device_names(&block.dir("holders")) {
        Observed::Known(holders) if holders.contains(array) => Member::Held(name.to_owned()),
        Observed::Known(_) => Member::Gone,
        Observed::Unknown(_) if !block.exists() => Member::Gone,
        Observed::Unknown(why) => Member::Unreadable(why),
    }
}

/// What a member stands on, and its device number while it is there.
fn backing(dir: &Dir, array: &DeviceName, namespaces: &Namespaces) -> (Backing, Observed<DevT>) {
    let unreadable = |why| (Backing::Unreadable, Observed::Unknown(why));
    let name = match held_by(dir, array) {
        Member::Held(name) => name,
        Member::Gone => return (Backing::Gone, Observed::Unknown(UnknownWhy::Vanished)),
        Member::Unreadable(why) => return unreadable(why),
    };
    let block = dir.dir("block");
    let dev = block.value("dev");
    if is_partition(&block) {
        return (Backing::Local, dev);
    }
    match namespaces.find(&name) {
        // The list was read a moment ago; it must be the same disk still.
        Found::Remote(namespace) if dev == Observed::Known(namespace.dev) => {
            (Backing::Namespace(Box::new(namespace.clone())), dev)
        }
        Found::Remote(_) | Found::Unseen => unreadable(UnknownWhy::Vanished),
        Found::Local => (Backing::Local, dev),
    }
}

fn is_partition(block: &Dir) -> bool {
    Path::exists(&block.path().join("partition"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_while_they_change() {
        assert_eq!(first_number::<u16>("2"), Some(2));
        assert_eq!(first_number::<u16>("2 (3)"), Some(2));
        assert_eq!(first_number::<u32>("258 (513)"), Some(258));
        assert_eq!(first_number::<u16>(""), None);
        assert_eq!(first_number::<u16>("-1"), None);
        assert_eq!(kibibytes("1046528"), Some(SectorCount(2_093_056)));
        assert_eq!(kibibytes("18446744073709551615"), None);
    }

    #[test]
    fn progress_reads_in_every_form_md_writes() {
        let some = progress("2048 / 2093056").unwrap();
        assert_eq!((some.done.0, some.total.0), (2048, 2_093_056));
        for none in ["none", "delayed", "", "/", "1 /", "a / b"] {
            assert_eq!(progress(none), None, "{none:?}");
        }
    }
}
