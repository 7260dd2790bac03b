//! The verbs.
//!
//! ```text
//!   question ─► one of ours? ─► an older token? refused ─► nobody else at it? ─► decision kept ─► done
//! ```
//!
//! What is kept is also kept so: [`Fence::tend`] compares every record with the tree, now and then,
//! and says so when somebody has changed what a move had decided.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use heal_types::Nqn;
use heal_types::cluster::Generation;
use heal_types::fence::{Question, Told, VERSION, Verb};
use serde::Deserialize;

use crate::record::{Record, RecordError, Records, State};
use crate::subsystem::{Standing, Subsystem, Trouble};
use crate::tree::Tree;

/// What a target's saved configuration may weigh.
const MOST: u64 = 64 << 20;

/// Takes devices away, and gives them.
pub struct Fence {
    tree: Arc<dyn Tree>,
    records: Records,
    /// Subsystems it may touch begin with one of these; none means all.
    prefixes: Vec<String>,
    /// What the target is set up from when it boots.
    saved: Option<PathBuf>,
    /// Subsystems that somebody is at.
    busy: Mutex<BTreeSet<Nqn>>,
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fence").field("records", &self.records).finish_non_exhaustive()
    }
}

/// Why a verb ends without having been carried out.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Again(&'static str),
    #[error(transparent)]
    Trouble(#[from] Trouble),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<Stop> for Told {
    fn from(stop: Stop) -> Self {
        match &stop {
            Stop::Refused(why) => Self::Refused(why.clone()),
            Stop::Trouble(Trouble::Name(_)) => Self::Refused(chain(&stop)),
            Stop::Again(_) | Stop::Trouble(_) | Stop::Record(_) => Self::Again(chain(&stop)),
        }
    }
}

/// An error and its causes, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// As long as it lives, nobody else is at that subsystem.
struct Alone<'a> {
    fence: &'a Fence,
    subsystem: Nqn,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.fence.busy().remove(&self.subsystem);
    }
}

impl Fence {
    /// A fence over `tree`, with its records.
    #[must_use]
    pub fn new(
        tree: Arc<dyn Tree>,
        records: Records,
        prefixes: Vec<String>,
        saved: Option<PathBuf>,
    ) -> Self {
        Self { tree, records, prefixes, saved, busy: Mutex::default() }
    }

    fn busy(&self) -> std::sync::MutexGuard<'_, BTreeSet<Nqn>> {
        // Whoever panicked while holding it changed nothing by halves.
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self, subsystem: &Nqn) -> Result<Alone<'_>, Stop> {
        if !self.busy().insert(subsystem.clone()) {
            return Err(Stop::Again("an earlier question about it is still being carried out"));
        }
        Ok(Alone { fence: self, subsystem: subsystem.clone() })
    }

    fn is_ours(&self, subsystem: &Nqn) -> bool {
        let begins = |prefix: &String| subsystem.as_str().starts_with(prefix);
        self.prefixes.is_empty() || self.prefixes.iter().any(begins)
    }

    /// Carries a question out. May wait for writes that are under way.
    #[must_use]
    pub fn ask(&self, question: &Question) -> Told {
        self.carry_out(question).unwrap_or_else(Told::from)
    }

    fn carry_out(&self, question: &Question) -> Result<Told, Stop> {
        let missing = |what: &str| Stop::Refused(format!("a question without its {what}"));
        if question.version != VERSION {
            return Err(Stop::Refused(format!("version {} is not spoken here", question.version)));
        }
        if question.verb == Verb::Health {
            return self.health();
        }
        let nqn = question.subsystem.as_ref().ok_or_else(|| missing("subsystem"))?;
        if !self.is_ours(nqn) {
            return Err(Stop::Refused(format!("{nqn} is not to be touched")));
        }
        let subsystem = Subsystem::new(&*self.tree, nqn)?;
        let known = self.records.of(nqn)?;
        let generation = question.generation.ok_or_else(|| missing("generation"))?;
        if known.as_ref().is_some_and(|known| known.generation > generation) {
            return Err(Stop::Refused("a newer move was here".to_owned()));
        }
        match question.verb {
            Verb::Health | Verb::Report => self.report(&subsystem, known.as_ref()),
            Verb::Close => {
                let _alone = self.alone(nqn)?;
                self.close(&subsystem, nqn, known, generation)
            }
            Verb::Admit => {
                let host = question.admit.as_ref().and_then(|host| host.host_nqn.as_ref());
                let host = host.ok_or_else(|| missing("host"))?;
                let _alone = self.alone(nqn)?;
                self.admit(&subsystem, nqn, known, generation, host)
            }
        }
    }

    /// The record with which a subsystem may be taken down: its definition is known, or read now.
    fn decided(
        subsystem: &Subsystem<'_>,
        nqn: &Nqn,
        known: Option<Record>,
        generation: Generation,
        state: State,
    ) -> Result<Record, Stop> {
        let definition = match known {
            Some(Record { definition, state: State::Closed | State::Opening { .. }, .. }) => {
                definition
            }
            // It is whole, and a person may have changed it since.
            Some(Record { state: State::Open { .. }, .. }) | None if subsystem.exists()? => {
                subsystem.definition()?
            }
            Some(Record { definition, state: State::Open { .. }, .. }) => definition,
            None => return Err(Stop::Refused(format!("there is no subsystem {nqn}"))),
        };
        Ok(Record { subsystem: nqn.clone(), generation, definition, state })
    }

    fn close(
        &self,
        subsystem: &Subsystem<'_>,
        nqn: &Nqn,
        known: Option<Record>,
        generation: Generation,
    ) -> Result<Told, Stop> {
        let record = Self::decided(subsystem, nqn, known, generation, State::Closed)?;
        self.records.keep(&record)?;
        subsystem.take_down()?;
        tracing::warn!(subsystem = %nqn, %generation, "closed");
        Ok(Told::Done {})
    }

    fn admit(
        &self,
        subsystem: &Subsystem<'_>,
        nqn: &Nqn,
        known: Option<Record>,
        generation: Generation,
        host: &Nqn,
    ) -> Result<Told, Stop> {
        let open = State::Open { host: host.clone() };
        // What was adopted may have connections of hosts that were taken off its list before.
        let ours = |known: &Record| known.state == open && known.generation > Generation(0);
        let same = known.as_ref().is_some_and(ours);
        if same && is_for(subsystem.standing()?.as_ref(), host) {
            // Built by us, and only this host was ever let in.
            if let Some(record) = known.filter(|known| known.generation != generation) {
                self.records.keep(&Record { generation, ..record })?;
            }
            return Ok(Told::Done {});
        }
        let opening = State::Opening { host: host.clone() };
        let record = Self::decided(subsystem, nqn, known, generation, opening)?;
        self.records.keep(&record)?;
        self.build(subsystem, record, host)?;
        tracing::warn!(subsystem = %nqn, %generation, %host, "admitted");
        Ok(Told::Done {})
    }

    /// From nothing, so that no connection of anybody else can lead to what comes up.
    fn build(&self, subsystem: &Subsystem<'_>, record: Record, host: &Nqn) -> Result<(), Stop> {
        subsystem.take_down()?;
        subsystem.put_up(&record.definition, host)?;
        self.records.keep(&Record { state: State::Open { host: host.clone() }, ..record })?;
        Ok(())
    }

    fn report(&self, subsystem: &Subsystem<'_>, known: Option<&Record>) -> Result<Told, Stop> {
        let generation = known.map_or(Generation(0), |known| known.generation);
        let mut connected = Vec::new();
        let standing = subsystem.standing()?;
        let definition = match (&standing, known) {
            (Some(_), Some(Record { state: State::Open { .. }, .. }) | None) => {
                subsystem.definition()?
            }
            (_, Some(known)) => known.definition.clone(),
            (None, None) => {
                // Nobody can write to it here, but it is not known either where else it is.
                return Err(Stop::Refused("there is no such subsystem".to_owned()));
            }
        };
        for double in subsystem.doubles(&definition)? {
            connected.push(format!("whoever uses {double}, which has the same device,"));
        }
        let Some(standing) = standing else {
            return Ok(Told::Target {
                generation,
                allowed: Vec::new(),
                any_host: false,
                connected,
            });
        };
        if standing.leads {
            // Who is connected to it the kernel does not say; whoever may be, is. Nor does it say
            // whether what they wrote has landed, before the namespace is gone.
            connected.extend(standing.allowed.iter().cloned());
            if connected.is_empty() {
                connected.push("a host that was on its list".to_owned());
            }
        }
        let Standing { allowed, any_host, .. } = standing;
        Ok(Told::Target { generation, allowed, any_host, connected })
    }

    fn health(&self) -> Result<Told, Stop> {
        if self.tree.list(Path::new("subsystems")).ok().flatten().is_none() {
            return Err(Stop::Again("this host is no target: nvmet is not loaded"));
        }
        self.records.writable()?;
        match self.saved_admits() {
            None => Ok(Told::Done {}),
            Some(subsystem) => Ok(Told::Again(format!(
                "the saved configuration lets hosts into {subsystem} when the target boots"
            ))),
        }
    }

    /// A subsystem of ours that would be open to somebody before we have looked.
    fn saved_admits(&self) -> Option<String> {
        let file = std::fs::File::open(self.saved.as_ref()?).ok()?;
        let mut text = Vec::new();
        file.take(MOST).read_to_end(&mut text).ok()?;
        let Ok(saved) = serde_json::from_slice::<Saved>(&text) else {
            return Some("a subsystem nobody can name: it is not understood".to_owned());
        };
        let ours =
            |it: &&SavedSubsystem| Nqn::new(it.nqn.clone()).is_ok_and(|it| self.is_ours(&it));
        let opens = |it: &&SavedSubsystem| {
            let any = it.attr.get("allow_any_host").and_then(|it| it.as_str());
            !it.allowed_hosts.is_empty() || any.is_some_and(|it| it != "0")
        };
        saved.subsystems.iter().filter(ours).find(opens).map(|it| it.nqn.clone())
    }

    /// Makes everything as it was decided; what was not so, in sentences.
    pub fn tend(&self) -> Vec<String> {
        let records = match self.records.all() {
            Ok(records) => records,
            Err(error) => return vec![chain(&error)],
        };
        let tended = records.into_iter().map(|record| match record {
            Ok(record) => self.tend_one(&record.subsystem),
            Err(error) => Err(error.into()),
        });
        tended.filter_map(|tended| tended.unwrap_or_else(|stop| Some(chain(&stop)))).collect()
    }

    fn tend_one(&self, nqn: &Nqn) -> Result<Option<String>, Stop> {
        // Somebody who is at it makes it so.
        let Ok(_alone) = self.alone(nqn) else { return Ok(None) };
        let Some(record) = self.records.of(nqn)? else { return Ok(None) };
        let subsystem = Subsystem::new(&*self.tree, nqn)?;
        let standing = subsystem.standing()?;
        match &record.state {
            State::Closed if standing.is_none() => Ok(None),
            State::Closed => {
                subsystem.take_down()?;
                Ok(Some(format!("{nqn} was up, and is closed again")))
            }
            State::Open { host } if is_for(standing.as_ref(), host) => Ok(None),
            State::Open { host } | State::Opening { host } => {
                let host = host.clone();
                let state = State::Opening { host: host.clone() };
                let record = Record { state, ..record };
                self.records.keep(&record)?;
                self.build(&subsystem, record, &host)?;
                Ok(Some(format!("{nqn} is there for {host} again, and for nobody else")))
            }
        }
    }

    /// Takes what is open to one host into its records, as it is: what was adopted is opened to
    /// that host after a reboot by us, and the saved configuration need not name anybody. A line
    /// for each.
    ///
    /// # Errors
    /// When the tree or the records cannot be read or written.
    pub fn adopt(&self) -> Result<Vec<String>, String> {
        let failed = |error: Stop| chain(&error);
        let mut lines = Vec::new();
        let all = Subsystem::all(&*self.tree).map_err(|error| failed(error.into()))?;
        for nqn in all.into_iter().filter(|nqn| self.is_ours(nqn)) {
            lines.push(match self.adopt_one(&nqn).map_err(failed)? {
                Ok(host) => format!("{nqn}: {host}'s"),
                Err(why) => format!("{nqn}: left alone, {why}"),
            });
        }
        Ok(lines)
    }

    fn adopt_one(&self, nqn: &Nqn) -> Result<Result<Nqn, &'static str>, Stop> {
        let _alone = self.alone(nqn)?;
        if self.records.of(nqn)?.is_some() {
            return Ok(Err("it is known already"));
        }
        let subsystem = Subsystem::new(&*self.tree, nqn)?;
        let Some(standing) = subsystem.standing()? else { return Ok(Err("it is gone")) };
        let (false, [host]) = (standing.any_host, &standing.allowed[..]) else {
            return Ok(Err("not exactly one host may use it"));
        };
        let Ok(host) = Nqn::new(host.clone()) else { return Ok(Err("its host has no name")) };
        self.records.keep(&Record {
            subsystem: nqn.clone(),
            generation: Generation(0),
            definition: subsystem.definition()?,
            state: State::Open { host: host.clone() },
        })?;
        Ok(Ok(host))
    }
}

/// Whether it is up, for that host and nobody else.
fn is_for(standing: Option<&Standing>, host: &Nqn) -> bool {
    standing.is_some_and(|it| {
        it.serves && !it.any_host && it.allowed.iter().map(String::as_str).eq([host.as_str()])
    })
}

/// What `nvmetcli` saves, as far as it matters.
#[derive(Debug, Deserialize)]
struct Saved {
    #[serde(default)]
    subsystems: Vec<SavedSubsystem>,
}

#[derive(Debug, Deserialize)]
struct SavedSubsystem {
    nqn: String,
    #[serde(default)]
    allowed_hosts: Vec<String>,
    #[serde(default)]
    attr: serde_json::Map<String, serde_json::Value>,
}

#[cfg(test)]
#[path = "fence_tests.rs"]
mod tests;
