//! A place on disk for one test, and the `fixed` backend in it.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper fails the test like the test itself"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test plays the operator, who writes and removes files"
)]

pub(crate) mod emulated;
pub(crate) mod plugin;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use heal_provisioner::Provisioner;
use heal_provisioner::contract::{KnownBy, Stage};
use heal_provisioner::fixed::{Fixed, FixedPaths};

static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Desk {
    pub(crate) directory: PathBuf,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("desk-{}-{number}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Self { directory }
    }

    pub(crate) fn with(inventory: &str) -> Self {
        let desk = Self::new();
        desk.write_inventory(inventory);
        desk
    }

    pub(crate) fn paths(&self) -> FixedPaths {
        FixedPaths {
            inventory: self.directory.join("volumes.ron"),
            state: self.directory.join("fixed-state.ron"),
        }
    }

    pub(crate) fn backend(&self) -> Arc<dyn Provisioner> {
        Arc::new(Fixed::new(self.paths()))
    }

    pub(crate) fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn write_inventory(&self, text: &str) {
        std::fs::write(self.paths().inventory, text).unwrap();
    }

    pub(crate) fn write_state(&self, text: &str) {
        std::fs::write(self.paths().state, text).unwrap();
    }

    pub(crate) fn state(&self) -> String {
        std::fs::read_to_string(self.paths().state).unwrap()
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.directory.join(from), self.directory.join(to)).unwrap();
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Only what stands directly in it: a desk has no drawers.
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        let _ = std::fs::remove_dir(&self.directory);
    }
}

fn replica(id: &str, number: usize, sectors: u64) -> String {
    format!(
        "(id: \"{id}\", namespace: \"6fd1ee4c-3f2c-4f6f-8a44-{number:012x}\", \
         nqn: \"nqn.2026-11.example:{id}\", portals: [\"tcp://10.0.0.{}:4420\"], size: {}),",
        number % 250 + 1,
        sectors * 512
    )
}

/// The inventory of `stage`, for the backend over files.
pub(crate) fn inventory(stage: &Stage) -> String {
    let mut text = String::from("(volumes: [(id: \"vol-7\", copies: 2,");
    if stage.known_by != KnownBy::Alias {
        write!(text, "array: \"{}\",", emulated::ARRAY).unwrap();
    }
    if stage.known_by != KnownBy::Array {
        text.push_str("alias: \"db\",");
    }
    text.push_str("replicas: [");
    for number in 1..=usize::from(stage.replicas) {
        text.push_str(&replica(&format!("r{number}"), number, stage.size.0));
    }
    // The first spare is the volume's own, the others are anybody's.
    text.push_str("], spares: [");
    for (number, size) in stage.spares.iter().enumerate() {
        if number == 1 {
            text.push_str("])], spares: [");
        }
        text.push_str(&replica(&format!("s{number}"), 100 + number, size.0));
    }
    text.push_str(if stage.spares.len() > 1 { "])" } else { "])])" });
    text
}
