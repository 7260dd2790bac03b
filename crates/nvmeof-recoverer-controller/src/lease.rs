//! Who leads, by our own clock.
//!
//! ```text
//!   held by us            ─► renew ──────────────────────► leads until: when we asked + duration - margin
//!   held by somebody else ─► did it change since we last looked? yes: note when *we* saw it
//!                                                        no, for its whole duration: take it
//! ```
//!
//! What stands in a Lease was written by another machine's clock; here it is only compared with
//! what stood there before, never with the time of day. Every write carries the resource version
//! that it was decided from, so of two that take it at once one is refused. A leader counts from
//! the moment *before* it asked, and stops by itself when no answer comes.
//!
//! The renewal is also our echo. The Lease lies among those of the nodes and comes back to us
//! through the same watch: once we see it, everything else the watch has shown is at least as
//! fresh.
//!
//! Leadership only saves work. Two leaders are not a danger: objects are written by version, and
//! every target keeps the newest token.

use heal_types::Moment;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::config::LeaseOptions;

/// What to do with the Lease as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    /// It is ours.
    Renew,
    /// It is nobody's, or its holder is gone.
    Take,
    /// Somebody else leads.
    Wait,
}

/// How many of our renewals are remembered until they come back.
const ECHOES: usize = 16;

/// What stood in a Lease that somebody else holds, and when we saw that first.
#[derive(Debug, Default)]
struct Seen(Option<(String, Option<MicroTime>, Moment)>);

impl Seen {
    fn judge(&mut self, spec: &LeaseSpec, us: &str, now: Moment, default: u64) -> Judgement {
        let holder = match spec.holder_identity.as_deref() {
            None | Some("") => return Judgement::Take,
            Some(holder) if holder == us => return Judgement::Renew,
            Some(holder) => holder.to_owned(),
        };
        let renewed = spec.renew_time.clone();
        let since = match &self.0 {
            Some((known, at, since)) if *known == holder && *at == renewed => *since,
            Some(_) | None => {
                self.0 = Some((holder, renewed, now));
                now
            }
        };
        let lasts = spec.lease_duration_seconds.and_then(|it| u64::try_from(it).ok());
        let lasts = Duration::from_secs(lasts.unwrap_or(default));
        if now.since(since) >= lasts { Judgement::Take } else { Judgement::Wait }
    }
}

/// Until when we lead, as it was last heard; for whoever acts.
#[derive(Debug, Clone)]
pub struct Leads(pub tokio::sync::watch::Receiver<Option<Moment>>);

impl Leads {
    /// Whether we lead at this moment.
    #[must_use]
    pub fn now(&self) -> bool {
        let until = *self.0.borrow();
        until.is_some_and(|until| clock::now().mono < until)
    }
}

/// One candidate.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    options: LeaseOptions,
    identity: String,
    seen: Seen,
    echoes: Arc<Echoes>,
}

/// Our renewals, until they come back through a watch.
#[derive(Debug, Default)]
pub struct Echoes(Mutex<VecDeque<(MicroTime, Moment)>>);

impl Echoes {
    /// When we asked for the renewal that this Lease shows, if it is one of ours.
    #[must_use]
    pub fn asked(&self, lease: &LeaseSpec) -> Option<Moment> {
        let shown = lease.renew_time.as_ref()?;
        let renewals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        renewals.iter().find(|(renewed, _)| renewed == shown).map(|(_, asked)| *asked)
    }

    fn remember(&self, renewed: MicroTime, asked: Moment) {
        let mut renewals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        renewals.push_back((renewed, asked));
        if renewals.len() > ECHOES {
            renewals.pop_front();
        }
    }
}

impl Candidate {
    /// A candidate of that name.
    #[must_use]
    pub fn new(api: Api<Lease>, options: LeaseOptions, identity: String) -> Self {
        Self { api, options, identity, seen: Seen::default(), echoes: Arc::default() }
    }

    /// Its renewals, for whoever watches the Lease.
    #[must_use]
    pub fn echoes(&self) -> Arc<Echoes> {
        Arc::clone(&self.echoes)
    }

    /// Renews or takes it; until when that lets us lead, or nothing.
    ///
    /// # Errors
    /// When the API server does not answer: who leads, goes on until its time is over.
    pub async fn campaign(&mut self, now: Moment) -> Result<Option<Moment>, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.options.name).await? else {
            let spec = self.claim(None, now);
            let metadata =
                ObjectMeta { name: Some(self.options.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            return self.written(self.api.create(&PostParams::default(), &lease).await, now);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let lasts = self.options.duration.as_secs();
        match self.seen.judge(&spec, &self.identity, now, lasts) {
            Judgement::Wait => Ok(None),
            Judgement::Renew | Judgement::Take => {
                let spec = self.claim(Some(&spec), now);
                let lease = Lease { spec: Some(spec), ..lease };
                let name = self.options.name.clone();
                self.written(self.api.replace(&name, &PostParams::default(), &lease).await, now)
            }
        }
    }

    /// Gives it up, so that nobody has to wait.
    pub async fn resign(&mut self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.options.name).await else { return };
        if let Some(spec) =
            lease.spec.as_mut().filter(|it| it.holder_identity.as_ref() == Some(&self.identity))
        {
            spec.holder_identity = None;
            // Whoever wants it does not have to be told: it is taken at the next look.
            let _ = self.api.replace(&self.options.name, &PostParams::default(), &lease).await;
        }
    }

    fn claim(&self, before: Option<&LeaseSpec>, now: Moment) -> LeaseSpec {
        let stamp = stamp(jiff::Timestamp::now());
        let ours = before.is_some_and(|it| it.holder_identity.as_ref() == Some(&self.identity));
        let taken = before.filter(|_| ours).and_then(|it| it.acquire_time.clone());
        let changes = before.and_then(|it| it.lease_transitions).unwrap_or_default();
        self.echoes.remember(stamp.clone(), now);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.options.duration.as_secs()).ok(),
            acquire_time: taken.or(Some(stamp.clone())),
            renew_time: Some(stamp),
            lease_transitions: Some(if ours { changes } else { changes.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    fn written(
        &self,
        answer: Result<Lease, kube::Error>,
        asked: Moment,
    ) -> Result<Option<Moment>, kube::Error> {
        match answer {
            Ok(_) => {
                Ok(Some(asked.after(self.options.duration.saturating_sub(self.options.margin))))
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// As fine as a Lease can hold: what comes back is compared with what was sent.
fn stamp(now: jiff::Timestamp) -> MicroTime {
    MicroTime(jiff::Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: u64 = 15;

    fn at(second: u64) -> Moment {
        Moment(second * 1_000_000_000)
    }

    fn held(by: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(by.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(jiff::Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_we_saw_it_unchanged_for_as_long_as_it_lasts() {
        let mut seen = Seen::default();
        // Its time stamp is years off, either way: nobody looks at that.
        for (second, renewed) in [(100, 5), (110, 4_000_000_000)] {
            assert_eq!(seen.judge(&held("a", renewed), "b", at(second), LASTS), Judgement::Wait);
        }
        let last = held("a", 4_000_000_000);
        assert_eq!(seen.judge(&last, "b", at(124), LASTS), Judgement::Wait);
        assert_eq!(seen.judge(&last, "b", at(125), LASTS), Judgement::Take);
    }

    #[test]
    fn a_renewal_is_known_again_when_it_comes_back() {
        let echoes = Echoes::default();
        let sent = stamp(jiff::Timestamp::new(1_700_000_000, 123_456_789).unwrap());
        echoes.remember(sent.clone(), at(7));
        let lease = LeaseSpec { renew_time: Some(sent), ..LeaseSpec::default() };
        let wire = serde_json::to_vec(&lease).unwrap();
        assert_eq!(echoes.asked(&serde_json::from_slice(&wire).unwrap()), Some(at(7)));
        assert_eq!(echoes.asked(&held("b", 1)), None, "somebody else's");
    }

    #[test]
    fn a_holder_that_renews_is_never_taken_from() {
        let mut seen = Seen::default();
        for second in 0..100 {
            let lease = held("a", i64::try_from(second).unwrap());
            assert_eq!(seen.judge(&lease, "b", at(second), LASTS), Judgement::Wait);
        }
    }

    #[test]
    fn what_is_ours_is_renewed_and_what_is_nobodys_is_taken_at_once() {
        let mut seen = Seen::default();
        assert_eq!(seen.judge(&held("b", 1), "b", at(0), LASTS), Judgement::Renew);
        assert_eq!(seen.judge(&held("", 1), "b", at(0), LASTS), Judgement::Take);
        assert_eq!(seen.judge(&LeaseSpec::default(), "b", at(0), LASTS), Judgement::Take);
    }
}
