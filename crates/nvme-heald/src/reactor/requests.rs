//! What operators ask.

use std::path::Path;
use std::time::Duration;

use heal_core::{LookCause, Operator};
use heal_host::clock;
use heal_types::control::{Request, Response};
use heal_types::status::{ArrayStatus, Counters, Health, HostStatus, SCHEMA};
use heal_types::{ArrayId, HostSnapshot};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Reactor;
use crate::control::Inbound;
use crate::hints::Hint;
use crate::host::Host;
use crate::mailbox::{Mailbox, Question};

/// How long all actors together may take to answer a question.
const ANSWER: Duration = Duration::from_secs(3);
/// How long until a hold or its end is on disk, at most.
const DURABLE: Duration = Duration::from_secs(15);
/// The longest reason that is kept.
const MAX_REASON: usize = 500;

impl<H: Host> Reactor<H> {
    pub(super) fn requested(&mut self, inbound: Inbound) {
        let Inbound { request, peer, answer } = inbound;
        match request {
            Request::Status => {
                let head = self.status_head();
                let asked = self.ask_all();
                tokio::spawn(async move {
                    let status = gather(head, asked).await;
                    let _ = answer.send(Response::Status(Box::new(status)));
                });
            }
            Request::Explain { array } => match self.find(&array) {
                Ok((_, mailbox)) => {
                    tokio::spawn(async move {
                        let _ = answer.send(explain(&mailbox).await);
                    });
                }
                Err(why) => drop(answer.send(Response::Refused(why))),
            },
            Request::Hold { array, reason, duration } => {
                let reason = heal_provisioner::text::printable(reason.trim(), MAX_REASON);
                if reason.is_empty() {
                    let why = "a hold needs a reason".to_owned();
                    drop(answer.send(Response::Refused(why)));
                    return;
                }
                let said = Operator::Hold {
                    reason,
                    by: peer.to_string(),
                    until: duration.map(|after| clock::now().wall.after(after)),
                };
                self.operate(&array, said, "held", answer);
            }
            Request::Resume { array } => {
                let said = Operator::Resume { by: peer.to_string() };
                self.operate(&array, said, "resumed", answer);
            }
            Request::Look { array } => {
                self.knocked(array.as_deref());
                drop(answer.send(Response::Done("looking".to_owned())));
            }
        }
    }

    /// Somebody attached or detached a volume: there is something to see, and the provisioner may
    /// have something to say about an array that it did not know before.
    fn knocked(&mut self, array: Option<&str>) {
        self.looks.want(Hint { cause: LookCause::Asked, signalled_at: None });
        match array.map(|text| self.find(text)) {
            Some(Ok((_, mailbox))) => mailbox.volume_stale(),
            // It is not here yet, or not any more: the look will tell.
            Some(Err(_)) => {}
            None => {
                for seat in self.seats.values().filter(|seat| !seat.is_ours()) {
                    seat.mailbox.volume_stale();
                }
            }
        }
    }

    fn operate(
        &mut self,
        array: &str,
        said: Operator,
        done: &'static str,
        answer: oneshot::Sender<Response>,
    ) {
        let (name, mailbox) = match self.find(array) {
            Ok(found) => found,
            Err(why) => return drop(answer.send(Response::Refused(why))),
        };
        let Some(heard) = mailbox.operator(said) else {
            let why = format!("{name}: too many requests wait already");
            return drop(answer.send(Response::Refused(why)));
        };
        self.looks.want(Hint { cause: LookCause::Operator, signalled_at: None });
        tokio::spawn(async move {
            let until = Instant::now() + DURABLE;
            let response = match timeout_at(until, heard).await {
                Ok(Ok(())) => Response::Done(format!("{name}: {done}")),
                Ok(Err(_)) => Response::Refused(format!("{name}: the array is gone")),
                Err(_) => Response::Refused(format!("{name}: not {done} yet, the array is busy")),
            };
            let _ = answer.send(response);
        });
    }

    /// The array that a person means, and a name to answer with.
    fn find(&self, text: &str) -> Result<(String, Mailbox), String> {
        let found = match text.trim().parse::<ArrayId>() {
            Ok(id) => vec![id],
            Err(_) => named(self.snapshot.as_deref(), text.trim()),
        };
        let shown = heal_provisioner::text::printable(text.trim(), 80);
        match found.as_slice() {
            [] => Err(format!("there is no array {shown:?}")),
            [id] => match self.seats.get(id) {
                Some(seat) => Ok((shown, seat.mailbox.clone())),
                None => Err(format!("there is no array {shown:?}")),
            },
            _ => Err(format!("{shown:?} is the name of several arrays: use the UUID")),
        }
    }

    fn ask_all(&self) -> Vec<(ArrayId, String, oneshot::Receiver<ArrayStatus>)> {
        let device = |id: ArrayId| {
            let arrays = self.snapshot.iter().flat_map(|snapshot| &snapshot.arrays);
            let mut found = arrays.filter(|array| array.id == id);
            found.next().map_or("-".to_owned(), |array| array.device.to_string())
        };
        self.seats
            .iter()
            .map(|(id, seat)| {
                let (asker, answer) = oneshot::channel();
                seat.mailbox.ask(Question::Status(asker));
                (*id, device(*id), answer)
            })
            .collect()
    }

    fn status_head(&self) -> HostStatus {
        let config = &self.setup.config;
        let counted = self.setup.counted.now();
        let mut alarms: Vec<String> = self.alarms.values().cloned().collect();
        if !self.notifier.is_ready() {
            alarms.push("the first look is not done yet".to_owned());
        }
        if self.looks.is_stuck() {
            alarms.push("looking at the host hangs in the kernel".to_owned());
        }
        HostStatus {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: config.mode_word().to_owned(),
            provisioner: config.provisioner.name().to_owned(),
            at: clock::now().wall,
            arrays: Vec::new(),
            reaction: self.shared.reactions.summary(),
            isolation: self.board.isolations().summary(),
            counters: Counters {
                uevents: counted.uevents.received,
                overruns: counted.uevents.overruns + counted.links.overruns,
                forged: counted.uevents.forged + counted.links.forged,
                md_wakes: counted.md.wakes,
                looks: self.looks.done,
                journal_dropped: self.setup.journal.dropped(),
                stuck_children: self.setup.host.stuck_children(),
                safety_scans: self.looks.safety_scans,
            },
            alarms,
        }
    }
}

/// The arrays that go by `text`: kernel name, `/dev/md127`, `/dev/md/NAME`, or array name.
pub(super) fn named(snapshot: Option<&HostSnapshot>, text: &str) -> Vec<ArrayId> {
    let path = Path::new(text);
    let name = match path.strip_prefix("/dev/md").or_else(|_| path.strip_prefix("/dev")) {
        Ok(rest) => rest.to_str().unwrap_or_default(),
        Err(_) => text,
    };
    let mut found: Vec<ArrayId> = snapshot
        .iter()
        .flat_map(|snapshot| &snapshot.arrays)
        .filter(|array| {
            array.device.as_str() == name
                || array.alias.as_ref().is_some_and(|alias| alias.as_str() == name)
        })
        .map(|array| array.id)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

async fn gather(
    mut status: HostStatus,
    asked: Vec<(ArrayId, String, oneshot::Receiver<ArrayStatus>)>,
) -> HostStatus {
    let until = Instant::now() + ANSWER;
    for (id, device, answer) in asked {
        let array = match timeout_at(until, answer).await {
            Ok(Ok(array)) => array,
            // It ended between the question and the answer: there is nothing left of it.
            Ok(Err(_)) => continue,
            Err(_) => silent(id, device),
        };
        status.arrays.push(array);
    }
    status.arrays.sort_by(|a, b| a.device.cmp(&b.device).then_with(|| a.id.cmp(&b.id)));
    status
}

/// What can be said of an array whose actor does not answer.
fn silent(id: ArrayId, device: String) -> ArrayStatus {
    ArrayStatus {
        id: id.to_string(),
        device,
        alias: None,
        volume: None,
        health: Health::Held,
        phase: "unknown".to_owned(),
        array_state: "unknown".to_owned(),
        level: "unknown".to_owned(),
        summary: "the daemon is busy with this array and does not answer".to_owned(),
        incident: None,
        legs: Vec::new(),
        repairs: Vec::new(),
        owed_reports: Vec::new(),
        provisioner_age_seconds: None,
        provisioner_fault: None,
    }
}

async fn explain(mailbox: &Mailbox) -> Response {
    let (asker, answer) = oneshot::channel();
    mailbox.ask(Question::Explain(asker));
    match timeout_at(Instant::now() + ANSWER, answer).await {
        Ok(Ok(explanation)) => Response::Explanation(Box::new(explanation)),
        Ok(Err(_)) => Response::Refused("the array is gone".to_owned()),
        Err(_) => Response::Refused("the daemon is busy with this array".to_owned()),
    }
}
