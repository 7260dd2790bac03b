use heal_types::{ArraySnapshot, DevT, DeviceName};

use super::super::tests::{ARMED, OFF, array_id, host, mirror, on, path, simple, told, wards};
use super::*;

/// A mirror behind `nvme0` and `nvme1`; the second leg is armed.
fn at_rest() -> HostSnapshot {
    host(vec![mirror(1, vec![simple(0, 0, OFF), simple(1, 1, ARMED)])])
}

fn second(array: &ArraySnapshot) -> NamespaceSnapshot {
    array.legs[1].backing.namespace().unwrap().clone()
}

/// The array, and that it lost its second leg.
fn lost_the_second() -> BTreeMap<ArrayId, Vec<LostLeg>> {
    let second = second(&at_rest().arrays[0]);
    let namespace = second.ids.known().unwrap().iter().next().copied().unwrap();
    let lost = LostLeg { nqn: second.nqn.known().unwrap().clone(), namespace };
    BTreeMap::from([(array_id(1), vec![lost])])
}

fn lost_nothing() -> BTreeMap<ArrayId, Vec<LostLeg>> {
    BTreeMap::from([(array_id(1), Vec::new())])
}

/// As it is known once the legs of [`at_rest`] were seen.
fn known() -> Armed {
    let mut armed = Armed::default();
    armed.inherit(&at_rest(), &lost_nothing());
    armed
}

fn at(ms: u64) -> Moment {
    Moment::default().after(Duration::from_millis(ms))
}

/// The second leg is unbound, and stands beside its array.
fn beside() -> HostSnapshot {
    let mut host = at_rest();
    host.arrays[0].legs.remove(1);
    host
}

/// The second leg's namespace is gone; its controller is there.
fn gone() -> HostSnapshot {
    let mut host = beside();
    host.namespaces.remove(1);
    host
}

#[test]
fn an_array_that_is_let_go_of_is_disarmed() {
    let host = at_rest();
    let armed = known();
    assert_eq!(told(&armed.released(&host, &wards(&host))), [""; 0]);
    let let_go = armed.released(&host, &BTreeMap::new());
    assert_eq!(told(&let_go), ["nvme1=off"]);
    assert_eq!(let_go[0].why, ArmWhy::Unwatched);
    let mut another = host.clone();
    on(&mut another, "nvme1", |it| it.portal = path(9, OFF).portal);
    assert_eq!(told(&armed.released(&another, &BTreeMap::new())), [""; 0], "its successor");
}

#[test]
fn what_was_armed_is_released_when_a_stranger_comes_behind_it_or_its_leg_goes() {
    let wards = wards(&at_rest());
    let armed = known();
    let why = |host: &HostSnapshot| {
        armed.released(host, &wards).iter().map(|step| step.why).collect::<Vec<_>>()
    };
    assert_eq!(why(&at_rest()), []);
    let mut shared = at_rest();
    let mut stranger = second(&shared.arrays[0]);
    stranger.device = DeviceName::new("nvme1n2").unwrap();
    stranger.dev = DevT { major: 259, minor: 77 };
    shared.namespaces.push(stranger);
    assert_eq!(why(&shared), [ArmWhy::Stranger], "its I/O must not fail");
    assert_eq!(why(&beside()), [ArmWhy::Astray], "it is no leg any more");
    assert_eq!(why(&gone()), [ArmWhy::Astray], "its controller outlives it");
    let mut nothing = gone();
    nothing.controllers.remove(1);
    assert_eq!(why(&nothing), [], "nothing is left to set back");
}

#[test]
fn only_what_leads_to_no_leg_of_its_array_for_a_second_is_set_back() {
    let wards = wards(&at_rest());
    let mut armed = known();
    let mut due = |ms: u64, host: &HostSnapshot| {
        let is_time = armed.is_time(at(ms));
        let due = armed.due(at(ms), host, &wards).len();
        let next = armed.next_deadline().map(|next| next.since(at(ms)).as_millis());
        (is_time, due, next)
    };
    assert_eq!(due(0, &beside()), (false, 0, Some(1000)));
    assert_eq!(due(40, &at_rest()), (false, 0, None), "MD has it again");
    assert_eq!(due(900, &gone()), (false, 0, Some(1000)), "counted anew");
    assert_eq!(due(1899, &beside()), (false, 0, Some(1)));
    assert_eq!(due(1900, &beside()), (true, 1, None));
    assert_eq!(due(2000, &beside()), (false, 1, None), "nobody waits again for a write");
    let unwatched = known().due(at(0), &at_rest(), &BTreeMap::new());
    assert_eq!(unwatched.len(), 1, "that is not put off");
}

#[test]
fn what_an_earlier_life_armed_is_known_by_the_leg_that_was_lost() {
    let wards = wards(&at_rest());
    let released = |host: &HostSnapshot, healed: &BTreeMap<_, _>| {
        let mut armed = Armed::default();
        armed.inherit(host, healed);
        told(&armed.released(host, &wards))
    };
    for host in [beside(), gone()] {
        assert_eq!(released(&host, &lost_the_second()), ["nvme1=off"]);
        assert_eq!(released(&host, &lost_nothing()), [""; 0], "nobody knows who armed that");
        assert_eq!(released(&host, &BTreeMap::new()), [""; 0], "the array is not ours");
    }
    let mut shared = beside();
    let mut stranger = second(&at_rest().arrays[0]);
    stranger.device = DeviceName::new("nvme1n2").unwrap();
    stranger.ids = simple(2, 2, OFF).backing.namespace().unwrap().ids.clone();
    shared.namespaces.push(stranger);
    assert_eq!(released(&shared, &lost_the_second()), [""; 0], "a stranger may have armed it");
}

#[test]
fn what_is_gone_is_forgotten_and_what_could_not_be_read_is_not() {
    let mut armed = known();
    armed.inherit(&HostSnapshot::default(), &lost_nothing());
    assert_eq!(armed.released(&beside(), &wards(&at_rest())).len(), 1);
    let mut without = gone();
    without.controllers.remove(1);
    armed.inherit(&without, &lost_nothing());
    assert_eq!(armed.released(&beside(), &wards(&at_rest())).len(), 0);
}

#[test]
fn what_is_written_is_remembered() {
    let host = at_rest();
    let mut armed = Armed::default();
    let mut step = known().released(&host, &BTreeMap::new()).remove(0);
    step.want = ARMED;
    armed.wrote(&step);
    assert_eq!(armed.released(&host, &BTreeMap::new()).len(), 1);
    step.want = OFF;
    armed.wrote(&step);
    assert_eq!(armed.released(&host, &BTreeMap::new()).len(), 0);
}
