//! Ceph and the targets of a scenario: one file, changed under a lock by whoever plays a part.
//!
//! ```text
//!   `ceph` ── mons ─┐                                ┌─ `nvme`, the label tool: connect, read
//!                   ├──► state.json, under flock ◄───┤
//!   `array` ─ fence ┘                                └─ `ceph-osd`: beats, and writes to its device
//! ```
//!
//! A device keeps the rules of a real target: a host that is not allowed cannot connect; one that
//! is connected goes on writing for a while after it was thrown out; an older token is refused.
//! Every write is kept, with its writer, so that a scenario can ask afterwards whether two ever
//! took turns.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A target takes a connection apart some time after it was told to.
pub const TEARDOWN_MS: u64 = 400;
/// The mons give an OSD up after that long.
pub const GRACE_MS: u64 = 2000;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    pub cluster: String,
    pub quorum: bool,
    /// Of the one pool, with three copies.
    pub min_size: u32,
    pub osds: BTreeMap<u32, Osd>,
    /// By subsystem.
    pub devices: BTreeMap<String, Device>,
    /// The fence does not answer.
    pub fence_silent: bool,
    /// It says that it is done and does nothing.
    pub fence_lies: bool,
    /// So many connections fail from now on.
    pub connects_to_fail: u32,
    /// Questions that changed something, as they came.
    pub log: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Osd {
    pub fsid: String,
    pub host: Option<String>,
    /// When its daemon was last heard of.
    pub beat_ms: u64,
    pub noout: bool,
    /// Bumped whenever something of the map changes.
    pub boots: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Device {
    pub osd: u32,
    pub generation: u64,
    pub allowed: Vec<String>,
    pub connected: Vec<String>,
    /// Hosts that were thrown out, and until when their writes still land.
    pub leaving: BTreeMap<String, u64>,
    /// Who wrote, in the order of the writes; each turn of a writer is one entry.
    pub turns: Vec<Turn>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    pub host: String,
    pub pid: u32,
    pub writes: u64,
}

pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

impl Device {
    /// Hosts whose writes land.
    pub fn writers(&self) -> Vec<String> {
        let now = now_ms();
        let leaving = self.leaving.iter().filter(|(_, until)| now < **until);
        self.connected.iter().chain(leaving.map(|(host, _)| host)).cloned().collect()
    }

    pub fn write(&mut self, host: &str, pid: u32) -> bool {
        if !self.writers().iter().any(|it| it == host) {
            return false;
        }
        match self.turns.last_mut().filter(|turn| turn.pid == pid) {
            Some(turn) => turn.writes += 1,
            None => self.turns.push(Turn { host: host.to_owned(), pid, writes: 1 }),
        }
        true
    }

    /// Whether some writer wrote again after another one had.
    pub fn torn(&self) -> bool {
        let pids: Vec<u32> = self.turns.iter().map(|turn| turn.pid).collect();
        (0..pids.len()).any(|n| pids[..n].contains(&pids[n]))
    }
}

/// The file, and the programs beside it.
#[derive(Debug, Clone)]
pub struct Fabric {
    dir: PathBuf,
}

impl Fabric {
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    pub fn create(dir: &Path, state: &State) -> Self {
        std::fs::create_dir_all(dir.join("by-id")).unwrap();
        let fabric = Self::at(dir);
        fabric.write(&serde_json::to_vec(state).unwrap());
        fabric
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Changes it, alone.
    pub fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let _alone = self.alone();
        let mut state = self.read();
        let result = change(&mut state);
        self.write(&serde_json::to_vec(&state).unwrap());
        result
    }

    /// Looks at it while nobody changes it.
    pub fn look<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        let _alone = self.alone();
        look(&self.read())
    }

    /// As long as what it returns is held; a process that ends lets go.
    fn alone(&self) -> File {
        let file = self.dir.join("state.lock");
        let file = File::options().create(true).append(true).open(file).unwrap();
        file.lock().unwrap();
        file
    }

    fn read(&self) -> State {
        serde_json::from_slice(&std::fs::read(self.dir.join("state.json")).unwrap()).unwrap()
    }

    /// Whole or not at all: programs are killed at any moment, when they are too slow for the
    /// controller.
    fn write(&self, text: &[u8]) {
        let next = self.dir.join("state.next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.dir.join("state.json")).unwrap();
    }
}
