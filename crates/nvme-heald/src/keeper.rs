//! The ledger on a thread of its own, so that a disk that hangs holds nobody but the act it should.
//!
//! `fsync` on a dying disk takes minutes, and no deadline can be put on a system call. So one
//! thread owns the ledger, and whoever saves waits for it only so long. A save that is given up on
//! is not done later, when its decision is old; one that already began may still end, which is
//! harmless: the newest generation counts.
//!
//! The price: one disk for all arrays, and one thread. An array whose record waits behind another
//! one's stalled `fsync` waits as well; its own would have stalled on the same disk.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use heal_core::record::ArrayRecord;
use heal_host::{Ledger, LedgerError, LedgerHome, Records, Settled, priority};
use heal_types::ArrayId;
use tokio::sync::oneshot;

/// How long an array waits for its record to be on disk.
pub(crate) const SAVE_LIMIT: Duration = Duration::from_secs(5);

/// Records as they were found, each readable or with the reason why not.
pub(crate) type Found = Vec<(ArrayId, Result<ArrayRecord, String>)>;

/// The way to the thread.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    tasks: mpsc::Sender<Task>,
}

#[derive(Debug)]
enum Task {
    Save { record: Box<ArrayRecord>, answer: oneshot::Sender<Result<(), String>> },
    Remove { array: ArrayId, answer: oneshot::Sender<Result<(), String>> },
    Settle { answer: oneshot::Sender<Home> },
}

/// Where records go now.
#[derive(Debug)]
pub(crate) enum Home {
    /// To the durable place; `late` are records that only it had.
    Durable {
        /// See there.
        late: Found,
    },
    /// To `/run` only.
    NotDurable,
}

impl Keeper {
    /// Starts the thread over `ledger`.
    pub(crate) fn start(ledger: Ledger<ArrayRecord>) -> io::Result<Self> {
        let (tasks, inbox) = mpsc::channel();
        std::thread::Builder::new().name("ledger".into()).spawn(move || {
            priority::step_back();
            keep(ledger, &inbox);
        })?;
        Ok(Self { tasks })
    }

    /// One whose disk hangs, and the other end of it.
    #[cfg(test)]
    pub(crate) fn hanging() -> (Self, impl Sized) {
        let (tasks, inbox) = mpsc::channel();
        (Self { tasks }, inbox)
    }

    /// Saves `record`; `Ok` means that it is on disk.
    pub(crate) async fn save(&self, record: ArrayRecord) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let record = Box::new(record);
        self.ask(Task::Save { record, answer }, answered).await
    }

    /// Forgets `array`.
    pub(crate) async fn remove(&self, array: ArrayId) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        self.ask(Task::Remove { array, answer }, answered).await
    }

    /// Moves to the durable place if it is there by now, however long its disk takes: what was
    /// found there is told once. `None`: the ledger's thread is gone.
    pub(crate) async fn settle(self) -> Option<Home> {
        let (answer, answered) = oneshot::channel();
        self.tasks.send(Task::Settle { answer }).ok()?;
        answered.await.ok()
    }

    async fn ask(
        &self,
        task: Task,
        answered: oneshot::Receiver<Result<(), String>>,
    ) -> Result<(), String> {
        let gone = || "the ledger's thread is gone".to_owned();
        self.tasks.send(task).map_err(|_| gone())?;
        match tokio::time::timeout(SAVE_LIMIT, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(format!("the disk did not answer within {SAVE_LIMIT:?}")),
        }
    }
}

fn keep(mut ledger: Ledger<ArrayRecord>, inbox: &mpsc::Receiver<Task>) {
    while let Ok(task) = inbox.recv() {
        match task {
            Task::Save { record, answer } => {
                if !answer.is_closed() {
                    let saved = ledger.save(record.array, &record);
                    let _ = answer.send(saved.map_err(|error| chain(&error)));
                }
            }
            Task::Remove { array, answer } => {
                if !answer.is_closed() {
                    let removed = ledger.remove(array);
                    let _ = answer.send(removed.map_err(|error| chain(&error)));
                }
            }
            Task::Settle { answer } => {
                let _ = answer.send(settle(&mut ledger));
            }
        }
    }
}

fn settle(ledger: &mut Ledger<ArrayRecord>) -> Home {
    match ledger.settle() {
        Ok(Settled::Moved { late }) => Home::Durable { late: found(late) },
        Ok(Settled::Already) => Home::Durable { late: Vec::new() },
        Ok(Settled::NotYet) => Home::NotDurable,
        Err(error) => {
            tracing::warn!(error = chain(&error), "the ledger cannot be moved");
            match ledger.home() {
                LedgerHome::Primary => Home::Durable { late: Vec::new() },
                LedgerHome::Fallback => Home::NotDurable,
            }
        }
    }
}

/// Everything `ledger` holds.
pub(crate) fn load(ledger: &mut Ledger<ArrayRecord>) -> Result<Found, LedgerError> {
    Ok(found(ledger.load_all()?))
}

fn found(records: Records<ArrayRecord>) -> Found {
    records
        .into_iter()
        .map(|(array, record)| {
            let checked = match record {
                Ok(record) if record.array != array => {
                    Err(format!("it is the record of array {}", record.array))
                }
                Ok(record) if record.schema != heal_core::record::SCHEMA => {
                    Err(format!("its form is version {}", record.schema))
                }
                Ok(record) => Ok(record),
                Err(error) => Err(chain(&error)),
            };
            (array, checked)
        })
        .collect()
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
