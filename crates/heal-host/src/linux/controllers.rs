//! Acts on a controller's attributes, and the proof that it is the one that was meant.
//!
//! A controller is proven by the inode of its directory: the last look read there where it leads,
//! and the kernel gives the number to no other. The directory is then held open, and everything
//! goes through that handle, so nothing can be written to a successor. It stays open, with the
//! attributes that are read when there is no time to find them: as long as they answer, it is the
//! same one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use heal_types::{
    ArrayId, Backing, ControllerName, ControllerRef, ControllerState, FastIoFail, HostSnapshot,
    Observed, Outcome, RetryWhy, UnknownWhy,
};
use rustix::io::Errno;

use super::{
    LATER, LinuxHost, SOON, Step, guard, guarded, identity, other_device, refused_here, retry,
};
use crate::scan::{FAST_IO_FAIL, Opened, Seen};

/// The controller that was meant.
#[derive(Debug, Clone)]
pub(super) struct Proven(Arc<Opened>);

impl Proven {
    pub(super) fn name(&self) -> &ControllerName {
        &self.0.name
    }

    pub(super) fn inode(&self) -> u64 {
        self.0.inode
    }

    pub(super) fn state(&self) -> Observed<ControllerState> {
        self.0.state()
    }

    pub(super) fn is_live(&self) -> bool {
        self.state().is_known_and(|state| *state == ControllerState::Live)
    }

    /// Makes `value` what the kernel shows; `true` if it was not.
    pub(super) fn fail_io(&self, value: FastIoFail) -> Step<bool> {
        if self.shown()? == value {
            return Ok(false);
        }
        self.0.set_fast_io_fail(value).map_err(|errno| not_written(&self.0.name, errno))?;
        let now = self.shown()?;
        if now == value {
            return Ok(true);
        }
        let detail = format!("{FAST_IO_FAIL} of {} reads {now} after {value}", self.0.name);
        Err(retry(LATER, RetryWhy::ToolFailed { exit: None, detail }))
    }

    fn shown(&self) -> Step<FastIoFail> {
        match self.0.fast_io_fail() {
            Observed::Known(value) => Ok(value),
            Observed::Unknown(UnknownWhy::Vanished) if self.state().known().is_some() => {
                Err(refused_here(format!("this kernel has no {FAST_IO_FAIL}")))
            }
            Observed::Unknown(UnknownWhy::Vanished) => Err(gone(&self.0.name)),
            Observed::Unknown(why) => Err(Outcome::Unknown(why)),
        }
    }

    /// Names of the path devices in it: one for each namespace it leads to. Without native
    /// multipath, the namespaces themselves.
    pub(super) fn disks(&self) -> Step<Vec<String>> {
        let mut found = Vec::new();
        let listed = self.0.names(|name| {
            found.extend(name.to_str().ok().filter(|name| is_disk(name)).map(str::to_owned));
        });
        match listed {
            Observed::Known(()) => Ok(found),
            Observed::Unknown(UnknownWhy::Vanished) => Err(gone(&self.0.name)),
            Observed::Unknown(why) => Err(Outcome::Unknown(why)),
        }
    }
}

/// `nvme1c3n2` or `nvme3n2`; the other directories and links have no number in their names.
fn is_disk(name: &str) -> bool {
    name.strip_prefix("nvme").is_some_and(|rest| {
        rest.contains('n') && rest.bytes().all(|b| b.is_ascii_digit() || b == b'c' || b == b'n')
    })
}

/// How long the survivors of an isolation are not armed: the leg has failed by then, or it never
/// will.
const SURVIVES: Duration = Duration::from_secs(5);

/// Who must queue because another leg is being isolated.
#[derive(Debug, Clone, Default)]
pub(super) struct Survivors(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<ControllerName, Instant>);

impl Survivors {
    pub(super) fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// From now on, for a while, nobody arms these.
    pub(super) fn keep(&mut self, survivors: &[ControllerRef]) {
        let now = Instant::now();
        self.0.retain(|_, since| now.duration_since(*since) < SURVIVES);
        self.0.extend(survivors.iter().map(|survivor| (survivor.name.clone(), now)));
    }

    fn must_queue(&self, controller: &ControllerName) -> bool {
        self.0.get(controller).is_some_and(|since| since.elapsed() < SURVIVES)
    }
}

impl LinuxHost {
    /// I/O that fails soon is I/O that another leg must be able to serve, however late it comes: so
    /// on every leg the controller carries, some other leg queues for ever.
    pub(super) fn set_fast_io_fail(
        &self,
        wanted: &ControllerRef,
        value: FastIoFail,
    ) -> Step<Outcome> {
        let seen = self.last().ok_or(Outcome::Unknown(UnknownWhy::NotReadYet))?;
        let controller = self.prove(&seen, wanted)?;
        // Held until it is written: an isolation that names this one as a survivor comes after
        // that, or is seen here.
        let kept = self.survivors.lock();
        match value {
            FastIoFail::Off => {}
            FastIoFail::After(_) if kept.must_queue(&wanted.name) => {
                return Err(retry(SOON, RetryWhy::Busy));
            }
            FastIoFail::After(_) => self.others_queue(&seen, &wanted.name)?,
        }
        Ok(if controller.fail_io(value)? { Outcome::Changed } else { Outcome::AlreadySo })
    }

    /// The controller that `wanted` names, if it is still the one it was.
    pub(super) fn prove(&self, seen: &Seen, wanted: &ControllerRef) -> Step<Proven> {
        let controller = match self.kept.controllers().get(&self.root, &wanted.name) {
            Observed::Known((controller, _)) => Proven(controller),
            Observed::Unknown(UnknownWhy::Vanished) => return Err(gone(&wanted.name)),
            Observed::Unknown(why) => return Err(Outcome::Unknown(why)),
        };
        let Some(known) = seen.controllers.get(&wanted.name) else {
            return Err(Outcome::Unknown(UnknownWhy::NotReadYet));
        };
        if known.inode != controller.inode() {
            return Err(other_device(format!("{} is another controller by now", wanted.name)));
        }
        if known.nqn != wanted.nqn {
            return Err(other_device(format!("{} leads to {}", wanted.name, known.nqn)));
        }
        if known.portal != wanted.portal {
            return Err(other_device(format!("{} leads to {}", wanted.name, known.portal)));
        }
        Ok(controller)
    }

    fn others_queue(&self, seen: &Seen, controller: &ControllerName) -> Step<()> {
        let mut arrays: Vec<ArrayId> = Vec::new();
        for device in carried(&seen.snapshot, controller) {
            let found = seen.snapshot.arrays.iter().find(|array| {
                array.legs.iter().any(|leg| match &leg.backing {
                    Backing::Namespace(namespace) => namespace.device == *device,
                    Backing::Local | Backing::Gone | Backing::Unreadable => false,
                })
            });
            match found {
                Some(array) if arrays.contains(&array.id) => {}
                Some(array) => arrays.push(array.id),
                None => {
                    return Err(guarded(format!("{controller} carries {device}, which is no leg")));
                }
            }
        }
        if arrays.is_empty() {
            return Err(guarded(format!("nobody knows what {controller} carries")));
        }
        for id in arrays {
            let now = self.glance_from(seen, id);
            let array = identity::array(&now, id)?;
            for leg in &array.legs {
                let Backing::Namespace(namespace) = &leg.backing else { continue };
                if namespace.paths.iter().any(|path| path.controller == *controller) {
                    guard::queues_without(array, leg)?;
                }
            }
        }
        Ok(())
    }
}

/// The namespaces a controller leads to.
fn carried<'s>(
    snapshot: &'s HostSnapshot,
    controller: &ControllerName,
) -> impl Iterator<Item = &'s heal_types::DeviceName> {
    snapshot
        .namespaces
        .iter()
        .filter(move |found| found.paths.iter().any(|path| path.controller == *controller))
        .map(|namespace| &namespace.device)
}

fn gone(controller: &ControllerName) -> Outcome {
    other_device(format!("{controller} is gone"))
}

fn not_written(controller: &ControllerName, errno: Errno) -> Outcome {
    let detail = format!("{FAST_IO_FAIL} of {controller}: {errno}");
    match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => gone(controller),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => refused_here(detail),
        _ => retry(LATER, RetryWhy::ToolFailed { exit: None, detail }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_are_disks() {
        assert!(is_disk("nvme1c3n2") && is_disk("nvme3n2"));
        for other in ["nvme3", "ng3n2", "hwmon4", "power", "subsystem", "nvme3-x"] {
            assert!(!is_disk(other), "{other}");
        }
    }
}
