//! Reading a device.

use super::*;

#[test]
fn a_blank_device_is_blank_when_both_readers_say_so() {
    let lab = Lab::new(&degraded());
    let answer = lab.examine();
    assert_eq!(answer.outcome, Outcome::AlreadySo);
    assert_eq!(answer.content, Some(Content::Blank));
    let dev = lab.dir.path().join("dev/nvme3n1");
    let blkid = "blkid --probe --info --output export";
    assert_eq!(
        sorted(lab.dir.calls()),
        [
            format!("{blkid} -- {}", dev.display()),
            format!("{blkid} --match-types nolinux_raid_member -- {}", dev.display()),
            format!("helper helper probe {} 259:3", dev.display()),
        ]
    );
}

/// They read at once, so in no order.
fn sorted(mut calls: Vec<String>) -> Vec<String> {
    calls.sort();
    calls
}

#[test]
fn a_member_is_a_member_of_whichever_array() {
    let lab = Lab::new(&degraded());
    let other = heal_types::ArrayId::from_bytes([0x77; 16]);
    lab.reads_member(&superblock_of(other));
    let Some(Content::MdMember(found)) = lab.examine().content else {
        panic!("no member");
    };
    assert_eq!(found.array, other);
    assert!(sorted(lab.dir.calls())[1].contains("--match-types nolinux_raid_member"));
}

#[test]
fn foreign_content_beside_a_superblock_is_foreign() {
    let lab = Lab::new(&degraded());
    let md = "TYPE=linux_raid_member\nUSAGE=raid\n";
    lab.reads(&superblock_of(ARRAY), md, "TYPE=ext4\nUSAGE=filesystem\n");
    let ext4 = ForeignKind::Filesystem("ext4".to_owned());
    assert_eq!(lab.examine().content, Some(Content::Foreign(ext4)));
}

#[test]
fn a_read_that_fails_is_never_blank() {
    let failures = [
        ("helper", "exit 74"),
        ("helper", "exit 1"),
        ("helper", "kill -9 $$"),
        ("blkid", "exit 2"),
        ("blkid", "exit 4"),
        ("blkid", "exit 0"),
    ];
    for (tool, shell) in failures {
        let lab = Lab::new(&degraded());
        lab.dir.tool_does(tool, shell);
        let answer = lab.examine();
        assert_eq!(answer.outcome, Outcome::Unknown(UnknownWhy::ReadFailed), "{tool} {shell}");
        assert_eq!(answer.content, None);
    }
    let lab = Lab::new(&degraded());
    lab.dir.tool_does("helper", "echo '{\"size\":1}'");
    assert_eq!(lab.examine().outcome, Outcome::Unknown(UnknownWhy::Malformed));
    lab.dir.tool_does("helper", "echo other >&2; exit 65");
    assert!(refusal(lab.examine().outcome).contains("other"));
    lab.dir.tool_does("helper", "cat \"$dir/probe.json\"");
    lab.dir.tool_does("blkid", "exit 8");
    let several = ForeignKind::Other("several signatures".to_owned());
    assert_eq!(lab.examine().content, Some(Content::Foreign(several)));
}

#[test]
fn a_device_that_changed_while_it_was_read_was_not_read() {
    let lab = Lab::new(&degraded());
    let mut after = degraded();
    after.namespaces[0].diskseq = Observed::Known(DiskSeq(99));
    let output = format!("echo 'DEVNAME=x'; printf '{}'", LIMITS.replace('\n', "\\n"));
    lab.turns("blkid", &after, &output);
    let answer = lab.examine();
    assert!(refusal(answer.outcome).contains("disk sequence number"));
    assert_eq!(answer.content, None);
}
