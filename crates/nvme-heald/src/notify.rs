//! The word to systemd: ready, how it stands, still alive, stopping.

use std::time::Duration;

use heal_types::status::Health;
use sd_notify::NotifyState;
use tokio::time::Instant;

use crate::report::Brief;

/// The status text changes no more often than this: each one is a message to everybody who listens
/// on systemd's bus.
const STATUS_REST: Duration = Duration::from_secs(2);

/// What systemd was told.
#[derive(Debug)]
pub(crate) struct Notifier {
    ready: bool,
    said: String,
    wanted: String,
    next_status: Instant,
    watchdog: Option<Duration>,
    next_feed: Instant,
}

impl Notifier {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            ready: false,
            said: String::new(),
            wanted: String::new(),
            next_status: now,
            // A third of the time, so that one late turn of the loop kills nobody.
            watchdog: sd_notify::watchdog_enabled().map(|period| period / 3),
            next_feed: now,
        }
    }

    /// The first full look was handled.
    pub(crate) fn ready(&mut self) {
        if !self.ready {
            self.ready = true;
            send(&[NotifyState::Ready]);
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// How it stands now; said when it is time.
    pub(crate) fn status(&mut self, text: String) {
        self.wanted = text;
    }

    pub(crate) fn stopping(&self) {
        send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// When to call [`Notifier::turn`] again at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let status = (self.wanted != self.said).then_some(self.next_status);
        let feed = self.watchdog.map(|_| self.next_feed);
        match (status, feed) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, None) | (None, one) => one,
        }
    }

    /// One turn of the reactor's loop. `healthy`: the loop does its work, so the watchdog is fed.
    pub(crate) fn turn(&mut self, healthy: bool) {
        let now = Instant::now();
        if self.wanted != self.said && now >= self.next_status {
            self.said.clone_from(&self.wanted);
            self.next_status = now + STATUS_REST;
            send(&[NotifyState::Status(&self.said)]);
        }
        if let Some(period) = self.watchdog {
            if now >= self.next_feed {
                self.next_feed = now + period;
                if healthy {
                    send(&[NotifyState::Watchdog]);
                }
            }
        }
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not reached");
    }
}

/// `3 arrays: 2 whole, 1 rebuilding 42 %`.
pub(crate) fn status_line<'a>(briefs: impl Iterator<Item = Option<&'a Brief>>) -> String {
    let (mut arrays, mut unknown) = (0_usize, 0_usize);
    let mut counts = [0_usize; 5];
    let (mut rebuilding, mut percent) = (0_usize, None);
    for brief in briefs {
        arrays += 1;
        let Some(brief) = brief else {
            unknown += 1;
            continue;
        };
        if let (Health::Healing, Some(done)) = (brief.health, brief.percent) {
            rebuilding += 1;
            percent = Some(percent.map_or(done, |least: u8| least.min(done)));
            continue;
        }
        let place = match brief.health {
            Health::Optimal => 0,
            Health::Healing => 1,
            Health::Held => 2,
            Health::Quarantined => 3,
            Health::Observed => 4,
        };
        counts[place] += 1;
    }
    let mut parts = Vec::new();
    let mut part = |count: usize, word: &str| {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    };
    part(counts[3], "quarantined");
    part(counts[2], "held");
    part(counts[1], "healing");
    if let Some(done) = percent {
        part(rebuilding, &format!("rebuilding {done} %"));
    }
    part(counts[0], "whole");
    part(counts[4], "observed");
    part(unknown, "not looked at yet");
    match arrays {
        0 => "no arrays".to_owned(),
        1 => format!("1 array: {}", parts.join(", ")),
        _ => format!("{arrays} arrays: {}", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_says_what_matters_first() {
        let brief = |health, percent| Brief {
            health,
            percent,
            managed: Default::default(),
            lost_of_ours: None,
            isolates_after: None,
        };
        let briefs = [
            brief(Health::Optimal, None),
            brief(Health::Optimal, None),
            brief(Health::Healing, Some(42)),
            brief(Health::Quarantined, None),
        ];
        assert_eq!(
            status_line(briefs.iter().map(Some).chain([None])),
            "5 arrays: 1 quarantined, 1 rebuilding 42 %, 2 whole, 1 not looked at yet"
        );
        assert_eq!(status_line(std::iter::empty()), "no arrays");
    }
}
