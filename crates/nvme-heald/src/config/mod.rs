//! The configuration: one RON file, read whole, checked whole, refused with a finger on the place.
//!
//! ```text
//!   text ──► RON, unknown names refused ──► ranges, and each value against the others ──► Config
//!              file:line:col, the line,         every problem at once, not
//!              a mark, a guess                  the first one only
//! ```
//!
//! A healer that misreads "never" as "now" is worse than one that does not start, so nothing is
//! guessed: an unknown option, a number without a unit, a value outside its range all end the start
//! with the line they are on. What is merely odd is a warning and goes to the journal.
//!
//! The price: no drop-in directories and no merging. One file can be read by a tired person.

mod check;
mod options;
mod vendor;

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use heal_core::budget::Limits;
use heal_core::{Flapping, IsolateAfter, Mode, Policy};
use heal_provisioner::ron_text;
use heal_types::{Alias, ArrayId, ConnectOptions, Digests, GracePolicy};

pub(crate) use options::{ArrayKey, Config, ProvisionerConfig, SafetyScan};
pub(crate) use vendor::Access;

/// The longest configuration file that is read.
const MAX_FILE: u64 = 1024 * 1024;

/// A configuration that may be used, and what is odd about it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<Problem>,
}

/// Something about one option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where the option stands, `file:line`, or the file alone if the value is a default.
    place: String,
    option: &'static str,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.option, self.message)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// The file is longer than any configuration.
    #[error("{path} is longer than {MAX_FILE} bytes")]
    TooLong { path: String },
    /// It is not RON, or not ours.
    #[error("{0}")]
    Syntax(String),
    /// Values that must not be used, one a line.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Values(Vec<Problem>),
}

/// Reads and checks the file at `path`.
pub(crate) fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let name = path.display().to_string();
    let failed = |source| ConfigError::Read { path: name.clone(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(ConfigError::TooLong { path: name });
    }
    parse(&text, &name)
}

/// Reads and checks `text`, which came from `source`.
pub(crate) fn parse(text: &str, source: &str) -> Result<Loaded, ConfigError> {
    let config: Config =
        ron_text::parse(text, source).map_err(|error| ConfigError::Syntax(error.with_excerpt()))?;
    let findings = check::check(&config);
    let placed = |finding: check::Finding| Problem {
        place: place_of(text, source, finding.option),
        option: finding.option,
        message: finding.message,
    };
    let (errors, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.fatal);
    if errors.is_empty() {
        return Ok(Loaded { config, warnings: warnings.into_iter().map(placed).collect() });
    }
    Err(ConfigError::Values(errors.into_iter().map(placed).collect()))
}

/// The line on which `option` is set. Values are checked long after the parser forgot where they
/// stood, but each option stands on a line of its own in any file a person wrote.
fn place_of(text: &str, source: &str, option: &str) -> String {
    let name = option.rsplit('.').next().unwrap_or(option);
    let line = text.lines().position(|line| {
        line.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(':'))
    });
    match line {
        Some(line) => format!("{source}:{}", line + 1),
        None => source.to_owned(),
    }
}

impl Config {
    /// What applies to the array `id`, named `alias`. The override by UUID goes before the one by
    /// name, field by field.
    pub(crate) fn policy(&self, id: ArrayId, alias: Option<&Alias>) -> Policy {
        let by_id = self.arrays.get(&ArrayKey::Id(id));
        let by_alias = alias.and_then(|alias| self.arrays.get(&ArrayKey::Alias(alias.clone())));
        let overrides = || by_id.into_iter().chain(by_alias);
        let timing = &self.timing;
        Policy {
            mode: overrides().find_map(|o| o.mode).unwrap_or(self.mode),
            provisioned: self.provisioner != ProvisionerConfig::None,
            re_add: overrides().find_map(|o| o.re_add).unwrap_or(self.re_add),
            grace: overrides().find_map(|o| o.grace).unwrap_or(self.grace).0,
            longest_grace: timing.longest_grace.0,
            gone_confirm: timing.gone_confirm.0,
            return_hold_down: timing.return_hold_down.0,
            refresh_in_repair: timing.refresh_in_repair.0,
            refresh_when_whole: timing.refresh_when_whole.0,
            namespace_timeout: timing.namespace_timeout.0,
            refused_retry: timing.refused_retry.0,
            retry_min: timing.retry_min.0,
            retry_max: timing.retry_max.0,
            attempts: timing.attempts,
            isolate_after: match overrides()
                .find_map(|o| o.isolate_after)
                .unwrap_or(self.isolation.isolate_after)
                .0
            {
                GracePolicy::After(after) => IsolateAfter::After(after),
                GracePolicy::Never => IsolateAfter::Never,
            },
            isolation_off: None,
            delete_after: self.isolation.delete_after.0,
            // Without os-brick whoever stops an array may want it back as it was.
            put_away_after: (!self.os_brick.lock_paths.is_empty())
                .then_some(self.os_brick.put_away_after.0),
            flapping: Flapping {
                limit: self.flapping.limit,
                half_life: self.flapping.half_life.0,
                hold_down: self.flapping.hold_down.0,
            },
            connect: self.connect_options(),
        }
    }

    /// The options in which `new` differs and that a running daemon cannot take up.
    pub(crate) fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        [
            ("provisioner", self.provisioner != new.provisioner),
            ("provisioner_timeout", self.provisioner_timeout != new.provisioner_timeout),
            ("limits", self.limits != new.limits),
            ("safety_scan", self.safety_scan != new.safety_scan),
            ("os_brick", self.os_brick != new.os_brick),
            ("log_level", self.log_level != new.log_level),
            ("state_dir", self.state_dir != new.state_dir),
            ("runtime_dir", self.runtime_dir != new.runtime_dir),
        ]
        .into_iter()
        .filter_map(|(option, differs)| differs.then_some(option))
        .collect()
    }

    /// This configuration with what a running daemon can take up of `new`: all that is policy.
    pub(crate) fn taking_up(&self, new: Self) -> Self {
        Self {
            mode: new.mode,
            grace: new.grace,
            re_add: new.re_add,
            isolation: new.isolation,
            flapping: new.flapping,
            arrays: new.arrays,
            connect: new.connect,
            timing: new.timing,
            ..self.clone()
        }
    }

    /// How controllers of ours are connected.
    pub(crate) fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            io_queues: self.connect.io_queues,
            keep_alive: self.connect.keep_alive.0,
            reconnect_delay: self.connect.reconnect_delay.0,
            ctrl_loss: self.connect.ctrl_loss.0,
            host_nqn: self.connect.host_nqn.clone(),
            digests: Digests { header: self.connect.header_digest, data: self.connect.data_digest },
        }
    }

    /// The host's limits.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            replacements: self.limits.replacements,
            storm_arrays: self.limits.storm_arrays,
            storm_window: self.limits.storm_window.0,
            after_storm: self.limits.after_storm.into(),
        }
    }

    /// How often to look without a reason, if at all.
    pub(crate) fn safety_scan(&self) -> Option<Duration> {
        match self.safety_scan {
            SafetyScan::Off => None,
            SafetyScan::Every(period) => Some(period.0),
        }
    }

    /// The host's mode as `status` shows it.
    pub(crate) fn mode_word(&self) -> &'static str {
        match self.mode {
            Mode::Observe => "observe",
            Mode::Heal => "heal",
        }
    }
}

#[cfg(test)]
mod tests;
