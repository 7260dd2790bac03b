//! What runs in a child of our own, because it may hang.
//!
//! Reading a device and writing to MD's attributes can wait in the kernel without end: the first
//! while a path is gone, the second for MD's lock. A thread that waits there cannot be taken back,
//! a process can. So the daemon starts its own binary again, with a first argument of `helper`:
//!
//! ```text
//!   nvme-heald helper probe /dev/nvme1n1 259:3        one JSON line: which superblocks stand there
//!   nvme-heald helper superblocks /dev/nvme1n1 259:3  the same, and nothing else is read
//!   nvme-heald helper re-add md127 UUID /dev/nvme1n1 259:3 MEMBER EVENTS   a member that left comes back
//!   nvme-heald helper re-add .. nvme1n1                    the same, once this faulty one is unbound
//!   nvme-heald helper set-attr md127 UUID nvme1n1 remove   one word written to one file below /sys
//!   nvme-heald helper thaw md127 UUID                      the same, if a killed `mdadm` left it frozen
//! ```
//!
//! One that is told to `serve` reads such lines from its standard input, does one after the other,
//! and answers each: the start of a program is most of what one of these takes.
//!
//! The helper takes names and words, never paths to write to and never values: it builds the path
//! itself, and the three words are a closed list. A name is a [`DeviceName`], so it holds neither a
//! slash nor a dot.
//!
//! Its exit code says what happened, in the numbers of `sysexits.h`:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 64 | not called as above |
//! | 65 | the device behind the path is another one |
//! | 66 | there is no such member, device or array |
//! | 69 | it takes another tool |
//! | 74 | the kernel said something else; it stands on standard error |
//! | 75 | busy |
//! | 77 | it is not to be, now or later |
//!
//! The price: the daemon's whole binary is loaded for one `write`, and stays loaded while it
//! serves.

mod delete;
mod probe;
mod re_add;
mod set_attr;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use heal_types::{ArrayId, ControllerName, DevT, DeviceName, MdDeviceId};
use rustix::io::Errno;

use probe::Reading;
pub(crate) use probe::Report;

/// What tells a helper to stay.
pub(crate) const SERVE: &str = "serve";

/// Longer than any call.
const LINE: u64 = 4096;

/// The helper's exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Usage = 64,
    OtherDevice = 65,
    NotThere = 66,
    NotHere = 69,
    Failed = 74,
    Busy = 75,
    Refused = 77,
}

impl Exit {
    /// The meaning of a code, if the helper has it.
    pub(crate) fn of(code: i32) -> Option<Self> {
        const ALL: [Exit; 7] = [
            Exit::Usage,
            Exit::OtherDevice,
            Exit::NotThere,
            Exit::NotHere,
            Exit::Failed,
            Exit::Busy,
            Exit::Refused,
        ];
        ALL.into_iter().find(|exit| i32::from(*exit as u8) == code)
    }

    fn from_kernel(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => Self::NotThere,
            Some(Errno::BUSY | Errno::AGAIN) => Self::Busy,
            Some(_) | None => Self::Failed,
        }
    }
}

/// Why the helper did not do it.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    said: String,
}

impl Failure {
    fn usage(said: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, said: said.to_string() }
    }

    fn kernel(what: impl fmt::Display, error: &io::Error) -> Self {
        Self { exit: Exit::from_kernel(error), said: format!("{what}: {error}") }
    }
}

/// A word that may be written to a member's `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Give the member up.
    Faulty,
    /// Unbind it.
    Remove,
    /// The same, if it is there and faulty.
    RemoveFaulty,
    /// Take back the wish to move it to a spare.
    ClearWantReplacement,
}

impl Verb {
    const ALL: [Self; 4] =
        [Self::Faulty, Self::Remove, Self::RemoveFaulty, Self::ClearWantReplacement];

    /// What MD wants to read.
    fn word(self) -> &'static str {
        match self {
            Self::Faulty => "faulty",
            Self::Remove | Self::RemoveFaulty => "remove",
            Self::ClearWantReplacement => "-want_replacement",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faulty => "faulty",
            Self::Remove => "remove",
            Self::RemoveFaulty => "remove-faulty",
            Self::ClearWantReplacement => "clear-want-replacement",
        })
    }
}

/// What the helper is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Job {
    Probe {
        node: PathBuf,
        dev: DevT,
        reading: Reading,
    },
    ReAdd {
        array: DeviceName,
        id: ArrayId,
        node: PathBuf,
        dev: DevT,
        member: MdDeviceId,
        events: u64,
        leaving: Option<DeviceName>,
    },
    SetAttr {
        array: DeviceName,
        id: ArrayId,
        leg: DeviceName,
        verb: Verb,
    },
    Thaw {
        array: DeviceName,
        id: ArrayId,
    },
    DeleteController {
        name: ControllerName,
        inode: u64,
    },
}

/// The whole life of a helper. `args` are the arguments after `helper`.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.peekable();
    if args.peek().is_some_and(|first| first == SERVE) {
        return serve(&mut io::stdin().lock(), &mut io::stdout().lock());
    }
    let done = parse(args).and_then(|job| run(&job)).and_then(|said| {
        let mut out = io::stdout();
        out.write_all(said.as_bytes()).map_err(|error| Failure::kernel("standard output", &error))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // With standard error gone there is nobody left to tell; the code still speaks.
            let _ = writeln!(io::stderr(), "{}", failure.said);
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Does what each line says, and answers it, until there are no more.
fn serve(calls: &mut impl BufRead, answers: &mut impl Write) -> ExitCode {
    loop {
        let mut line = String::new();
        match calls.by_ref().take(LINE).read_line(&mut line) {
            Ok(1..) if line.ends_with('\n') => {}
            // The rest of a call that was cut off, or is too long, would be another one.
            Ok(1..) => return ExitCode::FAILURE,
            Ok(0) | Err(_) => return ExitCode::SUCCESS,
        }
        let words = line.split_ascii_whitespace().map(OsString::from);
        let (code, out, err) = match parse(words).and_then(|job| run(&job)) {
            Ok(said) => (0, said, String::new()),
            Err(failure) => (failure.exit as u8, String::new(), format!("{}\n", failure.said)),
        };
        let answer = format!("{code} {} {}\n{out}{err}", out.len(), err.len());
        if answers.write_all(answer.as_bytes()).and_then(|()| answers.flush()).is_err() {
            return ExitCode::FAILURE; // Nobody is there any more.
        }
    }
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Job, Failure> {
    // One more than any call has: enough to refuse a longer one without reading it all.
    let words: Vec<String> = args
        .take(9)
        .map(|word| word.into_string().map_err(|_| Failure::usage("not UTF-8")))
        .collect::<Result<_, _>>()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [verb @ ("probe" | "superblocks"), node, dev] => Ok(Job::Probe {
            node: device_node(node)?,
            dev: value(dev)?,
            reading: if *verb == "probe" { Reading::Ends } else { Reading::Places },
        }),
        ["re-add", array, id, node, dev, member, events, leaving @ ..] => Ok(Job::ReAdd {
            array: array_name(array)?,
            id: value(id)?,
            node: device_node(node)?,
            dev: value(dev)?,
            member: value(member)?,
            events: value(events)?,
            leaving: match leaving {
                [] => None,
                [leg] => Some(value(leg)?),
                _ => return Err(Failure::usage("one leg at a time")),
            },
        }),
        ["set-attr", array, id, leg, verb] => Ok(Job::SetAttr {
            array: array_name(array)?,
            id: value(id)?,
            leg: value(leg)?,
            verb: Verb::ALL
                .into_iter()
                .find(|known| known.to_string() == *verb)
                .ok_or_else(|| Failure::usage(format!("{verb:?} is not a word for a member")))?,
        }),
        ["thaw", array, id] => Ok(Job::Thaw { array: array_name(array)?, id: value(id)? }),
        ["delete-controller", name, inode] => {
            Ok(Job::DeleteController { name: value(name)?, inode: value(inode)? })
        }
        _ => Err(Failure::usage(
            "usage: helper probe NODE MAJOR:MINOR | helper superblocks NODE MAJOR:MINOR \
             | helper re-add ARRAY UUID NODE MAJOR:MINOR MEMBER EVENTS [MEMBER] \
             | helper set-attr ARRAY UUID MEMBER WORD \
             | helper thaw ARRAY UUID | helper delete-controller NAME INODE",
        )),
    }
}

fn value<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(Failure::usage)
}

fn device_node(text: &str) -> Result<PathBuf, Failure> {
    let name = text
        .strip_prefix("/dev/")
        .ok_or_else(|| Failure::usage(format!("{text:?} is not below /dev")))?;
    let name: DeviceName = value(name)?;
    Ok(Path::new("/dev").join(name.as_str()))
}

fn array_name(text: &str) -> Result<DeviceName, Failure> {
    if !text.starts_with("md") {
        return Err(Failure::usage(format!("{text:?} is not an array")));
    }
    value(text)
}

/// Does it, and answers with what is to be said of it.
fn run(job: &Job) -> Result<String, Failure> {
    match job {
        Job::Probe { node, dev, reading } => {
            let report = probe::device(node, *dev, *reading)?;
            let line = serde_json::to_string(&report)
                .map_err(|error| Failure { exit: Exit::Failed, said: error.to_string() })?;
            return Ok(format!("{line}\n"));
        }
        Job::ReAdd { array, id, node, dev, member, events, leaving } => {
            let (id, dev, member, events) = (*id, *dev, *member, *events);
            let leaving = leaving.as_ref();
            re_add::member(&re_add::Return { array, id, node, dev, member, events, leaving })?;
        }
        Job::SetAttr { array, id, leg, verb } => {
            set_attr::write(Path::new("/sys/block"), (array, *id), leg, *verb)?;
        }
        Job::Thaw { array, id } => set_attr::thaw(Path::new("/sys/block"), array, *id)?,
        Job::DeleteController { name, inode } => delete::controller(Path::new("/"), name, *inode)?,
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "8e0a1b6c:1f2e3d4c:5b6a7988:00112233";

    fn parsed(words: &[&str]) -> Result<Job, Failure> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn a_call_is_exactly_one_of_these() {
        let job = parsed(&["probe", "/dev/nvme1n1", "259:3"]).unwrap();
        let dev = DevT { major: 259, minor: 3 };
        let node = PathBuf::from("/dev/nvme1n1");
        assert_eq!(job, Job::Probe { node: node.clone(), dev, reading: Reading::Ends });
        let job = parsed(&["superblocks", "/dev/nvme1n1", "259:3"]).unwrap();
        assert_eq!(job, Job::Probe { node: node.clone(), dev, reading: Reading::Places });
        let words = ["re-add", "md127", UUID, "/dev/nvme1n1", "259:3", UUID, "42"];
        let job = parsed(&words).unwrap();
        let (array, id) = ("md127".parse().unwrap(), UUID.parse().unwrap());
        let member = UUID.parse().unwrap();
        let returned = |array, leaving| Job::ReAdd {
            array,
            id,
            node: node.clone(),
            dev,
            member,
            events: 42,
            leaving,
        };
        assert_eq!(job, returned("md127".parse().unwrap(), None));
        let job = parsed(&[&words[..], &["nvme1n1"]].concat()).unwrap();
        assert_eq!(job, returned(array, Some("nvme1n1".parse().unwrap())));
        parsed(&[&words[..], &["nvme1n1", "nvme2n1"]].concat()).unwrap_err();
        let job = parsed(&["set-attr", "md127", UUID, "nvme1n1", "remove"]).unwrap();
        let (array, leg) = ("md127".parse().unwrap(), "nvme1n1".parse().unwrap());
        let id = UUID.parse().unwrap();
        assert_eq!(job, Job::SetAttr { array, id, leg, verb: Verb::Remove });
        let job = parsed(&["delete-controller", "nvme3", "4711"]).unwrap();
        let name = "nvme3".parse().unwrap();
        assert_eq!(job, Job::DeleteController { name, inode: 4711 });
    }

    #[test]
    fn a_helper_that_serves_answers_each_line() {
        let calls = b"probe /dev/no-such-device 1:1\nset-attr md127\n\n";
        let mut answers = Vec::new();
        assert_eq!(serve(&mut calls.as_slice(), &mut answers), ExitCode::SUCCESS);
        let answers = String::from_utf8(answers).unwrap();
        let heads: Vec<&str> =
            answers.lines().filter(|line| line.starts_with(char::is_numeric)).collect();
        let said = "/dev/no-such-device: No such file or directory (os error 2)\n";
        assert_eq!(heads[0], format!("66 0 {}", said.len()));
        assert!(answers.contains(said), "{answers}");
        assert!(heads[1].starts_with("64 0 ") && heads[2].starts_with("64 0 "), "{answers}");
    }

    #[test]
    fn a_call_that_was_cut_off_is_not_carried_out_and_neither_is_its_rest() {
        for calls in ["probe /dev/no-such-device 1:1".to_owned(), format!("{}\n", "x".repeat(5000))]
        {
            let mut answers = Vec::new();
            assert_eq!(serve(&mut calls.as_bytes(), &mut answers), ExitCode::FAILURE);
            assert_eq!(answers, b"");
        }
    }

    #[test]
    fn anything_else_is_refused_with_64() {
        for words in [
            &[][..],
            &["probe"],
            &["probe", "/dev/nvme1n1"],
            &["probe", "/dev/nvme1n1", "259:3", "more"],
            &["probe", "/etc/shadow", "259:3"],
            &["probe", "/dev/../etc/shadow", "259:3"],
            &["probe", "/dev/nvme1n1", "259"],
            &["set-attr", "md127", UUID, "nvme1n1", "in_sync"],
            &["set-attr", "md127", UUID, "nvme1n1", "-want_replacement"],
            &["set-attr", "sda", UUID, "nvme1n1", "remove"],
            &["set-attr", "md127", UUID, "../../x", "remove"],
            &["set-attr", "md/../sda", UUID, "nvme1n1", "remove"],
            &["set-attr", "md127", UUID, "nvme1n1", "remove", "more"],
            &["set-attr", "md127", "nvme1n1", "remove"],
            &["thaw", "sda", UUID],
            &["thaw", "md127"],
            &["thaw", "md127", UUID, "more"],
            &["delete-controller", "nvme3"],
            &["delete-controller", "../nvme3", "1"],
            &["delete-controller", "nvme3", "-1"],
            &["delete-controller", "nvme3", "1", "more"],
            &["re-add", "md127", UUID, "/dev/nvme1n1", "259:3", UUID],
            &["re-add", "sda", UUID, "/dev/nvme1n1", "259:3", UUID, "42"],
            &["re-add", "md127", UUID, "/dev/nvme1n1", "259:3", UUID, "-1"],
            &["re-add", "md127", UUID, "/dev/nvme1n1", "259:3", UUID, "42", "../nvme1n1"],
            &["write", "md127", "nvme1n1", "remove"],
        ] {
            let failure = parsed(words).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{words:?}");
        }
    }

    #[test]
    fn the_whole_helper_answers_with_its_code() {
        let words = ["set-attr", "md127", UUID, "nvme1n1", "grow"].map(OsString::from);
        assert_eq!(main(words.into_iter()), ExitCode::from(64));
        let words = ["probe", "/dev/no-such-device", "1:1"].map(OsString::from);
        assert_eq!(main(words.into_iter()), ExitCode::from(66));
        assert_eq!(Exit::of(75), Some(Exit::Busy));
        assert_eq!(Exit::of(1), None);
    }
}
