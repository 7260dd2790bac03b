//! Connects and disconnects subsystems.

use heal_types::{
    ConnectOptions, ConnectParams, ControllerName, ControllerState, HostSnapshot,
    NamespaceSnapshot, Nqn, Observed, Outcome, Portal, RetryWhy, Target, UnknownWhy,
};

use super::{LATER, LinuxHost, Step, guard, guarded, not_done, refused_here, retry, stuck};
use crate::exec::{Ended, Ending, Subject, argv};
use crate::sysfs::Root;

/// What `nvme` (`could not add new controller: already connected`) and the kernel
/// (`Operation already in progress`) say when there is such a controller.
const ALREADY: [&str; 2] = ["already connected", "already in progress"];

/// One controller of any kind, with or without a namespace: a snapshot knows only those with one.
#[derive(Debug)]
struct Controller {
    name: ControllerName,
    nqn: Observed<Nqn>,
    state: Observed<ControllerState>,
}

impl LinuxHost {
    /// Success is at least one live controller of the subsystem. The namespace comes a moment
    /// later, and the machine waits for it.
    pub(super) fn connect(&self, target: &Target, options: &ConnectOptions) -> Step<Outcome> {
        self.nobody_hangs_on(&[Subject::Subsystem(target.nqn.clone())])?;
        let before = self.see();
        let known = controllers_of(&self.root, &target.nqn)?;
        let missing: Vec<&Portal> = target
            .portals
            .iter()
            .filter(|portal| !is_served(portal, &target.nqn, &before))
            .collect();
        if missing.is_empty() && !target.portals.is_empty() {
            return Ok(Outcome::AlreadySo);
        }
        let attempts: Vec<Ended> = missing
            .iter()
            .map(|portal| self.run(&argv::connect(&target.nqn, portal, options)))
            .collect();
        let now = controllers_of(&self.root, &target.nqn)?;
        let made = now.iter().any(|controller| known.iter().all(|old| old.name != controller.name));
        if now.iter().any(Controller::is_live) {
            note_failures(&missing, &attempts);
            return Ok(if made { Outcome::Changed } else { Outcome::AlreadySo });
        }
        Err(unreachable(&missing, &attempts))
    }

    /// The controller of these parameters, made again. One that leads there already, or that the
    /// kernel still tries to connect, is it.
    pub(super) fn reconnect(&self, params: &ConnectParams) -> Step<Outcome> {
        self.nobody_hangs_on(&[Subject::Subsystem(params.nqn.clone())])?;
        if self.leads_there(params)? {
            return Ok(Outcome::AlreadySo);
        }
        let before = controllers_of(&self.root, &params.nqn)?;
        let ended = self.run(&argv::reconnect(params));
        if is_already(&ended) {
            return Ok(Outcome::AlreadySo);
        }
        let is_new = |now: &Controller| before.iter().all(|old| old.name != now.name);
        let now = controllers_of(&self.root, &params.nqn)?;
        if now.iter().any(|controller| is_new(controller) && controller.is_live()) {
            return Ok(Outcome::Changed);
        }
        Err(unreachable(&[&params.portal], &[ended]))
    }

    fn leads_there(&self, params: &ConnectParams) -> Step<bool> {
        let seen = self.survey();
        let kept: Vec<ControllerName> = controllers_of(&self.root, &params.nqn)?
            .into_iter()
            .filter(|controller| controller.state.is_known_and(|state| is_kept(*state)))
            .map(|controller| controller.name)
            .collect();
        Ok(kept
            .iter()
            .filter_map(|name| seen.controllers.get(name))
            .any(|known| known.nqn == params.nqn && params.portal.is_served_by(&known.portal)))
    }

    pub(super) fn disconnect(&self, nqn: &Nqn, ours: &[ControllerName]) -> Step<Outcome> {
        self.nobody_hangs_on(&[Subject::Subsystem(nqn.clone())])?;
        // Without this list a snapshot shows no namespace, and nothing would seem to be in use.
        if let Observed::Unknown(why) = self.root.dir("sys/block").entries() {
            return Err(Outcome::Unknown(why));
        }
        let before = self.see();
        let there = controllers_of(&self.root, nqn)?;
        if there.is_empty() {
            return Ok(Outcome::AlreadySo);
        }
        if let Some(other) = there.iter().find(|there| !ours.contains(&there.name)) {
            return Err(guarded(format!("{} was not there before", other.name)));
        }
        guard::subsystem_unused(&before, nqn)?;
        let ended = self.run(&argv::disconnect(nqn));
        let gone = |_: &HostSnapshot| match controllers_of(&self.root, nqn) {
            Ok(left) => left.is_empty().then_some(Outcome::Changed),
            Err(outcome) => Some(outcome),
        };
        Ok(self.read_back(&ended, gone, not_done))
    }
}

impl Controller {
    fn is_live(&self) -> bool {
        self.state.is_known_and(|state| *state == ControllerState::Live)
    }
}

/// Whether a controller leads to this portal, or will: the kernel goes on trying by itself. One
/// whose portal nobody knows is not counted, as the kernel refuses a second one of the same portal
/// anyway.
fn is_served(portal: &Portal, nqn: &Nqn, snapshot: &HostSnapshot) -> bool {
    let of_subsystem =
        |namespace: &&NamespaceSnapshot| namespace.nqn.is_known_and(|known| known == nqn);
    snapshot
        .namespaces
        .iter()
        .filter(of_subsystem)
        .flat_map(|namespace| &namespace.paths)
        .filter(|path| path.state.is_known_and(|state| is_kept(*state)))
        .any(|path| path.portal.is_known_and(|known| portal.is_served_by(known)))
}

fn is_kept(state: ControllerState) -> bool {
    match state {
        ControllerState::New
        | ControllerState::Live
        | ControllerState::Resetting
        | ControllerState::Connecting => true,
        ControllerState::Deleting | ControllerState::DeletingNoIo | ControllerState::Dead => false,
    }
}

/// The controllers of a subsystem. One whose subsystem cannot be read may belong to it.
fn controllers_of(root: &Root, nqn: &Nqn) -> Step<Vec<Controller>> {
    let class = root.dir("sys/class/nvme");
    let names = match class.entries() {
        Observed::Known(names) => names,
        // Without the module there is no class.
        Observed::Unknown(UnknownWhy::Vanished) => Vec::new(),
        Observed::Unknown(why) => return Err(Outcome::Unknown(why)),
    };
    let mut found = Vec::new();
    for name in names {
        let Ok(valid) = ControllerName::new(name.as_str()) else {
            continue;
        };
        let dir = class.dir(&name);
        let controller =
            Controller { name: valid, nqn: dir.value("subsysnqn"), state: dir.value("state") };
        match &controller.nqn {
            Observed::Known(known) if known == nqn => found.push(controller),
            Observed::Known(_) | Observed::Unknown(UnknownWhy::Vanished) => {}
            // Some local drives have an NQN with spaces in it. What is no NQN is not this one.
            Observed::Unknown(UnknownWhy::Malformed) => {}
            Observed::Unknown(why) => return Err(Outcome::Unknown(*why)),
        }
    }
    Ok(found)
}

/// A portal that failed while another one is up is no failure of the act, but somebody should know.
fn note_failures(portals: &[&Portal], attempts: &[Ended]) {
    for (portal, ended) in portals.iter().zip(attempts) {
        if !ended.is_success() && !is_already(ended) {
            tracing::info!(%portal, said = ended.said(), "one of several portals is not reachable");
        }
    }
}

fn is_already(ended: &Ended) -> bool {
    let said = ended.said().to_ascii_lowercase();
    ALREADY.iter().any(|words| said.contains(words))
}

fn unreachable(portals: &[&Portal], attempts: &[Ended]) -> Outcome {
    let mut details = Vec::new();
    for (portal, ended) in portals.iter().zip(attempts) {
        details.push(match &ended.ending {
            Ending::Stuck | Ending::Behind => return stuck(),
            Ending::NotStarted(error) => return refused_here(format!("nvme: {error}")),
            Ending::TimedOut => format!("{portal}: no answer in time"),
            Ending::Exited(_) | Ending::Signalled(_) => format!("{portal}: {}", ended.said()),
        });
    }
    let detail = if details.is_empty() {
        "the target has no portal".to_owned()
    } else {
        details.join("; ").chars().take(300).collect()
    };
    retry(LATER, RetryWhy::Unreachable { detail })
}
