//! etcd, the API server and its controllers, as processes of this machine.
//!
//! Everything listens on the loopback, on ports that were free a moment ago, and keeps its data
//! below `target/cluster`. What was started is written down there, so that a scenario can end the
//! API server and start it again, and `stop` finds what is left of a run that was killed.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::lab::command::{run, tail};
use crate::workspace;

const PATIENCE: Duration = Duration::from_secs(120);
/// The one user there is; the server is reached from this machine only.
const TOKEN: &str = "scenario";

/// The record of what was asked.
pub(super) const AUDIT: &str = "audit.log";

/// A running API server.
#[derive(Debug)]
pub(crate) struct Server {
    dir: PathBuf,
    ends_with_us: bool,
}

fn directory() -> PathBuf {
    workspace::target().join("cluster")
}

/// Ends what an earlier run left; how many processes that were.
pub(super) fn stop() -> anyhow::Result<usize> {
    let mut ended = 0;
    // The API server before its database: it would wait for it.
    for name in ["kube-controller-manager", "kube-apiserver", "etcd"] {
        let file = directory().join(format!("{name}.pid"));
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let pid = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid.filter(|_| runs(text.trim(), name)) {
            ended += usize::from(
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok(),
            );
        }
        std::fs::remove_file(&file)?;
    }
    Ok(ended)
}

/// Whether that pid is still the program it was: numbers are given again.
fn runs(pid: &str, name: &str) -> bool {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
    exe.is_ok_and(|exe| exe.file_name().is_some_and(|it| it == name))
}

impl Server {
    /// Starts one from nothing.
    pub(crate) fn start(programs: &Path) -> anyhow::Result<Self> {
        stop()?;
        let dir = directory();
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        let started = Instant::now();
        let server = Self { dir, ends_with_us: true };
        let [etcd, peer, api, kcm] = free_ports()?;
        server.etcd(programs, etcd, peer)?;
        server.api(programs, etcd, api)?;
        server.controllers(programs, kcm)?;
        println!("cluster: an API server is ready, {} s", started.elapsed().as_secs());
        Ok(server)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Lets it run on.
    pub(super) fn leave(mut self) {
        self.ends_with_us = false;
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn etcd(&self, programs: &Path, port: u16, peer: u16) -> anyhow::Result<()> {
        let url = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer}");
        let arguments = [
            format!("--data-dir={}", self.path("etcd")),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // What a power cut would take is not what is tested here.
            "--unsafe-no-fsync".to_owned(),
        ];
        let mut child = self.spawn(programs, "etcd", &arguments)?;
        self.wait("etcd", &mut child, || TcpStream::connect(("127.0.0.1", port)).is_ok())
    }

    fn api(&self, programs: &Path, etcd: u16, port: u16) -> anyhow::Result<()> {
        let key = self.path("service-account.key");
        run(Command::new("openssl").args(["genrsa", "-out", &key, "2048"]))?;
        let tokens = self.path("tokens");
        std::fs::write(&tokens, format!("{TOKEN},admin,1,system:masters\n"))?;
        let policy = self.path("audit-policy");
        std::fs::write(&policy, audit_policy().to_string())?;
        let arguments = [
            format!("--audit-policy-file={policy}"),
            format!("--audit-log-path={}", self.path(AUDIT)),
            format!("--etcd-servers=http://127.0.0.1:{etcd}"),
            format!("--cert-dir={}", self.path("certificates")),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--service-account-issuer=https://127.0.0.1".to_owned(),
            format!("--service-account-key-file={key}"),
            format!("--service-account-signing-key-file={key}"),
            format!("--token-auth-file={tokens}"),
            "--authorization-mode=RBAC".to_owned(),
            // Nobody here mounts tokens into pods.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--allow-privileged=true".to_owned(),
        ];
        let mut child = self.spawn(programs, "kube-apiserver", &arguments)?;
        let kubeconfig = self.kubeconfig();
        std::fs::write(&kubeconfig, self.access(port).to_string())?;
        self.wait("kube-apiserver", &mut child, || ready(&kubeconfig))
    }

    /// JSON is YAML.
    fn access(&self, port: u16) -> serde_json::Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "scenario", "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority": self.path("certificates/apiserver.crt"),
            } }],
            "users": [{ "name": "admin", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "scenario", "context": {
                "cluster": "scenario", "user": "admin",
            } }],
            "current-context": "scenario",
        })
    }

    fn controllers(&self, programs: &Path, port: u16) -> anyhow::Result<()> {
        let arguments = [
            format!("--kubeconfig={}", self.kubeconfig().display()),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--port=0".to_owned(),
            format!("--cert-dir={}", self.path("certificates")),
            "--leader-elect=false".to_owned(),
            format!("--service-account-private-key-file={}", self.path("service-account.key")),
            // What the recoverer needs: pods for Deployments and Jobs, and what is thrown away.
            "--controllers=deployment,replicaset,job,garbagecollector,namespace,nodelifecycle,podgc"
                .to_owned(),
        ];
        let mut child = self.spawn(programs, "kube-controller-manager", &arguments)?;
        self.wait("kube-controller-manager", &mut child, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
    }

    fn spawn(&self, programs: &Path, name: &str, arguments: &[String]) -> anyhow::Result<Child> {
        let program = programs.join(name);
        let log = File::create(self.dir.join(format!("{name}.log")))?;
        let child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        std::fs::write(self.dir.join(format!("{name}.pid")), child.id().to_string())?;
        let how = json!({ "program": program, "arguments": arguments });
        std::fs::write(self.dir.join(format!("{name}.json")), how.to_string())?;
        Ok(child)
    }

    fn wait(&self, name: &str, child: &mut Child, ready: impl Fn() -> bool) -> anyhow::Result<()> {
        let started = Instant::now();
        while !ready() {
            if let Some(status) = child.try_wait()? {
                let log = std::fs::read_to_string(self.dir.join(format!("{name}.log")));
                bail!("{name} ended with {status}:\n{}", tail(&log.unwrap_or_default(), 20));
            }
            if started.elapsed() > PATIENCE {
                bail!("{name} is not ready after {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.ends_with_us {
            if let Err(error) = stop() {
                println!("cluster: {error:#}");
            }
        }
    }
}

/// Who asked for what, of those that are no person.
fn audit_policy() -> serde_json::Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "Metadata", "userGroups": ["system:serviceaccounts"] },
            { "level": "None" },
        ],
    })
}

fn ready(kubeconfig: &Path) -> bool {
    let asked = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["get", "--raw", "/readyz"])
        .stderr(Stdio::null())
        .output();
    asked.is_ok_and(|output| output.status.success() && output.stdout == b"ok")
}

/// Ports nobody listens on; all held at once, so that they differ.
fn free_ports() -> anyhow::Result<[u16; 4]> {
    let mut held = Vec::new();
    let mut ports = [0; 4];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
