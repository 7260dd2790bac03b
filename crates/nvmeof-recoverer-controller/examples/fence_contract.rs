//! The contract of the fences on a real kernel: its own NVMe target, and its own initiator as the
//! nodes that write. `tests/kernel/scenarios/lab-reservation.sh` sets the stage, in a VM.
//!
//! `fence_contract PORT`: the target is at 127.0.0.1, and its subsystem and namespace bear the names
//! that the contract gives them.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    dead_code,
    reason = "a tool of the lab, that ships nowhere; and a contract that breaks is a panic"
)]

#[path = "../tests/fences/contract.rs"]
mod contract;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use contract::{Asked, Ground, NODES, NQN};
use heal_types::Nqn;
use nvmeof_recoverer_controller::crd;

const US: &str = "nqn.2026-01.org.example:recoverer";
/// Past the page cache: what is acknowledged is at the target.
const DIRECT: i32 = 0o40000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port = std::env::args().nth(1).expect("usage: fence_contract PORT");
    let port = port.parse().expect("a port is a number");
    let us = crd::Reservation {
        host_nqn: Nqn::new(US).unwrap(),
        host_id: contract::uuid(contract::host_id(0xff)),
        until_power_loss: true,
    };
    let target = contract::target(crd::Fence::Reservation(us), port);
    let fence = Asked(contract::means(None).of(&target));
    contract::is_kept(&fence, &Kernel { port }).await;
    println!("kept");
}

/// Nodes are hosts of this kernel. Each has a block device of its own, as it was booted without
/// multipath.
struct Kernel {
    port: u16,
}

impl Ground for Kernel {
    fn writes(&self, host: &str) -> bool {
        let device = disk(host).or_else(|| {
            self.connect(host).ok()?;
            let until = Instant::now() + Duration::from_secs(20);
            std::iter::repeat_with(|| {
                sleep(Duration::from_millis(50));
                disk(host)
            })
            .take_while(|_| Instant::now() < until)
            .find_map(|it| it)
        });
        let Some(device) = device else { return false };
        let wrote = write(&device);
        println!("{host}: {wrote:?}");
        wrote.is_ok()
    }

    fn settles(&self) {}
}

impl Kernel {
    fn connect(&self, host: &str) -> std::io::Result<()> {
        let (.., id) = NODES.iter().find(|(_, it, _)| *it == host).unwrap();
        let (port, id) = (self.port, contract::uuid(contract::host_id(*id)));
        let mut fabrics = fs::File::options().read(true).write(true).open("/dev/nvme-fabrics")?;
        let options = format!(
            "transport=tcp,traddr=127.0.0.1,trsvcid={port},nqn={NQN},hostnqn={host},hostid={id},\
             nr_io_queues=1,reconnect_delay=1,ctrl_loss_tmo=20,keep_alive_tmo=5"
        );
        fabrics.write_all(options.as_bytes())?;
        fabrics.read_to_string(&mut String::new()).map(drop)
    }
}

/// The block device of a host, when it is connected.
fn disk(host: &str) -> Option<PathBuf> {
    let is = |path: PathBuf, text: &str| fs::read_to_string(path).is_ok_and(|it| it.trim() == text);
    let controllers = fs::read_dir("/sys/class/nvme").ok()?.filter_map(|it| Some(it.ok()?.path()));
    let ours = |it: &PathBuf| is(it.join("hostnqn"), host) && is(it.join("subsysnqn"), NQN);
    let controller = controllers.into_iter().find(ours)?;
    let within =
        fs::read_dir(controller).ok()?.filter_map(|it| it.ok()?.file_name().into_string().ok());
    let mut blocks = within.map(|name| PathBuf::from("/dev").join(name));
    blocks.find(|it| fs::metadata(it).is_ok_and(|it| it.file_type().is_block_device()))
}

#[repr(align(4096))]
struct Page([u8; 4096]);

fn write(device: &PathBuf) -> std::io::Result<()> {
    let mut disk = fs::File::options().write(true).custom_flags(DIRECT).open(device)?;
    disk.write_all(&Page([7; 4096]).0)
}
