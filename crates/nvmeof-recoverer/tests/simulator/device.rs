//! A device on a target: who may connect, who is connected, and what was really written.
//!
//! ```text
//!   host ── allowed? ──► session ──► writes in flight ──► blocks
//!                           │             │
//!                 fence: drained or torn down later     each write: host, epoch of its mount, number
//! ```
//!
//! Whether a move was safe is read from what landed here, and from nothing else. Every OSD that
//! starts reads the superblock, adds one to its epoch and writes it back; every block it writes
//! carries that epoch. So a write with an older epoch than the superblock's is a write of somebody
//! who should have been gone, whatever anybody believed. A write of another host than the last that
//! connected is one too, even if the OSD there has not been started yet.

use std::collections::BTreeSet;

use heal_types::cluster::Generation;
use nvmeof_recoverer::plan::evidence::Report;

/// A host, by its number.
pub(crate) type Host = usize;

/// What one write left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) host: Host,
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}

/// A connection. It has a number, so that a write of an old one does not land through a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) host: Host,
    /// When the target will have taken it apart.
    pub(crate) dies: Option<u64>,
    /// Since when the host is silent.
    pub(crate) silent: Option<u64>,
}

/// A write under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flying {
    due: u64,
    session: u64,
    block: Block,
}

/// How a fence behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Honest,
    /// Takes connections apart that many seconds after it said it has.
    Later(u64),
    /// Takes the host off its list, says it is done, and leaves the connection.
    UnlinksOnly,
    /// Says it is done and does nothing.
    Lies,
    /// Does it, and nobody hears.
    DoneUnheard,
    /// Does not answer.
    Silent,
    /// Says no.
    Refuses,
}

/// What the target keeps of a device.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) allowed: BTreeSet<Host>,
    pub(crate) sessions: Vec<Session>,
    /// The newest generation it was told, and whom it admitted in it.
    pub(crate) generation: Generation,
    pub(crate) admitted: Option<Host>,
    pub(crate) mood: Mood,
    flying: Vec<Flying>,
    /// The superblock.
    pub(crate) epoch: u64,
    /// The last host that connected.
    opened: Option<Host>,
    /// Everything that landed, in order.
    pub(crate) landed: Vec<Block>,
    next: u64,
    pub(crate) violations: Vec<String>,
}

/// What a fence answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Done,
    Nothing,
    No(&'static str),
}

impl Device {
    pub(crate) fn new(host: Host) -> Self {
        let mut device = Self {
            allowed: [host].into(),
            sessions: Vec::new(),
            generation: Generation(0),
            admitted: None,
            mood: Mood::Honest,
            flying: Vec::new(),
            epoch: 0,
            opened: None,
            landed: Vec::new(),
            next: 0,
            violations: Vec::new(),
        };
        assert!(device.connect(host), "the first host is allowed");
        device
    }

    /// The host connects, if it may.
    pub(crate) fn connect(&mut self, host: Host) -> bool {
        if !self.allowed.contains(&host) {
            return false;
        }
        if self.session(host).is_none() {
            self.next += 1;
            self.sessions.push(Session { id: self.next, host, dies: None, silent: None });
        }
        self.opened = Some(host);
        true
    }

    pub(crate) fn session(&self, host: Host) -> Option<Session> {
        self.sessions.iter().find(|session| session.host == host).copied()
    }

    pub(crate) fn disconnect(&mut self, host: Host) {
        self.sessions.retain(|session| session.host != host);
    }

    /// An OSD starts: it reads the superblock and writes it back. `None` without a connection.
    pub(crate) fn mount(&mut self, host: Host) -> Option<u64> {
        self.session(host)?;
        // A process that died here does not end before its writes have: the kernel waits for them.
        let (own, others): (Vec<Flying>, Vec<Flying>) =
            self.flying.drain(..).partition(|flying| flying.block.host == host);
        self.flying = others;
        own.into_iter().for_each(|flying| self.land(flying.block));
        let epoch = self.epoch + 1;
        self.epoch = epoch;
        self.land(Block { host, epoch, number: 0 });
        Some(epoch)
    }

    /// The host writes; it lands after `delay`, if its connection lasts.
    pub(crate) fn write(&mut self, now: u64, delay: u64, block: Block) -> bool {
        let Some(session) = self.session(block.host) else {
            return false;
        };
        if delay == 0 {
            self.land(block);
        } else {
            self.flying.push(Flying { due: now + delay, session: session.id, block });
        }
        true
    }

    fn land(&mut self, block: Block) {
        if let Some(opened) = self.opened.filter(|opened| *opened != block.host) {
            self.violations.push(format!(
                "a write of n{} landed after n{opened} connected: {block:?}",
                block.host
            ));
        }
        if block.epoch < self.epoch {
            let newer = self.epoch;
            self.violations.push(format!("two writers: {block:?} landed in epoch {newer}"));
        }
        self.landed.push(block);
    }

    /// Time passes: writes land, connections end.
    pub(crate) fn pass(&mut self, now: u64) {
        let (due, later): (Vec<Flying>, Vec<Flying>) =
            self.flying.drain(..).partition(|flying| flying.due <= now);
        self.flying = later;
        for flying in due {
            if self.sessions.iter().any(|session| session.id == flying.session) {
                self.land(flying.block);
            }
        }
        self.sessions.retain(|session| session.dies.is_none_or(|dies| now < dies));
    }

    /// Lets what is under way land, as a target does before it says that it drained.
    fn drain(&mut self) {
        for flying in std::mem::take(&mut self.flying) {
            if self.sessions.iter().any(|session| session.id == flying.session) {
                self.land(flying.block);
            }
        }
    }

    fn stale(&self, generation: Generation, admits: Option<Host>) -> bool {
        let other = self.admitted.is_some() && self.admitted != admits;
        generation < self.generation || generation == self.generation && other
    }

    /// Takes everybody's access away.
    pub(crate) fn fence(&mut self, now: u64, generation: Generation) -> Said {
        match self.mood {
            Mood::Silent => return Said::Nothing,
            Mood::Refuses => return Said::No("this backend is not configured"),
            Mood::Lies => return Said::Done,
            Mood::Honest | Mood::Later(_) | Mood::UnlinksOnly | Mood::DoneUnheard => {}
        }
        if self.stale(generation, None) {
            return Said::No("a newer generation was here");
        }
        self.generation = generation;
        self.admitted = None;
        self.allowed.clear();
        match self.mood {
            Mood::Later(delay) => {
                for session in &mut self.sessions {
                    session.dies.get_or_insert(now + delay);
                }
                Said::Done
            }
            Mood::UnlinksOnly => Said::Done,
            Mood::Honest | Mood::DoneUnheard | Mood::Silent | Mood::Refuses | Mood::Lies => {
                self.drain();
                self.sessions.clear();
                if self.mood == Mood::DoneUnheard { Said::Nothing } else { Said::Done }
            }
        }
    }

    /// Who can write.
    pub(crate) fn report(&self) -> Option<Report> {
        let name = |host: &Host| format!("n{host}");
        (self.mood != Mood::Silent).then(|| Report::Target {
            generation: self.generation,
            allowed: self.allowed.iter().map(name).collect(),
            any_host: false,
            connected: self.sessions.iter().map(|session| name(&session.host)).collect(),
        })
    }

    /// Lets one host connect, and nobody else. It ends no connection: nothing here may depend on
    /// that.
    pub(crate) fn admit(&mut self, generation: Generation, host: Host) -> Said {
        match self.mood {
            Mood::Silent => return Said::Nothing,
            Mood::Honest
            | Mood::Later(_)
            | Mood::UnlinksOnly
            | Mood::Lies
            | Mood::DoneUnheard
            | Mood::Refuses => {}
        }
        if self.stale(generation, Some(host)) {
            return Said::No("a newer generation was here");
        }
        self.generation = generation;
        self.admitted = Some(host);
        self.allowed = [host].into();
        if self.mood == Mood::DoneUnheard { Said::Nothing } else { Said::Done }
    }
}
