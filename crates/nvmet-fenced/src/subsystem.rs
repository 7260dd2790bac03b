//! What a subsystem looks like, taking it down, and putting it up again.
//!
//! Every step may be done twice and from the middle: whoever died half way begins again, and what
//! is gone already is gone. The order is what counts. Going down: ports, lists, namespaces, the
//! object. Coming up: the object, the list of one, namespaces, and the ports last, so that there is
//! no moment at which somebody could come in who is not on the list.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use heal_types::Nqn;
use serde::{Deserialize, Serialize};

use crate::tree::Tree;

/// Attributes of a subsystem that it gets back, in the order in which they are written.
const OF_SUBSYSTEMS: [&str; 9] = [
    "attr_serial",
    "attr_model",
    "attr_firmware",
    "attr_ieee_oui",
    "attr_version",
    "attr_cntlid_min",
    "attr_cntlid_max",
    "attr_qid_max",
    "attr_pi_enable",
];
/// And of a namespace.
const OF_NAMESPACES: [&str; 7] = [
    "device_path",
    "device_uuid",
    "device_nguid",
    "ana_grpid",
    "buffered_io",
    "p2pmem",
    "resv_enable",
];
const ANY_HOST: &str = "attr_allow_any_host";

type Attributes = BTreeMap<String, String>;

/// What a subsystem looks like, but for who may use it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    attributes: Attributes,
    /// Those that were switched on.
    namespaces: BTreeMap<u32, Attributes>,
    /// Ports, by the names of their directories.
    ports: BTreeSet<String>,
}

/// Who can come in, and whether anything is there to come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Hosts on the list.
    pub allowed: Vec<String>,
    /// Whether the list counts.
    pub any_host: bool,
    /// Whether a namespace is on.
    pub serves: bool,
    /// Whether there is a namespace at all. One that is off shows so before the kernel has waited
    /// for what came in while it was on; it can be removed only afterwards.
    pub leads: bool,
}

/// Why a subsystem is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The kernel does not do it.
    #[error("{}: {what}", path.display())]
    Kernel {
        /// What was being done.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A name that cannot be a directory's.
    #[error("{0} is no name for a directory")]
    Name(String),
    /// What was to be there is not.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
}

/// A subsystem in the tree.
pub struct Subsystem<'a> {
    tree: &'a dyn Tree,
    nqn: &'a Nqn,
    dir: PathBuf,
}

impl std::fmt::Debug for Subsystem<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subsystem").field("nqn", self.nqn).finish_non_exhaustive()
    }
}

/// A name that stays inside its directory.
fn plain(name: &str) -> Result<&str, Trouble> {
    if name.contains('/') || name.starts_with('.') {
        return Err(Trouble::Name(name.to_owned()));
    }
    Ok(name)
}

fn at<T>(what: &'static str, path: &Path, done: io::Result<T>) -> Result<T, Trouble> {
    done.map_err(|source| Trouble::Kernel { what, path: path.to_path_buf(), source })
}

impl<'a> Subsystem<'a> {
    /// The subsystem of that name.
    ///
    /// # Errors
    /// When no directory can have it.
    pub fn new(tree: &'a dyn Tree, nqn: &'a Nqn) -> Result<Self, Trouble> {
        let dir = Path::new("subsystems").join(plain(nqn.as_str())?);
        Ok(Self { tree, nqn, dir })
    }

    /// Every one there is.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub fn all(tree: &dyn Tree) -> Result<Vec<Nqn>, Trouble> {
        let dir = Path::new("subsystems");
        let names = at("list", dir, tree.list(dir))?;
        // A name that we cannot say was never asked for either.
        Ok(names.into_iter().flatten().filter_map(|name| Nqn::new(name).ok()).collect())
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, Trouble> {
        Ok(at("list", dir, self.tree.list(dir))?.unwrap_or_default())
    }

    fn read(&self, file: &Path) -> Result<Option<String>, Trouble> {
        at("read", file, self.tree.read(file))
    }

    fn write(&self, file: &Path, value: &str) -> Result<(), Trouble> {
        at("write", file, self.tree.write(file, value))
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub fn exists(&self) -> Result<bool, Trouble> {
        Ok(at("list", &self.dir, self.tree.list(&self.dir))?.is_some())
    }

    /// Who can come in now; nothing if it is not there.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub fn standing(&self) -> Result<Option<Standing>, Trouble> {
        if !self.exists()? {
            return Ok(None);
        }
        let any_host = self.read(&self.dir.join(ANY_HOST))?;
        let (mut serves, mut leads) = (false, false);
        for (_, namespace) in self.namespaces()? {
            serves |= self.is_on(&namespace)?;
            leads = true;
        }
        Ok(Some(Standing {
            allowed: self.list(&self.dir.join("allowed_hosts"))?,
            // What is not known to be off is on.
            any_host: any_host.as_deref() != Some("0"),
            serves,
            leads,
        }))
    }

    fn is_on(&self, namespace: &Path) -> Result<bool, Trouble> {
        Ok(self.read(&namespace.join("enable"))?.as_deref() != Some("0"))
    }

    fn namespaces(&self) -> Result<Vec<(u32, PathBuf)>, Trouble> {
        let dir = self.dir.join("namespaces");
        let names = self.list(&dir)?;
        let number = |name: String| name.parse().map(|nsid| (nsid, dir.join(&name)));
        Ok(names.into_iter().filter_map(|name| number(name).ok()).collect())
    }

    /// Ports it is on.
    fn ports(&self) -> Result<BTreeSet<String>, Trouble> {
        let mut found = BTreeSet::new();
        for port in self.list(Path::new("ports"))? {
            let links = self.list(&Path::new("ports").join(&port).join("subsystems"))?;
            if links.iter().any(|name| name == self.nqn.as_str()) {
                found.insert(port);
            }
        }
        Ok(found)
    }

    /// What it looks like now.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub fn definition(&self) -> Result<Definition, Trouble> {
        let mut namespaces = BTreeMap::new();
        for (nsid, dir) in self.namespaces()? {
            if self.is_on(&dir)? {
                namespaces.insert(nsid, self.attributes(&dir, &OF_NAMESPACES)?);
            }
        }
        let attributes = self.attributes(&self.dir, &OF_SUBSYSTEMS)?;
        Ok(Definition { attributes, namespaces, ports: self.ports()? })
    }

    /// Those that this kernel has.
    fn attributes(&self, dir: &Path, names: &[&str]) -> Result<Attributes, Trouble> {
        let mut found = Attributes::new();
        for name in names {
            if let Some(value) = self.read(&dir.join(name))? {
                found.insert((*name).to_owned(), value);
            }
        }
        Ok(found)
    }

    /// Takes it down. When this returns, no write through it is under way, and none can begin.
    ///
    /// # Errors
    /// When the kernel does not do it; then nothing may be said of who can write.
    pub fn take_down(&self) -> Result<(), Trouble> {
        for port in self.list(Path::new("ports"))? {
            let link = Path::new("ports").join(port).join("subsystems").join(self.nqn.as_str());
            at("take off its port", &link, self.tree.unlink(&link))?;
        }
        if !self.exists()? {
            return Ok(());
        }
        let any_host = self.dir.join(ANY_HOST);
        let hosts = self.dir.join("allowed_hosts");
        for host in self.list(&hosts)? {
            let link = hosts.join(host);
            at("take off the list", &link, self.tree.unlink(&link))?;
        }
        self.write(&any_host, "0")?;
        for (_, namespace) in self.namespaces()? {
            // Returns when the last request that uses it has ended.
            self.write(&namespace.join("enable"), "0")?;
            at("remove", &namespace, self.tree.remove(&namespace))?;
        }
        at("remove", &self.dir, self.tree.remove(&self.dir))
    }

    /// Puts it up as `definition` says, for `host` and nobody else. It must not be there, or be
    /// what an earlier try left.
    ///
    /// # Errors
    /// When the kernel does not do it, or a port is missing.
    pub fn put_up(&self, definition: &Definition, host: &Nqn) -> Result<(), Trouble> {
        for port in &definition.ports {
            let dir = Path::new("ports").join(plain(port)?);
            if at("list", &dir, self.tree.list(&dir))?.is_none() {
                return Err(Trouble::Missing(dir));
            }
        }
        at("make", &self.dir, self.tree.make(&self.dir))?;
        self.write(&self.dir.join(ANY_HOST), "0")?;
        self.give(&self.dir, &OF_SUBSYSTEMS, &definition.attributes)?;
        let known = Path::new("hosts").join(plain(host.as_str())?);
        at("make", &known, self.tree.make(&known))?;
        let listed = self.dir.join("allowed_hosts").join(host.as_str());
        at("admit", &listed, self.tree.link(&known, &listed))?;
        for (nsid, attributes) in &definition.namespaces {
            let dir = self.dir.join("namespaces").join(nsid.to_string());
            at("make", &dir, self.tree.make(&dir))?;
            self.give(&dir, &OF_NAMESPACES, attributes)?;
            self.write(&dir.join("enable"), "1")?;
        }
        for port in &definition.ports {
            let link = Path::new("ports").join(port).join("subsystems").join(self.nqn.as_str());
            at("put on its port", &link, self.tree.link(&self.dir, &link))?;
        }
        Ok(())
    }

    /// Only what differs from what a new object has: some attributes can be written once only.
    fn give(&self, dir: &Path, names: &[&str], values: &Attributes) -> Result<(), Trouble> {
        for name in names {
            let Some(value) = values.get(*name) else { continue };
            let file = dir.join(name);
            if self.read(&file)?.as_ref() != Some(value) {
                self.write(&file, value)?;
            }
        }
        Ok(())
    }

    /// Where its namespaces lead, those that are off as well.
    fn devices(&self) -> Result<BTreeSet<String>, Trouble> {
        let mut found = BTreeSet::new();
        for (_, namespace) in self.namespaces()? {
            let path = self.read(&namespace.join("device_path"))?;
            // As the kernel says that none was set.
            let path = path.filter(|path| !path.is_empty() && path != "(null)");
            found.extend(path.map(|path| self.tree.resolve(&path)));
        }
        Ok(found)
    }

    /// Other subsystems that lead to one of the same devices.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub fn doubles(&self, definition: &Definition) -> Result<Vec<Nqn>, Trouble> {
        let path = |attributes: &Attributes| attributes.get("device_path").cloned();
        let kept = definition.namespaces.values().filter_map(path);
        let mut ours: BTreeSet<String> = kept.map(|path| self.tree.resolve(&path)).collect();
        ours.extend(self.devices()?);
        let mut found = Vec::new();
        for nqn in Self::all(self.tree)?.into_iter().filter(|nqn| nqn != self.nqn) {
            let theirs = Subsystem::new(self.tree, &nqn)?.devices()?;
            if !ours.is_disjoint(&theirs) {
                found.push(nqn);
            }
        }
        Ok(found)
    }
}
