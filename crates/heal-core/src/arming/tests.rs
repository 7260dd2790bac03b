use heal_types::{
    ArrayState, Bitmap, ControllerSnapshot, DevT, DeviceName, DiskSeq, LegFlags, Level, Metadata,
    NamespaceId, NamespaceIds, Nqn, PathDoubt, PathHealth, Portal, SectorCount, TransportAddress,
    TransportKind, UnknownWhy,
};

use super::*;

pub(crate) const WARD: Ward = Ward { fast_io_fail: 1, isolate_after: Duration::ZERO };
pub(crate) const ARMED: FastIoFail = FastIoFail::After(1);
pub(crate) const OFF: FastIoFail = FastIoFail::Off;
const SUSPECT: PathHealth = PathHealth::Suspect(PathDoubt::LinkDown);
pub(crate) const DEAD: PathHealth = PathHealth::Dead(PathDoubt::LinkDown);

pub(crate) fn array_id(n: u8) -> ArrayId {
    ArrayId::from_bytes([n; 16])
}

fn unknown<T>() -> Observed<T> {
    Observed::Unknown(UnknownWhy::ReadFailed)
}

pub(crate) fn path(controller: u16, shows: FastIoFail) -> PathSnapshot {
    PathSnapshot {
        controller: ControllerName::new(format!("nvme{controller}")).unwrap(),
        state: Observed::Known(ControllerState::Live),
        portal: Observed::Known(Portal {
            transport: TransportKind::Tcp,
            address: TransportAddress::new(format!("10.0.{controller}.2")).unwrap(),
            port: 4420,
            host_address: None,
            host_interface: None,
        }),
        ana_usable: Observed::Known(true),
        health: PathHealth::Up,
        fast_io_fail: Observed::Known(shows),
        params: unknown(),
    }
}

pub(crate) fn namespace(n: u16, subsystem: u16, paths: Vec<PathSnapshot>) -> NamespaceSnapshot {
    NamespaceSnapshot {
        device: DeviceName::new(format!("nvme{subsystem}n{n}")).unwrap(),
        dev: DevT { major: 259, minor: u32::from(n) },
        diskseq: Observed::Known(DiskSeq(u64::from(n))),
        ids: Observed::Known(NamespaceIds::new(vec![NamespaceId::Eui(
            (u64::from(n) + 1).to_be_bytes(),
        )])),
        nqn: Observed::Known(Nqn::new(format!("nqn.2014-08.test:{subsystem}")).unwrap()),
        size: Observed::Known(SectorCount(1000)),
        logical_block: Observed::Known(512),
        read_only: Observed::Known(false),
        holders: Observed::Known(Vec::new()),
        in_use: Observed::Known(false),
        partitions: Observed::Known(0),
        paths,
    }
}

pub(crate) fn leg(slot: u16, backing: Backing) -> LegSnapshot {
    LegSnapshot {
        device: DeviceName::new(format!("leg{slot}")).unwrap(),
        slot: Some(Slot(slot)),
        flags: LegFlags::of(&[LegFlag::InSync]),
        md_device: unknown(),
        data_offset: Observed::Known(SectorCount(0)),
        bad_blocks: Observed::Known(false),
        backing,
    }
}

/// A leg of its own subsystem, behind one controller of the same number.
pub(crate) fn simple(slot: u16, controller: u16, shows: FastIoFail) -> LegSnapshot {
    let namespace = namespace(controller, controller, vec![path(controller, shows)]);
    leg(slot, Backing::Namespace(Box::new(namespace)))
}

pub(crate) fn mirror(n: u8, legs: Vec<LegSnapshot>) -> ArraySnapshot {
    ArraySnapshot {
        id: array_id(n),
        device: DeviceName::new(format!("md{n}")).unwrap(),
        dev: DevT { major: 9, minor: u32::from(n) },
        alias: None,
        level: Level::Raid1,
        metadata: Metadata::V1,
        state: Observed::Known(ArrayState::Clean),
        raid_disks: u16::try_from(legs.len()).unwrap(),
        degraded: Observed::Known(0),
        sync_action: Observed::Known(SyncAction::Idle),
        sync_progress: None,
        reshaping: false,
        component_size: Observed::Known(SectorCount(1000)),
        logical_block: Observed::Known(512),
        bitmap: Observed::Known(Bitmap::Present),
        in_flight: Observed::Known(0),
        legs,
    }
}

pub(crate) fn host(arrays: Vec<ArraySnapshot>) -> HostSnapshot {
    let legs = arrays.iter().flat_map(|array| &array.legs);
    let mut namespaces: Vec<_> = legs.filter_map(|leg| leg.backing.namespace().cloned()).collect();
    namespaces.dedup_by_key(|namespace| namespace.dev);
    let controllers = controllers(&namespaces);
    HostSnapshot { arrays, namespaces, controllers, ..HostSnapshot::default() }
}

fn controllers(namespaces: &[NamespaceSnapshot]) -> Vec<ControllerSnapshot> {
    let each = |namespace: &NamespaceSnapshot| {
        let nqn = namespace.nqn.clone();
        let of = move |path: &PathSnapshot| ControllerSnapshot {
            name: path.controller.clone(),
            nqn: nqn.clone(),
            portal: path.portal.clone(),
            fast_io_fail: path.fast_io_fail,
        };
        namespace.paths.iter().map(of).collect::<Vec<_>>()
    };
    namespaces.iter().flat_map(each).collect()
}

pub(crate) fn wards(snapshot: &HostSnapshot) -> BTreeMap<ArrayId, Ward> {
    snapshot.arrays.iter().map(|array| (array.id, WARD)).collect()
}

fn every_path(snapshot: &mut HostSnapshot) -> impl Iterator<Item = &mut PathSnapshot> {
    let legs = snapshot.arrays.iter_mut().flat_map(|array| &mut array.legs);
    let backings = legs.filter_map(|leg| leg.backing.namespace_mut());
    backings.chain(&mut snapshot.namespaces).flat_map(|namespace| &mut namespace.paths)
}

pub(crate) fn on(
    snapshot: &mut HostSnapshot,
    controller: &str,
    change: impl Fn(&mut PathSnapshot),
) {
    every_path(snapshot).filter(|path| path.controller.as_str() == controller).for_each(change);
    snapshot.controllers = controllers(&snapshot.namespaces);
}

fn apply(snapshot: &mut HostSnapshot, arming: &Arming) {
    on(snapshot, arming.controller.name.as_str(), |path| {
        path.fast_io_fail = Observed::Known(arming.want);
    });
}

/// The plan as `nvme0=1`, `nvme1=off`.
pub(crate) fn told(plan: &[Arming]) -> Vec<String> {
    let value = |want| match want {
        FastIoFail::Off => "off".to_owned(),
        FastIoFail::After(seconds) => seconds.to_string(),
    };
    plan.iter().map(|arming| format!("{}={}", arming.controller.name, value(arming.want))).collect()
}

fn planned(snapshot: &HostSnapshot) -> Vec<String> {
    told(&plan(snapshot, &wards(snapshot)))
}

fn carry_out(snapshot: &mut HostSnapshot) {
    for arming in plan(snapshot, &wards(snapshot)) {
        apply(snapshot, &arming);
    }
}

#[test]
fn the_leg_in_the_lowest_slot_queues_and_the_other_fails_fast() {
    let mut host = host(vec![mirror(1, vec![simple(0, 0, OFF), simple(1, 1, OFF)])]);
    let plan = plan(&host, &wards(&host));
    assert_eq!(told(&plan), ["nvme1=1"]);
    assert_eq!(plan[0].why, ArmWhy::AnchorQueues { anchor: Slot(0) });
    carry_out(&mut host);
    assert_eq!(planned(&host), [""; 0], "and that is all");
}

#[test]
fn when_the_anchor_is_in_doubt_the_other_leg_is_off_one_look_before_it_is_armed() {
    let mut host = host(vec![mirror(1, vec![simple(0, 0, OFF), simple(1, 1, ARMED)])]);
    on(&mut host, "nvme0", |path| path.health = SUSPECT);
    assert_eq!(planned(&host), ["nvme1=off"]);
    carry_out(&mut host);
    assert_eq!(planned(&host), ["nvme0=1"]);
    carry_out(&mut host);
    on(&mut host, "nvme0", |path| path.health = PathHealth::Up);
    assert_eq!(planned(&host), ["nvme0=off"], "and back the same way");
    carry_out(&mut host);
    assert_eq!(planned(&host), ["nvme1=1"]);
}

#[test]
fn with_both_legs_in_doubt_nothing_may_fail() {
    let mut host = host(vec![mirror(1, vec![simple(0, 0, OFF), simple(1, 1, ARMED)])]);
    on(&mut host, "nvme0", |path| path.health = SUSPECT);
    on(&mut host, "nvme1", |path| path.health = DEAD);
    let plan = plan(&host, &wards(&host));
    assert_eq!(told(&plan), ["nvme1=off"]);
    assert_eq!(plan[0].why, ArmWhy::NoGoodLeg);
}

#[test]
fn what_an_isolation_has_set_stays_until_the_leg_is_good_again() {
    let zero = FastIoFail::After(0);
    let mut host = host(vec![mirror(1, vec![simple(0, 0, zero), simple(1, 1, OFF)])]);
    on(&mut host, "nvme0", |path| {
        path.health = DEAD;
        path.state = Observed::Known(ControllerState::Resetting);
        path.ana_usable = unknown();
    });
    assert_eq!(planned(&host), [""; 0]);
    let mut second = host.clone();
    on(&mut second, "nvme1", |path| path.health = SUSPECT);
    assert_eq!(planned(&second), ["nvme0=off"], "unless the survivor is in doubt too");
}

#[test]
fn the_last_leg_in_sync_queues() {
    let mut host = host(vec![mirror(1, vec![simple(0, 0, ARMED), simple(1, 1, ARMED)])]);
    host.arrays[0].legs[1].flags = LegFlags::of(&[LegFlag::Faulty]);
    assert_eq!(planned(&host), ["nvme0=off"]);
    carry_out(&mut host);
    host.arrays[0].legs[1].flags = LegFlags::of(&[LegFlag::Spare]);
    on(&mut host, "nvme1", |path| path.fast_io_fail = Observed::Known(OFF));
    assert_eq!(planned(&host), ["nvme1=1"], "a leg that is being filled costs nothing");
}

#[test]
fn legs_that_are_all_armed_are_all_disarmed_before_anything_else() {
    let mut host = host(vec![mirror(1, vec![simple(0, 0, ARMED), simple(1, 1, ARMED)])]);
    let plan = plan(&host, &wards(&host));
    assert_eq!(told(&plan), ["nvme0=off", "nvme1=off"]);
    assert_eq!(plan[0].why, ArmWhy::Anchor, "the one that is to stay so comes first");
    carry_out(&mut host);
    assert_eq!(planned(&host), ["nvme1=1"]);
}

#[test]
fn a_third_leg_stays_armed_while_the_anchor_moves() {
    let legs = vec![simple(0, 0, OFF), simple(1, 1, ARMED), simple(2, 2, ARMED)];
    let mut host = host(vec![mirror(1, legs)]);
    assert_eq!(planned(&host), [""; 0]);
    on(&mut host, "nvme0", |path| path.health = SUSPECT);
    assert_eq!(planned(&host), ["nvme1=off"]);
    carry_out(&mut host);
    assert_eq!(planned(&host), ["nvme0=1"]);
}

#[test]
fn a_controller_is_armed_for_one_array_only_once_the_anchor_of_the_other_is_proven() {
    let legs = vec![simple(0, 0, ARMED), simple(1, 1, OFF), simple(2, 2, OFF)];
    let behind = namespace(52, 2, vec![path(2, OFF)]);
    let second = mirror(2, vec![simple(0, 3, OFF), leg(1, Backing::Namespace(Box::new(behind)))]);
    let mut host = host(vec![mirror(1, legs), second]);
    assert_eq!(planned(&host), ["nvme0=off"]);
    on(&mut host, "nvme2", |path| path.fast_io_fail = Observed::Known(ARMED));
    assert_eq!(planned(&host), ["nvme0=off"], "what is armed stays so");
    carry_out(&mut host);
    assert_eq!(planned(&host), ["nvme1=1"]);
}

#[test]
fn every_mirror_set_of_a_raid10_has_an_anchor_of_its_own() {
    let legs = (0..4).map(|n| simple(n, n, OFF)).collect();
    let mut array = mirror(1, legs);
    array.level = Level::Raid10 { layout: 0x102 };
    let mut host = host(vec![array]);
    assert_eq!(planned(&host), ["nvme1=1", "nvme3=1"]);
    carry_out(&mut host);
    on(&mut host, "nvme2", |path| path.health = DEAD);
    assert_eq!(planned(&host), ["nvme3=off"]);
    host.arrays[0].level = Level::Raid10 { layout: 0x201 };
    assert_eq!(planned(&host), ["nvme1=off", "nvme3=off"], "far copies overlap");
}

#[test]
fn an_array_that_must_not_lose_a_leg_is_off_everywhere() {
    let at_rest = host(vec![mirror(1, vec![simple(0, 0, OFF), simple(1, 1, ARMED)])]);
    for state in [ArrayState::Broken, ArrayState::Readonly, ArrayState::Inactive] {
        let mut host = at_rest.clone();
        host.arrays[0].state = Observed::Known(state);
        assert_eq!(planned(&host), ["nvme1=off"], "{state}");
    }
    let harmful = [SyncAction::Resync, SyncAction::Reshape, SyncAction::Frozen];
    for action in harmful {
        let mut host = at_rest.clone();
        host.arrays[0].sync_action = Observed::Known(action);
        assert_eq!(planned(&host), ["nvme1=off"], "{action:?}");
    }
    for action in [SyncAction::Check, SyncAction::Repair, SyncAction::Recover] {
        let mut host = at_rest.clone();
        host.arrays[0].sync_action = Observed::Known(action);
        assert_eq!(planned(&host), [""; 0], "{action:?}");
    }
    let mut host = at_rest.clone();
    host.arrays[0].state = unknown();
    assert_eq!(planned(&host), ["nvme1=off"]);
}

#[test]
fn nothing_is_armed_by_what_is_not_known() {
    let fresh = host(vec![mirror(1, vec![simple(0, 0, OFF), simple(1, 1, OFF)])]);
    type Blur = fn(&mut PathSnapshot);
    let blurs: [Blur; 4] = [
        |path| path.portal = unknown(),
        |path| path.state = unknown(),
        |path| path.ana_usable = unknown(),
        |path| path.fast_io_fail = unknown(),
    ];
    for blur in blurs {
        for controller in ["nvme0", "nvme1"] {
            let mut host = fresh.clone();
            on(&mut host, controller, blur);
            assert_eq!(planned(&host), [""; 0], "{controller}");
        }
    }
    let mut armed = fresh.clone();
    on(&mut armed, "nvme1", |path| {
        path.fast_io_fail = Observed::Known(ARMED);
        path.state = unknown();
    });
    assert_eq!(planned(&armed), ["nvme1=off"]);
}

#[test]
fn a_local_leg_is_the_anchor_wherever_it_is() {
    let local = leg(1, Backing::Local);
    let host = host(vec![mirror(1, vec![simple(0, 0, OFF), local])]);
    assert_eq!(planned(&host), ["nvme0=1"]);
}

#[test]
fn a_controller_with_something_else_behind_it_is_never_armed_and_is_the_anchor_while_it_queues() {
    let mut host = host(vec![mirror(1, vec![simple(0, 0, OFF), simple(1, 1, OFF)])]);
    host.namespaces.push(namespace(50, 1, vec![path(1, OFF)]));
    assert_eq!(planned(&host), ["nvme0=1"]);
    on(&mut host, "nvme1", |path| path.fast_io_fail = Observed::Known(FastIoFail::After(5)));
    assert_eq!(planned(&host), [""; 0], "what somebody else set stays, and slot 0 is the anchor");
    host.arrays[0].legs[0].flags = LegFlags::of(&[LegFlag::Faulty]);
    assert_eq!(planned(&host), ["nvme1=off"], "the last copy must queue");
}

#[test]
fn arrays_that_share_a_controller_and_want_different_things_get_it_off() {
    let first = mirror(1, vec![simple(0, 0, OFF), simple(1, 1, ARMED)]);
    let behind = namespace(51, 1, vec![path(1, ARMED)]);
    let second = mirror(2, vec![leg(0, Backing::Namespace(Box::new(behind))), simple(1, 2, OFF)]);
    let mut host = host(vec![first, second]);
    let planned_now = plan(&host, &wards(&host));
    assert_eq!(told(&planned_now), ["nvme1=off"], "it is the anchor of the second array");
    carry_out(&mut host);
    assert_eq!(planned(&host), ["nvme2=1"]);

    let mut two = wards(&host);
    host.arrays[1].legs.swap(0, 1);
    host.arrays[1].legs[0].slot = Some(Slot(0));
    host.arrays[1].legs[1].slot = Some(Slot(1));
    assert_eq!(told(&plan(&host, &two)), ["nvme1=1"], "both want the same");
    two.insert(array_id(2), Ward { fast_io_fail: 2, ..WARD });
    assert_eq!(told(&plan(&host, &two)), [""; 0], "they differ");
}

#[test]
fn both_controllers_of_a_leg_get_the_same() {
    let two = |n: u16| {
        let paths = vec![path(2 * n, OFF), path(2 * n + 1, OFF)];
        leg(n, Backing::Namespace(Box::new(namespace(n, n, paths))))
    };
    let mut host = host(vec![mirror(1, vec![two(0), two(1)])]);
    assert_eq!(planned(&host), ["nvme2=1", "nvme3=1"]);
    carry_out(&mut host);
    on(&mut host, "nvme0", |path| path.health = DEAD);
    assert_eq!(planned(&host), [""; 0], "one path of the anchor is left");
    on(&mut host, "nvme1", |path| path.fast_io_fail = Observed::Known(ARMED));
    on(&mut host, "nvme2", |path| path.fast_io_fail = Observed::Known(OFF));
    assert_eq!(planned(&host), ["nvme1=off", "nvme3=off"], "half an anchor queues nothing");
}

/// Numbers from a seed (Vigna's SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u16) -> u16 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u16::try_from((z ^ (z >> 31)) % u64::from(sides)).unwrap()
    }

    fn one_in(&mut self, chances: u16) -> bool {
        self.below(chances) == 0
    }

    fn value(&mut self) -> FastIoFail {
        [OFF, OFF, ARMED, FastIoFail::After(0), FastIoFail::After(5)][usize::from(self.below(5))]
    }

    fn blur(&mut self, path: &mut PathSnapshot) {
        match self.below(24) {
            0 => path.state = unknown(),
            1 => path.portal = unknown(),
            2 => path.fast_io_fail = unknown(),
            3 => path.ana_usable = unknown(),
            4 | 5 => path.health = SUSPECT,
            6 | 7 => path.health = DEAD,
            8 => path.state = Observed::Known(ControllerState::Connecting),
            9 => path.ana_usable = Observed::Known(false),
            _ => {}
        }
    }

    fn leg(&mut self, slot: u16, subsystems: &mut Vec<Vec<PathSnapshot>>) -> LegSnapshot {
        let backing = match self.below(20) {
            0 => Backing::Local,
            1 => Backing::Gone,
            2 => Backing::Unreadable,
            _ => self.remote(subsystems),
        };
        let mut leg = leg(slot, backing);
        leg.flags = LegFlags::of(match self.below(12) {
            0 => &[LegFlag::Faulty],
            1 => &[LegFlag::Spare],
            2 => &[LegFlag::InSync, LegFlag::WriteMostly],
            _ => &[LegFlag::InSync],
        });
        leg
    }

    fn remote(&mut self, subsystems: &mut Vec<Vec<PathSnapshot>>) -> Backing {
        let count = u16::try_from(subsystems.len()).unwrap();
        let known = count > 0 && self.one_in(10);
        let subsystem = if known { self.below(count) } else { count };
        if !known {
            let mut paths = Vec::new();
            for n in 0..=self.below(2) {
                let value = self.value();
                let mut path = path(2 * subsystem + n, value);
                self.blur(&mut path);
                paths.push(path);
            }
            subsystems.push(paths);
        }
        // A number that no other namespace has.
        let n = 100 + self.below(u16::MAX - 100);
        let paths = subsystems[usize::from(subsystem)].clone();
        Backing::Namespace(Box::new(namespace(n, subsystem, paths)))
    }

    fn host(&mut self) -> HostSnapshot {
        let mut subsystems = Vec::new();
        let mut arrays = Vec::new();
        for n in 0..=u8::try_from(self.below(3)).unwrap() {
            let legs = [2, 2, 3, 4][usize::from(self.below(4))];
            let mut array =
                mirror(n, (0..legs).map(|slot| self.leg(slot, &mut subsystems)).collect());
            if legs == 4 {
                array.level = Level::Raid10 { layout: if self.one_in(6) { 0x201 } else { 0x102 } };
            }
            match self.below(12) {
                0 => array.sync_action = Observed::Known(SyncAction::Resync),
                1 => array.sync_action = Observed::Known(SyncAction::Recover),
                2 => array.state = unknown(),
                _ => {}
            }
            arrays.push(array);
        }
        let mut host = host(arrays);
        if !subsystems.is_empty() && self.one_in(4) {
            let n = self.below(u16::try_from(subsystems.len()).unwrap());
            host.namespaces.push(namespace(1, n, subsystems[usize::from(n)].clone()));
        }
        host
    }
}

fn sets(array: &ArraySnapshot) -> Vec<Vec<&LegSnapshot>> {
    let slots: BTreeSet<_> =
        (0..array.raid_disks).map(|slot| mirror_set(array, Slot(slot))).collect();
    let legs_of = |set: &Vec<Slot>| {
        array.legs.iter().filter(|leg| leg.slot.is_some_and(|slot| set.contains(&slot))).collect()
    };
    slots.iter().filter(|set| !set.is_empty()).map(legs_of).collect()
}

/// How many sets have no leg in sync that queues.
fn unsafe_sets(host: &HostSnapshot) -> usize {
    let sets = host.arrays.iter().flat_map(sets);
    sets.filter(|set| !set.iter().any(|leg| leg.is_in_sync() && queues(leg))).count()
}

/// What must hold before a controller is armed.
fn may_be_armed(seed: u64, host: &HostSnapshot, arming: &Arming) {
    let name = &arming.controller.name;
    let behind = |leg: &LegSnapshot| paths(leg).any(|path| path.controller == *name);
    assert!(!shared_controllers(host, &wards(host)).contains(name), "seed {seed}: shared");
    for array in &host.arrays {
        if !array.legs.iter().any(behind) {
            continue;
        }
        assert!(may_lose_a_leg(array).is_ok(), "seed {seed}: {array:?}");
        for set in sets(array).iter().filter(|set| set.iter().any(|leg| behind(leg))) {
            let holds = |leg: &&LegSnapshot| is_good(leg) && queues(leg) && !behind(leg);
            assert!(set.iter().copied().any(|leg| holds(&leg)), "seed {seed}: {arming:?}");
        }
    }
}

/// Carries out the first `steps` of the plan, and checks each.
fn carry_out_checked(seed: u64, host: &mut HostSnapshot, steps: usize) -> bool {
    let plan = plan(host, &wards(host));
    let ordered = plan.is_sorted_by_key(|arming| arming.want != OFF);
    assert!(ordered, "seed {seed}: off comes first: {plan:?}");
    for arming in plan.iter().take(steps) {
        if arming.want != OFF {
            may_be_armed(seed, host, arming);
        }
        let before = unsafe_sets(host);
        apply(host, arming);
        assert!(unsafe_sets(host) <= before, "seed {seed}: {arming:?} arms the last that queued");
    }
    plan.is_empty()
}

#[test]
fn whatever_the_host_looks_like_no_step_of_a_plan_arms_the_last_leg_that_queues() {
    for seed in 0..4000 {
        let mut host = Dice(seed).host();
        let settled = (0..4).any(|_| carry_out_checked(seed, &mut host, usize::MAX));
        assert!(settled, "seed {seed}: the plan never ends: {:?}", planned(&host));
    }
}

#[test]
fn whatever_changes_while_plans_are_carried_out_half_no_step_arms_the_last_leg_that_queues() {
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let mut host = dice.host();
        for _ in 0..20 {
            let steps = usize::from(dice.below(4));
            carry_out_checked(seed, &mut host, steps);
            let names: Vec<_> = every_path(&mut host).map(|path| path.controller.clone()).collect();
            let Some(name) = names.get(usize::from(dice.below(32))) else {
                continue;
            };
            let well = dice.one_in(2);
            let mut sample = path(0, OFF);
            dice.blur(&mut sample);
            on(&mut host, name.as_str(), |path| {
                path.state = Observed::Known(ControllerState::Live);
                path.health = if well { PathHealth::Up } else { sample.health };
            });
        }
    }
}
