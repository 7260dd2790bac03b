//! What a person decided: one file, read once at the start.
//!
//! Everything has a default but the namespace. What is not understood is an error: a policy with a
//! misspelt limit must not run without it. Durations are text with a unit: `"25s"`, `"10m"`.

use nvmeof_recoverer::plan::{Automatic, Policy, Weights};
use serde::{Deserialize, Deserializer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// The configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The namespace of the CephCluster, the OSDs and our own objects.
    pub namespace: String,
    /// How often everything is looked at.
    #[serde(default = "look_every", deserialize_with = "duration")]
    pub look_every: Duration,
    /// Who leads.
    #[serde(default)]
    pub lease: LeaseOptions,
    /// How Ceph is asked.
    #[serde(default)]
    pub ceph: CephOptions,
    /// The folder of fences that are programs.
    #[serde(default = "fences")]
    pub fences: PathBuf,
    /// How targets' own fences are asked (`nvmet`).
    #[serde(default)]
    pub fence_tls: Option<FenceTls>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; nowhere without it.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// The Jobs on nodes.
    #[serde(default)]
    pub node_jobs: NodeJobs,
    /// When and how OSDs are moved.
    #[serde(default)]
    pub policy: PolicyOptions,
}

/// The leader's Lease.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseOptions {
    /// Its namespace: that of the nodes' own leases, so that one watch shows all of them.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// A leader that is not heard of for so long is one no more.
    #[serde(deserialize_with = "duration")]
    pub duration: Duration,
    /// A leader stops by itself so long before that.
    #[serde(deserialize_with = "duration")]
    pub margin: Duration,
    /// How often it is renewed, and looked at by the others.
    #[serde(deserialize_with = "duration")]
    pub renew: Duration,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self {
            namespace: "kube-node-lease".to_owned(),
            name: "nvmeof-recoverer".to_owned(),
            duration: Duration::from_secs(15),
            margin: Duration::from_secs(5),
            renew: Duration::from_secs(2),
        }
    }
}

/// The `ceph` command.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CephOptions {
    /// The program.
    pub program: PathBuf,
    /// What stands before every question: `--name`, `--keyfile`.
    pub options: Vec<String>,
    /// The file in which Rook says where the mons are (`data` of `rook-ceph-mon-endpoints`).
    pub mon_endpoints: Option<PathBuf>,
    /// How long an answer may take.
    #[serde(deserialize_with = "duration")]
    pub deadline: Duration,
}

impl Default for CephOptions {
    fn default() -> Self {
        Self {
            program: PathBuf::from("/usr/bin/ceph"),
            options: Vec::new(),
            mon_endpoints: None,
            deadline: Duration::from_secs(8),
        }
    }
}

/// Who we are to a target's own fence, and whom we believe there. PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FenceTls {
    /// Whoever signed the targets' certificates.
    pub authority: PathBuf,
    /// Our certificate and those above it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The Jobs that connect devices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeJobs {
    /// An image with this program, nvme-cli and ceph-bluestore-tool.
    pub image: String,
    /// This program in it.
    pub program: PathBuf,
    /// nvme-cli in it.
    pub nvme: PathBuf,
    /// ceph-bluestore-tool in it.
    pub label_tool: PathBuf,
    /// Where udev links devices by their ids.
    pub by_id: PathBuf,
    /// How long a Job may take.
    #[serde(deserialize_with = "duration")]
    pub deadline: Duration,
}

impl Default for NodeJobs {
    fn default() -> Self {
        Self {
            image: "nvmeof-recoverer".to_owned(),
            program: PathBuf::from("/usr/bin/nvmeof-recoverer"),
            nvme: PathBuf::from("/usr/sbin/nvme"),
            label_tool: PathBuf::from("/usr/bin/ceph-bluestore-tool"),
            by_id: PathBuf::from("/dev/disk/by-id"),
            deadline: Duration::from_secs(60),
        }
    }
}

/// The policy, as it is written down. What is left out is as in [`Policy`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyOptions {
    automatic: bool,
    #[serde(deserialize_with = "some_duration")]
    lease_silent: Option<Duration>,
    #[serde(deserialize_with = "some_duration")]
    view_fresh: Option<Duration>,
    rounds: Option<u32>,
    #[serde(deserialize_with = "some_duration")]
    round_gap: Option<Duration>,
    storm_nodes: Option<usize>,
    #[serde(deserialize_with = "some_duration")]
    storm_silent: Option<Duration>,
    #[serde(deserialize_with = "some_duration")]
    cooldown: Option<Duration>,
    moves_per_hour: Option<usize>,
    #[serde(deserialize_with = "some_duration")]
    hold_down: Option<Duration>,
    #[serde(deserialize_with = "some_duration")]
    confirm_patience: Option<Duration>,
    #[serde(deserialize_with = "some_duration")]
    fence_patience: Option<Duration>,
    #[serde(deserialize_with = "some_duration")]
    fence_again: Option<Duration>,
    #[serde(deserialize_with = "some_duration")]
    step_patience: Option<Duration>,
    #[serde(deserialize_with = "some_duration")]
    clean_patience: Option<Duration>,
    max_osds_per_node: Option<usize>,
    weights: Option<Weights>,
    rebalance: bool,
    rebalance_gain: Option<u32>,
    #[serde(deserialize_with = "some_duration")]
    rebalance_after: Option<Duration>,
    #[serde(deserialize_with = "some_duration")]
    rebalance_rest: Option<Duration>,
}

impl PolicyOptions {
    /// The policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let usual = Policy::default();
        Policy {
            automatic: if self.automatic { Automatic::On } else { Automatic::Off },
            lease_silent: self.lease_silent.unwrap_or(usual.lease_silent),
            view_fresh: self.view_fresh.unwrap_or(usual.view_fresh),
            rounds: self.rounds.unwrap_or(usual.rounds),
            round_gap: self.round_gap.unwrap_or(usual.round_gap),
            storm_nodes: self.storm_nodes.unwrap_or(usual.storm_nodes),
            storm_silent: self.storm_silent.unwrap_or(usual.storm_silent),
            cooldown: self.cooldown.unwrap_or(usual.cooldown),
            moves_per_hour: self.moves_per_hour.unwrap_or(usual.moves_per_hour),
            hold_down: self.hold_down.unwrap_or(usual.hold_down),
            confirm_patience: self.confirm_patience.unwrap_or(usual.confirm_patience),
            fence_patience: self.fence_patience.unwrap_or(usual.fence_patience),
            fence_again: self.fence_again.unwrap_or(usual.fence_again),
            step_patience: self.step_patience.unwrap_or(usual.step_patience),
            clean_patience: self.clean_patience.unwrap_or(usual.clean_patience),
            max_osds_per_node: self.max_osds_per_node.unwrap_or(usual.max_osds_per_node),
            weights: self.weights.unwrap_or(usual.weights),
            rebalance: if self.rebalance { Automatic::On } else { Automatic::Off },
            rebalance_gain: self.rebalance_gain.unwrap_or(usual.rebalance_gain),
            rebalance_after: self.rebalance_after.unwrap_or(usual.rebalance_after),
            rebalance_rest: self.rebalance_rest.unwrap_or(usual.rebalance_rest),
            ..usual
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not understood.
    #[error("{} is not understood", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<ron::error::SpannedError>,
    },
    /// It contradicts itself.
    #[error("{}: {why}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
}

impl Config {
    /// Everything as it is without a file.
    #[must_use]
    pub fn of_namespace(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            look_every: look_every(),
            lease: LeaseOptions::default(),
            ceph: CephOptions::default(),
            fences: fences(),
            fence_tls: None,
            listen: None,
            node_jobs: NodeJobs::default(),
            policy: PolicyOptions::default(),
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, is not understood or contradicts itself.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let path = path.to_path_buf();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        Self::parse(path, &text)
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self, ConfigError> {
        let options = ron::Options::default()
            .with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
        let config: Self = match options.from_str(text) {
            Ok(config) => config,
            Err(source) => return Err(ConfigError::Parse { path, source: Box::new(source) }),
        };
        match config.wrong() {
            Some(why) => Err(ConfigError::Invalid { path, why }),
            None => Ok(config),
        }
    }

    fn wrong(&self) -> Option<&'static str> {
        let lease = &self.lease;
        if lease.margin >= lease.duration || lease.renew >= lease.duration - lease.margin {
            return Some("the lease must be renewed well before its margin begins");
        }
        if !self.ceph.program.is_absolute() || !self.fences.is_absolute() {
            return Some("programs are named by absolute paths");
        }
        let policy = self.policy.policy();
        if policy.rounds == 0 || policy.storm_nodes == 0 {
            return Some("rounds and storm_nodes must be at least 1");
        }
        if policy.storm_silent > policy.lease_silent {
            return Some("storm_silent must not be longer than lease_silent");
        }
        if !(1..=100).contains(&policy.rebalance_gain) {
            return Some("rebalance_gain must be 1 to 100 points");
        }
        // A move that was just begun must have been seen before the next one can be due.
        if policy.rebalance_after <= policy.view_fresh || policy.rebalance_rest < policy.cooldown {
            return Some(
                "rebalance_after must be longer than view_fresh, and rebalance_rest not shorter \
                 than cooldown",
            );
        }
        (policy.view_fresh <= self.look_every)
            .then_some("view_fresh must be longer than look_every")
    }
}

fn look_every() -> Duration {
    Duration::from_secs(2)
}

fn fences() -> PathBuf {
    PathBuf::from("/usr/lib/nvmeof-recoverer/fences")
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let signed: jiff::SignedDuration = text.parse().map_err(serde::de::Error::custom)?;
    Duration::try_from(signed).map_err(serde::de::Error::custom)
}

fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let config = Config::parse(PathBuf::from("a file"), text);
        config.map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_namespace_is_enough() {
        let config = read(r#"(namespace: "rook-ceph")"#).unwrap();
        assert_eq!(config.policy.policy(), Policy::default());
        assert_eq!(config.ceph.program, Path::new("/usr/bin/ceph"));
    }

    #[test]
    fn the_shipped_configuration_is_understood_and_moves_nothing_by_itself() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../packaging/kubernetes/controller.yaml");
        let shipped = std::fs::read_to_string(shipped).unwrap();
        let inside = shipped.lines().skip_while(|line| line.trim() != "config.ron: |").skip(1);
        let inside = inside.take_while(|line| line.starts_with("    "));
        let config = read(&inside.collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!(config.policy.policy().automatic, Automatic::Off);
        assert_eq!(config.policy.policy().rebalance, Automatic::Off);
        assert!(config.fence_tls.is_some());
    }

    #[test]
    fn what_is_written_counts() {
        let config = read(
            r#"(namespace: "x", look_every: "1s", lease: (duration: "6s", margin: "2s", renew: "500ms"),
                policy: (automatic: true, lease_silent: "40s", rounds: 3,
                         rebalance: true, rebalance_gain: 20, rebalance_after: "1h"))"#,
        )
        .unwrap();
        let policy = config.policy.policy();
        assert_eq!(policy.automatic, Automatic::On);
        assert_eq!((policy.lease_silent, policy.rounds), (Duration::from_secs(40), 3));
        assert_eq!(config.lease.renew, Duration::from_millis(500));
        assert_eq!((policy.rebalance, policy.rebalance_gain), (Automatic::On, 20));
        assert_eq!(policy.rebalance_after, Duration::from_secs(3600));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for text in [
            "()",
            r#"(namespace: "x", polcy: ())"#,
            r#"(namespace: "x", policy: (lease_silent: 25))"#,
            r#"(namespace: "x", policy: (lease_silent: "-25s"))"#,
            r#"(namespace: "x", policy: (rounds: 0))"#,
            r#"(namespace: "x", policy: (lease_silent: "12s"))"#,
            r#"(namespace: "x", policy: (rebalance_gain: 0))"#,
            r#"(namespace: "x", policy: (rebalance_after: "2s"))"#,
            r#"(namespace: "x", policy: (rebalance_rest: "1m"))"#,
            r#"(namespace: "x", lease: (duration: "5s"))"#,
            r#"(namespace: "x", ceph: (program: "ceph"))"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
