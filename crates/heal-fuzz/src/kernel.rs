//! What the kernel says in text: its log, and everything below `/sys` and `/proc`.

use std::sync::{LazyLock, Mutex, PoisonError};

use heal_host::isolation_support::IsolationSupport;
use heal_host::kmsg::{self, KernelSaid};
use heal_host::sysfs::Root;
use heal_host::{PortalCache, pathio};
use heal_types::{HostSnapshot, Observed};

use crate::inputs::{cuts, halves, survives_json};
use crate::tree::{Edit, Tree};

pub(crate) fn log(bytes: &[u8]) {
    let Some(said) = kmsg::parse(bytes) else { return };
    let name = match &said {
        KernelSaid::Controller { name, .. } => name.as_str(),
        KernelSaid::Namespace { device, .. } => device.as_str(),
        KernelSaid::Lost => panic!("a record that was read is not lost"),
    };
    let digit = |c: char| c.is_ascii_digit();
    assert!(name.strip_prefix("nvme").is_some_and(|rest| rest.starts_with(digit)), "{name}");
    let facility = bytes.split(|byte| matches!(byte, b',' | b';')).next();
    let facility = facility.expect("there is a first part");
    let facility: u32 = String::from_utf8_lossy(facility).parse().expect("it was read as one");
    assert!(facility < 8, "somebody other than the kernel was heard");
    for cut in cuts(bytes.len()) {
        let less = kmsg::parse(&bytes[..cut]);
        assert!(less.is_none() || less.as_ref() == Some(&said), "cut at {cut}: {less:?}");
    }
}

const TREES: [&str; 2] = [
    include_str!("../../heal-host/tests/trees/debian-6.12-lost.tree"),
    include_str!("../../heal-host/tests/trees/by-hand-incident.tree"),
];

/// A tree, and what a look at it shows when nothing is changed.
struct Unfolded {
    tree: Tree,
    unchanged: HostSnapshot,
}

static UNFOLDED: LazyLock<Mutex<[Unfolded; 2]>> = LazyLock::new(|| {
    Mutex::new(TREES.map(|text| {
        let tree = Tree::unfold(text);
        let unchanged = heal_host::look(&tree.root(), &mut PortalCache::new());
        Unfolded { tree, unchanged }
    }))
});

/// The first byte chooses the tree.
pub(crate) fn look(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    // A run that panicked left its changes there, and nobody comes after it but other tests.
    let unfolded = UNFOLDED.lock().unwrap_or_else(PoisonError::into_inner);
    let Unfolded { tree, unchanged } = &unfolded[usize::from(*which) % unfolded.len()];
    let edits = tree.edits(rest);
    tree.with(&edits, || looked(&tree.root(), unchanged, &edits));
}

fn looked(root: &Root, unchanged: &HostSnapshot, edits: &[Edit]) {
    let snapshot = heal_host::look(root, &mut PortalCache::new());
    survives_json(&snapshot);
    no_array_vanishes(unchanged, edits, &snapshot);
    no_leg_vanishes(unchanged, edits, &snapshot);
    what_is_not_understood_is_not_unused(edits, &snapshot);
    for namespace in &snapshot.namespaces {
        for path in &namespace.paths {
            let _ = pathio::read(root, &path.controller);
        }
    }
    assert!(IsolationSupport::read(root).to_string().lines().count() == 1);
}

/// What may say that there is no array behind a name.
const SAYS_NO_ARRAY: [&str; 3] = ["array_state", "uuid", "metadata_version"];

fn no_array_vanishes(unchanged: &HostSnapshot, edits: &[Edit], snapshot: &HostSnapshot) {
    let arrays = unchanged.arrays.iter().map(|array| &array.device);
    for name in arrays.chain(&unchanged.unreadable) {
        let may = |edit: &Edit| {
            edit.path.split('/').any(|part| part == name.as_str())
                && SAYS_NO_ARRAY.iter().any(|file| edit.path.ends_with(file))
        };
        if edits.iter().any(may) {
            continue;
        }
        let listed = snapshot.arrays.iter().any(|array| array.device == *name);
        let unreadable = snapshot.unreadable.contains(name);
        assert!(listed != unreadable, "{name} vanished, or is there twice: {edits:?}");
    }
}

/// A leg goes only when MD lets go of it, and then its attributes are gone.
fn no_leg_vanishes(unchanged: &HostSnapshot, edits: &[Edit], snapshot: &HostSnapshot) {
    for array in &snapshot.arrays {
        let was = unchanged.arrays.iter().find(|was| was.device == array.device);
        for leg in was.iter().flat_map(|was| &was.legs) {
            let member = format!("/{}/md/dev-{}/", array.device, leg.device);
            let lets_go = |edit: &Edit| edit.content.is_none() && edit.path.contains(&member);
            if !edits.iter().any(lets_go) {
                let found = array.legs.iter().filter(|now| now.device == leg.device).count();
                assert_eq!(found, 1, "leg {} of {}: {edits:?}", leg.device, array.device);
            }
        }
    }
}

fn what_is_not_understood_is_not_unused(edits: &[Edit], snapshot: &HostSnapshot) {
    let Some(edit) = edits.iter().find(|edit| edit.path == "proc/self/mountinfo") else { return };
    let of_the_form = |line: &str| {
        let number = line.split(' ').nth(2).and_then(|word| word.split_once(':'));
        let digits = |text: &str| text.parse::<u32>().is_ok();
        number.is_some_and(|(major, minor)| digits(major) && digits(minor)) && line.contains(" - ")
    };
    let text = edit.content.as_deref().and_then(|content| std::str::from_utf8(content).ok());
    if text.is_some_and(|text| text.lines().all(|line| line.is_empty() || of_the_form(line))) {
        return;
    }
    for namespace in &snapshot.namespaces {
        assert_ne!(
            namespace.in_use,
            Observed::Known(false),
            "{} is called unused, but the table of mounts was not understood: {edits:?}",
            namespace.device
        );
    }
}

/// `inflight`, a zero byte, `stat`.
pub(crate) fn counters(bytes: &[u8]) {
    let (inflight, stat) = halves(bytes);
    let directory = crate::disk::scratch("counters");
    let disk = directory.join("sys/class/nvme/nvme3/nvme1c3n1");
    std::fs::create_dir_all(&disk).expect("there is room for a directory");
    std::fs::write(disk.join("inflight"), inflight).expect("there is room for a file");
    std::fs::write(disk.join("stat"), stat).expect("there is room for a file");
    let controller = "nvme3".parse().expect("a controller's name");
    let read = pathio::read(&Root::new(&directory), &controller);
    let words = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    if read.is_some() {
        assert_eq!(words(inflight).len(), 2, "reads and writes make the commands under way");
        assert!(words(stat).len() >= 11, "a cut line counts less than there was");
    }
}
