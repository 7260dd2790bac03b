//! Children that take too long.

use super::arrays::replace;
use super::connect::{MAKE, connect};
use super::*;

#[test]
fn an_act_past_its_deadline_is_read_back_and_tried_again() {
    let now = second_gone(FAULTY, None);
    let mut lab = Lab::new(&now);
    let deadline = Duration::from_millis(300);
    lab.host.runner = lab.host.runner.impatient(deadline, Duration::from_secs(5), |pid| {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    });
    let action = remove(leg_ref(&now.arrays[0].legs[1], None));
    lab.dir.tool_does("helper", "trap '' TERM; sleep 60");
    assert_eq!(why_again(lab.act(&action)), RetryWhy::TimedOut);
    assert_eq!(lab.host.stuck_children(), 0);
    // It hung after the kernel had done it.
    lab.turns("helper", &degraded(), "sleep 60");
    assert_eq!(lab.act(&action), Outcome::Changed);
}

#[test]
fn what_a_killed_mdadm_left_frozen_is_thawed_and_nothing_else() {
    let mut frozen = degraded();
    frozen.arrays[0].sync_action = Observed::Known(SyncAction::Frozen);
    let mut lab = Lab::new(&frozen);
    // Somebody else's: nobody of ours was killed.
    lab.host.look();
    assert_eq!(lab.acts(), Vec::<String>::new());

    lab.shows(&degraded());
    let deadline = Duration::from_millis(300);
    lab.host.runner = lab.host.runner.impatient(deadline, Duration::from_secs(5), |pid| {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    });
    lab.turns("mdadm", &frozen, "sleep 60");
    assert_eq!(why_again(lab.act(&add())), RetryWhy::TimedOut);
    lab.turns("helper", &degraded(), "");
    let seen = lab.host.look();
    assert_eq!(seen.arrays[0].sync_action, Observed::Known(SyncAction::Idle));
    let thaw = format!("helper helper thaw md127 {ARRAY}");
    assert_eq!(lab.acts().last(), Some(&thaw));
    // Once is enough: it may be frozen by others from now on.
    lab.shows(&frozen);
    lab.host.look();
    assert_eq!(lab.acts().last(), Some(&thaw));
    assert_eq!(lab.acts().len(), 2);
}

#[test]
fn nothing_is_begun_behind_a_child_that_hangs() {
    let now = second_gone(FAULTY, None);
    let mut lab = Lab::new(&now);
    let short = Duration::from_millis(100);
    lab.host.runner = lab.host.runner.impatient(short, short, |_| {});
    let action = remove(leg_ref(&now.arrays[0].legs[1], None));
    let hang = r#"while ! [ -e "$dir/release" ]; do sleep 0.05; done"#;
    lab.dir.tool_does("helper", hang);
    assert_eq!(why_again(lab.act(&action)), RetryWhy::Stuck);
    assert_eq!(lab.host.stuck_children(), 1);
    // Every act on that array waits, also through another handle.
    for act in [action.clone(), add(), re_add(), replace()] {
        assert_eq!(why_again(lab.act(&act)), RetryWhy::Stuck);
    }
    assert_eq!(lab.dir.calls().len(), 1);
    // Another subsystem is not held up.
    lab.dir.tool_does("nvme", MAKE);
    assert_eq!(lab.act(&connect(&[4])), Outcome::Changed);
    lab.dir.file("bin/release", "");
    let gone = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        lab.host.stuck_children() == 0
    });
    assert!(gone);
    lab.turns("helper", &degraded(), "");
    lab.host.runner = Runner::new(lab.host_tools());
    assert_eq!(lab.act(&action), Outcome::Changed);
}
