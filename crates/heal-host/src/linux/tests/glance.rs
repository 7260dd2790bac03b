//! A second look at one array, over a tree like the kernel's.

use super::sysfs::unfold;
use super::*;

/// Two legs: `nvme0n1` through `nvme0`, and `nvme1n1` through `nvme1`.
pub(super) const MD: &str = "root/sys/devices/virtual/block/md127";
pub(super) const CTL: &str = "root/sys/devices/virtual/nvme-fabrics/ctl";
const SUBSYSTEM: &str = "root/sys/devices/virtual/nvme-subsystem/nvme-subsys1";

/// A host that is a tree.
pub(super) fn tree() -> Lab {
    let mut lab = Lab::new(&HostSnapshot::default());
    std::fs::rename(lab.dir.path().join("root"), lab.dir.path().join("unused")).unwrap();
    unfold(&lab.dir);
    let eye = SysfsEye { root: lab.host.root.clone(), cache: PortalCache::new() };
    lab.host.eye = Arc::new(Mutex::new(eye));
    lab
}

pub(super) fn md127() -> ArrayId {
    "8e0a1b6c:1f2e3d4c:5b6a7988:00112233".parse().unwrap()
}

fn seen(lab: &mut Lab) -> HostSnapshot {
    let mut all = lab.host.look();
    all.arrays.retain(|array| array.id == md127());
    all.namespaces.retain(|namespace| namespace.device != name(2));
    all.controllers.clear(); // Nobody who glances asks for those.
    all
}

fn path(snapshot: &HostSnapshot) -> &PathSnapshot {
    let found = snapshot.namespaces.iter().find(|it| it.device == name(1)).unwrap();
    &found.paths[0]
}

fn second(snapshot: &HostSnapshot) -> &LegSnapshot {
    snapshot.arrays[0].legs.iter().find(|leg| leg.device == name(1)).unwrap()
}

#[test]
fn a_glance_shows_what_a_look_shows() {
    let mut lab = tree();
    let blind = lab.host.glance(md127());
    assert_eq!((blind.arrays.len(), blind.unreadable.len()), (0, 1), "nobody has looked");
    let looked = seen(&mut lab);
    assert_eq!(lab.host.glance(md127()), looked);

    lab.dir.file(&format!("{MD}/md/array_state"), "write-pending\n");
    lab.dir.file(&format!("{MD}/md/sync_action"), "recover\n");
    lab.dir.file(&format!("{MD}/md/degraded"), "1\n");
    lab.dir.file(&format!("{MD}/inflight"), "       1        7\n");
    lab.dir.file(&format!("{MD}/md/dev-nvme1n1/state"), "faulty,blocked\n");
    lab.dir.file(&format!("{MD}/md/dev-nvme1n1/slot"), "none\n");
    lab.dir.file(&format!("{MD}/md/dev-nvme1n1/bad_blocks"), "2064 8\n");
    lab.dir.file(&format!("{CTL}/nvme1/state"), "connecting\n");
    lab.dir.file(&format!("{CTL}/nvme1/fast_io_fail_tmo"), "1\n");
    lab.dir.file(&format!("{CTL}/nvme1/nvme1c1n1/ana_state"), "inaccessible\n");
    let now = lab.host.glance(md127());
    assert_eq!(now.arrays[0].in_flight, Observed::Known(8));
    assert!(second(&now).is_faulty() && path(&now).portal.known().is_some());
    assert_eq!(path(&now).ana_usable, Observed::Known(false));
    assert_eq!(now, seen(&mut lab));
}

#[test]
fn a_glance_does_not_wait_for_a_look() {
    let mut lab = tree();
    lab.host.look();
    let eye = Arc::clone(&lab.host.eye);
    let _held = eye.lock().unwrap();
    assert_eq!(lab.host.glance(md127()).arrays.len(), 1);
}

#[test]
fn a_device_that_left_is_gone_and_a_stranger_of_its_name_is_not_it() {
    let mut lab = tree();
    lab.host.look();
    let disk = format!("{SUBSYSTEM}/nvme1n1");
    lab.dir.file(&format!("{disk}/diskseq"), "99\n");
    let now = lab.host.glance(md127());
    assert_eq!(second(&now).backing, Backing::Unreadable, "held, but not the one that was seen");
    assert!(now.namespaces.iter().all(|namespace| namespace.device != name(1)));

    std::fs::remove_file(lab.dir.path().join(format!("{disk}/holders/md127"))).unwrap();
    assert_eq!(second(&lab.host.glance(md127())).backing, Backing::Gone);
    let away = lab.dir.path().join("away");
    std::fs::rename(lab.dir.path().join(&disk), away).unwrap();
    let now = lab.host.glance(md127());
    assert_eq!(second(&now).backing, Backing::Gone);
    assert_eq!(second(&now).md_device, Observed::Unknown(UnknownWhy::Vanished));
}

#[test]
fn a_member_that_md_let_go_is_none() {
    let mut lab = tree();
    lab.host.look();
    let member = lab.dir.path().join(format!("{MD}/md/dev-nvme1n1"));
    std::fs::rename(member, lab.dir.path().join("away")).unwrap();
    assert_eq!(lab.host.glance(md127()).arrays[0].legs.len(), 1);
}

#[test]
fn an_array_that_is_another_one_by_now_is_not_there() {
    let mut lab = tree();
    lab.host.look();
    lab.dir.file(&format!("{MD}/md/uuid"), "11111111-1f2e-3d4c-5b6a-798800112233\n");
    assert_eq!(lab.host.glance(md127()), HostSnapshot::default());
    lab.dir.file(&format!("{MD}/md/uuid"), "");
    assert_eq!(lab.host.glance(md127()).unreadable.len(), 1);
}

#[test]
fn a_controller_of_a_known_name_is_a_new_one_and_a_new_path_is_seen() {
    let mut lab = tree();
    lab.host.look();
    // Another directory is another inode, which is another controller.
    let old = lab.dir.path().join(format!("{CTL}/nvme1"));
    std::fs::rename(&old, lab.dir.path().join("away")).unwrap();
    for (name, text) in [("state", "live\n"), ("nvme1c1n1/ana_state", "optimized\n")] {
        lab.dir.file(&format!("{CTL}/nvme1/{name}"), text);
    }
    lab.dir.file(&format!("{CTL}/nvme7/state"), "live\n");
    lab.dir.file(&format!("{CTL}/nvme7/nvme1c7n1/ana_state"), "optimized\n");
    for link in ["root/sys/class/nvme/nvme7", &format!("{SUBSYSTEM}/nvme7")] {
        let target = lab.dir.path().join(format!("{CTL}/nvme7"));
        std::os::unix::fs::symlink(target, lab.dir.path().join(link)).unwrap();
    }
    let now = lab.host.glance(md127());
    let Backing::Namespace(namespace) = &second(&now).backing else { panic!("{now:?}") };
    let names: Vec<&str> = namespace.paths.iter().map(|path| path.controller.as_str()).collect();
    assert_eq!(names, ["nvme1", "nvme7"]);
    for path in &namespace.paths {
        assert!(path.is_usable());
        assert_eq!(path.portal, Observed::Unknown(UnknownWhy::NotReadYet));
    }
}

#[test]
fn a_namespace_that_shares_something_with_a_leg_is_in_the_glance() {
    let mut lab = tree();
    lab.host.look();
    let mut now = lab.host.survey().snapshot.clone();
    let free = NamespaceSnapshot { paths: Vec::new(), ..namespace(3) };
    let shared = NamespaceSnapshot { device: name(4), ..namespace(1) };
    now.namespaces.extend([free, shared]);
    let seen = Seen { snapshot: now, ..Seen::default() };
    let now = lab.host.glance_from(&seen, md127());
    let names: Vec<&str> = now.namespaces.iter().map(|found| found.device.as_str()).collect();
    assert_eq!(names, ["nvme0n1", "nvme1n1", "nvme4n1"]);
}

#[test]
fn a_glance_is_quick() {
    let mut lab = tree();
    lab.host.look();
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(lab.host.glance(md127()).arrays.len(), 1);
    }
    let glances = begun.elapsed() / 100;
    let begun = Instant::now();
    for _ in 0..10 {
        lab.host.look();
    }
    println!("a glance takes {glances:?}, a look {:?}", begun.elapsed() / 10);
    assert!(glances < Duration::from_millis(20), "{glances:?}");
}
