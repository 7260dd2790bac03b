//! The same host over a tree like the kernel's, read by the real look.

use super::*;

/// Unfolds `testdata/mirror.tree`: `f PATH CONTENT`, `l PATH TARGET`, `d PATH`.
pub(super) fn unfold(dir: &TempDir) {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/mirror.tree");
    for line in std::fs::read_to_string(tree).unwrap().lines() {
        let mut words = line.splitn(3, ' ');
        let (kind, path) = (words.next().unwrap(), words.next().unwrap_or_default());
        let rest = words.next().unwrap_or_default();
        let path = format!("root/{path}");
        let full = dir.path().join(&path);
        match kind {
            "f" => drop(dir.file(&path, &rest.replace("\\n", "\n"))),
            "l" => {
                std::fs::create_dir_all(full.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(rest, full).unwrap();
            }
            "d" => std::fs::create_dir_all(full).unwrap(),
            _ => {}
        }
    }
}

#[test]
fn a_faulty_leg_is_found_removed_and_seen_to_be_gone() {
    let mut lab = Lab::new(&HostSnapshot::default());
    std::fs::rename(lab.dir.path().join("root"), lab.dir.path().join("unused")).unwrap();
    unfold(&lab.dir);
    let eye = SysfsEye { root: lab.host.root.clone(), cache: PortalCache::new() };
    lab.host.eye = Arc::new(Mutex::new(eye));

    let whole = lab.host.look();
    let array = whole.arrays.iter().find(|array| array.device.as_str() == "md127").unwrap();
    let leg = array.legs.iter().find(|leg| leg.slot == Some(Slot(1))).unwrap();
    let Backing::Namespace(namespace) = &leg.backing else {
        panic!("it stands on a namespace");
    };
    let id = *namespace.ids.known().unwrap().iter().next().unwrap();
    let wanted = LegRef { identity: namespace.identity(&id), ..leg_ref(leg, None) };
    let action = HostAction::RemoveLeg { array: array.id, leg: wanted };
    assert!(refusal(lab.act(&action)).contains("neither faulty nor an idle spare"));

    let md = format!("root/sys/block/{}/md", array.device);
    lab.dir.file(&format!("{md}/dev-{}/state", leg.device), "faulty\n");
    lab.dir.file(&format!("{md}/dev-{}/slot", leg.device), "none\n");
    lab.dir.tool_does("helper", &format!("rm -r \"$dir/../{md}/dev-$5\""));
    assert_eq!(lab.act(&action), Outcome::Changed);
    assert_eq!(lab.act(&action), Outcome::AlreadySo);
    let call =
        format!("helper helper set-attr {} {} {} remove", array.device, array.id, leg.device);
    assert_eq!(lab.acts(), [call]);
}

#[test]
fn a_live_controller_is_known_by_its_portal() {
    let mut lab = Lab::new(&HostSnapshot::default());
    std::fs::rename(lab.dir.path().join("root"), lab.dir.path().join("unused")).unwrap();
    unfold(&lab.dir);
    let eye = SysfsEye { root: lab.host.root.clone(), cache: PortalCache::new() };
    lab.host.eye = Arc::new(Mutex::new(eye));

    let now = lab.host.look();
    let namespace = now.namespaces.first().unwrap();
    let target = Target {
        nqn: namespace.nqn.known().unwrap().clone(),
        namespace: *namespace.ids.known().unwrap().iter().next().unwrap(),
        portals: vec![namespace.paths[0].portal.known().unwrap().clone()],
        size: None,
    };
    let nqn = target.nqn.clone();
    let connect = HostAction::Connect { target, options: ConnectOptions::default() };
    assert_eq!(lab.act(&connect), Outcome::AlreadySo);
    let controllers = vec![namespace.paths[0].controller.clone()];
    let why = refusal(lab.act(&HostAction::Disconnect { nqn, controllers }));
    assert!(why.contains("is held by md127"), "{why}");
    assert_eq!(lab.dir.calls(), Vec::<String>::new());
}
