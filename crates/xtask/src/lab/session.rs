//! One VM and the talk with it: what `lab run`, `prove` and `demo` stand on.
//!
//! ```text
//!   Session::boot(&BootOptions) ─► run(&scenario, on_line) ─► ScenarioResult ─► run(…) ─► drop = VM gone
//! ```
//!
//! A boot that never reached the agent is tried again, up to three times: emulation loses a race at
//! boot now and then, and no test has begun. A test that failed is never tried again. After a
//! scenario that the guest could not end or clean up behind, `usable` says no and the next one
//! wants a new VM.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::boot::{Plan, Vm, accelerator};
use super::command::tail;
use super::image;
use super::kernel::Series;
use super::report;
use super::scenario::{Figure, Multipath, Scenario, claim};
use super::verdict::{self, FailureWhy};
use super::wire::{FromGuest, LineBuffer, Outcome, ToGuest, encode};

const BOOT_ATTEMPTS: u32 = 3;

/// A boot may be slow on a busy machine, but it prints; silence this long means it hangs.
const BOOT_SILENCE: Duration = Duration::from_secs(60);
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// Beyond a scenario's own limit: cleaning up before it and collecting after it.
const GUEST_MARGIN: Duration = Duration::from_secs(240);

/// What scenarios find in the guest beside the library and the package.
#[derive(Debug, Clone, Default)]
pub(crate) struct Brought {
    /// Below `/lab/files`.
    pub(crate) files: Vec<PathBuf>,
    /// File systems to mount, each by its label.
    pub(crate) disks: Vec<PathBuf>,
}

#[derive(Debug, Clone)]
pub(crate) struct BootOptions {
    pub(crate) kernel: Series,
    /// The package scenarios install; none for scenarios that need no daemon.
    pub(crate) deb: Option<PathBuf>,
    pub(crate) brought: Brought,
    /// Leave the VM running at the end.
    pub(crate) keep: bool,
    /// Where logs and results of this run go.
    pub(crate) dir: PathBuf,
}

impl BootOptions {
    /// A run directory of its own below `target/lab`, and `KEEP` from the environment.
    pub(crate) fn new(kernel: Series, deb: Option<PathBuf>) -> anyhow::Result<Self> {
        let keep = std::env::var_os("KEEP").is_some_and(|value| !value.is_empty() && value != "0");
        let brought = Brought::default();
        Ok(Self { kernel, deb, brought, keep, dir: report::run_directory()? })
    }
}

/// A line of a scenario, with the time since its script started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) at: Duration,
    pub(crate) text: String,
}

#[derive(Debug, Clone)]
pub(crate) struct ScenarioResult {
    pub(crate) name: String,
    pub(crate) passed: bool,
    pub(crate) failures: Vec<FailureWhy>,
    pub(crate) lines: Vec<Line>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) claims: Vec<String>,
    /// Everything collected: output, journal, mdstat, kernel log.
    pub(crate) dir: PathBuf,
    pub(crate) duration: Duration,
}

#[derive(Debug)]
pub(crate) struct Session {
    vm: Vm,
    control: UnixStream,
    incoming: Receiver<FromGuest>,
    dir: PathBuf,
    /// What it was booted with.
    pub(crate) multipath: Multipath,
    /// `uname -r` of the guest.
    pub(crate) kernel: String,
    /// From the start of QEMU to the agent's first word.
    pub(crate) boot_time: Duration,
    /// Can this VM take another scenario?
    pub(crate) usable: bool,
}

impl Session {
    pub(crate) fn boot(options: &BootOptions, multipath: Multipath) -> anyhow::Result<Self> {
        let image = image::prepare(options.kernel, false)?;
        let accel = accelerator(&image)?;
        let dir = report::numbered(&options.dir, "vm")?;
        let payload = dir.join("payload.img");
        write_payload(options, &dir.join("payload"), &payload)?;
        let mut last = String::new();
        for attempt in 1..=BOOT_ATTEMPTS {
            println!("lab: booting {} ({accel:?}, multipath {multipath:?})", image.package());
            let plan = Plan {
                image: &image,
                accel,
                multipath,
                payload: &payload,
                disks: &options.brought.disks,
                dir: &dir,
                keep: options.keep,
            };
            let mut vm = Vm::start(&plan)?;
            match reach_agent(&mut vm) {
                Ok(reached) => {
                    // QEMU has it open; a run need not leave it behind.
                    std::fs::remove_file(&payload)?;
                    if options.keep {
                        report::note_kept(&vm)?;
                    }
                    let session = Self {
                        vm,
                        control: reached.control,
                        incoming: reached.incoming,
                        dir: options.dir.clone(),
                        multipath,
                        kernel: reached.kernel,
                        boot_time: reached.took,
                        usable: true,
                    };
                    let seconds = session.boot_time.as_secs_f64();
                    println!("lab: {} is up after {seconds:.1} s", session.kernel);
                    return Ok(session);
                }
                Err(error) => {
                    println!(
                        "lab: boot {attempt} of {BOOT_ATTEMPTS} never reached the agent: {error:#}"
                    );
                    last = tail(&std::fs::read_to_string(vm.console()).unwrap_or_default(), 15);
                    vm.kill();
                }
            }
        }
        bail!("the VM does not boot; its console, {}, ends with:\n{last}", dir.display())
    }

    /// Ends the VM, also one that was to be kept: another takes its place.
    pub(crate) fn end(self) {
        self.vm.kill();
    }

    pub(crate) fn shell_socket(&self) -> PathBuf {
        self.vm.shell_socket()
    }

    /// Runs one scenario and collects what it left. `on_line` hears each line as it is printed.
    pub(crate) fn run(
        &mut self,
        scenario: &Scenario,
        on_line: &mut dyn FnMut(&Line),
    ) -> anyhow::Result<ScenarioResult> {
        let dir = report::scenario_directory(&self.dir, &scenario.name)?;
        let started = Instant::now();
        let heard = self.converse(scenario, &dir, on_line);
        let (outcome, lines, duration) = match heard {
            Ok(heard) => (heard.outcome, heard.lines, heard.took),
            Err(lost) => (Err(lost), Vec::new(), started.elapsed()),
        };
        let mut failures = Vec::new();
        match outcome {
            Ok(outcome) => {
                self.usable = matches!(outcome, Outcome::Exited { .. });
                failures.extend(verdict::of_outcome(&outcome));
            }
            Err(lost) => {
                self.usable = false;
                failures.push(FailureWhy::GuestLost(format!("{lost:#}")));
            }
        }
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        let kills = read("kills").lines().count();
        failures.extend(verdict::of_journal(
            &read("journal.json"),
            kills,
            &scenario.expected_errors,
        ));
        let result = ScenarioResult {
            name: scenario.name.clone(),
            passed: failures.is_empty(),
            failures,
            figures: lines.iter().filter_map(|line| Figure::parse(&line.text)).collect(),
            claims: lines.iter().filter_map(|line| claim(&line.text)).map(str::to_owned).collect(),
            lines,
            dir,
            duration,
        };
        report::save(&result)?;
        Ok(result)
    }

    /// Sends the scenario and listens until the guest is done with it. Only a guest that could not
    /// be asked at all is an error here; one that falls silent ends the conversation with what was
    /// heard.
    fn converse(
        &mut self,
        scenario: &Scenario,
        dir: &Path,
        on_line: &mut dyn FnMut(&Line),
    ) -> anyhow::Result<Heard> {
        let started = Instant::now();
        let limit = scenario.timeout + GUEST_MARGIN;
        self.control.write_all(&encode(&ToGuest::Run {
            name: scenario.name.clone(),
            script: scenario.script.clone(),
            timeout_s: scenario.timeout.as_secs(),
            env: scenario.env.clone(),
        })?)?;
        let mut lines = Vec::new();
        let mut awake = Awake::new();
        loop {
            let message = match self.incoming.recv_timeout(TICK) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) if awake.tick() < limit => continue,
                Err(RecvTimeoutError::Timeout) => {
                    let lost = anyhow::anyhow!("silent for {} s", limit.as_secs());
                    return Ok(Heard { outcome: Err(lost), lines, took: started.elapsed() });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(Duration::from_millis(200));
                    let why = self.vm.ended().unwrap_or_else(|| "the control port closed".into());
                    let lost = anyhow::anyhow!(why);
                    return Ok(Heard { outcome: Err(lost), lines, took: started.elapsed() });
                }
            };
            match message {
                FromGuest::Line { at_ms, text } => {
                    let line = Line { at: Duration::from_millis(at_ms), text };
                    on_line(&line);
                    lines.push(line);
                }
                FromGuest::File { name, chunk } => report::append(dir, &name, &chunk)?,
                FromGuest::Done { outcome, took_ms } => {
                    let took = Duration::from_millis(took_ms);
                    return Ok(Heard { outcome: Ok(outcome), lines, took });
                }
                FromGuest::Hello { .. } => {
                    let lost = anyhow::anyhow!("the agent started again in the middle");
                    return Ok(Heard { outcome: Err(lost), lines, took: started.elapsed() });
                }
            }
        }
    }
}

/// How often a wait looks at the clock.
const TICK: Duration = Duration::from_millis(500);

/// Time that passes only while this process runs: a guest that was stopped together with it, by a
/// machine that slept or by whoever wanted it quiet, has not been silent.
#[derive(Debug)]
struct Awake {
    spent: Duration,
    last: Instant,
}

impl Awake {
    fn new() -> Self {
        Self { spent: Duration::ZERO, last: Instant::now() }
    }

    fn tick(&mut self) -> Duration {
        self.spent += self.last.elapsed().min(2 * TICK);
        self.last = Instant::now();
        self.spent
    }
}

#[derive(Debug)]
struct Heard {
    outcome: anyhow::Result<Outcome>,
    lines: Vec<Line>,
    took: Duration,
}

#[derive(Debug)]
struct Reached {
    control: UnixStream,
    incoming: Receiver<FromGuest>,
    kernel: String,
    took: Duration,
}

/// Waits for the agent's first word, watching the console for signs of life.
fn reach_agent(vm: &mut Vm) -> anyhow::Result<Reached> {
    let started = Instant::now();
    let control = connect(&vm.control_socket(), Duration::from_secs(10))?;
    let incoming = listen(control.try_clone()?);
    let mut console = 0;
    let mut last_growth = Instant::now();
    loop {
        match incoming.recv_timeout(Duration::from_millis(500)) {
            Ok(FromGuest::Hello { kernel, .. }) => {
                return Ok(Reached { control, incoming, kernel, took: started.elapsed() });
            }
            Ok(FromGuest::Line { .. } | FromGuest::File { .. } | FromGuest::Done { .. }) => {}
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                bail!(vm.ended().unwrap_or_else(|| "the control port closed".into()))
            }
        }
        let size = std::fs::metadata(vm.console()).map_or(0, |metadata| metadata.len());
        if size != console {
            console = size;
            last_growth = Instant::now();
        }
        if let Some(ended) = vm.ended() {
            bail!(ended);
        }
        if last_growth.elapsed() > BOOT_SILENCE {
            bail!("the console is silent for {} s", BOOT_SILENCE.as_secs());
        }
        if started.elapsed() > BOOT_LIMIT {
            bail!("not up after {} s", BOOT_LIMIT.as_secs());
        }
    }
}

/// QEMU makes its sockets while it starts.
pub(crate) fn connect(path: &Path, patience: Duration) -> anyhow::Result<UnixStream> {
    let started = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if started.elapsed() > patience => {
                return Err(error).with_context(|| format!("cannot connect to {}", path.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A thread that turns the stream into messages; the channel closes when the stream does.
fn listen(mut stream: UnixStream) -> Receiver<FromGuest> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut lines = LineBuffer::default();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            for line in lines.push(&buffer[..count]) {
                // A line that is no message is noise of a dying guest; silence is noticed
                // elsewhere.
                if let Ok(message) = serde_json::from_str(&line)
                    && sender.send(message).is_err()
                {
                    return;
                }
            }
        }
    });
    receiver
}

/// What the guest finds below `/lab`.
fn write_payload(options: &BootOptions, dir: &Path, disk: &Path) -> anyhow::Result<()> {
    for part in ["lib", "debs", "files"] {
        std::fs::create_dir_all(dir.join(part))?;
    }
    std::fs::copy(std::env::current_exe()?, dir.join("xtask"))?;
    let library = crate::workspace::root().join("tests/kernel/lib");
    for entry in std::fs::read_dir(&library)? {
        let entry = entry?;
        std::fs::copy(entry.path(), dir.join("lib").join(entry.file_name()))?;
    }
    let copy = |files: &[PathBuf], part: &str| -> anyhow::Result<()> {
        for file in files {
            let name =
                file.file_name().with_context(|| format!("{} has no name", file.display()))?;
            std::fs::copy(file, dir.join(part).join(name))
                .with_context(|| format!("cannot copy {}", file.display()))?;
        }
        Ok(())
    };
    copy(options.deb.as_slice(), "debs")?;
    copy(&options.brought.files, "files")?;
    image::disk(dir, disk, "lab-payload")?;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
