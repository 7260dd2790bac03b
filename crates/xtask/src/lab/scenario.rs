//! A scenario is one short bash file; what the runner must know about it stands in its header.
//!
//! ```text
//!   # what: a replica dies and comes back within grace
//!   # timeout: 120            seconds, in the guest (default 120)
//!   # timeout-full: 900       seconds, when everything is repeated (LAB_FULL=1)
//!   # kernels: 6.1 6.12       only these (default: all)
//!   # boot: fresh             wants a VM of its own (default: shared)
//!   # multipath: off          a kernel booted without native NVMe multipath (default: on)
//!   # needs: deb              installs the package
//!   # needs: contract         plays the host's contract
//!   # needs: os-brick         attaches with the real os-brick
//!   # needs: fence            has a target's own fence, and asks it as the recoverer does
//!   # needs: ceph             has Debian's Ceph, on a disk of its own
//!   # alone: measured         a proof of its figures runs nothing beside it: they are milliseconds
//!   # expects-error: TEXT     an ERROR entry holding TEXT is what this scenario is about
//! ```
//!
//! An unknown key is refused: a misspelt `timeout` would otherwise be a silent default.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::kernel::Series;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    Shared,
    Fresh,
}

/// Native NVMe multipath, which a kernel is booted with or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, clap::ValueEnum)]
pub(crate) enum Multipath {
    #[default]
    On,
    Off,
}

impl Multipath {
    /// What the kernel's command line says of it: nothing when it is as the kernel has it.
    pub(crate) fn boot_option(self) -> &'static str {
        match self {
            Self::On => "",
            Self::Off => "nvme_core.multipath=N",
        }
    }
}

/// Says to a script that everything is to be repeated as often as a proof may want it.
const FULL: &str = "LAB_FULL";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) timeout: Duration,
    /// With everything repeated; none: the same.
    pub(crate) timeout_full: Option<Duration>,
    /// Empty: every kernel.
    pub(crate) kernels: Vec<Series>,
    pub(crate) boot: Boot,
    pub(crate) multipath: Multipath,
    /// What the runner says to the script, as variables of its environment.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) needs_deb: bool,
    pub(crate) needs_contract: bool,
    pub(crate) needs_os_brick: bool,
    pub(crate) needs_fence: bool,
    pub(crate) needs_ceph: bool,
    /// Whether it measures what anything beside it would change.
    pub(crate) alone: bool,
    pub(crate) expected_errors: Vec<String>,
    pub(crate) script: String,
}

impl Scenario {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let script = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = name.with_context(|| format!("{} has no name", path.display()))?;
        Self::parse(&name, script).with_context(|| format!("in {}", path.display()))
    }

    pub(crate) fn parse(name: &str, script: String) -> anyhow::Result<Self> {
        let mut scenario = Self {
            name: name.to_owned(),
            what: String::new(),
            timeout: Duration::from_secs(120),
            timeout_full: None,
            kernels: Vec::new(),
            boot: Boot::Shared,
            multipath: Multipath::On,
            env: Vec::new(),
            needs_deb: false,
            needs_contract: false,
            needs_os_brick: false,
            needs_fence: false,
            needs_ceph: false,
            alone: false,
            expected_errors: Vec::new(),
            script: String::new(),
        };
        for (number, line) in script.lines().enumerate() {
            let Some(comment) = line.strip_prefix('#') else {
                break;
            };
            if let Some((key, value)) = comment.trim().split_once(": ") {
                scenario
                    .set(key.trim(), value.trim())
                    .with_context(|| format!("line {}: {line}", number + 1))?;
            }
        }
        if scenario.what.is_empty() {
            bail!("the header has no `# what: …` line");
        }
        scenario.script = script;
        Ok(scenario)
    }

    fn set(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        match key {
            "what" => value.clone_into(&mut self.what),
            "timeout" => self.timeout = Duration::from_secs(value.parse()?),
            "timeout-full" => self.timeout_full = Some(Duration::from_secs(value.parse()?)),
            "kernels" => {
                self.kernels =
                    value.split_whitespace().map(str::parse).collect::<anyhow::Result<_>>()?;
            }
            "boot" => {
                self.boot = match value {
                    "fresh" => Boot::Fresh,
                    "shared" => Boot::Shared,
                    other => bail!("boot is `fresh` or `shared`, not `{other}`"),
                }
            }
            "multipath" => {
                self.multipath = match value {
                    "on" => Multipath::On,
                    "off" => Multipath::Off,
                    other => bail!("multipath is `on` or `off`, not `{other}`"),
                }
            }
            "needs" if value == "deb" => self.needs_deb = true,
            "needs" if value == "contract" => self.needs_contract = true,
            "needs" if value == "os-brick" => self.needs_os_brick = true,
            "needs" if value == "fence" => self.needs_fence = true,
            "needs" if value == "ceph" => self.needs_ceph = true,
            "alone" if value == "measured" => self.alone = true,
            "expects-error" => self.expected_errors.push(value.to_owned()),
            other => bail!("unknown header key `{other}`"),
        }
        Ok(())
    }

    pub(crate) fn runs_on(&self, kernel: Series) -> bool {
        self.kernels.is_empty() || self.kernels.contains(&kernel)
    }

    /// Says `NAME=value` to the script, under the name `LAB_NAME`.
    pub(crate) fn say(&mut self, name: &str, value: &str) {
        self.env.push((format!("LAB_{name}"), value.to_owned()));
    }

    /// Whatever it repeats by itself, once.
    pub(crate) fn repeat_once(&mut self) {
        self.env.push(("LAB_PULLS".to_owned(), "1".to_owned()));
    }

    /// Everything is to be repeated, and may take the time for it.
    pub(crate) fn repeat_in_full(&mut self) {
        self.env.push((FULL.to_owned(), "1".to_owned()));
        self.timeout = self.timeout_full.unwrap_or(self.timeout);
    }

    /// What a VM must be like to run it: those that agree may share one.
    pub(crate) fn boot_group(&self) -> (Multipath, bool) {
        (self.multipath, self.boot == Boot::Fresh)
    }
}

/// Where the scenarios live.
pub(crate) fn directory() -> PathBuf {
    crate::workspace::root().join("tests/kernel/scenarios")
}

/// Every scenario whose name holds one of the patterns, in the order of their names; all of them
/// without a pattern. A pattern that is a whole name picks that one only.
pub(crate) fn select(directory: &Path, patterns: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sh"))
        .collect();
    paths.sort();
    let all = paths.iter().map(|path| Scenario::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let names: Vec<String> = all.iter().map(|scenario| scenario.name.clone()).collect();
    for pattern in patterns {
        if !names.iter().any(|name| name.contains(pattern.as_str())) {
            bail!("no scenario matches `{pattern}`; there are: {}", names.join(" "));
        }
    }
    let wanted = |name: &str| {
        patterns.is_empty()
            || patterns.iter().any(|pattern| {
                if names.iter().any(|other| other == pattern) {
                    name == pattern
                } else {
                    name.contains(pattern.as_str())
                }
            })
    };
    Ok(all.into_iter().filter(|scenario| wanted(&scenario.name)).collect())
}

/// A number a scenario printed: `FIGURE name=value unit`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
}

impl Figure {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (assignment, unit) = match line.strip_prefix("FIGURE ")?.trim().split_once(' ') {
            Some((assignment, unit)) => (assignment, unit.trim()),
            None => (line.strip_prefix("FIGURE ")?.trim(), ""),
        };
        let (name, value) = assignment.split_once('=')?;
        Some(Self { name: name.to_owned(), value: value.parse().ok()?, unit: unit.to_owned() })
    }
}

/// A statement a scenario has shown to hold: `CLAIM text`.
pub(crate) fn claim(line: &str) -> Option<&str> {
    line.strip_prefix("CLAIM ").map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> anyhow::Result<Scenario> {
        Scenario::parse("x", header.to_owned())
    }

    #[test]
    fn a_header_says_all_the_runner_must_know() {
        let scenario = parse(
            "#!/bin/bash\n# what: a leg returns\n# timeout: 30\n# kernels: 6.1 6.12\n\
             # boot: fresh\n# multipath: off\n# timeout-full: 300\n# needs: deb\n\
             # expects-error: refused\nset -e\n# timeout: 1\n",
        )
        .unwrap();
        assert_eq!(scenario.what, "a leg returns");
        assert_eq!(scenario.timeout, Duration::from_secs(30));
        assert_eq!(scenario.kernels, [Series::V6_1, Series::V6_12]);
        assert_eq!(scenario.boot, Boot::Fresh);
        assert_eq!(scenario.multipath, Multipath::Off);
        assert!(scenario.needs_deb);
        assert_eq!(scenario.expected_errors, ["refused"]);
    }

    #[test]
    fn what_is_repeated_in_full_may_take_the_time_for_it() {
        let mut scenario = parse("# what: x\n# timeout: 30\n# timeout-full: 300\n").unwrap();
        assert_eq!(scenario.timeout, Duration::from_secs(30));
        scenario.repeat_in_full();
        assert_eq!(scenario.timeout, Duration::from_secs(300));
        assert_eq!(scenario.env, [("LAB_FULL".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn a_misspelt_key_is_refused_and_named() {
        let error = format!("{:#}", parse("# what: x\n# timout: 3\n").unwrap_err());
        assert!(error.contains("timout"), "{error}");
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_scenario_must_say_what_it_shows() {
        assert!(parse("set -e\n").is_err());
    }

    #[test]
    fn figures_are_read_with_and_without_a_unit() {
        let figure = Figure::parse("FIGURE longest_write_ms=12.5 ms").unwrap();
        assert_eq!(
            (figure.name.as_str(), figure.value, figure.unit.as_str()),
            ("longest_write_ms", 12.5, "ms")
        );
        assert_eq!(Figure::parse("FIGURE writes=7").unwrap().unit, "");
        assert_eq!(Figure::parse("FIGURE nothing"), None);
        assert_eq!(Figure::parse("a FIGURE x=1"), None);
    }
}
