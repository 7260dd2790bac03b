//! The programs around the controller, for scenarios on a real API server: `ceph`, a fence, `nvme`,
//! `ceph-bluestore-tool` and `ceph-osd`. Which of them it is, the name says that it was started by;
//! the folder of that name holds the state they share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "plays a part in tests, and ships nowhere"
)]

#[path = "../tests/cluster/fabric.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the scenarios")]
mod fabric;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fabric::{Fabric, GRACE_MS, Osd, State, TEARDOWN_MS, now_ms};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let program = PathBuf::from(arguments.next().unwrap());
    let arguments: Vec<String> = arguments.collect();
    let dir = program.parent().and_then(Path::parent).unwrap();
    let fabric = Fabric::at(dir);
    match program.file_name().unwrap().to_str().unwrap() {
        "ceph" => ceph(&fabric, &arguments),
        "array" => array(&fabric),
        "nvme" => nvme(&fabric, &arguments),
        "ceph-bluestore-tool" => label(&fabric, &arguments),
        "ceph-osd" => osd(&fabric, &arguments),
        other => panic!("nobody plays {other}"),
    }
}

fn is_up(osd: &Osd) -> bool {
    now_ms().saturating_sub(osd.beat_ms) < GRACE_MS
}

fn ceph(fabric: &Fabric, arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    fabric.change(|state| {
        if !state.quorum {
            eprintln!("no quorum");
            return ExitCode::from(110);
        }
        let answer = match words[..] {
            ["status", ..] => status(state),
            ["osd", "dump", ..] => dump(state),
            ["osd", "metadata", ..] => {
                let one = |(id, osd): (&u32, &Osd)| json!({ "id": id, "hostname": osd.host });
                state.osds.iter().map(one).collect()
            }
            ["osd", "tree", ..] => {
                let one = |id: &u32| json!({ "id": id, "crush_weight": 1.0 });
                json!({ "nodes": state.osds.keys().map(one).collect::<Vec<_>>() })
            }
            ["osd", verb @ ("add-noout" | "rm-noout"), osd, ..] => {
                let osd: u32 = osd.strip_prefix("osd.").unwrap().parse().unwrap();
                state.osds.get_mut(&osd).unwrap().noout = verb == "add-noout";
                state.log.push(format!("{verb} osd.{osd}"));
                Value::Null
            }
            ["osd", "down", osd, "--definitely-dead", ..] => {
                let osd: u32 = osd.parse().unwrap();
                state.osds.get_mut(&osd).unwrap().beat_ms = 0;
                state.log.push(format!("down osd.{osd}"));
                Value::Null
            }
            ["osd", "ok-to-stop", ..] => {
                let spared = state.osds.values().filter(|osd| !is_up(osd)).count() == 0;
                return if spared { ExitCode::SUCCESS } else { ExitCode::from(16) };
            }
            _ => panic!("nobody asks {words:?}"),
        };
        println!("{answer}");
        ExitCode::SUCCESS
    })
}

fn status(state: &State) -> Value {
    let up = state.osds.values().filter(|osd| is_up(osd)).count();
    let clean = if up == state.osds.len() { "active+clean" } else { "active+undersized+degraded" };
    json!({
        "fsid": state.cluster,
        "quorum": [0, 1, 2],
        "pgmap": { "num_pgs": 32, "pgs_by_state": [{ "state_name": clean, "count": 32 }] },
    })
}

fn dump(state: &State) -> Value {
    let one = |(id, osd): (&u32, &Osd)| {
        let mut flags = vec!["exists"];
        flags.extend(is_up(osd).then_some("up"));
        flags.extend(osd.noout.then_some("noout"));
        let up = u8::from(is_up(osd));
        json!({ "osd": id, "uuid": osd.fsid, "up": up, "in": 1, "state": flags })
    };
    let epoch: u64 = state.osds.values().map(|osd| osd.boots + u64::from(is_up(osd))).sum();
    json!({
        "epoch": epoch,
        "osds": state.osds.iter().map(one).collect::<Vec<_>>(),
        "pools": [{ "pool": 1, "size": 3, "min_size": state.min_size }],
    })
}

/// The fence: a target's list of hosts.
fn array(fabric: &Fabric) -> ExitCode {
    let asked: Value = serde_json::from_reader(std::io::stdin()).unwrap();
    let verb = asked["verb"].as_str().unwrap();
    fabric.change(|state| {
        if state.fence_silent {
            eprintln!("the target does not answer");
            return ExitCode::FAILURE;
        }
        if verb == "health" {
            println!("{}", json!({ "done": {} }));
            return ExitCode::SUCCESS;
        }
        let lies = state.fence_lies;
        let generation = asked["generation"].as_u64().unwrap();
        let subsystem = asked["subsystem"].as_str().unwrap();
        let device = state.devices.get_mut(subsystem).unwrap();
        if generation < device.generation {
            println!("{}", json!({ "refused": "a newer move was here" }));
            return ExitCode::SUCCESS;
        }
        let answer = match verb {
            "report" => json!({ "target": {
                "generation": device.generation,
                "allowed": device.allowed,
                "any_host": false,
                "connected": device.writers(),
            } }),
            "close" | "admit" if lies => json!({ "done": {} }),
            "close" | "admit" => {
                device.generation = generation;
                let admitted = asked["admit"]["hostNqn"].as_str().map(str::to_owned);
                device.allowed = admitted.into_iter().collect();
                let until = now_ms() + TEARDOWN_MS;
                let gone: Vec<String> = device.connected.drain(..).collect();
                let stays = |host: &String| device.allowed.contains(host);
                let (kept, gone): (Vec<String>, Vec<String>) = gone.into_iter().partition(stays);
                device.connected = kept;
                device.leaving.extend(gone.into_iter().map(|host| (host, until)));
                json!({ "done": {} })
            }
            other => panic!("no verb {other}"),
        };
        if verb != "report" {
            let host = asked["admit"]["node"].as_str().unwrap_or("nobody").to_owned();
            state
                .log
                .push(format!("{verb} osd.{} {generation} {host}", state.devices[subsystem].osd));
        }
        println!("{answer}");
        ExitCode::SUCCESS
    })
}

fn option<'a>(arguments: &'a [String], name: &str) -> &'a str {
    let at = arguments.iter().position(|it| it == name).unwrap_or_else(|| panic!("no {name}"));
    &arguments[at + 1]
}

fn nvme(fabric: &Fabric, arguments: &[String]) -> ExitCode {
    assert_eq!(arguments[0], "connect");
    let (nqn, host) = (option(arguments, "--nqn"), option(arguments, "--hostnqn"));
    let connected = fabric.change(|state| {
        if state.connects_to_fail > 0 {
            state.connects_to_fail -= 1;
            return None;
        }
        let device = state.devices.get_mut(nqn).expect("a subsystem of this target");
        if !device.allowed.iter().any(|it| it == host) {
            return None;
        }
        if !device.connected.iter().any(|it| it == host) {
            device.connected.push(host.to_owned());
        }
        Some(state.osds[&device.osd].fsid.clone())
    });
    let Some(fsid) = connected else {
        eprintln!("Failed to write to /dev/nvme-fabrics: Connection refused (Invalid Host)");
        return ExitCode::FAILURE;
    };
    // Each node has its own /dev.
    let node = host.rsplit(':').next().unwrap();
    let links = fabric.dir().join("by-id").join(node);
    std::fs::create_dir_all(&links).unwrap();
    let link = links.join(format!("nvme-uuid.{fsid}"));
    if has_ceph(fabric) {
        let osd = fabric.look(|state| state.devices[nqn].osd);
        let device = fabric.dir().join("devices").join(osd.to_string());
        let _ = std::os::unix::fs::symlink(device, link);
    } else {
        std::fs::write(link, nqn).unwrap();
    }
    ExitCode::SUCCESS
}

/// Whether Ceph is real here: then only the fabric is played.
fn has_ceph(fabric: &Fabric) -> bool {
    fabric.dir().join("ceph.conf").exists()
}

/// Becomes a real OSD on the device that its node shows, as `ceph-volume raw activate` would begin
/// it, in a world that has its node's name.
fn real_osd(fabric: &Fabric, id: &str, fsid: &str, node: &str) -> ExitCode {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;
    let link = fabric.dir().join("by-id").join(node).join(format!("nvme-uuid.{fsid}"));
    let data = fabric.dir().join("data").join(node).join(id);
    std::fs::create_dir_all(&data).unwrap();
    let primed = Command::new("ceph-bluestore-tool")
        .args(["prime-osd-dir", "--dev"])
        .arg(&link)
        .arg("--path")
        .arg(&data)
        .status();
    if !primed.is_ok_and(|status| status.success()) {
        eprintln!("osd.{id}: its device is not on {node}");
        std::thread::sleep(Duration::from_millis(500));
        return ExitCode::FAILURE;
    }
    let _ = std::os::unix::fs::symlink(&link, data.join("block"));
    let error = Command::new("unshare")
        .args(["--uts", "sh", "-c", r#"hostname "$1"; shift; exec "$@""#, "sh", node])
        .args(["ceph-osd", "--foreground", "--id", id, "--conf"])
        .arg(fabric.dir().join("ceph.conf"))
        .arg("--osd-data")
        .arg(&data)
        .exec();
    panic!("{error}");
}

fn label(fabric: &Fabric, arguments: &[String]) -> ExitCode {
    let path = option(arguments, "--dev");
    let nqn = std::fs::read_to_string(path).unwrap();
    fabric.look(|state| {
        let osd = state.devices[&nqn].osd;
        let label = json!({
            "osd_uuid": state.osds[&osd].fsid,
            "ceph_fsid": state.cluster,
            "whoami": osd.to_string(),
            "description": "main",
        });
        println!("{}", json!({ path: label }));
    });
    ExitCode::SUCCESS
}

/// A daemon: it beats while it may write, and dies of errors.
fn osd(fabric: &Fabric, arguments: &[String]) -> ExitCode {
    let id: u32 = option(arguments, "--id").parse().unwrap();
    let node = std::env::var("NODE_NAME").unwrap();
    let host = std::env::var("HOST_NQN").unwrap();
    if has_ceph(fabric) {
        return real_osd(fabric, option(arguments, "--id"), option(arguments, "--fsid"), &node);
    }
    let pid = std::process::id();
    let mut errors = 0;
    let mut booted = false;
    loop {
        let written = fabric.change(|state| {
            let device = state.devices.values_mut().find(|it| it.osd == id).unwrap();
            if !device.write(&host, pid) {
                return false;
            }
            let osd = state.osds.get_mut(&id).unwrap();
            osd.boots += u64::from(!booted || !is_up(osd));
            osd.host = Some(node.clone());
            osd.beat_ms = now_ms();
            true
        });
        if written {
            (booted, errors) = (true, 0);
        } else {
            errors += 1;
        }
        if errors == 3 {
            eprintln!("osd.{id}: I/O error");
            return ExitCode::FAILURE;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
