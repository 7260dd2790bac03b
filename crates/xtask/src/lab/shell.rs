//! A root shell in the guest: its virtio console, joined to this terminal.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::session::connect;

/// `Ctrl-]`, as in telnet and virsh.
const LEAVE: u8 = 0x1d;

/// Joins until `Ctrl-]`, the end of standard input, or the end of the VM.
pub(crate) fn attach(socket: &Path) -> anyhow::Result<()> {
    let stream = connect(socket, Duration::from_secs(2))?;
    println!("lab: a root shell; Enter shows the prompt, Ctrl-] leaves");
    let saved = raw_terminal();
    let result = pump(&stream);
    if let Some(saved) = saved {
        let _status = Command::new("stty").arg(saved).status();
    }
    println!();
    result
}

/// Sets the terminal to raw and gives what restores it; nothing when there is no terminal.
fn raw_terminal() -> Option<String> {
    let saved = Command::new("stty").arg("--save").stdin(std::process::Stdio::inherit()).output();
    let saved = saved.ok().filter(|output| output.status.success())?;
    Command::new("stty").args(["raw", "-echo"]).status().ok().filter(|status| status.success())?;
    Some(String::from_utf8_lossy(&saved.stdout).trim().to_owned())
}

fn pump(stream: &UnixStream) -> anyhow::Result<()> {
    let mut input = stream.try_clone()?;
    let mut output = stream.try_clone()?;
    let printer = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut stdout = std::io::stdout();
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            if stdout.write_all(&buffer[..count]).and_then(|()| stdout.flush()).is_err() {
                return;
            }
        }
    });
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
        if buffer[..count].contains(&LEAVE) || printer.is_finished() {
            break;
        }
        input.write_all(&buffer[..count])?;
    }
    // What is typed ahead by a pipe still gets its answer.
    std::thread::sleep(Duration::from_millis(500));
    stream.shutdown(std::net::Shutdown::Both)?;
    Ok(())
}
