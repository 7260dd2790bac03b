//! The witnesses of one controller.

use std::collections::BTreeMap;
use std::time::Duration;

use heal_types::{
    ControllerState, IoReading, LinkState, Moment, Nqn, Observed, PathDoubt, PathHealth, Portal,
    SocketReading,
};

use super::explain::{Evidence, Explanation, Testimony};
use super::link::Link;
use super::seen::{Facts, Space};
use super::{Limits, graver};

/// Doublings of the retransmission time that a healthy path does not get to.
const DEAD_BACKOFF: u8 = 3;
/// Nothing heard for longer than this, while something is sent again and again.
const DEAD_SILENCE: Duration = Duration::from_secs(1);
/// Two samples of I/O that lie further apart say nothing of the time between them.
const SAMPLE_GAP: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
struct Sockets {
    reading: SocketReading,
    /// Since when it is as bad as this.
    since: Moment,
    at: Moment,
}

#[derive(Debug, Clone, Copy)]
struct Io {
    reading: IoReading,
    /// The first sample since which nothing moved.
    unmoved: Moment,
    at: Moment,
}

#[derive(Debug, Clone, Copy)]
struct Log {
    at: Moment,
    /// A look after it found the controller live.
    live: bool,
    /// A reading after it found the sockets fine.
    fine: bool,
}

#[derive(Debug, Clone, Copy)]
struct State {
    state: Observed<ControllerState>,
    since: Moment,
    /// Whether it ever was known.
    ever: bool,
    /// Whether it was known not to be live since it last was.
    lost: bool,
}

/// What everybody says of one controller, and the verdict.
#[derive(Debug, Clone)]
pub(super) struct Controller {
    nqn: Option<Nqn>,
    portal: Option<Portal>,
    pub(super) link: Link,
    state: State,
    sockets: Option<Sockets>,
    io: Option<Io>,
    log: Option<Log>,
    /// Per namespace: since when the target lets no I/O in, if it does not.
    spaces: BTreeMap<Space, Option<Moment>>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Default)]
struct Verdict {
    health: PathHealth,
    since: Moment,
    /// The same without ANA, which speaks of each namespace by itself.
    common: PathHealth,
    closed: BTreeMap<Space, PathHealth>,
    watched: bool,
}

impl Controller {
    pub(super) fn new(now: Moment, facts: Facts) -> Self {
        let mut controller = Self {
            nqn: None,
            portal: None,
            link: Link::default(),
            state: State { state: facts.state, since: now, ever: false, lost: false },
            sockets: None,
            io: None,
            log: None,
            spaces: BTreeMap::new(),
            verdict: Verdict { since: now, ..Verdict::default() },
        };
        controller.looked(now, facts, true);
        controller
    }

    /// Whether these may be the NQN and the address of this very controller.
    pub(super) fn is_one(&self, nqn: Option<&Nqn>, portal: Option<&Portal>) -> bool {
        fn agree<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.zip(b).is_none_or(|(a, b)| a == b)
        }
        agree(self.nqn.as_ref(), nqn) && agree(self.portal.as_ref(), portal)
    }

    pub(super) fn looked(&mut self, now: Moment, facts: Facts, whole: bool) {
        self.nqn = facts.nqn.or(self.nqn.take());
        self.portal = facts.portal.or(self.portal.take());
        self.set_state(now, facts.state);
        if whole {
            self.spaces.retain(|space, _| facts.spaces.contains_key(space));
        }
        for (space, usable) in facts.spaces {
            let closed = self.spaces.entry(space).or_default();
            *closed = match usable {
                Observed::Known(false) => Some(closed.unwrap_or(now)),
                Observed::Known(true) | Observed::Unknown(_) => None,
            };
        }
    }

    fn set_state(&mut self, now: Moment, state: Observed<ControllerState>) {
        if state != self.state.state {
            self.state.state = state;
            self.state.since = now;
        }
        match state {
            Observed::Known(ControllerState::Live) => {
                // It connected again, whether or not anybody said so.
                if self.state.lost {
                    self.connected(now);
                }
                if let Some(log) = &mut self.log {
                    log.live = true;
                }
                self.state.ever = true;
            }
            Observed::Known(_) => {
                self.state.ever = true;
                self.state.lost = true;
            }
            Observed::Unknown(_) => {}
        }
    }

    pub(super) fn connected(&mut self, now: Moment) {
        let live = Observed::Known(ControllerState::Live);
        if self.state.state != live {
            self.state.since = now;
        }
        self.state.state = live;
        self.state.ever = true;
        self.state.lost = false;
        self.sockets = None;
        self.io = None;
        self.log = None;
        self.link.ask_again();
    }

    /// Sockets that cannot be read say nothing: what they last said counts until it is too old.
    pub(super) fn heard_sockets(&mut self, now: Moment, reading: Option<SocketReading>) {
        let Some(reading) = reading else {
            return;
        };
        let health = judge_sockets(&reading);
        if health == PathHealth::Up {
            if let Some(log) = &mut self.log {
                log.fine = true;
            }
        }
        let before = self.sockets.filter(|before| judge_sockets(&before.reading) == health);
        let since = before.map_or(now, |before| before.since);
        self.sockets = Some(Sockets { reading, since, at: now });
    }

    pub(super) fn heard_io(&mut self, now: Moment, reading: IoReading) {
        let unmoved = self.io.filter(|before| {
            before.reading.in_flight > 0
                && reading.in_flight > 0
                && before.reading.completed == reading.completed
                && now.since(before.at) <= SAMPLE_GAP
        });
        let unmoved = unmoved.map_or(now, |before| before.unmoved);
        self.io = Some(Io { reading, unmoved, at: now });
    }

    pub(super) fn heard_log(&mut self, now: Moment) {
        self.log = Some(Log { at: now, live: false, fine: false });
    }

    /// Forgets what is too old to count, and what was answered.
    pub(super) fn forget(&mut self, now: Moment, limits: &Limits) {
        let fresh = |at: Moment, lifetime: Duration| now.since(at) < lifetime;
        self.link.forget(now, limits);
        self.sockets = self.sockets.filter(|sockets| fresh(sockets.at, limits.reading_lifetime));
        self.io = self.io.filter(|io| fresh(io.at, limits.reading_lifetime));
        self.log =
            self.log.filter(|log| !(log.live && log.fine) && fresh(log.at, limits.log_lifetime));
    }

    /// Works out the verdict. Answers whether it changed for any namespace, and when it can change
    /// by time alone.
    pub(super) fn judge(&mut self, now: Moment, limits: &Limits) -> (bool, Option<Moment>) {
        let said = self.testimonies(now, limits);
        let common = said.iter().flatten().map(|said| said.health).fold(PathHealth::Up, graver);
        let ana = self.ana_says(now, limits);
        let health = ana.map_or(common, |ana| graver(common, ana.health));
        let closed: BTreeMap<Space, PathHealth> = self
            .spaces
            .iter()
            .filter_map(|(space, since)| Some((space.clone(), judge_ana(now, (*since)?, limits))))
            .collect();
        let ends = self.spaces.values().flatten().map(|since| since.after(limits.stalled_after));
        let next = said.iter().flatten().filter_map(|said| said.until).chain(ends);
        let next = next.filter(|at| *at > now).min();

        let before = &self.verdict;
        let changed = before.health != health || before.common != common || before.closed != closed;
        let since = if before.health == health { before.since } else { now };
        let watched = self.wants_sockets(&said);
        self.verdict = Verdict { health, since, common, closed, watched };
        (changed, next)
    }

    pub(super) fn health(&self) -> PathHealth {
        self.verdict.health
    }

    pub(super) fn is_watched(&self) -> bool {
        self.verdict.watched
    }

    pub(super) fn verdict_on(&self, space: &Space) -> PathHealth {
        let closed = self.verdict.closed.get(space).copied().unwrap_or_default();
        graver(self.verdict.common, closed)
    }

    pub(super) fn explain(&self, now: Moment, limits: &Limits) -> Explanation {
        let egress = self.link.egress.as_ref();
        let said = self.testimonies(now, limits);
        Explanation {
            health: self.verdict.health,
            since: self.verdict.since,
            egress: egress.map(|egress| (egress.index, egress.name.clone())),
            witnesses: said.into_iter().flatten().chain(self.ana_says(now, limits)).collect(),
        }
    }

    fn is_live(&self) -> bool {
        self.state.state.is_known_and(|state| *state == ControllerState::Live)
    }

    /// Everybody but ANA.
    fn testimonies(&self, now: Moment, limits: &Limits) -> [Option<Testimony>; 5] {
        [
            self.link.says(now, limits),
            self.state_says(),
            self.sockets_say(limits),
            self.io_says(limits),
            self.log_says(now, limits),
        ]
    }

    /// A state that could not be read is in doubt if it ever was known, and is never dead.
    fn state_says(&self) -> Option<Testimony> {
        use ControllerState::{Connecting, Dead, Deleting, DeletingNoIo, Live, New, Resetting};
        let health = match self.state.state {
            Observed::Known(Live) => return None,
            Observed::Known(New | Resetting) => PathHealth::Suspect(PathDoubt::ControllerDown),
            Observed::Known(Connecting | Deleting | DeletingNoIo | Dead) => {
                PathHealth::Dead(PathDoubt::ControllerDown)
            }
            Observed::Unknown(_) if self.state.ever => {
                PathHealth::Suspect(PathDoubt::ControllerDown)
            }
            Observed::Unknown(_) => return None,
        };
        let evidence = Evidence::State(self.state.state);
        Some(Testimony { health, since: self.state.since, until: None, evidence })
    }

    fn sockets_say(&self, limits: &Limits) -> Option<Testimony> {
        let Sockets { reading, since, at } = self.sockets?;
        let health = judge_sockets(&reading);
        let until = Some(at.after(limits.reading_lifetime));
        let evidence = Evidence::Sockets(reading);
        (health != PathHealth::Up).then_some(Testimony { health, since, until, evidence })
    }

    /// Only what samples show counts: time that passed without one proves nothing.
    fn io_says(&self, limits: &Limits) -> Option<Testimony> {
        let io = self.io?;
        let unmoved_for = io.at.since(io.unmoved);
        if io.reading.in_flight == 0 || unmoved_for < limits.io_suspect {
            return None;
        }
        // While the sockets are in trouble they are the reason, and have the word.
        let given_up = unmoved_for >= limits.stalled_after && self.sockets_say(limits).is_none();
        let why = PathDoubt::IoStalled;
        Some(Testimony {
            health: if given_up { PathHealth::Dead(why) } else { PathHealth::Suspect(why) },
            since: io.unmoved,
            until: Some(io.at.after(limits.reading_lifetime)),
            evidence: Evidence::Io { in_flight: io.reading.in_flight, unmoved_for },
        })
    }

    fn log_says(&self, now: Moment, limits: &Limits) -> Option<Testimony> {
        let log = self.log?;
        Some(Testimony {
            health: PathHealth::Suspect(PathDoubt::KernelLog),
            since: log.at,
            until: Some(log.at.after(limits.log_lifetime)),
            evidence: Evidence::Log { ago: now.since(log.at) },
        })
    }

    /// Speaks of the controller when it speaks of every namespace behind it, and then as mildly as
    /// of the one that was closed last.
    fn ana_says(&self, now: Moment, limits: &Limits) -> Option<Testimony> {
        let closed = self.spaces.values().copied().collect::<Option<Vec<_>>>()?;
        let last = closed.iter().max()?;
        let health = judge_ana(now, *last, limits);
        Some(Testimony {
            health,
            since: *last,
            until: matches!(health, PathHealth::Suspect(_))
                .then(|| last.after(limits.stalled_after)),
            evidence: Evidence::Ana { namespaces: closed.len() },
        })
    }

    /// Whether sockets could confirm or take back what is said. A link that is down, a controller
    /// that is not live and a target that says no need no second opinion; what the sockets said
    /// themselves, only they can take back.
    fn wants_sockets(&self, said: &[Option<Testimony>]) -> bool {
        let down = self.link.state == Some(LinkState::Down);
        self.is_live()
            && !down
            && said.iter().flatten().any(|said| match said.evidence {
                Evidence::LinkReturned { .. }
                | Evidence::PortLost { .. }
                | Evidence::Sockets(_)
                | Evidence::Log { .. } => true,
                Evidence::Io { .. } => matches!(said.health, PathHealth::Suspect(_)),
                Evidence::LinkDown { .. } | Evidence::State(_) | Evidence::Ana { .. } => false,
            })
    }
}

fn judge_sockets(reading: &SocketReading) -> PathHealth {
    let SocketReading { backoff, unacked, since_ack, closed } = *reading;
    let waiting = unacked > 0;
    if waiting && backoff >= DEAD_BACKOFF && since_ack > DEAD_SILENCE {
        PathHealth::Dead(PathDoubt::SocketStalled)
    } else if closed {
        PathHealth::Suspect(PathDoubt::ControllerDown)
    } else if waiting && backoff >= 1 {
        PathHealth::Suspect(PathDoubt::SocketStalled)
    } else {
        PathHealth::Up
    }
}

fn judge_ana(now: Moment, since: Moment, limits: &Limits) -> PathHealth {
    if now.since(since) >= limits.stalled_after {
        PathHealth::Dead(PathDoubt::AnaInaccessible)
    } else {
        PathHealth::Suspect(PathDoubt::AnaInaccessible)
    }
}
