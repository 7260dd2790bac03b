//! Two witnesses, one answer: what our own reader and `blkid` found, put together.
//!
//! | superblocks | `blkid` | `blkid` blind to MD | answer |
//! |---|---|---|---|
//! | none | nothing | | `Blank` |
//! | none | anything | | `Foreign` |
//! | one v1 | MD | nothing | `MdMember` |
//! | one v1 | MD | anything | `Foreign`, unless the array's data begins at sector 0 |
//! | one v1 | not MD | | `Foreign` |
//! | 0.90, damaged, or several | any | | `Foreign` |
//!
//! A version-1.0 array's data begins at sector 0 of its legs, so what stands there is the array's
//! own content and says nothing against the leg.

use std::collections::BTreeMap;

use heal_types::{Content, ForeignKind, MdSuperblock, SectorCount};

use crate::superblock::Trace;

/// What `blkid` calls a member of an MD array.
const MD_MEMBER: &str = "linux_raid_member";

/// The longest name taken over from `blkid`.
const NAME: usize = 64;

/// What `blkid` says of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Signatures {
    /// `USAGE` and `TYPE`: at most one file system, layer, or other signature is named.
    kind: Option<(String, String)>,
    /// `PTTYPE`.
    table: Option<String>,
    /// Several signatures that exclude each other.
    ambivalent: bool,
}

impl Signatures {
    /// The answer when `blkid` refuses to choose.
    pub(super) fn ambivalent() -> Self {
        Self { ambivalent: true, ..Self::default() }
    }

    /// Reads `blkid --probe --info --output export`. `None` when the device's I/O limits are
    /// missing, which it prints for every device it could open.
    pub(crate) fn parse(output: &str) -> Option<Self> {
        let fields: BTreeMap<&str, &str> =
            output.lines().filter_map(|line| line.split_once('=')).collect();
        fields.get("LOGICAL_SECTOR_SIZE")?;
        let named = |key: &str| fields.get(key).map(|value| printable(value));
        let usage = named("USAGE");
        let kind = match (usage, named("TYPE")) {
            (None, None) => None,
            (usage, kind) => {
                let unknown = || "unknown".to_owned();
                Some((usage.unwrap_or_else(unknown), kind.unwrap_or_else(unknown)))
            }
        };
        Some(Self { kind, table: named("PTTYPE"), ambivalent: false })
    }

    /// Whether it names MD, so that anything else on the device is still to be asked for.
    pub(super) fn names_md(&self) -> bool {
        matches!(&self.kind, Some((_, kind)) if kind == MD_MEMBER)
    }

    fn foreign(&self) -> Option<ForeignKind> {
        if self.ambivalent {
            return Some(ForeignKind::Other("several signatures".to_owned()));
        }
        if let Some(table) = &self.table {
            return Some(match &self.kind {
                Some((_, kind)) if kind != MD_MEMBER => {
                    ForeignKind::Other(format!("{table} partition table and {kind}"))
                }
                Some(_) | None => ForeignKind::PartitionTable(table.clone()),
            });
        }
        let (usage, kind) = self.kind.as_ref()?;
        let kind = kind.clone();
        Some(match usage.as_str() {
            "filesystem" => ForeignKind::Filesystem(kind),
            "raid" | "crypto" => ForeignKind::Layer(kind),
            "other" if kind == "swap" => ForeignKind::Filesystem(kind),
            _ => ForeignKind::Other(kind),
        })
    }
}

/// Puts the witnesses together. `beside_md` is `blkid` blind to MD, asked when it named MD.
pub(crate) fn merge(traces: &[Trace], all: &Signatures, beside_md: Option<&Signatures>) -> Content {
    match traces {
        [] => match all.foreign() {
            None => Content::Blank,
            Some(foreign) => Content::Foreign(foreign),
        },
        [Trace::V1(superblock)] => member(superblock, all, beside_md),
        [Trace::V090] => layer("md 0.90".to_owned()),
        [Trace::Damaged(why)] => layer(format!("md superblock {why}")),
        [_, _, ..] => layer("several md superblocks".to_owned()),
    }
}

/// A member, and what `blkid` blind to MD found next to its superblock.
pub(super) fn beside(superblock: &MdSuperblock, beside_md: &Signatures) -> Content {
    // Here the array's own content begins where a device's does, also for `blkid`.
    let is_own = superblock.data_offset == SectorCount(0);
    match beside_md.foreign() {
        Some(foreign) if !is_own => Content::Foreign(foreign),
        Some(_) | None => Content::MdMember(superblock.clone()),
    }
}

fn member(superblock: &MdSuperblock, all: &Signatures, beside_md: Option<&Signatures>) -> Content {
    if superblock.data_offset == SectorCount(0) {
        return Content::MdMember(superblock.clone());
    }
    match beside_md {
        Some(beside_md) if all.names_md() => match all.table_only() {
            Some(table) => Content::Foreign(table),
            None => beside(superblock, beside_md),
        },
        Some(_) | None => Content::Foreign(all.foreign().unwrap_or_else(|| {
            ForeignKind::Other("md superblock that only one of two readers finds".to_owned())
        })),
    }
}

impl Signatures {
    /// A partition table next to MD.
    fn table_only(&self) -> Option<ForeignKind> {
        self.table.clone().map(ForeignKind::PartitionTable)
    }
}

fn layer(name: String) -> Content {
    Content::Foreign(ForeignKind::Layer(name))
}

fn printable(value: &str) -> String {
    let printable = value.chars().filter(|c| !c.is_control());
    printable.take(NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::{DamageWhy, parse, tests::written};

    const LIMITS: &str = "MINIMUM_IO_SIZE=512\nPHYSICAL_SECTOR_SIZE=512\nLOGICAL_SECTOR_SIZE=512\n";

    fn blkid(fields: &str) -> Signatures {
        let output = format!("DEVNAME=/dev/nvme1n1\n{fields}{LIMITS}");
        Signatures::parse(&output).unwrap()
    }

    fn superblock() -> MdSuperblock {
        parse(&written(8, 1), 8).unwrap().unwrap()
    }

    fn kind_of(content: Content) -> String {
        match content {
            Content::Blank => "blank".to_owned(),
            Content::MdMember(_) => "member".to_owned(),
            Content::Foreign(kind) => kind.to_string(),
        }
    }

    #[test]
    fn silence_is_not_blank() {
        assert_eq!(Signatures::parse(""), None);
        assert_eq!(Signatures::parse("DEVNAME=/dev/nvme1n1\nTYPE=ext4\n"), None);
        assert_eq!(merge(&[], &blkid(""), None), Content::Blank);
    }

    #[test]
    fn every_kind_of_foreign_content_is_named() {
        for (fields, named) in [
            ("TYPE=ext4\nUSAGE=filesystem\n", "a file system (ext4)"),
            ("TYPE=swap\nUSAGE=other\n", "a file system (swap)"),
            ("PTTYPE=gpt\n", "a partition table (gpt)"),
            ("TYPE=LVM2_member\nUSAGE=raid\n", "a member of another storage layer (LVM2_member)"),
            ("TYPE=crypto_LUKS\nUSAGE=crypto\n", "a member of another storage layer (crypto_LUKS)"),
            ("TYPE=bcache\nUSAGE=other\n", "an unexpected signature (bcache)"),
            (
                "TYPE=ext4\nUSAGE=filesystem\nPTTYPE=dos\n",
                "an unexpected signature (dos partition table and ext4)",
            ),
            ("USAGE=filesystem\n", "a file system (unknown)"),
            // blkid names MD where our reader finds no superblock.
            (
                "TYPE=linux_raid_member\nUSAGE=raid\n",
                "a member of another storage layer (linux_raid_member)",
            ),
        ] {
            assert_eq!(kind_of(merge(&[], &blkid(fields), None)), named, "{fields}");
        }
        assert_eq!(
            kind_of(merge(&[], &Signatures::ambivalent(), None)),
            "an unexpected signature (several signatures)"
        );
    }

    #[test]
    fn a_leg_is_a_leg_only_when_nothing_else_is_on_it() {
        let v1 = [Trace::V1(superblock())];
        let md = blkid("TYPE=linux_raid_member\nUSAGE=raid\n");
        let nothing = blkid("");
        let ext4 = blkid("TYPE=ext4\nUSAGE=filesystem\n");
        assert_eq!(merge(&v1, &md, Some(&nothing)), Content::MdMember(superblock()));
        assert_eq!(kind_of(merge(&v1, &md, Some(&ext4))), "a file system (ext4)");
        assert_eq!(kind_of(merge(&v1, &ext4, None)), "a file system (ext4)");
        let unseen = "an unexpected signature (md superblock that only one of two readers finds)";
        assert_eq!(kind_of(merge(&v1, &nothing, None)), unseen);
        assert_eq!(
            kind_of(merge(&v1, &md, None)),
            "a member of another storage layer (linux_raid_member)"
        );

        let md_and_table = blkid("TYPE=linux_raid_member\nUSAGE=raid\nPTTYPE=gpt\n");
        let second = merge(&v1, &md_and_table, Some(&nothing));
        assert_eq!(kind_of(second), "a partition table (gpt)");
    }

    #[test]
    fn of_a_member_that_returns_only_what_stands_beside_md_is_asked() {
        let member = superblock();
        assert_eq!(beside(&member, &blkid("")), Content::MdMember(member.clone()));
        let ext4 = blkid("TYPE=ext4\nUSAGE=filesystem\n");
        assert_eq!(kind_of(beside(&member, &ext4)), "a file system (ext4)");
        assert_eq!(kind_of(beside(&member, &blkid("PTTYPE=gpt\n"))), "a partition table (gpt)");
        let several = kind_of(beside(&member, &Signatures::ambivalent()));
        assert_eq!(several, "an unexpected signature (several signatures)");
    }

    #[test]
    fn the_content_of_an_array_that_begins_at_its_legs_start_is_not_foreign() {
        let at_start = MdSuperblock { data_offset: SectorCount(0), ..superblock() };
        let ext4 = blkid("TYPE=ext4\nUSAGE=filesystem\n");
        let found = merge(&[Trace::V1(at_start.clone())], &ext4, Some(&ext4));
        assert_eq!(found, Content::MdMember(at_start.clone()));
        assert_eq!(beside(&at_start, &ext4), Content::MdMember(at_start));
    }

    #[test]
    fn what_md_itself_would_not_take_is_foreign() {
        let md = blkid("TYPE=linux_raid_member\nUSAGE=raid\n");
        let none = blkid("");
        for traces in [
            vec![Trace::V090],
            vec![Trace::Damaged(DamageWhy::Checksum)],
            vec![Trace::V1(superblock()), Trace::V1(superblock())],
            vec![Trace::V1(superblock()), Trace::V090],
        ] {
            let content = merge(&traces, &md, Some(&none));
            assert!(matches!(content, Content::Foreign(ForeignKind::Layer(_))), "{traces:?}");
        }
    }
}
