//! The protocol over a program's standard input and output: one process, one question, one answer.
//!
//! This crate starts no processes. Whoever makes the backend hands it a [`Spawner`]; the daemon's
//! runs the program as a user of its own, locked in, with a deadline.
//!
//! ```text
//!   Document ──stdin──► program (own user, sandbox, deadline) ──stdout, bounded──► answer
//!                          │ hangs, dies, babbles, lies
//!                          ▼
//!                       a fault: the array goes on as if the provisioner were away
//! ```
//!
//! One program runs at a time. A program that hangs is ended at the call's deadline and costs that
//! call; one that hung five times in a row is left alone for a minute, so that a host in trouble
//! does not spend its time starting programs.

use std::fmt;
use std::sync::{Arc, Mutex as Cache, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use heal_types::{FaultClass, ProvisionerFault};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::CallContext;
use crate::protocol::{Carrier, Document, MAX_DOCUMENT, Remote};
use crate::text::printable;

/// As many calls in a row without an answer, and the program is left alone for a while.
const PATIENCE: u32 = 5;
/// For so long.
const REST: Duration = Duration::from_secs(60);

/// What became of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
        /// What it wrote, up to one byte more than [`MAX_DOCUMENT`].
        stdout: Vec<u8>,
        /// The end of what it complained of.
        stderr: String,
    },
    /// It was ended after its deadline, or by a signal.
    Killed,
    /// It was not started.
    NotStarted(String),
}

/// Runs the plugin's program once.
#[async_trait]
pub trait Spawner: Send + Sync + fmt::Debug {
    /// Starts the program, gives it `input`, and ends it after `limit`, with everything it started.
    async fn run(&self, input: Vec<u8>, limit: Duration) -> Ended;
}

/// The backend over a program.
pub type Exec = Remote<Program>;

/// Carries documents to a program.
#[derive(Debug)]
pub struct Program {
    spawner: Arc<dyn Spawner>,
    turn: Mutex<()>,
    tired: Cache<Tired>,
}

#[derive(Debug, Default)]
struct Tired {
    silent: u32,
    until: Option<Instant>,
}

/// Makes the backend.
#[must_use]
pub fn backend(spawner: Arc<dyn Spawner>) -> Exec {
    Remote::new(Program { spawner, turn: Mutex::default(), tired: Cache::default() })
}

fn unreachable(detail: impl fmt::Display) -> ProvisionerFault {
    ProvisionerFault::new(FaultClass::Unreachable, detail)
}

impl Program {
    fn rested(&self) -> Result<(), ProvisionerFault> {
        let tired = self.tired.lock().unwrap_or_else(PoisonError::into_inner);
        match tired.until {
            Some(until) if Instant::now() < until => Err(unreachable(
                "the program did not answer several times in a row: it is left alone for a minute",
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn note(&self, answered: bool) {
        let mut tired = self.tired.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            *tired = Tired::default();
            return;
        }
        tired.silent += 1;
        if tired.silent >= PATIENCE {
            tired.until = Some(Instant::now() + REST);
            tracing::warn!(silent = tired.silent, "the provisioner's program does not answer");
        }
    }
}

#[async_trait]
impl Carrier for Program {
    fn name(&self) -> &str {
        "exec"
    }

    async fn carry(
        &self,
        context: &CallContext,
        document: Document,
    ) -> Result<Vec<u8>, ProvisionerFault> {
        let _turn = timeout_at(context.deadline, self.turn.lock())
            .await
            .map_err(|_| unreachable("an earlier call is still under way"))?;
        self.rested()?;
        let ended = self.spawner.run(document.body, context.remaining()).await;
        // A wrong answer is one: only silence is tiring.
        self.note(matches!(ended, Ended::Exited { code: 0, .. }));
        match ended {
            // Whoever is not listened to any longer may die of it: that is no other fault.
            Ended::Exited { stdout, .. } if stdout.len() > MAX_DOCUMENT => {
                Err(ProvisionerFault::new(
                    FaultClass::Invalid,
                    format_args!("an answer of more than {MAX_DOCUMENT} bytes"),
                ))
            }
            Ended::Exited { code: 0, stdout, .. } => Ok(stdout),
            Ended::Exited { code, stderr, .. } => Err(unreachable(format_args!(
                "the program ended with code {code}: {}",
                printable(stderr.trim(), 200)
            ))),
            Ended::Killed => Err(unreachable("the program did not answer in time, and was ended")),
            Ended::NotStarted(why) => {
                Err(unreachable(format_args!("the program was not started: {why}")))
            }
        }
    }
}
