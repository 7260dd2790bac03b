//! Whether it is the host that is cut off, and not one leg.
//!
//! ```text
//!   fabric A ── leg 0 of every array          one link down explains every lost leg, and every
//!      ╳                                      array has a leg through the other one: a lost card
//!   fabric B ── leg 1 of every array          or switch, the very case this product exists for
//!
//!   fabric A ─╳─ leg 0 and leg 1              all legs of an array at once: it is the host
//!   legs lost here and there, for             many arrays at once and nothing that explains it:
//!   several reasons                           it may be the host
//! ```
//!
//! A host that lost its own link sees every target die. Were legs isolated then, each array would
//! be left with whichever leg came last. So in doubt it is the host, and everything queues.
//!
//! The price: a switch that dies without taking a link down with it, on a host with more than a few
//! arrays, is taken for the host's own trouble, and the kernel's time-outs apply.

use std::collections::BTreeSet;
use std::fmt;

use heal_types::{
    ArrayId, ArraySnapshot, Backing, HostSnapshot, IfIndex, LegSnapshot, MadeOf, NamespaceSnapshot,
    Network, PathDoubt, PathHealth,
};

use super::Paths;
use super::link::DEPTH;
use crate::view::leg_health;

/// Why the host is taken to be cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CutOff {
    /// Every leg in sync of these arrays is in doubt.
    AllLegs {
        /// Which.
        arrays: Vec<ArrayId>,
    },
    /// More arrays than usual have a leg in doubt, and no single link explains it.
    ManyArrays {
        /// Which.
        arrays: Vec<ArrayId>,
        /// How many there may be.
        limit: usize,
    },
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, arrays: &[ArrayId]| {
            arrays
                .iter()
                .enumerate()
                .try_for_each(|(i, array)| write!(f, "{}{array}", if i == 0 { "" } else { ", " }))
        };
        match self {
            Self::AllLegs { arrays } => {
                f.write_str("no path works to any leg in sync of ")?;
                list(f, arrays)
            }
            Self::ManyArrays { arrays, limit } => {
                let count = arrays.len();
                write!(f, "{count} arrays have a leg in doubt, more than {limit}, ")?;
                f.write_str("and no single link explains it: ")?;
                list(f, arrays)
            }
        }
    }
}

impl CutOff {
    /// The arrays it is about.
    #[must_use]
    pub fn arrays(&self) -> &[ArrayId] {
        match self {
            Self::AllLegs { arrays } | Self::ManyArrays { arrays, .. } => arrays,
        }
    }

    /// The reason without the arrays it is about: what a hold says, which must not change each time
    /// an array more is concerned.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::AllLegs { .. } => "no path works to any leg of an array".to_owned(),
            Self::ManyArrays { limit, .. } => {
                format!("more than {limit} arrays lost a path at once")
            }
        }
    }
}

impl Paths {
    /// Whether the host is cut off from the arrays in `wards`, as far as `snapshot` shows, which
    /// has the verdicts in it ([`Paths::annotate`]). An array that it was cut off from `before`,
    /// and that cannot be read, is no better for that.
    #[must_use]
    pub fn cut_off(
        &self,
        snapshot: &HostSnapshot,
        wards: &BTreeSet<ArrayId>,
        before: Option<&CutOff>,
    ) -> Option<CutOff> {
        let unread = |array: &&ArrayId| {
            let shown = snapshot.arrays.iter().any(|seen| seen.id == **array);
            wards.contains(*array) && !shown && !snapshot.unreadable.is_empty()
        };
        let unread: Vec<ArrayId> =
            before.map_or(&[][..], CutOff::arrays).iter().filter(unread).copied().collect();
        let arrays = snapshot.arrays.iter().filter(|array| wards.contains(&array.id));
        let in_doubt: Vec<_> = arrays.filter(|array| array.in_sync().any(is_doubtful)).collect();
        let mut without: Vec<_> =
            in_doubt.iter().filter(|array| !array.in_sync().any(is_up)).map(|a| a.id).collect();
        if matches!(before, Some(CutOff::AllLegs { .. })) {
            without.extend(&unread);
        }
        if !without.is_empty() {
            return Some(CutOff::AllLegs { arrays: without });
        }
        let limit = self.limits.many_arrays;
        let explained = unread.is_empty() && self.one_link_explains(&in_doubt);
        if in_doubt.len() + unread.len() <= limit || explained {
            return None;
        }
        let arrays = in_doubt.iter().map(|array| array.id).chain(unread).collect();
        Some(CutOff::ManyArrays { arrays, limit })
    }

    /// Whether every leg in doubt is behind one link that is down, and each array has a leg that
    /// does not need it.
    fn one_link_explains(&self, arrays: &[&ArraySnapshot]) -> bool {
        let mut culprit = None;
        for array in arrays {
            for leg in array.in_sync().filter(|leg| is_doubtful(leg)) {
                let Some(of_leg) = self.culprits(leg) else {
                    return false;
                };
                for one in of_leg {
                    if *culprit.get_or_insert(one) != one {
                        return false;
                    }
                }
            }
        }
        let Some(culprit) = culprit else {
            return false;
        };
        arrays.iter().all(|array| array.in_sync().any(|leg| self.is_up_without(leg, culprit)))
    }

    /// The links whose loss explains that a leg is lost, or `None` if they do not explain it.
    fn culprits(&self, leg: &LegSnapshot) -> Option<BTreeSet<IfIndex>> {
        let namespace = leg.backing.namespace()?;
        let culprits = namespace.paths.iter().map(|path| {
            let controller = self.controllers.get(&path.controller)?;
            let dead = controller.health() == PathHealth::Dead(PathDoubt::LinkDown);
            dead.then(|| controller.link.culprit(&self.network)).flatten()
        });
        let culprits = culprits.collect::<Option<BTreeSet<_>>>()?;
        (!culprits.is_empty()).then_some(culprits)
    }

    fn is_up_without(&self, leg: &LegSnapshot, culprit: IfIndex) -> bool {
        let elsewhere = |namespace: &NamespaceSnapshot| {
            let usable = namespace.paths.iter().filter(|path| path.is_usable());
            usable.filter_map(|path| self.controllers.get(&path.controller)).any(|controller| {
                let egress = controller.link.egress.as_ref();
                egress.is_some_and(|egress| !stands_on(&self.network, egress.index, culprit))
            })
        };
        match &leg.backing {
            Backing::Namespace(namespace) => elsewhere(namespace),
            Backing::Local => true,
            Backing::Gone | Backing::Unreadable => false,
        }
    }
}

/// Whether nothing is known against a leg's device and the way to it.
fn is_up(leg: &LegSnapshot) -> bool {
    match &leg.backing {
        Backing::Namespace(namespace) => leg_health(namespace) == Some(PathHealth::Up),
        Backing::Local => true,
        Backing::Gone | Backing::Unreadable => false,
    }
}

/// Whether a leg's device is there and the way to it is in doubt. A device that is gone says
/// nothing of the network: its target let it go.
fn is_doubtful(leg: &LegSnapshot) -> bool {
    match &leg.backing {
        Backing::Namespace(namespace) => match leg_health(namespace) {
            Some(PathHealth::Up) => false,
            // Hearsay: a bond goes on without a port, and the log speaks of many things.
            Some(PathHealth::Suspect(PathDoubt::PortDown | PathDoubt::KernelLog)) => false,
            Some(PathHealth::Suspect(_) | PathHealth::Dead(_)) | None => true,
        },
        Backing::Local | Backing::Gone | Backing::Unreadable => false,
    }
}

/// Whether `index` is `below`, or goes down with it.
fn stands_on(network: &Network, index: IfIndex, below: IfIndex) -> bool {
    let mut at = index;
    for _ in 0..DEPTH {
        if at == below {
            return true;
        }
        match network.interfaces.get(&at).map(|interface| &interface.made_of) {
            Some(MadeOf::On(lower)) => at = *lower,
            Some(MadeOf::AnyOf(_) | MadeOf::Itself) | None => return false,
        }
    }
    false
}
