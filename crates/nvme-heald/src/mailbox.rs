//! An actor's mailbox: bounded without ever losing what cannot be said twice.
//!
//! ```text
//!   looks     ──►  one place: the newest replaces what still waits
//!   paths     ──►  the same, and first of all: somebody's write may be waiting
//!   answers   ──►  as many as there are acts and calls under way; never dropped
//!   "changed" ──►  one flag each: volume stale, leave given, stop
//!   people    ──►  a short queue; full is said to the person
//! ```
//!
//! A snapshot that was overtaken is worth nothing, so looks cannot pile up behind a slow array.
//! What a look carried beside the facts, the moment of MD's notification, stays with the newer one,
//! so that the reaction is measured from the first sign.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heal_core::record::ArrayRecord;
use heal_core::{Event, Look, Operator, PathNews};
use heal_types::Moment;
use heal_types::status::{ArrayStatus, Explanation};
use tokio::sync::{Notify, oneshot};

use crate::config::Config;

/// People's wishes and questions that may wait.
const PEOPLE: usize = 64;

/// One look, as the reactor posts it.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) look: Box<Look>,
    /// When the look began: what was done later is not in it.
    pub(crate) begun: Moment,
    /// When MD notified, if that is among the reasons for the look.
    pub(crate) signalled_at: Option<Moment>,
}

/// What an actor finds in its mailbox.
#[derive(Debug)]
pub(crate) enum Mail {
    /// What came of an act or a call.
    Answer(Event),
    /// Something a person said; the other end hears when it is durable.
    Operator(Operator, oneshot::Sender<()>),
    /// The budget gives leave.
    Permitted,
    /// The provisioner's word may have changed.
    VolumeStale,
    /// A record turned up that is newer than what the actor started from, or unreadable.
    Recover(Box<Result<ArrayRecord, String>>),
    /// The configuration was read again.
    Configure(Arc<Config>),
    /// Go through what a dead leg would need, while nothing is at stake.
    Rehearse,
    /// The verdict on some path changed; heard at that moment.
    Paths(PathNews, Moment),
    /// A look.
    Look(Sight),
    /// End, once the act under way has ended.
    Stop,
}

/// A question that is answered at any time, also while a record is being saved.
#[derive(Debug)]
pub(crate) enum Question {
    /// For `status`.
    Status(oneshot::Sender<ArrayStatus>),
    /// For `explain`.
    Explain(oneshot::Sender<Explanation>),
}

/// Both ends of it: the reactor and the workers post, the actor takes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mailbox {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    slots: Mutex<Slots>,
    mail: Notify,
    asked: Notify,
}

#[derive(Debug, Default)]
struct Slots {
    answers: VecDeque<Event>,
    people: VecDeque<(Operator, oneshot::Sender<()>)>,
    questions: VecDeque<Question>,
    recover: Option<Box<Result<ArrayRecord, String>>>,
    permitted: bool,
    stale: bool,
    config: Option<Arc<Config>>,
    rehearse: bool,
    paths: Option<(PathNews, Moment)>,
    look: Option<Sight>,
    stop: bool,
}

impl Mailbox {
    /// What came of an act or a call.
    pub(crate) fn answer(&self, event: Event) {
        self.lock().answers.push_back(event);
        self.shared.mail.notify_one();
    }

    /// A look; it replaces one that still waits.
    pub(crate) fn look(&self, mut sight: Sight) {
        let mut slots = self.lock();
        let earlier = slots.look.take().and_then(|waiting| waiting.signalled_at);
        sight.signalled_at = earliest(earlier, sight.signalled_at);
        slots.look = Some(sight);
        drop(slots);
        self.shared.mail.notify_one();
    }

    /// The verdict on some path changed, for a reason that was heard at that moment. It replaces
    /// one that still waits: each names every verdict. It is read before a look that waits already,
    /// which would bring the old verdict back for as long as nothing else happens.
    pub(crate) fn paths(&self, news: PathNews, heard_at: Moment) {
        let mut slots = self.lock();
        if let Some(sight) = &mut slots.look {
            sight.look.hear(&news);
        }
        let first = slots.paths.take().map_or(heard_at, |(_, at)| at.min(heard_at));
        slots.paths = Some((news, first));
        drop(slots);
        self.shared.mail.notify_one();
    }

    /// Nothing is at stake: go through what a dead leg would need.
    pub(crate) fn rehearse(&self) {
        self.lock().rehearse = true;
        self.shared.mail.notify_one();
    }

    /// The budget gives leave.
    pub(crate) fn permitted(&self) {
        self.lock().permitted = true;
        self.shared.mail.notify_one();
    }

    /// The provisioner's word may have changed.
    pub(crate) fn volume_stale(&self) {
        self.lock().stale = true;
        self.shared.mail.notify_one();
    }

    /// The configuration was read again.
    pub(crate) fn configure(&self, config: Arc<Config>) {
        self.lock().config = Some(config);
        self.shared.mail.notify_one();
    }

    /// A record to start again from.
    pub(crate) fn recover(&self, record: Result<ArrayRecord, String>) {
        self.lock().recover = Some(Box::new(record));
        self.shared.mail.notify_one();
    }

    /// End.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.shared.mail.notify_one();
    }

    /// Something a person said. `None` when too much of that waits already.
    pub(crate) fn operator(&self, said: Operator) -> Option<oneshot::Receiver<()>> {
        let mut slots = self.lock();
        if slots.people.len() >= PEOPLE {
            return None;
        }
        let (done, heard) = oneshot::channel();
        slots.people.push_back((said, done));
        drop(slots);
        self.shared.mail.notify_one();
        Some(heard)
    }

    /// A question. One too many is dropped, and its asker hears nothing.
    pub(crate) fn ask(&self, question: Question) {
        let mut slots = self.lock();
        if slots.questions.len() < PEOPLE {
            slots.questions.push_back(question);
            drop(slots);
            self.shared.asked.notify_one();
        }
    }

    /// The next mail. Answers come before looks: a look that was posted after an answer is newer
    /// than the act. Safe to drop while it waits.
    pub(crate) async fn next(&self) -> Mail {
        loop {
            if let Some(mail) = self.take() {
                return mail;
            }
            self.shared.mail.notified().await;
        }
    }

    /// An answer that waits already.
    pub(crate) fn waiting_answer(&self) -> Option<Event> {
        self.lock().answers.pop_front()
    }

    /// The next question. Safe to drop while it waits.
    pub(crate) async fn question(&self) -> Question {
        loop {
            if let Some(question) = self.lock().questions.pop_front() {
                return question;
            }
            self.shared.asked.notified().await;
        }
    }

    fn take(&self) -> Option<Mail> {
        let mut slots = self.lock();
        if slots.stop {
            return Some(Mail::Stop);
        }
        if let Some((news, at)) = slots.paths.take() {
            return Some(Mail::Paths(news, at));
        }
        if let Some(answer) = slots.answers.pop_front() {
            return Some(Mail::Answer(answer));
        }
        if let Some(record) = slots.recover.take() {
            return Some(Mail::Recover(record));
        }
        if let Some((said, done)) = slots.people.pop_front() {
            return Some(Mail::Operator(said, done));
        }
        if std::mem::take(&mut slots.permitted) {
            return Some(Mail::Permitted);
        }
        if std::mem::take(&mut slots.stale) {
            return Some(Mail::VolumeStale);
        }
        if std::mem::take(&mut slots.rehearse) {
            return Some(Mail::Rehearse);
        }
        if let Some(config) = slots.config.take() {
            return Some(Mail::Configure(config));
        }
        slots.look.take().map(Mail::Look)
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The earlier of two moments that may both be missing.
pub(crate) fn earliest(a: Option<Moment>, b: Option<Moment>) -> Option<Moment> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heal_core::{EffectId, IncidentId, LookCause};
    use heal_types::{
        ControllerName, ControllerState, DevT, DeviceName, DiskSeq, FastIoFail, HostAnswer,
        NamespaceIds, NamespaceSnapshot, Observed, Outcome, PathDoubt, PathHealth, PathSnapshot,
        SectorCount, UnknownWhy,
    };

    fn sight(begun: u64, signalled_at: Option<u64>) -> Sight {
        Sight {
            look: Box::new(Look {
                array: Observed::Known(None),
                namespaces: vec![],
                subsystems: vec![],
                cause: LookCause::Md,
            }),
            begun: Moment(begun),
            signalled_at: signalled_at.map(Moment),
        }
    }

    fn acted(number: u64) -> Event {
        Event::Acted {
            id: EffectId { incident: IncidentId(uuid::Uuid::nil()), number },
            answer: HostAnswer::from(Outcome::Changed),
        }
    }

    #[tokio::test]
    async fn the_newest_look_wins_and_keeps_the_first_sign() {
        let mailbox = Mailbox::default();
        mailbox.look(sight(1, Some(10)));
        mailbox.look(sight(2, None));
        mailbox.look(sight(3, Some(30)));
        let Mail::Look(sight) = mailbox.next().await else {
            panic!("a look was posted");
        };
        assert_eq!((sight.begun, sight.signalled_at), (Moment(3), Some(Moment(10))));
        assert!(mailbox.take().is_none());
    }

    /// A namespace with one path, on which that verdict stands.
    fn namespace(health: PathHealth) -> NamespaceSnapshot {
        NamespaceSnapshot {
            device: DeviceName::new("nvme1n1").unwrap(),
            dev: DevT { major: 259, minor: 1 },
            diskseq: Observed::Known(DiskSeq(1)),
            ids: Observed::Known(NamespaceIds::default()),
            nqn: Observed::Known("nqn.2014-08.com.example:a".parse().unwrap()),
            size: Observed::Known(SectorCount(8192)),
            logical_block: Observed::Known(512),
            read_only: Observed::Known(false),
            holders: Observed::Known(Vec::new()),
            in_use: Observed::Known(false),
            partitions: Observed::Known(0),
            paths: vec![PathSnapshot {
                controller: ControllerName::new("nvme1").unwrap(),
                state: Observed::Known(ControllerState::Live),
                portal: Observed::Unknown(UnknownWhy::NotReadYet),
                ana_usable: Observed::Known(true),
                health,
                fast_io_fail: Observed::Known(FastIoFail::Off),
                params: Observed::Unknown(UnknownWhy::NotReadYet),
            }],
        }
    }

    #[tokio::test]
    async fn a_verdict_that_overtakes_a_look_stands_in_that_look_as_well() {
        let dead = PathHealth::Dead(PathDoubt::LinkDown);
        let path = (ControllerName::new("nvme1").unwrap(), DeviceName::new("nvme1n1").unwrap());
        for (seen, heard) in [(dead, PathHealth::Up), (PathHealth::Up, dead)] {
            let mailbox = Mailbox::default();
            let mut sight = sight(1, None);
            sight.look.namespaces.push(namespace(seen));
            mailbox.look(sight);
            let mut news = PathNews::default();
            if heard != PathHealth::Up {
                news.verdicts.insert(path.clone(), heard);
            }
            mailbox.paths(news, Moment(2));
            assert!(matches!(mailbox.next().await, Mail::Paths(..)));
            let Mail::Look(sight) = mailbox.next().await else {
                panic!("a look was posted");
            };
            assert_eq!(sight.look.namespaces[0].paths[0].health, heard);
        }
    }

    #[tokio::test]
    async fn no_answer_is_dropped_however_many_looks_come() {
        let mailbox = Mailbox::default();
        for number in 0..100 {
            mailbox.answer(acted(number));
            mailbox.look(sight(number, None));
            mailbox.permitted();
            mailbox.volume_stale();
        }
        for number in 0..100 {
            assert!(matches!(mailbox.next().await, Mail::Answer(event) if event == acted(number)));
        }
        assert!(matches!(mailbox.next().await, Mail::Permitted));
        assert!(matches!(mailbox.next().await, Mail::VolumeStale));
        assert!(matches!(mailbox.next().await, Mail::Look(_)));
        assert!(mailbox.take().is_none());
    }

    #[tokio::test]
    async fn people_queue_up_to_a_bound() {
        let mailbox = Mailbox::default();
        let resume = || Operator::Resume { by: "uid=0".into() };
        for _ in 0..PEOPLE {
            assert!(mailbox.operator(resume()).is_some());
        }
        assert!(mailbox.operator(resume()).is_none());
    }
}
