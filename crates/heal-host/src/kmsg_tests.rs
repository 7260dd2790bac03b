use std::future::Future;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::*;

fn controller(name: &str, what: KernelHint) -> Option<KernelSaid> {
    Some(KernelSaid::Controller { name: ControllerName::new(name).unwrap(), what })
}

fn record(text: &str) -> Vec<u8> {
    format!("4,4711,8915601,-;{text}\n SUBSYSTEM=nvme\n DEVICE=c243:3\n").into_bytes()
}

#[test]
fn every_line_that_tells_of_a_controller_is_understood_in_the_words_of_6_1_and_of_6_12() {
    for (text, what) in [
        ("starting error recovery", KernelHint::ErrorRecovery),
        ("failed nvme_keep_alive_end_io error=10", KernelHint::KeepAliveFailed),
        ("Reconnecting in 10 seconds...", KernelHint::Reconnecting),
        ("Failed reconnect attempt 3", KernelHint::ReconnectFailed),
        ("Failed reconnect attempt 3/60", KernelHint::ReconnectFailed),
        ("Successfully reconnected (1 attempt)", KernelHint::Reconnected),
        ("Successfully reconnected (attempt 1/60)", KernelHint::Reconnected),
        ("failfast expired", KernelHint::FastIoFail),
        ("Removing controller...", KernelHint::Removing),
        ("Removing controller (-111)...", KernelHint::Removing),
        ("queue 2: timeout request 0x11 type 4", KernelHint::Timeout),
        ("I/O 5 QID 2 timeout", KernelHint::Timeout),
        ("I/O tag 1 (3001) type 4 opcode 0x18 (Keep Alive) QID 0 timeout", KernelHint::Timeout),
        ("I/O tag 17 (1011) opcode 0x1 (Write) QID 2 timeout", KernelHint::Timeout),
    ] {
        let line = format!("nvme nvme3: {text}");
        assert_eq!(parse(&record(&line)), controller("nvme3", what), "{text}");
    }
}

#[test]
fn a_namespace_without_a_path_is_told_with_and_without_its_class() {
    let device = DeviceName::new("nvme3n1").unwrap();
    for line in
        ["block nvme3n1: no usable path - requeuing I/O", "nvme3n1: no usable path - requeuing I/O"]
    {
        let what = NamespaceHint::Queueing;
        let expected = KernelSaid::Namespace { device: device.clone(), what };
        assert_eq!(parse(&record(line)), Some(expected));
    }
    let failing = parse(&record("block nvme3n1: no available path - failing I/O"));
    assert_eq!(failing, Some(KernelSaid::Namespace { device, what: NamespaceHint::Failing }));
}

#[test]
fn other_lines_are_no_hints() {
    for line in [
        "nvme nvme3: creating 2 I/O queues.",
        "nvme nvme3: new ctrl: NQN \"a\", addr 10.0.0.2:4420",
        "nvme nvme3: I/O is fine",
        "nvme 0000:01:00.0: I/O 5 QID 2 timeout",
        "nvme eth0: starting error recovery",
        "nvme nvme: starting error recovery",
        "nvme nvme3 starting error recovery",
        "block sda: no usable path - requeuing I/O",
        "nvmet: ctrl 1 keep-alive timer (15 seconds) expired!",
        "",
    ] {
        assert_eq!(parse(&record(line)), None, "{line}");
    }
}

#[test]
fn a_line_that_user_space_wrote_is_not_the_kernels_word() {
    for (priority, heard) in [("6", true), ("0", true), ("14", false), ("8", false), ("30", false)]
    {
        let text = format!("{priority},1,2,-;nvme nvme3: failfast expired\n");
        assert_eq!(parse(text.as_bytes()).is_some(), heard, "{priority}");
    }
}

#[test]
fn bytes_that_are_no_record_are_nothing() {
    let whole = record("nvme nvme3: starting error recovery");
    for cut in 0..whole.len() {
        let _ = parse(&whole[..cut]);
    }
    for odd in [&b""[..], b";", b"x;nvme nvme3: failfast expired", b"-1,2,3;a", b"4,1,2,-;\xff\xfe"]
    {
        assert_eq!(parse(odd), None);
    }
    assert_eq!(parse(&vec![b'4'; RECORD]), None);
    assert_eq!(parse(format!("{};nvme nvme3: failfast expired", "9".repeat(90)).as_bytes()), None);
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), future).await.expect("it happens in time")
    })
}

#[test]
fn the_log_answers_one_hint_after_the_other_and_passes_over_the_rest() {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (kernel, log) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let say = |line: &str| rustix::net::send(&kernel, &record(line), SendFlags::empty()).unwrap();
    run(async {
        let mut log = KernelLog::over(log).unwrap();
        say("usb 1-1: new device");
        say("nvme nvme3: starting error recovery");
        say("nvme nvme4: failfast expired");
        assert_eq!(Some(log.next().await), controller("nvme3", KernelHint::ErrorRecovery));
        assert_eq!(Some(log.next().await), controller("nvme4", KernelHint::FastIoFail));
        let waited = tokio::time::timeout(Duration::from_millis(50), log.next()).await;
        assert!(waited.is_err(), "nothing was said: {waited:?}");
    });
}

#[test]
fn the_log_of_this_machine_opens_at_its_end() {
    run(async {
        let mut log = match KernelLog::open() {
            Ok(log) => log,
            Err(error) => return eprintln!("skipped: /dev/kmsg cannot be read here: {error}"),
        };
        let said = tokio::time::timeout(Duration::from_millis(50), log.next()).await;
        assert!(said.is_err(), "this machine has no NVMe: {said:?}");
    });
}
