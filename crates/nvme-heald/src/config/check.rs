//! What no type says: ranges, and values that only make sense together.

use std::path::Path;
use std::time::Duration;

use heal_core::Mode;
use heal_provisioner::client::Endpoint;
use heal_provisioner::text::{HumanDuration, printable};
use heal_types::GracePolicy;

use super::Access;
use super::options::{ArrayOverride, Config, ProvisionerConfig, SafetyScan};

/// Something found about one option.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) option: &'static str,
    pub(super) message: String,
    pub(super) fatal: bool,
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The udev rule that keeps stock rules off managed legs looks here and nowhere else.
const GUARDED_DIR: &str = "/run/nvme-heald";

/// More services than attach volumes on one host.
const MOST_LOCKS: usize = 16;

/// The most of a refused path that a message repeats.
const SHOWN: usize = 160;

/// Everything that is wrong or odd.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    found.grace(config);
    found.timing(config);
    found.connect(config);
    found.limits(config);
    found.isolation(config);
    found.places(config);
    found.sense(config);
    found.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, option: &'static str, message: impl Into<String>) {
        self.0.push(Finding { option, message: message.into(), fatal: true });
    }

    fn warn(&mut self, option: &'static str, message: impl Into<String>) {
        self.0.push(Finding { option, message: message.into(), fatal: false });
    }

    fn within(
        &mut self,
        option: &'static str,
        value: HumanDuration,
        least: Duration,
        most: Duration,
    ) {
        if value.0 < least || value.0 > most {
            let (least, most) = (HumanDuration(least), HumanDuration(most));
            self.error(option, format!("{value} is not within {least} to {most}"));
        }
    }

    fn whole_seconds(&mut self, option: &'static str, value: HumanDuration) {
        if value.0.subsec_nanos() != 0 {
            self.error(option, format!("{value}: the kernel takes whole seconds"));
        }
    }

    fn grace(&mut self, config: &Config) {
        let longest = config.timing.longest_grace;
        let overrides = config.arrays.values().filter_map(|array| array.grace);
        for grace in overrides.chain([config.grace]) {
            if let GracePolicy::After(grace) = grace.0 {
                let grace = HumanDuration(grace);
                if grace.0 > longest.0 {
                    self.error("grace", format!("{grace} is longer than longest_grace, {longest}"));
                } else if grace.0 <= config.timing.gone_confirm.0 {
                    let confirm = config.timing.gone_confirm;
                    self.warn(
                        "grace",
                        format!(
                            "{grace}, after a loss that takes gone_confirm, {confirm}, to believe"
                        ),
                    );
                }
            }
        }
    }

    fn timing(&mut self, config: &Config) {
        let timing = &config.timing;
        self.within("timing.longest_grace", timing.longest_grace, SECOND, 366 * DAY);
        self.within("timing.gone_confirm", timing.gone_confirm, Duration::ZERO, MINUTE);
        self.within("timing.return_hold_down", timing.return_hold_down, Duration::ZERO, HOUR);
        self.within("timing.refresh_in_repair", timing.refresh_in_repair, SECOND, HOUR);
        self.within("timing.refresh_when_whole", timing.refresh_when_whole, SECOND, DAY);
        self.within("timing.namespace_timeout", timing.namespace_timeout, SECOND, HOUR);
        self.within("timing.refused_retry", timing.refused_retry, SECOND, DAY);
        self.within("timing.retry_min", timing.retry_min, Duration::from_millis(100), HOUR);
        self.within("timing.retry_max", timing.retry_max, Duration::from_millis(100), DAY);
        self.within("provisioner_timeout", config.provisioner_timeout, SECOND, 10 * MINUTE);
        if timing.retry_min > timing.retry_max {
            self.error("timing.retry_min", "it is longer than retry_max");
        }
        if timing.refresh_in_repair > timing.refresh_when_whole {
            self.error("timing.refresh_in_repair", "it is longer than refresh_when_whole");
        }
        if !(1..=1000).contains(&timing.attempts) {
            self.error("timing.attempts", "it is not within 1 to 1000");
        }
        if timing.return_hold_down <= config.connect.keep_alive {
            let (hold, alive) = (timing.return_hold_down, config.connect.keep_alive);
            self.error(
                "timing.return_hold_down",
                format!(
                    "{hold} is not longer than connect.keep_alive, {alive}: writes of the old \
                     connection could still arrive on a leg that was taken back"
                ),
            );
        }
        if let SafetyScan::Every(period) = config.safety_scan {
            self.within("safety_scan", period, 5 * SECOND, DAY);
        }
    }

    fn connect(&mut self, config: &Config) {
        let connect = &config.connect;
        self.within("connect.keep_alive", connect.keep_alive, SECOND, 10 * MINUTE);
        self.within("connect.reconnect_delay", connect.reconnect_delay, SECOND, 10 * MINUTE);
        self.within("connect.ctrl_loss", connect.ctrl_loss, SECOND, 30 * DAY);
        self.whole_seconds("connect.keep_alive", connect.keep_alive);
        self.whole_seconds("connect.reconnect_delay", connect.reconnect_delay);
        self.whole_seconds("connect.ctrl_loss", connect.ctrl_loss);
        if connect.reconnect_delay > connect.ctrl_loss {
            self.error(
                "connect.reconnect_delay",
                "it is longer than ctrl_loss: nothing is tried again",
            );
        }
        if connect.io_queues.is_some_and(|queues| !(1..=1024).contains(&queues)) {
            self.error("connect.io_queues", "it is not within 1 to 1024");
        }
        if let GracePolicy::After(grace) = config.grace.0 {
            if grace > connect.ctrl_loss.0 {
                let loss = connect.ctrl_loss;
                self.warn(
                    "connect.ctrl_loss",
                    format!(
                        "after {loss} the kernel stops to connect again, before grace has passed"
                    ),
                );
            }
        }
    }

    fn limits(&mut self, config: &Config) {
        let limits = &config.limits;
        if !(1..=64).contains(&limits.replacements) {
            self.error("limits.replacements", "it is not within 1 to 64");
        }
        if limits.storm_arrays > 10_000 {
            self.error("limits.storm_arrays", "it is not within 0 to 10000");
        }
        self.within("limits.storm_window", limits.storm_window, SECOND, HOUR);
    }

    fn isolation(&mut self, config: &Config) {
        let isolation = &config.isolation;
        let overrides = config.arrays.values().filter_map(|array| array.isolate_after);
        for after in overrides.chain([isolation.isolate_after]) {
            let GracePolicy::After(after) = after.0 else { continue };
            let (after, alive) = (HumanDuration(after), config.connect.keep_alive);
            self.within("isolation.isolate_after", after, Duration::ZERO, MINUTE);
            if after >= alive {
                self.warn(
                    "isolation.isolate_after",
                    format!(
                        "{after} is not shorter than connect.keep_alive, {alive}: the kernel gives a \
                         dead path up by itself before"
                    ),
                );
            }
        }
        self.within("isolation.stalled_after", isolation.stalled_after, 2 * SECOND, HOUR);
        self.within("isolation.delete_after", isolation.delete_after, SECOND, HOUR);
        self.within("isolation.fast_io_fail", isolation.fast_io_fail, SECOND, MINUTE);
        self.whole_seconds("isolation.fast_io_fail", isolation.fast_io_fail);
        if isolation.fast_io_fail >= config.connect.ctrl_loss {
            self.error(
                "isolation.fast_io_fail",
                "it is not shorter than connect.ctrl_loss, after which the controller is gone",
            );
        }
        if isolation.many_arrays > 10_000 {
            self.error("isolation.many_arrays", "it is not within 0 to 10000");
        }
        let flapping = &config.flapping;
        if !(1..=1000).contains(&flapping.limit) {
            self.error("flapping.limit", "it is not within 1 to 1000");
        }
        self.within("flapping.half_life", flapping.half_life, SECOND, 30 * DAY);
        self.within("flapping.hold_down", flapping.hold_down, SECOND, DAY);
        if flapping.hold_down < config.timing.return_hold_down {
            self.warn(
                "flapping.hold_down",
                "it is shorter than timing.return_hold_down, which holds in any case",
            );
        }
    }

    fn places(&mut self, config: &Config) {
        self.absolute("state_dir", &config.state_dir);
        self.absolute("runtime_dir", &config.runtime_dir);
        if config.runtime_dir != Path::new(GUARDED_DIR) {
            self.warn(
                "runtime_dir",
                format!("udev's guard for managed legs looks in {GUARDED_DIR} only"),
            );
        }
        for path in &config.os_brick.lock_paths {
            self.absolute("os_brick.lock_paths", path);
        }
        if config.os_brick.lock_paths.len() > MOST_LOCKS {
            self.error("os_brick.lock_paths", format!("there are more than {MOST_LOCKS}"));
        }
        let put_away_after = config.os_brick.put_away_after;
        self.within("os_brick.put_away_after", put_away_after, Duration::ZERO, HOUR);
        match &config.provisioner {
            ProvisionerConfig::None => {}
            ProvisionerConfig::Fixed { inventory, state } => {
                self.absolute("provisioner.inventory", inventory);
                self.absolute("provisioner.state", state);
                if inventory == state {
                    self.error(
                        "provisioner.state",
                        "it is the inventory: that file is yours alone",
                    );
                }
            }
            ProvisionerConfig::KumoScale { addresses, conf, access, host_id, state } => {
                self.absolute("provisioner.conf", conf);
                self.absolute("provisioner.state", state);
                self.addresses("provisioner.addresses", addresses);
                self.access(access);
                if host_id.as_ref().is_some_and(|id| id.trim().is_empty() || id.trim() != id) {
                    self.error("provisioner.host_id", "it is empty or has blanks around it");
                }
            }
            ProvisionerConfig::Http { urls, access } => {
                if urls.is_empty() {
                    self.error("provisioner.urls", "there is none");
                }
                self.addresses("provisioner.urls", urls);
                self.access(access);
            }
            ProvisionerConfig::Exec { program, user, .. } => {
                self.absolute("provisioner.program", program);
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                if user.is_empty() || !user.chars().all(plain) {
                    self.error("provisioner.user", format!("{user:?} is not the name of a user"));
                }
                if user == "root" {
                    self.error("provisioner.user", "a plugin does not run as root");
                }
            }
        }
    }

    fn addresses(&mut self, option: &'static str, addresses: &[String]) {
        for address in addresses {
            if let Err(error) = Endpoint::parse(address, 443) {
                self.error(option, error.to_string());
            }
        }
    }

    fn access(&mut self, access: &Access) {
        for problem in access.problems() {
            self.error("provisioner.access", problem);
        }
        if access.skip_verification && access.anybody_may_pose_as_the_provisioner {
            self.warn(
                "provisioner.access",
                "the provisioner's certificate is not verified: whoever can reach this network can \
                 pose as it",
            );
        }
    }

    fn absolute(&mut self, option: &'static str, path: &Path) {
        let shown = path.display().to_string();
        let said = printable(&shown, SHOWN);
        if shown.chars().any(char::is_control) {
            self.error(option, format!("{said} holds a control character"));
        } else if !path.is_absolute() {
            self.error(option, format!("{said} is not an absolute path"));
        }
    }

    fn sense(&mut self, config: &Config) {
        let heals = |array: &ArrayOverride| array.mode == Some(Mode::Heal);
        let any_heals = config.mode == Mode::Heal || config.arrays.values().any(heals);
        let any_re_add = config.re_add || config.arrays.values().any(|a| a.re_add == Some(true));
        if any_heals && config.provisioner == ProvisionerConfig::None && !any_re_add {
            self.warn(
                "mode",
                "heal, but there is no provisioner and re_add is false: nothing can be done",
            );
        }
        for (key, array) in &config.arrays {
            if *array == ArrayOverride::default() {
                self.warn("arrays", format!("{key} changes nothing"));
            }
        }
    }
}
