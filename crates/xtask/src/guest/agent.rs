//! The agent: takes scenarios from the host, runs them one at a time, sends back all there is to
//! see.
//!
//! A scenario that hangs must not take the agent with it: it runs in a process group of its own
//! which is killed at the deadline, and a process stuck in the kernel (writes to a dead array are)
//! is left behind, to be found by the next reset.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::lab::wire::{CHUNK, CONTROL_PORT, FromGuest, LineBuffer, Outcome, ToGuest, encode};

const OUT: &str = "/run/lab/out";
const RESET_LIMIT: Duration = Duration::from_secs(120);
const COLLECT_LIMIT: Duration = Duration::from_secs(20);
const UNIT: &str = "nvme-heald.service";

pub(super) fn run() -> anyhow::Result<()> {
    let path = Path::new("/dev/virtio-ports").join(CONTROL_PORT);
    let mut port = open_port(&path)?;
    let mut writer = port.try_clone()?;
    send(&mut writer, &FromGuest::Hello { kernel: kernel(), uptime_ms: uptime_ms() })?;
    let mut lines = LineBuffer::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = port.read(&mut buffer)?;
        if count == 0 {
            // The host has let go (KEEP=1); it may come back.
            std::thread::sleep(Duration::from_millis(200));
            continue;
        }
        for line in lines.push(&buffer[..count]) {
            match serde_json::from_str(&line).context("the host sent what is no message")? {
                ToGuest::Run { name, script, timeout_s, env } => {
                    let limit = Duration::from_secs(timeout_s);
                    run_scenario(&mut writer, &name, &script, limit, &env)?;
                }
            }
        }
    }
}

/// udev names the port a moment after the driver is there.
fn open_port(path: &Path) -> anyhow::Result<File> {
    let started = Instant::now();
    loop {
        match File::options().read(true).write(true).open(path) {
            Ok(port) => return Ok(port),
            Err(error) if started.elapsed() > Duration::from_secs(60) => {
                return Err(error).with_context(|| format!("cannot open {}", path.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn run_scenario(
    port: &mut File,
    name: &str,
    script: &str,
    limit: Duration,
    env: &[(String, String)],
) -> anyhow::Result<()> {
    let started = Instant::now();
    let reset = bash(port, "/lab/lib/reset.sh", &[], RESET_LIMIT, started)?;
    std::fs::create_dir_all(OUT)?;
    let cursor = cursor();
    let mut said = vec![("LAB_CURSOR".to_owned(), cursor.clone())];
    said.extend_from_slice(env);
    let outcome = if reset == (Outcome::Exited { code: 0 }) {
        let path = format!("/run/lab/{name}.sh");
        std::fs::write(&path, script)?;
        bash(port, &path, &said, limit, Instant::now())?
    } else {
        Outcome::NotClean
    };
    collect(port, &cursor)?;
    send(port, &FromGuest::Done { outcome, took_ms: millis(started.elapsed()) })
}

/// Runs bash with both outputs in one pipe, so that their lines keep their order.
fn bash(
    port: &mut File,
    script: &str,
    env: &[(String, String)],
    limit: Duration,
    clock: Instant,
) -> anyhow::Result<Outcome> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut child = Command::new("/bin/bash")
        .arg(script)
        .env("LAB_OUT", OUT)
        .env("HOME", "/root")
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer))
        .process_group(0)
        .spawn()?;
    let output = follow(File::from(reader));
    let outcome = relay_until_ended(port, &mut child, &output, limit, clock)?;
    // Also what the script left in the background: nothing of it may run into the next one.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _none_left = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let drain = Instant::now();
    while drain.elapsed() < Duration::from_secs(2) {
        match output.recv_timeout(Duration::from_millis(200)) {
            Ok(text) => line(port, clock, text)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(outcome)
}

fn relay_until_ended(
    port: &mut File,
    child: &mut Child,
    output: &Receiver<String>,
    limit: Duration,
    clock: Instant,
) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    loop {
        match output.recv_timeout(Duration::from_millis(100)) {
            Ok(text) => line(port, clock, text)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(50)),
        }
        if let Some(status) = child.try_wait()? {
            return Ok(outcome_of(status));
        }
        if started.elapsed() > limit {
            line(port, clock, format!("FAIL not done after {} s; running:", limit.as_secs()))?;
            for text in tool("ps", &["-eo", "pid,stat,wchan:30,args"]).lines() {
                if !text.contains(" [") || text.contains(" D") {
                    line(port, clock, text.to_owned())?;
                }
            }
            return Ok(Outcome::TimedOut);
        }
    }
}

fn outcome_of(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Exited { code },
        (None, _) => Outcome::Signalled,
    }
}

/// A thread that turns a pipe into lines.
fn follow(mut pipe: File) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut lines = LineBuffer::default();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            for text in lines.push(&buffer[..count]) {
                if sender.send(text).is_err() {
                    return;
                }
            }
        }
        if let Some(text) = lines.rest() {
            let _listened_to = sender.send(text);
        }
    });
    receiver
}

/// What a scenario left: the journal of the daemon, of the system, and the state of the arrays.
fn collect(port: &mut File, cursor: &str) -> anyhow::Result<()> {
    let since: Vec<&str> =
        if cursor.is_empty() { vec!["-b"] } else { vec!["--after-cursor", cursor] };
    let journal = |extra: &[&str]| tool("journalctl", &[&since[..], extra].concat());
    send_file(port, "journal.json", &journal(&["-u", UNIT, "-o", "json"]))?;
    send_file(port, "system.log", &journal(&["-o", "short-monotonic"]))?;
    send_file(port, "mdstat", &mdstat())?;
    send_file(port, "kernel.log", &journal(&["-k", "-o", "short-monotonic", "-n", "400"]))?;
    send_file(port, "kills", &std::fs::read_to_string("/run/lab/kills").unwrap_or_default())?;
    for entry in std::fs::read_dir(OUT)?.flatten() {
        if let Ok(content) = std::fs::read(entry.path()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            send_file(port, &name, &String::from_utf8_lossy(&content))?;
        }
    }
    Ok(())
}

/// A read of it waits with the array's bitmap, and cannot be killed: it is given a moment, and
/// left.
fn mdstat() -> String {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let shown = std::fs::read_to_string("/proc/mdstat").unwrap_or_default();
        let _listened_to = sender.send(shown);
    });
    receiver.recv_timeout(Duration::from_secs(5)).unwrap_or_else(|_| "it cannot be read\n".into())
}

/// Output of a program that may hang with the rest of the system: `timeout` bounds it.
fn tool(program: &str, arguments: &[&str]) -> String {
    let limit = COLLECT_LIMIT.as_secs().to_string();
    let output = Command::new("timeout")
        .args(["--signal=KILL", &limit, program])
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => format!("{program}: {error}\n"),
    }
}

/// Where the journal stands now; what comes later belongs to the scenario.
fn cursor() -> String {
    let shown = tool("journalctl", &["-n", "0", "--show-cursor", "-q"]);
    parse_cursor(&shown).unwrap_or_default()
}

fn parse_cursor(shown: &str) -> Option<String> {
    shown
        .lines()
        .find_map(|line| line.strip_prefix("-- cursor: "))
        .map(|text| text.trim().to_owned())
}

fn line(port: &mut File, clock: Instant, text: String) -> anyhow::Result<()> {
    send(port, &FromGuest::Line { at_ms: millis(clock.elapsed()), text })
}

fn send_file(port: &mut File, name: &str, content: &str) -> anyhow::Result<()> {
    let mut rest = content;
    loop {
        let mut end = rest.len().min(CHUNK);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (chunk, after) = rest.split_at(end);
        send(port, &FromGuest::File { name: name.to_owned(), chunk: chunk.to_owned() })?;
        if after.is_empty() {
            return Ok(());
        }
        rest = after;
    }
}

fn send(port: &mut File, message: &FromGuest) -> anyhow::Result<()> {
    port.write_all(&encode(message)?).context("the control port takes no more")
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

fn uptime_ms() -> u64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Boottime)
        .tv_sec
        .try_into()
        .map_or(0, |seconds: u64| seconds.saturating_mul(1000))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_cursor_is_read_from_its_own_line() {
        assert_eq!(parse_cursor("-- cursor: s=1;i=2\n").unwrap(), "s=1;i=2");
        assert_eq!(parse_cursor("-- No entries --\n"), None);
    }
}
