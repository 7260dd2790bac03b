//! The contract of a fence, on a target whose connections never end by themselves.

use std::collections::BTreeMap;

use heal_types::cluster::NodeName;
use heal_types::fence::Host;

use super::*;
use crate::tree::fake::{Block, Connection, Fake};

const NQN: &str = "nqn.2026-01.org.example:osd-3";
const OLD: &str = "nqn.2026-01.org.example:host-a";
const NEW: &str = "nqn.2026-01.org.example:host-b";
const DEVICE: &str = "/dev/mapper/one";

struct Target {
    tree: Arc<Fake>,
    dir: PathBuf,
}

impl Drop for Target {
    #[allow(clippy::disallowed_methods, reason = "a scratch folder of this test")]
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Target {
    /// A subsystem that the old host uses.
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("nvmet-fenced-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self { tree: Arc::new(Fake::default().with(NQN, DEVICE, OLD)), dir }
    }

    /// As it is after a start: it knows what was written down, and nothing else.
    fn fence(&self) -> Fence {
        let tree: Arc<dyn Tree> = Arc::clone(&self.tree) as Arc<dyn Tree>;
        Fence::new(tree, Records::at(&self.dir), Vec::new(), None)
    }

    fn connect(&self, host: &str) -> std::io::Result<Connection> {
        self.tree.connect(host, NQN)
    }
}

fn nqn(text: &str) -> Nqn {
    Nqn::new(text).unwrap()
}

fn question(verb: Verb, generation: u64) -> Question {
    Question {
        verb,
        subsystem: Some(nqn(NQN)),
        generation: Some(Generation(generation)),
        ..Question::health()
    }
}

fn admit(host: &str, generation: u64) -> Question {
    let host = Host { node: NodeName::new("n1").unwrap(), host_nqn: Some(nqn(host)) };
    Question { admit: Some(host), ..question(Verb::Admit, generation) }
}

fn closed(generation: u64) -> Told {
    Told::Target {
        generation: Generation(generation),
        allowed: Vec::new(),
        any_host: false,
        connected: Vec::new(),
    }
}

/// Whether writers took turns: somebody wrote again after another one had.
fn torn(blocks: &[Block]) -> bool {
    let mut turns: Vec<&str> = blocks.iter().map(|block| block.host.as_str()).collect();
    turns.dedup();
    let last: BTreeMap<&str, usize> =
        turns.iter().enumerate().map(|(n, host)| (*host, n)).collect();
    last.len() != turns.len()
}

/// The contract: the old host writes, is fenced in some way, the new one is admitted and writes,
/// and the old one goes on with whatever it has. Whether its writes failed, and none came after the
/// new one's.
fn holds(test: &str, change_hands: impl Fn(&Target)) -> bool {
    let target = Target::new(test);
    let old = target.connect(OLD).unwrap();
    for number in 0..3 {
        target.tree.write_by(&old, number).unwrap();
    }
    // This one is under way when the fence comes.
    target.tree.begin(&old, 3).unwrap();
    change_hands(&target);
    let new = target.connect(NEW).unwrap();
    target.tree.write_by(&new, 0).unwrap();
    let late = target.tree.write_by(&old, 4);
    let again = target.connect(OLD).and_then(|old| target.tree.write_by(&old, 5));
    target.tree.write_by(&new, 1).unwrap();
    target.tree.land();
    late.is_err() && again.is_err() && !torn(&target.tree.on(DEVICE))
}

#[test]
fn once_it_says_closed_no_write_of_the_old_host_lands_any_more() {
    assert!(holds("contract", |target| {
        let fence = target.fence();
        assert_eq!(fence.ask(&question(Verb::Close, 1)), Told::Done {});
        assert_eq!(fence.ask(&question(Verb::Report, 1)), closed(1));
        let landed = target.tree.on(DEVICE).len();
        assert_eq!(landed, 4, "the write that was under way was waited for");
        assert_eq!(fence.ask(&admit(NEW, 1)), Told::Done {});
    }));
}

/// A namespace shows as off before the kernel has waited for what came in while it was on.
#[test]
fn a_write_that_is_under_way_is_no_proof_however_it_looks() {
    let target = Target::new("under-way");
    let old = target.connect(OLD).unwrap();
    target.tree.begin(&old, 0).unwrap();
    target.tree.hang(true);
    let enable = Path::new("subsystems").join(NQN).join("namespaces/1/enable");
    let is_on = || target.tree.read(&enable).unwrap().as_deref() == Some("1");
    let fence = target.fence();
    let told = std::thread::scope(|scope| {
        let closing = scope.spawn(|| fence.ask(&question(Verb::Close, 1)));
        while is_on() {
            std::thread::yield_now();
        }
        // The same daemon, and one that was started anew meanwhile.
        let told = [&fence, &target.fence()].map(|it| it.ask(&question(Verb::Report, 1)));
        assert_eq!(target.tree.on(DEVICE), []);
        target.tree.hang(false);
        assert_eq!(closing.join().unwrap(), Told::Done {});
        told
    });
    for told in told {
        assert!(
            matches!(&told, Told::Target { connected, .. } if !connected.is_empty()),
            "{told:?}"
        );
    }
    assert_eq!(target.tree.on(DEVICE).len(), 1);
    assert_eq!(fence.ask(&question(Verb::Report, 1)), closed(1));
}

/// Recipes that look right. The contract has to tell them from the one that is.
#[test]
fn the_contract_finds_out_every_recipe_that_leaves_a_connection_its_device() {
    let dir = Path::new("subsystems").join(NQN);
    let swap = |tree: &Fake| {
        tree.unlink(&dir.join("allowed_hosts").join(OLD)).unwrap();
        let known = Path::new("hosts").join(NEW);
        tree.make(&known).unwrap();
        tree.link(&known, &dir.join("allowed_hosts").join(NEW)).unwrap();
    };
    let port = Path::new("ports/1/subsystems").join(NQN);
    let enable = dir.join("namespaces/1/enable");
    assert!(!holds("list-only", |target| swap(&target.tree)), "only off the list");
    let ports = |target: &Target| {
        swap(&target.tree);
        target.tree.unlink(&port).unwrap();
        target.tree.link(&dir, &port).unwrap();
    };
    assert!(!holds("ports", ports), "off the list and the port, without looking");
    let drained = |target: &Target| {
        swap(&target.tree);
        target.tree.unlink(&port).unwrap();
        target.tree.write(&enable, "0").unwrap();
        target.tree.write(&enable, "1").unwrap();
        target.tree.link(&dir, &port).unwrap();
    };
    assert!(!holds("drained", drained), "the same object again");
}

#[test]
fn an_older_token_is_refused_for_ever() {
    let target = Target::new("older");
    assert_eq!(target.fence().ask(&question(Verb::Close, 7)), Told::Done {});
    assert_eq!(target.fence().ask(&admit(NEW, 7)), Told::Done {});
    // A leader that slept, and a daemon that was started anew meanwhile.
    for late in [question(Verb::Close, 6), admit(OLD, 6), question(Verb::Report, 6)] {
        let told = target.fence().ask(&late);
        assert!(matches!(told, Told::Refused(_)), "{told:?}");
    }
    assert!(target.connect(NEW).is_ok() && target.connect(OLD).is_err());
}

#[test]
fn a_token_admits_anew_whoever_it_names_last_and_cuts_the_one_before() {
    let target = Target::new("renamed");
    let fence = target.fence();
    assert_eq!(fence.ask(&question(Verb::Close, 1)), Told::Done {});
    assert_eq!(fence.ask(&admit(OLD, 1)), Told::Done {});
    let old = target.connect(OLD).unwrap();
    assert_eq!(fence.ask(&admit(OLD, 1)), Told::Done {});
    assert!(target.tree.write_by(&old, 0).is_ok(), "who is admitted already is not cut");
    assert_eq!(fence.ask(&admit(NEW, 1)), Told::Done {});
    assert!(target.tree.write_by(&old, 1).is_err());
}

#[test]
fn what_is_put_up_again_looks_as_it_did() {
    let target = Target::new("same");
    let name = nqn(NQN);
    let looks = || Subsystem::new(&*target.tree, &name).unwrap().definition().unwrap();
    let before = looks();
    let fence = target.fence();
    assert_eq!(fence.ask(&question(Verb::Close, 1)), Told::Done {});
    assert_eq!(fence.ask(&admit(NEW, 1)), Told::Done {});
    assert_eq!(looks(), before);
}

/// Every change of the tree is the last one, once.
#[test]
fn whoever_begins_again_after_a_crash_anywhere_comes_to_the_same_end() {
    let name = nqn(NQN);
    for (crash, admitting) in (0..40).flat_map(|n| [(n, false), (n, true)]) {
        let target = Target::new("crash");
        let looks = || Subsystem::new(&*target.tree, &name).unwrap().definition().unwrap();
        let (before, old) = (looks(), target.connect(OLD).unwrap());
        let last = if admitting {
            assert_eq!(target.fence().ask(&question(Verb::Close, 1)), Told::Done {});
            admit(NEW, 1)
        } else {
            question(Verb::Close, 1)
        };
        target.tree.dies_after(Some(crash));
        let told = target.fence().ask(&last);
        target.tree.dies_after(None);
        let done = Told::Done {};
        if told == done {
            assert!(crash > 5, "it is done in {crash} changes");
        } else if admitting && crash % 2 == 0 {
            // The one who comes next need not be asked.
            target.fence().tend();
        } else {
            assert_eq!(target.fence().ask(&last), Told::Done {}, "after {crash} changes");
        }
        assert!(target.tree.write_by(&old, 1).is_err());
        assert_eq!(target.connect(NEW).is_ok(), admitting);
        if !admitting {
            assert_eq!(target.fence().ask(&question(Verb::Report, 1)), closed(1));
            assert_eq!(target.fence().ask(&admit(NEW, 1)), Told::Done {});
        }
        assert_eq!(looks(), before, "after {crash} changes");
    }
}

#[test]
fn a_target_that_boots_with_an_old_configuration_is_made_as_it_was_decided() {
    let target = Target::new("boot");
    let fence = target.fence();
    assert_eq!(fence.ask(&question(Verb::Close, 4)), Told::Done {});
    target.tree.reboot();
    // The old host is on the list again, as the saved configuration says.
    let restored =
        Target { tree: Arc::new(Fake::default().with(NQN, DEVICE, OLD)), dir: target.dir.clone() };
    let old = restored.connect(OLD).unwrap();
    assert_eq!(restored.fence().tend().len(), 1, "it is said once");
    assert_eq!(restored.fence().tend(), Vec::<String>::new());
    assert!(restored.tree.write_by(&old, 0).is_err());
    assert_eq!(restored.fence().ask(&question(Verb::Report, 4)), closed(4));
    assert_eq!(restored.fence().ask(&admit(NEW, 4)), Told::Done {});
    restored.tree.reboot();
    restored.fence().tend();
    assert!(restored.connect(NEW).is_ok(), "who was admitted is admitted after a boot");
}

#[test]
fn a_subsystem_that_is_up_is_never_reported_closed() {
    let target = Target::new("up");
    let told = target.fence().ask(&question(Verb::Report, 0));
    let Told::Target { allowed, connected, .. } = told else { panic!("{told:?}") };
    assert_eq!((allowed, connected), (vec![OLD.to_owned()], vec![OLD.to_owned()]));
    // Off the list, and nobody knows what of its connection.
    let link = Path::new("subsystems").join(NQN).join("allowed_hosts").join(OLD);
    target.tree.unlink(&link).unwrap();
    let told = target.fence().ask(&question(Verb::Report, 0));
    let Told::Target { allowed, connected, .. } = told else { panic!("{told:?}") };
    assert_eq!((allowed.len(), connected.len()), (0, 1));
}

#[test]
fn a_second_subsystem_with_the_same_device_is_reported() {
    let mut target = Target::new("double");
    let tree = Arc::get_mut(&mut target.tree).map(std::mem::take).unwrap();
    target.tree = Arc::new(tree.with("nqn.2026-01.org.example:other", "/dev/dm-1", OLD));
    let fence = target.fence();
    assert_eq!(fence.ask(&question(Verb::Close, 1)), Told::Done {});
    let other = Path::new("subsystems/nqn.2026-01.org.example:other/namespaces/1");
    let told = || {
        let told = fence.ask(&question(Verb::Report, 1));
        let Told::Target { connected, .. } = told else { panic!("{told:?}") };
        connected.concat()
    };
    assert!(told().contains("org.example:other"), "{}", told());
    target.tree.write(&other.join("enable"), "0").unwrap();
    assert!(told().contains("org.example:other"), "it is off, and may wait for a write");
    target.tree.write(&other.join("device_path"), "(null)").unwrap();
    assert_eq!(told(), "");
}

#[test]
fn what_is_not_ours_and_what_leads_out_of_the_tree_is_refused() {
    let target = Target::new("names");
    let tree: Arc<dyn Tree> = Arc::clone(&target.tree) as Arc<dyn Tree>;
    let prefixes = vec!["nqn.2026-01.org.example:ceph-".to_owned()];
    let fence = Fence::new(tree, Records::at(&target.dir), prefixes, None);
    assert!(matches!(fence.ask(&question(Verb::Close, 1)), Told::Refused(_)));
    for name in ["nqn.x/../../kernel", "../hosts", "."] {
        let mut asked = question(Verb::Close, 1);
        let Ok(name) = Nqn::new(name) else { continue };
        asked.subsystem = Some(name);
        assert!(matches!(target.fence().ask(&asked), Told::Refused(_)), "{asked:?}");
    }
    assert!(target.connect(OLD).is_ok());
}

#[test]
fn a_record_that_is_not_understood_is_no_missing_record() {
    let target = Target::new("strange");
    #[allow(clippy::disallowed_methods, reason = "what a disk may do")]
    std::fs::write(target.dir.join(format!("{NQN}.json")), b"{").unwrap();
    for asked in [question(Verb::Close, 1), admit(NEW, 1), question(Verb::Report, 1)] {
        assert!(matches!(target.fence().ask(&asked), Told::Again(_)));
    }
    assert!(target.connect(OLD).is_ok(), "nothing was done");
    assert_eq!(target.fence().tend().len(), 1);
}

#[test]
fn it_is_not_well_while_a_boot_would_undo_what_it_did() {
    let target = Target::new("saved");
    let saved = target.dir.join("config");
    let tree: Arc<dyn Tree> = Arc::clone(&target.tree) as Arc<dyn Tree>;
    let records = Records::at(&target.dir);
    let fence = Fence::new(tree, records, Vec::new(), Some(saved.clone()));
    assert_eq!(fence.ask(&Question::health()), Told::Done {}, "nothing is saved");
    let save = |hosts: &str, any: &str| {
        let text = format!(
            r#"{{"hosts":[],"ports":[],"subsystems":[{{"nqn":"{NQN}","allowed_hosts":[{hosts}],
                "attr":{{"allow_any_host":"{any}"}},"namespaces":[]}}]}}"#
        );
        #[allow(clippy::disallowed_methods, reason = "a scratch file of this test")]
        std::fs::write(&saved, text).unwrap();
    };
    save("", "0");
    assert_eq!(fence.ask(&Question::health()), Told::Done {});
    for (hosts, any) in [(format!("\"{OLD}\""), "0"), (String::new(), "1")] {
        save(&hosts, any);
        assert!(matches!(fence.ask(&Question::health()), Told::Again(_)));
    }
}

#[test]
fn what_was_adopted_is_there_after_a_boot_and_is_built_anew_for_its_first_move() {
    let target = Target::new("adopted");
    let lines = target.fence().adopt().unwrap();
    assert!(lines[0].ends_with("host-a's"), "{lines:?}");
    let old = target.connect(OLD).unwrap();
    assert_eq!(target.fence().tend(), Vec::<String>::new());
    assert!(target.tree.write_by(&old, 0).is_ok(), "nothing happened to its connection");
    // Whoever was on its list before may still be connected.
    assert_eq!(target.fence().ask(&admit(OLD, 1)), Told::Done {});
    assert!(target.tree.write_by(&old, 1).is_err());
    target.tree.reboot();
    target.fence().tend();
    assert!(target.connect(OLD).is_ok());
}
