//! The TCP sockets of controllers, as far as acts need them.
//!
//! What is destroyed must be known before it has to be: looking sockets up among all of a host's
//! takes longer than everything else an isolation does. So every look takes down whose sockets are
//! whose ([`SocketBook`]), and an isolation only asks for its own:
//!
//! ```text
//!   look ──► controllers ──► dump to their portals ──► book        one conversation with the kernel
//!                                                       │
//!   isolation ──────────────────────────────────────────┴─► destroy, by id    and another one
//! ```
//!
//! Two conversations, so that an isolation does not wait behind a dump. The book itself is held
//! only to read it and to write it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heal_types::{
    ControllerName, ControllerState, IfIndex, InterfaceName, Moment, Observed, Portal,
    SocketReading, TransportKind,
};

use crate::network::{Numeric, Scope};
use crate::scan::Seen;
use crate::sockdiag::{self, Diag, SocketId, TcpSocket};
use crate::socketbook::{LiveController, SocketBook};
use crate::sysfs::Root;

/// A connection to ourselves takes no longer, or loopback is down.
const LOOPBACK: Duration = Duration::from_millis(500);

/// What became of the sockets of some controllers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Destroyed {
    /// Destroyed now. Others that were known were gone.
    pub(super) sockets: usize,
    /// Why those of some are not known.
    pub(super) unknown: Option<String>,
    /// When the last had ended.
    pub(super) at: Option<Moment>,
}

/// Knows whose sockets are whose, and destroys them. Tests bring sockets that are a list.
pub(super) trait Sockets: Send + Sync + fmt::Debug {
    /// Takes down whose sockets are whose. `controllers` are all that lead over TCP, read just now.
    /// Answers whether another look, right after this one, would settle more.
    fn refresh(&self, controllers: &[LiveController]) -> io::Result<bool>;

    /// Destroys the sockets of `controllers`, each by its ports and its cookie.
    fn destroy(&self, controllers: &BTreeSet<ControllerName>) -> io::Result<Destroyed>;

    /// Destroys a socket made for that, so that the next one is not the first.
    fn rehearse(&self) -> io::Result<()>;

    /// How the sockets of `controllers` fare now; nothing of those whose sockets are not known.
    fn readings(
        &self,
        controllers: &BTreeSet<ControllerName>,
    ) -> io::Result<BTreeMap<ControllerName, SocketReading>>;
}

/// The controllers of a look that lead over TCP, as they are now.
pub(super) fn controllers(root: &Root, seen: &Seen) -> Vec<LiveController> {
    let class = root.dir("sys/class/nvme");
    seen.controllers
        .iter()
        .filter(|(_, known)| known.portal.transport == TransportKind::Tcp)
        .filter_map(|(name, known)| {
            let dir = class.dir(name.as_str());
            (dir.inode() == Observed::Known(known.inode)).then(|| LiveController {
                name: name.clone(),
                instance: known.inode,
                interface: interface(root, &known.portal),
                portal: known.portal.clone(),
                queues: dir.value("queue_count").known().copied().unwrap_or(0),
                live: dir.value("state") == Observed::Known(ControllerState::Live),
            })
        })
        .collect()
}

/// The interface a controller is bound to.
fn interface(root: &Root, portal: &Portal) -> Option<IfIndex> {
    let index = |name: &InterfaceName| {
        root.dir("sys/class/net").dir(name.as_str()).value("ifindex").known().copied()
    };
    match (&portal.host_interface, Numeric::of(&portal.address)?.scope) {
        (Some(name), _) => index(name),
        (None, Some(Scope::Index(found))) => Some(found),
        (None, Some(Scope::Name(name))) => index(&name),
        (None, None) => None,
    }
}

/// The kernel's sockets.
#[derive(Debug, Default)]
pub(super) struct KernelSockets {
    book: Mutex<SocketBook>,
    /// For dumps: who has it keeps it until the book is written, so that no older dump comes last.
    asks: Mutex<Option<Diag>>,
    /// For ending sockets.
    ends: Mutex<Option<Diag>>,
}

impl Sockets for KernelSockets {
    fn refresh(&self, controllers: &[LiveController]) -> io::Result<bool> {
        let mut asks = lock(&self.asks);
        let sockets = dump(&mut asks, controllers)?;
        let unsettled = {
            let mut book = lock(&self.book);
            book.reconcile(controllers, &sockets);
            book.wants_another_look()
        };
        // Whoever needs it must not wait for a module to be loaded.
        let mut ends = lock(&self.ends);
        if ends.is_none() {
            *ends = Some(Diag::open()?);
        }
        Ok(unsettled)
    }

    fn destroy(&self, controllers: &BTreeSet<ControllerName>) -> io::Result<Destroyed> {
        let (ids, unknown) = self.ids(controllers);
        let (ended, at) = conversation(&mut lock(&self.ends))?.destroy_all(&ids)?;
        let destroyed = |one: &&sockdiag::Destroyed| **one == sockdiag::Destroyed::Destroyed;
        Ok(Destroyed { sockets: ended.iter().filter(destroyed).count(), unknown, at: Some(at) })
    }

    fn rehearse(&self) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let ours = TcpStream::connect_timeout(&address, LOOPBACK)?;
        let from = ours.local_addr()?;
        let mut ends = lock(&self.ends);
        let diag = conversation(&mut ends)?;
        let sockets = diag.dump(address)?;
        match sockets.iter().find(|socket| socket.id.local == from) {
            Some(socket) => diag.destroy(&socket.id).map(drop),
            None => Ok(()),
        }
    }

    /// One question for each socket: a dump keeps everybody else who asks about sockets waiting, an
    /// isolation among them (`sock_diag_mutex`, `net/core/sock_diag.c`).
    fn readings(
        &self,
        controllers: &BTreeSet<ControllerName>,
    ) -> io::Result<BTreeMap<ControllerName, SocketReading>> {
        let claimed = |name| lock(&self.book).claimed(name).collect::<Vec<_>>();
        let mut sockets = Vec::new();
        for id in controllers.iter().flat_map(claimed) {
            sockets.extend(conversation(&mut lock(&self.asks))?.get(&id)?);
        }
        let book = lock(&self.book);
        let of = |name: &ControllerName| Some((name.clone(), book.reading(name, &sockets)?));
        Ok(controllers.iter().filter_map(of).collect())
    }
}

impl KernelSockets {
    /// The sockets of all of them; where some are not known, of the others.
    fn ids(&self, controllers: &BTreeSet<ControllerName>) -> (Vec<SocketId>, Option<String>) {
        let book = lock(&self.book);
        let why = match book.sockets_of(controllers) {
            Ok(ids) => return (ids, None),
            Err(why) => why,
        };
        let alone = controllers
            .iter()
            .filter_map(|name| book.sockets_of(&BTreeSet::from([name.clone()])).ok());
        (alone.flatten().collect(), Some(why.to_string()))
    }
}

/// Every socket to the portals of `controllers`.
fn dump(diag: &mut Option<Diag>, controllers: &[LiveController]) -> io::Result<Vec<TcpSocket>> {
    let targets: BTreeSet<SocketAddr> = controllers
        .iter()
        .filter_map(|controller| {
            let portal = &controller.portal;
            Some(SocketAddr::new(Numeric::of(&portal.address)?.ip, portal.port))
        })
        .collect();
    let mut sockets = Vec::new();
    for target in targets {
        match conversation(diag)?.dump(target) {
            Ok(found) => sockets.extend(found),
            Err(error) => {
                *diag = None;
                return Err(error);
            }
        }
    }
    Ok(sockets)
}

fn conversation(diag: &mut Option<Diag>) -> io::Result<&mut Diag> {
    match diag {
        Some(diag) => Ok(diag),
        none => Ok(none.insert(Diag::open()?)),
    }
}

/// A book that a panic left is corrected by the next look, and every act compares cookies.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::TempDir;

    #[test]
    fn a_controller_is_bound_to_the_interface_it_names_or_its_address_does() {
        let dir = TempDir::new();
        dir.file("sys/class/net/eth1/ifindex", "7\n");
        let root = Root::new(dir.path());
        let portal = |address: &str, host: Option<&str>| Portal {
            transport: TransportKind::Tcp,
            address: address.parse().unwrap(),
            port: 4420,
            host_address: None,
            host_interface: host.map(|name| name.parse().unwrap()),
        };
        assert_eq!(interface(&root, &portal("192.0.2.1", None)), None);
        assert_eq!(interface(&root, &portal("192.0.2.1", Some("eth1"))), Some(7));
        assert_eq!(interface(&root, &portal("192.0.2.1", Some("eth2"))), None);
        assert_eq!(interface(&root, &portal("fe80::1%eth1", None)), Some(7));
        assert_eq!(interface(&root, &portal("fe80::1%3", None)), Some(3));
    }
}
