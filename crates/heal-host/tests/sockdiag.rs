//! Sockets of this machine, told and ended by its kernel.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test may fail and say why"
)]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use heal_host::isolation_support::{IsolationSupport, UndecidedWhy, UnsupportedWhy};
use heal_host::sockdiag::{Destroyed, Diag, Family, NotOffered, SocketId, TcpSocket, TcpState};
use heal_host::sysfs::Root;

/// A kernel that tells nothing of sockets has nothing to test here.
fn diag() -> Option<Diag> {
    match Diag::open() {
        Ok(diag) => Some(diag),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A listener and two connections to it.
struct Twins {
    target: SocketAddr,
    near: [TcpStream; 2],
    far: [TcpStream; 2],
}

impl Twins {
    fn new(at: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(at)?;
        let target = listener.local_addr()?;
        let pair = || -> io::Result<_> {
            let near = TcpStream::connect(target)?;
            near.set_read_timeout(Some(Duration::from_secs(10)))?;
            Ok((near, listener.accept()?.0))
        };
        let (one, other) = (pair()?, pair()?);
        Ok(Self { target, near: [one.0, other.0], far: [one.1, other.1] })
    }

    fn v4() -> Self {
        Self::new(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).unwrap()
    }
}

fn of<'a>(sockets: &'a [TcpSocket], stream: &TcpStream) -> &'a TcpSocket {
    let local = stream.local_addr().unwrap();
    let mut found = sockets.iter().filter(|socket| socket.id.local == local);
    let socket = found.next().expect("the socket is told");
    assert!(found.next().is_none(), "and told once");
    socket
}

/// The sockets to `target`, once nothing they sent waits for an acknowledgement.
fn acknowledged(diag: &mut Diag, target: SocketAddr) -> Vec<TcpSocket> {
    let asked = Instant::now();
    loop {
        let there = diag.dump(target).unwrap();
        let waits = |socket: &TcpSocket| socket.info.is_some_and(|info| info.unacked > 0);
        if !there.iter().any(waits) {
            return there;
        }
        assert!(asked.elapsed() < Duration::from_secs(10), "{there:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a socket, or says why this test ends here.
fn destroyed(diag: &mut Diag, id: &SocketId) -> Option<Destroyed> {
    match diag.destroy(id) {
        Ok(destroyed) => Some(destroyed),
        Err(error) => {
            let offered = error.get_ref().and_then(|inner| inner.downcast_ref::<NotOffered>());
            let skip = offered == Some(&NotOffered::Destroy)
                || error.kind() == io::ErrorKind::PermissionDenied;
            assert!(skip, "{error}");
            eprintln!("skipped: this kernel ends no sockets for us: {error}");
            None
        }
    }
}

#[test]
fn a_dump_tells_both_ends_of_each_connection_and_nothing_else() {
    let Some(mut diag) = diag() else { return };
    let mut twins = Twins::v4();
    twins.near[0].write_all(b"x").unwrap();
    twins.far[0].read_exact(&mut [0]).unwrap();
    let there = acknowledged(&mut diag, twins.target);
    assert_eq!(there.len(), 2, "the connections to the listener, and not the listener: {there:?}");
    for stream in &twins.near {
        let socket = of(&there, stream);
        assert_eq!(socket.id.remote, twins.target);
        assert_eq!((socket.state, socket.id.family), (TcpState::Established, Family::V4));
        assert_ne!(socket.inode, 0);
        assert_eq!(socket.uid, rustix::process::geteuid().as_raw());
        let info = socket.info.expect("tcp_info is told");
        assert_eq!((info.state, info.backoff, info.unacked), (TcpState::Established, 0, 0));
        assert!(info.rto >= Duration::from_millis(1) && info.rto < Duration::from_secs(120));
        assert!(info.since_ack < Duration::from_secs(60), "{info:?}");
        let back = diag.dump(stream.local_addr().unwrap()).unwrap();
        assert_eq!(back.len(), 1);
        assert_eq!((back[0].id.local, back[0].id.remote), (twins.target, socket.id.local));
        assert_ne!(back[0].id.cookie, socket.id.cookie, "two ends, two sockets");
        assert_eq!(diag.get(&socket.id).unwrap().unwrap().id, socket.id);
    }
    let nobody = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
    assert_eq!(diag.dump(nobody).unwrap(), []);
}

#[test]
fn a_destruction_ends_one_connection_and_not_its_twin() {
    let Some(mut diag) = diag() else { return };
    let mut twins = Twins::v4();
    let there = diag.dump(twins.target).unwrap();
    let (one, other) = (of(&there, &twins.near[0]).id, of(&there, &twins.near[1]).id);
    let asked = Instant::now();
    let Some(ended) = destroyed(&mut diag, &one) else { return };
    let took = asked.elapsed();
    assert_eq!(ended, Destroyed::Destroyed);
    println!("SOCK_DESTROY took {took:?}");
    let error = twins.near[0].read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    let error = twins.far[0].read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(diag.get(&one).unwrap(), None);
    assert_eq!(diag.destroy(&one).unwrap(), Destroyed::Gone, "a second time there is none");
    assert_eq!(diag.get(&other).unwrap().unwrap().id, other);
    twins.near[1].write_all(b"y").unwrap();
    twins.far[1].read_exact(&mut [0]).unwrap();
}

#[test]
fn a_stale_cookie_hits_nobody() {
    let Some(mut diag) = diag() else { return };
    let mut twins = Twins::v4();
    let there = diag.dump(twins.target).unwrap();
    let id = of(&there, &twins.near[0]).id;
    let [low, high] = id.cookie;
    let stale = SocketId::new(id.local, id.remote, id.interface, [low.wrapping_sub(1), high]);
    assert_eq!(diag.get(&stale).unwrap(), None);
    let Some(ended) = destroyed(&mut diag, &stale) else { return };
    assert_eq!(ended, Destroyed::Gone);
    let any = SocketId::new(id.local, id.remote, id.interface, [u32::MAX; 2]);
    let error = diag.destroy(&any).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "the cookie that fits all is refused");
    assert_eq!(diag.get(&any).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    twins.near[0].write_all(b"z").unwrap();
    twins.far[0].read_exact(&mut [0]).unwrap();
}

#[test]
fn connections_over_ipv6_and_mapped_ones_are_told_and_ended_too() {
    let Some(mut diag) = diag() else { return };
    // One listener of IPv6 that takes IPv4: the far ends are mapped, and so is a near one.
    let all = match Twins::new(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0)) {
        Ok(twins) => twins,
        Err(error) => return eprintln!("skipped: no IPv6 here: {error}"),
    };
    let there = diag.dump(all.target).unwrap();
    assert_eq!(there.len(), 2);
    let id = of(&there, &all.near[0]).id;
    assert_eq!((id.family, id.remote), (Family::V6, all.target));
    match destroyed(&mut diag, &id) {
        Some(ended) => assert_eq!(ended, Destroyed::Destroyed),
        None => return,
    }
    assert_eq!(diag.dump(all.target).unwrap().len(), 1);

    let listener = TcpListener::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let near = TcpStream::connect(target).unwrap();
    let far = listener.accept().unwrap().0;
    let back = diag.dump(near.local_addr().unwrap()).unwrap();
    assert_eq!(back.len(), 1, "the far end of {far:?} is mapped, and found by the IPv4 address");
    assert_eq!((back[0].id.family, back[0].id.local), (Family::V6, target));
    assert_eq!(diag.get(&back[0].id).unwrap().unwrap().id, back[0].id);
    assert_eq!(diag.destroy(&back[0].id).unwrap(), Destroyed::Destroyed);
}

#[test]
fn what_this_kernel_can_do_for_isolation_is_found_out_without_harm() {
    let twins = Twins::v4();
    let support = IsolationSupport::detect(&Root::host());
    println!("isolation here: {support}");
    let can_end = match diag() {
        Some(mut diag) => {
            let id = of(&diag.dump(twins.target).unwrap(), &twins.near[0]).id;
            destroyed(&mut diag, &id).is_some()
        }
        None => false,
    };
    let against =
        [UnsupportedWhy::NoTcpDiag, UnsupportedWhy::NoSockDestroy, UnsupportedWhy::NotPermitted];
    assert_eq!(can_end, !against.iter().any(|why| support.missing.contains(why)));
    assert!(!support.undecided.contains(&UndecidedWhy::NoAnswer));
}
