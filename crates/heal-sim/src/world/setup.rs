//! What a world begins with.

use std::time::Duration;

use heal_core::budget::Limits;
use heal_core::{Mode, Policy};
use heal_types::{
    Alias, ArrayId, DevT, ForeignKind, GracePolicy, Level, MdDeviceId, MdRole, MdSuperblock,
    NamespaceId, NamespaceIds, Nqn, Portal, Replica, ReplicaId, ReplicaState, SectorCount, Target,
    TransportKind, VolumeId,
};

use serde::{Deserialize, Serialize};

use crate::kernel::FakeKernel;
use crate::kernel::disk::{BlockSet, Disk, Recovery, Versions};
use crate::kernel::fabric::{FarPortal, FarTarget, Handle, name};
use crate::kernel::md::MdArray;
use crate::provisioner::{FakeProvisioner, volume};

/// Room each leg offers: 20 GiB.
pub(crate) const COMPONENT: SectorCount = SectorCount(41_943_040);
/// Where `mdadm` lets data start on a disk of that size.
const DATA_OFFSET: SectorCount = SectorCount(264_192);

/// What a world begins with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its arrays.
    pub arrays: Vec<ArraySetup>,
    /// The policy of every array.
    pub policy: Policy,
    /// The host's budget.
    pub limits: Limits,
    /// How often an application writes to every array, if one runs.
    pub workload: Option<Duration>,
    /// Which cables lead where.
    pub wiring: Wiring,
    /// How often the slow scan for lost events looks, if it is on.
    pub safety_scan: Option<Duration>,
}

/// One array of a world.
#[derive(Debug, Clone)]
pub struct ArraySetup {
    /// Its name, which is also its volume's.
    pub name: String,
    /// Its UUID; one that differs from every other array's in every byte, if none is given.
    pub id: Option<ArrayId>,
    /// RAID level.
    pub level: Level,
    /// Number of legs.
    pub legs: u16,
    /// Replicas that the provisioner may give out for it.
    pub spares: u16,
    /// Paths to each replica.
    pub paths: u16,
    /// What it stands on.
    pub stands_on: StandsOn,
    /// Whether it has a write-intent bitmap.
    pub bitmap: bool,
    /// How long a full rebuild takes.
    pub rebuild: Duration,
    /// How long its provisioner wants a lost replica waited for.
    pub grace: Option<GracePolicy>,
}

/// Which links of the host lead to its targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wiring {
    /// One for every path: `to-` and the replica's name, and the number of the path but for the
    /// first.
    EachItsOwn,
    /// Two fabrics: `eth0` for every other replica of an array, `eth1` for the rest. Second paths
    /// lead through the other one.
    TwoFabrics,
    /// `eth0` for everything.
    One,
}

impl Wiring {
    fn link(self, replica: &str, n: u16, path: u16) -> String {
        match self {
            Self::EachItsOwn if path == 0 => format!("to-{replica}"),
            Self::EachItsOwn => format!("to-{replica}{}", path + 1),
            Self::TwoFabrics => format!("eth{}", (n + path) % 2),
            Self::One => "eth0".to_owned(),
        }
    }
}

/// What an array stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandsOn {
    /// Replicas of a volume.
    Replicas,
    /// NVMe-oF namespaces of which the provisioner knows nothing.
    StrangeNamespaces,
    /// Local disks.
    LocalDisks,
}

impl ArraySetup {
    /// A mirror of two replicas with two spares, which rebuilds in eight seconds.
    #[must_use]
    pub fn mirror(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            id: None,
            level: Level::Raid1,
            legs: 2,
            spares: 2,
            paths: 1,
            stands_on: StandsOn::Replicas,
            bitmap: true,
            rebuild: Duration::from_secs(8),
            grace: Some(GracePolicy::After(Duration::from_secs(30))),
        }
    }

    /// Two local disks, of no interest to anybody.
    #[must_use]
    pub fn local(name: &str) -> Self {
        Self { spares: 0, stands_on: StandsOn::LocalDisks, ..Self::mirror(name) }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            arrays: vec![ArraySetup::mirror("vol1")],
            policy: Policy {
                mode: Mode::Heal,
                provisioned: true,
                re_add: true,
                ..Policy::default()
            },
            limits: Limits::default(),
            workload: Some(Duration::from_millis(200)),
            wiring: Wiring::EachItsOwn,
            safety_scan: None,
        }
    }
}

/// A replica as the world built it.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaPlan {
    pub(crate) replica: Replica,
    pub(crate) nqn: Nqn,
    pub(crate) namespace: NamespaceId,
}

/// An array as the world built it.
#[derive(Debug, Clone)]
pub(crate) struct ArrayPlan {
    pub(crate) name: String,
    pub(crate) id: ArrayId,
    pub(crate) volume: Option<VolumeId>,
    pub(crate) replicas: Vec<ReplicaPlan>,
}

fn letter(n: u16) -> char {
    char::from_u32(u32::from(b'a') + u32::from(n)).unwrap_or('?')
}

fn namespace_id(array: usize, n: u16) -> NamespaceId {
    format!("uuid.6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0{array:02x}{n:02x}")
        .parse()
        .expect("the text is a UUID")
}

/// Builds the parts of a world out of its setup.
pub(crate) struct Builder<'a> {
    pub(crate) kernel: &'a mut FakeKernel,
    pub(crate) provisioner: &'a mut FakeProvisioner,
    pub(crate) wiring: Wiring,
}

impl Builder<'_> {
    pub(crate) fn array(&mut self, number: usize, setup: &ArraySetup) -> ArrayPlan {
        let id = setup.id.unwrap_or_else(|| array_id(number));
        let mut replicas = Vec::new();
        let mut legs: Vec<Handle> = Vec::new();
        for n in 0..setup.legs + setup.spares {
            if setup.stands_on == StandsOn::LocalDisks {
                let disk = self.kernel.new_disk(Disk::blank(disk_size()));
                legs.push(self.kernel.new_local_device(disk));
                continue;
            }
            let plan = self.replica(setup, number, n);
            if n < setup.legs {
                legs.extend(self.attach(&plan));
            }
            replicas.push(plan);
        }
        self.create(number, setup, &legs);
        let volume = self.volume(id, setup, &replicas);
        ArrayPlan { name: setup.name.clone(), id, volume, replicas }
    }

    fn replica(&mut self, setup: &ArraySetup, number: usize, n: u16) -> ReplicaPlan {
        let label = format!("{}-{}", setup.name, letter(n));
        let nqn: Nqn = name(format!("nqn.2014-08.com.example:{label}"));
        let namespace = namespace_id(number, n);
        let far: Vec<FarPortal> = (0..setup.paths.max(1))
            .map(|path| FarPortal {
                portal: Portal {
                    transport: TransportKind::Tcp,
                    address: name(format!(
                        "192.0.{}.{}",
                        2 + path,
                        number * 16 + usize::from(n) + 1
                    )),
                    port: 4420,
                    host_address: None,
                    host_interface: None,
                },
                link: self.kernel.link_named(&name(self.wiring.link(&label, n, path))),
                ana_usable: true,
            })
            .collect();
        let portals = far.iter().map(|far| far.portal.clone()).collect();
        let disk = self.kernel.new_disk(Disk::blank(disk_size()));
        self.kernel.targets.push(FarTarget {
            nqn: nqn.clone(),
            portals: far,
            reachable: true,
            frozen: false,
            ids: NamespaceIds::new(vec![namespace]),
            exported: true,
            disk,
        });
        let target = Target { nqn: nqn.clone(), namespace, portals, size: Some(disk_size()) };
        let id: ReplicaId = name(label);
        let replica = Replica { id, state: ReplicaState::Available, target };
        ReplicaPlan { replica, nqn, namespace }
    }

    /// Connects a replica before the story begins.
    fn attach(&mut self, plan: &ReplicaPlan) -> Option<Handle> {
        let target = &plan.replica.target;
        let params = target
            .portals
            .first()
            .map(|portal| FakeKernel::plain_params(&target.nqn, portal, Duration::from_secs(600)));
        let _ = params.map(|params| self.kernel.connect(target, &params));
        for controller in &mut self.kernel.controllers {
            controller.scan_at = None;
        }
        self.kernel.scan_namespaces(&plan.nqn);
        let own = |fabric: Option<&crate::kernel::fabric::Head>| {
            fabric.is_some_and(|head| head.nqn == plan.nqn)
        };
        self.kernel.devices.iter().position(|device| own(device.fabric.as_ref()))
    }

    fn create(&mut self, number: usize, setup: &ArraySetup, legs: &[Handle]) {
        let minor = 127 - u32::try_from(number).unwrap_or(0);
        self.kernel.arrays.push(MdArray {
            id: setup.id.unwrap_or_else(|| array_id(number)),
            device: name(format!("md{minor}")),
            dev: DevT { major: 9, minor },
            alias: Alias::new(&setup.name).ok(),
            level: setup.level,
            raid_disks: setup.legs,
            component: COMPONENT,
            data_offset: DATA_OFFSET,
            bitmap: setup.bitmap,
            running: true,
            forced_state: None,
            frozen: false,
            broken: false,
            broken_by: None,
            events: 10,
            events_cleared: 10,
            dirty: BlockSet::default(),
            newest: Versions::none(),
            next_version: 1,
            failed_writes: 0,
            flight: None,
            longest_write: Duration::ZERO,
            superblocks_behind: false,
            rdevs: Vec::new(),
            good_at_stop: std::collections::BTreeSet::new(),
            parted: None,
            sync: None,
            thread_at: None,
            rebuild: setup.rebuild,
        });
        self.kernel.create(number, legs);
    }

    fn volume(
        &mut self,
        array: ArrayId,
        setup: &ArraySetup,
        replicas: &[ReplicaPlan],
    ) -> Option<VolumeId> {
        if setup.stands_on != StandsOn::Replicas {
            return None;
        }
        let id: VolumeId = name(setup.name.clone());
        let all: Vec<Replica> = replicas.iter().map(|plan| plan.replica.clone()).collect();
        let (legs, spares) = all.split_at(usize::from(setup.legs));
        let alias = Alias::new(&setup.name).ok();
        let known = volume(id.clone(), array, alias, legs.to_vec(), setup.grace);
        self.provisioner.add_volume(known, spares.to_vec());
        Some(id)
    }
}

fn disk_size() -> SectorCount {
    SectorCount(COMPONENT.0 + DATA_OFFSET.0 + 2048)
}

/// Different in every byte, as random UUIDs are.
pub(crate) fn array_id(number: usize) -> ArrayId {
    let number = u8::try_from(number).unwrap_or(u8::MAX);
    let mut bytes = [0; 16];
    for (at, byte) in (0_u8..).zip(&mut bytes) {
        *byte = 0x8e_u8.wrapping_add(at.wrapping_mul(0x1d)).wrapping_add(number.wrapping_mul(0x2b));
    }
    ArrayId::from_bytes(bytes)
}

/// What is wrong with an offered replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flaw {
    /// A file system, partition table or another layer's member stands on it.
    Foreign(ForeignKind),
    /// It is a leg of another MD array.
    OtherArray,
    /// It is smaller than a leg must be.
    TooSmall,
    /// Its logical blocks are larger than the array's.
    LargeBlocks,
    /// It refuses writes.
    ReadOnly,
    /// Another namespace stands behind its target than was promised.
    WrongNamespace,
    /// It is a copy of another namespace, its id included.
    CloneOf(NamespaceId),
    /// It has what stood on another namespace at this moment, superblock and all.
    OldCopyOf(NamespaceId),
    /// It has partitions.
    Partitioned,
}

impl FakeKernel {
    pub(crate) fn spoil_target(&mut self, nqn: &Nqn, flaw: &Flaw) {
        let Some(index) = self.targets.iter().position(|target| target.nqn == *nqn) else {
            return;
        };
        let disk = self.targets[index].disk.0;
        match flaw {
            Flaw::Foreign(kind) => self.disks[disk].foreign = Some(kind.clone()),
            Flaw::OtherArray => {
                self.disks[disk].superblock = Some(MdSuperblock {
                    array: ArrayId::from_bytes([0x77; 16]),
                    device: MdDeviceId::from_bytes([0x78; 16]),
                    role: MdRole::Active(0),
                    events: 4711,
                    data_offset: DATA_OFFSET,
                    data_size: COMPONENT,
                    bad_blocks: false,
                    filling: false,
                    number: 0,
                    active: vec![0],
                });
                self.disks[disk].recovery = Recovery::Complete;
            }
            Flaw::TooSmall => self.disks[disk].size = SectorCount(COMPONENT.0 / 2),
            Flaw::LargeBlocks => self.disks[disk].logical_block = 4096,
            Flaw::ReadOnly => self.disks[disk].read_only = true,
            Flaw::Partitioned => self.disks[disk].partitions = 2,
            Flaw::CloneOf(id) => self.targets[index].ids = NamespaceIds::new(vec![*id]),
            Flaw::OldCopyOf(id) => {
                let of = self.targets.iter().find(|target| target.ids.contains(id));
                if let Some(of) = of.map(|target| self.disks[target.disk.0].clone()) {
                    let copy = &mut self.disks[disk];
                    copy.superblock = of.superblock;
                    copy.recovery = of.recovery;
                    copy.blocks = of.blocks;
                    copy.copy = true;
                }
            }
            Flaw::WrongNamespace => {
                self.targets[index].ids = NamespaceIds::new(vec![namespace_id(0xee, 0xee)]);
            }
        }
    }
}
