//! Everything that can happen to an array's machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use heal_types::{
    ArrayId, ArraySnapshot, ControllerName, DeviceName, HostAnswer, HostSnapshot,
    NamespaceSnapshot, Nqn, Observed, PathHealth, PathSnapshot, ProvisionerAnswer,
    ProvisionerFault, WallTime,
};

use crate::ids::EffectId;

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Somebody looked. The snapshot is the fact; the cause is only why there was a look.
    Looked(Box<Look>),
    /// The verdict on some path changed. Everything else is as last looked at.
    Paths(PathNews),
    /// An action on the host came back.
    Acted {
        /// Which one.
        id: EffectId,
        /// With what.
        answer: HostAnswer,
    },
    /// A call to the provisioner came back.
    Answered {
        /// Which one.
        id: EffectId,
        /// With what.
        answer: Result<ProvisionerAnswer, ProvisionerFault>,
    },
    /// The provisioner's word may have changed: ask again.
    VolumeStale,
    /// A person said something.
    Operator(Operator),
    /// The host's budget allows this array to replace a leg now.
    Permitted,
    /// The record could not be made durable; nothing that rests on it was done.
    NotDurable {
        /// Why, as text for people.
        why: String,
    },
    /// A deadline the machine named has passed.
    Tick,
}

/// One look at an array and at what could become its leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The array; `Known(None)` means that it is certainly not there.
    pub array: Observed<Option<ArraySnapshot>>,
    /// Every NVMe-oF namespace of the host.
    pub namespaces: Vec<NamespaceSnapshot>,
    /// The subsystem of each of its NVMe-oF controllers, also of one that leads to no namespace.
    #[serde(default)]
    pub subsystems: Vec<Observed<Nqn>>,
    /// Why there was a look.
    pub cause: LookCause,
}

impl Look {
    /// Puts in verdicts that are newer than the look.
    pub fn hear(&mut self, news: &PathNews) {
        if let Observed::Known(Some(array)) = &mut self.array {
            let legs = array.legs.iter_mut();
            news.annotate(legs.filter_map(|leg| leg.backing.namespace_mut()));
        }
        news.annotate(&mut self.namespaces);
    }
}

/// What is held of the host's paths now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathNews {
    /// The verdict on each path that is not up: the controller, and the namespace it leads to.
    pub verdicts: BTreeMap<(ControllerName, DeviceName), PathHealth>,
    /// Why the whole host is taken to be cut off, if it is: then nothing is isolated.
    pub cut_off: Option<String>,
}

impl PathNews {
    /// The verdicts that stand in `snapshot` ([`crate::paths::Paths::annotate`]). Where an array
    /// could not be read, a path that is not shown is as it was `before`: it is no better for not
    /// being seen.
    #[must_use]
    pub fn of(snapshot: &HostSnapshot, cut_off: Option<String>, before: &Self) -> Self {
        let legs = snapshot.arrays.iter().flat_map(|array| &array.legs);
        let backings = legs.filter_map(|leg| leg.backing.namespace());
        let paths = || {
            let namespaces = snapshot.namespaces.iter().chain(backings.clone());
            namespaces.flat_map(|space| space.paths.iter().map(move |path| (space, path)))
        };
        let name = |(space, path): (&NamespaceSnapshot, &PathSnapshot)| {
            (path.controller.clone(), space.device.clone())
        };
        // On the way to an isolation: what is up costs nothing.
        let mut verdicts: BTreeMap<_, _> = paths()
            .filter(|(_, path)| path.health != PathHealth::Up)
            .map(|(space, path)| (name((space, path)), path.health))
            .collect();
        if !snapshot.unreadable.is_empty() {
            let shown: BTreeSet<_> = paths().map(name).collect();
            let unseen = before.verdicts.iter().filter(|(path, _)| !shown.contains(*path));
            verdicts.extend(unseen.map(|(path, health)| (path.clone(), *health)));
        }
        Self { verdicts, cut_off }
    }

    /// Whether a leg of `array` has a path that is not up.
    #[must_use]
    pub fn concerns(&self, snapshot: &HostSnapshot, array: ArrayId) -> bool {
        let arrays = snapshot.arrays.iter().filter(|shown| shown.id == array);
        let mut legs =
            arrays.flat_map(|shown| &shown.legs).filter_map(|leg| leg.backing.namespace());
        legs.any(|namespace| self.verdicts.keys().any(|(_, device)| *device == namespace.device))
    }

    /// Puts the verdicts into `namespaces`.
    pub fn annotate<'a>(&self, namespaces: impl IntoIterator<Item = &'a mut NamespaceSnapshot>) {
        for namespace in namespaces {
            for path in &mut namespace.paths {
                let key = (path.controller.clone(), namespace.device.clone());
                path.health = self.verdicts.get(&key).copied().unwrap_or_default();
            }
        }
    }

    /// Puts the verdicts into everything `snapshot` shows.
    pub fn annotate_all(&self, snapshot: &mut HostSnapshot) {
        let legs = snapshot.arrays.iter_mut().flat_map(|array| &mut array.legs);
        self.annotate(legs.filter_map(|leg| leg.backing.namespace_mut()));
        self.annotate(&mut snapshot.namespaces);
    }
}

/// Why there was a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LookCause {
    /// The daemon started.
    Start,
    /// MD notified: `/proc/mdstat` or an attribute of the array.
    Md,
    /// A kernel uevent.
    Uevent {
        /// `ACTION SUBSYSTEM/DEVICE`.
        what: String,
    },
    /// A network link, address or route changed.
    Link,
    /// The kernel's log spoke of a controller.
    KernelLog,
    /// Events were lost.
    Overrun,
    /// The slow scan for whatever was lost without a trace.
    SafetyScan,
    /// An action of ours ended.
    OwnAction,
    /// A person asked.
    Operator,
    /// The machine asked for another look.
    Asked,
}

impl fmt::Display for LookCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::Md => f.write_str("md"),
            Self::Uevent { what } => write!(f, "uevent:{what}"),
            Self::Link => f.write_str("link"),
            Self::KernelLog => f.write_str("kernel-log"),
            Self::Overrun => f.write_str("overrun"),
            Self::SafetyScan => f.write_str("safety-scan"),
            Self::OwnAction => f.write_str("own-action"),
            Self::Operator => f.write_str("operator"),
            Self::Asked => f.write_str("asked"),
        }
    }
}

/// What a person said about one array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// Do nothing until told otherwise, or until a time.
    Hold {
        /// Why.
        reason: String,
        /// Who, as the control socket's peer credentials say.
        by: String,
        /// End by itself then.
        until: Option<WallTime>,
    },
    /// Go on, and look again at what was refused.
    Resume {
        /// Who.
        by: String,
    },
}
