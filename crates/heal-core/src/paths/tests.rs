use heal_types::{
    ArrayId, ArraySnapshot, ArrayState, Backing, Bitmap, ControllerState, DevT, DeviceName,
    DiskSeq, Interface, InterfaceName, LegFlag, LegFlags, LegSnapshot, Level, MadeOf, Metadata,
    NamespaceIds, Nqn, Observed, PathDoubt, PathSnapshot, Portal, SectorCount, Slot, SyncAction,
    TransportAddress, TransportKind, UnknownWhy,
};
use std::collections::BTreeSet;

use super::*;

const UP: PathHealth = PathHealth::Up;
const LIVE: Observed<ControllerState> = Observed::Known(ControllerState::Live);
const CONNECTING: Observed<ControllerState> = Observed::Known(ControllerState::Connecting);
const RESETTING: Observed<ControllerState> = Observed::Known(ControllerState::Resetting);
const UNREAD: Observed<ControllerState> = Observed::Unknown(UnknownWhy::ReadFailed);

fn suspect(why: PathDoubt) -> PathHealth {
    PathHealth::Suspect(why)
}

fn dead(why: PathDoubt) -> PathHealth {
    PathHealth::Dead(why)
}

fn at(millis: u64) -> Moment {
    Moment(1_000_000_000_000 + millis * 1_000_000)
}

fn name(controller: u32) -> ControllerName {
    ControllerName::new(format!("nvme{controller}")).unwrap()
}

fn path(controller: u32) -> PathSnapshot {
    PathSnapshot {
        controller: name(controller),
        state: LIVE,
        portal: Observed::Known(Portal {
            transport: TransportKind::Tcp,
            address: TransportAddress::new(format!("10.0.{controller}.2")).unwrap(),
            port: 4420,
            host_address: None,
            host_interface: None,
        }),
        ana_usable: Observed::Known(true),
        health: UP,
        fast_io_fail: Observed::Unknown(UnknownWhy::NotReadYet),
        params: Observed::Unknown(UnknownWhy::NotReadYet),
    }
}

fn namespace(n: u32, paths: Vec<PathSnapshot>) -> NamespaceSnapshot {
    NamespaceSnapshot {
        device: DeviceName::new(format!("nvme{n}n1")).unwrap(),
        dev: DevT { major: 259, minor: n },
        diskseq: Observed::Known(DiskSeq(u64::from(n))),
        ids: Observed::Known(NamespaceIds::default()),
        nqn: Observed::Known(Nqn::new("nqn.2014-08.test:1").unwrap()),
        size: Observed::Known(SectorCount(1000)),
        logical_block: Observed::Known(512),
        read_only: Observed::Known(false),
        holders: Observed::Known(Vec::new()),
        in_use: Observed::Known(false),
        partitions: Observed::Known(0),
        paths,
    }
}

fn mirror(n: u8, legs: Vec<NamespaceSnapshot>) -> ArraySnapshot {
    let leg = |(slot, namespace): (usize, NamespaceSnapshot)| LegSnapshot {
        device: namespace.device.clone(),
        slot: Some(Slot(u16::try_from(slot).unwrap())),
        flags: LegFlags::of(&[LegFlag::InSync]),
        md_device: Observed::Unknown(UnknownWhy::NotReadYet),
        data_offset: Observed::Known(SectorCount(0)),
        bad_blocks: Observed::Known(false),
        backing: Backing::Namespace(Box::new(namespace)),
    };
    ArraySnapshot {
        id: ArrayId::from_bytes([n; 16]),
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
        legs: legs.into_iter().enumerate().map(leg).collect(),
    }
}

/// Every namespace behind one controller of its own number.
fn host_of(controllers: impl IntoIterator<Item = u32>) -> HostSnapshot {
    let namespaces = controllers.into_iter().map(|n| namespace(n, vec![path(n)])).collect();
    HostSnapshot { namespaces, ..HostSnapshot::default() }
}

fn interface(label: &str, made_of: MadeOf) -> Interface {
    Interface { name: Some(InterfaceName::new(label).unwrap()), up: true, made_of }
}

/// `eth0` is 1, `eth1` is 2, `eth2` is 3; `bond0` of 2 and 3 is 4; VLANs of 1 are 5 and 6.
fn network() -> Network {
    let mut network = Network::default();
    let list = [
        (1, interface("eth0", MadeOf::Itself)),
        (2, interface("eth1", MadeOf::Itself)),
        (3, interface("eth2", MadeOf::Itself)),
        (4, interface("bond0", MadeOf::AnyOf(vec![2, 3]))),
        (5, interface("eth0.5", MadeOf::On(1))),
        (6, interface("eth0.6", MadeOf::On(1))),
    ];
    network.interfaces.extend(list);
    network
}

/// One controller on the network, and what is told of it.
struct Story {
    paths: Paths,
    snapshot: HostSnapshot,
}

impl Story {
    fn leaving_through(index: IfIndex) -> Self {
        let mut paths = Paths::new(Limits::default());
        let snapshot = host_of([0]);
        paths.handle(at(0), PathEvent::Looked(Seen::whole(&snapshot)));
        let mut story = Self { paths, snapshot };
        story.hears(0, network_event(index));
        story
    }

    /// The verdict once `event` has been heard.
    fn hears(&mut self, millis: u64, event: PathEvent) -> PathHealth {
        let before = self.paths.verdicts().clone();
        let changed = self.paths.handle(at(millis), event);
        if before != *self.paths.verdicts() {
            assert!(changed, "a verdict that changes is said to have changed");
        }
        assert!(self.paths.next_deadline().is_none_or(|next| next > at(millis)));
        self.paths.verdicts()[&name(0)]
    }

    fn sees(&mut self, millis: u64, state: Observed<ControllerState>) -> PathHealth {
        self.snapshot.namespaces[0].paths[0].state = state;
        let seen = Seen::whole(&self.snapshot);
        self.hears(millis, PathEvent::Looked(seen))
    }

    fn sees_ana(&mut self, millis: u64, usable: Observed<bool>) -> PathHealth {
        self.snapshot.namespaces[0].paths[0].ana_usable = usable;
        let seen = Seen::whole(&self.snapshot);
        self.hears(millis, PathEvent::Looked(seen))
    }

    fn link(&mut self, millis: u64, index: IfIndex, up: bool) -> PathHealth {
        self.hears(millis, PathEvent::Link { index, up, removed: false })
    }

    fn connected(&mut self, millis: u64) -> PathHealth {
        self.hears(millis, PathEvent::Connected { controller: name(0) })
    }

    fn sockets(&mut self, millis: u64, backoff: u8, unacked: u32, silent: u64) -> PathHealth {
        let since_ack = Duration::from_millis(silent);
        let reading = Some(SocketReading { backoff, unacked, since_ack, closed: false });
        self.hears(millis, PathEvent::Sockets { controller: name(0), reading })
    }

    fn io(&mut self, millis: u64, in_flight: u64, completed: u64) -> PathHealth {
        let reading = IoReading { in_flight, completed };
        self.hears(millis, PathEvent::Io { controller: name(0), reading })
    }

    fn log(&mut self, millis: u64) -> PathHealth {
        self.hears(millis, PathEvent::KernelSaid { controller: name(0) })
    }

    fn tick(&mut self, millis: u64) -> PathHealth {
        self.hears(millis, PathEvent::Tick)
    }

    fn is_watched(&self) -> bool {
        self.paths.watched_sockets() == [name(0)]
    }
}

fn network_event(index: IfIndex) -> PathEvent {
    let egress = BTreeMap::from([(name(0), index)]);
    PathEvent::Network { network: network(), egress }
}

#[test]
fn a_pulled_cable_is_dead_at_once_and_up_a_second_after_it_is_back() {
    let mut story = Story::leaving_through(1);
    assert_eq!(story.tick(10), UP);
    assert_eq!(story.link(20, 1, false), dead(PathDoubt::LinkDown));
    assert!(!story.is_watched(), "nobody needs to ask the sockets");
    assert_eq!(story.paths.next_deadline(), None);
    assert_eq!(story.link(5_000, 1, true), suspect(PathDoubt::LinkDown));
    assert!(story.is_watched());
    assert_eq!(story.paths.next_deadline(), Some(at(6_000)));
    assert_eq!(story.tick(5_999), suspect(PathDoubt::LinkDown));
    assert_eq!(story.tick(6_000), UP);
    assert!(!story.is_watched());
}

#[test]
fn a_link_that_flaps_starts_its_second_anew_each_time() {
    let mut story = Story::leaving_through(1);
    story.link(0, 1, false);
    story.link(500, 1, true);
    assert_eq!(story.link(900, 1, false), dead(PathDoubt::LinkDown));
    assert_eq!(story.link(1_000, 1, true), suspect(PathDoubt::LinkDown));
    assert_eq!(story.tick(1_900), suspect(PathDoubt::LinkDown));
    assert_eq!(story.tick(2_000), UP);
    story.link(3_000, 1, false);
    story.link(3_500, 1, true);
    story.link(3_900, 1, false);
    assert_eq!(story.tick(9_000), dead(PathDoubt::LinkDown));
    assert_eq!(story.paths.why(at(9_000), &name(0)).unwrap().witnesses[0].since, at(3_000));
    assert_eq!(story.link(9_500, 1, true), suspect(PathDoubt::LinkDown));
}

#[test]
fn a_link_that_is_back_is_not_enough_while_the_controller_is_not() {
    let mut story = Story::leaving_through(1);
    story.link(0, 1, false);
    assert_eq!(story.sees(100, CONNECTING), dead(PathDoubt::LinkDown), "nearer to the cause");
    assert_eq!(story.link(200, 1, true), dead(PathDoubt::ControllerDown));
    assert_eq!(story.tick(1_500), dead(PathDoubt::ControllerDown));
    assert_eq!(story.connected(2_000), UP);
}

#[test]
fn a_vlan_goes_down_with_its_card_and_an_interface_that_is_removed_is_down() {
    let mut story = Story::leaving_through(5);
    assert_eq!(story.link(0, 1, false), dead(PathDoubt::LinkDown));
    let mut story = Story::leaving_through(2);
    let gone = PathEvent::Link { index: 2, up: false, removed: true };
    assert_eq!(story.hears(0, gone), dead(PathDoubt::LinkDown));
}

#[test]
fn a_bond_that_loses_a_port_is_in_doubt_until_it_has_settled() {
    let mut story = Story::leaving_through(4);
    assert_eq!(story.link(0, 2, false), suspect(PathDoubt::PortDown));
    assert!(story.is_watched());
    assert_eq!(story.sockets(200, 0, 3, 10), suspect(PathDoubt::PortDown));
    assert_eq!(story.tick(1_999), suspect(PathDoubt::PortDown));
    assert_eq!(story.tick(2_000), UP, "it goes on with the other port");
    assert_eq!(story.link(3_000, 2, true), UP);
    story.link(4_000, 2, false);
    story.sockets(5_900, 2, 3, 700);
    assert_eq!(story.tick(6_000), suspect(PathDoubt::SocketStalled), "and here it does not");
    assert_eq!(story.link(6_100, 4, false), dead(PathDoubt::LinkDown));
}

#[test]
fn a_bond_that_lacks_a_port_when_it_is_first_seen_has_lost_none() {
    let mut paths = Paths::new(Limits::default());
    paths.handle(at(0), PathEvent::Looked(Seen::whole(&host_of([0]))));
    let mut network = network();
    network.interfaces.get_mut(&2).unwrap().up = false;
    let egress = BTreeMap::from([(name(0), 4)]);
    assert!(!paths.handle(at(0), PathEvent::Network { network, egress }));
}

#[test]
fn the_way_out_is_remembered_when_the_kernel_names_another_or_none() {
    let mut story = Story::leaving_through(1);
    story.link(0, 1, false);
    let mut down = network();
    down.interfaces.get_mut(&1).unwrap().up = false;
    let none = PathEvent::Network { network: down.clone(), egress: BTreeMap::new() };
    assert_eq!(story.hears(10, none), dead(PathDoubt::LinkDown));
    let other = BTreeMap::from([(name(0), 2)]);
    let default_route = PathEvent::Network { network: down.clone(), egress: other };
    assert_eq!(story.hears(20, default_route.clone()), dead(PathDoubt::LinkDown));
    story.sees(30, CONNECTING);
    assert_eq!(story.connected(40), dead(PathDoubt::LinkDown), "which way did it take?");
    assert_eq!(story.hears(50, default_route), suspect(PathDoubt::LinkDown), "the other way");
    assert_eq!(story.tick(1_050), UP);
}

#[test]
fn an_interface_made_anew_takes_the_place_of_the_one_that_went() {
    let mut story = Story::leaving_through(5);
    story.hears(0, PathEvent::Link { index: 5, up: false, removed: true });
    let mut anew = network();
    let vlan = anew.interfaces.remove(&5).unwrap();
    anew.interfaces.insert(9, vlan);
    let egress = BTreeMap::from([(name(0), 9)]);
    let event = PathEvent::Network { network: anew, egress };
    assert_eq!(story.hears(100, event), suspect(PathDoubt::LinkDown));
    assert_eq!(story.tick(1_100), UP);
}

#[test]
fn a_path_whose_way_out_is_not_known_is_not_dead_by_any_link() {
    let mut paths = Paths::new(Limits::default());
    paths.handle(at(0), PathEvent::Looked(Seen::whole(&host_of([0]))));
    let none = PathEvent::Network { network: network(), egress: BTreeMap::new() };
    assert!(!paths.handle(at(0), none));
    for index in 1..=6 {
        assert!(!paths.handle(at(1), PathEvent::Link { index, up: false, removed: false }));
    }
}

#[test]
fn a_controller_is_suspect_while_it_resets_and_dead_while_it_connects() {
    let mut story = Story::leaving_through(1);
    assert_eq!(story.sees(0, RESETTING), suspect(PathDoubt::ControllerDown));
    assert_eq!(story.sees(1, CONNECTING), dead(PathDoubt::ControllerDown));
    assert_eq!(story.sees(2, UNREAD), suspect(PathDoubt::ControllerDown), "never dead by guess");
    assert_eq!(story.sees(3, LIVE), UP);
    assert_eq!(story.sees(4, UNREAD), suspect(PathDoubt::ControllerDown));
    let mut never_read = host_of([0]);
    never_read.namespaces[0].paths[0].state = UNREAD;
    let mut paths = Paths::new(Limits::default());
    assert!(!paths.handle(at(0), PathEvent::Looked(Seen::whole(&never_read))));
}

#[test]
fn sockets_that_hear_nothing_are_first_suspect_and_then_dead_and_only_they_take_it_back() {
    let mut story = Story::leaving_through(1);
    story.log(0);
    assert_eq!(story.sockets(200, 1, 2, 300), suspect(PathDoubt::SocketStalled));
    assert_eq!(story.sockets(400, 3, 2, 900), suspect(PathDoubt::SocketStalled));
    assert_eq!(story.sockets(600, 3, 2, 1_500), dead(PathDoubt::SocketStalled));
    assert!(story.is_watched(), "who else should say that it is over?");
    let unread = PathEvent::Sockets { controller: name(0), reading: None };
    assert_eq!(story.hears(700, unread), dead(PathDoubt::SocketStalled));
    assert_eq!(story.sockets(5_500, 0, 2, 5), UP);
    assert!(!story.is_watched());
    assert_eq!(story.sockets(5_600, 9, 0, 90_000), UP, "an idle socket says nothing");
}

#[test]
fn a_reading_that_nobody_renews_stops_counting() {
    let mut story = Story::leaving_through(1);
    story.sockets(0, 5, 2, 3_000);
    assert_eq!(story.paths.next_deadline(), Some(at(15_000)));
    assert_eq!(story.tick(15_000), UP);
}

#[test]
fn a_closed_socket_is_a_reason_to_doubt_the_controller() {
    let mut story = Story::leaving_through(1);
    let since_ack = Duration::ZERO;
    let reading = Some(SocketReading { backoff: 0, unacked: 0, since_ack, closed: true });
    let closed = PathEvent::Sockets { controller: name(0), reading };
    assert_eq!(story.hears(0, closed), suspect(PathDoubt::ControllerDown));
    assert_eq!(story.connected(100), UP, "new sockets");
}

#[test]
fn io_that_does_not_move_opens_the_watch_and_is_given_up_when_the_sockets_are_fine() {
    let mut story = Story::leaving_through(1);
    for second in 0..2 {
        assert_eq!(story.io(second * 1_000, 4, 70), UP);
    }
    assert_eq!(story.io(2_000, 4, 70), suspect(PathDoubt::IoStalled));
    assert!(story.is_watched());
    for second in 3..10 {
        story.sockets(second * 1_000 - 500, 0, 1, 20);
        assert_eq!(story.io(second * 1_000, 4, 70), suspect(PathDoubt::IoStalled));
    }
    assert_eq!(story.io(10_000, 4, 70), dead(PathDoubt::IoStalled));
    assert!(!story.is_watched());
    assert_eq!(story.io(11_000, 4, 71), UP, "it moves");
}

#[test]
fn io_that_does_not_move_behind_sockets_in_trouble_is_a_matter_of_the_sockets() {
    let mut story = Story::leaving_through(1);
    for second in 0..=12 {
        story.sockets(second * 1_000, 2, 5, 800);
        assert_eq!(story.io(second * 1_000, 4, 70), suspect(PathDoubt::SocketStalled));
    }
    assert_eq!(story.sockets(12_500, 4, 5, 3_000), dead(PathDoubt::SocketStalled));
}

#[test]
fn time_without_a_sample_and_time_without_io_prove_nothing() {
    let mut story = Story::leaving_through(1);
    story.io(0, 4, 70);
    assert_eq!(story.io(60_000, 4, 70), UP, "the machine may have slept");
    assert_eq!(story.io(61_000, 0, 70), UP);
    assert_eq!(story.io(64_000, 4, 70), UP, "these are new commands");
    assert_eq!(story.io(65_000, 4, 70), UP);
    assert_eq!(story.io(66_000, 4, 70), suspect(PathDoubt::IoStalled));
    assert_eq!(story.tick(81_000), UP, "nobody samples any more");
}

#[test]
fn a_path_closed_by_ana_is_suspect_at_once_and_dead_in_time() {
    let mut story = Story::leaving_through(1);
    let closed = Observed::Known(false);
    assert_eq!(story.sees_ana(0, closed), suspect(PathDoubt::AnaInaccessible));
    assert!(!story.is_watched(), "the sockets have no say in it");
    assert_eq!(story.paths.next_deadline(), Some(at(10_000)));
    assert_eq!(story.sees_ana(5_000, closed), suspect(PathDoubt::AnaInaccessible));
    assert_eq!(story.tick(10_000), dead(PathDoubt::AnaInaccessible));
    assert_eq!(story.paths.next_deadline(), None);
    assert_eq!(story.sees_ana(11_000, Observed::Unknown(UnknownWhy::NotFilledYet)), UP);
    assert_eq!(story.sees_ana(12_000, closed), suspect(PathDoubt::AnaInaccessible));
    assert_eq!(story.sees_ana(13_000, Observed::Known(true)), UP);
}

#[test]
fn ana_closes_one_namespace_of_a_controller_and_not_the_other() {
    let mut snapshot = host_of([]);
    snapshot.namespaces = vec![namespace(1, vec![path(0)]), namespace(2, vec![path(0)])];
    snapshot.namespaces[1].paths[0].ana_usable = Observed::Known(false);
    let mut paths = Paths::new(Limits::default());
    assert!(paths.handle(at(0), PathEvent::Looked(Seen::whole(&snapshot))));
    assert_eq!(paths.verdicts()[&name(0)], UP);
    paths.annotate(&mut snapshot);
    assert_eq!(snapshot.namespaces[0].paths[0].health, UP);
    assert_eq!(snapshot.namespaces[1].paths[0].health, suspect(PathDoubt::AnaInaccessible));
    assert!(paths.handle(at(10_000), PathEvent::Tick), "for one namespace it is a change");
    paths.annotate(&mut snapshot);
    assert_eq!(snapshot.namespaces[0].paths[0].health, UP);
    assert_eq!(snapshot.namespaces[1].paths[0].health, dead(PathDoubt::AnaInaccessible));
}

#[test]
fn what_the_log_said_counts_for_five_seconds_or_until_others_deny_it() {
    let mut story = Story::leaving_through(1);
    assert_eq!(story.log(0), suspect(PathDoubt::KernelLog));
    assert!(story.is_watched());
    assert_eq!(story.tick(4_999), suspect(PathDoubt::KernelLog));
    assert_eq!(story.tick(5_000), UP);
    story.log(6_000);
    assert_eq!(story.sees(6_100, LIVE), suspect(PathDoubt::KernelLog));
    assert_eq!(story.sockets(6_200, 0, 0, 0), UP);
    story.log(7_000);
    assert_eq!(story.sees(7_100, CONNECTING), dead(PathDoubt::ControllerDown), "a better witness");
}

#[test]
fn a_controller_that_connected_again_owes_nothing_to_its_old_sockets() {
    let mut story = Story::leaving_through(1);
    story.log(0);
    story.sockets(100, 5, 3, 2_000);
    story.io(100, 4, 70);
    assert_eq!(story.io(2_100, 4, 70), dead(PathDoubt::SocketStalled));
    let mut unheard = Story { paths: story.paths.clone(), snapshot: story.snapshot.clone() };
    assert_eq!(story.connected(2_200), UP);
    unheard.sees(2_200, CONNECTING);
    assert_eq!(unheard.sees(2_300, LIVE), UP, "the same when only looks tell of it");
}

#[test]
fn a_controller_that_is_gone_is_forgotten_and_its_successor_is_another() {
    let mut story = Story::leaving_through(1);
    story.sockets(0, 5, 3, 2_000);
    let mut half = HostSnapshot::default();
    half.unreadable.push(DeviceName::new("md1").unwrap());
    assert!(!story.paths.handle(at(10), PathEvent::Looked(Seen::whole(&half))));
    assert!(!story.paths.handle(at(10), PathEvent::Looked(Seen::part(&HostSnapshot::default()))));
    assert_eq!(story.tick(11), dead(PathDoubt::SocketStalled), "unread is not gone");
    let mut successor = story.snapshot.clone();
    successor.namespaces[0].paths[0].portal = path(7).portal;
    let mut annotated = successor.clone();
    story.paths.annotate(&mut annotated);
    assert_eq!(annotated.namespaces[0].paths[0].health, UP, "the verdict is on another");
    assert!(story.paths.handle(at(20), PathEvent::Looked(Seen::whole(&successor))));
    assert_eq!(story.paths.verdicts()[&name(0)], UP);
    let nothing = Seen::whole(&HostSnapshot::default());
    assert!(!story.paths.handle(at(30), PathEvent::Looked(nothing)));
    assert!(story.paths.verdicts().is_empty());
    assert!(story.paths.why(at(30), &name(0)).is_none());
}

#[test]
fn a_verdict_explains_itself_with_its_numbers() {
    let mut story = Story::leaving_through(1);
    story.link(1_000, 1, false);
    story.sockets(1_500, 2, 7, 600);
    let why = story.paths.why(at(2_000), &name(0)).unwrap();
    assert_eq!(why.since, at(1_000));
    assert_eq!(why.witnesses.len(), 2);
    assert_eq!(
        why.to_string(),
        "dead: the link it leaves through is down (leaves through eth0, interface 1); interface 1 \
         is down or gone; 7 segments without an answer, sent again at a distance doubled 2 times, \
         nothing heard for 0.6 s"
    );
}

/// `count` mirrors with leg 0 behind the even controllers and leg 1 behind the odd ones.
fn mirrors(count: u8) -> HostSnapshot {
    let legs = |n: u8| {
        let n = u32::from(n);
        let both = [2 * n, 2 * n + 1];
        both.into_iter().map(|c| namespace(c, vec![path(c)])).collect::<Vec<_>>()
    };
    let arrays: Vec<_> = (0..count).map(|n| mirror(n + 1, legs(n))).collect();
    let namespaces = (0..count).flat_map(legs).collect();
    HostSnapshot { arrays, namespaces, ..HostSnapshot::default() }
}

struct Fabric {
    paths: Paths,
    snapshot: HostSnapshot,
}

impl Fabric {
    /// Even controllers leave through `even`, odd ones through `odd`.
    fn of(count: u8, even: &[IfIndex], odd: IfIndex) -> Self {
        let snapshot = mirrors(count);
        let mut paths = Paths::new(Limits::default());
        paths.handle(at(0), PathEvent::Looked(Seen::whole(&snapshot)));
        let egress = (0..2 * u32::from(count)).map(|n| {
            let turn = usize::try_from(n / 2).unwrap() % even.len();
            (name(n), if n % 2 == 0 { even[turn] } else { odd })
        });
        let egress = egress.collect();
        paths.handle(at(0), PathEvent::Network { network: network(), egress });
        Self { paths, snapshot }
    }

    fn down(mut self, index: IfIndex) -> Self {
        self.paths.handle(at(1), PathEvent::Link { index, up: false, removed: false });
        self
    }

    fn cut_off(&mut self) -> Option<CutOff> {
        self.paths.annotate(&mut self.snapshot);
        let wards: BTreeSet<_> = self.snapshot.arrays.iter().map(|array| array.id).collect();
        self.paths.cut_off(&self.snapshot, &wards, None)
    }
}

#[test]
fn a_host_whose_only_link_is_down_is_cut_off() {
    let mut host = Fabric::of(8, &[1], 1);
    assert_eq!(host.cut_off(), None);
    let mut host = host.down(1);
    let Some(CutOff::AllLegs { arrays }) = host.cut_off() else {
        panic!("it is cut off");
    };
    assert_eq!(arrays.len(), 8);
    assert_eq!(host.paths.cut_off(&host.snapshot, &BTreeSet::new(), None), None, "of what is ours");
}

#[test]
fn a_host_is_cut_off_until_the_arrays_that_it_was_cut_off_from_can_be_read_again() {
    let mut host = Fabric::of(8, &[1], 1).down(1);
    let wards: BTreeSet<_> = host.snapshot.arrays.iter().map(|array| array.id).collect();
    let before = host.cut_off();
    let whole = host.snapshot.clone();
    host.snapshot.arrays.clear();
    let now = |host: &Fabric| host.paths.cut_off(&host.snapshot, &wards, before.as_ref());
    assert_eq!(now(&host), None, "they were stopped");
    host.snapshot.unreadable.push(DeviceName::new("md1").unwrap());
    assert_eq!(now(&host), before, "one that cannot be read says nothing");
    host.snapshot.arrays = whole.arrays;
    assert_eq!(now(&host), before);
}

#[test]
fn one_array_that_cannot_be_read_keeps_no_host_of_many_cut_off() {
    let mut host = Fabric::of(8, &[1, 2], 3).down(1).down(2);
    let wards: BTreeSet<_> = host.snapshot.arrays.iter().map(|array| array.id).collect();
    let before = host.cut_off();
    assert!(matches!(before, Some(CutOff::ManyArrays { .. })));
    host.snapshot.unreadable.push(DeviceName::new("md1").unwrap());
    host.snapshot.arrays.remove(0);
    let now = |host: &Fabric| host.paths.cut_off(&host.snapshot, &wards, before.as_ref());
    assert_eq!(now(&host).map(|now| now.arrays().len()), Some(8), "it is counted as it was");
    host.snapshot.arrays.clear();
    assert!(now(&host).is_some());
    let mut well = Fabric::of(8, &[1, 2], 3);
    well.paths.annotate(&mut well.snapshot);
    host.snapshot.arrays = well.snapshot.arrays.split_off(1);
    assert_eq!(now(&host), None, "the others are well again");
}

#[test]
fn one_of_two_fabrics_down_is_not_the_host_however_many_arrays_it_takes_a_leg_from() {
    let mut host = Fabric::of(8, &[1], 2).down(1);
    assert_eq!(host.cut_off(), None);
    let mut vlans = Fabric::of(8, &[5, 6], 2).down(1);
    assert_eq!(vlans.cut_off(), None, "two VLANs of one card have one reason");
}

#[test]
fn many_arrays_in_doubt_for_no_single_reason_are_the_hosts_own_trouble() {
    let mut two_links = Fabric::of(8, &[1, 2], 3).down(1).down(2);
    let Some(CutOff::ManyArrays { arrays, limit: 3 }) = two_links.cut_off() else {
        panic!("two links at once explain too much");
    };
    assert_eq!(arrays.len(), 8);

    let mut silent = Fabric::of(4, &[1], 2);
    let hears_nothing = |n| PathEvent::Sockets {
        controller: name(n),
        reading: Some(SocketReading {
            backoff: 4,
            unacked: 1,
            since_ack: Duration::from_secs(2),
            closed: false,
        }),
    };
    for n in [0, 2, 4] {
        silent.paths.handle(at(1), hears_nothing(n));
    }
    assert_eq!(silent.cut_off(), None, "three arrays may lose a leg");
    silent.paths.handle(at(1), PathEvent::KernelSaid { controller: name(6) });
    assert_eq!(silent.cut_off(), None, "hearsay is no alarm");
    silent.paths.handle(at(1), hears_nothing(6));
    assert!(matches!(silent.cut_off(), Some(CutOff::ManyArrays { .. })));

    let mut blind = Fabric::of(8, &[1], 2);
    let network_only = PathEvent::Network { network: network(), egress: BTreeMap::new() };
    let mut paths = Paths::new(Limits::default());
    paths.handle(at(0), PathEvent::Looked(Seen::whole(&blind.snapshot)));
    let egress = (0..8).map(|n| (name(2 * n), 1)).collect();
    paths.handle(at(0), PathEvent::Network { network: network(), egress });
    paths.handle(at(0), network_only);
    blind.paths = paths;
    let mut blind = blind.down(1);
    assert!(blind.cut_off().is_some(), "nobody knows which way the other legs leave");
}

#[test]
fn a_leg_that_md_has_given_up_is_in_no_doubt() {
    let mut host = Fabric::of(1, &[1], 2).down(1);
    host.snapshot.arrays[0].legs[0].flags = LegFlags::of(&[LegFlag::Faulty]);
    assert_eq!(host.cut_off(), None);
    let mut host = host.down(2);
    assert!(host.cut_off().is_some(), "and the last one left is every leg there is");
}

#[test]
fn witnesses_in_any_order_come_to_the_same_verdict() {
    let events = || {
        vec![
            PathEvent::Link { index: 1, up: false, removed: false },
            PathEvent::KernelSaid { controller: name(0) },
            PathEvent::Sockets {
                controller: name(0),
                reading: Some(SocketReading {
                    backoff: 4,
                    unacked: 1,
                    since_ack: Duration::from_secs(2),
                    closed: false,
                }),
            },
        ]
    };
    for turn in 0..3 {
        let mut story = Story::leaving_through(1);
        let mut events = events();
        events.rotate_left(turn);
        for event in events {
            story.hears(5, event);
        }
        assert_eq!(story.tick(6), dead(PathDoubt::LinkDown));
        story.link(7, 1, true);
        assert_eq!(story.tick(8), dead(PathDoubt::SocketStalled), "the next one has the word");
    }
}
