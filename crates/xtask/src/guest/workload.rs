//! An application that notices everything: it writes blocks it can recognise, and reads them back
//! for ever.
//!
//! ```text
//!   block: magic │ run │ block number │ version │ checksum │ filling made from the three before
//!
//!   writer n (own blocks) ─► pick one ─► write version+1 ─► pick another ─► read, compare with what
//!                                                            │              memory says it must hold
//!                                                            ▼
//!                                       lost write, stale leg, torn block, foreign data = mismatch
//! ```
//!
//! The expected version of each block lives in memory, not on the device, so an old but intact
//! block (a leg that was re-added without its recovery) is found as surely as a broken one. Reads
//! of a mirror go to either leg, so what is wrong on one of them shows within a few rounds. All I/O
//! is `O_DIRECT`. A write that failed leaves its block in doubt: it counts as an error and is not
//! compared again.
//!
//! One run may hold several faults, each of which wants a figure of its own. A line written to the
//! FIFO of `--marks` opens a *window* of that name: what is counted in it begins there, and a write
//! that was under way at that moment counts from that moment.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The array to write to; all that is on it is lost.
    device: PathBuf,
    /// Where the result goes; rewritten all the time, so that a stall can be watched.
    #[arg(long)]
    result: PathBuf,
    /// A FIFO: each line written to it opens a window of that name.
    #[arg(long)]
    marks: Option<PathBuf>,
    /// Ends when this file appears.
    #[arg(long)]
    stop: PathBuf,
    #[arg(long, default_value_t = 2)]
    writers: u64,
    /// How many blocks are in use, spread evenly over the device.
    #[arg(long, default_value_t = 2048)]
    blocks: u64,
    /// Pause of each writer between two rounds.
    #[arg(long, default_value_t = 5)]
    pause_ms: u64,
}

const BLOCK: usize = 4096;
const MAGIC: u64 = 0x6e76_6d65_6865_616c;
const HEADER: usize = 40;

/// How often the result is rewritten.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// How long a stuck I/O is waited for at the end.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// `O_DIRECT`, as the type `OpenOptions` wants.
pub(super) const DIRECT: i32 = 0o40000;

/// A block aligned for `O_DIRECT`.
#[repr(align(4096))]
pub(super) struct Block([u8; BLOCK]);

impl Block {
    pub(super) fn zeroed() -> Box<Self> {
        Box::new(Self([0; BLOCK]))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Fills in a whole block.
    pub(super) fn compose(&mut self, run: u64, number: u64, version: u64) {
        let mut seed = splitmix(run ^ splitmix(number ^ splitmix(version)));
        for word in self.0[HEADER..].chunks_exact_mut(8) {
            seed = splitmix(seed);
            word.copy_from_slice(&seed.to_le_bytes());
        }
        let sum = checksum(&self.0[HEADER..]);
        for (at, word) in [MAGIC, run, number, version, sum].into_iter().enumerate() {
            self.0[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
    }

    fn word(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[at * 8..at * 8 + 8]);
        u64::from_le_bytes(bytes)
    }

    /// Is it what was written last? Else a sentence that says what it is.
    pub(super) fn verify(&self, run: u64, number: u64, version: u64) -> Result<(), String> {
        if self.word(0) != MAGIC {
            return Err(format!("block {number}: not ours (starts with {:016x})", self.word(0)));
        }
        let found = (self.word(1), self.word(2), self.word(3));
        if found != (run, number, version) {
            return Err(format!(
                "block {number}: wanted version {version} of run {run:x}, found version {} of block {} \
                 of run {:x}",
                found.2, found.1, found.0
            ));
        }
        if checksum(&self.0[HEADER..]) != self.word(4) {
            return Err(format!("block {number}: version {version} is torn"));
        }
        Ok(())
    }
}

/// Filling and choices: even, fast, and the same each time for the same seed.
fn splitmix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(8).fold(0, |sum, word| {
        let word = word.try_into().map_or(0, u64::from_le_bytes);
        (sum.rotate_left(7) ^ word).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What all writers count together.
#[derive(Debug, Default)]
struct Counters {
    writes: AtomicU64,
    reads: AtomicU64,
    errors: AtomicU64,
    mismatches: AtomicU64,
    longest_write_us: AtomicU64,
    longest_read_us: AtomicU64,
    stop: AtomicBool,
}

/// What is counted since a mark.
#[derive(Debug, Default)]
struct Window {
    name: String,
    since_us: u64,
    writes: u64,
    errors: u64,
    longest_write_us: u64,
}

impl Window {
    fn new(name: &str, since_us: u64) -> Self {
        Self { name: name.to_owned(), since_us, ..Self::default() }
    }

    /// A write that ended; what it waited before the mark is not this window's.
    fn wrote(&mut self, began_us: u64, ended_us: u64, ok: bool) {
        if ok {
            self.writes += 1;
        } else {
            self.errors += 1;
        }
        let waited = ended_us.saturating_sub(began_us.max(self.since_us));
        self.longest_write_us = self.longest_write_us.max(waited);
    }
}

/// One writer's I/O under way, as microseconds since the start plus one; zero when there is none.
type InFlight = Arc<AtomicU64>;

#[derive(Debug)]
struct Shared {
    started: Instant,
    counters: Counters,
    window: Mutex<Option<Window>>,
    first_trouble: Mutex<Option<String>>,
    troubles: AtomicU64,
}

/// So many are told one by one; the rest only counts.
const TOLD: u64 = 5;

impl Shared {
    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn trouble(&self, what: String) {
        if self.troubles.fetch_add(1, Relaxed) < TOLD {
            eprintln!("workload: {what}");
        }
        if let Ok(mut first) = self.first_trouble.lock() {
            first.get_or_insert(what);
        }
    }

    fn mark(&self, name: &str) {
        if let Ok(mut window) = self.window.lock() {
            *window = Some(Window::new(name, self.now_us()));
        }
    }

    fn wrote(&self, began_us: u64, ended_us: u64, ok: bool) {
        if let Ok(mut window) = self.window.lock()
            && let Some(window) = window.as_mut()
        {
            window.wrote(began_us, ended_us, ok);
        }
    }

    /// How long the oldest I/O under way has been waiting, at most since `floor_us`.
    fn waiting_us(&self, in_flight: &[InFlight], floor_us: u64) -> u64 {
        let now = self.now_us();
        in_flight
            .iter()
            .map(|since| since.load(Relaxed))
            .filter(|&since| since > 0)
            .map(|since| now.saturating_sub(since.max(floor_us)))
            .max()
            .unwrap_or(0)
    }

    /// The window's part of the result; null as long as nothing was marked.
    fn window_result(&self, in_flight: &[InFlight]) -> serde_json::Value {
        let window = self.window.lock().ok();
        let Some(window) = window.as_ref().and_then(|window| window.as_ref()) else {
            return serde_json::Value::Null;
        };
        serde_json::json!({
            "name": window.name,
            "writes": window.writes,
            "errors": window.errors,
            "longest_write_ms": window.longest_write_us / 1000,
            "in_flight_ms": self.waiting_us(in_flight, window.since_us) / 1000,
        })
    }

    fn result(&self, running: bool, in_flight: &[InFlight]) -> serde_json::Value {
        let ms = |us: u64| us / 1000;
        let waiting = self.waiting_us(in_flight, 0);
        let count = &self.counters;
        serde_json::json!({
            "running": running,
            "seconds": self.started.elapsed().as_secs_f64(),
            "writes": count.writes.load(Relaxed),
            "reads": count.reads.load(Relaxed),
            "errors": count.errors.load(Relaxed),
            "mismatches": count.mismatches.load(Relaxed),
            "longest_write_ms": ms(count.longest_write_us.load(Relaxed)),
            "longest_read_ms": ms(count.longest_read_us.load(Relaxed)),
            "in_flight_ms": ms(waiting),
            "window": self.window_result(in_flight),
            "first_trouble": self.first_trouble.lock().ok().and_then(|first| first.clone()),
        })
    }
}

/// What memory knows of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    NeverWritten,
    Version(u64),
    /// A write failed: the old content and the new one are both right.
    InDoubt(u64),
}

impl Expected {
    fn next_version(self) -> u64 {
        match self {
            Self::NeverWritten => 1,
            Self::Version(version) | Self::InDoubt(version) => version + 1,
        }
    }
}

struct Writer {
    device: File,
    shared: Arc<Shared>,
    in_flight: InFlight,
    run: u64,
    /// Block numbers on the device, this writer's only.
    blocks: Vec<u64>,
    expected: Vec<Expected>,
    buffer: Box<Block>,
    pause: Duration,
    random: u64,
}

impl Writer {
    fn go(mut self) {
        while !self.shared.counters.stop.load(Relaxed) {
            let written = self.choose();
            self.write(written);
            let read = self.choose();
            self.read(read);
            std::thread::sleep(self.pause);
        }
        for index in 0..self.blocks.len() {
            self.read(index);
        }
    }

    fn choose(&mut self) -> usize {
        self.random = splitmix(self.random);
        let count = u64::try_from(self.blocks.len()).unwrap_or(1);
        usize::try_from(self.random % count).unwrap_or(0)
    }

    fn write(&mut self, index: usize) {
        let number = self.blocks[index];
        let version = self.expected[index].next_version();
        self.buffer.compose(self.run, number, version);
        let began = self.shared.now_us();
        let (done, took) = self.timed(|writer| {
            writer.device.write_all_at(writer.buffer.bytes(), number * BLOCK as u64)
        });
        self.shared.wrote(began, began + took, done.is_ok());
        self.shared.counters.longest_write_us.fetch_max(took, Relaxed);
        match done {
            Ok(()) => {
                self.shared.counters.writes.fetch_add(1, Relaxed);
                self.expected[index] = Expected::Version(version);
            }
            Err(error) => {
                self.shared.counters.errors.fetch_add(1, Relaxed);
                self.shared.trouble(format!("block {number}: write failed: {error}"));
                self.expected[index] = Expected::InDoubt(version);
            }
        }
    }

    fn read(&mut self, index: usize) {
        let number = self.blocks[index];
        let version = match self.expected[index] {
            Expected::Version(version) => version,
            Expected::NeverWritten | Expected::InDoubt(_) => return,
        };
        let (done, took) = self.timed(|writer| {
            writer.device.read_exact_at(writer.buffer.bytes_mut(), number * BLOCK as u64)
        });
        self.shared.counters.longest_read_us.fetch_max(took, Relaxed);
        match done {
            Ok(()) => {
                self.shared.counters.reads.fetch_add(1, Relaxed);
                if let Err(what) = self.buffer.verify(self.run, number, version) {
                    self.shared.counters.mismatches.fetch_add(1, Relaxed);
                    self.shared.trouble(what);
                }
            }
            Err(error) => {
                self.shared.counters.errors.fetch_add(1, Relaxed);
                self.shared.trouble(format!("block {number}: read failed: {error}"));
            }
        }
    }

    fn timed<T>(&mut self, io: impl FnOnce(&mut Self) -> T) -> (T, u64) {
        let since = self.shared.now_us();
        self.in_flight.store(since.max(1), Relaxed);
        let result = io(self);
        self.in_flight.store(0, Relaxed);
        (result, self.shared.now_us().saturating_sub(since))
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let open = || {
        File::options()
            .read(true)
            .write(true)
            .custom_flags(DIRECT)
            .open(&args.device)
            .with_context(|| format!("cannot open {}", args.device.display()))
    };
    let numbers = spread(size(&open()?)?, args.blocks)?;
    let shared = Arc::new(Shared {
        started: Instant::now(),
        counters: Counters::default(),
        window: Mutex::new(None),
        first_trouble: Mutex::new(None),
        troubles: AtomicU64::new(0),
    });
    if let Some(marks) = args.marks.clone() {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || listen(&marks, &shared));
    }
    let run = splitmix(u64::from(std::process::id()));
    let mut in_flight = Vec::new();
    let mut threads = Vec::new();
    for writer in 0..args.writers.max(1) {
        let step = usize::try_from(args.writers.max(1))?;
        let blocks: Vec<u64> =
            numbers.iter().copied().skip(usize::try_from(writer)?).step_by(step).collect();
        let waiting: InFlight = Arc::default();
        in_flight.push(Arc::clone(&waiting));
        let writer = Writer {
            device: open()?,
            shared: Arc::clone(&shared),
            in_flight: waiting,
            run,
            expected: vec![Expected::NeverWritten; blocks.len()],
            blocks,
            buffer: Block::zeroed(),
            pause: Duration::from_millis(args.pause_ms),
            random: splitmix(run ^ writer),
        };
        threads.push(std::thread::spawn(move || writer.go()));
    }
    while !args.stop.exists() && threads.iter().any(|thread| !thread.is_finished()) {
        report(args, &shared.result(true, &in_flight))?;
        std::thread::sleep(REPORT_EVERY);
    }
    shared.counters.stop.store(true, Relaxed);
    let asked = Instant::now();
    while threads.iter().any(|thread| !thread.is_finished()) && asked.elapsed() < END_PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let stuck = threads.iter().filter(|thread| !thread.is_finished()).count();
    let result = shared.result(stuck > 0, &in_flight);
    report(args, &result)?;
    println!("{result}");
    if stuck > 0 {
        bail!("{stuck} writers are still stuck in the kernel");
    }
    if result["errors"] != 0 || result["mismatches"] != 0 {
        bail!("not clean: {}", result["first_trouble"]);
    }
    Ok(())
}

/// Opens a window at each line. A FIFO ends whenever its writer goes, so it is opened again.
fn listen(marks: &Path, shared: &Shared) {
    loop {
        match std::fs::read_to_string(marks) {
            Ok(names) => names.lines().for_each(|name| shared.mark(name.trim())),
            Err(error) => {
                eprintln!("workload: no more marks: {}: {error}", marks.display());
                return;
            }
        }
    }
}

/// A reader never sees half a result.
fn report(args: &Args, result: &serde_json::Value) -> anyhow::Result<()> {
    let fresh = args.result.with_extension("new");
    std::fs::write(&fresh, format!("{result}\n"))?;
    std::fs::rename(fresh, &args.result)?;
    Ok(())
}

fn size(device: &File) -> anyhow::Result<u64> {
    use std::io::{Seek as _, SeekFrom};
    let kind = device.metadata()?.file_type();
    if !kind.is_block_device() && !kind.is_file() {
        bail!("not a block device");
    }
    let mut device = device;
    Ok(device.seek(SeekFrom::End(0))?)
}

/// Block numbers spread evenly over a device of this many bytes.
fn spread(bytes: u64, wanted: u64) -> anyhow::Result<Vec<u64>> {
    let there = bytes / BLOCK as u64;
    let count = wanted.min(there);
    if count < 8 {
        bail!("the device has {there} blocks: too small");
    }
    Ok((0..count).map(|index| index * there / count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_known_by_run_number_and_version() {
        let mut block = Block::zeroed();
        block.compose(7, 3, 2);
        assert_eq!(block.verify(7, 3, 2), Ok(()));
        for (run, number, version) in [(8, 3, 2), (7, 4, 2), (7, 3, 3)] {
            assert!(block.verify(run, number, version).is_err());
        }
    }

    #[test]
    fn a_single_changed_byte_is_a_torn_block() {
        let mut block = Block::zeroed();
        block.compose(1, 1, 1);
        block.bytes_mut()[4095] ^= 1;
        assert!(block.verify(1, 1, 1).unwrap_err().contains("torn"));
    }

    #[test]
    fn a_block_of_zeroes_is_not_ours() {
        assert!(Block::zeroed().verify(1, 1, 1).unwrap_err().contains("not ours"));
    }

    #[test]
    fn a_write_under_way_at_the_mark_counts_from_the_mark() {
        let mut window = Window::new("pull-1", 1_000_000);
        window.wrote(400_000, 1_300_000, true);
        assert_eq!((window.writes, window.longest_write_us), (1, 300_000));
        window.wrote(1_300_000, 3_800_000, false);
        assert_eq!((window.errors, window.longest_write_us), (1, 2_500_000));
    }

    #[test]
    fn blocks_are_spread_to_the_end_of_the_device_and_never_twice() {
        let numbers = spread(1000 * 4096, 300).unwrap();
        assert_eq!(numbers.len(), 300);
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(numbers.last().is_some_and(|&last| (990..1000).contains(&last)));
        assert!(spread(4096, 300).is_err());
    }
}
