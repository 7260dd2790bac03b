//! The installed trees as data: every file of the packages, once.
//!
//! Adding a file to the product means adding a line here; both packages, the check of the rpm and
//! the tests follow. Nothing is found by globbing: a file that is not in this list is not shipped.

/// Where an installed file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A program cargo built; stripped on its way.
    Program(&'static str),
    /// A file of the repository, as it is.
    File(&'static str),
    /// A file of the repository, compressed without a time stamp.
    Gzip(&'static str),
    /// An empty directory the package owns.
    Directory,
}

/// Which of the packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Package {
    /// The daemon and the operator's command.
    Heal,
    /// What os-brick imports, for hosts that have os-brick as a distribution's package.
    OpenStack,
    /// The fence, for hosts that are targets.
    Fenced,
}

impl Package {
    pub(super) const ALL: [Self; 3] = [Self::Heal, Self::OpenStack, Self::Fenced];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Heal => "nvme-heal",
            Self::OpenStack => "nvme-heal-openstack",
            Self::Fenced => "nvmet-fenced",
        }
    }

    /// Whether it is the same on every machine: it has no programs.
    pub(super) fn is_for_all_machines(self) -> bool {
        match self {
            Self::Heal | Self::Fenced => false,
            Self::OpenStack => true,
        }
    }

    /// What a package of this format installs.
    pub(super) fn entries(self, format: Format) -> impl Iterator<Item = &'static Entry> {
        let tree = match self {
            Self::Heal => TREE,
            Self::OpenStack => OPENSTACK,
            Self::Fenced => FENCED,
        };
        tree.iter().filter(move |entry| entry.only.is_none_or(|only| only == format))
    }
}

/// Which format of package carries a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Deb,
    Rpm,
}

/// What becomes of an operator's changes to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Replaced by every upgrade.
    Package,
    /// Kept by every upgrade: a conffile, `%config(noreplace)`.
    Operator,
}

/// One installed file or directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) source: Source,
    /// Absolute path on the host.
    pub(super) destination: &'static str,
    pub(super) mode: u32,
    pub(super) owner: Owner,
    /// `None`: in both packages.
    pub(super) only: Option<Format>,
}

impl Entry {
    /// The path below a staging root.
    pub(super) fn below_root(&self) -> &'static str {
        self.destination.strip_prefix('/').expect("a test holds every destination to be absolute")
    }

    pub(super) fn is_directory(&self) -> bool {
        self.source == Source::Directory
    }
}

const fn program(name: &'static str, destination: &'static str) -> Entry {
    Entry {
        source: Source::Program(name),
        destination,
        mode: 0o755,
        owner: Owner::Package,
        only: None,
    }
}

const fn file(source: &'static str, destination: &'static str) -> Entry {
    Entry {
        source: Source::File(source),
        destination,
        mode: 0o644,
        owner: Owner::Package,
        only: None,
    }
}

/// An example that can be run; one that needs an interpreter is no reason to depend on it.
const fn plugin(source: &'static str, destination: &'static str) -> Entry {
    Entry { mode: 0o755, ..file(source, destination) }
}

const fn config(source: &'static str, destination: &'static str) -> Entry {
    Entry { owner: Owner::Operator, ..file(source, destination) }
}

const fn directory(destination: &'static str, mode: u32) -> Entry {
    Entry { source: Source::Directory, destination, mode, owner: Owner::Package, only: None }
}

const fn deb(entry: Entry) -> Entry {
    Entry { only: Some(Format::Deb), ..entry }
}

const fn rpm(entry: Entry) -> Entry {
    Entry { only: Some(Format::Rpm), ..entry }
}

#[rustfmt::skip]
static TREE: &[Entry] = &[
    program("nvme-heald", "/usr/sbin/nvme-heald"),
    program("nvme-heal", "/usr/bin/nvme-heal"),

    file("packaging/systemd/nvme-heald.service", "/usr/lib/systemd/system/nvme-heald.service"),
    file("packaging/sysusers.d/nvme-heal.conf", "/usr/lib/sysusers.d/nvme-heal.conf"),
    file("udev-rules/63-nvme-heal-guard.rules", "/usr/lib/udev/rules.d/63-nvme-heal-guard.rules"),
    file("udev-rules/65-nvme-heal.rules", "/usr/lib/udev/rules.d/65-nvme-heal.rules"),

    directory("/etc/nvme-heal", 0o755),
    config("packaging/config/nvme-heald.ron", "/etc/nvme-heal/nvme-heald.ron"),
    config("packaging/needrestart/50-nvme-heald.conf", "/etc/needrestart/conf.d/50-nvme-heald.conf"),

    // The ledger. Owned by the package because the sandbox can open it for writing only if it
    // exists.
    directory("/var/lib/nvme-heal", 0o700),

    file("packaging/deb/copyright", "/usr/share/doc/nvme-heal/copyright"),
    file(
        "packaging/config/volumes.example.ron",
        "/usr/share/doc/nvme-heal/volumes.example.ron",
    ),
    file("packaging/doc/threat-model.md", "/usr/share/doc/nvme-heal/threat-model.md"),
    file("packaging/doc/openapi.json", "/usr/share/doc/nvme-heal/openapi.json"),
    plugin("packaging/plugins/nvme-heal-plugin.py", "/usr/share/doc/nvme-heal/examples/nvme-heal-plugin.py"),
    plugin("packaging/plugins/nvme-heal-plugin.sh", "/usr/share/doc/nvme-heal/examples/nvme-heal-plugin.sh"),
    deb(Entry {
        source: Source::Gzip("packaging/deb/changelog"),
        ..file("packaging/deb/changelog", "/usr/share/doc/nvme-heal/changelog.gz")
    }),
    deb(file("packaging/deb/lintian-overrides", "/usr/share/lintian/overrides/nvme-heal")),
    rpm(file("LICENSE", "/usr/share/licenses/nvme-heal/LICENSE")),
];

/// Where os-brick is: a Python package is one directory. Debian has one for every Python 3; rpms
/// have one for each, and 3.9 is that of EL 9, where RDO's os-brick is. Elsewhere there is the
/// wheel.
#[rustfmt::skip]
static OPENSTACK: &[Entry] = &[
    deb(file(AGENT, "/usr/lib/python3/dist-packages/os_brick/initiator/connectors/nvmeof_agent.py")),
    rpm(file(AGENT, "/usr/lib/python3.9/site-packages/os_brick/initiator/connectors/nvmeof_agent.py")),

    file("packaging/openstack/README.md", "/usr/share/doc/nvme-heal-openstack/README.md"),
    file("packaging/deb/copyright", "/usr/share/doc/nvme-heal-openstack/copyright"),
    deb(Entry {
        source: Source::Gzip("packaging/deb/changelog"),
        ..file("packaging/deb/changelog", "/usr/share/doc/nvme-heal-openstack/changelog.gz")
    }),
    rpm(file("LICENSE", "/usr/share/licenses/nvme-heal-openstack/LICENSE")),
];

/// On a target's host, beside nothing else of ours.
#[rustfmt::skip]
static FENCED: &[Entry] = &[
    program("nvmet-fenced", "/usr/sbin/nvmet-fenced"),
    file("packaging/nvmet-fenced/nvmet-fenced.service", "/usr/lib/systemd/system/nvmet-fenced.service"),

    // Keys lie there.
    directory("/etc/nvmet-fenced", 0o700),
    config("packaging/nvmet-fenced/nvmet-fenced.ron", "/etc/nvmet-fenced/nvmet-fenced.ron"),

    file("packaging/nvmet-fenced/README.md", "/usr/share/doc/nvmet-fenced/README.md"),
    file("packaging/deb/copyright", "/usr/share/doc/nvmet-fenced/copyright"),
    deb(Entry {
        source: Source::Gzip("packaging/deb/changelog"),
        ..file("packaging/deb/changelog", "/usr/share/doc/nvmet-fenced/changelog.gz")
    }),
    deb(file(
        "packaging/nvmet-fenced/deb/lintian-overrides",
        "/usr/share/lintian/overrides/nvmet-fenced",
    )),
    rpm(file("LICENSE", "/usr/share/licenses/nvmet-fenced/LICENSE")),
];

const AGENT: &str = "packaging/openstack/os_brick/initiator/connectors/nvmeof_agent.py";
