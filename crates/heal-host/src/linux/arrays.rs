//! Acts on an array's membership: re-add, and by way of `mdadm` add, replace, number of slots.

use heal_types::{
    ArrayId, ArraySnapshot, Backing, Content, DeviceIdentity, DeviceName, History, HostSnapshot,
    LegFlag, LegRef, LegSnapshot, Level, MdDeviceId, MdRole, MdSuperblock, NamespaceId,
    NamespaceSnapshot, Observed, Outcome, RefusedWhy, RetryWhy, SyncAction, UnknownWhy,
};

use super::legs::{in_array, replacement_of};
use super::node::Node;
use super::{
    LATER, LinuxHost, SOON, Step, guard, guarded, identity, not_done, not_in_that_state,
    refused_here, retry,
};
use crate::exec::argv::{self, ArrayNode, NamespaceNode};
use crate::exec::{Ended, Ending, Subject};
use crate::helper::{Exit, Verb};
use crate::superblock::Trace;

/// What `mdadm` says when trying again would not help (`Manage.c`, `Manage_add` and
/// `attempt_re_add`, 4.2 to 4.4).
const RE_ADD_REFUSED: [&str; 2] = ["is not possible", "invalid argument"];

/// The same for `--add-spare`.
const ADD_REFUSED: [&str; 2] = ["not large enough", "cannot work"];

impl LinuxHost {
    pub(super) fn re_add_leg(
        &self,
        id: ArrayId,
        device: &DeviceIdentity,
        member: Option<MdDeviceId>,
        faulty: Option<&LegRef>,
    ) -> Step<Outcome> {
        self.nobody_hangs_on(&[Subject::Array(id), Subject::Namespace(device.namespace)])?;
        let before = self.before();
        let array = running(identity::array(&before, id)?)?;
        let namespace = identity::device(&before, device)?;
        let own = bound(array, &device.namespace);
        if own.is_some_and(|leg| !leg.is_faulty()) {
            return Ok(Outcome::AlreadySo);
        }
        let leaving = match faulty {
            Some(leg) => identity::leg(array, leg)?.filter(|leg| leg.is_faulty()),
            None => None,
        };
        if let Some(leg) = own.filter(|own| leaving.is_none_or(|it| it.device != own.device)) {
            return Err(still_faulty(leg));
        }
        guard::free_but_for(own.map(|_| &array.device), namespace)?;
        let nodes = self.pair(array, namespace, device)?;
        let (superblock, unbound) =
            self.judge_returned(array, (device, member), &nodes, leaving)?;
        let left = leaving.filter(|_| unbound.is_none()).map(|leg| &leg.device);
        let ended = match unbound {
            Some(failed) if !failed.is_success() => failed,
            Some(_) | None => self.give_back(array, device, &nodes, (&superblock, left)),
        };
        let shown = |after: &HostSnapshot| {
            in_array(after, id, |array| {
                let leg = bound(array, &device.namespace)?;
                (leg.slot.is_some() && !leg.is_faulty()).then_some(Outcome::Changed)
            })
        };
        let outcome = self.read_back(&ended, shown, |ended| {
            if is_refused(ended) {
                let detail = ended.said();
                return Outcome::Refused(RefusedWhy::ReAddNotPossible { detail });
            }
            refused_if(ended, &RE_ADD_REFUSED, |detail| RefusedWhy::ReAddNotPossible { detail })
        });
        if !outcome.is_so() && leaving.is_some() && self.is_bound_faulty(id, &device.namespace) {
            return Ok(outcome); // As it was before.
        }
        Ok(self.unless_half_bound(&ended, outcome, id, &device.namespace))
    }

    /// The superblock of the member that left, if `device` carries it and nothing else, and it is of
    /// one history with the array.
    ///
    /// What is bound of it still and has no disk any more holds nothing, whatever came in its place:
    /// MD lets go of that meanwhile, and how that ended is the second answer. What stands on the
    /// very device that returned stays bound until everything is read: nobody else can take it.
    fn judge_returned(
        &self,
        array: &ArraySnapshot,
        (device, member): (&DeviceIdentity, Option<MdDeviceId>),
        nodes: &Pair,
        leaving: Option<&LegSnapshot>,
    ) -> Step<(MdSuperblock, Option<Ended>)> {
        let dead = leaving.filter(|leg| leg.backing == Backing::Gone);
        let (superblock, beside) = std::thread::scope(|threads| {
            let beside = threads.spawn(|| {
                let unbound = dead.map(|leg| self.unbind(array, &leg.device));
                (unbound, self.first_source(array))
            });
            (self.member_that_left(array.id, device, member, &nodes.leg), beside.join())
        });
        let superblock = superblock?;
        // Whoever could not be read beforehand is read again.
        let (unbound, own) = beside.unwrap_or((None, None));
        self.is_of_one_history(array, &superblock, own)?;
        Ok((superblock, unbound))
    }

    /// By the kernel's own call, or by `mdadm` where the superblock is not a plain mirror's.
    fn give_back(
        &self,
        array: &ArraySnapshot,
        device: &DeviceIdentity,
        nodes: &Pair,
        (superblock, leaving): (&MdSuperblock, Option<&DeviceName>),
    ) -> Ended {
        let named = (array.id, &array.device);
        let returns = (superblock, leaving);
        let ended = self.run(&argv::re_add(named, nodes.leg(device), device.dev, returns));
        match &ended.ending {
            Ending::Exited(code) if Exit::of(*code) == Some(Exit::NotHere) => {
                if let Some(leg) = leaving {
                    let unbound = self.unbind(array, leg);
                    if !unbound.is_success() {
                        return unbound;
                    }
                }
                self.run(&argv::re_add_by_mdadm(nodes.array(array.id), nodes.leg(device)))
            }
            Ending::Exited(_)
            | Ending::Signalled(_)
            | Ending::TimedOut
            | Ending::Stuck
            | Ending::Behind
            | Ending::NotStarted(_) => ended,
        }
    }

    /// Has MD let go of a member, if that is faulty.
    fn unbind(&self, array: &ArraySnapshot, leg: &DeviceName) -> Ended {
        self.run(&argv::set_attribute(array.id, &array.device, leg, Verb::RemoveFaulty))
    }

    pub(super) fn add_leg(&self, id: ArrayId, device: &DeviceIdentity) -> Step<Outcome> {
        self.nobody_hangs_on(&[Subject::Array(id), Subject::Namespace(device.namespace)])?;
        let before = self.before();
        let array = running(identity::array(&before, id)?)?;
        let namespace = identity::device(&before, device)?;
        match bound(array, &device.namespace) {
            Some(leg) if leg.is_faulty() => return Err(still_faulty(leg)),
            Some(_) => return Ok(Outcome::AlreadySo),
            None => {}
        }
        guard::fits(array, namespace)?;
        let nodes = self.pair(array, namespace, device)?;
        if let Some(superblock) = self.may_be_overwritten(id, device, &nodes.leg)? {
            self.is_not_newer(array, &superblock)?;
        }
        let ended = self.run(&argv::add(nodes.array(id), nodes.leg(device)));
        let shown = |after: &HostSnapshot| {
            in_array(after, id, |array| {
                let leg = bound(array, &device.namespace)?;
                (!leg.is_faulty()).then_some(Outcome::Changed)
            })
        };
        let outcome = self.read_back(&ended, shown, |ended| {
            refused_if(ended, &ADD_REFUSED, |detail| RefusedWhy::Guard { detail })
        });
        Ok(self.unless_half_bound(&ended, outcome, id, &device.namespace))
    }

    pub(super) fn replace_leg(
        &self,
        id: ArrayId,
        from: &LegRef,
        to: &DeviceIdentity,
    ) -> Step<Outcome> {
        let Some(source) = &from.identity else {
            return Err(not_in_that_state("a device that is gone cannot be copied from"));
        };
        let subjects = [
            Subject::Array(id),
            Subject::Namespace(source.namespace),
            Subject::Namespace(to.namespace),
        ];
        self.nobody_hangs_on(&subjects)?;
        let before = self.before();
        let array = running(identity::array(&before, id)?)?;
        let target = identity::device(&before, to)?;
        let Some(new) = bound(array, &to.namespace) else {
            return Err(not_in_that_state(format!("{to} is no spare of the array")));
        };
        let Some(old) = identity::leg(array, from)? else {
            // The copy is through, and MD dropped the leg.
            return match (new.is_in_sync(), new.slot == from.slot) {
                (true, true) => Ok(Outcome::AlreadySo),
                (true | false, _) => {
                    Err(not_in_that_state(format!("{} is no leg of it", from.device)))
                }
            };
        };
        if is_replacing(array, old, new) || (old.is_faulty() && new.slot == from.slot) {
            return Ok(Outcome::AlreadySo);
        }
        if !old.is_in_sync() {
            return Err(not_in_that_state(format!("{} is {}", old.device, old.flags)));
        }
        if !new.is_spare() {
            return Err(not_in_that_state(format!("{} is {}", new.device, new.flags)));
        }
        let source_namespace = identity::device(&before, source)?;
        let old_node = self.open_node(source_namespace, source)?;
        let nodes = self.pair(array, target, to)?;
        let old_named = NamespaceNode { id: source.namespace, node: &old_node };
        let ended = self.run(&argv::replace(nodes.array(id), old_named, nodes.leg(to)));
        let shown = |after: &HostSnapshot| {
            in_array(after, id, |array| {
                let new = bound(array, &to.namespace)?;
                let begun = match bound(array, &source.namespace) {
                    Some(old) => is_replacing(array, old, new) || old.is_faulty(),
                    None => new.is_in_sync(),
                };
                begun.then_some(Outcome::Changed)
            })
        };
        // MD starts copying when its thread gets to it. Until then only the wish shows.
        let wished = |ended: &Ended| match identity::array(&self.see(), id) {
            Ok(array) if wants_replacement(array, &source.namespace) => Outcome::Changed,
            Ok(_) | Err(_) => not_done(ended),
        };
        Ok(self.read_back(&ended, shown, wished))
    }

    /// A mirror's slots only. For striped mirrors the number of slots is a reshape, which moves
    /// every block and is nobody's to begin by itself.
    pub(super) fn set_raid_disks(&self, id: ArrayId, raid_disks: u16) -> Step<Outcome> {
        self.nobody_hangs_on(&[Subject::Array(id)])?;
        let before = self.before();
        let array = running(identity::array(&before, id)?)?;
        if array.raid_disks == raid_disks {
            return Ok(Outcome::AlreadySo);
        }
        match array.level {
            Level::Raid1 => {}
            Level::Raid10 { .. } | Level::Other => {
                return Err(guarded("only a mirror gets another number of slots"));
            }
        }
        if array.reshaping || !array.sync_action.is_known_and(|it| *it == SyncAction::Idle) {
            return Err(retry(SOON, RetryWhy::Busy));
        }
        if !array.degraded.is_known_and(|slots| *slots == 0) && raid_disks > array.raid_disks {
            return Err(guarded(format!("slots without a leg: {}", array.degraded)));
        }
        let occupied = array.legs.iter().filter(|leg| leg.slot.is_some()).count();
        if raid_disks < 2 || usize::from(raid_disks) < occupied {
            return Err(guarded(format!(
                "{raid_disks} slots for {occupied} legs, and at least two"
            )));
        }
        let node = self.nodes.prove(&array.device, array.dev)?;
        let ended = self.run(&argv::set_raid_disks(ArrayNode { id, node: &node }, raid_disks));
        let shown = |after: &HostSnapshot| {
            in_array(after, id, |array| {
                (array.raid_disks == raid_disks).then_some(Outcome::Changed)
            })
        };
        Ok(self.read_back(&ended, shown, not_done))
    }

    /// The superblock of the member that left, if it stands on the device and nothing else does. MD
    /// does not ask what else was written there meanwhile, and `mdadm` takes a device whose array
    /// it cannot compare for a match. Read afresh: MD may have the device open still.
    fn member_that_left(
        &self,
        id: ArrayId,
        device: &DeviceIdentity,
        member: Option<MdDeviceId>,
        node: &Node,
    ) -> Step<MdSuperblock> {
        let detail = match self.content_afresh(device, node)? {
            Content::MdMember(found) if found.array != id => {
                format!("it carries a superblock of array {}", found.array)
            }
            Content::MdMember(found) if member.is_some_and(|member| member != found.device) => {
                format!("it is not the leg that left, but member {}", found.device)
            }
            Content::MdMember(found) => match found.role {
                MdRole::Active(_) => return Ok(found),
                MdRole::Spare | MdRole::Faulty | MdRole::Journal => {
                    "it left as no active member".to_owned()
                }
            },
            Content::Blank => "it carries no superblock of this array, but nothing".to_owned(),
            Content::Foreign(kind) => {
                format!("it carries no superblock of this array alone, but {kind}")
            }
        };
        Err(Outcome::Refused(RefusedWhy::ReAddNotPossible { detail }))
    }

    /// The superblock of the first leg in sync, if it can be read.
    fn first_source(&self, array: &ArraySnapshot) -> Option<MdSuperblock> {
        let (namespace, identity) = sources(array).next()?;
        self.superblock_of(namespace, &identity).ok()
    }

    /// MD does not ask whether the array went on without the device, or the device without the
    /// array. `first` is what [`Self::first_source`] read.
    fn is_of_one_history(
        &self,
        array: &ArraySnapshot,
        candidate: &MdSuperblock,
        mut first: Option<MdSuperblock>,
    ) -> Step<()> {
        let mut without = None;
        for (namespace, identity) in sources(array) {
            let own = match first.take() {
                Some(own) => own,
                None => self.superblock_of(namespace, &identity)?,
            };
            match candidate.history_with(&own) {
                History::One => return Ok(()),
                History::Newer => return Err(newer(&identity, &own, candidate)),
                History::Unfinished => return Err(unfinished()),
                History::Parted => without = Some(identity),
            }
        }
        let Some(without) = without else {
            return Ok(()); // A local leg is MD's own to judge.
        };
        for (namespace, identity) in being_filled(array) {
            // All who stayed when the candidate left may have left since. One of them is back.
            if candidate.active.contains(&self.superblock_of(namespace, &identity)?.number) {
                return Err(retry(LATER, RetryWhy::Undecided));
            }
        }
        // Or MD counts on one that cannot be read just now: it may know the candidate.
        let holds = |leg: &LegSnapshot| leg.slot.is_some() && !leg.is_faulty();
        if array.legs.iter().any(|leg| holds(leg) && is_out_of_reach(leg)) {
            return Err(retry(LATER, RetryWhy::Undecided));
        }
        let detail = format!("it went on without {}, and the array without it", without.device);
        Err(Outcome::Refused(RefusedWhy::NewerCopy { detail }))
    }

    /// What is written over from the beginning to the end must at least not be known to be newer.
    fn is_not_newer(&self, array: &ArraySnapshot, candidate: &MdSuperblock) -> Step<()> {
        let Some((namespace, identity)) = sources(array).next() else {
            return Ok(());
        };
        let own = self.superblock_of(namespace, &identity)?;
        match candidate.history_with(&own) {
            History::One | History::Parted | History::Unfinished => Ok(()),
            History::Newer => Err(newer(&identity, &own, candidate)),
        }
    }

    /// What MD has on a leg of the running array.
    fn superblock_of(
        &self,
        namespace: &NamespaceSnapshot,
        identity: &DeviceIdentity,
    ) -> Step<MdSuperblock> {
        let node = self.open_node(namespace, identity)?;
        let report = self.superblocks(identity, &node)?;
        match report.traces.as_slice() {
            [Trace::V1(own)] => Ok(own.clone()),
            _ => Err(Outcome::Unknown(UnknownWhy::Malformed)),
        }
    }

    /// `mdadm --add-spare` overwrites whatever is there, without a word. Answers with the
    /// superblock of this very array, if the device carries one.
    fn may_be_overwritten(
        &self,
        id: ArrayId,
        device: &DeviceIdentity,
        node: &Node,
    ) -> Step<Option<MdSuperblock>> {
        match self.content_of(device, node)? {
            Content::Blank => Ok(None),
            Content::MdMember(superblock) if superblock.array == id => Ok(Some(superblock)),
            Content::MdMember(superblock) => {
                Err(guarded(format!("it carries a superblock of array {}", superblock.array)))
            }
            Content::Foreign(kind) => Err(guarded(format!("it carries {kind}"))),
        }
    }

    fn pair(
        &self,
        array: &ArraySnapshot,
        namespace: &NamespaceSnapshot,
        device: &DeviceIdentity,
    ) -> Step<Pair> {
        Ok(Pair {
            leg: self.open_node(namespace, device)?,
            array: self.nodes.prove(&array.device, array.dev)?,
        })
    }

    fn is_bound_faulty(&self, id: ArrayId, namespace: &NamespaceId) -> bool {
        let now = self.see();
        let array = identity::array(&now, id).ok();
        array.and_then(|array| bound(array, namespace)).is_some_and(LegSnapshot::is_faulty)
    }

    /// A leg that is bound, but not as it should be, changed something: "failed" would be wrong.
    fn unless_half_bound(
        &self,
        ended: &Ended,
        outcome: Outcome,
        id: ArrayId,
        namespace: &NamespaceId,
    ) -> Outcome {
        if outcome.is_so() {
            return outcome;
        }
        match identity::array(&self.see(), id) {
            Ok(array) if bound(array, namespace).is_some() => {
                tracing::warn!(said = ended.said(), "a leg is bound, but not as it should be");
                Outcome::Unknown(UnknownWhy::NotFilledYet)
            }
            Ok(_) | Err(_) => outcome,
        }
    }
}

/// The legs in sync that can be read now, on fabrics.
fn sources(array: &ArraySnapshot) -> impl Iterator<Item = (&NamespaceSnapshot, DeviceIdentity)> {
    array.legs.iter().filter(|leg| leg.is_in_sync()).filter_map(readable)
}

/// The legs that become a copy just now, likewise.
fn being_filled(
    array: &ArraySnapshot,
) -> impl Iterator<Item = (&NamespaceSnapshot, DeviceIdentity)> {
    let filled = |leg: &&LegSnapshot| leg.slot.is_some() && !leg.is_in_sync() && !leg.is_faulty();
    array.legs.iter().filter(filled).filter_map(readable)
}

fn readable(leg: &LegSnapshot) -> Option<(&NamespaceSnapshot, DeviceIdentity)> {
    match &leg.backing {
        Backing::Namespace(namespace) if namespace.has_usable_path() => {
            Some((&**namespace, identity::of(namespace)?))
        }
        Backing::Namespace(_) | Backing::Local | Backing::Gone | Backing::Unreadable => None,
    }
}

fn is_out_of_reach(leg: &LegSnapshot) -> bool {
    match &leg.backing {
        Backing::Namespace(namespace) => !namespace.has_usable_path(),
        Backing::Gone | Backing::Unreadable => true,
        Backing::Local => false,
    }
}

fn newer(source: &DeviceIdentity, own: &MdSuperblock, candidate: &MdSuperblock) -> Outcome {
    let detail = format!(
        "it counts {} events, {} of the running array {}",
        candidate.events, source.device, own.events
    );
    Outcome::Refused(RefusedWhy::NewerCopy { detail })
}

fn unfinished() -> Outcome {
    let detail = "it counts more events than the array, and was being filled".to_owned();
    Outcome::Refused(RefusedWhy::ReAddNotPossible { detail })
}

/// The nodes of an array and of a device that is to become its leg.
struct Pair {
    array: Node,
    leg: Node,
}

impl Pair {
    fn array(&self, id: ArrayId) -> ArrayNode<'_> {
        ArrayNode { id, node: &self.array }
    }

    fn leg(&self, device: &DeviceIdentity) -> NamespaceNode<'_> {
        NamespaceNode { id: device.namespace, node: &self.leg }
    }
}

/// An array that takes members: not stopped, not read-only, not broken.
fn running(array: &ArraySnapshot) -> Step<&ArraySnapshot> {
    match array.state {
        Observed::Known(state) if state.is_running() => Ok(array),
        Observed::Known(state) => Err(not_in_that_state(format!("{} is {state}", array.device))),
        Observed::Unknown(why) => Err(Outcome::Unknown(why)),
    }
}

fn bound<'a>(array: &'a ArraySnapshot, namespace: &NamespaceId) -> Option<&'a LegSnapshot> {
    array.legs.iter().find(|leg| leg.is_namespace(namespace))
}

fn is_replacing(array: &ArraySnapshot, old: &LegSnapshot, new: &LegSnapshot) -> bool {
    replacement_of(array, old).is_some_and(|leg| leg.device == new.device)
}

fn wants_replacement(array: &ArraySnapshot, namespace: &NamespaceId) -> bool {
    bound(array, namespace).is_some_and(|leg| leg.flags.has(LegFlag::WantReplacement))
}

fn still_faulty(leg: &LegSnapshot) -> Outcome {
    not_in_that_state(format!("{} is still bound and faulty", leg.device))
}

/// Whether our own helper says that trying again would not help.
fn is_refused(ended: &Ended) -> bool {
    matches!(ended.ending, Ending::Exited(code) if Exit::of(code) == Some(Exit::Refused))
}

/// `Refused` if `mdadm` says what trying again does not change, else why it was not done.
fn refused_if(ended: &Ended, words: &[&str], why: impl FnOnce(String) -> RefusedWhy) -> Outcome {
    let said = ended.said();
    let lower = said.to_ascii_lowercase();
    match &ended.ending {
        Ending::Exited(code) if *code != 0 && words.iter().any(|word| lower.contains(word)) => {
            Outcome::Refused(why(said))
        }
        Ending::NotStarted(error) => refused_here(error.to_string()),
        Ending::Exited(_)
        | Ending::Signalled(_)
        | Ending::TimedOut
        | Ending::Stuck
        | Ending::Behind => not_done(ended),
    }
}
