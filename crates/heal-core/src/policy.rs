//! The numbers and switches a machine works under: what a person decided, not what was observed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use heal_types::{ConnectOptions, GracePolicy};

/// Whether effects are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The machine runs and says what it would do.
    Observe,
    /// The machine's effects are carried out.
    Heal,
}

/// When to isolate a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IsolateAfter {
    /// Not at all: its I/O waits until the kernel gives up.
    Never,
    /// After nothing got through for this long.
    After(Duration),
}

/// When a leg that comes and goes stays out. Each loss counts one; the count halves with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flapping {
    /// A leg with more losses than this is taken back only after the hold-down.
    pub limit: u32,
    /// The time in which the count halves.
    pub half_life: Duration,
    /// How long a leg over the limit must be up before it is taken back.
    pub hold_down: Duration,
}

impl Default for Flapping {
    fn default() -> Self {
        Self { limit: 3, half_life: Duration::from_secs(600), hold_down: Duration::from_secs(60) }
    }
}

/// What applies to one array: the host's policy with the array's own overrides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Whether effects are carried out.
    pub mode: Mode,
    /// Whether any provisioner is configured.
    pub provisioned: bool,
    /// Whether returned legs are taken back where no provisioner is configured.
    pub re_add: bool,
    /// How long to wait for a lost replica where the volume does not say.
    pub grace: GracePolicy,
    /// No grace is longer than this, whoever says so: a clock that jumped back must not turn ten
    /// minutes into ten years.
    pub longest_grace: Duration,
    /// A leg whose device is gone is failed once it has been gone this long.
    pub gone_confirm: Duration,
    /// A leg that was lost is taken back no earlier than this after its loss: writes of the old
    /// connection may still arrive at the target until its keep-alive has run out.
    pub return_hold_down: Duration,
    /// How often the provisioner is asked about a volume in repair.
    pub refresh_in_repair: Duration,
    /// How often the provisioner is asked about a volume that is whole.
    pub refresh_when_whole: Duration,
    /// How long a promised namespace may take to appear once a controller is connected.
    pub namespace_timeout: Duration,
    /// How long until a refused request is sent again, as a new request.
    pub refused_retry: Duration,
    /// Shortest wait after a failed step.
    pub retry_min: Duration,
    /// Longest wait after a failed step.
    pub retry_max: Duration,
    /// How often a step on the host is tried before the repair is held.
    pub attempts: u32,
    /// How long nothing must have got through to a leg before the application's I/O is freed from
    /// it.
    pub isolate_after: IsolateAfter,
    /// Why no leg of this host may be isolated, if that is so: what its kernel lacks.
    pub isolation_off: Option<String>,
    /// I/O that is still stuck this long after a controller lost its connection is freed by
    /// deleting the controller.
    pub delete_after: Duration,
    /// How long after an array was stopped the subsystems are disconnected that were connected for
    /// it here. `None`: they stay, for whoever assembles it again.
    pub put_away_after: Option<Duration>,
    /// Legs that come and go.
    pub flapping: Flapping,
    /// How controllers of ours are connected.
    pub connect: ConnectOptions,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            provisioned: false,
            re_add: false,
            grace: GracePolicy::After(Duration::from_secs(600)),
            longest_grace: Duration::from_secs(7 * 24 * 3600),
            gone_confirm: Duration::from_millis(500),
            return_hold_down: Duration::from_secs(15),
            refresh_in_repair: Duration::from_secs(5),
            refresh_when_whole: Duration::from_secs(300),
            namespace_timeout: Duration::from_secs(60),
            refused_retry: Duration::from_secs(600),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(60),
            attempts: 20,
            isolate_after: IsolateAfter::After(Duration::from_millis(250)),
            isolation_off: None,
            delete_after: Duration::from_secs(3),
            put_away_after: None,
            flapping: Flapping::default(),
            connect: ConnectOptions::default(),
        }
    }
}

impl Policy {
    /// How long to wait after failure number `attempt` (counted from one): doubling, bounded.
    #[must_use]
    pub fn backoff(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(16);
        self.retry_min.saturating_mul(1 << doublings).min(self.retry_max)
    }
}
