//! The `ceph` command, as a child with a deadline and a clean environment.

use async_trait::async_trait;
use heal_types::cluster::OsdId;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use super::crush::{AdoptStep, CrushTree};
use super::read::{self, Places};
use super::{Ceph, CephError, MonReport};

/// How the command is called.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program, by its absolute path.
    pub program: PathBuf,
    /// What stands before every question: `--name`, `--keyfile`.
    pub options: Vec<String>,
    /// The file in which Rook says where the mons are; read anew for each question, as they move.
    pub mon_endpoints: Option<PathBuf>,
    /// How long an answer may take.
    pub deadline: Duration,
}

/// The longest piece of its complaints that is kept.
const SAID: usize = 200;

/// `ok-to-stop`'s way to say no.
const EBUSY: i32 = 16;

impl Command {
    async fn output(&self, arguments: &[&str]) -> Result<Output, CephError> {
        let asked = || arguments.join(" ");
        let program = || self.program.display().to_string();
        let mons = match &self.mon_endpoints {
            None => None,
            Some(file) => match std::fs::read_to_string(file) {
                Ok(text) => Some(mon_hosts(&text)),
                Err(source) => return Err(CephError::Start { program: program(), source }),
            },
        };
        let child = tokio::process::Command::new(&self.program)
            .args(mons.iter().flat_map(|hosts| ["--mon-host", hosts.as_str()]))
            .args(&self.options)
            .args(arguments)
            .args(["--format", "json"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        match tokio::time::timeout(self.deadline, child).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(source)) => Err(CephError::Start { program: program(), source }),
            Err(_) => Err(CephError::Silent { asked: asked(), after: self.deadline }),
        }
    }

    async fn done(&self, arguments: &[&str]) -> Result<Output, CephError> {
        let output = self.output(arguments).await?;
        if output.status.success() { Ok(output) } else { Err(refused(arguments, &output)) }
    }

    async fn ask<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T, CephError> {
        let output = self.done(arguments).await?;
        serde_json::from_slice(&output.stdout)
            .map_err(|source| CephError::Strange { asked: arguments.join(" "), source })
    }
}

/// From `a=10.0.0.1:6789,b=10.0.0.2:6789`, as Rook writes it.
fn mon_hosts(endpoints: &str) -> String {
    let hosts = endpoints.trim().split(',').filter_map(|mon| mon.split_once('=')).map(|(_, it)| it);
    hosts.collect::<Vec<_>>().join(",")
}

fn refused(arguments: &[&str], output: &Output) -> CephError {
    let said = String::from_utf8_lossy(&output.stderr);
    let skip = said.chars().count().saturating_sub(SAID);
    CephError::Refused {
        asked: arguments.join(" "),
        code: output.status.code().unwrap_or(-1),
        said: said.chars().skip(skip).collect::<String>().trim().to_owned(),
    }
}

/// A cluster behind the command, from release 16 on.
#[derive(Debug)]
pub struct Ceph16 {
    command: Command,
    /// What was read at which epoch of the map.
    places: Mutex<Option<(u64, Places)>>,
}

impl Ceph16 {
    /// Asks with this command.
    #[must_use]
    pub fn new(command: Command) -> Self {
        Self { command, places: Mutex::new(None) }
    }

    async fn places(&self, epoch: u64) -> Result<Places, CephError> {
        let known = self.places.lock().map_or(None, |places| places.clone());
        if let Some((_, places)) = known.filter(|(read_at, _)| *read_at == epoch) {
            return Ok(places);
        }
        let (metadata, tree) = tokio::join!(
            self.command.ask(&["osd", "metadata"]),
            self.command.ask(&["osd", "tree"])
        );
        let places = Places::new(metadata?, &tree?);
        if let Ok(mut kept) = self.places.lock() {
            *kept = Some((epoch, places.clone()));
        }
        Ok(places)
    }
}

impl Ceph16 {
    /// Where everything lies in CRUSH.
    ///
    /// # Errors
    /// When Ceph does not say it.
    pub async fn crush_tree(&self) -> Result<CrushTree, CephError> {
        self.command.ask(&["osd", "tree"]).await
    }

    /// Takes one step of an adoption.
    ///
    /// # Errors
    /// When Ceph refuses it.
    pub async fn adopt(&self, step: &AdoptStep) -> Result<(), CephError> {
        let words = step.command();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.command.done(&words).await.map(drop)
    }
}

#[async_trait]
impl Ceph for Ceph16 {
    async fn look(&self) -> Result<MonReport, CephError> {
        let (status, dump) = tokio::join!(
            self.command.ask(&["status"]),
            self.command.ask::<read::Dump>(&["osd", "dump"])
        );
        let dump = dump?;
        let places = self.places(dump.epoch).await?;
        Ok(read::report(&status?, dump, &places))
    }

    async fn noout(&self, osd: OsdId, set: bool) -> Result<(), CephError> {
        let verb = if set { "add-noout" } else { "rm-noout" };
        self.command.done(&["osd", verb, &osd.to_string()]).await.map(drop)
    }

    async fn down(&self, osd: OsdId) -> Result<(), CephError> {
        let id = osd.number().to_string();
        self.command.done(&["osd", "down", &id, "--definitely-dead"]).await.map(drop)
    }

    async fn ok_to_stop(&self, osds: &[OsdId]) -> Result<bool, CephError> {
        let ids: Vec<String> = osds.iter().map(|osd| osd.number().to_string()).collect();
        let mut arguments = vec!["osd", "ok-to-stop"];
        arguments.extend(ids.iter().map(String::as_str));
        let output = self.command.output(&arguments).await?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(EBUSY) => Ok(false),
            Some(_) | None => Err(refused(&arguments, &output)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mons_are_where_rook_says() {
        assert_eq!(mon_hosts("a=10.0.0.1:6789,b=10.0.0.2:6789\n"), "10.0.0.1:6789,10.0.0.2:6789");
        assert_eq!(mon_hosts(""), "");
    }

    fn command(program: &str, deadline: Duration) -> Command {
        let program = PathBuf::from(program);
        Command { program, options: Vec::new(), mon_endpoints: None, deadline }
    }

    #[tokio::test]
    async fn a_command_that_does_not_answer_is_ended_and_named() {
        // Prints its arguments without end, and never an answer.
        let mut silent = command("/usr/bin/yes", Duration::from_millis(100));
        silent.options = vec!["--".to_owned()];
        let asked = silent.done(&["status"]).await;
        assert!(matches!(asked, Err(CephError::Silent { .. })), "{asked:?}");
    }

    #[tokio::test]
    async fn what_is_not_json_is_not_an_answer() {
        let command = command("/bin/echo", Duration::from_secs(5));
        let asked = command.ask::<serde_json::Value>(&["status"]).await;
        assert!(matches!(asked, Err(CephError::Strange { .. })), "{asked:?}");
    }

    #[tokio::test]
    async fn a_refusal_keeps_what_was_said() {
        let command = command("/bin/false", Duration::from_secs(5));
        let asked = command.done(&["osd", "dump"]).await;
        assert!(matches!(asked, Err(CephError::Refused { code: 1, .. })), "{asked:?}");
    }
}
