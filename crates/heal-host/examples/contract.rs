//! The host's contract on a real kernel: one case of `heal_sim::contract`, on a stage that was set
//! for it. `tests/kernel/scenarios/lab-contract.sh` sets the stage, in a VM.
//!
//! `contract` lists the cases, and whether each leaves its stage as it was. `contract CASE ARRAY
//! DEVICE LEG LEG SPARE` plays one, counted from 0, on the array with that UUID at `/dev/DEVICE`; a
//! leg or spare is `NQN,NAMESPACE,PORTAL`, served by this machine's own nvmet, so that the rig can
//! take its namespace away.
#![allow(clippy::print_stdout, reason = "a tool for a terminal")]
#![allow(
    clippy::disallowed_methods,
    reason = "the hand from outside: an application, and a target"
)]

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use heal_host::{LinuxHost, Tools};
use heal_sim::contract::{CASES, Play, Rig, Stage};
use heal_types::{HostPort, Portal, Target, TransportKind};

type Failed = Box<dyn Error>;

/// As much as an application writes at once.
const PAGE: usize = 4096;

struct LabRig {
    host: LinuxHost,
    stage: Stage,
    disk: PathBuf,
    writes: u8,
}

impl LabRig {
    fn new(words: &[String]) -> Result<Self, Failed> {
        let [array, disk, first, second, spare] = words else {
            return Err("usage: contract [CASE ARRAY DEVICE LEG LEG SPARE]".into());
        };
        let legs = [target(first)?, target(second)?];
        let stage = Stage { array: array.parse()?, legs, spare: target(spare)? };
        let disk = PathBuf::from("/dev").join(disk);
        Ok(Self { host: LinuxHost::new(Tools::find()?), stage, disk, writes: 0 })
    }

    fn put(&mut self) -> Result<(), std::io::Error> {
        self.writes = self.writes.wrapping_add(1);
        let disk: File = OpenOptions::new().write(true).open(&self.disk)?;
        for place in 0..8_u64 {
            disk.write_all_at(&[self.writes; PAGE], place * 1024 * 1024)?;
        }
        disk.sync_all()
    }
}

fn target(text: &str) -> Result<Target, Failed> {
    let mut parts = text.split(',');
    let mut next = || parts.next().ok_or("a leg is NQN,NAMESPACE,ADDRESS");
    let (nqn, namespace) = (next()?.parse()?, next()?.parse()?);
    let portal = Portal {
        transport: TransportKind::Tcp,
        address: next()?.parse()?,
        port: 4420,
        host_address: None,
        host_interface: None,
    };
    Ok(Target { nqn, namespace, portals: vec![portal], size: None })
}

impl Rig for LabRig {
    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn host(&mut self) -> &mut dyn HostPort {
        &mut self.host
    }

    fn export(&mut self, target: &Target, exported: bool) {
        let subsystem = PathBuf::from("/sys/kernel/config/nvmet/subsystems");
        let switch = subsystem.join(target.nqn.as_str()).join("namespaces/1/enable");
        fs::write(&switch, if exported { "1" } else { "0" }).expect("nvmet runs on this machine");
    }

    fn write(&mut self) {
        self.put().expect("the array takes writes as long as it has a leg");
    }

    /// And until udev has answered what happened so far: its stock rules act on arrays as well.
    fn wait(&mut self, time: Duration) {
        std::thread::sleep(time);
        let settled = Command::new("udevadm").args(["settle", "--timeout=20"]).status();
        settled.expect("udev runs on this machine");
    }
}

fn main() -> ExitCode {
    // The host starts itself as the child that may hang.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "helper") {
        return heal_host::helper::main(arguments);
    }
    match play(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn play(words: &[String]) -> Result<(), Failed> {
    let Some((case, rest)) = words.split_first() else {
        for case in CASES {
            println!("{} {}", if case.leaves_no_trace { "still" } else { "moves" }, case.name);
        }
        return Ok(());
    };
    let case = CASES.get(case.parse::<usize>()?).ok_or("there are not so many cases")?;
    let mut rig = LabRig::new(rest)?;
    (case.run)(&mut Play::new(&mut rig))?;
    Ok(())
}
