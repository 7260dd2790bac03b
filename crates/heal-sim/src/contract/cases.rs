//! The cases.

use heal_types::{
    ArrayId, Bitmap, ConnectOptions, Content, ControllerName, ControllerRef, DeviceIdentity,
    DiskSeq, FailWhy, FastIoFail, HostAction, LegRef, Level, MdDeviceId, MdRole, Metadata,
    Observed, Outcome, RefusedWhy, Slot, SyncAction, Target,
};

use super::{Broken, Case, Play, ensure, is_whole, reference, shown, stands_on};

type Kept = Result<(), Broken>;
type Run = fn(&mut Play<'_>) -> Kept;

/// Every promise; first those that need no stage of their own.
#[rustfmt::skip]
pub static CASES: &[Case] = &[
    still("a whole array is seen whole", seen_whole),
    still("a glance shows of an array what a look shows", glance),
    still("what is connected already is left alone", connected_already),
    still("no act reaches another member of the same name", another_member),
    still("a leg in sync is not unbound", in_sync_stays),
    still("how soon I/O fails is set once and shown", fast_io_fail),
    still("a wish to move a leg that is not there is no work", no_wish),
    moves("a target that is connected is found by its id", found_by_id),
    moves("what stands on a device is told", examined),
    moves("no act reaches another array", another_array),
    moves("no act reaches a device that only has the name", another_device),
    moves("a lost leg loses its slot and is unbound once", lost),
    moves("a controller outlives its namespace, is shown, and is set back", leads_nowhere),
    moves("a leg that came back is taken back by its bitmap", taken_back),
    moves("a leg that came back takes the place of what of it is bound still", taken_back_in_one),
    moves("what was never a leg is not taken back", never_a_leg),
    moves("a spare is added once and filled", spare_filled),
    moves("a leg is moved without the array ever lacking one", moved),
    moves("slots come and go", slots),
    moves("what is in use stays connected, what is not goes once", disconnected),
];

const fn still(name: &'static str, run: Run) -> Case {
    Case { name, leaves_no_trace: true, run }
}

const fn moves(name: &'static str, run: Run) -> Case {
    Case { name, leaves_no_trace: false, run }
}

fn connect(target: &Target) -> HostAction {
    HostAction::Connect { target: target.clone(), options: ConnectOptions::default() }
}

fn seen_whole(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    let array = play.array()?;
    ensure(is_whole(&array), || format!("it is not whole: {}", shown(&array)))?;
    ensure(array.level == Level::Raid1, || format!("level {:?}", array.level))?;
    ensure(array.metadata == Metadata::V1, || format!("metadata {:?}", array.metadata))?;
    ensure(array.bitmap == Observed::Known(Bitmap::Present), || format!("{:?}", array.bitmap))?;
    let idle = Observed::Known(SyncAction::Idle);
    ensure(array.sync_action == idle, || format!("{:?}", array.sync_action))?;
    for (slot, target) in (0..).zip(&stage.legs) {
        let leg = stands_on(&array, target).ok_or_else(|| Broken(format!("no leg {slot}")))?;
        ensure(leg.slot == Some(Slot(slot)), || format!("slot {:?}, not {slot}", leg.slot))?;
        let found = play.namespace(target)?;
        ensure(found.has_usable_path(), || format!("{} has no path", found.device))?;
        ensure(found.nqn == Observed::Known(target.nqn.clone()), || format!("{:?}", found.nqn))?;
        let holders = Observed::Known(vec![array.device.clone()]);
        ensure(found.holders == holders, || format!("held by {:?}", found.holders))?;
    }
    Ok(())
}

fn glance(play: &mut Play<'_>) -> Kept {
    let id = play.stage().array;
    let look = play.array()?;
    let glanced = play.rig.host().glance(id);
    let glance = glanced.arrays.iter().find(|array| array.id == id);
    let glance = glance.ok_or_else(|| Broken("a glance does not show it".into()))?;
    ensure(glance.legs.len() == look.legs.len(), || shown(glance))?;
    for (one, other) in glance.legs.iter().zip(&look.legs) {
        let same = (&one.device, one.slot, one.flags) == (&other.device, other.slot, other.flags);
        ensure(same, || format!("{one:?}, not {other:?}"))?;
    }
    ensure(glance.degraded == look.degraded, || format!("{:?}", glance.degraded))
}

fn connected_already(play: &mut Play<'_>) -> Kept {
    let [first, _] = play.stage().legs;
    play.expect(&connect(&first), &Outcome::AlreadySo)
}

fn found_by_id(play: &mut Play<'_>) -> Kept {
    let spare = play.stage().spare;
    ensure(play.namespace(&spare).is_err(), || "it is connected before".into())?;
    play.expect(&connect(&spare), &Outcome::Changed)?;
    let there = play.until_there(&spare)?;
    ensure(there.nqn == spare.nqn, || format!("it belongs to {}", there.nqn))?;
    let seen = play.namespace(&spare)?;
    ensure(seen.holders == Observed::Known(vec![]), || format!("held by {:?}", seen.holders))?;
    ensure(seen.in_use == Observed::Known(false), || format!("in use: {:?}", seen.in_use))?;
    play.expect(&connect(&spare), &Outcome::AlreadySo)
}

fn content(play: &mut Play<'_>, device: DeviceIdentity) -> Result<Content, Broken> {
    let answer = play.rig.host().act(&HostAction::Examine { device });
    let outcome = answer.outcome;
    answer.content.ok_or_else(|| Broken(format!("examine: {outcome}")))
}

fn examined(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    let spare = come(play, &stage.spare)?;
    let blank = content(play, spare)?;
    ensure(blank == Content::Blank, || format!("the spare is {blank:?}"))?;
    for (slot, target) in (0..).zip(&stage.legs) {
        let device = play.identity(target)?;
        match content(play, device)? {
            Content::MdMember(found) => {
                ensure(found.array == stage.array, || format!("of array {}", found.array))?;
                ensure(found.role == MdRole::Active(slot), || format!("role {:?}", found.role))?;
                let uuid = play.leg(target)?.md_device;
                ensure(uuid == Observed::Known(found.device), || format!("{uuid:?}"))?;
            }
            other @ (Content::Blank | Content::Foreign(_)) => {
                return Err(Broken(format!("leg {slot} is {other:?}")));
            }
        }
    }
    Ok(())
}

/// Connects `target` and waits for it.
fn come(play: &mut Play<'_>, target: &Target) -> Result<DeviceIdentity, Broken> {
    play.expect(&connect(target), &Outcome::Changed)?;
    play.until_there(target)
}

/// As of a leg of which nothing is bound any more, and of which nobody read the MD device UUID.
fn re_add(array: ArrayId, device: DeviceIdentity) -> HostAction {
    HostAction::ReAddLeg { array, device, member: None, faulty: None }
}

fn not_that_device(why: &RefusedWhy) -> bool {
    matches!(why, RefusedWhy::NotThatDevice { .. })
}

fn not_in_that_state(why: &RefusedWhy) -> bool {
    matches!(why, RefusedWhy::NotInThatState { .. })
}

fn re_add_not_possible(why: &RefusedWhy) -> bool {
    matches!(why, RefusedWhy::ReAddNotPossible { .. })
}

fn guarded(why: &RefusedWhy) -> bool {
    matches!(why, RefusedWhy::Guard { .. })
}

fn another_array(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    let array = ArrayId::from_bytes([0x13; 16]);
    let leg = reference(&play.leg(&stage.legs[1])?);
    let device = come(play, &stage.spare)?;
    for action in [
        HostAction::FailLeg { array, leg: leg.clone(), why: FailWhy::DeviceGone },
        HostAction::RemoveLeg { array, leg },
        HostAction::AddLeg { array, device: device.clone() },
        re_add(array, device),
        HostAction::SetRaidDisks { array, raid_disks: 3 },
    ] {
        play.expect_refused(&action, |why| *why == RefusedWhy::NotThatArray)?;
    }
    let now = play.array()?;
    ensure(is_whole(&now) && now.legs.len() == 2, || shown(&now))
}

fn another_device(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    let array = stage.array;
    let right = come(play, &stage.spare)?;
    let seq = right.diskseq.known().map_or(0, |seq| seq.0);
    let other_disk =
        DeviceIdentity { diskseq: Observed::Known(DiskSeq(seq + 1000)), ..right.clone() };
    let other_nqn = DeviceIdentity { nqn: stage.legs[0].nqn.clone(), ..right.clone() };
    let other_id = DeviceIdentity { namespace: stage.legs[0].namespace, ..right };
    for device in [other_disk, other_nqn, other_id] {
        let add = HostAction::AddLeg { array, device: device.clone() };
        play.expect_refused(&add, not_that_device)?;
        play.expect_refused(&re_add(array, device.clone()), not_that_device)?;
        play.expect_refused(&HostAction::Examine { device }, not_that_device)?;
    }
    let legs = play.array()?.legs.len();
    ensure(legs == 2, || format!("{legs} legs"))
}

fn another_member(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    let leg = reference(&play.leg(&stage.legs[1])?);
    let other = LegRef { md_device: Some(MdDeviceId::from_bytes([0x14; 16])), ..leg };
    let array = stage.array;
    let why = FailWhy::DeviceGone;
    let fail = HostAction::FailLeg { array, leg: other.clone(), why };
    play.expect_refused(&fail, not_that_device)?;
    play.expect_refused(&HostAction::RemoveLeg { array, leg: other }, not_that_device)?;
    let now = play.array()?;
    ensure(is_whole(&now), || shown(&now))
}

fn in_sync_stays(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    let leg = reference(&play.leg(&stage.legs[1])?);
    let remove = HostAction::RemoveLeg { array: stage.array, leg };
    play.expect_refused(&remove, not_in_that_state)?;
    let now = play.array()?;
    ensure(is_whole(&now), || shown(&now))
}

fn lost(play: &mut Play<'_>) -> Kept {
    let array = play.stage().array;
    let before = play.lose_the_second()?;
    let now = play.array()?;
    ensure(now.degraded == Observed::Known(1), || format!("degraded {:?}", now.degraded))?;
    let unbind = HostAction::RemoveLeg { array, leg: play.bound(&before)? };
    let outcome = play.act(&unbind);
    // udev's stock rules unbind what is gone as well, and may come first.
    let gone = matches!(outcome, Outcome::Changed | Outcome::AlreadySo);
    ensure(gone, || format!("remove_leg: {outcome}"))?;
    play.expect(&unbind, &Outcome::AlreadySo)?;
    let left = play.array()?.legs.len();
    ensure(left == 1, || format!("{left} legs"))
}

fn leads_nowhere(play: &mut Play<'_>) -> Kept {
    let [_, second] = play.stage().legs;
    let shown = |play: &mut Play<'_>| -> Result<_, Broken> {
        let all = play.look().controllers.into_iter();
        let mut own = all.filter(|it| it.nqn == Observed::Known(second.nqn.clone()));
        let one = own.next().ok_or_else(|| Broken("no controller of it is shown".into()))?;
        ensure(own.next().is_none(), || "it has several".into())?;
        let named = one.reference().ok_or_else(|| Broken("nobody knows where it leads".into()))?;
        Ok((named, one.fast_io_fail))
    };
    let (controller, _) = shown(play)?;
    let set = |value| HostAction::SetFastIoFail { controller: controller.clone(), value };
    let armed = FastIoFail::After(3);
    play.expect(&set(armed), &Outcome::Changed)?;
    lost(play)?;
    ensure(play.namespace(&second).is_err(), || "it is still there".into())?;
    let left = shown(play)?;
    ensure(left == (controller.clone(), Observed::Known(armed)), || format!("{left:?}"))?;
    play.expect(&set(FastIoFail::Off), &Outcome::Changed)?;
    let (_, now) = shown(play)?;
    ensure(now == Observed::Known(FastIoFail::Off), || format!("it shows {now:?}"))
}

fn taken_back(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    let [_, second] = &stage.legs;
    let was = play.leg(second)?;
    lost(play)?;
    play.rig.write();
    play.rig.export(second, true);
    let device = play.until_there(second)?;
    let back = re_add(stage.array, device);
    play.expect(&back, &Outcome::Changed)?;
    let now = play.until("the leg is in sync", is_whole)?;
    let leg = stands_on(&now, second).ok_or_else(|| Broken("it is not there".into()))?;
    ensure(leg.slot == was.slot, || format!("slot {:?}, not {:?}", leg.slot, was.slot))?;
    let same = leg.md_device.known() == was.md_device.known();
    ensure(same, || format!("it became another member: {:?}", leg.md_device))?;
    play.expect(&back, &Outcome::AlreadySo)
}

fn taken_back_in_one(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    let array = stage.array;
    let [_, second] = &stage.legs;
    let was = play.leg(second)?;
    let before = play.lose_the_second()?;
    play.rig.write();
    let left = play.bound(&before)?;
    play.rig.export(second, true);
    let device = play.until_there(second)?;
    let back = |member| HostAction::ReAddLeg {
        array,
        device: device.clone(),
        member,
        faulty: Some(left.clone()),
    };
    let other = back(Some(MdDeviceId::from_bytes([0x14; 16])));
    play.expect_refused(&other, re_add_not_possible)?;
    let degraded = play.array()?.degraded;
    ensure(degraded == Observed::Known(1), || format!("degraded {degraded:?}"))?;
    let right = back(was.md_device.known().copied());
    play.expect(&right, &Outcome::Changed)?;
    let now = play.until("the leg is in sync", is_whole)?;
    ensure(now.legs.len() == 2, || shown(&now))?;
    let leg = stands_on(&now, second).ok_or_else(|| Broken("it is not there".into()))?;
    ensure(leg.slot == was.slot, || format!("slot {:?}, not {:?}", leg.slot, was.slot))?;
    play.expect(&right, &Outcome::AlreadySo)
}

fn never_a_leg(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    lost(play)?;
    let device = come(play, &stage.spare)?;
    play.expect_refused(&re_add(stage.array, device.clone()), re_add_not_possible)?;
    let legs = play.array()?.legs.len();
    ensure(legs == 1, || format!("{legs} legs: it was added"))?;
    let still = content(play, device)?;
    ensure(still == Content::Blank, || format!("it was written to: {still:?}"))
}

fn spare_filled(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    lost(play)?;
    let device = come(play, &stage.spare)?;
    let add = HostAction::AddLeg { array: stage.array, device };
    play.expect(&add, &Outcome::Changed)?;
    let now = play.until("the spare is in sync", is_whole)?;
    let leg = stands_on(&now, &stage.spare).ok_or_else(|| Broken("it is not there".into()))?;
    ensure(leg.slot == Some(Slot(1)), || format!("slot {:?}", leg.slot))?;
    play.expect(&add, &Outcome::AlreadySo)
}

fn moved(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    let array = stage.array;
    let to = come(play, &stage.spare)?;
    play.expect(&HostAction::AddLeg { array, device: to.clone() }, &Outcome::Changed)?;
    let idle = |now: &heal_types::ArraySnapshot| {
        stands_on(now, &stage.spare).is_some_and(|leg| leg.slot.is_none())
    };
    play.until("the spare is bound, and idle", idle)?;
    let from = reference(&play.leg(&stage.legs[1])?);
    let replace = HostAction::ReplaceLeg { array, from, to };
    play.expect(&replace, &Outcome::Changed)?;
    let mut lacked = false;
    let now = play.until("the spare has the leg's slot", |now| {
        lacked |= !now.degraded.is_known_and(|missing| *missing == 0);
        let taken = stands_on(now, &stage.spare);
        let old = stands_on(now, &stage.legs[1]);
        taken.is_some_and(|leg| leg.is_in_sync() && leg.slot == Some(Slot(1)))
            && old.is_none_or(|leg| leg.slot.is_none())
    })?;
    ensure(!lacked, || "it lacked a leg on the way".into())?;
    ensure(now.degraded == Observed::Known(0), || format!("{:?}", now.degraded))
}

fn fast_io_fail(play: &mut Play<'_>) -> Kept {
    let [first, second] = play.stage().legs;
    let path = |play: &mut Play<'_>| -> Result<_, Broken> {
        let seen = play.namespace(&first)?;
        seen.paths.into_iter().next().ok_or_else(|| Broken("it has no path".into()))
    };
    let was = path(play)?;
    let portal = was.portal.known().cloned().ok_or_else(|| Broken("no portal".into()))?;
    let controller = ControllerRef { name: was.controller, nqn: first.nqn.clone(), portal };
    let set = |value| HostAction::SetFastIoFail { controller: controller.clone(), value };
    for value in [FastIoFail::After(3), FastIoFail::Off] {
        if path(play)?.fast_io_fail != Observed::Known(value) {
            play.expect(&set(value), &Outcome::Changed)?;
        }
        play.expect(&set(value), &Outcome::AlreadySo)?;
        let shown = path(play)?.fast_io_fail;
        ensure(shown == Observed::Known(value), || format!("it shows {shown:?}"))?;
    }
    let other = ControllerRef { nqn: second.nqn, ..controller.clone() };
    let value = FastIoFail::After(7);
    play.expect_refused(&HostAction::SetFastIoFail { controller: other, value }, not_that_device)
}

fn slots(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    let array = stage.array;
    let wanted = |raid_disks| HostAction::SetRaidDisks { array, raid_disks };
    play.expect(&wanted(2), &Outcome::AlreadySo)?;
    // mdadm makes no slot for which there is no spare.
    let too_early = play.rig.host().act(&wanted(3)).outcome;
    let done = matches!(too_early, Outcome::Changed | Outcome::AlreadySo);
    ensure(!done, || format!("a slot without a spare: {too_early}"))?;
    let now = play.array()?;
    ensure(is_whole(&now) && now.raid_disks == 2, || shown(&now))?;
    let device = come(play, &stage.spare)?;
    play.expect(&HostAction::AddLeg { array, device }, &Outcome::Changed)?;
    let idle = |now: &heal_types::ArraySnapshot| stands_on(now, &stage.spare).is_some();
    play.until("the spare is bound", idle)?;
    play.expect(&wanted(3), &Outcome::Changed)?;
    let now = play.until("it is whole with three", |now| now.raid_disks == 3 && is_whole(now))?;
    ensure(now.legs.len() == 3, || shown(&now))
}

fn no_wish(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    let leg = reference(&play.leg(&stage.legs[0])?);
    let clear = HostAction::ClearWantReplacement { array: stage.array, leg };
    play.expect(&clear, &Outcome::AlreadySo)
}

fn disconnected(play: &mut Play<'_>) -> Kept {
    let stage = play.stage();
    let of = |play: &mut Play<'_>, target: &Target| -> Result<Vec<ControllerName>, Broken> {
        let seen = play.namespace(target)?;
        Ok(seen.paths.into_iter().map(|path| path.controller).collect())
    };
    let held = &stage.legs[0];
    let controllers = of(play, held)?;
    let held = HostAction::Disconnect { nqn: held.nqn.clone(), controllers };
    play.expect_refused(&held, guarded)?;
    come(play, &stage.spare)?;
    let nqn = stage.spare.nqn.clone();
    let unexpected = HostAction::Disconnect { nqn: nqn.clone(), controllers: Vec::new() };
    play.expect_refused(&unexpected, guarded)?;
    let controllers = of(play, &stage.spare)?;
    let free = HostAction::Disconnect { nqn, controllers };
    play.expect(&free, &Outcome::Changed)?;
    ensure(play.namespace(&stage.spare).is_err(), || "it is still there".into())?;
    play.expect(&free, &Outcome::AlreadySo)
}
