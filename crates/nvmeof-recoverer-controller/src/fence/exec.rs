//! A fence that is a program: one JSON document in, one out.
//!
//! For whatever can take access away and say that it is gone: a management controller, a switch, a
//! vendor's array. The program lies in the controller's own image or a mounted folder; an object
//! names it and can say nothing else, no path and no argument.
//!
//! ```text
//!   in    {"version":1,"verb":"close","subsystem":"nqn…","namespace":"uuid.…","generation":7,
//!          "holders":[{"node":"n1","hostNqn":"nqn…"}],"admit":null}
//!   out   {"done":{}}  ·  {"again":"why"}  ·  {"refused":"why"}
//!         {"target":{"generation":7,"allowed":[],"any_host":false,"connected":[]}}     to "report"
//!         {"power":{"off":["n1"]}}                                                     to "report"
//! ```
//!
//! Verbs are `health`, `close`, `report` and `admit`. An exit code other than 0, silence or a
//! document that is none of these means "nobody knows", and is asked again.

use async_trait::async_trait;
use heal_types::fence::{Question, Told};
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::FenceHealth;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

use super::{Ask, Fence, answer, health, question};

/// How long a program may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A program that fences.
#[derive(Debug, Clone)]
pub struct ExecFence {
    program: PathBuf,
}

impl ExecFence {
    /// The program of that name in the folder of fences. The schema keeps the name to letters,
    /// digits and dashes; here nothing but a plain name is taken either.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        Self { program: folder.join(if plain { name } else { "no-such-fence" }) }
    }

    async fn run(&self, question: &Question) -> Result<Told, String> {
        let document = serde_json::to_vec(question).map_err(|error| error.to_string())?;
        let mut child = tokio::process::Command::new(&self.program)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("the fence cannot be started: {error}"))?;
        let stdin = child.stdin.take();
        let asked = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read its question may still answer it.
                let _ = stdin.write_all(&document).await;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(DEADLINE, asked)
            .await
            .map_err(|_| format!("the fence did not answer in {} s", DEADLINE.as_secs()))?
            .map_err(|error| format!("the fence was lost: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().last().unwrap_or_default();
            return Err(format!("the fence ended with {}: {said}", output.status));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("the fence's answer is not understood: {error}"))
    }
}

#[async_trait]
impl Fence for ExecFence {
    async fn health(&self) -> FenceHealth {
        health(&self.run(&Question::health()).await)
    }

    async fn ask(&self, ask: &Ask) -> Answer {
        answer(self.run(&question(ask)).await)
    }
}
