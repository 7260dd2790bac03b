//! What a tree of a kernel's files says about isolation.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test makes its own tree")]

use std::path::PathBuf;

use heal_host::isolation_support::{IsolationSupport, UndecidedWhy, UnsupportedWhy};
use heal_host::sysfs::Root;
use heal_types::TransportKind;

/// A tree that is gone with the test.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("heal-isolation-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn read(&self) -> IsolationSupport {
        IsolationSupport::read(&Root::new(&self.0))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const OLD: &str = "0000000000000000 T _stext\n\
    0000000000000000 t nvme_tcp_stop_queue\t[nvme_tcp]\n";
const NEW: &str = "0000000000000000 T _stext\n\
    0000000000000000 t nvme_tcp_wait_queue.isra.0\t[nvme_tcp]\n\
    0000000000000000 t nvme_tcp_stop_queue\t[nvme_tcp]\n";

#[test]
fn a_host_without_the_driver_decides_nothing_yet() {
    let support = Tree::new("bare").file("proc/kallsyms", OLD).read();
    assert!(support.missing.is_empty() && support.is_open());
    let expected = [UndecidedWhy::DriverNotLoaded, UndecidedWhy::NoController];
    assert!(support.undecided.iter().eq(&expected), "{support}");
}

#[test]
fn a_driver_that_waits_and_a_controller_with_the_attribute_are_enough() {
    let support = Tree::new("new")
        .file("proc/kallsyms", NEW)
        .file("sys/module/nvme_tcp/refcnt", "1\n")
        .file("sys/class/nvme/nvme0/transport", "pcie\n")
        .file("sys/class/nvme/nvme1/transport", "tcp\n")
        .file("sys/class/nvme/nvme1/fast_io_fail_tmo", "off\n")
        .read();
    assert!(support.is_whole(), "{support}");
}

#[test]
fn an_old_driver_and_an_old_controller_are_said_to_be_so() {
    let support = Tree::new("old")
        .file("proc/kallsyms", OLD)
        .file("sys/module/nvme_tcp/refcnt", "1\n")
        .file("sys/class/nvme/nvme1/transport", "tcp\n")
        .read();
    let expected = [UnsupportedWhy::NoWmemDrain, UnsupportedWhy::NoFastIoFail];
    assert!(support.missing.iter().eq(&expected), "{support}");
    assert!(!support.is_open());
}

#[test]
fn symbols_that_cannot_be_read_leave_it_open() {
    let loaded = Tree::new("hidden").file("sys/module/nvme_tcp/refcnt", "1\n");
    assert!(loaded.read().undecided.contains(&UndecidedWhy::SymbolsUnreadable));
}

#[test]
fn where_there_is_rdma_alone_nothing_of_tcp_is_missed_and_no_socket_may_be_ended() {
    let tree = Tree::new("rdma")
        .file("proc/kallsyms", "0000000000000000 T _stext\n")
        .file("sys/class/nvme/nvme1/transport", "rdma\n")
        .file("sys/class/nvme/nvme1/fast_io_fail_tmo", "off\n");
    let support = tree.read();
    assert!(support.is_whole() && !support.covers_sockets(), "{support}");
    assert_eq!(support.fabrics(), [TransportKind::Rdma].into());
    assert_eq!(support.to_string(), "available for RDMA, by fast_io_fail_tmo alone");
    // As soon as there is a controller over TCP, its driver counts.
    let both = tree
        .file("sys/module/nvme_tcp/refcnt", "1\n")
        .file("sys/class/nvme/nvme2/transport", "tcp\n")
        .file("sys/class/nvme/nvme2/fast_io_fail_tmo", "off\n");
    assert!(!both.read().is_whole());
    let whole = both.file("proc/kallsyms", NEW).read();
    assert!(whole.is_whole() && whole.covers_sockets(), "{whole}");
}
