//! When to look: one look at a time, never earlier than something asked for it.

use std::sync::Arc;
use std::time::Duration;

use heal_core::LookCause;
use heal_host::clock;
use heal_types::{ArraySnapshot, HostSnapshot, Moment, NamespaceSnapshot, Observed, UnknownWhy};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::hints::Hint;
use crate::mailbox::earliest;

/// Hints come in bursts: a lost leg is told by mdstat, by several attributes and by uevents within
/// the same millisecond.
const GATHER: Duration = Duration::from_millis(1);
/// A link's own event says all there is to say of it, and what follows from it has to come first: a
/// look at the same moment would only take the processor from that.
const GATHER_LINKS: Duration = Duration::from_millis(50);
/// The kernel fills a new device's attributes within milliseconds, udev within some hundred.
const AGAIN_MIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// Looks in a row that found something unfilled before it is left to the next event: two minutes.
const AGAIN_TIMES: u32 = 64;
/// A look takes milliseconds. One that takes this long hangs in the kernel.
const STUCK: Duration = Duration::from_secs(20);
/// What is added to or taken from the safety scan's period, in parts of it.
const JITTER: u32 = 10;

/// One look, done.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) snapshot: Arc<HostSnapshot>,
    pub(super) begun: Moment,
    pub(super) cause: LookCause,
    pub(super) signalled_at: Option<Moment>,
}

#[derive(Debug)]
struct Wanted {
    hint: Hint,
    at: Instant,
}

#[derive(Debug)]
struct UnderWay {
    thread: JoinHandle<HostSnapshot>,
    hint: Hint,
    begun: Moment,
    since: Instant,
}

/// The look that is wanted, the one under way, and why there may be more.
#[derive(Debug)]
pub(super) struct Looks {
    wanted: Option<Wanted>,
    under_way: Option<UnderWay>,
    again: Duration,
    again_at: Option<Instant>,
    again_times: u32,
    period: Option<Duration>,
    safety_at: Option<Instant>,
    pub(super) done: u64,
    pub(super) safety_scans: u64,
}

impl Looks {
    pub(super) fn new(period: Option<Duration>) -> Self {
        let mut looks = Self {
            wanted: None,
            under_way: None,
            again: AGAIN_MIN,
            again_at: None,
            again_times: 0,
            period,
            safety_at: None,
            done: 0,
            safety_scans: 0,
        };
        looks.plan_safety_scan();
        looks
    }

    /// Something happened: look soon.
    pub(super) fn want(&mut self, hint: Hint) {
        self.again = AGAIN_MIN;
        self.again_times = 0;
        let gather = if hint.cause == LookCause::Link { GATHER_LINKS } else { GATHER };
        self.add(hint, Instant::now() + gather);
    }

    /// A machine asks for another look: it gets one, later each time.
    pub(super) fn want_again(&mut self) {
        if self.again_at.is_none() {
            self.again_at = Some(Instant::now() + self.again);
            self.again = (self.again * 2).min(AGAIN_MAX);
        }
    }

    /// The look found something that is not filled in yet. Some targets never fill it in, so that
    /// is a reason for so many looks only.
    pub(super) fn want_filled(&mut self) {
        if self.again_at.is_none() && self.again_times < AGAIN_TIMES {
            self.again_times += 1;
            self.want_again();
        }
    }

    /// The first sign of what `looked` shows may have been told only now, although it came before
    /// the look began: it belongs to that look.
    pub(super) fn belongs_to(&self, looked: &mut Looked) {
        let told = self.wanted.as_ref().and_then(|wanted| wanted.hint.signalled_at);
        if let Some(at) = told.filter(|at| *at <= looked.begun) {
            looked.signalled_at = earliest(looked.signalled_at, Some(at));
        }
    }

    fn add(&mut self, hint: Hint, at: Instant) {
        match &mut self.wanted {
            Some(wanted) => {
                wanted.hint.signalled_at = earliest(wanted.hint.signalled_at, hint.signalled_at);
                if rank(&hint.cause) < rank(&wanted.hint.cause) {
                    wanted.hint.cause = hint.cause;
                }
                wanted.at = wanted.at.min(at);
            }
            None => self.wanted = Some(Wanted { hint, at }),
        }
    }

    pub(super) fn is_due(&self) -> bool {
        let due = |wanted: &Wanted| wanted.at <= Instant::now();
        self.under_way.is_none() && self.wanted.as_ref().is_some_and(due)
    }

    /// Looks, on a thread that may block.
    pub(super) fn begin(&mut self, look: impl FnOnce() -> HostSnapshot + Send + 'static) {
        if let Some(wanted) = self.wanted.take() {
            self.under_way = Some(UnderWay {
                begun: clock::moment(),
                thread: tokio::task::spawn_blocking(look),
                hint: wanted.hint,
                since: Instant::now(),
            });
        }
    }

    /// The end of the look under way; `None` if it broke off. Safe to drop while it waits.
    pub(super) async fn ended(&mut self) -> Option<Looked> {
        let Some(under_way) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let ended = (&mut under_way.thread).await;
        let under_way = self.under_way.take()?;
        match ended {
            Ok(snapshot) => {
                self.done += 1;
                self.plan_safety_scan();
                Some(Looked {
                    snapshot: Arc::new(snapshot),
                    begun: under_way.begun,
                    cause: under_way.hint.cause,
                    signalled_at: under_way.hint.signalled_at,
                })
            }
            Err(error) => {
                // Nothing is concluded from it; what asked for it still wants to know.
                tracing::error!(%error, "a look broke off");
                self.add(under_way.hint, Instant::now() + AGAIN_MAX);
                None
            }
        }
    }

    /// Whether the look under way hangs: then the loop goes round, but sees nothing.
    pub(super) fn is_stuck(&self) -> bool {
        self.under_way.as_ref().is_some_and(|look| look.since.elapsed() > STUCK)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let wanted = match &self.under_way {
            Some(_) => None,
            None => self.wanted.as_ref().map(|wanted| wanted.at),
        };
        [wanted, self.again_at, self.safety_at].into_iter().flatten().min()
    }

    /// Answers whether the slow scan begins.
    pub(super) fn time_passed(&mut self, now: Instant) -> bool {
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            self.add(hint(LookCause::Asked), now);
        }
        let scans = self.safety_at.is_some_and(|at| at <= now);
        if scans {
            self.safety_scans += 1;
            self.plan_safety_scan();
            self.add(hint(LookCause::SafetyScan), now);
        }
        scans
    }

    /// Any look is as good as the scan, so the scan's time begins anew with each. The jitter keeps
    /// a thousand hosts that were switched on together from scanning together.
    fn plan_safety_scan(&mut self) {
        self.safety_at = self.period.map(|period| {
            let spread = period / JITTER;
            let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1);
            let random = Duration::from_nanos(clock::moment().0.wrapping_mul(0x9e37_79b9) % nanos);
            Instant::now() + period - spread / 2 + random
        });
    }
}

fn hint(cause: LookCause) -> Hint {
    Hint { cause, signalled_at: None }
}

/// Which of several reasons for one look is told: the most telling.
fn rank(cause: &LookCause) -> u8 {
    match cause {
        LookCause::Start => 0,
        LookCause::Overrun => 1,
        LookCause::Md => 2,
        LookCause::Uevent { .. } => 3,
        LookCause::Operator => 4,
        LookCause::OwnAction => 5,
        LookCause::Link => 6,
        LookCause::KernelLog => 7,
        LookCause::Asked => 8,
        LookCause::SafetyScan => 9,
    }
}

/// Whether a namespace's attributes are still to come, or the name of an array that stands on some:
/// udev reads it after the array was started, and tells nobody whom we hear.
pub(super) fn is_unfilled(snapshot: &HostSnapshot) -> bool {
    fn pending<T>(fact: &Observed<T>) -> bool {
        match fact {
            Observed::Known(_) => false,
            Observed::Unknown(why) => match why {
                UnknownWhy::NotFilledYet | UnknownWhy::Vanished => true,
                UnknownWhy::NotReadYet
                | UnknownWhy::ReadFailed
                | UnknownWhy::Malformed
                | UnknownWhy::WouldBlock
                | UnknownWhy::NoAnswer
                | UnknownWhy::Unsupported => false,
            },
        }
    }
    let namespace = |namespace: &NamespaceSnapshot| {
        pending(&namespace.ids)
            || namespace.ids.is_known_and(|ids| ids.is_empty())
            || pending(&namespace.nqn)
            || pending(&namespace.size)
            || pending(&namespace.holders)
    };
    let nameless = |array: &ArraySnapshot| {
        array.alias.is_none() && array.legs.iter().any(|leg| leg.backing.namespace().is_some())
    };
    snapshot.namespaces.iter().any(namespace) || snapshot.arrays.iter().any(nameless)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn md(at: u64) -> Hint {
        Hint { cause: LookCause::Md, signalled_at: Some(Moment(at)) }
    }

    #[tokio::test(start_paused = true)]
    async fn hints_during_a_look_ask_for_exactly_one_more() {
        let mut looks = Looks::new(None);
        looks.want(md(5));
        tokio::time::advance(GATHER).await;
        assert!(looks.is_due());
        looks.begin(HostSnapshot::default);
        for at in [30, 20, 40] {
            looks.want(hint(LookCause::Link));
            looks.want(md(at));
        }
        tokio::time::advance(GATHER).await;
        assert!(!looks.is_due(), "one look at a time");
        let looked = looks.ended().await.unwrap();
        assert_eq!((looked.cause, looked.signalled_at), (LookCause::Md, Some(Moment(5))));
        assert!(looks.is_due());
        looks.begin(HostSnapshot::default);
        let looked = looks.ended().await.unwrap();
        assert_eq!((looked.cause, looked.signalled_at), (LookCause::Md, Some(Moment(20))));
        assert!(!looks.is_due() && looks.deadline().is_none());
        assert_eq!(looks.done, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_filled_yet_is_looked_at_later_each_time_and_not_for_ever() {
        let mut looks = Looks::new(None);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let asked = Instant::now();
            looks.want_again();
            let at = looks.deadline().unwrap();
            waits.push(at.duration_since(asked).as_millis());
            tokio::time::advance(at.duration_since(asked)).await;
            looks.time_passed(Instant::now());
            looks.begin(HostSnapshot::default);
            assert_eq!(looks.ended().await.unwrap().cause, LookCause::Asked);
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        for _ in 0..AGAIN_TIMES {
            looks.want_filled();
            assert!(looks.again_at.take().is_some());
        }
        looks.want_filled();
        assert_eq!(looks.deadline(), None);
        looks.want(md(1));
        looks.want_filled();
        assert!(looks.again_at.is_some(), "a new event begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn the_safety_scan_can_be_switched_off_and_keeps_near_its_period() {
        assert_eq!(Looks::new(None).deadline(), None);
        let looks = Looks::new(Some(Duration::from_secs(60)));
        let wait = looks.deadline().unwrap().duration_since(Instant::now());
        assert!((57..=63).contains(&wait.as_secs()), "{wait:?}");
    }

    #[tokio::test]
    async fn a_look_that_breaks_off_concludes_nothing_and_is_made_again() {
        let mut looks = Looks::new(None);
        looks.want(md(1));
        looks.begin(|| panic!("the look broke"));
        assert!(looks.ended().await.is_none());
        assert!(looks.wanted.is_some() && looks.deadline().is_some());
    }
}
