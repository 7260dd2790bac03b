//! Freeing the application's I/O from a leg: which act, if any, at this moment.
//!
//! ```text
//!   in sync, nothing gets through
//!     ├─ device gone                         ─► mark it faulty
//!     ├─ a controller says `live`            ─► isolate: survivors queue, the leg fails, sockets die
//!     ├─ resetting                           ─► wait: the kernel is at it
//!     └─ connecting, and I/O still waits     ─► delete the controller; the reconnect is ours then
//!   faulty, gone                             ─► MD has given it up: a loss
//!   a path is back                           ─► cleared, or wait until that is certain
//! ```
//!
//! The order of the first act is the whole safety of it and is the host's to keep: the survivors
//! are proven to queue before the leg is touched. What is wanted here is derived from the look each
//! time, so a second look after an act that was interrupted asks for what is left of it.
//!
//! Deleting gives up the kernel's own reconnect, so before it is begun, how to connect again is
//! in the record.

use std::time::Duration;

use heal_types::{
    ArraySnapshot, Backing, ConnectParams, ControllerState, FailWhy, HostAction, LegSnapshot,
    Moment, NamespaceSnapshot, Now, Observed, PathDoubt, PathHealth, PathSnapshot,
};

use crate::effect::Effect;
use crate::event::{Event, PathNews};
use crate::guards::{self, GuardWhy};
use crate::phase::Repair;
use crate::policy::IsolateAfter;
use crate::signal::Signal;
use crate::view::leg_health;
use crate::why::HeldWhy;

use super::ArrayMachine;
use super::want::{Want, leg_ref};

/// How long to wait for the next look while the kernel is at work.
const PATIENCE: Duration = Duration::from_millis(500);

impl ArrayMachine {
    pub(super) fn want_isolated(
        &self,
        now: Now,
        array: &ArraySnapshot,
        repair: &Repair,
        since: Moment,
    ) -> Want {
        let Some(leg) = array.leg_in(repair.slot).filter(|leg| leg.is_in_sync()) else {
            return Want::Signal(Signal::LegFailed);
        };
        match &leg.backing {
            Backing::Namespace(namespace) => match leg_health(namespace) {
                Some(PathHealth::Up) => Want::Signal(Signal::LegInSync),
                Some(PathHealth::Dead(_)) => {
                    self.want_freed(now, array, repair, since, leg, namespace)
                }
                Some(PathHealth::Suspect(_)) | None => Want::Wait(PATIENCE),
            },
            Backing::Gone => Want::Act(HostAction::FailLeg {
                array: self.id,
                leg: leg_ref(leg, repair.lost.as_ref()),
                why: FailWhy::DeviceGone,
            }),
            Backing::Local | Backing::Unreadable => Want::Wait(PATIENCE),
        }
    }

    fn want_freed(
        &self,
        now: Now,
        array: &ArraySnapshot,
        repair: &Repair,
        since: Moment,
        leg: &LegSnapshot,
        namespace: &NamespaceSnapshot,
    ) -> Want {
        if let Err(why) = self.may_isolate() {
            return Want::Hold(HeldWhy::Guard { detail: format!("it is not isolated: {why}") });
        }
        if let Some(detail) = &self.cut_off {
            return Want::Hold(HeldWhy::HostCutOff { detail: detail.clone() });
        }
        let named = guards::paths_of(leg)
            .and_then(|paths| Ok((paths, guards::survivors_of(array, repair.slot)?)));
        let (paths, survivors) = match named {
            Ok(named) => named,
            Err(GuardWhy::NotKnown { .. }) => return Want::Wait(PATIENCE),
            Err(why) => return Want::Hold(HeldWhy::Guard { detail: why.to_string() }),
        };
        let leg = leg_ref(leg, repair.lost.as_ref());
        let is = |wanted: ControllerState| {
            let mut paths = namespace.paths.iter();
            paths.find(|path| path.state.is_known_and(|state| *state == wanted))
        };
        if is(ControllerState::Live).is_some() {
            return Want::Act(HostAction::IsolateLeg { array: self.id, leg, paths, survivors });
        }
        let waited = now.mono.since(since);
        match is(ControllerState::Connecting) {
            // Idle: nobody waits for it, and the kernel goes on connecting.
            Some(_) if array.in_flight == Observed::Known(0) => Want::Rest(self.policy.retry_max),
            Some(path) if waited >= self.policy.delete_after => {
                let Some(controller) =
                    paths.iter().find(|controller| controller.name == path.controller).cloned()
                else {
                    return Want::Wait(PATIENCE);
                };
                if path.params.known().is_none() {
                    let detail = format!("G5: how to connect {controller} again is not known");
                    return Want::Hold(HeldWhy::Guard { detail });
                }
                let (array, controller) = (self.id, Box::new(controller));
                Want::Act(HostAction::DeleteController { array, leg, controller, survivors })
            }
            Some(_) => Want::Wait(PATIENCE.min(self.policy.delete_after.saturating_sub(waited))),
            None => Want::Wait(PATIENCE),
        }
    }

    /// The isolation of a repair's leg, if all it names is known.
    pub(super) fn isolation_of(
        &self,
        array: &ArraySnapshot,
        repair: &Repair,
    ) -> Option<HostAction> {
        let leg = array.leg_in(repair.slot)?;
        let paths = guards::paths_of(leg).ok()?;
        let survivors = guards::survivors_of(array, repair.slot).ok()?;
        let leg = leg_ref(leg, repair.lost.as_ref());
        Some(HostAction::IsolateLeg { array: self.id, leg, paths, survivors })
    }

    /// Goes through what the death of each leg would need, on copies, and answers how many of those
    /// legs would be isolated. The first time that counts must not be the first time this code
    /// runs.
    #[must_use]
    pub fn rehearse(&self, now: Now) -> usize {
        let Observed::Known(Some(array)) = &self.array else { return 0 };
        let legs = array.legs.iter().filter_map(|leg| leg.backing.namespace());
        legs.filter(|namespace| self.would_isolate(now, namespace)).count()
    }

    fn would_isolate(&self, now: Now, namespace: &NamespaceSnapshot) -> bool {
        let dead = |path: &PathSnapshot| {
            let key = (path.controller.clone(), namespace.device.clone());
            (key, PathHealth::Dead(PathDoubt::LinkDown))
        };
        let verdicts = namespace.paths.iter().map(dead).collect();
        let mut copy = self.clone();
        let mut effects =
            copy.handle(now, Event::Paths(PathNews { verdicts, cut_off: None })).effects;
        if let IsolateAfter::After(after) = self.policy.isolate_after {
            let later = Now { mono: now.mono.after(after), wall: now.wall.after(after) };
            effects.extend(copy.handle(later, Event::Tick).effects);
        }
        let Observed::Known(Some(array)) = &copy.array else { return false };
        effects.iter().any(|effect| match effect {
            Effect::Act { action: action @ HostAction::IsolateLeg { .. }, footing, .. } => {
                footing.permits_on(action, Some(array), &copy.namespaces).is_ok()
            }
            Effect::Act { .. }
            | Effect::Call { .. }
            | Effect::AskPermit
            | Effect::ReturnPermit
            | Effect::LookAgain => false,
        })
    }

    /// Before a controller is deleted: what it takes to connect it again is kept from now on.
    pub(super) fn keep_params(&mut self, now: Now, action: &HostAction) {
        let HostAction::DeleteController { controller, .. } = action else { return };
        let paths = self.namespaces.iter().flat_map(|namespace| &namespace.paths);
        let params = paths
            .filter(|path| path.controller == controller.name)
            .find_map(|path| path.params.known());
        if let Some(mut params) = params.cloned() {
            params.digests = self.policy.connect.digests;
            self.owe_connection(now, *params);
        }
    }

    /// Whether a controller like this one works again. One that is only there may be the very one
    /// that is being deleted.
    pub(super) fn is_connected(&self, params: &ConnectParams) -> bool {
        self.has_controller(params, |state| state == ControllerState::Live)
    }

    /// Whether a controller like this one is there and is not going away.
    pub(super) fn stays(&self, params: &ConnectParams) -> bool {
        self.has_controller(params, |state| match state {
            ControllerState::New
            | ControllerState::Live
            | ControllerState::Resetting
            | ControllerState::Connecting => true,
            ControllerState::Deleting | ControllerState::DeletingNoIo | ControllerState::Dead => {
                false
            }
        })
    }

    fn has_controller(
        &self,
        params: &ConnectParams,
        wanted: impl Fn(ControllerState) -> bool,
    ) -> bool {
        let same =
            |namespace: &&NamespaceSnapshot| namespace.nqn.is_known_and(|nqn| *nqn == params.nqn);
        self.namespaces
            .iter()
            .filter(same)
            .flat_map(|namespace| &namespace.paths)
            .filter(|path| path.state.is_known_and(|state| wanted(*state)))
            .any(|path| path.portal.is_known_and(|portal| params.portal.is_served_by(portal)))
    }
}
