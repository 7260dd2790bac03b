//! The host's contract, on the host that exists only in memory.

use heal_sim::contract::{CASES, FakeRig, Play};

#[test]
fn the_host_in_memory_keeps_every_promise_of_the_contract() {
    let mut broken = Vec::new();
    let mut rig = FakeRig::new();
    for case in CASES {
        if let Err(why) = (case.run)(&mut Play::new(&mut rig)) {
            broken.push(format!("{}: {why}", case.name));
            rig = FakeRig::new();
        } else if !case.leaves_no_trace {
            rig = FakeRig::new();
        }
    }
    assert!(broken.is_empty(), "{} of {}: {broken:#?}", broken.len(), CASES.len());
    assert!(CASES.len() > 15);
}
