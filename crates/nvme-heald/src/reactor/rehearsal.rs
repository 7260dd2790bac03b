//! Goes through what is between a lost carrier and destroyed sockets while nothing is at stake.
//!
//! Code that has not run for a while is slow when it runs: it has to come back into the processor's
//! caches, on an emulated one it has to be translated again. The isolation of a leg is code that
//! never runs, but for the one moment in which an application waits for it; measured in the lab,
//! the first one of a process took three to six times as long as the next.
//!
//! ```text
//!   legs were armed      ─► every array, once, sockets of our own included
//!   a doubt is waited out ─► the array in doubt, at once and just before the wait ends
//!   nothing happens      ─► one array and one link a second, in turn
//! ```
//!
//! Everything is done on copies of what is pure ([`heal_core::ArrayMachine::rehearse`]) and by
//! reading what an isolation reads ([`crate::host::Host::rehearse`]); the outcome is thrown away.
//!
//! The price: some hundred microseconds of a processor each second, however many arrays there are.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use heal_core::PathNews;
use heal_core::paths::PathEvent;
use heal_host::clock;
use heal_types::{ArrayId, HostSnapshot, IfIndex, Moment};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::Reactor;
use crate::host::{Host, Rehearsal};

/// So long before a wait ends it is gone through once more: time enough to be done, too little for
/// a processor to fall asleep again, which costs half a millisecond at the end of the wait.
const LEAD: Duration = Duration::from_millis(10);

/// Whose turn it was.
#[derive(Debug, Default)]
pub(super) struct Rehearsed {
    /// When these arrays' turn comes again: soon after it they may be isolated.
    again: Option<(Moment, BTreeSet<ArrayId>)>,
    array: Option<ArrayId>,
    link: Option<IfIndex>,
    under_way: Option<oneshot::Receiver<()>>,
}

impl Rehearsed {
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.again.as_ref().map(|(at, _)| *at)
    }

    /// Whether the last one has not come back: a reading may hang in the kernel, and it would be
    /// one more each second.
    fn is_under_way(&mut self) -> bool {
        let last = self.under_way.as_mut();
        last.is_some_and(|last| last.try_recv() == Err(TryRecvError::Empty))
    }
}

impl<H: Host> Reactor<H> {
    /// Legs were armed: from now on they can be isolated.
    pub(super) fn rehearse_all(&mut self) {
        for link in self.paths.paths.interfaces() {
            self.rehearse_link(link);
        }
        let wards: Vec<ArrayId> = self.wards().into_keys().collect();
        self.rehearse(wards, Rehearsal::Whole);
    }

    /// A second has passed: the next one in turn, if nobody is in doubt.
    pub(super) fn rehearse_next(&mut self) {
        if !self.paths.news.verdicts.is_empty() {
            return;
        }
        let links = self.paths.paths.interfaces();
        self.paths.rehearsed.link = next(&links, self.paths.rehearsed.link);
        if let Some(link) = self.paths.rehearsed.link {
            self.rehearse_link(link);
        }
        let wards = self.wards().into_keys().collect();
        self.paths.rehearsed.array = next(&wards, self.paths.rehearsed.array);
        self.rehearse(self.paths.rehearsed.array.into_iter().collect(), Rehearsal::Light);
    }

    /// These have a leg in doubt since `heard_at`. Who acts at once must not be held up; who waits
    /// has the time.
    pub(super) fn rehearse_waiting(&mut self, concerned: &[ArrayId], heard_at: Moment) {
        if self.paths.news.cut_off.is_some() {
            return;
        }
        let wards = self.wards();
        let wait = |array: &ArrayId| wards.get(array).map_or(Duration::ZERO, |it| it.isolate_after);
        let waiting: Vec<ArrayId> =
            concerned.iter().filter(|array| wait(array) > Duration::ZERO).copied().collect();
        let turn = |array: &ArrayId| (heard_at.after(wait(array).saturating_sub(LEAD)), *array);
        let ahead = waiting.iter().map(turn).filter(|(at, _)| *at > clock::moment());
        for (at, array) in ahead {
            // What is due between two turns has the earlier one.
            let next = self.paths.rehearsed.again.get_or_insert_with(|| (at, BTreeSet::new()));
            next.0 = next.0.min(at);
            next.1.insert(array);
        }
        self.rehearse(waiting, Rehearsal::Light);
    }

    /// The wait of somebody is about to end.
    pub(super) fn rehearse_due(&mut self) {
        let is_due = |turn: &mut (Moment, BTreeSet<ArrayId>)| turn.0 <= clock::moment();
        let Some((_, arrays)) = self.paths.rehearsed.again.take_if(is_due) else { return };
        let news = &self.paths.news;
        if !news.verdicts.is_empty() && news.cut_off.is_none() {
            self.rehearse(arrays.into_iter().collect(), Rehearsal::Light);
        }
    }

    fn rehearse(&mut self, arrays: Vec<ArrayId>, how: Rehearsal) {
        if arrays.is_empty() || self.paths.rehearsed.is_under_way() {
            return;
        }
        for seat in arrays.iter().filter_map(|array| self.seats.get(array)) {
            seat.mailbox.rehearse();
        }
        let mut host = self.setup.host.clone();
        // On the thread that will do it: what is warm is warm there.
        let ended = self.paths.board.standby().run(move || {
            for array in arrays {
                host.rehearse(array, how);
            }
        });
        self.paths.rehearsed.under_way = Some(ended);
    }

    fn rehearse_link(&self, index: IfIndex) {
        let Some(snapshot) = &self.snapshot else { return };
        let (mut paths, mut shown) = (self.paths.paths.clone(), HostSnapshot::clone(snapshot));
        paths.handle(clock::moment(), PathEvent::Link { index, up: false, removed: false });
        paths.annotate(&mut shown);
        let wards = self.wards().into_keys().collect();
        let cut_off = paths.cut_off(&shown, &wards, None).map(|cut_off| cut_off.reason());
        let news = PathNews::of(&shown, cut_off, &self.paths.news);
        tracing::trace!(index, paths = news.verdicts.len(), "rehearsed");
    }
}

/// The one after `last`, and after the last of all the first one.
fn next<T: Ord + Copy>(all: &BTreeSet<T>, last: Option<T>) -> Option<T> {
    let after = last.and_then(|last| all.range((Excluded(last), Unbounded)).next());
    after.or_else(|| all.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_hangs_is_waited_for_and_one_that_broke_off_is_not() {
        let mut rehearsed = Rehearsed::default();
        assert!(!rehearsed.is_under_way());
        let (hanging, ended) = oneshot::channel();
        rehearsed.under_way = Some(ended);
        assert!(rehearsed.is_under_way());
        hanging.send(()).unwrap();
        assert!(!rehearsed.is_under_way());
        let (broke_off, ended) = oneshot::channel();
        rehearsed.under_way = Some(ended);
        drop(broke_off);
        assert!(!rehearsed.is_under_way());
    }

    #[test]
    fn everyone_has_a_turn_and_who_left_is_not_waited_for() {
        let all = BTreeSet::from([1, 3, 5]);
        let turns = [None, Some(1), Some(2), Some(3), Some(5), Some(9)];
        let next = turns.map(|last| next(&all, last));
        assert_eq!(next, [Some(1), Some(3), Some(3), Some(5), Some(1), Some(1)]);
        assert_eq!(super::next(&BTreeSet::new(), Some(1)), None);
    }
}
