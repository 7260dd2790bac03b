//! Runs plugins as the test's own user.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use heal_provisioner::exec::{Ended, Spawner};
use heal_provisioner::protocol::MAX_DOCUMENT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// A program and its arguments.
#[derive(Debug)]
pub(crate) struct Direct {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
}

#[heal_provisioner::async_trait]
impl Spawner for Direct {
    async fn run(&self, input: Vec<u8>, limit: Duration) -> Ended {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = match command.kill_on_drop(true).spawn() {
            Ok(child) => child,
            Err(error) => return Ended::NotStarted(error.to_string()),
        };
        let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let talk = async {
            let _ = stdin.write_all(&input).await;
            drop(stdin);
            let mut heard = Vec::new();
            let most = u64::try_from(MAX_DOCUMENT).unwrap() + 1;
            let mut stdout = stdout.take(most);
            stdout.read_to_end(&mut heard).await.unwrap();
            drop(stdout);
            (child.wait().await.unwrap().code(), heard)
        };
        match tokio::time::timeout(limit, talk).await {
            Ok((Some(code), stdout)) => Ended::Exited { code, stdout, stderr: String::new() },
            Ok((None, _)) | Err(_) => Ended::Killed,
        }
    }
}
