//! Every act against a host that is a file and tools that change it.
//!
//! A look reads the snapshot from `host.json`. A tool notes how it was called and then, if the test
//! says so, puts another snapshot in its place: what the kernel shows after the act.

#![allow(
    clippy::disallowed_methods,
    reason = "a test builds its own tree, and changes it as a kernel would"
)]

mod arrays;
mod children;
mod connect;
mod examine;
mod glance;
mod isolate;
mod legs;
mod sysfs;

use std::path::Path;

use heal_types::{
    ArraySnapshot, ArrayState, Backing, Bitmap, ConnectOptions, Content, ControllerName,
    ControllerState, DeviceIdentity, DeviceName, DiskSeq, FailWhy, FastIoFail, ForeignKind,
    LegFlag, LegFlags, LegRef, LegSnapshot, Level, MdDeviceId, Metadata, NamespaceId, NamespaceIds,
    NamespaceSnapshot, Nqn, Observed, PathHealth, PathSnapshot, Portal, SectorCount, Slot,
    SyncAction, Target, TransportKind, UnknownWhy,
};

use super::controllers::Survivors;
use super::*;
use crate::exec::testing::TempDir;
use crate::helper::Report;
use crate::superblock::{Trace, parse, tests::written};

const ARRAY: heal_types::ArrayId = heal_types::ArrayId::from_bytes([0x11; 16]);
const BLANK: &str = r#"{"size":2097152,"traces":[]}"#;
const LIMITS: &str = "MINIMUM_IO_SIZE=512\nLOGICAL_SECTOR_SIZE=512\n";

/// What a helper does that is asked to read.
const READING: &str = r#"case "$2" in probe | superblocks) cat "$dir/probe.json"; exit;; esac"#;

#[derive(Debug)]
struct FileEye(PathBuf);

impl Eye for FileEye {
    fn look(&mut self) -> Seen {
        let now: HostSnapshot = serde_json::from_slice(&std::fs::read(&self.0).unwrap()).unwrap();
        now.into()
    }
}

/// A file's text is the number it stands for.
fn number(path: &Path) -> io::Result<Option<DevT>> {
    Ok(std::fs::read_to_string(path)?.parse().ok())
}

struct Lab {
    dir: TempDir,
    host: LinuxHost,
}

impl Lab {
    fn new(now: &HostSnapshot) -> Self {
        let dir = TempDir::new();
        let host = LinuxHost {
            root: Root::new(dir.path().join("root")),
            eye: Arc::new(Mutex::new(FileEye(dir.path().join("host.json")))),
            last: Arc::default(),
            fresh: None,
            kept: Arc::default(),
            sockets: Arc::new(KernelSockets::default()),
            support: Support::whole(),
            survivors: Survivors::default(),
            runner: Runner::new(dir.tools()),
            nodes: Nodes::for_test(&dir.path().join("dev"), number),
            marks: dir.path().join("marks"),
            shows: Duration::from_millis(200),
        };
        dir.file("root/sys/block/md127/md/array_state", "clean");
        dir.file("dev/md127", "9:127");
        for minor in 1..=3 {
            dir.file(&format!("dev/nvme{minor}n1"), &format!("259:{minor}"));
        }
        dir.tool_does("helper", READING);
        let blkid = r#"case "$*" in *nolinux*) cat "$dir/beside";; *) cat "$dir/all";; esac"#;
        dir.tool_does("blkid", blkid);
        let lab = Self { dir, host };
        lab.shows(now);
        lab.reads(BLANK, "", "");
        lab
    }

    fn shows(&self, now: &HostSnapshot) {
        self.dir.bytes("host.json", &serde_json::to_vec(now).unwrap());
    }

    /// What the probe, `blkid`, and `blkid` blind to MD say.
    fn reads(&self, probe: &str, all: &str, beside: &str) {
        self.dir.file("bin/probe.json", probe);
        self.dir.file("bin/all", &format!("{all}{LIMITS}"));
        self.dir.file("bin/beside", &format!("{beside}{LIMITS}"));
    }

    fn reads_member(&self, probe: &str) {
        self.reads(probe, "TYPE=linux_raid_member\nUSAGE=raid\n", "");
    }

    /// Lets `tool` turn the host into `after`, then run `shell`.
    fn turns(&self, tool: &str, after: &HostSnapshot, shell: &str) {
        self.dir.bytes("after.json", &serde_json::to_vec(after).unwrap());
        let reading = if tool == "helper" { READING } else { "" };
        let turn =
            r#"cp "$dir/../after.json" "$dir/../new" && mv "$dir/../new" "$dir/../host.json""#;
        self.dir.tool_does(tool, &format!("{reading}\n{turn}\n{shell}"));
    }

    fn act(&self, action: &HostAction) -> Outcome {
        self.host.clone().act(action).outcome
    }

    fn examine(&self) -> HostAnswer {
        self.host.clone().act(&HostAction::Examine { device: identity(3) })
    }

    /// Calls that can change something.
    fn acts(&self) -> Vec<String> {
        let calls = self.dir.calls().into_iter();
        let reads = |call: &str| {
            ["blkid ", "helper helper probe ", "helper helper superblocks "]
                .iter()
                .any(|reader| call.starts_with(reader))
        };
        let dev = format!("{}/", self.dir.path().join("dev").display());
        calls.filter(|call| !reads(call)).map(|call| call.replace(&dev, "/dev/")).collect()
    }

    fn controller(&self, name: &str, nqn: &str, state: &str) {
        self.dir.file(&format!("root/sys/class/nvme/{name}/subsysnqn"), nqn);
        self.dir.file(&format!("root/sys/class/nvme/{name}/state"), state);
    }
}

fn namespace_id(number: u32) -> NamespaceId {
    format!("uuid.6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0a00{number}").parse().unwrap()
}

fn nqn(number: u32) -> Nqn {
    Nqn::new(format!("nqn.test:{number}")).unwrap()
}

fn name(number: u32) -> DeviceName {
    DeviceName::new(format!("nvme{number}n1")).unwrap()
}

fn portal(number: u32) -> Portal {
    Portal {
        transport: TransportKind::Tcp,
        address: format!("192.0.2.{number}").parse().unwrap(),
        port: 4420,
        host_address: None,
        host_interface: None,
    }
}

fn namespace(number: u32) -> NamespaceSnapshot {
    NamespaceSnapshot {
        device: name(number),
        dev: DevT { major: 259, minor: number },
        diskseq: Observed::Known(DiskSeq(u64::from(number) + 10)),
        ids: Observed::Known(NamespaceIds::new(vec![namespace_id(number)])),
        nqn: Observed::Known(nqn(number)),
        size: Observed::Known(SectorCount(2_097_152)),
        logical_block: Observed::Known(512),
        read_only: Observed::Known(false),
        holders: Observed::Known(Vec::new()),
        in_use: Observed::Known(false),
        partitions: Observed::Known(0),
        paths: vec![PathSnapshot {
            controller: ControllerName::new(format!("nvme{number}")).unwrap(),
            state: Observed::Known(ControllerState::Live),
            portal: Observed::Known(portal(number)),
            ana_usable: Observed::Known(true),
            health: PathHealth::Up,
            fast_io_fail: Observed::Known(FastIoFail::Off),
            params: Observed::Unknown(UnknownWhy::NotReadYet),
        }],
    }
}

fn identity(number: u32) -> DeviceIdentity {
    namespace(number).identity(&namespace_id(number)).unwrap()
}

fn leg(number: u32, slot: Option<u16>, flags: &[LegFlag]) -> LegSnapshot {
    LegSnapshot {
        device: name(number),
        slot: slot.map(Slot),
        flags: LegFlags::of(flags),
        md_device: Observed::Known(MdDeviceId::from_bytes([u8::try_from(number).unwrap(); 16])),
        data_offset: Observed::Known(SectorCount(2048)),
        bad_blocks: Observed::Known(false),
        backing: Backing::Namespace(Box::new(namespace(number))),
    }
}

fn gone(number: u32, slot: Option<u16>, flags: &[LegFlag]) -> LegSnapshot {
    LegSnapshot { backing: Backing::Gone, ..leg(number, slot, flags) }
}

fn leg_ref(leg: &LegSnapshot, number: Option<u32>) -> LegRef {
    LegRef {
        device: leg.device.clone(),
        slot: leg.slot,
        md_device: leg.md_device.known().copied(),
        identity: number.map(identity),
    }
}

fn array(legs: Vec<LegSnapshot>) -> ArraySnapshot {
    ArraySnapshot {
        id: ARRAY,
        device: DeviceName::new("md127").unwrap(),
        dev: DevT { major: 9, minor: 127 },
        alias: None,
        level: Level::Raid1,
        metadata: Metadata::V1,
        state: Observed::Known(ArrayState::Clean),
        raid_disks: 2,
        degraded: Observed::Known(0),
        sync_action: Observed::Known(SyncAction::Idle),
        sync_progress: None,
        reshaping: false,
        component_size: Observed::Known(SectorCount(2_000_000)),
        logical_block: Observed::Known(512),
        bitmap: Observed::Known(Bitmap::Present),
        in_flight: Observed::Known(0),
        legs,
    }
}

/// A host with this array. Namespaces of its legs are held by it; the third is free.
fn host(array: ArraySnapshot) -> HostSnapshot {
    let mut namespaces = vec![namespace(3)];
    for leg in &array.legs {
        let Backing::Namespace(held) = &leg.backing else { continue };
        let holders = Observed::Known(vec![array.device.clone()]);
        namespaces.retain(|free| free.device != held.device);
        namespaces.push(NamespaceSnapshot { holders, ..(**held).clone() });
    }
    HostSnapshot { arrays: vec![array], namespaces, ..HostSnapshot::default() }
}

const IN_SYNC: &[LegFlag] = &[LegFlag::InSync];
const FAULTY: &[LegFlag] = &[LegFlag::Faulty];
const SPARE: &[LegFlag] = &[LegFlag::Spare];

fn whole() -> HostSnapshot {
    host(array(vec![leg(1, Some(0), IN_SYNC), leg(2, Some(1), IN_SYNC)]))
}

fn degraded() -> HostSnapshot {
    host(array(vec![leg(1, Some(0), IN_SYNC)]))
}

fn with_third(slot: Option<u16>, flags: &[LegFlag]) -> HostSnapshot {
    host(array(vec![leg(1, Some(0), IN_SYNC), leg(3, slot, flags)]))
}

fn second_gone(flags: &[LegFlag], slot: Option<u16>) -> HostSnapshot {
    host(array(vec![leg(1, Some(0), IN_SYNC), gone(2, slot, flags)]))
}

fn fail(leg: LegRef) -> HostAction {
    HostAction::FailLeg { array: ARRAY, leg, why: FailWhy::DeviceGone }
}

fn remove(leg: LegRef) -> HostAction {
    HostAction::RemoveLeg { array: ARRAY, leg }
}

fn add() -> HostAction {
    HostAction::AddLeg { array: ARRAY, device: identity(3) }
}

fn re_add() -> HostAction {
    HostAction::ReAddLeg { array: ARRAY, device: identity(3), member: None, faulty: None }
}

fn superblock_of(array: heal_types::ArrayId) -> String {
    let mut found = parse(&written(8, 1), 8).unwrap().unwrap();
    found.array = array;
    let report = Report { size: SectorCount(2_097_152), traces: vec![Trace::V1(found)] };
    serde_json::to_string(&report).unwrap()
}

/// What a refusal says.
fn refusal(outcome: Outcome) -> String {
    let Outcome::Refused(why) = outcome else {
        panic!("not refused: {outcome}");
    };
    why.to_string()
}

fn why_again(outcome: Outcome) -> RetryWhy {
    let Outcome::Retry { why, .. } = outcome else {
        panic!("not to be tried again: {outcome}");
    };
    why
}

impl Lab {
    fn host_tools(&self) -> Tools {
        let bin = self.dir.path().join("bin");
        Tools::find_in(&[&bin], &bin.join("helper")).unwrap()
    }
}

#[test]
fn a_device_that_differs_in_anything_is_not_touched() {
    type Change = fn(&mut NamespaceSnapshot);
    let changes: [(Change, &str); 5] = [
        (|it| it.device = name(9), "device name is nvme9n1, not nvme3n1"),
        (|it| it.dev.minor = 9, "device number is 259:9, not 259:3"),
        (|it| it.diskseq = Observed::Known(DiskSeq(99)), "disk sequence number is 99, not 13"),
        (|it| it.nqn = Observed::Known(nqn(9)), "NQN is nqn.test:9, not nqn.test:3"),
        (
            |it| it.ids = Observed::Known(NamespaceIds::new(vec![namespace_id(9)])),
            "nvme3n1 is uuid.6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0a009",
        ),
    ];
    for (change, said) in changes {
        let mut now = degraded();
        change(&mut now.namespaces[0]);
        let lab = Lab::new(&now);
        for action in [add(), re_add(), HostAction::Examine { device: identity(3) }] {
            let why = refusal(lab.act(&action));
            assert!(why.contains(said), "{why}");
        }
        assert_eq!(lab.dir.calls(), Vec::<String>::new());
    }
}

#[test]
fn a_node_with_another_number_behind_it_is_not_handed_to_a_tool() {
    let lab = Lab::new(&degraded());
    lab.dir.file("dev/nvme3n1", "259:77");
    assert!(refusal(lab.act(&add())).contains("is 259:77, not 259:3"));
    lab.dir.file("dev/nvme3n1", "259:3");
    lab.dir.file("dev/md127", "9:1");
    assert!(refusal(lab.act(&add())).contains("is 9:1, not 9:127"));
    assert_eq!(lab.dir.calls(), Vec::<String>::new());
}

#[test]
fn two_devices_of_one_id_are_both_refused() {
    let mut now = degraded();
    now.namespaces.push(NamespaceSnapshot { device: name(8), ..namespace(3) });
    assert!(refusal(Lab::new(&now).act(&add())).contains("both go by"));
}

#[test]
fn ids_that_are_not_filled_yet_are_no_reason_to_conclude_anything() {
    let mut now = degraded();
    now.namespaces[0].ids = Observed::Unknown(UnknownWhy::NotFilledYet);
    let outcome = Lab::new(&now).act(&add());
    assert_eq!(outcome, Outcome::Unknown(UnknownWhy::NotFilledYet));
}

#[test]
fn an_array_that_is_gone_unreadable_or_doubled_is_not_acted_on() {
    let mut now = degraded();
    let array = now.arrays.remove(0);
    let lab = Lab::new(&now);
    assert_eq!(lab.act(&add()), Outcome::Refused(RefusedWhy::NotThatArray));
    now.unreadable.push(array.device.clone());
    lab.shows(&now);
    assert_eq!(lab.act(&add()), Outcome::Unknown(UnknownWhy::ReadFailed));
    lab.shows(&HostSnapshot { arrays: vec![array.clone(), array], ..degraded() });
    assert_eq!(lab.act(&add()), Outcome::Refused(RefusedWhy::NotThatArray));
    assert_eq!(lab.dir.calls(), Vec::<String>::new());
}

#[test]
fn a_device_without_a_usable_path_is_not_opened() {
    let mut now = degraded();
    now.namespaces[0].paths[0].state = Observed::Known(ControllerState::Connecting);
    let lab = Lab::new(&now);
    for action in [add(), re_add(), HostAction::Examine { device: identity(3) }] {
        assert!(matches!(why_again(lab.act(&action)), RetryWhy::Unreachable { .. }));
    }
    assert_eq!(lab.dir.calls(), Vec::<String>::new());
}
