//! The lab: a stock Debian kernel in QEMU, and scenarios against real md and NVMe/TCP.
//!
//! Development machines have no md and no NVMe, and a kernel must not be guessed at. So a test of
//! the host half runs here: targets (nvmet), the fabric (one network namespace a replica), the
//! array and the daemon, all in one guest.
//!
//! ```text
//!   tests/kernel/scenarios/*.sh ─► scenario ─► session ─► boot (qemu) ── image (debootstrap, kernel)
//!                                      │           │ wire: JSON lines over virtio-serial
//!                                      ▼           ▼
//!                                   verdict ◄── guest::agent ─► bash + tests/kernel/lib
//!                                      └─► report: target/lab/RUN/SCENARIO/
//! ```
//!
//! Scenarios share a boot, one after another, as a boot is half the cost; the library's `lab_reset`
//! makes the guest clean in between, and a guest that cannot be cleaned is thrown away. The price:
//! the order of scenarios could matter in ways the reset does not know; `# boot: fresh` is the way
//! out.

pub(crate) mod boot;
#[cfg(test)]
mod catalogue;
mod ceph;
pub(crate) mod command;
mod cpio;
pub(crate) mod demo;
pub(crate) mod image;
pub(crate) mod kernel;
mod os_brick;
mod report;
pub(crate) mod scenario;
pub(crate) mod session;
mod shell;
mod tools;
pub(crate) mod verdict;
pub(crate) mod wire;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use clap::Subcommand;

use kernel::Series;
use scenario::{Boot, Multipath, Scenario};
use session::{BootOptions, Brought, ScenarioResult, Session};

pub(crate) use report::Printed;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// Build the VM image, or say that it is there.
    Prepare {
        #[arg(long, value_enum, default_value_t)]
        kernel: Series,
        /// Build it anew, with the newest kernel of the series.
        #[arg(long)]
        refresh: bool,
    },
    /// Run the scenarios whose names hold one of the patterns; all of them without a pattern.
    Run(RunArgs),
    /// Name the scenarios.
    List,
    /// A root shell in the VM kept by KEEP=1, or in a fresh one.
    Shell {
        #[arg(long, value_enum, default_value_t)]
        kernel: Series,
        #[arg(long)]
        deb: Option<PathBuf>,
        /// Native NVMe multipath of a fresh one.
        #[arg(long, value_enum, default_value_t)]
        multipath: Multipath,
    },
    /// End the VM kept by KEEP=1.
    Stop,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    patterns: Vec<String>,
    /// Kernels to run them on.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "6.1")]
    kernel: Vec<Series>,
    /// The package to install; built when a scenario needs it and none is given.
    #[arg(long)]
    deb: Option<PathBuf>,
    /// Say this to the scenarios, as `LAB_NAME` in their environment.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Repeat everything as often as a full proof does.
    #[arg(long)]
    full: bool,
    /// Boot with or without native NVMe multipath, whatever the scenarios want.
    #[arg(long, value_enum)]
    multipath: Option<Multipath>,
    /// Print every line of the scenarios, not only what they tell.
    #[arg(long, short)]
    verbose: bool,
}

impl RunArgs {
    fn printed(&self) -> Printed {
        Printed { verbose: self.verbose, ..Printed::default() }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        LabCommand::Prepare { kernel, refresh } => {
            let started = Instant::now();
            let image = image::prepare(*kernel, *refresh)?;
            let took = started.elapsed().as_secs();
            println!("lab: {} in {} ({took} s)", image.package(), image.root().display());
            Ok(())
        }
        LabCommand::Run(args) => run_scenarios(args),
        LabCommand::List => list(),
        LabCommand::Shell { kernel, deb, multipath } => shell(*kernel, deb.clone(), *multipath),
        LabCommand::Stop => stop(),
    }
}

fn list() -> anyhow::Result<()> {
    for scenario in scenario::select(&scenario::directory(), &[])? {
        println!("{:28} {}", scenario.name, scenario.what);
    }
    Ok(())
}

fn shell(kernel: Series, deb: Option<PathBuf>, multipath: Multipath) -> anyhow::Result<()> {
    if let Some(kept) = report::kept() {
        return shell::attach(&kept.shell);
    }
    let session = Session::boot(&BootOptions::new(kernel, deb)?, multipath)?;
    shell::attach(&session.shell_socket())
}

fn stop() -> anyhow::Result<()> {
    let kept = report::kept().context("no VM is kept")?;
    let pid = i32::try_from(kept.pid).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.context("not a pid")?, rustix::process::Signal::KILL)?;
    if let Some(sockets) = kept.shell.parent() {
        std::fs::remove_dir_all(sockets)?;
    }
    println!("lab: VM {} ended", kept.pid);
    Ok(())
}

fn run_scenarios(args: &RunArgs) -> anyhow::Result<()> {
    let scenarios = told(args)?;
    let started = Instant::now();
    let mut results = Vec::new();
    for &kernel in &args.kernel {
        let mut options = BootOptions::new(kernel, args.deb.clone())?;
        if options.deb.is_none() && scenarios.iter().any(|scenario| scenario.needs_deb) {
            options.deb = Some(crate::package::deb::build()?);
        }
        options.brought = bring(&scenarios.iter().collect::<Vec<_>>())?;
        let mut wanted: Vec<&Scenario> =
            scenarios.iter().filter(|scenario| scenario.runs_on(kernel)).collect();
        // Those that share a boot together: one that wants its own ends it for all others.
        wanted.sort_by_key(|scenario| scenario.boot_group());
        options.keep = options.keep && !wanted.is_empty();
        results.extend(run_all(&options, &wanted, args.printed())?);
        if options.keep {
            println!("lab: the VM is kept: `cargo xtask lab shell`, then `cargo xtask lab stop`");
        }
    }
    let failed: Vec<&str> =
        results.iter().filter(|result| !result.passed).map(|result| result.name.as_str()).collect();
    let took = started.elapsed().as_secs();
    if failed.is_empty() {
        println!("lab: {} scenarios passed in {took} s", results.len());
        return Ok(());
    }
    anyhow::bail!(
        "{} of {} scenarios failed in {took} s: {}",
        failed.len(),
        results.len(),
        failed.join(" ")
    )
}

/// Makes what these scenarios want to find in the guest beside the library and the package.
pub(crate) fn bring(scenarios: &[&Scenario]) -> anyhow::Result<Brought> {
    let Brought { mut files, mut disks } = Brought::default();
    if scenarios.iter().any(|scenario| scenario.needs_contract) {
        files.push(contract()?);
    }
    if scenarios.iter().any(|scenario| scenario.needs_os_brick) {
        files.push(os_brick::archive()?);
    }
    if scenarios.iter().any(|scenario| scenario.needs_fence) {
        files.extend(fence()?);
    }
    if scenarios.iter().any(|scenario| scenario.needs_ceph) {
        disks.push(ceph::disk()?);
    }
    Ok(Brought { files, disks })
}

/// The program that plays the host's contract, built from this tree.
fn contract() -> anyhow::Result<PathBuf> {
    println!("lab: building the host's contract");
    built(&["-p", "heal-host", "--example", "contract"])?;
    Ok(crate::workspace::target().join("debug/examples/contract"))
}

/// The fence of a target, whoever asks it, and what all fences keep.
fn fence() -> anyhow::Result<[PathBuf; 3]> {
    println!("lab: building the fence of a target");
    built(&["-p", "nvmet-fenced"])?;
    let examples = ["--example", "ask_fence", "--example", "fence_contract"];
    built(&[&["-p", "nvmeof-recoverer-controller"], &examples[..]].concat())?;
    let target = crate::workspace::target().join("debug");
    let examples = target.join("examples");
    Ok([target.join("nvmet-fenced"), examples.join("ask_fence"), examples.join("fence_contract")])
}

fn built(what: &[&str]) -> anyhow::Result<()> {
    let done = crate::workspace::cargo()
        .current_dir(crate::workspace::root())
        .args(["build", "--quiet"])
        .args(what)
        .status()
        .context("cannot start cargo")?;
    anyhow::ensure!(done.success(), "`cargo build {}` fails", what.join(" "));
    Ok(())
}

/// The scenarios asked for, and what they are to be told.
fn told(args: &RunArgs) -> anyhow::Result<Vec<Scenario>> {
    let mut scenarios = scenario::select(&scenario::directory(), &args.patterns)?;
    for scenario in &mut scenarios {
        for setting in &args.set {
            let (name, value) =
                setting.split_once('=').with_context(|| format!("`{setting}` is no NAME=VALUE"))?;
            scenario.say(name, value);
        }
        if args.full {
            scenario.repeat_in_full();
        }
        scenario.multipath = args.multipath.unwrap_or(scenario.multipath);
    }
    Ok(scenarios)
}

/// Runs scenarios on one kernel.
pub(crate) fn run_all(
    options: &BootOptions,
    scenarios: &[&Scenario],
    printed: Printed,
) -> anyhow::Result<Vec<ScenarioResult>> {
    let mut guests = Guests::new(options.clone(), printed);
    scenarios.iter().map(|scenario| guests.run(scenario)).collect()
}

/// One VM after another of a kernel: one boot as long as it serves, another when it does not.
pub(crate) struct Guests {
    options: BootOptions,
    printed: Printed,
    session: Option<Session>,
}

impl Guests {
    pub(crate) fn new(options: BootOptions, printed: Printed) -> Self {
        Self { options, printed, session: None }
    }

    pub(crate) fn run(&mut self, scenario: &Scenario) -> anyhow::Result<ScenarioResult> {
        let had_one = self.session.is_some();
        let mut current = match self.session.take() {
            Some(used)
                if used.usable
                    && used.multipath == scenario.multipath
                    && scenario.boot == Boot::Shared =>
            {
                used
            }
            Some(used) => {
                used.end();
                Session::boot(&self.options, scenario.multipath)?
            }
            None => Session::boot(&self.options, scenario.multipath)?,
        };
        println!("---- {}: {}", scenario.name, scenario.what);
        let mut on_line =
            |line: &session::Line| report::print_line(&scenario.name, line, self.printed);
        let mut result = current.run(scenario, &mut on_line)?;
        // The one before left a guest that cannot be cleaned: that is not this scenario's failure.
        if had_one && result.failures == [verdict::FailureWhy::GuestNotClean] {
            println!("lab: the guest cannot be cleaned; a new one");
            current.end();
            current = Session::boot(&self.options, scenario.multipath)?;
            result = current.run(scenario, &mut on_line)?;
        }
        report::print_result(&result);
        if scenario.boot == Boot::Fresh {
            current.usable = false;
        }
        self.session = Some(current);
        Ok(result)
    }
}
