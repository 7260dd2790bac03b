//! A target in a process: the rules of the kernel's tree, and hosts that connect and write.
//!
//! It is as bad as a kernel may be. A connection that was told to end never does: it stays with the
//! subsystem object it was made to, and writes whatever that object lets it write. A write that is
//! under way lands when somebody waits for it, or whenever the test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard};

use super::Tree;

/// Which object, whatever its name.
type Object = usize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub host: String,
    pub number: u64,
}

#[derive(Debug, Default)]
struct Subsystem {
    attributes: BTreeMap<String, String>,
    allowed: BTreeSet<String>,
    namespaces: BTreeMap<u32, Namespace>,
}

#[derive(Debug, Default)]
struct Namespace {
    attributes: BTreeMap<String, String>,
    on: bool,
}

#[derive(Debug, Clone)]
struct UnderWay {
    of: (Object, u32),
    device: String,
    block: Block,
}

#[derive(Debug, Default)]
struct State {
    /// What a connection holds. Objects stay as long as the target runs.
    objects: Vec<Subsystem>,
    /// By their present names.
    named: BTreeMap<String, Object>,
    hosts: BTreeSet<String>,
    ports: BTreeMap<String, BTreeMap<String, Object>>,
    devices: BTreeMap<String, Vec<Block>>,
    under_way: Vec<UnderWay>,
    /// Disks answer nothing: whoever waits for a write waits on.
    hung: bool,
    /// So many changes are made before the next one fails.
    left: Option<usize>,
}

/// The target.
#[derive(Debug, Default)]
pub struct Fake(Mutex<State>, Condvar);

/// A host's connection.
#[derive(Debug, Clone)]
pub struct Connection {
    host: String,
    object: Object,
}

fn no(errno: rustix::io::Errno) -> io::Error {
    errno.into()
}

fn words(path: &Path) -> Vec<&str> {
    path.iter().map(|word| word.to_str().unwrap()).collect()
}

impl State {
    fn change(&mut self) -> io::Result<()> {
        if self.left == Some(0) {
            return Err(io::Error::other("the power went off"));
        }
        self.left = self.left.map(|left| left - 1);
        Ok(())
    }

    fn object(&self, name: &str) -> io::Result<Object> {
        self.named.get(name).copied().ok_or_else(|| no(rustix::io::Errno::NOENT))
    }

    fn has_under_way(&self, of: (Object, u32)) -> bool {
        self.under_way.iter().any(|write| write.of == of)
    }

    /// What was under way has come to the device.
    fn drain(&mut self, of: (Object, u32)) {
        let (theirs, others) = self.under_way.drain(..).partition(|write| write.of == of);
        self.under_way = others;
        let theirs: Vec<UnderWay> = theirs;
        for write in theirs {
            self.devices.entry(write.device).or_default().push(write.block);
        }
    }
}

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What the kernel does when a namespace goes, once it is off: it waits.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, of: (Object, u32)) -> MutexGuard<'a, State> {
        let hangs = |state: &mut State| state.hung && state.has_under_way(of);
        let mut state = self.1.wait_while(state, hangs).unwrap();
        state.drain(of);
        state
    }

    /// Whether disks answer.
    pub fn hang(&self, hung: bool) {
        self.state().hung = hung;
        self.1.notify_all();
    }

    /// A port, and a subsystem on it as a person sets it up.
    pub fn with(self, nqn: &str, device: &str, host: &str) -> Self {
        {
            let mut state = self.state();
            state.ports.entry("1".to_owned()).or_default();
        }
        let dir = Path::new("subsystems").join(nqn);
        self.make(&dir).unwrap();
        self.write(&dir.join("attr_allow_any_host"), "0").unwrap();
        self.write(&dir.join("attr_serial"), "serial-of-it").unwrap();
        let namespace = dir.join("namespaces/1");
        self.make(&namespace).unwrap();
        self.write(&namespace.join("device_path"), device).unwrap();
        self.write(&namespace.join("device_uuid"), "6c1e5c4a-8b0e-4f5e-9c7b-2a0c3f1d9e11").unwrap();
        self.write(&namespace.join("enable"), "1").unwrap();
        let known = Path::new("hosts").join(host);
        self.make(&known).unwrap();
        self.link(&known, &dir.join("allowed_hosts").join(host)).unwrap();
        self.link(&dir, &Path::new("ports/1/subsystems").join(nqn)).unwrap();
        self
    }

    /// After so many changes nothing more can be changed.
    pub fn dies_after(&self, changes: Option<usize>) {
        self.state().left = changes;
    }

    pub fn connect(&self, host: &str, nqn: &str) -> io::Result<Connection> {
        let state = self.state();
        let found = state.ports.values().find_map(|port| port.get(nqn));
        let object = *found.ok_or_else(|| no(rustix::io::Errno::CONNREFUSED))?;
        let subsystem = &state.objects[object];
        let any = subsystem.attributes["attr_allow_any_host"] == "1";
        if !any && !subsystem.allowed.contains(host) {
            return Err(no(rustix::io::Errno::ACCESS));
        }
        Ok(Connection { host: host.to_owned(), object })
    }

    /// A write that has come to the target, and not to the device.
    pub fn begin(&self, by: &Connection, number: u64) -> io::Result<()> {
        let mut state = self.state();
        let serves = |it: &&Namespace| it.on;
        let namespace = state.objects[by.object].namespaces.get(&1).filter(serves);
        let namespace = namespace.ok_or_else(|| no(rustix::io::Errno::IO))?;
        let device = namespace.attributes["device_path"].clone();
        let block = Block { host: by.host.clone(), number };
        state.under_way.push(UnderWay { of: (by.object, 1), device, block });
        Ok(())
    }

    /// Whatever is under way comes to its device now.
    pub fn land(&self) {
        let mut state = self.state();
        let all: BTreeSet<(Object, u32)> = state.under_way.iter().map(|it| it.of).collect();
        all.into_iter().for_each(|of| state.drain(of));
    }

    pub fn write_by(&self, by: &Connection, number: u64) -> io::Result<()> {
        self.begin(by, number)?;
        self.land();
        Ok(())
    }

    pub fn on(&self, device: &str) -> Vec<Block> {
        self.state().devices.get(device).cloned().unwrap_or_default()
    }

    /// The target boots: everything is gone.
    pub fn reboot(&self) {
        let mut state = self.state();
        state.named.clear();
        state.hosts.clear();
        state.ports.values_mut().for_each(BTreeMap::clear);
    }
}

impl Tree for Fake {
    fn list(&self, dir: &Path) -> io::Result<Option<Vec<String>>> {
        let state = self.state();
        let keys = |map: &BTreeMap<String, Object>| map.keys().cloned().collect();
        let of = |name: &str| state.named.get(name).map(|object| &state.objects[*object]);
        Ok(match words(dir)[..] {
            ["subsystems"] => Some(keys(&state.named)),
            ["subsystems", name] => of(name).map(|_| vec!["namespaces".to_owned()]),
            ["subsystems", name, "namespaces"] => {
                of(name).map(|it| it.namespaces.keys().map(u32::to_string).collect())
            }
            ["subsystems", name, "allowed_hosts"] => {
                of(name).map(|it| it.allowed.iter().cloned().collect())
            }
            ["ports"] => Some(state.ports.keys().cloned().collect()),
            ["ports", port] => state.ports.get(port).map(|_| vec!["subsystems".to_owned()]),
            ["ports", port, "subsystems"] => state.ports.get(port).map(keys),
            _ => panic!("nobody lists {}", dir.display()),
        })
    }

    fn read(&self, file: &Path) -> io::Result<Option<String>> {
        let state = self.state();
        let of = |name: &str| state.named.get(name).map(|object| &state.objects[*object]);
        Ok(match words(file)[..] {
            ["subsystems", name, attribute] => {
                of(name).and_then(|it| it.attributes.get(attribute).cloned())
            }
            ["subsystems", name, "namespaces", nsid, attribute] => {
                let found = of(name).and_then(|it| it.namespaces.get(&nsid.parse().unwrap()));
                found.and_then(|it| match attribute {
                    "enable" => Some(u8::from(it.on).to_string()),
                    other => it.attributes.get(other).cloned(),
                })
            }
            _ => panic!("nobody reads {}", file.display()),
        })
    }

    fn write(&self, file: &Path, value: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        match words(file)[..] {
            ["subsystems", name, attribute] => {
                let object = state.object(name)?;
                let subsystem = &mut state.objects[object];
                if attribute == "attr_allow_any_host"
                    && value == "1"
                    && !subsystem.allowed.is_empty()
                {
                    return Err(no(rustix::io::Errno::INVAL));
                }
                let known = subsystem.attributes.get_mut(attribute);
                value.clone_into(known.ok_or_else(|| no(rustix::io::Errno::NOENT))?);
            }
            ["subsystems", name, "namespaces", nsid, attribute] => {
                let object = state.object(name)?;
                let nsid: u32 = nsid.parse().unwrap();
                let found = state.objects[object].namespaces.get_mut(&nsid);
                let namespace = found.ok_or_else(|| no(rustix::io::Errno::NOENT))?;
                match attribute {
                    "enable" if value == "1" && namespace.attributes["device_path"].is_empty() => {
                        return Err(no(rustix::io::Errno::INVAL));
                    }
                    "enable" => {
                        namespace.on = value == "1";
                        if value == "0" {
                            drop(self.wait(state, (object, nsid)));
                        }
                    }
                    _ if namespace.on => return Err(no(rustix::io::Errno::BUSY)),
                    other => {
                        let known = namespace.attributes.get_mut(other);
                        value.clone_into(known.ok_or_else(|| no(rustix::io::Errno::NOENT))?);
                    }
                }
            }
            _ => panic!("nobody writes {}", file.display()),
        }
        Ok(())
    }

    fn make(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let map = |names: &[(&str, &str)]| {
            names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        match words(dir)[..] {
            ["subsystems", name] if !state.named.contains_key(name) => {
                let attributes = map(&[
                    ("attr_allow_any_host", "0"),
                    ("attr_serial", "made-up-by-the-kernel"),
                    ("attr_model", "Linux"),
                ]);
                let object = state.objects.len();
                state.objects.push(Subsystem { attributes, ..Subsystem::default() });
                state.named.insert(name.to_owned(), object);
            }
            ["subsystems", name, "namespaces", nsid] => {
                let object = state.object(name)?;
                let attributes =
                    map(&[("device_path", ""), ("device_uuid", "made-up"), ("ana_grpid", "1")]);
                let made = Namespace { attributes, on: false };
                let namespaces = &mut state.objects[object].namespaces;
                namespaces.entry(nsid.parse().unwrap()).or_insert(made);
            }
            ["hosts", name] => {
                state.hosts.insert(name.to_owned());
            }
            ["subsystems", _] => {}
            _ => panic!("nobody makes {}", dir.display()),
        }
        Ok(())
    }

    fn remove(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        match words(dir)[..] {
            ["subsystems", name] => {
                let object = state.object(name)?;
                let subsystem = &state.objects[object];
                if !subsystem.namespaces.is_empty() || !subsystem.allowed.is_empty() {
                    return Err(no(rustix::io::Errno::NOTEMPTY));
                }
                if state.ports.values().any(|port| port.contains_key(name)) {
                    return Err(no(rustix::io::Errno::BUSY));
                }
                state.named.remove(name);
            }
            ["subsystems", name, "namespaces", nsid] => {
                let object = state.object(name)?;
                let nsid: u32 = nsid.parse().unwrap();
                let off = |it: &mut Namespace| it.on = false;
                state.objects[object].namespaces.get_mut(&nsid).map(off);
                state = self.wait(state, (object, nsid));
                state.objects[object].namespaces.remove(&nsid);
            }
            _ => panic!("nobody removes {}", dir.display()),
        }
        Ok(())
    }

    fn link(&self, to: &Path, at: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        match (&words(to)[..], &words(at)[..]) {
            (["hosts", host], ["subsystems", name, "allowed_hosts", link]) => {
                assert_eq!(host, link);
                if !state.hosts.contains(*host) {
                    return Err(no(rustix::io::Errno::NOENT));
                }
                let object = state.object(name)?;
                let subsystem = &mut state.objects[object];
                if subsystem.attributes["attr_allow_any_host"] == "1" {
                    return Err(no(rustix::io::Errno::INVAL));
                }
                subsystem.allowed.insert((*host).to_owned());
            }
            (["subsystems", name], ["ports", port, "subsystems", link]) => {
                assert_eq!(name, link);
                let object = state.object(name)?;
                let port =
                    state.ports.get_mut(*port).ok_or_else(|| no(rustix::io::Errno::NOENT))?;
                port.insert((*name).to_owned(), object);
            }
            (to, at) => panic!("nobody links {to:?} at {at:?}"),
        }
        Ok(())
    }

    fn unlink(&self, at: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        match words(at)[..] {
            ["subsystems", name, "allowed_hosts", host] => {
                let object = state.object(name)?;
                state.objects[object].allowed.remove(host);
            }
            ["ports", port, "subsystems", name] => {
                state.ports.get_mut(port).unwrap().remove(name);
            }
            _ => panic!("nobody unlinks {}", at.display()),
        }
        Ok(())
    }

    fn resolve(&self, device: &str) -> String {
        device.replace("/dev/mapper/one", "/dev/dm-1")
    }
}
