//! Two hosts and one device: who wrote which block, and whether one of them wrote out of turn.
//!
//! Each block says its writer and its number in that writer's row; a writer goes round and round
//! over the same slots. What a device must hold is then known from how far its last writer came,
//! slot by slot: a block of somebody else that arrived later stands out, and so does an
//! acknowledged one that is missing. A writer looks at each block before it writes over it, so that
//! neither can be hidden.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::time::{ClockId, clock_gettime};

use super::workload::{Block, DIRECT};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Write until told to stop, also after errors.
    Write {
        device: PathBuf,
        #[arg(long)]
        writer: u64,
        /// Where the result goes; rewritten all the time.
        #[arg(long)]
        result: PathBuf,
        /// Ends when this file appears.
        #[arg(long)]
        stop: PathBuf,
    },
    /// Whether the device holds what that writer wrote last, and nothing else.
    Check {
        device: PathBuf,
        #[arg(long)]
        writer: u64,
        /// Its last number that was acknowledged.
        #[arg(long)]
        acked: u64,
    },
}

const SLOTS: u64 = 512;
const BYTES: u64 = 4096;
/// After an error, so that a device that is gone is not asked a million times.
const BREATH: Duration = Duration::from_millis(20);

fn uptime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let ms = now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000);
    u64::try_from(ms).unwrap_or_default()
}

/// The number that stands in a slot when the writer's last one is `last`; none if it was not there
/// yet.
fn expected(slot: u64, last: u64) -> Option<u64> {
    let back = (last % SLOTS + SLOTS - slot) % SLOTS;
    last.checked_sub(back).filter(|number| *number > 0)
}

#[derive(Debug, Default)]
struct Counts {
    acked: AtomicU64,
    errors: AtomicU64,
    foreign: AtomicU64,
    last_ack_ms: AtomicU64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.task {
        Task::Write { device, writer, result, stop } => {
            let counts = Arc::new(Counts::default());
            let (shared, device, writer) = (Arc::clone(&counts), open(device, true)?, *writer);
            let ends = stop.clone();
            let thread = std::thread::spawn(move || write(&device, writer, &shared, &ends));
            while !thread.is_finished() && !stop.exists() {
                report(&counts, result)?;
                std::thread::sleep(Duration::from_millis(100));
            }
            // A write that waits in the kernel cannot be called off; it is not counted either.
            let patience = std::time::Instant::now();
            while !thread.is_finished() && patience.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(20));
            }
            report(&counts, result)
        }
        Task::Check { device, writer, acked } => check(&open(device, false)?, *writer, *acked),
    }
}

fn open(device: &Path, write: bool) -> anyhow::Result<File> {
    let mut options = File::options();
    // A file on tmpfs, where a target keeps its bytes, knows no O_DIRECT, and no other cache
    // either.
    let direct = if device.starts_with("/dev") { DIRECT } else { 0 };
    let opened = options.read(true).write(write).custom_flags(direct).open(device);
    opened.with_context(|| format!("cannot open {}", device.display()))
}

fn write(device: &File, writer: u64, counts: &Counts, stop: &Path) {
    let mut block = Block::zeroed();
    // What it was sure of, and what it tried since.
    let mut before = vec![0_u64; usize::try_from(SLOTS).unwrap_or_default()];
    let mut number = 1;
    while !stop.exists() {
        let slot = number % SLOTS;
        let known = &mut before[usize::try_from(slot).unwrap_or_default()];
        if *known > 0 {
            let read = device.read_exact_at(block.bytes_mut(), slot * BYTES);
            if read.is_ok() && block.verify(writer, slot, *known).is_err() {
                counts.foreign.fetch_add(1, Relaxed);
            }
        }
        block.compose(writer, slot, number);
        match device.write_all_at(block.bytes(), slot * BYTES) {
            Ok(()) => {
                *known = number;
                counts.last_ack_ms.store(uptime_ms(), Relaxed);
                counts.acked.store(number, Relaxed);
                number += 1;
            }
            Err(_) => {
                // It may have landed all the same: not compared until it is written again. That is
                // tried until it succeeds, so that all up to the last acknowledged one are.
                *known = 0;
                counts.errors.fetch_add(1, Relaxed);
                std::thread::sleep(BREATH);
            }
        }
    }
}

fn report(counts: &Counts, result: &Path) -> anyhow::Result<()> {
    let text = serde_json::json!({
        "acked": counts.acked.load(Relaxed),
        "errors": counts.errors.load(Relaxed),
        "foreign": counts.foreign.load(Relaxed),
        "last_ack_ms": counts.last_ack_ms.load(Relaxed),
    });
    let fresh = result.with_extension("new");
    std::fs::write(&fresh, format!("{text}\n"))?;
    std::fs::rename(fresh, result)?;
    Ok(())
}

fn check(device: &File, writer: u64, acked: u64) -> anyhow::Result<()> {
    let mut block = Block::zeroed();
    let mut wrong = Vec::new();
    for slot in 0..SLOTS {
        let Some(number) = expected(slot, acked) else { continue };
        device.read_exact_at(block.bytes_mut(), slot * BYTES)?;
        // One that was not acknowledged may have landed.
        let later = (1..=2).map(|round| number + round * SLOTS);
        let right = std::iter::once(number).chain(later);
        let found: Vec<String> =
            right.map_while(|number| block.verify(writer, slot, number).err()).collect();
        if found.len() == 3 {
            wrong.extend(found.into_iter().next());
        }
    }
    if let Some(first) = wrong.first() {
        bail!("{} of {SLOTS} blocks are not that writer's last: {first}", wrong.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_holds_the_last_number_that_came_by() {
        assert_eq!(expected(0, 3), None);
        assert_eq!(expected(3, 3), Some(3));
        assert_eq!((expected(2, 3), expected(4, 3)), (Some(2), None));
        let last = 3 * SLOTS + 7;
        assert_eq!(expected(7, last), Some(last));
        assert_eq!(expected(8, last), Some(2 * SLOTS + 8));
        assert_eq!(expected(0, last), Some(3 * SLOTS));
    }

    #[test]
    fn a_block_of_another_writer_that_came_late_is_found() {
        let dir = crate::workspace::target().join(format!("turns-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("device");
        let device = File::create(&path).unwrap();
        device.set_len(SLOTS * BYTES).unwrap();
        let mut block = Block::zeroed();
        let mut put = |writer, number: u64| {
            block.compose(writer, number % SLOTS, number);
            device.write_all_at(block.bytes(), number % SLOTS * BYTES).unwrap();
        };
        (1..=2 * SLOTS).for_each(|number| put(2, number));
        let read = open(&path, false).unwrap();
        check(&read, 2, 2 * SLOTS).unwrap();
        put(1, 5);
        let said = check(&read, 2, 2 * SLOTS).unwrap_err().to_string();
        assert!(said.starts_with("1 of 512"), "{said}");
        assert!(check(&read, 1, 5).is_err(), "one block is not all of them");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
