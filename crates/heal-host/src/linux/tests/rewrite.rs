//! Blocks that MD must not read from a leg.

use super::*;

fn with_bad_blocks(bad: Observed<bool>) -> HostSnapshot {
    let second = LegSnapshot { bad_blocks: bad, ..leg(2, Some(1), IN_SYNC) };
    host(array(vec![leg(1, Some(0), IN_SYNC), second]))
}

fn rewrite(now: &HostSnapshot) -> HostAction {
    let leg = leg_ref(&now.arrays[0].legs[1], Some(2));
    HostAction::RewriteBadBlocks { array: ARRAY, leg }
}

#[test]
fn bad_blocks_are_written_again_and_the_list_is_read_back() {
    let now = with_bad_blocks(Observed::Known(true));
    let lab = Lab::new(&now);
    lab.turns("helper", &whole(), "");
    assert_eq!(lab.act(&rewrite(&now)), Outcome::Changed);
    assert_eq!(lab.act(&rewrite(&now)), Outcome::AlreadySo);
    assert_eq!(lab.acts(), [format!("helper helper rewrite-bad-blocks md127 {ARRAY} nvme2n1")]);
}

#[test]
fn a_list_that_is_not_empty_afterwards_is_no_success() {
    let now = with_bad_blocks(Observed::Known(true));
    let lab = Lab::new(&now);
    lab.dir.tool_does("helper", "exit 0");
    assert!(matches!(why_again(lab.act(&rewrite(&now))), RetryWhy::ToolFailed { .. }));
    lab.dir.tool_does("helper", "exit 75");
    assert_eq!(why_again(lab.act(&rewrite(&now))), RetryWhy::Busy);
}

#[test]
fn only_a_whole_and_idle_mirror_is_repaired() {
    let bad = || with_bad_blocks(Observed::Known(true));
    type Change = fn(&mut ArraySnapshot);
    let changes: [(&str, Change); 5] = [
        ("only a mirror", |it| it.level = Level::Raid10 { layout: 0x102 }),
        ("md127 is readonly", |it| it.state = Observed::Known(ArrayState::Readonly)),
        ("slot 0 has no good leg", |it| it.legs[0].flags = LegFlags::of(SPARE)),
        ("slot 0 has no good leg", |it| it.legs[0].backing = Backing::Gone),
        ("nvme2n1 is spare", |it| it.legs[1].flags = LegFlags::of(SPARE)),
    ];
    for (said, change) in changes {
        let mut now = bad();
        change(&mut now.arrays[0]);
        let lab = Lab::new(&now);
        let why = refusal(lab.act(&rewrite(&now)));
        assert!(why.contains(said), "{why}");
        assert_eq!(lab.dir.calls(), Vec::<String>::new());
    }
    let mut busy = bad();
    busy.arrays[0].sync_action = Observed::Known(SyncAction::Check);
    assert_eq!(why_again(Lab::new(&busy).act(&rewrite(&busy))), RetryWhy::Busy);
    let unknown = with_bad_blocks(Observed::Unknown(UnknownWhy::ReadFailed));
    let outcome = Lab::new(&unknown).act(&rewrite(&unknown));
    assert_eq!(outcome, Outcome::Unknown(UnknownWhy::ReadFailed));
}
