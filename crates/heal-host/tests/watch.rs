//! The event sources as they wait, on the kernel the tests run on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test may fail and say why"
)]

mod captured;

use std::collections::BTreeSet;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::time::Duration;

use captured::Tree;
use heal_host::clock;
use heal_host::enumerate::{Enumerator, Settle};
use heal_host::events::Sources;
use heal_host::mdwatch::{MdWatch, Touched};
use heal_host::uevent::UeventSocket;
use heal_types::{DevT, DeviceName};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

const MD127: &str = "sys/devices/virtual/block/md127/md";

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, future).await.expect("it happens in time")
    })
}

fn these(names: &[&str]) -> Touched {
    let names = names.iter().map(|name| DeviceName::new(*name).unwrap());
    Touched::These(names.collect::<BTreeSet<_>>())
}

/// A captured tree has no poll, as sysfs has; inotify on its files works as in sysfs.
#[test]
fn a_changed_attribute_wakes_with_its_array_and_the_time() {
    let tree = Tree::captured("by-hand-mirror");
    run(async {
        let mut watch = MdWatch::new(tree.root()).unwrap();
        assert_eq!(watch.counters().files, 12, "four attributes and two legs, twice");
        let before = clock::moment();
        tree.file(&format!("{MD127}/dev-nvme1n1/state"), "faulty\n");
        let wake = watch.wake().await;
        assert_eq!(wake.arrays, these(&["md127"]));
        assert!(wake.at >= before && wake.at <= clock::moment());
        assert!(watch.counters().inotify_first > 0);
    });
}

#[test]
fn a_wake_that_is_not_waited_for_to_the_end_is_not_lost() {
    let tree = Tree::captured("by-hand-mirror");
    run(async {
        let mut watch = MdWatch::new(tree.root()).unwrap();
        for _ in 0..5 {
            let idle = tokio::time::timeout(Duration::from_millis(5), watch.wake()).await;
            assert!(idle.is_err(), "nothing happened");
        }
        tree.file(&format!("{MD127}/degraded"), "1\n");
        tree.file("sys/devices/virtual/block/md0/md/array_state", "clean\n");
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            // Given up at once, again and again.
            let wake = tokio::time::timeout(Duration::ZERO, watch.wake()).await;
            if let Ok(wake) = wake {
                match wake.arrays {
                    Touched::These(arrays) => seen.extend(arrays),
                    Touched::All => panic!("mdstat did not change"),
                }
            }
        }
    });
}

#[test]
fn progress_is_told_at_most_once_a_second_and_the_last_is_not_lost() {
    let tree = Tree::captured("by-hand-mirror");
    run(async {
        let mut watch = MdWatch::new(tree.root()).unwrap();
        let path = format!("{MD127}/sync_completed");
        tree.file(&path, "1 / 9\n");
        let first = watch.wake().await.at;
        tree.file(&path, "2 / 9\n");
        let second = watch.wake().await.at;
        assert!(second.since(first) >= Duration::from_secs(1));
        assert!(watch.counters().held_back > 0);
    });
}

#[test]
fn an_array_that_came_is_held_after_listing_again() {
    let tree = Tree::captured("by-hand-mirror");
    run(async {
        let mut watch = MdWatch::new(tree.root()).unwrap();
        tree.file("sys/block/md9/md/array_state", "clean\n");
        watch.relist();
        assert_eq!(watch.counters().files, 13);
        tree.file("sys/block/md9/md/array_state", "active\n");
        assert_eq!(watch.wake().await.arrays, these(&["md9"]));
        // Another file at the same path: the object is a new one.
        tree.remove("sys/block/md9/md/array_state");
        tree.file("sys/block/md9/md/array_state", "clean\n");
        watch.relist();
        assert_eq!(watch.wake().await.arrays, these(&["md9"]));
        assert_eq!(watch.counters().files, 13);
    });
}

#[test]
fn a_host_without_md_is_watched_all_the_same() {
    let tree = Tree::empty();
    run(async {
        let mut watch = MdWatch::new(tree.root()).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), watch.wake()).await.is_err());
    });
}

fn netlink_sender() -> Option<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(KOBJECT_UEVENT),
    );
    socket.ok()
}

#[test]
fn a_uevent_that_the_kernel_did_not_send_is_dropped_and_counted() {
    run(async {
        let (Ok(mut socket), Some(sender)) = (UeventSocket::open(), netlink_sender()) else {
            eprintln!("skipped: no netlink here");
            return;
        };
        let forged = b"remove@/devices/virtual/block/md127\0SUBSYSTEM=block\0";
        let group = SocketAddrNetlink::new(0, 1);
        let sent = rustix::net::sendto(&sender, forged, SendFlags::empty(), &group);
        if let Err(errno) = sent {
            eprintln!("skipped: sending needs root: {errno}");
            return;
        }
        let _ = tokio::time::timeout(Duration::from_millis(200), async {
            loop {
                let woke = socket.next().await;
                assert!(!format!("{woke:?}").contains("md127"), "{woke:?}");
            }
        })
        .await;
        assert_eq!(socket.counters().forged, 1);
    });
}

#[test]
fn all_sources_open_and_wait_together() {
    let tree = Tree::captured("by-hand-mirror");
    run(async {
        let Ok(mut sources) = Sources::open(tree.root()) else {
            eprintln!("skipped: no netlink here");
            return;
        };
        tree.file(&format!("{MD127}/array_state"), "active\n");
        loop {
            // Another process may make the kernel speak meanwhile.
            let event = sources.next().await;
            if let heal_host::events::SourceEvent::Md(wake) = event {
                assert_eq!(wake.arrays, these(&["md127"]));
                break;
            }
        }
        assert_eq!(sources.counters().md.wakes, 1);
    });
}

#[test]
fn udev_is_not_waited_for_longer_than_asked() {
    let Ok(enumerator) = Enumerator::start() else {
        eprintln!("skipped: no libudev here");
        return;
    };
    // No such device: done only where no udev runs.
    let dev = DevT { major: 4095, minor: 9 };
    let expected = if std::path::Path::new("/run/udev/control").exists() {
        Settle::TimedOut
    } else {
        Settle::Done
    };
    let begun = std::time::Instant::now();
    let timeout = Duration::from_millis(150);
    assert_eq!(enumerator.settled_blocking(dev, timeout), expected);
    run(async {
        let (first, second) = (enumerator.clone(), enumerator.clone());
        assert_eq!(first.settled(dev, timeout).await, expected);
        assert_eq!(second.settled(dev, Duration::ZERO).await, expected);
        assert!(enumerator.members().await.known().is_some());
    });
    assert!(begun.elapsed() < Duration::from_secs(2));
}
