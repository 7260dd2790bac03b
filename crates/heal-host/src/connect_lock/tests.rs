use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::*;
use crate::exec::testing::TempDir;

/// os-brick's own way to lock, `fcntl.lockf` as fasteners calls it, in another process.
struct OsBrick {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

const SCRIPT: &str = "\
import fcntl, sys
file = open(sys.argv[1], 'a+')
for line in sys.stdin:
    try:
        if line == 'take\\n':
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            fcntl.lockf(file, fcntl.LOCK_UN)
        print('yes', flush=True)
    except OSError:
        print('no', flush=True)
";

impl OsBrick {
    #[expect(clippy::disallowed_methods, reason = "a process of another program is the point")]
    fn start(path: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", SCRIPT])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    fn say(&mut self, word: &str) -> bool {
        writeln!(self.stdin, "{word}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        answer == "yes\n"
    }

    fn takes(&mut self) -> bool {
        self.say("take")
    }

    fn lets_go(&mut self) {
        assert!(self.say("drop"));
    }
}

impl Drop for OsBrick {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Stage {
    directory: TempDir,
    lock: ConnectLock,
}

impl Stage {
    fn new() -> Self {
        let directory = TempDir::new();
        let lock = ConnectLock::new(&[directory.path().to_owned()]);
        Self { directory, lock }
    }

    fn os_brick(&self, file: &str) -> OsBrick {
        OsBrick::start(&self.directory.path().join(file))
    }

    fn is_taken(&self) -> bool {
        matches!(self.lock.try_hold(), Err(LockFault::Taken))
    }
}

#[test]
fn os_brick_and_we_keep_each_other_out() {
    for file in FILES {
        let stage = Stage::new();
        let mut os_brick = stage.os_brick(file);
        assert!(os_brick.takes());
        assert!(stage.is_taken(), "{file}");
        os_brick.lets_go();
        let hold = stage.lock.try_hold().unwrap();
        assert!(!os_brick.takes(), "{file}");
        drop(hold);
        assert!(os_brick.takes(), "{file}");
    }
}

#[test]
fn acts_of_ours_hold_it_together_and_it_is_free_after_the_last() {
    let stage = Stage::new();
    let mut os_brick = stage.os_brick(FILES[0]);
    assert!(os_brick.takes());
    os_brick.lets_go();
    let first = stage.lock.try_hold().unwrap();
    let second = stage.lock.clone().try_hold().unwrap();
    drop(first);
    assert!(!os_brick.takes(), "the second still holds it");
    drop(second);
    assert!(os_brick.takes());
}

#[test]
fn a_turn_ends_and_then_os_brick_comes_first() {
    let stage = Stage::new();
    let mut os_brick = stage.os_brick(FILES[0]);
    assert!(os_brick.takes());
    os_brick.lets_go();
    let hold = stage.lock.try_hold().unwrap();
    std::thread::sleep(TURN);
    assert!(stage.is_taken(), "nobody joins any more");
    drop(hold);
    assert!(stage.is_taken(), "it is os-brick's turn");
    std::thread::sleep(REST);
    drop(stage.lock.try_hold().unwrap());
}

#[test]
fn a_process_that_dies_with_the_lock_lets_go_of_it() {
    let stage = Stage::new();
    let mut os_brick = stage.os_brick(FILES[0]);
    assert!(os_brick.takes());
    assert!(stage.is_taken());
    drop(os_brick);
    drop(stage.lock.try_hold().unwrap());
}

#[test]
fn a_lock_that_was_never_made_is_no_obstacle_and_one_that_cannot_be_opened_is() {
    let stage = Stage::new();
    drop(stage.lock.try_hold().unwrap());
    drop(ConnectLock::new(&["/nonexistent".into()]).try_hold().unwrap());
    drop(ConnectLock::default().try_hold().unwrap());
    // A loop of links stands for whatever cannot be opened: tests run as root, too.
    let path = stage.directory.path().join(FILES[0]);
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let fault = stage.lock.try_hold().unwrap_err();
    assert!(matches!(fault, LockFault::Unreadable { .. }), "{fault}");
}
