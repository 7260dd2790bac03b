//! Connecting and disconnecting.

use super::*;

pub(super) fn connect(portals: &[u32]) -> HostAction {
    let target = Target {
        nqn: nqn(3),
        namespace: namespace_id(3),
        portals: portals.iter().copied().map(portal).collect(),
        size: None,
    };
    HostAction::Connect { target, options: ConnectOptions::default() }
}

pub(super) const MAKE: &str = r#"
    c="$dir/../root/sys/class/nvme/nvme3"; mkdir -p "$c"
    echo nqn.test:3 >"$c/subsysnqn"; echo live >"$c/state""#;

#[test]
fn a_portal_without_a_controller_is_connected() {
    let lab = Lab::new(&HostSnapshot::default());
    lab.dir.tool_does("nvme", MAKE);
    assert_eq!(lab.act(&connect(&[3])), Outcome::Changed);
    let calls = lab.acts();
    assert!(calls[0].starts_with("nvme connect --transport=tcp --traddr=192.0.2.3"), "{calls:?}");
    // The controller has no namespace yet, so nobody knows its portal: the kernel is asked again.
    let already = "echo 'could not add new controller: already connected' >&2; exit 1";
    lab.dir.tool_does("nvme", already);
    assert_eq!(lab.act(&connect(&[3])), Outcome::AlreadySo);
}

#[test]
fn a_portal_that_has_a_controller_is_left_to_the_kernel() {
    for state in [ControllerState::Live, ControllerState::Connecting, ControllerState::Resetting] {
        let mut now = degraded();
        now.namespaces[0].paths[0].state = Observed::Known(state);
        let lab = Lab::new(&now);
        lab.controller("nvme3", "nqn.test:3", &state.to_string());
        assert_eq!(lab.act(&connect(&[3])), Outcome::AlreadySo);
        assert_eq!(lab.dir.calls(), Vec::<String>::new());
    }
}

#[test]
fn one_portal_of_two_is_enough() {
    let lab = Lab::new(&HostSnapshot::default());
    let shell = format!("case \"$*\" in *192.0.2.4*) echo refused >&2; exit 1;; esac\n{MAKE}");
    lab.dir.tool_does("nvme", &shell);
    assert_eq!(lab.act(&connect(&[4, 3])), Outcome::Changed);
    assert_eq!(lab.acts().len(), 2);
}

#[test]
fn no_portal_at_all_is_not_now() {
    let lab = Lab::new(&HostSnapshot::default());
    // A local drive, and one whose NQN is none, are nobody's business.
    lab.controller("nvme0", "nqn.2014.08.org.nvmexpress:144d144dS4EW   SSD 970", "live");
    lab.controller("nvme1", "nqn.test:1", "live");
    lab.dir.tool_does("nvme", "echo 'failed to write: Connection refused' >&2; exit 1");
    let RetryWhy::Unreachable { detail } = why_again(lab.act(&connect(&[3, 4]))) else {
        panic!("it is unreachable");
    };
    assert_eq!(
        detail,
        "tcp://192.0.2.3:4420: failed to write: Connection refused; \
         tcp://192.0.2.4:4420: failed to write: Connection refused"
    );
}

fn disconnect() -> HostAction {
    let controllers = vec![ControllerName::new("nvme3").unwrap()];
    HostAction::Disconnect { nqn: nqn(3), controllers }
}

#[test]
fn a_subsystem_that_nothing_uses_is_disconnected() {
    let lab = Lab::new(&degraded());
    assert_eq!(lab.act(&disconnect()), Outcome::AlreadySo);
    lab.controller("nvme3", "nqn.test:3", "live");
    lab.dir.tool_does("nvme", r#"mv "$dir/../root/sys/class/nvme/nvme3" "$dir/../away""#);
    assert_eq!(lab.act(&disconnect()), Outcome::Changed);
    assert_eq!(lab.acts(), ["nvme disconnect --nqn=nqn.test:3"]);
}

#[test]
fn a_subsystem_in_use_stays() {
    let mut held = degraded();
    held.namespaces[0].holders = Observed::Known(vec![DeviceName::new("dm-0").unwrap()]);
    let mut mounted = degraded();
    mounted.namespaces[0].in_use = Observed::Known(true);
    let mut unknown = degraded();
    unknown.namespaces[0].in_use = Observed::Unknown(UnknownWhy::ReadFailed);
    let mut released = with_third(Some(1), IN_SYNC);
    for namespace in &mut released.namespaces {
        namespace.holders = Observed::Known(Vec::new());
    }
    let mut unreadable = degraded();
    unreadable.unreadable.push(DeviceName::new("md5").unwrap());
    for now in [held, mounted, unknown, released, unreadable] {
        let lab = Lab::new(&now);
        lab.controller("nvme3", "nqn.test:3", "live");
        let why = refusal(lab.act(&disconnect()));
        assert!(why.starts_with("guard:"), "{why}");
        assert_eq!(lab.dir.calls(), Vec::<String>::new());
    }
}

#[test]
fn a_controller_nobody_spoke_of_keeps_the_subsystem() {
    let lab = Lab::new(&degraded());
    lab.controller("nvme3", "nqn.test:3", "live");
    lab.controller("nvme7", "nqn.test:3", "connecting");
    assert!(refusal(lab.act(&disconnect())).contains("nvme7 was not there before"));
    assert_eq!(lab.dir.calls(), Vec::<String>::new());
}

#[test]
fn a_host_that_cannot_be_listed_is_not_one_without_use() {
    let lab = Lab::new(&HostSnapshot::default());
    lab.controller("nvme3", "nqn.test:3", "live");
    std::fs::rename(lab.dir.path().join("root/sys/block"), lab.dir.path().join("away")).unwrap();
    assert_eq!(lab.act(&disconnect()), Outcome::Unknown(UnknownWhy::Vanished));
    assert_eq!(lab.dir.calls(), Vec::<String>::new());
}
