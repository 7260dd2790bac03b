//! Reads what stands on a device.

use heal_types::{
    Content, DeviceIdentity, DiskSeq, NamespaceSnapshot, Observed, Outcome, RetryWhy, UnknownWhy,
};

use super::content::{Signatures, beside, merge};
use super::node::Node;
use super::{LATER, LinuxHost, Step, identity, not_done, other_device, retry, stuck};
use crate::exec::argv::{self, NamespaceNode};
use crate::exec::{Call, Ended, Ending, Subject};
use crate::helper::{Exit, Report};
use crate::superblock::Trace;

/// `blkid` found nothing, or could not even open the device.
const BLKID_NOTHING: i32 = 2;

/// `blkid` found signatures that exclude each other.
const BLKID_AMBIVALENT: i32 = 8;

impl LinuxHost {
    pub(super) fn examine(&self, device: &DeviceIdentity) -> Step<Content> {
        self.nobody_hangs_on(&[Subject::Namespace(device.namespace)])?;
        let before = self.before();
        let namespace = identity::device(&before, device)?;
        let node = self.open_node(namespace, device)?;
        let content = self.content_of(device, &node)?;
        // What was read was read from this device only if it is still there under that name.
        if !self.is_the_disk_it_was(device) {
            identity::device(&self.see(), device)?;
        }
        Ok(content)
    }

    /// Whether the disk of that name is surely the one it was: no other one ever gets its number.
    fn is_the_disk_it_was(&self, device: &DeviceIdentity) -> bool {
        let now = self.root.dir("sys/block").dir(device.device.as_str()).value("diskseq");
        match (now, device.diskseq) {
            (Observed::Known(now), Observed::Known(then)) => DiskSeq(now) == then,
            (Observed::Known(_) | Observed::Unknown(_), _) => false,
        }
    }

    /// The node of a device that may be opened now.
    pub(super) fn open_node(
        &self,
        namespace: &NamespaceSnapshot,
        device: &DeviceIdentity,
    ) -> Step<Node> {
        identity::reachable(namespace)?;
        self.nodes.prove(&device.device, device.dev)
    }

    /// What stands on the device. "Blank" takes two witnesses that both could read. All read at
    /// once, and what was not needed is not asked how it went.
    pub(super) fn content_of(&self, device: &DeviceIdentity, node: &Node) -> Step<Content> {
        let named = NamespaceNode { id: device.namespace, node };
        let (report, all, beside_md) = std::thread::scope(|readers| {
            let all = readers.spawn(|| self.signatures(&argv::blkid(named)));
            let beside_md = readers.spawn(|| self.signatures(&argv::blkid_beside_md(named)));
            (self.report(&argv::probe(named, device.dev)), told(all), told(beside_md))
        });
        let (report, all) = (report?, all?);
        let beside_md = if all.names_md() { Some(beside_md?) } else { None };
        Ok(merge(&report.traces, &all, beside_md.as_ref()))
    }

    /// The same of a device that is to be taken back, and that somebody may have had open since
    /// before it was out of reach: the kernel keeps pages of it for them, from which `blkid` would
    /// read. Our own reader drops them, so it goes first. Of a member `blkid` is asked only what
    /// stands beside MD; the superblock's second reader is the kernel, when it takes the member.
    pub(super) fn content_afresh(&self, device: &DeviceIdentity, node: &Node) -> Step<Content> {
        let named = NamespaceNode { id: device.namespace, node };
        let report = self.report(&argv::probe(named, device.dev))?;
        if let [Trace::V1(superblock)] = report.traces.as_slice() {
            let beside_md = self.signatures(&argv::blkid_beside_md(named))?;
            return Ok(beside(superblock, &beside_md));
        }
        let all = self.signatures(&argv::blkid(named))?;
        Ok(merge(&report.traces, &all, None))
    }

    /// Only what MD has on the device.
    pub(super) fn superblocks(&self, device: &DeviceIdentity, node: &Node) -> Step<Report> {
        let named = NamespaceNode { id: device.namespace, node };
        self.report(&argv::superblocks(named, device.dev))
    }

    fn report(&self, call: &Call) -> Step<Report> {
        let ended = self.run(call);
        match &ended.ending {
            Ending::Exited(0) => serde_json::from_slice(&ended.stdout)
                .map_err(|_| Outcome::Unknown(UnknownWhy::Malformed)),
            Ending::Exited(code) => Err(match Exit::of(*code) {
                Some(Exit::OtherDevice) => other_device(ended.said()),
                Some(Exit::NotThere) => Outcome::Unknown(UnknownWhy::Vanished),
                Some(Exit::Busy) => not_done(&ended),
                Some(Exit::Failed | Exit::Usage | Exit::NotHere | Exit::Refused) | None => {
                    unread(&ended)
                }
            }),
            Ending::Signalled(_)
            | Ending::TimedOut
            | Ending::Stuck
            | Ending::Behind
            | Ending::NotStarted(_) => Err(did_not_read(&ended)),
        }
    }

    fn signatures(&self, call: &Call) -> Step<Signatures> {
        let ended = self.run(call);
        match &ended.ending {
            Ending::Exited(0) => {
                let output = String::from_utf8_lossy(&ended.stdout);
                Signatures::parse(&output).ok_or_else(|| unread(&ended))
            }
            Ending::Exited(BLKID_AMBIVALENT) => Ok(Signatures::ambivalent()),
            // Its silence about a device it could not open looks just like this.
            Ending::Exited(BLKID_NOTHING) | Ending::Exited(_) => Err(unread(&ended)),
            Ending::Signalled(_)
            | Ending::TimedOut
            | Ending::Stuck
            | Ending::Behind
            | Ending::NotStarted(_) => Err(did_not_read(&ended)),
        }
    }
}

/// What a reader on a thread of its own says.
fn told<T>(reader: std::thread::ScopedJoinHandle<'_, Step<T>>) -> Step<T> {
    reader.join().unwrap_or(Err(Outcome::Unknown(UnknownWhy::NoAnswer)))
}

fn unread(ended: &Ended) -> Outcome {
    tracing::warn!(said = ended.said(), "a device could not be read");
    Outcome::Unknown(UnknownWhy::ReadFailed)
}

fn did_not_read(ended: &Ended) -> Outcome {
    match &ended.ending {
        Ending::TimedOut => retry(LATER, RetryWhy::TimedOut),
        Ending::Stuck | Ending::Behind => stuck(),
        Ending::NotStarted(_) => not_done(ended),
        Ending::Signalled(_) | Ending::Exited(_) => unread(ended),
    }
}
