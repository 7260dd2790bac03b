//! Acts on one member's `state`.

use super::*;

#[test]
fn a_leg_whose_device_is_gone_is_failed_and_read_back() {
    let now = second_gone(IN_SYNC, Some(1));
    let lab = Lab::new(&now);
    let wanted = leg_ref(&now.arrays[0].legs[1], None);
    lab.turns("helper", &second_gone(FAULTY, Some(1)), "");
    assert_eq!(lab.act(&fail(wanted.clone())), Outcome::Changed);
    assert_eq!(lab.acts(), [format!("helper helper set-attr md127 {ARRAY} nvme2n1 faulty")]);
    assert_eq!(lab.act(&fail(wanted.clone())), Outcome::AlreadySo);
    lab.shows(&degraded());
    assert_eq!(lab.act(&fail(wanted)), Outcome::AlreadySo);
    assert_eq!(lab.acts().len(), 1);
}

#[test]
fn a_leg_whose_device_is_there_is_not_failed_as_gone() {
    let now = whole();
    let lab = Lab::new(&now);
    let wanted = leg_ref(&now.arrays[0].legs[1], Some(2));
    assert!(refusal(lab.act(&fail(wanted.clone()))).contains("is there"));
    let thought_gone = LegRef { identity: None, ..wanted };
    assert!(refusal(lab.act(&fail(thought_gone))).contains("it was gone"));
    assert_eq!(lab.dir.calls(), Vec::<String>::new());
}

#[test]
fn a_copy_too_many_is_failed_only_while_every_other_slot_is_good() {
    let why = FailWhy::NoLongerWanted;
    let now = whole();
    let wanted = leg_ref(&now.arrays[0].legs[1], Some(2));
    let unwanted = HostAction::FailLeg { array: ARRAY, leg: wanted, why };

    let no_good_other = host(array(vec![leg(1, Some(0), SPARE), leg(2, Some(1), IN_SYNC)]));
    let lab = Lab::new(&no_good_other);
    assert!(refusal(lab.act(&unwanted)).contains("slot 0 has no good leg"));
    assert_eq!(lab.dir.calls(), Vec::<String>::new());

    let lab = Lab::new(&now);
    lab.turns("helper", &host(array(vec![leg(1, Some(0), IN_SYNC), leg(2, Some(1), FAULTY)])), "");
    assert_eq!(lab.act(&unwanted), Outcome::Changed);
    assert_eq!(lab.acts(), [format!("helper helper set-attr md127 {ARRAY} nvme2n1 faulty")]);
}

#[test]
fn the_last_leg_that_works_is_never_failed() {
    let mut no_path = second_gone(IN_SYNC, Some(1));
    let Backing::Namespace(other) = &mut no_path.arrays[0].legs[0].backing else {
        panic!("it is a namespace");
    };
    other.paths[0].state = Observed::Known(ControllerState::Resetting);
    let mut resyncing = second_gone(IN_SYNC, Some(1));
    resyncing.arrays[0].sync_action = Observed::Known(SyncAction::Resync);
    let alone = host(array(vec![gone(2, Some(1), IN_SYNC)]));
    let rebuilding = host(array(vec![leg(1, Some(0), SPARE), gone(2, Some(1), IN_SYNC)]));
    let both_gone = host(array(vec![gone(1, Some(0), IN_SYNC), gone(2, Some(1), IN_SYNC)]));
    for now in [no_path, resyncing, alone, rebuilding, both_gone] {
        let lab = Lab::new(&now);
        let second = now.arrays[0].legs.last().unwrap();
        let why = refusal(lab.act(&fail(leg_ref(second, None))));
        assert!(why.starts_with("guard:"), "{why}");
        assert_eq!(lab.dir.calls(), Vec::<String>::new());
    }
}

#[test]
fn in_striped_mirrors_the_other_copy_must_be_in_the_same_set() {
    let four = |layout, third: &[LegFlag]| {
        let mut array = array(vec![
            leg(1, Some(0), IN_SYNC),
            leg(4, Some(1), IN_SYNC),
            leg(3, Some(2), third),
            gone(2, Some(3), IN_SYNC),
        ]);
        array.level = Level::Raid10 { layout };
        array.raid_disks = 4;
        host(array)
    };
    let gone = leg_ref(&gone(2, Some(3), IN_SYNC), None);
    let lab = Lab::new(&four(0x102, IN_SYNC));
    lab.turns("helper", &four(0x102, IN_SYNC), "exit 75");
    assert_eq!(why_again(lab.act(&fail(gone.clone()))), RetryWhy::Busy);
    lab.shows(&four(0x102, FAULTY));
    assert!(refusal(lab.act(&fail(gone.clone()))).contains("hold what slot 3 holds"));
    // Far copies overlap, so every other leg counts.
    lab.shows(&four(0x201, FAULTY));
    assert!(refusal(lab.act(&fail(gone))).contains("3 are needed"));
    assert_eq!(lab.acts().len(), 1);
}

#[test]
fn a_faulty_leg_and_an_idle_spare_are_removed() {
    for (flags, slot) in [(FAULTY, None), (FAULTY, Some(1)), (SPARE, None)] {
        let now = second_gone(flags, slot);
        let lab = Lab::new(&now);
        let wanted = leg_ref(&now.arrays[0].legs[1], None);
        lab.turns("helper", &degraded(), "");
        assert_eq!(lab.act(&remove(wanted.clone())), Outcome::Changed);
        assert_eq!(lab.act(&remove(wanted)), Outcome::AlreadySo);
        assert_eq!(lab.acts(), [format!("helper helper set-attr md127 {ARRAY} nvme2n1 remove")]);
    }
}

#[test]
fn a_leg_in_use_is_not_removed_and_neither_is_another_one_of_its_name() {
    let now = whole();
    let lab = Lab::new(&now);
    let second = &now.arrays[0].legs[1];
    let why = refusal(lab.act(&remove(leg_ref(second, Some(2)))));
    assert!(why.contains("neither faulty nor an idle spare: in_sync"), "{why}");

    let mut faulty = second_gone(FAULTY, None);
    lab.shows(&faulty);
    let stranger = MdDeviceId::from_bytes([9; 16]);
    let wanted = LegRef { md_device: Some(stranger), ..leg_ref(&faulty.arrays[0].legs[1], None) };
    assert!(refusal(lab.act(&remove(wanted))).contains("MD device UUID"));

    let wanted = leg_ref(&faulty.arrays[0].legs[1], None);
    faulty.arrays[0].legs[1].backing = Backing::Unreadable;
    lab.shows(&faulty);
    assert_eq!(lab.act(&remove(wanted)), Outcome::Unknown(UnknownWhy::ReadFailed));
    assert_eq!(lab.dir.calls(), Vec::<String>::new());
}

#[test]
fn busy_and_failed_are_told_apart() {
    let now = second_gone(FAULTY, None);
    let lab = Lab::new(&now);
    let action = remove(leg_ref(&now.arrays[0].legs[1], None));
    lab.dir.tool_does("helper", "exit 75");
    assert_eq!(why_again(lab.act(&action)), RetryWhy::Busy);
    lab.dir.tool_does("helper", "echo 'remove: Input/output error' >&2; exit 74");
    let detail = "remove: Input/output error".to_owned();
    assert_eq!(why_again(lab.act(&action)), RetryWhy::ToolFailed { exit: Some(74), detail });
    // Content with itself, but the kernel shows nothing.
    lab.dir.tool_does("helper", "exit 0");
    let detail = String::new();
    assert_eq!(why_again(lab.act(&action)), RetryWhy::ToolFailed { exit: Some(0), detail });
}

#[test]
fn what_the_kernel_shows_counts_more_than_an_exit_code() {
    let now = second_gone(FAULTY, None);
    let lab = Lab::new(&now);
    lab.turns("helper", &degraded(), "exit 74");
    assert_eq!(lab.act(&remove(leg_ref(&now.arrays[0].legs[1], None))), Outcome::Changed);
}

#[test]
fn a_wish_for_a_replacement_is_taken_back_before_it_is_granted() {
    let wish = &[LegFlag::InSync, LegFlag::WantReplacement];
    let mut now = host(array(vec![leg(1, Some(0), IN_SYNC), leg(2, Some(1), wish)]));
    let lab = Lab::new(&now);
    let wanted = leg_ref(&now.arrays[0].legs[1], Some(2));
    let action = HostAction::ClearWantReplacement { array: ARRAY, leg: wanted };
    lab.turns("helper", &whole(), "");
    assert_eq!(lab.act(&action), Outcome::Changed);
    assert_eq!(lab.act(&action), Outcome::AlreadySo);
    assert_eq!(
        lab.acts(),
        [format!("helper helper set-attr md127 {ARRAY} nvme2n1 clear-want-replacement")]
    );

    now.arrays[0].legs.push(leg(3, Some(1), &[LegFlag::Replacement, LegFlag::Spare]));
    lab.shows(&now);
    assert!(refusal(lab.act(&action)).contains("nvme3n1 takes the place of nvme2n1"));
}
