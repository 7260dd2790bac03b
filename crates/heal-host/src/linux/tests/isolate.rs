//! Freeing I/O from a leg that nothing gets through to.

use std::collections::BTreeMap;

use heal_types::{ControllerRef, FastIoFail};

use super::glance::{CTL, MD, md127, tree};
use super::*;
use crate::linux::sockets::Destroyed;
use crate::socketbook::LiveController;

/// Sockets that are a list. What is destroyed leaves a controller that is resetting.
#[derive(Debug)]
struct Listed {
    root: PathBuf,
    /// What the host has, and what was taken down of it.
    there: Mutex<BTreeMap<String, usize>>,
    book: Mutex<BTreeMap<String, usize>>,
    log: Mutex<Vec<String>>,
}

impl Listed {
    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    fn attribute(&self, controller: &str, name: &str) -> String {
        let path = self.root.join("sys/class/nvme").join(controller).join(name);
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }
}

impl Sockets for Listed {
    fn refresh(&self, controllers: &[LiveController]) -> io::Result<bool> {
        let live = controllers.iter().filter(|controller| controller.live);
        let names: Vec<&str> = live.map(|controller| controller.name.as_str()).collect();
        self.log.lock().unwrap().push(format!("refresh {}", names.join(" ")));
        let there = self.there.lock().unwrap();
        let known = there.iter().filter(|(name, _)| names.contains(&name.as_str()));
        *self.book.lock().unwrap() = known.map(|(name, count)| (name.clone(), *count)).collect();
        Ok(false)
    }

    fn rehearse(&self) -> io::Result<()> {
        Ok(())
    }

    fn destroy(&self, controllers: &BTreeSet<ControllerName>) -> io::Result<Destroyed> {
        let mut done = Destroyed::default();
        for name in controllers.iter().map(ControllerName::as_str) {
            let Some(count) = self.book.lock().unwrap().remove(name) else {
                done.unknown = Some(format!("{name} is not known"));
                continue;
            };
            done.sockets += count;
            let tmo = |name| self.attribute(name, "fast_io_fail_tmo");
            let line = format!("destroy {name} nvme0={} nvme1={}", tmo("nvme0"), tmo("nvme1"));
            self.log.lock().unwrap().push(line);
            let state = self.root.join("sys/class/nvme").join(name).join("state");
            std::fs::write(state, "resetting\n").unwrap();
        }
        Ok(done)
    }

    fn readings(
        &self,
        _: &BTreeSet<ControllerName>,
    ) -> io::Result<BTreeMap<ControllerName, SocketReading>> {
        Ok(BTreeMap::new())
    }
}

/// A mirror whose second leg nothing gets through to. Its first leg has no time-out, its second
/// one.
fn pulled() -> (Lab, Arc<Listed>) {
    pulled_from(tree())
}

fn pulled_from(mut lab: Lab) -> (Lab, Arc<Listed>) {
    lab.dir.file(&format!("{CTL}/nvme1/fast_io_fail_tmo"), "1\n");
    let there = BTreeMap::from([("nvme0".to_owned(), 3), ("nvme1".to_owned(), 3)]);
    let sockets = Arc::new(Listed {
        root: lab.dir.path().join("root"),
        there: Mutex::new(there),
        book: Mutex::default(),
        log: Mutex::default(),
    });
    lab.host.sockets = Arc::clone(&sockets) as Arc<dyn Sockets>;
    lab.host.look();
    sockets.log.lock().unwrap().clear();
    (lab, sockets)
}

fn controller(lab: &Lab, number: u32) -> ControllerRef {
    let seen = lab.host.last().unwrap();
    let device = DeviceName::new(format!("nvme{number}n1")).unwrap();
    let found = seen.snapshot.namespaces.iter().find(|it| it.device == device).unwrap();
    found.paths[0].controller_ref(found.nqn.known().unwrap()).unwrap()
}

fn second_leg(lab: &Lab) -> LegRef {
    let seen = lab.host.last().unwrap();
    let array = seen.snapshot.arrays.iter().find(|array| array.id == md127()).unwrap();
    let leg = array.legs.iter().find(|leg| leg.device == name(1)).unwrap();
    let Backing::Namespace(namespace) = &leg.backing else { panic!("{leg:?}") };
    let id = *namespace.ids.known().unwrap().iter().next().unwrap();
    LegRef { identity: namespace.identity(&id), ..leg_ref(leg, None) }
}

fn isolate(lab: &Lab) -> HostAction {
    HostAction::IsolateLeg {
        array: md127(),
        leg: second_leg(lab),
        paths: vec![controller(lab, 1)],
        survivors: vec![controller(lab, 0)],
    }
}

fn delete(lab: &Lab) -> HostAction {
    HostAction::DeleteController {
        array: md127(),
        leg: second_leg(lab),
        controller: Box::new(controller(lab, 1)),
        survivors: vec![controller(lab, 0)],
    }
}

fn fail_io(controller: ControllerRef, value: FastIoFail) -> HostAction {
    HostAction::SetFastIoFail { controller, value }
}

#[test]
fn the_survivor_queues_before_the_leg_fails_and_the_sockets_go_last() {
    let (lab, sockets) = pulled();
    lab.dir.file(&format!("{CTL}/nvme0/fast_io_fail_tmo"), "1\n");
    assert_eq!(lab.act(&isolate(&lab)), Outcome::Changed);
    assert_eq!(sockets.log(), ["destroy nvme1 nvme0=-1 nvme1=0"]);
    assert_eq!(lab.dir.calls(), Vec::<String>::new(), "no child is waited for");
}

#[test]
fn a_rehearsal_checks_every_leg_and_changes_nothing() {
    let (lab, sockets) = pulled();
    assert_eq!(lab.host.rehearse(md127()), 2);
    lab.dir.file(&format!("{CTL}/nvme1/state"), "connecting\n");
    assert_eq!(lab.host.rehearse(md127()), 0, "one has no survivor, and the other is dead");
    let attribute = |name| sockets.attribute(name, "fast_io_fail_tmo");
    assert_eq!((attribute("nvme0"), attribute("nvme1")), ("off".into(), "1".into()));
    assert_eq!((sockets.log(), lab.dir.calls()), (vec![], vec![]));
}

type Disturb = fn(&Lab, &mut HostAction);

fn file(lab: &Lab, path: &str, text: &str) {
    lab.dir.file(path, text);
}

fn named(
    action: &mut HostAction,
) -> (&mut LegRef, &mut Vec<ControllerRef>, &mut Vec<ControllerRef>) {
    let HostAction::IsolateLeg { leg, paths, survivors, .. } = action else {
        panic!("{action:?}");
    };
    (leg, paths, survivors)
}

fn second_path(lab: &Lab) {
    lab.dir.file(&format!("{CTL}/nvme7/state"), "live\n");
    lab.dir.file(&format!("{CTL}/nvme7/nvme1c7n1/ana_state"), "optimized\n");
    let target = lab.dir.path().join(format!("{CTL}/nvme7"));
    let subsystem = "root/sys/devices/virtual/nvme-subsystem/nvme-subsys1/nvme7";
    for link in ["root/sys/class/nvme/nvme7", subsystem] {
        std::os::unix::fs::symlink(&target, lab.dir.path().join(link)).unwrap();
    }
}

fn cut(lab: &Lab) -> HostAction {
    HostAction::CutPath { array: md127(), controller: Box::new(controller(lab, 1)) }
}

#[test]
fn a_path_is_cut_while_another_leads_to_its_leg_and_nothing_is_armed_for_it() {
    let (lab, sockets) = pulled();
    let alone = lab.act(&cut(&lab));
    assert!(alone.to_string().contains("nothing but nvme1 leads to nvme1n1"), "{alone}");
    second_path(&lab);
    assert_eq!(lab.act(&cut(&lab)), Outcome::Changed);
    assert_eq!(sockets.log(), ["destroy nvme1 nvme0=off nvme1=1"]);
    assert_eq!(lab.act(&cut(&lab)), Outcome::AlreadySo, "it is resetting");
}

#[test]
fn what_the_caller_has_against_it_ends_a_cut_and_an_isolation() {
    let (mut lab, sockets) = pulled();
    second_path(&lab);
    for action in [cut(&lab), isolate(&lab)] {
        let answer = lab.host.act_if(md127(), &action, &mut |fresh| {
            Err(format!("not with {} legs", fresh.arrays[0].legs.len()))
        });
        assert!(answer.outcome.to_string().contains("not with 2 legs"), "{}", answer.outcome);
        assert_eq!(answer.done_at, None);
    }
    assert!(sockets.log().is_empty());
}

#[test]
fn what_a_guard_does_not_allow_is_not_begun() {
    let table: [(&str, Disturb); 21] = [
        ("md127 is readonly", |lab, _| file(lab, &format!("{MD}/md/array_state"), "readonly\n")),
        ("md127 is broken", |lab, _| file(lab, &format!("{MD}/md/array_state"), "broken\n")),
        ("are made equal", |lab, _| file(lab, &format!("{MD}/md/sync_action"), "resync\n")),
        ("layout of the array", |lab, _| file(lab, &format!("{MD}/md/sync_action"), "reshape\n")),
        ("frozen", |lab, _| file(lab, &format!("{MD}/md/sync_action"), "frozen\n")),
        ("0 other in-sync", |lab, _| file(lab, &format!("{CTL}/nvme0/state"), "resetting\n")),
        ("0 other in-sync", |lab, _| {
            file(lab, &format!("{CTL}/nvme0/nvme0c0n1/ana_state"), "inaccessible\n");
        }),
        ("0 other in-sync", |lab, _| file(lab, &format!("{MD}/md/dev-nvme0n1/state"), "faulty\n")),
        ("0 other in-sync", |lab, _| file(lab, &format!("{MD}/md/dev-nvme0n1/state"), "spare\n")),
        ("0 other in-sync", |lab, _| {
            file(lab, &format!("{MD}/md/dev-nvme0n1/state"), "in_sync,write_mostly\n");
        }),
        ("carries nothing", |lab, _| {
            file(lab, &format!("{MD}/md/dev-nvme1n1/state"), "spare\n");
            file(lab, &format!("{MD}/md/dev-nvme1n1/slot"), "none\n");
        }),
        ("slot is 1, not 0", |_, action| named(action).0.slot = Some(Slot(0))),
        ("MD device UUID", |_, action| {
            named(action).0.md_device = Some(MdDeviceId::from_bytes([7; 16]));
        }),
        ("nvme0 leads to a survivor, too", |_, action| named(action).2.clear()),
        ("nvme1 leads there too", |_, action| named(action).1.clear()),
        ("nvme7 leads there too", |lab, _| second_path(lab)),
        ("does not lead to nvme1n1", |lab, action| named(action).1.push(controller(lab, 0))),
        ("nvme1 leads to tcp://10.10.2.2:4420", |_, action| named(action).1[0].portal.port = 1),
        ("nvme0 does not queue for sure", |_, action| named(action).2[0].portal.port = 1),
        ("nvme1 carries nvme1c1n2, too", |lab, _| {
            file(lab, &format!("{CTL}/nvme1/nvme1c1n2/ana_state"), "optimized\n");
        }),
        ("nvme1 is another controller by now", |lab, _| {
            let old = lab.dir.path().join(format!("{CTL}/nvme1"));
            std::fs::rename(&old, lab.dir.path().join("away")).unwrap();
            file(lab, &format!("{CTL}/nvme1/fast_io_fail_tmo"), "1\n");
            file(lab, &format!("{CTL}/nvme1/nvme1c1n1/ana_state"), "optimized\n");
        }),
    ];
    for (said, disturb) in table {
        let (lab, sockets) = pulled();
        let mut action = isolate(&lab);
        disturb(&lab, &mut action);
        let why = refusal(lab.act(&action));
        assert!(why.contains(said), "{said}: {why}");
        assert_eq!(sockets.log(), Vec::<String>::new(), "{said}");
        assert_eq!(sockets.attribute("nvme1", "fast_io_fail_tmo"), "1", "{said}");
    }
}

#[test]
fn what_nobody_knows_is_no_reason_to_act() {
    let unknown: [Disturb; 3] = [
        |lab, _| file(lab, &format!("{MD}/md/array_state"), "dreaming\n"),
        |lab, _| file(lab, &format!("{MD}/md/sync_action"), "dreaming\n"),
        |lab, _| file(lab, &format!("{MD}/md/uuid"), ""),
    ];
    for disturb in unknown {
        let (lab, sockets) = pulled();
        let mut action = isolate(&lab);
        disturb(&lab, &mut action);
        assert!(matches!(lab.act(&action), Outcome::Unknown(_)));
        assert_eq!(sockets.log(), Vec::<String>::new());
    }
    let (mut lab, sockets) = pulled();
    let action = isolate(&lab);
    lab.host.last = Arc::default();
    assert_eq!(lab.act(&action), Outcome::Unknown(UnknownWhy::NotReadYet));
    assert_eq!(sockets.log(), Vec::<String>::new());
}

#[test]
fn a_leg_that_md_let_go_needs_no_isolation() {
    let (lab, sockets) = pulled();
    let action = isolate(&lab);
    let member = lab.dir.path().join(format!("{MD}/md/dev-nvme1n1"));
    std::fs::rename(member, lab.dir.path().join("away")).unwrap();
    assert_eq!(lab.act(&action), Outcome::AlreadySo);
    assert_eq!(sockets.log(), Vec::<String>::new());
}

#[test]
fn a_faulty_or_a_recovering_leg_holds_io_as_well() {
    for state in ["faulty,blocked\n", "spare\n"] {
        let (lab, sockets) = pulled();
        file(&lab, &format!("{MD}/md/dev-nvme1n1/state"), state);
        assert_eq!(lab.act(&isolate(&lab)), Outcome::Changed);
        assert_eq!(sockets.log().len(), 1);
    }
}

#[test]
fn a_book_that_is_too_old_is_written_anew_once() {
    let (lab, sockets) = pulled();
    sockets.book.lock().unwrap().clear();
    assert_eq!(lab.act(&isolate(&lab)), Outcome::Changed);
    assert_eq!(sockets.log(), ["refresh nvme0 nvme1", "destroy nvme1 nvme0=off nvme1=0"]);

    let (lab, sockets) = pulled();
    sockets.there.lock().unwrap().clear();
    sockets.book.lock().unwrap().clear();
    let RetryWhy::ToolFailed { detail, .. } = why_again(lab.act(&isolate(&lab))) else {
        panic!("nothing was destroyed");
    };
    assert_eq!(detail, "nvme1 is not known");
    assert_eq!(sockets.log(), ["refresh nvme0 nvme1"]);
}

#[test]
fn a_path_that_lost_its_connection_already_has_no_sockets_to_destroy() {
    for state in ["resetting\n", "connecting\n"] {
        let (lab, sockets) = pulled();
        file(&lab, &format!("{CTL}/nvme1/state"), state);
        assert_eq!(lab.act(&isolate(&lab)), Outcome::Changed);
        assert_eq!(sockets.log(), Vec::<String>::new());
        assert_eq!(sockets.attribute("nvme1", "fast_io_fail_tmo"), "0");
    }
}

#[test]
fn a_path_without_sockets_is_left_to_the_kernel() {
    let lab = tree();
    file(&lab, &format!("{CTL}/nvme1/transport"), "rdma\n");
    let (lab, _) = pulled_from(lab);
    let action = isolate(&lab);
    assert!(refusal(lab.act(&action)).contains("nvme1 is RDMA and has no sockets"));
    assert_eq!(lab.dir.read(&format!("{CTL}/nvme1/fast_io_fail_tmo")), "1\n");
}

#[test]
fn a_kernel_that_ends_no_sockets_says_so() {
    let (mut lab, sockets) = pulled();
    lab.host.support = Support::unasked();
    let why = refusal(lab.act(&isolate(&lab)));
    assert!(why.contains("isolation is not known: there is no fabrics controller"), "{why}");
    assert_eq!(sockets.log(), Vec::<String>::new());
    assert_eq!(sockets.attribute("nvme1", "fast_io_fail_tmo"), "1");
}

#[test]
fn the_time_until_io_fails_is_set_and_read_back() {
    let (lab, _) = pulled();
    let second = controller(&lab, 1);
    let queue = fail_io(second.clone(), FastIoFail::Off);
    assert_eq!(lab.act(&fail_io(second.clone(), FastIoFail::After(1))), Outcome::AlreadySo);
    assert_eq!(lab.act(&fail_io(second.clone(), FastIoFail::After(2))), Outcome::Changed);
    assert_eq!(lab.act(&queue), Outcome::Changed);
    assert_eq!(lab.act(&queue), Outcome::AlreadySo);
    let other = ControllerRef { nqn: nqn(9), ..second.clone() };
    assert!(refusal(lab.act(&fail_io(other, FastIoFail::Off))).contains("nvme1 leads to"));
    let gone = ControllerRef { name: "nvme9".parse().unwrap(), ..second.clone() };
    assert!(refusal(lab.act(&fail_io(gone, FastIoFail::Off))).contains("nvme9 is gone"));
    let attribute = lab.dir.path().join(format!("{CTL}/nvme1/fast_io_fail_tmo"));
    std::fs::remove_file(attribute).unwrap();
    assert!(refusal(lab.act(&queue)).contains("has no fast_io_fail_tmo"));
}

#[test]
fn io_fails_soon_only_where_another_leg_queues() {
    let soon = FastIoFail::After(1);
    let (lab, _) = pulled();
    // The second leg fails soon already, so the first one must not.
    assert!(refusal(lab.act(&fail_io(controller(&lab, 0), soon))).contains("queueing I/O"));
    let table: [(&str, Disturb); 5] = [
        ("queueing I/O", |lab, _| file(lab, &format!("{CTL}/nvme0/fast_io_fail_tmo"), "600\n")),
        ("queueing I/O", |lab, _| file(lab, &format!("{CTL}/nvme0/state"), "connecting\n")),
        ("queueing I/O", |lab, _| file(lab, &format!("{MD}/md/dev-nvme0n1/state"), "spare\n")),
        ("are made equal", |lab, _| file(lab, &format!("{MD}/md/sync_action"), "resync\n")),
        ("which is no leg", |lab, _| {
            let mut now = lab.host.last().unwrap().snapshot.clone();
            now.arrays.clear();
            let controllers = lab.host.last().unwrap().controllers.clone();
            let seen = Seen { snapshot: now, controllers, ..Seen::default() };
            *lab.host.last.lock().unwrap() = Some(Arc::new(seen));
        }),
    ];
    for (said, disturb) in table {
        let (lab, sockets) = pulled();
        file(&lab, &format!("{CTL}/nvme1/fast_io_fail_tmo"), "off\n");
        let mut action = fail_io(controller(&lab, 1), soon);
        disturb(&lab, &mut action);
        let why = refusal(lab.act(&action));
        assert!(why.contains(said), "{said}: {why}");
        assert_eq!(sockets.attribute("nvme1", "fast_io_fail_tmo"), "off");
    }
}

#[test]
fn a_controller_that_keeps_io_while_connecting_is_deleted() {
    let (lab, _) = pulled();
    file(&lab, &format!("{CTL}/nvme1/state"), "connecting\n");
    let action = delete(&lab);
    let away = r#"mv "$dir/../root/sys/devices/virtual/nvme-fabrics/ctl/nvme1" "$dir/../away""#;
    lab.dir.tool_does("helper", away);
    let inode =
        lab.host.last().unwrap().inodes["nvme1".parse::<ControllerName>().as_ref().unwrap()];
    assert_eq!(lab.act(&action), Outcome::Changed);
    assert_eq!(lab.acts(), [format!("helper helper delete-controller nvme1 {inode}")]);
    assert_eq!(lab.act(&action), Outcome::AlreadySo);
}

#[test]
fn a_controller_is_not_deleted_unless_it_is_connecting_and_could_be_made_again() {
    let table: [(&str, Disturb); 6] = [
        ("nvme1 is live", |lab, _| file(lab, &format!("{CTL}/nvme1/state"), "live\n")),
        ("nvme1 is resetting", |lab, _| file(lab, &format!("{CTL}/nvme1/state"), "resetting\n")),
        ("0 other in-sync", |lab, _| file(lab, &format!("{CTL}/nvme0/state"), "connecting\n")),
        ("I/O still goes through nvme7", |lab, _| second_path(lab)),
        ("carries nvme1c1n2, too", |lab, _| {
            file(lab, &format!("{CTL}/nvme1/nvme1c1n2/ana_state"), "optimized\n");
        }),
        ("could be connected again", |lab, _| {
            let host = &lab.host;
            let mut snapshot = host.last().unwrap().snapshot.clone();
            for array in &mut snapshot.arrays {
                for leg in &mut array.legs {
                    if let Backing::Namespace(namespace) = &mut leg.backing {
                        namespace.paths[0].params = Observed::Unknown(UnknownWhy::Unsupported);
                    }
                }
            }
            let last = host.last().unwrap();
            let seen = Seen {
                snapshot,
                inodes: last.inodes.clone(),
                controllers: last.controllers.clone(),
                hung: last.hung.clone(),
            };
            *host.last.lock().unwrap() = Some(Arc::new(seen));
        }),
    ];
    for (said, disturb) in table {
        let (lab, _) = pulled();
        file(&lab, &format!("{CTL}/nvme1/state"), "connecting\n");
        let mut action = delete(&lab);
        disturb(&lab, &mut action);
        let why = refusal(lab.act(&action));
        assert!(why.contains(said), "{said}: {why}");
        assert_eq!(lab.dir.calls(), Vec::<String>::new(), "{said}");
    }
}

#[test]
fn a_controller_is_connected_as_it_was() {
    let (lab, _) = pulled();
    let seen = lab.host.last().unwrap();
    let found = seen.snapshot.namespaces.iter().find(|it| it.device == name(1)).unwrap();
    let params = found.paths[0].params.known().unwrap().clone();
    let action = HostAction::Reconnect { params };
    assert_eq!(lab.act(&action), Outcome::AlreadySo);
    let ctl = lab.dir.path().join(format!("{CTL}/nvme1"));
    std::fs::rename(&ctl, lab.dir.path().join("away")).unwrap();
    lab.dir.tool_does("nvme", "echo 'failed to write: Connection refused' >&2; exit 1");
    assert!(matches!(why_again(lab.act(&action)), RetryWhy::Unreachable { .. }));
    // The kernel gives the name again, or another one.
    let make = r#"
        c="$dir/../root/sys/class/nvme/nvme5"; mkdir -p "$c"
        echo nqn.2014-08.org.nvmexpress:uuid:replica-b >"$c/subsysnqn"; echo live >"$c/state""#;
    lab.dir.tool_does("nvme", make);
    assert_eq!(lab.act(&action), Outcome::Changed);
    assert_eq!(
        lab.acts()[0],
        "nvme connect --transport=tcp --traddr=10.10.2.2 --trsvcid=4420 \
         --nqn=nqn.2014-08.org.nvmexpress:uuid:replica-b --keep-alive-tmo=5 --reconnect-delay=2 \
         --ctrl-loss-tmo=600 --nr-io-queues=2 --host-traddr=10.10.2.1 --host-iface=heal1 \
         --hostnqn=nqn.2014-08.org.nvmexpress:uuid:2cd2c43b-a90a-45c1-a8cd-86b33ab273b5 \
         --hostid=2cd2c43b-a90a-45c1-a8cd-86b33ab273b5"
    );
    lab.dir.tool_does("nvme", "echo 'already connected' >&2; exit 1");
    assert_eq!(lab.act(&action), Outcome::AlreadySo);
}
