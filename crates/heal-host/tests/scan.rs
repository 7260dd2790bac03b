//! One look at captured trees, and at what a tree looks like in the middle of a change.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test may fail and say why"
)]

mod captured;

use std::time::Duration;

use captured::Tree;
use heal_host::{PortalCache, look};
use heal_types::{
    ArraySnapshot, ArrayState, Backing, Bitmap, ControllerState, FastIoFail, HostSnapshot, KeyRef,
    LegFlag, LegSnapshot, Level, Metadata, NamespaceId, NamespaceSnapshot, Observed, PathHealth,
    Slot, SyncAction, UnknownWhy,
};

const MD127: &str = "sys/devices/virtual/block/md127";
const NVME0: &str = "sys/devices/virtual/nvme-fabrics/ctl/nvme0";

fn look_once(tree: &Tree) -> HostSnapshot {
    look(&tree.root(), &mut PortalCache::new())
}

fn array<'a>(snapshot: &'a HostSnapshot, device: &str) -> &'a ArraySnapshot {
    let found = snapshot.arrays.iter().find(|array| array.device.as_str() == device);
    found.unwrap_or_else(|| panic!("{device} is not in {snapshot:#?}"))
}

fn leg<'a>(array: &'a ArraySnapshot, device: &str) -> &'a LegSnapshot {
    array.legs.iter().find(|leg| leg.device.as_str() == device).unwrap()
}

fn namespace<'a>(snapshot: &'a HostSnapshot, device: &str) -> &'a NamespaceSnapshot {
    snapshot.namespaces.iter().find(|found| found.device.as_str() == device).unwrap()
}

fn names(snapshot: &HostSnapshot) -> Vec<&str> {
    snapshot.namespaces.iter().map(|found| found.device.as_str()).collect()
}

fn id(text: &str) -> NamespaceId {
    text.parse().unwrap()
}

#[test]
fn a_mirror_of_a_real_kernel_reads_as_it_is() {
    let tree = Tree::captured("debian-6.1-whole");
    let snapshot = look_once(&tree);
    assert_eq!(snapshot.unreadable, []);
    assert_eq!(names(&snapshot), ["nvme0n1", "nvme1n1"]);
    let md127 = array(&snapshot, "md127");
    assert_eq!(md127.id.to_string(), "9a0bb65f:b81bc96c:fbb101b2:43b5ab1a");
    assert_eq!(md127.alias.as_ref().unwrap().as_str(), "vol");
    assert_eq!(md127.bitmap, Observed::Known(Bitmap::Present));
    assert_eq!(md127.in_sync().count(), 2);
    for leg in &md127.legs {
        assert!(leg.md_device.known().is_some());
        let Backing::Namespace(namespace) = &leg.backing else { panic!("{leg:?}") };
        assert!(namespace.has_usable_path());
        assert!(namespace.paths[0].portal.known().is_some());
        assert_eq!(namespace.holders.known().unwrap().len(), 1);
    }
    assert!(array(&snapshot, "md126").legs.iter().all(|leg| leg.backing == Backing::Local));
}

#[test]
fn a_leg_lost_under_a_real_kernel_is_gone_and_returns_under_another_name() {
    let lost = look_once(&Tree::captured("debian-6.12-lost"));
    assert_eq!(names(&lost), ["nvme0n1"]);
    let back = look_once(&Tree::captured("debian-6.12-back"));
    assert_eq!(names(&back), ["nvme0n1", "nvme1n2"]);
    for snapshot in [&lost, &back] {
        let md127 = array(snapshot, "md127");
        assert_eq!(md127.degraded, Observed::Known(1));
        let gone = leg(md127, "nvme1n1");
        assert_eq!((gone.slot, &gone.backing), (None, &Backing::Gone));
        assert!(gone.is_faulty() && leg(md127, "nvme0n1").is_in_sync());
        assert_eq!(snapshot.unreadable, []);
    }
    assert_eq!(namespace(&back, "nvme1n2").holders, Observed::Known(vec![]));
    // The controller outlives the namespace it led to.
    for snapshot in [&lost, &back] {
        let shown: Vec<_> = snapshot.controllers.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(shown, ["nvme0", "nvme1"]);
        assert!(snapshot.controllers.iter().all(|it| it.reference().is_some()));
        assert!(snapshot.controllers.iter().all(|it| it.fast_io_fail.known().is_some()));
    }
}

#[test]
fn a_whole_mirror_reads_as_it_is() {
    let tree = Tree::captured("by-hand-mirror");
    let snapshot = look_once(&tree);
    assert_eq!(snapshot.unreadable, []);
    let md127 = array(&snapshot, "md127");
    assert_eq!(md127.id.to_string(), "8e0a1b6c:1f2e3d4c:5b6a7988:00112233");
    assert_eq!(md127.alias.as_ref().unwrap().as_str(), "vol-7");
    assert_eq!(md127.dev.to_string(), "9:127");
    assert_eq!((md127.level, md127.metadata), (Level::Raid1, Metadata::V1));
    assert_eq!(md127.state, Observed::Known(ArrayState::Clean));
    assert_eq!((md127.raid_disks, md127.degraded), (2, Observed::Known(0)));
    assert_eq!(md127.sync_action, Observed::Known(SyncAction::Idle));
    assert_eq!((md127.sync_progress, md127.reshaping), (None, false));
    assert!(md127.component_size.is_known_and(|size| size.0 == 2_093_056));
    assert_eq!(md127.logical_block, Observed::Known(512));
    assert_eq!(md127.bitmap, Observed::Known(Bitmap::Present));
    assert_eq!(md127.in_sync().count(), 2);
    for (slot, leg) in md127.legs.iter().enumerate() {
        assert_eq!(leg.slot, Some(Slot(u16::try_from(slot).unwrap())));
        assert_eq!(leg.bad_blocks, Observed::Known(false));
        assert!(leg.data_offset.is_known_and(|offset| offset.0 == 2048));
        let last = format!("{:08x}", slot + 1);
        assert!(leg.md_device.is_known_and(|id| id.to_string().ends_with(&last)));
    }
    assert!(md127.legs[1].is_namespace(&id("nguid.0123456789abcdef0123456789abcdef")));
}

#[test]
fn a_namespace_reads_as_it_is() {
    let tree = Tree::captured("by-hand-mirror");
    let snapshot = look_once(&tree);
    assert_eq!(names(&snapshot), ["nvme0n1", "nvme1n1"]);
    let found = namespace(&snapshot, "nvme1n1");
    assert_eq!(found.dev.to_string(), "259:3");
    assert!(found.diskseq.is_known_and(|seq| seq.0 == 23));
    assert_eq!(
        found.ids.known().unwrap().to_string(),
        "uuid.6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0a002 nguid.0123456789abcdef0123456789abcdef \
         eui.0123456789abcdef"
    );
    assert!(found.nqn.is_known_and(|nqn| nqn.as_str().ends_with("replica-b")));
    assert!(found.size.is_known_and(|size| size.bytes() == 1 << 30));
    assert_eq!(found.logical_block, Observed::Known(512));
    assert_eq!(found.read_only, Observed::Known(false));
    assert!(found.holders.is_known_and(|holders| holders[0].as_str() == "md127"));
    assert_eq!((found.in_use, found.partitions), (Observed::Known(false), Observed::Known(0)));
    let [path] = found.paths.as_slice() else { panic!("{found:?}") };
    assert!(path.is_usable());
    let portal = path.portal.known().unwrap();
    assert_eq!(portal.to_string(), "tcp://10.10.2.2:4420");
    assert_eq!(portal.host_interface.as_ref().unwrap().as_str(), "heal1");
}

#[test]
fn a_local_mirror_is_seen_and_stands_on_local_disks() {
    let tree = Tree::captured("by-hand-mirror");
    let snapshot = look_once(&tree);
    let md0 = array(&snapshot, "md0");
    assert_eq!(md0.alias, None);
    assert_eq!(md0.bitmap, Observed::Known(Bitmap::Absent));
    assert_eq!(md0.sync_progress.unwrap().percent(), 1);
    for leg in &md0.legs {
        assert_eq!(leg.backing, Backing::Local);
        assert_eq!(leg.md_device, Observed::Unknown(UnknownWhy::NoAnswer));
    }
}

#[test]
fn a_reused_name_does_not_become_the_lost_leg() {
    let tree = Tree::captured("by-hand-incident");
    let snapshot = look_once(&tree);
    let md127 = array(&snapshot, "md127");
    assert_eq!(md127.state, Observed::Known(ArrayState::WritePending));
    let lost = leg(md127, "nvme1n1");
    assert_eq!((lost.slot, &lost.backing), (None, &Backing::Gone));
    assert!(lost.is_faulty() && lost.flags.has(LegFlag::WantReplacement));
    assert_eq!(lost.md_device, Observed::Unknown(UnknownWhy::Vanished));
    assert_eq!(leg(md127, "nvme0n1").bad_blocks, Observed::Known(true));

    let stranger = namespace(&snapshot, "nvme1n1");
    assert!(stranger.goes_by(&id("nguid.0123456789abcdef0123456789abcdef")));
    assert_eq!(stranger.ids.known().unwrap().iter().count(), 1, "the NGUID is no UUID");
    assert_eq!(stranger.read_only, Observed::Known(true));
    assert_eq!(stranger.in_use, Observed::Known(true));
    let returned = namespace(&snapshot, "nvme1n2");
    assert!(returned.goes_by(&id("uuid.6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0a002")));
    assert_eq!(returned.holders, Observed::Known(vec![]));
    assert!(returned.has_usable_path(), "a controller without ANA");
}

#[test]
fn each_path_tells_its_own_state() {
    let tree = Tree::captured("by-hand-incident");
    let snapshot = look_once(&tree);
    assert_eq!(names(&snapshot), ["nvme0n1", "nvme1n1", "nvme1n2"], "loop is no fabric of ours");
    let paths = &namespace(&snapshot, "nvme0n1").paths;
    assert_eq!(paths.len(), 2);
    assert!(paths[0].is_usable());
    assert_eq!(paths[1].state, Observed::Known(ControllerState::Connecting));
    assert_eq!(paths[1].portal, Observed::Unknown(UnknownWhy::WouldBlock));
    assert_eq!(paths[1].ana_usable, Observed::Known(false));
    let v6 = namespace(&snapshot, "nvme1n2").paths[0].portal.known().unwrap().to_string();
    assert_eq!(v6, "tcp://[fd00::2]:4421");
}

#[test]
fn a_recovering_array_with_a_vanished_member_reads_as_it_is() {
    let tree = Tree::captured("by-hand-incident");
    let snapshot = look_once(&tree);
    let md126 = array(&snapshot, "md126");
    assert_eq!(md126.level, Level::Raid10 { layout: 258 });
    assert_eq!(md126.metadata, Metadata::Clustered);
    assert_eq!(md126.raid_disks, 3);
    assert_eq!(md126.alias.as_ref().unwrap().as_str(), "stripe");
    assert_eq!(md126.sync_action, Observed::Known(SyncAction::Recover));
    assert_eq!(md126.sync_progress.unwrap().done.0, 2048);
    assert_eq!(leg(md126, "sdb1").backing, Backing::Local);
    assert!(leg(md126, "sdc").is_recovering());
    assert_eq!(leg(md126, "sdd").backing, Backing::Gone);
}

#[test]
fn a_name_without_an_array_is_none_and_is_not_unreadable() {
    let tree = Tree::captured("by-hand-incident");
    let snapshot = look_once(&tree);
    let names: Vec<&str> = snapshot.arrays.iter().map(|array| array.device.as_str()).collect();
    assert_eq!(names, ["md126", "md127"]);
    assert_eq!(snapshot.unreadable, []);
}

#[test]
fn an_array_that_cannot_be_read_is_not_gone() {
    for (attribute, content) in [
        ("raid_disks", None),
        ("raid_disks", Some("")),
        ("raid_disks", Some("many\n")),
        ("level", None),
        ("metadata_version", None),
        ("metadata_version", Some("2.0\n")),
        ("reshape_position", None),
        ("reshape_position", Some("")),
    ] {
        let tree = Tree::captured("by-hand-mirror");
        let path = format!("{MD127}/md/{attribute}");
        tree.remove(&path);
        if let Some(content) = content {
            tree.file(&path, content);
        }
        let snapshot = look_once(&tree);
        assert_eq!(snapshot.arrays.len(), 1, "{attribute} {content:?}");
        assert_eq!(snapshot.unreadable.len(), 1, "{attribute} {content:?}");
        assert_eq!(snapshot.unreadable[0].as_str(), "md127");
    }
}

#[test]
fn without_the_lists_every_array_seen_before_is_unreadable() {
    let tree = Tree::captured("by-hand-mirror");
    let mut cache = PortalCache::new();
    assert_eq!(look(&tree.root(), &mut cache).arrays.len(), 2);
    tree.remove("sys/class/nvme");
    tree.file("sys/class/nvme", "not a directory");
    for _ in 0..2 {
        let blind = look(&tree.root(), &mut cache);
        assert_eq!((blind.arrays.len(), blind.unreadable.len()), (0, 2));
    }
    tree.remove("sys/class/nvme");
    tree.remove("sys/block");
    let blind = look(&tree.root(), &mut cache);
    assert_eq!((blind.arrays.len(), blind.unreadable.len()), (0, 2));
}

#[test]
fn a_facts_absence_makes_it_unknown_and_nothing_else() {
    let tree = Tree::captured("by-hand-mirror");
    for attribute in ["degraded", "sync_action", "sync_completed", "component_size"] {
        tree.remove(&format!("{MD127}/md/{attribute}"));
    }
    tree.file(&format!("{MD127}/md/array_state"), "dreaming\n");
    let snapshot = look_once(&tree);
    let md127 = array(&snapshot, "md127");
    assert_eq!(md127.degraded, Observed::Unknown(UnknownWhy::Unsupported));
    assert_eq!(md127.sync_action, Observed::Unknown(UnknownWhy::Unsupported));
    assert_eq!(md127.component_size, Observed::Unknown(UnknownWhy::Vanished));
    assert_eq!(md127.state, Observed::Unknown(UnknownWhy::Malformed));
}

#[test]
fn a_kernel_without_the_uuid_attribute_is_read_through_udev() {
    let tree = Tree::captured("by-hand-mirror");
    tree.remove(&format!("{MD127}/md/uuid"));
    assert_eq!(array(&look_once(&tree), "md127").alias.as_ref().unwrap().as_str(), "vol-7");

    tree.remove("run/udev/data/b9:127");
    let snapshot = look_once(&tree);
    assert_eq!(snapshot.unreadable.len(), 1, "it has a UUID, nobody has said it yet");

    tree.file(&format!("{MD127}/md/array_state"), "inactive\n");
    let snapshot = look_once(&tree);
    assert_eq!((snapshot.arrays.len(), snapshot.unreadable.len()), (1, 0), "it is stopped");
}

#[test]
fn a_kernel_without_a_bitmap_directory_tells_by_its_policy() {
    let tree = Tree::captured("by-hand-mirror");
    tree.remove(&format!("{MD127}/md/bitmap"));
    let bitmap = |tree: &Tree| array(&look_once(tree), "md127").bitmap;
    assert_eq!(bitmap(&tree), Observed::Known(Bitmap::Present));
    tree.file(&format!("{MD127}/md/consistency_policy"), "resync\n");
    assert_eq!(bitmap(&tree), Observed::Known(Bitmap::Absent));
    tree.file(&format!("{MD127}/md/consistency_policy"), "unknown\n");
    assert_eq!(bitmap(&tree), Observed::Unknown(UnknownWhy::Malformed));
}

#[test]
fn a_member_that_is_just_being_bound_or_unbound_is_not_gone() {
    let tree = Tree::captured("by-hand-mirror");
    tree.remove("sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/holders/md127");
    assert_eq!(leg(array(&look_once(&tree), "md127"), "nvme0n1").backing, Backing::Gone);
    tree.remove(&format!("{MD127}/slaves/nvme0n1"));
    assert_eq!(leg(array(&look_once(&tree), "md127"), "nvme0n1").backing, Backing::Unreadable);
    tree.remove(&format!("{MD127}/md/dev-nvme0n1/block"));
    assert_eq!(leg(array(&look_once(&tree), "md127"), "nvme0n1").backing, Backing::Unreadable);
    // With its attributes gone, MD has let go of it.
    tree.remove(&format!("{MD127}/md/dev-nvme0n1/state"));
    let snapshot = look_once(&tree);
    assert_eq!(array(&snapshot, "md127").legs.len(), 1);
    assert_eq!(snapshot.unreadable, []);
}

#[test]
fn a_leg_whose_namespace_has_no_readable_number_is_not_local() {
    let tree = Tree::captured("by-hand-mirror");
    let disk = "sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1";
    tree.file(&format!("{disk}/dev"), "what?\n");
    let snapshot = look_once(&tree);
    assert_eq!(names(&snapshot), ["nvme1n1"]);
    assert_eq!(leg(array(&snapshot, "md127"), "nvme0n1").backing, Backing::Unreadable);
}

#[test]
fn a_portal_is_remembered_for_one_controller_and_not_inherited() {
    let tree = Tree::captured("by-hand-mirror");
    let mut cache = PortalCache::new();
    let mut portal = || {
        let snapshot = look(&tree.root(), &mut cache);
        namespace(&snapshot, "nvme0n1").paths[0].portal.clone()
    };
    let first = portal();
    assert!(first.known().is_some());

    tree.file(&format!("{NVME0}/state"), "connecting\n");
    tree.file(&format!("{NVME0}/address"), "traddr=10.9.9.9,trsvcid=1\n");
    assert_eq!(portal(), first, "remembered, and not read again");

    // The same name, another controller: a new directory, which the kernel gives a new inode.
    let kept = tree.path("kept");
    std::fs::rename(tree.path(NVME0), &kept).unwrap();
    for (name, content) in [
        ("transport", "tcp\n"),
        ("subsysnqn", "nqn.2014-08.org.nvmexpress:uuid:replica-a\n"),
        ("state", "connecting\n"),
        ("address", "traddr=10.9.9.9,trsvcid=1\n"),
        ("nvme0c0n1/ana_state", "optimized\n"),
    ] {
        tree.file(&format!("{NVME0}/{name}"), content);
    }
    assert_eq!(portal(), Observed::Unknown(UnknownWhy::WouldBlock));
    tree.file(&format!("{NVME0}/state"), "live\n");
    assert_eq!(portal().known().unwrap().to_string(), "tcp://10.9.9.9:1");
}

#[test]
fn a_controller_shows_how_it_could_be_connected_again() {
    for name in ["debian-6.1-whole", "debian-6.12-back"] {
        let snapshot = look_once(&Tree::captured(name));
        let path = &namespace(&snapshot, "nvme0n1").paths[0];
        assert_eq!(path.fast_io_fail, Observed::Known(FastIoFail::Off));
        assert_eq!(path.health, PathHealth::Up);
        let params = path.params.known().unwrap();
        assert_eq!(params.nqn.as_str(), "nqn.2025-01.io.nvme-heal.lab:one");
        assert_eq!(params.portal.to_string(), "tcp://10.77.1.2:4420");
        assert!(params.host_nqn.as_str().ends_with("2cd2c43b-a90a-45c1-a8cd-86b33ab273b5"));
        assert!(params.host_id.is_some());
        assert_eq!(params.io_queues, Some(2));
        assert_eq!(params.keep_alive, Some(Duration::from_secs(5)));
        assert_eq!(params.reconnect_delay, Some(Duration::from_secs(2)));
        assert_eq!(params.ctrl_loss, Some(Duration::from_secs(600)));
        assert_eq!(params.key, None);
    }
}

#[test]
fn what_may_be_changed_is_read_at_each_look_and_the_rest_is_remembered() {
    let tree = Tree::captured("by-hand-mirror");
    let mut cache = PortalCache::new();
    let mut path = || {
        let snapshot = look(&tree.root(), &mut cache);
        namespace(&snapshot, "nvme0n1").paths[0].clone()
    };
    assert!(path().params.known().is_some());
    for (name, content) in [
        ("state", "connecting\n"),
        ("queue_count", "1\n"),
        ("ctrl_loss_tmo", "off\n"),
        ("reconnect_delay", "10\n"),
        ("fast_io_fail_tmo", "1\n"),
    ] {
        tree.file(&format!("{NVME0}/{name}"), content);
    }
    let now = path();
    assert_eq!(now.fast_io_fail, Observed::Known(FastIoFail::After(1)));
    let params = now.params.known().unwrap();
    assert_eq!((params.io_queues, params.ctrl_loss), (Some(2), None));
    assert_eq!(params.reconnect_delay, Some(Duration::from_secs(10)));
    tree.file(&format!("{NVME0}/ctrl_loss_tmo"), "soon\n");
    assert_eq!(path().params, Observed::Unknown(UnknownWhy::Malformed));
}

#[test]
fn a_key_is_never_kept_and_must_be_where_the_tool_finds_it() {
    let tree = Tree::captured("by-hand-mirror");
    tree.file(&format!("{NVME0}/dhchap_secret"), "DHHC-1:00:c2VjcmV0:\n");
    let mut cache = PortalCache::new();
    let mut params = || {
        let snapshot = look(&tree.root(), &mut cache);
        assert!(!format!("{snapshot:?}").contains("c2VjcmV0"));
        namespace(&snapshot, "nvme0n1").paths[0].params.clone()
    };
    assert_eq!(params(), Observed::Unknown(UnknownWhy::Unsupported));
    tree.file("etc/nvme/config.json", "[]");
    assert_eq!(params().known().unwrap().key, Some(KeyRef::NvmeConfig));
    assert!(!format!("{cache:?}").contains("c2VjcmV0"));

    tree.file(&format!("{NVME0}/dhchap_secret"), "none\n");
    tree.file(&format!("{NVME0}/tls_key"), "1f2e3d4c\n");
    let tls = look_once(&tree);
    let params = &namespace(&tls, "nvme0n1").paths[0].params;
    assert_eq!(*params, Observed::Unknown(UnknownWhy::Unsupported));
}

#[test]
fn a_kernel_without_the_fast_failure_says_so() {
    let tree = Tree::captured("by-hand-mirror");
    for attribute in ["fast_io_fail_tmo", "hostid", "kato", "queue_count"] {
        tree.remove(&format!("{NVME0}/{attribute}"));
    }
    let snapshot = look_once(&tree);
    let path = &namespace(&snapshot, "nvme0n1").paths[0];
    assert_eq!(path.fast_io_fail, Observed::Unknown(UnknownWhy::Unsupported));
    let params = path.params.known().unwrap();
    assert_eq!((params.host_id, params.io_queues, params.keep_alive), (None, None, None));
    tree.remove(&format!("{NVME0}/hostnqn"));
    let snapshot = look_once(&tree);
    let params = &namespace(&snapshot, "nvme0n1").paths[0].params;
    assert_eq!(*params, Observed::Unknown(UnknownWhy::Unsupported));
}

#[test]
fn ids_of_a_target_that_gives_none_are_none() {
    let tree = Tree::captured("by-hand-mirror");
    let disk = "sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1";
    let ids = |tree: &Tree| namespace(&look_once(tree), "nvme0n1").ids.clone();
    tree.file(&format!("{disk}/wwid"), "nvme.1af4-6469736b30-51454d55-00000001\n");
    tree.file(&format!("{disk}/nguid"), "00000000-0000-0000-0000-000000000000\n");
    tree.file(&format!("{disk}/eui"), "00 00 00 00 00 00 00 00\n");
    assert!(ids(&tree).is_known_and(|ids| ids.is_empty()), "a serial number is no identity");
    tree.file(&format!("{disk}/wwid"), "\n");
    assert_eq!(ids(&tree), Observed::Unknown(UnknownWhy::NotFilledYet));
    tree.file(&format!("{disk}/wwid"), "uuid.nonsense\n");
    assert_eq!(ids(&tree), Observed::Unknown(UnknownWhy::Malformed));
}

#[test]
fn a_namespace_without_native_multipath_has_its_one_controller() {
    let tree = Tree::captured("by-hand-mirror");
    for name in ["nvme0n1", "nvme0c0n1"] {
        tree.remove(&format!("sys/block/{name}"));
    }
    let old = tree.path("sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1");
    std::fs::rename(old, tree.path(&format!("{NVME0}/nvme0n1"))).unwrap();
    tree.link("sys/block/nvme0n1", "../devices/virtual/nvme-fabrics/ctl/nvme0/nvme0n1");
    let snapshot = look_once(&tree);
    let found = namespace(&snapshot, "nvme0n1");
    assert!(found.nqn.is_known_and(|nqn| nqn.as_str().ends_with("replica-a")));
    assert!(found.has_usable_path());
    assert_eq!(found.paths.len(), 1);
}

#[test]
fn hostile_content_never_ends_the_look() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let attributes = [
        "md/uuid",
        "md/level",
        "md/layout",
        "md/raid_disks",
        "md/sync_completed",
        "md/array_state",
        "md/metadata_version",
        "md/component_size",
        "md/bitmap/location",
        "dev",
        "md/dev-nvme0n1/state",
        "md/dev-nvme0n1/slot",
        "md/dev-nvme0n1/offset",
    ];
    let tree = Tree::captured("by-hand-mirror");
    for round in 0..400 {
        let attribute = attributes[usize::try_from(random()).unwrap() % attributes.len()];
        let length = random() % if round % 50 == 0 { 9000 } else { 24 };
        let content: String =
            (0..length).map(|_| char::from(u8::try_from(random() % 128).unwrap())).collect();
        tree.file(&format!("{MD127}/{attribute}"), &content);
        let snapshot = look_once(&tree);
        assert!(snapshot.arrays.iter().any(|array| array.device.as_str() == "md0"));
    }
}

#[test]
fn a_look_at_five_hundred_namespaces_is_linear() {
    let grow = |count: u32| {
        let tree = Tree::empty();
        for n in 0..count {
            let subsystem = format!("sys/devices/virtual/nvme-subsystem/nvme-subsys{n}");
            let controller = format!("sys/devices/virtual/nvme-fabrics/ctl/nvme{n}");
            let disk = format!("{subsystem}/nvme{n}n1");
            for (path, content) in [
                (format!("{subsystem}/subsysnqn"), format!("nqn.2014-08.org.example:{n}")),
                (format!("{controller}/subsysnqn"), format!("nqn.2014-08.org.example:{n}")),
                (format!("{controller}/transport"), "tcp".into()),
                (format!("{controller}/state"), "live".into()),
                (format!("{controller}/address"), "traddr=10.0.0.1,trsvcid=4420".into()),
                (format!("{controller}/nvme{n}c{n}n1/ana_state"), "optimized".into()),
                (format!("{disk}/dev"), format!("259:{n}")),
                (format!("{disk}/wwid"), format!("uuid.6fd1ee4c-3f2c-4f6f-8a44-{:012x}", n + 1)),
            ] {
                tree.file(&path, &content);
            }
            tree.dir(&format!("{disk}/holders"));
            tree.link(&format!("{subsystem}/nvme{n}"), &format!("../../nvme-fabrics/ctl/nvme{n}"));
            let class = "../../devices/virtual";
            tree.link(
                &format!("sys/class/nvme/nvme{n}"),
                &format!("{class}/nvme-fabrics/ctl/nvme{n}"),
            );
            tree.link(
                &format!("sys/class/nvme-subsystem/nvme-subsys{n}"),
                &format!("{class}/nvme-subsystem/nvme-subsys{n}"),
            );
            tree.link(
                &format!("sys/block/nvme{n}n1"),
                &format!("../devices/virtual/nvme-subsystem/nvme-subsys{n}/nvme{n}n1"),
            );
        }
        let mut cache = PortalCache::new();
        look(&tree.root(), &mut cache);
        let begun = std::time::Instant::now();
        let snapshot = look(&tree.root(), &mut cache);
        let took = begun.elapsed();
        assert_eq!(snapshot.namespaces.len(), usize::try_from(count).unwrap());
        assert!(snapshot.namespaces.iter().all(NamespaceSnapshot::has_usable_path));
        took
    };
    let (few, many) = (grow(50), grow(500));
    println!("50 namespaces: {few:?}, 500 namespaces: {many:?}");
    assert!(many < few * 50, "{few:?} for 50, {many:?} for 500");
}
