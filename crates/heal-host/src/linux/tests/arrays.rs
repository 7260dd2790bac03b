//! Acts by way of `mdadm`.

use heal_types::MdSuperblock;

use super::*;

#[test]
fn a_blank_device_is_added_and_read_back() {
    let lab = Lab::new(&degraded());
    lab.turns("mdadm", &with_third(Some(1), SPARE), "");
    assert_eq!(lab.act(&add()), Outcome::Changed);
    assert_eq!(lab.acts(), ["mdadm --manage /dev/md127 --add-spare /dev/nvme3n1"]);
    assert_eq!(lab.act(&add()), Outcome::AlreadySo);
    assert_eq!(lab.acts().len(), 1);
    lab.shows(&with_third(None, FAULTY));
    assert!(refusal(lab.act(&add())).contains("still bound and faulty"));
}

#[test]
fn a_device_with_our_own_superblock_may_be_added_and_no_other() {
    let lab = Lab::new(&degraded());
    lab.turns("mdadm", &with_third(Some(1), SPARE), "");
    lab.reads_member(&superblock_of(heal_types::ArrayId::from_bytes([0x77; 16])));
    assert!(refusal(lab.act(&add())).contains("a superblock of array 77777777:"));
    lab.reads(BLANK, "TYPE=ext4\nUSAGE=filesystem\n", "");
    assert!(refusal(lab.act(&add())).contains("a file system (ext4)"));
    lab.dir.tool_does("blkid", "exit 2");
    assert_eq!(lab.act(&add()), Outcome::Unknown(UnknownWhy::ReadFailed));
    assert_eq!(lab.acts(), Vec::<String>::new());

    let blkid = r#"case "$*" in *nolinux*) cat "$dir/beside";; *) cat "$dir/all";; esac"#;
    lab.dir.tool_does("blkid", blkid);
    lab.reads_member(&superblock_of(ARRAY));
    assert_eq!(lab.act(&add()), Outcome::Changed);
}

#[test]
fn a_device_that_does_not_fit_is_not_added() {
    type Change = fn(&mut NamespaceSnapshot);
    let changes: [(Change, &str); 7] = [
        (|it| it.holders = Observed::Known(vec![name(8)]), "is held by nvme8n1"),
        (|it| it.holders = Observed::Unknown(UnknownWhy::ReadFailed), "reading it failed"),
        (|it| it.in_use = Observed::Known(true), "is in use"),
        (|it| it.read_only = Observed::Known(true), "read-only"),
        (|it| it.partitions = Observed::Known(2), "partitions: 2"),
        (|it| it.size = Observed::Known(SectorCount(1000)), "its size is 1000 sectors"),
        (|it| it.logical_block = Observed::Known(4096), "its logical block is 4096"),
    ];
    for (change, said) in changes {
        let mut now = degraded();
        change(&mut now.namespaces[0]);
        let lab = Lab::new(&now);
        let why = refusal(lab.act(&add()));
        assert!(why.starts_with("guard:") && why.contains(said), "{why}");
        assert_eq!(lab.dir.calls(), Vec::<String>::new());
    }
}

#[test]
fn an_array_that_does_not_run_gets_no_leg() {
    for state in [ArrayState::Broken, ArrayState::ReadAuto, ArrayState::Inactive] {
        let mut now = degraded();
        now.arrays[0].state = Observed::Known(state);
        let why = refusal(Lab::new(&now).act(&add()));
        assert!(why.contains(&format!("md127 is {state}")), "{why}");
    }
}

#[test]
fn what_mdadm_says_reaches_the_answer() {
    let lab = Lab::new(&degraded());
    lab.dir.tool_does("mdadm", "echo 'mdadm: /dev/x not large enough to join array' >&2; exit 1");
    assert!(refusal(lab.act(&add())).contains("not large enough to join array"));
    lab.dir.tool_does("mdadm", "echo 'mdadm: Cannot open: Device or resource busy' >&2; exit 1");
    assert_eq!(why_again(lab.act(&add())), RetryWhy::Busy);
    lab.dir.tool_does("mdadm", r"printf 'mdadm: odd\n\033thing' >&2; exit 2");
    let detail = "mdadm: odd thing".to_owned();
    assert_eq!(why_again(lab.act(&add())), RetryWhy::ToolFailed { exit: Some(2), detail });
}

#[test]
fn a_returned_leg_is_taken_back_by_bitmap() {
    let lab = Lab::new(&degraded());
    lab.reads_member(&superblock_of(ARRAY));
    lab.turns("helper", &with_third(Some(1), SPARE), "");
    assert_eq!(lab.act(&re_add()), Outcome::Changed);
    assert_eq!(lab.acts(), [given_back(42)]);
    assert_eq!(lab.act(&re_add()), Outcome::AlreadySo);
}

#[test]
fn what_is_bound_still_and_faulty_is_unbound_in_one_with_the_return() {
    let left = leg(3, None, FAULTY);
    let before = host(array(vec![leg(1, Some(0), IN_SYNC), left.clone()]));
    let faulty = Some(leg_ref(&left, Some(3)));
    let back =
        |faulty| HostAction::ReAddLeg { array: ARRAY, device: identity(3), member: None, faulty };
    let lab = Lab::new(&before);
    lab.reads_member(&superblock_of(ARRAY));
    assert!(refusal(lab.act(&back(None))).contains("still bound and faulty"));
    assert_eq!(lab.acts(), Vec::<String>::new());
    lab.turns("helper", &with_third(Some(1), SPARE), "");
    assert_eq!(lab.act(&back(faulty)), Outcome::Changed);
    assert_eq!(lab.acts(), [format!("{} nvme3n1", given_back(42))]);
}

#[test]
fn what_has_no_disk_any_more_is_unbound_while_what_returned_is_read() {
    let left = gone(2, None, FAULTY);
    let lab = Lab::new(&second_gone(FAULTY, None));
    lab.reads_member(&superblock_of(ARRAY));
    lab.turns("helper", &with_third(Some(1), SPARE), "");
    let faulty = Some(leg_ref(&left, None));
    let device = identity(3);
    let back = HostAction::ReAddLeg { array: ARRAY, device, member: None, faulty };
    assert_eq!(lab.act(&back), Outcome::Changed);
    let unbound = format!("helper helper set-attr md127 {ARRAY} nvme2n1 remove-faulty");
    assert_eq!(lab.acts(), [unbound, given_back(42)]);
}

#[test]
fn what_md_does_not_unbind_yet_is_bound_as_before() {
    let left = leg(3, None, FAULTY);
    let lab = Lab::new(&host(array(vec![leg(1, Some(0), IN_SYNC), left.clone()])));
    lab.reads_member(&superblock_of(ARRAY));
    lab.dir.tool_does("helper", &format!("{READING}\necho busy >&2; exit 75"));
    let faulty = Some(leg_ref(&left, Some(3)));
    let device = identity(3);
    let back = HostAction::ReAddLeg { array: ARRAY, device, member: None, faulty };
    assert_eq!(why_again(lab.act(&back)), RetryWhy::Busy);
    let lab = Lab::new(&second_gone(FAULTY, None));
    lab.reads_member(&superblock_of(ARRAY));
    lab.dir.tool_does("helper", &format!("{READING}\necho busy >&2; exit 75"));
    let faulty = Some(leg_ref(&gone(2, None, FAULTY), None));
    let device = identity(3);
    let back = HostAction::ReAddLeg { array: ARRAY, device, member: None, faulty };
    assert_eq!(why_again(lab.act(&back)), RetryWhy::Busy);
    assert_eq!(lab.acts().len(), 1, "it is not given back beside its dead self");
}

#[test]
fn a_leg_that_is_not_faulty_is_not_unbound_for_one_that_returns() {
    let good = leg(2, Some(1), IN_SYNC);
    let lab = Lab::new(&host(array(vec![leg(1, Some(0), IN_SYNC), good.clone()])));
    lab.reads_member(&superblock_of(ARRAY));
    lab.turns("helper", &whole(), "");
    let faulty = Some(leg_ref(&good, Some(2)));
    let device = identity(3);
    lab.act(&HostAction::ReAddLeg { array: ARRAY, device, member: None, faulty });
    assert_eq!(lab.acts(), [given_back(42)]);
}

#[test]
fn a_device_that_is_not_the_member_that_left_is_not_taken_back() {
    let lab = Lab::new(&degraded());
    lab.reads_member(&superblock_of(ARRAY));
    let member = Some(MdDeviceId::from_bytes([0x33; 16]));
    let device = identity(3);
    let back = HostAction::ReAddLeg { array: ARRAY, device, member, faulty: None };
    assert!(refusal(lab.act(&back)).contains("not the leg that left"));
    assert_eq!(lab.acts(), Vec::<String>::new());
}

/// The call that gives the third device back, as the member that its superblock says.
fn given_back(events: u64) -> String {
    let member = MdDeviceId::from_bytes([0x22; 16]);
    format!("helper helper re-add md127 {ARRAY} /dev/nvme3n1 259:3 {member} {events}")
}

#[test]
fn a_superblock_that_is_no_plain_mirrors_is_left_to_mdadm() {
    let lab = Lab::new(&degraded());
    lab.reads_member(&superblock_of(ARRAY));
    lab.dir.tool_does("helper", &format!("{READING}\nexit 69"));
    lab.turns("mdadm", &with_third(Some(1), SPARE), "");
    assert_eq!(lab.act(&re_add()), Outcome::Changed);
    let by_mdadm = "mdadm --manage /dev/md127 --re-add /dev/nvme3n1".to_owned();
    assert_eq!(lab.acts(), [given_back(42), by_mdadm]);
}

/// A helper that reads another superblock on each leg.
const BY_NAME: &str = r#"[ "$2" = superblocks ] || [ "$2" = probe ] || exit 75
    case "$3" in
        *nvme3n1) cat "$dir/candidate.json";;
        *nvme2n1) cat "$dir/filled.json";;
        *) cat "$dir/source.json";;
    esac"#;

/// A superblock of the array, written when only these members held a slot.
pub(super) fn counting(number: u32, active: &[u32], events: u64) -> String {
    reported(member(number, active, events))
}

fn member(number: u32, active: &[u32], events: u64) -> MdSuperblock {
    let found = parse(&written(8, 1), 8).unwrap().unwrap();
    MdSuperblock { number, active: active.to_vec(), events, filling: false, ..found }
}

fn reported(found: MdSuperblock) -> String {
    let report = Report { size: SectorCount(2_097_152), traces: vec![Trace::V1(found)] };
    serde_json::to_string(&report).unwrap()
}

#[test]
fn a_leg_that_went_on_by_itself_is_not_taken_back_whatever_it_counts() {
    let lab = Lab::new(&degraded());
    lab.reads_member("");
    lab.dir.file("bin/source.json", &counting(0, &[0], 50));
    lab.dir.tool_does("helper", BY_NAME);
    for events in [40, 50, 60] {
        lab.dir.file("bin/candidate.json", &counting(1, &[1], events));
        let said = refusal(lab.act(&re_add()));
        assert!(said.contains("newer copy"), "{events}: {said}");
    }
    assert_eq!(lab.acts(), Vec::<String>::new());

    // One that left while the other stayed counts it as a member.
    lab.dir.file("bin/candidate.json", &counting(1, &[0, 1], 40));
    assert_eq!(why_again(lab.act(&re_add())), RetryWhy::Busy);
    assert_eq!(lab.acts(), [given_back(40)]);
}

#[test]
fn a_leg_that_was_being_filled_has_nothing_newer_and_is_not_taken_back_by_bitmap() {
    let lab = Lab::new(&degraded());
    lab.reads_member("");
    lab.dir.file("bin/source.json", &counting(0, &[0, 1], 50));
    lab.dir.tool_does("helper", BY_NAME);
    let filling = MdSuperblock { filling: true, ..member(1, &[0, 1], 60) };
    lab.dir.file("bin/candidate.json", &reported(filling));
    let said = refusal(lab.act(&re_add()));
    assert!(said.contains("was being filled") && !said.contains("newer copy"), "{said}");
    assert_eq!(lab.acts(), Vec::<String>::new());
}

#[test]
fn a_leg_that_nobody_in_sync_remembers_waits_for_one_that_does_and_is_being_filled() {
    let filled = host(array(vec![leg(1, Some(0), IN_SYNC), leg(2, Some(1), SPARE)]));
    let lab = Lab::new(&filled);
    lab.reads_member("");
    lab.dir.tool_does("helper", BY_NAME);
    lab.dir.file("bin/source.json", &counting(3, &[1, 3], 50));
    lab.dir.file("bin/filled.json", &counting(1, &[1, 3], 50));
    lab.dir.file("bin/candidate.json", &counting(0, &[0, 1], 40));
    assert_eq!(why_again(lab.act(&re_add())), RetryWhy::Undecided);
    lab.dir.file("bin/candidate.json", &counting(0, &[0], 40));
    assert!(refusal(lab.act(&re_add())).contains("newer copy"));
    assert_eq!(lab.acts(), Vec::<String>::new());
}

#[test]
fn a_leg_that_nobody_in_reach_remembers_waits_for_one_that_is_in_sync_and_gone() {
    let gone = LegSnapshot { backing: Backing::Gone, ..leg(2, Some(1), IN_SYNC) };
    let lab = Lab::new(&host(array(vec![leg(1, Some(0), IN_SYNC), gone])));
    lab.reads_member("");
    lab.dir.tool_does("helper", BY_NAME);
    lab.dir.file("bin/source.json", &counting(3, &[1, 3], 50));
    lab.dir.file("bin/candidate.json", &counting(0, &[0, 1], 40));
    assert_eq!(why_again(lab.act(&re_add())), RetryWhy::Undecided);
    lab.shows(&degraded());
    assert!(refusal(lab.act(&re_add())).contains("newer copy"));
    assert_eq!(lab.acts(), Vec::<String>::new());
}

#[test]
fn a_re_add_that_md_refuses_is_told_from_one_that_failed() {
    let lab = Lab::new(&degraded());
    assert!(refusal(lab.act(&re_add())).contains("but nothing"));
    lab.reads_member(&superblock_of(heal_types::ArrayId::from_bytes([0x77; 16])));
    assert!(refusal(lab.act(&re_add())).contains("a superblock of array 77777777:"));
    assert_eq!(lab.acts(), Vec::<String>::new());

    lab.reads_member(&superblock_of(ARRAY));
    let refuses = r#"echo "the kernel does not take it" >&2; exit 77"#;
    lab.dir.tool_does("helper", &format!("{READING}\n{refuses}"));
    let detail = "the kernel does not take it".to_owned();
    let refused = Outcome::Refused(RefusedWhy::ReAddNotPossible { detail });
    assert_eq!(lab.act(&re_add()), refused);

    lab.dir.tool_does("helper", &format!("{READING}\nexit 69"));
    let text = "mdadm: --re-add for /dev/nvme3n1 to /dev/md127 is not possible";
    lab.dir.tool_does("mdadm", &format!("echo '{text}' >&2; exit 1"));
    let detail = text.to_owned();
    let refused = Outcome::Refused(RefusedWhy::ReAddNotPossible { detail });
    assert_eq!(lab.act(&re_add()), refused);
    lab.dir.tool_does("mdadm", "echo 'mdadm: Cannot open /dev/md127: No such file' >&2; exit 1");
    assert!(matches!(why_again(lab.act(&re_add())), RetryWhy::ToolFailed { .. }));
}

#[test]
fn a_leg_that_came_back_as_a_spare_only_is_looked_at_again() {
    let lab = Lab::new(&degraded());
    lab.reads_member(&superblock_of(ARRAY));
    lab.turns("helper", &with_third(None, SPARE), "");
    assert_eq!(lab.act(&re_add()), Outcome::Unknown(UnknownWhy::NotFilledYet));
}

pub(super) fn replace() -> HostAction {
    let from = leg_ref(&leg(2, Some(1), IN_SYNC), Some(2));
    HostAction::ReplaceLeg { array: ARRAY, from, to: identity(3) }
}

#[test]
fn a_leg_is_copied_to_a_spare() {
    let three = |second: &[LegFlag], slot, third: &[LegFlag]| {
        let legs = vec![leg(1, Some(0), IN_SYNC), leg(2, Some(1), second), leg(3, slot, third)];
        host(array(legs))
    };
    let wish = &[LegFlag::InSync, LegFlag::WantReplacement];
    let replacement = &[LegFlag::Replacement, LegFlag::Spare];
    let lab = Lab::new(&three(IN_SYNC, None, SPARE));
    lab.turns("mdadm", &three(wish, Some(1), replacement), "");
    assert_eq!(lab.act(&replace()), Outcome::Changed);
    let call = "mdadm --manage /dev/md127 --replace /dev/nvme2n1 --with /dev/nvme3n1";
    assert_eq!(lab.acts(), [call]);
    assert_eq!(lab.act(&replace()), Outcome::AlreadySo);

    // The wish is there, the copy has not begun.
    lab.shows(&three(IN_SYNC, None, SPARE));
    lab.turns("mdadm", &three(wish, None, SPARE), "");
    assert_eq!(lab.act(&replace()), Outcome::Changed);
    // The copy is through and the leg gone.
    lab.shows(&with_third(Some(1), IN_SYNC));
    assert_eq!(lab.act(&replace()), Outcome::AlreadySo);
    assert_eq!(lab.acts().len(), 2);

    lab.shows(&whole());
    assert!(refusal(lab.act(&replace())).contains("is no spare of the array"));
    lab.shows(&three(FAULTY, None, SPARE));
    assert!(refusal(lab.act(&replace())).contains("nvme2n1 is faulty"));
}

#[test]
fn a_mirror_gets_another_number_of_slots() {
    let resize = |raid_disks| HostAction::SetRaidDisks { array: ARRAY, raid_disks };
    let mut now = whole();
    let lab = Lab::new(&now);
    assert_eq!(lab.act(&resize(2)), Outcome::AlreadySo);
    assert!(refusal(lab.act(&resize(1))).contains("1 slots for 2 legs"));

    let mut after = whole();
    after.arrays[0].raid_disks = 3;
    lab.turns("mdadm", &after, "");
    assert_eq!(lab.act(&resize(3)), Outcome::Changed);
    assert_eq!(lab.acts(), ["mdadm --grow /dev/md127 --raid-devices=3"]);

    now.arrays[0].degraded = Observed::Known(1);
    lab.shows(&now);
    assert!(refusal(lab.act(&resize(3))).contains("slots without a leg: 1"));
    now.arrays[0].sync_action = Observed::Known(SyncAction::Check);
    lab.shows(&now);
    assert_eq!(why_again(lab.act(&resize(3))), RetryWhy::Busy);
    now.arrays[0].level = Level::Raid10 { layout: 0x102 };
    lab.shows(&now);
    assert!(refusal(lab.act(&resize(3))).contains("only a mirror"));
    assert_eq!(lab.acts().len(), 1);
}
