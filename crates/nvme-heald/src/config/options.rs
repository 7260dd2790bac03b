//! The options: names, types and defaults. Their prose is in the example file, which a test holds
//! equal to this.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use heal_core::budget::{AfterStorm, Limits as CoreLimits};
use heal_core::{IsolateAfter, Mode, Policy};
use heal_provisioner::text::{HumanDuration, HumanGrace, parse_duration};
use heal_types::{Alias, ArrayId, GracePolicy, InvalidText, Nqn};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::vendor::Access;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) mode: Mode,
    pub(crate) provisioner: ProvisionerConfig,
    pub(crate) provisioner_timeout: HumanDuration,
    pub(crate) grace: HumanGrace,
    pub(crate) re_add: bool,
    pub(crate) limits: Limits,
    pub(crate) isolation: Isolation,
    pub(crate) flapping: Flapping,
    pub(crate) arrays: BTreeMap<ArrayKey, ArrayOverride>,
    pub(crate) connect: Connect,
    pub(crate) os_brick: OsBrick,
    pub(crate) timing: Timing,
    pub(crate) safety_scan: SafetyScan,
    pub(crate) log_level: LogLevel,
    pub(crate) state_dir: PathBuf,
    pub(crate) runtime_dir: PathBuf,
}

/// Who provides replicas.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum ProvisionerConfig {
    /// Nobody.
    #[default]
    None,
    /// A file of volumes and spare replicas.
    Fixed {
        /// What the operator writes.
        inventory: PathBuf,
        /// What the backend remembers.
        state: PathBuf,
    },
    /// Kioxia KumoScale.
    KumoScale {
        /// The management addresses; none: those of `conf`.
        #[serde(default)]
        addresses: Vec<String>,
        /// The vendor's own file, read for what is not said here.
        #[serde(default = "kioxia_conf")]
        conf: PathBuf,
        /// Whom to believe, and who we are.
        #[serde(default)]
        access: Access,
        /// This host's id at the provisioner.
        #[serde(default)]
        host_id: Option<String>,
        /// What the backend remembers.
        #[serde(default = "kumoscale_state")]
        state: PathBuf,
    },
    /// Our own protocol, over HTTPS.
    Http {
        /// Where it is spoken.
        urls: Vec<String>,
        /// Whom to believe, and who we are.
        #[serde(default)]
        access: Access,
    },
    /// Our own protocol, to a program.
    Exec {
        /// The program.
        program: PathBuf,
        /// The user it runs as.
        #[serde(default = "plugin_user")]
        user: String,
        /// Whether it may use the network.
        #[serde(default)]
        network: bool,
    },
}

impl ProvisionerConfig {
    /// The backend's name, as `status` shows it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Fixed { .. } => "fixed",
            Self::KumoScale { .. } => "kumoscale",
            Self::Http { .. } => "http",
            Self::Exec { .. } => "exec",
        }
    }
}

fn kioxia_conf() -> PathBuf {
    PathBuf::from(heal_provisioner::kumoscale::conf::CONF)
}

fn kumoscale_state() -> PathBuf {
    PathBuf::from("/var/lib/nvme-heal/kumoscale-state.ron")
}

fn plugin_user() -> String {
    "nvme-heal-plugin".to_owned()
}

/// How much may be replaced at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) replacements: usize,
    pub(crate) storm_arrays: usize,
    pub(crate) storm_window: HumanDuration,
    pub(crate) after_storm: StormPolicy,
}

/// When the application's I/O is freed from a leg that nothing gets through to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Isolation {
    pub(crate) isolate_after: HumanGrace,
    pub(crate) stalled_after: HumanDuration,
    pub(crate) delete_after: HumanDuration,
    pub(crate) fast_io_fail: HumanDuration,
    pub(crate) many_arrays: usize,
}

/// When a leg that comes and goes stays out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Flapping {
    pub(crate) limit: u32,
    pub(crate) half_life: HumanDuration,
    pub(crate) hold_down: HumanDuration,
}

/// What to do once many arrays fail together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StormPolicy {
    /// Go on, one replacement at a time.
    OneAtATime,
    /// No replacement until it is over.
    Hold,
}

/// What is different for one array.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ArrayOverride {
    pub(crate) mode: Option<Mode>,
    pub(crate) grace: Option<HumanGrace>,
    pub(crate) re_add: Option<bool>,
    pub(crate) isolate_after: Option<HumanGrace>,
}

/// Which array: by its UUID, or by the name in its superblock. Never by `md127`, which is the name
/// of whoever was assembled first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum ArrayKey {
    /// MD array UUID.
    Id(ArrayId),
    /// Array name.
    Alias(Alias),
}

/// How controllers are connected that are ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Connect {
    pub(crate) io_queues: Option<u16>,
    pub(crate) keep_alive: HumanDuration,
    pub(crate) reconnect_delay: HumanDuration,
    pub(crate) ctrl_loss: HumanDuration,
    pub(crate) host_nqn: Option<Nqn>,
    pub(crate) header_digest: bool,
    pub(crate) data_digest: bool,
}

/// Who else attaches volumes to this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OsBrick {
    pub(crate) lock_paths: Vec<PathBuf>,
    pub(crate) put_away_after: HumanDuration,
}

/// The machine's clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timing {
    pub(crate) longest_grace: HumanDuration,
    pub(crate) gone_confirm: HumanDuration,
    pub(crate) return_hold_down: HumanDuration,
    pub(crate) refresh_in_repair: HumanDuration,
    pub(crate) refresh_when_whole: HumanDuration,
    pub(crate) namespace_timeout: HumanDuration,
    pub(crate) refused_retry: HumanDuration,
    pub(crate) retry_min: HumanDuration,
    pub(crate) retry_max: HumanDuration,
    pub(crate) attempts: u32,
}

/// How often to look although nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SafetyScan {
    /// Never: events alone.
    Off,
    /// This often, with jitter.
    Every(HumanDuration),
}

/// The least important diagnostics that are logged. The audit trail is always whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Default for Config {
    fn default() -> Self {
        let policy = Policy::default();
        Self {
            mode: policy.mode,
            provisioner: ProvisionerConfig::None,
            provisioner_timeout: HumanDuration(Duration::from_secs(10)),
            grace: HumanGrace(policy.grace),
            re_add: policy.re_add,
            limits: Limits::default(),
            isolation: Isolation::default(),
            flapping: Flapping::default(),
            arrays: BTreeMap::new(),
            connect: Connect::default(),
            os_brick: OsBrick::default(),
            timing: Timing::default(),
            safety_scan: SafetyScan::Every(HumanDuration(Duration::from_secs(60))),
            log_level: LogLevel::Info,
            state_dir: PathBuf::from("/var/lib/nvme-heal"),
            runtime_dir: PathBuf::from("/run/nvme-heald"),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let core = CoreLimits::default();
        Self {
            replacements: core.replacements,
            storm_arrays: core.storm_arrays,
            storm_window: HumanDuration(core.storm_window),
            after_storm: match core.after_storm {
                AfterStorm::OneAtATime => StormPolicy::OneAtATime,
                AfterStorm::Hold => StormPolicy::Hold,
            },
        }
    }
}

impl Default for OsBrick {
    fn default() -> Self {
        Self { lock_paths: Vec::new(), put_away_after: HumanDuration(Duration::from_secs(5)) }
    }
}

impl Default for Isolation {
    fn default() -> Self {
        let policy = Policy::default();
        Self {
            isolate_after: HumanGrace(match policy.isolate_after {
                IsolateAfter::After(after) => GracePolicy::After(after),
                IsolateAfter::Never => GracePolicy::Never,
            }),
            stalled_after: HumanDuration(Duration::from_secs(10)),
            delete_after: HumanDuration(policy.delete_after),
            fast_io_fail: HumanDuration(Duration::from_secs(1)),
            many_arrays: 3,
        }
    }
}

impl Default for Flapping {
    fn default() -> Self {
        let flapping = Policy::default().flapping;
        Self {
            limit: flapping.limit,
            half_life: HumanDuration(flapping.half_life),
            hold_down: HumanDuration(flapping.hold_down),
        }
    }
}

impl Default for Connect {
    fn default() -> Self {
        let connect = Policy::default().connect;
        Self {
            io_queues: connect.io_queues,
            keep_alive: HumanDuration(connect.keep_alive),
            reconnect_delay: HumanDuration(connect.reconnect_delay),
            ctrl_loss: HumanDuration(connect.ctrl_loss),
            host_nqn: connect.host_nqn,
            header_digest: connect.digests.header,
            data_digest: connect.digests.data,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        let policy = Policy::default();
        Self {
            longest_grace: HumanDuration(policy.longest_grace),
            gone_confirm: HumanDuration(policy.gone_confirm),
            return_hold_down: HumanDuration(policy.return_hold_down),
            refresh_in_repair: HumanDuration(policy.refresh_in_repair),
            refresh_when_whole: HumanDuration(policy.refresh_when_whole),
            namespace_timeout: HumanDuration(policy.namespace_timeout),
            refused_retry: HumanDuration(policy.refused_retry),
            retry_min: HumanDuration(policy.retry_min),
            retry_max: HumanDuration(policy.retry_max),
            attempts: policy.attempts,
        }
    }
}

impl From<StormPolicy> for AfterStorm {
    fn from(policy: StormPolicy) -> Self {
        match policy {
            StormPolicy::OneAtATime => Self::OneAtATime,
            StormPolicy::Hold => Self::Hold,
        }
    }
}

impl TryFrom<String> for ArrayKey {
    type Error = InvalidText;
    fn try_from(text: String) -> Result<Self, InvalidText> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => Alias::new(text).map(Self::Alias),
        }
    }
}

impl From<ArrayKey> for String {
    fn from(key: ArrayKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for ArrayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Alias(alias) => alias.fmt(f),
        }
    }
}

impl Serialize for SafetyScan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("Off"),
            Self::Every(period) => serializer.collect_str(period),
        }
    }
}

impl<'de> Deserialize<'de> for SafetyScan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An untagged enum is what makes RON hand over a bare word: as text, like a quoted one.
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a duration such as \"60s\", or Off")]
        enum Either {
            Word(String),
        }
        let Either::Word(word) = Either::deserialize(deserializer)?;
        if word.eq_ignore_ascii_case("off") {
            return Ok(Self::Off);
        }
        match parse_duration(&word) {
            Ok(period) => Ok(Self::Every(HumanDuration(period))),
            Err(error) => Err(de::Error::custom(format_args!("{error}, nor Off"))),
        }
    }
}

impl LogLevel {
    /// As a filter of diagnostics.
    pub(crate) fn filter(self) -> tracing_subscriber::filter::LevelFilter {
        use tracing_subscriber::filter::LevelFilter;
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}
