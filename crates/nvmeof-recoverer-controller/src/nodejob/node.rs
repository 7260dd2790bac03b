//! The node's half: what runs in the Job.

use heal_types::{NamespaceId, Nqn};
use nvmeof_recoverer::plan::view::{Device, OsdIdentity};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use super::Said;
use crate::rook;

/// How long `nvme connect` may take, and the device may take to appear after it.
const DEADLINE: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A connection to be made.
#[derive(Debug, Clone, clap::Args)]
pub struct Connect {
    /// The fabric: `tcp` or `rdma`.
    #[arg(long)]
    pub transport: String,
    /// An address of the target; may be given more than once.
    #[arg(long, required = true)]
    pub portal: Vec<SocketAddr>,
    /// The device's subsystem.
    #[arg(long)]
    pub subsystem: Nqn,
    /// The device's namespace.
    #[arg(long)]
    pub namespace: NamespaceId,
    /// The node's name on the fabric.
    #[arg(long)]
    pub host_nqn: Nqn,
    /// The node's host id.
    #[arg(long)]
    pub host_id: String,
    /// nvme-cli.
    #[arg(long, default_value = "/usr/sbin/nvme")]
    pub nvme: PathBuf,
    /// ceph-bluestore-tool.
    #[arg(long, default_value = "/usr/bin/ceph-bluestore-tool")]
    pub label_tool: PathBuf,
    /// Where udev links devices by their ids.
    #[arg(long, default_value = "/dev/disk/by-id")]
    pub by_id: PathBuf,
    /// Where the kernel shows its controllers.
    #[arg(long, default_value = "/sys/class/nvme")]
    pub controllers: PathBuf,
    /// Where the answer is written.
    #[arg(long, default_value = "/dev/termination-log")]
    pub answer: PathBuf,
}

/// Connects, and says what lies on the device.
pub async fn connect(how: &Connect) -> Said {
    let device = Device { subsystem: how.subsystem.clone(), namespace: how.namespace };
    let path = how.by_id.join(rook::link(&device));
    let mut troubles = Vec::new();
    if !path.exists() {
        for portal in &how.portal {
            if let Err(trouble) = connect_portal(how, *portal).await {
                troubles.push(format!("{portal}: {trouble}"));
            }
        }
        if !appears(&path).await {
            let said = troubles.join("; ");
            return Said::Again(format!("the device did not appear; {said}"));
        }
    }
    for trouble in fail_soon(how) {
        tracing::warn!(trouble, "a fenced node would learn it late");
    }
    match label(&how.label_tool, &path).await {
        Ok(label) => Said::Label(label),
        Err(why) => Said::Again(why),
    }
}

async fn connect_portal(how: &Connect, portal: SocketAddr) -> Result<(), String> {
    let mut command = tokio::process::Command::new(&how.nvme);
    command
        .arg("connect")
        .args(["--transport", &how.transport])
        .args(["--traddr", &portal.ip().to_string()])
        .args(["--trsvcid", &portal.port().to_string()])
        .args(["--nqn", how.subsystem.as_str()])
        .args(["--hostnqn", how.host_nqn.as_str()])
        .args(["--hostid", &how.host_id])
        .args(["--keep-alive-tmo", "5", "--ctrl-loss-tmo", "60"]);
    run(&mut command).await.map(drop)
}

/// A host that is fenced learns it soon: its I/O fails instead of waiting for the controller's end.
/// Told to the kernel itself, as not every nvme-cli has an option for that; what could not be told.
fn fail_soon(how: &Connect) -> Vec<String> {
    let Ok(controllers) = std::fs::read_dir(&how.controllers) else {
        return vec![format!("{} cannot be read", how.controllers.display())];
    };
    let says = |controller: &Path, what: &str| {
        let text = std::fs::read_to_string(controller.join(what)).unwrap_or_default();
        text.trim().to_owned()
    };
    let ours = controllers.filter_map(|entry| Some(entry.ok()?.path())).filter(|controller| {
        says(controller, "subsysnqn") == how.subsystem.as_str()
            && says(controller, "hostnqn") == how.host_nqn.as_str()
    });
    let told = ours.map(|controller| {
        let file = controller.join("fast_io_fail_tmo");
        let mut options = std::fs::OpenOptions::new();
        let done = options.write(true).open(&file).and_then(|mut file| file.write_all(b"5"));
        done.map_err(|error| format!("{}: {error}", file.display()))
    });
    told.filter_map(Result::err).collect()
}

async fn appears(path: &Path) -> bool {
    let started = Instant::now();
    while started.elapsed() < DEADLINE {
        if path.exists() {
            return true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    false
}

async fn label(tool: &Path, path: &Path) -> Result<OsdIdentity, String> {
    let mut command = tokio::process::Command::new(tool);
    command.args(["show-label", "--dev"]).arg(path);
    let output = run(&mut command).await?;
    read_label(&output.stdout)
}

/// As `ceph-bluestore-tool show-label` prints it: one object for each device.
#[derive(Debug, Deserialize)]
struct Label {
    osd_uuid: String,
    ceph_fsid: String,
    whoami: String,
}

fn read_label(printed: &[u8]) -> Result<OsdIdentity, String> {
    let labels: BTreeMap<String, Label> = serde_json::from_slice(printed)
        .map_err(|error| format!("the label is not understood: {error}"))?;
    let label = labels.into_values().next().ok_or("there is no label")?;
    let strange = |error: &dyn std::fmt::Display| format!("the label is not understood: {error}");
    Ok(OsdIdentity {
        cluster: label.ceph_fsid.parse().map_err(|error| strange(&error))?,
        id: label.whoami.parse().map_err(|error| strange(&error))?,
        fsid: label.osd_uuid.parse().map_err(|error| strange(&error))?,
    })
}

async fn run(command: &mut tokio::process::Command) -> Result<Output, String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let child = command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, child)
        .await
        .map_err(|_| format!("{program} did not end in {} s", DEADLINE.as_secs()))?
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.lines().last().unwrap_or_default().chars().take(160).collect();
    Err(format!("{program} ended with {}: {said}", output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_as_the_tool_prints_it() {
        let printed = br#"{ "/dev/disk/by-id/nvme-uuid.x": {
            "osd_uuid": "0f7e4d5a-1111-4222-8333-444455550003", "size": 4294967296,
            "btime": "2026-01-01T00:00:00.000000+0000", "description": "main",
            "bfm_blocks": "1048576", "ceph_fsid": "0f7e4d5a-1111-4222-8333-444455556666",
            "ceph_version_when_created": "ceph version 16.2.15", "magic": "ceph osd volume v026",
            "ready": "ready", "whoami": "3" } }"#;
        let label = read_label(printed).unwrap();
        assert_eq!(label.id.number(), 3);
        assert_eq!(label.fsid.to_string(), "0f7e4d5a-1111-4222-8333-444455550003");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a scratch folder of this test")]
    fn only_the_controllers_of_this_host_and_device_are_told_to_fail_soon() {
        let dir = std::env::temp_dir().join(format!("recoverer-node-{}", std::process::id()));
        let (ours, other) = ("nqn.2026-01.org.example:a", "nqn.2026-01.org.example:b");
        for (name, subsystem, host) in
            [("nvme0", ours, ours), ("nvme1", other, ours), ("nvme2", ours, other)]
        {
            let controller = dir.join(name);
            std::fs::create_dir_all(&controller).unwrap();
            std::fs::write(controller.join("subsysnqn"), format!("{subsystem}\n")).unwrap();
            std::fs::write(controller.join("hostnqn"), format!("{host}\n")).unwrap();
            std::fs::write(controller.join("fast_io_fail_tmo"), "o").unwrap();
        }
        let how = Connect {
            transport: "tcp".to_owned(),
            portal: Vec::new(),
            subsystem: Nqn::new(ours).unwrap(),
            namespace: "uuid.0f7e4d5a-1111-4222-8333-444455550003".parse().unwrap(),
            host_nqn: Nqn::new(ours).unwrap(),
            host_id: String::new(),
            nvme: PathBuf::new(),
            label_tool: PathBuf::new(),
            by_id: PathBuf::new(),
            controllers: dir.clone(),
            answer: PathBuf::new(),
        };
        assert_eq!(fail_soon(&how), Vec::<String>::new());
        let told = |name: &str| std::fs::read_to_string(dir.join(name).join("fast_io_fail_tmo"));
        assert_eq!(told("nvme0").unwrap(), "5");
        assert_eq!((told("nvme1").unwrap(), told("nvme2").unwrap()), ("o".into(), "o".into()));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_label_without_an_owner_is_none() {
        for printed in [&b"{}"[..], b"", br#"{"x":{"osd_uuid":"y","ceph_fsid":"z","whoami":"0"}}"#]
        {
            assert!(read_label(printed).is_err());
        }
    }
}
